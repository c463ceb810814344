"""What goes wrong around the trainer: bad input (one line, non-zero exit, two seconds of work, every rank), signals, the stop
file, kill -9 at random moments, a full disk, a loss that is not finite."""
import glob
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import time

from harness import (C3, TOKENIZER, TRAIN, Folder, case, checkpoints, cpu_seconds, done, log, losses, make_pages,
                     make_shards, model_bytes, run, start, wait_for)

TINY = ["-preset", "tiny", "-n", 8, "-threads", 1, "-warmup", 2, "-val_every", 0]


def refuse(name, args, words, program=TRAIN, ranks=1, seconds=2.0):
    """One line on stderr with all the words in it, a non-zero exit, in time. mpirun starts and adds lines of its own."""
    begin = cpu_seconds()
    r = run(program, args, ranks, check=False)
    took = cpu_seconds() - begin
    prefix = os.path.basename(program) + ": "
    ours = [line for line in r.stderr.splitlines() if line.startswith(prefix)]
    one = len(ours) == 1 and (ranks > 1 or len(r.stderr.splitlines()) == 1)
    missing = [w for w in words if not any(w in line for line in ours)]
    limit = seconds if ranks == 1 else seconds * ranks + 1.5  # the launcher's own start and end
    case(f"{name}" + (f", {ranks} ranks" if ranks > 1 else ""), r.returncode not in (0, -11, -6) and one and
         not missing and took < limit, f"exit {r.returncode}, {took:.1f} s of work, missing {missing}\n{r.stderr[-600:]}")


def copy_with(path, new, offset, data):
    shutil.copy(path, new)
    with open(new, "r+b") as f:
        f.seek(offset)
        f.write(data)
    return new


def bad_options(out):
    base = TINY + ["-o", out]
    refuse("-b 0", base + ["-b", 0], ["-b", "1 to"])
    refuse("-lr abc", base + ["-lr", "abc"], ["-lr", "abc"])
    refuse("-lr nan", base + ["-lr", "nan"], ["-lr", "nan"])
    refuse("-steps 1e3", base + ["-steps", "1e3"], ["-steps", "whole number"])
    refuse("an unknown option", base + ["-stpes", 5], ["-stpes", "-steps"])
    refuse("a value left out", base + ["-lr"], ["-lr", "expected a value"])
    refuse("what the shell makes of an unquoted pattern", base + ["-data", "d/a.bin", "d/b.bin", "d/c.bin"],
           ["unexpected word \"d/b.bin\" after -data d/a.bin", "quote a pattern: -data '*.bin'"])
    refuse("a word that belongs to no option", ["x"] + base,
           ["unexpected word \"x\""])
    refuse("-m and -preset", base + ["-m", "x"], ["-preset is a model from nothing", "found -m"])


def bad_data(folder, out, shard):
    base = TINY + ["-o", out, "-steps", 2]
    copy = os.path.join(folder, "bad.bin")
    refuse("no shard at the glob", base + ["-data", os.path.join(folder, "none_*.bin")], ["none_*.bin"])
    refuse("no shard at the glob", base + ["-data", os.path.join(folder, "none_*.bin")], ["none_*.bin"], ranks=2)
    open(copy, "wb").close()
    refuse("an empty shard", base + ["-data", copy], ["bad.bin"])
    with open(shard, "rb") as f:
        whole = f.read()
    with open(copy, "wb") as f:
        f.write(whole[:len(whole) // 2])
    refuse("a truncated shard", base + ["-data", copy], ["bad.bin", "expected", "found"])
    refuse("a truncated shard", base + ["-data", copy], ["bad.bin"], ranks=2)
    copy_with(shard, copy, len(whole) - 3, b"\x55\x55")
    refuse("a shard with a wrong checksum", base + ["-data", copy], ["bad.bin", "CRC-32", "expected", "found"])
    copy_with(shard, copy, 0, b"NOTASHARD")
    refuse("a foreign file as shard", base + ["-data", copy], ["bad.bin"])
    make_pages(os.path.join(folder, "long.jsonl"), 5, 3, shortest=300, longest=320)
    run(C3, ["tokenize", "-tok", TOKENIZER, "-vocab", 4096, "-o", os.path.join(folder, "long"),
             os.path.join(folder, "long.jsonl")])
    refuse("only pages longer than -maxlen", base + ["-data", os.path.join(folder, "long*.bin"), "-maxlen", 100],
           ["long", "maxlen"])
    other = make_shards(folder, "vocab", 20, seed=9, vocab=5000)
    refuse("a shard of another vocabulary", base + ["-vocab", 4096, "-data", other], ["tokenizer"])


def skipped_pages(folder, out, shard):
    r = run(TRAIN, TINY + ["-o", out, "-steps", 1, "-b", 2, "-g", 1, "-maxlen", 100, "-save_every", 0, "-data", ",".join(
        [shard, os.path.join(folder, "long_00000.bin")])])
    said = [line for line in r.stdout.splitlines() if "left out" in line]
    case("pages longer than -maxlen are counted and said once", len(said) == 1 and
         re.search(r"; ([1-9]\d*) of (\d+) pages with [1-9][\d,]* of [\d,]+ tokens \((\d+\.\d) %\) longer than "
                   r"-maxlen 100 left out", said[0]) and r.stdout.count("warning: much of the text is not used") == 1,
         r.stdout)


def what_the_data_says(folder, out):
    names = os.path.join(folder, "said")
    jsonl = names + ".jsonl"
    with open(jsonl, "w") as f:
        f.writelines(json.dumps({"text": f"page {n} of a few"}) + "\n" for n in range(6))
    run(C3, ["tokenize", "-tok", TOKENIZER, "-vocab", 4096, "-shard_tokens", 12, "-o", names, jsonl])
    shards = sorted(glob.glob(names + "_*.bin"))
    for path in shards:
        os.utime(path, (time.time() - 100,) * 2)
    plan = TINY + ["-plan", "-steps", 1, "-b", 1, "-g", 1, "-data"]
    first, again = (run(TRAIN, plan + [names + "_*.bin", "-val", shards[0]]).stdout for _ in range(2))
    case("a remembered check is said to be one", first.count("remembered") == 1 and  # of the validation's file
         f"checksums of {len(shards)} file(s) not computed, an earlier check is remembered" in again and
         "checksums of 1 file(s) not computed" in again, again)
    case("the validation pages are said, and that its files are a part", f"{len(shards) - 1} more file(s) of the same "
         "data are not named" in first and "  validation     " in first, first)
    os.remove(shards[1])
    refuse("a shard missing from a set", plan + [names + "_*.bin"], ["shards that belong together", "c3 tokenize again"])


def bad_tokenizers(folder, out, shard):
    base = TINY + ["-o", out, "-steps", 2, "-data", shard]
    damaged = os.path.join(folder, "damaged.tiktoken")
    copy_with(TOKENIZER, damaged, 1000, b"!!!!!!!!")
    refuse("a damaged tokenizer", base + ["-tok", damaged], ["damaged.tiktoken"])
    with open(TOKENIZER, "rb") as f, open(damaged, "wb") as g:
        g.write(f.read()[:100000])
    refuse("a truncated tokenizer", base + ["-tok", damaged], ["damaged.tiktoken"])
    refuse("no such tokenizer", base + ["-tok", os.path.join(folder, "none")], ["none"])


def bad_pages(folder):
    path = os.path.join(folder, "odd.jsonl")
    tokenize = ["tokenize", "-tok", TOKENIZER, "-vocab", 4096, "-o", os.path.join(folder, "odd"), path]
    with open(path, "wb") as f:
        f.write(b'{"text":"fine"}\n{"text":"\xff\xfe bad"}\n')
    refuse("invalid UTF-8 in a page", tokenize, ["odd.jsonl", "2", "UTF-8"], program=C3)
    with open(path, "w") as f:
        f.write('{"text":"fine"}\n{"text":""}\n')
    r = run(C3, tokenize)
    case("a page without text is left out and said", "1 pages, " in r.stdout and "1 pages without text were left out" in
         r.stdout, r.stdout)
    with open(path, "w") as f:
        f.write(json.dumps({"text": "a <|im_end|> and <img> in a page"}) + "\n")
    r = run(C3, tokenize)
    ids = []
    with open(os.path.join(folder, "odd_00000.bin"), "rb") as f:
        data = f.read()
    for at in range(1024, len(data) - 3, 4):
        ids.append(struct.unpack_from("<I", data, at)[0])
    case("text that spells <|im_end|> stays text", r.returncode == 0 and not any(4096 <= i <= 4101 for i in ids))


def bad_models(folder, data):
    out = os.path.join(folder, "good")
    run(TRAIN, TINY + ["-o", out, "-steps", 1, "-b", 2, "-g", 1, "-data", data])
    model = os.path.join(out, "step_00000001")
    base = ["-n", 8, "-threads", 1, "-o", os.path.join(folder, "o2"), "-steps", 2, "-b", 2, "-g", 1, "-data", data]
    broken = os.path.join(folder, "broken")

    def fresh():
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(model, broken)
        return os.path.join(broken, "config.json"), os.path.join(broken, "model.safetensors")

    config, weights = fresh()
    with open(config) as f:
        keys = json.load(f)
    for key in ("hidden_size", "latent_token_len", "num_attention_heads"):
        with open(config, "w") as f:
            json.dump({k: v for k, v in keys.items() if k != key}, f)
        refuse(f"config.json without {key}", base + ["-m", broken], ["config.json", key])
    with open(config, "w") as f:
        json.dump(dict(keys, intermediate_size=keys["intermediate_size"] * 2), f)
    refuse("a checkpoint of other shapes", base + ["-m", broken], ["expected", "found"])
    config, weights = fresh()
    with open(weights, "r+b") as f:
        f.truncate(os.path.getsize(weights) // 2)
    refuse("a truncated model file", base + ["-m", broken], ["model.safetensors"])
    config, weights = fresh()
    copy_with(os.path.join(model, "model.safetensors"), weights, 0, struct.pack("<Q", 1 << 60))
    refuse("a model file with a huge header", base + ["-m", broken], ["model.safetensors"])
    refuse("a folder that is no model", base + ["-m", folder], ["config.json"])
    refuse("nothing there: the models and lines that get them", ["-data", "none/*.bin", "-o", out + "x"],
           ["models/Qwen2.5-1.5B", "models/Qwen2.5-3B", "none/*.bin", "c3 tokenize", "-preset"])
    config, weights = fresh()
    first = os.path.getsize(weights) - 4096
    copy_with(os.path.join(model, "model.safetensors"), weights, first, b"\xff\xff" * 64)  # bf16 NaN
    r = run(TRAIN, base + ["-m", broken, "-dtype", "bf16"], check=False)
    lines = [x for x in r.stderr.splitlines() if x.startswith("train_c3: ")]
    case("NaN weights: refused when they are read, by file and tensor; nothing is saved",
         r.returncode == 1 and len(lines) == 1 and "model.safetensors: tensor" in lines[0] and "NaN" in lines[0] and
         not checkpoints(os.path.join(folder, "o2")), r.stderr)


def explodes(folder, data):
    out = os.path.join(folder, "nan")
    r = run(TRAIN, TINY + ["-o", out, "-steps", 60, "-b", 2, "-g", 2, "-data", data, "-lr", "1e6", "-clip", 0,
                           "-schedule", "constant", "-save_every", 1, "-dtype", "fp32"], ranks=2, check=False)
    lines = [x for x in r.stderr.splitlines() if x.startswith("train_c3: ")]
    case("a loss that explodes stops all ranks with one line that names pages", r.returncode != 0 and len(lines) == 1 and
         "not finite" in lines[0] and "page" in lines[0], r.stderr[-800:])


def unwritable(folder, data):
    base = TINY + ["-steps", 3, "-b", 2, "-g", 1, "-data", data]
    blocked = os.path.join(folder, "file")
    open(blocked, "w").close()
    refuse("an output folder that cannot be made", base + ["-o", os.path.join(blocked, "run")], ["file"])
    if os.geteuid() != 0:
        return
    disk, out = os.path.join(folder, "disk"), os.path.join(folder, "disk", "run")
    os.makedirs(disk)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=70m", "tmpfs", disk], capture_output=True).returncode != 0:
        return  # no right to mount here: the file-size limit below says the same
    try:
        run(TRAIN, base + ["-o", out])
        before = model_bytes(out, 3)
        subprocess.run(f"dd if=/dev/zero of={disk}/fill bs=1M 2>/dev/null", shell=True)
        r = run(TRAIN, base + ["-o", out, "-steps", 5], check=False)
        lines = [x for x in r.stderr.splitlines() if x.startswith("train_c3: ")]
        case("a full disk while saving: one line, the old checkpoint is intact", r.returncode == 1 and len(lines) == 1 and
             checkpoints(out) == [3] and model_bytes(out, 3) == before, f"{r.stderr[-500:]} {checkpoints(out)}")
    finally:
        subprocess.run(["umount", disk], capture_output=True)


def stops(folder, data):
    base = TINY + ["-steps", 100000, "-b", 2, "-g", 1, "-data", data, "-save_every", 0]

    def asked(name, ranks, ask):
        out = os.path.join(folder, name.replace(" ", "_"))
        p = start(TRAIN, base + ["-o", out], ranks)
        running = wait_for(lambda: os.path.exists(os.path.join(out, "log.jsonl")) and len(log(out)) > 3, 300)
        ask(p, out)
        try:
            stdout, stderr = p.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL)
            stdout, stderr = p.communicate()
        steps = checkpoints(out)
        case(f"{name}: the step is finished and saved, exit 0", running and p.returncode == 0 and len(steps) == 1 and
             max(log(out)) == steps[0], f"exit {p.returncode} steps {steps}\n{stdout[-300:]}\n{stderr[-300:]}")

    asked("SIGINT to a single process", 1, lambda p, out: p.send_signal(signal.SIGINT))
    asked("SIGUSR1 to mpirun", 2, lambda p, out: p.send_signal(signal.SIGUSR1))
    asked("the file OUT stop", 2, lambda p, out: open(os.path.join(out, "stop"), "w").close())


def kills(folder, data, rounds):
    """kill -9 at random moments, saving included, until the run is through: the same losses and weights."""
    options = TINY + ["-steps", 40, "-b", 2, "-g", 1, "-data", data, "-save_every", 2]
    whole, out = os.path.join(folder, "undisturbed"), os.path.join(folder, "killed")
    begin = cpu_seconds()
    run(TRAIN, options + ["-o", whole])
    work = cpu_seconds() - begin
    rng, killed = random.Random(4), 0
    for _ in range(rounds):
        p = start(TRAIN, options + ["-o", out])
        moment = work * rng.uniform(0.02, 0.6)  # what is resumed takes less than all of it
        while p.poll() is None and cpu_seconds(p.pid) < moment:
            time.sleep(0.002)
        killed += p.poll() is None
        if p.poll() is None:
            os.killpg(p.pid, signal.SIGKILL)
        p.communicate()
        if 40 in checkpoints(out):
            shutil.rmtree(out)  # got through: once more from the start
    run(TRAIN, options + ["-o", out])
    same = losses(out) == losses(whole) and model_bytes(out, 40) == model_bytes(whole, 40)
    case(f"killed {killed} times at random moments: the same losses and weights as undisturbed", killed > rounds // 2
         and same, f"killed {killed}, equal {same}")


def lost_rank(folder, data):
    out = os.path.join(folder, "lost")
    p = start(TRAIN, TINY + ["-steps", 100000, "-b", 2, "-g", 1, "-data", data, "-o", out], 2)
    wait_for(lambda: os.path.exists(os.path.join(out, "log.jsonl")) and len(log(out)) > 3, 300)
    with open(f"/proc/{p.pid}/task/{p.pid}/children") as f:
        ranks = f.read().split()
    if ranks:
        os.kill(int(ranks[-1]), signal.SIGKILL)
    try:
        p.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        p.communicate()
        ranks = []
    case("a rank that dies takes the others with it", bool(ranks) and p.returncode not in (0, None))


with Folder() as tmp:
    data = make_shards(tmp, "pages", 200, seed=1)
    shard = os.path.join(tmp, "pages0_00000.bin")
    output = os.path.join(tmp, "out")
    bad_options(output)
    bad_data(tmp, output, shard)
    skipped_pages(tmp, output, shard)
    what_the_data_says(tmp, output)
    bad_tokenizers(tmp, output, shard)
    bad_pages(tmp)
    bad_models(tmp, data)
    explodes(tmp, data)
    unwritable(tmp, data)
    stops(tmp, data)
    kills(tmp, data, 50)
    lost_rank(tmp, data)
done()
