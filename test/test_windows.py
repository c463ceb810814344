"""Windows (-window W): contexts longer than W tokens are read in several, training, evaluation and latents on disk."""
import glob
import json
import os
import re
import shutil

from harness import C3, ROOT, TRAIN, Folder, case, done, log, losses, make_pages, make_shards, model_bytes, run

STEPS = 8
DEMO = os.path.join(ROOT, "runs/demo")
COMMON = ["-preset", "tiny", "-n", 4, "-steps", STEPS, "-lr", "1e-3", "-eps", "1e-6", "-warmup", 2, "-save_every", 0,
          "-val_every", 0, "-threads", 1, "-dtype", "fp32", "-b", 4, "-g", 2]


def train(folder, name, data, extra, ranks=1):
    out = os.path.join(folder, name)
    run(TRAIN, COMMON + ["-data", data, "-o", out] + extra, ranks)
    return out


def same(a, b):
    return losses(a) == losses(b) and model_bytes(a, STEPS) == model_bytes(b, STEPS)


def relative(a, b):
    return max(abs(x - y) / abs(y) for x, y in zip(losses(a), losses(b)))


def config(run_dir, step=STEPS):
    with open(os.path.join(run_dir, f"step_{step:08d}", "config.json")) as f:
        return json.load(f)


def short_pages(folder):
    """Pages of at most W tokens: the option changes no bit."""
    data = make_shards(folder, "short", 40, seed=3, longest=12)
    whole, windows = train(folder, "without", data, []), train(folder, "with", data, ["-window", 64])
    case("pages of one window: weights and losses are those without -window, bit for bit", same(whole, windows))
    case("config.json has the window, and only where there is one", config(windows).get("c3_window") == 64 and
         "c3_window" not in config(whole))
    other = train(folder, "other", data, ["-window", 6])
    case("windows shorter than the pages are not (the comparison can fail)", not same(whole, other))


def long_pages(folder, data):
    """Pages of many windows: every way to compute a step gives the same."""
    base = train(folder, "base", data, ["-window", 8, "-save_every", 3, "-keep", 0])
    case("pages of up to six windows: the loss falls", losses(base)[-1] < losses(base)[0] - 0.1, losses(base))
    case("-recompute layer is bit-equal", same(base, train(folder, "layer", data, ["-window", 8, "-recompute", "layer"])))
    out = os.path.join(folder, "resumed")
    os.makedirs(out)
    shutil.copytree(os.path.join(base, "step_00000003"), os.path.join(out, "step_00000003"))
    shutil.copy(os.path.join(base, "log.jsonl"), out)
    train(folder, "resumed", data, ["-window", 8])
    case("resumed at step 3: bit-equal to the undisturbed run", same(base, out))
    for ranks, b, g in ((1, 8, 1), (1, 1, 8), (2, 2, 2)):
        other = train(folder, f"np{ranks}_b{b}_g{g}", data, ["-window", 8, "-b", b, "-g", g], ranks)
        case(f"{ranks} rank(s), -b {b} -g {g}: losses within 1e-5", relative(other, base) <= 1e-5, relative(other, base))
    resumed = run(TRAIN, COMMON + ["-data", data, "-o", out, "-window", 16, "-steps", STEPS + 1], check=False)
    case("resume refuses another -window", resumed.returncode != 0 and "-window is 8" in resumed.stderr, resumed.stderr)
    more = ["-m", base, "-steps", 1, "-n", 0]
    args = [a for i, a in enumerate(COMMON) if a != "-preset" and COMMON[i - 1] != "-preset"]
    for name, extra, window in (("own", [], 8), ("changed", ["-window", 12], 12)):
        out = os.path.join(folder, name)
        run(TRAIN, args + ["-data", data, "-o", out] + more + extra)
        case(f"-m brings its windows, -window changes them: {name}", config(out, 1)["c3_window"] == window, config(out, 1))


def validation(folder, data):
    """Validation sees the windows training sees: with a rate of 0 both have the same loss."""
    pages = make_shards(folder, "val", 8, seed=11, shortest=30, longest=60)
    out = train(folder, "validated", pages, ["-window", 8, "-val", pages, "-lr", 0, "-sample_every", 4, "-b", 8, "-g", 1,
                                             "-steps", 1])
    entries = log(out)
    with open(os.path.join(out, "log.jsonl")) as f:
        val = [o["val_loss"] for o in map(json.loads, f) if "val_loss" in o]
    case("validation of the pages of the only step", abs(val[0] - entries[1]["loss"]) < 1e-5 * val[0], (val, entries))


def plan(folder, data):
    base = COMMON + ["-data", data, "-plan", "-o", os.path.join(folder, "planned")]
    whole, windows = (run(TRAIN, base + extra).stdout for extra in ([], ["-window", 8]))
    case("-plan says which windows there are", re.search(r"windows +of 8 tokens, 4 latents each: the average page has [\d.]+, "
                                                         r"the longest up to \d+\n", windows) and "windows" not in whole, windows)
    assumed = run(TRAIN, ["-preset", "tiny", "-plan", "-gpu", "h100", "-plan_tokens", 4000, "-window", 512]).stdout
    case("a plan without data", "windows        of 512 tokens, 8 latents each: the average page has 8.93, the longest up to 11" in
         assumed, assumed)


def refusals(folder, data):
    for name, options, says in (
            ("fewer tokens than latents", ["-window", 3], "windows of 3 tokens: expected at least 4, the latents of each"),
            ("-n grown past it", ["-window", 8, "-n", 16], "windows of 8 tokens: expected at least 16"),
            ("beyond the encoder's positions", ["-window", 40000], "expected at most 32763, the positions of the encoder"),
            ("no number", ["-window", "all"], "-window"), ("below zero", ["-window", -1], "-window")):
        r = run(TRAIN, COMMON + ["-data", data, "-o", os.path.join(folder, "refused")] + options, check=False)
        case(f"refused: {name}", r.returncode != 0 and len(r.stderr.splitlines()) == 1 and says in r.stderr, r.stderr)


def on_disk(folder):
    """Compressed and written again, a document is what eval and reconstruct write. The demo's model, which has never seen
    more than 16 latents, writes from those of several windows something else for every page."""
    model = os.path.join(folder, "model")
    shutil.copytree(sorted(glob.glob(os.path.join(DEMO, "step_*")))[-1], model)
    with open(os.path.join(model, "config.json")) as f:
        changed = json.load(f) | {"c3_window": 20}
    with open(os.path.join(model, "config.json"), "w") as f:
        json.dump(changed, f)
    source, out, back = (os.path.join(folder, name) for name in ("docs.jsonl", "docs.c3", "back.jsonl"))
    make_pages(source, 12, seed=7, shortest=1, longest=50)
    with open(source, "a") as f:
        f.write(json.dumps({"id": "long", "text": "A boat went out.\n\n" * 60}) + "\n")
    run(C3, ["compress", "-m", model, "-f", source, "-o", out, "-page_tokens", 100])
    info = run(C3, ["info", out]).stdout
    case("c3 info shows windows and pages", re.search(r"windows +\d+\n", info) and "numbers a window" in info, info)
    run(C3, ["decompress", "-m", model, out, "-json", "-o", back, "-max_new", 20])
    with open(back) as f:
        texts = {o["id"]: o["text"] for o in map(json.loads, f)}
    result = os.path.join(folder, "result")
    run(C3, ["eval", "-m", model, source, "-o", result, "-max_new", 20, "-limit", 12])
    with open(os.path.join(result, "pages.jsonl")) as f:
        pages = [json.loads(line) for line in f]
    case("12 documents of one to six windows: c3 decompress writes what c3 eval wrote",
         all(texts[p["id"]] == p["reconstruction"] for p in pages) and len(pages) == 12, [(texts[p["id"]], p["reconstruction"]) for p in pages])
    latents = [p["latents"] for p in pages]
    case("these texts differ (the comparison can fail)", len({p["reconstruction"] for p in pages}) == 12, pages)
    case("the latents of a page are those of its windows", min(latents) == 16 and max(latents) >= 64 and not any(n % 16 for n in latents), latents)
    with open(os.path.join(result, "eval.json")) as f:
        summary = json.load(f)
    tokens = sum(p["tokens"] for p in pages)
    case("compression counts all latents", abs(summary["tokens_per_latent"] - tokens / sum(latents)) < 1e-9, summary)
    first, second = ({p["id"]: p["reconstruction"] for p in map(json.loads, run(
        C3, ["reconstruct", "-m", model, "-f", source, "-json", "-max_new", 20, "-batch", batch]).stdout.splitlines())}
        for batch in (1, 5))
    case("whatever is decoded beside it", first == second and len(first) == 13, (first, second))


with Folder() as tmp:
    short_pages(tmp)
    many = make_shards(tmp, "many", 48, seed=5, longest=45)
    long_pages(tmp, many)
    validation(tmp, many)
    plan(tmp, many)
    refusals(tmp, many)
    on_disk(tmp)
done()
