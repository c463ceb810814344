"""The steps of corpus.py, on datatrove's: read and clean documents, sign them for near doubles, cut them into pages.

A task of the first stage writes work/docs/N.jsonl.zst (documents kept, in order) with N.tokens (their tokens, 4 bytes each),
N.npy (for each its hash, count of tokens, of those in pages, language, count of pages, whether it was named with -held), N.json
(what was read and dropped, by reason) and N.aside.jsonl (what was left out, by name), and signatures/N.npy. A task of the last
stage writes train/N.M.zst (pages sorted by their random key) and N.M.npz. All of them appear whole or not at all.
"""
import collections, ctypes, functools, hashlib, itertools, json, os, re, unicodedata

import numpy as np
import xxhash
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters import GopherRepetitionFilter
from datatrove.utils.word_tokenizers import WordTokenizer

from corpus_read import Broken, read_unit

LIBRARY = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "build", "libc3text.so")
THRESHOLDS = {  # -threshold NAME=VALUE
    "letters": (0.5, "least share of letters among the characters of a page that are no white space"),
    "unknown": (0.005, "most share of replacement characters, private ones and controls"),
    "word_least": (2.0, "least mean letters of a word, where words are written apart"),
    "word_most": (14.0, "most mean letters of a word"),
    "ocr_confidence": (60.0, "least mean confidence of tesseract, 0 to 100"),
    "repetition": (1.0, "scales the limits of Gopher's repetition filter; 0: off"),
}
GRAM = 13  # tokens
SORT_BYTES = 512 << 20  # pages of a task that are sorted in memory at once
COMMON = 8  # training pages: a run that stands in more of them is a stock phrase
LANGUAGES = {  # frequent short words; what is not written in Latin letters is told by its script
    "en": "the of and to in is that it for was with as be on by this are or from which",
    "de": "der die und das nicht ist ein den zu von mit sich auf des im eine dem auch wird sind",
    "fr": "le la les et des est une dans que pour du qui sur par pas au ce plus avec il",
    "es": "el la los que y las del se por con una para es en lo como su al no más",
    "it": "il di che e la per un non è una del con si della le sono gli nel da come",
    "pt": "o que não uma os para com do da em um se mais por dos como das na ao foi",
    "nl": "de het een van en is dat op te zijn met voor niet aan er ook als bij door wordt"}
SCRIPTS = (("ja", "[\u3040-\u30ff]"), ("ko", "[\uac00-\ud7af]"), ("zh", "[\u4e00-\u9fff]"), ("ru", "[\u0400-\u04ff]"),
           ("ar", "[\u0600-\u06ff]"), ("el", "[\u0370-\u03ff]"), ("hi", "[\u0900-\u097f]"), ("th", "[\u0e00-\u0e7f]"))
CODES = [*LANGUAGES, *(code for code, _ in SCRIPTS), "und"]
STOP = {code: frozenset(words.split()) for code, words in LANGUAGES.items()}
SCRIPT_OF = [(code, re.compile(letters)) for code, letters in SCRIPTS]
WORD = re.compile("[\u3400-\u9fff]{1,2}|[^\\W\u3400-\u9fff]+")
BLOCK = 1 << 16  # characters whose words are found at once
EAST = re.compile("[\u2e80-\uffff]")
DIGIT = re.compile(r"[\d_]")


# ---------------------------------------------------------------- text

REPAIR = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufb00-\ufb06\ufeff\ufffd\ud800-\udfff]|&[#a-zA-Z]\\w{1,6};")
BLANK = re.compile(r"[^\S\n\f]+")
NO_BLANK = re.compile(r"[^\S\n\f ]")
ZERO = re.compile("[\u00ad\u200b-\u200f\u2060]")
HIGH = re.compile("[^\x00-\x7f]+")


def encodable(text):
    """NFC, and no half of a surrogate pair."""
    return unicodedata.normalize("NFC", text).encode("utf-8", "replace").decode()


def tidy(text):
    """Unicode repaired by ftfy where there is something to repair, NFC, single spaces, at most one blank line."""
    if not text.isascii() or "&" in text or not text.replace("\n", "").replace("\f", "").isprintable():
        import ftfy
        from ftfy.badness import is_bad
        # Each pattern of is_bad holds a character that is not ASCII and reaches at most four beyond. Of whole texts it would take
        # longer than all else in this file.
        if REPAIR.search(text) or any(is_bad(text[max(0, m.start() - 4) : m.end() + 4]) for m in HIGH.finditer(text)):
            text = ftfy.fix_text(text, uncurl_quotes=False, fix_character_width=False)
        text = encodable(ZERO.sub("", text))
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "  " in text or NO_BLANK.search(text):
        text = BLANK.sub(" ", text)
    text = text.replace(" \n", "\n").replace("\n ", "\n")
    return (re.sub("\n{3,}", "\n\n", text) if "\n\n\n" in text else text).strip()


@functools.lru_cache(1)
def signs():
    """(kind of each character: 0 between words, 1 in a word, 2 a digit or _ in a word, 3 an ideograph; powers of an odd
    number, and of its inverse, modulo 2^64)."""
    kind = np.array([3 if 0x3400 <= c <= 0x9fff else (1 + bool(DIGIT.match(chr(c)))) * (chr(c).isalnum() or c == 95)
                     for c in range(0x30000)], np.uint8)
    base = 0x9E3779B97F4A7C15
    return kind, *(np.cumprod(np.full(BLOCK, b, np.uint64)) for b in (base, pow(base, -1, 1 << 64)))


def words_of(text):
    """(hashes, lengths, count of digits) of the words as WORD finds them in small letters: by numpy, as sums of characters
    times powers of a number."""
    kinds, powers, inverse = signs()
    text, at, hashes, lengths, digits = text.lower(), 0, [], [], 0
    while at < len(text):
        end = len(text) if len(text) - at <= BLOCK else max(text.rfind(" ", at, at + BLOCK), text.rfind("\n", at, at + BLOCK)) + 1
        end = end if end > at else at + BLOCK
        codes = np.frombuffer(text[at:end].encode("utf-32-le", "surrogatepass"), np.uint32)
        kind = kinds[np.minimum(codes, len(kinds) - 1)]
        inside = kind > 0
        new = inside.copy()  # begins a word: not between words, and behind what is, or behind the other sort
        new[1:] &= ~inside[:-1]
        if (kind == 3).any():
            han = kind == 3
            new[1:] |= inside[1:] & (han[1:] != han[:-1])
            place = np.arange(len(han))
            new |= han & ((place - np.maximum.accumulate(np.where(new, place, 0))) % 2 == 0)
        start = np.flatnonzero(new)
        last = np.zeros(len(kind), bool)  # ends a word
        last[-1:] = inside[-1:]
        last[:-1] = inside[:-1] & (new[1:] | ~inside[1:])
        stop = np.flatnonzero(last)
        total = np.cumsum(codes * powers[: len(codes)], dtype=np.uint64)
        own = (total[stop] - total[start] + codes[start] * powers[start]) * inverse[start]
        own = (own ^ (own >> np.uint64(32))) * MIX
        hashes.append(own ^ (own >> np.uint64(29)))
        lengths.append(stop - start + 1)
        digits += int(np.count_nonzero(kind == 2))
        at = end
    if not hashes:
        return np.empty(0, np.uint64), np.empty(0, np.int64), 0
    return np.concatenate(hashes), np.concatenate(lengths), digits


def language_of(text, hashes):
    """By script, then by frequent words, on up to 3000 characters and 500 words; "und" where neither tells."""
    if not text.isascii():
        sample = text if len(text) <= 3000 else text[:1500] + text[len(text) // 2 :][:1500]
        letters = sum(map(str.isalpha, sample))
        for code, pattern in SCRIPT_OF:
            if 5 * len(pattern.findall(sample)) > letters * (0.5 if code == "ja" else 1.5):
                return code
    if len(hashes) > 500:
        hashes = np.concatenate((hashes[:250], hashes[len(hashes) // 2 :][:250]))
    stop, of = stop_words()
    at = np.minimum(np.searchsorted(stop, hashes), len(stop) - 1)
    count = of[at[stop[at] == hashes]].sum(0)
    best = int(np.argmax(count))
    return list(LANGUAGES)[best] if 12 * count[best] >= len(hashes) > 0 else "und"


@functools.lru_cache(1)
def stop_words():
    """(sorted hashes of the frequent words, a row for each: which languages have it)."""
    words = {word: int(words_of(word)[0][0]) for word in sorted(set().union(*STOP.values()))}
    order = sorted(words, key=words.get)
    return (np.array([words[w] for w in order], np.uint64),
            np.array([[w in STOP[code] for code in LANGUAGES] for w in order], np.int64))


class Words(WordTokenizer):
    """Words as datatrove's filters count them: letters between blanks, ideographs by two."""

    def word_tokenize(self, text):
        return WORD.findall(text)

    def sent_tokenize(self, text):
        return [text]

    def span_tokenize(self, text):
        return [(0, len(text))]


def hash_text(text):
    return xxhash.xxh64_intdigest(text.encode("utf-8", "surrogateescape"))  # names of files may hold any bytes


MIX = np.uint64(0x9E3779B97F4A7C15)


def runs_of(values, n):
    """Hashes of all runs of n values of a uint64 array."""
    if len(values) < n:
        return np.empty(0, np.uint64)
    out, have = values, 1
    for bit in f"{n:b}"[1:]:  # runs of twice as many, and of one more
        for more, other in ((have, out), (1, values))[: 1 + (bit == "1")]:
            keep = len(values) + 1 - have - more
            out = (out[:keep] ^ (out[:keep] >> np.uint64(29))) * MIX + other[have : have + keep]
            have += more
    return out ^ (out >> np.uint64(32))


def comes_often(hashes, times):
    """Whether a value stands in an array so many times."""
    hashes = np.sort(hashes)
    return bool((hashes[times - 1 :] == hashes[: len(hashes) - times + 1]).any())


class Repetition(GopherRepetitionFilter):
    """Gopher's repetition filter, as datatrove has it. An upper bound of its shares of repeated words, by hashes, spares
    nearly every page the exact count; a test compares the two."""

    def __init__(self, scale):
        self.scale = scale
        super().__init__(0.3 * scale, 0.3 * scale, 0.2 * scale, 0.2 * scale,
                         tuple((n, x * scale) for n, x in ((2, 0.2), (3, 0.18), (4, 0.16))),
                         tuple((n, x * scale) for n, x in zip(range(5, 11), (0.15, 0.14, 0.13, 0.12, 0.11, 0.1))),
                         language=Words())

    def suspect(self, text, hashes, lengths):
        lines = list(filter(None, text.split("\n")))
        if len(hashes) < 50 or len(lines) - len(set(lines)) > 0.5 * self.dup_line_char_frac * len(lines):
            return True
        longest = int(lengths.max())
        most = int(min(share * len(text) / (n * longest + n - 1) for n, share in self.top_n_grams))  # longer runs are rarer
        if not comes_often(runs_of(hashes, 2), most + 1) and not comes_often(runs_of(hashes, 5), 2):
            return False
        ends = np.concatenate(([0], np.cumsum(lengths)))
        for n, share in self.top_n_grams:
            size = ends[n:] - ends[:-n] + n - 1
            _, inverse, count = np.unique(runs_of(hashes, n), return_inverse=True, return_counts=True)
            if (count[inverse] * size).max() > share * len(text):
                return True
        for n, share in self.dup_n_grams:
            runs = runs_of(hashes, n)
            again = np.ones(len(runs), bool)
            again[np.unique(runs, return_index=True)[1]] = False
            covered = np.convolve(again, np.ones(n, int))
            repeated = lengths[covered > 0].sum()
            if repeated > share * len(text):
                return True
            if repeated <= self.dup_n_grams[-1][1] * len(text):  # and longer runs repeat less
                return False
        return False

    def why(self, text, hashes, lengths):
        if not self.scale or not self.suspect(text, hashes, lengths):
            return None
        found = self.filter(Document(text, ""))
        return None if found is True else "repetition_" + found[1]


def garbage(page, lengths, digits, limit):
    """Why a page is no text, or None."""
    solid = len(page) - page.count(" ") - page.count("\n")
    if lengths.sum() - digits < limit["letters"] * solid:
        return "few_letters"
    if not page.isascii() and len(re.findall("[\ufffd\ue000-\uf8ff]", page)) > limit["unknown"] * solid:
        return "unknown_characters"
    if len(lengths) and (page.isascii() or 2 * len(EAST.findall(page)) < solid):
        if not limit["word_least"] <= lengths.mean() <= limit["word_most"]:
            return "word_length"
    return None


# ---------------------------------------------------------------- tokens

class Tokens(ctypes.Structure):
    _fields_ = [("ids", ctypes.c_void_p), ("n", ctypes.c_size_t), ("room", ctypes.c_size_t)]


@functools.lru_cache(1)
def tokenizer(path, k):
    """(encode(bytes) -> ids, bytes of each id): c3's own tokenizer (llmc/text/tokenizer.h) of a qwen.tiktoken or a
    tokenizer.json, its first k base tokens (0: all). ValueError where there is none."""
    if not os.path.exists(LIBRARY):
        raise ValueError(f"{LIBRARY} is not built (hint: make)")
    c, made, tokens, error = ctypes.CDLL(LIBRARY), ctypes.c_void_p(), Tokens(), ctypes.create_string_buffer(1024)
    c.tokenizer_bytes.restype = ctypes.c_void_p
    c.tokenizer_encode.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p
    if c.tokenizer_load(ctypes.byref(made), os.fsencode(path), k, error):
        raise ValueError(error.value.decode())

    def encode(data):
        tokens.n = 0
        if c.tokenizer_encode(made, ctypes.byref(tokens), data, len(data), error):
            raise ValueError(error.value.decode())
        return np.frombuffer(ctypes.string_at(tokens.ids, 4 * tokens.n), np.uint32)

    size, sizes = ctypes.c_size_t(), []
    for rank in range(c.tokenizer_base(made)):
        c.tokenizer_bytes(made, rank, ctypes.byref(size))
        sizes.append(size.value)
    return encode, np.array(sizes)


def ids_of(text, o):
    return tokenizer(o.tok, o.vocab)[0](text.encode())


def ends_of(ids, o):
    """Bytes up to the end of each token."""
    return np.cumsum(tokenizer(o.tok, o.vocab)[1][ids])


BORDERS = [(4, rb"\f"), (3, rb"\n\n+"), (2, rb"[.!?][\"')\]]*\s|(?:\xe3\x80\x82|\xef\xbc\x81|\xef\xbc\x9f|\xe2\x80\xa6)"
            rb"(?:\xe2\x80[\x9d\x99]|\xe3\x80\x8d|\xe3\x80\x8f)?|\n"), (1, rb"[,;:]\s|\xef\xbc\x8c|\xef\xbc\x9b|\xe3\x80\x81")]
BORDERS = [(kind, re.compile(pattern)) for kind, pattern in BORDERS]


def cut(data, ids, o, name):
    """Where the pages of a document begin and end, in bytes of its UTF-8, given its tokens.
    A page of the source (a form feed ends it) that is of the lengths asked for stays as it is; else each page draws a
    length and takes the best border near it: paragraph, sentence, clause, word. What is left over at the end is a page
    where it is long enough, and else is joined to nothing."""
    if len(ids) < o.least:
        return []
    if len(ids) <= o.most:
        return [(0, len(data))]
    ends, raw = ends_of(ids, o), np.frombuffer(data, np.uint8)
    found = [(4, [len(data)])] + [(kind, [m.end() for m in pattern.finditer(data)]) for kind, pattern in BORDERS]
    found.append((0, np.flatnonzero(raw == 32) + 1))
    if longest_gap(np.concatenate([f[1] for f in found]), len(data)) > o.least:  # no blanks: between any two characters
        found.append((-1, np.flatnonzero((raw & 0xC0) != 0x80)))
    kinds = np.repeat([kind for kind, _ in found], [len(places) for _, places in found])
    at_of = np.concatenate([np.asarray(places, np.int64) for _, places in found])
    order = np.lexsort((-kinds, at_of))
    at_of, kinds = at_of[order], kinds[order]
    token_of = np.searchsorted(ends, at_of)  # tokens before a border
    draw = np.random.Generator(np.random.PCG64(hash_text(f"{o.seed}/{name}")))
    places, start, used = [], 0, 0
    while len(ids) - used >= o.least:
        low, high = np.searchsorted(token_of, (used + o.least, used + o.most + 1))
        here = slice(low, high)
        if low == high:
            break
        source = np.flatnonzero(kinds[here] == 4)
        if len(source):
            best = low + source[0]
        elif len(ids) - used <= o.most:
            best = len(at_of) - 1
        else:
            target = used + draw.integers(o.least, o.most + 1)
            spread = max(1.0, (o.most - o.least) / 6)  # a border of one kind better is worth so much distance
            cost = np.abs(token_of[here] - target) - spread * kinds[here]
            best = low + int(np.argmin(cost))
        places.append((int(start), int(at_of[best])))
        start, used = at_of[best], int(token_of[best])
    return places


def longest_gap(places, size):
    return int(np.diff(np.sort(np.concatenate(([0], places, [size])))).max())


# ---------------------------------------------------------------- files

def write_whole(path, write, mode="wb"):
    """write(file) to a file that takes its name when it is complete."""
    with open(path + ".new", mode) as f:
        write(f)
    os.replace(path + ".new", path)


def write_json(path, value):
    write_whole(path, lambda f: f.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n"), "w")


def write_lines(path, lines, level=1):
    """zstd, one thread: the same bytes everywhere."""
    import zstandard
    with open(path + ".new", "wb") as f, zstandard.ZstdCompressor(level=level).stream_writer(f) as out:
        lines = iter(lines)
        while block := b"".join(itertools.islice(lines, 64)):
            out.write(block)
    os.replace(path + ".new", path)


def lines_of_file(path):
    import io, zstandard
    with open(path, "rb") as f:
        yield from io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(f), 1 << 16)


def dump(o):
    return json.dumps(o, ensure_ascii=False).encode() + b"\n"


class Tally(dict):
    """{reason: [documents, pages, tokens]}."""

    def add(self, reason, documents=0, pages=0, tokens=0):
        row = self.setdefault(reason, [0, 0, 0])
        for i, n in enumerate((documents, pages, tokens)):
            row[i] += int(n)


# ---------------------------------------------------------------- stage 1: read, clean, sign

class Read(PipelineStep):
    type, name = "READER", "files of every kind"

    def __init__(self, o, tasks):
        super().__init__()
        self.o, self.tasks = o, tasks

    def run(self, data=None, rank=0, world_size=1):
        o, tally, sources = self.o, Tally(), {}
        repetition, index, licences = Repetition(o.threshold["repetition"]), [], collections.Counter()
        folder = f"{o.work}/docs/{rank:05d}"
        out, tokens = iter_writer(f"{folder}.jsonl.zst"), open(f"{folder}.tokens.new", "wb")
        aside = open(f"{folder}.aside.jsonl.new", "w", encoding="utf-8")

        def leave(reason, name, detail="", tokens=0, documents=1, pages=0):
            tally.add(reason, documents, pages, tokens)
            aside.write(json.dumps({"id": name, "reason": reason, "detail": detail, "tokens": tokens}) + "\n")

        for unit in self.tasks[rank]:
            path, name, _, first, _ = unit
            if not first:
                sources[path] = file_hash(path)
            for found in read_unit(unit, o):
                if isinstance(found, Broken):
                    leave(found.args[0], found.id, found.args[1])
                    continue
                doc_id, pages, licence = found
                kept, words = [], []
                for number, page in enumerate(pages, 1):
                    if isinstance(page, Broken):
                        leave(page.args[0], f"{doc_id}#p{number}", page.args[1], documents=0, pages=1)
                        continue
                    page = encodable(page) if o.as_is else tidy(page)
                    if not page.strip():
                        continue
                    hashes, lengths, digits = words_of(page)
                    why = None if o.as_is else (garbage(page, lengths, digits, o.threshold)
                                                or repetition.why(page, hashes, lengths))
                    if why:
                        leave(why, f"{doc_id}#p{number}", tokens=len(ids_of(page, o)), documents=0, pages=1)
                    else:
                        kept.append(page)
                        words.append(hashes)
                if not kept:
                    leave("nothing_left" if pages else "no_text", doc_id)
                    continue
                text = "\f".join(kept)
                encoded, ids = text.encode(), ids_of(text, o)
                places = cut(encoded, ids, o, doc_id)
                if not places:
                    leave("too_short" if len(ids) < o.least else "no_border", doc_id, tokens=len(ids))
                    continue
                hashes = np.concatenate(words)
                code = language_of(text, hashes)
                used = len(ids) if places[-1][1] == len(encoded) else np.searchsorted(ends_of(ids, o), places[-1][1])
                index.append((xxhash.xxh64_intdigest(hashes), len(ids), used, CODES.index(code), len(places), path in o.held_files))
                licences[licence or "unknown"] += len(ids)
                tally.add("read", 1, len(places), len(ids))
                tokens.write(ids.data)
                out.send(dump({"id": doc_id, "lang": code, "source": name, "license": licence, "cuts": places, "text": text}))
                yield Document(text, doc_id, metadata={"hashes": hashes})
        out.close()
        tokens.close()
        aside.close()
        os.replace(f"{folder}.tokens.new", f"{folder}.tokens")
        os.replace(f"{folder}.aside.jsonl.new", f"{folder}.aside.jsonl")
        index = np.array(index, np.uint64).reshape(-1, 6)
        write_whole(f"{folder}.npy", lambda f: np.save(f, index))
        write_json(f"{folder}.json", {"tally": tally, "sources": sources, "licences": licences})


def iter_writer(path):
    """A generator to send lines to; close() gives the file its name."""
    import zstandard

    def writer():
        with open(path + ".new", "wb") as f, zstandard.ZstdCompressor(level=1).stream_writer(f) as out:
            try:
                while True:
                    out.write((yield))
            except GeneratorExit:
                pass
        os.replace(path + ".new", path)

    made = writer()
    next(made)
    return made


def file_hash(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


BANDS, ROWS = 16, 7


class Sign(PipelineStep):
    """MinHash signatures from the word hashes that are there already: of the runs of five words, 112 multiply-shift hashes of
    32 bits, of which each band of 7 becomes one number; 0 where there is no run. signatures/N.npy: (BANDS, documents)."""

    type, name = "DEDUP", "signatures"

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        draw = np.random.Generator(np.random.PCG64(1))
        self.odd = draw.integers(0, 1 << 31, (BANDS * ROWS, 1), np.uint32) * np.uint32(2) + np.uint32(1)

    def run(self, data, rank=0, world_size=1):
        bands, room = [], np.empty((BANDS * ROWS, 1024), np.uint32)
        for doc in data:
            runs = (runs_of(doc.metadata["hashes"], 5) >> np.uint64(32)).astype(np.uint32)
            least = np.full(BANDS * ROWS, 0xFFFFFFFF, np.uint32)
            for at in range(0, len(runs), 1024):  # a book's would not fit the cache
                part = np.multiply(runs[at : at + 1024], self.odd, out=room[:, : min(1024, len(runs) - at)])
                np.minimum(least, part.min(1), out=least)
            bands.append(runs_of(least.astype(np.uint64), ROWS)[::ROWS] if len(runs) else np.zeros(BANDS, np.uint64))
        write_whole(f"{self.folder}/{rank:05d}.npy", lambda f: np.save(f, np.array(bands, np.uint64).reshape(-1, BANDS).T))


class Pairs(PipelineStep):
    """Pairs of documents, numbered through all tasks, that share a band; each task does one band, and a part of its values."""

    type, name = "DEDUP", "pairs"

    def __init__(self, signatures, pairs):
        super().__init__()
        self.signatures, self.pairs = signatures, pairs

    def run(self, data=None, rank=0, world_size=1):
        (part, band), parts, first = divmod(rank, BANDS), np.uint64(world_size // BANDS), 0
        values, documents = [], []
        for name in sorted(os.listdir(self.signatures)):
            here = np.load(f"{self.signatures}/{name}", mmap_mode="r")[band]
            mine = np.flatnonzero((here != 0) & (here % parts == part))
            values.append(here[mine])
            documents.append(first + mine)
            first += len(here)
        values, documents = np.concatenate(values), np.concatenate(documents)
        order = np.argsort(values, kind="stable")
        same = np.flatnonzero(values[order[1:]] == values[order[:-1]])
        pairs = np.stack((documents[order[same]], documents[order[same + 1]]), 1)
        write_whole(f"{self.pairs}/{rank:05d}.npy", lambda f: np.save(f, pairs))


# ---------------------------------------------------------------- stage 3: pages

WORD_END = re.compile(rb"(?<=[a-z])(?=[ ,.])|(?<=[\xe5-\xe8][\x80-\xbf][\x80-\xbf])(?=\xef\xbc\x8c|\xe3\x80\x82)")


def pages_of_document(document, o, ids=None):
    """(id, text, ids) of the pages of a document; one whose own tokens are not within the limits has ids None. The tokens
    of the document, where they are given, are those of the page as well but at its two ends: where a letter is followed
    by none the tokenizer always parts the text."""
    data = document["text"].encode()
    ends = None if ids is None else ends_of(ids, o)
    for number, (start, end) in enumerate(document["cuts"], 1):
        raw = data[start:end].decode("utf-8", "ignore")
        text = raw.rstrip()
        if o.as_is:  # an indentation, and the end of a line
            text = text.lstrip("\f\n") + "\n" * ("\n" in raw[len(text):])
        text = re.sub(r"\s*\f\s*", "\n\n", text if o.as_is else text.lstrip())
        page = text.encode()
        if ids is None or b"\f" in data[start:end]:
            own = ids_of(text, o)
        elif page == data:
            own = ids
        else:
            start += data[start:end].index(page)
            first = WORD_END.search(page)
            last = collections.deque(WORD_END.finditer(page, max(first.end(), len(page) - 200)), 1) if first else None
            if last:
                a, b = first.start(), last[0].start()
                inner = ids[slice(*np.searchsorted(ends, (start + a, start + b)) + 1)]
                own = np.concatenate((ids_of(page[:a].decode(), o), inner, ids_of(page[b:].decode(), o)))
            else:
                own = ids_of(text, o)
        yield f"{document['id']}#{number}", text, own if o.least <= len(own) <= o.most else None


def keyed(o, name):
    """Where a page or a document stands in the shuffled order."""
    return hash_text(f"{o.seed}:{name}")


def split_of(number, n, stretch):
    """0, or 1 (val) or 2 (test) where page `number` of n of a document to train on is in a stretch that is held out, of so
    many pages. It begins at a third of the document for val, at two thirds for test: neither title pages nor an index."""
    return next((split for split in (1, 2) if 0 <= number - 1 - n * split // 3 < stretch[split]), 0)


class Cut(PipelineStep):
    """Pages of the documents chosen for `part` ("train", or "held": val and test). Training pages note which of their
    13-token runs stand in held-out pages (work/runs.npy)."""

    type, name = "FORMAT", "pages"

    def __init__(self, o, part):
        super().__init__()
        self.o, self.part = o, part

    def run(self, data=None, rank=0, world_size=1):
        o, tally, pages, size, count = self.o, Tally(), [], 0, itertools.count()
        verdict = np.load(f"{o.work}/verdict/{rank:05d}.npy")
        wanted = (0,) if self.part == "train" else (1, 2)
        held = np.load(f"{o.work}/runs.npy", mmap_mode="r") if self.part == "train" else None
        sieve = np.load(f"{o.work}/sieve.npy", mmap_mode="r") if self.part == "train" else None
        lengths = np.load(f"{o.work}/docs/{rank:05d}.npy")[:, 1].tolist()
        tokens = open(f"{o.work}/docs/{rank:05d}.tokens", "rb")
        if not np.isin(verdict[:, 0], wanted).any() and not verdict[verdict[:, 0] == 0, 1:].any():
            lengths = []
        for line, stretch, length in zip(lines_of_file(f"{o.work}/docs/{rank:05d}.jsonl.zst"), verdict.tolist(), lengths):
            says = stretch[0]
            if says not in wanted and (says or not any(stretch)):
                tokens.seek(4 * length, os.SEEK_CUR)
                continue
            document = json.loads(line)
            pages_here = pages_of_document(document, o, np.fromfile(tokens, np.uint32, length))
            for number, (name, text, ids) in enumerate(pages_here, 1):
                part = says or split_of(number, len(document["cuts"]), stretch)
                if part not in wanted:
                    continue
                if ids is None:
                    tally.add("length", 0, 1, len(ids_of(text, o)))
                    continue
                page = {"id": name, "lang": document["lang"], "source": document["source"], "tokens": len(ids), "text": text}
                runs = runs_of(ids.astype(np.uint64), GRAM)
                if self.part == "train":
                    runs = np.unique(runs[sieve[(runs & np.uint64(len(sieve) - 1)).astype(np.int64)]])
                    at = np.searchsorted(held, runs)
                    runs = at[held[np.minimum(at, len(held) - 1)] == runs] if len(held) else at[:0]
                else:
                    runs = np.unique(runs)
                pages.append((keyed(o, name), name, dump(page), runs, int(part), len(ids)))
                size += len(pages[-1][2])
            if size > SORT_BYTES:
                self.write(f"{rank:05d}.{next(count):04d}", pages)
                pages, size = [], 0
        self.write(f"{rank:05d}.{next(count):04d}", pages)
        tokens.close()
        write_json(f"{o.work}/{self.part}/{rank:05d}.json", {"tally": tally})
        return
        yield

    def write(self, name, pages):
        pages.sort(key=lambda p: p[:2])
        hits = [np.stack((np.full(len(p[3]), i, np.uint64), p[3].astype(np.uint64)), 1) for i, p in enumerate(pages)]
        hits = np.concatenate(hits) if hits else np.empty((0, 2), np.uint64)
        path = f"{self.o.work}/{self.part}/{name}"
        write_lines(f"{path}.zst", (p[2] for p in pages))
        write_whole(f"{path}.npz", lambda f: np.savez(f, hits=hits, keys=np.array([p[0] for p in pages], np.uint64),
                                                      part=np.array([p[4] for p in pages], np.uint8),
                                                      tokens=np.array([p[5] for p in pages], np.uint32)))
