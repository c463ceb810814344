#!/usr/bin/env python3
"""Documents to shards: reads, cleans, cuts into pages, removes doubles, splits, and writes what train_c3 reads.

    python3 data/corpus.py INPUT... -o DIR

INPUT is a file, a folder, a glob or - (stdin): PDF and pictures (OCR where there is no text in them), HTML, Markdown, text,
JSON, JSONL, CSV, parquet, tar of JSON and PDF, and .gz and .zst of these. DIR gets

    train_00000.bin ... val_00000.bin ... test_00000.bin    token shards
    train.jsonl.zst, val.jsonl, test.jsonl                  the pages: {"id", "lang", "source", "tokens", "text"}
    manifest.json, report.html    sources with hashes, options, what was kept and dropped and why; the same with pictures
    aside.jsonl                   every document and page that was left out before cutting, with its reason

The same input and options give the same bytes with any number of workers. An interrupted run goes on where it was.
Stages: read, clean and sign (datatrove) -> doubles, languages, split -> held-out pages -> training pages -> shuffle.
"""
import argparse, collections, contextlib, copy, errno, fcntl, hashlib, importlib.util, json, multiprocessing, os, resource, shlex
import shutil, subprocess, sys, time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
try:
    import numpy as np
    from datatrove.executor import LocalPipelineExecutor
    from loguru import logger

    from corpus_read import Broken, die_with_parent, expand, ocr_missing, read_unit, tasks_of
    from corpus_steps import (BANDS, CODES, COMMON, GRAM, THRESHOLDS, Cut, Pairs, Read, Sign, Tally, ids_of, keyed,
                              lines_of_file, runs_of, stop_words, tidy, write_json, write_lines, write_whole)
except ModuleNotFoundError as missing:
    sys.exit(f"corpus.py: Python module {missing.name} is missing (hint: bash scripts/setup.sh corpus; then "
             ".venv/bin/python data/corpus.py)")

SPLITS = ("train", "val", "test")
DOCUMENTS_AT_ONCE = 16 << 20  # of a band in memory: 40 bytes each
NEAR, EXACT, LANGUAGE, SHARE, SURPLUS = 11, 10, 12, 13, 14
DROPPED = {EXACT: "exact_double", NEAR: "near_double", LANGUAGE: "other_language", SHARE: "language_share", SURPLUS: "surplus"}


class Stop(Exception):
    """Ends the run with one line."""


# ---------------------------------------------------------------- options

def pairs(text, names=None):
    found = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if names is not None and name not in names:
            raise argparse.ArgumentTypeError(f"unknown '{name}' (known: {', '.join(names)})")
        try:
            found[name] = float(value or "nan")
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{part}': expected NAME=NUMBER") from None
        if not 0 <= found[name] < 1e9:
            raise argparse.ArgumentTypeError(f"'{part}': expected NAME=NUMBER, a number from 0 on")
    return found


def whole(least):
    def number(text):
        if not text.isdigit() or not least <= int(text) < 1 << 40:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} on, found '{text}'")
        return int(text)
    return number


def options(arguments):
    parser = argparse.ArgumentParser(
        prog="corpus.py", usage="corpus.py INPUT... -o DIR [options]", allow_abbrev=False, epilog="thresholds: " + "; ".join(
            f"{name} {value:g} ({what})" for name, (value, what) in THRESHOLDS.items()))
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="files, folders, globs; - is stdin")
    add("-held", action="append", default=[], metavar="INPUT", help="documents to validate on, in place of a random part; repeatable")
    add("-o", required=True, metavar="DIR", help="where the corpus goes")
    add("-m", metavar="MODEL", help="a checkpoint or run: its tokenizer, vocabulary and lengths of pages")
    add("-tok", metavar="FILE", help="qwen.tiktoken or tokenizer.json [data/qwen2.5/qwen.tiktoken]")
    add("-vocab", type=whole(256), metavar="K", help="base tokens kept [all]")
    add("-least", type=whole(1), metavar="N", help="least tokens of a page [600, or the model's]")
    add("-most", type=whole(1), metavar="N", help="most tokens of a page [1300, or the model's]")
    add("-key", default="text", metavar="NAME", help="key or column of the text [text]")
    add("-lang", type=pairs, default={}, metavar="en=0.6,zh=0.4", help="shares of the tokens; others fill what is left of 1")
    add("-pages", type=whole(1), metavar="N", help="about so many pages at most [all]")
    add("-val", type=whole(0), default=200, metavar="N", help="about so many validation pages, at most a tenth [200]")
    add("-test", type=whole(0), default=200, metavar="N", help="about so many test pages, at most a tenth [200]")
    add("-keep_out", action="append", default=[], metavar="FILE", help="a benchmark to keep out of the training pages; repeatable")
    add("-as_is", action="store_true", help="the texts are clean: no repair, no filters; indentation and line ends stay")
    add("-threshold", type=lambda t: pairs(t, THRESHOLDS), default={}, metavar="NAME=X,...", help="limits of the filters, below")
    add("-ocr_lang", default="eng+chi_sim", metavar="L", help="languages of tesseract [eng+chi_sim]")
    add("-seed", type=whole(0), default=1, metavar="N", help="[1]")
    add("-workers", type=whole(1), default=len(os.sched_getaffinity(0)), metavar="N", help="processes [all cores]")
    add("-slurm", metavar="PARTITION", help="run the tasks as Slurm job arrays; DIR must be shared")
    add("-ray", action="store_true", help="run the tasks on a Ray cluster; DIR must be shared")
    o = parser.parse_args(arguments)
    o.threshold = {name: value for name, (value, _) in THRESHOLDS.items()} | o.threshold
    if sum(o.lang.values()) > 1.001:
        parser.error(f"-lang: the shares add up to {sum(o.lang.values()):g}, expected 1 at most")
    unknown = [code for code in o.lang if code not in CODES]
    if unknown:
        parser.error(f"-lang: unknown '{unknown[0]}' (known: {', '.join(CODES)})")
    if o.m and (o.tok or o.vocab):
        parser.error("-m gives the tokenizer: -tok and -vocab do not go with it")
    if o.slurm and not shutil.which("sbatch"):
        raise Stop("-slurm: there is no sbatch here (hint: run this on a login node of the cluster)")
    if o.ray and not importlib.util.find_spec("ray"):
        raise Stop(f"-ray: Python module ray is missing (hint: {sys.executable} -m pip install 'ray[default]')")
    of_model(o)
    if o.least > o.most:
        parser.error(f"-least {o.least} is above -most {o.most}")
    return o


def of_model(o):
    """Fills in tokenizer, vocabulary and lengths, out of the model where there is one."""
    o.c3 = os.environ.get("C3", f"{ROOT}/c3")
    if not os.access(o.c3, os.X_OK):
        raise Stop(f"{o.c3} is not built (hint: make)")
    least, most = 600, 1300
    if o.m:
        info = subprocess.run([o.c3, "info", o.m], capture_output=True, text=True)
        if info.returncode:
            raise Stop(info.stderr.strip().split("\n")[-1].removeprefix("c3: "))
        words = {line[2:16].strip(): line[17:].split() for line in info.stdout.split("\n")}
        folder = info.stdout.split(": a C3 model")[0]
        found = [f"{folder}/{name}" for name in ("qwen.tiktoken", "tokenizer.json") if os.path.exists(f"{folder}/{name}")]
        if not found or "vocabulary" not in words:
            raise Stop(f"{o.m}: no tokenizer in this model (hint: -tok, -vocab, -least and -most instead of -m)")
        o.tok, o.vocab = found[0], int(words["vocabulary"][0].replace(",", ""))
        if "trained" in words:
            least, most = (int(words["trained"][i].replace(",", "")) for i in (3, 5))
    o.tok = o.tok or f"{ROOT}/data/qwen2.5/qwen.tiktoken"
    if not os.path.exists(o.tok):
        raise Stop(f"no vocabulary at {o.tok} (hint: bash data/get_tokenizer.sh; or -tok FILE)")
    o.vocab, o.least, o.most = o.vocab or 0, o.least or min(least, o.most or least), o.most or max(most, o.least or most)


# ---------------------------------------------------------------- the folder

HELD = []  # the lock stays open as long as the process, and those that it forks, live


def lock(o):
    """The folder is this run's, and its workers', until the last of them has ended."""
    os.makedirs(o.o, exist_ok=True)
    file = open(f"{o.o}/corpus.lock", "a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise Stop(f"{o.o}: another corpus.py is at work in it, process {file.read().strip() or '?'}") from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    HELD.append(file)


def settings_of(o, files):
    """What the result depends on."""
    keys = "vocab least most key lang pages val test threshold as_is ocr_lang seed".split()
    inputs = [[name, path, os.path.getsize(path), 0 if path == o.stdin else os.stat(path).st_mtime_ns] for path, name in files]
    hashes = [hashlib.sha256(open(path, "rb").read()).hexdigest() for path in [o.tok, *o.keep_out, *o.stdins]]
    return {**{k: getattr(o, k) for k in keys}, "ocr": ocr_missing(o.ocr_lang) is None, "hashes": hashes, "inputs": inputs}


def open_folder(o):
    """The list of input files; goes on with an earlier run of the same settings."""
    lock(o)
    o.work, o.stdin, o.stdins = os.path.abspath(f"{o.o}/work"), None, []
    given = [i for i in o.inputs if i != "-"]
    files = expand(given)
    if len(given) < len(o.inputs):
        os.makedirs(o.work, exist_ok=True)
        o.stdin = f"{o.work}/stdin"
        write_whole(o.stdin, lambda f: shutil.copyfileobj(sys.stdin.buffer, f))
        o.stdins = [o.stdin]
        files.append((o.stdin, "stdin"))
    held = [(path, f"held/{name}") for path, name in expand(o.held)]
    o.held_files = {path for path, _ in held}
    files = [f for f in files if f[0] not in o.held_files] + held
    here = os.path.realpath(o.o) + os.sep
    files = [f for f in files if f[0] == o.stdin or not os.path.realpath(f[0]).startswith(here)]
    if not files:
        raise Stop(f"{' '.join(o.inputs)}: no file in it")
    for path in o.keep_out:
        if not os.path.isfile(path):
            raise Stop(f"{path}: no such file")
    settings, path = json.loads(json.dumps(settings_of(o, files))), f"{o.o}/corpus_settings.json"
    if os.path.exists(path):
        with open(path) as f:
            before = json.load(f)
        if before != settings:
            what = ", ".join("input" if k in ("inputs", "hashes") else "-" + k for k in settings if before.get(k) != settings[k])
            raise Stop(f"{o.o}: holds a corpus of other settings: {what} (hint: another -o, or remove this folder)")
    else:
        write_json(path, settings)
    for name in ("docs", "signatures", "pairs", "verdict", "held", "train"):
        os.makedirs(f"{o.work}/{name}", exist_ok=True)
    return files


class Local(LocalPipelineExecutor):
    """On this machine. A worker that is killed ends the run with a line; datatrove's own pool would wait for it for ever."""

    def run(self):
        ranks = self.get_incomplete_ranks()
        if self.workers == 1:
            for rank in ranks:
                copy.deepcopy(self)._run_for_rank(rank)
            return
        pool = ProcessPoolExecutor(self.workers, multiprocessing.get_context("fork"))
        try:
            for task in [pool.submit(self._run_for_rank, rank) for rank in ranks]:
                task.result()
        except BrokenProcessPool:
            raise Stop("a worker process was killed, perhaps for lack of memory (hint: the same command goes on; fewer -workers "
                       "need less)") from None
        finally:
            pool.shutdown(cancel_futures=True)


def executor(o, name, steps, tasks):
    """datatrove's, which marks every finished task and skips it the next time."""
    logs = os.path.abspath(f"{o.work}/logs/{name}")
    if o.slurm:
        from datatrove.executor.slurm import SlurmPipelineExecutor
        return SlurmPipelineExecutor(steps, tasks, "24:00:00", o.slurm, logging_dir=logs, job_name=f"corpus_{name}",
                                     workers=o.workers, tasks_per_job=-(-tasks // o.workers), env_command=(
            f"export PYTHONPATH={shlex.quote(ROOT + '/data')} PATH={shlex.quote(os.path.dirname(sys.executable))}:$PATH"))
    if o.ray:
        from datatrove.executor.ray import RayPipelineExecutor
        return RayPipelineExecutor(steps, tasks, o.workers, logging_dir=logs)
    return Local(steps, tasks, min(o.workers, tasks), logs)


def execute(o, name, steps, tasks):
    """Runs a stage."""
    started = spent()
    with open(f"{o.work}/log", "a") as log, contextlib.redirect_stderr(log):
        made = executor(o, name, steps, tasks)
        made.run()
        gone = 0
        while left := made.get_incomplete_ranks(skip_completed=True):  # Slurm's jobs run elsewhere
            waits = o.slurm and subprocess.run(["squeue", "-h", "-j", str(made.job_id)], capture_output=True).stdout.strip()
            gone = 0 if waits else gone + 1
            if gone > (2 if o.slurm else 0):
                raise Stop(f"{name}: {len(left)} of {tasks} tasks have failed, see {o.work}/logs/{name} (hint: the same command "
                           "runs them again)")
            time.sleep(5)
    print(f"  {name}: {tasks} task{'s'[: tasks > 1]}, {cost(started)}", flush=True)


def spent():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.monotonic(), sum(u.ru_utime + u.ru_stime for u in used), max(u.ru_maxrss for u in used)


def cost(before):
    """Time since, processor time, and the most memory of a process so far."""
    now = spent()
    return f"{now[0] - before[0]:.1f} s, {now[1] - before[1]:.1f} s of processor time, largest process {now[2] >> 10} MB"


# ---------------------------------------------------------------- doubles, languages, split

def doubles(o, hashes):
    """(exact, near) doubles as masks; of each group the first document stays. Near: documents that share one of the
    bands of their MinHash signatures, and what hangs together so."""
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    first_of = first[group]
    exact = first_of != np.arange(len(hashes))
    found = [np.load(f"{o.work}/pairs/{name}") for name in sorted(os.listdir(f"{o.work}/pairs"))]
    ends = np.sort(first_of[np.concatenate(found)], axis=1)
    ends = np.stack(np.divmod(np.unique(ends[:, 0] * len(hashes) + ends[:, 1]), len(hashes)), 1)
    parent = {}

    def root(x):
        while parent.get(x, x) != x:
            parent[x] = x = parent.get(parent[x], parent[x])
        return x
    for a, b in ends.tolist():
        a, b = root(a), root(b)
        parent[max(a, b)] = min(a, b)
    near = np.zeros(len(hashes), bool)
    near[[x for x in parent if root(x) != x]] = True
    return exact, near & ~exact


def choose(o, tasks):
    """Each document's verdict: 0 train, 1 val, 2 test, or why it is dropped; and how many pages of a document to train on
    are held out for val and test, in a stretch each."""
    if os.path.exists(f"{o.work}/verdict.json"):
        return
    index = [np.load(f"{o.work}/docs/{i:05d}.npy") for i in range(tasks)]
    offsets = np.cumsum([0] + [len(i) for i in index])
    index = np.concatenate(index)
    hashes, (tokens, paged, lang, pages, held) = index[:, 0], index[:, 1:].T.astype(np.int64)
    names = np.array(CODES)[lang]
    verdict = np.zeros(len(hashes), np.uint8)
    exact, near = doubles(o, hashes)
    verdict[near], verdict[exact] = NEAR, EXACT
    key = (hashes ^ np.uint64(keyed(o, "documents"))) * np.uint64(0xBF58476D1CE4E5B9)
    order = np.argsort((key ^ (key >> np.uint64(31))) * np.uint64(0x94D049BB133111EB), kind="stable")
    verdict[(held == 1) & (verdict == 0)] = 1
    order = order[verdict[order] == 0]

    def limit(where, wanted, why, of):  # in the random order, what still fits stays
        for at, size in zip(where.tolist(), of[where].tolist()):
            if size <= wanted:
                wanted -= size
            else:
                verdict[at] = why
    if o.lang:
        groups = [(code, order[names[order] == code], share) for code, share in o.lang.items() if share]
        if 1 - sum(o.lang.values()) > 0.001:
            groups.append(("others", order[~np.isin(names[order], list(o.lang))], 1 - sum(o.lang.values())))
        verdict[order[~np.isin(order, np.concatenate([group for _, group, _ in groups]))]] = LANGUAGE
        for code, group, share in groups:
            if not len(group):
                raise Stop(f"-lang: {code} should be {100 * share:g} % of the tokens and there is no document of it "
                           "(hint: other shares, and another -o)")
        total = min(paged[group].sum() / share for _, group, share in groups)
        if o.pages:
            total = min(total, o.pages / sum(share * pages[group].sum() / paged[group].sum() for _, group, share in groups))
        for _, group, share in groups:
            limit(group, round(total * share), SHARE, paged)
    if o.pages:
        limit(order[verdict[order] == 0], o.pages, SURPLUS, pages)
    order = order[verdict[order] == 0]
    rest, stretches, stretch = pages[order].sum(), {}, np.zeros((len(hashes), 3), np.int64)
    for split, wanted in ((1, 0 if o.held else o.val), (2, o.test)):
        wanted, have = min(wanted, rest // 10), 0
        for at in order:
            if have >= wanted:
                break
            if verdict[at] == 0 and pages[at] <= max(1, wanted - have):
                verdict[at], have = split, have + pages[at]
        if 2 * have < wanted:  # too few documents, or only long ones
            left = order[verdict[order] == 0]
            ends = np.cumsum(pages[left])
            stretches[split] = float(wanted - have) / float(ends[-1])
            stretch[left, split] = np.diff(np.floor(ends * stretches[split] + 1e-6), prepend=0)
    tally = Tally()
    for code, why in DROPPED.items():
        where = verdict == code
        if where.any():
            tally.add(why, where.sum(), pages[where].sum(), tokens[where].sum())
    stretch[:, 0] = verdict
    for i, (a, b) in enumerate(zip(offsets, offsets[1:])):
        write_whole(f"{o.work}/verdict/{i:05d}.npy", lambda f: np.save(f, stretch[a:b]))
    kept = verdict < 3
    write_json(f"{o.work}/verdict.json", {"tally": tally, "stretches": stretches, "languages": {
        code: int(paged[kept & (names == code)].sum()) for code in sorted(set(names[kept].tolist()))}})


# ---------------------------------------------------------------- held-out runs

def kept_out(o):
    """Runs of GRAM tokens of the benchmarks' texts."""
    found = [np.empty(0, np.uint64)]
    for unit in (u for task in tasks_of(expand(o.keep_out)) for u in task):
        for document in read_unit(unit, o):
            if isinstance(document, Broken):
                raise Stop(f"{unit[0]}: {document.args[1]}")
            found += [runs_of(ids_of(tidy(p), o).astype(np.uint64), GRAM) for p in document[1] if isinstance(p, str)]
    return np.unique(np.concatenate(found))


def gather_runs(o):
    """runs.npy, sorted, and a sieve that says of nearly every other run at once that it is not among them."""
    if os.path.exists(f"{o.work}/sieve.npy"):
        return
    runs = [np.load(f"{o.work}/held/{name}.npz")["hits"][:, 1] for name in parts_of(o, "held")]
    out = kept_out(o)
    runs = np.unique(np.concatenate([*runs, out]))
    write_whole(f"{o.work}/kept_out.npy", lambda f: np.save(f, np.isin(runs, out)))
    write_whole(f"{o.work}/runs.npy", lambda f: np.save(f, runs))
    size = 1 << max(16, (16 * len(runs)).bit_length())
    sieve = np.zeros(size, bool)
    sieve[(runs & np.uint64(size - 1)).astype(np.int64)] = True
    write_whole(f"{o.work}/sieve.npy", lambda f: np.save(f, sieve))


def overlap(o, held, train):
    """(masks of the held-out pages that stay, masks of the training pages that stay, tally). A run that stands in more
    than COMMON training pages is a stock phrase; a held-out page of which a fifth is such is passed over, elsewhere they
    do not count. What shares any other run with a held-out page, or any at all with a benchmark, is no training page."""
    runs, out = np.load(f"{o.work}/runs.npy"), np.load(f"{o.work}/kept_out.npy")
    count = np.zeros(len(runs), np.int64)
    for part in train:
        count += np.bincount(part["hits"][:, 1].astype(np.int64), minlength=len(runs))
    common, active, tally, stay_held = count > COMMON, out.copy(), Tally(), []
    for part in held:
        page, run = part["hits"][:, 0].astype(np.int64), np.searchsorted(runs, part["hits"][:, 1])
        n = len(part["keys"])
        stock = np.bincount(page, common[run], n) > 0.2 * np.maximum(1, np.bincount(page, minlength=n))
        stay_held.append(~stock)
        active[run[~stock[page] & ~common[run]]] = True
        if stock.any():
            tally.add("stock_phrases_held_out", 0, stock.sum(), part["tokens"][stock].sum())
    stay = []
    for part in train:
        page, run = part["hits"][:, 0].astype(np.int64), part["hits"][:, 1].astype(np.int64)
        n = len(part["keys"])
        bench = np.bincount(page, out[run], n) > 0
        over = (np.bincount(page, active[run], n) > 0) & ~bench
        for why, mask in (("keep_out", bench), ("held_out_overlap", over)):
            if mask.any():
                tally.add(why, 0, mask.sum(), part["tokens"][mask].sum())
        stay.append(~(bench | over))
    return stay_held, stay, tally


# ---------------------------------------------------------------- results

def parts_of(o, part):
    """Names of the files of sorted pages that the tasks have written."""
    return sorted(name[:-4] for name in os.listdir(f"{o.work}/{part}") if name.endswith(".npz"))


def in_order(folder, names, parts, stay):
    """The pages of all files in the order of their keys; in each file they come so."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)  # all are open at once
    keys = np.concatenate([p["keys"] for p in parts])
    task = np.repeat(np.arange(len(parts)), [len(p["keys"]) for p in parts])
    files = [None] * len(parts)
    at = [0] * len(parts)
    for i in task[np.argsort(keys, kind="stable")].tolist():
        files[i] = files[i] or lines_of_file(f"{folder}/{names[i]}.zst")
        line = next(files[i])
        if stay[i][at[i]]:
            yield line
        at[i] += 1


def shards(o, split, lines=None):
    """Feeds c3 tokenize, which replaces a set of shards whole or not at all."""
    which = ["-m", o.m] if o.m else ["-tok", o.tok, "-vocab", str(o.vocab)]
    run = subprocess.Popen([o.c3, "tokenize", *which, "-o", f"{o.o}/{split}", "-"], stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=die_with_parent)
    try:
        for line in lines:
            run.stdin.write(line)
            yield line
        run.stdin.close()
    except BrokenPipeError:
        pass
    except BaseException:
        run.kill()  # for it the end of the pipe would be that of the pages; so it dies with this process, too
        raise
    said, errors = run.stdout.read(), run.stderr.read().decode(errors="replace").strip()
    if run.wait():
        raise Stop("c3 tokenize: " + (errors.split("\n")[-1].removeprefix("c3: ") or f"exit code {run.returncode}"))
    return said


def finish(o):
    """Shards, pages and manifest of the three splits; the manifest comes last."""
    names = {part: parts_of(o, part) for part in ("held", "train")}
    held, train = ([dict(np.load(f"{o.work}/{part}/{name}.npz")) for name in names[part]] for part in names)
    stay_held, stay, dropped = overlap(o, held, train)
    result, lengths = {}, {}
    for number, split in enumerate(SPLITS):
        parts = held if number else train
        masks = [s & (p["part"] == number) for s, p in zip(stay_held if number else stay, parts)]
        tokens = np.concatenate([p["tokens"][m] for p, m in zip(parts, masks)])
        result[split] = {"pages": len(tokens), "tokens": int(tokens.sum())}
        lengths[split] = tokens
        if not len(tokens):
            continue
        part = "held" if number else "train"
        lines = shards(o, split, in_order(f"{o.work}/{part}", names[part], parts, masks))
        if number:
            write_whole(f"{o.o}/{split}.jsonl", lambda f: f.writelines(lines))
        else:
            write_lines(f"{o.o}/{split}.jsonl.zst", lines, level=3)
    if not result["train"]["pages"]:
        raise Stop("no training page is left, see aside.jsonl and the table above")
    return result, lengths, dropped


def tallies(o, tasks):
    read, cut, sources, licences = Tally(), Tally(), {}, {}
    for i in range(tasks):
        with open(f"{o.work}/docs/{i:05d}.json") as f:
            found = json.load(f)
        sources |= found["sources"]
        for name, tokens in found["licences"].items():
            licences[name] = licences.get(name, 0) + tokens
        for reason, row in found["tally"].items():
            read.add(reason, *row)
        for part in ("held", "train"):
            path = f"{o.work}/{part}/{i:05d}.json"
            if os.path.exists(path):
                with open(path) as f:
                    for reason, row in json.load(f)["tally"].items():
                        cut.add(reason, *row)
    return read, cut, sources, licences


def manifest(o, files, tasks, result, dropped):
    read, cut, sources, licences = tallies(o, tasks)
    with open(f"{o.work}/verdict.json") as f:
        chosen = json.load(f)
    stages = {"read and clean": read, "doubles, languages": chosen["tally"], "cut": cut, "held-out overlap": dropped}
    keys = "vocab least most key lang held pages val test seed ocr_lang as_is threshold".split()
    return {"format": 1, "options": {k: getattr(o, k) for k in keys}, "tokenizer": settings_hash(o.tok),
            "keep_out": {os.path.basename(p): settings_hash(p) for p in o.keep_out},
            "stretches_held_out": {SPLITS[split]: round(share, 4) for split, share in o.stretches.items()},
            "kept": result, "languages": chosen["languages"], "licences": dict(sorted(licences.items())),
            "stages": {name: dict(sorted(tally.items(), key=lambda item: (item[0] != "read", item[0])))
                       for name, tally in stages.items()},
            "sources": [{"name": name, "bytes": os.path.getsize(path), "sha256": sources[path]} for path, name in files]}


def settings_hash(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def write_aside(o, tasks):
    """All that was left out in one file; says the first of each reason that has a remedy, and how many there are."""
    first, count = {}, collections.Counter()
    with open(f"{o.o}/aside.jsonl.new", "w", encoding="utf-8") as out:
        for i in range(tasks):
            with open(f"{o.work}/docs/{i:05d}.aside.jsonl", encoding="utf-8") as f:
                for line in f:
                    out.write(line)
                    left = json.loads(line)
                    if left["detail"]:
                        key = left["reason"], left["detail"] if left["reason"] in ("unknown_format", "needs_ocr") else ""
                        first.setdefault(key, left)
                        count[key] += 1
    os.replace(f"{o.o}/aside.jsonl.new", f"{o.o}/aside.jsonl")
    for key, left in sorted(first.items()):
        more = f" and {count[key] - 1:,} more" if count[key] > 1 else ""
        print(f"  left out, {key[0]}: {left['id']}{more}: {left['detail']}")


def table(made):
    """What became of the tokens, as lines."""
    read = made["stages"]["read and clean"].get("read", [0, 0, 0])
    yield f"{'':24} {'documents':>10} {'pages':>10} {'tokens':>14}"
    for tally in made["stages"].values():
        for reason, row in tally.items():
            sign = "" if reason == "read" else "- "
            yield f"{sign + reason:24} {row[0]:10,} {row[1]:10,} {row[2]:14,}"
    for split, row in made["kept"].items():
        share = f"{100 * row['tokens'] / max(1, read[2]):6.1f} %"
        yield f"{split:24} {'':10} {row['pages']:10,} {row['tokens']:14,} {share}"


def work(o):
    files = open_folder(o)
    if os.path.exists(f"{o.o}/manifest.json"):
        print(f"{o.o} is complete (hint: remove it to make it anew)")
        return
    started = time.monotonic()
    tasks = tasks_of(files)
    n = len(tasks)
    o.ocr_threads = max(1, o.workers // n)
    try:
        ids_of("", o), stop_words()  # loaded once, before the workers are forked
    except ValueError as e:
        raise Stop(e) from None
    execute(o, "read", [Read(o, tasks), Sign(f"{o.work}/signatures")], n)
    write_aside(o, n)
    index = sum(len(np.load(f"{o.work}/docs/{i:05d}.npy")) for i in range(n))
    if not index:
        raise Stop(f"no document of {' '.join(o.inputs)} gave a page of {o.least} tokens, see {o.o}/aside.jsonl")
    execute(o, "doubles", [Pairs(f"{o.work}/signatures", f"{o.work}/pairs")], BANDS * (1 + index // DOCUMENTS_AT_ONCE))
    choose(o, n)
    with open(f"{o.work}/verdict.json") as f:
        o.stretches = {int(split): share for split, share in json.load(f)["stretches"].items()}
    for split, share in o.stretches.items():
        print(f"  {SPLITS[split]}: too few documents to hold out whole ones, so {100 * share:.2g} % of the pages, each document's in one stretch")
    execute(o, "held", [Cut(o, "held")], n)
    gather_runs(o)
    execute(o, "pages", [Cut(o, "train")], n)
    began = spent()
    result, lengths, dropped = finish(o)
    print(f"  shards: {cost(began)}")
    made = manifest(o, files, n, result, dropped)
    import corpus_report
    corpus_report.write(f"{o.o}/report.html", made, lengths)
    write_json(f"{o.o}/manifest.json", made)
    shutil.rmtree(o.work)
    print("\n".join(table(made)))
    seconds = time.monotonic() - started
    print(f"{o.o}: {sum(r['pages'] for r in result.values()):,} pages in {seconds:.1f} s; report.html shows them")


def main(arguments=None):
    logger.remove()
    try:
        o = options(arguments)
        os.register_at_fork(after_in_child=die_with_parent)  # no worker writes on when this process was killed
        work(o)
    except (Stop, Broken) as why:
        sys.exit(f"corpus.py: {why.args[-1]}")
    except OSError as why:
        if why.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            sys.exit(f"corpus.py: {o.o}: {os.strerror(why.errno)} (hint: make room, then run the same command: it goes on)")
        raise
    except KeyboardInterrupt:
        sys.exit("corpus.py: interrupted (hint: the same command goes on)")


if __name__ == "__main__":
    main()
