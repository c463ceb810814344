#!/usr/bin/env python3
"""Texts that no language model expects, so that what comes back of them comes from the latents: numbers as people write
them, and words in no order.

    python3 data/made_up_texts.py CORPUS    reads CORPUS/en.jsonl, de.jsonl, code.jsonl (debian_texts.py);
                                            writes CORPUS/made_up.jsonl and CORPUS/held/made_up.jsonl

A document is 100 pages with a form feed between them. The same texts give the same bytes.
"""
import json
import os
import random
import re
import sys

PAGES = 8500  # of numbers, and as many of words
HELD = 300  # of numbers
MARKS = list("._-/:;,*+=<>&|!?@#%([\"'\n") + [" = ", " == ", " + ", " - ", ", ", ") ", "] ", " { ", "; }", "->", " $", "();\n",
                                             ":\n    ", ";\n    ", " // "]


def number_page(rng):
    """Amounts, dates, times, sums, tables."""
    n = lambda low, high: rng.randint(low, high)
    group = lambda x: f"{x:,}"
    kinds = (
        lambda: str(n(0, 10 ** n(1, 7))), lambda: f"{n(0, 999)}.{n(0, 99999)}", lambda: group(n(1000, 10 ** n(4, 9))),
        lambda: f"${n(1, 999)}.{n(0, 99):02}", lambda: f"{n(1, 9999)} €", lambda: f"{n(0, 100)}%",
        lambda: f"{n(1, 200)} kg", lambda: f"{n(1, 900)} km", lambda: f"{n(0, 23):02}:{n(0, 59):02}",
        lambda: f"{n(1800, 2030)}-{n(1, 12):02}-{n(1, 28):02}", lambda: f"{n(1, 28)}.{n(1, 12)}.{n(1900, 2030)}",
        lambda: f"{rng.choice('January March May July August October December'.split())} {n(1, 31)}, {n(1800, 2030)}",
        lambda: f"{n(2, 99)} + {n(2, 99)} = {n(4, 198)}", lambda: f"{n(2, 99)} x {n(2, 99)} = {n(4, 9801)}",
        lambda: f"+{n(1, 99)} {n(100, 999)} {n(1000, 9999999)}", lambda: f"{n(1, 9)}/{n(2, 9)}",
        lambda: f"{n(1, 9)}e-{n(1, 12)}", lambda: f"No. {n(1, 500)}",
        lambda: f"{n(1, 254)}.{n(0, 254)}.{n(0, 254)}.{n(1, 254)}", lambda: f"0x{n(0, 2 ** 32):x}")
    several = rng.random() < 0.7  # of one kind
    kind, pieces = rng.choice(kinds), rng.choice((1, 1, 1, 2, 3, 4, 6))
    return rng.choice((" ", ", ", "\n", "; ")).join((kind if several else rng.choice(kinds))() for _ in range(pieces))


def word_page(rng, words):
    """Rare words as often as common ones; half of the pages with the marks of programs between them."""
    between = MARKS if rng.random() < 0.5 else (" ",)
    count = rng.choice((1, 2, 3, 4, 6, 8, 11, 15))
    return "".join(rng.choice(words) + rng.choice(between) for _ in range(count)).strip()


def words_of(corpus):
    words = set()
    for lang in ("en", "de", "code"):
        if os.path.exists(f"{corpus}/{lang}.jsonl"):
            with open(f"{corpus}/{lang}.jsonl", encoding="utf-8") as f:
                for line in f:
                    words.update(re.findall(r"[^\W\d_]+", json.loads(line)["text"]))
    return sorted(words)


def write(path, documents):
    with open(path + ".new", "w", encoding="utf-8") as f:
        for name, pages in documents.items():
            for at in range(0, len(pages), 100):
                f.write(json.dumps({"id": f"{name}/{at // 100 + 1}", "text": "\f".join(pages[at : at + 100])}) + "\n")
    os.replace(path + ".new", path)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    corpus, rng = sys.argv[1], random.Random(1)
    words = words_of(corpus)
    numbers = [number_page(rng) for _ in range(PAGES + HELD)]
    write(f"{corpus}/held/made_up.jsonl", {"numbers": numbers[PAGES:]})
    write(f"{corpus}/made_up.jsonl", {"numbers": numbers[:PAGES], "words": [word_page(rng, words) for _ in range(PAGES if words else 0)]})


if __name__ == "__main__":
    main()
