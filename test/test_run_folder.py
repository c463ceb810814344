"""One run, one folder: two writers, what stops a start, starting anew, going on from an earlier step, options that come
back as they were, no checkpoint when none is wanted, being asked to stop."""
import json
import os
import re
import shutil
import signal
import subprocess
import zlib

from harness import (C3, TRAIN, Folder, case, checkpoints, command, done, environment, log, losses, make_shards, model_bytes,
                     run, start, wait_for)

TINY = ["-preset", "demo", "-vocab", 512, "-n", 8, "-template", "bare", "-threads", 1, "-warmup", 2, "-val_every", 0, "-b", 2,
        "-g", 1]


class Runs:
    def __init__(self, folder, data):
        self.folder, self.data = folder, data

    def path(self, name):
        return os.path.join(self.folder, name)

    def args(self, name, extra):
        return TINY + ["-data", self.data, "-o", self.path(name)] + extra

    def train(self, name, *extra, ranks=1, check=True):
        return run(TRAIN, self.args(name, list(extra)), ranks, check=check)

    def start(self, name, *extra):
        return start(TRAIN, self.args(name, list(extra)))


def steps_logged(out):
    """Every step line's number, in the file's order."""
    with open(os.path.join(out, "log.jsonl")) as f:
        return [o["step"] for o in map(json.loads, f) if "loss" in o]


def tree(folder):
    """Every file and its bytes."""
    found = {}
    for base, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(base, name)
            with open(path, "rb") as f:
                found[os.path.relpath(path, folder)] = f.read()
    return found


def step_of(r):
    said = re.search(r"at step (\d+) of", r.stdout)
    return int(said.group(1)) if said else None


def refused(name, r, words, out=None, before=None):
    lines = r.stderr.splitlines()
    missing = [w for w in words if w not in r.stderr]
    same = before is None or tree(out) == before
    case(name, r.returncode == 1 and len(lines) == 1 and not missing and same,
         f"exit {r.returncode}, missing {missing}, {'the same' if same else 'changed'}\n{r.stdout[-300:]}\n{r.stderr[-600:]}")


# ---- one writer -----------------------------------------------------------------------------------------------------


def writers(runs):
    out = runs.path("two")
    first = runs.start("two", "-steps", 100000)
    wait_for(lambda: os.path.exists(f"{out}/log.jsonl") and len(log(out)) > 2, 60)
    second = runs.train("two", "-steps", 100000, check=False)
    refused("a second run in the folder is refused, told who has it", second,
            [out, "another process is writing there", f"process {first.pid}", "since 20"])
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    case("the first one is undisturbed", first.returncode == 0 and steps_logged(out) == list(range(1, max(log(out)) + 1)) and
         not os.path.exists(f"{out}/lock"))
    env = environment()  # a launcher that this MPI does not know: both believe to be rank 0 of 1
    both = [subprocess.Popen(command(TRAIN, runs.args("foreign", ["-steps", 300])), text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                             env=dict(env, PMI_RANK=str(rank), PMI_SIZE="2")) for rank in range(2)]
    said = [p.communicate(timeout=120) for p in both]
    codes = sorted(p.returncode for p in both)
    case("two ranks of a foreign launcher do not write into one folder together", codes[1] != 0 and
         (codes[0] != 0 or steps_logged(runs.path("foreign")) == list(range(1, 301))), (codes, said))
    runs.train("claimed", "-steps", 2, "-data", runs.path("none*.bin"), check=False)
    case("a run that cannot begin leaves no folder", not os.path.exists(runs.path("claimed")))


# ---- what stops a start ----------------------------------------------------------------------------------------------


def silent_restarts(runs):
    whole = runs.path("whole")
    runs.train("whole", "-steps", 6, "-save_every", 3, "-keep", 0)
    out = runs.path("damaged")
    shutil.copytree(whole, out)
    os.remove(f"{out}/step_00000006/COMPLETE")
    before = tree(out)
    for name, more in (("", []), (", two ranks", ["-b", 1])):
        r = run(TRAIN, runs.args("damaged", ["-steps", 8] + more), 2 if more else 1, check=False)
        lines = [x for x in r.stderr.splitlines() if x.startswith("train_c3: ")]
        case("a checkpoint that lost COMPLETE stops the run with what to do; nothing is touched" + name,
             r.returncode != 0 and len(lines) == 1 and "step_00000006" in lines[0] and "COMPLETE is not there" in lines[0] and
             "-resume no" in lines[0] and "step_00000003 continues" in lines[0] and "another -o" in lines[0] and
             tree(out) == before, r.stderr)
    shutil.rmtree(f"{out}/step_00000003")
    refused("... also when it is the only one", runs.train("damaged", "-steps", 8, check=False), ["step_00000006", "hint"])

    out = runs.path("linked")
    os.makedirs(out)
    shutil.copytree(f"{whole}/step_00000006", runs.path("far/step_00000006"))
    shutil.copy(f"{whole}/log.jsonl", out)
    os.symlink(runs.path("far/step_00000006"), f"{out}/step_00000006")
    far = tree(runs.path("far"))
    r = runs.train("linked", "-steps", 8, "-keep", 1)
    case("a checkpoint that is a symbolic link is resumed, and neither it nor its target is removed",
         "resuming from" in r.stdout and steps_logged(out) == list(range(1, 9)) and tree(runs.path("far")) == far and
         os.path.islink(f"{out}/step_00000006") and 8 in checkpoints(out), r.stdout)

    out = runs.path("dangling")
    os.makedirs(out)
    os.symlink(runs.path("gone"), f"{out}/step_00000006")
    refused("a link that leads nowhere stops the run", runs.train("dangling", "-steps", 8, check=False),
            ["step_00000006", "leads nowhere"])

    out = runs.path("unreadable")
    shutil.copytree(whole, out)
    if os.geteuid() == 0:
        os.chmod(runs.folder, 0o755)
        shutil.copy(TRAIN, runs.path("train_c3"))
        os.chown(out, 65534, 65534)
        os.chmod(out, 0o300)  # may write and enter, may not list
        before = tree(out)
        r = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", runs.path("train_c3")] +
                           [str(a) for a in runs.args("unreadable", ["-steps", 8])], capture_output=True, text=True,
                           env=environment(), cwd=os.path.dirname(TRAIN))
        refused("a run folder that cannot be listed stops the run", r, ["unreadable: cannot list"], out, before)

    out = runs.path("strangers")
    os.makedirs(f"{out}/step_00000002.tmp")
    for name in ("step_00000001/mine", "step_00000004/mine", "step_00000002.tmp/mine"):
        os.makedirs(os.path.dirname(f"{out}/{name}"), exist_ok=True)
        with open(f"{out}/{name}", "w") as f:
            f.write(name)
    refused("folders of somebody else that are named like checkpoints stop the run", runs.train("strangers", "-steps", 6,
            check=False), ["step_0000000"])
    runs.train("strangers", "-steps", 6, "-save_every", 2, "-resume", "no")
    kept = [name for name, text in tree(out).items() if text == name.split("old_1/")[-1].encode()]
    case("... and are never removed", len(kept) == 3 and checkpoints(out) == [6], tree(out).keys())


# ---- one history ----------------------------------------------------------------------------------------------------


def anew(runs):
    out = runs.path("anew")
    runs.train("anew", "-steps", 8)
    old = tree(out)
    r = runs.train("anew", "-steps", 4, "-seed", 2, "-resume", "no")
    runs.train("seed2", "-steps", 4, "-seed", 2)
    said = f"set aside in {out}/old_1: " in r.stdout and "step_00000008" in r.stdout and "log.jsonl" in r.stdout
    case("starting anew in a used folder sets the old run aside and says so", said, r.stdout[-800:])
    info = run(C3, ["info", out]).stdout
    case("the folder stands for the new run", f"{out}/step_00000004: a C3 model" in info and
         model_bytes(out, 4) == model_bytes(runs.path("seed2"), 4) and steps_logged(out) == [1, 2, 3, 4], info[:300])
    aside = tree(f"{out}/old_1")
    case("the old run is there to the byte", aside and all(old[name] == text for name, text in aside.items()) and
         "step_00000008/COMPLETE" in aside and "log.jsonl" in aside, aside.keys())
    r = runs.train("anew", "-steps", 8, "-seed", 2)
    case("the new run goes on by itself", "step_00000004" in r.stdout and steps_logged(out) == list(range(1, 9)), r.stdout)

    before = tree(out)
    models = [runs.path("seed2"), runs.path("anew/step_00000008")]
    refused("another model in a used folder is refused", run(TRAIN, [a for a in runs.args("anew", ["-steps", 12, "-seed", 2,
            "-m", models[0], "-vocab", 0]) if a not in ("-preset", "demo")], check=False), ["-m is not given", "/seed2 now, another model",
            "-resume no", "-resume_force"], out, before)
    fine = [a for a in runs.args("fine", ["-vocab", 0]) if a not in ("-preset", "demo")]
    run(TRAIN, fine + ["-m", models[0], "-steps", 2])
    before = tree(runs.path("fine"))
    refused("... also of the same shapes", run(TRAIN, fine + ["-m", models[1], "-steps", 4], check=False),
            ["-m is", "another model"], runs.path("fine"), before)
    os.symlink(models[0], runs.path("same"))
    r = run(TRAIN, fine + ["-m", runs.path("same"), "-steps", 4])
    case("... but not the same model by another name", "resuming from" in r.stdout and step_of(r) == 4, r.stdout)
    r = run(TRAIN, [a for a in runs.args("anew", ["-m", out, "-steps", 12, "-vocab", 0, "-resume", "no"])
                    if a not in ("-preset", "demo")], check=False)
    refused("a run cannot set aside the model it begins with", r, ["is being read", "another -o"])


def earlier_order(runs):
    """A checkpoint of format 1, whose position counts in another order of pages; COMPLETE vouches for its bytes."""
    out = runs.path("earlier")
    runs.train("earlier", "-steps", 4)
    step = f"{out}/step_00000004"
    with open(f"{step}/trainer/state.json") as f:
        text = re.sub(r'"format":\s*2', '"format": 1', f.read())
    with open(f"{step}/COMPLETE") as f:
        complete = json.load(f)
    for file in complete["files"]:
        if file["name"] == "trainer/state.json":
            file.update(bytes=len(text), crc32=zlib.crc32(text.encode()))
    for name, content in (("trainer/state.json", text), ("COMPLETE", json.dumps(complete))):
        with open(f"{step}/{name}", "w") as f:
            f.write(content)
    refused("a checkpoint whose pages came in another order is not resumed in the middle of an epoch",
            runs.train("earlier", "-steps", 6, check=False), ["shuffled", "-resume_force"], out, tree(out))
    r = run(C3, ["info", "-check", out], check=False)
    case("... it can be looked at", r.returncode == 0 and "loader" in r.stdout, r.stdout + r.stderr)
    r = runs.train("earlier", "-steps", 6, "-resume_force")
    with open(f"{out}/step_00000006/trainer/state.json") as f:
        position = int(json.load(f)["loader_position"])
    case("... and -resume_force starts the epoch anew", step_of(r) == 6 and position == 2 * 2, (r.stdout[-500:], position))


def abandoned(runs):
    out = runs.path("abandoned")
    runs.train("abandoned", "-steps", 10, "-save_every", 5, "-keep", 0)
    whole = losses(out)
    r = runs.train("abandoned", "-steps", 6, "-keep", 0, "-resume", f"{out}/step_00000005")
    case("going on from an earlier step sets the later ones aside", f"set aside in {out}/old_1: step_00000010, log.jsonl" in
         r.stdout and checkpoints(out) == [5, 6] and steps_logged(f"{out}/old_1") == list(range(1, 11)), r.stdout)
    r = runs.train("abandoned", "-steps", 12, "-keep", 0)
    case("-resume auto goes on from what was written last, and the log is one line a step", "step_00000006" in r.stdout and
         steps_logged(out) == list(range(1, 13)) and losses(out)[:5] == whole[:5], (r.stdout, steps_logged(out)))
    r = runs.train("abandoned", "-steps", 4)
    case("fewer -steps than the run has: nothing was trained, and what to do", r.returncode == 0 and "nothing was trained" in
         r.stdout and "is at step 12" in r.stdout and "ends at step 4" in r.stdout and "-resume no" in r.stdout and
         "done at" not in r.stdout and steps_logged(out) == list(range(1, 13)), r.stdout)
    os.remove(f"{out}/run.json")
    for path in os.listdir(out):
        if path.startswith("step_"):
            os.remove(f"{out}/{path}/MADE_BY")
    r = runs.train("abandoned", "-steps", 14, "-keep", 1)
    case("a run folder without run.json, as made before there was one, goes on, and keeps what it cannot know as its own",
         "step_00000012" in r.stdout and checkpoints(out) == [5, 6, 12, 14], (r.stdout, checkpoints(out)))


# ---- options, disk, stop ----------------------------------------------------------------------------------------------


def options_come_back(runs):
    odd = ["-len_warmup", 0.3333333333333333, "-lr", 0.1 + 0.2, "-beta2", 1 - 1e-7 / 3, "-eps", 1e-7 / 3, "-clip", 1 / 3]
    runs.train("odd", "-steps", 2, *odd)
    r = runs.train("odd", "-steps", 4, *odd)
    case("every real option comes back as it was: the same command goes on", step_of(r) == 4 and r.stdout.count(" was ") == 1, r.stdout)
    r = runs.train("odd", "-steps", 6, "-len_warmup", 0.3333333333333332, check=False)
    refused("... and a number next to it is another one", r, ["-len_warmup is 0.333333333333333", "0.3333333333333332 now"])
    long = os.path.join(runs.folder, *["x" * 100] * 3)
    os.makedirs(long)
    shutil.copy(runs.data.replace("*", "0_00000"), f"{long}/a.bin")
    args = TINY + ["-data", f"{long}/a.bin", "-o", runs.path("long")]
    run(TRAIN, args + ["-steps", 1])
    r = run(TRAIN, args + ["-steps", 1])
    case("... a path of 300 characters too", "-data was" not in r.stdout, r.stdout)


def no_disk(runs):
    disk = runs.path("disk")
    os.makedirs(disk)
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], capture_output=True).returncode:
        return print("     no right to mount here: no disk too small for a checkpoint")
    try:
        refused("without disk for a checkpoint a run does not begin", runs.train("disk/run", "-steps", 3, "-save_every", 0,
                check=False), ["checkpoint takes"])
        r = runs.train("disk/run", "-steps", 3, "-no_save")
        case("... but with -no_save it trains, and says what is not saved", steps_logged(f"{disk}/run") == [1, 2, 3] and
             "not saved" in r.stdout and not checkpoints(f"{disk}/run"), r.stdout)
    finally:
        subprocess.run(["umount", disk], capture_output=True)


def stops(runs):
    def asked(name, *numbers):
        out = runs.path(name)
        p = runs.start(name, "-steps", 100000, "-save_every", 0)
        wait_for(lambda: os.path.exists(f"{out}/log.jsonl") and len(log(out)) > 2, 60)
        for number in numbers:
            p.send_signal(number)
        stdout, stderr = p.communicate(timeout=60)
        return p.returncode == 0 and checkpoints(out) == [max(log(out))], (p.returncode, stdout[-300:], stderr)

    case("SIGHUP: the step is finished and saved, exit 0", *asked("hangup", signal.SIGHUP))
    case("SIGHUP twice and SIGTERM after it, as a terminal that goes away sends them: saved as well",
         *asked("hangups", signal.SIGHUP, signal.SIGHUP, signal.SIGTERM))
    out = runs.path("nohup")
    p = subprocess.Popen(["nohup", *command(TRAIN, runs.args("nohup", ["-steps", 400, "-save_every", 0]))], text=True,
                         env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: os.path.exists(f"{out}/log.jsonl") and len(log(out)) > 2, 60)
    p.send_signal(signal.SIGHUP)
    said = p.communicate(timeout=120)
    case("under nohup it goes on", p.returncode == 0 and checkpoints(out) == [400], (p.returncode, said))

    out = runs.path("stale")
    os.makedirs(out)
    open(f"{out}/stop", "w").close()
    r = runs.train("stale", "-steps", 4)
    case("a stop file from before stops nothing, and goes", step_of(r) == 4 and "stop: was there from before" in r.stdout and
         not os.path.exists(f"{out}/stop"), r.stdout)
    os.makedirs(f"{out}/stop")
    r = runs.train("stale", "-steps", 8)
    case("a folder named stop stops nothing, and stays", step_of(r) == 8 and os.path.isdir(f"{out}/stop"), r.stdout)


# ---- the best checkpoint, several sets of pages -----------------------------------------------------------------------


def validations(out):
    with open(os.path.join(out, "log.jsonl")) as f:
        return {o["step"]: o for o in map(json.loads, f) if "val_loss" in o}


def history(out):
    """Everything the log says that is not a time."""
    with open(os.path.join(out, "log.jsonl")) as f:
        return [{k: v for k, v in json.loads(line).items() if k not in ("time", "ms", "tokens_per_second", "peak_share")}
                for line in f]


def patience(runs):
    still = ["-val", runs.data, "-val_every", 2, "-val_pages", 4, "-patience", 3, "-keep_best", "-lr", 0]
    out = runs.path("still")
    r = runs.train("still", "-steps", 100, *still)
    case("-patience 3: stops after the third validation without a lower loss, saved, exit 0", step_of(r) == 6 and
         "stopped at step 6 of 100" in r.stdout and "no lower validation loss in 3 validations" in r.stdout and
         checkpoints(out) == [6] and sorted(validations(out)) == [0, 2, 4, 6], r.stdout[-600:])
    case("... none was better than before step 1: there is no best checkpoint, and it says so",
         "before step 1: no checkpoint is better" in r.stdout and not os.path.lexists(f"{out}/best"), r.stdout[-300:])
    before = tree(out)
    r = runs.train("still", "-steps", 100, *still)
    case("... the same command again says what to do, and trains nothing", "nothing was trained" in r.stdout and
         "where -patience 3 stopped" in r.stdout and "a larger -patience" in r.stdout and
         all(before[name] == text for name, text in tree(out).items() if name not in ("run.json", "lock")), r.stdout[-400:])
    r = runs.train("still", "-steps", 100, *still, "-patience", 5)
    case("... a larger one goes on and counts on from there", step_of(r) == 10 and checkpoints(out) == [10], r.stdout[-400:])


def best(runs):
    """Few pages are learned by heart: the loss on others falls, and rises again."""
    data = make_shards(runs.folder, "few", 3, seed=77, vocab=512)
    args = ["-data", data, "-val", runs.data, "-val_pages", 8, "-val_every", 5, "-lr", 0.003, "-schedule", "constant", "-steps", 60]
    out = runs.path("learned")
    r = runs.train("learned", *args, "-keep_best")
    runs.train("all", *args, "-keep", 0, "-save_every", 5)
    losses_of = {step: o["val_loss"] for step, o in validations(out).items()}
    lowest = min(losses_of, key=losses_of.get)
    case("the loss on other pages has its lowest point in the middle (the comparison can fail)", 0 < lowest < 60, losses_of)
    case("-keep_best: that checkpoint stays beside the newest", checkpoints(out) == [lowest, 60] and
         os.readlink(f"{out}/best") == f"step_{lowest:08d}" and f"{out}/best, step {lowest}" in r.stdout, r.stdout[-300:])
    case("... with the weights of that step, and training is as without", model_bytes(out, lowest) ==
         model_bytes(runs.path("all"), lowest) and model_bytes(out, 60) == model_bytes(runs.path("all"), 60))
    info = run(C3, ["info", f"{out}/best"]).stdout
    case("... -m RUN/best takes it, -m RUN the newest", f"step_{lowest:08d}: a C3 model" in info and
         "step_00000060: a C3 model" in run(C3, ["info", out]).stdout, info[:200])
    r = runs.train("learned", *args, "-keep_best", "-resume", f"{out}/best", "-steps", 61)
    case("... -resume RUN/best goes on from there", f"resuming from {out}/best" in r.stdout and
         len(losses(out)) == 61 and os.path.exists(f"{out}/old_1/step_00000060/COMPLETE"), r.stdout[-900:])


def mixed_options(runs):
    zh, text = make_shards(runs.folder, "zh", 20, seed=5, vocab=512), make_shards(runs.folder, "text", 9, seed=6, vocab=512)
    return ["-data", f"zh={zh}:1", "-data", f"en={runs.data}:2", "-val", f"en={runs.data}", "-val", f"zh={zh}", "-val_pages", 6,
            "-val_every", 4, "-val_lm", text, "-val_lm_bound", 1, "-keep_best", "-patience", 6, "-lr", 0.003, "-steps", 40,
            "-save_every", 3, "-dtype", "fp32"]


def mixed(runs, args):
    """Everything at once, killed again and again."""
    plain = TINY + args
    whole, out = runs.path("mixed"), runs.path("killed")
    r = run(TRAIN, plain + ["-o", whole])
    logged = log(whole)
    share = sum(o["data_pages_zh"] for o in logged.values()) / sum(o["pages"] for o in logged.values())
    case("two sets by weight: the shares, the pages and tokens of each set in every line", 0.15 < share < 0.5 and all(
        o["data_pages_zh"] + o["data_pages_en"] == o["pages"] and o["data_tokens_zh"] + o["data_tokens_en"] == o["tokens"]
        for o in logged.values()) and "zh             20 of " in r.stdout and "33.3 % of the pages" in r.stdout, (share, r.stdout))
    found = validations(whole)
    case("each set of -val, their mean, plain text; from before step 1 on", sorted(found) == list(range(0, 41, 4)) and all(
        abs(o["val_loss"] - (o["val_loss_en"] + o["val_loss_zh"]) / 2) < 1e-6 and
        o["val_lm_alarm"] == (o["val_lm_ratio"] > 1) and
        abs(o["val_lm_ratio"] - o["val_lm_perplexity"] / found[0]["val_lm_perplexity"]) < 1e-5
        for o in found.values()), found)
    for at in (2, 5, 9, 14, 20, 29, 37):
        p = start(TRAIN, plain + ["-o", out])
        wait_for(lambda at=at: p.poll() is not None or (os.path.exists(f"{out}/log.jsonl") and len(log(out)) >= at), 60)
        os.killpg(p.pid, signal.SIGKILL)
        p.communicate()
    r = run(TRAIN, plain + ["-o", out])
    with open(f"{out}/step_00000040/trainer/state.json") as f, open(f"{whole}/step_00000040/trainer/state.json") as g:
        states = f.read(), g.read()
    case("killed seven times and resumed: log, weights, state, best checkpoint are those of the undisturbed run",
         "resuming from" in r.stdout and history(out) == history(whole) and
         model_bytes(out, 40) == model_bytes(whole, 40) and states[0] == states[1] and
         os.readlink(f"{out}/best") == os.readlink(f"{whole}/best") and checkpoints(out) == checkpoints(whole), r.stdout[-500:])
    state = json.loads(states[0])
    case("... the state's tokens of each set are the log's", {s["name"]: s["tokens_seen"] for s in state["sets"]} == {
        name: sum(o[f"data_tokens_{name}"] for o in logged.values()) for name in ("en", "zh")} and
        sum(s["tokens_seen"] for s in state["sets"]) == state["tokens_seen"], state)
    two = runs.path("ranks")
    half = ["1" if before == "-b" else word for before, word in zip([None] + plain, plain, strict=False)]
    p = start(TRAIN, half + ["-o", two], ranks=2)
    wait_for(lambda: os.path.exists(f"{two}/log.jsonl") and len(log(two)) >= 10, 60)
    open(f"{two}/stop", "w").close()
    p.communicate(timeout=60)
    run(TRAIN, half + ["-o", two], 2)
    same = [[o[k] for k in ("data_pages_zh", "data_tokens_zh", "data_tokens_en")] for o in logged.values()]
    case("two ranks, stopped in between: the same pages in every step", same ==
         [[o[k] for k in ("data_pages_zh", "data_tokens_zh", "data_tokens_en")] for o in log(two).values()] and
         len(same) == 40)
    case("... and nearly the same losses", all(abs(validations(two)[s][k] - o[k]) < 1e-3 * o[k] for s, o in found.items()
                                              for k in ("val_loss_en", "val_loss_zh", "val_lm_perplexity")))
    more = ["-steps", 42, "-resume_force"]
    other = [word.replace(":2", ":1") if isinstance(word, str) else word for word in plain]
    r = run(TRAIN, other + ["-o", out, "-steps", 41])
    case("other weights go on, and are said", "-data was" in r.stdout and "done at step 41" in r.stdout, r.stdout[-900:])
    without = [word.replace(":2", "").replace(":1", "") if isinstance(word, str) else word for word in plain]
    refused("no weights instead is another order of pages", run(TRAIN, without + ["-o", out, "-steps", 42], check=False),
            ["training pages have changed", "-resume_force"])
    r = run(TRAIN, without + ["-o", out] + more)
    case("... which -resume_force starts anew", "done at step 42" in r.stdout, r.stdout[-500:])


def refused_sets(runs):
    good = runs.data
    none, taken = runs.path("none_*.bin"), runs.path("taken")
    os.makedirs(f"{taken}/best")
    for name, words, says in (
            ("a name twice", ["-val", f"a={good}", "-val", f"a={good}"], ["-val a=", "another set of that name"]),
            ("a weight of 0", ["-data", f"a={good}:0"], ["-data a: expected a weight above 0", "found 0"]),
            ("a negative weight", ["-data", f"a={good}:-1"], ["-data a: expected a weight above 0", "found -1"]),
            ("an odd name", ["-data", f"a b={good}:1"], ["letters, digits", "a b"]),
            ("a set without files", ["-data", f"a={good}:1", "-data", f"b={none}:1"], ["b: ", "none_*.bin", "no such file"]),
            ("a validation set without files", ["-val", f"b={none}"], ["b: ", "none_*.bin", "no such file"]),
            ("plain text without files", ["-val_lm", none], ["none_*.bin", "no such file"]),
            ("a name beside none", ["-val", f"a={good}", "-val", good], ["expected a name", "hint"]),
            ("-patience without -val", ["-patience", 3], ["-patience goes by the validation loss", "-val"]),
            ("-keep_best without -val", ["-keep_best"], ["-keep_best goes by the validation loss", "-val"]),
            ("-keep_best with -no_save", ["-keep_best", "-val", good, "-no_save"], ["-keep_best", "-no_save"]),
            ("OUT/best of somebody else", ["-o", taken, "-keep_best", "-val", good], ["taken/best", "expected nothing"])):
        data = [] if words[0] == "-data" else ["-data", good]
        refused(f"refused: {name}", run(TRAIN, TINY + data + ["-o", runs.path("refused"), "-steps", 2] + words, check=False), says)


signal.signal(signal.SIGHUP, signal.SIG_DFL)  # not as a nohup around the tests would have it
with Folder() as tmp:
    made = Runs(tmp, make_shards(tmp, "pages", 60, seed=1, vocab=512))
    writers(made)
    silent_restarts(made)
    anew(made)
    earlier_order(made)
    abandoned(made)
    options_come_back(made)
    no_disk(made)
    stops(made)
    patience(made)
    best(made)
    mixed(made, mixed_options(made))
    refused_sets(made)
done()
