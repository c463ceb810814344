#!/usr/bin/env python3
"""Tokens a second of one thread: ours, tiktoken, tokenizers, on the same pages, in turn, several rounds.

    .venv/bin/python dev/bench_tokenizer.py [PAGES.jsonl...]      default: data/corpus/*.jsonl (bash data/make_demo.sh)

The texts of each file are joined and cut anew into pages of 3000 characters. Counted is CPU time, so that what else
runs on the machine disturbs less; the median of the rounds is printed, with the quickest beside it. Python's part of
the two packages (calling them, building lists of ids) is in their figures: it is what a Python trainer pays.
"""
import glob
import json
import os
import statistics
import subprocess
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
os.chdir(ROOT)
sys.path.insert(0, "test")
from tokenizer_reference import hf_tokenizer, pack_texts, read_ranks, tiktoken_encoding

VOCABULARY, PROGRAM = "data/qwen2.5/qwen.tiktoken", "build/test/tokenize_lines"
ROUNDS, PAGE, MOST = 5, 3000, 6_000_000


def read_pages(path):
    with open(path, encoding="utf-8") as f:
        text = "\n".join(json.loads(line)["text"] for line in f)[:MOST]
    return [text[i:i + PAGE] for i in range(0, len(text), PAGE)]


def ours(pages):
    run = subprocess.run([PROGRAM, "-time", "1", VOCABULARY], input=pages, stdout=subprocess.PIPE, check=True)
    tokens, seconds = run.stdout.split()
    return int(tokens), float(seconds)


def timed(encode, pages):
    start = time.process_time()
    tokens = sum(len(encode(page)) for page in pages)
    return tokens, time.process_time() - start


def main():
    subprocess.run(["make", "-s", PROGRAM], check=True, stdout=subprocess.DEVNULL)
    paths = sys.argv[1:] or sorted(glob.glob("data/corpus/*.jsonl"))
    if not paths:
        sys.exit("bench_tokenizer.py: no data/corpus/*.jsonl (hint: bash data/make_demo.sh, or name files)")
    ranks = read_ranks(VOCABULARY)
    tik, hf = tiktoken_encoding(ranks), hf_tokenizer(ranks)
    for path in paths:
        pages = read_pages(path)
        packed = pack_texts(pages)
        runners = {"train_c3": lambda: ours(packed), "tiktoken": lambda: timed(tik.encode_ordinary, pages),
                   "tokenizers": lambda: timed(lambda page: hf.encode(page).ids, pages)}
        rates = {name: [] for name in runners}
        for _ in range(ROUNDS):
            for name, run in runners.items():
                tokens, seconds = run()
                rates[name].append(tokens / seconds / 1e6)
        size = sum(len(page.encode()) for page in pages)
        print(f"{path}: {len(pages)} pages, {size / 1e6:.1f} MB, {tokens:,} tokens, {size / tokens:.2f} bytes a token")
        for name, rate in rates.items():
            median = statistics.median(rate)
            print(f"  {name:10} {median:6.2f} Mtok/s, quickest {max(rate):6.2f}, "
                  f"{median / statistics.median(rates['tokenizers']):5.1f} x tokenizers", flush=True)


if __name__ == "__main__":
    main()
