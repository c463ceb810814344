#!/usr/bin/env python3
"""plot.py: pictures of a run or of an evaluation.

    dev/plot.py FOLDER

FOLDER is what -o named: of train_c3 (log.jsonl and eval*/eval.json in it) or of c3 eval (eval.json itself). Pictures go
into the same folder:

    loss.png                  training loss (smoothed), validation loss, learning rate, over steps
    precision_by_length.png   bars: precision by length of the page; line: compression. The paper's Figure 1, with its
                              figures beside ours where the lengths are the paper's
    by_position.png           share of characters that came back, by place in the page: the paper's Figure 5, which
                              shows no data, in numbers
"""
import argparse
import glob
import json
import os
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.cm import ScalarMappable  # noqa: E402
from matplotlib.colors import Normalize  # noqa: E402
from matplotlib.ticker import MaxNLocator, PercentFormatter  # noqa: E402

BLUE, ORANGE, GREY, BLACK = "#2166ac", "#d95f02", "#777777", "#222222"
PAPER = {"C3": ("#8fb8de", "#b9d3ea", "#dde9f5"), "DeepSeek": ("#f2b382", "#f8d5b8")}
FEWEST = 100  # tokens of a slice: a bucket with fewer is not drawn by position, it would be noise


def read_log(path):
    """(step lines, validation lines)."""
    steps, validations = [], []
    with open(path) as f:
        for line in f:
            o = json.loads(line)
            if o.get("loss") is not None:
                steps.append(o)
            if o.get("val_loss") is not None:
                validations.append(o)
    return steps, validations


def read_evaluations(folder):
    """[(name, eval.json)]: the folder itself, or those in it."""
    found = []
    own = os.path.join(folder, "eval.json")
    for path in [own] if os.path.exists(own) else sorted(glob.glob(os.path.join(folder, "eval*", "eval.json"))):
        with open(path, encoding="utf-8") as f:
            e = json.load(f)
        for key in ("source", "latents", "char_precision", "by_position", "late_errors", "buckets", "published"):
            if key not in e:
                sys.exit(f"plot.py: {path}: no \"{key}\" (hint: evaluate again with this version of c3)")
        name = os.path.basename(e["source"]) if path == own else os.path.basename(os.path.dirname(path))
        if e.get("perturb", "none") != "none":
            name += {"random": ", random characters", "shuffle": ", characters shuffled"}[e["perturb"]]
        found.append((name, e))
    return found


def smooth(values, window):
    """Mean of the last `window` values at each place."""
    out, total = [], 0.0
    for i, v in enumerate(values):
        total += v - (values[i - window] if i >= window else 0.0)
        out.append(total / min(i + 1, window))
    return out


def bare(axes):
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(True, axis="y", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)


def save(figure, folder, name):
    path = os.path.join(folder, name)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    print(path)


# ---- a run's losses -------------------------------------------------------------------------------------------------


def plot_loss(folder, steps, validations):
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 6), sharex=True, height_ratios=(3, 1), layout="constrained")
    x = [o["step"] for o in steps]
    window = max(1, len(x) // 100)
    top.plot(x, [o["loss"] for o in steps], color=BLUE, alpha=0.15, linewidth=0.8)
    top.plot(x, smooth([o["loss"] for o in steps], window), color=BLUE,
             label=f"training, mean of {window} steps" if window > 1 else "training")
    if validations:
        top.plot([o["step"] for o in validations], [o["val_loss"] for o in validations], "o-", color=ORANGE,
                 markersize=4, label="validation, whole pages")
    top.set_yscale("log")
    top.set_ylabel("loss, nats a token")
    top.legend(frameon=False)
    bottom.plot(x, [o["lr"] for o in steps], color=GREY)
    bottom.set_ylabel("learning rate")
    bottom.set_xlabel("step")
    bottom.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    for axes in (top, bottom):
        bare(axes)
        axes.grid(True, color="#e5e5e5", linewidth=0.8)
    save(figure, folder, "loss.png")


# ---- precision and compression by length ----------------------------------------------------------------------------


def series_of(e, buckets):
    """[(label, per cent or None by bucket, compressions, bar style)]: this model, then what is published."""
    ours = [None if b["char_precision"] is None else 100 * b["char_precision"] for b in buckets]
    rows = [(f"this model, {e['latents']} latents: char precision", ours, [b["compression"] for b in buckets],
             dict(color=BLUE))]
    lengths = [(b["from"], b["to"]) for b in buckets]
    shades = {who: iter(colours) for who, colours in PAPER.items()}
    for p in e["published"]:
        there = {(b["from"], b["to"]): b for b in p["buckets"]}
        if not any(key in there for key in lengths):
            continue
        found = [there.get(key) for key in lengths]
        who = "C3" if p["name"].startswith("C3") else "DeepSeek"
        style = dict(color=next(shades[who]), edgecolor="white", hatch="" if who == "C3" else "///", linewidth=0)
        rows.append((p["name"] + " *", [b and 100 * b["precision"] for b in found],
                     [b and b["compression"] for b in found], style))
    return rows


def draw_precision(axes, name, e):
    buckets = [b for b in e["buckets"] if b["pages"]]
    if any(b["from"] >= 600 and b["to"] - b["from"] == 100 and b["to"] <= 1300 for b in buckets):
        buckets = e["buckets"]  # the paper's lengths: empty ones too, for the figures beside
    rows = series_of(e, buckets)
    width = (0.84 if len(rows) > 1 else 0.5) / len(rows)
    values = [v for _, y, _, _ in rows for v in y if v is not None]
    floor = 50 if min(values, default=0) >= (80 if len(rows) == 1 else 55) else 0
    right = axes.twinx()
    for k, (label, y, compression, style) in enumerate(rows):
        at = [i + (k - (len(rows) - 1) / 2) * width for i in range(len(y))]
        bars = [(x, v) for x, v in zip(at, y) if v is not None]
        axes.bar([x for x, _ in bars], [v for _, v in bars], width * 0.94, label=label, **style)
        if k == 0:
            for x, v in bars:  # inside, at the foot, where no line crosses it; above a bar too short for that
                low = v - floor < 0.16 * (100 - floor)
                axes.text(x, v + 1 if low else floor + 1, f"{v:.1f}", color=BLUE if low else "white", fontsize=8,
                          ha="center", va="bottom", rotation=0 if len(rows) == 1 else 90)
        line = [(i, c) for i, c in enumerate(compression) if c]
        if line:
            right.plot([i for i, _ in line], [c for _, c in line], "o-" if k == 0 else "s--", markersize=5,
                       color=BLACK if k == 0 else GREY, markeredgecolor="white", linewidth=1.4,
                       label="this model: tokens a latent" if k == 0 else label + ": tokens a latent")
    axes.set_xticks(range(len(buckets)), [f"{b['from']}–{b['to']}\nn = {b['pages']}" for b in buckets])
    axes.set_xlabel("text tokens of the page")
    axes.set_ylabel("precision, %" + (" (axis starts at 50)" if floor else ""))
    axes.set_ylim(floor, 100 + (100 - floor) * (0.12 if len(rows) > 1 else 0.07))
    axes.set_yticks(range(floor, 101, 10 if floor else 20))
    top = max([c for _, _, cs, _ in rows for c in cs if c], default=1)
    right.set_ylim(0, top * 1.25)
    right.yaxis.set_major_locator(MaxNLocator(6))
    right.set_ylabel("compression, text tokens a latent")
    axes.set_title(name, loc="left", fontsize=11, fontweight="bold")
    bare(axes)
    for side in ("top", "left", "bottom"):
        right.spines[side].set_visible(False)
    handles, labels = (a + b for a, b in zip(axes.get_legend_handles_labels(), right.get_legend_handles_labels()))
    axes.legend(handles, labels, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncol=3, fontsize=9)
    if len(rows) > 1:
        axes.text(1, 1.02, "* as printed in arXiv 2511.15244, which does not define precision", ha="right",
                  transform=axes.transAxes, fontsize=8, color=GREY)


def plot_precision(folder, evaluations):
    evaluations = [(name, e) for name, e in evaluations if any(b["pages"] for b in e["buckets"])]
    if not evaluations:
        return
    figure, rows = plt.subplots(len(evaluations), 1, figsize=(11, 4.9 * len(evaluations)), squeeze=False,
                                layout="constrained")
    for axes, (name, e) in zip(rows[:, 0], evaluations):
        draw_precision(axes, name, e)
    save(figure, folder, "precision_by_length.png")


# ---- accuracy by position -------------------------------------------------------------------------------------------


def places(n):
    return [(i + 0.5) / n for i in range(n)]


def full_buckets(e):
    return [b for b in e["buckets"] if b["pages"] * b["from"] >= FEWEST * len(e["by_position"])]


def draw_positions(axes, name, e, norm, colours):
    buckets = full_buckets(e)
    for b in buckets if len(buckets) > 1 else []:
        axes.plot(places(len(b["by_position"])), b["by_position"], color=colours(norm((b["from"] + b["to"]) / 2)),
                  linewidth=1.2)
    y = e["by_position"]
    axes.plot(places(len(y)), y, "o-", color=BLACK, markersize=4, linewidth=2, label="all pages")
    axes.axvline(0.75, color=GREY, linewidth=0.8, linestyle=":")
    errors = e["char_precision"] < 1
    late = f"{100 * e['late_errors']:.0f} % of the errors in the last quarter" if errors else "no errors"
    axes.set_title(name, loc="left", fontsize=11, fontweight="bold", pad=20)
    axes.text(0, 1.03, f"{e['pages']} pages, char precision {100 * e['char_precision']:.1f} %; {late}", fontsize=8,
              color=GREY, transform=axes.transAxes)
    axes.set_xlim(0, 1)
    axes.set_xlabel("place in the page (0 = start, 1 = end)")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.legend(frameon=False, loc="best")
    bare(axes)


def plot_positions(folder, evaluations):
    drawn = [b for _, e in evaluations for b in full_buckets(e)]
    middles = [(b["from"] + b["to"]) / 2 for b in drawn] or [0]
    norm, colours = Normalize(min(middles), max(middles)), matplotlib.colormaps["viridis_r"]
    columns = min(len(evaluations), 2 if len(evaluations) == 4 else 3)
    lines = -(-len(evaluations) // columns)
    size = max(8, 5.2 * columns), 4.6 * lines
    figure, grid = plt.subplots(lines, columns, figsize=size, squeeze=False, sharey=True, layout="constrained")
    for axes, (name, e) in zip(grid.flat, evaluations):
        draw_positions(axes, name, e, norm, colours)
    for axes in grid.flat[len(evaluations) :]:
        axes.set_axis_off()
    lowest = min([v for _, e in evaluations for v in e["by_position"]] + [v for b in drawn for v in b["by_position"]])
    grid[0][0].set_ylim(max(0.0, lowest - 0.1 * (1.02 - lowest)), 1.0 + 0.02 * (1.02 - lowest))
    for axes in grid[:, 0]:
        axes.set_ylabel("characters that came back")
    if len(set(middles)) > 1:
        figure.colorbar(ScalarMappable(norm, colours), ax=grid, label="pages by length, text tokens", pad=0.02,
                        aspect=30, ticks=MaxNLocator(7, integer=True))
    save(figure, folder, "by_position.png")


# ---- all of it ------------------------------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="of a run or of an evaluation")
    folder = parser.parse_args().folder
    log = os.path.join(folder, "log.jsonl")
    steps, validations = read_log(log) if os.path.exists(log) else ([], [])
    evaluations = read_evaluations(folder)
    if not steps and not evaluations:
        sys.exit(f"plot.py: {folder}: neither log.jsonl nor eval.json (hint: the folder that -o named)")
    if steps:
        plot_loss(folder, steps, validations)
    if evaluations:
        plot_precision(folder, evaluations)
        plot_positions(folder, evaluations)


if __name__ == "__main__":
    main()
