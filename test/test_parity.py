#!/usr/bin/env python3
"""test_parity.py: the model against its PyTorch twin (dev/reference.py), both ways. For each case the twin writes a
random checkpoint, pages and what a step on them gives; parity_check compares (its head says what, and the tolerances).
Then the twin loads what parity_check saved, with transformers' own loader, and must find the same losses.
PARITY_CHECK and PARITY_DEVICE in the environment: another build of parity_check, cuda instead of cpu."""
import os
import shutil
import subprocess
import sys
import tempfile

os.chdir(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, "dev")
os.environ |= {"OMP_NUM_THREADS": "1"}

import reference  # noqa: E402
import torch  # noqa: E402

PROGRAM = os.environ.get("PARITY_CHECK") or os.path.join(os.environ.get("BUILD", "build"), "test/parity_check")
DEVICE = os.environ.get("PARITY_DEVICE", "cpu")
LOSS = 1e-5  # relative norm error of the row losses
passed = failed = 0


def check(name, wrong):
    global passed, failed
    for line in wrong:
        print("  ", line)
    print("FAIL" if wrong else "ok  ", name)
    passed, failed = passed + (not wrong), failed + bool(wrong)


def compare_with_twin(folder, losses):
    """Our trainer's checkpoint, read by transformers: [explanation] when its losses are not `losses`."""
    pages = reference.read_json(os.path.dirname(folder), "pages.json")
    model = reference.load_checkpoint(folder, reference.Words(**pages["words"]))
    pages = reference.read_pages(pages["pages"])
    with torch.no_grad():
        _, _, found = reference.forward(model, pages)
        model.mm_projector.bias.mul_(1.05)  # what this comparison must notice
        _, _, bad = reference.forward(model, pages)
    error, noticed = reference.relative(found, losses), reference.relative(bad, losses)
    wrong = [] if error <= LOSS else [f"row losses: relative error {error:.1e}, allowed {LOSS:.0e}"]
    return wrong + ([] if noticed > LOSS else [f"a changed bias is not noticed: {noticed:.1e}"])


def run_case(folder, case):
    global passed, failed
    done = subprocess.run([PROGRAM, folder, DEVICE], capture_output=True, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    print("\n".join("   " + line for line in lines))
    ours = lines[-1].split() if lines else []
    if len(ours) == 4 and ours[1] == "passed,":
        passed, failed = passed + int(ours[0]), failed + int(ours[2])
    else:
        check(f"{case}: parity_check ends", [f"exit code {done.returncode}"])
        return
    mine = reference.load_file(f"{folder}/saved_losses.safetensors")["row_losses"]
    check(f"{case}: transformers reads the checkpoint after ten steps", compare_with_twin(f"{folder}/saved", mine))
    rounded = reference.load_file(f"{folder}/expected.safetensors")["bf16.row_losses"]
    check(f"{case}: transformers reads the bf16 checkpoint", compare_with_twin(f"{folder}/saved_bf16", rounded))


def main():
    torch.set_num_threads(1)
    folder = tempfile.mkdtemp()
    try:
        for case in reference.CASES:
            reference.make(f"{folder}/{case}", case)
            run_case(f"{folder}/{case}", case)
    finally:
        shutil.rmtree(folder)
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
