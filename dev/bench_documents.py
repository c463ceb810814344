#!/usr/bin/env python3
"""bench_documents.py: three recipes at the size of the demo, and what came of them:

    windows    do documents of eight windows come back as well as single pages? A model from nothing, one layer that reads and
               three that write, whose decoder has -theta in place of the preset's 100, which turns round within 600 positions:
               single pages, then documents of 1 to 14
    needles    facts in documents of 1 to 8 windows, after windows: right answers by length
    continue   perplexity of the rest of a page with its latents and without, from the demo's model

  .venv/bin/python dev/bench_documents.py [-share 1] [-o runs/documents] [windows] [needles] [continue]

Needs the demo's pages, `make tests` and, for continue, the demo's model (scripts/demo.sh). By the clock, on an AVX-512 core
beside others, windows' trainings took 77 minutes and needles' 7; continue took 15 on a Zen 3 core. -share 0.0005 tries whether
all runs through. A run that is in -o already is not run again.
"""
import argparse
import glob
import io
import json
import os
import random
import subprocess
import sys

import zstandard

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "scripts"))
from study_points import VOCABULARY, stacks

TOKENIZER, WINDOW = "data/qwen2.5/qwen.tiktoken", 64
PAGES = (1, 2, 4, 8, 10, 14)  # in a document; eight are some eight windows
TRAINING = ["-threads", "1", "-schedule", "linear", "-beta2", "0.95", "-save_every", "0", "-g", "1"]


def run(*command, out=subprocess.DEVNULL):
    print(" ".join(map(str, command)), file=sys.stderr, flush=True)
    subprocess.run([str(word) for word in command], check=True, cwd=ROOT, stdout=out)


def train(folder, steps, *options):
    """A run of `steps` steps, once; says what it took."""
    if not glob.glob(f"{folder}/step_*/COMPLETE"):
        run("./train_c3", *TRAINING, "-steps", steps, "-warmup", max(1, steps // 20), "-o", folder, *options)
    with open(f"{folder}/log.jsonl", encoding="utf-8") as f:
        steps = [o for o in map(json.loads, f) if "tflop_head" in o]
    work = sum(o[f"tflop_{part}"] for o in steps for part in ("encoder", "decoder", "head"))
    print(f"{os.path.basename(folder)}: {len(steps):,} steps, {work:.1f} TFLOP", flush=True)
    return folder


def evaluate(model, pages, name, *options):
    out = f"{model}/eval_{name}"
    if not os.path.exists(f"{out}/eval.json"):
        run("./c3", "eval", "-m", model, pages, "-o", out, "-threads", 1, *options)
    with open(f"{out}/eval.json", encoding="utf-8") as f:
        return json.load(f)


def texts(path):
    """English pages, in the order of their documents."""
    with open(os.path.join(ROOT, path), "rb") as f:
        stream = zstandard.ZstdDecompressor().stream_reader(f) if path.endswith(".zst") else f
        pages = [json.loads(line) for line in io.TextIOWrapper(stream, "utf-8")]
    return [p for p in pages if "en" in p["source"] and p["tokens"] >= 24]


def join(path, pages, counts, n, seed):
    """n documents of pages that follow each other, as many as `counts` says."""
    rng = random.Random(seed)
    with open(path, "w", encoding="utf-8") as f:
        for i in range(n):
            k = rng.choice(counts)
            first = rng.randrange(len(pages) - k + 1)
            f.write(json.dumps({"id": f"{k}/{i}", "text": "\n\n".join(p["text"] for p in pages[first : first + k])}) + "\n")
    return path


def tokenize(prefix, source):
    if not glob.glob(f"{prefix}_*.bin"):
        run("./c3", "tokenize", "-tok", TOKENIZER, "-vocab", VOCABULARY, "-o", prefix, source)
    return f"{prefix}_*.bin"


def start(folder, theta):
    """Random weights, with another base of the decoder's positions."""
    if not os.path.isdir(folder):
        encoder, decoder = stacks("base")
        run("build/dev/make_random_checkpoint", "-preset", "demo", "-enc", encoder, "-dec", decoder, "-dtype", "fp32", "-seed", 1,
            "-o", f"{folder}.new")  # fmt: skip
        with open(f"{folder}.new/config.json", encoding="utf-8") as f:
            config = json.load(f) | {"rope_theta": theta}
        with open(f"{folder}.new/config.json", "w", encoding="utf-8") as f:
            json.dump(config, f)
        os.rename(f"{folder}.new", folder)
    return folder


def windows(o):
    known = texts("data/demo/train.jsonl.zst")
    held = texts("data/demo/val.jsonl")
    counts = range(1, max(PAGES) + 1)
    source = join(f"{o.o}/documents.jsonl", known, counts, max(200, int(40000 * o.share)), 1)
    documents = tokenize(f"{o.o}/documents", source)
    single = "data/demo/train_*.bin"
    first = train(f"{o.o}/single", o.steps(6600), "-m", start(f"{o.o}/start", o.theta), "-window", WINDOW, "-data", single,
                  "-lr", "2e-3", "-b", 32, "-len_warmup", "0.5")  # fmt: skip
    model = train(f"{o.o}/windows", o.steps(12000), "-m", first, "-data", f"single={single}:1", "-data",
                  f"documents={documents}:2", "-lr", "1.5e-3", "-b", 16, "-len_warmup", "0.3")  # fmt: skip
    long = join(f"{o.o}/held_long.jsonl", [p for p in held if p["tokens"] >= 52], [1], o.pages, 2)
    for k, pages in [("long", long)] + [(k, join(f"{o.o}/held_{k}.jsonl", held, [k], o.pages, 2)) for k in PAGES]:
        e = evaluate(model, pages, k, "-no_controls")
        print(f"| {'1 of 52 to 64 tokens' if k == 'long' else k} | {100 * e['char_precision']:.2f} % of characters | "
              f"{100 * e['token_accuracy']:.2f} % of tokens, teacher-forced | {e['tokens_per_latent']:.1f} tokens a latent |",
              flush=True)  # fmt: skip
    return model


def make_needles(o, name, source, lengths, n, seed):
    path = f"{o.o}/{name}.jsonl"
    with open(path, "w", encoding="utf-8") as f:
        run(".venv/bin/python", "data/needles.py", "-tok", TOKENIZER, "-vocab", VOCABULARY, "-lengths", lengths, "-n", n, "-facts", 3,
            "-seed", seed, source, out=f)  # fmt: skip
    return path


def needles(o):
    model, lengths = windows(o), "64,128,256,512"
    known = join(f"{o.o}/known.jsonl", texts("data/demo/train.jsonl.zst"), [1], max(200, int(5000 * o.share)), 3)
    asked = tokenize(f"{o.o}/asked", make_needles(o, "asked", known, lengths, max(5, int(800 * o.share)), 1))
    model = train(f"{o.o}/needles", o.steps(2000), "-m", model, "-data", f"asked={asked}:2", "-data",
                  f"documents={o.o}/documents_*.bin:1", "-lr", "1e-3", "-b", "16")  # fmt: skip
    for length in [*lengths.split(","), "768", "1024"]:  # the last two beyond those it was trained on
        held = make_needles(o, f"asked_{length}", "data/demo/val_en.jsonl", length, max(1, o.pages // 5), 9)
        e = evaluate(model, held, length, "-no_controls")
        print(f"| needles in {length} tokens | {100 * e['exact_match']:.1f} % of {e['pages']} right |", flush=True)


def continued(o):
    data = ["-data", "data/demo/train_*.bin", "-mix", "repeat:0.2,continue:0.8"]
    model = train(f"{o.o}/continue", o.steps(4000), "-m", "runs/demo", *data, "-lr", "1.2e-3", "-b", 32)
    e = evaluate(model, "data/demo/val_en.jsonl", "continue", "-task", "continue", "-limit", max(2, o.pages), "-max_new", 1)
    without = e["decoder_alone"]["perplexity"]
    print(f"| continue | perplexity {e['perplexity']:.2f} with latents, {without:.2f} without: "
          f"{100 * (1 - e['perplexity'] / without):.0f} % less |", flush=True)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("-share", type=float, default=1, help="of the steps and documents [1]")
    parser.add_argument("-theta", type=float, default=1e4, help="base of the decoder's rotary positions in windows [1e4]")
    parser.add_argument("-o", default="runs/documents", help="folder of the runs [runs/documents]")
    parser.add_argument("name", nargs="*", choices=["windows", "needles", "continue", []], help="[all]")
    o = parser.parse_args()
    o.o = os.path.join(ROOT, o.o)
    o.steps = lambda steps: max(2, int(steps * o.share))
    o.pages = max(2, int(200 * min(1, 10 * o.share)))
    os.makedirs(o.o, exist_ok=True)
    recipes = {"windows": windows, "needles": needles, "continue": continued}
    for name in o.name or ("needles", "continue"):  # needles begins with windows
        recipes[name](o)


main()
