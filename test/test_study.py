#!/usr/bin/env python3
"""test_study.py: the study's driver on two points of seconds (stopped in the middle, gone on, run again: the same rows), and
its report from rows whose answers are known."""
import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys

from harness import C3, ROOT, TOKENIZER, Folder, case, checkpoints, done, environment, make_pages, run, wait_for
from made_runs import picture_faults
from safetensors import deserialize

sys.path.insert(0, os.path.join(ROOT, "scripts"))
import study
import study_points
import study_report

POINTS = [{"name": "a", "million": 0.012, "length": 16, "latents": 2, "recipe": {"warmup": 5}},
          {"name": "b", "million": 0.004, "length": 16, "latents": 1, "shape": "encoder 3 + 1", "group": "ablation",
           "recipe": {"warmup": 5, "loss_norm": "micro", "b": 8, "len_warmup": 0}},
          {"name": "m", "million": 0.004, "length": 16, "latents": 3, "mix": [1, 3], "start": "a", "recipe": {"warmup": 5}},
          *({"name": name, "million": 0.002, "length": 16, "latents": 2, "group": "ablation", "variant": name, "recipe": {"warmup": 5}}
            for name in study_points.VARIANTS)]


def study_command(tmp, *words, script="study.py"):
    return [sys.executable, os.path.join(ROOT, "scripts", script), *words,
            *(["-o", f"{tmp}/out", "-data", f"{tmp}/data", "-points", f"{tmp}/points.json", "-jobs", "1"] if script == "study.py"
              else [])]


def ask(tmp, *words, **more):
    return subprocess.run(study_command(tmp, *words, **more), cwd=tmp, env=environment(), text=True, capture_output=True,
                          stdin=subprocess.DEVNULL, timeout=600)


def make_data(tmp):
    folder = f"{tmp}/data/en_16"
    os.makedirs(folder)
    for part, n, seed in (("train", 300, 1), ("val", 10, 2), ("measured", 12, 3)):
        make_pages(f"{folder}/{part}.jsonl", n, seed, 7, 13)
        run(C3, ["tokenize", "-tok", TOKENIZER, "-vocab", study_points.VOCABULARY, "-o", f"{folder}/{part}",
                 f"{folder}/{part}.jsonl"])
    open(f"{folder}/manifest.json", "w").close()  # says that the pages are whole


def rows(tmp):
    """results.csv without the clock's column."""
    with open(f"{tmp}/out/results.csv", encoding="utf-8", newline="") as f:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(f)]


def projector_bias(run_dir):
    """Its bytes in the newest checkpoint."""
    with open(f"{run_dir}/step_{checkpoints(run_dir)[-1]:08d}/model.safetensors", "rb") as f:
        return dict(deserialize(f.read()))["model.mm_projector.bias"]["data"]


def write_points(tmp, points):
    with open(f"{tmp}/points.json", "w") as f:
        json.dump(points, f)


def driver(tmp):
    make_data(tmp)
    write_points(tmp, POINTS)
    r = ask(tmp, "-list")
    case("-list: a line a point, and runs nothing", r.returncode == 0 and "5 points" in r.stdout and "a guess" in r.stdout and
         not os.path.exists(f"{tmp}/out"), r.stdout + r.stderr)
    r = ask(tmp)
    if not case("five points: trained, measured, drawn", r.returncode == 0 and os.path.exists(f"{tmp}/out/tables.md"),
                r.stdout + r.stderr):
        return
    first = rows(tmp)
    a, b, *mixed = first[:4]
    case("a row says what was run and where", a["name"] == "a" and int(a["steps"]) == study_points.Point(**POINTS[0]).steps and
         "-n 2" not in a["command"] and f"-lr {study_points.RECIPE['lr']} " in a["command"] and "-loss_norm micro" in b["command"] and a["commit"] and
         a["cpu"] and a["random_pages"] == "12" and b["random_pages"] == "", first)
    case("a model of several n has a row for each", [(x["name"], x["latents"], x["mix"]) for x in mixed] ==
         [("m_n1", "1", "1 3"), ("m_n3", "3", "1 3")] and "-n_mix 1,3" in mixed[0]["command"] and
         mixed[0]["loss"] != mixed[1]["loss"] and abs(float(mixed[0]["ratio"]) / float(mixed[1]["ratio"]) - 3) < 1e-6, mixed)
    case("and goes on from the model it names", "/a/run -n 3" in mixed[0]["command"] and mixed[0]["recipe"].startswith("start=a ") and
         not os.path.exists(f"{tmp}/out/m/start"), mixed[0]["command"])
    bias = {name: projector_bias(f"{tmp}/out/{name}/run") for name in ("a", "no_img", "no_projector_bias")}
    case("variants: changed programs train them", [x["recipe"].split()[0] for x in first[4:]] == [*study_points.VARIANTS] and
         "build/variants/no_img/train_c3 " in first[4]["command"] and len({x["loss"] for x in first[4:]}) == 2, first[4:])
    case("without the projector's bias it stays nothing, else it is learned", not any(bias["no_projector_bias"]) and
         any(bias["a"]) and any(bias["no_img"]), bias)
    case("figures are there and are shares", all(0 <= float(x[key]) <= 1 for x in first for key in
                                                 ("precision", "swapped", "slice_1", "slice_20", "exact")), first)
    text = open(f"{tmp}/out/tables.md", encoding="utf-8").read()
    case("the tables stand beside the paper's and say that they are small",
         "small-scale" in text and "93.3 at 39.4x" in text and "loss_norm=micro" in text, text)
    r = ask(tmp)
    case("what is done is not run again", r.returncode == 0 and "tokens a latent" not in r.stdout and rows(tmp) == first, r.stdout)

    shutil.rmtree(f"{tmp}/out/a")
    p = subprocess.Popen(study_command(tmp), cwd=tmp, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    saved = wait_for(lambda: checkpoints(f"{tmp}/out/a/run"), 120)
    p.send_signal(signal.SIGKILL)
    p.wait()
    steps = study_points.Point(**POINTS[0]).steps
    part = checkpoints(f"{tmp}/out/a/run")[-1]
    case("killed in the middle of a point", saved and part < steps and not os.path.exists(f"{tmp}/out/a/rows.json"), (part, steps))
    r = ask(tmp)
    log = open(f"{tmp}/out/a/log.txt", encoding="utf-8").read()
    case("it goes on from its checkpoint", r.returncode == 0 and log.count("./train_c3 -m") == 2 and "resum" in log.lower(),
         r.stderr + log[-3000:])
    case("to the same row, to the last digit, as without the kill", rows(tmp) == first, (rows(tmp), first))
    r = ask(tmp, "-redo", "b", "-only", "b")
    case("a point run again has the same bits; the old one is kept", r.returncode == 0 and rows(tmp) == first and
         os.path.exists(f"{tmp}/out/b.old_1/rows.json"), r.stderr)
    write_points(tmp, [POINTS[0], POINTS[1] | {"seed": 2}])
    r = ask(tmp)
    case("other settings under the same name are refused", r.returncode == 1 and "-redo b" in r.stderr and rows(tmp) == first, r.stderr)
    r = ask(tmp, "-redo", "b")
    case("and run where that is asked for", r.returncode == 0 and rows(tmp)[0] == first[0] and
         rows(tmp)[1]["precision"] != "" and rows(tmp)[1]["loss"] != first[1]["loss"], r.stderr)
    r = ask(tmp, "-redo", "b", "-hours", "0.0001")
    case("-hours begins nothing that would end later, and says so", r.returncode == 0 and "left out" in r.stdout and "b" in r.stdout
         and len(rows(tmp)) == 1, r.stdout + r.stderr)
    os.rename(f"{tmp}/data/en_16/val_00000.bin", f"{tmp}/hidden")
    r = ask(tmp)
    case("a program that fails ends it with its error", r.returncode == 1 and "b: train_c3 failed" in r.stderr and
         "log.txt" in r.stderr and "not finished" in r.stderr, r.stderr)
    for name, points, words, says in (
            ("an unknown field", [{"name": "a", "million": 1, "size": 3}], [], "expected a list of points"),
            ("an unknown shape", [{"name": "a", "million": 1, "shape": "round"}], [], "expected a shape"),
            ("an unknown variant", [{"name": "a", "million": 1, "variant": "round"}], [], "and a variant of no_img"),
            ("an unknown point", POINTS, ["-only", "c"], "no such point"),
            ("no texts", [POINTS[0] | {"length": 32}], ["-redo", "a"], "study.sh fetches"),
            ("a start that is not done", [{"name": "x", "million": 1}, {"name": "y", "million": 1, "start": "x"}], ["-only", "y"], "goes on from x"),
            ("no job", POINTS, ["-jobs", "0"], "from 1 on")):
        write_points(tmp, points)
        r = ask(tmp, *words) if "-jobs" not in words else subprocess.run(
            [*study_command(tmp), *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        case(f"{name}: one line", r.returncode != 0 and says in r.stderr and "Traceback" not in r.stderr, r.stderr)

    os.makedirs(f"{tmp}/data/docs")
    for path, text in (("docs/modern.jsonl", ""), ("docs/en.jsonl", '{"text": "A page."}\n'), ("en_16/corpus_settings.json", "{}")):
        with open(f"{tmp}/data/{path}", "w") as f:
            f.write(text)
    write_points(tmp, POINTS[:1])
    r = ask(tmp, "-redo", "a")
    case("pages that corpus.py made of other texts or lengths are refused", r.returncode == 1 and
         "holds a corpus of other settings" in r.stderr and "Traceback" not in r.stderr, r.stderr)


def plan():
    for name, points in (("full", study_points.FULL), ("quick", study_points.QUICK)):
        case(f"{name}: names are one of a kind", len({p.name for p in points}) == len(points))
    for name, changes in study_points.VARIANTS.items():
        found = {path: open(os.path.join(ROOT, path), encoding="utf-8").read() for path, *_ in changes}
        case(f"{name}: the sources have what it changes, once", all(found[path].count(old) == 1 for path, old, _ in changes), changes)
    options = run(os.path.join(ROOT, "train_c3"), ["-h"]).stdout
    unknown = {key for p in study_points.FULL for key in p.options if f"\n  -{key} " not in options}
    case("recipes are options of the trainer", not unknown, unknown)
    ratios = {p.length / n for p in study_points.FULL if p.group == "grid" for n in p.numbers}
    case("the grid has ratios of 4 to 32", ratios == {4, 8, 16, 32}, ratios)
    p = study_points.Point("x", 1.0, 64, 8, recipe={"len_warmup": 0})
    case("steps are what the tokens come to", abs(p.steps * p.pages * 46 - 1e6) < 46 * p.pages and
         study_points.Point("x", 1.0).steps > p.steps, p.steps)


def made_row(name, ratio, precision, fall=0.0, **more):
    row = dict.fromkeys(study.COLUMNS, "") | {
        "name": name, "group": "grid", "lang": "en", "length": 64, "latents": 64 / ratio, "shape": "base", "width": 128,
        "seed": 1, "steps": 1, "tokens": 1000, "tflop": 1, "seconds": 1, "pages": 300, "ratio": ratio, "precision": precision,
        "exact": 0.5, "token_accuracy": 0.9, "loss": 0.5, "alone_loss": 15.0, "alone_perplexity": 3e6, "swapped": 0.2,
        "no_latents": 0.2, "no_latents_loss": 4.0, "late_errors": 0.3, "random_pages": 150, "random_precision": 0.5,
        "english_pages": 150, "english_precision": precision, "commit": "x", "cpu": "y"}
    # A straight fall with a little that is not straight.
    row |= {f"slice_{i + 1}": precision + fall * (i - 9.5) / 20 + 0.001 * (-1) ** i for i in range(20)}
    for i in range(4):
        row |= {f"bucket_{i + 1}_{key}": value for key, value in
                (("from", 32 + 8 * i), ("to", 40 + 8 * i), ("pages", 75), ("ratio", ratio * (5 + i) / 8), ("precision", precision))}
    return row | more


def write_rows(path, made):
    with open(path, "w", encoding="utf-8", newline="") as f:
        table = csv.DictWriter(f, study.COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(made)


def report(tmp):
    low, high = study_report.wilson(0.9, 100)
    case("Wilson: 90 of 100", abs(low - 0.82563) < 2e-5 and abs(high - 0.94477) < 2e-5, (low, high))
    low, high = study_report.wilson(1.0, 50)
    case("Wilson: all of 50", abs(low - 50 / (50 + 1.959964 ** 2)) < 1e-9 and abs(high - 1) < 1e-9, (low, high))
    b, half = study_report.slope([1, 2, 4, 3, 5])
    case("slope: as by hand", abs(b - 4.5) < 1e-9 and abs(half - 3.182 * math.sqrt(1.9 / 3 / 0.4)) < 1e-9, (b, half))
    mean, half = study_report.mean_interval([1, 2, 3])
    case("three seeds: Student's t", mean == 2 and abs(half - 4.303 / math.sqrt(3)) < 1e-9 and
         study_report.mean_interval([1])[1] is None, half)
    falls = study_report.falls_below
    case("where precision falls: between, before, never", falls([(4, 1.0), (16, 0.9)], 0.95) == "8.0" and
         falls([(4, 0.9), (8, 0.8)], 0.95) == "< 4.0" and falls([(8, 0.99), (4, 1.0)], 0.95) == "> 8.0")
    made = [made_row("falls", 8, 0.9, fall=-0.1), made_row("flat", 4, 0.99), made_row("rises", 16, 0.7, fall=0.1),
            made_row("lm_en", 64, 0.2, group="language model", width=2, no_latents_loss=3.0),
            *(made_row(f"base{s}", 4, 0.9 + 0.01 * s, group="ablation", seed=s) for s in (1, 2, 3)),
            made_row("width_2", 4, 0.97, group="width", tokens=3e5), made_row("width_4", 8, 0.93, group="width", tokens=3e5),
            *(made_row(f"mix_n{n}", 64 / n, p, group="width", tokens=9e5, mix="8 16") for n, p in ((16, 0.96), (8, 0.90))),
            made_row("micro", 4, 0.8, group="ablation", recipe="loss_norm=micro")]
    write_rows(f"{tmp}/results.csv", made)
    r = ask(tmp, f"{tmp}/results.csv", script="study_report.py")
    names = [*study_report.PICTURES]
    case("six pictures, PNG and SVG, and the tables", r.returncode == 0 and not picture_faults(tmp, names[:-1], 5) and
         os.path.getsize(f"{tmp}/ablations.svg") > 5000 and r.stdout.split() == [f"{tmp}/tables.md", *(f"{tmp}/{n}.png" for n in names)], r.stdout + r.stderr)
    text = open(f"{tmp}/tables.md", encoding="utf-8").read()
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in text.split("\n") if line.startswith("|")]
    slopes = {c[0]: (c[2], c[4]) for c in cells if len(c) == 5 and "±" in c[2]}
    case("slopes: their signs, and none where there is none",
         slopes["en 64/8"][1] == "worse toward the end" and slopes["en 64/8"][0].startswith("-10.") and
         slopes["en 64/4"][1] == "worse at the beginning" and slopes["en 64/16"][1] == "no slope told from zero", slopes)
    bits = next(c for c in cells if len(c) == 8 and c[0] == "en 64/8" and c[2] == "128")
    case("bits a number: (nats a token / ln 2) x tokens / (N D)", bits[5] == f"{3 / math.log(2) * 64 / (8 * 128):.3f}" and
         bits[6] == f"{2.5 / math.log(2) * 64 / (8 * 128):.3f}", bits)
    fall = next(c for c in cells if c[:3] == ["en", "64", "128"])
    case("the ratio of 98, 95, 90 %", fall[4:] == ["4.3", "5.4", "> 8.0"] or fall[4:] == ["4.3", "5.4", "8.0"], fall)
    with open(os.path.join(ROOT, "docs/study/tables.md"), encoding="utf-8") as f:
        expected = f.read()
    r = ask(tmp, os.path.join(ROOT, "docs/study/results.csv"), "-o", f"{tmp}/docs", script="study_report.py")
    with open(f"{tmp}/docs/tables.md", encoding="utf-8") as f:
        case("docs/study: its tables are those of its results.csv", f.read() == expected, r.stdout + r.stderr)
    with open(os.path.join(ROOT, "docs/study/results.csv"), encoding="utf-8", newline="") as f:
        case("and of every point of the list", {r["name"] for r in csv.DictReader(f)} ==
             {name for p in study_points.FULL for name in ([f"{p.name}_n{n}" for n in p.mix] or [p.name])})
    few = {c[3]: c[4:] for c in cells if c[:2] == ["en", "64"] and len(c) == 7}
    case("a width's points, and a mix's, fall by themselves", few["0.3 M tokens"] == ["< 4.0", "5.7", "> 8.0"] and
         few["0.9 M tokens, n of 8 16"] == ["< 4.0", "4.5", "> 8.0"], few)
    base = next(c for c in cells if c[:2] == ["64/16 base", "3"])
    case("seeds together, with an interval", base[2] == "92.0 ± 2.5" and "93.3 at 39.4x" in text, base)
    bucket = next(c for c in cells if c[0] == "en 64/8" and "n=75" in c[3])
    case("buckets: interval, pages and ratio", bucket[3].endswith("n=75 at 5.0x") and bucket[1].startswith("90.0 [86."), bucket)
    write_rows(f"{tmp}/results.csv", [made[0] | {"loss": "much"}])
    for name, path, says in (("no number", f"{tmp}/results.csv", "line 2: expected a number"), ("no file", f"{tmp}/none.csv", "No such"),
                             ("another table", f"{tmp}/points.csv", "no column")):
        with open(f"{tmp}/points.csv", "w") as f:
            f.write("name,x\na,1\n")
        r = ask(tmp, path, script="study_report.py")
        case(f"{name}: one line", r.returncode == 1 and says in r.stderr and "Traceback" not in r.stderr, r.stderr)


def again():
    """A point of the quick study, as it stands in docs/study/quick.csv: on such a processor and the same pages the same bits, on
    others within the intervals."""
    with open(os.path.join(ROOT, "docs/study/quick.csv"), encoding="utf-8", newline="") as f:
        expected = next(csv.DictReader(f))
    with Folder() as tmp:
        r = subprocess.run(["bash", "scripts/study.sh", "-quick", "-only", expected["name"], "-o", f"{tmp}/out"], cwd=ROOT,
                           env=environment(), text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=1800)
        if not case("the quick study's point: trained and measured", r.returncode == 0, (r.stdout + r.stderr)[-3000:]):
            return
        found = rows(tmp)[0]
    if all(found[key] == expected[key] for key in ("cpu", "data")):
        print("this processor and these pages are those of docs/study/quick.csv")
        differ = {key: (found[key], expected[key]) for key in expected
                  if key not in ("seconds", "command", "commit") and found[key] != expected[key]}
        case("the same bits as in the repository", not differ, differ)
        return
    print(f"{found['cpu']}, pages {found['data']}; docs/study/quick.csv: {expected['cpu']}, pages {expected['data']}")
    low, high = study_report.wilson(float(expected["precision"]), float(expected["pages"]))
    case("the precision of the repository, within its interval", low <= float(found["precision"]) <= high,
         (low, found["precision"], high))
    case("its loss, within a tenth", abs(float(found["loss"]) / float(expected["loss"]) - 1) < 0.1, (found["loss"], expected["loss"]))


def main():
    plan()
    with Folder() as tmp:
        report(tmp)
    with Folder() as tmp:
        driver(tmp)
    again()
    done()


if __name__ == "__main__":
    main()
