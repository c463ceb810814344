#!/usr/bin/env python3
"""study_report.py: the study's tables and pictures, from results.csv alone.

    scripts/study_report.py runs/study/results.csv [-o DIR]

writes tables.md and, as PNG and SVG, precision_by_ratio, figure_1, figure_4, figure_5, bits, ablations. docs/study.md says what
each means.
"""
import argparse
import csv
import math
import os
import sys

import altair as alt
import vl_convert

import charts
from runs import write_whole

# arXiv 2511.15244, Tables 1 and 2, on Fox, English: 600-700 ... 1200-1300 tokens.
PAPER = {"64 latents": (99.7, 99.9, 99.7, 99.9, 99.7, 98.6, 98.4), "100 latents": (99.9, 99.5, 99.7, 99.7, 99.5, 98.5, 97.5),
         "32 latents": (99.7, 99.7, 98.8, 98.7, 98.8, 94.0, 93.3)}
PAPER_RATIOS = (21.0, 23.6, 26.4, 30.2, 31.0, 35.4, 39.4)  # of 32 latents
KINDS = {"english": "English", "classical": "classical Chinese", "random": "random characters", "shuffled": "shuffled Chinese"}
FALLS = (0.98, 0.95, 0.90)
Z = 1.959964
# 0.975 quantile of Student's t for 1, 2, ... degrees of freedom.
T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110,
        2.101)
TEXTS = {"name", "group", "lang", "mix", "shape", "recipe", "command", "commit", "cpu", "data"}


# ---- statistics ------------------------------------------------------------------------------------------------------


def wilson(share, n):
    """95 % interval of Wilson for a share of n pages. Of a mean of page precisions it is at least as wide as need be: no
    numbers in [0, 1] of that mean vary more than zeros and ones do."""
    middle, half = share + Z * Z / (2 * n), Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return (middle - half) / (1 + Z * Z / n), (middle + half) / (1 + Z * Z / n)


def slope(values):
    """(slope, half of its 95 % interval) of a least-squares line over values at equal distances from 0 to 1."""
    n = len(values)
    x = [(i + 0.5) / n for i in range(n)]
    mean_x, mean_y = sum(x) / n, sum(values) / n
    sxx = sum((a - mean_x) ** 2 for a in x)
    b = sum((a - mean_x) * (v - mean_y) for a, v in zip(x, values)) / sxx
    rest = sum((v - mean_y - b * (a - mean_x)) ** 2 for a, v in zip(x, values))
    return b, T975[n - 3] * math.sqrt(rest / (n - 2) / sxx)


def mean_interval(values):
    """(mean, half of its 95 % interval by Student's t, None of a single value)"""
    n, mean = len(values), sum(values) / len(values)
    if n < 2:
        return mean, None
    return mean, T975[n - 2] * math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)


def falls_below(points, level):
    """The ratio at which precision falls below a level, linear in log(ratio) between neighbours of [(ratio, precision)]; "> r"
    or "< r" where it does not happen between them."""
    points = sorted(points)
    if points[0][1] < level:
        return f"< {points[0][0]:.1f}"
    for (r0, p0), (r1, p1) in zip(points, points[1:]):
        if p1 < level:
            return f"{r0 * (r1 / r0) ** ((p0 - level) / (p0 - p1)):.1f}"
    return f"> {points[-1][0]:.1f}"


def bits(row, rows):
    """Bits of text a latent number carries: (what a language model of the same decoder needs for the page, what is left of it
    with the latents subtracted), each / (N x D). None without a language model of that language."""
    models = [r for r in rows if r["group"] == "language model" and r["lang"] == row["lang"]]
    if not models:
        return None
    page, numbers = row["ratio"] * row["latents"], row["latents"] * row["width"]
    alone = min(models[0]["no_latents_loss"], row["alone_loss"]) / math.log(2)
    return alone * page / numbers, max(0.0, alone - row["loss"] / math.log(2)) * page / numbers


# ---- rows ------------------------------------------------------------------------------------------------------------


def read_rows(path):
    """A dict a line; numbers are numbers, and None where there is none."""
    with open(path, encoding="utf-8", newline="") as f:
        table = csv.DictReader(f)
        missing = {"name", "group", "ratio", "precision", "slice_20", "bucket_1_from"} - set(table.fieldnames or ())
        if missing:
            raise ValueError(f"{path}: no column {sorted(missing)[0]}: expected results.csv of scripts/study.sh")
        found = []
        for number, line in enumerate(table, 2):
            try:
                found.append({key: value if key in TEXTS else float(value) if value else None for key, value in line.items()})
            except (TypeError, ValueError):
                raise ValueError(f"{path}: line {number}: expected a number in each column but those of text") from None
    if not found:
        raise ValueError(f"{path}: no rows: no point is finished yet")
    return found


def slices(row):
    return [row[f"slice_{i + 1}"] for i in range(20)]


def buckets(row):
    found = [{key: row.get(f"bucket_{i}_{key}") for key in ("from", "to", "pages", "ratio", "precision")} for i in range(1, 5)]
    return [b for b in found if b["pages"]]


def grid(rows, *more):
    return [r for r in rows if r["group"] in ("grid", *more)]


def latest(rows):
    """The grid without the points that went on under the name NAME_longer."""
    names = {r["name"] for r in rows}
    return [r for r in grid(rows) if f"{r['name']}_longer" not in names]


def label(row):
    """What a row is, in words."""
    return f"{row['lang']} {row['length']:.0f}/{row['latents']:.0f}" + ", longer" * row["name"].endswith("_longer")


def start_of(row):
    """The point whose model it went on from; None: random weights."""
    return next((word[6:] for word in row["recipe"].split() if word.startswith("start=")), None)


def tokens_in_all(row, rows):
    """Millions, those of the points before it included."""
    before = next((r for r in rows if r["name"] == start_of(row)), None)
    return row["tokens"] / 1e6 + (tokens_in_all(before, rows) if before else 0)


def training(row):
    """In words: tokens, after what other point, and of what numbers of latents where the model learned several."""
    start = start_of(row)
    return (f"{row['tokens'] / 1e6:.1f} M tokens" + (f" after {start}" if start else "") +
            (f", n of {row['mix']}" if row["mix"] else ""))


def share(value, n=None):
    """"98.3 % [96.1, 99.3]" """
    if value is None:
        return ""
    low, high = wilson(min(max(value, 0.0), 1.0), n) if n else (None, None)
    return f"{100 * value:.1f}" + (f" [{100 * low:.1f}, {100 * high:.1f}] n={n:.0f}" if n else "")


# ---- tables ----------------------------------------------------------------------------------------------------------


def table(head, rows):
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines)


def by_length(rows):
    """Tables 1 and 2: a line a point, a column a bucket."""
    lines = []
    for r in sorted(grid(rows), key=lambda r: (r["lang"], r["length"], -r["latents"])):
        found = buckets(r)
        cells = [f"{share(b['precision'], b['pages'])} at {b['ratio']:.1f}x" for b in found]
        lines.append([label(r), share(r["precision"], r["pages"]), f"{r['ratio']:.1f}", *cells, *[""] * (4 - len(cells))])
    ours = table(["small-scale: text, tokens/latents", "all pages, % [95 %]", "tokens a latent", "L/2 to 5L/8", "to 6L/8",
                  "to 7L/8", "to 9L/8"], lines)
    paper = table(["the paper, Fox, English", *(f"{n}-{n + 100}" for n in range(600, 1300, 100))],
                  [[name, *(f"{v:.1f}" + (f" at {PAPER_RATIOS[i]:.1f}x" if name == "32 latents" else "")
                            for i, v in enumerate(values))] for name, values in PAPER.items()])
    return f"{ours}\n\n{paper}"


def controls(rows):
    return table(["point", "own latents", "swapped", "mean latents", "exact pages"],
                 [[r["name"], share(r["precision"]), share(r["swapped"]), share(r["no_latents"]), share(r["exact"])]
                  for r in rows if r["group"] != "language model"])


def kinds(rows):
    return table(["small-scale", *KINDS.values()],
                 [[label(r), *(share(r[f"{k}_precision"], r[f"{k}_pages"]) for k in KINDS)] for r in grid(rows)])


def positions(rows):
    """Is it the end that is lost? A slope below zero with all of its interval says yes."""
    lines = []
    for r in grid(rows):
        values = slices(r)
        if None in values:
            continue
        b, half = slope(values)
        answer = "no slope told from zero" if abs(b) <= half else "worse toward the end" if b < 0 else "worse at the beginning"
        lines.append([label(r), f"{r['ratio']:.1f}", f"{100 * b:+.2f} ± {100 * half:.2f}", f"{100 * r['late_errors']:.0f}", answer])
    return table(["point", "tokens a latent", "slope, points from the first to the last place", "% of the errors in the last quarter",
                  ""], lines)


def capacity(rows):
    lines = []
    for r in grid(rows, "width"):
        found = bits(r, rows)
        if found:
            lines.append([label(r), training(r), f"{r['width']:.0f}", f"{r['ratio']:.1f}", share(r["precision"]), f"{found[0]:.3f}",
                          f"{found[1]:.3f}", f"{r['alone_perplexity']:,.0f}"])
    return table(["point", "training", "width D", "tokens a latent", "precision", "bits a number", "of these known from the latents",
                  "perplexity of its own decoder alone"], lines)


def limits(rows):
    lines = []
    series = {}
    for r in latest(rows) + [r for r in rows if r["group"] == "width"]:
        series.setdefault((r["lang"], r["length"], r["width"], r["group"], r["mix"]), []).append(r)
    for (lang, length, width, _, mix), found in series.items():
        points = [(r["ratio"], r["precision"]) for r in found]
        if len(points) > 1:
            tokens = sorted({f"{tokens_in_all(r, rows):.1f}" for r in found}, key=float)
            trained = " to ".join(dict.fromkeys((tokens[0], tokens[-1]))) + " M tokens" + f", n of {mix}" * bool(mix)
            lines.append([lang, f"{length:.0f}", f"{width:.0f}", trained,
                          *(falls_below(points, level) for level in FALLS)])
    return table(["text", "length L", "latent width", "training", *(f"below {level:.0%} at" for level in FALLS)], lines)


def ablation_groups(rows):
    """{length, latents and what is changed: rows of its seeds}, the base first."""
    found = {}
    for r in rows:
        if r["group"] == "ablation":
            changed = r["recipe"] or ("base" if r["shape"] == "base" else f"layers: {r['shape']}")
            found.setdefault(f"{r['length']:.0f}/{r['latents']:.0f} {changed}", []).append(r)
    return found


def ablations(rows):
    lines = []
    for name, found in ablation_groups(rows).items():
        mean, half = mean_interval([r["precision"] for r in found])
        loss, _ = mean_interval([r["loss"] for r in found])
        lines.append([name, len(found), share(mean) + (f" ± {100 * half:.1f}" if half is not None else ""), f"{loss:.3f}",
                      f"{sum(r['tokens'] for r in found) / len(found) / 1e6:.2f}"])
    return table(["changed", "seeds", "precision", "loss, nats", "M tokens"], lines)


def tables(rows):
    machines, commits = ({r[key] for r in rows} for key in ("cpu", "commit"))
    parts = [("Precision by length (Tables 1 and 2)", by_length), ("Where precision falls", limits),
             ("Swapped latents", controls), ("Four kinds of text (Figure 4)", kinds), ("Is the end lost first? (Figure 5)", positions),
             ("Bits a latent number carries", capacity), ("Ablations", ablations)]
    models = len({r["command"] for r in rows})
    text = (f"# The study in numbers\n\n{models} models of 0.3 to 4 million parameters, trained from nothing on a CPU: none of "
            "these figures is comparable with the paper's but in form. Held-out pages, greedy decoding, precision of "
            f"characters in %. Programs: {', '.join(sorted(commits))}; {', '.join(sorted(machines))}. docs/study.md explains each "
            "table.\n")
    return text + "".join(f"\n## {title}\n\n{part(rows)}\n" for title, part in parts)


# ---- pictures --------------------------------------------------------------------------------------------------------


def ratio_axis(field="ratio:Q"):
    return alt.X(field, title="text tokens a latent", scale=alt.Scale(type="log", base=2, nice=False, padding=20))


def precision_by_ratio(rows):
    """Every point of the grid, with its interval."""
    points = []
    for r in latest(rows):
        low, high = wilson(r["precision"], r["pages"])
        points.append({"ratio": r["ratio"], "precision": r["precision"], "low": low, "high": high,
                       "series": f"{r['lang']}, {r['length']:.0f} tokens"})
    if not points:
        return None
    names = list(dict.fromkeys(p["series"] for p in points))
    base = alt.Chart(charts.data(points)).encode(x=ratio_axis(), color=charts.colour_by(names, "series", columns=4))
    axis = [charts.share_axis(f"{key}:Q", [p["low"] for p in points], "precision, small-scale") for key in ("low", "precision")]
    return alt.layer(base.mark_rule(opacity=0.5).encode(y=axis[0], y2="high:Q"),
                     base.mark_line(point=alt.OverlayMarkDef(size=45, filled=True)).encode(y=axis[1])).properties(height=260)


def figure_1(rows):
    """Bars: precision by length of the page; lines: compression. Of the shortest texts, which are learned best."""
    chosen = [r for r in latest(rows) if r["lang"] == "en"] or latest(rows)
    length = min((r["length"] for r in chosen), default=None)
    bars = [{"pages of": f"{b['from']:.0f}–{b['to'] - 1:.0f}", "from": b["from"], "precision": b["precision"], "ratio": b["ratio"],
             "series": f"{r['latents']:.0f} latents, small-scale"} for r in chosen if r["length"] == length for b in buckets(r)]
    if not bars:
        return None
    names = sorted({b["series"] for b in bars}, key=lambda s: -int(s.split()[0]))
    order = list(dict.fromkeys(b["pages of"] for b in sorted(bars, key=lambda b: b["from"])))
    base = alt.Chart(charts.data(bars)).encode(x=alt.X("pages of:N", sort=order, title="text tokens of the page",
                                                       axis=alt.Axis(labelAngle=0)))
    y = charts.share_axis("precision:Q", [b["precision"] for b in bars], "character precision")
    colour = charts.colour_by(names, "series", symbolType="square")
    return alt.layer(base.mark_bar(cornerRadiusEnd=2, opacity=0.45).encode(xOffset=alt.XOffset("series:N", sort=names), y=y, color=colour),
                     base.mark_line(point=True).encode(
                         y=alt.Y("ratio:Q", title="text tokens a latent (lines)", axis=alt.Axis(grid=False)), color=colour),
                     ).resolve_scale(y="independent").properties(height=260)


def figure_4(rows):
    """Of the length of which there are most kinds."""
    found = {}
    for r in latest(rows):
        found.setdefault(r["length"], []).extend(
            {"kind": name, "precision": r[f"{kind}_precision"], "point": label(r)} for kind, name in KINDS.items()
            if r[f"{kind}_precision"] is not None)
    bars = max(found.values(), key=lambda bars: len({b["kind"] for b in bars}), default=[])
    if not bars:
        return None
    names = list(dict.fromkeys(b["point"] for b in bars))
    return alt.Chart(charts.data(bars)).mark_bar(cornerRadiusEnd=2).encode(
        x=alt.X("kind:N", sort=list(KINDS.values()), title=None, axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("point:N", sort=names), y=charts.share_axis("precision:Q", [0.0], "precision, small-scale"),
        color=charts.colour_by(names, "point", symbolType="square", columns=5)).properties(height=260)


def figure_5(rows):
    """Accuracy by place for each ratio: the English points of the two shortest texts, which are learned best."""
    whole = [r for r in latest(rows) if None not in slices(r)]
    chosen = [r for r in whole if r["lang"] == "en"] or whole
    chosen = [r for r in chosen if r["length"] in sorted({r["length"] for r in chosen})[:2]]
    points = [{"place": (i + 0.5) / 20, "share": v, "point": f"{label(r)}: {r['ratio']:.1f} tokens a latent"}
              for r in sorted(chosen, key=lambda r: r["ratio"]) for i, v in enumerate(slices(r))]
    if not points:
        return None
    names = list(dict.fromkeys(p["point"] for p in points))
    return alt.Chart(charts.data(points)).mark_line(point=alt.OverlayMarkDef(size=35, filled=True)).encode(
        x=alt.X("place:Q", title="place in the page, from its beginning to its end", scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format="~%", tickCount=10)),
        y=charts.share_axis("share:Q", [p["share"] for p in points], "characters right, small-scale"),
        color=charts.colour_by(names, "point", columns=3)).properties(height=260)


def bits_picture(rows):
    points = [{"bits": found[1], "ratio": r["ratio"], "point": label(r), "width": f"width {r['width']:.0f}, "
               f"{'mixed' if r['mix'] else r['group']}"} for r in grid(rows, "width") if (found := bits(r, rows))]
    if not points:
        return None
    names = list(dict.fromkeys(p["width"] for p in points))
    return alt.Chart(charts.data(points)).mark_point(size=80, filled=True).encode(
        x=ratio_axis(), y=alt.Y("bits:Q", title="bits known from the latents, a number", scale=alt.Scale(zero=True)),
        color=charts.colour_by(names, "width", symbolType="circle"), tooltip=["point:N"]).properties(height=240)


def ablation_picture(rows):
    points = [{"changed": name, "precision": r["precision"]} for name, found in ablation_groups(rows).items() for r in found]
    if not points:
        return None
    names = list(dict.fromkeys(p["changed"] for p in points))
    base = alt.Chart(charts.data(points)).encode(y=alt.Y("changed:N", sort=names, title=None))
    x = alt.X("precision:Q", title="character precision; a point a seed, a tick their mean", axis=alt.Axis(format="~%"))
    return alt.layer(base.mark_point(size=60, filled=True, color=charts.BLUE).encode(x=x),
                     base.mark_tick(thickness=2, color=charts.ORANGE).encode(x="mean(precision):Q")).properties(
                         height=24 * len(names) + 20)


PICTURES = {"precision_by_ratio": precision_by_ratio, "figure_1": figure_1, "figure_4": figure_4, "figure_5": figure_5,
            "bits": bits_picture, "ablations": ablation_picture}


def write(path, folder):
    """Tables and pictures of a results.csv; yields the paths of what it wrote."""
    rows = read_rows(path)
    os.makedirs(folder, exist_ok=True)
    write_whole(f"{folder}/tables.md", tables(rows))
    yield f"{folder}/tables.md"
    for name, picture in PICTURES.items():
        chart = picture(rows)
        if chart is not None:
            spec = charts.specification(chart, width=760) | {"background": "white"}
            write_whole(f"{folder}/{name}.png", vl_convert.vegalite_to_png(spec, scale=2))
            write_whole(f"{folder}/{name}.svg", vl_convert.vegalite_to_svg(spec))
            yield f"{folder}/{name}.png"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0].split(": ", 1)[1])
    parser.add_argument("results", help="results.csv of the study")
    parser.add_argument("-o", metavar="DIR", help="where tables and pictures go; default: beside it")
    o = parser.parse_args()
    try:
        for path in write(o.results, o.o or os.path.dirname(o.results) or "."):
            print(path)
    except (ValueError, OSError) as e:
        sys.exit(f"study_report.py: {e}")


if __name__ == "__main__":
    main()
