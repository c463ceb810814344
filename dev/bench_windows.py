#!/usr/bin/env python3
"""bench_windows.py: what the encoder costs when long contexts are read in windows: CPU seconds of `c3 compress` on one
thread, less those of a page of one word, the least of some runs.

  bench_windows.py MODEL TEXT    MODEL: a checkpoint whose windows are those that its encoder was trained on
"""
import argparse
import json
import os
import resource
import shutil
import subprocess
import tempfile

C3 = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "c3")


def seconds(model, text, folder, page_tokens, runs):
    """CPU time of compressing the text, and what c3 says of its tokens and windows."""
    source, best = os.path.join(folder, "text.txt"), 1e9
    with open(source, "w", encoding="utf-8") as f:
        f.write(text)
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        said = subprocess.run([C3, "compress", "-m", model, "-f", source, "-o", os.path.join(folder, "text.c3"),
                               "-page_tokens", str(page_tokens), "-threads", "1", "-device", "cpu"],
                              check=True, capture_output=True, text=True).stdout  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime - before.ru_utime)
    line = next(line for line in said.splitlines() if line.startswith("text "))
    return best, int(line.split()[-2].replace(",", ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("-window", type=int, default=64)
    parser.add_argument("-runs", type=int, default=5)
    given = parser.parse_args()
    with open(given.text, encoding="utf-8") as f:
        text = f.read()
    with tempfile.TemporaryDirectory() as folder:
        model = shutil.copytree(given.model, os.path.join(folder, "model"))
        path = os.path.join(model, "config.json")
        with open(path) as f:
            config = json.load(f) | {"c3_window": given.window}
        with open(path, "w") as f:
            json.dump(config, f)
        start, _ = seconds(model, "word", folder, given.window, given.runs)
        for name, lengths, pages in (("windows a page", [1] * 4, [1, 4, 16, 64]), ("tokens", [1 / 8, 1 / 4, 1 / 2, 1], [64] * 4)):
            print(f"{name:>16} {'tokens':>9} {'CPU s':>8} {'us a token':>11}")
            for part, windows in zip(lengths, pages, strict=True):
                cpu, tokens = seconds(model, text[: int(part * len(text))], folder, windows * given.window, given.runs)
                cpu -= start
                print(f"{windows if name[0] == 'w' else '':>16} {tokens:9,} {cpu:8.2f} {1e6 * cpu / tokens:11.2f}")


if __name__ == "__main__":
    main()
