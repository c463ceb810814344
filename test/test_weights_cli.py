#!/usr/bin/env python3
"""test_weights_cli.py: model folders as a user meets them: what the programs say of good and bad ones, what travels
along, and how much memory reading and writing take. Models come from dev/make_random_checkpoint."""
import json
import os
import re
import shutil
import struct
import subprocess

from harness import C3, ROOT, TOKENIZER, TRAIN, Folder, case, done, environment, make_shards, run

MAKE, BENCH = os.path.join(ROOT, "build/dev/make_random_checkpoint"), os.path.join(ROOT, "build/dev/bench_load")
SLACK = 100e6  # bytes a program may take beyond the model: pieces of 16 MB, the libraries, the tokenizer


def refused(name, program, args, *says):
    """Exit 1, one line on stderr that holds all the words."""
    r = run(program, args, check=False)
    line = r.stderr.strip()
    good = r.returncode == 1 and line.count("\n") == 0 and line.startswith(os.path.basename(program) + ": ")
    case(name, good and all(s in line for s in says), (r.returncode, says, r.stderr, r.stdout[-500:]))


def read(path):
    with open(path, "rb") as f:
        return f.read()


def files_of(folder):
    return [read(f"{folder}/{name}") for name in ("model.safetensors", "llm1/model.safetensors")]


def edit_json(path, **changes):
    """Changes keys; a value of None removes one."""
    with open(path) as f:
        content = json.load(f)
    content.update(changes)
    with open(path, "w") as f:
        json.dump({k: v for k, v in content.items() if v is not None}, f)


def fingerprint(folder):
    lines = run(C3, ["info", folder]).stdout.splitlines()
    return next(line.split()[1] for line in lines if line.startswith("  fingerprint"))


# ---- cases ----------------------------------------------------------------------------------------------------------


def test_random(tmp, data):
    """The maker of random checkpoints and the trainer draw the same numbers; cutting files changes nothing."""
    shape = ["-preset", "tiny", "-seed", 7, "-dtype", "fp32"]
    run(MAKE, [*shape, "-o", f"{tmp}/tiny"])
    run(MAKE, [*shape, "-o", f"{tmp}/cut", "-shard_mb", 1])
    train = ["-data", data, "-b", 2, "-g", 1, "-steps", 1, "-lr", 0, "-threads", 1, "-dtype", "fp32"]
    run(TRAIN, [*train, *shape, "-o", f"{tmp}/run"])
    case("a random checkpoint is what the trainer starts from, byte for byte",
         files_of(f"{tmp}/tiny") == files_of(f"{tmp}/run/step_00000001"))
    case("another seed is another model", fingerprint(f"{tmp}/tiny") != fingerprint_of_seed(tmp, 8))
    case("cut into files with an index it has the same fingerprint", fingerprint(f"{tmp}/cut") ==
         fingerprint(f"{tmp}/tiny") and os.path.exists(f"{tmp}/cut/model.safetensors.index.json"))
    with open(f"{tmp}/cut/modeling_c3.py", "w") as f:
        f.write("# code of the source\n")
    shutil.copy(TOKENIZER, f"{tmp}/cut")
    auto = {"AutoModel": "modeling_c3.C3QwenForCausalLM"}
    edit_json(f"{tmp}/cut/config.json", auto_map=auto)
    os.chmod(f"{tmp}/cut/modeling_c3.py", 0o600)
    r = run(TRAIN, [*train, "-m", f"{tmp}/cut", "-o", f"{tmp}/plain"])
    step = f"{tmp}/plain/step_00000001"
    with open(f"{step}/config.json") as f:
        written = json.load(f)
    with open(f"{step}/modeling_c3.py") as f, open(f"{ROOT}/scripts/python/modeling_c3.py") as own:
        case("code and auto_map stay, and that is said; ours are there", written["auto_map"] != auto and
             "modeling_c3.py is left out" in r.stdout and f.read() == own.read(), r.stdout)
    r = run(TRAIN, [*train, "-m", f"{tmp}/cut", "-o", f"{tmp}/again", "-keep_code"])
    step = f"{tmp}/again/step_00000001"
    with open(f"{step}/config.json") as f:
        written = json.load(f)
    case("-m goes on from a sharded folder with the same numbers, and nothing is said of changes",
         files_of(step) == files_of(f"{tmp}/tiny") and "changed" not in r.stdout, r.stdout)
    case("code, auto_map and tokenizer travel along", written["auto_map"] == auto and
         {"modeling_c3.py", "tokenizer.json", "tokenizer_config.json"} <= set(os.listdir(step)), os.listdir(step))
    case("a secret stays one", os.stat(f"{step}/modeling_c3.py").st_mode & 0o777 == 0o600)
    edit_json(f"{tmp}/cut/config.json", auto_map=None)
    grown = [*train, "-m", f"{tmp}/tiny", "-n", 20, "-b", 1]
    one, two = (run(TRAIN, [*grown, "-o", f"{tmp}/ranks{n}"], ranks=n).stdout for n in (1, 2))
    case("two ranks make the same new queries as one, and say it once", one.count("of which 8 are in") == 1 and
         two.count("of which 8 are in") == 1 and
         files_of(f"{tmp}/ranks1/step_00000001") == files_of(f"{tmp}/ranks2/step_00000001"), two)


def fingerprint_of_seed(tmp, seed):
    run(MAKE, ["-preset", "tiny", "-seed", seed, "-dtype", "fp32", "-o", f"{tmp}/seed"])
    return fingerprint(f"{tmp}/seed")


def test_bad_folders(tmp, data):
    bad, tiny, cut = f"{tmp}/bad", f"{tmp}/tiny", f"{tmp}/cut"
    train = ["-data", data, "-steps", 1, "-o", f"{tmp}/none", "-m", bad]

    def copy(source):
        shutil.rmtree(bad, ignore_errors=True)
        shutil.copytree(source, bad)

    copy(cut)
    os.remove(f"{bad}/model-00003-of-00006.safetensors")
    for program, args in ((TRAIN, train), (C3, ["info", bad])):
        refused(f"a missing shard is named, with a tensor that should be in it ({os.path.basename(program)})", program,
                args, "model-00003-of-00006.safetensors", "is missing", "tensor \"model.")
    copy(cut)
    with open(f"{bad}/model.safetensors.index.json") as f:
        index = json.load(f)
    name = next(n for n in index["weight_map"] if n.endswith("k_proj.weight"))
    index["weight_map"][name] = "model-00001-of-00006.safetensors"
    with open(f"{bad}/model.safetensors.index.json", "w") as f:
        json.dump(index, f)
    refused("an index that names the wrong file", TRAIN, train, name, "where it is not")
    for key, value, *says in (("num_attention_heads", 7, "num_attention_heads"), ("vocab_size", None, "vocab_size"),
                              ("hidden_size", 0, "hidden_size"), ("latent_token_len", -1, "latent_token_len"),
                              ("num_key_value_heads", 5, "multiple"), ("im_start_token", 5, "im_start_token"),
                              ("rope_scaling", {"type": "yarn"}, "yarn"), ("num_hidden_layers", 3, "model.layers.2."),
                              ("num_hidden_layers", 1, "model.layers.1."), ("latent_token_len", 9, "model.Q.weight", "found 8"),
                              ("vocab_size", 4200, "embed_tokens", "4200", "found 4102")):
        copy(tiny)
        edit_json(f"{bad}/config.json", **{key: value})
        refused(f"config.json with {key} {value}", TRAIN, train, bad, *says)
    copy(tiny)
    size = os.path.getsize(f"{bad}/llm1/model.safetensors")
    with open(f"{bad}/llm1/model.safetensors", "r+b") as f:
        f.seek(size - 8)
        f.write(struct.pack("<f", float("nan")))
    for program, args in ((TRAIN, train), (C3, ["info", "-check", bad]),
                          (C3, ["extract", "-m", bad, "-part", "encoder", "-o", f"{tmp}/none"]),
                          (C3, ["reconstruct", "-m", bad, "-f", f"{tmp}/train0.jsonl"])):
        refused(f"NaN is named by its tensor ({os.path.basename(program)} {args[0]})", program, args,
                "llm1/model.safetensors", "tensor \"model.norm.weight\"", "element 126")
    case("nothing half-written is left", not os.path.exists(f"{tmp}/none") and not os.path.exists(f"{tmp}/none.tmp"))
    os.makedirs(f"{tmp}/mine.tmp/kept")
    r = run(C3, ["extract", "-m", tiny, "-part", "decoder", "-o", f"{tmp}/mine"], check=False)
    case("a folder in the way of extract's own is left alone and named", r.returncode == 1 and
         f"{tmp}/mine.tmp: is there already" in r.stderr and os.path.isdir(f"{tmp}/mine.tmp/kept"), r.stderr)
    copy(tiny)
    with open(TOKENIZER) as f, open(f"{bad}/qwen.tiktoken", "w") as g:
        g.writelines(f.readlines()[:1000])
    refused("a tokenizer of another vocabulary (train_c3)", TRAIN, train, "qwen.tiktoken", "1000")
    refused("a tokenizer of another vocabulary (c3)", C3, ["reconstruct", "-m", bad], "qwen.tiktoken", "1000")
    refused("a tokenizer of another vocabulary (info -check)", C3, ["info", "-check", bad], "qwen.tiktoken", "1000")


def test_words(tmp, data):
    tiny, train = f"{tmp}/tiny", ["-data", data, "-steps", 1, "-o", f"{tmp}/none"]
    refused("-enc alone", TRAIN, [*train, "-enc", tiny], "-enc without -dec")
    refused("-preset beside -m", TRAIN, [*train, "-preset", "tiny", "-m", tiny], "-preset", "-m")
    refused("a C3 folder as -enc", TRAIN, [*train, "-enc", tiny, "-dec", tiny], "\"C3\"", "-m")
    refused("a plain folder as -m", TRAIN, [*train, "-m", f"{tiny}/llm1"], "qwen2", "-enc or -dec")
    refused("an empty folder as -m", TRAIN, [*train, "-m", tmp], "config.json", "step_*")
    r = run(C3, ["extract", "-m", tiny], check=False)
    case("extract without -part is a usage error", r.returncode == 2 and "-part decoder|encoder is missing" in r.stderr, r.stderr)
    refused("extract into a file", C3, ["extract", "-m", tiny, "-part", "decoder", "-o", f"{tiny}/config.json/x"],
            "config.json")
    refused("extract onto what is there", C3, ["extract", "-m", tiny, "-part", "decoder", "-o", tmp], "is there already")
    edit_json(f"{tiny}/config.json", tie_word_embeddings=False)
    refused("a head that is not there", C3, ["extract", "-m", tiny, "-part", "decoder", "-o", f"{tmp}/none"],
            "lm_head.weight", "tie_word_embeddings")
    edit_json(f"{tiny}/config.json", tie_word_embeddings=True)


def peak_memory(program, args, code=0):
    """Largest resident bytes of a program, which must exit with this code."""
    p = subprocess.Popen([program, *map(str, args)], env=environment(), cwd=ROOT, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL if code else None)
    _, status, usage = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(status)
    if p.returncode != code:
        raise RuntimeError(f"{program} {args}: exit {p.returncode}")
    return usage.ru_maxrss * 1024


def test_lies(tmp, data):
    """A config.json that asks for a hundred times what the weights are is refused before it gets memory."""
    lie, pages = f"{tmp}/lie", f"{tmp}/train0.jsonl"
    shutil.copytree(f"{tmp}/tiny", lie)
    commands = ((TRAIN, ["-data", data, "-steps", 1, "-o", f"{tmp}/none", "-m", lie]),
                (C3, ["reconstruct", "-m", lie, "-f", pages]), (C3, ["eval", "-m", lie, pages, "-o", f"{tmp}/none"]),
                (C3, ["compress", "-m", lie, "-f", pages, "-o", f"{tmp}/none"]),
                (C3, ["extract", "-m", lie, "-part", "decoder", "-o", f"{tmp}/none"]), (C3, ["info", "-check", lie]))
    for key, value, file in (("vocab_size", 1 << 24, "config.json"), ("intermediate_size", 1 << 20, "llm1/config.json"),
                             ("latent_token_len", 1 << 16, "config.json")):
        with open(f"{lie}/{file}") as f:
            true = json.load(f)[key]
        edit_json(f"{lie}/{file}", **{key: value})
        for program, args in commands:
            if args[0] == "extract" and file + key != "config.jsonvocab_size":
                continue  # the decoder alone is sound
            refused(f"{key} {value} ({os.path.basename(program)} {args[0]})", program, args, "model.safetensors",
                    "expected", str(value))
            peak = peak_memory(program, args, 1)
            case(f"{key} {value} took {peak / 1e6:.0f} MB ({os.path.basename(program)} {args[0]})", peak < SLACK, peak)
        edit_json(f"{lie}/{file}", **{key: true})


def test_positions(tmp, data):
    """Pages beyond max_position_embeddings are left out of training and of evaluation alike, and that is said."""
    short = f"{tmp}/short"
    run(MAKE, ["-preset", "demo", "-vocab", 4096, "-n", 4, "-dtype", "fp32", "-o", short])
    tokens = [len(json.loads(line)["text"].split()) for line in read(f"{tmp}/train0.jsonl").decode().splitlines()]
    for file, positions in (("config.json", 7 + 25), ("llm1/config.json", 5 + 20)):  # words, latents, end; <img>, Q
        edit_json(f"{short}/{file}", max_position_embeddings=positions)
        r = run(TRAIN, ["-data", data, "-b", 2, "-g", 1, "-steps", 1, "-threads", 1, "-m", short, "-tok", TOKENIZER,
                        "-o", f"{tmp}/{positions}"])
        trained = int(re.search(r"pages +(\d+) of", r.stdout)[1])
        run(C3, ["eval", "-m", short, "-tok", TOKENIZER, f"{tmp}/train0.jsonl", "-o", f"{tmp}/eval{positions}", "-skip",
                 "-max_new", 1, "-no_controls"])
        with open(f"{tmp}/eval{positions}/eval.json") as f:
            found = json.load(f)
        case(f"{positions} positions: trained on {trained} pages of {len(tokens)}, evaluated on {found['pages']}",
             trained == found["pages"] and 0 < trained < len(tokens) and "no positions for more" in r.stdout, r.stdout)


def test_memory(tmp):
    """No program holds a file as well as the model, nor two models."""
    big = f"{tmp}/big"
    run(MAKE, ["-preset", "medium", "-vocab", 8192, "-o", big])
    # not read here: what a process is forked from counts as its memory
    size = sum(os.path.getsize(f"{big}/{name}") for name in ("model.safetensors", "llm1/model.safetensors"))
    case("the model is large enough to tell", size > 2.5 * SLACK, size)
    for words in (["info", "-check", big], ["extract", "-m", big, "-part", "decoder", "-o", f"{tmp}/part"]):
        peak = peak_memory(C3, words)
        case(f"c3 {words[0]} reads {size / 1e6:.0f} MB in {peak / 1e6:.0f} MB", peak < SLACK, peak)
    for dtype, factor in (("bf16", 1), ("fp32", 2)):
        saved = f"{tmp}/saved_{dtype}"
        peak = peak_memory(BENCH, [big, "-save", saved, "-dtype", dtype])
        case(f"{size / 1e6:.0f} MB of bf16 loaded as {dtype}, and saved, in {peak / 1e6:.0f} MB",
             size * factor < peak < size * factor + SLACK, peak)
    case("what was loaded and saved in bf16 are the same files", files_of(big) == files_of(f"{tmp}/saved_bf16"))


def test_preset_vocabulary(tmp):
    """A preset goes with whatever pages there are."""
    steps = ["-steps", 1, "-b", 1, "-g", 1, "-threads", 1]
    for vocab in (600, 151643):
        data = make_shards(tmp, f"of{vocab}", 4, 1, vocab=vocab, shortest=2, longest=6)
        plan = run(TRAIN, ["-preset", "tiny", "-data", data, "-plan", "-gpu", "h100"]).stdout
        case(f"a preset plans with the pages' vocabulary of {vocab}",
             f"vocabulary of the pages: {vocab}, not 4096" in plan and "4 of " in plan, plan)
    data = os.path.join(tmp, "of600*.bin")
    run(TRAIN, ["-preset", "tiny", "-data", data, "-o", f"{tmp}/of600"] + steps)
    said = run(C3, ["info", f"{tmp}/of600"]).stdout
    case("and trains with it", "600 base tokens" in said and "vocabulary 606" in said, said)
    refused("-vocab beside pages of another", TRAIN, ["-preset", "tiny", "-vocab", 700, "-data", data, "-o",
                                                      f"{tmp}/of700"] + steps, "606", "706")
    refused("a preset without pages names what it looked for", TRAIN, ["-preset", "tiny", "-data", f"{tmp}/none_*.bin",
                                                                       "-o", f"{tmp}/none"], "none_*.bin")
    plan = run(TRAIN, ["-preset", "small", "-plan", "-gpu", "h100"], cwd=tmp).stdout
    case("without pages a plan is of the preset's own", "vocabulary 8198" in plan and "assumed" in plan, plan)


def main():
    made = subprocess.run(["make", *(os.path.relpath(p, ROOT) for p in (MAKE, BENCH))], cwd=ROOT,
                          stdout=subprocess.DEVNULL)
    case("make the programs of dev/", made.returncode == 0)
    with Folder() as tmp:
        data = make_shards(tmp, "train", 8, 1, vocab=4096)
        test_random(tmp, data)
        test_bad_folders(tmp, data)
        test_words(tmp, data)
        test_lies(tmp, data)
        test_positions(tmp, data)
        test_memory(tmp)
        test_preset_vocabulary(tmp)
    done()


if __name__ == "__main__":
    main()
