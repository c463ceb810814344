#!/usr/bin/env python3
"""test_hf.py: models in and out of Hugging Face's layout, against transformers itself.

Random Qwen2 models (head dims 64 and 128, tied and untied, fp32, bf16, fp16, single files and sharded) are saved by
transformers and read as encoder and decoder of a new C3 model. Its logits must be those of dev/reference.py, which
puts transformers' own modules together; what we save, transformers must load, both halves as Qwen2ForCausalLM, with the
same logits. Then the trainer and c3 do the same with a vocabulary of Qwen2.5's size."""
import json
import os
import random
import shutil
import subprocess
import sys
import unicodedata

sys.path[:0] = [os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "dev")]
os.environ |= {"OMP_NUM_THREADS": "1"}

import reference  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
import tokenizer_reference  # noqa: E402
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM  # noqa: E402

from harness import C3, ROOT, TOKENIZER, TRAIN, Folder, WORDS, case, done, make_shards, run  # noqa: E402

LOGITS, LINES = (os.path.join(ROOT, f"build/test/{name}") for name in ("model_logits", "tokenize_lines"))
FP32 = 1e-5  # relative norm of the error of logits and latents
K, N, LENGTHS = reference.K, 5, (1, 37, 20, 64)
# name: head dim, tied, files' type, megabytes a file; encoder and decoder have 2 and 3 layers, other widths, other heads
CASES = {
    "head 64, tied, fp32, one file": (64, True, torch.float32, "10GB"),
    "head 64, untied, fp32, sharded": (64, False, torch.float32, "400KB"),
    "head 128, tied, fp16, sharded": (128, True, torch.float16, "300KB"),
    "head 128, untied, bf16, one file": (128, False, torch.bfloat16, "10GB"),
}


def qwen2(folder, V, heads, kv, hd, layers, F, tied, dtype, shard, theta=1e6):
    """A random Qwen2 model, saved by transformers; biases and norms are not at their initial values."""
    config = Qwen2Config(vocab_size=V, hidden_size=heads * hd, num_hidden_layers=layers, num_attention_heads=heads,
                         num_key_value_heads=kv, intermediate_size=F, tie_word_embeddings=tied, rms_norm_eps=1e-6,
                         max_position_embeddings=2048, rope_parameters={"rope_type": "default", "rope_theta": theta},
                         eos_token_id=K + 2 if V < 1000 else 151645, bos_token_id=K if V < 1000 else 151643)
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            norm = "norm" in name
            p.copy_((1.0 if norm else 0.0) + (0.2 if norm else 0.1 if p.dim() == 1 else 0.06) * torch.randn_like(p))
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    return Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32)  # .float() leaves rotary's frequencies rounded


def write_inputs(path, pages):
    words = {"prompt.prefix": reference.WORDS.before, "prompt.suffix": reference.WORDS.after,
             "prompt.end_img": [reference.WORDS.end, reference.WORDS.img]}
    words = {k: torch.tensor(v, dtype=torch.int32) for k, v in words.items()}
    save_file(reference.ragged("context", pages) | words, path)


def ours(folder, name, *args):
    """latents, logits and what was said of our model on the pages of the folder."""
    out = f"{folder}/{name}.safetensors"
    r = run(LOGITS, ["-pages", f"{folder}/inputs.safetensors", "-o", out, "-tok", TOKENIZER, "-threads", 1, *args])
    return load_file(out), r.stdout


def theirs(model, pages):
    with torch.no_grad():
        latents, logits, _ = reference.forward(model, [(p, p) for p in pages])
    return {"latents": latents.float(), "logits": logits.float()}


def distance(found, expected):
    return max(reference.relative(found[k], expected[k]) for k in ("latents", "logits"))


def twin_of(encoder, decoder, cascade):
    """A twin of transformers' own models as they were before we read them, Q and projector from our checkpoint."""
    twin = reference.C3Twin(encoder.config, decoder.config, N, reference.WORDS)
    twin.encoder, twin.decoder = encoder.model, decoder
    with torch.no_grad():
        twin.Q.copy_(cascade["model.Q.weight"])
        twin.mm_projector.weight.copy_(cascade["model.mm_projector.weight"])
        twin.mm_projector.bias.copy_(cascade["model.mm_projector.bias"])
    return twin.float()


def same_tensors(folder, model, rows):
    """Names of the tensors of a saved folder that are not the model's, tables over the vocabulary cut to `rows`."""
    saved = load_file(f"{folder}/model.safetensors")
    wrong = []
    for name, p in model.named_parameters():
        expected = p.detach().float()[: rows if "embed_tokens" in name or "lm_head" in name else None]
        if name in saved and not torch.equal(saved[name].float(), expected) or (
                name not in saved and name != "lm_head.weight"):
            wrong.append(name)
    return wrong


def loads_as_qwen2(folder, extra=frozenset()):
    """transformers' own loader on a folder, whatever its config.json calls it."""
    with open(f"{folder}/config.json") as f:
        plain = {k: v for k, v in json.load(f).items() if k not in ("model_type", "architectures")}
    return reference.load_stack(folder, Qwen2Config(**plain), extra)


def test_case(tmp, name, hd, tied, dtype, shard):
    torch.manual_seed(sum(name.encode()))
    folder = os.path.join(tmp, name.replace(" ", "_").replace(",", ""))
    os.makedirs(folder)
    # a wider embedding than the vocabulary needs, as Qwen2.5's: the decoder's is cut
    encoder = qwen2(f"{folder}/enc", 262, 2, 1, hd, 2, 144, tied, dtype, shard)
    decoder = qwen2(f"{folder}/dec", 270, 3, 1, hd, 3, 208, tied, dtype, shard)
    sharded = os.path.exists(f"{folder}/dec/model.safetensors.index.json")
    case(f"{name}: transformers wrote {'several files' if sharded else 'one file'}", sharded == (shard != "10GB"))
    pages = [torch.randint(0, K, (n,), dtype=torch.int32) for n in LENGTHS]
    write_inputs(f"{folder}/inputs.safetensors", pages)
    saved = f"{folder}/saved"
    mine, said = ours(folder, "fp32", "-enc", f"{folder}/enc", "-dec", f"{folder}/dec", "-n", N, "-dtype", "fp32",
                      "-save", saved)
    case(f"{name}: the cut is said", "8 of the 270 rows" in said, said)
    wrong = same_tensors(f"{saved}/llm1", encoder, 262) + same_tensors(saved, decoder, 262)
    case(f"{name}: every number arrives", not wrong, wrong)
    twin = twin_of(encoder, decoder, load_file(f"{saved}/model.safetensors"))
    expected = theirs(twin, pages)
    expected["logits"] = expected["logits"][:, :262]
    error = distance(mine, expected)
    case(f"{name}: logits are those of the models transformers made ({error:.1e})", error <= FP32, error)
    loaded = reference.load_checkpoint(saved, reference.WORDS)
    error = distance(mine, theirs(loaded, pages))
    case(f"{name}: transformers loads what we saved, logits equal ({error:.1e})", error <= FP32, error)
    halves = loads_as_qwen2(f"{saved}/llm1"), loads_as_qwen2(saved, reference.CASCADE)
    shapes = [(h.config.vocab_size, h.config.num_hidden_layers) for h in halves]
    case(f"{name}: both halves are Qwen2ForCausalLM", shapes == [(262, 2), (262, 3)], shapes)
    with torch.no_grad():
        loaded.decoder.model.layers[1].self_attn.k_proj.weight.mul_(1.0002)
    error = distance(mine, theirs(loaded, pages))
    case(f"{name}: a factor of 1.0002 on one matrix is noticed ({error:.1e})", error > FP32, error)
    test_bf16(name, folder, saved, pages)


def test_bf16(name, folder, saved, pages):
    """Against fp32 arithmetic on the rounded weights, ours is no further off than transformers' own bf16."""
    mine, _ = ours(folder, "bf16", "-m", saved, "-dtype", "bf16")
    rounded = reference.load_checkpoint(saved, reference.WORDS)
    for p in rounded.parameters():
        p.data = p.data.to(torch.bfloat16)
    half = theirs(rounded, pages)
    for p in rounded.parameters():
        p.data = p.data.float()
    exact = theirs(rounded, pages)
    for key in ("latents", "logits"):
        error, allowed = (reference.relative(x[key], exact[key]) for x in (mine, half))
        case(f"{name}: bf16 {key}: {error:.2e} off, transformers {allowed:.2e}", error <= allowed, (error, allowed))


def test_spellings(tmp):
    """Files that transformers loads though they are not as it saves a Qwen2ForCausalLM."""
    torch.manual_seed(5)
    folder = f"{tmp}/spellings"
    os.makedirs(folder)
    encoder = qwen2(f"{folder}/enc", 262, 2, 1, 64, 2, 144, True, torch.float32, "10GB")
    decoder = qwen2(f"{folder}/dec", 262, 3, 1, 64, 2, 208, True, torch.float32, "400KB")
    shutil.rmtree(f"{folder}/enc")
    encoder.model.save_pretrained(f"{folder}/enc")
    case("a base model's names have no prefix", "embed_tokens.weight" in load_file(f"{folder}/enc/model.safetensors"))
    index = f"{folder}/dec/model.safetensors.index.json"
    with open(index) as f:
        content = json.load(f)
    content["weight_map"]["lm_head.weight"] = content["weight_map"]["model.norm.weight"]
    with open(index, "w") as f:
        json.dump(content, f)
    report = Qwen2ForCausalLM.from_pretrained(f"{folder}/dec", output_loading_info=True)[1]
    case("transformers loads an index that names a tied head nobody stored", not report["missing_keys"], report)
    pages = [torch.randint(0, K, (n,), dtype=torch.int32) for n in LENGTHS]
    write_inputs(f"{folder}/inputs.safetensors", pages)
    saved = f"{folder}/saved"
    mine, _ = ours(folder, "fp32", "-enc", f"{folder}/enc", "-dec", f"{folder}/dec", "-n", N, "-dtype", "fp32",
                   "-save", saved)
    error = distance(mine, theirs(twin_of(encoder, decoder, load_file(f"{saved}/model.safetensors")), pages))
    case(f"so do we, both, and find the same logits ({error:.1e})", error <= FP32, error)


TEXTS = ["The quick brown fox's 12345 jumps, they'll say.\n\n  Twice!\r\n", "", " ", "\0\x7f\x85\u2028 <|endo",
         "\u7b2c\u4e00\u7ae0 \u65e5\u672c\u8a9e\u3067\u3059\u3002", "cafe\u0301 \u212b \ufb01 \uf9a0 \u00bd",
         "def f(x):\n\treturn x**2  # <b>&amp;</b>", "\U0001f600\U0001f469\u200d\U0001f52c " * 3]


def test_tokenizer(folder, what, cut):
    """AutoTokenizer on a folder makes our ids and texts again, and knows the special tokens' numbers."""
    texts = [*TEXTS, *(" ".join(random.Random(i).sample(WORDS, 8)) for i in range(20))]
    their = AutoTokenizer.from_pretrained(folder)
    ids = [their(t, add_special_tokens=False)["input_ids"] for t in texts]
    ours = tokenizer_reference.encode_ours(LINES, TOKENIZER, texts, cut)
    wrong = [(t, a, b) for t, a, b in zip(texts, ids, ours) if a != b]
    case(f"{what}: AutoTokenizer makes our ids", not wrong, wrong[:2])
    wrong = [t for t, i in zip(texts, ids) if their.decode(i) != unicodedata.normalize("NFC", t)]
    case(f"{what}: and the texts again", not wrong, wrong[:2])
    base, img = (cut, cut + 3) if cut else (151643, 151857)
    special = their("<|im_start|>a<img><imgpad></img><|im_end|>", add_special_tokens=False)["input_ids"]
    case(f"{what}: and has the special tokens, as many tokens as rows", special[0] == base + 1 and special[2:] ==
         [img, img + 2, img + 1, base + 2] and len(their) == img + 3 and their.eos_token_id == base + 2,
         (special, len(their), their.eos_token_id))


def test_own_tokenizer(tmp):
    """-tok of another name and a cut vocabulary: found again by us and by transformers, in checkpoints and extracts."""
    own = f"{tmp}/mytok.tiktoken"
    shutil.copy(TOKENIZER, own)
    for cut in (300, 2048):
        out, data = f"{tmp}/cut{cut}", make_shards(tmp, f"cut{cut}_", 8, 1, vocab=cut)
        run(TRAIN, ["-data", data, "-b", 2, "-g", 1, "-steps", 1, "-threads", 1, "-tok", own, "-o", out,
                    "-preset", "demo", "-vocab", cut])
        r = run(C3, ["info", "-check", out])
        case(f"vocabulary of {cut}: the checkpoint has its tokenizer in it", "tokenizer.json has" in r.stdout and
             not os.path.exists(f"{out}/step_00000001/mytok.tiktoken"), r.stdout)
        run(C3, ["extract", "-m", out, "-part", "decoder", "-o", f"{out}/decoder"])
        for folder in (f"{out}/step_00000001", f"{out}/decoder"):
            test_tokenizer(folder, f"{os.path.basename(folder)}, vocabulary of {cut}", cut)
        config = Qwen2ForCausalLM.from_pretrained(f"{out}/decoder").config
        case("the extract's config fits", config.vocab_size == cut + 6 and config.sliding_window is None, config)


def test_plain_text(tmp):
    """-val_lm is the perplexity that transformers finds of the decoder, on texts behind <|endoftext|>, as far as the longest
    training page is long."""
    short, long = (make_shards(tmp, name, n, n, vocab=2048, longest=words) for name, n, words in
                   (("short", 8, 12), ("long", 7, 40)))
    r = run(TRAIN, ["-data", short, "-val_lm", long, "-b", 2, "-g", 1, "-steps", 2, "-threads", 1, "-lr", 0.01, "-preset",
                    "demo", "-vocab", 2048, "-dtype", "fp32", "-o", f"{tmp}/plain", "-val_every", 0])
    run(C3, ["extract", "-m", f"{tmp}/plain", "-part", "decoder", "-o", f"{tmp}/plain/decoder"])
    decoder = Qwen2ForCausalLM.from_pretrained(f"{tmp}/plain/decoder", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(f"{tmp}/plain/decoder")

    def ids_of(name):
        with open(f"{tmp}/{name}0.jsonl") as f:
            return [tokenizer(json.loads(line)["text"], add_special_tokens=False)["input_ids"] for line in f]

    longest = max(map(len, ids_of("short")))
    texts, losses = ids_of("long"), []
    for ids in texts:
        row = torch.tensor([[tokenizer.convert_tokens_to_ids("<|endoftext|>"), *ids[:longest]]])
        with torch.no_grad():
            logits = decoder(row).logits[0, :-1]
        losses.append(torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="none"))
    expected = float(torch.cat(losses).mean().exp())
    with open(f"{tmp}/plain/log.jsonl") as f:
        found = {o["step"]: o for o in map(json.loads, f) if "val_lm_perplexity" in o}
    off = abs(found[2]["val_lm_perplexity"] / expected - 1)
    case(f"-val_lm is the perplexity that transformers finds ({off:.1e} off)", sorted(found) == [0, 2] and off < 1e-5 and
         max(map(len, texts)) > longest and "val_loss" not in found[2] and "plain text at step 2" in r.stdout,
         (found, expected))
    ratio = found[2]["val_lm_perplexity"] / found[0]["val_lm_perplexity"]
    case("... and its ratio to that at the start", abs(found[2]["val_lm_ratio"] - ratio) < 1e-5 and ratio != 1, found)


def test_programs(tmp):
    """The trainer makes a model out of two folders of Qwen2.5's vocabulary; c3 takes it apart again."""
    torch.manual_seed(4)
    encoder = qwen2(f"{tmp}/enc", 151936, 1, 1, 64, 1, 96, True, torch.bfloat16, "8MB")
    decoder = qwen2(f"{tmp}/dec", 151936, 1, 1, 64, 2, 80, False, torch.float32, "30MB")
    shutil.copy(TOKENIZER, f"{tmp}/enc/qwen.tiktoken")
    with open(f"{tmp}/dec/tokenizer_config.json", "w") as f:
        f.write("{}")
    data = make_shards(tmp, "train", 8, 1, vocab=0)
    train = ["-data", data, "-b", 2, "-g", 1, "-steps", 1, "-lr", 0, "-threads", 1, "-dtype", "fp32"]
    r = run(TRAIN, [*train, "-enc", f"{tmp}/enc", "-dec", f"{tmp}/dec", "-o", f"{tmp}/run", "-n", 4])
    case("two folders of Qwen2.5's vocabulary: the trainer says what is cut", "76 of the 151936 rows" in r.stdout and
         "head: 76" in r.stdout, r.stdout)
    step = f"{tmp}/run/step_00000001"
    wrong = same_tensors(f"{step}/llm1", encoder, None) + same_tensors(step, decoder, 151860)
    case("every number arrives, the decoder's 151860 rows and the encoder's 151936", not wrong, wrong)
    case("the tokenizer is stored for both programs", {"qwen.tiktoken", "tokenizer.json", "tokenizer_config.json"} <=
         set(os.listdir(step)), os.listdir(step))
    r = run(C3, ["info", "-check", f"{tmp}/run"])
    case("c3 info -check finds it sound", "checksums      of 6 files right" in r.stdout and "all finite" in r.stdout and
         "qwen.tiktoken has the model's vocabulary" in r.stdout, r.stdout)
    for part, model, rows in (("decoder", decoder, 151860), ("encoder", encoder, 151936)):
        run(C3, ["extract", "-m", f"{tmp}/run", "-part", part, "-o", f"{tmp}/{part}"])
        plain, report = Qwen2ForCausalLM.from_pretrained(f"{tmp}/{part}", dtype=torch.float32, output_loading_info=True)
        ids = torch.randint(0, 151643, (1, 40))
        with torch.no_grad():
            same = torch.equal(plain(ids).logits, model(ids).logits[..., :rows])
        case(f"c3 extract -part {part}: transformers loads it and finds the same logits", same and
             plain.config.vocab_size == rows and not report["missing_keys"] and not report["unexpected_keys"], report)
        test_tokenizer(f"{tmp}/{part}", f"{part} of a whole vocabulary", 0)
    test_tokenizer(step, "checkpoint of a whole vocabulary", 0)
    grown = [*train, "-m", f"{tmp}/run", "-n", 7, "-o", f"{tmp}/grown"]
    r = run(TRAIN, grown)
    a, b = (load_file(f"{tmp}/{name}/step_00000001/model.safetensors")["model.Q.weight"] for name in ("run", "grown"))
    case("-m with a larger -n keeps the old queries and says so", "7, of which 4 are in" in r.stdout and
         torch.equal(a, b[:4]) and b.shape[0] == 7 and not torch.equal(b[4:], a[:3]), r.stdout)
    grown[grown.index("-steps") + 1] = 2
    r = run(TRAIN, grown)
    case("a resumed run goes on with its own weights and says nothing of changes", "resuming from" in r.stdout and
         "changed" not in r.stdout, r.stdout)
    r = run(TRAIN, [*train, "-m", f"{tmp}/run", "-enc", f"{tmp}/decoder", "-o", f"{tmp}/swapped"])
    c = reference.load_checkpoint(f"{tmp}/swapped/step_00000001", reference.WORDS)
    case("-m with -enc swaps the encoder and says so", "queries and projector are new" in r.stdout and
         len(c.encoder.layers) == 2 and c.Q.shape == (4, 64), r.stdout)
    r = run(C3, ["reconstruct", "-m", f"{tmp}/swapped", "-max_new", "3", "-f", f"{tmp}/train0.jsonl", "-limit", "1"])
    case("what was swapped can be used", "reconstruction" in r.stdout, r.stdout)


def main():
    torch.set_num_threads(1)
    made = subprocess.run(["make", *(os.path.relpath(p, ROOT) for p in (LOGITS, LINES))], cwd=ROOT,
                          stdout=subprocess.DEVNULL)
    case("make model_logits and tokenize_lines", made.returncode == 0)
    with Folder() as tmp:
        for name, parameters in CASES.items():
            test_case(tmp, name, *parameters)
        test_spellings(tmp)
        test_own_tokenizer(tmp)
        test_plain_text(tmp)
        test_programs(tmp)
    done()


if __name__ == "__main__":
    main()
