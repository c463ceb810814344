#!/usr/bin/env python3
"""test_gpu.py: training on the GPUs of this machine, against the CPU backend and against itself. Where there is no GPU,
that -device cuda is refused and -device auto goes on with the CPU; the kernels are then tested in simulation alone
(test_simulation.py). C3_TEST_GPUS and C3_TEST_TRAIN name another number of GPUs and another program, to try this file.

Tolerances against the CPU backend, as in test_simulation.py: fp32 losses within 1e-5, the first gradient norm within
1e-6; bf16 losses within twice the CPU backend's own spread between splits of the batch. Bit-equality between ranks is
NCCL's for one algorithm and protocol only, so these are fixed here.
"""
import os
import shutil
import subprocess

from harness import ROOT, TRAIN, Folder, case, done, log, losses, make_shards, model_bytes, run

PROGRAM = os.environ.get("C3_TEST_TRAIN", TRAIN)
STEPS = 12
COMMON = ["-preset", "tiny", "-vocab", 512, "-n", 4, "-steps", STEPS, "-lr", "1e-4", "-eps", "1e-6", "-warmup", 5,
          "-save_every", 0, "-val_every", 0, "-threads", 1]
os.environ |= {"NCCL_ALGO": "Ring", "NCCL_PROTO": "Simple"}


def gpus():
    if "C3_TEST_GPUS" in os.environ:
        return int(os.environ["C3_TEST_GPUS"])
    try:
        r = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in r.stdout.splitlines()) if r.returncode == 0 else 0


class Runs:
    def __init__(self, folder):
        self.folder = folder
        self.data = make_shards(folder, "pages", 40, seed=1, vocab=512, shards=2, shortest=3, longest=12)

    def train(self, device, dtype, options, ranks=1, out=None):
        out = out or os.path.join(self.folder, f"run{len(os.listdir(self.folder))}")
        run(PROGRAM, COMMON + ["-data", self.data, "-o", out, "-device", device, "-dtype", dtype] + options, ranks,
            timeout=600)
        return out


def relative(a, b):
    return max(abs(x - y) / abs(y) for x, y in zip(a, b, strict=True))


def same(a, b):
    return losses(a) == losses(b) and model_bytes(a, STEPS) == model_bytes(b, STEPS)


def against_cpu(runs, ranks):
    pages = 4
    for dtype in ("fp32", "bf16"):
        splits = [losses(runs.train("cpu", dtype, ["-b", b, "-g", pages // b])) for b in (1, 2, 4)]
        spread = max(relative(a, b) for a in splits for b in splits)
        allowed = 1e-5 if dtype == "fp32" else 2 * spread
        cpu = runs.train("cpu", dtype, ["-b", 2, "-g", pages // 2 // ranks], ranks)
        gpu = runs.train("cuda", dtype, ["-b", 2, "-g", pages // 2 // ranks], ranks)
        far = relative(losses(gpu), losses(cpu))
        case(f"{dtype}, {ranks} GPU(s): losses of {STEPS} steps as the CPU's", far <= allowed,
             f"differ by {far:.1e}, allowed {allowed:.1e}")
        if dtype == "fp32":
            norms = [log(out)[1]["grad_norm"] for out in (gpu, cpu)]
            far = abs(norms[0] - norms[1]) / norms[1]
            case(f"fp32, {ranks} GPU(s): first gradient norm as the CPU's", far <= 1e-6, f"differs by {far:.1e}")


def against_itself(runs, ranks):
    base = runs.train("cuda", "bf16", ["-b", 2, "-g", 2, "-fuse", 1, "-recompute", "none"], ranks)
    variants = [["-recompute", "cheap"], ["-recompute", "layer"]] + ([["-zero", 0]] if ranks > 1 else [])
    for options in variants:
        out = runs.train("cuda", "bf16", ["-b", 2, "-g", 2, "-fuse", 1] + options, ranks)
        case(f"bf16, {ranks} GPU(s): {' '.join(map(str, options))} is bit-equal", same(base, out))
    again = ["-b", 2, "-g", 2, "-fuse", 1, "-recompute", "none", "-save_every", 5, "-keep", 0]
    saved = runs.train("cuda", "bf16", again, ranks)
    resumed = os.path.join(runs.folder, f"resumed{ranks}")
    os.makedirs(resumed)
    shutil.copytree(os.path.join(saved, "step_00000005"), os.path.join(resumed, "step_00000005"))
    shutil.copy(os.path.join(saved, "log.jsonl"), resumed)
    runs.train("cuda", "bf16", again, ranks, resumed)
    case(f"bf16, {ranks} GPU(s): resumed at step 5: bit-equal", same(base, resumed) and same(base, saved))
    other = runs.train("cuda", "bf16", ["-b", 2, "-g", 2, "-fuse", 1, "-seed", 2], ranks)
    case(f"bf16, {ranks} GPU(s): another seed is not (the comparison can fail)", not same(base, other))


def without(runs):
    options = COMMON + ["-data", runs.data, "-o", os.path.join(runs.folder, "none"), "-b", 1, "-g", 1]
    for ranks in (1, 2):
        r = run(PROGRAM, options + ["-device", "cuda"], ranks, check=False)
        said = [line for line in r.stderr.splitlines() if line.startswith("train_c3: -device cuda: ")]
        case(f"no GPU here: -device cuda with {ranks} rank(s) is refused in one line", r.returncode != 0 and
             len(said) == 1, r.stderr)
    r = run(PROGRAM, options + ["-steps", 1])
    case("no GPU here: -device auto computes on the CPU", "cpu " in r.stdout, r.stdout)


def main():
    count = gpus()
    print(f"{count} GPU(s) here" + ("" if count else ": see test_simulation.py for the kernels"))
    with Folder() as folder:
        runs = Runs(folder)
        if not count:
            without(runs)
        for ranks in (1, 2):
            if ranks <= count:
                against_cpu(runs, ranks)
                against_itself(runs, ranks)
    if count:
        program = os.path.join(ROOT, "build/test/test_ops")
        r = subprocess.run([program, "-device", "cuda"], text=True, capture_output=True)
        case("every operation on the GPU", r.returncode == 0, r.stdout[-3000:])
    done()


main()
