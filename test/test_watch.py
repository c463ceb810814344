#!/usr/bin/env python3
"""test_watch.py: scripts/watch.py, read back with TensorBoard's own reader: values, steps and clock times of log.jsonl;
again and live, on a log that a resumed run wrote anew, after a record that was cut off; what is refused."""
import datetime
import json
import os
import re
import subprocess
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

from harness import ROOT, Folder, case, done, wait_for
from made_runs import make_log

WATCH = os.path.join(ROOT, "scripts/watch.py")
KINDS = (("loss", "train"), ("val_loss", "val"))


def watch(*arguments):
    r = subprocess.run([sys.executable, WATCH, *arguments], capture_output=True, text=True, timeout=120)
    return r.returncode, r.stdout, r.stderr


def lines_of(folder):
    with open(f"{folder}/log.jsonl", encoding="utf-8") as f:
        return f.read().splitlines(keepends=True)


def write_lines(folder, lines, mode="w"):
    with open(f"{folder}/log.jsonl", mode, encoding="utf-8") as f:
        f.writelines(lines)


def expected(folder):
    """{tag: [(step, seconds, value)]} by the log."""
    found = {}
    for line in map(json.loads, lines_of(folder)):
        kind = next(k for name, k in KINDS if name in line)
        when = datetime.datetime.strptime(line["time"], "%Y-%m-%dT%H:%M:%S.%f%z").timestamp()
        for name, value in line.items():
            if name not in ("step", "time") and value is not None:
                found.setdefault(f"{kind}/{re.sub('^val_', '', name)}", []).append((line["step"], when, value))
    return found


def shown(folder):
    """The same, as TensorBoard shows it."""
    events = EventAccumulator(folder, size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.wall_time, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def difference(folder):
    """"" when TensorBoard shows the log, each number once."""
    log, board = expected(folder), shown(folder)
    if log.keys() != board.keys():
        return f"tags {log.keys() ^ board.keys()}"
    for tag, points in log.items():
        if [p[:2] for p in points] != [p[:2] for p in board[tag]]:
            return f"{tag}: steps or times: {points[-2:]} {board[tag][-2:]} {len(points)} {len(board[tag])}"
        wrong = [(a, b) for a, b in zip(points, board[tag]) if abs(a[2] - b[2]) > 1e-6 * abs(a[2])]
        if wrong:
            return f"{tag}: {wrong[:2]}"
    return ""


def records(folder):
    return sum(1 for _ in RawEventFileLoader(f"{folder}/events.out.tfevents.0.c3").Load())


def test_once(tmp):
    run = f"{tmp}/run"
    make_log(run)
    code, out, err = watch("-once", run)
    case("-once: TensorBoard shows the log's numbers, steps and clock times", code == 0 and not err and
         not difference(run), (code, out, err, difference(run)))
    before = records(run)
    case("one event a line, and the file's version", before == len(lines_of(run)) + 1, before)
    watch("-once", run)
    case("again: nothing is written twice", records(run) == before, (before, records(run)))
    line = {"step": 41, "time": "2026-03-01T13:00:00.000Z", "loss": None, "lr": 0.5}
    write_lines(run, [json.dumps(line) + "\n", "no JSON\n", '{"loss":1}\n', '{"step":42,"lo'], "a")
    watch("-once", run)
    write_lines(run, [json.dumps(o) + "\n" for o in map(json.loads, lines_of(run)[:-3])])
    case("a number that was not finite, lines that are none, and half a line are left out", not difference(run) and
         records(run) == before + 1, difference(run))
    return run


def resumed(run, step, scale):
    """The log as a run leaves it that was resumed behind `step`."""
    kept = [line for line in lines_of(run) if json.loads(line)["step"] <= step]
    make_log(run, scale=scale)
    return kept + [line.replace("T12:", "T15:") for line in lines_of(run) if json.loads(line)["step"] > step]


def test_resumed(tmp, run):
    write_lines(run, resumed(run, 25, 3.0))
    watch("-once", run)
    case("steps that a resumed run wrote anew replace the old ones", not difference(run), difference(run))
    write_lines(run, lines_of(run)[:13])
    watch("-once", run)
    case("a log that was cut: the later steps are gone", not difference(run), difference(run))
    before = records(run)
    with open(f"{run}/events.out.tfevents.0.c3", "ab") as f:
        f.truncate(f.tell() - 5)
    watch("-once", run)
    case("a record that was cut off is written again", not difference(run) and records(run) == before, difference(run))


def test_live(tmp):
    run = f"{tmp}/live"
    make_log(run)
    lines = lines_of(run)
    write_lines(run, lines[:10] + [lines[10][:30]])
    open(f"{run}/lock", "w").close()
    program = subprocess.Popen([sys.executable, WATCH, run], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    events = f"{run}/events.out.tfevents.0.c3"
    shows = lambda n: wait_for(lambda: os.path.exists(events) and records(run) == n, 60)  # noqa: E731
    case("live: whole lines only", shows(11), os.listdir(run))
    code, out, err = watch("-once", run)
    case("a second one on the same run is refused in one line", code == 1 and "another watch.py" in err and
         err.count("\n") == 1, (code, out, err))
    write_lines(run, [lines[10][30:], *lines[11:]], "a")
    case("live: what comes is added", shows(len(lines) + 1) and not difference(run), (records(run), difference(run)))
    write_lines(run, resumed(run, 30, 0.5))
    case("live: a log written anew", wait_for(lambda: not difference(run), 60), difference(run))
    os.remove(f"{run}/lock")
    out, err = program.communicate(timeout=60)
    case("it ends with the run", program.returncode == 0 and not err, (program.returncode, err))


def test_refusals(tmp):
    code, out, err = watch("-once", f"{tmp}/none")
    case("no such run: one line", code == 1 and err.count("\n") == 1 and "none: no log.jsonl" in err, err)
    for module, flags in (("tensorboard", ()), ("wandb", ("-wandb",))):
        call = f"import runpy, sys; sys.modules[{module!r}] = None; sys.argv = ['watch.py', '-once', *{flags!r}, {tmp!r} + '/run']; " \
               f"sys.path.insert(0, {ROOT!r} + '/scripts'); runpy.run_path({WATCH!r}, run_name='__main__')"
        r = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, timeout=60)
        case(f"without {module}: one line that says how to get it", r.returncode == 1 and r.stderr.count("\n") == 1 and
             f"pip install {module}" in r.stderr, r.stderr)


with Folder() as folder:
    test_resumed(folder, test_once(folder))
    test_live(folder)
    test_refusals(folder)
done()
