#!/usr/bin/env python3
"""report.py: one page of HTML about a training run, or several side by side.

    scripts/report.py RUN [RUN...] [-o FILE]

RUN is a folder that train_c3 wrote (or one of c3 eval). The page (RUN/report.html) holds curves, settings, tables of
every evaluation and reconstructed pages with their errors marked. It is one file that needs no network.
"""
import argparse
import dataclasses
import html
import itertools
import json
import os
import re
import statistics
import sys

import jinja2
import vl_convert
from rapidfuzz.distance import Levenshtein

import charts
import runs as reading

HERE = os.path.dirname(os.path.abspath(__file__))
FIRST, WORST = 2, 4  # pages of an evaluation that are shown: as they come, then those that came back worst
LONGEST = 20000  # characters of a page that is shown: beyond, the alignment would take minutes
INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")

# key, name, explanation, how it is written
MEANS = [
    ("pages", "pages", "", "count"),
    ("tokens_per_latent", "text tokens a latent", "compression: how many tokens one latent stands for", "number"),
    ("char_precision", "character precision", "1 − edit distance / longer length, mean over pages", "share"),
    ("exact_match", "exact match", "pages without a single error", "share"),
    ("token_accuracy", "token accuracy", "teacher-forced: right when the text before is the true one", "share"),
    ("perplexity", "perplexity", "of the text, given its latents", "number"),
    ("word_precision", "word precision", "sets of words; of characters where Chinese occurs", "share"),
    ("word_recall", "word recall", "what Fox's own tool prints as precision", "share"),
    ("bleu4", "BLEU-4", "", "share"),
    ("rouge_l", "ROUGE-L", "F1", "share"),
]
CONTROLS = [
    (None, "from their own latents"),
    ("control_swapped_latents", "from the next page's latents"),
    ("control_no_latents", "from the mean of all latents"),
    ("control_zero_latents", "from latents of zeros"),
    ("decoder_alone", "without latents, given the true text before"),
]


# ---- how numbers are written ----------------------------------------------------------------------------------------


def count(value):
    return "–" if value is None else f"{value:,.0f}"


def number(value):
    """Three or four digits; thousands with commas, millions in words."""
    if value is None:
        return "–"
    for size, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}"
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 1e-3 else f"{value:.2e}"


def share(value):
    return "–" if value is None else f"{100 * value:.2f} %"


def duration(seconds):
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"


WRITERS = {"count": count, "number": number, "share": share}


# ---- a run in a few figures -----------------------------------------------------------------------------------------


def smoothed_loss(run):
    """Mean over the last fiftieth of the steps: single steps jump with their pages."""
    losses = [o["loss"] for o in run.steps if reading.number(o, "loss") is not None]
    return statistics.fmean(losses[-max(1, len(losses) // 50):]) if losses else None


def total(run, key):
    return sum(reading.number(o, key) or 0 for o in run.steps)


def facts(run):
    """[(name, value)] of the head: figures first, in the order in which people ask for them."""
    found = [(f"characters right, {e.name}", share(e.number("char_precision"))) for e in run.evaluations[:2]]
    if run.evaluations:
        found.append(("text tokens a latent", number(run.evaluations[0].number("tokens_per_latent"))))
    if run.validations:
        last = run.validations[-1]
        found.append(("validation loss", number(reading.number(last, "val_loss"))))
        found.append(("validation tokens right", share(reading.number(last, "val_token_accuracy"))))
    if run.steps:
        last, planned = run.steps[-1]["step"], reading.number(run.settings, "steps")
        found.append(("training loss, smoothed", number(smoothed_loss(run))))
        found.append(("steps", count(last) if not planned or last >= planned else f"{last:,} of {planned:,.0f}"))
        found.append(("spent in steps", duration(total(run, "ms") / 1000)))
        found.append(("text tokens seen", number(total(run, "tokens"))))
    return found


def stack(config):
    if not config:
        return None
    heads, kv = config.get("num_attention_heads"), config.get("num_key_value_heads")
    return (f"{config.get('num_hidden_layers')} layers, width {config.get('hidden_size')}, {heads}/{kv} heads, "
            f"MLP {config.get('intermediate_size')}")


def origin(run):
    """Where it came from: what the log and the run's own record say."""
    o, found = run.origin, []
    times = [s["time"] for s in run.steps if isinstance(s.get("time"), str)]
    if times:
        found.append(("trained", times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"))
    for key, name in (("host", "host"), ("device", "device"), ("build", "program"), ("command", "command")):
        if isinstance(o.get(key), str) and o[key]:
            found.append((name, o[key]))
    if reading.number(run.state, "ranks"):
        found.append(("ranks", count(run.state["ranks"])))
    return found


def settings(run):
    """[(name, value)] of what kind of model and run it was."""
    s, c = run.settings, run.config
    rows = [("encoder", stack(run.encoder)), ("decoder", stack(c)),
            ("latents", f"{c['latent_token_len']} a page" if "latent_token_len" in c else None),
            ("vocabulary", f"{c['vocab_size']:,}" if "vocab_size" in c else None),
            ("template", c.get("c3_template", "c3") if c else None), ("checkpoint", run.checkpoint)]
    if s:
        pages = s.get("pages_a_step")
        rows.append(("steps", count(s.get("steps")) + (f" of {pages} pages" if pages else "")))
        rows.append(("learning rate", f"{number(s.get('lr'))}, {s.get('schedule')}, {count(s.get('warmup'))} steps of "
                                      "warmup"))
    return [(name, value) for name, value in rows if value]


# ---- tables ---------------------------------------------------------------------------------------------------------


def means_table(evaluations):
    rows = []
    for key, name, what, kind in MEANS:
        values = [e.number(key) for e in evaluations]
        if any(v is not None for v in values):
            rows.append((name, what, [WRITERS[kind](v) for v in values]))
    return rows


def bar(value, floor):
    """A share with the length of its bar in per cent of the cell; bars start at the floor, which the table names."""
    width = 0 if value is None else 100 * max(0.0, min(1.0, (value - floor) / (1 - floor)))
    return {"text": share(value), "width": f"{width:.2f}"}


def bucket_table(evaluation):
    buckets = [b for b in evaluation.summary.get("buckets", []) if b.get("pages")]
    lengths = {(b["from"], b["to"]) for b in buckets}
    published = [t for t in evaluation.summary.get("published", [])
                 if any((b["from"], b["to"]) in lengths for b in t["buckets"])]
    floor = charts.share_floor([b.get("char_precision") for b in buckets])
    rows = []
    for b in buckets:
        beside = [next((share(p["precision"]) for p in t["buckets"] if (p["from"], p["to"]) == (b["from"], b["to"])),
                       "–") for t in published]
        rows.append({"length": f"{b['from']:,}–{b['to']:,}", "pages": count(b["pages"]),
                     "compression": f"{b['compression']:.1f}×", "precision": bar(b.get("char_precision"), floor),
                     "beside": beside})
    return {"rows": rows, "floor": floor, "published": [t["name"] for t in published]}


def control_table(evaluation):
    rows = []
    for key, name in CONTROLS:
        o = evaluation.summary if key is None else evaluation.summary.get(key)
        if isinstance(o, dict):
            rows.append((name, bar(reading.number(o, "char_precision"), 0), share(reading.number(o, "token_accuracy"))))
    return rows if len(rows) > 1 else []


# ---- pages ----------------------------------------------------------------------------------------------------------


def visible(text):
    """Escaped for HTML; what could change how the text around it reads becomes a box."""
    return html.escape(INVISIBLE.sub("\ufffd", text))


def mark(parts):
    """HTML of [(text, tag or None)]; a line end among the errors is shown as an arrow."""
    out = []
    for text, tag in parts:
        shown = visible(text)
        out.append(f"<{tag}>{shown.replace(chr(10), '↵' + chr(10))}</{tag}>" if tag and text else shown)
    return "".join(out)


def page_view(page):
    original, written = page["text"], page["reconstruction"]
    view = {"id": page.get("id", ""), "tokens": page.get("tokens"), "latents": page.get("latents")}
    if max(len(original), len(written)) > LONGEST:
        return dict(view, verdict="too long to compare here", original=visible(original[:LONGEST]),
                    written=visible(written[:LONGEST]))
    codes = Levenshtein.opcodes(original, written)
    same = [c.tag == "equal" for c in codes]
    wrong = Levenshtein.distance(original, written)
    verdict = "exact" if not wrong else (f"{wrong:,} wrong character{'s' * (wrong > 1)}, precision "
                                         f"{share(1 - wrong / max(len(original), len(written)))}")
    return dict(view, verdict=verdict,
                original=mark((original[c.src_start:c.src_end], None if ok else "del") for c, ok in zip(codes, same)),
                written=mark((written[c.dest_start:c.dest_end], None if ok else "ins") for c, ok in zip(codes, same)))


def chosen_pages(evaluation, notes):
    """The first pages of the file, then those that came back worst of all the others."""
    try:
        pages = list(evaluation.pages())
    except OSError:
        notes.append(f"{evaluation.name}: no pages.jsonl: no reconstructions")
        return None
    rest = [p for p in pages[FIRST:] if reading.number(p, "char_precision") is not None]
    worst = sorted((p for p in rest if p["char_precision"] < 1), key=lambda p: p["char_precision"])[:WORST]
    return {"name": evaluation.name, "total": len(pages), "first": [page_view(p) for p in pages[:FIRST]],
            "worst": [page_view(p) for p in worst]}


# ---- the page -------------------------------------------------------------------------------------------------------


def chart_list(all_runs):
    """[(id, title, note, wide, Altair chart)]"""
    logged = [r for r in all_runs if r.steps]
    found = [("loss", "Loss", "cross entropy a token; the line is the mean of neighbouring steps, the band reaches from "
              "the least to the greatest of them" + ("; dashed: validation, whole pages"
                                                     if any(r.validations for r in logged) else ""), True,
              charts.loss(logged)),
             ("lr", "Learning rate", "", False, charts.curve(logged, "lr", form=".2e", axis_form=".1~e")),
             ("norm", "Gradient norm, before clipping", "", False, charts.curve(logged, "grad_norm", log=True)),
             ("speed", "Text tokens a second", "", False, charts.curve(logged, "tokens_per_second", form=",.0f")),
             ("memory", "Memory of a rank, MB", "", False, charts.curve(logged, "memory_mb", form=",.0f"))]
    return [c for c in found if c[4] is not None]


def data_for_script(value):
    """JSON that can stand inside <script>: no "</" and no line ends that JavaScript knows and JSON does not."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def render(all_runs, command):
    # With the run's name in front where there are several.
    evaluations = [dataclasses.replace(e, name=f"{run.name}, {e.name}") if len(all_runs) > 1 else e
                   for run in all_runs for e in run.evaluations]
    notes = [f"{run.name}: {note}" if len(all_runs) > 1 else note for run in all_runs for note in run.notes]
    training = chart_list(all_runs)
    position = charts.by_position(evaluations)
    lengths = [(e, charts.precision_by_length(e)) for e in evaluations]
    specs = {f"chart-{name}": charts.specification(chart) for name, _, _, _, chart in training}
    if position is not None:
        specs["chart-position"] = charts.specification(position)
    for i, (_, chart) in enumerate(lengths):
        if chart is not None:
            specs[f"chart-length-{i}"] = charts.specification(chart)
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True,
                                     lstrip_blocks=True)
    page = environment.get_template("report.html.j2")
    colours = itertools.cycle(charts.RUN_COLOURS)
    names = dict.fromkeys(name for run in all_runs for name, _ in facts(run))
    return page.render(
        title=" and ".join(r.name for r in all_runs), fact_names=list(names),
        runs=[{"name": r.name, "colour": next(colours), "facts": facts(r), "origin": origin(r),
               "settings": settings(r), "options": sorted(r.settings.items())} for r in all_runs],
        training=training, has_position=position is not None,
        evaluations=[{"name": e.name, "model": e.summary.get("model", ""), "source": e.summary.get("source", ""),
                      "perturb": e.summary.get("perturb", "none"), "chart": chart is not None,
                      "buckets": bucket_table(e), "controls": control_table(e)} for e, chart in lengths],
        means=means_table(evaluations), pages=[p for p in (chosen_pages(e, notes) for e in evaluations) if p],
        notes=notes, command=command, specs=data_for_script(specs),
        script=vl_convert.javascript_bundle() if specs else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0].split(": ", 1)[1])
    parser.add_argument("run", nargs="+", help="a folder that train_c3 or c3 eval wrote")
    parser.add_argument("-o", metavar="FILE", help="the page; default: RUN/report.html of the first run")
    arguments = parser.parse_args()
    output = arguments.o or os.path.join(arguments.run[0], "report.html")
    try:
        found = [reading.read_run(folder) for folder in arguments.run]
        reading.write_whole(output, render(found, "scripts/report.py " + " ".join(arguments.run)))
    except ValueError as e:
        sys.exit(f"report.py: {e}")
    except OSError as e:
        sys.exit(f"report.py: {output}: {e.strerror}")
    print(f"report: {output}")


if __name__ == "__main__":
    main()
