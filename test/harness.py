"""What the Python tests share: cases, closing line, running the programs, reading logs, small corpora."""
import glob
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TRAIN, C3 = os.path.join(ROOT, "train_c3"), os.path.join(ROOT, "c3")
TOKENIZER = os.path.join(ROOT, "data/qwen2.5/qwen.tiktoken")
_counts = {"passed": 0, "failed": 0}


def case(name, ok, detail=""):
    """Counts and prints one case; the detail only when it failed."""
    _counts["passed" if ok else "failed"] += 1
    print(f"{'ok  ' if ok else 'FAIL'} {name}" + ("" if ok else f"\n     {detail}"), flush=True)
    return ok


def done():
    print(f"{_counts['passed']} passed, {_counts['failed']} failed")
    sys.exit(1 if _counts["failed"] or not _counts["passed"] else 0)


class Folder:
    """A temporary folder that is removed at the end."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="c3test.")
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)


def environment():
    """As mpi_environment in scripts/common.sh: OMPI_ are variables of Open MPI 4, PRTE_ those of 5."""
    env = dict(os.environ, OMPI_MCA_rmaps_base_oversubscribe="1", OMPI_MCA_btl_vader_single_copy_mechanism="none",
               PRTE_MCA_rmaps_default_mapping_policy=":oversubscribe", OMPI_MCA_mpi_yield_when_idle="1", NO_COLOR="1")
    if os.geteuid() == 0:
        env.update({f"{launcher}_ALLOW_RUN_AS_ROOT{confirm}": "1" for launcher in ("OMPI", "PRTE")
                    for confirm in ("", "_CONFIRM")})
    return env


def command(program, args, ranks=1):
    launcher = ["mpirun", "--bind-to", "none", "-np", str(ranks)] if ranks > 1 else []
    return launcher + [program] + [str(a) for a in args]


def run(program, args, ranks=1, timeout=300, check=True, cwd=ROOT):
    r = subprocess.run(command(program, args, ranks), env=environment(), cwd=cwd, timeout=timeout, text=True,
                       capture_output=True, stdin=subprocess.DEVNULL)
    if check and r.returncode != 0:
        raise RuntimeError(f"{' '.join(command(program, args, ranks))}\nexit {r.returncode}\n{r.stdout[-2000:]}\n{r.stderr[-2000:]}")
    return r


def cpu_seconds(pid=None):
    """Processor time that a process took until now; without one, that all took that were run and waited for. It is the
    measure of work on a machine that does other things as well."""
    if pid is None:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime
    with open(f"/proc/{pid}/stat") as f:
        return sum(map(int, f.read().rsplit(")", 1)[1].split()[11:13])) / os.sysconf("SC_CLK_TCK")


def start(program, args, ranks=1):
    """A process of its own group, for signals."""
    return subprocess.Popen(command(program, args, ranks), env=environment(), cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                            start_new_session=True)


def log(run_dir):
    """The step lines of a run, by step."""
    with open(os.path.join(run_dir, "log.jsonl")) as f:
        lines = [json.loads(line) for line in f]
    return {o["step"]: o for o in lines if "loss" in o}


def losses(run_dir):
    return [o["loss"] for _, o in sorted(log(run_dir).items())]


def spans(run_dir):
    """The events of a run's profile.json by rank, in the order in which they were opened: {"name", "ts", "dur", "tid",
    "path": names from the step down}; times in whole nanoseconds."""
    with open(os.path.join(run_dir, "profile.json")) as f:
        events = [e for e in json.load(f)["traceEvents"] if e["ph"] == "X"]
    ranks, open_now = {}, {}
    for e in events:
        e["ts"], e["dur"] = round(1000 * e["ts"]), round(1000 * e["dur"])
        around = open_now.setdefault((e["pid"], e["tid"]), [])
        while around and e["ts"] >= around[-1]["ts"] + around[-1]["dur"]:
            around.pop()
        e["path"] = [*(around[-1]["path"] if around else []), e["name"]]
        around.append(e)
        ranks.setdefault(e["pid"], []).append(e)
    return ranks


def span_faults(events):
    """What is wrong with the nesting of a rank's events: each ends inside the one around it, and those in one take no
    more time than it does; none of a track lies outside of the steps, but for collectives."""
    wrong, around, inside = [], {}, {}
    for e in events:
        depth, end = len(e["path"]), e["ts"] + e["dur"]
        around[e["tid"], depth] = e
        if e["dur"] < 0:
            wrong.append(f"{e['path']} ends before it begins")
        if depth == 1:
            if e["tid"] == 0 and not e["name"].startswith("step "):
                wrong.append(f"{e['path']} lies outside of a step")
            continue
        parent = around[e["tid"], depth - 1]
        inside[id(parent)] = inside.get(id(parent), 0) + e["dur"]
        if end > parent["ts"] + parent["dur"] or e["tid"]:
            wrong.append(f"{e['path']} ends {end - parent['ts'] - parent['dur']} ns after the one around it")
        if inside[id(parent)] > parent["dur"]:
            wrong.append(f"{parent['path']}: what lies in it takes longer")
    return wrong


def model_bytes(run_dir, step):
    """Everything the model is, as bytes."""
    folder = os.path.join(run_dir, f"step_{step:08d}")
    parts = []
    for name in ("model.safetensors", "llm1/model.safetensors"):
        with open(os.path.join(folder, name), "rb") as f:
            parts.append(f.read())
    return parts


WORDS = ("the sea was calm and a small boat went out in the morning while people on land looked after it for long "
         "hours without a word about what they had heard from their fathers when nobody believed such stories any "
         "more than rain in summer or snow before winter comes").split()


def make_pages(path, n, seed, shortest=4, longest=40):
    """n pages of random words as JSONL."""
    rng = random.Random(seed)
    with open(path, "w") as f:
        for i in range(n):
            text = " ".join(rng.choice(WORDS) for _ in range(rng.randint(shortest, longest)))
            f.write(json.dumps({"id": f"p{i}", "text": text}) + "\n")


def make_shards(folder, name, n, seed, vocab=4096, shards=1, **lengths):
    """Shards folder/name_*.bin of n random pages each."""
    for s in range(shards):
        jsonl = os.path.join(folder, f"{name}{s}.jsonl")
        make_pages(jsonl, n, seed + s, **lengths)
        run(C3, ["tokenize", "-tok", TOKENIZER, "-vocab", vocab, "-o", os.path.join(folder, f"{name}{s}"), jsonl])
    return os.path.join(folder, f"{name}*.bin")


def leftovers(folder):
    """Temporary files of outputs, wherever they lie below a folder; their names are hidden."""
    return [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names if name.endswith(".tmp")]


def wait_for(condition, seconds):
    end = time.time() + seconds
    while time.time() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def checkpoints(run_dir):
    """Steps with a COMPLETE marker, ascending."""
    steps = (os.path.basename(os.path.dirname(p))[5:] for p in glob.glob(os.path.join(run_dir, "step_*", "COMPLETE")))
    return sorted(int(step) for step in steps if step.isdigit())  # step_N.tmp is still being written
