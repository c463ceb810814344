#!/usr/bin/env python3
"""plot.py: the report's charts as pictures, PNG and SVG.

    scripts/plot.py FOLDER [-o DIR]

FOLDER is what -o named: of train_c3 (log.jsonl and eval*/eval.json in it) or of c3 eval. Pictures go into the same folder
(or DIR):

    loss                 training and validation loss over the steps
    precision_by_length  bars: precision by length of the page; line: compression. The paper's Figure 1, with its figures
                         beside ours where the lengths are the paper's. One picture an evaluation: _NAME is added
    by_position          share of characters that came back, by place in the page: the paper's Figure 5, which shows no
                         data, in numbers
"""
import argparse
import os
import sys

import vl_convert

import charts
import runs


def pictures(run):
    """{name: chart}"""
    found = {"loss": charts.loss([run]) if run.steps else None, "by_position": charts.by_position(run.evaluations)}
    for e in run.evaluations:
        suffix = f"_{e.name}" if len(run.evaluations) > 1 else ""
        found["precision_by_length" + suffix] = charts.precision_by_length(e)
    return {name: chart for name, chart in found.items() if chart is not None}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0].split(": ", 1)[1])
    parser.add_argument("folder", help="of a run or of an evaluation")
    parser.add_argument("-o", metavar="DIR", help="where the pictures go; default: FOLDER")
    arguments = parser.parse_args()
    try:
        run = runs.read_run(arguments.folder)
    except ValueError as e:
        sys.exit(f"plot.py: {e}")
    output = arguments.o or arguments.folder
    os.makedirs(output, exist_ok=True)
    for name, chart in pictures(run).items():
        spec = charts.specification(chart, width=760)
        spec["background"] = "white"
        path = os.path.join(output, name)
        with open(path + ".png", "wb") as f:
            f.write(vl_convert.vegalite_to_png(spec, scale=2))
        with open(path + ".svg", "w", encoding="utf-8") as f:
            f.write(vl_convert.vegalite_to_svg(spec))
        print(path + ".png")


if __name__ == "__main__":
    main()
