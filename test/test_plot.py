#!/usr/bin/env python3
"""test_plot.py: scripts/plot.py draws a run, several, and a single evaluation, as PNG and as SVG."""
import os
import subprocess
import sys

from harness import ROOT, Folder, case, done, leftovers
from made_runs import add_sets, make_evaluation, make_run, picture_faults


def plot(*words):
    return subprocess.run([sys.executable, os.path.join(ROOT, "scripts/plot.py"), *words], capture_output=True, text=True,
                          timeout=300)


def main():
    with Folder() as tmp:
        run = make_run(f"{tmp}/demo")
        r = plot(run)
        names = ["loss", "by_position", "errors_by_kind", "confidence", "precision_by_length_en", "precision_by_length_zh"]
        case("a run: its losses and its evaluations", r.returncode == 0 and not r.stderr and not picture_faults(run, names) and
             r.stdout.splitlines() == [f"{run}/{name}.png" for name in names], (r.stdout, r.stderr))
        make_evaluation(f"{tmp}/alone")
        r = plot(f"{tmp}/alone", "-o", f"{tmp}/new/folder")
        names = ["by_position", "confidence", "errors_by_kind", "precision_by_length"]
        case("an evaluation, into another folder", r.returncode == 0 and not picture_faults(f"{tmp}/new/folder", names) and
             sorted(os.listdir(f"{tmp}/new/folder")) == sorted(f"{n}.{e}" for n in names for e in ("png", "svg")), r.stderr)
        r = plot(run, make_run(f"{tmp}/other", scale=2.0, evaluations=()), "-o", f"{tmp}/two")
        case("two runs in one picture", r.returncode == 0 and not picture_faults(f"{tmp}/two", ["loss"]) and
             "other" in open(f"{tmp}/two/loss.svg", encoding="utf-8").read(), r.stderr)
        add_sets(run, ["en", "zh"])
        r = plot(run, "-o", f"{tmp}/sets")
        names = ["validation_sets", "plain_text"]
        case("validation of each set of pages, and of plain text", r.returncode == 0 and not picture_faults(f"{tmp}/sets", names)
             and all(f">{s}<" in open(f"{tmp}/sets/validation_sets.svg", encoding="utf-8").read() for s in ("en", "zh")), r.stderr)
        case("nothing half-written", not leftovers(tmp))
        for name, words, says in (("no such folder", [f"{tmp}/none"], "no such folder"),
                                  ("a folder that is neither", [tmp], "hint"),
                                  ("nowhere to write", [run, "-o", f"{run}/log.jsonl"], "log.jsonl")):
            r = plot(*words)
            case(f"refused in one line: {name}", r.returncode == 1 and r.stderr.startswith("plot.py: ") and
                 r.stderr.count("\n") == 1 and says in r.stderr, (r.returncode, r.stderr))
    done()


main()
