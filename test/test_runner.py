#!/usr/bin/env python3
"""The runner must not call a run good that was not: conftest.py and scripts/test.sh on a small tree of their own, with
tests that pass, fail, crash behind a good closing line, say nothing, count nothing, hang and leave a process behind; and
builds that warn."""
import os
import shutil
import subprocess
import sys

from harness import ROOT, Folder, case, done, wait_for

SLEEP = f"56789.{os.getpid()}"  # a sleep of this test and of no other
FAKES = {
    "good": 'echo "ok   one"; echo "ok   two"; echo "2 passed, 0 failed"',
    "quiet": 'echo "3 passed, 0 failed"',
    "bad": 'echo "ok   one"; echo "the reason"; echo "FAIL two"; echo "1 passed, 1 failed"; exit 1',
    "liar": 'echo "2 passed, 1 failed"',
    "unnamed": 'echo "ok   one"; echo "1 passed, 1 failed"; exit 1',
    "crash": 'echo "5 passed, 0 failed"; kill -SEGV $$',
    "silent": "true",
    "empty": 'echo "0 passed, 0 failed"',
    "hang": f"echo '1 passed, 0 failed'; sleep {SLEEP} & sleep {SLEEP}",
    "leaver": f"echo '1 passed, 0 failed'; sleep {SLEEP} & exit 0",
}
EXPECTED = {  # test: (passed, failed, what is said)
    "good": (2, 0, ""), "quiet": (1, 0, ""), "bad": (1, 1, "the reason"), "liar": (0, 1, "exit code 0, but 1 failed"),
    "unnamed": (1, 1, "1 failed, not all of them named"), "crash": (0, 1, "ended by signal 11"),
    "silent": (0, 1, "no closing line"), "empty": (0, 1, "no closing line"),
    "hang": (0, 1, "ended at its time limit, 2 s"), "leaver": (0, 1, "left processes running"),
}  # fmt: skip


def make_tree(tree):
    for folder in ("scripts", "test", "dev/cuda", ".venv/bin", "build"):
        os.makedirs(os.path.join(tree, folder))
    for name in ("scripts/test.sh", "scripts/common.sh", "test/conftest.py", "pyproject.toml"):
        shutil.copy(os.path.join(ROOT, name), os.path.join(tree, name))
    files = {"scripts/setup.sh": "exit ${SETUP_STATUS:-0}", "dev/cuda/get_toolkit.sh": "echo /a/toolkit",
             "Makefile": "all tests fuzz:\n\t@echo built $(NOTE)", ".venv/bin/python": f'exec {sys.executable} "$@"'}
    files.update({f"test/test_{name}.sh": text for name, text in FAKES.items()})
    for name, text in files.items():
        with open(os.path.join(tree, name), "w") as f:
            f.write(("#!/bin/bash\n" if name.startswith(".venv") else "") + text + "\n")
    os.chmod(os.path.join(tree, ".venv/bin/python"), 0o755)


def test_sh(tree, *arguments, **environment):
    env = dict(os.environ, TEST_LIMIT="2", **environment)
    env.pop("PYTEST_XDIST_WORKER", None)
    env.pop("PYTEST_CURRENT_TEST", None)
    return subprocess.run(["bash", "scripts/test.sh", *arguments], cwd=tree, env=env, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=300)


def left_behind():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if SLEEP.encode() in f.read().split(b"\0"):
                    return True
        except OSError:
            pass
    return False


with Folder() as root:
    make_tree(root)
    for name, (passed, failed, words) in EXPECTED.items():
        r = test_sh(root, f"test/test_{name}.sh")
        last = r.stdout.strip().split("\n")[-1]
        case(f"{name}: {passed} passed, {failed} failed", last == f"{passed} passed, {failed} failed" and
             words in r.stdout and r.returncode == (1 if failed else 0), r.stdout[-1500:] + r.stderr[-500:])
    with open(os.path.join(root, "test/test_exits.py"), "w") as f:
        f.write("print('ok   one\\n1 passed, 0 failed')\nopen('ran', 'a').write('x')\nraise SystemExit(0)\n")
    r = test_sh(root, "test/test_exits.py")
    with open(os.path.join(root, "ran")) as f:
        case("a Python program named on the command line runs once, and is not imported",
             r.stdout.strip().endswith("\n1 passed, 0 failed") and f.read() == "x", r.stdout[-1500:])
    r = test_sh(root, "-n", "2", "-k", "good or bad or crash")
    case("two at a time: the same counts", r.stdout.strip().endswith("\n3 passed, 2 failed"), r.stdout[-1500:])
    r = test_sh(root, "-k", "nothing")
    case("no test of that name is no success", r.returncode == 2, (r.returncode, r.stdout[-500:]))
    r = test_sh(root, "-k", "good", NOTE="a.c:1:2: warning: odd")
    case("a compiler's warning fails the run", r.returncode == 1 and "warning: odd" in r.stdout and
         r.stdout.strip().endswith("\n2 passed, 3 failed"), r.stdout[-800:])
    r = test_sh(root, "-k", "good", SETUP_STATUS="1")
    case("a set-up that failed runs nothing", r.returncode == 2 and "nothing was run" in r.stderr, r.stdout[-500:])
    case("what a test started is ended", wait_for(lambda: not left_behind(), 60))
done()
