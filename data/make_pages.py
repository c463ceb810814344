#!/usr/bin/env python3
"""Documents (JSONL) to the short pages of the demo: cut, held-out split by work, no overlap between the two.

    python3 data/make_pages.py -tok data/qwen2.5/qwen.tiktoken data/corpus data/demo

reads CORPUS/en.jsonl and CORPUS/zh.jsonl (one may be missing; a document is {"text"}, with "id" and "source" where it
has them) and writes train.jsonl, val_en.jsonl, val_zh.jsonl,
figure4.jsonl (four kinds of text, a page each), random.jsonl (the random one alone) and split.json (counts). A page is
{"id", "lang", "source", "text"}, 24 to 64 tokens of the vocabulary cut at K ranks, cut at the end of an item,
paragraph, sentence or clause where there is one.

Whole works are held out (a novel, books of the Bible, manual pages...). Works quote each other, so a training page that
shares a run of 8 words (English), 8 letters (Chinese) or 13 tokens with a held-out page is dropped as well; a page that
would cost many training pages so is boilerplate, and is not held out. No run of 13 tokens is left in both.

The same input, options and seed give the same files. Only the standard library is used.
"""
import argparse
import base64
import codecs
import hashlib
import json
import os
import random
import re
import sys
import unicodedata

HELD_OUT = {  # works by name; of sources that are not named here, one work in HELD_OUT_ONE_IN by hash
    "austen/northangerabbey", "bible/Ruth", "bible/Eccl", "bible/Jonah", "bible/Jas", "bible/Phil", "bible/1John",
    "fortunes/wisdom", "fortunes/humorists", "classics/daodejing", "classics/song100",
    "debian-reference/debian-reference-5", "debian-reference/debian-reference-11",
}
HELD_OUT_ONE_IN = 12
RUN = 8  # words (en) or letters (zh)
GRAM = 13  # tokens


class BadCorpus(Exception):
    """A line of the corpus that is no document."""


def read_documents(path):
    """The documents of a JSONL file as {"id", "source", "text"}; those without text are left out. One that has no id is
    named by its place, and so is a work of its own."""
    with open(path, "rb") as f:
        for number, line in enumerate(f, 1):
            if not line.removeprefix(codecs.BOM_UTF8).strip():
                continue
            try:
                document = json.loads(line.removeprefix(codecs.BOM_UTF8).decode("utf-8"))
                document["text"].encode()  # no half of a surrogate pair
            except (ValueError, RecursionError) as why:
                raise BadCorpus(f"{path}: line {number}: expected JSON in UTF-8: {why}") from None
            except (TypeError, KeyError, AttributeError):
                raise BadCorpus(f'{path}: line {number}: expected a document {{"text": "..."}}, found '
                                f"{line[:40].decode(errors='replace').strip()!r}") from None
            if document["text"].strip():
                file = os.path.basename(path)
                yield {"id": str(document.get("id") or f"{file}:{number}"), "text": document["text"],
                       "source": str(document.get("source") or file.removesuffix(".jsonl"))}


def work_of(document_id):
    return document_id.rsplit("/", 1)[0]


def is_held_out(document):
    work = work_of(document["id"])
    if document["source"] in {name.split("/")[0] for name in HELD_OUT}:
        return work in HELD_OUT
    return int(hashlib.sha256(work.encode()).hexdigest(), 16) % HELD_OUT_ONE_IN == 0


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
        self.numbers = frozenset(numbers)
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
        plain = text.isascii() or self.numbers.isdisjoint(text)
        for piece in (self.pieces if plain else self.pieces_with_numbers).findall(text):
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


def border(units, end):
    """How natural a cut after units[end] is: 4 item, 3 paragraph, 2 sentence, 1 clause, 0 only a word."""
    unit, following = units[end], units[end + 1] if end + 1 < len(units) else "\n\n"
    if following.startswith("\n"):
        if end + 2 < len(units) and units[end + 2].startswith("--"):
            return 0  # a quotation keeps its author
        return 4 if len(following) > 1 else 3
    return 2 if SENTENCE.search(unit) else 1 if CLAUSE.search(unit) else 0


def cut_pages(text, ids_of, sizes, rng, least=24, most=64):
    """(page, ids) of a document in order, least to most tokens each; what is left over at its end is dropped.
    sizes is a dict that remembers the tokens of units from call to call."""
    units = [u for u in UNIT.findall(text) if u]
    for u in units:
        if u not in sizes:
            sizes[u] = len(ids_of(u))
    start = 0
    while start < len(units):
        # Each page draws a length; the end that is near it and natural wins: a border of one kind better is worth
        # 10 tokens of distance, and within a sentence is cut only where 64 tokens hold no border at all.
        target, total, best = rng.randint(least, most), 0, None
        for end in range(start, len(units)):
            total += sizes[units[end]]
            if total > most:
                break
            if total >= least and not units[end].isspace():
                score = border(units, end)
                cost = abs(total - target) - 10 * score + (50 if score == 0 else 0)
                if best is None or cost <= best[0]:
                    best = cost, end
        if best is None:
            if total <= most:
                return  # the rest of the document is shorter than a page
            start = max(start + 1, end)  # a unit longer than a page, an address or the like, is left out
            continue
        page = re.sub("\n+", "\n", "".join(units[start : best[1] + 1])).strip()
        start = best[1] + 1
        ids = ids_of(page)  # units merge a little differently side by side
        if least <= len(ids) <= most:
            yield page, ids


# ---------------------------------------------------------------- overlap

def runs(text, lang):
    """The runs of RUN words or letters of a text; numbers, case and punctuation do not count."""
    items = tuple(re.findall(r"[^\W\d_]+" if lang == "en" else r"[^\W\d_]", text.lower()))
    return [hash(items[i : i + RUN]) for i in range(len(items) - RUN + 1)]


def grams(ids):
    """The runs of GRAM tokens of a page."""
    return [hash(tuple(ids[i : i + GRAM])) for i in range(len(ids) - GRAM + 1)]


def choose_held_out(candidates, training, lang, wanted, rng, too_common):
    """(held-out pages, training pages that stay, report). Candidates are taken in turn from the sources; one that
    shares something with more than too_common training pages is boilerplate and is passed over, else those pages go."""
    sources = {}
    for page in candidates:
        sources.setdefault(page["source"], []).append(page)
    for pages in sources.values():
        rng.shuffle(pages)
    order = []
    while any(sources.values()):
        order += [pages.pop() for _, pages in sorted(sources.items()) if pages]
    order = order[: 3 * wanted]
    page_grams = [set(grams(page["ids"])) for page in order]
    keys = [set(runs(page["text"], lang)) | g for page, g in zip(order, page_grams)]
    owners = {}  # run or gram -> candidates that contain it
    for number, own in enumerate(keys):
        for key in own:
            owners.setdefault(key, []).append(number)
    hits = [set() for _ in order]  # training pages that share something with a candidate
    seen = set()
    for number, page in enumerate(training):
        if page["lang"] == lang:
            for key in owners.keys() & (runs(page["text"], lang) + grams(page["ids"])):
                seen.add(key)
                for owner in owners[key]:
                    hits[owner].add(number)
    chosen, taken, common, drop, before = [], set(), 0, set(), []
    for page, own, g, hit in zip(order, keys, page_grams, hits):
        if len(chosen) == wanted:
            break
        if len(hit) > too_common:
            common += 1
        elif own.isdisjoint(taken):  # one held-out page does not quote another either
            chosen.append(page)
            taken |= own
            drop |= hit
            before += [key in seen for key in g]
    kept = [page for number, page in enumerate(training) if number not in drop]
    left = {key for page in kept if page["lang"] == lang for key in grams(page["ids"])}
    after = [key in left for page in chosen for key in grams(page["ids"])]
    report = {"pages": len(chosen), "passed_over_as_common": common, "training_pages_dropped": len(drop),
              "share_of_grams_in_training_before_dropping": round(sum(before) / max(1, len(before)), 4),
              "share_of_grams_in_training": round(sum(after) / max(1, len(after)), 4)}
    return chosen, kept, report


# ---------------------------------------------------------------- the files

def random_page(ids_of, rng, tokens):
    """Letters and digits with no language in them: nothing but the latents can tell what comes next."""
    alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    text = ""
    while len(ids_of(text)) < tokens:
        text += rng.choice(alphabet) if rng.random() < 0.85 or text[-1:] in ("", " ") else " "
    return text.strip()


def figure4(val, ids_of, rng, least, most):
    """Four kinds of text: English prose, classical Chinese, random characters, shuffled Chinese."""
    def longest(lang, source, fits):
        pages = [p for p in val[lang] if p["source"] in source and fits(p["text"])] or val[lang][:1]
        return max(pages, key=lambda p: len(p["ids"]))["text"] if pages else ""

    modern = longest("zh", ("help", "manpages"), lambda t: not re.search("[!-~]", t))
    for _ in range(100):
        shuffled = "".join(rng.sample(modern, len(modern)))
        if least <= len(ids_of(shuffled)) <= most:
            break
    kinds = (("english-prose", "en", longest("en", ("austen",), lambda t: t.endswith("."))),
             ("classical-chinese", "zh", longest("zh", ("classics",), lambda t: t.endswith("。") and "《" not in t)),
             ("random-characters", "en", random_page(ids_of, rng, (least + most) // 2)),
             ("shuffled-chinese", "zh", shuffled))
    return [{"id": f"figure4/{kind}", "lang": lang, "source": kind, "text": text} for kind, lang, text in kinds if text]


def write_jsonl(path, pages):
    with open(path + ".new", "w", encoding="utf-8") as f:
        for page in pages:
            f.write(json.dumps({k: page[k] for k in ("id", "lang", "source", "text")}, ensure_ascii=False) + "\n")
    os.replace(path + ".new", path)


def cut_corpus(corpus, ids_of, seed, least, most, longest=0.0):
    """(training pages, {lang: held-out pages}) of all documents. The longest pages are the hardest, and few when lengths
    are drawn evenly: training documents are cut a second time, into pages of nearly `most` tokens, and as many of these
    are added as make up the share `longest` of the others."""
    training, held, extra, sizes = [], {}, [], {}
    for lang in ("en", "zh"):
        held[lang] = []
        if not os.path.exists(f"{corpus}/{lang}.jsonl"):
            continue
        for document in read_documents(f"{corpus}/{lang}.jsonl"):
            rng = random.Random(f"{seed}/{document['id']}")
            out = held[lang] if is_held_out(document) else training
            for number, (text, ids) in enumerate(cut_pages(document["text"], ids_of, sizes, rng, least, most), 1):
                out.append({"id": f"{document['id']}#{number}", "lang": lang, "source": document["source"],
                            "text": text, "ids": ids})
            if longest > 0 and not is_held_out(document):
                again = cut_pages(document["text"], ids_of, sizes, rng, max(least, most - 4), most)
                extra += [{"id": f"{document['id']}#long{number}", "lang": lang, "source": document["source"],
                           "text": text, "ids": ids} for number, (text, ids) in enumerate(again, 1)]
    random.Random(seed).shuffle(extra)
    return training + extra[: round(longest * len(training))], held


def take_tokens(pages, lang, budget):
    """(pages of a language until their tokens reach the budget (0: all), counts)."""
    out, tokens, characters = [], 0, 0
    for page in pages:
        if page["lang"] == lang and (not budget or tokens < budget):
            out.append(page)
            tokens += len(page["ids"])
            characters += len(page["text"])
    return out, {"pages": len(out), "tokens": tokens, "characters": characters,
                 "tokens_per_character": round(tokens / max(1, characters), 3)}


def make(o):
    """All files of the output folder; returns the report that split.json holds."""
    ids_of = Vocabulary(o.tok, o.vocab).ids
    training, held = cut_corpus(o.corpus, ids_of, o.seed, o.least, o.most, o.longest)
    rng = random.Random(o.seed)
    rng.shuffle(training)
    report, val, parts = {"vocab": o.vocab, "seed": o.seed, "least": o.least, "most": o.most, "longest": o.longest}, {}, []
    for lang, budget in (("en", o.en), ("zh", o.zh)):
        val[lang], training, found = choose_held_out(held[lang], training, lang, o.val, rng, o.too_common)
        pages, counts = take_tokens(training, lang, budget)
        parts += pages
        report[f"train_{lang}"], report[f"val_{lang}"] = counts, found
    rng.shuffle(parts)
    os.makedirs(o.out, exist_ok=True)
    write_jsonl(f"{o.out}/train.jsonl", parts)
    for lang, pages in val.items():
        write_jsonl(f"{o.out}/val_{lang}.jsonl", pages)
    kinds = figure4(val, ids_of, rng, o.least, o.most)
    write_jsonl(f"{o.out}/figure4.jsonl", kinds)
    write_jsonl(f"{o.out}/random.jsonl", [page for page in kinds if page["source"] == "random-characters"])
    with open(f"{o.out}/split.json.new", "w", encoding="utf-8") as f:
        json.dump(report, f, indent=1)
        f.write("\n")
    os.replace(f"{o.out}/split.json.new", f"{o.out}/split.json")
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", help="folder of en.jsonl and zh.jsonl")
    parser.add_argument("out", help="folder of the result")
    parser.add_argument("-tok", default="data/qwen2.5/qwen.tiktoken", help="qwen.tiktoken")
    parser.add_argument("-vocab", type=int, default=2048, help="ranks kept of the vocabulary (2048)")
    parser.add_argument("-least", type=int, default=24, help="tokens of the shortest page (24)")
    parser.add_argument("-most", type=int, default=64, help="tokens of the longest page (64)")
    parser.add_argument("-longest", type=float, default=0.25,
                        help="training pages of the longest kind added, as a share of the others (0.25)")
    parser.add_argument("-val", type=int, default=300, help="held-out pages per language (300)")
    parser.add_argument("-too_common", type=int, default=8, help="training pages a held-out page may cost (8)")
    parser.add_argument("-en", type=int, default=0, help="most English training tokens, 0: all there are (0)")
    parser.add_argument("-zh", type=int, default=1700000, help="the same, Chinese (1700000)")
    parser.add_argument("-seed", type=int, default=1)
    o = parser.parse_args()
    if not os.path.exists(o.tok):
        sys.exit(f"make_pages.py: no vocabulary at {o.tok} (hint: bash data/get_tokenizer.sh, or name it with -tok)")
    if not any(os.path.exists(f"{o.corpus}/{lang}.jsonl") for lang in ("en", "zh")):
        sys.exit(f"make_pages.py: neither en.jsonl nor zh.jsonl in {o.corpus} (hint: data/debian_texts.py makes them)")
    if not 256 <= o.vocab or not 13 <= o.least < o.most or o.val < 1:
        sys.exit("make_pages.py: expected -vocab >= 256, 13 <= -least < -most, -val >= 1")
    try:
        print(json.dumps(make(o), indent=1))
    except BadCorpus as why:
        sys.exit(f"make_pages.py: {why}")


if __name__ == "__main__":
    main()
