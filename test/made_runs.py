"""Runs and evaluations made by hand, for the tests of the desk: what train_c3 and c3 eval leave behind, without either."""
import json
import os
import struct
import xml.etree.ElementTree as ElementTree

from rapidfuzz.distance import Levenshtein

LATENTS = 4
# Page i of an evaluation: id, text, what came back.
PAGES = [
    ("whole", "The first page came back whole.", "The first page came back whole."),
    ("one", "A second page with one error in it.", "A second page with one errar in it."),
    ("lines", "Two lines,\nand the end is lost", "Two lines and"),
    ("chinese", "天地玄黄，宇宙洪荒。", "天地玄黄，宇宙荒洪。"),
    ("mixed", "Latin words, then 中文 and more", "Latin words, then 中 and some more"),
    ("bad", "nothing of this came back", "xyz"),
    ("nothing", "a page of which nothing was written", ""),
    ("space", "a \t page\u00a0with   white space\n", "a page with white space"),
]
OTHER = {"token_accuracy": 0.25, "loss": 3.0, "perplexity": 20.1, "what": "a control", "char_precision": 0.125}
KINDS = [{"kind": "digits", "pages": 2, "characters": 40, "lost": 10, "added": 3, "rate": 0.25, "low": 0.125, "high": 0.5,
          "few": True},
         {"kind": "latin", "pages": 12, "characters": 12000, "lost": 240, "added": 7, "rate": 0.02, "low": 0.015, "high": 0.03,
          "few": False},
         {"kind": "han", "pages": 0, "characters": 0, "lost": 0, "added": 5, "rate": None, "low": 0, "high": 1, "few": True}]
BINS = [{"from": -1.5, "to": -0.0625, "pages": 4, "exact": 0, "low": 0, "high": 0.49, "expected": 0.0625, "char_precision": 0.5},
        {"from": -0.03, "to": -0.0001, "pages": 4, "exact": 1, "low": 0.05, "high": 0.7, "expected": 0.875,
         "char_precision": 0.9}]
BINS += [dict(BINS[1], **{"from": -0.00009 / k, "to": -0.00008 / k}) for k in (1, 2, 4, 8)]
CONFIDENCE = {"exact": 1, "wrong": 7, "auroc": 0.8125, "least_auroc": 0.75, "rank_correlation": None, "few": True, "bins": BINS}


def write_json(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f)


def page_line(name, text, written):
    distance = Levenshtein.distance(text, written)
    rows = len(text) // 4 + 2
    part = {"correct": 1, "loss": 3.0}
    return {"id": name, "text": text, "reconstruction": written, "tokens": len(text) // 4 + 1, "latents": LATENTS,
            "char_precision": 1 - distance / max(len(text), len(written), 1), "edit_distance": distance,
            "exact": text == written, "output_tokens": len(written) // 4 + 1, "ended": bool(written), "same_tokens": 2,
            "mean_log_prob": -0.125, "least_log_prob": -2.5, "by_kind": {"latin": [len(text), 2, 1]},
            "forced_rows": rows, "forced_correct": rows // 2, "loss": 1.5, "decoder_alone": part,
            "control_swapped_latents": dict(part, char_precision=0.125)}


def make_evaluation(folder, pages=PAGES, **more):
    """eval.json and pages.jsonl; more replaces keys of eval.json."""
    lines = [page_line(*p) for p in pages]
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "pages.jsonl"), "w", encoding="utf-8") as f:
        f.writelines(json.dumps(line) + "\n" for line in lines)
    mean = sum(p["char_precision"] for p in lines) / max(len(lines), 1)
    numbers = {"char_precision": mean, "char_precision_micro": mean, "exact_match": 1 / 8, "token_match": 0.5,
               "token_accuracy": 0.75, "loss": 1.5, "perplexity": 4.48}
    edges = [(0, 6), (6, 9), (9, 12)]
    buckets = []
    for low, high in edges:
        inside = [p for p in lines if low <= p["tokens"] < high]
        bucket = {"from": low, "to": high, "pages": len(inside), "compression": None, "char_precision": None}
        if inside:
            precision = sum(p["char_precision"] for p in inside) / len(inside)
            bucket |= numbers | {"compression": 2.5, "char_precision": precision, "by_position": [0.75] * 20}
        buckets.append(bucket)
    published = [{"name": "C3, paper, 32 latents", "latents": 32, "buckets": [
        {"from": 6, "to": 9, "precision": 0.987, "compression": 21.0}]}]
    write_json(os.path.join(folder, "eval.json"), {
        "model": "runs/made/step_00000040", "source": "made.jsonl", "dtype": "bf16", "perturb": "none", "seed": 1,
        "latents": LATENTS, "pages": len(lines), **numbers, "tokens_per_latent": 2.5, "late_errors": 0.25,
        "by_position": [0.7 + 0.01 * i for i in range(20)], "buckets": buckets, "published": published,
        "decoder_alone": OTHER, "control_swapped_latents": OTHER, "control_no_latents": dict(OTHER, text="the the"),
        "control_zero_latents": OTHER, "by_kind": KINDS, "confidence": CONFIDENCE, **more})


def add_sets(folder, sets):
    """Makes a log that of a run whose pages have names, which began with a validation and looked at plain text."""
    path = os.path.join(folder, "log.jsonl")
    with open(path, encoding="utf-8") as f:
        lines = [json.loads(line) for line in f]
    lines.insert(0, {"step": 0, "time": "2026-03-01T12:00:00.000Z", "val_loss": 9.5, "val_token_accuracy": 0.0})
    for o in lines:
        for i, name in enumerate(sets):
            if "val_loss" in o:
                o |= {f"val_loss_{name}": o["val_loss"] + i, f"val_token_accuracy_{name}": 0.5}
            else:
                o |= {f"data_pages_{name}": 8, f"data_tokens_{name}": 60000 - 20000 * i}
        if "val_loss" in o:
            o |= {"val_lm_perplexity": 7 + o["step"] / 4, "val_lm_ratio": 1 + o["step"] / 28, "val_lm_alarm": int(o["step"] > 14)}
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(json.dumps(o) + "\n" for o in lines)


def make_log(folder, steps=40, scale=1.0, validate=10):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "log.jsonl"), "w", encoding="utf-8") as f:
        for i in range(1, steps + 1):
            time = f"2026-03-01T12:{i // 60:02}:{i % 60:02}.000Z"
            f.write(json.dumps({"step": i, "time": time, "loss": scale * 8 / i, "lr": 1e-3 * i / 7, "grad_norm": 2.0,
                                "pages": 16, "tokens": 100000, "ms": 500.0, "tokens_per_second": 200000.0, "mfu": None,
                                "memory_mb": 1234.5}) + "\n")
            if i % validate == 0:
                f.write(json.dumps({"step": i, "time": time, "val_loss": scale * 9 / i, "val_token_accuracy": 0.5}) + "\n")


def make_checkpoint(folder, step, **options):
    """The files of a checkpoint that the report reads; options replaces those of settings.json."""
    at = os.path.join(folder, f"step_{step:08}")
    config = {"latent_token_len": LATENTS, "vocab_size": 2054, "c3_template": "bare", "num_hidden_layers": 2,
              "hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 384}
    write_json(os.path.join(at, "config.json"), config)
    write_json(os.path.join(at, "llm1", "config.json"), config)
    write_json(os.path.join(at, "trainer", "settings.json"),
               {"steps": 40, "lr": 1e-3, "schedule": "cosine", "warmup": 5, "len_warmup": 0.5, "m": None, **options})
    write_json(os.path.join(at, "trainer", "state.json"), {"step": step, "ranks": 2})
    write_json(os.path.join(at, "COMPLETE"), {"files": []})


def make_run(folder, scale=1.0, evaluations=("eval_en", "eval_zh"), **options):
    make_log(folder, scale=scale)
    make_checkpoint(folder, 40, **options)
    write_json(os.path.join(folder, "run.json"), {"host": "node7", "command": "./train_c3 -preset demo",
                                                  "build": "train_c3 f8aece7, gcc 12.2", "started": "2026-03-01T12:00:00Z"})
    for name in evaluations:
        make_evaluation(os.path.join(folder, name))
    return folder


def picture_faults(folder, names, shapes_least=6):
    """What is not there as a PNG of a picture's size, and as SVG that says the same."""
    found = []
    for name in names:
        with open(f"{folder}/{name}.png", "rb") as f:
            head = f.read(24)
        wide, high = struct.unpack(">II", head[16:])
        root = ElementTree.parse(f"{folder}/{name}.svg").getroot()
        shapes = [e for e in root.iter() if e.tag.endswith("path") and e.get("d")]
        if head[:8] != b"\x89PNG\r\n\x1a\n" or wide < 1200 or high < 400 or not root.tag.endswith("svg") or len(shapes) < shapes_least:
            found.append((name, wide, high, root.tag, len(shapes)))
    return found
