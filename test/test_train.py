"""Equalities of the trainer. Bit-equal: ZeRO-0 and 1, recompute modes, resume. Within a tolerance: every split of one
global batch over ranks, -b and -g; losses of 20 steps to 1e-5, gradient norm of step 1 to 1e-6 (fp32, lr 1e-4, eps 1e-6).
"""
import json
import os
import random
import re
import shutil

import numpy as np
from safetensors.numpy import load_file

from harness import C3, TOKENIZER, TRAIN, Folder, case, done, losses, log, make_shards, model_bytes, run, span_faults, spans

STEPS = 20
COMMON = ["-preset", "tiny", "-n", 8, "-steps", STEPS, "-lr", "1e-4", "-eps", "1e-6", "-warmup", 5, "-save_every", 0,
          "-val_every", 0, "-threads", 1]


def train(folder, name, data, extra, ranks=1):
    out = os.path.join(folder, name)
    run(TRAIN, COMMON + ["-data", data, "-o", out] + extra, ranks)
    return out


def relative(a, b):
    return max(abs(x - y) / max(abs(y), 1e-12) for x, y in zip(a, b))


def splits(folder, data):
    reference = train(folder, "np1_b8", data, ["-dtype", "fp32", "-b", 8, "-g", 1])
    ours, norm = losses(reference), log(reference)[1]["grad_norm"]
    case("fp32: the loss falls", ours[-1] < ours[0] - 0.5, ours)
    for ranks, b, g in ((1, 4, 2), (1, 1, 8), (2, 4, 1), (2, 2, 2), (4, 2, 1), (4, 1, 2)):
        out = train(folder, f"np{ranks}_b{b}_g{g}", data, ["-dtype", "fp32", "-b", b, "-g", g], ranks)
        worst, first = relative(losses(out), ours), relative([log(out)[1]["grad_norm"]], [norm])
        case(f"fp32: {ranks} ranks, -b {b} -g {g}: losses of {STEPS} steps within 1e-5, first gradient norm within 1e-6",
             worst <= 1e-5 and first <= 1e-6, f"losses differ by {worst:.2e}, norm by {first:.2e}")


def same(a, b):
    return losses(a) == losses(b) and model_bytes(a, STEPS) == model_bytes(b, STEPS)


def equalities(folder, data, dtype):
    base = train(folder, f"{dtype}_zero1", data, ["-dtype", dtype, "-b", 2, "-g", 2, "-zero", 1], 2)
    zero0 = train(folder, f"{dtype}_zero0", data, ["-dtype", dtype, "-b", 2, "-g", 2, "-zero", 0], 2)
    case(f"{dtype}: ZeRO 0 and 1 are bit-equal", same(base, zero0))
    zero2 = train(folder, f"{dtype}_zero2", data, ["-dtype", dtype, "-b", 4, "-g", 1, "-zero", 2], 2)
    whole = train(folder, f"{dtype}_zero1_g1", data, ["-dtype", dtype, "-b", 4, "-g", 1, "-zero", 1], 2)
    case(f"{dtype}: ZeRO 1 and 2 are bit-equal with one micro-batch", same(whole, zero2))
    again = train(folder, f"{dtype}_again", data, ["-dtype", dtype, "-b", 2, "-g", 2, "-zero", 1], 2)
    case(f"{dtype}: two runs are bit-equal", same(base, again))
    other = train(folder, f"{dtype}_seed", data, ["-dtype", dtype, "-b", 2, "-g", 2, "-zero", 1, "-seed", 2], 2)
    case(f"{dtype}: another seed is not (the comparison can fail)", not same(base, other))
    one = train(folder, f"{dtype}_none", data, ["-dtype", dtype, "-b", 4, "-g", 2])
    for mode in ("cheap", "layer"):
        out = train(folder, f"{dtype}_{mode}", data, ["-dtype", dtype, "-b", 4, "-g", 2, "-recompute", mode])
        case(f"{dtype}: -recompute {mode} is bit-equal to none", same(one, out))


def resume(folder, data, dtype, ranks, name="", more=(), steps=(7, 14)):
    options = ["-dtype", dtype, "-b", 8 // ranks, "-g", 1, "-save_every", 7, "-keep", 0, *more]
    whole = train(folder, f"{dtype}_{ranks}{name}_whole", data, options, ranks)
    for step in steps:
        out = os.path.join(folder, f"{dtype}_{ranks}{name}_from{step}")
        os.makedirs(out)
        shutil.copytree(os.path.join(whole, f"step_{step:08d}"), os.path.join(out, f"step_{step:08d}"))
        shutil.copy(os.path.join(whole, "log.jsonl"), out)
        run(TRAIN, COMMON + ["-data", data, "-o", out] + options, ranks)
        case(f"{dtype}: resumed at step {step} with {ranks} ranks{name}: bit-equal to the undisturbed run", same(whole, out))
    return whole


def resume_on_other_ranks(folder, data, whole, name="", more=(), on=(1, 4)):
    for ranks in on:
        out = os.path.join(folder, f"other_{ranks}{name}")
        os.makedirs(out)
        shutil.copytree(os.path.join(whole, "step_00000007"), os.path.join(out, "step_00000007"))
        shutil.copy(os.path.join(whole, "log.jsonl"), out)
        run(TRAIN, COMMON + ["-data", data, "-o", out, "-dtype", "fp32", "-b", 8 // ranks, "-g", 1, *more], ranks)
        worst = relative(losses(out), losses(whole))
        case(f"fp32: written by 2 ranks, resumed on {ranks}{name}: losses within 1e-5", worst <= 1e-5, f"{worst:.2e}")


def refusals(folder, data, whole):
    cases = (("-seed", 5), ("-n", 4), ("-b", 2), ("-template", "bare"))
    for option, value in cases:
        args = COMMON + ["-data", data, "-o", whole, "-dtype", "fp32", "-b", 8, "-g", 1, "-resume",
                         os.path.join(whole, "step_00000007"), option, value]
        r = run(TRAIN, args, check=False)
        case(f"resume refuses another {option}, in one line", r.returncode != 0 and len(r.stderr.splitlines()) == 1,
             r.stderr)


def several_latents(folder, data, plain):
    """-n_mix: what is learned from a page belongs to its place in the run."""
    mix = ["-n_mix", "2:1,8:2,5:1", "-val", data, "-val_pages", 9]
    whole = resume(folder, data, "fp32", 2, ", several latents", mix, [7])
    resume_on_other_ranks(folder, data, whole, ", several latents", mix, [1])
    case("-n_mix trains something else (the comparison can fail)", losses(whole) != losses(plain))
    last = [o for o in map(json.loads, open(os.path.join(whole, "log.jsonl"))) if "val_loss" in o][-1]
    case("validation from each number of latents", 0 < last["val_loss"] != last["val_n2_loss"] != last["val_n5_loss"] and
         0 <= last["val_n2_token_accuracy"] <= 1 and "val_n8_loss" not in last, last)
    with open(os.path.join(whole, f"step_{STEPS:08d}", "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    case("the checkpoint says with which numbers it was trained", config["c3_trained_latents"] == [2, 5, 8], config)
    args = COMMON + ["-data", data, "-o", os.path.join(folder, "none"), "-dtype", "fp32", "-b", 8, "-g", 1]
    r = run(TRAIN, args + ["-plan", "-n_mix", "2,8"])
    more = run(TRAIN, args + ["-plan"])
    work = [re.search(r"forward\+back +(\S+) FLOP", x.stdout)[1] for x in (r, more)]
    case("a plan of fewer latents: less work", float(work[0]) < float(work[1]), work)
    for value, says in (("0,8", "0,8"), ("8,4,8", "8 is there twice"), ("8,x", "8,x"), ("8,", "8,"), ("-1", "-1"), ("3.5,8", "3.5"),
                        ("8:0", "8:0"), ("8:nan", "8:nan"), ("8:1,4", "a weight for every"), ("4,9", "-n 9 grows"),
                        ("2,4", "-n 4 cuts"), ("99999999999", "65536"), (",".join(map(str, range(1, 18))), "at most 16")):
        r = run(TRAIN, [*args, "-n_mix", value], check=False)
        case(f"-n_mix {value[:12]}: refused in one line", r.returncode == 1 and len(r.stderr.splitlines()) == 1 and
             "-n_mix" in r.stderr and says in r.stderr, r.stderr)
    r = run(TRAIN, COMMON + ["-data", data, "-o", whole, "-dtype", "fp32", "-b", 8, "-g", 1, "-n_mix", "2,8"], check=False)
    case("resume refuses another -n_mix, in one line", r.returncode == 1 and len(r.stderr.splitlines()) == 1 and
         "-n_mix" in r.stderr, r.stderr)


def packing(folder, data):
    one = train(folder, "pack1", data, ["-dtype", "fp32", "-b", 1, "-g", 4, "-zero", 1, "-fuse", 1], 2)
    for options in (["-zero", 2, "-fuse", 1], ["-zero", 1, "-fuse", 3], ["-zero", 2, "-fuse", 2], ["-fuse", "auto"]):
        name = " ".join(map(str, options))
        out = train(folder, "pack" + name.replace(" ", ""), data, ["-dtype", "fp32", "-b", 1, "-g", 4] + options, 2)
        worst = relative(losses(out), losses(one))
        case(f"fp32: {name}: losses within 1e-5 of -zero 1 -fuse 1", worst <= 1e-5, f"{worst:.2e}")
    micro = [train(folder, f"pack_micro{fuse}", data,
                   ["-dtype", "fp32", "-b", 2, "-g", 4, "-loss_norm", "micro", "-fuse", fuse]) for fuse in (1, 4)]
    worst = relative(losses(micro[1]), losses(micro[0]))
    case("fp32: -loss_norm micro: fused micro-batches keep their weights: within 1e-5", worst <= 1e-5, f"{worst:.2e}")


def micro_norm(folder, data):
    a = train(folder, "micro1", data, ["-dtype", "fp32", "-b", 2, "-g", 4, "-loss_norm", "micro"])
    b = train(folder, "micro2", data, ["-dtype", "fp32", "-b", 2, "-g", 2, "-loss_norm", "micro"], 2)
    c = train(folder, "micro3", data, ["-dtype", "fp32", "-b", 4, "-g", 2, "-loss_norm", "micro"])
    worst = relative(losses(b), losses(a))
    case("-loss_norm micro: the same micro-batches on 2 ranks: within 1e-5", worst <= 1e-5, f"{worst:.2e}")
    case("-loss_norm micro: other micro-batches are another loss", relative(losses(c), losses(a)) > 1e-5)


def frozen(folder, data):
    out = train(folder, "frozen", data, ["-dtype", "fp32", "-b", 8, "-g", 1, "-freeze", "enc", "-save_every", 10, "-keep", 0])
    first, last = model_bytes(out, 10), model_bytes(out, STEPS)
    case("-freeze enc: the encoder keeps its weights, the rest moves", first[1] == last[1] and first[0] != last[0])
    still = train(folder, "latent", data, ["-dtype", "fp32", "-b", 8, "-g", 1, "-lr_latent", 0, "-save_every", 10, "-keep", 0])
    first, last = (load_file(os.path.join(still, f"step_{step:08d}", "model.safetensors")) for step in (10, STEPS))
    kept = {name for name in first if np.array_equal(first[name], last[name])}
    case("-lr_latent 0: queries and projector keep their weights, the decoder moves",
         kept == {name for name in first if name.startswith(("model.Q", "model.mm_projector"))} and len(kept) == 3, kept)


def validation_of_cut_pages(folder, data):
    """With -len_warmup validation is of whole pages and, as long as training pages are cut, of pages cut like them."""
    rng = random.Random(3)
    texts = [[rng.choice("the and of to in is for on it as".split()) for _ in range(length)]
             for length in range(8, 41, 4)]  # a word is a token, wherever a page is cut

    def validations(name, longest, options):
        jsonl, out = os.path.join(folder, name + ".jsonl"), os.path.join(folder, name)
        with open(jsonl, "w") as f:
            f.writelines(json.dumps({"text": " ".join(words[:longest])}) + "\n" for words in texts)
        run(C3, ["tokenize", "-tok", TOKENIZER, "-vocab", 4096, "-o", out, jsonl])
        r = run(TRAIN, COMMON + ["-data", data, "-o", out, "-val", f"{out}_*.bin", "-dtype", "fp32", "-b", 2, "-g", 1,
                                 "-lr", 0, "-val_every", 4] + options)
        with open(os.path.join(out, "log.jsonl")) as f:
            return {o["step"]: o for o in map(json.loads, f) if "val_loss" in o}, r.stdout

    got, said = validations("val_whole", None, ["-len_warmup", 0.5])
    cut = got[4]["val_cut"]
    case("validation while pages are cut: to the length of that step", 10 < cut < 40 and
         f"cut to {cut} tokens, as training pages still are: loss" in said, got)
    case("afterwards pages are whole", set(got) == {0, 4, 8, 12, 16, 20} and "val_cut" not in got[12], got)
    same, _ = validations("val_begun", cut, [])
    worst = max(abs(got[4][f"val_cut_{k}"] - same[4][f"val_{k}"]) for k in ("loss", "token_accuracy"))
    case("it is the validation of pages that end there", worst < 1e-6 and abs(got[4]["val_loss"] - same[4]["val_loss"]) >
         1e-4, (got[4], same[4]))


def table_rows(text):
    """{path: (ms, ms by itself, calls)} of the table by range."""
    rows, path = {}, []
    for line in re.split(r"by range +ms.*\n", text)[1].splitlines():
        m = re.match(r"  ((?:  )*)(\S.*?) +([\d.]+) +[\d.]+ % +([\d.]+) +([\d.]+)$", line)
        if not m:
            break
        path = [*path[:len(m[1]) // 2], m[2]]
        rows["/".join(path)] = tuple(map(float, m.groups()[2:]))
    return rows


def profile(folder, data):
    options = ["-dtype", "fp32", "-b", 2, "-g", 2, "-zero", 1, "-recompute", "layer", "-fuse", 1]
    plain, out = train(folder, "unprofiled", data, options, 2), os.path.join(folder, "profiled")
    arguments = COMMON + ["-data", data, "-o", out] + options
    r = run(TRAIN, arguments + ["-profile", 3], 2)
    case("-profile: the same losses and weights, bit for bit", same(plain, out))
    case("without it there is no profile.json", not os.path.exists(os.path.join(plain, "profile.json")))
    ranks, logged, rows = spans(out), log(out), table_rows(r.stdout)
    wrong = [fault for events in ranks.values() for fault in span_faults(events)]
    case("-profile 3: every span of both ranks lies in the one around it", sorted(ranks) == [0, 1] and not wrong, wrong[:5])
    for rank, events in ranks.items():
        steps = [e for e in events if len(e["path"]) == 1]
        long = [e["dur"] / 1e6 / logged[int(e["name"].split()[1])]["ms"] for e in steps]
        case(f"rank {rank}: steps 3 to 5, and as long as the log says", [e["name"] for e in steps] == ["step 3", "step 4", "step 5"]
             and all(0.5 < share <= 1 for share in long), (long, [e["name"] for e in steps]))
        paths = ["/".join(e["path"][1:]) for e in events if e["path"][0] == "step 4"]
        layer = ["recompute", "product for inputs", "product for weights", "attention", "norm", "SwiGLU", "rotary", "reduce-scatter"]
        expected = {f"{stack} backward/layer {i}/{name}" for stack in ("encoder", "decoder") for i in (0, 1) for name in layer}
        expected |= {f"{stack} forward/layer {i}/{name}" for stack in ("encoder", "decoder") for i in (0, 1)
                     for name in ("product", "attention", "norm", "SwiGLU", "rotary")}
        expected |= {"decoder backward/layer 1/recompute/attention", "optimizer/AdamW", "optimizer/all-gather", "upload",
                     "head and loss/cross entropy", "load and pack the next step"}
        case(f"rank {rank}: nothing is left out", expected <= set(paths) and paths.count("decoder forward") == 2 and
             paths.count("decoder forward/layer 0/product") == 8, sorted(expected - set(paths)))
    mean = {}
    for e in ranks[0]:
        path = "/".join(re.sub(r" \d+$", "", name) for name in e["path"])
        mean[path] = mean.get(path, 0) + e["dur"] / 3e6
    far = [path for path, row in rows.items() if abs(row[0] - mean[path]) > 0.006]
    inner = sum(row[0] for path, row in rows.items() if path.count("/") == 1)
    case("the table is the trace's mean, layers as one row; self is what no other row has",
         not far and rows["step/decoder backward/layer"][2] == 4 and
         abs(rows["step"][1] + inner - rows["step"][0]) < 0.02 + 0.002 * rows["step"][0], (far, rows))
    shares = [float(share) for share in re.findall(r" ([\d.]+) %$", r.stdout.split("by kind")[1].split("by range")[0], re.M)]
    case("the shares by kind are all of the step", len(shares) > 8 and abs(sum(shares) - 100) < 0.05 * len(shares), shares)

    r = run(TRAIN, arguments + ["-profile", 30, "-resume", "no"], 2)
    case("-profile of more steps than are left: said, and those are measured",
         "-profile 30: 18 step(s) are left after the first 2" in r.stdout and "times of 18 step(s), 3 to 20" in r.stdout, r.stdout)
    case("a run that starts anew sets the old profile aside", len(spans(os.path.join(out, "old_1"))[0]) <
         len(spans(out)[0]), os.listdir(out))
    r = run(TRAIN, arguments + ["-profile", 2, "-steps", 21], 2)
    case("resumed with one step to go: said, nothing measured", "-profile 2: 0 step(s) are left" in r.stdout and
         "times of" not in r.stdout and "done at step 21" in r.stdout, r.stdout)
    r = run(TRAIN, arguments + ["-profile", -1], check=False)
    case("-profile -1 is refused in one line", r.returncode != 0 and len(r.stderr.splitlines()) == 1 and "-profile" in r.stderr,
         r.stderr)


with Folder() as tmp:
    pages = make_shards(tmp, "pages", 60, seed=1, shards=3)
    splits(tmp, pages)
    for element in ("fp32", "bf16"):
        equalities(tmp, pages, element)
    resume(tmp, pages, "bf16", 1)
    two = resume(tmp, pages, "fp32", 2)
    resume_on_other_ranks(tmp, pages, two)
    refusals(tmp, pages, two)
    several_latents(tmp, pages, two)
    packing(tmp, pages)
    micro_norm(tmp, pages)
    frozen(tmp, pages)
    validation_of_cut_pages(tmp, pages)
    profile(tmp, pages)
done()
