#!/usr/bin/env python3
"""Single mutations of CUDA sources: takes away one synchronisation at a time and asks which builds of a test notice.

    dev/cudasim/mutate.py -t TEST [-a "ARGUMENTS"] [-l] [-n FIRST:LAST] FILE.cu...

TEST is a program of build/cudasim/VARIANT (its arguments after -a), FILE a source it is made of. Mutated, each once:
    __syncthreads(), __syncwarp(), __threadfence(), cp_async_commit()     removed
    cp_async_wait<N>()                                                    removed; and <N> made <N + 1>
    cudaStreamWaitEvent, cudaEventRecord, cudaStreamSynchronize, cudaEventSynchronize (in CUDA_CHECK too) removed
The sources are copied to build/mutants; nothing else is touched. -l lists the mutations, -n does some of them.
A mutation that no build notices is a hole in the test, or a synchronisation that is not needed. Exit code: their
number, at most 100.
"""
import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TREE = os.path.join(ROOT, "build/mutants")
RUNS = [("opt", "forward", {}), ("opt", "reverse", {"SIM_ORDER": "reverse"}),
        ("opt", "random", {"SIM_ORDER": "random:1"}),
        ("opt", "lazy", {"SIM_ORDER": "random:2", "SIM_ASYNC": "lazy"}), ("race", "race", {})]
HOST = r"(?:cudaStreamWaitEvent|cudaEventRecord|cudaStreamSynchronize|cudaEventSynchronize)\([^;]*\)"
CALL = re.compile(r"__syncthreads\(\);|__syncwarp\(\);|__threadfence\(\);|cp_async_commit\(\);|"
                  r"cp_async_wait<(\d+)>\(\);|CUDA_CHECK\(" + HOST + r"\);|(?<![\w(])" + HOST + ";")
SECONDS = 600  # of a build, of a run


def mutations(path):
    """(line number, what, text of the whole file) of each."""
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        text = file.read()
    for match in CALL.finditer(text):
        begin = text.rfind("\n", 0, match.start()) + 1
        if "//" in text[begin:match.start()]:
            continue
        line = text.count("\n", 0, match.start()) + 1
        call = " ".join(match[0].rstrip(";").split())
        replacements = [(f"without {call}", ";")]
        if match[1]:
            replacements.append((f"{call} waits for one less", f"cp_async_wait<{int(match[1]) + 1}>();"))
        for what, code in replacements:
            yield line, what, text[:match.start()] + code + text[match.end():]


def copy_tree():
    """The repository as links, but llmc and what was built for the simulation as copies that may change."""
    shutil.rmtree(TREE, ignore_errors=True)
    os.makedirs(os.path.join(TREE, "build"))
    for name in os.listdir(ROOT):
        if name not in (".git", "build", "llmc"):
            os.symlink(os.path.join(ROOT, name), os.path.join(TREE, name))
    for name in ("llmc", "build/cudasim"):
        subprocess.run(["cp", "-a", os.path.join(ROOT, name), os.path.join(TREE, name)], check=True)


def build(folder, targets):
    return subprocess.run(["make", "-s", *targets], cwd=folder, capture_output=True, text=True, timeout=SECONDS)


def noticed(program, arguments, environment):
    """How the run failed, or None."""
    try:
        done = subprocess.run([program, *arguments], cwd=TREE, env={**os.environ, **environment}, timeout=SECONDS,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.TimeoutExpired:
        return "hangs"
    return {0: None, 86: "stopped", 87: "race"}.get(done.returncode, "wrong")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-t", "--test", required=True)
    parser.add_argument("-a", "--arguments", default="")
    parser.add_argument("-l", "--list", action="store_true")
    parser.add_argument("-n", "--number", default=":")
    parser.add_argument("files", nargs="+")
    options = parser.parse_args()
    arguments = shlex.split(options.arguments)
    first, last = options.number.split(":")
    everything = [(path, *m) for path in options.files for m in mutations(os.path.relpath(path, ROOT))]
    chosen = list(enumerate(everything, 1))[int(first or 1) - 1:int(last or len(everything))]
    if options.list:
        for number, (path, line, what, _) in chosen:
            print(f"{number:3d} {path}:{line}: {what}")
        return 0

    targets = [f"build/cudasim/{variant}/{options.test}" for variant in ("opt", "race")]
    made = build(ROOT, targets)
    if made.returncode:
        sys.exit(f"mutate.py: cannot build {' '.join(targets)}:\n{made.stderr}")
    copy_tree()
    sound = [name for variant, name, environment in RUNS
             if noticed(os.path.join(TREE, f"build/cudasim/{variant}/{options.test}"), arguments, environment)]
    if sound:
        sys.exit(f"mutate.py: {options.test} fails without any mutation: {', '.join(sound)}")

    counts, missed = {name: 0 for _, name, _ in RUNS}, 0
    for number, (path, line, what, text) in chosen:
        relative = os.path.relpath(path, ROOT)
        with open(os.path.join(TREE, relative), "w", encoding="utf-8") as file:
            file.write(text)
        made = build(TREE, targets)
        if made.returncode:
            sys.exit(f"mutate.py: {path}:{line}: {what}: does not compile:\n{made.stderr}")
        seen = {}
        for variant, name, environment in RUNS:
            how = noticed(os.path.join(TREE, f"build/cudasim/{variant}/{options.test}"), arguments, environment)
            if how:
                seen[name] = how
                counts[name] += 1
        missed += not seen
        by = ", ".join(name if how == name else f"{name} ({how})" for name, how in seen.items())
        print(f"{number:3d} {path}:{line}: {what}: {by or 'NOT NOTICED'}", flush=True)
        shutil.copyfile(os.path.join(ROOT, relative), os.path.join(TREE, relative))
    print(f"{len(chosen)} mutations, {missed} not noticed; noticed by " +
          ", ".join(f"{name} {n}" for name, n in counts.items()))
    return min(missed, 100)


if __name__ == "__main__":
    sys.exit(main())
