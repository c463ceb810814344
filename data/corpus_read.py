"""The readers of corpus.py: files of every kind to documents, a document to its pages.

expand() lists the files of what the user named; tasks_of() parts them into tasks of about equal size, which depend on the
files alone and never on the number of workers; read_unit() gives the documents of one file, or of a part of a big one, as
(id, pages, licence), and a Broken in the place of each that cannot be read. Documents are streamed; none is larger than
LIMIT bytes. PDF files are read in a process of their own, which may crash or hang without harm to the rest.
"""
import collections, csv, ctypes, glob, gzip, io, json, os, pickle, re, select, shutil, signal, struct, subprocess, sys, tarfile, zlib
from concurrent.futures import ThreadPoolExecutor

import zstandard

from debian_texts import clean, join_wrapped

LIMIT = 64 << 20  # bytes of a document, or of a line: c3's own limit
TASK_BYTES = 48 << 20
SECONDS_A_PAGE = 120  # after so long without a page the reader of a PDF is given up
KINDS = {"jsonl": "jsonl ndjson jsonlines", "json": "json", "csv": "csv tsv", "parquet": "parquet", "tar": "tar",
         "html": "html htm xhtml", "markdown": "md markdown", "text": "txt text rst log", "pdf": "pdf",
         "image": "png jpg jpeg tif tiff bmp webp pnm pgm ppm"}
KIND = {suffix: kind for kind, suffixes in KINDS.items() for suffix in suffixes.split()}
REMEDY = {"doc docx odt rtf ppt pptx odp xls xlsx ods": "soffice --headless --convert-to pdf FILE",
          "zip 7z rar xz bz2 tgz": "unpack it", "epub mobi djvu ps": "convert it to PDF or HTML"}
REMEDIES = {suffix: remedy for suffixes, remedy in REMEDY.items() for suffix in suffixes.split()}
UNREADABLE = (OSError, EOFError, ValueError, zlib.error, zstandard.ZstdError)
OCR_PACKAGES = "apt-get install --no-install-recommends tesseract-ocr"


class Broken(Exception):
    """A document, or a file, that cannot be read: Broken(reason, what and remedy)."""

    id = ""

    def of(self, name):
        self.id = name
        return self


# ---------------------------------------------------------------- files

def expand(inputs):
    """[(path, name)] of files, folders (links are followed once, hidden files left out) and globs, sorted by name."""
    files, seen = {}, set()
    for given in inputs:
        found = [given] if os.path.exists(given) else sorted(glob.glob(given, recursive=True))
        if not found:
            raise Broken("missing", f"{given}: no such file or folder")
        for top in found:
            if not os.path.isdir(top):
                files.setdefault(os.path.realpath(top), (top, os.path.basename(top)))
                continue
            for folder, folders, names in os.walk(top, followlinks=True):
                here = os.path.realpath(folder)
                if here in seen:
                    folders.clear()
                    continue
                seen.add(here)
                folders[:] = sorted(f for f in folders if not f.startswith("."))
                for path in (os.path.join(folder, n) for n in sorted(names) if not n.startswith(".")):
                    if os.path.isfile(path):  # neither a pipe nor a link to nowhere
                        files.setdefault(os.path.realpath(path), (path, os.path.relpath(path, top)))
    return sorted(files.values(), key=lambda f: (f[1], f[0]))


def suffixes_of(path):
    """("jsonl", "gz") of x.jsonl.gz; the second is empty where nothing is compressed."""
    parts = os.path.basename(path).lower().split(".")
    packed = parts.pop() if len(parts) > 1 and parts[-1] in ("gz", "zst") else ""
    return (parts[-1] if len(parts) > 1 else ""), packed


def open_bytes(path):
    packed = suffixes_of(path)[1]
    if packed == "gz":
        return gzip.open(path)
    if packed == "zst":
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(open(path, "rb"), read_across_frames=True))
    return open(path, "rb")


def kind_of(path):
    """The format, by the name, else by the first bytes. Broken where it is none of ours."""
    suffix = suffixes_of(path)[0]
    if suffix in KIND:
        return KIND[suffix]
    if suffix in REMEDIES:
        raise Broken("unknown_format", f".{suffix} is not read (hint: {REMEDIES[suffix]})")
    with open_bytes(path) as f:
        head = f.read(4096)
    for mark, kind in ((b"%PDF", "pdf"), (b"PAR1", "parquet"), (b"\x89PNG", "image"), (b"\xff\xd8\xff", "image")):
        if head.startswith(mark):
            return kind
    if head[257:262] == b"ustar":
        return "tar"
    if b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Broken("unknown_format", "neither text nor a format that is known (hint: convert it to text or PDF)")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if re.match(rb"\{|\[\s*[{\[]", start):
        return "jsonl" if start.startswith(b"{") else "json"
    return "html" if re.match(rb"(?i)<!doctype html|<html", start) else "text"


def tasks_of(files):
    """Lists of units (path, name, kind, first, last): a part of the bytes of a long JSONL file, of the row groups of a
    parquet file, or all (0, None). The kind is a Broken's words where there is none."""
    units, total = [], sum(os.path.getsize(path) for path, _ in files)
    # Eight tasks at least, for the cores; 2,000 at most: every task's file is open in the last stage.
    size = max(min(TASK_BYTES, total // 8), 1 << 20, total // 2000)
    for path, name in files:
        bytes_here, cuts = os.path.getsize(path), [(0, None)]
        try:
            kind = kind_of(path)
            if kind == "jsonl" and not suffixes_of(path)[1]:
                cuts = [(at, min(at + size, bytes_here)) for at in range(0, bytes_here, size)] or cuts
            elif kind == "parquet":
                groups = parquet_file(path).metadata.num_row_groups
                step = max(1, groups * size // max(1, bytes_here))
                cuts = [(at, min(at + step, groups)) for at in range(0, groups, step)] or cuts
        except Broken as why:
            kind = why.args
        except UNREADABLE as why:
            kind = ("broken_file", first_line(why))
        units += [((path, name, kind, *cut), bytes_here // len(cuts)) for cut in cuts]
    tasks, room = [[]], size
    for unit, cost in units:
        if tasks[-1] and cost > room:
            tasks.append([])
            room = size
        tasks[-1].append(unit)
        room -= max(cost, 4096)
    return tasks


def first_line(why):
    return (str(why).strip().split("\n")[0] or type(why).__name__)[:200]


# ---------------------------------------------------------------- text, HTML, Markdown

def decode(data):
    """UTF-8 or UTF-16; where a line is neither, that line is GB 18030 if this makes it Chinese, else Windows-1252."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "\n".join(decode_line(line) for line in data.split(b"\n"))


def decode_line(line):
    for coding in ("utf-8", "gb18030"):
        try:
            text = line.decode(coding)
        except UnicodeDecodeError:
            continue
        han = sum(map(len, re.findall("[\u4e00-\u9fff]{2,}", text)))
        if coding == "utf-8" or 2 * han > sum(c > "\x7f" for c in text):
            return text
    return line.decode("cp1252", "replace")


def text_pages(data):
    if b"\0" in data[:4096] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Broken("binary", "zero bytes in what should be text")
    return decode(data).split("\f")


MARKDOWN = [(re.compile(r"\A---\n.*?\n---\n", re.S), ""), (re.compile(r"<!--.*?-->", re.S), ""),
            (re.compile(r"!\[[^\]]*\]\([^)]*\)"), ""), (re.compile(r"\[([^\]]*)\]\([^)]*\)"), r"\1"),
            (re.compile(r"^#{1,6} +|^[-=*_]{3,}$", re.M), ""), (re.compile(r"(\*\*|__)(\S.*?\S|\S)\1"), r"\2")]


def markdown_pages(data):
    """Without front matter, comments, pictures, addresses and the marks of headings and of bold words; the lines of a
    paragraph become one."""
    text = decode(data).replace("\r\n", "\n")
    for pattern, put in MARKDOWN:
        text = pattern.sub(put, text)
    parts = re.split(r"(^```.*?^```$)", text, flags=re.S | re.M)
    parts[::2] = [re.sub(r"(?<=\S)\n(?=[^\W\d_])", " ", part) for part in parts[::2]]
    return "".join(parts).split("\f")


def html_pages(data):
    import trafilatura
    text = trafilatura.extract(data, include_comments=False, include_tables=False, favor_recall=True)
    if not text:
        raise Broken("no_text", "no text in this HTML")
    return [re.sub("\n+", "\n\n", text)]


# ---------------------------------------------------------------- objects

def natural_text(value):
    """The "natural_text" within an olmOCR response, however deep, as an object or as JSON in a string."""
    if isinstance(value, str) and "natural_text" in value:
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if isinstance(value, dict):
        if isinstance(value.get("natural_text"), str):
            return value["natural_text"]
        value = list(value.values())
    if isinstance(value, list):
        return next((text for text in map(natural_text, value) if text), None)


def spans_of(o):
    """Where pages end: FinePDFs' page_ends, Dolma's attributes.pdf_page_numbers ([[from, to, page], ...])."""
    attributes = o.get("attributes")
    spans = attributes.get("pdf_page_numbers") if isinstance(attributes, dict) else None
    ends = [s[1] for s in spans] if isinstance(spans, list) and spans else o.get("page_ends")
    return [int(end) for end in ends] if isinstance(ends, (list, tuple)) else []


def lines_of(page):
    """Text of a page of pdfa and idl: {"lines": {"text": [...]}}, {"lines": [{"text"}]}, {"text": [...]} or a string."""
    for key in ("lines", "text"):
        if isinstance(page, dict) and page.get(key):
            page = page[key]
    if isinstance(page, dict):
        page = page.get("text")
    if isinstance(page, list):
        page = "\n".join(line if isinstance(line, str) else str(line.get("text", "")) for line in page)
    return page if isinstance(page, str) else ""


def object_pages(o, key):
    """The pages of an object in any of the forms that are known; None where there is none."""
    if not isinstance(o, dict):
        return [o] if isinstance(o, str) else None
    text = o.get(key)
    if isinstance(text, list) and all(isinstance(t, str) for t in text):
        return text
    if isinstance(text, str):
        at, pages = 0, []
        for end in spans_of(o):
            pages.append(text[at:end])
            at = max(at, end)
        return pages + [text[at:]] if at < len(text) else pages
    talk = o.get("conversations")
    if isinstance(talk, list) and talk and all(isinstance(t, dict) for t in talk):
        context = [t.get("value") for t in talk if t.get("from") == "context"]  # the authors'; else Fox's
        text = context[0] if context else talk[1].get("value") if len(talk) == 2 else None
        return [text] if isinstance(text, str) else None
    if isinstance(o.get("pages"), list):
        return [unwrap(lines_of(page)) for page in o["pages"]]
    text = natural_text(o)
    return None if text is None else [text]


def of_object(o, place, name, key):
    pages = object_pages(o, key)
    known = o if isinstance(o, dict) else {}
    about = known["metadata"] if isinstance(known.get("metadata"), dict) else known
    number = known.get("id") or known.get("image")
    number = str(number) if isinstance(number, (str, int)) else place
    if pages is None:
        return Broken("no_text_key", f'expected "{key}", found {", ".join(map(repr, list(known)[:8])) or type(o).__name__}'
                      " (hint: -key NAME)").of(place)
    return f"{name}/{number}" if number != place else place, pages, str(about.get("license") or "")


def json_documents(f, name, key):
    data = f.read(8 * LIMIT + 1)
    if len(data) > 8 * LIMIT:
        raise Broken("too_large", "over 512 MB in one JSON value (hint: one object a line, as .jsonl)")
    try:
        value = json.loads(decode(data))
    except (ValueError, RecursionError) as why:
        if b"\n" in data.strip():
            yield from jsonl_documents(io.BytesIO(data), name, key, 0, None)
            return
        raise Broken("broken_json", first_line(why)) from None
    many = isinstance(value, list) and not all(isinstance(v, str) for v in value)
    for number, o in enumerate(value if many else [value if isinstance(value, dict) else {key: value}], 1):
        yield of_object(o, f"{name}:{number}" if many else name, name, key)


def jsonl_documents(f, name, key, first, last):
    """Lines that begin in [first, last); one that is longer than LIMIT is never held."""
    at = first
    if first:  # behind the end of the line in which the part before ends
        f.seek(first - 1)
        at, piece = at - 1, b""
        while at < last and not piece.endswith(b"\n"):  # a long line is not read to its end in each part
            piece = f.readline(1 << 20)
            at += len(piece)
    while last is None or at < last:
        line, size = read_line(f)
        if not size:
            return
        place, at = f"{name}@{at}", at + size
        if line is None:
            yield Broken("line_too_long", f"a line of {size:,} bytes (hint: at most {LIMIT >> 20} MB a document)").of(place)
        elif line.strip(b"\xef\xbb\xbf \t\r\n"):
            try:
                yield of_object(json.loads(decode(line)), place, name, key)
            except (ValueError, RecursionError) as why:
                yield Broken("broken_json", first_line(why)).of(place)


def read_line(f):
    """(line, its bytes); the line is None where it is too long."""
    line = f.readline(LIMIT)
    size, more = len(line), line
    while more and not more.endswith(b"\n"):
        more, line = f.readline(LIMIT), None if size >= LIMIT else line
        size += len(more)
    return line, size


def csv_documents(f, name, key, delimiter):
    csv.field_size_limit(LIMIT)
    rows = csv.DictReader(io.TextIOWrapper(f, "utf-8-sig", "replace", newline=""), delimiter=delimiter)
    if key not in (rows.fieldnames or []):
        raise Broken("no_text_column", f'no column "{key}"; there are {", ".join(rows.fieldnames or [])} (hint: -key NAME)')
    try:
        for number, row in enumerate(rows, 1):
            yield of_object(row, f"{name}:{number}", name, key)
    except csv.Error as why:
        yield Broken("broken_csv", first_line(why)).of(f"{name}:{rows.line_num}")


def parquet_file(path):
    import pyarrow, pyarrow.parquet
    try:
        return pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowException as why:
        raise Broken("broken_file", first_line(why)) from None


def parquet_documents(path, name, key, first, last):
    import pyarrow
    file = parquet_file(path)
    names = file.schema_arrow.names
    wanted = [n for n in names if n in (key, "id", "page_ends", "license", "response", "natural_text", "pages", "metadata",
                                        "conversations", "attributes", "image")
              and not pyarrow.types.is_struct(file.schema_arrow.field(n).type) or n in ("response", "metadata", "attributes")]
    if not {key, "response", "natural_text", "pages", "conversations"} & set(names):
        raise Broken("no_text_column", f'no column "{key}"; there are {", ".join(names)[:200]} (hint: -key NAME)')
    groups, number = range(first, file.metadata.num_row_groups if last is None else last), 0
    try:
        for batch in file.iter_batches(64, row_groups=list(groups), columns=wanted):
            for row in batch.to_pylist():
                number += 1
                yield of_object(row, f"{name}:{first}.{number}", name, key)
    except (pyarrow.ArrowException, OSError) as why:
        yield Broken("broken_file", first_line(why)).of(f"{name}:{first}.{number + 1}")


def tar_documents(f, name, o):
    """Members of one stem stand together: the text of KEY.json counts, else that of KEY.pdf."""
    def finish(stem, members):
        broken = None
        for suffix, data in sorted(members.items(), key=lambda m: m[0] == "pdf"):
            try:
                if suffix in ("json", "jsonl"):
                    found = of_object(json.loads(decode(data)), f"{name}/{stem}", name, o.key)
                    if not isinstance(found, Broken) and any(page.strip() for page in found[1]):
                        return f"{name}/{stem}", found[1], found[2]
                    broken = broken or (found if isinstance(found, Broken) else None)
                elif suffix in KIND:
                    return f"{name}/{stem}", pages_of(KIND[suffix], data, o), ""
            except (Broken, ValueError) as why:
                broken = why if isinstance(why, Broken) else Broken("broken_json", first_line(why))
        return (broken or Broken("unknown_format", "neither JSON nor PDF nor text")).of(f"{name}/{stem}")

    stem, members = None, {}
    try:
        with tarfile.open(fileobj=f, mode="r|*") as tar:
            for member in (m for m in tar if m.isfile()):
                folder, base = os.path.split(member.name)
                root, _, suffix = base.partition(".")
                key = os.path.join(folder, root)
                if key != stem and members:
                    yield finish(stem, members)
                    members = {}
                stem = key
                if member.size > LIMIT:
                    yield Broken("too_large", f"{member.size:,} bytes").of(f"{name}/{member.name}")
                else:
                    members[suffix.lower()] = tar.extractfile(member).read()
        if members:
            yield finish(stem, members)
    except (tarfile.TarError, *UNREADABLE) as why:
        yield Broken("broken_file", first_line(why)).of(f"{name}/{stem}")


# ---------------------------------------------------------------- PDF and pictures

def unwrap(text):
    """Lines broken at a margin back into paragraphs: one ends at a blank line, or at a line that is clearly shorter than
    most; a word parted by a hyphen becomes one."""
    lines = [line.strip() for line in text.replace("\r", "").split("\n")]
    lengths = sorted(len(line) for line in lines if line)
    width = lengths[int(len(lengths) * 0.8)] if lengths else 0
    out, now = [], []
    for line in lines:
        if line:
            if now and re.search(r"[^\W\d_]-$|[\ufffe\x02]$", now[-1]) and line[0].islower():
                now[-1] = now[-1][:-1] + line
            else:
                now.append(line)
        if now and (not line or len(line) < 0.75 * width):
            out.append(join_wrapped(now))
            now = []
    return "\n\n".join(out + ([join_wrapped(now)] if now else []))


def drop_running_heads(pages):
    """Takes first and last lines off that return, but for numbers, on two of the eight pages around, and page numbers."""
    pages = [page.replace("\r", "").strip().split("\n") for page in pages]
    for at in (0, -1, 0, -1):
        keys = [re.sub(r"[\W\d_]+", "", lines[at])[:40] for lines in pages]
        for i, lines in enumerate(pages):
            near = keys[max(0, i - 4) : i] + keys[i + 1 : i + 5]
            number = re.fullmatch(r"\W*(\d{1,4}|[ivxlc]{1,7})\W*", lines[at])
            if len(lines) > 1 and len(lines[at]) <= 90 and (number or keys[i] and near.count(keys[i]) >= 2):
                lines.pop(at)
                while len(lines) > 1 and not lines[at].strip():
                    lines.pop(at)
    return ["\n".join(lines) for lines in pages]


def broken_layer(text):
    """A text layer that cannot be used: next to no letters, or many that stand for nothing."""
    letters = sum(map(str.isalpha, text))
    odd = len(re.findall("[\ufffd\ue000-\uf8ff\x00-\x08\x0e-\x1f]|\\(cid:", text.replace("\x02", "")))
    solid = len(re.sub(r"\s", "", text))
    return letters < 16 or 20 * odd > solid or 3 * letters < solid


def ocr_missing(languages):
    """What OCR lacks on this machine, with the remedy; None where nothing is."""
    if not shutil.which("tesseract"):
        return f"tesseract is missing (hint: {OCR_PACKAGES} " + " ".join(
            f"tesseract-ocr-{x.replace('_', '-')}" for x in languages.split("+")) + ")"
    there = subprocess.run(["tesseract", "--list-langs"], capture_output=True, text=True).stdout.split()
    lacking = [x for x in languages.split("+") if x not in there]
    return f"tesseract does not know {', '.join(lacking)} (hint: {OCR_PACKAGES}-{lacking[0].replace('_', '-')})" if lacking else None


def page_of_words(lines):
    """(text, mean confidence weighted by letters) of tesseract's word table: blocks, their paragraphs, their lines."""
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


def recognise(png, o):
    """Text of a picture, or a Broken. One thread: pages are recognised side by side instead."""
    run = subprocess.run(["tesseract", "-", "-", "-l", o.ocr_lang, "--psm", "3", "tsv"], input=png, capture_output=True,
                         env={**os.environ, "OMP_THREAD_LIMIT": "1"})
    if run.returncode:
        return Broken("broken_image", first_line(run.stderr.decode(errors="replace")))
    text, confidence = page_of_words(run.stdout.decode(errors="replace").split("\n"))
    if not text:
        return Broken("no_text", "no text in the picture")
    if confidence < o.threshold["ocr_confidence"]:
        return Broken("unsure_ocr", f"mean confidence {confidence:.0f}")
    return text


def pdf_pages(data, o):
    """Yields [text or Broken, is its text layer] for each page of a PDF, in order; OCR for those whose text layer is missing or broken."""
    import pypdfium2
    try:
        document = pypdfium2.PdfDocument(data)
        count = len(document)
    except pypdfium2.PdfiumError as why:
        if "password" in str(why).lower():
            raise Broken("encrypted", "it wants a password (hint: qpdf --decrypt --password=... IN OUT)") from None
        raise Broken("broken_pdf", first_line(why)) from None
    if not count:
        raise Broken("no_pages", "a PDF without pages")
    lacking = ocr_missing(o.ocr_lang)
    waiting = collections.deque()
    with ThreadPoolExecutor(o.ocr_threads) as pool:
        for number in range(count):
            try:
                page = document[number]
                layer = page.get_textpage()
                text = layer.get_text_bounded()
                layer.close()
                if broken_layer(text):
                    pictures = any(True for _ in page.get_objects(max_depth=2))
                    text = Broken("no_text", "an empty page") if not pictures else Broken("needs_ocr", lacking)
                    if pictures and not lacking:
                        scale = min(300 / 72, (4e7 / max(1, page.get_width() * page.get_height())) ** 0.5)
                        buffer = io.BytesIO()
                        page.render(scale=scale, grayscale=True).to_pil().save(buffer, "PPM")
                        text = pool.submit(recognise, buffer.getvalue(), o)
                page.close()
            except pypdfium2.PdfiumError as why:
                text = Broken("broken_page", first_line(why))
            waiting.append(text)
            while len(waiting) > 2 * o.ocr_threads:
                yield result_of(waiting.popleft())
        while waiting:
            yield result_of(waiting.popleft())


def result_of(text):
    """[text or Broken, whether it is a text layer, which is broken into lines]"""
    return [text.result(), False] if hasattr(text, "result") else [text, True]


def die_with_parent():
    """Linux: a worker whose parent was killed ends as well, so that nobody writes on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def in_child(work, *arguments):
    """The values that work(...) yields in a process of its own; Broken where it crashes or stands still."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            die_with_parent()
            os.close(reading)
            with os.fdopen(writing, "wb") as out:
                try:
                    for value in work(*arguments):
                        message = pickle.dumps(value)
                        out.write(struct.pack("<Q", len(message)) + message)
                        out.flush()
                except Broken as why:
                    message = pickle.dumps(("failed", why))
                    out.write(struct.pack("<Q", len(message)) + message)
                except MemoryError:
                    os._exit(3)
        finally:
            os._exit(0)
    os.close(writing)
    ended, at, buffer = False, 0, bytearray()
    try:
        while not ended:
            if not select.select([reading], [], [], SECONDS_A_PAGE)[0]:
                raise Broken("stuck", f"no page in {SECONDS_A_PAGE} s")
            piece = os.read(reading, 1 << 20)
            ended = not piece
            buffer += piece
            while len(buffer) - at >= 8 and len(buffer) - at >= 8 + (size := struct.unpack_from("<Q", buffer, at)[0]):
                value = pickle.loads(buffer[at + 8 : at + 8 + size])
                at += 8 + size
                if isinstance(value, tuple):
                    raise value[1]
                yield value
            del buffer[:at]
            at = 0
    finally:
        os.close(reading)
        if not ended:
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    if status:
        raise Broken("crashed", "its reader crashed")


def image_page(data, o):
    from PIL import Image
    lacking = ocr_missing(o.ocr_lang)
    if lacking:
        raise Broken("needs_ocr", lacking)
    Image.MAX_IMAGE_PIXELS = 200_000_000
    try:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(data)).convert("L").save(buffer, "PPM")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as why:
        raise Broken("broken_image", first_line(why)) from None
    text = recognise(buffer.getvalue(), o)
    if isinstance(text, Broken):
        raise text
    return [text]


def pages_of(kind, data, o):
    """The pages of one document held in memory; a page of it that cannot be read is a Broken."""
    if kind == "pdf":
        pages = list(in_child(pdf_pages, data, o))
        good = iter(drop_running_heads([text for text, _ in pages if not isinstance(text, Broken)]))
        return [text if isinstance(text, Broken) else unwrap(next(good)) if layer else next(good) for text, layer in pages]
    if kind == "image":
        return image_page(data, o)
    return {"text": text_pages, "markdown": markdown_pages, "html": html_pages}[kind](data)


def read_unit(unit, o):
    """(id, pages, licence) of every document of a unit; a Broken, with its id, for one that cannot be read."""
    path, name, kind, first, last = unit
    if not isinstance(kind, str):
        yield Broken(*kind).of(name)
        return
    try:
        if kind == "parquet":
            yield from parquet_documents(path, name, o.key, first, last)
            return
        with open_bytes(path) as f:
            if kind == "jsonl":
                yield from jsonl_documents(f, name, o.key, first, last)
            elif kind == "json":
                yield from json_documents(f, name, o.key)
            elif kind == "csv":
                yield from csv_documents(f, name, o.key, "\t" if suffixes_of(path)[0] == "tsv" else ",")
            elif kind == "tar":
                yield from tar_documents(f, name, o)
            else:
                most = LIMIT * (16 if kind == "pdf" else 1)
                data = f.read(most + 1)
                if not data:
                    raise Broken("empty", "an empty file")
                if len(data) > most:
                    raise Broken("too_large", f"over {most >> 20} MB (hint: split it)")
                yield name, pages_of(kind, data, o), ""
    except Broken as why:
        yield why.of(name)
    except UNREADABLE as why:  # a torn .gz, a file without rights
        yield Broken("broken_file", first_line(why)).of(name)
