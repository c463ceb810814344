#!/usr/bin/env python3
"""Decoding against transformers' generate, token by token, and the options of `c3 reconstruct` that draw tokens.

Models are random ones of the PyTorch twin, saved in the checkpoint layout; prompts are the paper's template.
"""
import json
import os
import pty
import random
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "dev"))

from harness import C3, ROOT, TOKENIZER, Folder, case, done, environment, run

import torch
from qwen_words import make_words
from reference import C3Twin, checkpoint_names, save_checkpoint
from transformers import Qwen2Config

DECODE = os.path.join(ROOT, "build/test/decode_ids")
K, PAGES, MAX_NEW = 1024, 50, 48
SPECIALS = dict(zip(("endoftext", "im_start", "im_end", "img", "img_end", "img_pad"), range(K, K + 6)))


def make_model(folder, enc, dec, N, tied, template):
    """A twin whose texts vary, and its folder."""
    torch.manual_seed(len(folder) + N)
    configs = [Qwen2Config(vocab_size=K + 6, hidden_size=D, num_hidden_layers=L, num_attention_heads=NH,
                           num_key_value_heads=KV, intermediate_size=F, tie_word_embeddings=tied,
                           max_position_embeddings=512, rms_norm_eps=1e-6,
                           rope_parameters={"rope_type": "default", "rope_theta": 1e6})
               for D, L, NH, KV, F in (enc, dec)]  # fmt: skip
    model = C3Twin(*configs, N, make_words(template, TOKENIZER, K + 3, K + 2)).eval()
    with torch.no_grad():
        for name, p in checkpoint_names(model).items():
            if "norm" in name:
                p.copy_(1 + 0.2 * torch.randn_like(p))
            else:
                p.copy_((0.1 if name.endswith("bias") else 0.12) * torch.randn_like(p))
    save_checkpoint(model, folder, SPECIALS, template)
    shutil.copy(TOKENIZER, folder)
    return model


def ours(folder, pages, together, dtype="fp32", ngram=0, threads=1):
    text = "".join(" ".join(map(str, page)) + "\n" for page in pages)
    r = subprocess.run([DECODE, folder, dtype, str(threads), str(together), str(MAX_NEW), str(ngram)], input=text,
                       text=True, capture_output=True, env=environment(), timeout=300)
    if r.returncode:
        return r.stderr
    lines = [line.split() for line in r.stdout.splitlines()]
    return [(line[0] == "end", [int(t) for t in line[1:]]) for line in lines[:-1]]


def theirs(model, page, ngram=0):
    """transformers' generate from the twin's embeddings: (ended, ids without the end mark)."""
    words, embed = model.words, model.decoder.get_input_embeddings()
    with torch.no_grad():
        latents = model.mm_projector(model.encode(torch.tensor([page])))
        x = torch.cat([embed(torch.tensor([words.before])), latents, embed(torch.tensor([words.after]))], 1)
        # the prompt's ids, so that the n-gram rule sees it as it stands in ours: latents are <imgpad>
        ids = torch.tensor([[*words.before, *[K + 5] * model.Q.shape[0], *words.after]])
        out = model.decoder.generate(inputs_embeds=x, input_ids=ids, attention_mask=torch.ones_like(ids),
                                     do_sample=False, max_new_tokens=MAX_NEW, eos_token_id=words.end,
                                     pad_token_id=words.end, no_repeat_ngram_size=ngram or None)  # fmt: skip
    new = out[0, ids.shape[1] :].tolist()
    return (new[-1] == words.end, [t for t in new if t != words.end])


def test_greedy(name, tmp, *shape, template, ngram=0):
    """50 pages, in fp32; the prompt's ids are given to transformers for its n-gram rule alone."""
    folder = os.path.join(tmp, name.split(":")[0].replace(" ", "_"))
    model = make_model(folder, *shape, template)
    rng = random.Random(name)
    pages = [[rng.randrange(K) for _ in range(rng.randint(1, 90))] for _ in range(PAGES)]
    expected = [theirs(model, page, ngram) for page in pages]
    found = {b: ours(folder, pages, b, ngram=ngram) for b in (1, 8, PAGES)}
    tokens = {t for _, ids in expected for t in ids}
    case(f"{name}: the texts vary", len(tokens) > 50 and len({tuple(ids) for _, ids in expected}) > 40, len(tokens))
    for together, texts in found.items():
        wrong = [i for i in range(PAGES) if texts[i] != expected[i]] if isinstance(texts, list) else texts
        case(f"{name}: {PAGES} pages, {together} together, as transformers' generate", not wrong,
             (wrong, [(texts[i], expected[i]) for i in wrong[:1]] if isinstance(texts, list) else ""))
    return folder, pages


def test_bf16(folder, pages):
    alone = ours(folder, pages, 1, "bf16")
    case("bf16: the same text with 8 and 50 together, and with two threads",
         isinstance(alone, list) and alone == ours(folder, pages, 8, "bf16") == ours(folder, pages, 50, "bf16") ==
         ours(folder, pages, 8, "bf16", threads=2), alone)


def test_options(tmp, folder):
    path = os.path.join(tmp, "pages.jsonl")
    rng = random.Random(3)
    with open(path, "w") as f:
        for i in range(9):
            f.write(json.dumps({"id": str(i), "text": "".join(rng.choice("abcd ef") for _ in range(20 + i))}) + "\n")

    def texts(*more):
        out = run(C3, ["reconstruct", "-m", folder, "-f", path, "-json", "-max_new", 30, *more]).stdout
        return [json.loads(line)["reconstruction"] for line in out.splitlines()]

    greedy, drawn = texts(), texts("-temperature", 0.9, "-seed", 5)
    case("-temperature draws", len(drawn) == 9 and all(a != b for a, b in zip(drawn, greedy)), drawn)
    case("-seed: the same again, whatever -batch and -threads",
         drawn == texts("-temperature", 0.9, "-seed", 5, "-batch", 1) ==
         texts("-temperature", 0.9, "-seed", 5, "-batch", 4, "-threads", 2), drawn)  # fmt: skip
    other = texts("-temperature", 0.9, "-seed", 6)
    case("-seed: another one, another text", sum(a == b for a, b in zip(drawn, other)) < 2, other)
    case("-top_p so small that only the likeliest is left", texts("-temperature", 3, "-top_p", 1e-6) == greedy)
    one = os.path.join(tmp, "one.jsonl")
    with open(one, "w") as f:
        f.write(json.dumps({"text": "abc"}) + "\n")
    for stop in ("x", "1,", ",1", "1,,2", "-1", "1 2", ",".join(map(str, range(65))), "99999999999"):
        r = run(C3, ["reconstruct", "-m", folder, "-f", path, f"-stop={stop}"], check=False)
        case(f"-stop {stop[:12]}: refused", r.returncode == 2 and r.stderr.startswith("c3: reconstruct: -stop") and
             r.stderr.count("\n") == 1 and not r.stdout, (r.returncode, r.stderr))
    every = ",".join(str(i) for i in range(64))
    stopped, plain = texts("-stop", every, "-temperature", 0.9, "-seed", 5), drawn
    case("-stop ends pages before the token", any(len(a) < len(b) for a, b in zip(stopped, plain)) and
         all(b.startswith(a.rstrip("\ufffd")) for a, b in zip(stopped, plain)), (stopped, plain))
    test_terminal(folder, one, path)


def on_terminal(command):
    """What a terminal of its own shows of a command."""
    main, side = pty.openpty()
    p = subprocess.Popen([str(c) for c in command], stdout=side, stderr=side, stdin=subprocess.DEVNULL, cwd=ROOT,
                         env=environment())
    os.close(side)
    shown = b""
    try:
        while piece := os.read(main, 4096):
            shown += piece
    except OSError:
        pass  # the terminal is gone with the program
    os.close(main)
    return p.wait(), shown.decode(errors="surrogateescape").replace("\r\n", "\n")


def test_terminal(folder, one, many):
    written = json.loads(run(C3, ["reconstruct", "-m", folder, "-f", one, "-json"]).stdout)["reconstruction"]
    code, shown = on_terminal([C3, "reconstruct", "-m", folder, "-f", one])
    before = shown.split("page 1 of 1", 1)[0]
    plain = "".join(c for c in written if c.isprintable() and c not in "\\[]")
    streamed = "".join(c for c in before if c.isprintable() and c not in "\\[]")
    case("a page on a terminal is written as it comes, before its figures",
         code == 0 and shown.count("page 1 of 1") == 1 and len(plain) > 5 and plain[:20] in streamed, (shown, written))
    code, shown = on_terminal([C3, "reconstruct", "-m", folder, "-f", many])
    case("several pages on a terminal: progress with tokens per second", code == 0 and "tokens/s" in shown and
         "of 9 pages" in shown and "decoded " in shown, shown)
    r = run(C3, ["reconstruct", "-m", folder, "-f", one])
    case("no progress and no stream into files", r.stdout.startswith("page 1 of 1") and not r.stderr, r)


def main():
    torch.set_num_threads(1)
    with Folder() as tmp:
        folder, pages = test_greedy("tied heads 32", tmp, (64, 2, 2, 1, 96), (96, 3, 3, 1, 160), 6, True, template="c3")
        test_greedy("untied heads 64", tmp, (128, 2, 2, 2, 160), (128, 2, 2, 1, 192), 4, False, template="bare")
        test_greedy("untied heads 128: no_repeat_ngram 2", tmp, (128, 1, 1, 1, 96), (256, 2, 2, 2, 160), 3, False,
                    template="c3", ngram=2)
        test_bf16(folder, pages)
        test_options(tmp, folder)
    done()


if __name__ == "__main__":
    main()
