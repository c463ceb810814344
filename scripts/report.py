#!/usr/bin/env python3
"""report.py: one page of HTML about a training run, or several side by side.

    scripts/report.py RUN [RUN...] [-o FILE]

RUN is a folder that train_c3 wrote (or one of c3 eval). The page (RUN/report.html) holds curves, settings, tables of
every evaluation and reconstructed pages with their errors marked. It is one file that needs no network.
"""
import argparse
import base64
import dataclasses
import hashlib
import json
import os
import statistics
import sys

import jinja2
import markupsafe
import vl_convert
from rapidfuzz.distance import Levenshtein

import charts
import runs as reading
from runs import clean, is_number

HERE = os.path.dirname(os.path.abspath(__file__))
FIRST, WORST = 2, 4  # pages of an evaluation that are shown: as they come, then those that came back worst
LONGEST = 20000  # characters of a page that is shown
ROOM = 150000  # characters of all pages that are shown: the report has to stay small
LONGEST_VALUE = 1000  # characters of an option or a name

# key, name, explanation, how it is written
MEANS = [
    ("pages", "pages", "", "count"),
    ("tokens_per_latent", "text tokens a latent", "compression: how many tokens one latent stands for", "number"),
    ("char_precision", "character precision", "1 − edit distance / longer length, mean over pages", "share"),
    ("exact_match", "exact match", "pages without a single error", "share"),
    ("token_accuracy", "token accuracy", "teacher-forced: right when the text before is the true one", "share"),
    ("perplexity", "perplexity", "of the text, given its latents", "number"),
    ("word_precision", "word precision", "sets of words; of characters where Chinese occurs", "share"),
    ("word_recall", "word recall", "", "share"),
    ("fox_recall", "recall as Fox's tool counts it", "which prints it as precision", "share"),
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

# Draws every chart of the page, without eval.
DRAW = """
for (const [id, spec] of Object.entries(JSON.parse(document.getElementById("specs").textContent)))
  vegaEmbed(document.getElementById(id), spec,
            {renderer: "svg", actions: false, ast: true, defaultStyle: false, tooltip: {disableDefaultStyle: true}});
"""


# ---- how numbers are written ----------------------------------------------------------------------------------------


def count(value):
    return f"{value:,.0f}" if is_number(value) else "–"


def number(value):
    """Three or four digits; thousands with commas, millions in words."""
    if not is_number(value):
        return "–"
    for size, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}"
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 1e-3 else f"{value:.2e}"


def share(value):
    return f"{100 * value:.2f} %" if is_number(value) else "–"


def duration(seconds):
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"


WRITERS = {"count": count, "number": number, "share": share}


def shown(value):
    """Every value the page shows passes here before it is escaped for HTML."""
    if isinstance(value, markupsafe.Markup):
        return value
    text = clean(str(value), keep="\n\t")
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"


# ---- a run in a few figures -----------------------------------------------------------------------------------------


def smoothed_loss(run):
    """Mean over the last fiftieth of the steps: single steps jump with their pages."""
    losses = [o["loss"] for o in run.steps if "loss" in o]
    return statistics.fmean(losses[-max(1, len(losses) // 50):]) if losses else None


def total(run, key):
    return sum(o.get(key, 0) for o in run.steps)


def facts(run):
    """[(name, value)] of the head: figures first, in the order in which people ask for them."""
    found = [(f"characters right, {e.name}", share(e.number("char_precision"))) for e in run.evaluations[:2]]
    if run.evaluations:
        found.append(("text tokens a latent", number(run.evaluations[0].number("tokens_per_latent"))))
    of_pages = [o for o in run.validations if "val_loss" in o]
    if of_pages:
        first, last = of_pages[0], of_pages[-1]
        if first["step"] == 0 and last["step"] > 0:
            found.append(("validation loss before step 1", number(first["val_loss"])))
        found.append(("validation loss", number(last["val_loss"])))
        found += [(f"validation loss, {reading.clean(s)}", number(last.get("val_loss_" + s)))
                  for s in reading.set_names(of_pages, "val_loss_")]
        found.append(("validation tokens right", share(last.get("val_token_accuracy"))))
    of_text = [o for o in run.validations if "val_lm_perplexity" in o]
    if of_text:
        found.append(("perplexity on plain text", number(of_text[-1]["val_lm_perplexity"])))
        found.append(("and to that at the start", number(of_text[-1].get("val_lm_ratio")) + " times"))
    if run.steps:
        last, planned = run.steps[-1]["step"], reading.number(run.settings, "steps")
        found.append(("training loss, smoothed", number(smoothed_loss(run))))
        found.append(("steps", count(last) if not planned or last >= planned else f"{count(last)} of {count(planned)}"))
        found.append(("spent in steps", duration(total(run, "ms") / 1000)))
        found.append(("text tokens seen", number(total(run, "tokens"))))
        found += [(f"text tokens seen, {reading.clean(s)}", number(total(run, "data_tokens_" + s)))
                  for s in reading.set_names(run.steps[-1:], "data_tokens_")]
    return found


def origin(run):
    """[(name, value)] of where it came from: what the log and the run's own record say."""
    o, found = run.origin, []
    times = [s["time"] for s in run.steps if "time" in s]
    start = o["started"] if isinstance(o.get("started"), str) else times[0] if times else ""
    if start:
        found.append(("trained", start + (f" to {times[-1]}" if times and times[-1] != start else "")))
    ranks = reading.number(run.state, "ranks")
    host = o["host"] if isinstance(o.get("host"), str) else ""
    if host or ranks:
        found.append(("on", ", ".join(([host] if host else []) + ([f"{count(ranks)} rank{'s' * (ranks != 1)}"]
                                                                  if ranks else []))))
    found += [(name, o[key]) for key, name in (("build", "program"), ("command", "command"))
              if isinstance(o.get(key), str) and o[key]]
    return found


def stack(config):
    if not config:
        return None
    layers, width, heads, kv, mlp = (count(reading.number(config, key)) for key in (
        "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size"))
    return f"{layers} layers, width {width}, {heads}/{kv} heads, MLP {mlp}"


def settings(run):
    """[(name, value)] of what kind of model and run it was."""
    s, c = run.settings, run.config
    rows = [("encoder", stack(run.encoder)), ("decoder", stack(c))]
    if c:
        rows += [("latents a page", count(c.get("latent_token_len"))), ("vocabulary", count(c.get("vocab_size"))),
                 ("template", c.get("c3_template", "c3"))]
    rows.append(("checkpoint", run.checkpoint))
    if s:
        rows += [("steps planned", count(s.get("steps"))), ("peak learning rate", number(s.get("lr"))),
                 ("schedule", f"{s.get('schedule')}, {count(s.get('warmup'))} steps of warmup")]
    return [(name, value) for name, value in rows if value]


def option_rows(run):
    """Every option and its value; one that was given several times has several."""
    return [(name, " ".join(map(str, value)) if isinstance(value, list) else value) for name, value in run.settings.items()]


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
    width = 100 * max(0.0, min(1.0, (value - floor) / (1 - floor))) if is_number(value) else 0
    return {"text": share(value), "width": f"{width:.2f}"}


def bucket_table(evaluation):
    buckets = [b for b in evaluation.buckets if b["pages"]]
    beside = {t["name"]: {charts.span(b): share(b["precision"]) for b in t["buckets"]} for t in evaluation.published}
    spans = {charts.span(b) for b in buckets}
    beside = {name: table for name, table in beside.items() if spans & table.keys()}
    floor = charts.share_floor([b.get("char_precision") for b in buckets])
    rows = [{"length": charts.span(b), "pages": count(b["pages"]), "compression": f"{b.get('compression', 0):,.1f}",
             "precision": bar(b.get("char_precision"), floor),
             "beside": [table.get(charts.span(b), "–") for table in beside.values()]} for b in buckets]
    return {"rows": rows, "floor": f"{100 * floor:.0f} %" if floor else "", "published": list(beside)}


def kind_table(evaluation):
    return [(charts.kind_name(k), count(k["pages"]), count(k["characters"]), share(k.get("rate")),
             f"{share(k['low'])} – {share(k['high'])}" if "rate" in k else "–", count(k["added"])) for k in evaluation.kinds]


def confidence_table(evaluation):
    rows = [(f"{b['from']:.2g} to {b['to']:.2g}", count(b["pages"]), share(b["exact"] / b["pages"]),
             f"{share(b['low'])} – {share(b['high'])}", share(b["expected"]), share(b["char_precision"]))
            for b in evaluation.bins]
    found = evaluation.summary.get("confidence")
    pairs = reading.number(found, "auroc")
    few = ", too few to trust" if isinstance(found, dict) and found.get("few") is True else ""
    verdict = "" if pairs is None else (
        f"an exact page is more confident than one with errors in {share(pairs)} of all pairs "
        f"({count(reading.number(found, 'exact'))} exact, {count(reading.number(found, 'wrong'))} with errors{few})")
    return {"rows": rows, "verdict": verdict}


def control_table(evaluation):
    rows = []
    for key, name in CONTROLS:
        o = evaluation.summary if key is None else evaluation.summary.get(key)
        if isinstance(o, dict):
            rows.append((name, bar(reading.number(o, "char_precision"), 0), share(reading.number(o, "token_accuracy"))))
    return rows if len(rows) > 1 else []


# ---- pages ----------------------------------------------------------------------------------------------------------


def mark(parts):
    """HTML of [(text, tag or None)]; a line end among the errors is shown as an arrow."""
    out = []
    for text, tag in parts:
        escaped = markupsafe.escape(clean(text, keep="\n\t"))
        out.append(f"<{tag}>{escaped.replace(chr(10), '↵' + chr(10))}</{tag}>" if tag and text else escaped)
    return markupsafe.Markup("".join(out))


def page_view(page):
    original, written = page["text"], page["reconstruction"]
    view = {"id": page["id"], "tokens": count(reading.number(page, "tokens")),
            "latents": count(reading.number(page, "latents"))}
    if max(len(original), len(written)) > LONGEST:
        return dict(view, verdict=f"too long to compare here: the first {count(LONGEST)} characters",
                    original=mark([(original[:LONGEST], None)]), written=mark([(written[:LONGEST], None)]))
    codes = Levenshtein.opcodes(original, written)
    wrong = Levenshtein.distance(original, written)
    verdict = "exact" if not wrong else (f"{count(wrong)} wrong character{'s' * (wrong > 1)}, precision "
                                         f"{share(1 - wrong / max(len(original), len(written)))}")
    return dict(view, verdict=verdict,
                original=mark((original[c.src_start:c.src_end], None if c.tag == "equal" else "del") for c in codes),
                written=mark((written[c.dest_start:c.dest_end], None if c.tag == "equal" else "ins") for c in codes))


def chosen_pages(evaluations, notes):
    """Of each evaluation the first pages of the file, then those that came back worst of all the others."""
    room, sets = ROOM, []
    for e in evaluations:
        try:
            pages = list(e.pages())
        except OSError as error:
            notes.append(f"{e.name}: pages.jsonl: {error.strerror}: no reconstructions")
            continue
        rest = [p for p in pages[FIRST:] if (reading.number(p, "char_precision") or 0) < 1]
        worst = sorted(rest, key=lambda p: reading.number(p, "char_precision") or 0)[:WORST]
        views = []
        for p in pages[:FIRST] + worst:
            room -= sum(min(len(p[side]), LONGEST) for side in ("text", "reconstruction"))
            if room >= 0:
                views.append(page_view(p))
        if len(views) < len(pages[:FIRST] + worst):
            notes.append(f"{e.name}: {len(views)} reconstructions of {len(pages[:FIRST] + worst)}, to keep the page small")
        if views:
            sets.append({"name": e.name, "total": count(len(pages)), "pages": views,
                         "first": min(FIRST, len(pages), len(views)), "worst": max(0, len(views) - FIRST)})
    return sets


# ---- the page -------------------------------------------------------------------------------------------------------


def chart_list(all_runs):
    """[{"id", "title", "chart"}]; of the loss also "wide", "note", "keys_of_lines": what its three kinds of lines mean."""
    logged = [r for r in all_runs if r.steps]
    keys = [("line", "mean of neighbouring steps"), ("band", "from the least to the greatest of them")]
    if any(r.validations for r in logged):
        keys.append(("dash", "validation, whole pages"))
    found = [
        {"id": "loss", "title": "Loss", "note": "cross entropy, nats a token", "keys_of_lines": keys, "wide": True,
         "chart": charts.loss(logged)},
        {"id": "sets", "title": "Validation loss of each set", "chart": charts.validation_sets(logged)},
        {"id": "plain", "title": "Perplexity on plain text, the decoder alone", "chart": charts.plain_text(logged)},
        {"id": "lr", "title": "Learning rate", "chart": charts.curve(logged, "lr", form=".2e", axis_form="~e")},
        {"id": "norm", "title": "Gradient norm, before clipping", "chart": charts.curve(logged, "grad_norm", log=True)},
        {"id": "speed", "title": "Text tokens a second", "chart": charts.curve(logged, "tokens_per_second")},
        {"id": "memory", "title": "Memory of a rank, MB", "chart": charts.curve(logged, "memory_mb")},
    ]
    return [c for c in found if c["chart"] is not None]


def data_for_script(value):
    """JSON that can stand inside <script>."""
    return markupsafe.Markup(json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))


def render(all_runs, command):
    several = len(all_runs) > 1
    evaluations = [dataclasses.replace(e, name=f"{run.name}, {e.name}") if several else e
                   for run in all_runs for e in run.evaluations]
    notes = [f"{run.name}: {note}" if several else note for run in all_runs for note in run.notes]
    training = chart_list(all_runs)
    drawn = {f"chart-{c['id']}": c["chart"] for c in training} | {"chart-position": charts.by_position(evaluations), "chart-kinds": charts.errors_by_kind(evaluations),
        "chart-confidence": charts.confidence(evaluations)}
    for i, e in enumerate(evaluations):
        drawn[f"chart-length-{i}"] = charts.precision_by_length(e)
    specs = {name: charts.specification(chart) for name, chart in drawn.items() if chart is not None}
    script = vl_convert.javascript_bundle() + DRAW if specs else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    figures = [facts(run) for run in all_runs]
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True, finalize=shown,
                                     undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("report.html.j2").render(
        title=" and ".join(r.name for r in all_runs), palette=charts.PALETTE, digest=digest,
        fact_names=list(dict.fromkeys(name for found in figures for name, _ in found)),
        runs=[{"name": r.name, "colour": r.colour % len(charts.PALETTE), "facts": found, "origin": origin(r),
               "settings": settings(r), "options": sorted(option_rows(r))}
              for r, found in zip(all_runs, figures, strict=True)],
        training=training, charts=specs,
        evaluations=[{"name": e.name, "model": e.text("model"), "source": e.text("source"), "perturb": e.text("perturb"),
                      "chart": f"chart-length-{i}", "buckets": bucket_table(e), "controls": control_table(e),
                      "kinds": kind_table(e), "confidence": confidence_table(e)}
                     for i, e in enumerate(evaluations)],
        means=means_table(evaluations), pages=chosen_pages(evaluations, notes), notes=notes, command=command,
        specs=data_for_script(specs), script=markupsafe.Markup(script))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0].split(": ", 1)[1])
    parser.add_argument("run", nargs="+", help="a folder that train_c3 or c3 eval wrote")
    parser.add_argument("-o", metavar="FILE", help="the page, - is stdout; default: RUN/report.html of the first run")
    arguments = parser.parse_args()
    output = arguments.o or os.path.join(arguments.run[0], "report.html")
    try:
        found = reading.read_runs(arguments.run)
        reading.write_whole(output, render(found, "scripts/report.py " + " ".join(arguments.run)))
    except ValueError as e:
        sys.exit(f"report.py: {e}")
    except OSError as e:
        sys.exit(f"report.py: {clean(output)}: {e.strerror}")
    if output != "-":
        print(f"report: {clean(output)}")


if __name__ == "__main__":
    main()
