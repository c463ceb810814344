"""charts.py: the charts of the report and of the plots, as Vega-Lite (Altair). The report draws them in the browser,
with hover and zoom, on colours of its own style sheet; scripts/plot.py as PNG and SVG."""
import altair as alt

alt.data_transformers.disable_max_rows()

BLUE, ORANGE, GREEN, VIOLET, GREY = "#1f5fa8", "#c4500e", "#2c7a51", "#7b4bb0", "#8a8f96"
RUN_COLOURS = [BLUE, ORANGE, GREEN, VIOLET]
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


def bins(points, key):
    """At most POINTS means of neighbouring steps, with the least and the greatest of each."""
    kept = [(p["step"], p[key]) for p in points if isinstance(p.get(key), (int, float))]
    size = max(1, -(-len(kept) // POINTS))
    for at in range(0, len(kept), size):
        values = [v for _, v in kept[at:at + size]]
        yield {"step": kept[at + len(values) - 1][0], "mean": sum(values) / len(values), "least": min(values),
               "most": max(values)}


def rows_of(runs, key, lines="steps"):
    return [dict(row, run=run.name) for run in runs for row in bins(getattr(run, lines), key)]


def colour_by(runs, field="run"):
    names = [r.name for r in runs]
    return alt.Color(f"{field}:N", scale=alt.Scale(domain=names, range=(RUN_COLOURS * len(names))[:len(names)]),
                     legend=None if len(names) == 1 else alt.Legend())


def number_axis(title=None, zero=False, log=False, form="~s"):
    """A logarithmic axis names the tens alone and ends where the numbers do."""
    if log:
        tens = [10.0 ** k for k in range(-9, 10)]
        return dict(title=title, scale=alt.Scale(type="log", nice=False, padding=6),
                    axis=alt.Axis(values=sorted(v * f for v in tens for f in (1, 3)), format="~g"))
    return dict(title=title, scale=alt.Scale(zero=zero, nice=True), axis=alt.Axis(tickCount=4, format=form))


def zoomable(name):
    """Drag to move, wheel to zoom, double click to return: along the steps alone."""
    return alt.selection_interval(bind="scales", encodings=["x"], name=name)


def loss(runs):
    """Training loss (mean of neighbouring steps; the band holds every single step) and validation loss; None: no log."""
    train = rows_of(runs, "loss")
    if not train:
        return None
    x = alt.X("step:Q", title="step", scale=alt.Scale(nice=False))
    log = min(r["least"] for r in train) > 0
    y = alt.Y("mean:Q", **number_axis("nats a token", log=log, form="~g"))
    base = alt.Chart(alt.Data(values=train))
    tip = [alt.Tooltip("run:N"), alt.Tooltip("step:Q", format=","), alt.Tooltip("mean:Q", title="loss", format=".4f"),
           alt.Tooltip("least:Q", format=".4f"), alt.Tooltip("most:Q", format=".4f")]
    layers = [base.mark_area(opacity=0.18).encode(x=x, y=alt.Y("least:Q"), y2="most:Q", color=colour_by(runs)),
              base.mark_line(strokeWidth=2).encode(x=x, y=y, color=colour_by(runs)),
              base.mark_point(size=180, opacity=0).encode(x=x, y=y, tooltip=tip)]
    kinds = [r["val_loss"] for run in runs for r in run.validations if r.get("val_loss") is not None]
    if kinds:
        values = [{"step": o["step"], "loss": o["val_loss"], "run": run.name} for run in runs for o in run.validations
                  if o.get("val_loss") is not None]
        colour = alt.value(ORANGE) if len(runs) == 1 else colour_by(runs)
        layers.append(alt.Chart(alt.Data(values=values)).mark_line(
            strokeDash=[5, 3], point=alt.OverlayMarkDef(size=45, filled=True)).encode(
                x=x, y=alt.Y("loss:Q"), color=colour,
                tooltip=[alt.Tooltip("run:N"), alt.Tooltip("step:Q", format=","),
                         alt.Tooltip("loss:Q", title="validation loss", format=".4f")]))
    marks = [{"step": run.settings["len_warmup"] * run.settings["steps"]} for run in runs
             if (run.settings.get("len_warmup") or 0) > 0 and run.settings.get("steps")]
    if marks and len(runs) == 1:
        rule = alt.Chart(alt.Data(values=marks))
        layers.append(rule.mark_rule(strokeDash=[4, 4], color=GREY).encode(x="step:Q"))
        layers.append(rule.mark_text(align="left", dx=6, baseline="top", text="pages whole from here").encode(
            x="step:Q", y=alt.value(2)))
    return alt.layer(*layers).add_params(zoomable("steps")).properties(height=300)


def curve(runs, key, log=False, form=".3~g", axis_form="~s"):
    """One number of the log over the steps, from zero; None where no run has it."""
    rows = rows_of(runs, key)
    if not rows:
        return None
    log = log and min(r["least"] for r in rows) > 0
    x = alt.X("step:Q", title=None, scale=alt.Scale(nice=False), axis=alt.Axis(tickCount=4))
    y = alt.Y("mean:Q", **number_axis(zero=True, log=log, form=axis_form))
    tip = [alt.Tooltip("run:N"), alt.Tooltip("step:Q", format=","), alt.Tooltip("mean:Q", format=form)]
    base = alt.Chart(alt.Data(values=rows)).encode(x=x, y=y, color=colour_by(runs))
    return alt.layer(base.mark_line(strokeWidth=2),
                     base.mark_point(size=150, opacity=0).encode(tooltip=tip)).properties(height=150)


def share_floor(values):
    """Where an axis of shares starts, so that bars and lines can be told apart: 0, or a round number below the least."""
    least = min((v for v in values if v is not None), default=0)
    for floor in (0.99, 0.98, 0.95, 0.9, 0.8, 0.5):
        if least >= floor + 0.2 * (1 - floor):
            return floor
    return 0.0


def bucket_rows(evaluation):
    """Ours and, where the lengths are the paper's, what is published: one row a bar."""
    e = evaluation.summary
    latents = e.get("latents")
    rows, ours = [], [b for b in e.get("buckets", []) if b.get("pages")]
    for b in ours:
        rows.append({"length": f"{b['from']}–{b['to']}", "from": b["from"], "pages": b["pages"], "published": False,
                     "series": f"this model, {latents} latents", "precision": b.get("char_precision"),
                     "compression": b.get("compression")})
    lengths = {(b["from"], b["to"]) for b in ours}
    for table in e.get("published", []):
        for b in table["buckets"]:
            if (b["from"], b["to"]) in lengths:
                rows.append({"length": f"{b['from']}–{b['to']}", "from": b["from"], "pages": None, "published": True,
                             "series": table["name"] + " *", "precision": b["precision"],
                             "compression": b["compression"]})
    return rows


def precision_by_length(evaluation):
    """Bars: precision by length of the page; line: compression. The paper's Figure 1, its figures beside ours where the
    lengths are the paper's. None without buckets."""
    rows = bucket_rows(evaluation)
    if not rows:
        return None
    floor = share_floor([r["precision"] for r in rows])
    names = list(dict.fromkeys(r["series"] for r in rows))
    greys = ["#8fb8de", "#b9d3ea", "#dde9f5", "#f2b382", "#f8d5b8"]
    colour = alt.Color("series:N", scale=alt.Scale(domain=names, range=[BLUE] + greys[:len(names) - 1]),
                       legend=None if len(names) == 1 else alt.Legend(symbolType="square", columns=3))
    lengths = list(dict.fromkeys(r["length"] for r in sorted(rows, key=lambda r: r["from"])))
    x = alt.X("length:N", sort=lengths, title="text tokens of the page", axis=alt.Axis(labelAngle=0))
    tip = [alt.Tooltip("series:N"), alt.Tooltip("length:N", title="tokens"), alt.Tooltip("pages:Q"),
           alt.Tooltip("precision:Q", format=".2%"), alt.Tooltip("compression:Q", format=".1f")]
    title = "character precision" + (f" (axis starts at {floor:.0%})" if floor else "")
    y = alt.Y("precision:Q", title=title, scale=alt.Scale(domain=[floor, 1], clamp=True),
              axis=alt.Axis(format="~%", tickCount=5))
    base = alt.Chart(alt.Data(values=rows))
    bars = base.mark_bar(cornerRadiusEnd=2).encode(x=x, xOffset=alt.XOffset("series:N", sort=names), y=y, color=colour,
                                                   tooltip=tip)
    ours = alt.Chart(alt.Data(values=[r for r in rows if not r["published"]]))
    line = ours.mark_line(color=GREY, point=alt.OverlayMarkDef(color=GREY, size=40), strokeWidth=1.5).encode(
        x=x, y=alt.Y("compression:Q", title="text tokens a latent", scale=alt.Scale(zero=True),
                     axis=alt.Axis(grid=False, tickCount=5)), tooltip=tip)
    return alt.layer(bars, line).resolve_scale(y="independent").properties(height=240)


def by_position(evaluations):
    """Share of characters that came back in each twentieth of the page: the paper's Figure 5, which shows no data, in
    numbers. None where no evaluation has it."""
    rows = [{"place": (i + 0.5) / len(e.summary["by_position"]), "share": v, "evaluation": e.name}
            for e in evaluations for i, v in enumerate(e.summary.get("by_position") or []) if v is not None]
    if not rows:
        return None
    names = list(dict.fromkeys(r["evaluation"] for r in rows))
    floor = share_floor([r["share"] for r in rows])
    colour = alt.Color("evaluation:N", legend=None if len(names) == 1 else alt.Legend(),
                       scale=alt.Scale(domain=names, range=(RUN_COLOURS * len(names))[:len(names)]))
    tip = [alt.Tooltip("evaluation:N"), alt.Tooltip("place:Q", title="place in the page", format=".0%"),
           alt.Tooltip("share:Q", title="characters that came back", format=".2%")]
    return alt.Chart(alt.Data(values=rows)).mark_line(point=alt.OverlayMarkDef(size=45, filled=True)).encode(
        x=alt.X("place:Q", title="place in the page, from its beginning to its end", axis=alt.Axis(format="~%"),
                scale=alt.Scale(domain=[0, 1])),
        y=alt.Y("share:Q", title="characters that came back" + (f" (axis starts at {floor:.0%})" if floor else ""),
                scale=alt.Scale(domain=[floor, 1], clamp=True), axis=alt.Axis(format="~%", tickCount=5)),
        color=colour, tooltip=tip).properties(height=240)


def specification(chart, width="container"):
    """Vega-Lite as a dict, with the look all charts share."""
    spec = chart.properties(width=width).to_dict()
    spec["config"] = CONFIG
    spec["autosize"] = {"type": "fit", "contains": "padding"}
    return spec
