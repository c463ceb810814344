#!/usr/bin/env python3
"""bench_decode.py: decoding in transformers and here, side by side: the same weights, greedy, on a CPU.

  dev/bench_decode.py [--models small qwen0.5b] [--dtypes fp32 bf16] [--batches 1 8] [--rounds 3] [--tokens N]
                      [--json FILE]

small: the preset; qwen0.5b: two stacks of Qwen2.5-0.5B's widths cut to 4 layers, with the real vocabulary. Random
weights, written once as a checkpoint. transformers runs generate() of the decoder (static batch, sdpa attention, KV
cache, eval mode) on the prompt with the latents in it; we run the generator on the same page. Both write --tokens
tokens a page, the end mark is taken out of what transformers may choose. Counted are tokens behind the first, so no
prompt and no encoder, in turn (A B A B), each in a process of its own.

The table: median tokens per second over the rounds, the fastest round, ratio of medians to transformers' in the same
type and batch and to our own batch 1; GB/s: bytes of weights a step reads (layers and head) by the time of a step of
the fastest round, beside what reading memory alone reaches with as many threads (fastest of several passes, 512 MB).
"""
import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "dev"))
DECODE, STREAM = os.path.join(ROOT, "build/test/decode_ids"), os.path.join(ROOT, "build/dev/bench_ops")

# (D, L, heads, key/value heads, F) of encoder and decoder, latents, text tokens of a page, new tokens
MODELS = {
    "small": dict(vocab=8192, enc=(256, 4, 4, 2, 704), dec=(320, 4, 5, 1, 896), N=32, T=256, new=256),
    "qwen0.5b": dict(vocab=151643, enc=(896, 1, 14, 2, 4864), dec=(896, 4, 14, 2, 4864), N=32, T=64, new=48),
}


def weight_bytes(p, dtype):
    """What one step of the decoder reads: layers and head."""
    D, L, NH, KV, F = p["dec"]
    rows = 151860 if p["vocab"] >= 151643 else p["vocab"] + 6
    layer = D * (D // NH) * (NH + 2 * KV) + D * D + 3 * D * F
    return (L * layer + rows * D) * (4 if dtype == "fp32" else 2)


def make_checkpoint(folder, name, tokenizer):
    import torch
    from qwen_words import make_words
    from reference import C3Twin, save_checkpoint
    from transformers import Qwen2Config

    p, K = MODELS[name], MODELS[name]["vocab"]
    rows = (151936, 151860) if K >= 151643 else (K + 6, K + 6)
    first = 151857 if K >= 151643 else K + 3
    ids = dict(zip(("endoftext", "im_start", "im_end", "img", "img_end", "img_pad"),
                   [*range(K, K + 3), *range(first, first + 3)]))  # fmt: skip
    torch.manual_seed(1)
    configs = [Qwen2Config(vocab_size=V, hidden_size=D, num_hidden_layers=L, num_attention_heads=NH,
                           num_key_value_heads=KV, intermediate_size=F, tie_word_embeddings=True,
                           rope_parameters={"rope_type": "default", "rope_theta": 1e6})
               for V, (D, L, NH, KV, F) in zip(rows, (p["enc"], p["dec"]))]  # fmt: skip
    model = C3Twin(*configs, p["N"], make_words("c3", tokenizer, ids["img"], ids["im_end"]))
    save_checkpoint(model, folder, ids, "c3")
    shutil.copy(tokenizer, folder)


# ---- transformers: a process of its own ------------------------------------------------------------------------------


def torch_side(folder, name, dtype, threads, batch, new):
    import torch
    from qwen_words import make_words
    from reference import load_checkpoint
    from transformers.generation.streamers import BaseStreamer

    torch.set_num_threads(threads)
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)
    tokenizer = next(os.path.join(folder, n) for n in ("qwen.tiktoken", "tokenizer.json") if n in os.listdir(folder))
    words = make_words("c3", tokenizer, config["im_start_token"], config["eos_token_id"])
    model = load_checkpoint(folder, words).eval()
    if dtype == "bf16":
        model.to(torch.bfloat16)
    decoder, p = model.decoder, MODELS[name]
    decoder.set_attn_implementation("sdpa")
    times = []

    class Clock(BaseStreamer):  # told of every step
        def put(self, _):
            times.append(time.perf_counter())

        def end(self):
            pass

    with torch.inference_mode():
        embed = decoder.get_input_embeddings()
        latents = model.mm_projector(model.encode(torch.tensor(make_pages(p, batch))))
        fixed = [embed(torch.tensor(w).expand(batch, -1)) for w in (words.before, words.after)]
        x = torch.cat([fixed[0], latents, fixed[1]], 1)
        clock = {"streamer": Clock()} if batch == 1 else {"stopping_criteria": [lambda *_: stamp(times, batch)]}
        for tokens in (4, new):  # the first warms up
            times.clear()
            decoder.generate(inputs_embeds=x, attention_mask=torch.ones(x.shape[:2], dtype=torch.long), do_sample=False,
                             max_new_tokens=tokens, min_new_tokens=tokens, eos_token_id=words.end,
                             pad_token_id=words.end, **clock)  # fmt: skip
    steps = times[-new:]
    print(json.dumps(batch * (new - 1) / (steps[-1] - steps[0])))


def stamp(times, batch):
    """A stopping criterion that never stops, for batches, which streamers refuse."""
    import torch

    times.append(time.perf_counter())
    return torch.zeros(batch, dtype=torch.bool)


# ---- both ------------------------------------------------------------------------------------------------------------


def make_pages(p, batch):
    rng = random.Random(1)
    return [[rng.randrange(p["vocab"]) for _ in range(p["T"])] for _ in range(batch)]


def check_run(command, text="", **more_env):
    r = subprocess.run(command, input=text, text=True, capture_output=True, cwd=ROOT, env=dict(os.environ, **more_env))
    if r.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {r.returncode}\n{r.stderr}")
    return r.stdout.splitlines()[-1]


def run_torch(folder, name, dtype, threads, batch, new):
    me = os.path.abspath(__file__)
    return json.loads(check_run([sys.executable, me, "--torch-side", folder, name, dtype, str(threads), str(batch),
                                 str(new)], OMP_NUM_THREADS=str(threads)))  # fmt: skip


def run_ours(folder, name, dtype, threads, batch, new):
    text = "".join(" ".join(map(str, page)) + "\n" for page in make_pages(MODELS[name], batch))
    _, tokens, seconds = check_run([DECODE, folder, dtype, str(threads), str(batch), str(new), "0"], text).split()
    return int(tokens) / float(seconds)


def stream_rate(threads):
    """GB/s of reading memory, the fastest pass."""
    return float(check_run([STREAM, "-only", "stream", "-threads", str(threads), "-dtype", "fp32"]).split()[-2])


def compare(folder, name, dtype, args):
    rates, new = {}, args.tokens or MODELS[name]["new"]
    for _ in range(args.rounds):
        for batch in args.batches:
            for who, run in (("transformers", run_torch), ("c3", run_ours)):
                rates.setdefault((who, batch), []).append(run(folder, name, dtype, args.threads, batch, new))
    stream = max(stream_rate(args.threads) for _ in range(args.rounds))
    median = {key: statistics.median(r) for key, r in rates.items()}
    rows = []
    for (who, batch), all_rates in rates.items():
        gb = weight_bytes(MODELS[name], dtype) * max(all_rates) / batch / 1e9
        rows.append({"model": name, "dtype": dtype, "batch": batch, "name": who,
                     "tokens_per_second": median[who, batch], "fastest": max(all_rates),
                     "ratio": median[who, batch] / median["transformers", batch],
                     "to_batch_1": median[who, batch] / median[who, args.batches[0]], "gb_per_second": gb,
                     "stream": stream})  # fmt: skip
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["small", "qwen0.5b"])
    parser.add_argument("--dtypes", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, help="new tokens of a page; default: the model's own number")
    parser.add_argument("--tok", default=os.path.join(ROOT, "data/qwen2.5/qwen.tiktoken"))
    parser.add_argument("--json", help="file for the same as JSON")
    args = parser.parse_args()
    if not (os.path.exists(DECODE) and os.path.exists(STREAM)):
        raise SystemExit("not built (hint: make tests bench)")
    rows = []
    print(f"{'model':10}{'type':6}{'batch':>6}  {'what':14}{'tok/s':>9}{'fastest':>9}{'ratio':>7}{'x own 1':>8}"
          f"{'GB/s':>7}{'stream':>8}")  # fmt: skip
    with tempfile.TemporaryDirectory() as tmp:
        for name in args.models:
            folder = os.path.join(tmp, name)
            make_checkpoint(folder, name, args.tok)
            for dtype in args.dtypes:
                for row in compare(folder, name, dtype, args):
                    rows.append(row)
                    print("{model:10}{dtype:6}{batch:6d}  {name:14}{tokens_per_second:9.1f}{fastest:9.1f}{ratio:7.2f}"
                          "{to_batch_1:8.2f}{gb_per_second:7.1f}{stream:8.1f}".format(**row), flush=True)  # fmt: skip
            shutil.rmtree(folder)
    if args.json:
        with open(args.json, "w") as f:
            json.dump(rows, f, indent=2)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--torch-side"]:
        torch_side(*sys.argv[2:5], *map(int, sys.argv[5:8]))
    else:
        main()
