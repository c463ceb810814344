#!/usr/bin/env python3
"""The tokenizer against the reference implementations, id by id: PyPI's `tokenizers` and `tiktoken`, both fed with the
ranks of qwen.tiktoken, on 100,000 generated texts and on every page of the demo, with the whole vocabulary and cut at
4096 (reference: the ranks below 4096 alone).

Characters newer than one of the Unicode tables are left out, and their number is printed: what Python's unicodedata or
utf8proc does not know; for `tokenizers` alone also the marks newer than its NFC table, which is Unicode 9's.
"""
import ctypes
import ctypes.util
import glob
import json
import os
import random
import subprocess
import sys
import unicodedata

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv/bin/python")
os.chdir(ROOT)
sys.path.insert(0, "test")
try:
    import tiktoken  # noqa: F401
    import tokenizers
except ImportError:
    if os.path.exists(VENV) and not os.environ.get("TOKENIZER_TEST_VENV"):
        os.environ["TOKENIZER_TEST_VENV"] = "1"
        os.execv(VENV, [VENV, *sys.argv])
    sys.exit("test_tokenizer.py: no tokenizers and tiktoken (hint: bash scripts/setup.sh)")
from tokenizer_reference import encode_ours, hf_tokenizer, read_ranks, tiktoken_encoding

VOCABULARY = "data/qwen2.5/qwen.tiktoken"
PROGRAM = "build/test/tokenize_lines"
CUT = 4096
TEXTS = 100_000

passed = failed = 0


def check(name, bad, detail=""):
    global passed, failed
    passed, failed = passed + (not bad), failed + bool(bad)
    print(f"{'FAIL' if bad else 'ok  '} {name}{': ' + detail if detail else ''}", flush=True)


def utf8proc_category():
    """utf8proc's function character -> category, 0 where it knows none."""
    library = ctypes.util.find_library("utf8proc")
    return ctypes.CDLL(library).utf8proc_category if library else sys.exit("test_tokenizer.py: no libutf8proc")


def assigned():
    """Characters by category, without surrogates, private use and what is not assigned (here or yet)."""
    by_category, left_out, known = {}, 0, utf8proc_category()
    for c in range(0x110000):
        category = unicodedata.category(chr(c))
        if category == "Cn" or known(c) == 0:
            left_out += 1
        elif category not in ("Cs", "Co"):
            by_category.setdefault(category, []).append(chr(c))
    by_category["Co"] = ["\ue000", "\uf8ff", "\U000f0000", "\U0010fffd"]
    return by_category, left_out


class Maker:
    """Makes texts out of ingredients that the expression and NFC tell apart."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.by_category, self.left_out = assigned()
        characters = [c for group in self.by_category.values() for c in group]
        self.decomposing = [c for c in characters if unicodedata.normalize("NFD", c) != c]
        self.marks = [c for c in characters if unicodedata.combining(c)]
        self.starters = list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") + [
            chr(c) for c in (0x391, 0x3b1, 0x410, 0x915, 0x9c7, 0xb47, 0xbc6, 0xdd9, 0x1100, 0x1112, 0xac00, 0x3046,
                             0x30ab, 0x11131)]
        self.joining = [
            chr(c) for c in (0x9be, 0x9d7, 0xb3e, 0xb57, 0xbbe, 0xbd7, 0xcd6, 0xd3e, 0xdcf, 0xddf, 0x102e, 0x1161,
                             0x1175, 0x11a8, 0x11c2, 0x3099, 0x309a, 0x11127)]
        self.spaces = [
            chr(c) for c in (9, 11, 12, 0x1c, 0x1f, 0x85, 0xa0, 0x1680, 0x180e, 0x2000, 0x200a, 0x200b, 0x2028, 0x2029,
                             0x202f, 0x205f, 0x2060, 0x3000, 0xfeff)]
        self.words = ("the of and Hello WORLD don we I you it's naïve Straße Привет κόσμος שלום مرحبا नमस्ते "
                      "你好 世界 的 一个 日本語 한국어 ไทย").split()
        self.makers = [self.word, self.word, self.contraction, self.white, self.white, self.digits, self.category,
                       self.category, self.combined, self.emoji, self.punctuation, self.chinese, self.ascii, self.run]

    def some(self, pool, low, high):
        return "".join(self.rng.choices(pool, k=self.rng.randint(low, high)))

    def word(self):
        return self.rng.choice([" ", "", "\n", "(", "_", "\t", "’"]) + self.rng.choice(self.words)

    def contraction(self):
        tail = self.rng.choice(["s", "t", "re", "ve", "m", "ll", "d", "S", "T", "RE", "rE", "Ve", "vE", "M", "LL",
                                "lL", "D", "ſ", "ſs", "l", "r", "v", "e", "K", "re1", "'s", "", " s", "ſ\u0307",
                                "t\u0301"])
        return self.rng.choice(["it", "", " ", "1", "\n", "'", "é", "字"]) + self.rng.choice("''''’`") + tail

    def white(self):
        return self.some([" ", " ", " ", "\n", "\r", "\r\n", *self.spaces], 1, 6)

    def digits(self):
        return self.some([*"0123456789", "½", "٣", "Ⅷ", "²", "〇", "𝟘", ",", ".", " "], 1, 8)

    def category(self):
        pool = self.by_category[self.rng.choice(sorted(self.by_category))]
        return self.some(pool, 1, 3)

    def combined(self):
        kind = self.rng.randrange(4)
        if kind == 0:
            return self.rng.choice(self.starters) + self.some(self.marks, 1, 5)
        if kind == 1:
            return unicodedata.normalize("NFD", self.some(self.decomposing, 1, 4))
        if kind == 2:
            return self.rng.choice(self.starters) + self.some(self.joining, 1, 3) + self.some(self.marks, 0, 2)
        return self.some(self.decomposing, 1, 3) + self.some(self.marks, 0, 3)

    def emoji(self):
        return self.rng.choice(["😀", "👨‍👩‍👧", "🇩🇪", "👍🏽", "❤️", "1️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"])

    def punctuation(self):
        return self.some([*"!?.,;:-–—…()[]{}<>|/\\\"'`~@#$%^&*_+=", "。", "，", "「", "」", "\n", "\r", " "], 1, 6)

    def chinese(self):
        return "".join(chr(self.rng.randint(0x4e00, 0x9fff)) for _ in range(self.rng.randint(1, 12)))

    def ascii(self):
        return "".join(chr(self.rng.randrange(128)) for _ in range(self.rng.randint(1, 12)))

    def run(self):
        what = self.rng.choice(["a", " ", "\n", "!", "=", "字", "é", "ab", "-+"])
        return what * self.rng.choice([2, 3, 7, 20, 65, 150, 400])

    def text(self):
        return "".join(self.rng.choice(self.makers)() for _ in range(self.rng.randint(1, 12)))


def demo_pages():
    texts = []
    for path in sorted(glob.glob("data/demo/*.jsonl")):
        with open(path, encoding="utf-8") as f:
            texts += [json.loads(line)["text"] for line in f]
    return texts


def newer_marks(normalizer, maker):
    """Marks whose place among other marks, or whose compositions, the reference's NFC does not know."""
    same = lambda text: normalizer.normalize_str(text) == unicodedata.normalize("NFC", text)
    probes = ["a%s", "a\u0345%s", "a%s\u0334", "a\u0315%s"]
    newer = {mark for mark in maker.marks if not all(same(probe % mark) for probe in probes)}
    for c in maker.decomposing:
        if not same(unicodedata.normalize("NFD", c)):
            newer.update(unicodedata.normalize("NFD", c))
    return newer


def compare(name, ours, theirs, texts):
    bad = [i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b]
    for i in bad[:3]:
        print(f"  {texts[i]!r:.300}\n    ours   {str(ours[i]):.300}\n    theirs {str(theirs[i]):.300}")
    ids = sum(map(len, ours))
    check(name, bad or len(ours) != len(theirs), f"{len(texts):,} texts, {ids:,} ids, {len(bad)} differ")


def compare_all(ranks, cut, sets, maker):
    kept = {token: rank for token, rank in ranks.items() if rank < cut} if cut else ranks
    hf, tik = hf_tokenizer(kept), tiktoken_encoding(kept)
    newer = newer_marks(hf.normalizer, maker)
    check("most marks are older than tokenizers' NFC", len(newer) > len(maker.marks) // 5, f"{len(newer)} are not")
    for name, texts in sets.items():
        ours = encode_ours(PROGRAM, VOCABULARY, texts, cut)
        label = f"{name}, vocabulary {'cut at %d' % cut if cut else 'whole'}"
        theirs = [tik.encode_ordinary(unicodedata.normalize("NFC", text)) for text in texts]
        compare(f"{label}: as tiktoken {tiktoken.__version__}", ours, theirs, texts)
        both = [(a, text) for a, text in zip(ours, texts) if newer.isdisjoint(text)]
        texts, theirs = [text for _, text in both], []
        for i in range(0, len(texts), 5000):  # encodings are heavy objects
            theirs += [e.ids for e in hf.encode_batch_fast(texts[i:i + 5000])]
        compare(f"{label}: as tokenizers {tokenizers.__version__}", [a for a, _ in both], theirs, texts)


def main():
    if not os.path.exists(VOCABULARY):
        sys.exit(f"test_tokenizer.py: no {VOCABULARY} (hint: bash data/get_tokenizer.sh)")
    subprocess.run(["make", "-s", PROGRAM], check=True, stdout=subprocess.DEVNULL)
    maker = Maker(1)
    print(f"Unicode {unicodedata.unidata_version}: {maker.left_out:,} code points are left out that it or utf8proc "
          "does not assign")
    every = [f"ab{c}c1{c} {c}\n{c}{c}" for group in maker.by_category.values() for c in group]
    generated = [maker.text() for _ in range(TEXTS)]
    sets = {"every character": every, "generated": generated}
    pages = demo_pages()
    if pages:
        sets["demo pages"] = pages
    else:
        print("no data/demo/*.jsonl here (hint: bash data/make_demo.sh): generated texts alone")
    ranks = read_ranks(VOCABULARY)
    for cut in (0, CUT):
        compare_all(ranks, cut, sets, maker)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
