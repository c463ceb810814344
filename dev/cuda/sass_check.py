#!/usr/bin/env python3
"""Checks compiled kernels against a budget: registers, spills, shared memory, tensor-core instructions. Needs no GPU.

    dev/cuda/sass_check.py BUDGET.json FILE.cu... [-- NVCC-OPTION...]

The budget:
    {"architectures": [80, 90, 100],
     "all":     {"spills": {"max": 0}},
     "kernels": {"flash_forward_kernel<128>": {"registers": {"max": 168}, "HMMA": {"min": 128},
                                               "sm_90": {"registers": {"max": 177}}}}}
"all" holds for every kernel, "kernels" adds to it by name (without the arguments' types), "sm_NN" overrides for one
architecture. Quantities: registers, stack, spills, shared (static, bytes) and barriers as ptxas reports them; any other
name counts the instructions in the machine code whose name begins so (HMMA, LDSM, LDGSTS, BAR, SHFL, LDL, STL, LDG.E.128).
A kernel that the budget names and no file contains is an error: a budget must not outlive its kernel.
Exit code: 0 all within, 1 not, 2 nothing could be checked.
"""
import collections
import json
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SHOWN = ["registers", "spills", "stack", "shared", "HMMA", "LDSM", "LDGSTS", "BAR"]  # of the table


def stop(message):
    print(f"sass_check.py: {message}", file=sys.stderr)
    sys.exit(2)


def run(command):
    r = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    if r.returncode:
        stop(f"{' '.join(command)} failed:\n{r.stdout}{r.stderr}")
    return r.stdout, r.stderr


class Kernel:
    def __init__(self):
        self.ptxas = {"registers": 0, "stack": 0, "spills": 0, "shared": 0, "barriers": 0}
        self.instructions = collections.Counter()

    def quantity(self, name):
        if name in self.ptxas:
            return self.ptxas[name]
        return sum(n for i, n in self.instructions.items() if i == name or i.startswith(name + "."))


def read_ptxas(log, kernels):
    """The report of nvcc -Xptxas -v: three lines a kernel."""
    current = None
    for line in log.splitlines():
        if m := re.search(r"Compiling entry function '(\w+)'", line):
            current = kernels[m[1]].ptxas
        elif current is None:
            continue
        elif m := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            current["stack"], current["spills"] = int(m[1]), int(m[2]) + int(m[3])
        elif m := re.search(r"Used (\d+) registers", line):
            current["registers"] = int(m[1])
            for key, pattern in ("shared", r"(\d+) bytes smem"), ("barriers", r"used (\d+) barriers"):
                if n := re.search(pattern, line):
                    current[key] = int(n[1])
            current = None


def read_sass(text, kernels):
    """nvdisasm's listing: a section .text.NAME a kernel, an instruction a line after its address."""
    current = None
    for line in text.splitlines():
        if m := re.match(r"\s*\.section\s+\.text\.(\w+)", line):
            current = kernels[m[1]].instructions
        elif m := re.match(r"\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", line):
            if current is not None:
                current[m[1]] += 1


def compile_kernels(nvcc, nvdisasm, source, arch, options):
    kernels = collections.defaultdict(Kernel)
    with tempfile.TemporaryDirectory() as folder:
        cubin = os.path.join(folder, "out.cubin")
        _, log = run([nvcc, "-std=c++17", "-O3", f"-arch=sm_{arch}", "-I.", "-Xptxas", "-v", "-cubin", *options, source,
                      "-o", cubin])
        read_ptxas(log, kernels)
        read_sass(run([nvdisasm, cubin])[0], kernels)
    names = list(kernels)
    readable = run(["c++filt", *names])[0].splitlines() if names else []
    return {re.sub(r"\(.*", "", re.sub(r"^void ", "", r.replace("(int)", ""))): kernels[n]
            for n, r in zip(names, readable)}


def rules(budget, name, arch):
    own = budget.get("kernels", {}).get(name, {})
    merged = {**budget.get("all", {}), **{k: v for k, v in own.items() if not k.startswith("sm_")}}
    return {**merged, **own.get(f"sm_{arch}", {})}


def violations(kernel, limits):
    for key, limit in limits.items():
        value = kernel.quantity(key)
        if value > limit.get("max", value):
            yield f"{key} {value} > {limit['max']}"
        if value < limit.get("min", value):
            yield f"{key} {value} < {limit['min']}"


def check_form(budget):
    blocks = [budget.get("all", {})]
    for own in budget.get("kernels", {}).values():
        blocks += [{k: v for k, v in own.items() if not k.startswith("sm_")}]
        blocks += [v for k, v in own.items() if k.startswith("sm_")]
    for key in budget:
        if key not in ("architectures", "all", "kernels"):
            stop(f"unknown key '{key}' in the budget (hint: architectures, all, kernels)")
    for block in blocks:
        for key, limit in block.items():
            if not isinstance(limit, dict) or not limit or set(limit) - {"max", "min"}:
                stop(f'{key}: {limit} in the budget (hint: {{"max": N}}, {{"min": N}} or both)')


def main():
    args = sys.argv[1:]
    options = args[args.index("--") + 1:] if "--" in args else []
    args = args[:args.index("--")] if "--" in args else args
    if len(args) < 2 or args[0].startswith("-"):
        print(__doc__)
        sys.exit(2)
    try:
        with open(args[0]) as f:
            budget = json.load(f)
    except (OSError, ValueError) as e:
        stop(f"{args[0]}: {e}")
    check_form(budget)
    toolkit = run(["bash", "dev/cuda/get_toolkit.sh"])[0].strip()
    nvdisasm = run(["bash", "dev/cuda/get_toolkit.sh", "nvdisasm"])[0].strip()

    bad, checked, found = 0, 0, set()
    for arch in budget.get("architectures", [80, 90, 100]):
        for source in args[1:]:
            kernels = compile_kernels(os.path.join(toolkit, "bin/nvcc"), nvdisasm, os.path.relpath(source, ROOT), arch, options)
            for name, kernel in sorted(kernels.items()):
                found.add(name)
                checked += 1
                wrong = list(violations(kernel, rules(budget, name, arch)))
                bad += bool(wrong)
                columns = "  ".join(f"{q} {kernel.quantity(q):4d}" for q in SHOWN)
                print(f"{'FAIL' if wrong else 'ok  '} sm_{arch:<3} {name:40s} {columns}" +
                      (f"   {'; '.join(wrong)}" if wrong else ""))
    for name in sorted(set(budget.get("kernels", {})) - found):
        bad += 1
        print(f"FAIL {name} is in the budget and in no file")
    if not checked:
        stop("no kernels in these files")
    print(f"{checked} kernels checked, {bad} outside their budget")
    sys.exit(bad != 0)


if __name__ == "__main__":
    main()
