#!/usr/bin/env python3
"""Texts out of Debian packages: novels, the Bible, fortunes, manual pages, help, code, as one document a line of JSONL.

    python3 data/debian_texts.py ROOT OUT          ROOT holds PACKAGE/usr/... (dpkg-deb -x); OUT gets en.jsonl, zh.jsonl,
                                                   de.jsonl and code.jsonl, held/ the same of what is not trained on
    python3 data/debian_texts.py ROOT OUT -more    and what else the study reads: an FAQ, two manuals, a game

A line is {"id": "austen/emma/12", "source": "austen", "lang": "en", "text": ...}. The id without its last part is the
*work* (a novel, a book of the Bible, a manual page): whole works are held out. In the text a
blank line ends an item (a fortune, a poem, a paragraph group); a newline ends a paragraph or a line of verse.

Only the standard library is used. The one idea that matters: every source is brought to a list of plain paragraphs
first (a parser per format), and then cleaned by the same few rules, of which the strongest is that a paragraph seen
before, anywhere, is boilerplate and is dropped.
"""
import bz2
import gettext
import gzip
import hashlib
import html.parser
import json
import lzma
import os
import re
import struct
import sys
import unicodedata
import zlib

# ---------------------------------------------------------------- cleaning: the rules all sources share

CJK = "\u2e80-\u2fdf\u3001-\u303f\u31c0-\u9fff\uf900-\ufaff\uff01-\uffee"  # ideographs and full-width punctuation
WIDE = CJK + "—…“”‘’"  # beside these no space is needed
BETWEEN_CJK = re.compile(f"(?<=[{CJK}]) +(?=[{WIDE}])|(?<=[{WIDE}]) +(?=[{CJK}])")
HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff]")
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060\ufeff\ufffd]")
SPACES = re.compile("[ \t\u00a0\u2000-\u200a\u202f\u205f\u3000]+")


def clean(text):
    """NFC, no control characters, single spaces, none at line ends, at most one blank line."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = SPACES.sub(" ", CONTROL.sub("", text))
    text = BETWEEN_CJK.sub("", text)
    text = "\n".join(line.strip() for line in text.split("\n"))
    return re.sub("\n{3,}", "\n\n", text).strip()


def join_wrapped(lines):
    """Lines broken by a formatter back into one paragraph: no space where ideographs meet."""
    out = ""
    for line in (x.strip() for x in lines):
        if out and line and not (re.match(f"[{WIDE}]", out[-1]) and re.match(f"[{WIDE}]", line[0])):
            out += " "
        out += line
    return out


def is_chinese(paragraph):
    """Prose rather than options, file names or code: at least six ideographs, and more of them than Latin letters."""
    han = len(HAN.findall(paragraph))
    return han >= 6 and han > len(re.findall(r"[A-Za-z0-9_/\\|=<>{}$#-]", paragraph))


class Seen:
    """Remembers paragraphs by their letters alone: what comes again is boilerplate or a quotation."""

    def __init__(self):
        self.keys = set()
        self.dropped = 0

    def fresh(self, paragraph):
        key = hash(re.sub(r"[\W_]+", "", paragraph).lower())
        if key in self.keys:
            self.dropped += 1
            return False
        self.keys.add(key)
        return True


# ---------------------------------------------------------------- R: lazy-load data bases (.rdx index, .rdb blocks)

def r_unpack(block):
    """Decompresses one block: u32 big-endian length, then zlib, or a letter (2 bzip2, Z xz, 0 plain) and its data."""
    (size,) = struct.unpack_from(">I", block)
    kind, body = block[4:5], block[5:]
    if kind == b"2":
        data = bz2.decompress(body)
    elif kind == b"Z":
        data = lzma.decompress(body, format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 6}])
    elif kind == b"0":
        data = body
    else:
        data = zlib.decompress(block[4:])
    if len(data) != size:
        raise ValueError(f"R block: {len(data)} bytes, its header says {size}")
    return data


class RReader:
    """R's binary serialisation (XDR, versions 2 and 3), as far as lists, vectors and strings go."""

    def __init__(self, data):
        self.data, self.at, self.refs = data, 0, []
        if data[:2] != b"X\n":
            raise ValueError("R data: expected the XDR header 'X\\n'")
        self.at = 2
        version = self.ints(3)[0]
        if version == 3:
            self.take(self.ints(1)[0])  # native encoding
        elif version != 2:
            raise ValueError(f"R data: version {version}, expected 2 or 3")

    def take(self, n):
        if n < 0 or self.at + n > len(self.data):
            raise ValueError("R data: cut short")
        self.at += n
        return self.data[self.at - n : self.at]

    def ints(self, n):
        return struct.unpack(f">{n}i", self.take(4 * n))

    def item(self):
        """The next value: str, list (vectors; named ones become dict), or None."""
        (flags,) = self.ints(1)
        kind = flags & 255
        if kind in (254, 242, 253):  # NULL, empty environment, global environment
            return None
        if kind == 255:
            index = flags >> 8 or self.ints(1)[0]
            return self.refs[index - 1]
        if kind == 1:  # symbol
            self.refs.append(self.item())
            return self.refs[-1]
        if kind == 2:  # pair list, read to its end
            pairs = {}
            while kind == 2:
                attributes = self.item() if flags & 0x200 else None
                name = self.item() if flags & 0x400 else attributes
                pairs[name] = self.item()
                (flags,) = self.ints(1)
                kind = flags & 255
            return pairs
        if kind == 9:  # characters
            (n,) = self.ints(1)
            return None if n < 0 else self.take(n).decode("latin-1" if flags & 0x4000 else "utf-8", "replace")
        if kind in (16, 19):  # strings, list
            values = [self.item() for _ in range(self.ints(1)[0])]
        elif kind in (10, 13):  # logical, integer
            values = list(self.ints(self.ints(1)[0]))
        elif kind == 14:  # double
            n = self.ints(1)[0]
            values = list(struct.unpack(f">{n}d", self.take(8 * n)))
        else:
            raise ValueError(f"R data: type {kind} is not read here")
        names = (self.item() or {}).get("names") if flags & 0x200 else None
        return dict(zip(names, values)) if names else values


def r_database(stem):
    """{name: value} of the data base STEM.rdx + STEM.rdb."""
    with open(stem + ".rdx", "rb") as f:
        raw = f.read()
    index = RReader(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else zlib.decompress(raw)).item()
    with open(stem + ".rdb", "rb") as f:
        blocks = f.read()
    return {name: RReader(r_unpack(blocks[at : at + n])).item() for name, (at, n) in index["variables"].items()}


def austen_chapters(lines):
    """The lines of a novel to chapters of paragraphs; title page, volume marks and THE END are left out."""
    chapters, paragraph = [], []
    for line in list(lines) + ["", "CHAPTER"]:
        line = line.strip()
        heading = re.match(r"(?i)(chapter|volume|the end|finis|end of)\b", line) and len(line) < 30
        if line and not heading:
            paragraph.append(line)
            continue
        if paragraph and chapters:
            chapters[-1].append(join_wrapped(paragraph).replace("_", ""))
        paragraph = []
        if heading and line.lower().startswith("chapter"):
            chapters.append([])
    return [c for c in chapters if c]


# ---------------------------------------------------------------- SWORD: compressed modules with OSIS mark-up

def sword_text(stem):
    """All of a zText testament: STEM.bzs holds (offset, compressed, plain size) of each zlib block in STEM.bzz."""
    with open(stem + ".bzs", "rb") as f:
        index = f.read()
    with open(stem + ".bzz", "rb") as f:
        blocks = f.read()
    out = []
    for at in range(0, len(index) - 11, 12):
        offset, packed, size = struct.unpack_from("<III", index, at)
        data = zlib.decompress(blocks[offset : offset + packed])
        if len(data) != size:
            raise ValueError(f"{stem}.bzz: block {at // 12} has {len(data)} bytes, its index says {size}")
        out.append(data)
    return b"".join(out).decode("utf-8", "replace")


def osis_chapters(markup):
    """(book, chapter number, paragraphs) of every chapter; notes, titles, word numbers and verse marks are left out."""
    for name, body in re.findall(r'<chapter [^>]*\bsID="([^"]+)"[^>]*/>(.*?)(?=<chapter |\Z)', markup, re.S):
        # A note stands after a whole word; the space behind that word is sometimes missing.
        body = re.sub(r"<note\b.*?</note>", "\x00", body, flags=re.S)
        body = re.sub(r"<title\b.*?</title>", "", body, flags=re.S)
        body = re.sub(r'<(?:div|lg|l)\b[^>]*\bsID="[^"]*"[^>]*>', lambda m: "" if "x-milestone" in m[0] else "\n", body)
        body = html.unescape(re.sub(r"<[^>]*>", "", body.replace("\n ", "\n")))
        body = re.sub(r"\x00+(?=[\w“‘(])", " ", body).replace("\x00", "")
        book, _, number = name.rpartition(".")
        yield book, int(number), [p for p in clean(body).split("\n") if p]


# ---------------------------------------------------------------- fortune files

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# Categories of drawings, and of jokes about peoples, sexes and drugs: not what a demo should show.
FORTUNES_LEFT_OUT = {"ascii-art", "drugs", "ethnic", "men-women", "translate-me", "zippy"}
RUDE = re.compile(r"(?i)\b(?:fuck|shit|cunt|nigg|bitch|rape|whore|faggot|piss|penis|vagina|asshole|bastard)")


def fortune_items(text):
    """The items of a fortune file, without overstrikes and colours."""
    text = re.sub(".\x08", "", ANSI.sub("", text.replace("\u00a0", " ")))
    return [item.strip("\n") for item in re.split(r"(?m)^%.*\n?", text) if item.strip()]


def reflow_fortune(item, letters="A-Za-z"):
    """Wrapped prose to paragraphs; verse, dialogues and "-- author" keep their lines. None for drawings, tables and
    chats."""
    plain = len(re.findall(rf"[{letters} ,.'\n]", item))
    if RUDE.search(item) or re.search(r"(?m)^\s*<\S+>", item) or plain < 0.9 * len(re.sub("[ \t]+", " ", item)):
        return None
    lines = [x.rstrip().expandtabs(8) for x in item.split("\n")]
    if sum(bool(re.search(r"\S {4,}\S", x)) for x in lines) >= 3:
        return None
    paragraphs, before = [], ""
    for line in lines:
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        starts = re.match(r"--|\* |- |[<\[(]|\d+[.)]|[A-Z]\w*:\s", text) or indent > len(before) - len(before.lstrip())
        if before.strip() and text and len(before) >= 58 and not starts:
            paragraphs[-1].append(text)
        elif text:
            paragraphs.append([text])
        before = line
    text = "\n".join(re.sub("^-- *-* *", "-- ", join_wrapped(p)) for p in paragraphs)
    return re.sub(r"[<(]?[\w.+-]+@[\w.-]+\.\w+[>)]?", "", text)  # no one's address


def debian_reference(item):
    """Prose of one section of the Debian reference as the fortune file prints it: wrapped, indented, with tables."""
    for paragraph in re.split(r"\n[ \t]*\n|\n(?=\s*[*+] )", item):
        lines = [x for x in paragraph.split("\n") if not re.search("[\u2500-\u257f]|^ *[$#] ", x)]
        text = re.sub(r"^[*+] |^[0-9.]+ ", "", clean(join_wrapped(lines)))
        if is_chinese(text) and re.search("[。，：；]", text) and not text.startswith("表"):
            yield text


def chinese_fortune(item):
    """(work, text) of one Chinese fortune: the attribution names the work and is taken off."""
    m = re.search(r"\n *--(.*)\Z", item)
    body, by = (item[: m.start()], m[1]) if m else (item, "")
    if "参考手册" in by:
        chapter = re.match(r"\s*(\d+)\.", item)
        return f"debian-reference-{chapter[1] if chapter else 0}", "\n".join(debian_reference(body))
    if "参考卡片" in by or re.search("[\u2500-\u257f]", item):
        return "", ""
    title = re.match(r"\s*《詩經([^》]*)》", item)
    if title:
        body = f"《{title[1].split('‧')[-1].strip()}》" + item[title.end() :].replace("\n\n", "\n")
        return "shijing", body
    for name, work in (("论语", "lunyu"), ("谚语", "proverbs"), ("菜根谭", "caigentan"), ("增广贤文", "zengguang"),
                       ("道德经", "daodejing")):
        if name in by:
            return work, body
    return "various", re.sub(r"\n\s*\n", "\n", body)


def poem(item):
    """Title and author of the Tang and Song collections to one line, then the verses."""
    item = re.sub(r"(?m)^\s*题目:\s*", "", item)
    item = re.sub(r"》(.*)\n\s*作者[：:]\s*([^（\n]*).*\n", r"》\1 \2\n", item, count=1)
    return re.sub(r"\n\s*\n", "\n", item)


# ---------------------------------------------------------------- manual pages (troff, the man macros)

MAN_SKIP = re.compile(r"(?i)name|synopsis|see also|author|copyright|bugs|report|availab|histor|version|resource"
                      "|standard|conform|名|总览|概述|概要|大纲|摘要|参见|参看|另见|参考|作者|版权|版 权|版本|维护|更新|跋|译|报告|历史"
                      "|标准|兼容|可用性|语法")
MAN_CHARS = {"em": "—", "en": "–", "lq": "“", "rq": "”", "oq": "‘", "cq": "’", "aq": "'", "dq": '"', "bu": "•",
             "co": "©", "mu": "×", "->": "→", "<-": "←", "rs": "\\", "ti": "~", "ha": "^", "ga": "`", "hy": "-",
             "mi": "-", "pl": "+", "eq": "=", "at": "@", "sh": "#", "Do": "$", "tm": "™", "rg": "®", "de": "°",
             "+-": "±", "bv": "|", "or": "|"}
MAN_PLAIN = {"e": "\\", "~": " ", "0": " ", **{c: c for c in "- '`\\."}}  # escapes of one character
MAN_ESCAPE = re.compile(r"""\\(?:["\#].*            # comment
    |f(?:\(..|\[[^]]*\]|.)                           # font
    |s[+-]?(?:\(\d\d|\[\d+\]|'[^']*'|[1-3]\d|\d)     # size
    |[hvwlLbDoXZ]'[^']*'                             # motion, width, line
    |[nk][+-]?(?:\(..|\[[^]]*\]|.)|m\[[^]]*\]        # register, colour
    |(?:\*)?(?:\((..)|\[([^]]*)\])|\*.               # special characters and strings
    |(.))""", re.X)
MAN_BREAK = {"PP", "LP", "P", "br", "sp", "RS", "RE", "IP", "HP", "TP", "SH", "SS", "nf", "fi", "EX", "EE", "TH", "PD",
             "in", "ti", "TQ", "ne", "bp", "ce", "TS", "TE", "UN"}


def man_unescape(text):
    def one(m):
        name = m[1] or m[2]
        if name:
            return MAN_CHARS.get(name, "")
        return MAN_PLAIN.get(m[3], "")
    return MAN_ESCAPE.sub(one, text)


def man_arguments(rest):
    """The arguments of a macro line: words, or "quoted, with a doubled "" for a quote"."""
    return [inner.replace('""', '"') if quoted else word
            for quoted, inner, word in re.findall(r'("((?:[^"]|"")*)"?)|(\S+)', rest)]


def man_paragraphs(source):
    """Paragraphs of running text of a manual page: no headings, tags, tables, examples, synopsis, authors."""
    if re.search(r"(?m)^\.(?:Dd|Sh|so)\b", source):  # mdoc pages are few; .so pages are only links
        return
    paragraph, skip_section, until, tag = [], False, None, False
    source = re.sub(r"\\\n", "", source)
    for line in source.split("\n") + [".PP"]:
        if until:
            until = None if re.match(until, line) else until
            continue
        m = re.match(r"[.'][ \t]*([A-Za-z0-9\\\"]{0,3})[ \t]*(.*)", line)
        if not m:
            if line.strip() and tag:
                tag = False  # the term that the next paragraph explains
            elif line.strip() and not skip_section:
                paragraph.append(html.unescape(man_unescape(line)))
            elif not line.strip() and paragraph:
                yield join_wrapped(paragraph)
                paragraph = []
            continue
        macro, rest = m[1], m[2]
        if macro in ("B", "I", "SM", "SB", "BR", "RB", "BI", "IB", "IR", "RI"):
            arguments = [man_unescape(a) for a in man_arguments(rest)]
            text = ("" if len(macro) == 2 and macro not in ("SM", "SB") else " ").join(arguments)
            if tag:
                tag = False
            elif text and not skip_section:
                paragraph.append(text)
            continue
        if macro in ("de", "ig", "am"):
            until = r"\.\."
        elif macro in ("if", "ie", "el") and "\\{" in rest and "\\}" not in rest:
            until = r".*\\\}"
        elif macro in ("nf", "EX", "Vb"):
            until = r"[.'][ \t]*(?:fi|EE|Ve|SH|SS|PP|TP)\b"
        elif macro in ("TS", "EQ", "PS"):
            until = r"\.(?:TE|EN|PE)"
        if macro in ("SH", "SS"):
            heading = rest.strip() or "?"
            if macro == "SH":
                skip_section = bool(MAN_SKIP.search(man_unescape(heading)))
        if macro in MAN_BREAK or macro in ("Vb", "EX"):
            if paragraph:
                yield join_wrapped(paragraph)
            paragraph, tag = [], macro in ("TP", "TQ")


# ---------------------------------------------------------------- help pages (HTML)

class HelpParser(html.parser.HTMLParser):
    """Paragraphs (<p>) of the help text proper: without headings, code, navigation and "how to get there" boxes."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.paragraphs, self.stack, self.text = [], [], None

    VOID = {"br", "img", "meta", "link", "input", "hr", "col", "base"}
    SKIP = {"pre", "script", "style", "footer", "code", "nav"}
    SKIP_CLASS = re.compile(r"howtoget|code|bug|related|iconcell")

    def handle_starttag(self, tag, attributes):
        if tag == "br" and self.text is not None:
            self.text.append("\n")
        if tag in self.VOID:
            return
        attributes = dict(attributes)
        kind = attributes.get("class") or ""
        if tag == "p":
            self.close_p()
        mark = "skip" if tag in self.SKIP or self.SKIP_CLASS.search(kind) else ""
        if attributes.get("id") == "DisplayArea":
            mark = "display"
        elif "switch" in kind:
            mark = "switch"
        elif self.stack and self.stack[-1][1] == "switch":
            # Alternatives for systems or programs: the first that is not the Mac's is the text, the others are not.
            mark = "skip" if kind == "MAC" else ""
            if not mark:
                self.stack[-1] = (self.stack[-1][0], "switched")
        elif self.stack and self.stack[-1][1] == "switched":
            mark = "skip"
        self.stack.append((tag, mark))
        marks = [m for _, m in self.stack]
        if tag == "p" and "display" in marks and "skip" not in marks:
            self.text = []

    def close_p(self):
        if self.text is not None:
            self.paragraphs.append("".join(self.text))
        self.text = None

    def handle_endtag(self, tag):
        if tag == "p":
            self.close_p()
        for i in range(len(self.stack) - 1, -1, -1):
            if self.stack[i][0] == tag:
                del self.stack[i:]
                break

    def handle_data(self, data):
        if self.text is not None and not any(mark == "skip" for _, mark in self.stack):
            self.text.append(data)


def help_paragraphs(page):
    parser = HelpParser()
    parser.feed(page)
    parser.close()
    for text in parser.paragraphs:
        for line in re.sub(r"[ \t]*\n[ \t]*\n[ \t]*", "\n\n", text).split("\n\n"):
            yield join_wrapped(line.split("\n"))


# ---------------------------------------------------------------- other web pages, translations of programs

def web_paragraphs(page):
    """The paragraphs (<p>) of sentences, wherever they stand; they are not nested."""
    for markup in re.findall(r"<p\b[^>]*>(.*?)</p>", page, re.S | re.I):
        text = clean(re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", "", markup))))
        if len(text) >= 40 and text[-1] in ".?!:)\"":
            yield text


def web_pages(package, source, top):
    def pages(root):
        folder = f"{root}/{package}/usr/share/doc/{top}"
        for path in walk(folder, ".html"):
            name = os.path.relpath(path, folder)[:-5].replace("/", ".")
            yield f"{source}/{name}/1", [[p] for p in web_paragraphs(read(path))]
    return pages


def game(root, together=200):
    """What a game says in Chinese, in the order of the English: sentences without placeholders and mark-up."""
    with open(f"{root}/cataclysm-dda-data/usr/share/locale/zh_CN/LC_MESSAGES/cataclysm-dda.mo", "rb") as f:
        catalog = gettext.GNUTranslations(f)._catalog
    said = [text for _, text in sorted((str(key), text) for key, text in catalog.items() if key)]
    said = [clean(text) for text in said if len(text) >= 20 and not re.search("[%<>{}]", text) and is_chinese(text)]
    for at in range(0, len(said), together):
        yield f"game/{at // together + 1}/1", [[text] for text in said[at : at + together]]


# ---------------------------------------------------------------- code

def code_blocks(source):
    """The blocks of a program between blank lines, indented as they were. Lines that are not plain ASCII are left out,
    and so are long ones, which are tables of numbers."""
    lines = [line.rstrip().expandtabs(4) for line in CONTROL.sub("", source.replace("\r\n", "\n")).split("\n")]
    plain = "\n".join(line for line in lines if line.isascii() and len(line) <= 120)
    return [block for block in re.split("\n{2,}", plain.strip("\n")) if block.strip()]


# ---------------------------------------------------------------- the packages

def read(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as f:
        return f.read().decode("utf-8", "replace")


def walk(top, ending):
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(folder, name)
            if path.endswith(ending) and not os.path.islink(path):
                yield path


def novels(root):
    for novel, lines in r_database(f"{root}/r-cran-janeaustenr/usr/lib/R/site-library/janeaustenr/data/Rdata").items():
        for number, chapter in enumerate(austen_chapters(lines), 1):
            yield f"austen/{novel}/{number}", [chapter]


def bible(root):
    for testament in ("ot", "nt"):
        (index,) = walk(f"{root}/sword-text-web/usr/share/sword/modules", f"/{testament}.bzs")
        markup = sword_text(index[: -len(".bzs")])
        for book, number, paragraphs in osis_chapters(markup):
            yield f"bible/{book}/{number}", [paragraphs]


def fortunes(root):
    folder = f"{root}/fortunes/usr/share/games/fortunes"
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if "." not in name and name not in FORTUNES_LEFT_OUT and not os.path.islink(path):
            items = (reflow_fortune(item) for item in fortune_items(read(path)))
            yield f"fortunes/{name}/1", [[item] for item in items if item]


def chinese_classics(root):
    folder = f"{root}/fortunes-zh/usr/share/games/fortunes"
    for name in ("tang300", "song100"):
        yield f"classics/{name}/1", [[poem(item)] for item in fortune_items(read(f"{folder}/{name}"))]
    works = {}
    for item in fortune_items(read(f"{folder}/chinese")):
        work, text = chinese_fortune(item)
        if HAN.search(text):
            works.setdefault(work, []).append([text])
    for work in sorted(works):
        source = "debian-reference" if work.startswith("debian-") else "classics"
        yield f"{source}/{work}/1", works[work]


def chinese_manpages(root):
    top = f"{root}/manpages-zh/usr/share/man/zh_CN"
    for path in walk(top, ".gz"):
        name = os.path.basename(path)[:-3]
        yield f"manpages/{name}/1", [[p for p in map(clean, man_paragraphs(read(path))) if is_chinese(p)]]


def chinese_help(root):
    top = f"{root}/libreoffice-help-zh-cn/usr/share/libreoffice/help/zh-CN/text"
    for path in walk(top, ".html"):
        name = os.path.relpath(path, top)[:-5].replace("/", ".")
        yield f"help/{name}/1", [[p for p in map(clean, help_paragraphs(read(path))) if is_chinese(p)]]


def german_quotations(root, together=100):
    """Quotations in the order of who said it, and proverbs; the other files are jokes."""
    folder = f"{root}/fortunes-de/usr/share/games/fortunes/de"
    for name in ("sprichworte", "zitate"):
        items = (reflow_fortune(item, "A-Za-zÄÖÜäöüß") for item in fortune_items(read(f"{folder}/{name}")))
        items = [[item] for item in items if item]
        for at in range(0, len(items), together):
            yield f"german/{name}-{at // together + 1}/1", items[at : at + together]


def code(package, top, ending, largest=130000):
    """Files of programs; there is enough in those that are not very long."""
    def files(root):
        for path in walk(f"{root}/{package}/usr/{top}", ending):
            if os.path.getsize(path) <= largest:
                yield f"code/{os.path.basename(path)}/1", [[block] for block in code_blocks(read(path))]
    return files


SOURCES = {
    "en": (("r-cran-janeaustenr", novels), ("sword-text-web", bible), ("fortunes", fortunes)),
    "zh": (("fortunes-zh", chinese_classics), ("libreoffice-help-zh-cn", chinese_help),
           ("manpages-zh", chinese_manpages)),
    "de": (("fortunes-de", german_quotations),),
    "code": (("python3-jinja2", code("python3-jinja2", "lib/python3/dist-packages/jinja2", ".py")),
             ("libstb-dev", code("libstb-dev", "include/stb", ".h"))),
}

MORE = {
    "en": (("anarchism", web_pages("anarchism", "faq", "anarchism/html")),
           ("postgresql-doc-15", web_pages("postgresql-doc-15", "postgresql", "postgresql-doc-15/html")),
           ("python3.11-doc", web_pages("python3.11-doc", "python", "python3.11/html"))),
    "zh": (("cataclysm-dda-data", game),),
}

HELD_OUT = {  # works by name; of sources that are not named here, one work in HELD_OUT_ONE_IN by hash
    "austen/northangerabbey", "bible/Ruth", "bible/Eccl", "bible/Jonah", "bible/Jas", "bible/Phil", "bible/1John",
    "fortunes/wisdom", "fortunes/humorists", "classics/daodejing", "classics/song100",
    "debian-reference/debian-reference-5", "debian-reference/debian-reference-11",
}
HELD_OUT_ONE_IN = 12


def is_held_out(document):
    work = document["id"].rsplit("/", 1)[0]
    if document["source"] in {name.split("/")[0] for name in HELD_OUT}:
        return work in HELD_OUT
    return int(hashlib.sha256(work.encode()).hexdigest(), 16) % HELD_OUT_ONE_IN == 0


def documents(root, lang, more=False):
    """Cleaned documents of a language; a paragraph of eight letters and more is kept where it comes first."""
    seen, tidy = Seen(), (lambda text: text) if lang == "code" else clean
    for package, source in SOURCES[lang] + (MORE.get(lang, ()) if more else ()):
        if not os.path.isdir(f"{root}/{package}"):
            print(f"{lang}: {package} is not there: its texts are left out", file=sys.stderr)
            continue
        for name, items in source(root):
            kept = []
            for item in items:
                paragraphs = [p for p in (tidy(p) for p in item) if p and (len(p) < 8 or seen.fresh(p))]
                if paragraphs:
                    kept.append("\n".join(paragraphs))
            if kept:
                yield {"id": name, "source": name.split("/")[0], "lang": lang, "text": "\n\n".join(kept)}
    print(f"{lang}: {seen.dropped} repeated paragraphs left out", file=sys.stderr)


def main():
    more = sys.argv[3:] == ["-more"]
    if len(sys.argv) != 3 + more:
        sys.exit(__doc__)
    root, out = sys.argv[1:3]
    os.makedirs(f"{out}/held", exist_ok=True)
    for lang in SOURCES:
        totals, paths = {}, [f"{out}/{lang}.jsonl", f"{out}/held/{lang}.jsonl"]
        with open(paths[0] + ".new", "w", encoding="utf-8") as f, open(paths[1] + ".new", "w", encoding="utf-8") as held:
            for document in documents(root, lang, more):
                (held if is_held_out(document) else f).write(json.dumps(document, ensure_ascii=False) + "\n")
                count = totals.setdefault(document["source"], [0, 0])
                count[0] += 1
                count[1] += len(document["text"])
        for path in paths:
            os.replace(path + ".new", path)
        for source, (n, characters) in totals.items():
            print(f"  {lang} {source}: {n} documents, {characters:,} characters", file=sys.stderr)


if __name__ == "__main__":
    main()
