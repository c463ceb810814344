#!/usr/bin/env python3
"""test_eval.py: c3 eval end to end. Losses against the PyTorch twin on a random model; means against rapidfuzz; Fox's files
as published; the demo's model on the kinds of text of the paper's Figure 4; bad input."""

import base64
import json
import math
import os
import random
import shutil
import subprocess
import sys

from harness import C3, ROOT, Folder, case, done, environment, run

sys.path.insert(0, os.path.join(ROOT, "dev"))

import torch
from rapidfuzz.distance import Levenshtein
from reference import C3Twin, checkpoint_names, save_checkpoint
from qwen_words import Words
from transformers import Qwen2Config

DEMO = os.path.join(ROOT, "runs/demo")
K, N = 256, 5  # every byte is a token: a text's ids are its bytes
SPECIALS = dict(zip(("endoftext", "im_start", "im_end", "img", "img_end", "img_pad"), range(K, K + 6)))
WORDS = Words([K + 3], [K + 4], K + 2, K + 3)  # template "bare"


def read(folder, name="eval.json"):
    with open(os.path.join(folder, name), encoding="utf-8") as f:
        if name.endswith(".jsonl"):
            return [json.loads(line) for line in f]
        return json.load(f)


def write_jsonl(path, pages):
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(json.dumps(p) + "\n" for p in pages)


def evaluate_and_print(model, pages, out, *options):
    """(eval.json, the table on stdout)"""
    printed = run(C3, ["eval", "-m", model, pages, "-o", out, "-threads", 1, *options]).stdout
    return read(out), printed


def evaluate(model, pages, out, *options):
    return evaluate_and_print(model, pages, out, *options)[0]


# ---- losses ---------------------------------------------------------------------------------------------------------


def random_twin(folder):
    torch.manual_seed(3)
    configs = [Qwen2Config(vocab_size=K + 6, hidden_size=D, num_hidden_layers=2, num_attention_heads=heads,
                           num_key_value_heads=1, intermediate_size=96, tie_word_embeddings=tied,
                           max_position_embeddings=400, rms_norm_eps=1e-6,
                           rope_parameters={"rope_type": "default", "rope_theta": 1e6})
               for D, heads, tied in ((64, 2, True), (96, 3, False))]  # fmt: skip
    twin = C3Twin(*configs, N, WORDS)
    with torch.no_grad():
        for name, p in checkpoint_names(twin).items():
            p.copy_((1 if "norm" in name else 0) + 0.25 * torch.randn_like(p))
    save_checkpoint(twin, folder, SPECIALS, "bare")
    with open(os.path.join(folder, "qwen.tiktoken"), "wb") as f:
        for b in range(256):
            f.write(base64.b64encode(bytes([b])) + b" %d\n" % b)
    return twin


def alone_losses(twin, answer):
    """Row losses of the decoder's sequence without its latents."""
    ids = torch.cat([torch.tensor(WORDS.before + WORDS.after), answer])[None]
    logits = twin.decoder(input_ids=ids, use_cache=False).logits[0, -len(answer) - 1 :]
    return twin.row_losses(logits[None], answer[None])


@torch.no_grad()
def test_losses(tmp):
    model = os.path.join(tmp, "twin")
    twin = random_twin(model)
    texts = ["The sea was calm.", "x", "天地玄黄，宇宙洪荒。", "one two three\nfour five six " * 5, "é😀"]
    pages = os.path.join(tmp, "twin.jsonl")
    write_jsonl(pages, [{"id": f"p{i}", "text": t} for i, t in enumerate(texts)])
    found = evaluate(model, pages, os.path.join(tmp, "o"), "-dtype", "fp32", "-max_new", 20)
    rows = read(os.path.join(tmp, "o"), "pages.jsonl")
    answers = [torch.tensor(list(t.encode())) for t in texts]
    latents = [twin.encode(a[None]) for a in answers]
    mean = sum(latents) / len(latents)
    moved = latents[1:] + latents[:1]
    losses = {
        "loss": [twin.row_losses(twin.decode(x, a[None]), a[None]) for x, a in zip(latents, answers)],
        "decoder_alone": [alone_losses(twin, a) for a in answers],
        "control_swapped_latents": [twin.row_losses(twin.decode(x, a[None]), a[None]) for x, a in zip(moved, answers)],
        "control_no_latents": [twin.row_losses(twin.decode(mean, a[None]), a[None]) for a in answers],
        "control_zero_latents": [twin.row_losses(twin.decode(0 * mean, a[None]), a[None]) for a in answers],
    }
    for name, want in losses.items():
        parts = [(r if name == "loss" else r[name])["loss"] for r in rows]
        wrong = [(w.mean().item(), part) for w, part in zip(want, parts) if abs(w.mean().item() - part) > 1e-4]
        case(f"{name} of each page is PyTorch's", not wrong, wrong)
        part = found if name == "loss" else found[name]
        total = torch.cat(want).double().mean().item()
        case(
            f"{name} over all rows, and its perplexity",
            abs(part["loss"] / total - 1) < 1e-5 and abs(part["perplexity"] / math.exp(total) - 1) < 1e-4,
            f"PyTorch {total}, found {part['loss']}",
        )
    case("the conditions differ", len({round(torch.cat(v).mean().item(), 2) for v in losses.values()}) == len(losses))
    case("a guess with equal chances", found["decoder_alone"]["uniform_perplexity"] == K + 6)
    # with the paper's instruction, which tokenizes to bytes here
    config = os.path.join(model, "config.json")
    with open(config) as f:
        text = f.read()
    with open(config, "w") as f:
        f.write(text.replace('"bare"', '"c3"'))
    before = [K + 1, *b"system\nYou should follow the instructions carefully and explain your answers in detail.",
              K + 2, K + 1, *b"user\n", K + 3]  # fmt: skip
    twin.words = Words(before, [K + 4, *b"\nRepeat the text: ", K + 2, K + 1, *b"assistant\n"], K + 2, K + 3)
    ids = torch.tensor([twin.words.before + twin.words.after + list(texts[0].encode())])
    logits = twin.decoder(input_ids=ids, use_cache=False).logits[:, -len(answers[0]) - 1 :]
    want = twin.row_losses(logits, answers[0][None]).mean().item()
    evaluate(model, pages, os.path.join(tmp, "c3"), "-dtype", "fp32", "-max_new", 2, "-no_controls", "-limit", 1)
    alone = read(os.path.join(tmp, "c3"), "pages.jsonl")[0]["decoder_alone"]["loss"]
    case("the decoder alone keeps the paper's instruction", abs(want - alone) < 1e-4, f"PyTorch {want}, found {alone}")
    return model


# ---- metrics, tables ------------------------------------------------------------------------------------------------


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def demo_pages(tmp, n=24):
    """n of the demo's held-out pages in each language, as the demo's model has never seen them."""
    made = {}
    for lang in ("en", "zh"):
        with open(os.path.join(ROOT, f"data/demo/val_{lang}.jsonl"), encoding="utf-8") as f:
            made[lang] = [json.loads(line) for line, _ in zip(f, range(n))]
        write_jsonl(os.path.join(tmp, f"{lang}.jsonl"), made[lang])
    return made


def test_metrics(tmp):
    """On shuffled pages, most of which do not come back whole."""
    for lang in ("en", "zh"):
        out = os.path.join(tmp, "shuffled_" + lang)
        found, table = evaluate_and_print(
            DEMO, os.path.join(tmp, f"{lang}.jsonl"), out, "-perturb", "shuffle", "-no_controls"
        )
        pages = read(out, "pages.jsonl")
        pairs = [(p["text"], p["reconstruction"]) for p in pages]
        want = {
            "char_precision": mean(Levenshtein.normalized_similarity(a, b) for a, b in pairs),
            "exact_match": mean(float(a == b) for a, b in pairs),
        }
        wrong = {k: (v, found[k]) for k, v in want.items() if abs(v - found[k]) > 1e-9}
        case(f"{lang}: means over the pages are rapidfuzz's", not wrong, wrong)
        case(f"{lang}: errors there were", 0.2 < found["char_precision"] < 1, found["char_precision"])
        damaged = [i for i, p in enumerate(pages) if not p["exact"]]
        worst = sorted(damaged, key=lambda i: pages[i]["char_precision"])
        case(
            f"{lang}: worst pages",
            [w["page"] for w in found["worst"]] == worst[:10]
            and [w["id"] for w in found["worst"]] == [pages[i]["id"] for i in worst[:10]],
            (found["worst"], worst),
        )
        case(
            f"{lang}: the table says what was done to the texts, and defines what it prints",
            "shuffled (seed 1)" in table and "1 - edit distance / longer length" in table and "%" in table,
            table,
        )
        missing = set(found["definitions"]) - set(found)
        case(f"{lang}: what is defined is there", not missing and len(found["definitions"]) == 14, missing)


def test_fidelity(tmp):
    """What the decoder says of itself, and the errors of each kind of text."""
    out = os.path.join(tmp, "fidelity")
    found, table = evaluate_and_print(DEMO, os.path.join(tmp, "en.jsonl"), out, "-dtype", "fp32", "-no_controls")
    pages = read(out, "pages.jsonl")
    # the text is the original's and so are its tokens: what was written is what is forced
    same = [p for p in pages if p["exact"] and p["same_tokens"] == p["tokens"] == p["output_tokens"] and p["ended"]]
    wrong = [(p["id"], p["mean_log_prob"], p["loss"]) for p in same if abs(p["mean_log_prob"] + p["loss"]) > 1e-5]
    case(
        f"mean ln p is teacher forcing's on {len(same)} pages that came back whole", len(same) > 15 and not wrong, wrong
    )
    case("the least ln p is not above the mean", all(p["least_log_prob"] <= p["mean_log_prob"] <= 0 for p in pages))
    pages = read(os.path.join(tmp, "shuffled_en"), "pages.jsonl") + pages
    wrong = []
    for p in pages:
        kinds = {k: v for k, v in p["by_kind"].items() if k not in ("names", "code")}
        totals = [sum(column) for column in zip(*kinds.values())]
        if totals[0] != len(p["text"]) or totals[1] + totals[2] != p["edit_distance"]:
            wrong.append((p["id"], totals, len(p["text"]), p["edit_distance"]))
    case(f"characters and errors of {len(pages)} pages divide into kinds", not wrong, wrong)
    shuffled = read(os.path.join(tmp, "shuffled_en"))
    for o in shuffled["by_kind"]:
        columns = [p["by_kind"].get(o["kind"], [0] * 3) for p in read(os.path.join(tmp, "shuffled_en"), "pages.jsonl")]
        sums = [sum(c) for c in zip(*columns)]
        case(
            f"shuffled: {o['kind']} over all pages",
            sums == [o["characters"], o["lost"], o["added"]] and o["low"] <= (o["rate"] or 0) <= o["high"],
            (sums, o),
        )
    case("the table has both", all(s in table for s in ("Latin letters", "95 % interval", "mean ln p")), table)
    confidence = found["confidence"]
    case(
        "every page is in a bin, exact or not",
        sum(b["pages"] for b in confidence["bins"]) == found["pages"] == confidence["exact"] + confidence["wrong"]
        and confidence["few"],
        confidence,
    )
    # one bad bin and good ones: pages in order and shuffled, in one file
    mixed = os.path.join(tmp, "mixed.jsonl")
    write_jsonl(mixed, [{"text": p["text"]} for p in pages])
    both = evaluate(DEMO, mixed, os.path.join(tmp, "mixed"), "-no_controls")["confidence"]
    case(
        "the decoder knows which pages it cannot read",
        both["auroc"] > 0.9
        and both["least_auroc"] > 0.9
        and both["rank_correlation"] > 0.7
        and both["bins"][0]["exact"] < both["bins"][-1]["exact"],
        both,
    )
    r = run(C3, ["reconstruct", "-m", DEMO, "-f", mixed, "-limit", 1, "-json", "-dtype", "fp32"])
    line = json.loads(r.stdout)
    case("c3 reconstruct -json has them as well", line["least_log_prob"] < line["mean_log_prob"] < -0.01, line)


def test_figure4(tmp, pages):
    """The paper's kinds of text: what a language model cannot guess comes back worse, or through the latents."""
    result = {}
    for kind in ("none", "random", "shuffle"):
        out = os.path.join(tmp, "figure4_" + kind)
        result[kind] = evaluate(DEMO, os.path.join(tmp, "en.jsonl"), out, "-perturb", kind, "-no_controls")
        texts = [p["text"] for p in read(out, "pages.jsonl")]
        tokens = [p["tokens"] for p in read(out, "pages.jsonl")]
        own = [p["text"] for p in pages["en"]]
        if kind == "none":
            whole = tokens
            case("none: the texts as they are", texts == own)
        elif kind == "random":
            case(
                "random: letters, digits and blanks, as many tokens",
                all(0 <= w - t <= 1 for t, w in zip(tokens, whole))
                and all(c.isascii() and (c.isalnum() or c == " ") for t in texts for c in t),
                texts[:2],
            )
        else:
            case(
                "shuffle: the page's own characters, not more tokens",
                all(t <= w for t, w in zip(tokens, whole))
                and all(not set(a) - set(b) and a != b for a, b in zip(texts, own)),
                texts[:2],
            )
    case("the demo's English comes back, characters without a language do not", result["none"]["char_precision"] > 0.97
         and all(result[k]["char_precision"] < 0.9 for k in ("random", "shuffle")),
         {k: v["char_precision"] for k, v in result.items()})  # fmt: skip
    again, other = (evaluate(DEMO, os.path.join(tmp, "en.jsonl"), os.path.join(tmp, f"seed{seed}"), "-perturb",
                             "random", "-no_controls", "-seed", seed) for seed in (1, 2))  # fmt: skip
    case("the same seed, the same texts", again == result["random"] and
         other["char_precision"] != again["char_precision"])  # fmt: skip


def test_fox(tmp):
    """en_page_ocr.json and cn_page_ocr.json as published: a list of image and two turns, with or without roles."""
    texts = {
        "en": ['A page of the benchmark.\nIt has two lines, "quoted".', "Another page."],
        "cn": ["第一页的文字，\n有两行。", "第二页。"],
    }
    for lang, roles in (("en", False), ("cn", True)):
        path = os.path.join(tmp, f"{lang}_page_ocr.json")
        asked, told = ({"from": "human"}, {"from": "gpt"}) if roles else ({}, {})
        pages = [{"image": f"{lang}_{i + 1}.png",
                  "conversations": [asked | {"value": "<image>\nOCR this image:"}, told | {"value": t}]}
                 for i, t in enumerate(texts[lang])]  # fmt: skip
        with open(path, "w", encoding="utf-8") as f:
            json.dump(pages, f, ensure_ascii=roles, indent=1)
        out = os.path.join(tmp, "fox_" + lang)
        evaluate(DEMO, path, out, "-no_controls")
        pages = read(out, "pages.jsonl")
        case(
            f"Fox's {lang}_page_ocr.json is read as it is",
            [p["text"] for p in pages] == texts[lang]
            and [p["id"] for p in pages] == [f"{lang}_1.png", f"{lang}_2.png"],
            pages,
        )


def test_paper_tables(tmp, model):
    """Pages of the paper's lengths: its buckets, its figures beside ours. The random model may take more rows here."""
    long = os.path.join(tmp, "long")
    shutil.copytree(model, long)
    for part in ("", "llm1"):
        path = os.path.join(long, part, "config.json")
        with open(path) as f:
            config = json.load(f)
        with open(path, "w") as f:
            json.dump(config | {"max_position_embeddings": 2000}, f)
    rng = random.Random(5)
    lengths = [600, 699, 700, 850, 1299, 1300, 40]
    pages = [{"id": f"p{n}", "text": "".join(rng.choice("abcdefgh ") for _ in range(n))} for n in lengths]
    write_jsonl(os.path.join(tmp, "long.jsonl"), pages)
    out = os.path.join(tmp, "long_out")
    found, printed = evaluate_and_print(
        long, os.path.join(tmp, "long.jsonl"), out, "-max_new", 3, "-no_controls", "-dtype", "fp32"
    )
    case("buckets of 100 from 600 to 1300", [(b["from"], b["to"], b["pages"]) for b in found["buckets"]] ==
         [(600, 700, 2), (700, 800, 1), (800, 900, 1), (900, 1000, 0), (1000, 1100, 0), (1100, 1200, 0),
          (1200, 1300, 1)], found["buckets"])  # fmt: skip
    table = [line for line in printed.splitlines() if line.startswith("   600-700 ")]
    case(
        "the paper's figures stand beside them",
        len(table) == 1 and table[0].split("|")[1].split() == ["99.7%", "99.7%", "99.9%", "96.5%", "98.5%"],
        table,
    )
    case("pages outside are said", "2 pages lie outside these buckets" in printed)
    names = {p["name"]: p for p in found["published"]}
    case(
        "published figures in eval.json",
        len(names) == 5 and [b["precision"] for b in names["C3, paper, 32 latents"]["buckets"]][-1] == 0.933,
        list(names),
    )
    case("compression is tokens a latent", abs(found["buckets"][0]["compression"] - 649.5 / N) < 1e-9)


# ---- bad input ------------------------------------------------------------------------------------------------------


def refused(name, args, says, out, files=(), stdin=b""):
    """One line on stderr, exit code 1, nothing on stdout, no file in the results' folder but those it had."""
    command = [C3, "eval", "-threads", "1", *args, "-o", out]
    r = subprocess.run(command, cwd=ROOT, env=environment(), input=stdin, capture_output=True)
    err = r.stderr.decode()
    there = sorted(os.listdir(out)) if os.path.isdir(out) else []
    case(
        name,
        r.returncode == 1
        and err.startswith("c3: ")
        and err.count("\n") == 1
        and not r.stdout
        and all(s in err for s in says)
        and there == sorted(files),
        (r.returncode, err, r.stdout, there),
    )


def test_bad_input(tmp, model):
    out = os.path.join(tmp, "bad")
    good = json.dumps({"text": "a page"}).encode() + b"\n"
    refused(
        "a page the model cannot take is named",
        ["-m", model, "-"],
        ["stdin:2: named: 500 tokens", "400", "-skip"],
        out,
        stdin=good + b'{"id": "named", "text": "%s"}\n' % (b"x" * 500),
    )
    refused(
        "or -maxlen forbids",
        ["-m", model, "-maxlen", "16", "-"],
        ["20 tokens", "16", "-maxlen"],
        out,
        stdin=b'{"text": "%s"}\n' % (b"x" * 20),
    )
    refused(
        "-skip leaves them out, but one must stay",
        ["-m", model, "-skip", "-"],
        ["no page", "1 without text", "1 longer"],
        out,
        stdin=b'{"text": ""}\n{"text": "%s"}\n' % (b"x" * 500),
    )
    refused("invalid UTF-8", ["-m", model, "-"], ["line 2", "invalid UTF-8"], out, stdin=good + b'{"text": "a\xff"}\n')
    with open(os.path.join(tmp, "cut.json"), "w") as f:
        f.write('[{"image": "a",\n "conversations": [{"value": "OCR:"}')
    refused("a Fox file cut short", ["-m", model, os.path.join(tmp, "cut.json")], ["cut.json: line 2", "truncated"],
            out)  # fmt: skip
    refused("no pages", ["-m", model, "-"], ["no page"], out)
    taken = os.path.join(tmp, "file")
    with open(taken, "w") as f:
        f.write("kept")
    refused("a file in place of the folder", ["-m", model, "-"], [taken], taken, stdin=good)
    os.makedirs(os.path.join(out, "eval.json"))
    refused("a folder that takes no files", ["-m", model, "-"], [out], out, ["eval.json"], stdin=good)
    os.rmdir(os.path.join(out, "eval.json"))
    with open("/dev/full", "w") as full:
        r = subprocess.run(
            [C3, "eval", "-threads", "1", "-m", model, "-", "-o", out, "-max_new", "2"],
            input=good,
            cwd=ROOT,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
        )
    case("a full standard output", r.returncode == 1 and r.stderr.count(b"\n") == 1, (r.returncode, r.stderr))
    r = run(C3, ["eval", "-m", model, "x", "-o", out, "-perturb", "mix"], check=False)
    case("another kind of perturbation", r.returncode == 2 and "-perturb" in r.stderr, r.stderr)


def main():
    with Folder() as tmp:
        model = test_losses(tmp)
        pages = demo_pages(tmp)
        test_metrics(tmp)
        test_fidelity(tmp)
        test_figure4(tmp, pages)
        test_fox(tmp)
        test_paper_tables(tmp, model)
        test_bad_input(tmp, model)
    done()


main()
