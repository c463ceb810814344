#!/usr/bin/env python3
"""plot.py: the report's charts as pictures, PNG and SVG.

    scripts/plot.py FOLDER [FOLDER...] [-o DIR]

FOLDER is what -o named: of train_c3 (log.jsonl and eval*/eval.json in it) or of c3 eval. Pictures go into the first of
them (or DIR):

    loss                 training and validation loss over the steps, of all runs
    precision_by_length  bars: precision by length of the page; line: compression. The paper's Figure 1, with its figures
                         beside ours where the lengths are the paper's. One picture an evaluation: _NAME is added
    validation_sets      validation loss of each set of pages that -val names
    plain_text           perplexity of the decoder alone (-val_lm)
    errors_by_kind       characters lost by kind of text: digits, names, code, each script
    confidence           share of exact pages by the decoder's confidence in them
    by_position          share of characters that came back, by place in the page: the paper's Figure 5, which shows no
                         data, in numbers
    needles              right answers by length and depth, of pages that data/needles.py made; printed as a table, too.
                         One picture an evaluation
"""
import argparse
import dataclasses
import os
import re
import sys

import vl_convert

import charts
import runs


def pictures(found):
    """{name: chart}"""
    evaluations = [dataclasses.replace(e, name=f"{run.name}, {e.name}") if len(found) > 1 else e
                   for run in found for e in run.evaluations]
    logged = [r for r in found if r.steps]
    charts_of = {"loss": charts.loss(logged), "validation_sets": charts.validation_sets(logged),
                 "plain_text": charts.plain_text(logged), "by_position": charts.by_position(evaluations),
                 "errors_by_kind": charts.errors_by_kind(evaluations), "confidence": charts.confidence(evaluations)}
    for e in evaluations:
        suffix = "_" + re.sub(r"[^\w.-]+", "_", e.name) if len(evaluations) > 1 else ""
        charts_of["precision_by_length" + suffix] = charts.precision_by_length(e)
        charts_of["needles" + suffix] = charts.needles(e)
    return {name: chart for name, chart in charts_of.items() if chart is not None}


def needle_table(evaluation):
    """Lines: right answers by length (columns) and depth (rows)."""
    cells = charts.needle_cells(evaluation)
    lengths, depths = (sorted(set(values)) for values in zip(*cells)) if cells else ([], [])
    share = lambda right, asked: f"{right / asked:8.1%}"
    head = ["depth \\ tokens" + "".join(f"{n:8}" for n in lengths)] if cells else []
    return head + [f"{d:10} %  " + "".join(share(*cells[n, d]) if (n, d) in cells else f"{'':8}" for n in lengths)
                   for d in depths]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0].split(": ", 1)[1])
    parser.add_argument("folder", nargs="+", help="of a run or of an evaluation")
    parser.add_argument("-o", metavar="DIR", help="where the pictures go; default: the first FOLDER")
    arguments = parser.parse_args()
    output = arguments.o or arguments.folder[0]
    try:
        found = runs.read_runs(arguments.folder)
        os.makedirs(output, exist_ok=True)
        for line in (line for run in found for e in run.evaluations for line in needle_table(e)):
            print(line)
        for name, chart in pictures(found).items():
            spec = charts.specification(chart, width=760)
            spec["background"] = "white"
            path = os.path.join(output, name)
            runs.write_whole(path + ".png", vl_convert.vegalite_to_png(spec, scale=2))
            runs.write_whole(path + ".svg", vl_convert.vegalite_to_svg(spec))
            print(runs.clean(path + ".png"))
    except (ValueError, OSError) as e:
        sys.exit(f"plot.py: {e}")


if __name__ == "__main__":
    main()
