#!/usr/bin/env python3
"""score.py: text metrics beyond the edit distance, of pages that c3 eval wrote back.

    scripts/score.py EVAL

EVAL is the folder c3 eval -o named. Reads its pages.jsonl and eval.json, prints a table, and writes beside them

    scores.json   means: word_precision, word_recall, word_f1, bleu4, rouge_l, fox_recall, and their definitions
    eval.csv      a page a line: everything pages.jsonl and eval.json know of it, and these metrics
    buckets.csv   the table by length, with the published figures beside it
    worst.txt     the pages that came back worst, with what was [-lost-] and {+written in its place+}
    fox.json      for the Fox benchmark's own tool: a list of {"image", "question", "label", "answer"}

Words are separated by white space; where a page holds Chinese they are its characters without white space. Text is
compared in Unicode's NFC form, which is what the tokenizer sees.
"""
import argparse
import csv
import io
import json
import logging
import os
import re
import statistics
import sys
import unicodedata

from rapidfuzz.distance import Levenshtein
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU

import runs

CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")
WORST, CONTEXT = 10, 60  # pages of worst.txt; characters around an error there
DEFINITIONS = {
    "word_precision": "words of the reconstruction that the original has, as sets / words of the reconstruction; mean "
                      "over pages",
    "word_recall": "the same words / words of the original",
    "word_f1": "harmonic mean of a page's word precision and recall; mean over pages",
    "bleu4": "sacrebleu's sentence BLEU (floor smoothing 0.1, effective order) over these words; mean over pages",
    "rouge_l": "rouge-score's ROUGE-L F1 over these words; mean over pages",
    "fox_recall": "what the Fox benchmark's own tool prints as precision: word recall, Chinese cut into words by jieba",
}


class Split:
    """A tokenizer for rouge-score, whose own drops everything but a-z and 0-9."""
    def __init__(self, units):
        self.tokenize = units


def words(text, by_character):
    return [c for c in text if not c.isspace()] if by_character else text.split()


def fox_words(text):
    import jieba  # takes a second to load, and only Chinese needs it
    jieba.setLogLevel(logging.WARNING)
    return [w for w in jieba.cut(text) if not w.isspace()]


def ratio(common, all_of_them, both_empty):
    return common / all_of_them if all_of_them else float(both_empty)


def score(page):
    """The metrics of one page, each a fraction of 1."""
    original, written = (unicodedata.normalize("NFC", page[k]) for k in ("text", "reconstruction"))
    by_character = bool(CHINESE.search(original or written))
    reference, output = words(original, by_character), words(written, by_character)
    a, b = set(reference), set(output)
    common, both_empty = len(a & b), not a and not b
    precision, recall = ratio(common, len(b), both_empty), ratio(common, len(a), both_empty)
    bleu = BLEU(smooth_method="floor", smooth_value=0.1, tokenize="none", effective_order=True)
    rouge = rouge_scorer.RougeScorer(["rougeL"], tokenizer=Split(lambda text: words(text, by_character)))
    fox = recall
    if by_character:
        label, answer = set(fox_words(original)), set(fox_words(written))
        fox = ratio(len(label & answer), len(label), not label and not answer)
    return {"by_character": by_character, "word_precision": precision, "word_recall": recall,
            "word_f1": 2 * precision * recall / (precision + recall) if common or both_empty else 0.0,
            "bleu4": bleu.sentence_score(" ".join(output), [" ".join(reference)]).score / 100 if output else
            float(both_empty),
            "rouge_l": rouge.score(original, written)["rougeL"].fmeasure if not both_empty else 1.0, "fox_recall": fox}


# ---- files ----------------------------------------------------------------------------------------------------------


def printable(text):
    """Without what a terminal or a spreadsheet would obey."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf") else "\ufffd" for c in text)


def as_csv(rows):
    keys = list(dict.fromkeys(k for row in rows for k in row))
    out = io.StringIO()
    table = csv.DictWriter(out, keys, lineterminator="\n", restval="")
    table.writeheader()
    table.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return out.getvalue()


def pages_csv(pages, scores):
    """Numbers alone: the texts are in pages.jsonl. Controls are flattened to control_key."""
    rows = []
    for page, scored in zip(pages, scores):
        row = {"id": printable(str(page.get("id", "")))}
        for key, value in page.items():
            if isinstance(value, dict):
                row.update({f"{key}_{k}": v for k, v in value.items() if isinstance(v, (int, float))})
            elif isinstance(value, (int, float)):
                row[key] = value
        rows.append(dict(row, **scored))
    return as_csv(rows)


def buckets_csv(summary, pages, scores):
    rows = []
    for b in summary.get("buckets", []):
        inside = [s for p, s in zip(pages, scores) if b["from"] <= (p.get("tokens") or 0) < b["to"]]
        row = {k: v for k, v in b.items() if isinstance(v, (int, float))}
        row.update({k: statistics.fmean(s[k] for s in inside) for k in DEFINITIONS if inside})
        row.update({f"position_{i + 1:02}": v for i, v in enumerate(b.get("by_position") or [])})
        for table in summary.get("published", []):
            row[table["name"]] = next((p["precision"] for p in table["buckets"]
                                       if (p["from"], p["to"]) == (b["from"], b["to"])), "")
        rows.append(row)
    return as_csv(rows)


def difference(original, written):
    """The errors with some text around each: [-lost-] {+written in its place+}."""
    parts = []
    for c in Levenshtein.opcodes(original, written):
        lost, new = original[c.src_start:c.src_end], written[c.dest_start:c.dest_end]
        if c.tag == "equal":
            parts.append(lost if len(lost) <= 2 * CONTEXT else lost[:CONTEXT] + " ... " + lost[-CONTEXT:])
        else:
            parts.append((f"[-{lost}-]" if lost else "") + (f"{{+{new}+}}" if new else ""))
    return "".join(parts)


def worst_text(pages):
    bad = sorted((p for p in pages if p.get("char_precision", 1) < 1), key=lambda p: p["char_precision"])[:WORST]
    if not bad:
        return "every page came back whole\n"
    out = [f"the {len(bad)} worst pages of {len(pages)}: [-lost-] {{+written in its place+}}\n"]
    for p in bad:
        out.append(f"\n--- {p.get('id', '')}\n{p.get('tokens', '?')} tokens, char precision "
                   f"{100 * p['char_precision']:.2f} %\n{difference(p['text'], p['reconstruction'])}\n")
    return printable("".join(out))


def fox(pages):
    return [{"image": str(p.get("id", "")), "question": "Repeat the text: ", "label": p["text"],
             "answer": p["reconstruction"]} for p in pages]


def as_json(value):
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0].split(": ", 1)[1])
    parser.add_argument("eval", help="the folder that c3 eval -o named")
    folder = parser.parse_args().eval
    notes = []
    evaluation = runs.read_evaluation(folder, notes)
    try:
        if not evaluation:
            raise ValueError(f"{folder}: {'; '.join(notes)} (hint: the folder that c3 eval -o named)")
        pages = list(evaluation.pages())
        if not pages:
            raise ValueError(f"{folder}/pages.jsonl: no pages")
        scores = [score(p) for p in pages]
        means = {key: statistics.fmean(s[key] for s in scores) for key in DEFINITIONS}
        runs.write_whole(os.path.join(folder, "eval.csv"), pages_csv(pages, scores))
        runs.write_whole(os.path.join(folder, "buckets.csv"), buckets_csv(evaluation.summary, pages, scores))
        runs.write_whole(os.path.join(folder, "worst.txt"), worst_text(pages))
        runs.write_whole(os.path.join(folder, "fox.json"), as_json(fox(pages)))
        runs.write_whole(os.path.join(folder, "scores.json"), as_json(dict(
            means, pages=len(pages), pages_by_character=sum(s["by_character"] for s in scores),
            definitions=DEFINITIONS)))
    except ValueError as e:
        sys.exit(f"score.py: {e}")
    except OSError as e:
        sys.exit(f"score.py: {e.filename or folder}: {e.strerror}")
    for key, value in means.items():
        print(f"{key.replace('_', ' '):<16} {100 * value:7.2f}%  {DEFINITIONS[key]}")


if __name__ == "__main__":
    main()
