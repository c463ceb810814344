#!/usr/bin/env python3
"""test_score.py: scripts/score.py. Its metrics against nltk and rouge-score, on random pairs of texts; the Fox benchmark's
way to count; empty texts; its files, and what ids and texts may hold; once on what c3 eval really writes."""
import csv
import json
import os
import random
import re
import shutil
import subprocess
import sys

from harness import C3, ROOT, Folder, case, done, leftovers, run
from made_runs import KINDS, PAGES, make_evaluation
from test_metrics import random_pairs

sys.path.insert(0, os.path.join(ROOT, "scripts"))

import jieba
import runs
import score
from nltk.metrics.scores import f_measure, precision, recall
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge_score.rouge_scorer import RougeScorer

FILES = ["buckets.csv", "confidence.csv", "eval.csv", "eval.json", "fox.json", "kinds.csv", "pages.jsonl", "scores.json", "worst.txt"]
ORDERS = "\x1b]0;t\x07\x9b2J\u061c\u202e\u2028forged"  # what an id or a text may hold
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def page(text, written):
    return {"text": text, "reconstruction": written}


def score_folder(folder):
    return subprocess.run([sys.executable, os.path.join(ROOT, "scripts/score.py"), folder], capture_output=True, text=True,
                          timeout=120)


def read(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8") as f:
        if name.endswith(".jsonl"):
            return [json.loads(line) for line in f]
        return list(csv.DictReader(f)) if name.endswith(".csv") else json.load(f) if name.endswith("json") else f.read()


def near(a, b):
    return abs(a - b) < 1e-9


# ---- metrics --------------------------------------------------------------------------------------------------------


def chinese(text):
    ranges = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
    return any(low <= ord(c) <= high for c in text for low, high in ranges)


class Cut:
    """The tokenizer given to rouge-score: by its own, Chinese would be dropped."""
    def __init__(self, by_character):
        self.by_character = by_character

    def tokenize(self, text):
        return [c for c in text if not c.isspace()] if self.by_character else text.split()


def expected(a, b):
    """The packages' numbers; BLEU only where the output has four units: nltk counts orders it cannot have as errors,
    sacrebleu leaves them out."""
    cut = Cut(chinese(a or b))
    reference, output = cut.tokenize(a), cut.tokenize(b)
    both_empty = float(not reference and not output)  # the packages have no answer for that
    p = precision(set(reference), set(output)) if output else both_empty
    r = recall(set(reference), set(output)) if reference else both_empty
    found = {"word_precision": p, "word_recall": r, "word_f1": 2 * p * r / (p + r) if p + r else 0.0,
             "by_character": cut.by_character,
             "rouge_l": both_empty or RougeScorer(["rougeL"], tokenizer=cut).score(a, b)["rougeL"].fmeasure}
    if len(output) >= 4:
        found["bleu4"] = float(sentence_bleu([reference], output, smoothing_function=SmoothingFunction().method1))
    return found


def test_packages():
    rng = random.Random(7)
    for kind in ("english", "chinese", "mixed"):
        pairs = random_pairs(rng, kind, 300)
        wrong, with_bleu = {}, 0
        for a, b in pairs:
            found, want = score.score(page(a, b)), expected(a, b)
            with_bleu += "bleu4" in want
            wrong |= {(key, a, b): (want[key], found[key]) for key in want if not near(want[key], found[key])}
        case(f"{kind}: sets of words and BLEU as nltk, ROUGE-L as rouge-score, of {len(pairs)} pairs", not wrong and
             with_bleu > 100, list(wrong.items())[:3])


def test_by_hand():
    m = score.score(page("the cat sat on the mat", "the cat on\nthe  red mat today"))
    case("sets of words", near(m["word_precision"], 4 / 6) and near(m["word_recall"], 4 / 5) and
         near(m["word_f1"], 8 / 11), m)
    case("the longest common subsequence", near(m["rouge_l"], 2 * (5 / 7) * (5 / 6) / (5 / 7 + 5 / 6)), m)
    case("BLEU with a floor for what is missing", near(m["bleu4"], (5 / 7 * (2 / 6) * (0.1 / 5) * (0.1 / 4)) ** 0.25), m)
    m = score.score(page("a b", "a b"))
    case("BLEU of two words counts no orders that two words cannot have", near(m["bleu4"], 1), m)
    m = score.score(page("你 好", "好好"))
    case("Chinese is counted by characters, white space left out", m["by_character"] and near(m["word_precision"], 1) and
         near(m["word_recall"], 0.5) and near(m["rouge_l"], 0.5), m)
    m = score.score(page("one two", "one two 好好"))
    case("the original alone decides what a word is", not m["by_character"] and near(m["word_precision"], 2 / 3), m)
    keys = set(score.DEFINITIONS)
    found = {(a, b): {score.score(page(a, b))[k] for k in keys} for a in ("", " \n", "a b") for b in ("", "\t", "c d")}
    case("empty texts: all of nothing is right, nothing of something is wrong",
         all(values == ({0.0} if a.strip() or b.strip() else {1.0}) for (a, b), values in found.items()), found)


def test_fox():
    """The tool calls its function with label and answer swapped: what it prints as precision is recall."""
    pairs = [(a, b) for _, a, b in PAGES if a and b] + [("plain words", "plain 词语 words"), ("天 地\n玄黄 ", "天 地 黄玄")]
    wrong = []
    for label, answer in pairs:
        cut = jieba.lcut if re.search("[\u4e00-\u9fa5]", label + answer) else str.split
        printed = precision(set(cut(answer)), set(cut(label)))
        found = score.score(page(label, answer))["fox_recall"]
        if not near(printed, found):
            wrong.append((label, answer, printed, found))
    case("what Fox's tool prints as precision", not wrong, wrong)
    english = [(a, b) for a, b in pairs if not chinese(a + b)]
    case("which in English is word recall, as its f_measure is word F1", all(
        near(score.score(page(a, b))["word_recall"], score.score(page(a, b))["fox_recall"]) and
        near(score.score(page(a, b))["word_f1"], f_measure(set(b.split()), set(a.split())) or 0) for a, b in english))


# ---- the worst pages ------------------------------------------------------------------------------------------------


def test_difference():
    text = "." * 45 + "left" + "." + "right" + "." * 45
    cases = [
        ("equal", "abc", "abc", "abc"), ("a substitution", "abcdefgh", "abxxdefgh", "ab[-c-]{+xx+}defgh"),
        ("an insertion", "ab", "abyz", "ab{+yz+}"), ("a loss", "abyz", "ab", "ab[-yz-]"), ("all of it", "", "好", "{+好+}"),
        ("changes three characters apart are one", "aXbcdYe", "aUbcdVe", "a[-XbcdY-]{+UbcdV+}e"),
        ("four apart are two", "aXbcdeYf", "aUbcdeVf", "a[-X-]{+U+}bcde[-Y-]{+V+}f"),
        ("an insertion joined with a loss", "aXbcf", "abcVf", "a[-Xbc-]{+bcV+}f"),
        ("the first and the last are not between changes", "ab1cd", "ab2cd", "ab[-1-]{+2+}cd"),
        ("a line end among the errors", "a\nb", "acb", "a[-\\n-]{+c+}b"), ("no orders", "a\x1bb", "acb", "a[-\\x1b-]{+c+}b"),
        ("nor in what is equal", "a\x1b\u202e\nb", "a\x1b\u202e\nc", "a\\x1b\\u202e\n[-b-]{+c+}"),
    ]
    for name, a, b, want in cases:
        case(f"a readable difference: {name}", score.difference(a, b) == want, score.difference(a, b))
    long = score.difference("a" * 200 + "X" + "b" * 200 + "Y" + "c" * 200, "a" * 200 + "b" * 200 + "Z" + "c" * 200)
    case("long equal stretches are left out", long == "[... 140 characters ...] " + "a" * 60 + "[-X-]" + "b" * 60 +
         " [... 80 characters ...] " + "b" * 60 + "[-Y-]{+Z+}" + "c" * 60 + " [... 140 characters ...]", long)
    case("short ones are not", "[..." not in score.difference(text, text.replace("t.r", "t!r")))


# ---- files ----------------------------------------------------------------------------------------------------------


def test_files(tmp):
    folder = f"{tmp}/eval"
    make_evaluation(folder)
    r = score_folder(folder)
    case("a table of what it measures, and what that means", r.returncode == 0 and not r.stderr and
         all(k.replace("_", " ") in r.stdout and v in r.stdout for k, v in score.DEFINITIONS.items()), (r.stdout, r.stderr))
    case("its files, nothing half-written", sorted(os.listdir(folder)) == FILES and not leftovers(folder), os.listdir(folder))
    pages, rows, found = read(folder, "pages.jsonl"), read(folder, "eval.csv"), read(folder, "scores.json")
    want = {k: sum(score.score(p)[k] for p in pages) / len(pages) for k in score.DEFINITIONS}
    case("scores.json: means over the pages, and definitions", all(near(found[k], v) for k, v in want.items()) and
         found["definitions"] == score.DEFINITIONS and found["pages"] == len(PAGES) and found["pages_by_character"] == 2, found)
    case("eval.csv: a page a line", [r["id"] for r in rows] == [p["id"] for p in pages])
    wrong = [(p["id"], k) for p, r in zip(pages, rows, strict=True) for k in (
        "tokens", "latents", "output_tokens", "mean_log_prob", "least_log_prob", "edit_distance", "same_tokens", "forced_rows", "forced_correct", "loss",
        "char_precision") if abs(float(r[k]) - p[k]) > 1e-6]
    case("with the numbers of pages.jsonl", not wrong and [r["exact"] for r in rows] == ["1"] + 7 * ["0"] and
         rows[6]["ended"] == "0" and rows[3]["reference_chars"] == "10", wrong)
    case("controls and decoder alone as columns", {r["swapped_latents_precision"] for r in rows} == {"0.125000"} and
         {r["decoder_alone_loss"] for r in rows} == {"3.000000"} and {r["swapped_latents_correct"] for r in rows} == {"1"})
    case("and the metrics of words", all(abs(float(r[k]) - score.score(p)[k]) < 1e-6
                                         for p, r in zip(pages, rows, strict=True) for k in score.DEFINITIONS))
    case("errors by kind of text as columns", [r["latin_chars"] for r in rows] == [str(len(p["text"])) for p in pages] and
         {(r["latin_lost"], r["latin_added"]) for r in rows} == {("2", "1")}, rows[0])
    kinds, bins = read(folder, "kinds.csv"), read(folder, "confidence.csv")
    case("kinds.csv, confidence.csv: eval.json's", [(k["kind"], k["lost"], k["few"]) for k in kinds] ==
         [("digits", "10", "1"), ("latin", "240", "0"), ("han", "0", "1")] and kinds[2]["rate"] == "" and
         [(b["exact"], b["expected"]) for b in bins][:2] == [("0", "0.062500"), ("1", "0.875000")], (kinds, bins))
    buckets, summary = read(folder, "buckets.csv"), read(folder, "eval.json")
    case("buckets.csv: eval.json's buckets", [(int(r["from"]), int(r["to"]), int(r["pages"])) for r in buckets] ==
         [(b["from"], b["to"], b["pages"]) for b in summary["buckets"]] and sum(int(r["pages"]) for r in buckets) == 8 and
         buckets[1]["position_20"] == "0.750000", buckets)
    inside = [score.score(p)["word_recall"] for p in pages if 6 <= p["tokens"] < 9]
    case("the scores of a bucket's pages, the published figures beside them", inside and
         abs(float(buckets[1]["word_recall"]) - sum(inside) / len(inside)) < 1e-6 and
         [r["C3, paper, 32 latents"] for r in buckets] == ["", "0.987000", ""], buckets)
    text = read(folder, "worst.txt")
    order = sorted((p for p in pages if not p["exact"]), key=lambda p: p["char_precision"])
    case("worst.txt: all but the whole page, the worst first", re.findall(r"^--- (.*)$", text, re.M) ==
         [p["id"] for p in order] and text.startswith("the 7 worst pages of 8: [-lost-] {+written in its place+}\n") and
         "one err[-o-]{+a+}r in it" in text and "edit distance 35 of 35 characters, cut at the limit" in text, text)
    case("fox.json: image, question, label, answer", read(folder, "fox.json") == [
        {"image": i, "question": "Repeat the text: ", "label": a, "answer": b} for i, a, b in PAGES])
    make_evaluation(folder, pages=PAGES[:1] * 3)
    score_folder(folder)
    case("again, over other pages", read(folder, "worst.txt") == "every page came back whole\n" and
         len(read(folder, "eval.csv")) == 3)
    notes = []
    case("scores are taken for the pages they are of", runs.read_evaluation(folder, notes).number("bleu4") == 1 and
         not notes, notes)
    make_evaluation(folder)
    case("and for no others", runs.read_evaluation(folder, notes).number("bleu4") is None and
         any("of other pages" in n for n in notes), notes)


def test_hostile(tmp):
    folder = f"{tmp}/hostile"
    ids = [ORDERS, 'a "quoted", one', "two\nlines", "=1+1", "@a", "-1", "\ud800", "</script>"]
    make_evaluation(folder, pages=[(i, f"page {k} {ORDERS}", f"page {ORDERS} x") for k, i in enumerate(ids[:6])],
                    published=[{"name": "=1", "buckets": [{"from": 0, "to": 6, "precision": 1}]}, {"name": 7}, 3],
                    by_kind=[3, {"kind": ORDERS}, dict(KINDS[0], kind=ORDERS, few="yes")], confidence=[])
    with open(f"{folder}/pages.jsonl", "a") as f:
        for i in ids[6:]:
            f.write(json.dumps({"id": i, "text": f"t \udfff {i}", "reconstruction": "t"}) + "\n")
        f.write('[1]\nnull\n{"text": 1, "reconstruction": "a"}\n{"text": "cut sho')
        f.write("\n" + "[" * 100000 + '\n{"text": "numbers", "reconstruction": "x", "tokens": 1e999, "loss": NaN, "exact": "y"}')
        f.write('\n{"id": {"a": 1}, "text": "b", "reconstruction": "c", "char_precision": "z", "decoder_alone": 4, '
                '"by_kind": {"\\u001b": [1, 2, 3], "latin": 3, "han": [1], "greek": [1, 2, "x"]}}\n')
    r = score_folder(folder)
    case("hostile ids and texts, damaged lines: it goes on", r.returncode == 0 and not r.stderr, r.stderr[-500:])
    rows = read(folder, "eval.csv")
    want = ["\\x1b]0;t\\x07\\u009b2J\\u061c\\u202e\\u2028forged", 'a "quoted", one', "two\\x0alines", "'=1+1", "'@a", "'-1"]
    case("eval.csv: no orders, no formulas, and a page a line", [r["id"] for r in rows][:6] == want and len(rows) == 10, rows)
    raw = {name: RAW.findall(read(folder, name)) for name in ("worst.txt",)} | {
        name: RAW.findall(json.dumps(read(folder, name), ensure_ascii=False)) for name in ("eval.csv", "buckets.csv", "kinds.csv")}
    case("nothing raw in eval.csv, buckets.csv, kinds.csv, worst.txt", not any(raw.values()), raw)
    texts = [f["label"] for f in read(folder, "fox.json")]
    case("fox.json keeps the texts as they are", texts[0] == f"page 0 {ORDERS}", texts[0])


def test_refused(tmp):
    os.makedirs(f"{tmp}/empty")
    make_evaluation(f"{tmp}/no_pages")
    os.unlink(f"{tmp}/no_pages/pages.jsonl")
    make_evaluation(f"{tmp}/no_page", pages=[])
    make_evaluation(f"{tmp}/broken")
    with open(f"{tmp}/broken/eval.json", "w") as f:
        f.write("[]")
    for name in ("none", "empty", "no_pages", "no_page", "broken"):
        r = score_folder(f"{tmp}/{name}")
        case(f"refused in one line: {name}", r.returncode == 1 and r.stderr.startswith("score.py: ") and
             r.stderr.count("\n") == 1 and not r.stdout, (r.returncode, r.stderr))


def test_c3(tmp):
    """c3 eval of a random model: what it writes is what score.py reads."""
    from test_c3_cli import write_model
    write_model(f"{tmp}/model")
    with open(f"{tmp}/in.jsonl", "w") as f:
        f.writelines(json.dumps({"id": i, "text": a}) + "\n" for i, a, _ in PAGES)
    run(C3, ["eval", "-m", f"{tmp}/model", f"{tmp}/in.jsonl", "-o", f"{tmp}/c3", "-threads", 1, "-max_new", 8])
    r = score_folder(f"{tmp}/c3")
    case("scores what c3 eval wrote", r.returncode == 0 and not r.stderr and sorted(os.listdir(f"{tmp}/c3")) == FILES, r)
    rows, summary = read(f"{tmp}/c3", "eval.csv"), read(f"{tmp}/c3", "eval.json")
    numbers = {k: [float(r[k] or 0) for r in rows] for k in rows[0] if k != "id"}
    mean = {k: sum(v) / len(v) for k, v in numbers.items()}
    longer = sum(max(a, b) for a, b in zip(numbers["reference_chars"], numbers["output_chars"], strict=True))
    want = {"char_precision": mean["char_precision"], "exact_match": mean["exact"],
            "char_precision_micro": 1 - sum(numbers["edit_distance"]) / longer,
            "token_accuracy": sum(numbers["forced_correct"]) / sum(numbers["forced_rows"])}
    for name in ("swapped_latents", "no_latents", "zero_latents", "decoder_alone"):
        part = summary[name if name == "decoder_alone" else "control_" + name]
        want[name] = sum(numbers[f"{name}_correct"]) / sum(numbers["forced_rows"])
        summary[name] = part["token_accuracy"]
    wrong = {k: (v, summary[k]) for k, v in want.items() if abs(v - summary[k]) > 1e-5}
    case("its pages add up to its eval.json", not wrong, wrong)
    shutil.rmtree(f"{tmp}/c3")


def main():
    test_packages()
    test_by_hand()
    test_fox()
    test_difference()
    with Folder() as tmp:
        test_files(tmp)
        test_hostile(tmp)
        test_refused(tmp)
        test_c3(tmp)
    done()


main()
