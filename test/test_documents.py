#!/usr/bin/env python3
"""data/corpus.py: documents of every kind that it reads, made here, and broken ones; cutting, filters and doubles; the same
bytes with any number of workers and after kill -9. OCR is tried where tesseract is installed."""
import fcntl, gzip, importlib.util, io, json, os, random, re, shutil, signal, subprocess, sys, tarfile, time
from types import SimpleNamespace

from harness import C3, ROOT, TOKENIZER, Folder, case, done

sys.path.insert(0, os.path.join(ROOT, "data"))
try:
    import numpy as np
    import pyarrow
    import pyarrow.parquet
    import zstandard

    import corpus_read as reading
    import corpus_steps as steps
except (ModuleNotFoundError, SystemExit) as why:
    print(f"     not tested: {why} (hint: bash scripts/setup.sh corpus)")
    case("corpus.py: its modules are not here: left out", True)
    done()

OPTIONS = SimpleNamespace(tok=TOKENIZER, vocab=0, least=20, most=60, seed=1, key="text", ocr_lang="eng+chi_sim", ocr_threads=2, as_is=False,
                          threshold={k: v for k, (v, _) in steps.THRESHOLDS.items()})
COMMAND = [sys.executable, os.path.join(ROOT, "data/corpus.py")]


def equal(name, found, expected):
    case(name, found == expected, f"expected {expected!r}\n     found    {found!r}")


def broken(name, reason, function, *arguments):
    try:
        found = function(*arguments)
        found = list(found) if hasattr(found, "__next__") else found
    except reading.Broken as why:
        return case(name, why.args[0] == reason and "\n" not in why.args[1], why.args)
    case(name, False, f"expected {reason}, found {found!r}")


WORDS = [a + b + c for a in ("ba", "ko", "ti", "lu", "re", "san", "mor", "vel") for b in ("na", "di", "go", "pes")
         for c in ("r", "ne", "lo", "st", "")]


def prose(rng, sentences):
    """English enough to be told as such: no two sentences alike."""
    sentence = lambda: " ".join(rng.choice(("the", "of", "and", "in", "was", "that", "with")) if i % 3 == 2 else
                                rng.choice(WORDS) for i in range(rng.randint(8, 14))).capitalize() + ". "
    return "".join(sentence() for _ in range(sentences)).strip()


def chinese(rng, sentences):
    return "".join("".join(chr(rng.randint(0x4e00, 0x5fff)) for _ in range(rng.randint(6, 12))) + "。" for _ in range(sentences))


def pdf(pages, picture=None):
    """A PDF of lines of text a page, by hand; a page that is None shows the picture (PIL) instead."""
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"", b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"]
    if picture is not None:
        data = picture.convert("L").tobytes()
        objects.append(b"<</Type/XObject/Subtype/Image/Width %d/Height %d/ColorSpace/DeviceGray/BitsPerComponent 8/Length %d>>"
                       b"stream\n%s\nendstream" % (*picture.size, len(data), data))
    kids = []
    for lines in pages:
        if lines is None:
            content = b"q 612 0 0 792 0 0 cm /I Do Q"
        else:
            shown = (line.replace("\\", "").replace("(", "").replace(")", "").encode("latin-1") for line in lines)
            content = b"BT /F 9 Tf 11 TL 40 770 Td " + b" ".join(b"(%s) Tj T*" % line for line in shown) + b" ET"
        objects.append(b"<</Length %d>>stream\n%s\nendstream" % (len(content), content))
        image = b"/XObject<</I 4 0 R>>" if picture is not None else b""
        objects.append(b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources<</Font<</F 3 0 R>>%s>>/Contents %d 0 R>>"
                       % (image, len(objects)))
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<</Type/Pages/Count %d/Kids[%s]>>" % (len(kids), b" ".join(kids))
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % at for at in places)
    return out + b"xref\n0 %d\n0000000000 65535 f \n%strailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (
        len(objects) + 1, table, len(objects) + 1, len(out))


def wrapped(text, width=90):
    import textwrap
    return textwrap.wrap(text, width)


# ---- readers ----
def test_objects():
    pages = lambda o, key="text": reading.object_pages(o, key)
    equal("a text", pages({"text": "a"}), ["a"])
    equal("another key", pages({"body": "a", "text": 1}, "body"), ["a"])
    equal("FinePDFs: page_ends", pages({"text": "onetwo three", "page_ends": [3, 6, 12]}), ["one", "two", " three"])
    equal("Dolma: spans of pages", pages({"text": "onetwo", "attributes": {"pdf_page_numbers": [[0, 3, 1], [3, 6, 2]]}}),
          ["one", "two"])
    equal("the authors' form", pages({"image": "x", "conversations": [{"from": "context", "value": "a"}, {"from": "gpt",
                                                                                                       "value": "b"}]}), ["a"])
    equal("Fox's form", pages({"conversations": [{"value": "prompt"}, {"value": "page"}]}), ["page"])
    response = {"choices": [{"message": {"content": json.dumps({"primary_language": "en", "natural_text": "a page"})}}]}
    equal("olmOCR: natural_text in JSON in an object", pages({"response": response}), ["a page"])
    equal("olmOCR: the same as a string", pages({"response": json.dumps(response)}), ["a page"])
    equal("pdfa: lines of pages", pages({"pages": [{"lines": {"text": ["one", "two"]}}, {"text": ["three"]}]}),
          ["one two", "three"])
    equal("a list of pages", pages({"text": ["a", "b"]}), ["a", "b"])
    equal("no text", pages({"txt": "a"}), None)
    equal("a byte order mark, UTF-16", reading.decode("\ufeffaé".encode("utf-16-le")).lstrip("\ufeff"), "aé")
    mixed = "naïve\n".encode() + "Straße\n".encode("cp1252") + "中文文字编码".encode("gb18030")
    equal("three encodings in one file", reading.decode(mixed), "naïve\nStraße\n中文文字编码")
    equal("Markdown: marks go, words stay",
          reading.markdown_pages(b"---\nt: 1\n---\n# Head\n\nA **bold**\n[link](http://x) ![p](q)\n"), ["Head\n\nA bold link \n"])
    book = [f"The Title of it {n}\n{'abcdefgh'[n]} begins a page\nand ends {'hgfedcba'[n]}\n{n}" for n in range(8)]
    equal("running heads and page numbers go", reading.drop_running_heads(book)[:2],
          ["a begins a page\nand ends h", "b begins a page\nand ends g"])
    equal("hyphens and lines of a paragraph", reading.unwrap("a long line that was bro-\nken at the margin here\nend.\n\nNew"),
          "a long line that was broken at the margin here end.\n\nNew")
    head = "level page_num block_num par_num line_num word_num left top width height conf text".replace(" ", "\t")
    rows = [(5, 1, 1, 1, 1, 1, 96, "The"), (5, 1, 1, 1, 2, 1, 90, "end."), (4, 1, 2, 1, 1, 0, -1, ""),
            (5, 1, 2, 1, 1, 1, 80, "中"), (5, 1, 2, 1, 1, 2, 80, "文"), (5, 1, 2, 2, 1, 1, 80, '"x')]
    text, confidence = reading.page_of_words([head] + ["\t".join(map(str, r[:6] + (0, 0, 0, 0) + r[6:])) for r in rows])
    equal("OCR: words to lines, paragraphs and blocks", text, 'The end.\n\n中文\n"x')
    case("OCR: confidence weighs words by length", abs(confidence - (3 * 96 + 4 * 90 + 4 * 80) / 11) < 1e-9, confidence)


def test_pdf():
    rng = random.Random(1)
    texts = [prose(rng, 6) for _ in range(3)]
    made = pdf([["A Running Head", *wrapped(text), str(n)] for n, text in enumerate(texts, 1)])
    equal("PDF: its text layer, unwrapped, without heads and numbers", [p.strip() for p in
          reading.pages_of("pdf", made, OPTIONS)], texts)
    broken("PDF: broken", "broken_pdf", reading.pages_of, "pdf", made[: len(made) // 3].replace(b"obj", b"obi"), OPTIONS)
    broken("PDF: empty", "broken_pdf", reading.pages_of, "pdf", b"%PDF-1.4\n", OPTIONS)
    blank = reading.pages_of("pdf", pdf([[], ["x"]]), OPTIONS)
    equal("PDF: a blank page is no text", [p.args[0] for p in blank][:1], ["no_text"])
    key = b"<</Filter/Standard/V 1/R 2/O<%s>/U<%s>/P -4>>" % (b"41" * 32, b"42" * 32)
    locked = made.replace(b"trailer<<", b"trailer<</ID[<00><00>]/Encrypt %s" % key)
    broken("PDF: encrypted", "encrypted", reading.pages_of, "pdf", locked, OPTIONS)

    def crash(_, o):
        yield "a page"
        os.kill(os.getpid(), signal.SIGSEGV)
    broken("a reader that crashes", "crashed", reading.in_child, crash, b"", OPTIONS)
    before, reading.SECONDS_A_PAGE = reading.SECONDS_A_PAGE, 0.3
    broken("a reader that stands still", "stuck", reading.in_child, lambda *_: iter([time.sleep(60)]), b"", OPTIONS)
    reading.SECONDS_A_PAGE = before


def test_ocr():
    from PIL import Image, ImageDraw, ImageFont
    picture = Image.new("L", (1700, 2200), 255)
    text = "The quick brown fox jumps over the lazy dog while many people watch it from the hill"
    font = ImageFont.load_default(48)
    for i, line in enumerate(wrapped(text, 40)):
        ImageDraw.Draw(picture).text((120, 150 + 80 * i), line, font=font, fill=0)
    png = io.BytesIO()
    picture.save(png, "PNG")
    scanned = pdf([None], picture)
    if reading.ocr_missing(OPTIONS.ocr_lang) is None:
        equal("OCR: a scanned PDF", reading.pages_of("pdf", scanned, OPTIONS), [text])
        equal("OCR: a picture", reading.pages_of("image", png.getvalue(), OPTIONS), [text])
        empty = io.BytesIO()
        Image.new("L", (400, 400), 255).save(empty, "PNG")
        broken("OCR: a picture without text", "no_text", reading.pages_of, "image", empty.getvalue(), OPTIONS)
        broken("OCR: a broken picture", "broken_image", reading.pages_of, "image", png.getvalue()[:300], OPTIONS)
        case("OCR: a language that is not installed is named, with its package",
             "tesseract-ocr-nor" in reading.ocr_missing("eng+nor"), reading.ocr_missing("eng+nor"))
    path, os.environ["PATH"] = os.environ["PATH"], "/nonexistent"
    found = reading.pages_of("pdf", scanned, OPTIONS)[0]
    os.environ["PATH"] = path
    case("OCR: without tesseract a scan is named with the package", isinstance(found, reading.Broken) and
         found.args[0] == "needs_ocr" and "tesseract-ocr-chi-sim" in found.args[1], found)


def test_long_lines():
    with Folder() as folder:
        limit, reading.LIMIT = reading.LIMIT, 1000
        path = f"{folder}/x.jsonl"
        with open(path, "w") as f:
            for n in (10, 5000, 20):
                f.write(json.dumps({"text": "x" * n}) + "\n")
        found = list(reading.read_unit((path, "x", "jsonl", 0, os.path.getsize(path)), OPTIONS))
        reading.LIMIT = limit
        equal("a line that is too long is named, the others are read",
              [f.args[0] if isinstance(f, reading.Broken) else len(f[1][0]) for f in found], [10, "line_too_long", 20])
        size = os.path.getsize(path)
        for at in range(1, size, 97):
            parts = [list(reading.read_unit((path, "x", "jsonl", *part), OPTIONS)) for part in ((0, at), (at, size))]
            if [f[0] for part in parts for f in part] != [f[0] for f in reading.read_unit((path, "x", "jsonl", 0, size), OPTIONS)]:
                return case("a file read in parts is the file", False, at)
        case("a file read in parts is the file", True)


# ---- text ----
def test_steps():
    rng = random.Random(3)
    equal("ftfy: encodings, ligatures, entities", steps.tidy("schÃ¶n ﬁne &amp; so\u200b on\r\n\r\n\r\n x"), "schön fine & so on\n\nx")
    misread = [" and so on" * at + text.encode().decode(wrong, "ignore") + " on it goes"
               for wrong in ("cp1251", "cp1252", "cp1253", "cp1257", "latin-1", "mac-roman")
               for text in ("é à la", "“so”—", "à", "œuf", "Ж", "naïve Â ") for at in (0, 1, 99)]
    repaired, near = [steps.tidy(text) for text in misread], steps.HIGH
    steps.HIGH = re.compile("(?s).+")  # all of the text in place of what is not ASCII
    equal("a misread character is told by those beside it", repaired, [steps.tidy(text) for text in misread])
    steps.HIGH = near
    case("and most are repaired", sum(a != b for a, b in zip(repaired, misread)) > len(misread) / 2)
    for code, text in (("en", "It was the best of times and it was the worst of times"), ("zh", "天地玄黄，宇宙洪荒。"),
                       ("de", "Der Mann ist nicht mit dem Hund auf die Reise"), ("ja", "これは日本語の文章です"),
                       ("ru", "Это не так просто"), ("und", "xq zzk brr klm")):
        equal(f"language {code}", steps.language_of(text, steps.words_of(text)[0]), code)
    limit = OPTIONS.threshold
    equal("garbage: letters, words", [steps.garbage(t, *steps.words_of(t)[1:], limit) for t in (
        "1 2 3 4 5 6 . . . . | | a", "a b c d e f g h i", "all is well with this page")], ["few_letters", "word_length", None])
    gopher, plain = steps.Repetition(1.0), steps.GopherRepetitionFilter(language=steps.Words())
    agree = spared = 0
    for n in range(300):
        text = prose(rng, rng.randint(4, 30)) if n % 3 else chinese(rng, 30)
        if n % 2:  # loops of all strengths
            at = rng.randrange(len(text))
            text = text[:at] + (text[at : at + rng.randint(3, 80)] * rng.randint(1, 12)) + text[at:]
        hashes, sizes, _ = steps.words_of(text)
        exact = plain.filter(steps.Document(text, ""))
        agree += (gopher.why(text, hashes, sizes) is None) == (exact is True)
        spared += not gopher.suspect(text, hashes, sizes)
    equal("Gopher's filter: the bound by hashes changes no verdict", agree, 300)
    case("Gopher's filter: and spares most of the work", spared > 120, spared)
    lengths, differ = [], 0
    for n in range(60):
        text = (prose(rng, 40) if n % 2 else chinese(rng, 40)) if n % 5 else "x" * 3000
        whole = steps.ids_of(text, OPTIONS)
        document = {"id": "d", "text": text, "cuts": steps.cut(text.encode(), whole, OPTIONS, f"d{n}")}
        pages = list(steps.pages_of_document(document, OPTIONS))
        from_whole = steps.pages_of_document(document, OPTIONS, whole)
        differ += sum(a[2] is not b[2] and list(a[2]) != list(b[2]) for a, b in zip(pages, from_whole))
        lengths += [0 if ids is None else len(ids) for _, _, ids in pages]
        joined = "".join(text.encode()[a:b].decode() for a, b in document["cuts"])
        if not text.startswith(joined):
            return case("pages are the document, in order", False, (text[:200], joined[:200]))
    equal("tokens of pages, out of the document's", differ, 0)
    bad = sum(not 20 <= n <= 60 for n in lengths)
    case("pages are 20 to 60 tokens", len(lengths) > 300 and bad <= 0.02 * len(lengths), (len(lengths), bad))
    case("lengths are mixed", np.std(lengths) > 7, np.std(lengths))
    source = "\f".join(prose(rng, 2) for _ in range(5))
    equal("pages of the source of the right length stay", [t for _, t, _ in steps.pages_of_document(
        {"id": "d", "text": source, "cuts": steps.cut(source.encode(), steps.ids_of(source, OPTIONS), OPTIONS, "s")}, OPTIONS)],
          source.split("\f"))
    block, steps.BLOCK = steps.BLOCK, 40
    hash_of = {}
    for text in ("It's 12_a, naïve – “yes”\u3000no.\x85", "a中文字b 中文\U0001f600字", "x\ty١٢ e\u0301 " * 9, "中文字" * 30, ""):
        hashes, sizes, digits = steps.words_of(text)
        words = steps.WORD.findall(text)
        equal("words by numpy: their lengths, their digits", (sizes.tolist(), digits),
              ([len(w) for w in words], len(steps.DIGIT.findall(text))))
        for word, number in zip(words, hashes.tolist()):
            hash_of.setdefault(word.lower(), set()).add(number)
    equal("words by numpy: one hash a word, and its own", len(set().union(*hash_of.values())), len(hash_of))
    case("words by numpy: wherever they stand", all(len(h) == 1 for h in hash_of.values()), hash_of)
    steps.BLOCK = block


# ---- the whole command ----
def make_inputs(folder):
    rng = random.Random(7)
    os.makedirs(f"{folder}/in/sub/deep")
    texts = {}

    def put(name, data):
        with open(f"{folder}/in/{name}", "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
    doc = lambda: prose(rng, 12)
    texts["plain"], texts["html"], texts["zst"], texts["zh"] = doc(), doc(), doc(), chinese(rng, 30)
    put("a.txt", texts["plain"])
    put("notes", doc())  # told by its contents
    paragraphs = "".join(f"<p>{p}</p>" for p in (texts["html"], doc(), doc()))
    put("page.html", f"<html><head><title>x</title></head><body><nav>Home | About</nav><article>{paragraphs}</article></body></html>")
    put("sub/read.md", "# Head\n\n" + doc())
    put("sub/zh.txt", texts["zh"])
    put("sub/deep/doc.pdf", pdf([wrapped(doc()), wrapped(doc())]))
    rows = [{"id": f"r{i}", "text": doc(), "license": "CC0"} for i in range(40)]
    rows += [dict(rows[0], id="double"), {"id": "near", "text": rows[1]["text"].replace("the", "tho", 1)}]
    put("rows.jsonl", "".join(json.dumps(r) + "\n" for r in rows) + '{"text": "torn\n{"id": "none"}\n')
    put("rows.csv", "id,text\n" + "".join(f'{i},"{doc()}"\n' for i in range(3)))
    put("more.jsonl.gz", gzip.compress(json.dumps({"text": doc()}).encode(), mtime=0))
    put("more.txt.zst", zstandard.compress(texts["zst"].encode()))
    put("official.json", json.dumps([{"image": "i1", "conversations": [{"from": "context", "value": doc()}, {"value": "b"}]}]))
    table = pyarrow.table({"text": [doc() + doc() for _ in range(3)], "id": ["p1", "p2", "p3"],
                           "page_ends": [[100, 200], [50], [10, 20, 900]]})
    pyarrow.parquet.write_table(table, f"{folder}/in/fine.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"content": ["x"]}), f"{folder}/in/bare.parquet")
    with tarfile.open(f"{folder}/in/wds.tar", "w") as tar:
        for name, data in (("k1.json", json.dumps({"pages": [{"lines": {"text": wrapped(doc())}}]}).encode()),
                           ("k1.pdf", b"%PDF no"), ("k2.pdf", pdf([wrapped(doc())])), ("k3.bin", b"\0")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    put("report.docx", b"PK")
    put("torn.jsonl.gz", gzip.compress(b"x" * 5000)[:30])
    put("torn.zst", b"(\xb5/\xfd nothing")
    put("empty.txt", b"")
    put("loop.txt", "all the same words again and " * 200)
    put("data.bin", bytes(range(256)) * 20)
    os.symlink("..", f"{folder}/in/sub/up")
    os.symlink("nowhere", f"{folder}/in/sub/gone")
    with open(f"{folder}/bench.json", "w") as f:
        json.dump([{"image": "b", "conversations": [{"value": "p"}, {"value": rows[5]["text"]}]}], f)
    return texts, rows


def arguments(folder, out):
    return [f"{folder}/in", "-o", f"{folder}/{out}", "-least", "20", "-most", "60", "-val", "8", "-test", "8", "-keep_out",
            f"{folder}/bench.json"]


def corpus_run(folder, out, *more, **environment):
    return subprocess.run([*COMMAND, *arguments(folder, out), *more], capture_output=True, text=True,
                          env=dict(os.environ, **environment))


def files_of(out):
    kept = {}
    for name in sorted(os.listdir(out)):
        if name != "corpus.lock" and os.path.isfile(f"{out}/{name}"):
            with open(f"{out}/{name}", "rb") as f:
                kept[name] = f.read()
    return kept


def pages_in(data):
    return [json.loads(line) for line in data.splitlines()]


def test_command():
    with Folder() as folder:
        texts, rows = make_inputs(folder)
        run = corpus_run(folder, "one", "-workers", "1")
        if not case("corpus.py runs", run.returncode == 0 and not run.stderr, run.stdout[-1500:] + run.stderr[-3000:]):
            return
        one = files_of(f"{folder}/one")
        made = json.loads(one["manifest.json"])
        train = pages_in(zstandard.ZstdDecompressor().stream_reader(io.BytesIO(one["train.jsonl.zst"])).read())
        val, test = pages_in(one["val.jsonl"]), pages_in(one["test.jsonl"])
        every = train + val + test
        sources = {p["source"] for p in every}
        wanted = {"a.txt", "notes", "page.html", "sub/read.md", "sub/zh.txt", "sub/deep/doc.pdf", "rows.jsonl", "rows.csv",
                  "more.jsonl.gz", "more.txt.zst", "official.json", "fine.parquet", "wds.tar"}
        equal("every kind was read", sources, wanted)
        case("HTML: its text, without the navigation", any(texts["html"][:40] in p["text"] for p in every) and
             not any("About" in p["text"] for p in every))
        left = {(o["id"], o["reason"]) for o in pages_in(one["aside.jsonl"])}
        missing = {("report.docx", "unknown_format"), ("bare.parquet", "no_text_column"), ("empty.txt", "empty"),
                   ("data.bin", "unknown_format"), ("torn.jsonl.gz", "broken_file"), ("torn.zst", "broken_file"),
                   ("wds.tar/k3", "unknown_format")} - left
        case("broken documents are listed by reason", not missing, (missing, sorted(left)))
        reasons = {o["reason"] for o in pages_in(one["aside.jsonl"])}
        case("a torn line, a line without the key, a loop", {"broken_json", "no_text_key"} < reasons and
             any(r.startswith("repetition") for r in reasons), reasons)
        case("they are said, with the remedy", "soffice" in run.stdout and "-key NAME" in run.stdout, run.stdout)
        stages = made["stages"]
        equal("an exact and a near double", {k: v[0] for k, v in stages["doubles, languages"].items()},
              {"exact_double": 1, "near_double": 1})
        total = lambda part: sum(row[2] for reason, row in stages[part].items() if reason != "read")
        read, kept = stages["read and clean"]["read"][2], sum(r["tokens"] for r in made["kept"].values())
        lost = sum(map(total, ("doubles, languages", "cut", "held-out overlap")))
        case("the tokens read are the tokens kept and dropped", 0.9 * read < kept + lost <= 1.02 * read, (read, kept, lost))
        equal("the manifest counts the pages", [made["kept"][s]["pages"] for s in ("train", "val", "test")],
              [len(train), len(val), len(test)])
        case("held out by document", 1 < len(val) <= 16 and 1 < len(test) <= 16 and not
             {p["id"].split("#")[0] for p in train} & {p["id"].split("#")[0] for p in val + test}, (len(val), len(test)))
        equal("the licence is counted", made["licences"]["CC0"] > 1000 and "unknown" in made["licences"], True)
        bench = rows[5]["text"]
        grams = lambda text: {tuple(g) for ids in [steps.ids_of(text, OPTIONS).tolist()] for g in zip(*(ids[i:] for i in range(13)))}
        seen = set().union(*(grams(p["text"]) for p in train))
        case("nothing of the benchmark is left in the training pages", not grams(bench) & seen and "keep_out" in stages[
            "held-out overlap"], stages["held-out overlap"])
        case("no run of 13 tokens is both held out and trained on", not seen & set().union(*(grams(p["text"]) for p in val + test)))
        case("pages keep their lengths", all(20 <= p["tokens"] <= 60 for p in every))
        ids = shard_pages(one["train_00000.bin"])
        equal("the shards hold these pages, token by token", ids, [steps.ids_of(p["text"], OPTIONS).tolist() for p in train])
        case("the report is there, with pictures", one["report.html"].count(b"<svg") == 3)
        said, errors = watched(folder, "two", 0, "all", "-workers", "3").communicate()
        two = files_of(f"{folder}/two")
        equal("three workers, the same bytes", [n for n in one if one[n] != two.get(n)] + errors.split(), [])
        run = corpus_run(folder, "one", "-workers", "1")
        case("a finished corpus is left alone", run.returncode == 0 and "is complete" in run.stdout, run.stdout)
        run = corpus_run(folder, "one", "-seed", "2")
        case("other settings are refused", run.returncode == 1 and "-seed" in run.stderr and run.stderr.count("\n") == 1, run.stderr)
        run = corpus_run(folder, "other", "-seed", "2")
        other = pages_in(files_of(f"{folder}/other")["val.jsonl"])
        case("another seed, other held-out pages", {p["id"] for p in other} != {p["id"] for p in val})
        killed(folder, one, int(said.split("COUNT")[1]), times=int(os.environ.get("KILLS", 4)))
        worker_killed(folder, one)
        slurm(folder, one)
        test_bad(folder)


def shard_pages(data):
    import struct
    count, = struct.unpack_from("<Q", data, 16)
    index, tokens = struct.unpack_from("<QQ", data, 72)
    places = [struct.unpack_from("<QII", data, index + 24 * n) for n in range(count)]
    return [list(struct.unpack_from(f"<{length}I", data, tokens + 4 * at)) for at, length, _ in places]


# Runs corpus.py and counts what it and its workers do to files of the folder; stops them all at the Nth time, or kills the
# worker that does it, so that a test needs no clock. Arguments: N, "all" or "worker", the folder, corpus.py's arguments.
WATCHED = f"""
import mmap, os, signal, sys
sys.path.insert(0, {os.path.join(ROOT, "data")!r})
at, who, folder, main, count = int(sys.argv[1]), sys.argv[2], sys.argv[3] + os.sep, os.getpid(), mmap.mmap(-1, 8)
def watch(event, arguments):
    if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir") and str(arguments[0]).startswith(folder):
        if who == "all" or os.getpid() != main:
            n = int.from_bytes(count[:], "little") + 1
            count[:] = n.to_bytes(8, "little")
            if n == at:
                os.killpg(0, signal.SIGSTOP) if who == "all" else os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
import corpus, corpus_steps
corpus_steps.SORT_BYTES = 3000  # pages of a task to several sorted files
corpus.main(sys.argv[4:])
print("COUNT", int.from_bytes(count[:], "little"))
"""


def watched(folder, out, at, who, *more):
    return subprocess.Popen([sys.executable, "-c", WATCHED, str(at), who, f"{folder}/{out}", *arguments(folder, out), *more],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def killed(folder, one, last, times):
    """kill -9 at any of `last` steps; the run goes on, is killed again, and so on. The bytes are the same at every end."""
    rng, kills, ends, differ = random.Random(11), 0, 0, []
    while kills < times or not ends:
        run = watched(folder, "killed", rng.randint(1, last) if kills < times else 0, "all", "-workers", "2")
        if os.waitid(os.P_PID, run.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT).si_code == os.CLD_STOPPED:
            if kills == 0 and os.path.getsize(f"{folder}/killed/corpus.lock"):
                refused = corpus_run(folder, "killed").stderr
                case("a second run into the same folder is refused", "another corpus.py" in refused and refused.count("\n") == 1,
                     refused)
            kills += 1
            run.kill()  # it alone: its workers end with it
            run.communicate()
            with open(f"{folder}/killed/corpus.lock", "a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
        else:
            said = run.communicate()
            differ += [n for n, data in files_of(f"{folder}/killed").items() if data != one.get(n)] + said[1].split("\n")[:-1]
            ends += 1
            shutil.rmtree(f"{folder}/killed")
    equal(f"killed {kills} times, the same bytes", differ, [])


def test_shards_killed():
    """c3 tokenize must not take the end of a run that is killed for the end of the pages."""
    with Folder() as folder:
        run = subprocess.run([sys.executable, "-c", f"""
import os, sys
sys.path.insert(0, {os.path.join(ROOT, "data")!r})
import corpus
o = corpus.options(["x", "-o", {folder!r}])
pages = corpus.shards(o, "train", [b'{{"text": "' + b"some words " * 40000 + b'"}}\\n'] * 3)
next(pages), next(pages)
print(pages.gi_frame.f_locals["run"].pid, flush=True)
os.kill(os.getpid(), 9)"""], capture_output=True, text=True)
        state = "R"
        while state not in "ZX":
            try:
                with open(f"/proc/{int(run.stdout)}/stat") as f:
                    state = f.read().rsplit(")", 1)[1].split()[0]
            except FileNotFoundError:
                state = "X"
            time.sleep(0.05)
        left = [name for name in os.listdir(folder) if name.endswith(".bin")]
        equal("killed while it writes shards: none that passes for whole", left, [])


def worker_killed(folder, one):
    for at in (1, 30):
        said = watched(folder, "lost", at, "worker", "-workers", "2").communicate()[1]
        case("a worker that is killed: one line", said.count("\n") == 1 and "a worker process was killed" in said, said)
    corpus_run(folder, "lost")
    equal("and the run goes on", [n for n, data in files_of(f"{folder}/lost").items() if data != one.get(n)], [])


def slurm(folder, one):
    """A cluster of this machine: sbatch does the tasks of an array at once, one after the other."""
    os.makedirs(f"{folder}/bin")
    for name, script in (("sbatch", f"""[ -z "$LOST" ] || {{ echo job 7; exit; }}
script="${{!#}}" count=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "${{!#}}")
grep -h partition "$script" >> {folder}/jobs
for i in $([ -z "$count" ] || seq 0 $count); do
    SLURM_ARRAY_TASK_ID=$i SLURM_NODELIST=here bash "$script" >> {folder}/jobs.log 2>&1
done
echo Submitted batch job 7"""), ("srun", 'while [ "${1#-}" != "$1" ]; do [ $1 != -n ] || shift; shift; done; exec "$@"'),
                         ("scontrol", "echo here"), ("squeue", "")):
        with open(f"{folder}/bin/{name}", "w") as f:
            f.write(f"#!/bin/bash\n{script}\n")
        os.chmod(f.name, 0o755)
    path = f"{folder}/bin:{os.environ['PATH']}"
    said = corpus_run(folder, "lost_jobs", "-slurm", "cpus", PATH=path, LOST="1").stderr
    case("-slurm: jobs that are gone: one line", "tasks have failed" in said and said.count("\n") == 1, said)
    run = corpus_run(folder, "slurm", "-slurm", "cpus", "-workers", "2", PATH=path)
    with open(f"{folder}/jobs") as f:
        jobs = f.read().splitlines()
    case("-slurm: an array a stage, in the partition", len(jobs) >= 4 and set(jobs) == {"#SBATCH --partition=cpus"}, jobs)
    equal("-slurm: the same bytes", [n for n in one if files_of(f"{folder}/slurm").get(n) != one[n]] + run.stderr.split(), [])


def test_bad(folder):
    def said(why, *words, **environment):
        run = subprocess.run([*COMMAND, *words], capture_output=True, text=True, cwd=folder,
                             env=dict(os.environ, **environment))
        case(f"refused in one line: {why}", run.returncode and run.stderr.strip().count("\n") == 0 and why in run.stderr,
             run.stderr[-1500:])
    said("no such file or folder", "nowhere", "-o", "bad1")
    said("no vocabulary", "in", "-o", "bad3", "-tok", "nowhere")
    said("expected `base64 rank`", "in", "-o", "bad7", "-tok", os.path.join(ROOT, "README.md"))
    said("gave a page", "in/empty.txt", "-o", "bad4")
    said("login node", "in", "-o", "bad5", "-slurm", "cpus", PATH="/nonexistent")
    if not importlib.util.find_spec("ray"):
        said("pip install 'ray", "in", "-o", "bad6", "-ray")
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "-", *COMMAND, "in", "-o", "full", "-least", "20", "-most", "60", "-workers", "2"]
    run = subprocess.run(limited, capture_output=True, text=True, cwd=folder)
    case("a disk that fills: one line", run.returncode == 1 and run.stderr.count("\n") == 1 and "make room" in run.stderr and
         not os.path.exists(f"{folder}/full/manifest.json"), run.stderr[-1500:])
    run = subprocess.run([*COMMAND, "-", "-o", "stdin", "-least", "20", "-most", "60"], capture_output=True, text=True, cwd=folder,
                         input="".join(json.dumps({"text": prose(random.Random(n), 9)}) + "\n" for n in range(20)))
    case("stdin", run.returncode == 0 and os.path.exists(f"{folder}/stdin/train_00000.bin"), run.stderr[-1000:])


def made_of(folder, name, *words):
    """(train, val, test pages, what it said) of a run with pages of 20 to 60 tokens of 2048."""
    run = subprocess.run([*COMMAND, "-o", f"{folder}/{name}", "-least", "20", "-most", "60", "-vocab", "2048", *words],
                         capture_output=True, text=True, cwd=folder)
    if not case(f"{name}: corpus.py runs", run.returncode == 0, run.stderr[-1500:]):
        return [], [], [], ""
    files = files_of(f"{folder}/{name}")
    train = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(files["train.jsonl.zst"])).read()
    return pages_in(train), pages_in(files.get("val.jsonl", b"")), pages_in(files.get("test.jsonl", b"")), run.stdout


def test_split():
    """Where there are too few documents, stretches of them are held out; documents named with -held are; -as_is, -lang."""
    rng = random.Random(5)
    with Folder() as folder:
        with open(f"{folder}/book.txt", "w") as f:
            f.write("\n\n".join(prose(rng, 4) for _ in range(150)))
        train, val, test, said = made_of(folder, "book", "book.txt")
        number = lambda pages: sorted(int(p["id"].split("#")[1]) for p in pages)
        n = len(train) + len(val) + len(test)
        stretch = lambda pages: pages and number(pages) == list(range(number(pages)[0], number(pages)[0] + len(pages)))
        case("one book: a tenth of its pages in one stretch each, within it", stretch(val) and stretch(test) and
             all(0.07 * n < len(pages) <= 0.11 * n for pages in (val, test)) and 1 < number(val)[0] < number(test)[0] and
             number(test)[-1] < max(number(train)), (n, number(val), number(test)))
        case("one book: it says so, the manifest too", said.count("in one stretch") == 2 and sorted(
            json.loads(files_of(f"{folder}/book")["manifest.json"])["stretches_held_out"]) == ["test", "val"], said)
        case("one book: no page on both sides", len({p["id"] for p in train + val + test}) == n == len({p["text"] for p in
             train + val + test}))
        code = "".join(f"def {rng.choice(WORDS)}(x):\n    if x == {i}:\n        return {rng.random()}\n\n" for i in range(60))
        os.mkdir(f"{folder}/own")
        for name, text in (("code.py", code), ("own/a.txt", prose(rng, 40)), ("own/b.txt", prose(rng, 40))):
            with open(f"{folder}/{name}", "w") as f:
                f.write(text)
        train, val, test, said = made_of(folder, "named", "book.txt", "code.py", "-held", "own", "-as_is", "-test", "0")
        equal("-held: all pages of these documents and no others", {p["source"] for p in val}, {"held/a.txt", "held/b.txt"})
        case("-held: none of them is trained on", train and not any(p["source"].startswith("held/") for p in train) and not test)
        lines = {line for p in train if p["source"] == "code.py" for line in p["text"].split("\n")}
        case("-as_is: indentation stays, and the end of a line at that of a page", any(line.startswith("        return") for line in
             lines) and lines - {""} <= set(code.split("\n")) and any(p["text"].endswith("\n") for p in train), sorted(lines)[:5])
        rows = [("zh", chinese(rng, n)) for n in [5, 400, *range(10, 60)]] + [("en", prose(rng, 4 + n % 5)) for n in range(240)]
        rows = [json.dumps({"id": f"{lang}{i}", "text": text}) + "\n" for i, (lang, text) in enumerate(rows)]
        for name, order in (("rows", rows), ("turned", rows[::-1])):
            os.mkdir(f"{folder}/{name}")
            with open(f"{folder}/{name}/x.jsonl", "w") as f:
                f.write("".join(order))
        none = "-val", "0", "-test", "0"
        train = made_of(folder, "shares", "rows", "-lang", "zh=0.2", "-least", "50", *none)[0]
        tokens = lambda pages: sum(p["tokens"] for p in pages)
        share = lambda code, pages: tokens(p for p in pages if p["lang"] == code) / max(1, tokens(pages))
        case("-lang zh=0.2: a fifth of the pages' tokens, within the smallest document; the others fill the rest", abs(
            share("zh", train) - 0.2) < 0.005 and share("en", train) > 0.79, (share("zh", train), share("en", train), tokens(train)))
        other = made_of(folder, "other", "turned", "-lang", "zh=0.2", "-least", "50", *none)[0]
        case("-lang: whatever the order of the documents", other == train, (len(other), len(train)))
        train = made_of(folder, "few", "rows", "-lang", "zh=0.3,en=0.7", "-pages", "200", *none)[0]
        case("-lang and -pages: both hold", 190 <= len(train) <= 200 and abs(share("zh", train) - 0.3) < 0.02,
             (len(train), share("zh", train)))
        run = subprocess.run([*COMMAND, "rows", "-o", "german", "-least", "20", "-most", "60", "-lang", "de=0.3"],
                             capture_output=True, text=True, cwd=folder)
        case("-lang: a language that is not there, one line", run.returncode == 1 and run.stderr.count("\n") == 1 and
             "no document of it" in run.stderr, (run.returncode, run.stderr))
        with open(f"{folder}/long.jsonl", "w") as f:
            f.write("".join(json.dumps({"text": prose(rng, 26)}) + "\n" for _ in range(60)))
        train, val, _, said = made_of(folder, "long", "long.jsonl", "-val", "6", "-test", "0")
        case("-val: less than any document has: about so many pages, each of another document", "in one stretch" in said and
             4 <= len(val) <= 6 and len({p["id"].split("#")[0] for p in val}) == len(val), (len(val), len(train)))


if not os.path.exists(C3) or not os.path.exists(TOKENIZER):
    print("     ./c3 or the vocabulary is not there")
for test in (test_objects, test_pdf, test_ocr, test_long_lines, test_steps, test_split, test_shards_killed, test_command):
    test()
done()
