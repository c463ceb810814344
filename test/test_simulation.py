#!/usr/bin/env python3
"""test_simulation.py: the CUDA backend on simulated GPUs (dev/cudasim): the product's own objects, its kernels translated.
The cells are listed in test/simulation_matrix.txt. Arguments, if any, choose among them: each must be a word of the line.

Tolerances, written down before the first run (decisions: CUDA against the CPU backend is not bit-equal):
    fp32   losses of all steps within 1e-5 of the CPU backend's, the first gradient norm within 1e-6
    bf16   losses within twice the largest difference that the CPU backend shows between splits of the same batch in
           30 steps
That they are not too wide is shown by a run with another learning rate, half a percent higher, which must fall outside.
"""
import json
import os
import re
import subprocess
import sys
import time
from bisect import bisect
from concurrent.futures import ThreadPoolExecutor

from harness import ROOT, Folder, case, command, done, environment, log, losses, make_shards, model_bytes, span_faults, spans

sys.path.insert(0, os.path.join(ROOT, "dev/cudasim"))
from event_log import EventLog  # noqa: E402

BUILD = os.environ.get("BUILD", "build")
SIM = os.path.join(ROOT, "build/cudasim")
CORES = len(os.sched_getaffinity(0))
MODEL = ["-preset", "tiny", "-vocab", 512, "-n", 4, "-lr", "1e-4", "-eps", "1e-6", "-warmup", 5, "-save_every", 0,
         "-val_every", 0, "-threads", 1]
FP32_LOSS, FP32_NORM = 1e-5, 1e-6
TIMEOUT = 12  # seconds, for collectives that stand still in tests of faults


class Cell:
    def __init__(self, line):
        words = line.split()
        self.what, self.build, ranks, self.type, self.steps, self.order, self.streams, self.check = words[:8]
        self.ranks, self.name = int(ranks), " ".join(words)
        self.options = [word for word in words[8:] if not word.startswith("C3_")]
        self.settings = {"SIM_ORDER": self.order, "SIM_ASYNC": self.streams}
        self.settings |= dict(word.split("=") for word in words[8:] if word.startswith("C3_"))

    def option(self, name):
        return int(self.options[self.options.index(name) + 1])


class Run:
    """A finished process, its output and its seconds."""

    def __init__(self, program, arguments, ranks=1, settings=None, timeout=600):
        settings = {"OMP_NUM_THREADS": "1", "ASAN_OPTIONS": "detect_leaks=0", **(settings or {})}
        inherited = {k: v for k, v in environment().items() if not k.startswith("SIM_")}
        start = time.time()
        try:
            r = subprocess.run(command(program, arguments, ranks), cwd=ROOT, env={**inherited, **settings}, text=True,
                               errors="replace", capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout)
            self.code, self.text = r.returncode, r.stdout + r.stderr
        except subprocess.TimeoutExpired as e:
            self.code, self.text = "none, it hung", str(e.stdout or "") + str(e.stderr or "")
        self.seconds = time.time() - start

    def tail(self):
        return f"exit code {self.code}\n" + "\n".join("     | " + line[:200] for line in self.text.splitlines()[-15:])


def program(cell, name):
    return os.path.join(SIM, cell.build, name)


class Trainer:
    """Training runs on the same pages, each in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.data = make_shards(folder, "pages", 60, seed=1, vocab=512, shards=2, shortest=3, longest=12)
        self.references = {}

    def run(self, cell, device="cuda", options=None, settings=None, timeout=600):
        number = len(os.listdir(self.folder))
        out = os.path.join(self.folder, f"{number}.{os.urandom(4).hex()}")
        options = cell.options if options is None else options
        arguments = MODEL + ["-data", self.data, "-o", out, "-device", device, "-dtype", cell.type, "-steps", cell.steps]
        build = os.path.join(SIM, "opt" if device == "cpu" else cell.build, "train_c3")
        return out, Run(build, arguments + options, cell.ranks, settings, timeout)

    def reference(self, cell, options):
        """The CPU backend's losses and first gradient norm."""
        key = (cell.ranks, cell.type, cell.steps, *map(str, options))
        if key not in self.references:
            out, r = self.run(cell, "cpu", options)
            if r.code != 0:
                raise RuntimeError(f"the CPU backend fails: {r.tail()}")
            self.references[key] = (losses(out), log(out)[1]["grad_norm"])
        return self.references[key]

    def spread(self, cell):
        """The largest difference of losses between splits of the cell's batch on one rank."""
        pages = cell.ranks * cell.option("-b") * cell.option("-g")
        alone = Cell(f"train opt 1 {cell.type} 30 forward eager cpu")
        splits = [self.reference(alone, ["-b", b, "-g", pages // b])[0] for b in range(1, pages + 1) if pages % b == 0]
        return max(relative(a, b) for a in splits for b in splits)


def relative(a, b):
    return max(abs(x - y) / abs(y) for x, y in zip(a, b, strict=True))


# ---- operations, parity --------------------------------------------------------------------------------------------

def counted(r):
    """[explanation] unless the run ended with 'N passed, 0 failed', and in race builds 0 reports."""
    closing = re.findall(r"^(\d+) passed, (\d+) failed$", r.text, re.M)
    good = r.code == 0 and closing and closing[-1][0] != "0" and closing[-1][1] == "0"
    return [] if good else [r.tail()]


def run_ops(cell, _):
    arguments = ["-device", "cuda", "-dtype", cell.type] + cell.options
    r = Run(program(cell, "test_ops"), arguments, settings=cell.settings)
    wrong = counted(r)
    if cell.build == "race" and not re.search(r"racecheck: [1-9]\d* accesses, 0 reports", r.text):
        wrong.append("no closing line of the race check: " + r.tail())
    return wrong


def run_parity(cell, _):
    settings = {**cell.settings, "PARITY_CHECK": program(cell, "parity_check"), "PARITY_DEVICE": "cuda"}
    return counted(Run(sys.executable, [os.path.join(ROOT, "test/test_parity.py")], settings=settings, timeout=900))


# ---- training ------------------------------------------------------------------------------------------------------

def compare_with_cpu(cell, trainer, out):
    ours, norm = losses(out), log(out)[1]["grad_norm"]
    theirs, their_norm = trainer.reference(cell, cell.options)
    far, first = relative(ours, theirs), abs(norm - their_norm) / their_norm
    allowed = FP32_LOSS if cell.type == "fp32" else 2 * trainer.spread(cell)
    wrong = [] if far <= allowed else [f"losses differ by {far:.1e} from the CPU backend's, allowed {allowed:.1e}"]
    if cell.type == "fp32" and first > FP32_NORM:
        wrong.append(f"the first gradient norm differs by {first:.1e}, allowed {FP32_NORM:.0e}")
    if int(cell.steps) >= 30:
        other = trainer.reference(cell, cell.options + ["-lr", "1.005e-4"])[0]
        if relative(ours, other) <= allowed:
            wrong.append(f"a learning rate half a percent higher is not noticed: {relative(ours, other):.1e}")
    print(f"     {far:.1e} from the CPU backend, allowed {allowed:.1e}; first gradient norm {first:.1e}")
    return wrong


def run_train(cell, trainer):
    out, r = trainer.run(cell, settings=cell.settings)
    if r.code != 0:
        return [r.tail()]
    if cell.build == "race" and "racecheck" in r.text and ", 0 reports" not in r.text:
        return [r.tail()]
    if cell.check == "cpu":
        return compare_with_cpu(cell, trainer, out)
    cell.bits = losses(out), model_bytes(out, int(cell.steps))
    return [] if len(cell.bits[0]) == int(cell.steps) else ["steps are missing in the log"]


def compare_bits(cells):
    """Cells =NAME against the first of them; and that other settings are not the same bits, which a comparison of
    nothing with nothing would not show."""
    names = {}
    for cell in cells:
        if cell.check.startswith("=") and hasattr(cell, "bits"):
            names.setdefault(cell.check, []).append(cell)
    for group in names.values():
        for cell in group[1:]:
            same = cell.bits == group[0].bits
            case(f"bit-equal: {cell.name}", same, f"differs from {group[0].name}: {cell.bits[0]}, {group[0].bits[0]}")
    for a, b in zip(list(names.values()), list(names.values())[1:]):
        case(f"not bit-equal, as it should be: {a[0].check} {b[0].check}", a[0].bits != b[0].bits)


# ---- the event log -------------------------------------------------------------------------------------------------

def steps_of(log):
    """Lists of operations: from the first of an encoder's forward pass to the last of the optimizer."""
    steps, previous = [], ""
    for op in log.ops.values():
        part = op.range.split("/")[0]
        if not part:
            continue
        if part == "encoder forward" and previous in ("", "optimizer", "load and pack the next step"):
            steps.append([])
        steps[-1].append(op)
        previous = part
    return steps


def within(step, *ranges):
    return [op for op in step if f"{op.range}/".startswith("/".join(ranges) + "/")]


def reductions_overlap(log, step, stack, layers):
    """The reduce-scatter of each layer may run while the layer below is still in its backward pass, not before its own
    is done."""
    for layer in range(layers - 1, -1, -1):
        mine = within(step, f"{stack} backward", f"layer {layer}")
        reduce = [op for op in mine if op.kind == "collective"]
        if len(reduce) != 1 or reduce[0].name != "ncclReduceScatter":
            yield f"{stack} layer {layer}: {reduce} instead of one reduce-scatter"
            continue
        last = [op for op in mine if op.kind in ("kernel", "matmul")][-1]
        if not log.must_precede(last, reduce[0]):
            yield f"{stack} layer {layer}: reduced before its backward pass is done"
        if layer == 0:
            continue
        below = [op for op in within(step, f"{stack} backward", f"layer {layer - 1}") if op.kind in ("kernel", "matmul")]
        if reduce[0].position > below[-1].position or log.must_precede(reduce[0], below[-1], host=False):
            yield f"{stack} layer {layer}: its reduce-scatter comes behind the backward pass of layer {layer - 1}"


def update_waits(log, step):
    """The last kernel of the optimizer comes behind every reduce-scatter of the step."""
    reduce = [op for op in step if op.name == "ncclReduceScatter"]
    last = [op for op in within(step, "optimizer") if op.kind == "kernel"][-1]
    free = [op for op in reduce if not log.must_precede(op, last, host=False)]
    if free or not reduce:
        yield f"the optimizer does not wait for {free} of {len(reduce)} reduce-scatters"


def gathers_overlap(log, before, step, stack, layers):
    """A layer's forward pass waits for the gather of its own parameters, not for those of the layers above."""
    gathers = [op for op in within(before, "optimizer") if op.name == "ncclAllGather"]
    first = [[op for op in within(step, f"{stack} forward", f"layer {layer}") if op.kind in ("kernel", "matmul")][0]
             for layer in range(layers)]
    waited = [[g.id for g in gathers if log.must_precede(g, op, host=False)] for op in first]
    for layer in range(1, layers):
        if len(waited[layer]) <= len(waited[layer - 1]):
            yield f"{stack} layer {layer} starts after the same gathers as layer {layer - 1}: {waited}"
    if len(waited[-1]) >= len(gathers):
        yield f"{stack}: its last layer waits for every gather, also those behind its own: {waited}"


def waits_for_recent(log, first, last):
    """Calls in which the host waits for something of its last 200 operations on a stream, so that the GPU could run dry.
    Questions with no operation queued between them are a wait for what the first of them asks about."""
    positions = {}
    for op in log.ops.values():
        positions.setdefault(op.stream, []).append(op.position)
    everything, before = sorted(p for stream in positions.values() for p in stream), 0
    for position, what, call, ids in log.waits:
        if not first.position < position < last.position:
            continue
        issued = bisect(everything, position)
        if what == "poll" and issued != before:
            op = log.ops[ids[0]]
            younger = bisect(positions[op.stream], position) - bisect(positions[op.stream], op.position)
        if what == "wait" or (issued != before and younger < 200):
            yield call
        before = issued


def profile_faults(cell, out):
    """Of the trace: spans that do not lie in each other, steps, collectives or waits for them that are missing."""
    ranks, wrong = spans(out), []
    for rank in range(cell.ranks):
        wrong += span_faults(ranks[rank])
        paths = ["/".join(e["path"]) for e in ranks[rank]]
        steps = [path for path in paths if path.startswith("step ") and "/" not in path]
        if steps != [f"step {i}" for i in range(3, 3 + cell.option("-profile"))]:
            wrong.append(f"rank {rank}: steps {steps}")
        for path in ("step 3/encoder backward/layer 0/attention", "step 3/optimizer/wait for reduction",
                     "step 4/decoder forward/layer 1/wait for gathering", "reduce-scatter", "all-gather"):
            if path not in paths:
                wrong.append(f"rank {rank}: no {path}")
    return wrong


def run_log(cell, trainer):
    file = os.path.join(trainer.folder, f"events.{os.urandom(4).hex()}")
    out, r = trainer.run(cell, settings={**cell.settings, "SIM_LOG": file})
    if r.code != 0:
        return [r.tail()]
    wrong = []
    for rank in range(cell.ranks):
        events = EventLog(f"{file}.{rank}")
        steps = steps_of(events)
        if len(steps) != int(cell.steps):
            return [f"{len(steps)} steps in the log"]
        for number, step in enumerate(steps):
            waits = list(waits_for_recent(events, step[0], step[-1]))
            wrong += [f"step {number + 1}: the host waits in {waits}"] if waits else []
            wrong += update_waits(events, step)
            if "-profile" in cell.options and number >= 2:
                collectives = [op for op in step if op.kind == "collective"]
                records = [op for op in step if op.kind == "record" and op.stream == collectives[0].stream]
                if len(records) != 2 * len(collectives):
                    wrong.append(f"step {number + 1}: {len(collectives)} collectives, on their stream {len(records)} events, not two each")
            for stack in ("encoder", "decoder"):
                last_micro = step[max(i for i, op in enumerate(step) if op.range.startswith("encoder forward")):]
                wrong += reductions_overlap(events, last_micro, stack, 2)
        wrong += gathers_overlap(events, steps[0], steps[1], "encoder", 2)
    if "-profile" in cell.options:
        wrong += profile_faults(cell, out)
    # The log's reader notices a step that waits.
    if not list(waits_for_recent(events, steps[0][0], steps[1][0])):
        wrong.append("no wait is seen between two steps, where there is one")
    return wrong


# ---- faults --------------------------------------------------------------------------------------------------------

HUNG = r"no progress for 12 s"
FAULTS = {  # name: (settings of the simulation, options, what must be said, exit code 0 or 1)
    "hang": ({"SIM_NCCL_FAULT": "hang:1:40"}, [], rf"rank \d on \S+: .*(reduce-scatter|all-gather) of tag \d+ .*{HUNG}"),
    "stop": ({"SIM_NCCL_FAULT": "stop:1:40"}, [], rf"rank 0 on \S+: .* of tag \d+ .*{HUNG}: it waits for rank 1 on \S+ \(no answer\)"),
    "kill": ({"SIM_NCCL_FAULT": "kill:1:40"}, [], r"process rank 1 .* exited on signal 9"),
    "error": ({"SIM_NCCL_FAULT": "error:1:40"}, [], r"rank 1 on \S+: .* of tag \d+ .*remote process exited"),
    "full": ({"SIM_NCCL_FAULT": "hang:1:12"}, [], rf"rank \d on \S+: .*all-gather of tag \d+ .*{HUNG}"),
    "alone": ({"SIM_NCCL_FAULT": "error:0:12"}, [], r"rank 0 on .* of tag \d+ .*remote process exited"),
    "connect": ({"SIM_NCCL_FAULT": "error:1:0"}, [], r"rank 1 on \S+: NCCL cannot connect the ranks: .*remote process exited"),
    "no_gpu": ({"SIM_DEVICES": "0"}, [], r"-device cuda: .*(no GPU is found|finds no GPU)"),
    "shared": ({"SIM_DEVICES": "1"}, [], r"2 ranks on a host with 1 GPU\(s\): ranks 0 and 1 would share one"),
    "driver": ({"SIM_DRIVER": "11080"}, [], r"driver supports CUDA 11\.8, this program was built with CUDA \d+\.\d"),
    "bf16": ({"SIM_ARCH": "75"}, [], r"capability 7\.5: bf16 .* needs 8\.0"),
    "workspace": ({"SIM_MEMORY": "30M"}, [], r"workspace: out of GPU memory: 67108864 bytes .* free \(hint: "),
    "memory": ({"SIM_MEMORY": "70M"}, [], r"train_c3: .*memory.* \(hint: "),
    "auto": ({"SIM_DEVICES": "0"}, ["-device", "auto"], r"no GPU found: computing on the CPU"),
    "timeout": ({"C3_COMM_TIMEOUT": "soon"}, [], r"C3_COMM_TIMEOUT=soon: expected the seconds"),
}


def run_fault(cell, trainer):
    settings, options, said = FAULTS[cell.check]
    settings = {**cell.settings, "C3_COMM_TIMEOUT": str(TIMEOUT), **settings}
    _, r = trainer.run(cell, options=cell.options + options, settings=settings, timeout=60)
    wrong = [] if re.search(said, r.text) else [f"'{said}' is not said: {r.tail()}"]
    if (r.code == 0) != (cell.check == "auto") or r.code == "none, it hung":
        wrong.append(r.tail())
    return wrong


# ---- algorithms of matrix products ----------------------------------------------------------------------------------

# What is done to a table so that it belongs elsewhere, or to its text.
IGNORED = {"device": "cuda NVIDIA H200, sm_90", "cublaslt": 120805}
DAMAGED = {  # name: (its first product's key, another value, None: the text is cut off there; what is said)
    "cut": ("align", None, r"damaged.json"),
    "digits": ("algorithm", "0a", r"damaged.json: product 1: algorithm: expected 128 hexadecimal digits"),
    "shape": ("K", 0, r"damaged.json: product 1: .*K"),
    "name": ("product", "backward", r"damaged.json: product 1: product: expected \"forward\""),
}


def run_tune(cell, trainer):
    """-tune times and changes nothing; its table is what later runs use, all ranks alike, and only where it belongs."""
    wrong, bits, texts = [], {}, {}

    def run(name, *options, streams="eager"):
        settings = {**cell.settings, "SIM_ASYNC": streams, "C3_COMM_TIMEOUT": "600"}  # rank 0 times for a minute here
        out, r = trainer.run(cell, options=[*cell.options, *options], settings=settings)
        texts[name] = r.text
        if r.code == 0:
            bits[name] = losses(out), model_bytes(out, int(cell.steps))
        return out, r

    def expect(name, pattern, same=None):
        said = re.search(pattern, texts[name])
        if not said:
            wrong.append(f"{name}: '{pattern}' is not said:\n" + "\n".join(texts[name].splitlines()[-6:]))
        if same and bits.get(name) != bits[same]:
            wrong.append(f"{name}: not the bits of {same}")
        return said

    run("plain")
    expect("plain", r"algorithms: \d+ by the heuristic \([1-9]\d* for one number of rows")
    out, _ = run("tuned", "-tune", streams="lazy")
    file = os.path.join(out, "algorithms.json")
    with open(file) as f:
        text = f.read()
    table = json.loads(text)
    expect("tuned", rf"by the heuristic .*; {len(table['products'])} timed, another faster in {len(table['products'])}", "plain")
    if len(table["products"]) < 10 or any(p["split_k"] != 3 or p["ms"] > p["first_ms"] for p in table["products"]):
        wrong.append(f"the third algorithm is the fastest, the table says {text[:2000]}")
    run("used", "-algorithms", file)
    run("used again", "-algorithms", file, streams="lazy")
    used = expect("used", r"algorithms: (\d+) in (\S+); (\d+) used, \d+ by the heuristic")
    if used and (int(used[1]) != len(table["products"]) or int(used[3]) < int(used[1]) / 2):
        wrong.append(f"{used[0]}, and the table has {len(table['products'])}")
    expect("used again", "algorithms", "used")
    if bits["used"] == bits["plain"]:
        wrong.append("the table changes nothing")
    for name, value in IGNORED.items():
        other = os.path.join(trainer.folder, f"{name}.json")
        with open(other, "w") as f:
            json.dump({**table, name: value}, f)
        run(name, "-algorithms", other)
        expect(name, rf"{name}.json is not used: it was made on .*{value}.*; here: cuda CUDA simulation", "plain")
    for name, (key, value, said) in DAMAGED.items():
        other = os.path.join(trainer.folder, "damaged.json")
        with open(other, "w") as f:
            products = [{**table["products"][0], key: value}]
            damaged = json.dumps({**table, "products": products})
            f.write(damaged if value is not None else damaged[: damaged.index(key)])
        _, r = run(name, "-algorithms", other)
        expect(name, rf"train_c3: .*{said}")
        if r.code == 0:
            wrong.append(f"{name}: a damaged table is used")
    return wrong


# ---- all of it -----------------------------------------------------------------------------------------------------

RUN = {"ops": run_ops, "parity": run_parity, "train": run_train, "log": run_log, "fault": run_fault, "tune": run_tune}


def matrix(words):
    with open(os.path.join(ROOT, "test/simulation_matrix.txt")) as f:
        cells = [Cell(line) for line in f if line.strip() and not line.startswith("#")]
    return [cell for cell in cells if all(word in cell.name.split() for word in words)]


def build(cells):
    names = {"ops": "test_ops", "parity": "parity_check"}
    targets = sorted({f"build/cudasim/{cell.build}/{names.get(cell.what, 'train_c3')}" for cell in cells} |
                     {"build/cudasim/opt/train_c3"})
    start = time.time()
    r = subprocess.run(["make", "-s", f"-j{CORES}", *targets], cwd=ROOT, text=True, capture_output=True)
    print(f"built {len(targets)} programs in {time.time() - start:.0f} s", flush=True)
    return case("the simulation builds without a warning", r.returncode == 0 and "warning:" not in r.stderr,
                (r.stdout + r.stderr)[-3000:])


def run_cell(cell, trainer):
    start = time.time()
    try:
        wrong = RUN[cell.what](cell, trainer)
    except (RuntimeError, OSError, KeyError, IndexError, ValueError) as e:
        wrong = [f"{type(e).__name__}: {e}"]
    case(f"{cell.name}  ({time.time() - start:.0f} s)", not wrong, "\n     ".join(wrong))


def main():
    cells = matrix(sys.argv[1:])
    if not cells:
        sys.exit("no such cell")
    print(f"{len(cells)} cells of test/simulation_matrix.txt, {CORES} at a time")
    if build(cells):
        with Folder() as folder, ThreadPoolExecutor(CORES) as pool:
            trainer = Trainer(folder)
            list(pool.map(lambda cell: run_cell(cell, trainer), sorted(cells, key=lambda c: c.what == "fault")))
            compare_bits(cells)
    done()


main()
