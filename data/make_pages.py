#!/usr/bin/env python3
"""Documents (JSONL) to the short pages of the demo: cut, held-out split by work, no overlap between the two.

    python3 data/make_pages.py -tok data/qwen2.5/qwen.tiktoken data/corpus data/demo

reads CORPUS/en.jsonl and CORPUS/zh.jsonl and writes train.jsonl, val_en.jsonl, val_zh.jsonl, figure4.jsonl, split.json
to the output folder. A page is {"id", "lang", "source", "text"}, 24 to 64 tokens of the vocabulary cut at K ranks, cut
at the end of an item, paragraph, sentence or clause where there is one.

Whole works are held out (a novel, books of the Bible, manual pages...). Works quote each other, so a training page that
shares a run of 8 words (English) or 8 letters (Chinese) with a held-out page is dropped as well; a held-out page
that shares with more than a few training pages is boilerplate and is dropped instead. What is left is counted in tokens.

The same input, options and seed give the same files. Only the standard library is used.
"""
import argparse
import base64
import hashlib
import json
import os
import random
import re
import sys
import unicodedata

HELD_OUT = {  # works by name; of manual pages and help topics, one in 12 by hash
    "austen/northangerabbey", "bible/Ruth", "bible/Eccl", "bible/Jonah", "bible/Jas", "bible/Phil", "bible/1John",
    "fortunes/wisdom", "fortunes/humorists", "classics/daodejing", "classics/song100",
    "debian-reference/debian-reference-5", "debian-reference/debian-reference-11",
}
HELD_OUT_BY_HASH = {"manpages": 12, "help": 12}
RUN = 8  # words (en) or letters (zh): a longer common run counts as seen
GRAM = 13  # tokens: the run whose share is reported


def work_of(document_id):
    return document_id.rsplit("/", 1)[0]


def is_held_out(document):
    work = work_of(document["id"])
    one_in = HELD_OUT_BY_HASH.get(document["source"])
    return work in HELD_OUT or bool(one_in) and int(hashlib.sha256(work.encode()).hexdigest(), 16) % one_in == 0


# ---------------------------------------------------------------- tokens

class Vocabulary:
    """Qwen's byte-level BPE cut at K ranks, for counting. The tool `c3 tokenize` makes the ids that are trained on;
    a test compares the two. Exact, and fast enough because pieces repeat: where no token of the small vocabulary
    crosses the border of two characters (most ideographs), a piece is merged character by character from a cache."""

    def __init__(self, path, k):
        self.ranks = {}
        with open(path, "rb") as f:
            for line in f:
                token, rank = line.split()
                if int(rank) < k:
                    self.ranks[base64.b64decode(token)] = int(rank)
        if len(self.ranks) != k:
            raise ValueError(f"{path}: {len(self.ranks)} ranks below {k}, expected {k}")
        crossed = set()
        for token in self.ranks:
            for a, b in zip(token, token[1:]):
                if b & 0xC0 != 0x80 and (a | b) >= 0x80:
                    crossed.add((a, b))
        self.crossed, self.cache = crossed, {}
        # Python's \w and \d differ from \p{L} and \p{N} in numbers such as ½ and Ⅷ; texts without them, nearly all,
        # take the expression without these long classes.
        numbers = "".join(c for c in map(chr, range(0x110000)) if unicodedata.category(c) in ("Nl", "No"))
        self.numbers = re.compile(f"[{numbers}]")
        self.pieces, self.pieces_with_numbers = (re.compile(
            f"(?i:'s|'t|'re|'ve|'m|'ll|'d)|(?:[^\\r\\n\\w]|_)?[^\\W\\d_{n}]+|[\\d{n}]| ?(?:[^\\s\\w]|_)+[\\r\\n]*"
            "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+") for n in ("", numbers))

    def merge(self, piece):
        parts = [piece[i : i + 1] for i in range(len(piece))]
        while len(parts) > 1:
            rank, at = min((self.ranks.get(parts[i] + parts[i + 1], 1 << 30), i) for i in range(len(parts) - 1))
            if rank == 1 << 30:
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return [self.ranks[p] for p in parts]

    def piece_ids(self, piece):
        ids = self.cache.get(piece)
        if ids is None:
            data, start, ids = piece.encode(), 0, []
            for i in range(1, len(data) + 1):
                if i == len(data) or (data[i] & 0xC0 != 0x80 and (data[i - 1] | data[i]) >= 0x80
                                      and (data[i - 1], data[i]) not in self.crossed):
                    part = data[start:i]
                    if part not in self.cache:
                        self.cache[part] = self.merge(part)
                    ids += self.cache[part]
                    start = i
            if len(piece) < 12:
                self.cache[piece] = ids
        return ids

    def ids(self, text):
        """Ids of NFC text."""
        out = []
        for piece in (self.pieces_with_numbers if self.numbers.search(text) else self.pieces).findall(text):
            out += self.piece_ids(piece)
        return out


# ---------------------------------------------------------------- cutting

HAN = "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3400-\u9fff\uf900-\ufaff"
OPEN = "「『“‘（《〈【(\\[\"'"
CLOSE = "，。！？；：、”’」』》〉】）…—"
# The smallest things a cut never parts: a word with its punctuation, or one ideograph with the marks around it.
UNIT = re.compile(f"\\n+|[^\\S\\n]*[{OPEN}]*(?:[{HAN}]|[^\\s{HAN}{CLOSE}]+)?[{CLOSE}]*[\"')\\]]*")
SENTENCE = re.compile("[.!?。！？…][\"'”’」』)）]*$")
CLAUSE = re.compile("[,;:，；：、—)）]$|--$")


def border(unit, following):
    """How natural a cut after this unit is: 4 item, 3 paragraph, 2 sentence, 1 clause, 0 only a word."""
    if following.startswith("\n"):
        return 4 if len(following) > 1 else 3
    return 2 if SENTENCE.search(unit) else 1 if CLAUSE.search(unit) else 0


def cut_pages(text, count, rng, least=24, most=64):
    """Pages of a document in order: count(page) lies in least..most. What is left over at the end is dropped."""
    units = [u for u in UNIT.findall(text) if u]
    sizes = [count(u) for u in units]
    start = 0
    while start < len(units):
        if units[start].isspace():
            start += 1
            continue
        target, total, best = rng.randint(least, most), 0, None
        for end in range(start, len(units)):
            total += sizes[end]
            if total > most:
                break
            if total < least or units[end].isspace():
                continue
            score = border(units[end], units[end + 1] if end + 1 < len(units) else "\n\n")
            # Short items stay whole wherever they end; other borders count near the length drawn.
            near = score == 4 or -16 <= total - target <= 8
            rank = (near, score if near else 0, -abs(total - target))
            if best is None or rank > best[0]:
                best = rank, end
        if best is None:
            start = end + 1 if total > most and end == start else start + 1
            if total <= most:
                break  # the rest of the document is shorter than a page
            continue
        end = best[1]
        page = re.sub("\n+", "\n", "".join(units[start : end + 1])).strip()
        while count(page) > most and end > start:  # units merge differently beside each other
            end -= 1
            page = re.sub("\n+", "\n", "".join(units[start : end + 1])).strip()
        start = end + 1
        if least <= count(page) <= most:
            yield page


# ---------------------------------------------------------------- overlap

def runs(page, lang):
    """The runs of RUN words or letters of a page; numbers, case and punctuation do not count."""
    items = re.findall(r"[^\W\d_]+", page.lower()) if lang == "en" else re.sub(r"[\W\d_]+", "", page.lower())
    join = " ".join if lang == "en" else str
    return {join(items[i : i + RUN]) for i in range(len(items) - RUN + 1)}


def grams(ids):
    return {tuple(ids[i : i + GRAM]) for i in range(len(ids) - GRAM + 1)}


def choose_held_out(candidates, training, lang, wanted, rng, too_common=6):
    """(held-out pages, training pages that stay, counts): candidates are taken in turn from the sources."""
    sources = {}
    for page in candidates:
        sources.setdefault(page["source"], []).append(page)
    for pages in sources.values():
        rng.shuffle(pages)
    order = []
    while any(sources.values()):
        order += [pages.pop() for _, pages in sorted(sources.items()) if pages]
    order = order[: 2 * wanted]
    owners = {}  # run -> candidates that contain it
    for number, page in enumerate(order):
        page["runs"] = runs(page["text"], lang)
        for run in page["runs"]:
            owners.setdefault(run, []).append(number)
    hits = [set() for _ in order]  # training pages that share a run with a candidate
    for number, page in enumerate(training):
        if page["lang"] == lang:
            for run in runs(page["text"], lang):
                for owner in owners.get(run, ()):
                    hits[owner].add(number)
    chosen, taken, common, drop = [], set(), 0, set()
    for page, hit in zip(order, hits):
        if len(chosen) == wanted:
            break
        if len(hit) > too_common:
            common += 1
        elif page["runs"] and not page["runs"] & taken:  # one held-out page does not quote another either
            chosen.append(page)
            taken |= page["runs"]
            drop |= hit
    for page in order:
        del page["runs"]
    kept = [page for number, page in enumerate(training) if number not in drop]
    return chosen, kept, {"pages": len(chosen), "too_common_left_out": common, "training_pages_dropped": len(drop)}


# ---------------------------------------------------------------- the files

def random_page(rng, count, least=24, most=64):
    """Letters, digits and marks with no language in them: nothing but the latents can tell what comes next."""
    alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    text = ""
    while count(text) < (least + most) // 2:
        text += rng.choice(alphabet) if rng.random() < 0.85 or text[-1:] in ("", " ") else " "
    return text.strip()


def figure4(val, count, rng):
    """Four kinds of text: English prose, classical Chinese, random characters, shuffled Chinese."""
    prose = next(p for p in val["en"] if p["source"] == "austen")
    classical = next(p for p in val["zh"] if p["source"] == "classics")
    modern = next(p for p in val["zh"] if p["source"] in ("help", "manpages"))
    letters = list(re.sub(r"\s", "", modern["text"]))
    while True:
        rng.shuffle(letters)
        if 24 <= count("".join(letters)) <= 64:
            break
    kinds = (("english-prose", "en", prose["text"]), ("classical-chinese", "zh", classical["text"]),
             ("random-characters", "en", random_page(rng, count)), ("shuffled-chinese", "zh", "".join(letters)))
    return [{"id": f"figure4/{kind}", "lang": lang, "source": kind, "text": text} for kind, lang, text in kinds]


def write_jsonl(path, pages):
    with open(path + ".new", "w", encoding="utf-8") as f:
        for page in pages:
            f.write(json.dumps(page, ensure_ascii=False) + "\n")
    os.replace(path + ".new", path)


def cut_corpus(corpus, count, seed, least, most):
    """(training pages, {lang: held-out pages}, tokens by language) of all documents."""
    training, held = [], {}
    for lang in ("en", "zh"):
        held[lang] = []
        with open(f"{corpus}/{lang}.jsonl", encoding="utf-8") as f:
            for line in f:
                document = json.loads(line)
                rng = random.Random(f"{seed}/{document['id']}")
                out = held[lang] if is_held_out(document) else training
                for number, text in enumerate(cut_pages(document["text"], count, rng, least, most), 1):
                    out.append({"id": f"{document['id']}#{number}", "lang": lang, "source": document["source"], "text": text})
    return training, held


def take_tokens(pages, lang, budget, tokens_of):
    """Pages of a language until their tokens reach the budget (0: all)."""
    out, total = [], 0
    for page in pages:
        if page["lang"] == lang and (not budget or total < budget):
            out.append(page)
            total += tokens_of[page["id"]]
    return out, total


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus")
    parser.add_argument("out")
    parser.add_argument("-tok", default="data/qwen2.5/qwen.tiktoken", help="qwen.tiktoken")
    parser.add_argument("-vocab", type=int, default=4096, help="ranks kept of the vocabulary (default 4096)")
    parser.add_argument("-least", type=int, default=24, help="tokens of the shortest page (default 24)")
    parser.add_argument("-most", type=int, default=64, help="tokens of the longest page (default 64)")
    parser.add_argument("-val", type=int, default=300, help="held-out pages per language (default 300)")
    parser.add_argument("-en", type=int, default=0, help="most English training tokens (default 0: all)")
    parser.add_argument("-zh", type=int, default=0, help="most Chinese training tokens (default 0: all)")
    parser.add_argument("-seed", type=int, default=1)
    o = parser.parse_args()
    if not os.path.exists(o.tok):
        sys.exit(f"make_pages.py: no vocabulary at {o.tok} (hint: bash scripts/setup.sh fetches it, or name it with -tok)")
    vocabulary = Vocabulary(o.tok, o.vocab)

    def count(text):
        return len(vocabulary.ids(text))

    training, held = cut_corpus(o.corpus, count, o.seed, o.least, o.most)
    rng = random.Random(o.seed)
    rng.shuffle(training)
    report, val = {"vocab": o.vocab, "seed": o.seed, "run": RUN, "gram": GRAM}, {}
    for lang in ("en", "zh"):
        val[lang], training, report[f"val_{lang}"] = choose_held_out(held[lang], training, lang, o.val, rng)
    tokens_of = {page["id"]: count(page["text"]) for page in training}
    parts = {lang: take_tokens(training, lang, budget, tokens_of) for lang, budget in (("en", o.en), ("zh", o.zh))}
    training = parts["en"][0] + parts["zh"][0]
    rng.shuffle(training)
    for lang in ("en", "zh"):
        wanted = {g: 0 for page in val[lang] for g in grams(vocabulary.ids(page["text"]))}
        for page in parts[lang][0]:
            for g in grams(vocabulary.ids(page["text"])):
                if g in wanted:
                    wanted[g] = 1
        characters = sum(len(page["text"]) for page in parts[lang][0])
        report[f"train_{lang}"] = {"pages": len(parts[lang][0]), "tokens": parts[lang][1], "characters": characters}
        report[f"val_{lang}"]["share_of_13_token_grams_seen_in_training"] = round(sum(wanted.values()) / max(1, len(wanted)), 5)
    os.makedirs(o.out, exist_ok=True)
    write_jsonl(f"{o.out}/train.jsonl", training)
    for lang in ("en", "zh"):
        write_jsonl(f"{o.out}/val_{lang}.jsonl", val[lang])
    write_jsonl(f"{o.out}/figure4.jsonl", figure4(val, count, rng))
    with open(f"{o.out}/split.json", "w", encoding="utf-8") as f:
        json.dump(report, f, indent=1)
        f.write("\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
