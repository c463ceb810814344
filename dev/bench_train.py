#!/usr/bin/env python3
"""bench_train.py: the same C3 training step in PyTorch + transformers and in ./train_c3, side by side.

  dev/bench_train.py [--presets tiny small] [--dtypes fp32 bf16] [--cores 1 2] [--rounds 3] [--seconds 8] [--json FILE]

PyTorch is tuned: logits only where labels are, fused AdamW, sdpa attention, no cache, gradients set to None; its bf16
is tried twice, as autocast and with everything in bf16 (less than ./train_c3 does, which keeps fp32 masters). Both
sides train on pages of one length with the paper's template, so that PyTorch pays for no padding. What is compared runs
in turn (A B A B), each in a process of its own. Two cores of ours are tried as two threads and as two ranks of one.

The table: median text tokens per second over the steps of all rounds; what a tenth of the steps reached or passed (on a
shared machine nearer to the truth than the median); ratio of medians to PyTorch's best in that type on as many cores;
largest resident memory of a process (ranks: added up).
"""
import argparse
import glob
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "dev"))

from qwen_words import tokenizer_ranks  # noqa: E402 - no PyTorch in this process: its memory would be counted below

# (D, L, NH, KV, F) of encoder and decoder, latents, text tokens a page, pages a step: as the presets of ./train_c3
PRESETS = {
    "tiny": dict(vocab=4096, enc=(128, 2, 4, 2, 384), dec=(192, 2, 6, 2, 512), N=8, T=64, batch=8),
    "small": dict(vocab=8192, enc=(256, 4, 4, 2, 704), dec=(320, 4, 5, 1, 896), N=32, T=256, batch=4),
    "medium": dict(vocab=151643, enc=(896, 4, 14, 2, 4864), dec=(896, 4, 14, 2, 4864), N=32, T=512, batch=1),
}
WARM = 3  # steps at the start that are not counted


def find_tokenizer():
    for name in ("qwen.tiktoken", "tokenizer.json"):
        for path in sorted(glob.glob(os.path.join(ROOT, "data", "**", name), recursive=True)):
            return path
    raise SystemExit("no tokenizer below data/ (hint: bash scripts/setup.sh, or --tok FILE)")


# ---- PyTorch's side: runs in a process of its own --------------------------------------------------------------------


def torch_side(preset, mode, threads, seconds, tokenizer):
    import torch
    from qwen_words import make_words
    from reference import C3Twin
    from transformers import Qwen2Config

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    p = PRESETS[preset]
    K = p["vocab"]
    rows = (151936, 151860) if K >= 151643 else (K + 6, K + 6)
    configs = []
    for V, (D, L, NH, KV, F) in zip(rows, (p["enc"], p["dec"])):
        configs.append(Qwen2Config(vocab_size=V, hidden_size=D, num_hidden_layers=L, num_attention_heads=NH,
                                   num_key_value_heads=KV, intermediate_size=F, tie_word_embeddings=True,
                                   rope_parameters={"rope_type": "default", "rope_theta": 1e6}))  # fmt: skip
    words = make_words("c3", tokenizer, *((151857, 151645) if K >= 151643 else (K + 3, K + 2)))
    model = C3Twin(*configs, p["N"], words, attention="sdpa")
    model.train()
    if mode == "bf16":
        model.to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
    times = []
    while len(times) < WARM + 3 or sum(times[WARM:]) < seconds:
        pages = torch.randint(256, min(K, 20000), (p["batch"], p["T"]))
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
            loss = model.row_losses(model.decode(model.encode(pages), pages), pages).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        times.append(time.perf_counter() - start)
    times = times[WARM:]
    print(json.dumps({"tokens_per_second": [p["batch"] * p["T"] / t for t in times], "loss": value,
                      "decoder_rows": len(words.before) + len(words.after) + p["N"] + p["T"]}))  # fmt: skip


def resident_peak(pid):
    """Largest resident memory in MB of a process and those below it, each, as far as they still run. (wait4's ru_maxrss
    would count what the child had of this program before it became another.)"""
    try:
        with open(f"/proc/{pid}/status") as f:
            mine = max((int(line.split()[1]) / 1024 for line in f if line.startswith("VmHWM:")), default=0.0)
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            return max([mine] + [resident_peak(int(child)) for child in f.read().split()])
    except OSError:
        return 0.0  # it has ended


def run_process(command, **more_env):
    """(stdout, largest resident memory in MB of one process below) of a command that must succeed."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        p = subprocess.Popen(command, stdout=out, stderr=err, cwd=ROOT, env=dict(os.environ, **more_env))
        time.sleep(0.2)  # it has become the command by then
        peak = 0.0
        while p.poll() is None:
            peak = max(peak, resident_peak(p.pid))
            time.sleep(0.02)
        out.seek(0)
        err.seek(0)
        if p.returncode:
            raise SystemExit(f"{' '.join(command)}: exit code {p.returncode}\n{err.read()}")
        return out.read(), peak


def run_torch(preset, mode, cores, seconds, tokenizer):
    me = os.path.abspath(__file__)
    command = [sys.executable, me, "--torch-side", preset, mode, str(cores), str(seconds), tokenizer]
    out, memory = run_process(command, OMP_NUM_THREADS=str(cores))
    return json.loads(out.splitlines()[-1])["tokens_per_second"], memory


# ---- our side --------------------------------------------------------------------------------------------------------


def make_shard(folder, preset, tokenizer):
    """Pages of exactly T tokens: every word is " letters" and a token of its own, so the tokenizer finds it again."""
    p = PRESETS[preset]
    ranks = tokenizer_ranks(tokenizer)
    words = [t.decode() for t, r in ranks.items() if r < min(p["vocab"], 20000) and re.fullmatch(rb" [a-z]+", t)]
    rng = random.Random(1)
    text = os.path.join(folder, preset + ".jsonl")
    with open(text, "w") as f:
        for _ in range(64 * p["batch"]):
            f.write(json.dumps({"text": "".join(rng.choice(words) for _ in range(p["T"]))}) + "\n")
    prefix = os.path.join(folder, preset)
    vocab = [] if p["vocab"] >= 151643 else ["-vocab", str(p["vocab"])]
    run_process(["./c3", "tokenize", "-tok", tokenizer, *vocab, "-o", prefix, text])
    return prefix + "*.bin"


def run_ours(preset, dtype, ranks, threads, seconds, shard, tokenizer, folder, guess):
    p, out = PRESETS[preset], os.path.join(folder, "run")
    shutil.rmtree(out, ignore_errors=True)
    tokens = p["batch"] * p["T"]
    steps = WARM + max(3, int(seconds * guess / tokens))
    command = ["./train_c3", "-preset", preset, "-tok", tokenizer, "-data", shard, "-steps", str(steps),
               "-dtype", dtype, "-b", str(p["batch"] // ranks), "-g", "1", "-lr", "1e-4", "-threads", str(threads), "-o", out,
               "-save_every", "0", "-resume", "no"]  # fmt: skip
    env = {"OMP_NUM_THREADS": str(threads)}
    if ranks > 1:
        command = ["mpirun", "-np", str(ranks), "--bind-to", "none", "--oversubscribe", *command]
        env |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    _, memory = run_process(command, **env)
    lines = [json.loads(line) for line in open(os.path.join(out, "log.jsonl"))]
    lines = [line for line in lines if "tokens_per_second" in line]
    if any(line["tokens"] != tokens for line in lines):
        raise SystemExit(f"{out}/log.jsonl: steps are not of {tokens} text tokens")
    return [line["tokens_per_second"] for line in lines[WARM:]], memory * ranks


# ---- the table -------------------------------------------------------------------------------------------------------


def contenders(preset, dtype, cores):
    """[(name, PyTorch's mode or (ranks, threads) of ours)]"""
    torch_modes = ["fp32"] if dtype == "fp32" else ["autocast", "bf16"]
    ours = [(r, cores // r) for r in range(1, cores + 1) if cores % r == 0 and PRESETS[preset]["batch"] % r == 0]
    return [(f"PyTorch {m}", m) for m in torch_modes] + [(f"train_c3 {dtype}, {r} x {t}", (r, t)) for r, t in ours]


def compare(preset, dtype, cores, args, shard, folder):
    runs = {name: [] for name, _ in contenders(preset, dtype, cores)}
    memory = dict.fromkeys(runs, 0.0)
    guess = 2000.0
    for _ in range(args.rounds):
        for name, how in contenders(preset, dtype, cores):
            if isinstance(how, str):
                rates, megabytes = run_torch(preset, how, cores, args.seconds, args.tok)
                guess = 2 * statistics.median(rates)
            else:
                rates, megabytes = run_ours(preset, dtype, *how, args.seconds, shard, args.tok, folder, guess)
            runs[name].append(rates)
            memory[name] = max(memory[name], megabytes)
    median = {name: statistics.median(r for rates in rounds for r in rates) for name, rounds in runs.items()}
    rival = max(m for name, m in median.items() if name.startswith("PyTorch"))
    return [{"preset": preset, "dtype": dtype, "cores": cores, "name": name, "tokens_per_second": median[name],
             "fast": sorted(r for rates in rounds for r in rates)[int(0.9 * sum(map(len, rounds)))],
             "steps": sum(map(len, rounds)),
             "ratio": median[name] / rival, "memory_mb": memory[name]} for name, rounds in runs.items()]  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=["tiny", "small"])
    parser.add_argument("--dtypes", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--cores", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help="of counted steps in a run of PyTorch, at least")
    parser.add_argument("--tok", default=None, help="default: what lies below data/")
    parser.add_argument("--json", help="file for the same as JSON")
    args = parser.parse_args()
    args.tok = os.path.abspath(args.tok or find_tokenizer())
    folder, rows = tempfile.mkdtemp(), []
    print(f"{'preset':7}{'cores':>6}  {'what':26}{'tok/s':>9}{'fast':>9}{'ratio':>7}{'MB':>8}{'steps':>7}")
    try:
        for preset in args.presets:
            shard = make_shard(folder, preset, args.tok)
            for cores in args.cores:
                for dtype in args.dtypes:
                    for row in compare(preset, dtype, cores, args, shard, folder):
                        rows.append(row)
                        print("{preset:7}{cores:6d}  {name:26}{tokens_per_second:9.0f}{fast:9.0f}{ratio:7.2f}"
                              "{memory_mb:8.0f}{steps:7d}".format(**row), flush=True)  # fmt: skip
    finally:
        shutil.rmtree(folder)
    if args.json:
        with open(args.json, "w") as f:
            json.dump(rows, f, indent=2)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--torch-side"]:
        torch_side(sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]), sys.argv[6])
    else:
        main()
