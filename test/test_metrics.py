#!/usr/bin/env python3
"""test_metrics.py: llmc/text/metrics.c against rapidfuzz, to 1e-9, on 1,000 random pairs of English texts, 1,000 of Chinese and
500 of both and everything, empty ones among them: edit distance and char precision; the alignment against a plain
table, errors by kind against Python's names of characters. Metrics of words are test_score.py's."""

import os
import random
import re
import struct
import subprocess
import sys
import time
import unicodedata

os.chdir(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from rapidfuzz.distance import Levenshtein

FIELDS = ("char_precision", "edit_distance", "reference_chars", "output_chars", "exact")
SLICES = 20
KINDS = ("digits", "punctuation", "space", "latin", "greek", "cyrillic", "arabic", "han", "kana", "hangul", "other", "names",
         "code")  # fmt: skip
SCRIPTS = {
    "LATIN": "latin",
    "FULLWIDTH": "latin",
    "GREEK": "greek",
    "CYRILLIC": "cyrillic",
    "ARABIC": "arabic",
    "CJK": "han",
    "IDEOGRAPHIC": "han",
    "HIRAGANA": "kana",
    "KATAKANA": "kana",
    "HANGUL": "hangul",
}  # first word of a name
PROGRAM = os.environ.get("BUILD", "build") + "/test/metrics_pairs"
passed = failed = 0


def check(name, wrong):
    """wrong: a list of explanations; the case passes when it is empty."""
    global passed, failed
    for line in wrong[:5]:
        print("  ", line)
    print("FAIL" if wrong else "ok  ", name)
    passed, failed = passed + (not wrong), failed + bool(wrong)


# ---- random pairs ---------------------------------------------------------------------------------------------------

ENGLISH = "the of and to in a is that it was for on are with as his they at be this from have or by one had not".split()
CHINESE = (
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多"
    "定行学法所民得经十三之进着等部度家电力里如水化高自二理起小物现实加量都两体制机当使点从业本去把性好应开它合还因"
    "由其些然前外天政四日那社义事平形相全表间样与关各重新线内数正心反你明看原又么利比或但质气第向道命此变条只没结解"
    "问意建月公无系军很情者最立代想已通并提直题党程展五果料象员革位入常文总次品式活设及管特件长求老头基资边流路级少"
    "图山统接知较将组见计别她手角期根论运农指几九区强放决西被干做必战先回则任取据处队南给色光门即保治北造百规热领七"
    "海口东导器压志世金增争济阶油思术极交受联什认六共权收证改清己美再采转更单风切打白教速花带安场身车例真务具万每目"
)
MARKS = " ,.;\n\t'é—Ω😀　"


def text(rng, kind, n):
    if kind == "chinese":
        return "".join(rng.choice(CHINESE + "，。 \n" * 5) for _ in range(n))
    if kind == "mixed":
        return "".join(rng.choice("ab" + MARKS + CHINESE[:4]) for _ in range(n))
    return "".join(rng.choice(ENGLISH) + rng.choice([" ", " ", " ", ", ", "\n", "\u00a0"]) for _ in range(n // 4))[:n]


def damaged(rng, s, kind):
    """The text with some errors, up to another text altogether."""
    out = list(s)
    for _ in range(rng.choice([0, 1, 2, 5, 20])):
        at, extra = rng.randrange(len(out) + 1), text(rng, kind, rng.choice([1, 1, 8]))
        if rng.random() < 0.3:
            del out[at : at + rng.choice([1, 2, 9])]
        elif rng.random() < 0.5:
            out[at:at] = extra
        else:
            out[at : at + len(extra)] = extra
    return "".join(out)


def random_pairs(rng, kind, n):
    c = "好" if kind == "chinese" else "a"
    pairs = [("", ""), (c, ""), ("", c), (" ", "\n"), (f"{c} b c", f"{c} b c"), (c, c), (c, "b"), (" ", c)]
    for length in (63, 64, 65, 127, 128, 129):
        s = text(rng, kind, length * 2)[:length]
        pairs += [(s, s), (s, damaged(rng, s, kind)), (damaged(rng, s, kind), s), (s, s[::-1])]
    while len(pairs) < n:
        a = text(rng, kind, rng.choice([0, 1, 2, 3, 5, 20, 60, 100]))
        b = text(rng, kind, rng.choice([0, 1, 3, 40])) if rng.random() < 0.2 else damaged(rng, a, kind)
        pairs.append((a, b) if rng.random() < 0.5 else (b, a))
    return pairs


# ---- what they should be --------------------------------------------------------------------------------------------


def alignment(a, b):
    """Full table; the way back prefers match, substitute, delete, insert."""
    D = [[i + j if i * j == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        above, row = D[i - 1], D[i]
        for j in range(1, len(b) + 1):
            row[j] = min(above[j - 1] + (a[i - 1] != b[j - 1]), above[j] + 1, row[j - 1] + 1)
    i, j, ops = len(a), len(b), ""
    while i or j:
        if i and j and a[i - 1] == b[j - 1] and D[i][j] == D[i - 1][j - 1]:
            op = "="
        elif i and j and D[i][j] == D[i - 1][j - 1] + 1:
            op = "s"
        elif i and D[i][j] == D[i - 1][j] + 1:
            op = "d"
        else:
            op = "i"
        ops, i, j = op + ops, i - (op != "i"), j - (op != "d")
    return ops


def slices(ops, m):
    errors, chars, at = [0] * SLICES, [0] * SLICES, 0
    for op in ops:
        s = min(at, m - 1) * SLICES // m if m else 0
        errors[s] += op != "="
        chars[s] += op != "i"
        at += op != "i"
    return [n for pair in zip(errors, chars) for n in pair]


def expected(a, b):
    return dict(
        zip(FIELDS, (Levenshtein.normalized_similarity(a, b), Levenshtein.distance(a, b), len(a), len(b), a == b))
    )


def character_kind(c, before):
    category = unicodedata.category(c)
    if c.isspace():
        return "space"
    if category[0] == "N":
        return "digits"
    if category[0] == "M":
        return before
    return SCRIPTS.get(unicodedata.name(c).split()[0], "other") if category[0] == "L" else "punctuation"


def kinds_of(s):
    """The set of kinds of each character."""
    found, before = [], "punctuation"
    for c in s:
        before = character_kind(c, before)
        found.append({before})
    for line in re.finditer("[^\n]*\n?", s):
        code = re.search(r"(\{|\}|\);|\};)$|==|!=|\+=|:=|->|=>|::|&&|\|\||\(\)|</|/\*| = ", line[0].rstrip())
        letters = [bool(found[i] - {"digits", "punctuation", "space"}) for i in range(*line.span())]
        for word in re.finditer("1+", "".join("01"[v] for v in letters)):
            before = line[0][: word.start()].rstrip()
            begins = before and (
                letters[len(before) - 1] or "digits" in found[line.start() + len(before) - 1] or before[-1] == ","
            )
            if begins and word[0] and word_is_name(line[0][word.start() : word.end()]):
                for i in range(line.start() + word.start(), line.start() + word.end()):
                    found[i].add("names")
        for i in range(*line.span() if code else (0, 0)):
            found[i].add("code")
    return found


def word_is_name(word):
    return unicodedata.category(word[0]) in ("Lu", "Lt") and any(unicodedata.category(c) == "Ll" for c in word)


def errors_by_kind(a, b, ops):
    counts = {kind: [0, 0, 0] for kind in KINDS}
    of_a, of_b, i, j = kinds_of(a), kinds_of(b), 0, 0
    for op in ops:
        for kind in of_b[j] if op == "i" else of_a[i]:
            counts[kind][0] += op != "i"
            counts[kind][1] += op in "sd"
            counts[kind][2] += op == "i"
        i, j = i + (op != "i"), j + (op != "d")
    return [n for kind in KINDS for n in counts[kind]]


PIECES = ("Mary", "said", "NASA", "Élan", "42", "½", "x == 1;", "f();", "{", "}", "a = b", "->", "天地", "か", "カナ", "한글", "мир",
          "Миру", "سلام", "नमस्ते", "Ωμέγα", "Ω", "e\u0301", "Ｗ", "〇", "😀", "，", ". ", ", ", " ", " ", " ", "\n", "\t", "'", "-")  # fmt: skip


# ---- comparison -----------------------------------------------------------------------------------------------------


def run(pairs):
    data = b"".join(struct.pack("<I", len(t.encode())) + t.encode() for pair in pairs for t in pair)
    done = subprocess.run([PROGRAM], input=data, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{PROGRAM}: exit code {done.returncode}: {done.stderr.decode()}")
    rows = []
    for line in done.stdout.decode().splitlines():
        words = line.split(" ")
        numbers, ops = words[:-1], words[-1]
        counts = list(map(int, numbers[len(FIELDS) :]))
        rows.append(
            (dict(zip(FIELDS, map(float, numbers))), counts[: 2 * SLICES], ops.strip("-"), counts[2 * SLICES :])
        )
    return rows


def main():
    rng = random.Random(7)
    aligned = []
    for kind, n in (("english", 1000), ("chinese", 1000), ("mixed", 500)):
        pairs = random_pairs(rng, kind, n)
        rows = run(pairs)
        check(f"{kind}: one line a pair", [] if len(rows) == n else [f"{n} pairs, {len(rows)} lines"])
        want = [expected(a, b) for a, b in pairs]
        for field in FIELDS:
            check(f"{kind}: {field} of {n} pairs",
                  [f"{pairs[i]!r}: expected {w[field]!r}, found {r[0][field]!r}"
                   for i, (w, r) in enumerate(zip(want, rows)) if not abs(w[field] - r[0][field]) <= 1e-9])  # fmt: skip
        aligned += list(zip(pairs, rows))[:400]
    ops = [alignment(a, b) for (a, b), _ in aligned]
    check(f"alignments of {len(ops)} pairs", [f"{p!r}: expected {o}, found {r[2]}"
                                              for (p, r), o in zip(aligned, ops) if o != r[2]])  # fmt: skip
    check("errors by slice", [f"{p!r}: expected {slices(o, len(p[0]))}, found {r[1]}"
                              for (p, r), o in zip(aligned, ops) if slices(o, len(p[0])) != r[1]])  # fmt: skip

    pairs = [tuple("".join(rng.choices(PIECES, k=rng.randrange(30))) for _ in "ab") for _ in range(400)]
    pairs += [(a, damaged(rng, a, "english")) for a, _ in pairs]
    wrong, total = [], [0] * (3 * len(KINDS))
    for (a, b), (_, _, ops, found) in zip(pairs, run(pairs)):
        want = errors_by_kind(a, b, ops)
        wrong += [f"{a!r} {b!r}: expected {want}, found {found}"] * (want != found)
        total = [x + y for x, y in zip(total, want)]
    check(f"errors by kind of {len(pairs)} pairs", wrong)
    check("each kind was there, and had errors", [KINDS[i // 3] for i, n in enumerate(total) if n < 100])

    long = [(text(rng, kind, 5000), text(rng, kind, 4700)) for kind in ("english", "chinese", "mixed")]
    long += [(a, damaged(rng, a, "english")) for a, _ in long]
    start = time.perf_counter()
    rows = run(long)
    took = (time.perf_counter() - start) / len(long)
    print(f"   {took * 1e3:.0f} ms a pair of 5,000 characters, metrics and alignment")
    wrong = []
    for (a, b), (numbers, _, found, _) in zip(long, rows):
        if not numbers["edit_distance"] == len(found) - found.count("=") == Levenshtein.distance(a, b):
            wrong.append(f"distance {numbers['edit_distance']}, rapidfuzz {Levenshtein.distance(a, b)}")
        w = expected(a, b)
        wrong += [f"{f}: expected {w[f]!r}, found {numbers[f]!r}" for f in FIELDS if not abs(w[f] - numbers[f]) <= 1e-9]
        i = j = 0
        for op in found:  # every operation says what is true of its characters
            if op in "=s" and (a[i] == b[j]) != (op == "="):
                wrong.append(f"operation {op} at {i}, {j}: {a[i]!r} and {b[j]!r}")
            i, j = i + (op != "i"), j + (op != "d")
        if (i, j) != (len(a), len(b)):
            wrong.append(f"alignment ends at {i}, {j} of {len(a)}, {len(b)}")
    check("pages of 5,000 characters", wrong)
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
