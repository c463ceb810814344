"""Several ranks that do not see the same files, were not started as one, are bound to cores, or lose what started them."""
import os
import re
import shutil
import signal
import subprocess

from harness import (ROOT, TOKENIZER, TRAIN, Folder, case, checkpoints, done, environment, log, losses, make_shards, run,
                     wait_for)

TINY = ["-preset", "tiny", "-n", 8, "-threads", 1, "-warmup", 2, "-val_every", 0, "-b", 2, "-g", 1, "-tok", TOKENIZER]
HOST = os.uname().nodename


def mpirun(contexts, timeout=60, launcher=(), **variables):
    """contexts: (folder, program, arguments) of one rank each, as on hosts of their own."""
    words = ["mpirun", *launcher]
    for i, (folder, program, args) in enumerate(contexts):
        words += [":"] * (i > 0) + ["-np", "1", "-wdir", folder, program] + [str(a) for a in args]
    return subprocess.run(words, env=environment() | variables, cwd=ROOT, timeout=timeout, text=True,
                          capture_output=True, stdin=subprocess.DEVNULL)


def different(name, hosts, args, words, also=None, program=TRAIN):
    """Rank 1 sees its own files or is told something else: all end before the first step, and rank 1 is named."""
    args = TINY + args
    r = mpirun([(hosts[0], TRAIN, args), (hosts[1], program, args + (also or []))], launcher=["--bind-to", "none"])
    lines = [x for x in r.stderr.splitlines() if x.startswith("train_c3: ")]
    named = [x for x in lines if x.startswith(f"train_c3: rank 1 on {HOST}: ")]
    case(name, r.returncode not in (0, -11, -6) and len(lines) == 1 and len(named) == 1 and
         all(w in named[0] for w in words) and "settings" not in r.stdout,
         f"exit {r.returncode}\n{r.stdout[-300:]}\n{r.stderr[-900:]}")


def other_files(folder):
    hosts = [os.path.join(folder, "host0"), os.path.join(folder, "host1")]
    for h in hosts:
        os.mkdir(h)
    make_shards(hosts[0], "pages", 60, seed=1)
    shutil.copy(os.path.join(hosts[0], "pages0_00000.bin"), hosts[1])
    args = ["-data", "pages0_*.bin", "-o", "out"]

    run(TRAIN, TINY + args + ["-steps", 4, "-save_every", 2, "-keep", 0], cwd=hosts[0])
    more = args + ["-steps", 8, "-g", 1]
    forced = ["-resume_force"]  # two ranks take twice the pages a step
    different("a checkpoint that one host has not", hosts, more + forced, ["out/step_00000004", "COMPLETE"])
    case("the refused run left everything as it was", checkpoints(os.path.join(hosts[0], "out")) == [2, 4] and
         len(losses(os.path.join(hosts[0], "out"))) == 4)
    shutil.copytree(os.path.join(hosts[0], "out/step_00000002"), os.path.join(hosts[1], "out/step_00000002"))
    different("an older checkpoint on one host", hosts, more + forced, ["out/step_00000004", "COMPLETE"])
    run(TRAIN, TINY + args + ["-steps", 4, "-resume", "no", "-seed", 2, "-o", "new"], cwd=hosts[1])
    shutil.rmtree(os.path.join(hosts[1], "out"))
    os.rename(os.path.join(hosts[1], "new"), os.path.join(hosts[1], "out"))
    different("another checkpoint of that name on one host", hosts, more + forced,
              ["checkpoint: expected CRC-32", f"as on rank 0 on {HOST}"])
    weights = [a for a in TINY if a not in ("-preset", "tiny")]
    r = mpirun([(h, TRAIN, weights + ["-m", "out/step_00000004", "-data", "pages0_*.bin", "-o", "x", "-steps", 2])
                for h in hosts], launcher=["--bind-to", "none"])
    case("other weights on one host", r.returncode != 0 and f"rank 1 on {HOST}: weights: expected" in r.stderr,
         r.stderr[-500:])
    os.remove(os.path.join(hosts[1], "pages0_00000.bin"))
    different("pages that one host has not", hosts, args + ["-o", "y", "-steps", 2], ["pages0_*.bin"])
    make_shards(hosts[1], "pages", 60, seed=2)
    different("other pages on one host", hosts, args + ["-o", "y", "-steps", 2], ["training pages: expected 60 pages"])
    make_shards(hosts[1], "pages", 20, seed=1)
    different("fewer pages and -epochs", hosts, args + ["-o", "y", "-epochs", 1], ["expected 60 pages", "found 20"])
    shutil.copy(os.path.join(hosts[0], "pages0_00000.bin"), hosts[1])
    for also in (["-lr", 1e-3], ["-dtype", "fp32"], ["-steps", 3], ["-plan"]):
        different(f"one rank with {' '.join(map(str, also))}", hosts, args + ["-o", "y", "-steps", 2],
                  [f"{also[0]}: expected"], also)
    different("one rank with a bad option", hosts, args + ["-o", "y", "-steps", 2], ["-lr", "nan"], ["-lr", "nan"])
    rebuilt = shutil.copy(TRAIN, os.path.join(folder, "rebuilt"))
    with open(rebuilt, "ab") as f:
        f.write(b"\n")
    different("one rank of another build", hosts, args + ["-o", "y", "-steps", 2], ["the program's file"],
              program=rebuilt)
    r = mpirun([(h, TRAIN, TINY + args + ["-o", os.path.join(hosts[0], "z"), "-steps", 2, "-threads", i + 1])
                for i, h in enumerate(hosts)], launcher=["--bind-to", "none"])
    case("the same files in both places: it trains", r.returncode == 0 and
         len(losses(os.path.join(hosts[0], "z"))) == 2, r.stderr[-500:])


def lone_tasks(folder, data):
    args = TINY + ["-data", data, "-steps", 2, "-o", os.path.join(folder, "lone")]
    for variables in ({"PMI_RANK": "0", "PMI_SIZE": "2"}, {"PMI_RANK": "1", "PMI_SIZE": "2"},
                      {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}):
        name = [n for n in variables if n not in ("PMI_RANK", "SLURM_PROCID")][0]
        r = subprocess.run([TRAIN] + [str(a) for a in args], env=environment() | variables, cwd=ROOT, timeout=60,
                           text=True, capture_output=True)
        case(f"one of several by {variables}, met by none", r.returncode == 1 and
             f"{name}={variables[name]}: started as one of {variables[name]}" in r.stderr and
             not os.path.exists(os.path.join(folder, "lone")), f"{r.returncode} {r.stderr[-500:]}")
    r = mpirun([(ROOT, TRAIN, args)], launcher=["--bind-to", "none"], SLURM_STEP_NUM_TASKS="4")
    case("mpirun inside a step of several tasks is one rank", r.returncode == 0, r.stderr[-500:])


def masks(folder, data):
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) < 2:
        print("  one core: masks are not tested")
        return
    env = {n: v for n, v in environment().items() if "binding" not in n}
    args = TINY + ["-threads", 0, "-data", data, "-steps", 1, "-save_every", 0, "-resume", "no", "-o",
                   os.path.join(folder, "masks")]

    def cores(name, before, options, ranks, expected, **variables):
        r = subprocess.run(before + ["mpirun", *options, "-np", str(ranks), TRAIN] + [str(a) for a in args],
                           env=env | variables, cwd=ROOT, timeout=120, text=True, capture_output=True)
        found = re.search(r"(\d+) rank\(s\) of (\d+) core\(s\)", r.stdout)
        case(name, found and found.groups() == (str(ranks), str(expected)), r.stdout[-500:] + r.stderr[-500:])

    two = ["taskset", "-c", f"{mine[0]},{mine[1]}"]
    cores("Open MPI's default binding is taken back", two, [], 1, 2)
    cores("two ranks share the cores", two, [], 2, 1)
    cores("taskset stays", ["taskset", "-c", str(mine[1])], [], 1, 1)
    cores("taskset stays, not bound", ["taskset", "-c", str(mine[1])], ["--bind-to", "none"], 1, 1)
    cores("--bind-to core stays", two, ["--bind-to", "core"], 1, 1)
    cores("a variable that binds stays", two, [], 1, 1, OMPI_MCA_hwloc_base_binding_policy="core",
          PRTE_MCA_hwloc_default_binding_policy="core")


def gone(pids):
    def lives(pid):
        try:
            with open(f"/proc/{pid}/stat") as f:
                return f.read().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False
    return not any(lives(p) for p in pids)


def children(pid):
    return [int(p) for p in subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()]


def orphans(name, folder, data, launcher, ranks=1, script=False, **variables):
    """kill -9 of what started them ends the ranks, also behind a script."""
    out = os.path.join(folder, name.replace(" ", "_"))
    command = [TRAIN] + [str(a) for a in TINY + ["-data", data, "-steps", 100000, "-save_every", 0, "-o", out]]
    if script:
        command = ["bash", "-c", '"$@"; true', "bash"] + command
    p = subprocess.Popen(launcher + command, env=environment() | variables, cwd=ROOT, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL, start_new_session=True)
    running = wait_for(lambda: os.path.exists(os.path.join(out, "log.jsonl")) and len(log(out)) > 2, 60)
    pids = children(p.pid)
    pids = [c for q in pids for c in children(q)] if script else pids
    p.kill()
    p.wait()
    ended = wait_for(lambda: gone(pids), 30)
    case(f"kill -9 of {name} ends {ranks} rank(s)", running and len(pids) == ranks and ended,
         f"running {running} ranks {pids} ended {ended}")
    for pid in pids:
        if not gone([pid]):
            os.kill(pid, signal.SIGKILL)


def launchers(folder, data):
    orphans("mpirun", folder, data, ["mpirun", "--bind-to", "none", "-np", "2"], 2)
    orphans("mpirun over a script", folder, data, ["mpirun", "--bind-to", "none", "-np", "2"], 2, script=True)
    # One whose library does not look after the ranks: a shell under its name.
    foreign = shutil.copy(shutil.which("bash"), os.path.join(folder, "hydra_pmi_proxy"))
    orphans("a foreign launcher", folder, data, [foreign, "-c", '"$@"; true', "bash"], PMI_RANK="0", PMI_SIZE="1")


def stopped(folder, data, which):
    """A rank that stands still is named within the deadline, and mpirun ends with an error."""
    out = os.path.join(folder, f"stopped{which}")
    p = subprocess.Popen(["mpirun", "--bind-to", "none", "-np", "2", TRAIN] + [
        str(a) for a in TINY + ["-data", data, "-steps", 100000, "-save_every", 0, "-o", out]],
        env=environment() | {"C3_COMM_TIMEOUT": "3"}, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, start_new_session=True)
    running = wait_for(lambda: os.path.exists(os.path.join(out, "log.jsonl")) and len(log(out)) > 2, 60)
    ranks = {}
    for pid in children(p.pid):
        with open(f"/proc/{pid}/environ", "rb") as f:
            ranks[int(re.search(rb"OMPI_COMM_WORLD_RANK=(\d+)", f.read())[1])] = pid
    os.kill(ranks[which], signal.SIGSTOP)
    try:
        stderr = p.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        stderr = "hangs: " + p.communicate()[1]
    case(f"rank {which} stands still while training: named, exit not 0", running and p.returncode not in (0, -9) and
         f"rank {1 - which} on {HOST}: " in stderr and f"waits in vain: rank {which} on {HOST} (no sign of life" in stderr,
         f"exit {p.returncode} {stderr[-800:]}")


with Folder() as tmp:
    other_files(tmp)
    data = make_shards(tmp, "pages", 60, seed=1)
    lone_tasks(tmp, data)
    masks(tmp, data)
    launchers(tmp, data)
    stopped(tmp, data, 0)
    stopped(tmp, data, 1)
done()
