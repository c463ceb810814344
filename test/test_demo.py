"""The demo really learns, and what it learns comes through the latents: runs scripts/demo.sh and reads its figures.
Held-out pages, greedy decoding. Controls: another page's latents, no latents, an untrained model. And what somebody
would type to try it comes back: short pages, sentences that no corpus holds, a line from echo."""
import json
import os
import re
import subprocess
import sys
import time

from harness import C3, ROOT, TRAIN, Folder, case, done, environment, run



def read(folder):
    with open(os.path.join(folder, "eval.json")) as f:
        return json.load(f)


def precision(part):
    """Of one of the demo's other evaluations; (mean, pages)."""
    found = read(os.path.join(ROOT, "runs/demo/more", part))
    return found["char_precision"], found["pages"]


begin = time.time()
r = subprocess.run(["bash", "scripts/demo.sh"], cwd=ROOT, env=environment(), capture_output=True, text=True,
                   stdin=subprocess.DEVNULL)
took = time.time() - begin
sys.stdout.write(r.stdout[-6000:])
if not case("scripts/demo.sh runs through", r.returncode == 0, r.stderr[-2000:]):
    done()
said = [line for line in r.stdout.splitlines() if "after set-up" in line]
print(said[0] if said else "", f"(set-up included {took:.0f} s)")
english, chinese = read(os.path.join(ROOT, "runs/demo/eval_en")), read(os.path.join(ROOT, "runs/demo/eval_zh"))
case("English: character precision >= 0.98", english["char_precision"] >= 0.98, english["char_precision"])
case("Chinese: character precision >= 0.95", chinese["char_precision"] >= 0.95, chinese["char_precision"])
for name, e in (("English", english), ("Chinese", chinese)):
    swapped, nothing = (e[k]["char_precision"] for k in ("control_swapped_latents", "control_no_latents"))
    case(f"{name}: another page's latents, or none, bring almost nothing back", swapped < 0.4 and nothing < 0.4,
         f"swapped {swapped} none {nothing}")
    case(f"{name}: twenty slices by position", len(e["by_position"]) == 20 and min(e["by_position"]) > 0.5,
         e["by_position"])
for part, name, least in (("short", "pages of 1 to 23 tokens", 0.95), ("other", "German, code, numbers", 0.9),
                          ("sentences", "sentences as one would type them", 0.9)):
    mean, n = precision(part)
    case(f"{name}: mean precision >= {least} ({mean:.4f} over {n})", mean >= least and n >= 40, mean)
mean, n = precision("random")
case(f"random characters: more than a language model could guess, over many pages ({mean:.4f} over {n})",
     n == 300 and mean > 0.5, mean)
typed = re.search(r'^  (echo ".*" \| \./c3 reconstruct -m runs/demo -f -)$', r.stdout, re.M)
if case("the demo says how to type a sentence", typed, r.stdout[-3000:]):
    own = subprocess.run(typed[1], shell=True, cwd=ROOT, env=environment(), capture_output=True, text=True)
    right = re.search(r"^precision ([0-9.]+) %", own.stdout, re.M)
    case("that very line gives the sentence back", right and float(right[1]) >= 90 and "warning" not in own.stderr,
         own.stdout + own.stderr)
model = run(C3, ["info", "runs/demo"]).stdout
case("the model knows what it was trained on", "on pages of 1 to 64 tokens" in model, model)
for picture in ("loss.png", "by_position.png", "precision_by_length_en.png", "precision_by_length_zh.png"):
    path = os.path.join(ROOT, "runs/demo", picture)
    with open(path, "rb") as f:
        case(f"{picture} is a PNG", f.read(8) == b"\x89PNG\r\n\x1a\n" and os.path.getsize(path) > 10000)
with open(os.path.join(ROOT, "runs/demo/report.html"), encoding="utf-8") as f:
    report = f.read()
for name, e in (("en", english), ("zh", chinese)):
    with open(os.path.join(ROOT, f"runs/demo/eval_{name}/scores.json")) as f:
        recall = json.load(f)["word_recall"]
    case(f"{name}: words come back as characters do", recall > e["char_precision"] - 0.1, recall)
missing = [part for part in ("training", "evaluation", "pages", "settings") if f'<h2 id="{part}">' not in report]
case("report.html has all its parts", not missing, missing)
with Folder() as tmp:
    run(TRAIN, ["-preset", "demo", "-data", "data/demo/train_*.bin", "-steps", 1, "-b", 8, "-g", 1, "-lr", "1e-9", "-o",
                os.path.join(tmp, "untrained")])
    head = os.path.join(tmp, "pages.jsonl")
    with open(os.path.join(ROOT, "data/demo/val_en.jsonl")) as f, open(head, "w") as g:
        g.writelines(f.readlines()[:20])
    run(C3, ["eval", "-m", os.path.join(tmp, "untrained"), head, "-o", os.path.join(tmp, "eval")])
    untrained = read(os.path.join(tmp, "eval"))["char_precision"]
    case("an untrained model brings almost nothing back", untrained < 0.3, untrained)
done()
