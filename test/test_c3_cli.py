#!/usr/bin/env python3
# test_c3_cli.py: the companion tool as a user meets it: a tiny random model made here, good and bad input, every output.
import base64, json, os, pty, random, shutil, struct, subprocess, sys, tempfile, time, unicodedata

C3 = "./c3"
K, N, D_ENC, D_DEC = 262, 4, 64, 96  # base tokens, latents, widths
passed = failed = 0


def check(name, good, found=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    print(("ok   " if good else "FAIL ") + name + ("" if good else f"\n     found {str(found)[:2000]!r}"), flush=True)


def run(*words, stdin=None, env=None):
    data = stdin.encode() if isinstance(stdin, str) else stdin
    r = subprocess.run([C3, *words], input=data if data is not None else b"", capture_output=True, timeout=120,
                       env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})})
    return r.returncode, r.stdout.decode("utf-8", "surrogateescape"), r.stderr.decode("utf-8", "surrogateescape")


def refused(name, words, code=1, says=(), stdin=None):
    """One line on stderr that starts with c3:, the exit code, nothing on stdout."""
    got, out, err = run(*words, stdin=stdin)
    good = got == code and err.startswith("c3: ") and err.count("\n") == 1 and not out
    check(name, good and all(s in err for s in says), (got, out, err))


# ---- a tiny random model ----

def write_safetensors(path, tensors):
    header, at, data = {}, 0, b""
    for name, (shape, values) in tensors.items():
        raw = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + len(raw)]}
        at += len(raw)
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def stack(D, heads, F, layers, rng):
    HS, kv = 32, 32
    t = {}

    def put(name, *shape, one=False):
        n = 1
        for s in shape:
            n *= s
        t[name] = (list(shape), [1.0] * n if one else [rng.uniform(-0.25, 0.25) for _ in range(n)])

    put("model.embed_tokens.weight", K + 6, D)
    for layer in range(layers):
        p = f"model.layers.{layer}."
        for name, rows in (("q", heads * HS), ("k", kv), ("v", kv)):
            put(p + f"self_attn.{name}_proj.weight", rows, D)
            put(p + f"self_attn.{name}_proj.bias", rows)
        put(p + "self_attn.o_proj.weight", D, heads * HS)
        put(p + "mlp.gate_proj.weight", F, D)
        put(p + "mlp.up_proj.weight", F, D)
        put(p + "mlp.down_proj.weight", D, F)
        put(p + "input_layernorm.weight", D, one=True)
        put(p + "post_attention_layernorm.weight", D, one=True)
    put("model.norm.weight", D, one=True)
    return t


def config(D, heads, F, layers, **more):
    return dict(vocab_size=K + 6, hidden_size=D, num_hidden_layers=layers, num_attention_heads=heads,
                num_key_value_heads=1, head_dim=32, intermediate_size=F, hidden_act="silu",
                max_position_embeddings=400, rope_theta=1e6, rms_norm_eps=1e-6, tie_word_embeddings=True,
                torch_dtype="float32", bos_token_id=K, eos_token_id=K + 2, **more)


def write_model(folder, seed=1):
    rng = random.Random(seed)
    os.makedirs(f"{folder}/llm1")
    enc, dec = (D_ENC, 2, 64, 1), (D_DEC, 3, 80, 2)
    json.dump(config(*dec, model_type="C3", latent_token_len=N, contexts_compression_llm_hidden_size=D_ENC,
                     im_start_token=K + 3, im_end_token=K + 4, im_patch_token=K + 5, use_im_start_end=True,
                     c3_template="bare"), open(f"{folder}/config.json", "w"))
    json.dump(config(*enc, model_type="qwen2"), open(f"{folder}/llm1/config.json", "w"))
    write_safetensors(f"{folder}/llm1/model.safetensors", stack(*enc, rng))
    root = stack(*dec, rng)
    for name, shape in (("model.Q.weight", [N, D_ENC]), ("model.mm_projector.weight", [D_DEC, D_ENC]),
                        ("model.mm_projector.bias", [D_DEC])):
        n = shape[0] * (shape[1] if len(shape) > 1 else 1)
        root[name] = (shape, [rng.uniform(-0.4, 0.4) for _ in range(n)])
    write_safetensors(f"{folder}/model.safetensors", root)
    words = [bytes([b]) for b in range(256)] + [b"th", b"he", b"in", b"er", b"an", b"the"]
    with open(f"{folder}/qwen.tiktoken", "wb") as f:
        for rank, word in enumerate(words):
            f.write(base64.b64encode(word) + b" %d\n" % rank)


def distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def precision(a, b):
    return 1 - distance(a, b) / max(len(a), len(b), 1)


def shown_on_terminal(words, env):
    """What the tool writes when its stdout is a terminal."""
    parent, child = pty.openpty()
    p = subprocess.Popen([C3, *words], stdin=subprocess.DEVNULL, stdout=child, stderr=subprocess.DEVNULL,
                         env={**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm", **env})
    os.close(child)
    data = b""
    try:
        while piece := os.read(parent, 65536):
            data += piece
    except OSError:  # the other side is closed
        pass
    os.close(parent)
    p.wait(timeout=60)
    return data.decode("utf-8", "replace")


# ---- cases ----

def test_words():
    code, out, err = run()
    check("without a command: the list of commands, exit code 2", code == 2 and "reconstruct" in err, (code, out, err))
    code, out, err = run("-h")
    names = [line.split()[0] for line in out.splitlines()[1:]]
    check("c3 -h lists the commands", code == 0 and "eval" in names, (code, out, err))
    for name in names:
        code, out, err = run(name, "-h")
        check(f"c3 {name} -h explains and gives an example",
              code == 0 and out.startswith(f"c3 {name} ") and f"example: ./c3 {name}" in out and not err, (code, out, err))
        check(f"c3 help {name} is the same", run("help", name) == (code, out, err) == run("--help", name))
    shared = {name: [line for line in run(name, "-h")[1].splitlines() if line.split()[:1] in
                     (["-device"], ["-dtype"], ["-threads"], ["-m"], ["-tok"])]
              for name in ("reconstruct", "compress", "decompress", "eval")}
    check("the same model and machine options in every command that decodes",
          all(lines == shared["eval"] and len(lines) == 5 for lines in shared.values()), shared)
    for words in (["--version"], ["version"], ["eval", "--version"], ["plan", "-version"]):
        code, out, err = run(*words)
        check(f"c3 {' '.join(words)}: commit, compiler, MPI, CUDA, kernels", code == 0 and not err and
              out.startswith("c3 ") and all(f"\n  {fact} " in out for fact in ("compiler", "MPI", "CUDA", "CPU kernels")),
              (code, out, err))
    train = subprocess.run(["./train_c3", "--version"], capture_output=True, text=True)
    check("train_c3 --version says the same", train.returncode == 0 and train.stdout == "train_" + out, train)
    git = subprocess.run(["git", "describe", "--tags", "--always", "--dirty"], capture_output=True, text=True)
    if os.path.exists(".git") and git.returncode == 0:
        commit = git.stdout.strip().removesuffix("-dirty").split("-g")[-1]
        check(f"which is this commit, {commit}, or a change to it", commit in out.split()[1], out)
    refused("unknown command, with the nearest one", ["reconstuct"], 2,
            ["unknown command \"reconstuct\"", "did you mean reconstruct?"])
    refused("unknown command that is near none", ["frobnicate"], 2, ["unknown command \"frobnicate\" (hint: c3 -h"])
    refused("help for an unknown command", ["help", "evl"], 2, ["unknown command \"evl\"", "did you mean eval?"])
    refused("the report has its own program", ["report", "runs/demo"], 2, ["scripts/report.py RUN"])
    refused("unknown option is refused with the nearest one", ["eval", "-bach", "3"], 2, ["-bach", "did you mean -batch"])
    refused("a number out of range", ["eval", "-batch", "-3"], 2, ["-batch"])
    refused("reconstruct without -m", ["reconstruct"], 2, ["-m DIR"])
    refused("eval without -o", ["eval", "-m", "x", "y"], 2, ["-o OUT"])
    refused("eval without pages", ["eval", "-m", "x", "-o", "y"], 2, ["one file"])


def test_bad_input(tmp, model):
    pages = f"{tmp}/pages.jsonl"
    ok = ["reconstruct", "-m", model]
    refused("missing model", ["reconstruct", "-m", f"{tmp}/none"], says=[f"{tmp}/none"])
    os.makedirs(f"{tmp}/empty")
    refused("a folder that is no model", ["reconstruct", "-m", f"{tmp}/empty"], says=["config.json"])
    refused("missing pages", ok + ["-f", f"{tmp}/none.txt"], says=["none.txt"])
    refused("missing tokenizer", ok + ["-tok", f"{tmp}/none.tiktoken", "-f", pages], says=["none.tiktoken"])
    with open(f"{tmp}/bad.tiktoken", "w") as f:
        f.write("IQ== 0\nnot base64! 1\n")
    refused("damaged tokenizer", ok + ["-tok", f"{tmp}/bad.tiktoken", "-f", pages], says=["bad.tiktoken"])
    refused("invalid UTF-8", ok + ["-f", "-"], stdin=b"good \xff bad")
    refused("a page without text", ok + ["-f", "-"], stdin='{"text": ""}\n', says=["1 without text"])
    refused("no pages at all", ok + ["-f", "-"], stdin=b"", says=["no page"])
    refused("broken JSON", ok + ["-f", "-"], stdin='{"text": "a"\n')
    refused("only pages that are too long", ok + ["-maxlen", "16", "-f", "-"], stdin="x" * 100, says=["1 longer"])
    refused("bad buckets", ["eval", "-m", model, pages, "-o", f"{tmp}/x", "-buckets", "5,4"], 2, ["-buckets"])
    refused("results where none can be written", ["eval", "-m", model, pages, "-o", f"{pages}/x", "-max_new", "2"],
            says=[pages])
    cut = f"{tmp}/cut"
    shutil.copytree(model, cut)
    size = os.path.getsize(f"{cut}/model.safetensors")
    os.truncate(f"{cut}/model.safetensors", size - 100)
    refused("truncated weights", ["reconstruct", "-m", cut, "-f", pages], says=["model.safetensors"])
    shutil.rmtree(f"{cut}/llm1")
    refused("a model without its encoder", ["reconstruct", "-m", cut, "-f", pages], says=["llm1"])


def test_reconstruct(tmp, model, texts):
    pages = f"{tmp}/pages.jsonl"
    words = ["reconstruct", "-m", model, "-f", pages]
    code, out, err = run(*words, "-json")
    lines = [json.loads(line) for line in out.splitlines()]
    keys = {"id", "text", "reconstruction", "tokens", "latents", "char_precision", "mean_log_prob", "least_log_prob"}
    check("-json: one object a page with the promised keys", code == 0 and len(lines) == len(texts) and not err and
          all(set(p) == keys for p in lines), (code, out, err))
    check("-json: ids, texts, latents", [p["id"] for p in lines] == [f"p{i}" for i in range(len(texts))] and
          [p["text"] for p in lines] == texts and all(p["latents"] == N for p in lines), lines)
    check("-json: char_precision is what two texts give",
          all(abs(p["char_precision"] - precision(p["text"], p["reconstruction"])) < 1e-9 for p in lines), lines)
    check("a random model writes different texts", len({p["reconstruction"] for p in lines}) > 3, lines)
    check("batches of any size give the same text",
          all(run(*words, "-json", "-batch", b)[1] == out for b in ("1", "3", "64")))
    code, some, _ = run(*words, "-json", "-limit", "2", "-max_new", "5")
    cut = [json.loads(line)["reconstruction"] for line in some.splitlines()]
    check("-limit and -max_new", len(cut) == 2 and all(p["reconstruction"].startswith(c.rstrip("\ufffd")) and
          len(c.encode()) <= 5 * 3 for p, c in zip(lines, cut)), (cut, some))
    code, again, err = run("reconstruct", "-m", model, "-json", stdin=open(pages).read())
    check("pages on stdin", code == 0 and again == out, (code, again, err))
    code, again, _ = run("reconstruct", "-m", model, "-f=-", "-json", stdin=texts[0])
    check("plain text on stdin", code == 0 and json.loads(again)["reconstruction"] == lines[0]["reconstruction"], again)
    code, free, _ = run(*words, "-json", "-no_repeat_ngram", "1")
    alone = [json.loads(line)["reconstruction"] for line in free.splitlines()]
    check("-no_repeat_ngram 1: no single byte twice",
          all(len(set(c.encode())) >= len(c.replace("\ufffd", "").encode()) - 4 for c in alone) and free != out, alone)
    code, bf16, err = run(*words, "-json", "-dtype", "bf16")
    check("-dtype bf16", code == 0 and len(bf16.splitlines()) == len(texts), (code, bf16, err))

    code, text, err = run(*words)
    check("readable text: sizes, ratio, precision, marks in brackets", code == 0 and
          "page 1 of" in text and f"-> {N} latents of {D_ENC} numbers ({N * D_ENC * 4:,} bytes)" in text and
          "--- original" in text and "--- reconstruction" in text and "[" in text and "\033" not in text and
          "mean precision" in text, text)
    shown = shown_on_terminal(words, {"NO_COLOR": ""})
    check("colour on a terminal", "\033[7;31m" in shown and "page 1 of" in shown, shown)
    shown = shown_on_terminal(words, {"NO_COLOR": "1"})
    check("none with NO_COLOR", "\033" not in shown and "page 1 of" in shown, shown)
    code, text, _ = run("reconstruct", "-m", model, stdin='{"text": "a\\u001b[2Jb"}\n')
    check("control characters do not reach the terminal", code == 0 and "\033" not in text and "x1b" in text, text)


def test_shards(tmp, model):
    tok = f"{model}/qwen.tiktoken"
    words = ["tokenize", "-tok", tok, "-vocab", str(K), "-o", f"{tmp}/shards/train"]
    code, out, err = run(*words, f"{tmp}/pages.jsonl")
    made = os.listdir(f"{tmp}/shards") if code == 0 else []
    check("tokenize makes shards and says how much", code == 0 and not err and "7 pages" in out and
          made == ["train_00000.bin"], (code, out, err, made))
    code, out, err = run("info", f"{tmp}/shards/train_00000.bin", model)
    check("info of a shard and of a model", code == 0 and not err and "7" in out and "latents" in out, (code, out, err))
    refused("tokenize without -tok", ["tokenize", "-o", "x", "y"], 2, ["-tok FILE"])
    refused("tokenize: missing input", words + [f"{tmp}/none.txt"], says=["none.txt"])
    refused("tokenize: invalid UTF-8", words + ["-"], stdin=b"good \xff bad")
    refused("tokenize: a page without text", words + ["-"], stdin='{"text": ""}\n', says=["no page with text"])
    refused("info of nothing", ["info", f"{tmp}/none"], says=["none"])
    refused("info of another file", ["info", f"{tmp}/pages.jsonl"])


def test_as_written(tmp, model):
    """A model whose decoder knows two words, both not in NFC: what it wrote is given, NFC forms are compared."""
    words = ["\uf9a0", "\u212b"]  # in NFC U+88C2 and U+00C5
    own = f"{tmp}/compatible"
    shutil.copytree(model, own)
    with open(f"{own}/model.safetensors", "rb") as f:
        data = bytearray(f.read())
    start = 8 + struct.unpack_from("<Q", data)[0]
    begin = start + json.loads(data[8:start])["model.embed_tokens.weight"]["data_offsets"][0]
    rng = random.Random(3)
    row = [rng.uniform(-9, 9) for _ in range(D_DEC)]
    for k, sign in enumerate((1, -1)):  # whatever comes out of the decoder, one of the two has the largest logit
        struct.pack_into(f"<{D_DEC}f", data, begin + 4 * D_DEC * (256 + k), *(sign * x for x in row))
    with open(f"{own}/model.safetensors", "wb") as f:
        f.write(data)
    with open(f"{own}/qwen.tiktoken") as f:
        lines = f.read().splitlines()
    for k, word in enumerate(words):
        lines[256 + k] = f"{base64.b64encode(word.encode()).decode()} {256 + k}"
    with open(f"{own}/qwen.tiktoken", "w") as f:
        f.write("\n".join(lines) + "\n")
    code, out, err = run("reconstruct", "-m", own, "-json", "-max_new", "4", stdin="\u88c2\u00c5\u88c2\u00c5")
    page = json.loads(out)
    normal = unicodedata.normalize("NFC", page["reconstruction"])
    check("-json gives what the model wrote, not its NFC form", len(page["reconstruction"]) == 4 and
          set(page["reconstruction"]) <= set(words), (page, err))
    check("and compares NFC forms", abs(page["char_precision"] - precision(page["text"], normal)) < 1e-9 and
          page["char_precision"] > 0, page)


def test_header(tmp, model):
    """More documents than the header of one .c3 holds are refused before the encoder starts, and where to cut is said."""
    line = json.dumps({"id": '"' * 5_000_000, "text": "page"})  # 20 MB each of the header
    refused("compress: more documents than fit", ["compress", "-m", model, "-f", "-", "-o", f"{tmp}/full.c3"],
            says=["the first 4 documents", "several files"], stdin=(line + "\n") * 6)
    check("nothing is written", not os.path.exists(f"{tmp}/full.c3"))


def test_run_folder(tmp, model):
    steps = f"{tmp}/run"
    for step, complete in ((1, True), (2, True), (3, False)):
        shutil.copytree(model, f"{steps}/step_{step:08d}")
        if complete:
            open(f"{steps}/step_{step:08d}/COMPLETE", "w").close()
    code, out, err = run("reconstruct", "-m", steps, "-json", "-max_new", "2", stdin="some text")
    check("a run's folder stands for its newest complete step, and says which",
          code == 0 and out and err == f"c3: model {steps}/step_00000002\n", (code, out, err))


def test_eval(tmp, model, texts):
    out = f"{tmp}/results/new"
    code, text, err = run("eval", "-m", model, f"{tmp}/pages.jsonl", "-o", out)
    check("eval: a table on stdout, nothing on stderr", code == 0 and "char precision" in text and not err,
          (code, text, err))
    if code:
        return
    check("the files", sorted(os.listdir(out)) == ["eval.json", "pages.jsonl"], os.listdir(out))
    sums = json.load(open(f"{out}/eval.json"))
    pages = [json.loads(line) for line in open(f"{out}/pages.jsonl")]
    mean = sum(precision(p["text"], p["reconstruction"]) for p in pages) / len(pages)
    edits = sum(distance(p["text"], p["reconstruction"]) for p in pages)
    longer = sum(max(len(p["text"]), len(p["reconstruction"])) for p in pages)
    check("char_precision is the mean over the pages", abs(sums["char_precision"] - mean) < 1e-9, (sums, mean))
    check("char_precision_micro", abs(sums["char_precision_micro"] - (1 - edits / longer)) < 1e-9, (sums, edits, longer))
    check("exact_match, pages, latents", sums["exact_match"] == 0 and sums["pages"] == len(texts) and
          sums["latents"] == N, sums)
    check("tokens_per_latent", abs(sums["tokens_per_latent"] - sum(p["tokens"] for p in pages) / len(pages) / N) < 1e-9)
    check("buckets hold every page", sum(b["pages"] for b in sums["buckets"]) == len(texts), sums["buckets"])
    check("by_position has 20 shares", len(sums["by_position"]) == 20 and
          all(0 <= x <= 1 for x in sums["by_position"]), sums["by_position"])
    forced = sum(p["forced_correct"] for p in pages) / sum(p["forced_rows"] for p in pages)
    check("token_accuracy is that of the rows", abs(sums["token_accuracy"] - forced) < 1e-9, (sums, forced))
    check("pages.jsonl: a line a page, its distance", len(pages) == len(texts) and
          all(p["edit_distance"] == distance(p["text"], p["reconstruction"]) for p in pages), pages)
    # the control is the reconstruction of another page: the same decoding, another reference
    _, moved, _ = run("reconstruct", "-m", model, "-f", f"{tmp}/pages.jsonl", "-json", "-max_new", "40")
    _, control, _ = run("eval", "-m", model, f"{tmp}/pages.jsonl", "-o", f"{tmp}/forty", "-max_new", "40")
    moved = [json.loads(line)["reconstruction"] for line in moved.splitlines()]
    swapped = sum(precision(t, moved[(i + 1) % len(texts)]) for i, t in enumerate(texts)) / len(texts)
    forty = json.load(open(f"{tmp}/forty/eval.json"))
    check("control_swapped_latents: page i from the latents of page i+1",
          abs(forty["control_swapped_latents"]["char_precision"] - swapped) < 1e-9, (forty, swapped))
    none = forty["control_no_latents"]
    alone = sum(precision(t, none["text"]) for t in texts) / len(texts)
    check("control_no_latents: one text against every page", abs(none["char_precision"] - alone) < 1e-9, (none, alone))
    check("a row a token and one for the end mark", all(p["forced_rows"] == p["tokens"] + 1 for p in pages), pages)
    # long pages of few letters, so that some rows are right by chance
    rng = random.Random(2)
    long = ["".join(rng.choice("abcdefgh VJVf\\|~{") for _ in range(300)) for _ in range(12)]
    counts = {}
    for name, pairs in (("own", [(t, t) for t in long]), ("next", [(long[(i + 1) % 12], t) for i, t in enumerate(long)])):
        with open(f"{tmp}/{name}.json", "w") as f:
            json.dump([{"conversations": [{"from": "context", "value": c}, {"from": "gpt", "value": a}]}
                       for c, a in pairs], f)
        run("eval", "-m", model, f"{tmp}/{name}.json", "-o", f"{tmp}/{name}", "-max_new", "2")
        counts[name] = [json.loads(line) for line in open(f"{tmp}/{name}/pages.jsonl")]
    right = [r["forced_correct"] for r in counts["next"]]
    check("the swapped control's token accuracy is that of other contexts with the same answers",
          [r["control_swapped_latents"]["correct"] for r in counts["own"]] == right and
          right != [r["forced_correct"] for r in counts["own"]], counts)
    run("eval", "-m", model, "-", "-o", f"{tmp}/twice", stdin=(json.dumps({"text": long[0]}) + "\n") * 2)
    same = json.load(open(f"{tmp}/twice/eval.json"))
    text = json.loads(open(f"{tmp}/twice/pages.jsonl").readline())["reconstruction"]
    check("of two equal pages the mean latents are their own, and so are the next page's",
          same["control_no_latents"]["text"] == text and same["char_precision"] > 0 and
          all(same[c][k] == same[k] for c in ("control_no_latents", "control_swapped_latents")
              for k in ("char_precision", "token_accuracy")), same)
    code, text, err = run("eval", "-m", model, f"{tmp}/pages.jsonl", "-o", out, "-no_controls", "-buckets", "10,20,30")
    sums = json.load(open(f"{out}/eval.json"))
    check("-no_controls, -buckets", code == 0 and "control_no_latents" not in sums and
          [b["from"] for b in sums["buckets"]] == [10, 20], sums)
    mixed = '{"text": "a page"}\n{"text": ""}\n{"text": "%s"}\n{"text": "e\u0301"}\n' % ("long " * 100)
    code, text, err = run("eval", "-m", model, "-", "-o", out, "-skip", stdin=mixed)
    sums = json.load(open(f"{out}/eval.json"))
    check("-skip: empty and long pages are counted and said once, with their tokens", code == 0 and
          sums["left_out_empty"] == 1 and sums["left_out_too_long"] == 1 and sums["pages"] == 2 and
          sums["left_out_too_long_tokens"] == 500 and sums["left_out_of_tokens"] == 508 and
          err.count("left out") == 2 and "warning: 1 of 3 pages with 500 of 508 tokens (98.4 %) left out" in err and
          "1 of 3 pages with 500 of 508 tokens" in text, (code, err, sums))
    check("a page that is not NFC is counted and compared in NFC", sums["pages_not_nfc"] == 1 and
          json.loads(open(f"{out}/pages.jsonl").read().splitlines()[1])["text"] == "\u00e9", sums)


def counts(tmp, model, name, data):
    """What each command that reads pages makes of a file: pages and pages without text, by command."""
    path, found = "-", {}
    if name != "-":
        path = f"{tmp}/{name}"
        with open(path, "w") as f:
            f.write(data)

    def blank(out):
        return next((int(line.split(" without text")[0].split()[-2]) for line in out.splitlines()
                     if " without text" in line), 0)

    code, out, err = run("tokenize", "-tok", f"{model}/qwen.tiktoken", "-vocab", str(K), "-o", f"{tmp}/ruled/train", path,
                         stdin=data)
    found["tokenize"] = code == 0 and (int(out.split()[0]), blank(out))
    code, out, err = run("reconstruct", "-json", "-m", model, "-f", path, "-max_new", "2", stdin=data)
    found["reconstruct"] = code == 0 and (len(out.splitlines()), blank(err))
    code, out, err = run("eval", "-m", model, path, "-o", f"{tmp}/ruled", "-no_controls", "-max_new", "2", stdin=data)
    sums = json.load(open(f"{tmp}/ruled/eval.json")) if code == 0 else {}
    found["eval"] = code == 0 and (sums["pages"], sums["left_out_empty"])
    code, out, err = run("compress", "-m", model, "-f", path, "-o", f"{tmp}/rule.c3", stdin=data)
    found["compress"] = code == 0 and (int(out.split("rule.c3: ")[1].split()[0]), blank(out))
    return found, err


def test_one_rule(tmp, model):
    whole = '{\n  "text": "a page",\n  "id": "x"\n}\n'
    for name, file, data, pages, blank in (
            ("blank pages and the end of pdftotext's output", "-", "one\f\ftwo\f \n\fthree\f\n", 3, 2),
            ("the same in a file", "rule.txt", "one\f\ftwo\f \n\fthree\f\n", 3, 2),
            ("a JSON list on stdin", "-", json.dumps([{"text": "one"}, {"text": "two"}, {"text": "\n"}]), 2, 1),
            ("a JSON list in a file without suffix", "rule", json.dumps([{"text": "one"}], indent=1), 1, 0),
            ("an object over several lines in .json", "rule.json", whole, 1, 0),
            ("two of them on stdin", "-", whole * 2, 2, 0)):
        found, err = counts(tmp, model, file, data)
        check(f"one rule in every command: {name}", all(f == (pages, blank) for f in found.values()), (found, err))
    code, out, err = run("compress", "-m", model, "-f", "-", "-o", f"{tmp}/cut.c3", "-page_tokens", "20",
                         stdin=json.dumps([{"text": "word " * 10}, {"text": "short"}]))
    check("compress says what was cut", code == 0 and
          "cut      1 of 2 pages with 47 of 52 tokens (90.4 %)" in out and "into 3 pages of at most 20 tokens" in out,
          (code, out, err))


def test_data_sets(tmp, model):
    words = ["tokenize", "-tok", f"{model}/qwen.tiktoken", "-vocab", str(K), "-o", f"{tmp}/sets/train"]
    code, out, err = run(*words, "-", stdin=json.dumps([{"text": "x" * n} for n in (100, 9000, 30000)]))
    check("tokenize warns of pages that no default run takes, and names the longest", code == 0 and
          err.startswith("c3: warning: 2 of 3 pages with 39,000 of 39,100 tokens (99.7 %): longer than 8,127 tokens") and
          "8192" in err and "the longest has 30,000 tokens: - page 3 (stdin:3)" in err and err.count("\n") == 1, err)
    code, out, err = run(*words, "-shard_tokens", "1", "-", stdin=json.dumps([{"text": "x"}] * 3))
    code, out, err = run("info", f"{tmp}/sets/train_00001.bin")
    check("info says which shard of how many", code == 0 and "shard 2 of 3 that belong together" in out, (out, err))
    shard = f"{tmp}/sets/train_00002.bin"
    old = time.time() - 100
    os.utime(shard, (old, old))
    code, out, err = run("info", "-check", shard)
    check("info -check computes checksums", code == 0 and "checksums      right" in out, (out, err))
    code, out, err = run("info", shard)
    check("info without it says that it did not", code == 0 and "not computed" in out and "right" not in out, (out, err))
    with open(shard, "r+b") as f:  # one bit, and the time it had
        f.seek(-4, 2)
        byte = f.read(1)[0]
        f.seek(-4, 2)
        f.write(bytes([byte ^ 1]))
    os.utime(shard, (old, old))
    check("the damage hides behind the remembered check", run("info", shard)[0] == 0)
    refused("info -check finds it", ["info", "-check", shard], says=["tokens: expected CRC-32"])
    refused("and what was remembered is forgotten", ["info", shard], says=["tokens: expected CRC-32"])


def main():
    tmp = tempfile.mkdtemp(prefix="test_c3_cli_")
    try:
        model = f"{tmp}/model"
        write_model(model)
        texts = ["The first page.\nTwo lines, \"quoted\".", "then another one in the house", "天地玄黄，宇宙洪荒。", "x",
                 "a somewhat longer page of the same kind, over and over and over and over", "tab\there", "12345 67890"]
        with open(f"{tmp}/pages.jsonl", "w") as f:
            for i, text in enumerate(texts):
                f.write(json.dumps({"id": f"p{i}", "text": text, "lang": "en"}) + "\n")
        test_words()
        test_bad_input(tmp, model)
        test_reconstruct(tmp, model, texts)
        test_shards(tmp, model)
        test_one_rule(tmp, model)
        test_data_sets(tmp, model)
        test_as_written(tmp, model)
        test_header(tmp, model)
        test_run_folder(tmp, model)
        test_eval(tmp, model, texts)
    finally:
        shutil.rmtree(tmp)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
