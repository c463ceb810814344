"""README.md agrees with the programs: the option list is what -h prints, every file it links is there, every option its
commands use exists."""
import os
import re

from harness import C3, ROOT, TRAIN, case, done, run

with open(os.path.join(ROOT, "README.md")) as f:
    readme = f.read()
help_text = run(TRAIN, ["-h"]).stdout
block = re.search(r"## Options.*?```\n(.*?)```", readme, re.S)
case("the option list is what ./train_c3 -h prints", bool(block) and block.group(1).strip() == help_text.strip(),
     "hint: paste the output of ./train_c3 -h")
links = re.findall(r"\]\(([^)#:]+)\)", readme)
missing = [link for link in links if not os.path.exists(os.path.join(ROOT, link))]
case(f"the {len(links)} files it links are there", links and not missing, missing)
known = set(re.findall(r"^  -(\w+)", help_text, re.M)) | {"h", "np"}
used = set()
for line in readme.splitlines():
    if "./train_c3 " in line and line.startswith("    "):
        used |= set(re.findall(r" -(\w+)", line.split("./train_c3", 1)[1].split("#")[0]))
case("its commands use known options", used and used <= known, used - known)
commands = re.findall(r"^    \./c3 (\w+)", readme, re.M)
unknown = [c for c in set(commands) if run(C3, [c, "-h"], check=False).returncode != 0]
case("its c3 commands exist", commands and not unknown, unknown)
case("nothing is left to fill in", "@@" not in readme)
done()
