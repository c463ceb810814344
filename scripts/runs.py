"""runs.py: reads what train_c3 and c3 eval leave behind: log.jsonl, checkpoints' settings, eval.json, pages.jsonl.

A run may be under way, damaged or made by hand: what cannot be read is left out and named in `notes`. What comes out has
the types it says, its numbers are finite, and names hold nothing that a terminal or a page of HTML would obey.
"""
import errno
import glob
import hashlib
import json
import os
import re
from dataclasses import dataclass, field

# As clean.h has it: control characters, those that change the direction of writing, line and paragraph separators, and
# what is no Unicode. Line ends and tabs are for the caller to keep.
UNCLEAN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


BIN = {"from", "to", "pages", "exact", "low", "high", "expected", "char_precision"}


@dataclass
class Evaluation:
    """A folder that c3 eval wrote."""
    folder: str
    name: str  # "eval_en" of a run is "en"
    summary: dict  # eval.json
    scores: dict  # scores.json of scripts/score.py, where it is of these pages, or {}
    buckets: list  # of dicts of numbers: from, to, pages, and means where there are pages
    published: list  # of {"name", "buckets": [{"from", "to", "precision", ...}]}
    by_position: list  # numbers or None
    kinds: list  # of dicts: kind, few, and numbers: pages, characters, lost, added, low, high, and rate where there is one
    bins: list  # of dicts of numbers: from, to, pages, exact, low, high, expected, char_precision

    def number(self, key):
        """A mean by its key, from eval.json or scores.json; None where there is none."""
        return number(self.summary, key) if key in self.summary else number(self.scores, key)

    def text(self, key):
        value = self.summary.get(key)
        return clean(value) if isinstance(value, str) else ""

    def pages(self):
        """The lines of pages.jsonl, one at a time."""
        with open_file(os.path.join(self.folder, "pages.jsonl")) as f:
            for line in f:
                page = parse(line)
                if all(isinstance(page.get(k), str) for k in ("text", "reconstruction")):
                    yield dict(page, id=clean(str(page.get("id", ""))))


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
    origin: dict = field(default_factory=dict)  # run.json: host, command, build, started
    evaluations: list = field(default_factory=list)
    notes: list = field(default_factory=list)
    colour: int = 0  # its place among several


# ---- values ---------------------------------------------------------------------------------------------------------


def clean(text, keep=""):
    """Escapes what could give orders to a terminal or turn its neighbours around."""
    def escape(match):
        c = match[0]
        return c if c in keep else f"\\x{ord(c):02x}" if c < "\x80" else f"\\u{ord(c):04x}"
    return UNCLEAN.sub(escape, text)


def is_number(value):
    """A finite one, of a size that can be drawn."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 1e15


def number(o, key):
    """o[key] if it is a number, else None."""
    return o[key] if isinstance(o, dict) and is_number(o.get(key)) else None


def numbers(o):
    """Those members of an object that are numbers."""
    return {key: value for key, value in o.items() if is_number(value)} if isinstance(o, dict) else {}


def objects(o, key):
    """The objects of the list o[key]."""
    found = o.get(key)
    return [e for e in found if isinstance(e, dict)] if isinstance(found, list) else []


def set_names(lines, prefix):
    """Names of the sets of pages that log lines have numbers of: "en" of val_loss_en, with the prefix val_loss_."""
    return list(dict.fromkeys(key[len(prefix):] for o in lines for key in o if key.startswith(prefix)))


def positions(o):
    """The list by_position of an object, None where an element is no number."""
    found = o.get("by_position")
    return [v if is_number(v) else None for v in found] if isinstance(found, list) else []


def parse(text):
    """A JSON object, {} where there is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


def distinct(names):
    """The same names, a number behind those that were there before."""
    seen, found = set(), []
    for name in names:
        other, k = name, 2
        while other in seen:
            other, k = f"{name} ({k})", k + 1
        seen.add(other)
        found.append(other)
    return found


# ---- files ----------------------------------------------------------------------------------------------------------


def open_file(path, **mode):
    """For reading; a pipe in a file's place would be waited for."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, "not a regular file", path)
    return open(path, **mode or {"encoding": "utf-8", "errors": "replace"})


def read_json(path, notes):
    try:
        with open_file(path) as f:
            found = parse(f.read())
    except OSError as e:
        notes.append(f"{short(path)}: {e.strerror}")
        return {}
    if not found:
        notes.append(f"{short(path)}: no JSON object")
    return found


def short(path):
    return clean("/".join(os.path.abspath(path).split("/")[-2:]))


def read_log(run):
    """One object a line; of a step that stands there twice the later line counts, of a validation each later number."""
    steps, validations, bad = {}, {}, 0
    try:
        with open_file(os.path.join(run.folder, "log.jsonl")) as f:
            for line in f:
                o = parse(line)
                step = number(o, "step")
                is_validation = "val_loss" in o or "val_lm_perplexity" in o
                kind = steps if "loss" in o else validations if is_validation else {}
                bad += step is None
                time = {"time": clean(o["time"])} if isinstance(o.get("time"), str) else {}
                before = validations.get(step, {}) if is_validation else {}  # of pages; this line is of plain text alone
                kind[step] = before | numbers(o) | time
    except OSError as e:
        run.notes.append(f"log.jsonl: {e.strerror}: no curves")
    if bad:
        run.notes.append(f"log.jsonl: {bad} line{'s' * (bad > 1)} without a step left out")
    run.steps = [steps[s] for s in sorted(s for s in steps if s is not None)]
    run.validations = [validations[s] for s in sorted(s for s in validations if s is not None)]


def read_checkpoint(run):
    """The one that run.json names, else the highest step."""
    complete = [os.path.basename(os.path.dirname(p))
                for p in glob.glob(os.path.join(glob.escape(run.folder), "step_*", "COMPLETE"))]
    complete = sorted((n for n in complete if re.fullmatch(r"step_\d+", n)), key=lambda n: int(n[5:]))
    if not complete:
        run.notes.append("no complete checkpoint: no settings, no shapes")
        return
    last = run.origin.get("last")
    run.checkpoint = last if last in complete else complete[-1]
    newest = os.path.join(run.folder, run.checkpoint)
    run.config = read_json(os.path.join(newest, "config.json"), run.notes)
    run.encoder = read_json(os.path.join(newest, "llm1", "config.json"), run.notes)
    run.settings = read_json(os.path.join(newest, "trainer", "settings.json"), run.notes)
    run.state = read_json(os.path.join(newest, "trainer", "state.json"), run.notes)


def pages_digest(folder):
    """Says which pages scores.json is of: c3 eval may have written others since."""
    with open_file(os.path.join(folder, "pages.jsonl"), mode="rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def read_scores(folder, notes):
    path = os.path.join(folder, "scores.json")
    hint = f"(hint: scripts/score.py {clean(folder)})"
    if not os.path.exists(path):
        notes.append(f"{short(folder)}: no metrics of words {hint}")
        return {}
    found = read_json(path, notes)
    try:
        same = found.get("pages_sha256") == pages_digest(folder)
    except OSError:
        same = False
    if not same:
        notes.append(f"{short(path)}: of other pages than pages.jsonl, left out {hint}")
    return found if same else {}


def read_evaluation(folder, notes):
    """None where there is no eval.json that can be read."""
    summary = read_json(os.path.join(folder, "eval.json"), notes)
    if not summary:
        return None
    name = re.sub(r"^eval[_-]*", "", os.path.basename(os.path.abspath(folder))) or "eval"
    buckets = [dict(numbers(b), by_position=positions(b)) for b in objects(summary, "buckets")]
    published = [{"name": clean(str(t.get("name"))), "buckets": [numbers(b) for b in objects(t, "buckets")]}
                 for t in objects(summary, "published")]
    for table in published:
        table["buckets"] = [b for b in table["buckets"] if {"from", "to", "precision"} <= b.keys()]
    kinds = [{"kind": clean(str(k.get("kind"))), **numbers(k), "few": k.get("few") is True} for k in objects(summary, "by_kind")]
    confidence = summary.get("confidence")
    bins = [numbers(b) for b in objects(confidence, "bins")] if isinstance(confidence, dict) else []
    return Evaluation(folder, clean(name), summary, read_scores(folder, notes),
                      [b for b in buckets if {"from", "to", "pages"} <= b.keys()], published, positions(summary),
                      [k for k in kinds if {"pages", "characters", "lost", "added", "low", "high"} <= k.keys()],
                      [b for b in bins if BIN <= b.keys() and b["pages"] > 0])


def read_run(folder):
    """Raises ValueError when the folder holds nothing of a run and no evaluation."""
    run = Run(folder, clean(os.path.basename(os.path.abspath(folder))))
    if not os.path.isdir(folder):
        raise ValueError(f"{clean(folder)}: no such folder")
    if os.path.exists(os.path.join(folder, "run.json")):
        run.origin = read_json(os.path.join(folder, "run.json"), run.notes)
    if os.path.exists(os.path.join(folder, "eval.json")):
        found = [folder]
    else:
        read_log(run)
        read_checkpoint(run)
        found = [os.path.dirname(p) for p in sorted(glob.glob(os.path.join(glob.escape(folder), "eval*", "eval.json")))]
    run.evaluations = [e for e in (read_evaluation(f, run.notes) for f in found) if e]
    for e, name in zip(run.evaluations, distinct([e.name for e in run.evaluations]), strict=True):
        e.name = name
    if not run.steps and not run.checkpoint and not run.evaluations:
        raise ValueError(f"{clean(folder)}: no log.jsonl, no checkpoint and no eval.json (hint: the folder that -o "
                         "named)")
    return run


def read_runs(folders):
    """Several, to stand side by side: each with a name of its own, the path where the folder's is not enough."""
    found = [read_run(folder) for folder in folders]
    names = [r.name for r in found]
    if len(set(names)) < len(names):
        names = distinct([clean(os.path.normpath(f)) for f in folders])
    for i, (run, name) in enumerate(zip(found, names, strict=True)):
        run.name, run.colour = name, i
    return found


def write_whole(path, content):
    """Text or bytes, under a temporary name first, so that a reader never meets half of it. Links are followed, the mode of
    a file that is there is kept, pipes and devices are written to as they are; - is stdout."""
    data = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
    target = "/dev/stdout" if path == "-" else os.path.realpath(path)
    if os.path.exists(target) and not os.path.isfile(target):
        with open(target, "wb") as f:
            f.write(data)
        return
    temporary = os.path.join(os.path.dirname(target), f".{os.getpid()}.tmp")
    with open(temporary, "xb") as f:
        try:
            f.write(data)
            f.flush()
            if os.path.exists(target):
                os.fchmod(f.fileno(), os.stat(target).st_mode & 0o7777)
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
