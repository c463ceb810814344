"""README.md and docs/ agree with the programs: docs/options.md is what -h prints, every file they link is there, every
option of README's commands exists, README stays short."""
import glob
import os
import re
import sys

from harness import C3, ROOT, TRAIN, case, done, run

sys.path.insert(0, os.path.join(ROOT, "dev"))
import make_options  # noqa: E402


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


case("docs/options.md is what the programs print", read("docs/options.md") == make_options.page(), "hint: make docs")
pages = ["README.md", "CONTRIBUTING.md", "data/README.md", "dev/cudasim/README.md",
         *sorted(glob.glob("docs/*.md", root_dir=ROOT))]
for page in pages:
    links = re.findall(r"\]\(([^)#:]+)\)", read(page))
    missing = [link for link in links if not os.path.exists(os.path.join(ROOT, os.path.dirname(page), link))]
    case(f"{page}: the {len(links)} files it links are there", not missing, missing)
readme = read("README.md")
known = set(re.findall(r"^  -(\w+)", run(TRAIN, ["-h"]).stdout, re.M)) | {"h", "np"}
used = set()
for line in readme.splitlines():
    if "./train_c3 " in line and line.startswith("    "):
        used |= set(re.findall(r" -(\w+)", line.split("./train_c3", 1)[1].split("#")[0]))
case("README's commands use known options", used and used <= known, used - known)
commands = re.findall(r"^    \./c3 (\w+)", readme, re.M)
unknown = [c for c in set(commands) if run(C3, [c, "-h"], check=False).returncode != 0]
case("README's c3 commands exist", commands and not unknown, unknown)
case("README has at most 1,500 words", len(readme.split()) <= 1500, len(readme.split()))
case("nothing is left to fill in", "@@" not in readme)
named = {part for page in pages for part in re.findall(r"`(?:llmc|test|dev|scripts|data|docs)/[\w./]+`", read(page))}
gone = sorted(name for name in named if not os.path.exists(os.path.join(ROOT, name.strip("`"))) and
              not re.match(r"`data/(cache|corpus|demo|ocr|qwen2.5|mine)|.*NAME", name))
case("files named in the docs are there", not gone, gone)
done()
