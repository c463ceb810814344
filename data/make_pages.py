#!/usr/bin/env python3
"""Documents (JSONL) to the short pages of the demo: cut, held-out split by work, no overlap between the two.

    python3 data/make_pages.py -tok data/qwen2.5/qwen.tiktoken data/corpus data/demo

reads CORPUS/en.jsonl, zh.jsonl, de.jsonl and code.jsonl (any may be missing, but not both of the first two; a document
is {"text"}, with "id" and "source" where it has them) and writes

    train.jsonl    pages of -least to -most tokens (24 to 64), and parts of such pages, shorter ones: of every two whole
                   pages one part; pages of numbers, made up
    val_en.jsonl, val_zh.jsonl    held-out pages of 24 to 64 tokens: English, Chinese
    val_short.jsonl               parts of held-out pages, shorter than these: English, Chinese
    val_other.jsonl               German, program code, numbers; half of them short
    split.json     counts

A page is {"id", "lang", "source", "text"}; tokens are those of the vocabulary cut at K ranks. It is cut at the end of an
item, paragraph, sentence or clause where there is one.

Whole works are held out (a novel, books of the Bible, manual pages, a program's file...). Works quote each other, so a
training page that shares a run of 8 words (Chinese: 8 letters) or 13 tokens with a held-out page is dropped as well; a
page that would cost many training pages so is boilerplate, and is not held out. No run of 13 tokens is left in both, and
no held-out page, however short, is a training page.

The same input, options and seed give the same files. Only the standard library is used.
"""
import argparse
import base64
import codecs
import hashlib
import json
import math
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
LANGUAGES = ("en", "zh", "de", "code")
RUN = 8  # words, or letters of Chinese
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


def cut_part(text, ids_of, sizes, rng, most):
    """(part of a page, its ids), 1 to `most` tokens: short ones are as frequent as long ones, length by length on a
    logarithmic scale. Most begin behind a border, half of them end at one. None: the draw hit white space."""
    units = [u for u in UNIT.findall(text) if u]
    for u in units:
        if u not in sizes:
            sizes[u] = len(ids_of(u))
    target = math.exp(rng.uniform(0, math.log(most + 1)))
    begins = [0] + [i + 1 for i in range(len(units) - 1) if border(units, i) > 0]
    start = rng.choice(begins) if rng.random() < 0.7 else rng.randrange(len(units))
    total, ends = 0, []
    for end in range(start, len(units)):
        total += sizes[units[end]]
        if total > most:
            break
        ends.append((abs(math.log(max(1, total) / target)), end))
    if rng.random() < 0.5:
        ends = [e for e in ends if border(units, e[1]) > 0] or ends
    part = "".join(units[start : min(ends)[1] + 1]).strip() if ends else ""
    ids = ids_of(part)
    return (part, ids) if 1 <= len(ids) <= most else None


# ---------------------------------------------------------------- overlap

def runs(text, lang):
    """The runs of RUN words or letters of a text; numbers, case and punctuation do not count."""
    items = tuple(re.findall(r"[^\W\d_]" if lang == "zh" else r"[^\W\d_]+", text.lower()))
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


# ---------------------------------------------------------------- short pages, made-up pages

def parts_of(pages, ids_of, sizes, rng, wanted, most, known=frozenset()):
    """Short pages out of whole ones, in turn, that are not among the known texts. What is typed ends with a newline: one
    in four does."""
    out, tries = [], 0
    while pages and len(out) < wanted and tries < 20 * wanted:
        page = pages[tries % len(pages)]
        tries += 1
        found = cut_part(page["text"], ids_of, sizes, rng, most)
        if not found or found[0] in known:
            continue
        text, ids = found
        if rng.random() < 0.25 and len(ids) < most and not known:
            text += "\n"
            ids = ids_of(text)
        out.append(dict(page, id=f"{page['id']}/{len(out) + 1}", text=text, ids=ids))
    return out


def number_page(rng, pieces):
    """Numbers as people write them: amounts, dates, times, sums, tables; about `pieces` of them."""
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
    kind = rng.choice(kinds)
    return rng.choice((" ", ", ", "\n", "; ")).join((kind if several else rng.choice(kinds))() for _ in range(pieces))


def number_pages(ids_of, rng, wanted, most, known=frozenset()):
    out = []
    while len(out) < wanted:
        text = number_page(rng, rng.choice((1, 1, 1, 2, 3, 4, 6)))
        ids = ids_of(text)
        if len(ids) <= most and text not in known:
            out.append({"id": f"numbers/{'' if known else 'train'}{len(out) + 1}", "lang": "numbers",
                        "source": "numbers", "text": text, "ids": ids})
    return out


MARKS = list("._-/:;,*+=<>&|!?@#%([\"'\n") + [" = ", " == ", " + ", " - ", ", ", ") ", "] ", " { ", "; }", "->", " $", "();\n",
                                             ":\n    ", ";\n    ", " // "]


def word_pages(pages, ids_of, rng, wanted, most):
    """Words of the pages in no order, rare ones as often as common ones, half of the pages with the marks of programs
    between them: what comes next has to come from the latents."""
    words = sorted({word for page in pages for word in re.findall(r"[^\W\d_]+", page["text"])})
    out = []
    while words and len(out) < wanted:
        between = MARKS if rng.random() < 0.5 else (" ",)
        count = rng.choice((1, 2, 3, 4, 6, 8, 11, 15))
        text = "".join(rng.choice(words) + rng.choice(between) for _ in range(count)).strip()
        ids = ids_of(text)
        if len(ids) <= most:
            out.append({"id": f"words/{len(out) + 1}", "lang": "words", "source": "words", "text": text, "ids": ids})
    return out


# ---------------------------------------------------------------- the files

def write_jsonl(path, pages):
    with open(path + ".new", "w", encoding="utf-8") as f:
        for page in pages:
            f.write(json.dumps({k: page[k] for k in ("id", "lang", "source", "text")}, ensure_ascii=False) + "\n")
    os.replace(path + ".new", path)


def cut_corpus(corpus, ids_of, sizes, seed, least, most, longest=0.0):
    """(training pages, {lang: held-out pages}) of all documents. The longest pages are the hardest, and few when lengths
    are drawn evenly: training documents are cut a second time, into pages of nearly `most` tokens, and as many of these
    are added as make up the share `longest` of the others."""
    training, held, extra = [], {}, []
    for lang in LANGUAGES:
        held[lang] = []
        if not os.path.exists(f"{corpus}/{lang}.jsonl"):
            continue
        for document in read_documents(f"{corpus}/{lang}.jsonl"):
            rng = random.Random(f"{seed}/{document['id']}")
            out = held[lang] if is_held_out(document) else training
            for number, (text, ids) in enumerate(cut_pages(document["text"], ids_of, sizes, rng, least, most), 1):
                out.append({"id": f"{document['id']}#{number}", "lang": lang, "source": document["source"],
                            "text": text, "ids": ids})
            if longest > 0 and lang in ("en", "zh") and not is_held_out(document):
                again = cut_pages(document["text"], ids_of, sizes, rng, max(least, most - 4), most)
                extra += [{"id": f"{document['id']}#long{number}", "lang": lang, "source": document["source"],
                           "text": text, "ids": ids} for number, (text, ids) in enumerate(again, 1)]
    random.Random(seed).shuffle(extra)
    return training + extra[: round(longest * len(training))], held


def counts(pages):
    tokens, characters = sum(len(p["ids"]) for p in pages), sum(len(p["text"]) for p in pages)
    return {"pages": len(pages), "tokens": tokens, "characters": characters,
            "tokens_per_character": round(tokens / max(1, characters), 3)}


def take_tokens(pages, lang, budget):
    """Pages of a language until their tokens reach the budget; 0: all."""
    out, tokens = [], 0
    for page in pages:
        if page["lang"] == lang and (not budget or tokens < budget):
            out.append(page)
            tokens += len(page["ids"])
    return out


def training_parts(training, o, ids_of, sizes, rng):
    """{part: pages} of all that is trained on, out of the pages of documents."""
    parts = {lang: take_tokens(training, lang, budget) for lang, budget in (("en", o.en), ("zh", o.zh))}
    wanted = round(o.other * sum(map(len, parts.values())))
    for lang in ("de", "code"):
        parts[lang] = take_tokens(training, lang, 0)[:wanted]
    whole = [page for pages in parts.values() for page in pages]
    rng.shuffle(whole)
    parts["short"] = parts_of(whole, ids_of, sizes, rng, round(o.short * len(whole)), o.least - 1)
    parts["numbers"] = number_pages(ids_of, rng, wanted, o.most)
    parts["words"] = word_pages(parts["en"] + parts["de"] + parts["code"], ids_of, rng, wanted, o.most)
    return parts


def add_short_and_other(val, known, o, ids_of, sizes, rng):
    """Two more sets out of the held-out pages: shorter English and Chinese, and what is neither, half of it short."""
    half, third = o.val // 2 if o.short else 0, o.val // 3 if o.other else 0
    short = lambda pages, wanted: parts_of(pages, ids_of, sizes, rng, wanted, o.least - 1, known)
    val["short"] = short(val["en"], half) + short(val["zh"], half)
    val["other"] = [page for lang in ("de", "code")
                    for page in val[lang][third // 2 : third] + short(val[lang][: third // 2], third // 2)]
    val["other"] += number_pages(ids_of, rng, third, o.most, known)


def make(o):
    """All files of the output folder; returns the report that split.json holds."""
    ids_of, sizes, rng, val = Vocabulary(o.tok, o.vocab).ids, {}, random.Random(o.seed), {}
    training, held = cut_corpus(o.corpus, ids_of, sizes, o.seed, o.least, o.most, o.longest)
    rng.shuffle(training)
    report = {k: getattr(o, k) for k in ("vocab", "seed", "least", "most", "longest", "short", "other")}
    for lang in LANGUAGES:
        val[lang], training, found = choose_held_out(held[lang], training, lang, o.val, rng, o.too_common)
        report[f"val_{lang}"] = found
    parts = training_parts(training, o, ids_of, sizes, rng)
    report.update({f"train_{name}": counts(pages) for name, pages in parts.items()})
    train = [page for pages in parts.values() for page in pages]
    rng.shuffle(train)
    add_short_and_other(val, {page["text"].strip() for page in train}, o, ids_of, sizes, rng)
    os.makedirs(o.out, exist_ok=True)
    write_jsonl(f"{o.out}/train.jsonl", train)
    for name in ("en", "zh", "short", "other"):
        write_jsonl(f"{o.out}/val_{name}.jsonl", val[name])
    with open(f"{o.out}/split.json.new", "w", encoding="utf-8") as f:
        json.dump(report, f, indent=1)
        f.write("\n")
    os.replace(f"{o.out}/split.json.new", f"{o.out}/split.json")
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", help="folder of en.jsonl, zh.jsonl, de.jsonl, code.jsonl")
    parser.add_argument("out", help="folder of the result")
    parser.add_argument("-tok", default="data/qwen2.5/qwen.tiktoken", help="qwen.tiktoken")
    parser.add_argument("-vocab", type=int, default=2048, help="ranks kept of the vocabulary (2048)")
    parser.add_argument("-least", type=int, default=24, help="tokens of the shortest page (24)")
    parser.add_argument("-most", type=int, default=64, help="tokens of the longest page (64)")
    parser.add_argument("-longest", type=float, default=0.25,
                        help="training pages of the longest kind added, as a share of the others (0.25)")
    parser.add_argument("-short", type=float, default=0.5,
                        help="shorter pages, down to a token, as a share of the whole ones (0.5)")
    parser.add_argument("-other", type=float, default=0.06,
                        help="German, code and numbers, of each as a share of the English and Chinese pages (0.06)")
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
    if not 256 <= o.vocab or not 13 <= o.least < o.most or o.val < 1 or min(o.short, o.other) < 0:
        sys.exit("make_pages.py: expected -vocab >= 256, 13 <= -least < -most, -val >= 1, -short and -other >= 0")
    try:
        print(json.dumps(make(o), indent=1))
    except BadCorpus as why:
        sys.exit(f"make_pages.py: {why}")


if __name__ == "__main__":
    main()
