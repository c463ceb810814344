"""runs.py: reads what train_c3 and c3 eval leave behind: log.jsonl, checkpoints' settings, eval.json, pages.jsonl.

A run may be under way, damaged or made by hand: what cannot be read is left out and named in `notes`.
"""
import glob
import json
import math
import os
import re
import tempfile
from dataclasses import dataclass, field


@dataclass
class Evaluation:
    """A folder that c3 eval wrote."""
    folder: str
    name: str  # "eval_en" of a run is "en"
    summary: dict  # eval.json
    scores: dict  # scores.json of scripts/score.py, or {}

    def number(self, key):
        """A mean by its key, from eval.json or scores.json; None where there is none."""
        return number(self.summary, key) if key in self.summary else number(self.scores, key)

    def pages(self):
        """The lines of pages.jsonl, one at a time."""
        with open(os.path.join(self.folder, "pages.jsonl"), encoding="utf-8") as f:
            for line in f:
                try:
                    page = json.loads(line)
                except ValueError:
                    continue
                if isinstance(page, dict) and isinstance(page.get("text"), str) \
                        and isinstance(page.get("reconstruction"), str):
                    yield page


@dataclass
class Run:
    """A folder that train_c3 wrote."""
    folder: str
    name: str
    steps: list = field(default_factory=list)  # log lines of steps, ascending
    validations: list = field(default_factory=list)  # log lines of validations
    checkpoint: str = ""  # name of the newest complete one
    config: dict = field(default_factory=dict)  # its config.json
    encoder: dict = field(default_factory=dict)  # its llm1/config.json
    settings: dict = field(default_factory=dict)  # every option
    state: dict = field(default_factory=dict)
    origin: dict = field(default_factory=dict)  # run.json: host, command, build
    evaluations: list = field(default_factory=list)
    notes: list = field(default_factory=list)


def number(o, key):
    """o[key] if it is a finite number, else None."""
    value = o.get(key) if isinstance(o, dict) else None
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if good and abs(value) <= 1e15 else None


def read_json(path, notes):
    try:
        with open(path, encoding="utf-8") as f:
            found = json.load(f)
    except (OSError, ValueError) as e:
        notes.append(f"{os.path.basename(os.path.dirname(path))}/{os.path.basename(path)}: {reason(e)}")
        return {}
    if not isinstance(found, dict):
        notes.append(f"{path}: not a JSON object")
        return {}
    return found


def reason(error):
    return error.strerror if isinstance(error, OSError) else "not valid JSON"


def read_log(run):
    """One object a line; of a step that stands there twice the later line counts."""
    steps, validations, bad = {}, {}, 0
    try:
        with open(os.path.join(run.folder, "log.jsonl"), encoding="utf-8", errors="replace") as f:
            for line in f:
                try:
                    o = json.loads(line)
                except ValueError:
                    bad += 1
                    continue
                step = number(o, "step") if isinstance(o, dict) else None
                if step is None:
                    bad += 1
                elif "loss" in o:
                    steps[step] = o
                elif "val_loss" in o:
                    validations[step] = o
    except OSError as e:
        run.notes.append(f"log.jsonl: {reason(e)}: no curves")
    if bad:
        run.notes.append(f"log.jsonl: {bad} lines that are no step were left out")
    run.steps = [steps[s] for s in sorted(steps)]
    run.validations = [validations[s] for s in sorted(validations)]


def read_checkpoint(run):
    complete = [os.path.dirname(p) for p in glob.glob(os.path.join(glob.escape(run.folder), "step_*", "COMPLETE"))
                if re.fullmatch(r"step_\d+", os.path.basename(os.path.dirname(p)))]
    if not complete:
        run.notes.append("no complete checkpoint: no settings, no shapes")
        return
    newest = max(complete, key=lambda p: int(os.path.basename(p)[5:]))
    run.checkpoint = os.path.basename(newest)
    run.config = read_json(os.path.join(newest, "config.json"), run.notes)
    run.encoder = read_json(os.path.join(newest, "llm1", "config.json"), run.notes)
    run.settings = read_json(os.path.join(newest, "trainer", "settings.json"), run.notes)
    run.state = read_json(os.path.join(newest, "trainer", "state.json"), run.notes)


def read_evaluation(folder, notes):
    """None where there is no eval.json that can be read."""
    summary = read_json(os.path.join(folder, "eval.json"), notes)
    if not summary:
        return None
    scores = os.path.join(folder, "scores.json")
    name = re.sub(r"^eval[_-]*", "", os.path.basename(os.path.normpath(folder))) or "eval"
    return Evaluation(folder, name, summary, read_json(scores, notes) if os.path.exists(scores) else {})


def read_run(folder):
    """Raises ValueError when the folder holds nothing of a run and no evaluation."""
    run = Run(folder, os.path.basename(os.path.abspath(folder)))
    if not os.path.isdir(folder):
        raise ValueError(f"{folder}: no such folder")
    if os.path.exists(os.path.join(folder, "eval.json")):
        found = [folder]
    else:
        read_log(run)
        read_checkpoint(run)
        found = [os.path.dirname(p) for p in sorted(glob.glob(os.path.join(glob.escape(folder), "eval*", "eval.json")))]
    if os.path.exists(os.path.join(folder, "run.json")):
        run.origin = read_json(os.path.join(folder, "run.json"), run.notes)
    run.evaluations = [e for e in (read_evaluation(f, run.notes) for f in found) if e]
    if not run.steps and not run.checkpoint and not run.evaluations:
        raise ValueError(f"{folder}: no log.jsonl, no checkpoint and no eval.json (hint: the folder that -o named)")
    return run


def write_whole(path, text):
    """Under a temporary name first, so that a reader never meets half a page."""
    folder = os.path.dirname(os.path.abspath(path))
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", errors="replace", dir=folder, prefix=".tmp.",
                                     delete=False) as f:
        try:
            f.write(text)
            f.flush()
            os.fchmod(f.fileno(), 0o644)
            os.replace(f.name, path)
        except BaseException:
            os.unlink(f.name)
            raise
