#!/usr/bin/env python3
"""test_report.py: scripts/report.py: one page of well-formed HTML that needs nothing else, with the numbers of its runs in
it and colours that can be read; runs side by side; runs that are under way, damaged or hostile."""
import base64
import hashlib
import html.parser
import json
import os
import re
import shutil
import stat
import subprocess
import sys

from harness import ROOT, Folder, case, done, leftovers
from made_runs import PAGES, add_sets, make_checkpoint, make_evaluation, make_log, make_run, write_json

sys.path.insert(0, os.path.join(ROOT, "scripts"))

import report as scripts_report
import runs

SMALL = 1_550_000  # bytes of a report
VOID = {"meta", "br", "img", "link", "input", "hr"}
ORDERS = "\x1b]0;t\x07\x9b2J\u061c\u202e\u2028"
HOSTILE = f"</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&<!--{{{{7*7}}}}{ORDERS}"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Page(html.parser.HTMLParser):
    """Elements in order, what was not closed where it should be, the text of each table's rows, all text."""
    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.faults, self.elements, self.rows, self.text, self.cell = [], [], [], [], "", None
        self.scripts, self.marked = [], {"del": [], "ins": []}
        self.source = text
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
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")
        if tag in ("td", "th"):
            self.rows[-1].append(self.cell)
            self.cell = None

    def handle_data(self, data):
        inside = self.open[-1] if self.open else ""
        if inside == "script":
            self.scripts[-1] += data
        elif inside != "style":
            self.text += data
        if inside in self.marked:
            self.marked[inside].append(data)
        if self.cell is not None:
            self.cell += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def charts(self):
        return json.loads(self.scripts[0]) if self.scripts else {}


def report(*words):
    return subprocess.run([sys.executable, os.path.join(ROOT, "scripts/report.py"), *words], capture_output=True, timeout=300)


def page_of(*folders):
    """The page of these runs, made in this process, which takes a tenth of the time; and what is wrong with it as one that
    nothing gets into."""
    page = Page(scripts_report.render(runs.read_runs(folders), "scripts/report.py " + " ".join(folders)))
    return page, safety_faults(page)


def safety_faults(page):
    """Only the program's own two scripts, no reference, no handler, nothing raw, a policy that allows that script alone."""
    text, found = page.source, list(page.faults)
    for script in page.scripts:
        text = text.replace(script, "")
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256((page.scripts or ["", ""])[-1].encode()).digest()).decode()
    if f"script-src 'sha256-{digest}'" not in policy or "default-src 'none'" not in policy or "eval" in policy:
        found.append(policy)
    if len(page.all("script")) not in (0, 2) or any("src" in a for a in page.all("script")):
        found.append(page.all("script"))
    handlers = [(t, k) for t, a in page.elements for k in a if k.startswith("on") or k in ("src", "srcset", "action")]
    foreign = re.findall(r"(?i)https?:|//[a-z]|url\(|@import", re.sub(r"&[a-z]+;|<code>.*?</code>|<p class=\"text\".*?</p>", "",
                                                                      text, flags=re.S))
    links = [a["href"] for a in page.all("a") if not a.get("href", "").startswith("#")]
    tags = {t for t, _ in page.elements} & {"img", "link", "iframe", "object", "base", "form", "embed"}
    return found + handlers + foreign + links + sorted(tags) + RAW.findall(text)


# ---- the page of a run ----------------------------------------------------------------------------------------------


def test_form(page, faults):
    case("well-formed, one file: nothing is fetched, nothing runs but its own script, without eval", not faults, faults)
    ids = [a["id"] for _, a in page.elements if "id" in a]
    wanted = [a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a]
    wanted += [a["href"][1:] for a in page.all("a")]
    case("language, title, one heading, a view for phones", page.elements[0] == ("html", {"lang": "en"}) and
         len(page.all("h1")) == 1 and any("width=device-width" in a.get("content", "") for a in page.all("meta")))
    case("ids are unique, labels and the navigation point to them", len(set(ids)) == len(ids) and len(wanted) >= 8 and
         set(wanted) <= set(ids), (ids, wanted))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    case("headings go down one level at a time", all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False)), levels)
    case("tables have captions and headings with a scope", len(page.all("caption")) == len(page.all("table")) and
         all("scope" in a for a in page.all("th")))
    case("every chart has its place", set(page.charts()) == {a["id"] for a in page.all("div") if a.get("class") == "chart"} and
         len(page.charts()) == 10, list(page.charts()))
    case("small enough to be sent", len(page.source.encode()) < SMALL, len(page.source.encode()))


def luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(2 * d for d in colour[1:])
    parts = [int(digits[i:i + 2], 16) / 255 for i in (0, 2, 4)]
    parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_colours(page):
    schemes = [dict(re.findall(r"--([\w-]+):(#[0-9a-f]{3,6})", block))
               for block in re.findall(r":root\{([^}]*)\}", page.source)]
    case("a light and a dark scheme of the same colours", len(schemes) == 2 and set(schemes[0]) == set(schemes[1]) and
         luminance(schemes[0]["page"]) > 0.8 and luminance(schemes[1]["page"]) < 0.05, schemes)
    pairs = [("text", "page"), ("text", "card"), ("soft", "card"), ("soft", "page"), ("wrong", "wrong-bg"), ("link", "page"),
             ("text", "bar")]
    weak = [(a, b) for s in schemes for a, b in pairs if contrast(s[a], s[b]) < 4.5]
    weak += [(f"c{k}", "card") for s in schemes for k in range(8) if contrast(s[f"c{k}"], s["card"]) < 3]
    case("contrast of texts at least 4.5, of curves 3 (WCAG AA)", not weak, weak)
    case("every colour of a chart has its other one by night", all(
        f'.chart [stroke="{schemes[0][f"c{k}"]}"]{{stroke:var(--c{k})}}' in page.source for k in range(8)))


def test_numbers(page):
    precision = f"{100 * sum(1 - d for d in distances()) / len(PAGES):.2f} %"
    rows = {row[0]: row[1:] for row in page.rows if len(row) == 3}
    name = next(n for n in rows if n.startswith("character precision"))
    case("means of every evaluation", rows[name] == [precision] * 2 and rows["pages"] == ["8", "8"], rows)
    case("each evaluation names its model and its pages", page.text.count("made.jsonl") == 2 and
         page.text.count("runs/made/step_00000040") == 2)
    case("headline: smoothed loss, steps, time, tokens", all(s in page.text for s in (
        "training loss, smoothed0.2\n", "steps40\n", "spent in steps20 s\n", "text tokens seen4 million\n")), page.text[:600])
    case("where it came from", all(s in page.text for s in (
        "2026-03-01T12:00:00Z to 2026-03-01T12:00:40.000Z", "node7, 2 ranks", "./train_c3 -preset demo", "f8aece7")))
    buckets = [row for row in page.rows if re.fullmatch(r"\d+–\d+", row[0])]
    case("buckets with pages, and what is published of the same lengths", [r[:3] for r in buckets[:2]] == [
        ["0–6", "1", "2.5"], ["6–9", "5", "2.5"]] and "98.70 %" in buckets[1], buckets)
    case("controls", [row[1:] for row in page.rows if "next page" in row[0]] == [["12.50 %", "25.00 %"]] * 2, page.rows)
    kinds = [row for row in page.rows if row[0] in ("digits *", "latin", "han *")]
    case("errors by kind of text, little marked", kinds == [
        ["digits *", "2", "40", "25.00 %", "12.50 % – 50.00 %", "3"], ["latin", "12", "12,000", "2.00 %", "1.50 % – 3.00 %", "7"],
        ["han *", "0", "0", "–", "–", "5"]] * 2, kinds)
    bins = [row[1:] for row in page.rows if row[0] == "-1.5 to -0.062"]
    case("pages by confidence, and what that says", bins == [["4", "0.00 %", "0.00 % – 49.00 %", "6.25 %", "50.00 %"]] * 2 and
         page.text.count("81.25 % of all pairs (1 exact, 7 with errors, too few to trust)") == 2, bins)
    case("both as charts", {"chart-kinds", "chart-confidence"} <= set(page.charts()), list(page.charts()))
    case("pages: the first two, then the worst", all(f">{i}<" in page.source for i in ("whole", "one", "nothing", "bad")))
    case("errors are marked on both sides", "o" in page.marked["del"] and "a" in page.marked["ins"], page.marked)
    case("thousands one way, every option", "200,000" not in page.text and "2,054" in page.text and
         "not given" in page.text and "-len_warmup" in page.text, page.text[-800:])
    case("the curves' legend: mean, band, validation", all(s in page.text for s in (
        "mean of neighbouring steps", "from the least to the greatest", "validation, whole pages")))


def distances():
    from rapidfuzz.distance import Levenshtein
    for _, a, b in PAGES:
        yield Levenshtein.distance(a, b) / max(len(a), len(b))


def test_charts(page):
    specs = page.charts()
    loss = json.dumps(specs["chart-loss"])
    case("the loss has every step, the validation, where pages become whole", loss.count('"least"') > 40 and
         "val_loss" in loss and '"step": 20' in loss, loss[:300])
    axis = json.dumps(specs["chart-length-0"])
    case("bars of the chart start at zero where one is that low", '"domain": [0.0, 1]' in axis, axis[-500:])
    rates = [v["mean"] for v in specs["chart-lr"]["data"]["values"]]
    case("numbers of at most five digits", len(rates) == 40 and all(v == float(f"{v:.5g}") for v in rates), rates)


def test_sets(tmp):
    """Pages with names, and plain text: figures, curves, options given several times."""
    run = make_run(f"{tmp}/sets", data=["en=a.bin:2", "zh=b.bin:1"])
    add_sets(run, ["en", "zh"])
    page, faults = page_of(run)
    case("sets: safe and small", not faults, faults)
    case("each set's loss and tokens, the loss before step 1, plain text", all(s in page.text for s in (
        "validation loss before step 19.5\n", "validation loss0.225\n", "validation loss, en0.225\n", "validation loss, zh1.225\n",
        "text tokens seen, en2.4 million\n", "text tokens seen, zh1.6 million\n", "perplexity on plain text17\n",
        "and to that at the start2.429 times\n")), page.text[:900])
    case("an option given several times", ["-data", "en=a.bin:2 zh=b.bin:1"] in page.rows or
         "en=a.bin:2 zh=b.bin:1" in page.text, page.text[-900:])
    specs = page.charts()
    values = specs["chart-sets"]["data"]["values"]
    case("curves: each set from before step 1 on, plain text", [v["value"] for v in values if v["line"] == "zh"] ==
         [10.5, 1.9, 1.45, 1.3, 1.225] and len(values) == 10 and
         [v["value"] for v in specs["chart-plain"]["data"]["values"]] == [7, 9.5, 12, 14.5, 17], values)
    with open(f"{run}/log.jsonl", "a", encoding="utf-8") as f:
        f.write(json.dumps({"step": 40, "val_lm_perplexity": 21.0, "val_lm_ratio": 3.0, "val_lm_alarm": 1}) + "\n")
    page, _ = page_of(run)
    case("plain text measured where a run goes on stands beside the validation of that step", all(s in page.text for s in (
        "perplexity on plain text21\n", "validation loss0.225\n")), page.text[:900])
    add_sets(run, [HOSTILE])
    page, faults = page_of(run)
    case("hostile names of sets: the page stays sound", not faults, faults)
    add_sets(other := make_run(f"{tmp}/sets2"), ["en"])
    lines = {v["line"] for v in page_of(run, other)[0].charts()["chart-sets"]["data"]["values"]}
    case("two runs: their sets are told apart", {"sets, en", "sets2, en"} <= lines, lines)


# ---- several runs, and runs in a bad state --------------------------------------------------------------------------


def test_several(tmp):
    a, b = make_run(f"{tmp}/a/demo"), make_run(f"{tmp}/b/demo", scale=2.0, evaluations=("eval_en",))
    page, faults = page_of(a, b)
    case("two runs side by side: safe and small", not faults and len(page.source.encode()) < SMALL, faults)
    names = [f"{tmp}/a/demo", f"{tmp}/b/demo"]
    case("each by its own name and colour", all(n in page.text for n in names) and "Side by side" in page.text and
         page.source.count("var(--c0)") >= 2 and page.source.count('style="background:var(--c1)"') >= 2)
    loss = json.dumps(page.charts()["chart-loss"])
    case("overlaid in one chart", all(loss.count(f'"run": "{n}"') >= 40 for n in names), loss[:400])
    heads = next(row for row in page.rows if row[0] == "metric")
    case("evaluations of both in one table", heads[1:] == [f"{names[0]}, en", f"{names[0]}, zh", f"{names[1]}, en"], heads)
    make_evaluation(f"{tmp}/alone")
    page, faults = page_of(f"{tmp}/alone", b)
    domain = page.charts()["chart-loss"]["layer"][0]["layer"][0]["encoding"]["color"]["scale"]
    case("an evaluation beside a run: the run keeps its colour", not faults and domain == {
        "domain": ["demo"], "range": ["#c4500e"]}, (faults, domain))
    page, faults = page_of(*(make_run(f"{tmp}/many/{i}", scale=1 + i) for i in range(10)))
    case("ten runs", not faults and len(page.source.encode()) < SMALL, (faults, len(page.source.encode())))


def test_states(tmp):
    make_log(f"{tmp}/early", steps=3)
    with open(f"{tmp}/early/log.jsonl", "a") as f:
        f.write('{"step":4,"loss":0.')
    page, faults = page_of(f"{tmp}/early")
    case("a run under way: curves, and what is not there yet is said", not faults and "chart-loss" in page.charts() and
         "no complete checkpoint" in page.text and "1 line without a step" in page.text, (faults, page.text[-500:]))
    make_checkpoint(f"{tmp}/early", 2)
    os.unlink(f"{tmp}/early/step_00000002/trainer/settings.json")
    page, faults = page_of(f"{tmp}/early")
    case("a damaged checkpoint", not faults and "trainer/settings.json: No such file" in page.text, page.text[-300:])
    make_checkpoint(f"{tmp}/early", 3)
    write_json(f"{tmp}/early/run.json", {"last": "step_00000002"})
    case("the checkpoint that run.json names", "step_00000002" in page_of(f"{tmp}/early")[0].text)
    run = make_run(f"{tmp}/damaged")
    with open(f"{run}/log.jsonl", "w") as f:
        f.write('nonsense\n[]\n{"step":1,"loss":NaN,"lr":"x"}\n{"step":2,"loss":1e999}\n{"step":3,"loss":true}\n'
                '{"step":"4","loss":1}\n{"step":5,"loss":2.5,"time":7}\n{"step":6,"loss":0}\n' + "[" * 100000 + "\n\xff\n")
    write_json(f"{run}/eval_en/eval.json", {
        "buckets": [1, {"from": "a"}, {"from": 1, "to": 2, "pages": 3}], "by_position": [None, "x", 0.5], "published": 4,
        "by_kind": [1, {"kind": 2}, {"kind": "a", "pages": 1, "characters": "x"}], "confidence": {"bins": [{"from": 1}], "auroc": []},
        "pages": "many", "char_precision": 1e300, "decoder_alone": [], "control_no_latents": {"char_precision": "x"}})
    write_json(f"{run}/step_00000040/config.json", {"vocab_size": "x", "hidden_size": None, "c3_template": [1]})
    os.unlink(f"{run}/eval_zh/pages.jsonl")
    page, faults = page_of(run)
    case("damaged files: the rest is shown, what is missing is named", not faults and "5 lines without a step" in page.text and
         "zh: pages.jsonl: No such file" in page.text and "chart-loss" in page.charts(), (faults, page.text[-600:]))
    case("no number that JSON does not know", "NaN" not in page.scripts[0] and "Infinity" not in page.scripts[0])
    for name in ("log.jsonl", "eval_zh/pages.jsonl"):
        if os.path.exists(f"{run}/{name}"):
            os.unlink(f"{run}/{name}")
        os.mkfifo(f"{run}/{name}")
    page, faults = page_of(run)
    case("a pipe in a file's place is not waited for", not faults and page.text.count("not a regular file") == 2,
         page.text[-600:])
    make_evaluation(f"{tmp}/long", pages=[(str(i), "&" * 30000, "<" * 30000) for i in range(6)] + PAGES)
    page, faults = page_of(*[f"{tmp}/long"] * 4)
    case("long pages: cut, counted, and the report stays small", not faults and len(page.source.encode()) < SMALL and
         "too long to compare" in page.text and "reconstructions of" in page.text, (faults, len(page.source.encode())))


def test_hostile(tmp):
    run = make_run(f"{tmp}/{HOSTILE.replace('/', '_')}", evaluations=(), **{HOSTILE: HOSTILE, "schedule": HOSTILE,
                                                                            "deep": {HOSTILE: [HOSTILE]}})
    make_evaluation(f"{run}/eval_{HOSTILE.replace('/', '_')}", model=HOSTILE, source=HOSTILE, perturb=HOSTILE,
                    pages=[(HOSTILE, HOSTILE, HOSTILE + "x"), (7, "a page of thirty characters...", ""), (None, "\ud800", "b" + HOSTILE)],
                    published=[{"name": HOSTILE, "buckets": [{"from": 6, "to": 9, "precision": 1}]}])
    write_json(f"{run}/run.json", {"host": HOSTILE, "command": HOSTILE, "build": HOSTILE, "started": HOSTILE})
    page, faults = page_of(run, make_run(f"{tmp}/plain"))
    case("charts too hold such names", HOSTILE[:20] in json.dumps(page.charts()), list(page.charts()))
    case("ids, texts, paths, settings, models that hold HTML, scripts, orders: all inert", not faults, faults)
    case("and all there to be read", page.text.count("alert(1)") > 20 and "49" not in page.text.split("alert(1)")[1][:60],
         page.text.count("alert(1)"))


def test_places(tmp):
    run = make_run(f"{tmp}/run")
    r = report(run)
    with open(f"{run}/report.html", "rb") as f:
        first = f.read()
    case("into the run's folder, which is said", r.returncode == 0 and r.stdout == f"report: {run}/report.html\n".encode() and
         not leftovers(run), (r.stdout, r.stderr))
    os.symlink("report.html", f"{run}/link.html")
    os.chmod(f"{run}/report.html", 0o640)
    report(run, "-o", f"{run}/link.html")
    with open(f"{run}/report.html", "rb") as f:
        case("through a link, the mode kept, the same run the same bytes", f.read() == first and
             os.path.islink(f"{run}/link.html") and stat.S_IMODE(os.stat(f"{run}/report.html").st_mode) == 0o640)
    case("-o - is stdout, and the page alone", report(run, "-o", "-").stdout == first)
    os.makedirs(f"{tmp}/nothing")
    for name, words, code, says in (("no folder of that name", [f"{tmp}/none"], 1, "no such folder"),
                                    ("a folder that is no run", [f"{tmp}/nothing"], 1, "no log.jsonl"),
                                    ("nowhere to write", [run, "-o", f"{tmp}/none/x.html"], 1, "none/x.html"),
                                    ("a full disk", [run, "-o", "/dev/full"], 1, "/dev/full")):
        r = report(*words)
        err = r.stderr.decode()
        case(f"refused in one line: {name}", r.returncode == code and err.startswith("report.py: ") and
             err.count("\n") == 1 and says in err and not r.stdout, (r.returncode, r.stdout, err))


def test_browser(tmp):
    """Where there is a Chromium: its policy lets every chart be drawn, and nothing complains."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not browser:
        print("     no Chromium here: the charts are not looked at")
        return
    report(make_run(f"{tmp}/drawn"))
    r = subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp}/profile",
                        "--virtual-time-budget=20000", "--enable-logging=stderr", "--dump-dom",
                        f"file://{tmp}/drawn/report.html"], capture_output=True, text=True, timeout=600)
    console = [line for line in r.stderr.splitlines() if "CONSOLE" in line]
    drawn = len(re.findall(r'<svg [^>]*class="marks"', r.stdout))
    case("a browser draws every chart and refuses nothing", drawn == 10 and not console, (drawn, console))


def main():
    with Folder() as tmp:
        page, faults = page_of(make_run(f"{tmp}/demo"))
        test_form(page, faults)
        test_colours(page)
        test_numbers(page)
        test_charts(page)
        test_sets(tmp)
        test_several(tmp)
        test_states(tmp)
        test_hostile(tmp)
        test_places(tmp)
        test_browser(tmp)
    with open(os.path.join(ROOT, "dev/report.png"), "rb") as f:
        picture = f.read()
    case("the picture for the README is a small PNG", picture[:4] == b"\x89PNG" and len(picture) < 200_000, len(picture))
    done()


main()
