#!/usr/bin/env python3
"""Tasks of training pages: -mix, pages with prompts of their own, their losses, validation by task, what a checkpoint says,
and what a resumed run may change."""
import json
import os
import random
import re
import shutil
import subprocess
import sys

from harness import C3, ROOT, TOKENIZER, TRAIN, WORDS, Folder, case, done, log, losses, make_shards, model_bytes, run

STEPS = 8
COMMON = ["-n", 4, "-steps", STEPS, "-lr", "1e-4", "-eps", "1e-6", "-warmup", 2, "-save_every", 4, "-keep", 0,
          "-val_every", 0, "-threads", 1, "-dtype", "fp32"]
MIX = ["-mix", "repeat:0.6,continue:0.4"]


def train(folder, name, args, ranks=1, check=True):
    out = os.path.join(folder, name)
    return out, run(TRAIN, COMMON + ([] if "-m" in args else ["-preset", "tiny"]) + ["-o", out] + args, ranks,
                    check=check)


def validations(out):
    with open(os.path.join(out, "log.jsonl")) as f:
        return [o for o in map(json.loads, f) if "val_loss" in o]


def config(out):
    with open(os.path.join(out, f"step_{STEPS:08d}", "config.json")) as f:
        return json.load(f)


def resumed(folder, whole, name, args, ranks=1, check=True):
    """A run that goes on from step 4 of another."""
    out = os.path.join(folder, name)
    os.makedirs(out)
    shutil.copytree(os.path.join(whole, "step_00000004"), os.path.join(out, "step_00000004"))
    shutil.copy(os.path.join(whole, "log.jsonl"), out)
    return train(folder, name, args, ranks, check)


def mixed(folder, data, val):
    one = ["-data", data, "-b", 8, "-g", 1]
    plain, _ = train(folder, "plain", one)
    repeat, _ = train(folder, "repeat", [*one, "-mix", "repeat:2"])
    case("-mix repeat:2 is the run without it, bit for bit",
         losses(plain) == losses(repeat) and model_bytes(plain, STEPS) == model_bytes(repeat, STEPS))
    case("a run without tasks says nothing of them", "loss_repeat" not in log(plain)[1] and "c3_tasks" not in config(plain))
    whole, said = train(folder, "mixed", [*one, *MIX, "-val", val])
    steps = log(whole)
    case("a step has the loss of each task, and theirs lie around its own",
         all(min(s["loss_repeat"], s["loss_continue"]) <= s["loss"] <= max(s["loss_repeat"], s["loss_continue"])
             for s in steps.values() if s["loss_repeat"] and s["loss_continue"]) and steps[1]["loss_instruct"] is None and
         len({s["loss_continue"] for s in steps.values()}) > STEPS // 2, steps)
    case("tasks in the step leave fewer tokens to write", log(plain)[1]["tokens"] > steps[1]["tokens"] > 0)
    case("the checkpoint says which tasks", config(whole)["c3_tasks"] == ["repeat", "continue"], config(whole))
    found = validations(whole)[-1]
    case("validation by task; without a name it is the mean by -mix",
         abs(0.6 * found["val_loss_repeat"] + 0.4 * found["val_loss_continue"] - found["val_loss"]) < 1e-6 and
         found["val_loss_repeat"] != found["val_loss_continue"] and "(mean by -mix)" in said.stdout and
         "\n  continue       loss" in said.stdout, found)
    named, _ = train(folder, "named", [*one, *MIX, "-val", f"a={val}", "-val", f"b={val}"])
    both = validations(named)[-1]
    case("of two sets each has both tasks", both["val_loss_a_repeat"] == both["val_loss_b_repeat"] == found["val_loss_repeat"]
         and both["val_loss_b_continue"] == found["val_loss_continue"] and abs(both["val_loss"] - found["val_loss"]) < 1e-6, both)
    again, _ = resumed(folder, whole, "again", [*one, *MIX])
    case("resumed: bit-equal to the undisturbed run",
         losses(again) == losses(whole) and model_bytes(again, STEPS) == model_bytes(whole, STEPS))
    for ranks, b, g in ((2, 4, 1), (2, 2, 2)):
        other, _ = train(folder, f"ranks{b}", ["-data", data, "-b", b, "-g", g, *MIX], ranks)
        pairs = [(s[k], steps[n][k]) for n, s in log(other).items() for k in ("loss", "loss_repeat", "loss_continue")]
        case(f"{ranks} ranks, -b {b} -g {g}: the same tasks, losses within 1e-5",
             all(a == b or abs(a - b) < 1e-5 * b for a, b in pairs), pairs)
    for change in (["-mix", "repeat:0.5,continue:0.5"], []):
        _, r = resumed(folder, whole, f"changed{len(change)}", [*one, *change], check=False)
        case(f"resume refuses {' '.join(change) or 'a run without -mix'}, in one line",
             r.returncode != 0 and "-mix" in r.stderr and len(r.stderr.splitlines()) == 1, r.stderr)
    _, r = train(folder, "bad", [*one, "-mix", "repeat:1,summarise:1"], check=False)
    case("another task is refused in one line", r.returncode != 0 and "summarise" in r.stderr and
         len(r.stderr.splitlines()) == 1, r.stderr)
    grown, r = train(folder, "grown", [*one, "-mix", "continue:1", "-val", val, "-len_warmup", 0.9, "-val_every", 2])
    case("with -len_warmup beginnings are continued: no step writes more than they hold",
         log(grown)[1]["tokens"] < 8 * 0.6 * 15 and "val_cut_loss_continue" in validations(grown)[1], validations(grown))


def asked(folder, data):
    rng = random.Random(4)
    path, out = os.path.join(folder, "asked.jsonl"), os.path.join(folder, "asked")
    with open(path, "w") as f:
        for i in range(40):
            words = [rng.choice(WORDS) for _ in range(rng.randint(5, 30))]
            f.write(json.dumps({"context": " ".join(words), "prompt": "What is the last word?" + " Say it." * (i % 3),
                                "answer": words[-1]}) + "\n")
    r = run(C3, ["tokenize", "-tok", TOKENIZER, "-vocab", 4096, "-o", out, path])
    case("c3 tokenize counts prompts", "40 pages have a prompt of their own" in r.stdout, r.stdout)
    shard = f"{out}_00000.bin"
    case("c3 info, too", "40 pages have a prompt of their own" in run(C3, ["info", shard]).stdout)
    run_dir, _ = train(folder, "instruct", ["-data", f"qa={shard}:1", "-data", f"text={data}:1", "-val", f"qa={shard}", "-val",
                                            f"text={data}", *MIX, "-b", 8, "-g", 1])
    step, found = log(run_dir)[STEPS], validations(run_dir)[-1]
    case("three tasks in one batch, each with its loss", all(step[f"loss_{k}"] for k in ("repeat", "continue", "instruct")) or
         any(log(run_dir)[s]["loss_instruct"] for s in log(run_dir)), step)
    case("pages with prompts are validated as they are", "val_loss_qa" in found and "val_loss_text_continue" in found and
         "val_loss_qa_repeat" not in found, found)
    case("the checkpoint names all three", config(run_dir)["c3_tasks"] == ["repeat", "continue", "instruct"])
    newest = os.path.join(run_dir, f"step_{STEPS:08d}")
    case("c3 info names them", "tasks          repeat continue instruct" in run(C3, ["info", newest]).stdout)
    answers(folder, run_dir, path, found)
    more, _ = train(folder, "more", ["-data", data, "-m", newest, "-b", 8, "-g", 1])
    case("a model keeps the tasks of the one it comes from", config(more)["c3_tasks"] == ["repeat", "continue", "instruct"])


def evaluation(folder, model, pages, *words):
    out = os.path.join(folder, "eval")
    shutil.rmtree(out, ignore_errors=True)
    run(C3, ["eval", "-m", model, pages, "-o", out, "-no_controls", *words])
    with open(f"{out}/eval.json") as summary, open(f"{out}/pages.jsonl") as lines:
        return json.load(summary), [json.loads(line) for line in lines]


def answers(folder, run_dir, path, found):
    """c3 eval, c3 ask and c3 reconstruct -prompt with a model that knows prompts."""
    whole, pages = evaluation(folder, run_dir, path)
    with open(path) as f:
        lines = [json.loads(line) for line in f]
    case("c3 eval on pages with prompts: the loss is that of the validation", abs(whole["loss"] - found["val_loss_qa"]) < 1e-5,
         (whole["loss"], found))
    case("it says what was asked and expected", [(p["prompt"], p["text"]) for p in pages] ==
         [(p["prompt"], p["answer"]) for p in lines], pages[:2])
    whole, pages = evaluation(folder, run_dir, os.path.join(folder, "train0.jsonl"), "-task", "continue")
    case("c3 eval -task continue: the same beginnings, and loss, as in training",
         abs(whole["loss"] - found["val_loss_text_continue"]) < 1e-5 and whole["task"] == "continue",
         (whole["loss"], found))
    with open(os.path.join(folder, "train0.jsonl")) as f:
        texts = [json.loads(line)["text"] for line in f]
    case("what is expected is the end of the text", all(t.endswith(p["text"]) and p["prompt"] == "Continue the text: " and
         (0 < len(p["text"]) < len(t)) for t, p in zip(texts, pages)), pages[:2])
    text, prompt = os.path.join(folder, "one.txt"), "Which <|im_end|> word?"
    model, _ = train(folder, "random", ["-data", f"{folder}/asked_00000.bin", "-b", 8, "-g", 1, "-lr", 0])  # writes much
    with open(text, "w") as f:
        f.write(lines[0]["context"] + "\f" + lines[1]["context"])
    r = run(C3, ["ask", "-m", model, "-f", text, "-json", "-max_new", 8, prompt])
    asked = [json.loads(line) for line in r.stdout.splitlines()]
    r = run(C3, ["reconstruct", "-m", model, "-f", text, "-json", "-max_new", 8, "-prompt", prompt])
    again = [json.loads(line) for line in r.stdout.splitlines()]
    case("c3 ask and c3 reconstruct -prompt give one answer", len(asked) == 2 and asked[0]["answer"] and
         "on no other prompt" not in r.stderr and
         [(p["prompt"], p["answer"]) for p in asked] == [(prompt, p["reconstruction"]) for p in again], (asked, again, r.stderr))
    r = run(C3, ["ask", "-m", model, "-f", text, "-limit", 1, "-max_new", 8, prompt])
    case("in words: the answer alone", r.stdout == asked[0]["answer"] + "\n", r.stdout)
    plain, paper, other = (run(C3, ["reconstruct", "-m", model, "-f", text, "-max_new", 8, *words]).stdout
                           for words in ([], ["-prompt", "Repeat the text: "], ["-prompt", prompt]))
    case("the paper's prompt is none, another one is shown", plain == paper and
         f"--- prompt\n{prompt}\n--- original" in other and "--- prompt" not in plain, (plain, paper, other))
    r = run(C3, ["ask", "-m", os.path.join(folder, "plain"), "-f", text, "-max_new", 8, prompt])
    case("a model that was trained to repeat alone: said, once", r.stderr.count("on no other prompt") == 1, r.stderr)
    r = run(C3, ["ask", "-m", model, "-f", text, " "], check=False)
    case("an empty question is refused in one line", r.returncode == 1 and len(r.stderr.splitlines()) == 1, r.stderr)


def needles(folder, run_dir):
    """data/needles.py, c3 eval on what it made, and the picture."""
    def make(*words):
        program = [sys.executable, os.path.join(ROOT, "data/needles.py"), "-tok", TOKENIZER, "-vocab", "4096", "-n", "3"]
        return subprocess.run([*program, os.path.join(folder, "train0.jsonl"), *words], capture_output=True, text=True,
                              timeout=300)

    two = ["-lengths", "32,48", "-facts", "2"]
    r = make(*two)
    lines, path = [json.loads(line) for line in r.stdout.splitlines()], os.path.join(folder, "needles.jsonl")
    with open(path, "w") as f:
        f.write(r.stdout)
    whole, pages = evaluation(folder, run_dir, path, "-max_new", 4)
    places = [tuple(map(int, p["id"].split("/")[1:3])) for p in lines]
    case("needles.py: each length and depth, as often as asked", sorted(places) ==
         sorted((n, d) for n in (32, 48) for d in (0, 25, 50, 75, 100) for _ in range(3)), (r.stderr, places))
    case("documents of so many tokens, or a few less", all(n - 8 < p["tokens"] <= n for (n, _), p in zip(places, pages)),
         [p["tokens"] for p in pages])
    facts = [re.findall(r"The code of (\w+) is (\d+)\.", p["context"]) for p in lines]
    name_of = lambda p: re.fullmatch(r"What is the code of (\w+)\?", p["prompt"])[1]
    case("two facts in each, one of them is asked for", all(len(f) == 2 and (name_of(p), p["answer"]) in f
                                                            for f, p in zip(facts, lines)), lines[:2])
    wrong = []
    for (_, depth), p in zip(places, lines):
        before, behind = p["context"].split(f"The code of {name_of(p)} is {p['answer']}.")
        a, b = (len(re.sub(r"The code of \w+ is \d+\.", "", part).split()) for part in (before, behind))
        if abs(a - (a + b) * depth / 100) > 0.5:
            wrong.append((depth, a, b))
    case("at the depth that is said", not wrong, wrong)
    case("the same seed makes the same, another one does not", make(*two).stdout == r.stdout != make(*two, "-seed", "2").stdout)
    for words in (["-lengths", "4"], ["-depths", "101"], ["-lengths", "x"]):
        bad = make(*words)
        case(f"needles.py {' '.join(words)} is refused", bad.returncode and words[0] in bad.stderr and
             "Traceback" not in bad.stderr, bad.stderr)
    out = os.path.join(folder, "eval")
    rows = []
    for k, page in enumerate(pages):  # every second one right
        rows.append(json.dumps({**page, "exact": k % 2 == 0}) + "\n")
    with open(f"{out}/pages.jsonl", "w") as f:
        f.writelines(rows)
    r = subprocess.run([sys.executable, os.path.join(ROOT, "scripts/plot.py"), out], capture_output=True, text=True, timeout=300)
    with open(f"{out}/needles.svg") as f:
        picture = f.read()
    case("plot.py: a table of right answers, and the picture", "      0 %     66.7%   33.3%" in r.stdout and
         os.path.getsize(f"{out}/needles.png") > 1000 and "depth of the fact" in picture, (r.stdout, r.stderr))


def main():
    with Folder() as folder:
        data, val = make_shards(folder, "train", 200, 1), make_shards(folder, "val", 30, 9)
        mixed(folder, data, val)
        asked(folder, data)
        needles(folder, os.path.join(folder, "instruct"))
    done()


main()
