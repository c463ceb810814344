#!/usr/bin/env python3
"""The sources of the demo's corpus in data/: each format on a small synthetic input, what is held out, and, where data/demo has
been made, that nothing of the held-out pages is left in the training pages."""
import gzip
import io
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
os.chdir(ROOT)
sys.path.insert(0, "data")
import debian_texts as texts  # noqa: E402
import made_up_texts as made_up  # noqa: E402

passed = failed = 0


def case(name, good, why=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    print(f"{'ok  ' if good else 'FAIL'} {name}{'' if good else f': {why}'}", flush=True)
    return good


def equal(name, found, expected):
    case(name, found == expected, f"expected {expected!r}, found {found!r}")


def raises(name, kind, function, *arguments):
    try:
        found = function(*arguments)
    except kind:
        return case(name, True)
    case(name, False, f"expected {kind.__name__}, found {found!r}")


# ---- R ----
def r_string(s, flags=0x40009):
    data = s.encode("latin-1" if flags & 0x4000 else "utf-8")
    return struct.pack(">ii", flags, len(data)) + data


def r_strings(*strings):
    return struct.pack(">ii", 16, len(strings)) + b"".join(map(r_string, strings))


def r_named_list(names, items):
    symbol = struct.pack(">i", 1) + r_string("names")
    return (struct.pack(">ii", 19 | 0x200, len(items)) + b"".join(items) + struct.pack(">i", 2 | 0x400) + symbol
            + r_strings(*names) + struct.pack(">i", 254))


R2 = b"X\n" + struct.pack(">iii", 2, 0x30000, 0x20300)
R3 = b"X\n" + struct.pack(">iii", 3, 0x40000, 0x30500) + struct.pack(">i", 5) + b"UTF-8"


def r_block(data):
    return struct.pack(">I", len(data)) + zlib.compress(data)


def test_r():
    equal("R: strings, version 2", texts.RReader(R2 + r_strings("one", "zwölf")).item(), ["one", "zwölf"])
    equal("R: strings, version 3", texts.RReader(R3 + r_strings("x")).item(), ["x"])
    equal("R: latin-1 and NA", texts.RReader(R2 + struct.pack(">ii", 16, 2) + r_string("é", 0x4009) +
                                            struct.pack(">ii", 9, -1)).item(), ["é", None])
    blocks = r_block(R2 + r_strings("first")) + r_block(R3 + r_strings("second", ""))
    cut = len(r_block(R2 + r_strings("first")))
    places = [struct.pack(">iiii", 13, 2, *place) for place in ((0, cut), (cut, len(blocks) - cut))]
    index = R3 + r_named_list(["variables"], [r_named_list(["a", "b"], places)])
    folder = tempfile.mkdtemp()
    with open(f"{folder}/x.rdb", "wb") as f:
        f.write(blocks)
    with gzip.open(f"{folder}/x.rdx", "wb") as f:
        f.write(index)
    equal("R: a lazy-load data base", texts.r_database(f"{folder}/x"), {"a": ["first"], "b": ["second", ""]})
    shutil.rmtree(folder)
    raises("R: a block of another length", ValueError, texts.r_unpack, struct.pack(">I", 9) + zlib.compress(b"1234"))
    raises("R: cut short", ValueError, texts.RReader((R2 + r_strings("abcdef"))[:-3]).item)
    raises("R: not serialised data", ValueError, texts.RReader, b"RDX3\n")
    novel = ["TITLE", "", "by Someone", "", "CHAPTER 1", "", "It _was_ so,", "and so.", "", "New.", "", "VOLUME II", "",
             "CHAPTER 2", "", "Second", "", "THE END"]
    equal("novel to chapters", texts.austen_chapters(novel), [["It was so, and so.", "New."], ["Second"]])


# ---- SWORD ----
def test_sword():
    folder = tempfile.mkdtemp()
    parts = [b'<chapter osisID="A.1" sID="A.1"/>One', b"two<chapter eID=\"A.1\"/>"]
    packed = [zlib.compress(p) for p in parts]
    with open(f"{folder}/ot.bzz", "wb") as f:
        f.write(b"".join(packed))
    with open(f"{folder}/ot.bzs", "wb") as f:
        f.write(struct.pack("<III", 0, len(packed[0]), len(parts[0])) +
                struct.pack("<III", len(packed[0]), len(packed[1]), len(parts[1])))
    equal("SWORD: blocks in a row", texts.sword_text(f"{folder}/ot"), b"".join(parts).decode())
    with open(f"{folder}/ot.bzs", "wb") as f:
        f.write(struct.pack("<III", 0, len(packed[0]), 1))
    raises("SWORD: a size that is not true", ValueError, texts.sword_text, f"{folder}/ot")
    shutil.rmtree(folder)
    markup = ('<title>Book</title><div sID="g1" type="x-p"/><chapter n="1" osisID="Tob.1" sID="Tob.1"/>'
              '<w lemma="x">Now</w> <w>Christ</w>,<note placement="foot"><reference>1:1 </reference>a note</note>'
              '<w>the</w> son.<div eID="g1" type="x-p"/><div type="x-milestone" subType="x-preverse" sID="pv1"/>'
              '<div sID="g2" type="x-p"/>Joy<note>n</note> &amp; “peace”<note>n</note>. '
              '<lg sID="g3"/><l level="1" sID="g4"/>A line,<l eID="g4" level="1"/>'
              '<l level="2" sID="g5"/>another.<chapter eID="Tob.1"/><title>lost</title>between'
              '<chapter n="2" osisID="Tob.2" sID="Tob.2"/>Second.<chapter eID="Tob.2"/>')
    equal("OSIS: paragraphs, verse lines, no notes, no titles", list(texts.osis_chapters(markup)),
          [("Tob", 1, ["Now Christ, the son.", "Joy & “peace”.", "A line,", "another."]), ("Tob", 2, ["Second."])])


# ---- fortunes ----
def test_fortunes():
    equal("fortunes: items, colours, overstrikes",
          texts.fortune_items("\x1b[32mone\x1b[m\n%\nt_\x08wo\nlines\n%\n%\n"), ["one", "two\nlines"])
    wrapped = ("A sad spectacle.  If they be inhabited, what a scope for misery and\nfolly here.\n"
               "\t\t-- Thomas Carlyle, looking at the stars")
    equal("fortunes: wrapped prose is joined, the author keeps a line", texts.clean(texts.reflow_fortune(wrapped)),
          "A sad spectacle. If they be inhabited, what a scope for misery and folly here.\n"
          "-- Thomas Carlyle, looking at the stars")
    verse = "A little word of doubtful number,\nA foe to rest and peaceful slumber."
    equal("fortunes: verse keeps its lines", texts.reflow_fortune(verse), verse)
    equal("fortunes: no drawings", texts.reflow_fortune(" /\\_/\\\n( o.o )\n > ^ <\n|_|\n"), None)
    signed = "Read the source, says he who wrote it in a night.\n\t-- A. N. <a.n@x.org>"
    equal("fortunes: no addresses", texts.clean(texts.reflow_fortune(signed)),
          "Read the source, says he who wrote it in a night.\n-- A. N.")
    equal("Chinese fortunes: the work, without the attribution",
          texts.chinese_fortune("学而时习之，不亦说乎？\n    --《论语》"), ("lunyu", "学而时习之，不亦说乎？"))
    work, text = texts.chinese_fortune("1.1.2. 标题\n\n    如果你安装了显示管理器\n    的系统，就可以登录。\n\n    # apt-get install x\n\n"
                                       "    ┌──┐\n    │表│\n\n   -- 青木修, Debian 参考手册（版本 2.73）")
    equal("Debian reference: prose joined without spaces, no commands, no tables", (work, text),
          ("debian-reference-1", "如果你安装了显示管理器的系统，就可以登录。"))
    equal("poem: title and author on a line", texts.poem("题目:《塞上》\n作者:柳开（９４６－９９９，字仲涂）\n鸣骹直上。\n\n碧眼。"),
          "《塞上》 柳开\n鸣骹直上。\n碧眼。")


# ---- manual pages and help ----
MAN = r'''.\" a comment
.TH LS 1 2022 "GNU"
.SH 名称
ls \- 列出目录内容的命令行工具
.SH 描述
列出指定\(lq文件\(rq（默认为
.BR 当前目录 ", " x (1)
）的信息。\fB\-\-all\fP 也一样。
.PP
第二段\s-1文字\s0在这里结束了。
.nf
代码不应当出现在这里啊
.fi
.TP
\fB\-a\fP
不要忽略以点号起始的条目。
.TS
表格 中的 文字 不要出现
.TE
.if n \{\
条件中的文字不要出现
.\}
.SH "参见 (SEE ALSO)"
这一段是参见，应当被忽略掉。
'''
HELP = '''<html><body><header><p>导航栏文字不要出现</p></header><div id="DisplayArea"><h1>标题</h1>
<p class="paragraph">选择「<span class="switchinline"><span class="MAC" hidden="true">偏好设置</span><span hidden="true">工具
 - 选项</span></span>」 &amp; 确定<br>即可</p><div class="howtoget"><p>访问此命令</p></div>
<p id="p1" class="code">代码</p><ul><li><p>列表项目</li></ul><pre><p>也是代码</p></pre></div><footer><p>页脚</p></footer>
</body></html>'''


def test_markup():
    equal("man: paragraphs of running text only", [texts.clean(p) for p in texts.man_paragraphs(MAN)],
          ["列出指定“文件”（默认为当前目录, x(1) ）的信息。--all 也一样。", "第二段文字在这里结束了。", "不要忽略以点号起始的条目。"])
    equal("man: links and mdoc pages have no text", list(texts.man_paragraphs(".so man1/x.1\n")), [])
    equal("man: an escape takes nothing else along", texts.man_unescape(r"a\fBb\f[I]c\fPd\(em\[bu]\e\&e\|f\*(xxg"),
          "abcd—•\\efg")
    equal("help: text proper, first alternative, no boxes, no code",
          [texts.clean(p) for p in texts.help_paragraphs(HELP)], ["选择「工具 - 选项」 & 确定即可", "列表项目"])


def catalog(pairs):
    """A .mo file: gettext's, with two tables of (length, offset)."""
    n, at, tables, strings = len(pairs), 28 + 16 * len(pairs), [], b""
    for column in (0, 1):
        for pair in pairs:
            text = pair[column].encode()
            tables.append(struct.pack("<2I", len(text), at + len(strings)))
            strings += text + b"\0"
    return struct.pack("<7I", 0x950412DE, 0, n, 28, 28 + 8 * n, 0, 0) + b"".join(tables) + strings


def test_more():
    page = ("<nav><p>Home</p></nav><P class=x>A long paragraph &amp; more,\nwith <b>mark-up</b> in it.</P>"
            "<p>a list of names without an end and without a full stop</p><pre>code that is no paragraph of the page.</pre>")
    equal("web: paragraphs of sentences, without mark-up", list(texts.web_paragraphs(page)),
          ["A long paragraph & more, with mark-up in it."])
    with tempfile.TemporaryDirectory() as root:
        folder = f"{root}/cataclysm-dda-data/usr/share/locale/zh_CN/LC_MESSAGES"
        os.makedirs(folder)
        said = "这是一个很长的句子，讲的是一只猫和一条狗的故事。"
        with open(f"{folder}/cataclysm-dda.mo", "wb") as f:
            f.write(catalog([("", "Content-Type: text/plain; charset=UTF-8\n"), ("a", said), ("b", "短句"),
                             ("c", said + "%s 还有一个占位符"), ("d", "<color_red>" + said)]))
        documents = list(texts.documents(root, "zh", True))
        equal("a game: sentences, without placeholders and mark-up", [(d["id"], d["text"]) for d in documents], [("game/1/1", said)])
        equal("without -more it is not read", list(texts.documents(root, "zh")), [])


# ---- code ----
def test_code():
    source = "#include <x>\n\n\nint f(void) {\n\treturn 0;   \n}\r\n\n  \n// é\n" + "1, " * 50 + "\nx\n"
    equal("code: blocks keep their indentation, without tables and what is not ASCII", texts.code_blocks(source),
          ["#include <x>", "int f(void) {\n    return 0;\n}", "x"])


# ---- cleaning ----
def test_clean():
    equal("clean: NFC, spaces, control characters, blank lines",
          texts.clean("e\u0301\u00a0 x\t y \r\n\n\n\n\u200bz\x07 "), "é x y\n\nz")
    equal("clean: no spaces between ideographs", texts.clean("若 文件 不存在 , open 将 失败 。"), "若文件不存在 , open 将失败。")
    equal("lines are joined as their script asks", texts.join_wrapped(["中文", "继续", "then", "English"]),
          "中文继续 then English")
    seen = texts.Seen()
    equal("a paragraph is kept once, whatever its marks", [seen.fresh(p) for p in ("Abc, def.", "abc def", "abd")],
          [True, False, True])
    case("Chinese prose is told from options", texts.is_chinese("列出目录的内容。") and not texts.is_chinese("--all-files 文件"))


# ---- what is held out, what is made up ----
def test_held():
    case("held out: works stay whole", texts.is_held_out({"id": "austen/northangerabbey/3", "source": "austen"}) and
         not texts.is_held_out({"id": "austen/emma/3", "source": "austen"}))
    held = {n for n in range(600) for part in (1, 2) if texts.is_held_out({"id": f"help/t{n}/{part}", "source": "help"})}
    case("held out: one work in twelve where none is named", 25 < len(held) < 80, len(held))


def test_made_up():
    train = [made_up.number_page(random.Random(n)) for n in range(200)]
    case("numbers: short, of many kinds", all(1 <= len(p) < 200 for p in train) and len({re.sub(r"\d+", "1", p) for p in train}) > 60)
    found = {}
    for name in ("a", "b"):
        with tempfile.TemporaryDirectory() as folder:
            os.mkdir(f"{folder}/held")
            with open(f"{folder}/en.jsonl", "w") as f:
                f.write(json.dumps({"text": "Rare words, and common common common ones."}) + "\n")
            run = subprocess.run([sys.executable, "data/made_up_texts.py", folder], capture_output=True, text=True,
                                 env={**os.environ, "PYTHONHASHSEED": str(len(found))})
            if not case("made_up_texts.py runs", run.returncode == 0, run.stderr[-500:]):
                return
            found[name] = [read(f"{folder}/{part}made_up.jsonl") for part in ("", "held/")]
    equal("made up: the same bytes again", found["a"], found["b"])
    pages = [p for d in found["a"][0] if d["id"].startswith("words") for p in d["text"].split("\f")]
    words = [word for p in pages for word in re.findall(r"[^\W\d_]+", p)]
    case("words in no order: rare ones as often as common ones, marks between them in half", set(words) == {"Rare", "words", "and",
         "common", "ones"} and 0.15 < words.count("common") / len(words) < 0.25 and
         0.3 < sum(bool(re.search(r"[^\w ]", p)) for p in pages) / len(pages) < 0.5, len(words))


# ---- the real output, where it is ----
def read(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def test_real():
    try:
        import zstandard
        with open("data/demo/train.jsonl.zst", "rb") as f:
            train = [json.loads(line) for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(f), "utf-8")]
    except (ModuleNotFoundError, FileNotFoundError) as why:
        print(f"     data/demo is not tested: {why} (hint: bash scripts/setup.sh demo; bash data/make_demo.sh)")
        return
    val = {name: read(f"data/demo/val_{name}.jsonl") for name in ("en", "zh", "short", "other")}
    held = [page for pages in val.values() for page in pages]
    everything = train + held
    case("demo: ids are unique", len({p["id"] for p in everything}) == len(everything))
    work = lambda page: page["id"].removeprefix("held/").split("#")[0].rsplit("/", 1)[0]
    shared = {work(p) for p in train if "made_up" not in p["source"]} & {work(p) for p in held}
    case("demo: no work is in both parts", not shared, shared)
    mark_up = re.compile(r"\x1b|</?(?:w|note|div|title|span|chapter|verse)\b[^>]*>|&(?:amp|lt|gt|nbsp|quot);"
                         r"|\\f[BIRP\[]|�")
    prose = [p for p in everything if not re.search("code|made_up", p["source"])]
    odd = [p["id"] for p in prose if p["text"].strip() != texts.clean(p["text"]) or
           mark_up.search(p["text"]) and not re.search("jsonl/(manpages|help|fortunes)", p["id"])]  # these write about it
    case("demo: clean texts, no mark-up left", not odd, odd[:5])
    # Independent of the program: plain strings of 60 characters (English) or 13 ideographs (Chinese).
    for lang, n in (("en", 60), ("zh", 13)):
        plain = lambda p: re.sub(r"[\W\d_]+", " " if lang == "en" else "", p["text"].lower())
        parts = {t[i : i + n] for t in map(plain, val[lang]) for i in range(len(t) - n + 1)}
        leaks = [p["id"] for p in train if any(t[i : i + n] in parts for t in [plain(p)] for i in range(len(t) - n + 1))]
        case(f"demo: {lang}: no run of {n} characters in both parts", len(leaks) <= 0.0005 * len(train), (len(leaks), leaks[:5]))
    span = lambda pages: (min(p["tokens"] for p in pages), max(p["tokens"] for p in pages))
    case("demo: trained on 1 to 64 tokens", span(train) == (1, 64), span(train))
    spans = {name: span(pages) for name, pages in val.items()}
    case("demo: held out: 24 to 64 tokens, and shorter", spans["short"][0] <= 2 and spans["short"][1] < 24 and
         all(spans[lang][0] >= 24 and len(val[lang]) == 300 for lang in ("en", "zh")), spans)
    typed = {p["text"].strip() for p in train}
    known = [p["id"] for p in held + read("data/sentences.jsonl") if p["text"].strip() in typed]
    case("demo: no held-out page, and no sentence to try, is a training page", not known, known[:5])
    share = lambda name: sum(p["tokens"] for p in train if p["source"] == f"{name}.jsonl") / sum(p["tokens"] for p in train)
    case("demo: a fifth Chinese; a little German, code, numbers", 0.12 < share("zh") < 0.25 and all(
        0.02 < share(name) < 0.16 for name in ("de", "code", "made_up")), [share(n) for n in ("zh", "de", "code", "made_up")])


for test in (test_r, test_sword, test_fortunes, test_markup, test_more, test_code, test_clean, test_held, test_made_up, test_real):
    test()
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
