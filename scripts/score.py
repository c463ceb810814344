#!/usr/bin/env python3
"""score.py: text metrics beyond the edit distance, of pages that c3 eval wrote back.

    scripts/score.py EVAL

EVAL is the folder c3 eval -o named. Reads its pages.jsonl and eval.json, prints a table, and writes beside them

    scores.json   means: word_precision, word_recall, word_f1, bleu4, rouge_l, fox_recall, and their definitions
    eval.csv      a page a line: the numbers of pages.jsonl, and these
    buckets.csv   the table by length, with the published figures beside it
    kinds.csv     errors by kind of text
    confidence.csv  pages by the decoder's confidence
    worst.txt     the pages that came back worst, with what was [-lost-] and {+written in its place+}
    fox.json      for the Fox benchmark's own tool: a list of {"image", "question", "label", "answer"}

Words are separated by white space; where a page holds Chinese they are its characters without white space.
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

from rapidfuzz.distance import LCSseq, Levenshtein
from sacrebleu.metrics import BLEU

import runs
from runs import clean

CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
FOX_CHINESE = re.compile("[\u4e00-\u9fa5]")
WORST = 10  # pages of worst.txt
CONTEXT = 60  # characters around an error there
SHORTEST = 4  # equal characters between two errors that are shown as two
DEFINITIONS = {
    "word_precision": "words of the reconstruction that the original has, as sets / words of the reconstruction; mean "
                      "over pages",
    "word_recall": "the same words / words of the original",
    "word_f1": "harmonic mean of a page's word precision and recall; mean over pages",
    "bleu4": "sacrebleu's sentence BLEU (floor smoothing 0.1, effective order) over these words; mean over pages",
    "rouge_l": "F1 of the longest common subsequence of these words, as rouge-score; mean over pages",
    "fox_recall": "what the Fox benchmark's own tool prints as precision: word recall, where either text holds Chinese "
                  "of what jieba cuts both into",
}
bleu = BLEU(smooth_method="floor", smooth_value=0.1, tokenize="none", effective_order=True)


# ---- a page ---------------------------------------------------------------------------------------------------------


def ratio(part, whole, of_nothing):
    return part / whole if whole else float(of_nothing)


def f1(precision, recall):
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def words(text, by_character):
    return [c for c in text if not c.isspace()] if by_character else text.split()


def fox_words(text, chinese):
    if not chinese:
        return set(text.split())
    import jieba  # takes a second to load, and only Chinese needs it
    jieba.setLogLevel(logging.WARNING)
    return set(jieba.cut(text))


def fox_recall(original, written):
    chinese = FOX_CHINESE.search(original) or FOX_CHINESE.search(written)
    label, answer = fox_words(original, chinese), fox_words(written, chinese)
    return ratio(len(label & answer), len(label), not answer)


def bleu_4(output, reference):
    return min(1.0, bleu.sentence_score(" ".join(output), [" ".join(reference)]).score / 100)  # rounding goes above


def score(page):
    """The metrics of one page, each a fraction of 1."""
    original, written = page["text"], page["reconstruction"]
    by_character = bool(CHINESE.search(original or written))
    reference, output = words(original, by_character), words(written, by_character)
    a, b = set(reference), set(output)
    precision, recall = ratio(len(a & b), len(b), not a), ratio(len(a & b), len(a), not b)
    # rouge-score, which the tests compare with, takes a second for a page of a thousand characters.
    common = LCSseq.similarity(reference, output)
    return {"word_precision": precision, "word_recall": recall, "word_f1": f1(precision, recall),
            "bleu4": bleu_4(output, reference) if b else float(not a),
            "rouge_l": f1(ratio(common, len(output), not a), ratio(common, len(reference), not b)),
            "fox_recall": fox_recall(original, written), "by_character": int(by_character)}


# ---- tables ---------------------------------------------------------------------------------------------------------


def as_csv(rows):
    out = io.StringIO()
    table = csv.DictWriter(out, list(dict.fromkeys(k for row in rows for k in row)), lineterminator="\n", restval="")
    table.writeheader()
    table.writerows({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return out.getvalue()


def cell(text):
    """No control characters, and nothing that a spreadsheet takes for a formula."""
    return ("'" if text[:1] in ("=", "+", "-", "@") else "") + clean(text)


def page_row(page, scored):
    """Numbers alone: the texts are in pages.jsonl. Of a control the columns are its name's end and what they count."""
    row = {"id": cell(page["id"])}
    for key in ("tokens", "latents", "output_tokens", "ended", "char_precision", "edit_distance", "mean_log_prob",
                "least_log_prob"):
        row[key] = page.get(key)
    row.update(reference_chars=len(page["text"]), output_chars=len(page["reconstruction"]))
    for key in ("exact", "same_tokens", "forced_rows", "forced_correct", "loss"):
        row[key] = page.get(key)
    for key in ("decoder_alone", "control_swapped_latents", "control_no_latents", "control_zero_latents"):
        found, name = page.get(key), key.removeprefix("control_")
        for part in ("char_precision", "correct", "loss"):
            if runs.number(found, part) is not None:
                row[f"{name}_{part.removeprefix('char_')}"] = found[part]
    kinds, by_kind = page.get("by_kind"), {}
    for kind, counts in kinds.items() if isinstance(kinds, dict) else ():
        if re.fullmatch("[a-z_]+", kind) and isinstance(counts, list) and len(counts) == 3 and all(map(runs.is_number, counts)):
            by_kind |= {f"{kind}_chars": counts[0], f"{kind}_lost": counts[1], f"{kind}_added": counts[2]}
    row = {k: int(v) if isinstance(v, bool) else v for k, v in row.items()}
    return {k: v for k, v in row.items() if k == "id" or runs.is_number(v)} | scored | by_kind


def bucket_row(bucket, published, scores):
    """A bucket of eval.json, the means of its pages' scores, what is published of the same lengths."""
    row = {k: bucket[k] for k in ("from", "to", "pages", "compression") if k in bucket}
    row |= {k: v for k, v in bucket.items() if runs.is_number(v)}
    if scores:
        row |= {k: statistics.fmean(s[k] for s in scores) for k in DEFINITIONS}
    row |= {f"position_{i + 1:02}": v for i, v in enumerate(bucket["by_position"]) if v is not None}
    for table in published:
        row[cell(table["name"])] = next((p["precision"] for p in table["buckets"]
                                         if (p["from"], p["to"]) == (bucket["from"], bucket["to"])), "")
    return row


def bucket_rows(evaluation, pages, scores):
    return [bucket_row(b, evaluation.published,
                       [s for p, s in zip(pages, scores, strict=True)
                        if b["from"] <= (runs.number(p, "tokens") or 0) < b["to"]]) for b in evaluation.buckets]


# ---- the worst pages ------------------------------------------------------------------------------------------------


def changes(original, written):
    """[(equal text, lost, written in its place)], of which the equal one or the two others are empty. Changes with fewer
    than SHORTEST equal characters between them are one: a chance letter would tear it into pieces nobody can read."""
    parts, codes = [], list(Levenshtein.opcodes(original, written))
    for i, c in enumerate(codes):
        lost, new = original[c.src_start:c.src_end], written[c.dest_start:c.dest_end]
        if c.tag == "equal" and (len(lost) >= SHORTEST or i in (0, len(codes) - 1)):
            parts.append((lost, "", ""))
        elif parts and not parts[-1][0]:
            parts[-1] = ("", parts[-1][1] + lost, parts[-1][2] + new)
        else:
            parts.append(("", lost, new))
    return parts


def excerpt(text, before, after):
    """The ends of a long text, `before` and `after` characters of it."""
    left_out = len(text) - before - after
    if left_out <= 16:  # the note would take as much room
        return clean(text, keep="\n\t")
    note = (" " if before else "") + f"[... {left_out} characters ...]" + (" " if after else "")
    return clean(text[:before], keep="\n\t") + note + clean(text[len(text) - after:], keep="\n\t")


def difference(original, written):
    """Both texts in one: what was [-lost-] and {+written in its place+}, and CONTEXT characters around it."""
    parts, out = changes(original, written), []
    for i, (equal, lost, new) in enumerate(parts):
        out.append(excerpt(equal, CONTEXT if i else 0, CONTEXT if i + 1 < len(parts) else 0))
        for text, mark in ((lost, "[-{}-]"), (new, "{{+{}+}}")):
            if text:
                out.append(mark.format(clean(text.replace("\n", "\\n"), keep="\t")))
    return "".join(out)


def worst_text(pages):
    bad = [p for p in pages if p["text"] != p["reconstruction"] and runs.number(p, "char_precision") is not None]
    bad = sorted(bad, key=lambda p: p["char_precision"])[:WORST]
    if not bad:
        return "every page came back whole\n"
    out = [f"the {len(bad)} worst pages of {len(pages)}: [-lost-] {{+written in its place+}}\n"]
    for p in bad:
        out.append(f"\n--- {p['id']}\n{runs.number(p, 'tokens') or 0:.0f} tokens, char precision "
                   f"{100 * p['char_precision']:.2f} %, edit distance {Levenshtein.distance(p['text'], p['reconstruction'])}"
                   f" of {len(p['text'])} characters"
                   f"{', cut at the limit of new tokens' if p.get('ended') is False else ''}\n"
                   f"{difference(p['text'], p['reconstruction'])}\n")
    return "".join(out)


# ---- files ----------------------------------------------------------------------------------------------------------


def fox(pages):
    return [{"image": p["id"], "question": "Repeat the text: ", "label": p["text"], "answer": p["reconstruction"]}
            for p in pages]


def as_json(value):
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def write_files(folder, means, scores, evaluation, pages):
    """scores.json is the last: when it is there and of these pages, the others are."""
    by_character = sum(s["by_character"] for s in scores)
    files = {"eval.csv": as_csv([page_row(p, s) for p, s in zip(pages, scores, strict=True)]),
             "buckets.csv": as_csv(bucket_rows(evaluation, pages, scores)),
             "kinds.csv": as_csv([dict(k, kind=cell(k["kind"]), few=int(k["few"])) for k in evaluation.kinds]),
             "confidence.csv": as_csv(evaluation.bins), "worst.txt": worst_text(pages), "fox.json": as_json(fox(pages)),
             "scores.json": as_json(dict(means, pages=len(pages), pages_by_character=by_character,
                                         pages_sha256=runs.pages_digest(folder), definitions=DEFINITIONS))}
    for name, content in files.items():
        runs.write_whole(os.path.join(folder, name), content)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0].split(": ", 1)[1])
    parser.add_argument("eval", help="the folder that c3 eval -o named")
    folder = parser.parse_args().eval
    notes = []
    evaluation = runs.read_evaluation(folder, notes)
    if not evaluation:
        sys.exit(f"score.py: {notes[0]} (hint: the folder that c3 eval -o named)")
    try:
        pages = list(evaluation.pages())
        if not pages:
            sys.exit(f"score.py: {clean(folder)}/pages.jsonl: no pages")
        scores = [score(p) for p in pages]
        means = {key: statistics.fmean(s[key] for s in scores) for key in DEFINITIONS}
        write_files(folder, means, scores, evaluation, pages)
    except OSError as e:
        sys.exit(f"score.py: {clean(folder)}: {clean(str(e))}")
    for key, value in means.items():
        print(f"{key.replace('_', ' '):<16} {100 * value:7.2f}%  {DEFINITIONS[key]}")


if __name__ == "__main__":
    main()
