#!/usr/bin/env python3
"""test_outputs.py: the programs and what their inputs and outputs may be besides plain files: links, pipes, devices,
closed and full streams, files that are cut meanwhile, names that give orders to a terminal."""
import glob
import json
import os
import re
import shutil
import stat
import struct
import subprocess

from harness import (C3, ROOT, TOKENIZER, TRAIN, Folder, case, command, done, environment, leftovers, log, make_pages,
                     make_shards, run, start, wait_for)

SHAPE = ["-preset", "demo", "-n", 16, "-template", "bare", "-tok", TOKENIZER, "-threads", 1, "-b", 2, "-g", 1,
         "-warmup", 2]
ORDERS = "\x1b]0;t\x07\x9b2J\u061c\u202e\u2028\nforged"  # what a name may hold
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def shell(line, timeout=120):
    """A line of bash, in which $C3 and $TRAIN are the programs."""
    env = dict(environment(), C3=C3, TRAIN=TRAIN)
    return subprocess.run(["bash", "-c", line], env=env, cwd=ROOT, timeout=timeout, capture_output=True,
                          stdin=subprocess.DEVNULL)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def kind(path):
    return stat.S_IFMT(os.lstat(path).st_mode)


def full_device(folder):
    """A device that is always full: one of our own, for were this broken, root would replace the system's. None: root
    may not make one."""
    path = os.path.join(folder, "full")
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 7))
        os.close(os.open(path, os.O_WRONLY))
        return path
    except OSError:
        return None if os.geteuid() == 0 else "/dev/full"


def train(folder, data, *more, check=True):
    return run(TRAIN, [*SHAPE, "-data", data, "-o", folder, *more], check=check)


# ---- outputs --------------------------------------------------------------------------------------------------------


def test_places(tmp, model, pages):
    out = f"{tmp}/out"
    os.mkdir(out)
    run(C3, ["compress", "-m", model, "-f", pages, "-o", f"{out}/plain.c3"])
    plain = read(f"{out}/plain.c3")
    compress = f"$C3 compress -m {model} -f {pages} -o"
    decompress = f"$C3 decompress -m {model} -max_new 8 {out}/plain.c3 -o"

    os.symlink("target.c3", f"{out}/link.c3")
    r = shell(f"{compress} {out}/link.c3 && {compress} {out}/link.c3")
    case("compress -o a link: its target is written, the link stays",
         r.returncode == 0 and os.path.islink(f"{out}/link.c3") and read(f"{out}/target.c3") == plain, r)

    os.mkfifo(f"{out}/fifo")
    r = shell(f"cat {out}/fifo > {out}/read & {compress} {out}/fifo && wait")
    case("compress -o a FIFO: its reader gets all of it", r.returncode == 0 and read(f"{out}/read") == plain and
         stat.S_ISFIFO(kind(f"{out}/fifo")), r)
    r = shell(f"{compress} >(cat > {out}/sub) && wait $! && cmp {out}/sub {out}/plain.c3")
    case("compress -o >(command)", r.returncode == 0, r)
    os.symlink("/proc/self/fd/1", f"{out}/stdout")  # as /dev/stdout is
    for name in ("-", f"{out}/stdout", "/dev/fd/1"):
        r = shell(f"{compress} {name}")
        case(f"compress -o {os.path.basename(name)}: the latents alone, what is said goes to stderr",
             r.returncode == 0 and r.stdout == plain and b"latents" in r.stderr, (r.returncode, r.stderr))
    r = shell(f"(echo first; {compress} {out}/stdout; echo last) > {out}/three 2> /dev/null")
    case("compress -o stdout in the middle of a file", read(f"{out}/three") == b"first\n" + plain + b"last\n", r)

    text = shell(f"{decompress} -").stdout
    os.chmod(f"{out}/target.c3", 0o640)
    r = shell(f"{decompress} {out}/link.c3 -verify; test $? -eq 1")
    case("decompress -o a link: written through, the mode kept", r.returncode == 0 and len(text) > 0 and
         read(f"{out}/target.c3") == text and stat.S_IMODE(os.stat(f"{out}/target.c3").st_mode) == 0o640, r)
    r = shell(f"{decompress} {out}/fifo | cat {out}/fifo")
    case("decompress -o a FIFO", r.stdout == text, r)

    full = full_device(out)
    for name, line in (("compress", compress), ("decompress", decompress)):
        r = shell(f"{line} {full}") if full else None
        case(f"{name} -o a full device: exit 1, and it stays one",
             not full or r.returncode == 1 and full.encode() in r.stderr and stat.S_ISCHR(kind(full)), r)
    case("nothing half-written is left", not leftovers(out), leftovers(out))


def test_streams(tmp, model, pages, data):
    """Every command says when what it printed is lost."""
    lines = {
        "info": f"$C3 info {model}", "info -check": f"$C3 info -check {model}",
        "tokenize": f"$C3 tokenize -tok {TOKENIZER} -vocab 2048 -o {tmp}/lost {pages}",
        "compress": f"$C3 compress -m {model} -f {pages} -o {tmp}/lost.c3",
        "decompress": f"$C3 decompress -m {model} -max_new 8 {tmp}/lost.c3",
        "reconstruct": f"$C3 reconstruct -m {model} -limit 1 -max_new 8 -f {pages}",
        "eval": f"$C3 eval -m {model} -limit 1 -max_new 8 {pages} -o {tmp}/lost_eval",
        "extract": f"$C3 extract -m {model} -part decoder -o {tmp}/lost_part",
        "plan": "$C3 plan -preset tiny -gpu h100 -data none", "-h": "$C3 -h", "info -h": "$C3 info -h",
        "train_c3": f"$TRAIN {' '.join(map(str, SHAPE))} -steps 1 -data '{data}' -o {tmp}/lost_run",
        "train_c3 -h": "$TRAIN -h"}  # fmt: skip
    for name, line in lines.items():
        r = shell(f"{line} > /dev/full")
        case(f"{name} > /dev/full: exit 1", r.returncode == 1 and b"standard output" in r.stderr or
             name == "plan" and r.returncode == 1, (r.returncode, r.stderr))  # fmt: skip
        if name == "train_c3":
            case("the run itself is whole", os.path.exists(f"{tmp}/lost_run/step_00000001/COMPLETE"))
    r = shell(f"$C3 info {model} >&-")
    case("info >&-: exit 1", r.returncode == 1 and b"standard output" in r.stderr, r)
    for close in (">&-", "<&- >&-", "<&- >&- 2>&-"):
        shutil.rmtree(f"{tmp}/closed", ignore_errors=True)
        shell(f"$TRAIN {' '.join(map(str, SHAPE))} -steps 2 -data '{data}' -o {tmp}/closed {close}")
        text = read(f"{tmp}/closed/log.jsonl").decode()
        case(f"train_c3 {close}: log.jsonl holds steps alone",
             sorted(log(f"{tmp}/closed")) == [1, 2] and all(x[0] == "{" for x in text.splitlines()), text)


# ---- inputs ---------------------------------------------------------------------------------------------------------


def test_pipes(tmp, model, pages, data):
    """A pipe where a file is expected is refused and not waited for; where pages come from it is welcome."""
    odd = f"{tmp}/odd"
    shutil.copytree(os.path.dirname(model), odd)
    step = f"{odd}/{os.path.basename(model)}"
    resume = f"$TRAIN {' '.join(map(str, SHAPE))} -steps 3 -data '{data}' -o {odd}"
    for file, line in ((f"{odd}/log.jsonl", resume), (f"{step}/config.json", f"$C3 info {step}"),
                       (f"{step}/COMPLETE", resume),
                       (f"{step}/trainer/state.json", resume), (f"{step}/trainer/settings.json", resume),
                       (f"{step}/model.safetensors", f"$C3 reconstruct -m {step} -f {pages}"),
                       (f"{step}/tokenizer.json", f"$C3 reconstruct -m {step} -f {pages}")):
        os.rename(file, f"{tmp}/aside")
        os.mkfifo(file)
        r = shell(line, timeout=60)
        os.unlink(file)
        os.rename(f"{tmp}/aside", file)
        name = os.path.relpath(file, odd)
        case(f"{name} as a FIFO is refused: {line.split()[0][1:].lower()} {line.split()[1]}",
             r.returncode == 1 and os.path.basename(file).encode() in r.stderr, (r.returncode, r.stderr))
    os.mkfifo(f"{tmp}/fifo_00000.bin")
    r = shell(f"$TRAIN {' '.join(map(str, SHAPE))} -steps 1 -data '{tmp}/fifo_*.bin' -o {tmp}/none; "
              f"$C3 info {tmp}/fifo_00000.bin")
    case("so is a shard", r.stderr.count(b"not a regular file") == 2, r)

    r = shell(f"$C3 tokenize -tok {TOKENIZER} -vocab 2048 -o {tmp}/piped <(cat {pages}) && "
              f"cat {pages} | $C3 tokenize -tok {TOKENIZER} -vocab 2048 -o {tmp}/stdin -")
    made = [read(f"{tmp}/{name}_00000.bin") if os.path.exists(f"{tmp}/{name}_00000.bin") else b"" for name in
            ("piped", "stdin")]  # fmt: skip
    case("pages from <(command) and from stdin", r.returncode == 0 and made[0] and made[0] == made[1], r)
    words = f"$C3 reconstruct -m {model} -limit 1 -max_new 4 -json -f"
    r = shell(f"cmp <({words} <(cat {pages})) <({words} {pages})")
    case("reconstruct -f <(command)", r.returncode == 0, r)

    os.mkdir(f"{tmp}/d")
    shutil.copy(f"{tmp}/stdin_00000.bin", f"{tmp}/d/x_00000.bin")
    os.mkdir(f"{tmp}/d/x.new")
    with open(f"{tmp}/d/x.new/.00000.bin.c3-abcdef.tmp", "wb") as f:
        f.write(b"half")
    r = train(f"{tmp}/beside", f"{tmp}/d/*", "-steps", 1, check=False)
    case("what a killed tokenize left is no data, not even for d/*", r.returncode == 0, r.stderr)
    r = shell(f"$C3 tokenize -tok {TOKENIZER} -vocab 2048 -o {tmp}/d/x {pages}")
    case("and the next one clears it away", r.returncode == 0 and os.listdir(f"{tmp}/d") == ["x_00000.bin"],
         os.listdir(f"{tmp}/d"))


def test_cut(tmp):
    """A shard that is cut while the trainer reads it."""
    data = make_shards(tmp, "cut", 400, 9, vocab=2048)
    p = start(TRAIN, [*SHAPE, "-steps", 1000000, "-save_every", 0, "-data", data, "-o", f"{tmp}/cut_run"])
    wait_for(lambda: os.path.exists(f"{tmp}/cut_run/log.jsonl") and len(log(f"{tmp}/cut_run")) > 0, 120)
    os.truncate(glob.glob(data)[0], 4096)
    try:
        _, err = p.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        p.kill()
        _, err = p.communicate()
    case("a shard that is cut ends the run with its name", p.returncode == 1 and "cut0_00000.bin" in err and
         err.count("cut this file short") == 1, (p.returncode, err))


# ---- orders to a terminal -------------------------------------------------------------------------------------------


def raw(*outputs):
    """The first character in any of them that no terminal should get."""
    for data in outputs:
        text = data.decode("utf-8", "surrogateescape")
        found = RAW.search(text) or re.search("[\udc80-\udcff]", text) or re.search("^forged", text, re.M)
        if found:
            return text[max(0, found.start() - 60):found.end() + 20]
    return None


def add_tensor(path, name):
    """Puts one more F32 tensor of one number into a safetensors file."""
    data = read(path)
    n = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8:8 + n]), data[8 + n:]
    header[name] = {"dtype": "F32", "shape": [1], "data_offsets": [len(body), len(body) + 4]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + body + struct.pack("<f", 1))


def test_orders(tmp, model, data):
    evil = f"{tmp}/{ORDERS}"
    os.mkdir(evil)
    pages, step = f"{evil}/{ORDERS}.jsonl", f"{evil}/step"
    with open(pages, "w") as f:
        for i in range(3):
            f.write(json.dumps({"id": f"{ORDERS}{i}", "text": f"page {ORDERS} {i}"}) + "\n")
    shutil.copytree(model, step)
    os.unlink(f"{step}/COMPLETE")
    shutil.rmtree(f"{step}/trainer")
    add_tensor(f"{step}/model.safetensors", f"tensor {ORDERS}")
    eval_dir = f"{evil}/eval"
    for name, args in (("info -check", ["info", "-check", step]), ("info", ["info", step]),
                       ("reconstruct", ["reconstruct", "-m", step, "-max_new", 8, "-f", pages]),
                       ("reconstruct -json", ["reconstruct", "-m", step, "-max_new", 8, "-json", "-f", pages]),
                       ("compress", ["compress", "-m", step, "-f", pages, "-o", f"{evil}/p.c3"]),
                       ("decompress -verify", ["decompress", "-m", step, "-max_new", 8, f"{evil}/p.c3", "-verify",
                                               "-json"]),
                       ("eval", ["eval", "-m", step, "-max_new", 8, pages, "-o", eval_dir]),
                       ("tokenize", ["tokenize", "-tok", TOKENIZER, "-vocab", 2048, "-o", f"{evil}/t", pages]),
                       ("extract", ["extract", "-m", step, "-part", "decoder", "-o", f"{evil}/part"]),
                       ("a wrong option", ["info", f"-{ORDERS}"]), ("a wrong command", [ORDERS]),
                       ("a missing file", ["info", f"{evil}/none"])):  # fmt: skip
        r = subprocess.run(command(C3, args), env=environment(), capture_output=True, timeout=120)
        case(f"{name}: nothing raw is printed", len(r.stdout) + len(r.stderr) > 0 and not raw(r.stdout, r.stderr) and
             (r.returncode == 0 or "wrong" in name or name in ("a missing file", "decompress -verify")),
             (r.returncode, raw(r.stdout, r.stderr), r.stderr))  # fmt: skip
    case("pages.jsonl holds nothing raw", not raw(read(f"{eval_dir}/pages.jsonl")), raw(read(f"{eval_dir}/pages.jsonl")))
    with open(f"{eval_dir}/pages.jsonl") as f:
        lines = [json.loads(line) for line in f]
    case("and still says the same", [p["id"] for p in lines] == [f"{ORDERS}{i}" for i in range(3)], lines)
    for more in (["-steps", 1], ["-steps", 2]):  # the second resumes
        r = subprocess.run(command(TRAIN, [*SHAPE, "-data", data, "-o", f"{evil}/run", *more]), env=environment(),
                           capture_output=True, timeout=120)
        case(f"train_c3 {more[1]}: nothing raw is printed", r.returncode == 0 and not raw(r.stdout, r.stderr),
             (r.returncode, raw(r.stdout, r.stderr), r.stderr))  # fmt: skip


def main():
    with Folder() as tmp:
        pages = f"{tmp}/pages.jsonl"
        make_pages(pages, 6, 3, longest=12)
        data = make_shards(tmp, "train", 40, 1, vocab=2048)
        train(f"{tmp}/run", data, "-steps", 2)
        model = f"{tmp}/run/step_00000002"
        test_places(tmp, model, pages)
        test_streams(tmp, model, pages, data)
        test_pipes(tmp, model, pages, data)
        test_cut(tmp)
        test_orders(tmp, model, data)
    done()


main()
