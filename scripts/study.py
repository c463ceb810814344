#!/usr/bin/env python3
"""study.py: trains and measures the points of the study, one folder each, and writes results.csv and the report.

    scripts/study.py [-quick] [-list] [-only NAME]... [-o DIR]

What a point is stands in scripts/study_points.py. A point with a row is done and not run again; one that was stopped
goes on from its last checkpoint. scripts/study.sh prepares all this needs.
"""
import argparse
import csv
import ctypes
import glob
import hashlib
import json
import multiprocessing
import multiprocessing.connection
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import study_points
from runs import write_whole
from study_points import Point

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MAKE_MODEL = "build/dev/make_random_checkpoint"
TOKENIZER = "data/qwen2.5/qwen.tiktoken"
GFLOPS = 40  # of a core, before a point of this machine says better: a Zen 3 core with its neighbour busy
LOOK = 40  # seconds of one core that a point's evaluations take, about
SLICES, BUCKETS = 20, 4
KINDS = ("english", "classical", "random", "shuffled")  # the paper's Figure 4


class Stop(Exception):
    """Ends the study with one line."""


# ---- data ------------------------------------------------------------------------------------------------------------


def corpus(o, kind, length):
    """Makes the folder of pages of a kind of text, "en", "zh" or "classical": of L/16 to 11 L/8 tokens to train on, of L/2 to
    9 L/8 in measured.jsonl: a model fails at the end of the lengths it has seen. corpus.py sees where all that is there, and
    refuses a folder of other texts or lengths; pages of other makers are taken as they are."""
    folder = f"{o.data}/{kind}_{length}"
    if not os.path.exists(f"{folder}/manifest.json") or os.path.exists(f"{folder}/corpus_settings.json"):
        documents = f"{o.data}/docs"
        if not os.path.exists(f"{documents}/modern.jsonl"):
            split_chinese(documents)
        name = {"zh": "modern"}.get(kind, kind)
        apart = ["-keep_out", f"{documents}/classical.jsonl"] if kind == "zh" else []
        call([".venv/bin/python", "data/corpus.py", f"{documents}/{name}.jsonl", "-o", folder, "-vocab",
              str(study_points.VOCABULARY), "-least", str(length // 16), "-most", str(length * 11 // 8), "-val", "128",
              "-test", "700", *apart], f"{o.data}/{kind}_{length}.txt")
    if os.path.exists(f"{folder}/test.jsonl"):
        with open(f"{folder}/test.jsonl", encoding="utf-8") as f:
            chosen = [line for line in f if length // 2 <= json.loads(line)["tokens"] <= length * 9 // 8]
        write_whole(f"{folder}/measured.jsonl", "".join(chosen[:300]))


def split_chinese(folder):
    """zh.jsonl to classical Chinese, which is never trained on, and the rest."""
    try:
        with open(f"{folder}/zh.jsonl", encoding="utf-8") as f:
            lines = f.readlines()
    except OSError as e:
        raise Stop(f"{folder}/zh.jsonl: {e.strerror} (hint: bash scripts/study.sh fetches the texts)") from None
    classical = [line for line in lines if json.loads(line)["source"] == "classics"]
    write_whole(f"{folder}/classical.jsonl", "".join(classical))
    write_whole(f"{folder}/modern.jsonl", "".join(line for line in lines if line not in set(classical)))


def corpora(o, points):
    for kind, length in dict.fromkeys((kind, p.length) for p in points for kind in
                                      p.languages + ["classical"] * (needs_kinds(p) and "zh" in p.languages)):
        corpus(o, kind, length)


# ---- programs of changed sources --------------------------------------------------------------------------------------


def program(p, name):
    return f"build/variants/{p.variant}/{name}" if p.variant else f"./{name}"


def make_variant(o, name):
    """Copies what the programs are built of, objects too, changes it, and builds."""
    folder = f"build/variants/{name}"
    shutil.rmtree(folder, ignore_errors=True)
    for path in ("llmc", "build/llmc"):
        shutil.copytree(path, f"{folder}/{path}")
    for path in filter(os.path.isfile, glob.glob("build/*")):
        shutil.copy2(path, f"{folder}/build")
    for path in ("Makefile", "c3.c", "train_c3.cu", "dev", "scripts"):
        os.symlink(os.path.join(ROOT, path), f"{folder}/{path}")
    for path, old, new in study_points.VARIANTS[name]:
        with open(f"{folder}/{path}", encoding="utf-8") as f:
            text = f.read()
        if text.count(old) != 1:
            raise Stop(f"{path}: expected once what the variant {name} changes, found {text.count(old)} times: {old.strip()}")
        write_whole(f"{folder}/{path}", text.replace(old, new))
    call(["make", "-s", "-C", folder, *["NO_CUDA=1"] * ("built for CPUs" in version()), "train_c3", "c3"], f"{o.o}/{name}.txt")


# ---- one point -------------------------------------------------------------------------------------------------------


def call(command, log):
    """Runs it; what it says goes to a file, of which the error shows the end."""
    with open(log, "a", encoding="utf-8") as f:
        f.write(f"$ {' '.join(command)}\n")
        f.flush()
        if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=f, stderr=f, preexec_fn=die_with_parent).returncode:
            f.flush()
            with open(log, encoding="utf-8", errors="replace") as g:
                said = g.read().strip().split("\n")
            raise Stop(f"{os.path.basename(command[0])} failed: {said[-1]} (hint: all of it is in {log})")


def die_with_parent():
    """Linux: who is killed takes its programs along, so that nobody writes on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def model_command(o, p):
    """None where it goes on from another's model."""
    if p.start:
        return None
    encoder, decoder = study_points.stacks(p.shape)
    return [MAKE_MODEL, "-preset", "demo", "-enc", encoder, "-dec", decoder,
            "-n", str(p.latents), "-seed", str(p.seed), "-dtype", "fp32", "-o", f"{o.o}/{p.name}/start"]


def train_command(o, p):
    """One rank of one thread: as many points at a time as there are cores, and the same bits whatever their number."""
    options = {"b": p.pages, **p.options}
    options |= {"g": max(1, p.pages // options["b"]), "steps": p.steps, "seed": p.seed, "threads": 1, "val_every": 0,
                "val_pages": 128, "save_every": max(1, p.steps // 8)}
    if p.mix:
        options["n_mix"] = ",".join(map(str, p.mix))
    one = len(p.languages) == 1
    sets = [("" if one else f"{kind}=", f"{o.data}/{kind}_{p.length}") for kind in p.languages]
    start = [f"{o.o}/{p.start}/run", "-n", str(p.latents)] if p.start else [f"{o.o}/{p.name}/start"]
    return [program(p, "train_c3"), "-m", *start, "-o", f"{o.o}/{p.name}/run",
            *(word for name, folder in sets for word in ("-data", f"{name}{folder}/train_*.bin" + ("" if one else ":1"))),
            *(word for name, folder in sets for word in ("-val", f"{name}{folder}/val_*.bin")),
            *(word for key, value in options.items() for word in (f"-{key}", str(value)))]


def needs_kinds(p):
    return p.group == "grid"


def evaluations(o, p, n):
    """{folder: (pages, options)} of c3 eval from n latents; the first is the main one, the others the kinds of text of Figure 4."""
    at = f"{o.o}/{p.name}"
    edges = ",".join(str(p.length * i // 8) for i in (4, 5, 6, 7)) + f",{p.length * 9 // 8 + 1}"
    found = {"eval": (f"{at}/measured.jsonl", ["-buckets", edges])}
    if needs_kinds(p):
        few = ["-no_controls", "-limit", "150"]
        if "en" in p.languages:
            found["english"] = f"{o.data}/en_{p.length}/measured.jsonl", few
        if "zh" in p.languages:
            found["classical"] = f"{o.data}/classical_{p.length}/measured.jsonl", few
            found["shuffled"] = f"{o.data}/zh_{p.length}/measured.jsonl", [*few, "-perturb", "shuffle"]
        found["random"] = f"{o.data}/{p.languages[0]}_{p.length}/measured.jsonl", [*few, "-perturb", "random"]
    return {f"{name}_n{n}": (pages, ["-n", str(n), *options]) for name, (pages, options) in found.items()} if p.mix else found


def settings(o, p):
    """All that the point's numbers depend on, but for the machine and the programs."""
    changed = {"source": [list(change) for change in study_points.VARIANTS[p.variant]]} if p.variant else {}
    return changed | {"model": model_command(o, p), "train": train_command(o, p),
            "eval": {name: [pages, *options] for n in p.numbers for name, (pages, options) in evaluations(o, p, n).items()}}


def read_steps(o, p):
    """{step: its line of log.jsonl}: a step that a resumed run took anew counts once."""
    path = f"{o.o}/{p.name}/run/log.jsonl"
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as f:
        return {line["step"]: line for line in map(json.loads, f) if "loss" in line}


def run_point(o, p):
    """Train, evaluate, rows.json; each is gone on with where it was."""
    at, log = f"{o.o}/{p.name}", f"{o.o}/{p.name}/log.txt"
    os.makedirs(at, exist_ok=True)
    write_whole(f"{at}/settings.json", json.dumps(settings(o, p), indent=1) + "\n")
    if not p.start and not os.path.exists(f"{at}/start/config.json"):
        call(model_command(o, p), log)
    seconds = sum(s["ms"] for s in read_steps(o, p).values()) / 1000  # of a run that was stopped: by the clock
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call(train_command(o, p), log)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if len(read_steps(o, p)) != p.steps:
        raise Stop(f"{at}/run: {len(read_steps(o, p))} of {p.steps} steps: the training was stopped (hint: the same command goes on)")
    pages = []
    for kind in p.languages:
        with open(f"{o.data}/{kind}_{p.length}/measured.jsonl", encoding="utf-8") as f:
            pages += f.readlines()
    write_whole(f"{at}/measured.jsonl", "".join(pages))
    for n in p.numbers:
        for name, (file, options) in evaluations(o, p, n).items():
            call([program(p, "c3"), "eval", "-m", f"{at}/run", file, "-o", f"{at}/{name}", "-threads", "1", "-skip", *options], log)
    write_whole(f"{at}/rows.json", json.dumps([row_of(o, p, n, seconds) for n in p.numbers], indent=1) + "\n")


# ---- rows ------------------------------------------------------------------------------------------------------------


def read_json(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def version():
    return subprocess.run(["./train_c3", "--version"], capture_output=True, text=True, check=True).stdout


def built():
    """(commit, what the bits of a result may depend on beside it: processor, kernels it takes, compiler)"""
    text = version()
    said = dict(re.findall(r"^  (compiler|CPU kernels) +(.*)$", text, re.M))
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            cpu = next(line.split(":")[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    return text.split()[1], f"{cpu}, kernels {re.findall('([a-z0-9_]+) for fp32', said['CPU kernels'])[0]}, {said['compiler']}"


def digest(o, p):
    """Tells whether two rows have learned from and were measured on the same pages: 16 digits of their SHA-256."""
    found = hashlib.sha256()
    for kind in p.languages:
        for path in [*sorted(glob.glob(f"{o.data}/{kind}_{p.length}/train_*.bin")), f"{o.data}/{kind}_{p.length}/measured.jsonl"]:
            with open(path, "rb") as f:
                found.update(f.read())
    return found.hexdigest()[:16]


def row_of(o, p, n, seconds):
    """What came of n latents of the point's model."""
    at, steps = f"{o.o}/{p.name}", read_steps(o, p)
    folders = list(evaluations(o, p, n))
    e = read_json(f"{at}/{folders[0]}/eval.json")
    tflop = sum(v for s in steps.values() for key, v in s.items() if key.startswith("tflop_"))
    commit, cpu = built()
    row = {"name": f"{p.name}_n{n}" if p.mix else p.name, "group": p.group, "lang": p.lang, "length": p.length, "latents": n,
           "mix": " ".join(map(str, p.mix)), "shape": p.shape, "width": study_points.SHAPES[p.shape][0][1], "seed": p.seed,
           "recipe": " ".join([f"start={p.start}"] * bool(p.start) + [p.variant] * bool(p.variant) +
                              [f"{key}={value}" for key, value in p.recipe.items()]), "steps": len(steps),
           "tokens": sum(s["tokens"] for s in steps.values()), "tflop": round(tflop, 3), "seconds": round(seconds, 1),
           "pages": e["pages"], "ratio": e["tokens_per_latent"], "precision": e["char_precision"], "exact": e["exact_match"],
           "token_accuracy": e["token_accuracy"], "loss": e["loss"], "alone_loss": e["decoder_alone"]["loss"],
           "alone_perplexity": e["decoder_alone"]["perplexity"],
           "swapped": e["control_swapped_latents"]["char_precision"],
           "no_latents": e["control_no_latents"]["char_precision"], "no_latents_loss": e["control_no_latents"]["loss"],
           "late_errors": e["late_errors"]}
    row |= {f"slice_{i + 1}": value for i, value in enumerate(e["by_position"])}
    for i, bucket in enumerate(e["buckets"]):
        row |= {f"bucket_{i + 1}_{key}": bucket[name] for key, name in
                (("from", "from"), ("to", "to"), ("pages", "pages"), ("ratio", "compression"), ("precision", "char_precision"))}
    for folder in folders[1:]:
        kind, found = folder.split("_")[0], read_json(f"{at}/{folder}/eval.json")
        row |= {f"{kind}_pages": found["pages"], f"{kind}_precision": found["char_precision"]}
    return row | {"command": " ".join(train_command(o, p)), "commit": commit, "cpu": cpu, "data": digest(o, p)}


COLUMNS = ["name", "group", "lang", "length", "latents", "mix", "shape", "width", "seed", "recipe", "steps", "tokens", "tflop",
           "seconds", "pages", "ratio", "precision", "exact", "token_accuracy", "loss", "alone_loss", "alone_perplexity",
           "swapped", "no_latents", "no_latents_loss", "late_errors", *(f"slice_{i + 1}" for i in range(SLICES)),
           *(f"bucket_{i + 1}_{key}" for i in range(BUCKETS) for key in ("from", "to", "pages", "ratio", "precision")),
           *(f"{kind}_{key}" for kind in KINDS for key in ("pages", "precision")), "command", "commit", "cpu", "data"]


def write_results(o, points):
    """All rows there are, in the order of the list; other points' rows, of a list that was longer, stay out."""
    rows = [row for p in points if done(o, p.name) for row in read_json(f"{o.o}/{p.name}/rows.json")]
    with open(f"{o.o}/results.csv.new", "w", encoding="utf-8", newline="") as f:
        table = csv.DictWriter(f, COLUMNS, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    os.replace(f"{o.o}/results.csv.new", f"{o.o}/results.csv")
    return rows


# ---- all of them -----------------------------------------------------------------------------------------------------


def done(o, name):
    return os.path.exists(f"{o.o}/{name}/rows.json")


def refuse_changes(o, points):
    for p in points:
        path = f"{o.o}/{p.name}/settings.json"
        if os.path.exists(path) and read_json(path) != settings(o, p):
            raise Stop(f"{path}: of other settings than the point has now (hint: -redo {p.name} sets the folder aside and "
                       "runs it anew)")


def set_aside(o, name):
    """A point's folder, under a name that no other has."""
    at = f"{o.o}/{name}"
    if os.path.exists(at):
        number = next(i for i in range(1, 1000) if not os.path.exists(f"{at}.old_{i}"))
        os.rename(at, f"{at}.old_{number}")


def speed(o, points):
    """GFLOP/s of a core: of the points that are done, else a guess."""
    rows = [read_json(f"{o.o}/{p.name}/rows.json")[0] for p in points if done(o, p.name)]
    seconds = sum(r["seconds"] for r in rows)
    return (1000 * sum(r["tflop"] for r in rows) / seconds, True) if seconds else (GFLOPS, False)


def estimate(p, gflops):
    """Seconds of one core."""
    return 1000 * p.tflop / gflops + LOOK * len(p.numbers)


def show(o, points):
    gflops, measured = speed(o, points)
    print(f"{'point':28} {'lang':5} {'tokens':>6} {'latents':>7} {'ratio':>5} {'steps':>6} {'Mtokens':>7} {'tok/s':>6} {'s':>6}")
    for p in points:
        print(f"{p.name:28} {p.lang:5} {p.length:6} {p.latents:7} {p.length / p.latents:5.0f} {p.steps:6} {p.million:7.2f} "
              f"{1e3 * gflops * p.million / p.tflop:6.0f} {estimate(p, gflops):6.0f}" + ("  done" if done(o, p.name) else ""))
    left = sum(estimate(p, gflops) for p in points if not done(o, p.name))
    print(f"{len(points)} points; to do: {left / 3600:.2f} h of one core, {left / 3600 / o.jobs:.2f} h of {o.jobs}, beside the "
          f"pages. {gflops:.0f} GFLOP/s a core: " + ("measured by the points that are done." if measured else
                                                      "a guess, until a point is done on this machine."))


def run_points(o, points, began):
    """As many at a time as there are jobs; with -hours, from `began` on, none is begun that would not end in time. Names of
    those left out."""
    waiting, running, failed, left_out = [p for p in points if not done(o, p.name)], {}, [], []
    while waiting or running:
        while len(running) < o.jobs:
            p = next((p for p in waiting if not p.start or done(o, p.start)), None)
            if p is None:
                break
            waiting.remove(p)
            if o.hours and time.monotonic() - began + estimate(p, speed(o, points)[0]) > 3600 * o.hours:
                left_out.append(p.name)
                continue
            child = multiprocessing.Process(target=in_child, args=(o, p))
            child.start()
            running[child.sentinel] = p, child, time.monotonic()
        if not running:
            failed += [p.name for p in waiting if p.start not in left_out]
            left_out += [p.name for p in waiting if p.start in left_out]
            break
        for sentinel in multiprocessing.connection.wait(list(running)):
            p, child, start = running.pop(sentinel)
            child.join()
            if child.exitcode or not done(o, p.name):
                failed.append(p.name)
                continue
            for r in read_json(f"{o.o}/{p.name}/rows.json"):
                print(f"{r['name']}: {r['precision']:.2%} of characters at {r['ratio']:.1f} tokens a latent, swapped latents "
                      f"{r['swapped']:.2%}; {r['tokens']:,} tokens; {time.monotonic() - start:.0f} s", flush=True)
            write_results(o, points)
    if failed:
        raise Stop(f"{', '.join(failed)}: not finished (hint: what was said stands above)")
    return left_out


def in_child(o, p):
    die_with_parent()
    try:
        run_point(o, p)
    except (Stop, OSError, ValueError, KeyError) as e:
        sys.exit(f"study.py: {p.name}: {e}")
    except KeyboardInterrupt:
        sys.exit(1)


def chosen(o):
    """The points of the list, and those of them that -only names."""
    if o.points:
        try:
            points = [Point(**fields) for fields in read_json(o.points)]
            wrong = [p.name for p in points if p.shape not in study_points.SHAPES or p.variant not in ("", *study_points.VARIANTS)]
        except (TypeError, ValueError, OSError) as e:
            raise Stop(f"{o.points}: expected a list of points as in study_points.py: {e}") from None
        if wrong:
            raise Stop(f"{o.points}: {wrong[0]}: expected a shape of {', '.join(study_points.SHAPES)} and a variant of "
                       f"{', '.join(study_points.VARIANTS)}, or none")
    else:
        points = study_points.QUICK if o.quick else study_points.FULL
    late = next((p for p in points if p.name in o.only and p.start and p.start not in o.only and not done(o, p.start)), None)
    if late:
        raise Stop(f"{late.name} goes on from {late.start}, which is not done (hint: -only {late.start} too)")
    unknown = (set(o.only) | set(o.redo)) - {p.name for p in points}
    if unknown:
        raise Stop(f"{sorted(unknown)[0]}: no such point (hint: -list names them)")
    return points, [p for p in points if not o.only or p.name in o.only]


def options():
    parser = argparse.ArgumentParser(prog="study", allow_abbrev=False, description=__doc__.split("\n")[0].split(": ", 1)[1])
    add = parser.add_argument
    add("-quick", action="store_true", help="fewer points, hardly trained: a quarter of an hour on two cores")
    add("-list", action="store_true", help="show the points and what each will take, then end")
    add("-only", action="append", default=[], metavar="NAME", help="this point alone; repeatable")
    add("-redo", action="append", default=[], metavar="NAME", help="set this point's folder aside and run it anew; repeatable")
    add("-hours", type=float, metavar="H", help="begin no point that would end later, 0 = no limit [2, with -quick or -points 0]")
    add("-jobs", type=int, metavar="N", help="points at a time, each on one core [all cores]")
    add("-points", metavar="FILE", help="a JSON list of other points")
    add("-o", metavar="DIR", help="where the study goes [runs/study, or runs/study-quick]")
    add("-data", metavar="DIR", help="where texts and pages are [data/study, or data/study/quick]")
    o = parser.parse_args()
    o.o = o.o or ("runs/study-quick" if o.quick else "runs/study")
    o.data = o.data or ("data/study/quick" if o.quick else "data/study")
    o.hours = o.hours if o.hours is not None else 0 if o.quick or o.points else 2
    o.jobs = o.jobs if o.jobs is not None else len(os.sched_getaffinity(0))
    if o.jobs < 1:
        parser.error(f"-jobs: expected a whole number from 1 on, found {o.jobs}")
    return o


def main():
    o = options()
    os.chdir(ROOT)
    try:
        points, wanted = chosen(o)
        if o.list:
            show(o, wanted)
            return
        for name in o.redo:
            set_aside(o, name)
        refuse_changes(o, wanted)
        os.makedirs(o.o, exist_ok=True)
        began = time.monotonic()
        left = [p for p in wanted if not done(o, p.name)]
        corpora(o, left)
        for name in dict.fromkeys(p.variant for p in left if p.variant):
            make_variant(o, name)
        left_out = run_points(o, wanted, began)
        write_results(o, points)
        import study_report  # its modules take a second: only where something is drawn
        for path in study_report.write(f"{o.o}/results.csv", o.o):
            print(path)
        if left_out:
            print(f"left out, for want of time: {', '.join(left_out)} (the same command goes on)")
    except KeyboardInterrupt:
        sys.exit("study.py: stopped; the same command goes on")
    except (Stop, OSError, ValueError) as e:
        sys.exit(f"study.py: {e}")


if __name__ == "__main__":
    main()
