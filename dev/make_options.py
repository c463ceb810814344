#!/usr/bin/env python3
"""make_options.py: writes docs/options.md from what the programs print with -h (make docs)."""
import os
import re
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def printed(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout


def page():
    parts = ["# Options\n\nWritten by `make docs` from what the programs print; a test compares.\n",
             f"## train_c3\n\n```\n{printed('./train_c3', '-h').strip()}\n```\n"]
    for name in re.findall(r"^  (\w+)", printed("./c3", "-h"), re.M):
        parts.append(f"## c3 {name}\n\n```\n{printed('./c3', name, '-h').strip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    with open(os.path.join(ROOT, "docs/options.md"), "w", encoding="utf-8") as f:
        f.write(page())
