#!/usr/bin/env python3
"""What style a program can check: lengths, tabs, include guards, leftovers, paths of somebody's machine; that every
header compiles alone and every script parses. One case a file."""
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SKIPPED = {".git", ".venv", ".setup", ".cuda", "build", "models", "runs", "__pycache__", "data/cache", "data/qwen2.5",
           "data/demo", "data/corpus", "data/ocr", "data/study"}  # what .gitignore names
LONG, TOO_LONG, COLUMNS = 600, 700, 120
CODE = (".c", ".h", ".cu", ".cuh", ".py", ".sh")
LEFTOVER = re.compile(r"\b(TO" r"DO|FIX" r"ME)\b")
MACHINE = re.compile(r"(?<![\w.~$}])/(work|root|home|Users|mnt)/\w")


def sources(endings=CODE + (".md", ".mk")):
    for folder, folders, files in os.walk(ROOT):
        inside = os.path.relpath(folder, ROOT)
        folders[:] = sorted(name for name in folders if os.path.normpath(os.path.join(inside, name)) not in SKIPPED
                            and name not in SKIPPED and not os.path.islink(os.path.join(folder, name)))
        for name in sorted(files):
            path = os.path.normpath(os.path.join(inside, name))
            if name.endswith(endings) or name == "Makefile" or path == ".ci/run":
                yield path


def text_faults(path, text):
    """Lines with a fault, as (line number, fault)."""
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if LEFTOVER.search(line):
            yield number, "left for later: do it, or say why not"
        if MACHINE.search(line):
            yield number, "a path of one machine"
        if line != line.rstrip():
            yield number, "white space at the end"
        if "\t" in line and not path.endswith((".mk", "Makefile")):
            yield number, "a tab"
        if len(line) > COLUMNS and path.endswith(CODE) and not path.endswith((".py", ".sh")):
            yield number, f"{len(line)} columns, at most {COLUMNS}"
    if not text.endswith("\n") or text.endswith("\n\n"):
        yield len(lines), "does not end with one newline"
    if len(lines) - 1 > TOO_LONG and path.endswith(CODE):
        yield len(lines), f"{len(lines) - 1} lines: a file has one subject and stays under {LONG}"


def guard_fault(text):
    code = [line for line in text.split("\n") if line.strip() and not line.startswith("//")]
    opening = re.fullmatch(r"#ifndef (\w+_H)", code[0]) if code else None
    if not opening or code[1] != f"#define {opening[1]}" or not code[-1].startswith("#endif"):
        return None, "no include guard around all of it (#ifndef NAME_H, #define NAME_H, ..., #endif)"
    return opening[1], None


def command_fault(*command):
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    return (done.stdout + done.stderr).strip() if done.returncode else None


def tools_faults(files):
    """What the formatter and the linters of set-up say; the first lines of each."""
    here = os.path.dirname(sys.executable)
    code = [f for f in files if f.endswith((".c", ".h", ".cu", ".cuh", ".inc", ".cpp"))]
    for name, command in (("clang-format (hint: make format)", [f"{here}/clang-format", "--dry-run", "-Werror", *code]),
                          ("ruff", [f"{here}/ruff", "check", "--no-cache", "--output-format", "concise", "."]),
                          ("shellcheck", [f"{here}/shellcheck", "-S", "warning", "-f", "gcc",
                                          *(f for f in files if f.endswith(".sh")), ".ci/run"])):
        yield name, command_fault(*command)
    yield "clang-tidy", tidy_fault(here, files)


def tidy_fault(here, files):
    """Host C of the product; kernels are compiled by their own rules."""
    host = [f for f in files if f.endswith(".c") and f.startswith(("llmc/", "c3.c")) and not
            f.startswith(("llmc/cpu/kernels/", "llmc/cuda/"))]
    ask = lambda *command: subprocess.run(command, capture_output=True, text=True).stdout.split()
    flags = ["-std=c11", "-D_GNU_SOURCE", "-I.", "-fopenmp", "-DHAVE_MPI", *ask("mpicc", "--showme:compile"),
             "-isystem", ask("clang", "-print-resource-dir")[0] + "/include"]  # the wheel has no stddef.h
    parts = [[f"{here}/clang-tidy", "--quiet", *host[i::4], "--", *flags] for i in range(4)]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return "\n".join(filter(None, pool.map(lambda part: command_fault(*part), parts))) or None


def faults_of(path, guards):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        text = file.read()
    found = [f"{path}:{number}: {fault}" for number, fault in text_faults(path, text)]
    if path.endswith(".h"):
        guard, fault = guard_fault(text)
        if fault:
            found.append(f"{path}: {fault}")
        elif guards.setdefault(guard, path) != path:
            found.append(f"{path}: its include guard {guard} is that of {guards[guard]}")
        fault = None
        if not path.startswith(("dev/cudasim/", "llmc/cuda/")):  # C++, which their own build compiles
            fault = command_fault("gcc", "-std=c11", "-D_GNU_SOURCE", "-I.", "-fsyntax-only", "-x", "c", "-include",
                                  path, "/dev/null")
        if fault and "#error" not in text:  # a header that is a part of one file says so itself
            found.append(f"{path} does not compile alone: {fault}")
    elif path.endswith(".sh") or path == ".ci/run":
        fault = command_fault("bash", "-n", path)
        if fault:
            found.append(fault)
    elif path.endswith(".py"):
        try:
            compile(text, path, "exec")
        except SyntaxError as error:
            found.append(f"{path}: {error}")
    return found, text.count("\n")


def self_check():
    """The checks see what they are there for."""
    bad = "int a;\t\n// TO" "DO later\n// see /home" "/ada/x\n" + "x" * 121 + "\n"
    seen = [fault for _, fault in text_faults("x.c", bad)]
    good = list(text_faults("x.c", "int a;\n// https://example.org/work/x, ../root/x, $HOME/home/x\n"))
    guards = [guard_fault(text)[1] is None for text in
              ("// a\n#ifndef A_H\n#define A_H\nint a;\n#endif\n", "#ifndef A_H\n#define B_H\n#endif\n", "int a;\n")]
    with tempfile.TemporaryDirectory() as folder:
        script = os.path.join(folder, "x.sh")
        with open(script, "w") as file:
            file.write("if true; then\n")
        unparsed = command_fault("bash", "-n", script)
    return len(seen) == 5 and len(set(seen)) == 5 and not good and guards == [True, False, False] and bool(unparsed)


def main():
    passed = failed = 0
    guards = {}
    if not self_check():
        print("FAIL the checks themselves")
        failed += 1
    for path in sources():
        faults, lines = faults_of(path, guards)
        for fault in faults:
            print(f"  {fault}")
        if LONG < lines <= TOO_LONG and path.endswith(CODE):
            print(f"  note: {path} has {lines} lines; above {TOO_LONG} it fails")
        if faults:
            print(f"FAIL {path}")
        failed += bool(faults)
        passed += not faults
    for name, fault in tools_faults(sorted(sources(CODE + (".cpp", ".inc")))):
        print(f"FAIL {name}: {fault[:1500]}" if fault else f"ok   {name}")
        failed += bool(fault)
        passed += not fault
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
