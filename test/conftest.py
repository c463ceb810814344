"""conftest.py: how pytest runs this project's tests.

A test is a program: test/test_NAME.c (built as build/test/test_NAME), .py or .sh, or a fuzzer, test/fuzz/fuzz_NAME.c. It
runs in the root, prints "ok   CASE" or "FAIL CASE" a line and ends with "N passed, N failed". pytest counts every case
and shows a failed one with the lines around it. A program that crashes, hangs (TEST_LIMIT seconds, 1800), leaves processes
behind, or prints no closing line or another count than its cases is a failure of its own.

    pytest                        everything that scripts/test.sh has built
    pytest -k shard               test_shard.c, also under the sanitizers, and fuzz_shard.c
    pytest test/test_train.py     one program
    pytest -n 2                   two programs at a time; programs that start ranks or measure never beside one another

scripts/test.sh sets up, builds with warnings as errors, and calls this.
"""
import os
import re
import signal
import subprocess
import sys
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CASE = re.compile(r"^(ok  |FAIL) (.+)$")
CLOSING = re.compile(r"^(\d+) passed, (\d+) failed$", re.M)
SHOWN = 60  # lines of output in front of a failure
LIMIT = float(os.environ.get("TEST_LIMIT", 1800))  # seconds a program may take
FUZZ_SECONDS = os.environ.get("FUZZ_SECONDS", "10")  # libFuzzer's time for each parser
LOGS = os.path.join(ROOT, "build/test-logs")  # whole output of every program

# These fill both cores (ranks, threads, builds): one at a time, and beside single-threaded programs only.
WIDE = ("test_train.py", "test_faults.py", "test_simulation.py", "test_cudasim.sh", "test_cuda_attention.sh",
        "test_cuda_build.sh", "test_hf.py", "test_decode.py", "test_demo.py", "test_parity.py", "test_gpu.py",
        "test_ranks.py", "test_run_folder.py", "test_printed_commands.py", "test_dist.c", "test_gpu_check.py")


def pytest_collect_file(file_path, parent):
    if re.fullmatch(r"test_\w+\.(c|py|sh)", file_path.name) or re.fullmatch(r"fuzz_\w+\.c", file_path.name):
        return ProgramFile.from_parent(parent, path=file_path)
    return None


def pytest_pycollect_makemodule(module_path, parent):
    """A .py file named on the command line is a program too: pytest would import it, whatever python_files says."""
    return NoModule.from_parent(parent, path=module_path)


class NoModule(pytest.Module):
    def collect(self):
        return []


class ProgramFile(pytest.File):
    def collect(self):
        stem, kind = self.path.stem, self.path.suffix
        if stem.startswith("fuzz_"):
            command = ["bash", "test/fuzz/run.sh", stem[5:], FUZZ_SECONDS]
            yield Program.from_parent(self, name=stem, command=command)
        elif kind == ".c":
            yield Program.from_parent(self, name=stem, command=[f"build/test/{stem}"])
            yield Program.from_parent(self, name="sanitize_" + stem[5:], command=[f"build/sanitize/test/{stem}"])
        else:
            first = [sys.executable] if kind == ".py" else ["bash"]
            yield Program.from_parent(self, name=stem, command=first + [f"test/{self.path.name}"])


class Program(pytest.Item):
    def __init__(self, *, command, **more):
        super().__init__(**more)
        self.command = command
        # xdist keeps the members of a group on one worker, one after the other.
        self.add_marker(pytest.mark.xdist_group("wide" if self.path.name in WIDE else self.nodeid))

    def runtest(self):
        raise AssertionError("see pytest_runtest_protocol")

    def reportinfo(self):
        return self.path, None, self.name


def environment(name):
    """What all programs find; GPUs are for test_gpu.py alone, so that the others test the CPU everywhere."""
    env = dict(os.environ, LC_ALL="C.UTF-8", PYTHONUNBUFFERED="1", NO_COLOR="1")
    if name != "test_gpu.py":
        env["CUDA_VISIBLE_DEVICES"] = ""
    # Under the sanitizers a refused allocation is a case of the tests, not a finding.
    env.update(UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1", ASAN_OPTIONS="allocator_may_return_null=1")
    return env


def end_session(leader, number):
    """Signals every process of the session that `leader` began; true when there was one."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", "rb") as f:
                state, _, _, session = f.read().rsplit(b") ", 1)[1].split()[:4]
        except OSError:
            continue
        if int(session) == leader and state != b"Z":
            found.append(int(entry))
    for pid in found:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
    return bool(found)


def execute(item):
    """(output, exit code or None at the time limit, seconds, whether processes were left)."""
    os.makedirs(LOGS, exist_ok=True)
    path, start = os.path.join(LOGS, f"{item.name}{item.path.suffix}.log"), time.monotonic()
    with open(path, "wb") as out:
        program = subprocess.Popen(item.command, cwd=ROOT, env=environment(item.path.name), stdin=subprocess.DEVNULL,
                                   stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = program.wait(LIMIT)
        except subprocess.TimeoutExpired:
            code = None
            end_session(program.pid, signal.SIGTERM)
            try:
                program.wait(5)
            except subprocess.TimeoutExpired:
                pass
        finally:
            left = end_session(program.pid, signal.SIGKILL) and code is not None
            program.wait()
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read(), code, time.monotonic() - start, left


def verdicts(output, code, left):
    """[(case, lines of its failure or None)], the last for the program itself when it broke the rules."""
    found, lines = [], output.splitlines()
    for at, line in enumerate(lines):
        match = CASE.match(line)
        if match:
            detail = "\n".join(lines[max(0, at - SHOWN):at + 12]) if match[1] == "FAIL" else None
            found.append((match[2].strip(), detail))
    closing = CLOSING.findall(output)
    passed, failed = map(int, closing[-1]) if closing else (0, 0)
    fault = None
    if code is None:
        fault = f"ended at its time limit, {LIMIT:g} s"
    elif code < 0:
        fault = f"ended by signal {-code}"
    elif not closing or passed + failed == 0:
        fault = f"exit code {code}, and no closing line with a count"
    elif bool(failed) != bool(code):
        fault = f"exit code {code}, but {failed} failed"
    elif left:
        fault = "left processes running"
    if fault is None and failed > sum(detail is not None for _, detail in found):
        fault = f"{failed} failed, not all of them named"
    if not found and fault is None:
        found = [(f"all {passed}", None)]
    if fault:
        found.append(("the program", fault + "\n" + "\n".join(lines[-SHOWN:])))
    return found


def report(item, case, detail, seconds):
    return pytest.TestReport(nodeid=item.nodeid, location=item.location, keywords={}, longrepr=detail, when="call",
                             outcome="failed" if detail else "passed", duration=seconds, start=0, stop=seconds, case=case)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report):
    """Names the case before anybody counts or prints it. xdist's workers send reports under the program's name alone."""
    if hasattr(report, "case") and "PYTEST_XDIST_WORKER" not in os.environ:
        report.nodeid += f"[{report.case}]"
        report.location = (report.location[0], None, f"{report.location[2]}[{report.case}]")
        del report.case


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    del nextitem
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    try:
        output, code, seconds, left = execute(item)
        found = verdicts(output, code, left)
    except OSError as e:
        found, seconds = [("the program", f"{item.command[0]}: {e.strerror} (hint: bash scripts/test.sh builds it)")], 0.0
    for i, (case, detail) in enumerate(found):  # the time stands with the first: programs do not time their cases
        item.ihook.pytest_runtest_logreport(report=report(item, case, detail, seconds if i == 0 else 0.0))
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
