"""c3 report on the demo's run: one page of well-formed HTML that needs nothing else, with the numbers of the run in it
and colours that can be read."""
import glob
import html.parser
import json
import os
import re

from harness import C3, ROOT, Folder, case, done, run

DEMO = os.path.join(ROOT, "runs/demo")
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Elements in order, what was not closed where it should be, the text of each table's rows, all text."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.faults, self.elements, self.rows, self.text, self.cell = [], [], [], [], "", None
        self.feed(text)
        self.faults += [f"{tag} is never closed" for tag in self.open]

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.cell = ""

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")
        if tag in ("td", "th"):
            self.rows[-1].append(self.cell)
            self.cell = None

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data
        if self.cell is not None:
            self.cell += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(2 * d for d in colour[1:])
    parts = [int(digits[i:i + 2], 16) / 255 for i in (0, 2, 4)]
    parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_form(text, page):
    case("every element is closed where it should be", not page.faults, page.faults[:5])
    foreign = re.findall(r"(?i)<script|https?:|//[a-z]|url\(|@import| on\w+=", text)
    case("one file: nothing is fetched and nothing runs", not foreign and
         not any(page.all(tag) for tag in ("img", "link", "iframe", "object", "script")), foreign)
    ids = [a["id"] for _, a in page.elements if "id" in a]
    wanted = [a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a]
    case("language, title, one heading, a view for phones", page.elements[0] == ("html", {"lang": "en"}) and
         len(page.all("h1")) == 1 and "demo" in page.text and
         any("width=device-width" in a.get("content", "") for a in page.all("meta")), page.elements[:4])
    case("ids are unique, labels point to them", len(set(ids)) == len(ids) and wanted and set(wanted) <= set(ids), ids)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    case("headings go down one level at a time", all(b <= a + 1 for a, b in zip(levels, levels[1:])), levels)
    pictures = page.all("svg")
    case("every picture says what it shows", len(pictures) >= 6 and all(a.get("role") == "img" and
         len(a.get("aria-label", "")) > 40 for a in pictures), pictures)
    case("every table has its caption and headings with a scope", len(page.all("caption")) == len(page.all("table")) and
         all("scope" in a for a in page.all("th")))


def test_colours(text):
    schemes = [dict(re.findall(r"--([\w-]+):(#[0-9a-f]{3,6})", block))
               for block in re.findall(r":root\{([^}]*)\}", text)]
    case("a light and a dark scheme of the same colours", len(schemes) == 2 and set(schemes[0]) == set(schemes[1]) and
         luminance(schemes[0]["page"]) > 0.8 and luminance(schemes[1]["page"]) < 0.05, schemes)
    pairs = [("text", "page"), ("text", "card"), ("soft", "card"), ("soft", "page"), ("wrong", "wrong-bg"),
             ("c0", "page"), ("text", "good")]
    weak = [(a, b) for s in schemes for a, b in pairs if contrast(s[a], s[b]) < 4.5]
    weak += [(f"c{k}", "card") for s in schemes for k in range(4) if contrast(s[f"c{k}"], s["card"]) < 3]
    case("contrast of texts at least 4.5, of curves 3 (WCAG AA)", not weak, weak)


def test_numbers(page):
    evals = {os.path.basename(os.path.dirname(p))[5:]: json.load(open(p))
             for p in sorted(glob.glob(os.path.join(DEMO, "eval_*/eval.json")))}
    rows = {row[0]: row[1:] for row in page.rows if len(row) == 1 + len(evals)}
    name = next(n for n in rows if n.startswith("character precision"))
    means = [f"{100 * e['char_precision']:.2f} %" for e in evals.values()]
    case("means of every evaluation", rows[name] == means, rows)
    lines = [json.loads(line) for line in open(os.path.join(DEMO, "log.jsonl"))]
    last = [o for o in lines if o.get("loss") is not None][-1]
    case("the last step and its loss", f"{last['step']:,}" in page.text and
         f"{last['loss']:.3g}" in page.text, (last, page.text[:500]))
    buckets = [b for e in evals.values() for b in e["buckets"] if b["pages"]]
    shown = [row for row in page.rows if re.fullmatch(r"\d+–\d+", row[0])]
    case("buckets by length", [[f"{b['from']}–{b['to']}", str(b["pages"])] for b in buckets] ==
         [row[:2] for row in shown] and all(row[3] == f"{100 * b['char_precision']:.2f} %"
                                            for row, b in zip(shown, buckets)), shown)
    swapped = [f"{100 * e['control_swapped_latents']['char_precision']:.2f} %" for e in evals.values()]
    case("controls", [row[1] for row in page.rows if "next page" in row[0]] == swapped, page.rows)
    for name in evals:
        pages = [json.loads(line) for line in open(os.path.join(DEMO, f"eval_{name}/pages.jsonl"))]
        worst = sorted(pages[2:], key=lambda p: p["char_precision"])[:4]
        ids = [p["id"] for p in pages[:2]] + [p["id"] for p in worst if p["char_precision"] < 1]
        case(f"pages of {name}: the first, then the worst", all(i in page.text for i in ids), ids)


def main():
    with Folder() as tmp:
        out = f"{tmp}/report.html"
        said = run(C3, ["report", DEMO, "-o", out]).stdout
        with open(out, encoding="utf-8") as f:
            text = f.read()
        case("says where the report is", said == f"report: {out}\n", said)
        run(C3, ["report", DEMO + "/", "-o", f"{tmp}/again.html"])
        with open(f"{tmp}/again.html", encoding="utf-8") as f:
            case("the same run gives the same bytes", f.read() == text)
        case("a page that loads at once", len(text) < 400_000, len(text))
        page = Page(text)
        test_form(text, page)
        test_colours(text)
        test_numbers(page)
        with open(os.path.join(ROOT, "dev/report.png"), "rb") as f:
            picture = f.read()
        case("the picture for the README is a small PNG", picture[:4] == b"\x89PNG" and len(picture) < 200_000,
             len(picture))
        for name, words, code, says in (("no folder of that name", [f"{tmp}/none"], 1, "no such folder"),
                                        ("a folder that is no run", [tmp], 1, "found none of them"),
                                        ("nowhere to write", [DEMO, "-o", f"{tmp}/none/x.html"], 1, "none/x.html"),
                                        ("no folder at all", [], 2, "found 0")):
            r = run(C3, ["report", *words], check=False)
            case(f"refused: {name}", r.returncode == code and r.stderr.startswith("c3: ") and
                 r.stderr.count("\n") == 1 and says in r.stderr and not r.stdout, (r.returncode, r.stdout, r.stderr))
    done()


main()
