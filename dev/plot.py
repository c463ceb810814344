#!/usr/bin/env python3
"""plot.py: pictures of a run. Reads RUN/log.jsonl and every RUN/eval*/eval.json and writes

    RUN/loss.png          training loss (smoothed), validation loss, learning rate, over steps
    RUN/by_position.png   share of characters that came back, in twenty slices of the page, for each evaluation

    dev/plot.py RUN
"""
import argparse
import glob
import json
import os
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

BLUE, ORANGE, GREY = "#2166ac", "#d95f02", "#777777"


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
    axes.grid(True, color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)


def plot_loss(run, steps, validations):
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
    bare(top)
    bare(bottom)
    figure.savefig(os.path.join(run, "loss.png"), dpi=120)


def plot_positions(run, evaluations):
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    lowest = 1.0
    for (name, e), colour in zip(evaluations, (BLUE, ORANGE, "#1b9e77", "#7570b3", GREY)):
        y = e["by_position"]
        lowest = min([lowest] + [v for v in y if v is not None])
        axes.plot([(i + 0.5) / len(y) for i in range(len(y))], y, "o-", color=colour, markersize=4,
                  label=f"{name}: {100 * e['char_precision']:.1f} % of characters, {e['pages']} pages")
    axes.set_xlim(0, 1)
    axes.set_ylim(max(0.0, lowest - 0.1 * (1.02 - lowest)), 1.0 + 0.02 * (1.02 - lowest))
    axes.set_xlabel("place in the page (0 = start, 1 = end)")
    axes.set_ylabel("characters that came back")
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=2)
    bare(axes)
    figure.savefig(os.path.join(run, "by_position.png"), dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", help="folder of a run")
    run = parser.parse_args().run
    try:
        steps, validations = read_log(os.path.join(run, "log.jsonl"))
    except OSError as e:
        sys.exit(f"plot.py: {e} (hint: name the folder that -o gave to train_c3)")
    evaluations = []
    for path in sorted(glob.glob(os.path.join(run, "eval*", "eval.json"))):
        with open(path) as f:
            evaluations.append((os.path.basename(os.path.dirname(path)), json.load(f)))
    if steps:
        plot_loss(run, steps, validations)
        print(f"{run}/loss.png")
    if evaluations:
        plot_positions(run, evaluations)
        print(f"{run}/by_position.png")


if __name__ == "__main__":
    main()
