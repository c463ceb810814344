#!/usr/bin/env python3
"""test_gpu_check.py: scripts/gpu_check.sh as it runs from a bundle, in a bundle of this test's own: the simulated trainer,
operation tests and parity checker in place of a card's, and programs that fail, hang and flood in place of the rest."""
import os
import re
import shutil
import subprocess

from harness import ROOT, TOKENIZER, Folder, case, done, make_shards

SIM = os.path.join(ROOT, "build/cudasim/opt")
OPERATIONS = ["norm", "weighted_sum"]  # short ones


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, 0o755)


def make_bundle(tree):
    """What scripts/bundle.sh makes, with other programs behind the names."""
    for name in ("scripts/gpu_check.sh", "scripts/common.sh"):
        os.makedirs(os.path.join(tree, "scripts"), exist_ok=True)
        shutil.copy(os.path.join(ROOT, name), os.path.join(tree, name))
    write(f"{tree}/MANIFEST", "")
    write(f"{tree}/train_c3", f'#!/bin/bash\nexec {SIM}/train_c3 "$@" -vocab 512 -n 4 -threads 1\n')
    listed = "\\n".join([*OPERATIONS, "broken", "hanging"])
    write(f"{tree}/build/test/test_ops", f"""#!/bin/bash
case "$*" in
-list) printf '{listed}\\n' ;;
*broken) echo "1 passed, 1 failed"; exit 1 ;;
*"bf16 -only hanging") sleep 600 ;;
*hanging) echo "1 passed, 0 failed" ;;
*) exec {SIM}/test_ops "$@" ;;
esac
""")
    write(f"{tree}/build/test/parity_check", f'#!/bin/bash\nexec {SIM}/parity_check "$@"\n')
    write(f"{tree}/build/dev/cuda/bench", """#!/bin/bash
case "$*" in *8112*) head -c 2000000 /dev/zero | tr '\\0' x; echo; echo "51 passed, 0 failed" ;; *) kill -SEGV $$ ;; esac
""")
    write(f"{tree}/test/test_gpu.py", "print('7 passed, 0 failed')\n")
    write(f"{tree}/dev/bench_torch.py", "raise SystemExit('no card')\n")
    os.makedirs(f"{tree}/data/qwen2.5")
    os.symlink(TOKENIZER, f"{tree}/data/qwen2.5/qwen.tiktoken")
    os.makedirs(f"{tree}/data/bundle")
    make_shards(f"{tree}/data/bundle", "pages_", 40, seed=1, vocab=512, shortest=3, longest=12)
    subprocess.run([os.path.join(ROOT, ".venv/bin/python"), "dev/reference.py", "make", "--out",
                    f"{tree}/data/bundle/parity/own_answer", "--case", "own_answer"], cwd=ROOT, check=True, capture_output=True)
    write(f"{tree}/bin/nvidia-smi", """#!/bin/bash
case "$*" in *name*) echo "NVIDIA Simulated" ;; *memory*) echo 80000 ;; *driver*) echo 580.1 ;; *) echo "a table" ;; esac
""")
    write(f"{tree}/bin/compute-sanitizer", "#!/bin/bash\necho '========= ERROR SUMMARY: 0 errors'\n")


def check(tree, *arguments, **environment):
    env = dict(os.environ, PATH=f"{tree}/bin:{os.environ['PATH']}", PYTHON="python3", C3_CHECK_PRESET="tiny", C3_CHECK_G="1",
               C3_CHECK_OPERATION="10", OMP_NUM_THREADS="1") | environment
    r = subprocess.run(["bash", "scripts/gpu_check.sh", *arguments], cwd=tree, env=env, text=True, capture_output=True,
                       errors="replace", stdin=subprocess.DEVNULL, timeout=900)
    rows = {}
    for line in r.stdout.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 6 and cells[1] not in ("check", "---"):
            rows[cells[1]] = cells[2:5]
    return r, rows


def expect(rows, name, result, cases=""):
    found = rows.get(name, ["no such row", "", ""])
    case(f"{name}: {result}{', ' + cases if cases else ''}", re.search(result, found[0]) and re.search(cases, found[1]), found)


def main():
    subprocess.run(["make", "-s", f"-j{len(os.sched_getaffinity(0))}",
                    *(f"build/cudasim/opt/{name}" for name in ("train_c3", "test_ops", "parity_check"))], cwd=ROOT, check=True)
    with Folder() as folder:
        tree = os.path.join(folder, "bundle")
        make_bundle(tree)
        r, rows = check(tree)
        print("\n".join("   " + line[:160] for line in r.stdout.splitlines()))
        for name in ("card", "version", "plan"):
            expect(rows, name, "^passed$")
        expect(rows, "operations bf16", r"^FAILED: broken \(FAILED, exit code 1\) hanging \(FAILED, over its", "^2 passed$")
        expect(rows, "operations fp32", r"^FAILED: broken \(FAILED, exit code 1\)$", "^3 passed$")
        expect(rows, "parity", "^passed$", "^1 passed")
        expect(rows, "kernels, 7864 rows", "^FAILED, exit code 139$")
        expect(rows, "kernels, 8112 rows", "^passed$", "^51 passed, 0 failed$")
        expect(rows, "PyTorch kernels", "^left out: no PyTorch with CUDA")
        expect(rows, "the paper's step", "^passed$")
        expect(rows, "training", "^passed$", "^7 passed")
        expect(rows, "compute-sanitizer racecheck rmsnorm", "^passed$", "ERROR SUMMARY: 0 errors")
        case("the last line counts, and the exit code says that something failed",
             r.returncode == 1 and re.search(r"^\d+ passed, 3 failed$", r.stdout.splitlines()[-1]), r.stdout[-300:] + r.stderr[-600:])
        logs = [os.path.join(at, name) for at, _, names in os.walk(f"{tree}/build/gpu-check") for name in names]
        case("logs are small enough to be sent", max(map(os.path.getsize, logs)) < 310_000 and len(logs) > 12, logs)
        case("the trainer's own log came along", any(path.endswith("paper/log.jsonl") for path in logs), logs)

        with open(f"{tree}/build/gpu-check/the_paper_s_step.log") as f:
            text = f.read()
        case("the paper's step has a table of times, and a trace", "by kind" in text and "by range" in text and
             any(path.endswith("paper/profile.json.gz") for path in logs), text[-1500:])

        r, rows = check(tree, "-only", "parity")
        case("-only: one row", list(rows) == ["parity"] and r.returncode == 0, rows)
        r, rows = check(tree, "-seconds", "1")
        case("no time: every row says so, and nothing was checked", r.returncode == 2 and rows and
             all(found[0].startswith("left out") for found in rows.values()), rows)
        write(f"{tree}/bin/nvidia-smi", "#!/bin/bash\necho 'no devices were found'\nexit 6\n")
        r, rows = check(tree)
        case("a driver without a GPU: one line, exit code 2", r.returncode == 2 and not rows and
             r.stderr.count("\n") == 1 and "no devices" in r.stderr, r.stderr)
    done()


main()
