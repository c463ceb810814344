"""demo_table.py RUN: what the demo says last: its evaluations side by side, means over many pages; and a few sentences."""
import json
import sys

SETS = {"eval_en": "English, held out", "eval_zh": "Chinese, held out", "more/short": "shorter, English and Chinese",
        "more/other": "German, program code, numbers", "more/random": "random characters",
        "more/sentences": "data/sentences.jsonl"}


def read(folder):
    with open(f"{sys.argv[1]}/{folder}/pages.jsonl", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


print("means over                     pages   tokens   precision     exact   nine in ten reach")
for folder, name in SETS.items():
    pages = read(folder)
    tokens, precision = sorted(p["tokens"] for p in pages), sorted(p["char_precision"] for p in pages)
    exact = sum(p["text"] == p["reconstruction"] for p in pages) / len(pages)
    print(f"{name:30} {len(pages):5} {tokens[0]:5}-{tokens[-1]:2} {100 * sum(precision) / len(pages):9.2f} % "
          f"{100 * exact:7.2f} % {100 * precision[len(pages) // 10]:13.1f} %")

print("\ndata/sentences.jsonl holds what one might type, none of it from the corpus. The first of each kind:\n")
kinds = {}
for p in read("more/sentences"):
    kinds.setdefault(p["id"].split("/")[0], p)
for p in kinds.values():
    for word, key in (("typed", "text"), ("returned", "reconstruction")):
        print(f"  {word:8}  " + p[key].replace("\n", "\n            "))
    print()
