#!/usr/bin/env python3
"""bench_n_mix.py: one model for several numbers of latents (-n_mix) against one model for each, on the demo's pages of at most 32
tokens. Prints the table of docs/latents.md. Needs the demo's pages (scripts/demo.sh makes them); about 20 minutes of one core.

    .venv/bin/python dev/bench_n_mix.py [-steps 700] [-o runs/n_mix] [NAME...]

A run that is in -o already is not run again. `grow` is trained with 8 latents alone for the first third.
"""
import argparse
import glob
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOKENS, COUNTS = 32, (2, 4, 8)  # tokens of the longest page, template and end mark not counted; numbers of latents
COMMON = ["-preset", "demo", "-threads", "1", "-data", "data/demo/train_*.bin",
          "-val", "data/demo/val_en_*.bin,data/demo/val_zh_*.bin", "-b", "32", "-g", "1", "-lr", "2e-3", "-schedule", "linear",
          "-warmup", "100", "-beta2", "0.95", "-val_pages", "300", "-save_every", "0"]
MIX = ["-n_mix", ",".join(map(str, COUNTS))]
RUNS = {  # name: steps in thirds of the largest, most latents, options
    "2 alone": (1, 2, ["-n", "2"]), "4 alone": (1, 4, ["-n", "4"]), "8 alone": (1, 8, ["-n", "8"]),
    "mix": (3, 8, MIX), "mix, half of it 8": (3, 8, ["-n_mix", "2:1,4:1,8:2"]), "grow": (3, 8, MIX),
    "mix, whole pages sooner": (3, 8, [*MIX, "-len_warmup", str(1 / 3)]), "mix, a third": (1, 8, MIX)}


def train(folder, steps, most, options):
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    command = [os.path.join(ROOT, "train_c3"), *COMMON, "-maxlen", str(TOKENS + most + 3), "-steps", str(steps), "-val_every",
               str(steps), "-len_warmup", "0.5", "-o", folder, *options]
    print(" ".join(command), file=sys.stderr, flush=True)
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def run(folder, name, steps):
    thirds, most, options = RUNS[name]
    if glob.glob(f"{folder}/step_*/COMPLETE"):
        return
    if name == "grow":
        first = f"{folder}_first"
        train(first, steps, 8, ["-n", "8", "-schedule", "constant", "-len_warmup", "1"])
        options = [*options, "-len_warmup", str(1 / 3), "-resume", f"{first}/step_{steps:08d}", "-resume_force"]
    train(folder, thirds * steps, most, options)


def read(folder):
    """Steps, TFLOP of all of them and, by number of latents, the last validation's (accuracy, loss)."""
    with open(f"{folder}/log.jsonl", encoding="utf-8") as f:
        lines = [json.loads(line) for line in f]
    steps = [o for o in lines if "loss" in o]
    if os.path.isdir(f"{folder}_first"):
        with open(f"{folder}_first/log.jsonl", encoding="utf-8") as f:
            steps += [o for o in map(json.loads, f) if "loss" in o]
    last, most = [o for o in lines if "val_loss" in o][-1], latents(folder)
    found = {n: (last[f"val_n{n}_token_accuracy"], last[f"val_n{n}_loss"]) for n in COUNTS if f"val_n{n}_loss" in last}
    found[most] = (last["val_token_accuracy"], last["val_loss"])
    return len(steps), sum(o[f"tflop_{k}"] for o in steps for k in ("encoder", "decoder", "head")), found


def latents(folder):
    with open(sorted(glob.glob(f"{folder}/step_*/config.json"))[-1], encoding="utf-8") as f:
        return json.load(f)["latent_token_len"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("-steps", type=int, default=700, help="of a model of one number of latents [700]")
    parser.add_argument("-o", default="runs/n_mix", help="folder of the runs [runs/n_mix]")
    parser.add_argument("name", nargs="*", help=f"runs, of: {'; '.join(RUNS)} [all]")
    a = parser.parse_args()
    print("| run | steps | TFLOP | " + " | ".join(f"n = {n}" for n in COUNTS) + " |\n|---|---|---|" + "---|" * len(COUNTS))
    for name in a.name or RUNS:
        folder = os.path.join(ROOT, a.o, name.replace(", ", "_").replace(" ", "_"))
        run(folder, name, a.steps)
        steps, work, found = read(folder)
        cells = [f"{100 * found[n][0]:.1f} % ({found[n][1]:.2f})" if n in found else "" for n in COUNTS]
        print(f"| {name} | {steps:,} | {work:.1f} | " + " | ".join(cells) + " |", flush=True)


main()
