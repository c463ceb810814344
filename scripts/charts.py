"""charts.py: the charts of the report and of the plots, as Vega-Lite (Altair). The report draws them in the browser,
with hover and zoom, on colours of its own style sheet; scripts/plot.py as PNG and SVG."""
import re

import altair as alt

from runs import clean, is_number, set_names

alt.data_transformers.disable_max_rows()

# By day and by night. A chart holds the first of each; the report's style sheet puts the second in its place.
PALETTE = [("#1f5fa8", "#78b0ee"), ("#c4500e", "#f2a065"), ("#2c7a51", "#77c79b"), ("#7b4bb0", "#c3a0f0"),
           ("#a8284f", "#f08bab"), ("#6f5f00", "#d4c25a"), ("#00727a", "#5cc8d0"), ("#5c5f66", "#b4b8bf")]
COLOURS = [day for day, _ in PALETTE]
BLUE, ORANGE = COLOURS[:2]
GREY = "#8a8f96"
PUBLISHED = ["#8fb8de", "#b9d3ea", "#dde9f5", "#f2b382", "#f8d5b8"]  # C3 with 32, 64, 100 latents; DeepSeek-OCR
POINTS = 250  # a curve: more would not be seen, and the page has to stay small

CONFIG = {
    "background": "transparent",
    "font": "system-ui, 'Segoe UI', Roboto, 'Noto Sans', 'Noto Sans CJK SC', sans-serif",
    "view": {"stroke": None},
    "axis": {"gridColor": "#8a8f9633", "domain": False, "tickColor": "#8a8f9666", "labelColor": GREY,
             "titleColor": GREY, "titleFontWeight": "normal", "labelFontSize": 11, "titleFontSize": 11},
    "axisX": {"grid": False},
    "legend": {"labelColor": GREY, "title": None, "orient": "top", "symbolType": "stroke", "symbolStrokeWidth": 3,
               "symbolOpacity": 1},
    "text": {"color": GREY, "fontSize": 11},
}


def data(rows):
    """Five digits of a number: what a chart shows, in half the bytes."""
    return alt.Data(values=[{k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in row.items()}
                            for row in rows])


def rows_of(runs, key):
    """At most POINTS means of neighbouring steps a run, with the least and the greatest of each."""
    for run in runs:
        kept = [(p["step"], p[key]) for p in run.steps if key in p]
        size = max(1, -(-len(kept) // POINTS))
        for at in range(0, len(kept), size):
            values = [v for _, v in kept[at:at + size]]
            yield {"run": run.name, "step": kept[at + len(values) - 1][0], "mean": sum(values) / len(values),
                   "least": min(values), "most": max(values)}


def colour_by(names, field, colours=COLOURS, **legend):
    colours = [colours[i % len(colours)] for i in range(len(names))]
    return alt.Color(f"{field}:N", scale=alt.Scale(domain=names, range=colours),
                     legend=None if len(names) == 1 else alt.Legend(**legend))


def run_colours(runs):
    """Those of the page, also where only some of its runs have such a curve."""
    return colour_by([r.name for r in runs], "run", [COLOURS[r.colour % len(COLOURS)] for r in runs])


def number_axis(log, title=None, form=",~f"):
    """From zero; or logarithmic: 1, 2, 5 of each ten, and it ends where the numbers do."""
    if log:
        ticks = [f * 10.0 ** k for k in range(-12, 13) for f in (1, 2, 5)]
        return alt.Y("mean:Q", title=title, scale=alt.Scale(type="log", nice=False, padding=6),
                     axis=alt.Axis(values=ticks, format="~g", labelOverlap=True))
    return alt.Y("mean:Q", title=title, scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=4, format=form))


def step_axis(**more):
    return alt.X("step:Q", scale=alt.Scale(nice=False), axis=alt.Axis(tickCount=8, format=",~f"), **more)


def tips(*more):
    return [alt.Tooltip("run:N"), alt.Tooltip("step:Q", format=","), *more]


def loss(runs):
    """Training loss (mean of neighbouring steps; the band holds every single step) and validation loss. None: no log."""
    train = list(rows_of(runs, "loss"))
    if not train:
        return None
    colour, x = run_colours(runs), step_axis(title="step")
    y = number_axis(min(r["least"] for r in train) > 0, "nats a token")
    base = alt.Chart(data(train))
    tip = tips(alt.Tooltip("mean:Q", title="loss", format=".4f"), alt.Tooltip("least:Q", format=".4f"),
               alt.Tooltip("most:Q", format=".4f"))
    # A layer of its own, so that its data stand in the page once.
    layers = [alt.layer(base.mark_area(opacity=0.18).encode(x=x, y=alt.Y("least:Q"), y2="most:Q", color=colour),
                        base.mark_line(strokeWidth=2).encode(x=x, y=y, color=colour),
                        base.mark_point(size=180, opacity=0).encode(x=x, y=y, tooltip=tip))]
    validation = [{"step": o["step"], "val_loss": o["val_loss"], "run": run.name} for run in runs
                  for o in run.validations if "val_loss" in o]
    if validation:
        layers.append(alt.Chart(data(validation)).mark_line(
            strokeDash=[5, 3], point=alt.OverlayMarkDef(size=45, filled=True)).encode(
                x=x, y=alt.Y("val_loss:Q"), color=alt.value(ORANGE) if len(runs) == 1 else colour,
                tooltip=tips(alt.Tooltip("val_loss:Q", title="validation loss", format=".4f"))))
    layers += whole_pages(runs)
    # Drag to move, pinch or Ctrl and wheel to zoom, double click to return: along the steps alone. The wheel by itself
    # scrolls the page.
    zoom = alt.selection_interval(bind="scales", encodings=["x"], name="steps", zoom="wheel![event.ctrlKey]")
    return alt.layer(*layers).add_params(zoom).properties(height=300)


def validations(runs, key_of, title, form):
    """A curve of the validations, a line for each (key, name) of key_of(run); None where there is nothing."""
    lines = [(run, key, f"{run.name}, {name}" if name and len(runs) > 1 else name or run.name)
             for run in runs for key, name in key_of(run)]
    rows = [{"step": o["step"], "value": o[key], "line": line} for run, key, line in lines for o in run.validations
            if key in o]
    if not rows:
        return None
    names = list(dict.fromkeys(r["line"] for r in rows))
    y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4))
    return alt.Chart(data(rows)).mark_line(point=alt.OverlayMarkDef(size=45, filled=True)).encode(
        x=step_axis(title=None), y=y, color=colour_by(names, "line"),
        tooltip=[alt.Tooltip("line:N"), alt.Tooltip("step:Q", format=","), alt.Tooltip("value:Q", title=title, format=form)],
    ).properties(height=200)


def validation_sets(runs):
    """Validation loss of each named set of pages."""
    return validations(runs, lambda run: [("val_loss_" + s, clean(s)) for s in set_names(run.validations, "val_loss_")],
                       "validation loss", ".4f")


def plain_text(runs):
    """Perplexity of the decoder alone."""
    return validations(runs, lambda run: [("val_lm_perplexity", "")], "perplexity on plain text", ".4g")


def whole_pages(runs):
    """Where -len_warmup ends, of a run that stands alone."""
    settings = runs[0].settings
    share, steps = settings.get("len_warmup"), settings.get("steps")
    if len(runs) > 1 or not is_number(share) or not is_number(steps) or share * steps <= 0:
        return []
    rule = alt.Chart(data([{"step": share * steps}])).encode(x="step:Q")
    return [rule.mark_rule(strokeDash=[4, 4], color=GREY),
            rule.mark_text(align="left", dx=6, baseline="top", text="pages whole from here").encode(y=alt.value(2))]


def curve(runs, key, log=False, form=",.3~f", axis_form=",~f"):
    """One number of the log over the steps, from zero; None where no run has it."""
    rows = [{k: r[k] for k in ("run", "step", "mean")} for r in rows_of(runs, key)]
    if not rows:
        return None
    y = number_axis(log and min(r["mean"] for r in rows) > 0, form=axis_form)
    base = alt.Chart(data(rows)).encode(x=step_axis(title=None), y=y, color=run_colours(runs))
    point = base.mark_point(size=150, opacity=0).encode(tooltip=tips(alt.Tooltip("mean:Q", title=key, format=form)))
    return alt.layer(base.mark_line(strokeWidth=2), point).properties(height=150)


def share_floor(values):
    """Where an axis of shares starts, so that bars and lines can be told apart: 0, or a round number below the least."""
    least = min((v for v in values if v is not None), default=0)
    for floor in (0.99, 0.98, 0.95, 0.9, 0.8, 0.5):
        if least >= floor + 0.2 * (1 - floor):
            return floor
    return 0.0


def share_axis(field, values, title):
    floor = share_floor(values)
    title += f" (axis starts at {floor:.0%})" if floor else ""
    return alt.Y(field, title=title, scale=alt.Scale(domain=[floor, 1], clamp=True),
                 axis=alt.Axis(format="~%", tickCount=5))


def span(bucket):
    return f"{bucket['from']:,.0f}–{bucket['to']:,.0f}"


def bucket_rows(evaluation):
    """Ours and, where the lengths are the paper's, what is published: one row a bar."""
    ours = [b for b in evaluation.buckets if b["pages"]]
    spans = {span(b) for b in ours}
    latents = evaluation.number("latents")
    name = "this model" + (f", {latents:,.0f} latents" if latents else "")
    rows = [{"length": span(b), "from": b["from"], "pages": b["pages"], "series": name, "ours": True,
             "precision": b.get("char_precision"), "compression": b.get("compression")} for b in ours]
    return rows + [{"length": span(b), "from": b["from"], "pages": None, "series": table["name"] + " *", "ours": False,
                    "precision": b["precision"], "compression": b.get("compression")}
                   for table in evaluation.published for b in table["buckets"] if span(b) in spans]


def precision_by_length(evaluation):
    """Bars: precision by length of the page; line: compression. The paper's Figure 1, its figures beside ours where the
    lengths are the paper's. None without buckets."""
    rows = bucket_rows(evaluation)
    if not rows:
        return None
    names = list(dict.fromkeys(r["series"] for r in rows))
    lengths = list(dict.fromkeys(r["length"] for r in sorted(rows, key=lambda r: r["from"])))
    x = alt.X("length:N", sort=lengths, title="text tokens of the page", axis=alt.Axis(labelAngle=0))
    tip = [alt.Tooltip("series:N"), alt.Tooltip("length:N", title="tokens"), alt.Tooltip("pages:Q", format=","),
           alt.Tooltip("precision:Q", format=".2%"), alt.Tooltip("compression:Q", format=".1f")]
    bars = alt.Chart(data(rows)).mark_bar(cornerRadiusEnd=2).encode(
        x=x, xOffset=alt.XOffset("series:N", sort=names), tooltip=tip,
        y=share_axis("precision:Q", [r["precision"] for r in rows], "character precision"),
        color=colour_by(names, "series", [BLUE, *PUBLISHED], symbolType="square", columns=3))
    line = alt.Chart(data(r for r in rows if r["ours"])).mark_line(
        color=GREY, point=alt.OverlayMarkDef(color=GREY, size=40), strokeWidth=1.5).encode(
            x=x, y=alt.Y("compression:Q", title="text tokens a latent (line)", scale=alt.Scale(zero=True),
                         axis=alt.Axis(grid=False, tickCount=5)), tooltip=tip)
    return alt.layer(bars, line).resolve_scale(y="independent").properties(height=240)


def by_position(evaluations):
    """Share of characters that came back in each twentieth of the page: the paper's Figure 5, which shows no data, in
    numbers. None where no evaluation has it."""
    rows = [{"place": (i + 0.5) / len(e.by_position), "share": v, "evaluation": e.name}
            for e in evaluations for i, v in enumerate(e.by_position) if v is not None]
    if not rows:
        return None
    names = list(dict.fromkeys(r["evaluation"] for r in rows))
    tip = [alt.Tooltip("evaluation:N"), alt.Tooltip("place:Q", title="place in the page", format=".0%"),
           alt.Tooltip("share:Q", title="characters that came back", format=".2%")]
    return alt.Chart(data(rows)).mark_line(point=alt.OverlayMarkDef(size=45, filled=True)).encode(
        x=alt.X("place:Q", title="place in the page, from its beginning to its end", scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format="~%", tickCount=10)),
        y=share_axis("share:Q", [r["share"] for r in rows], "characters that came back"),
        color=colour_by(names, "evaluation"), tooltip=tip).properties(height=240)


NEEDLE = re.compile(r"needle/(\d+)/(\d+)/\d+")  # ids of data/needles.py


def needle_cells(evaluation):
    """{(length, depth): (right answers, questions)} of a needle test; an answer is right when it is exact."""
    cells = {}
    for page in evaluation.pages():
        if found := NEEDLE.fullmatch(page["id"]):
            place = int(found[1]), int(found[2])
            right, asked = cells.get(place, (0, 0))
            cells[place] = right + (page.get("exact") is True), asked + 1
    return cells


def needles(evaluation):
    """Share of right answers by length of the document and depth of the fact. None where no page is of a needle test."""
    rows = [{"length": length, "depth": depth, "share": right / asked, "questions": asked}
            for (length, depth), (right, asked) in sorted(needle_cells(evaluation).items())]
    if not rows:
        return None
    cell = alt.Chart(data(rows)).encode(
        x=alt.X("length:O", title="tokens of the document", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("depth:O", title="depth of the fact, %"),
        tooltip=[alt.Tooltip("length:O"), alt.Tooltip("depth:O"), alt.Tooltip("share:Q", title="right", format=".1%"),
                 alt.Tooltip("questions:Q")])
    colour = alt.Color("share:Q", scale=alt.Scale(domain=[0, 1], range=["#ffffff", BLUE]), legend=None)
    text = cell.mark_text().encode(text=alt.Text("share:Q", format=".0%"), color=alt.condition(
        "datum.share > 0.5", alt.value("#ffffff"), alt.value(GREY)))
    return alt.layer(cell.mark_rect().encode(color=colour), text).properties(height=240)


def interval_chart(rows, x, y, tip):
    """Points with their intervals low..high, a series beside the other."""
    names = list(dict.fromkeys(r["evaluation"] for r in rows))
    base = alt.Chart(data(rows)).encode(x=x, xOffset=alt.XOffset("evaluation:N", sort=names),
                                        color=colour_by(names, "evaluation"), tooltip=tip)
    return alt.layer(base.mark_rule(strokeWidth=2, opacity=0.5).encode(y=y("low:Q"), y2="high:Q"),
                     base.mark_point(filled=True, size=60, opacity=1).encode(y=y("share:Q"))).properties(height=240)


def errors_by_kind(evaluations):
    """Share of the characters of each kind of text that did not come back. None where no evaluation has it."""
    rows = [{"kind": kind_name(k), "evaluation": e.name, "share": k["rate"], "low": k["low"], "high": k["high"],
             "characters": k["characters"]} for e in evaluations for k in e.kinds if "rate" in k]
    if not rows:
        return None
    tip = [alt.Tooltip("evaluation:N"), alt.Tooltip("kind:N"), alt.Tooltip("characters:Q", format=","),
           alt.Tooltip("share:Q", title="lost", format=".2%"), alt.Tooltip("low:Q", format=".2%"),
           alt.Tooltip("high:Q", format=".2%")]
    x = alt.X("kind:N", sort=list(dict.fromkeys(r["kind"] for r in rows)), title=None, axis=alt.Axis(labelAngle=0))
    y = lambda field: alt.Y(field, title="characters lost (95 % interval)", axis=alt.Axis(format="~%", tickCount=5))
    return interval_chart(rows, x, y, tip)


def kind_name(kind):
    """With a star where there is little of it."""
    return kind["kind"].replace("_", " ") + (" *" if kind["few"] else "")


def confidence(evaluations):
    """Share of exact pages by the decoder's confidence in them. None where no evaluation has it."""
    rows = [{"place": f"{i + 1} of {len(e.bins)}", "evaluation": e.name, "share": b["exact"] / b["pages"], **b}
            for e in evaluations for i, b in enumerate(e.bins)]
    if not rows:
        return None
    tip = [alt.Tooltip("evaluation:N"), alt.Tooltip("from:Q", title="mean ln p from", format=".2g"),
           alt.Tooltip("to:Q", format=".2g"), alt.Tooltip("pages:Q", format=","),
           alt.Tooltip("share:Q", title="exact", format=".1%"), alt.Tooltip("expected:Q", format=".1%"),
           alt.Tooltip("char_precision:Q", title="character precision", format=".2%")]
    x = alt.X("place:N", sort=list(dict.fromkeys(r["place"] for r in rows)), axis=alt.Axis(labelAngle=0),
              title="pages in equal parts, the least confident first")
    y = lambda field: alt.Y(field, title="exact pages (95 % interval)", scale=alt.Scale(domain=[0, 1]),
                            axis=alt.Axis(format="~%", tickCount=5))
    return interval_chart(rows, x, y, tip)


def specification(chart, width="container"):
    """Vega-Lite as a dict, with the look all charts share."""
    spec = chart.properties(width=width).to_dict()
    spec["config"] = CONFIG
    spec["autosize"] = {"type": "fit", "contains": "padding"}
    return spec
