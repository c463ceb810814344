#!/usr/bin/env python3
"""tesseract's word tables of one PDF to pages of text: the second half of ocr_pdf.sh.

    python3 data/ocr_pages.py FILE.pdf FOLDER FIRST LAST LEAST     reads FOLDER/pageN.tsv, writes JSONL to stdout

Words carry block, paragraph and line numbers and a confidence (-1: not a word). A page is its blocks, a blank line
between two, each paragraph on a line of its own; its confidence is the mean over words, weighted by their length.
Running heads and feet are taken off.
"""
import collections
import csv
import json
import os
import re
import sys

from debian_texts import clean, join_wrapped


def page_of_words(lines):
    """(text, mean confidence) of the lines of a tesseract .tsv file."""
    blocks, weight, total = {}, 0, 0.0
    for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
        word, confidence = (row.get("text") or "").strip(), float(row.get("conf") or -1)
        if not word or confidence < 0:
            continue
        paragraphs = blocks.setdefault(int(row["block_num"]), {})
        paragraphs.setdefault(int(row["par_num"]), {}).setdefault(int(row["line_num"]), []).append(word)
        weight += len(word)
        total += len(word) * confidence
    texts = ["\n".join(join_wrapped(" ".join(words) for words in lines_of.values()) for lines_of in paragraphs.values())
             for paragraphs in blocks.values()]
    return clean("\n\n".join(texts)), total / weight if weight else 0.0


def drop_running_heads(pages):
    """Takes the first and last line off where it returns (its first letters do) on three pages and one in four."""
    for at in (0, -1):
        keys = [re.sub(r"[\W\d_]+", "", page["text"].split("\n")[at])[:8] for page in pages]
        often = {key for key, n in collections.Counter(keys).items() if n >= max(3, len(pages) / 4)}
        for page, key in zip(pages, keys):
            lines = page["text"].split("\n")
            if key in often and len(lines) > 1 and len(lines[at]) < 80:
                page["text"] = "\n".join(lines[1:] if at == 0 else lines[:-1]).strip()


def main():
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    pdf, folder, (first, last, least) = sys.argv[1], sys.argv[2], map(int, sys.argv[3:])
    name, counts, pages = os.path.basename(pdf), {"failed": 0, "empty": 0, "unsure": 0}, []
    for number in range(first, last + 1):
        path = f"{folder}/page{number}.tsv"
        if not os.path.exists(path):
            counts["failed"] += 1
            continue
        with open(path, encoding="utf-8", errors="replace", newline="") as f:
            text, confidence = page_of_words(f)
        if not text:
            counts["empty"] += 1
        elif confidence < least:
            counts["unsure"] += 1
        else:
            pages.append({"id": f"{name}:{number:04d}", "source": name, "page": number,
                          "confidence": round(confidence, 1), "text": text})
    drop_running_heads(pages)
    for page in pages:
        print(json.dumps(page, ensure_ascii=False))
    mean = sum(page["confidence"] for page in pages) / max(1, len(pages))
    left_out = ", ".join(f"{n} {why}" for why, n in counts.items() if n)
    print(f"{name}: {len(pages)} pages of {last - first + 1}, mean confidence {mean:.1f}"
          + (f" ({left_out})" if left_out else ""), file=sys.stderr)
    if not pages:
        sys.exit(f"ocr_pages.py: no page of {name} could be read")


if __name__ == "__main__":
    main()
