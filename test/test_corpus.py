#!/usr/bin/env python3
"""The makers of the demo's corpus in data/: each format on a small synthetic input, the cutting, the split, and, where data/demo has
been made, that nothing of the held-out pages is left in the training pages."""
import base64
import gzip
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
import make_pages as pages  # noqa: E402

passed = failed = 0


def case(name, good, why=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    print(f"{'ok  ' if good else 'FAIL'} {name}{'' if good else f': {why}'}", flush=True)


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


# ---- pages ----
def small_vocabulary(folder):
    tokens = [bytes([b]) for b in range(256)] + [b"th", b"the", b" the", b"\xe4\xb8", "中".encode(), b"\xe6\x96"]
    path = f"{folder}/v.tiktoken"
    with open(path, "wb") as f:
        for rank, token in enumerate(tokens + [b"never"]):
            f.write(base64.b64encode(token) + b" %d\n" % rank)
    return path, tokens


def test_vocabulary():
    folder = tempfile.mkdtemp()
    path, tokens = small_vocabulary(folder)
    v = pages.Vocabulary(path, len(tokens))
    text = "the other，the 中文 never ½x"
    ids = v.ids(text)
    equal("vocabulary: ids spell the text", b"".join(tokens[i] for i in ids).decode(), text)
    equal("vocabulary: merges by rank", v.ids("the the中文"), [257, 258, 260, 261, 0x87])
    raises("vocabulary: too few ranks", ValueError, pages.Vocabulary, path, 300)
    shutil.rmtree(folder)
    real = os.environ.get("TOKENIZER", "data/qwen2.5/qwen.tiktoken")
    try:
        import tiktoken
    except ImportError:
        tiktoken = None
    if not tiktoken or not os.path.exists(real):
        print(f"     not compared with tiktoken: {'it is not installed' if not tiktoken else 'no ' + real}")
        return
    rng = random.Random(5)
    samples = ["It's 12½ o'clock,\n\n  don’t  go!\tⅧ ٣ x²", "　全角空格， ABC。\r\n\r\n“引用”——はい 한국어 😀 naïve", "'LL 'ſ 'Re"]
    blocks = [(32, 127), (160, 0x250), (0x370, 0x600), (0x900, 0xE00), (0x2000, 0x2200), (0x3000, 0x3100),
              (0x4E00, 0x9FFF)]
    samples += ["".join(chr(rng.randint(*rng.choice(blocks))) for _ in range(60)) for _ in range(300)]
    if os.path.exists("data/demo/val_en.jsonl"):
        samples += [page["text"] for lang in ("en", "zh") for page in read(f"data/demo/val_{lang}.jsonl")]
    expression = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                  r"|\s*[\r\n]+|\s+(?!\S)|\s+")
    for k in (4096, 20000):
        v = pages.Vocabulary(real, k)
        reference = tiktoken.Encoding("q", pat_str=expression, mergeable_ranks=v.ranks, special_tokens={})
        bad = [s for s in samples if v.ids(s) != reference.encode_ordinary(s)]
        case(f"vocabulary of {k}: as tiktoken on {len(samples)} texts", not bad, f"{len(bad)} differ, e.g. {bad[:1]!r}")


def letters(text):
    """A stand-in for a vocabulary: a token a letter or mark."""
    return [ord(c) for c in text if not c.isspace()]


def test_cut():
    words = random.Random(2)
    sentence = lambda: " ".join("w" * words.randint(1, 6) for _ in range(words.randint(3, 9))).capitalize() + "."
    text = "\n\n".join("\n".join(" ".join(sentence() for _ in range(4)) for _ in range(3)) for _ in range(40))
    cut = list(pages.cut_pages(text, letters, {}, random.Random(1)))
    flat, at, order = re.sub(r"\s+", " ", text), 0, True
    for page, _ in cut:
        found = flat.find(re.sub(r"\s+", " ", page), at)
        order, at = order and found >= 0, max(found, at)
    case("cut: pages are parts of the text, in order", order)
    case("cut: 24 to 64 tokens, counted as they are returned",
         all(24 <= len(ids) <= 64 and ids == letters(p) for p, ids in cut))
    case("cut: lengths vary", len({len(ids) for _, ids in cut}) > 10)
    case("cut: nearly all is used", sum(len(ids) for _, ids in cut) > 0.95 * len(letters(text)))
    ends = sum(p[-1] == "." for p, _ in cut) / len(cut)
    case("cut: at the end of sentences where there is one", ends > 0.95, ends)
    # Units that make more tokens side by side than alone: the page is what has to fit.
    more = lambda text: letters(text) + [0] * (len(text) // 10)
    case("cut: pages are counted whole", all(24 <= len(ids) <= 64 for _, ids in pages.cut_pages(text, more, {},
                                                                                                random.Random(1))))
    quote = "To err is human, and to forgive divine indeed.\n-- Alexander Pope"
    texts_of = lambda text: [page for page, _ in pages.cut_pages(text, letters, {}, random.Random(0))]
    quotes = [page for seed in range(30) for page, _ in pages.cut_pages(quote, letters, {}, random.Random(seed))]
    equal("cut: a quotation keeps its author", quotes, [quote] * 30)
    equal("cut: a text shorter than a page gives none", texts_of("Too short."), [])
    after_long = texts_of("x" * 99 + " " + "ab cd. " * 8)
    case("cut: a word longer than a page is passed over", after_long and "x" not in after_long[0], after_long)
    chinese = texts_of("春风又绿江南岸，明月何时照我还？" * 20)
    case("cut: Chinese ends on marks", chinese and all(p[-1] in "，？" and p[0] in "春明" for p in chinese), chinese)


def test_parts():
    text = "One, two three. Four five six seven eight nine; ten. Eleven\ntwelve thirteen fourteen!"
    rng, sizes = random.Random(3), {}
    parts = [p for p in (pages.cut_part(text, letters, sizes, rng, 23) for _ in range(2000)) if p]
    case("parts: pieces of the page, 1 to 23 tokens, counted as they are returned",
         all(p in text and 1 <= len(ids) <= 23 and ids == letters(p) for p, ids in parts))
    lengths = [len(ids) for _, ids in parts]
    case("parts: of all lengths, short ones too", min(lengths) <= 3 and max(lengths) >= 22 and len(set(lengths)) > 15 and
         0.1 < sum(n <= 5 for n in lengths) / len(lengths) < 0.6, sorted(set(lengths)))
    ends = sum(p[-1] in ".;!," for p, _ in parts) / len(parts)
    case("parts: half of them end at a border", 0.4 < ends < 0.9, ends)
    equal("parts: of nothing, none", pages.cut_part(" ", letters, {}, random.Random(1), 23), None)
    source = [fake_page(1, text)]
    out = pages.parts_of(source, letters, {}, random.Random(1), 40, 23)
    case("parts: as many as are wanted, some end as typed lines do, ids differ", len(out) == 40 and
         0 < sum(p["text"].endswith("\n") for p in out) < 20 and len({p["id"] for p in out}) == 40)
    known = frozenset(p["text"].strip() for p in out)
    other = pages.parts_of(source, letters, {}, random.Random(2), 10, 23, known)
    case("parts: held-out ones are no training page, and have no newline",
         other and not known & {p["text"] for p in other} and not any("\n" == p["text"][-1] for p in other))
    train = pages.number_pages(letters, random.Random(1), 200, 64)
    held = pages.number_pages(letters, random.Random(2), 50, 64, frozenset(p["text"] for p in train))
    case("numbers: short enough, of many kinds, none in both",
         all(len(p["ids"]) <= 64 for p in train) and len({re.sub(r"\d+", "1", p["text"]) for p in train}) > 60 and
         not {p["text"] for p in train} & {p["text"] for p in held})


def fake_page(number, text, source="a", lang="en"):
    return {"id": f"{source}/{number}", "lang": lang, "source": source, "text": text, "ids": letters(text)}


def test_split():
    words = ["".join(random.Random(n).choices("abcdefghij", k=7)) for n in range(4000)]
    own = [fake_page(n, " ".join(words[20 * n : 20 * n + 20]), "a" if n % 2 else "b") for n in range(20)]
    train = [fake_page(n, " ".join(words[1000 + 20 * n : 1020 + 20 * n])) for n in range(100)]
    train[3] = fake_page(3, "x. " + own[4]["text"][8:90])  # quotes a held-out page
    for n in range(40, 60):
        train[n] = fake_page(n, f"{words[n]} {own[7]['text']}")  # a held-out page that is boilerplate
    held, kept, report = pages.choose_held_out(own, train, "en", 19, random.Random(0), too_common=5)
    case("split: boilerplate is not held out", own[7] not in held and report["passed_over_as_common"] == 1, report)
    case("split: a training page that quotes is dropped",
         train[3] not in kept and report["training_pages_dropped"] == 1, report)
    case("split: others stay", len(kept) == 99 and len(held) == 19)
    case("split: both shares are reported", report["share_of_grams_in_training"] == 0 <
         report["share_of_grams_in_training_before_dropping"], report)
    case("split: works stay whole", pages.is_held_out({"id": "austen/northangerabbey/3", "source": "austen"}) and
         not pages.is_held_out({"id": "austen/emma/3", "source": "austen"}))


def test_whole():
    """The program from documents to files: the same seed gives the same bytes, another seed others."""
    folder = tempfile.mkdtemp()
    path, tokens = small_vocabulary(folder)
    rng = random.Random(1)
    word = lambda: "".join(rng.choices("aeioustrn", k=rng.randint(2, 7)))
    han = lambda: "".join(chr(rng.randint(0x4E00, 0x9FA0)) for _ in range(9)) + rng.choice("，。")
    for lang, works in (("en", ("austen/northangerabbey", "austen/emma", "bible/Ruth", "bible/Luke")),
                        ("zh", ("classics/song100", "classics/tang300"))):
        with open(f"{folder}/{lang}.jsonl", "w") as f:
            for work in works:
                line = (lambda: " ".join(word() for _ in range(30)) + ".") if lang == "en" else (lambda: han() + han())
                lines = [line() for _ in range(60)]
                document = {"id": work + "/1", "source": work.split("/")[0], "lang": lang, "text": "\n".join(lines)}
                f.write(json.dumps(document) + "\n")
    files = ("train.jsonl", "val_en.jsonl", "val_zh.jsonl", "val_short.jsonl", "val_other.jsonl", "split.json")
    made = {}
    for name, seed, hashing in (("a", 1, "1"), ("b", 1, "2"), ("c", 2, "1")):
        command = [sys.executable, "data/make_pages.py", "-tok", path, "-vocab", str(len(tokens)), "-val", "20"]
        run = subprocess.run(command + ["-seed", str(seed), folder, f"{folder}/{name}"], capture_output=True, text=True,
                             env={**os.environ, "PYTHONHASHSEED": hashing})
        if run.returncode:
            case("make_pages.py runs", False, run.stderr[-1000:])
            break
        made[name] = [open(f"{folder}/{name}/{file}", "rb").read() for file in files]
    else:
        case("make_pages.py: the same seed, the same bytes", made["a"] == made["b"])
        case("make_pages.py: another seed, another order", made["a"][0] != made["c"][0])
        case("make_pages.py: held-out pages of both languages",
             made["a"][1].count(b"\n") == made["a"][2].count(b"\n") == 20)
        train = [p["text"].strip() for p in map(json.loads, made["a"][0].splitlines())]
        held = [json.loads(line)["text"] for data in made["a"][1:5] for line in data.splitlines()]
        case("make_pages.py: pages of 1 to 64 tokens, and held-out ones of all kinds that are no training pages",
             min(map(len, train)) < 5 and len(held) > 60 and not set(train) & set(held), len(held))
    os.remove(f"{folder}/zh.jsonl")
    with open(f"{folder}/en.jsonl", "a") as f:  # works of one's own: held out by hash
        for n in range(60):
            lines = [" ".join(word() for _ in range(30)) + "." for _ in range(3)]
            f.write(json.dumps({"id": f"mine/w{n}/1", "source": "mine", "lang": "en", "text": "\n".join(lines)}) + "\n")
    run = subprocess.run(command[:-1] + ["400", folder, f"{folder}/own"], capture_output=True, text=True)
    works = {p["id"].split("/")[1] for p in read(f"{folder}/own/val_en.jsonl")} if run.returncode == 0 else set()
    case("make_pages.py: one's own works, one language", {"northangerabbey"} < works and len(works) < 20,
         run.stderr or works)
    with open(f"{folder}/en.jsonl", "rb") as f:
        lines = [json.loads(line) for line in f]
    with open(f"{folder}/en.jsonl", "wb") as f:  # as people's files are: a mark in front, blank lines, no ids
        f.write(b"\xef\xbb\xbf" + b"\r\n\n".join(json.dumps({"text": d["text"]}).encode() for d in lines) + b"\n")
        f.write(b'{"text": " "}\n{"id": 7, "text": "a number for a name and not one sentence to be cut out"}\n')
    run = subprocess.run(command[:-1] + ["1", folder, f"{folder}/bare"], capture_output=True, text=True)
    bare = read(f"{folder}/bare/train.jsonl") + read(f"{folder}/bare/val_en.jsonl") if run.returncode == 0 else []
    bare = [p for p in bare if p["lang"] == "en" and p["source"] not in ("numbers", "words")]  # made up, of no document
    works = {p["id"].split("#")[0] for p in bare}
    case("make_pages.py: a byte order mark, blank lines, lines without id and source",
         {p["source"] for p in bare} == {"en"} and 30 < len(works) <= len(lines) + 1 and "en.jsonl:1" in works and
         all(re.fullmatch(r"en\.jsonl:\d+|7", work) for work in works), (run.stderr[-500:], works))
    for line, says in ((b'{"text": "x"', "line 3: expected JSON"), (b'{"text": "\xff"}', "line 3: expected JSON"),
                       (b'["text"]', "line 3: expected a document"), (b'{"txt": "x"}', "line 3: expected a document"),
                       (b'{"text": 5}', "line 3: expected a document"), (b"7", "line 3: expected a document"),
                       (b'{"text": "\\ud800"}', "line 3: expected JSON")):
        with open(f"{folder}/en.jsonl", "wb") as f:
            f.write(b'{"text": "fine"}\n\n' + line + b"\n")
        run = subprocess.run(command[:-1] + ["1", folder, f"{folder}/bad"], capture_output=True, text=True)
        case(f"make_pages.py: {line.decode(errors='replace')} is named by its line", run.returncode == 1 and
             run.stderr.count("\n") == 1 and f"en.jsonl: {says}" in run.stderr, run.stderr)
    missing = subprocess.run([sys.executable, "data/make_pages.py", "-tok", f"{folder}/none", folder, folder],
                             capture_output=True, text=True)
    case("make_pages.py: a missing vocabulary is one line with a hint",
         missing.returncode and missing.stderr.count("\n") == 1 and "hint" in missing.stderr, missing.stderr)
    shutil.rmtree(folder)


# ---- the tool that makes the ids ----
def shard_pages(path):
    """The pages of a token shard as lists of ids."""
    with open(path, "rb") as f:
        data = f.read()
    count, = struct.unpack_from("<Q", data, 16)
    index, tokens = struct.unpack_from("<QQ", data, 72)
    places = [struct.unpack_from("<QII", data, index + 24 * n) for n in range(count)]
    return [list(struct.unpack_from(f"<{length}I", data, tokens + 4 * at)) for at, length, _ in places]


def test_tool():
    vocabulary = os.environ.get("TOKENIZER", "data/qwen2.5/qwen.tiktoken")
    if not os.path.exists("c3") or not os.path.exists(vocabulary) or not os.path.exists("data/demo/val_en.jsonl"):
        print("     not compared with c3 tokenize: ./c3, the vocabulary or data/demo is not there")
        return
    folder = tempfile.mkdtemp()
    v = pages.Vocabulary(vocabulary, 2048)
    for lang in ("en", "zh"):
        run = subprocess.run(["./c3", "tokenize", "-tok", vocabulary, "-vocab", "2048", "-o", f"{folder}/{lang}",
                              f"data/demo/val_{lang}.jsonl"], capture_output=True, text=True)
        found = shard_pages(f"{folder}/{lang}_00000.bin") if run.returncode == 0 else run.stderr
        case(f"{lang}: c3 tokenize makes the ids that pages were cut by",
             found == [v.ids(page["text"]) for page in read(f"data/demo/val_{lang}.jsonl")], str(found)[:200])
    shutil.rmtree(folder)


# ---- the real output, where it is ----
def read(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def test_real():
    if not os.path.exists("data/demo/split.json"):
        print("     data/demo is not made yet (bash data/make_demo.sh): its pages are not tested")
        return
    report = json.load(open("data/demo/split.json"))
    train, val = read("data/demo/train.jsonl"), {lang: read(f"data/demo/val_{lang}.jsonl") for lang in ("en", "zh")}
    more = {name: read(f"data/demo/val_{name}.jsonl") for name in ("short", "other")}
    everything = train + val["en"] + val["zh"] + more["short"] + more["other"]
    case("demo: ids are unique", len({p["id"] for p in everything}) == len(everything))
    works = {lang: {p["id"].split("#")[0].rsplit("/", 1)[0] for p in held} for lang, held in val.items()}
    shared = {p["id"].split("#")[0].rsplit("/", 1)[0] for p in train} & (works["en"] | works["zh"])
    case("demo: no work is in both parts", not shared, shared)
    mark_up = re.compile(r"\x1b|</?(?:w|note|div|title|span|chapter|verse)\b[^>]*>|&(?:amp|lt|gt|nbsp|quot);"
                         r"|\\f[BIRP\[]|�")
    odd = [p["id"] for p in everything if p["lang"] not in ("code", "words") and p["text"].rstrip("\n") != texts.clean(p["text"]) or
           mark_up.search(p["text"]) and p["source"] not in ("manpages", "help", "fortunes", "code")]  # these write about it
    case("demo: clean texts, no mark-up left", not odd, odd[:5])
    # Independent of the program: plain strings of 40 characters (English) or 8 ideographs (Chinese).
    for lang, n in (("en", 40), ("zh", 8)):
        plain = lambda p: re.sub(r"[\W\d_]+", " " if lang == "en" else "", p["text"].lower())
        parts = {t[i : i + n] for t in map(plain, val[lang]) for i in range(len(t) - n + 1)}
        leaks = []
        for p in train:
            t = plain(p)
            if p["lang"] == lang and any(t[i : i + n] in parts for i in range(len(t) - n + 1)):
                leaks.append(p["id"])
        limit = 0.0005 * len(train) if lang == "en" else 0  # 40 characters can be less than 8 words
        case(f"demo: {lang}: no run of {n} characters in both parts", len(leaks) <= limit, (len(leaks), leaks[:5]))
    vocabulary = os.environ.get("TOKENIZER", "data/qwen2.5/qwen.tiktoken")
    if os.path.exists(vocabulary):
        v = pages.Vocabulary(vocabulary, report["vocab"])
        ids = {p["id"]: v.ids(p["text"]) for p in everything}
        span = lambda pages: (min(len(ids[p["id"]]) for p in pages), max(len(ids[p["id"]]) for p in pages))
        least, most = report["least"], report["most"]
        equal("demo: trained on 1 to 64 tokens", span(train), (1, most))
        spans = {name: span(held) for name, held in {**val, **more}.items()}
        case("demo: held out: 24 to 64 tokens, and shorter", spans["short"][0] <= 2 and spans["short"][1] < least and
             all(spans[lang][0] >= least and spans[lang][1] <= most for lang in val), spans)
        typed = {p["text"].strip() for p in train}
        known = [p["id"] for p in everything[len(train):] + read("data/sentences.jsonl") if p["text"] in typed]
        case("demo: no held-out page, and no sentence to try, is a training page", not known, known[:5])
        share = lambda lang: sum(p["lang"] == lang for p in train) / len(train)
        case("demo: a little German, code, numbers", all(0.02 < share(lang) < 0.12 for lang in ("de", "code", "numbers")))
        for lang in ("en", "zh"):
            runs = lambda p: (tuple(ids[p["id"]][i : i + 13]) for i in range(len(ids[p["id"]]) - 12))
            held = {run for p in val[lang] for run in runs(p)}
            seen = {run for p in train for run in runs(p) if run in held}
            share = len(seen) / len(held)
            case(f"demo: {lang}: share of held-out 13-token runs in training is the one reported",
                 abs(share - report[f"val_{lang}"]["share_of_grams_in_training"]) < 1e-3 and share < 1e-3, share)


for test in (test_r, test_sword, test_fortunes, test_markup, test_more, test_code, test_clean, test_vocabulary, test_cut,
             test_parts, test_split, test_whole, test_tool, test_real):
    test()
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
