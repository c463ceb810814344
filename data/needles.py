#!/usr/bin/env python3
"""needles.py: a needle test from any texts: facts planted in documents, and questions about them.

    .venv/bin/python data/needles.py -tok data/qwen2.5/qwen.tiktoken -vocab 2048 -lengths 32,64 data/demo/val_en.jsonl > needles.jsonl

TEXTS are JSONL ({"text"}). A document is words of them, and "The code of NAME is NUMBER." at one of the depths, -lengths
tokens in all or a few less; the question asks for one fact, and with -facts above 1 others stand elsewhere. Written is
one line each, for `c3 tokenize` to train on and `c3 eval` to measure:

    {"id": "needle/LENGTH/DEPTH/n", "context", "prompt": "What is the code of NAME?", "answer": "NUMBER"}

depth: per cent of the words before the fact. scripts/plot.py draws accuracy by length and depth from these ids.
Names are made of syllables, numbers have three digits; the same input, options and seed give the same lines.
"""
import argparse
import bisect
import json
import os
import random
import sys

from corpus_steps import tokenizer

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"


def name_of(rng):
    return "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(2)).capitalize()


class Haystack:
    """Words of the texts in a random order of theirs, without end."""

    def __init__(self, texts, rng):
        self.texts, self.rng, self.order = texts, rng, []

    def words(self, n):
        """At least n words, of whole texts."""
        words = []
        while len(words) < n:
            if not self.order:
                self.order = self.rng.sample(self.texts, len(self.texts))
            words += self.order.pop()
        return words


def document(haystack, count, length, depth, facts, rng):
    """(text, name, number), or None where not even the facts fit. count: tokens of a text."""
    names = set()
    while len(names) < facts:
        names.add(name_of(rng))
    codes = {name: str(rng.randint(100, 999)) for name in sorted(names)}
    name, *others = rng.sample(sorted(codes), facts)
    words = haystack.words(length)  # a word is a token at least

    def text(n):
        places = sorted([(round(n * depth / 100), name)] + [(spots[i] * n // 1000, o) for i, o in enumerate(others)])
        parts = words[:n]
        for at, who in reversed(places):
            parts.insert(at, f"The code of {who} is {codes[who]}.")
        return " ".join(parts)

    spots = [rng.randint(0, 1000) for _ in others]
    most = bisect.bisect_right(range(len(words) + 1), length, key=lambda n: count(text(n))) - 1
    return None if most < 0 else (text(most), name, codes[name])


def read_texts(path):
    """The words of each text of a JSONL file that has any."""
    with open(path, encoding="utf-8-sig") as f:
        for number, line in enumerate(f, 1):
            try:
                words = json.loads(line)["text"].split() if line.strip() else []
            except (ValueError, TypeError, KeyError, AttributeError):
                raise ValueError(f'{path}: line {number}: expected {{"text": "..."}}, found {line[:40].strip()!r}') from None
            if words:
                yield words


def numbers(text):
    return [int(part) for part in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0].split(": ", 1)[1])
    parser.add_argument("texts", nargs="+", metavar="TEXTS", help="JSONL of documents")
    parser.add_argument("-tok", required=True, help="qwen.tiktoken or tokenizer.json")
    parser.add_argument("-vocab", type=int, default=151643, help="base tokens of the model (default: all)")
    parser.add_argument("-lengths", type=numbers, default=[32, 64], help="tokens of a document")
    parser.add_argument("-depths", type=numbers, default=[0, 25, 50, 75, 100], help="per cent")
    parser.add_argument("-n", type=int, default=20, help="documents of each length and depth")
    parser.add_argument("-facts", type=int, default=1, help="facts in a document")
    parser.add_argument("-seed", type=int, default=1)
    o = parser.parse_args()
    try:
        if o.n < 1 or o.facts < 1 or min(o.lengths) < 1 or not all(0 <= d <= 100 for d in o.depths):
            raise ValueError("expected -n, -facts and -lengths of at least 1, -depths from 0 to 100")
        encode, _ = tokenizer(o.tok, o.vocab)
        texts = [words for path in o.texts for words in read_texts(path)]
        if not texts:
            raise ValueError(f"{o.texts[0]}: no text")
        for length in o.lengths:
            for depth in o.depths:
                rng = random.Random(f"{o.seed} {length} {depth}")
                haystack = Haystack(texts, rng)
                for i in range(o.n):
                    made = document(haystack, lambda text: len(encode(text.encode())), length, depth, o.facts, rng)
                    if not made:
                        raise ValueError(f"-lengths {length}: too short for {o.facts} fact(s)")
                    text, name, code = made
                    print(json.dumps({"id": f"needle/{length}/{depth}/{i}", "context": text,
                                      "prompt": f"What is the code of {name}?", "answer": code}, ensure_ascii=False))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except (ValueError, OSError) as e:
        sys.exit(f"needles.py: {e}")


if __name__ == "__main__":
    main()
