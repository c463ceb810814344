"""Every command line that README.md, the other docs, -h of both programs, the heads of the scripts and their last words
print is run as it stands there, in the order of the docs, in one folder that looks like a checkout after the demo. Left
out is what NOT_RUN names, each with its reason.

What would train for hours is asked to stop (SIGUSR1) once its first step is in the log, and must save and end well.
"""
import glob
import os
import random
import re
import shlex
import shutil
import signal
import subprocess

from harness import C3, ROOT, TRAIN, Folder, case, done, environment, make_pages, run, wait_for

NOT_RUN = {
    "bash scripts/demo.sh": "minutes: test_demo.py runs it",
    "bash scripts/test.sh": "runs this test",
    "bash scripts/test.sh -k shard": "builds all of it: test_runner.py tries the runner",
    "bash scripts/gpu_check.sh": "needs a GPU",
    "bash scripts/gpu_check.sh -seconds 500": "needs a GPU",
    "bash scripts/gpu_check.sh -only parity": "needs a GPU",
    "bash scripts/gpu_check.sh -o DIR": "needs a GPU",
    "mpirun -np 8 ./train_c3 -b 2 -g 16 -steps 5 -no_save -tune -o runs/tune": "needs a GPU",
    "mpirun -np 8 ./train_c3 -b 2 -g 16 -lr 1e-5 -steps 40000 -algorithms runs/tune/algorithms.json": "needs a GPU",
    "bash scripts/bundle.sh": "minutes of nvcc",
    "bash scripts/bundle.sh -data": "a download: the demo's texts",
    "mpirun -np 8 mpi/train_c3 ...": "stands for a line of one's own",
    "bash data/make_demo.sh": "a download: the demo does it",
    "bash scripts/finetune.sh runs/demo documents -o runs/mine": "minutes: test_run_scripts.sh does it, in few steps",
    "bash scripts/finetune.sh runs/demo data/cache/vietnamese/usr/share/doc/maint-guide-vi/{html,*.pdf} -o runs/vietnamese "
    "-old data/demo/val_en.jsonl -old data/demo/val_zh.jsonl -rehearse 'data/demo/train_*.bin'": "minutes, and a download",
    "./c3 info -check tuned": "of a model that Python writes: test_python_door.py runs it",
    "./c3 decompress -m runs/NAME mixture.c3 -trust": "of latents that Python writes: test_python_door.py runs it",
    "bash scripts/get_models.sh": "a download of 9 GB: test_hub.py runs it on a hub of its own",
    "bash scripts/study.sh": "hours: test_study.py runs two points of seconds",
    "bash scripts/study.sh -quick": "a quarter of an hour",
    "bash scripts/study.sh -only NAME": "minutes",
    "bash scripts/setup.sh corpus": "installs packages: scripts/test.sh does it",
    "bash scripts/setup.sh test": "installs packages: scripts/test.sh does it",
    "make -j": "minutes: scripts/test.sh does it",
    "make format": "changes files",
    "make docs": "changes files",
    "make cudasim": "minutes: test_cudasim.sh does it",
    "make cudasim_products": "minutes: test_simulation.py does it",
    "bash test/test_cudasim.sh": "is a test by itself",
}
# What a model that has learned nothing yet answers by right.
MAY_FAIL = {"-verify": (1, "came back exactly")}

COMMAND = r"(?:bash|\.venv/bin/python data/corpus\.py|python3|make|mpirun|\./c3|\./train_c3|echo \"[^\"]*\" \| \./c3) .+?"
# Behind two spaces or a # stands what it is for.
LINE = re.compile(rf"({COMMAND})(?:\s{{2,}}.*|\s+#.*)?")


def commands_of_markdown(path):
    with open(os.path.join(ROOT, path)) as f:
        text = f.read()
    for line in text.split("\n"):
        found = LINE.fullmatch(line[4:] if line.startswith("    ") else line[2:] if line.startswith("$ ") else "")
        if found:
            yield found[1]
        for span in re.findall(r"`([^`]+)`", line):  # in a sentence; a word or two are the name of a thing
            if re.fullmatch(COMMAND, span) and not re.fullmatch(r"\./c3 \w+|bash|mpirun --bind-to none", span):
                yield span


def commands_of_help():
    for line in run(TRAIN, ["-h"]).stdout.split("\n"):
        found = LINE.fullmatch(line[2:] if line.startswith("  ") else "")
        if found:
            yield found[1]
    for name in re.findall(r"^  (\w+)", run(C3, ["-h"]).stdout, re.M):
        example = re.search(r"^example: (.*)$", run(C3, [name, "-h"]).stdout, re.M)
        if case(f"c3 {name} -h gives an example", example):
            yield example[1]


def commands_of_script(path):
    """Usage lines of its head, and what it prints last (cat <<TXT ... TXT)."""
    with open(os.path.join(ROOT, path)) as f:
        text = f.read()
    names = dict(re.findall(r"^(\w+)=(\S+)$", text, re.M))
    printed = [line for block in re.findall(r"^cat <<TXT\n(.*?)^TXT$", text, re.M | re.S) for line in block.split("\n")]
    head = [line[1:] for line in text.split("\n\n")[0].split("\n") if line.startswith("#   ")]
    for line in head + printed:
        found = LINE.fullmatch(re.sub(r"\$(\w+)", lambda m: names.get(m[1], m[0]), line.strip()))
        if found and not re.search(r"\[|\.\.\.", found[1]):  # [options] and NAME... are synopses
            yield found[1]


def collect():
    found = []
    for path in ["README.md", *sorted(glob.glob("docs/*.md", root_dir=ROOT)), "data/README.md", "dev/cudasim/README.md",
                 "CONTRIBUTING.md"]:
        found += [(c, path) for c in commands_of_markdown(path)]
    found += [(c, "-h") for c in commands_of_help()]
    for path in sorted(glob.glob("scripts/*.sh", root_dir=ROOT) + glob.glob("data/*.sh", root_dir=ROOT)):
        found += [(c, path) for c in commands_of_script(path)]
    first = {}
    for command, where in found:
        first.setdefault(command, where)
    return first


def checkout(folder):
    """The programs, the demo's data and a model that began to learn from it; the placeholders of the docs as files."""
    for name in ("train_c3", "c3", "scripts", "test", "dev", ".venv", "Makefile"):
        os.symlink(os.path.join(ROOT, name), os.path.join(folder, name))
    os.makedirs(os.path.join(folder, "data/demo"))
    for path in glob.glob("data/*.sh", root_dir=ROOT) + glob.glob("data/*.py", root_dir=ROOT) + ["data/qwen2.5"]:
        os.symlink(os.path.join(ROOT, path), os.path.join(folder, path))
    with open(os.path.join(ROOT, "scripts/demo.sh")) as f:
        vocabulary = re.search(r"c3 tokenize .* -vocab (\d+)", f.read())[1]
    for name, pages in (("train", 300), ("val_en", 6), ("val_zh", 6)):
        jsonl = os.path.join(folder, f"data/demo/{name}.jsonl")
        make_pages(jsonl, pages, seed=pages, shortest=6, longest=24)
        run(C3, ["tokenize", "-tok", "data/qwen2.5/qwen.tiktoken", "-vocab", vocabulary, "-o", f"data/demo/{name}",
                 jsonl], cwd=folder)
    run(TRAIN, ["-preset", "demo", "-data", "data/demo/train_*.bin", "-val", "data/demo/val_*.bin", "-o", "runs/demo",
                "-steps", 2, "-b", 8, "-g", 1], cwd=folder)
    shutil.copytree(os.path.join(folder, "runs/demo"), os.path.join(folder, "runs/NAME"))
    for name in ("PAGES.jsonl", "pages.jsonl"):
        make_pages(os.path.join(folder, name), 40, seed=9, shortest=6, longest=24)
    with open(os.path.join(folder, "QA.jsonl"), "w") as f:
        f.writelines(f'{{"context": "the sea was calm {i}", "prompt": "What was the sea?", "answer": "calm"}}\n' for i in range(20))
    for name in ("page.txt", "book.txt", "FILE"):
        with open(os.path.join(folder, name), "w") as f:
            f.write("The sea was calm and a small boat went out in the morning.\n")
    # the paper's models and pages: of its names, not of its size
    for part, name in (("encoder", "Qwen2.5-1.5B"), ("decoder", "Qwen2.5-3B")):
        run(C3, ["extract", "-m", "runs/demo", "-part", part, "-o", f"models/{name}"], cwd=folder)
    os.makedirs(os.path.join(folder, "data/ocr"))
    shutil.copy(os.path.join(folder, "data/demo/train_00000.bin"), os.path.join(folder, "data/ocr"))
    # documents: each of some pages
    rng = random.Random(5)
    os.makedirs(os.path.join(folder, "documents"))
    for i in range(24):
        script = "en" if i % 2 else "zh"
        word = lambda: rng.choice("bcdfgklmnprst") + rng.choice("aeiou") + rng.choice("nrst") if rng.random() < 0.8 else "the"
        line = lambda: (" ".join(word() for _ in range(14)) + ". " if script == "en" else
                        "".join(chr(rng.randint(0x4e00, 0x5fff)) for _ in range(20)) + "。")
        with open(os.path.join(folder, f"documents/{script}{i}.txt"), "w") as f:
            f.write("\n\n".join("".join(line() for _ in range(8)) for _ in range(20)))


def trains(command):
    return "train_c3" in command and "-steps" in command and "-plan" not in command


def steps_logged(folder):
    return sum(open(path).read().count('"loss"') for path in glob.glob(os.path.join(folder, "runs/*/log.jsonl")))


def start_and_stop(command, folder, env):
    before = steps_logged(folder)
    p = subprocess.Popen(shlex.split(command), cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True, errors="replace")
    wait_for(lambda: p.poll() is not None or steps_logged(folder) > before, 200)
    p.send_signal(signal.SIGUSR1)
    try:
        said = p.communicate(timeout=200)[0]
    except subprocess.TimeoutExpired:
        p.kill()
        return 124, p.communicate()[0]
    return p.returncode, said if re.search(r"^(stopped|done) at step", said, re.M) else said + "\n(nothing was saved)"


def try_command(command, where, folder):
    env = dict(environment(), CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1")
    if trains(command):
        code, said = start_and_stop(command, folder, env)
    else:
        r = subprocess.run(["bash", "-c", command], cwd=folder, env=env, stdin=subprocess.DEVNULL, timeout=300,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        code, said = r.returncode, r.stdout
    by_right = any(word in command and code == allowed and words in said
                   for word, (allowed, words) in MAY_FAIL.items())
    case(f"{where}: {command}", (code == 0 or by_right) and "(nothing was saved)" not in said, f"exit {code}\n{said[-1500:]}")


printed = collect()
case("the collection sees README's lines, inline code, -h, heads and last words of scripts",
     {"mpirun -np 8 ./train_c3 -b 2 -g 16 -lr 1e-5 -steps 40000", "./train_c3 -h", "./c3 info -check runs/NAME",
      "./c3 eval -m runs/NAME PAGES.jsonl -o OUT", "./c3 info -check runs/demo"} <= set(printed) and
     len(printed) > 30,
     "\n".join(printed))
case("what is not run is printed somewhere", set(NOT_RUN) <= set(printed), set(NOT_RUN) - set(printed))
with Folder() as tmp:
    checkout(tmp)
    for printed_command, place in printed.items():
        if printed_command not in NOT_RUN:
            try_command(printed_command, place, tmp)
done()
