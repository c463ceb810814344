#!/usr/bin/env python3
"""reference.py: the PyTorch twin of the C model, and the numbers the C model must reproduce.

The twin is Context Cascade Compression (arXiv 2511.15244) put together from transformers' own Qwen2: Qwen2Model reads
the page and N trainable queries, a linear layer carries the N latents over, Qwen2ForCausalLM writes the page again.
Nothing of the model is reimplemented here but the cascade itself.

  reference.py make --out DIR --case NAME    a random model in the checkpoint layout (DIR/model), pages
                                             (DIR/inputs.safetensors, DIR/pages.json), and what a step on them
                                             gives (DIR/expected.safetensors)
  reference.py check --model DIR --pages FILE
                                             loads a checkpoint our trainer saved, prints loss and logits as JSON
  reference.py list                          names of the cases

Pages are computed one at a time, without padding, in fp32 with eager attention: slow and exact.
"""
import argparse
import copy
import json
import math
import os
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Model
from transformers.utils.logging import disable_progress_bar

from qwen_words import Words, make_words

disable_progress_bar()

# ---- the model ------------------------------------------------------------------------------------------------------


class Page(NamedTuple):
    context: torch.Tensor
    answer: torch.Tensor
    prompt: tuple = ()  # of its own, in place of the words that ask for the text again
    latents: int = 0  # of each window, the first of N; 0: all
    window: int = 0  # tokens of the context that the encoder reads at a time; 0: all


class C3Twin(torch.nn.Module):
    def __init__(self, enc, dec, latents, words, attention="eager"):
        super().__init__()
        enc._attn_implementation = dec._attn_implementation = attention
        self.encoder = Qwen2Model(enc)
        self.decoder = Qwen2ForCausalLM(dec)
        self.Q = torch.nn.Parameter(torch.randn(latents, enc.hidden_size) * 0.02)
        self.mm_projector = torch.nn.Linear(enc.hidden_size, dec.hidden_size)
        self.words = words

    def encode(self, context, latents=0):
        """context (B,T) -> latents (B,N,D_enc): the encoder's final norm at the queries, or the first `latents` of them."""
        B, N = context.shape[0], latents or self.Q.shape[0]
        img = torch.full((B, 1), self.words.img, dtype=context.dtype)
        x = torch.cat([self.encoder.embed_tokens(torch.cat([context, img], 1)), self.Q[:N].expand(B, -1, -1)], 1)
        return self.encoder(inputs_embeds=x, use_cache=False).last_hidden_state[:, -N:]

    def encode_page(self, page):
        """Latents (1,slots,D_enc) of all windows of a page, each read alone."""
        windows = page.context.split(page.window) if page.window else [page.context]
        return torch.cat([self.encode(w[None], page.latents) for w in windows], 1)

    def after(self, page):
        """The words between latents and answer."""
        words = [*self.words.ask, *page.prompt, *self.words.answer] if page.prompt else self.words.after
        return torch.tensor(words, dtype=torch.int32)

    def decode(self, latents, answer, after=None):
        """latents (B,N,D_enc), answer (B,T) -> logits (B,T+1,V) of the supervised rows: the last prompt token predicts
        the first text token, the last text token predicts <|im_end|>."""
        B = answer.shape[0]
        embed = self.decoder.get_input_embeddings()
        before = torch.tensor(self.words.before).expand(B, -1)
        after = (torch.tensor(self.words.after) if after is None else after).expand(B, -1)
        x = torch.cat([embed(before), self.mm_projector(latents), embed(torch.cat([after, answer], 1))], 1)
        hidden = self.decoder.model(inputs_embeds=x, use_cache=False).last_hidden_state
        return self.decoder.lm_head(hidden[:, -(answer.shape[1] + 1) :])

    def row_losses(self, logits, answer):
        """Cross entropy of every supervised row, (B*(T+1))."""
        end = torch.full((answer.shape[0], 1), self.words.end, dtype=answer.dtype)
        labels = torch.cat([answer, end], 1)
        return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten().long(), reduction="none")


# ---- checkpoints: the released code's layout ------------------------------------------------------------------------
# root: the decoder, model.Q.weight, model.mm_projector.{weight,bias}; llm1/: the encoder as a whole Qwen2ForCausalLM.


def checkpoint_names(model):
    """{name: parameter}: names as in the files, those of llm1/ with "encoder." in front."""
    names = {"model.Q.weight": model.Q}
    names |= {"model.mm_projector." + n: p for n, p in model.mm_projector.named_parameters()}
    names |= dict(model.decoder.named_parameters())  # leaves the head out when it is tied
    names |= {"encoder.model." + n: p for n, p in model.encoder.named_parameters()}
    return names


def qwen2_json(c):
    keys = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings")  # fmt: skip
    plain = {k: getattr(c, k) for k in keys}
    return plain | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_act": "silu",
                    "rope_theta": c.rope_parameters["rope_theta"], "torch_dtype": "float32",
                    "use_sliding_window": False, "attention_dropout": 0.0}  # fmt: skip


def save_checkpoint(model, folder, specials, template):
    names = {n: p.detach().contiguous() for n, p in checkpoint_names(model).items()}
    root = {n: t for n, t in names.items() if not n.startswith("encoder.")}
    llm1 = {n.removeprefix("encoder."): t for n, t in names.items() if n.startswith("encoder.")}
    if not model.encoder.config.tie_word_embeddings:  # a head that nobody uses
        llm1["lm_head.weight"] = torch.zeros_like(llm1["model.embed_tokens.weight"])
    os.makedirs(os.path.join(folder, "llm1"))
    save_file(root, os.path.join(folder, "model.safetensors"), {"format": "pt"})
    save_file(llm1, os.path.join(folder, "llm1", "model.safetensors"), {"format": "pt"})
    config = qwen2_json(model.decoder.config) | {
        "model_type": "C3", "architectures": ["C3QwenForCausalLM"], "latent_token_len": model.Q.shape[0],
        "contexts_compression_llm_hidden_size": model.encoder.config.hidden_size, "use_im_start_end": True,
        "im_start_token": specials["img"], "im_end_token": specials["img_end"], "im_patch_token": specials["img_pad"],
        "eos_token_id": specials["im_end"], "bos_token_id": specials["endoftext"], "c3_template": template,
    }  # fmt: skip
    encoder = qwen2_json(model.encoder.config) | {"eos_token_id": specials["im_end"]}
    for where, content in (("", config), ("llm1", encoder)):
        with open(os.path.join(folder, where, "config.json"), "w") as f:
            json.dump(content, f, indent=2)


def read_json(*path):
    with open(os.path.join(*path)) as f:
        return json.load(f)


def load_folder(folder):
    """All tensors of a folder, sharded or not."""
    index = os.path.join(folder, "model.safetensors.index.json")
    files = sorted(set(read_json(index)["weight_map"].values())) if os.path.exists(index) else ["model.safetensors"]
    tensors = {}
    for name in files:
        tensors |= load_file(os.path.join(folder, name))
    return tensors


CASCADE = {"model.Q.weight", "model.mm_projector.weight", "model.mm_projector.bias"}


def load_stack(folder, config=None, extra=frozenset()):
    """One stack as transformers' own loader sees it: no weight may be missing, none be left over but `extra`."""
    more = {"config": config} if config else {}
    model, report = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                                     output_loading_info=True, **more)  # fmt: skip
    missing, unexpected = set(report["missing_keys"]), set(report["unexpected_keys"])
    if missing or unexpected != extra or report["mismatched_keys"]:
        raise SystemExit(f"{folder}: missing {missing}, left over {unexpected}, other shape {report['mismatched_keys']}")
    return model


def load_checkpoint(folder, words):
    """A C3 folder, whoever wrote it, as a twin in fp32."""
    config = read_json(folder, "config.json")
    if config["model_type"] != "C3" or config["architectures"] != ["C3QwenForCausalLM"]:
        raise SystemExit(f"{folder}/config.json: not the released code's model type")
    plain = {k: v for k, v in config.items() if k not in ("model_type", "architectures", "auto_map")}
    decoder, encoder = load_stack(folder, Qwen2Config(**plain), CASCADE), load_stack(os.path.join(folder, "llm1"))
    tensors = {n: t.float() for n, t in load_folder(folder).items() if n in CASCADE}
    Q, W = tensors["model.Q.weight"], tensors["model.mm_projector.weight"]
    expected = (config["latent_token_len"], config["contexts_compression_llm_hidden_size"])
    if tuple(Q.shape) != expected or tuple(W.shape) != (decoder.config.hidden_size, encoder.config.hidden_size):
        raise SystemExit(f"{folder}: Q {tuple(Q.shape)}, projector {tuple(W.shape)}; config.json says {expected}")
    model = C3Twin(encoder.config, decoder.config, Q.shape[0], words)
    model.encoder, model.decoder = encoder.model, decoder
    with torch.no_grad():
        for name, parameter in checkpoint_names(model).items():
            if name in CASCADE:
                parameter.copy_(tensors[name])
    return model


# ---- the cases ------------------------------------------------------------------------------------------------------


@dataclass
class Case:
    """Shapes are (V, D, L, heads, key/value heads, F)."""

    enc: tuple
    dec: tuple
    N: int
    lengths: tuple  # text tokens of the pages of a step
    tied: bool = True  # the decoder's head
    own_answer: bool = False  # the answer is another text than the context
    window: int = 0
    mixed: bool = False  # some pages have a prompt of their own, some fewer latents
    optimizer: dict = field(default_factory=dict)


K = 256  # the cut vocabulary of all cases; specials K..K+5
SPECIALS = dict(zip(("endoftext", "im_start", "im_end", "img", "img_end", "img_pad"), range(K, K + 6)))
WORDS = Words([K + 1, 17, 4, K + 2, K + 1, 99, K + 3], [K + 4, 5, 200, K + 2, K + 1, 31], K + 2, K + 3,
              [K + 4, 5], [K + 2, K + 1, 31])  # fmt: skip
STEPS = 10
# lr and eps are large enough for rounding not to decide the sign of an update
OPTIMIZER = dict(lr=1e-4, lr_min=1e-5, beta1=0.9, beta2=0.999, eps=1e-6, weight_decay=0.0, clip=1.0, warmup=3,
                 steps=STEPS, lr_enc=1.0, lr_dec=1.0)  # fmt: skip
CASES = {
    "heads32_tied": Case((262, 128, 2, 4, 2, 160), (270, 192, 3, 6, 2, 224), 4, (1, 37, 64, 9)),
    "heads64_untied": Case((262, 128, 2, 2, 1, 192), (262, 320, 2, 5, 1, 256), 3, (50, 2, 21), tied=False),
    "heads128_untied": Case((266, 256, 1, 2, 2, 144), (262, 512, 2, 4, 1, 320), 1, (5, 70), tied=False,
                            optimizer=dict(weight_decay=0.1, lr_enc=0.5, lr_dec=2.0)),
    "heads14_tied": Case((262, 896, 2, 14, 2, 304), (264, 448, 2, 7, 1, 512), 8, (33, 12, 17)),
    "heads128_small": Case((262, 128, 1, 1, 1, 160), (262, 256, 1, 2, 1, 320), 2, (40, 9)),  # few bytes: scripts/bundle.sh
    "own_answer": Case((262, 64, 3, 1, 1, 96), (262, 128, 1, 2, 2, 96), 5, (130, 3, 40), own_answer=True,
                       optimizer=dict(clip=0.0, lr_min=0.0, eps=1e-5)),  # not clipped: gradients ten times as large
    "windows": Case((262, 128, 2, 4, 2, 160), (270, 192, 2, 6, 2, 224), 6, (100, 7, 33, 12), own_answer=True, window=12,
                    mixed=True),
}  # fmt: skip


def random_model(case):
    configs = []
    for (V, D, L, NH, KV, F_), tied in ((case.enc, case.tied), (case.dec, case.tied)):
        configs.append(Qwen2Config(vocab_size=V, hidden_size=D, num_hidden_layers=L, num_attention_heads=NH,
                                   num_key_value_heads=KV, intermediate_size=F_, tie_word_embeddings=tied,
                                   max_position_embeddings=512, rms_norm_eps=1e-6,
                                   rope_parameters={"rope_type": "default", "rope_theta": 1e6}))  # fmt: skip
    model = C3Twin(*configs, case.N, WORDS)
    with torch.no_grad():  # nothing stays at a value that would hide a mistake: no bias at 0, no norm at 1
        for name, p in checkpoint_names(model).items():
            if name.endswith("norm.weight") or "layernorm" in name:
                p.copy_(1 + 0.2 * torch.randn_like(p))
            elif name.endswith("bias"):
                p.copy_(0.1 * torch.randn_like(p))
            else:
                p.copy_((0.1 if "embed" in name or "Q" in name else 0.06) * torch.randn_like(p))
    return model


def random_pages(case):
    """STEPS times the case's pages, the lengths in another order each step."""
    pages = []
    for step in range(STEPS):
        for i in range(len(case.lengths)):
            n = case.lengths[(i + step) % len(case.lengths)]
            context = torch.randint(0, K, (n,), dtype=torch.int32)
            answer = torch.randint(0, K, ((n * 7) % 53 + 1,), dtype=torch.int32) if case.own_answer else context
            prompt = tuple(torch.randint(0, K, (n % 5 + 1,)).tolist()) if case.mixed and i % 2 else ()
            pages.append(Page(context, answer, prompt, i % 3 * 2 if case.mixed else 0, case.window))
    return pages


# ---- what a step gives ----------------------------------------------------------------------------------------------


def forward(model, pages):
    """Each page alone, without padding: latents, logits and losses of all supervised rows, one after the other."""
    latents, logits, losses = [], [], []
    for page in (Page(*p) for p in pages):
        latents.append(model.encode_page(page))
        logits.append(model.decode(latents[-1], page.answer[None], model.after(page)))
        losses.append(model.row_losses(logits[-1], page.answer[None]))
    return torch.cat(latents, 1)[0], torch.cat(logits, 1)[0], torch.cat(losses)


def forward_padded(model, pages):
    """Row losses of all pages as one batch, padded on the right: with causal attention no row sees a pad."""
    pad, rows_of = torch.nn.utils.rnn.pad_sequence, torch.nn.functional.embedding
    words, enc, dec = model.words, model.encoder, model.decoder.model
    E, W = enc.embed_tokens.weight, dec.embed_tokens.weight
    windows = [p.context.split(p.window) if p.window else [p.context] for p in pages]
    N = [p.latents or model.Q.shape[0] for p, mine in zip(pages, windows) for _ in mine]
    x = [torch.cat([rows_of(torch.cat([c, c.new_tensor([words.img])]), E), model.Q[:n]])
         for n, c in zip(N, [c for mine in windows for c in mine])]  # fmt: skip
    hidden = enc(inputs_embeds=pad(x, batch_first=True), use_cache=False).last_hidden_state
    latents = torch.cat([h[len(window) - n : len(window)] for n, h, window in zip(N, hidden, x)])
    slots = [len(mine) * (p.latents or model.Q.shape[0]) for p, mine in zip(pages, windows)]
    before = torch.tensor(words.before)
    x = [torch.cat([rows_of(before, W), mine, rows_of(torch.cat([model.after(p), p.answer]), W)])
         for mine, p in zip(model.mm_projector(latents).split(slots), pages)]  # fmt: skip
    hidden = dec(inputs_embeds=pad(x, batch_first=True), use_cache=False).last_hidden_state
    kept = torch.cat([h[len(rows) - len(p.answer) - 1 : len(rows)] for h, rows, p in zip(hidden, x, pages)])
    labels = torch.cat([torch.cat([p.answer, p.answer.new_tensor([words.end])]) for p in pages])
    return F.cross_entropy(model.decoder.lm_head(kept).float(), labels.long(), reduction="none")


def gradients(model, pages, splits=1, row_losses=lambda model, pages: forward(model, pages)[2]):
    """Row losses and {name: gradient} of the mean loss over all supervised rows, in `splits` backward passes."""
    model.zero_grad(set_to_none=True)
    rows = sum(len(p.answer) + 1 for p in pages)
    losses = []
    for s in range(splits):
        part = row_losses(model, pages[s * len(pages) // splits : (s + 1) * len(pages) // splits])
        (part.sum() / rows).backward()
        losses.append(part.detach())
    return torch.cat(losses), {n: p.grad.clone().float() for n, p in checkpoint_names(model).items()}


def learning_rate(o, step):
    """Steps count from 1. The cosine divides by steps - warmup + 1, so that the last update is not wasted."""
    if step <= o["warmup"]:
        return o["lr"] * step / o["warmup"]
    done = (step - o["warmup"]) / (o["steps"] - o["warmup"] + 1)
    return o["lr_min"] + (o["lr"] - o["lr_min"]) * (1 + math.cos(math.pi * done)) / 2


def parameter_groups(model, o):
    """Rates by stack; decay on matrices only: not on norms, biases, Q, embeddings."""
    groups = {}
    for name, p in checkpoint_names(model).items():
        latent = "Q" in name or "mm_projector" in name
        scale = 1.0 if latent else o["lr_enc"] if name.startswith("encoder.") else o["lr_dec"]
        decays = p.dim() == 2 and "Q" not in name and "embed_tokens" not in name
        groups.setdefault((scale, decays), []).append(p)
    return [{"params": g, "scale": scale, "weight_decay": o["weight_decay"] if decays else 0.0}
            for (scale, decays), g in groups.items()]  # fmt: skip


def train(model, pages, o):
    """STEPS updates. Losses, gradient norms (before clipping), rates, {name: after - before}."""
    before = {n: p.detach().clone() for n, p in checkpoint_names(model).items()}
    adam = torch.optim.AdamW(parameter_groups(model, o), lr=o["lr"], betas=(o["beta1"], o["beta2"]), eps=o["eps"])
    a_step, losses, norms, rates = len(pages) // STEPS, [], [], []
    for step in range(1, STEPS + 1):
        row_losses, _ = gradients(model, pages[(step - 1) * a_step : step * a_step])
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), o["clip"] or math.inf).item())
        rates.append(learning_rate(o, step))
        for g in adam.param_groups:
            g["lr"] = rates[-1] * g["scale"]
        adam.step()
        losses.append(row_losses.double().mean().item())
    return losses, norms, rates, {n: p.detach() - before[n] for n, p in checkpoint_names(model).items()}


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def bf16_expectations(model, pages):
    """What bf16 may cost. truth: fp32 arithmetic on weights rounded to bf16. error: PyTorch's distance to it in bf16,
    the whole batch at once. spread: its distance between one backward pass and two of half the batch."""
    rounded, exact = copy.deepcopy(model), copy.deepcopy(model)
    for p, q in zip(rounded.parameters(), exact.parameters()):  # not .to(): rotary's frequencies stay fp32
        p.data = p.data.to(torch.bfloat16)
        q.data = p.data.float()
    true_losses, truth = gradients(exact, pages)
    losses, whole = gradients(rounded, pages, 1, forward_padded)
    _, halves = gradients(rounded, pages, 2, forward_padded)
    expected = {"bf16.row_losses": true_losses, "bf16.loss_error": torch.tensor([relative(losses, true_losses)])}
    for name, g in truth.items():
        expected["bf16.grad." + name] = g
        expected["bf16.error." + name] = torch.tensor([relative(whole[name], g)])
        expected["bf16.spread." + name] = torch.tensor([relative(halves[name], whole[name])])
    return expected


# ---- commands -------------------------------------------------------------------------------------------------------


def ragged(name, lists):
    """A list of id lists as NAME (all ids) and NAME.cu (borders)."""
    cu = torch.tensor([0, *(len(x) for x in lists)], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    return {name: torch.cat([torch.as_tensor(x, dtype=torch.int32) for x in lists]), name + ".cu": cu}


def make(out, name):
    case = CASES[name]
    torch.manual_seed(sum(name.encode()))
    model, pages, o = random_model(case), random_pages(case), OPTIMIZER | case.optimizer
    os.makedirs(out, exist_ok=True)
    save_checkpoint(model, os.path.join(out, "model"), SPECIALS, "bare")
    first = pages[: len(case.lengths)]
    texts = ragged("context", [p.context for p in pages]) | ragged("answer", [p.answer for p in pages])
    save_file(texts | ragged("asked", [p.prompt for p in pages]) | {
        "latents": torch.tensor([p.latents for p in pages], dtype=torch.int32),
        "window": torch.tensor([case.window], dtype=torch.int32),
        "prompt.ask": torch.tensor(WORDS.ask, dtype=torch.int32),
        "prompt.answer": torch.tensor(WORDS.answer, dtype=torch.int32),
        "prompt.prefix": torch.tensor(WORDS.before, dtype=torch.int32),
        "prompt.suffix": torch.tensor(WORDS.after, dtype=torch.int32),
        "prompt.end_img": torch.tensor([WORDS.end, WORDS.img], dtype=torch.int32),
        "optimizer": torch.tensor(list(o.values()), dtype=torch.float64),
    }, os.path.join(out, "inputs.safetensors"))  # fmt: skip
    with open(os.path.join(out, "pages.json"), "w") as f:
        json.dump({"words": asdict(WORDS), "pages": [[p.context.tolist(), p.answer.tolist(), *p[2:]] for p in first]}, f)

    with torch.no_grad():
        latents, logits, _ = forward(model, first)
    row_losses, grads = gradients(model, first)
    expected = bf16_expectations(model, first)
    losses, norms, rates, updates = train(model, pages, o)
    expected |= {"latents": latents, "logits": logits, "row_losses": row_losses}
    expected |= {"grad." + n: g for n, g in grads.items()} | {"update." + n: u for n, u in updates.items()}
    for key, numbers in (("step_losses", losses), ("grad_norms", norms), ("rates", rates)):
        expected[key] = torch.tensor(numbers, dtype=torch.float64)
    save_file(expected, os.path.join(out, "expected.safetensors"))
    print(f"{name}: {sum(p.numel() for p in model.parameters())} parameters, "
          f"losses {losses[0]:.4f} to {losses[-1]:.4f}, gradient norm {norms[0]:.3f}")  # fmt: skip


def read_pages(pages):
    """Lists as in pages.json; one list of ids: the answer is the context."""
    ids = [[torch.tensor(t, dtype=torch.int32) for t in (page[0], page[min(1, len(page) - 1)])] for page in pages]
    return [Page(*mine, *page[2:]) for mine, page in zip(ids, pages)]


def make_cases(args):
    for name in args.case:
        make(os.path.join(args.out, name) if len(args.case) > 1 else args.out, name)


def check(args):
    given = read_json(args.pages)
    config = read_json(args.model, "config.json")
    template, img, im_end = config.get("c3_template", "c3"), config["im_start_token"], config["eos_token_id"]
    words = Words(**given["words"]) if "words" in given else make_words(template, args.tokenizer, img, im_end)
    model = load_checkpoint(args.model, words)
    pages = read_pages(given["pages"])
    with torch.no_grad():
        _, logits, row_losses = forward(model, pages)
    if args.logits:
        save_file({"logits": logits, "row_losses": row_losses}, args.logits)
    print(json.dumps({"loss": row_losses.double().mean().item(), "rows": len(row_losses),
                      "first_logits": logits[0, :8].tolist(), "argmax": logits.argmax(1).tolist()[:16]}))  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    p = commands.add_parser("make")
    p.add_argument("--out", required=True)
    p.add_argument("--case", required=True, choices=CASES, nargs="+", help="several: each in a folder DIR/NAME")
    p.set_defaults(run=make_cases)
    p = commands.add_parser("check")
    p.add_argument("--model", required=True)
    p.add_argument("--pages", required=True, help='{"pages": [[ids] or [ids, answer ids, ...], ...], ["words": {...}]}')
    p.add_argument("--tokenizer", help="for the paper's template, when the file names no words")
    p.add_argument("--logits", help="safetensors file for all logits and row losses")
    p.set_defaults(run=check)
    p = commands.add_parser("list")
    p.set_defaults(run=lambda args: print("\n".join(CASES)))
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.run(args)


if __name__ == "__main__":
    main()
