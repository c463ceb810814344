#!/usr/bin/env python3
"""test_python_door.py: the Python files that checkpoints carry, loaded by transformers as a user would, against the C
programs: latents, loss, gradients' norm and greedy texts of the demo's model and of one with the paper's template; what
Python saves, C reads; docs/python.md as it stands; c3 decompress -trust; what is refused."""
import glob
import json
import os
import random
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from unicodedata import normalize

from harness import C3, ROOT, TRAIN, Folder, case, done, environment, log, make_pages, run

VERSION = version("transformers")
HOME = os.path.join(ROOT, f"build/test-door-modules-{VERSION}")  # where transformers copies code that it is told to trust
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": HOME, "TRANSFORMERS_VERBOSITY": "error", "OMP_NUM_THREADS": "1",
               "TOKENIZERS_PARALLELISM": "false"}

import numpy  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402
from safetensors.torch import save_file as save_torch  # noqa: E402
from transformers import AutoModel  # noqa: E402
from transformers.utils.logging import disable_progress_bar  # noqa: E402

disable_progress_bar()
DEMO = os.path.join(ROOT, "runs/demo")
PAGES, NEW = 50, 200
SPELLS = "a page that spells <|im_end|> and <img>"


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def pages_of(path):
    """Without the white space around them, which c3 compress keeps beside the latents."""
    return [json.loads(line)["text"].strip() for line in read(path).splitlines()]


def write_pages(path, texts):
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(json.dumps({"text": t}) + "\n" for t in texts)


def saved(folder, pages, model, *options):
    """A step without a rate on all the pages as one batch: a checkpoint, and its loss in the log."""
    n = len(pages_of(pages))
    run(C3, ["tokenize", "-m", model, "-o", f"{folder}_data", pages])
    run(TRAIN, ["-m", model, "-data", f"{folder}_data_*.bin", "-b", n, "-g", 1, "-steps", 1, "-lr", 0, "-dtype", "fp32",
                "-threads", 1, "-o", folder, *options])
    return f"{folder}/step_00000001", log(folder)[1]


def load(folder):
    return AutoModel.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32)


def relative(found, expected):
    return float(numpy.linalg.norm(found - expected) / numpy.linalg.norm(expected))


def compare(name, tmp, pages, model, *options):
    """Latents, loss and norm of the gradients on all pages."""
    step, logged = saved(f"{tmp}/{name}", pages, model, *options)
    found, texts = load(step), pages_of(pages)
    run(C3, ["compress", "-m", step, "-f", pages, "-o", f"{tmp}/{name}.c3", "-dtype", "fp32", "-threads", 1])
    expected, latents = load_file(f"{tmp}/{name}.c3")["latents"], found.encode(texts)
    latents = torch.cat(latents) if isinstance(latents, list) else latents
    error = relative(latents.numpy(), expected)
    case(f"{name}: {len(texts)} pages, latents {tuple(latents.shape)} are c3's ({error:.1e})", error <= 1e-5, error)
    loss = found(texts=texts).loss
    loss.backward()
    off = abs(loss.item() - logged["loss"])
    case(f"{name}: the loss is train_c3's ({off:.1e} off {logged['loss']})", off <= 1e-5, (loss.item(), logged))
    norm = sum(p.grad.double().pow(2).sum().item() for p in found.parameters()) ** 0.5
    case(f"{name}: and the gradients' norm", abs(norm / logged["grad_norm"] - 1) <= 1e-4, (norm, logged["grad_norm"]))
    return step, found


ASKED = ["Continue the text: ", "\nWho?\n", "  Why ", "Copy <|im_end|>", "Repeat the text: "]


def compare_prompts(name, tmp, step, model):
    """Each prompt with an answer of its own: the loss is that of c3 eval, which asks so as training does."""
    context, answer, off = "the sea was calm", "and a small boat", []
    for prompt in ASKED:
        with open(f"{tmp}/asked.jsonl", "w") as f:
            f.write(json.dumps({"context": context, "prompt": prompt, "answer": answer}) + "\n")
        run(C3, ["eval", "-m", step, f"{tmp}/asked.jsonl", "-o", f"{tmp}/asked", "-no_controls", "-dtype", "fp32", "-max_new", 2])
        with open(f"{tmp}/asked/eval.json") as f:
            expected = json.load(f)["loss"]
        off.append(abs(model(texts=[answer], contexts=[context], prompt=prompt).loss.item() - expected))
    case(f"{name}: prompts of one's own, those with white space and special tokens' names too, have c3's loss", max(off) <= 1e-5, off)


def test_demo(tmp):
    write_pages(f"{tmp}/pages.jsonl", [*pages_of(f"{ROOT}/data/demo/val_en.jsonl")[:PAGES // 2],
                                       *pages_of(f"{ROOT}/data/demo/val_zh.jsonl")[:PAGES // 2 - 1], SPELLS])
    step, model = compare("demo", tmp, f"{tmp}/pages.jsonl", DEMO)
    r = run(C3, ["reconstruct", "-m", step, "-f", f"{tmp}/pages.jsonl", "-json", "-dtype", "fp32", "-max_new", NEW])
    expected = [json.loads(line)["reconstruction"] for line in r.stdout.splitlines()]
    texts = model.decode(model.encode(pages_of(f"{tmp}/pages.jsonl")), max_new_tokens=NEW)
    wrong = [(a, b) for a, b in zip(texts, expected, strict=True) if a != b]
    case(f"demo: greedy texts of {PAGES} pages are c3 reconstruct's", len(texts) == PAGES and not wrong, wrong[:2])
    compare_prompts("demo", tmp, step, model)
    single = model.encode([pages_of(f"{tmp}/pages.jsonl")[0]])
    case("a batch of one gives the same latents", relative(single.numpy()[0], model.encode(
        pages_of(f"{tmp}/pages.jsonl")[:20]).numpy()[0]) < 1e-5)
    return step, model


def test_fewer_latents(tmp, step, model):
    """encode(n=...): the first n latents, as c3 has them."""
    texts = pages_of(f"{tmp}/pages.jsonl")[:8]
    write_pages(f"{tmp}/eight.jsonl", texts)
    run(C3, ["compress", "-m", step, "-f", f"{tmp}/eight.jsonl", "-o", f"{tmp}/n7.c3", "-n", 7, "-dtype", "fp32", "-threads", 1])
    r = run(C3, ["decompress", "-m", step, f"{tmp}/n7.c3", "-json", "-dtype", "fp32", "-max_new", NEW])
    latents, expected = model.encode(texts, n=7), load_file(f"{tmp}/n7.c3")["latents"]
    error = relative(latents.numpy(), expected)
    case(f"encode(n=7): latents {tuple(latents.shape)} are c3's ({error:.1e})", error <= 1e-5, error)
    found = model.decode(latents, max_new_tokens=NEW)
    case("and the texts", found == [json.loads(x)["text"] for x in r.stdout.splitlines()], found)
    case("training with n=7 has another loss than with all", model(texts=texts, n=7).loss != model(texts=texts).loss ==
         model(texts=texts, n=16).loss)


def several_windows(texts):
    """Joined pages, pages in which every kind of border comes soon after another, and texts that have but a few."""
    rng = random.Random(1)
    pages = ["\n\n".join(rng.sample(texts, rng.randint(1, 5))) for _ in range(20)]
    pages += ["".join(rng.choice(PIECES) + rng.choice(JOINTS) for _ in range(60)) for _ in range(PAGES - 20 - len(HARD_TO_CUT))]
    return [page.strip() for page in pages + HARD_TO_CUT]


PIECES = ["a", "The", "雪", "3", "morning", "\U0001f680", "(no"]
JOINTS = ["\n\n", "\n\n", "\n", "\n", "\r\n", "\n \r\n", " ", "", ". ", '." ', ".” ", ".) ", ".)", "?", "! ", "。", "！”", "？」",
          "”", "\t"]


HARD_TO_CUT = ["word" * 60, "。" * 50, "\U0001f680\u0f3a" * 30, "a\n" * 50, "a\n\nb\n" * 40, "\r\r\n" * 40 + ".",
               "x" + " " * 200 + "y", "1. 2) 3.) " * 20, "雪" * 70, "a short page"]


def test_windows(tmp, texts):
    """Pages of one to many windows, in the C programs' cuts, latents, loss and texts."""
    write_pages(f"{tmp}/long.jsonl", several_windows(texts))
    step, model = compare("windows", tmp, f"{tmp}/long.jsonl", DEMO, "-window", 32)
    pages = pages_of(f"{tmp}/long.jsonl")
    latents = model.encode(pages)
    counts = [len(page) for page in latents]
    with safe_open(f"{tmp}/windows.c3", "np") as f:
        documents = json.loads(f.metadata()["documents"])["documents"]
    case(f"windows: pages of 1 to {max(counts)}, as c3 counts them", counts == [
        page.get("windows", 1) for document in documents for page in document["pages"]] and counts.count(1) > 1, counts)
    r = run(C3, ["reconstruct", "-m", step, "-f", f"{tmp}/long.jsonl", "-json", "-dtype", "fp32", "-max_new", 50])
    # Of such pages the demo's model knows nothing. It writes broken characters, for which c3 puts a U+FFFD a byte, and
    # such as are not in NFC.
    expected, found = ([re.sub("\ufffd+", "\ufffd", normalize("NFC", text)) for text in texts] for texts in (
        [json.loads(line)["reconstruction"] for line in r.stdout.splitlines()], model.decode(latents, max_new_tokens=50)))
    case("windows: greedy texts of pages of different numbers, decoded together, are c3 reconstruct's", found == expected and
         len(set(found)) > PAGES // 2, [x for x in zip(found, expected) if x[0] != x[1]][:2])
    ids = model.generate(latents=latents[:3], max_new_tokens=5)
    case("windows: generate takes them", ids.shape == (3, 5) and ids.tolist() == [
        model.generate(latents=[page], max_new_tokens=5).tolist()[0] for page in latents[:3]], ids)
    compare_prompts("windows", tmp, step, model)
    whole_vocabulary(tmp, pages)
    refused("latents of another width among several", lambda: model.decode([latents[0], latents[1][:, :, :64]]),
            "expected shape (windows, 16, 128)", "64)")
    refused("no latents at all", lambda: model.decode([]), "found (0,)")


def whole_vocabulary(tmp, pages):
    """The tokens that end in ".)", "？」"... have high ranks: an untrained model has them, its latents show the cuts."""
    with open(f"{tmp}/all.txt", "w") as f:
        f.write("the sea was calm")
    run(C3, ["tokenize", "-tok", "data/qwen2.5/qwen.tiktoken", "-vocab", 90000, "-o", f"{tmp}/all", f"{tmp}/all.txt"])
    run(TRAIN, ["-preset", "tiny", "-data", f"{tmp}/all_*.bin", "-b", 1, "-g", 1, "-steps", 1, "-lr", 0, "-window", 24,
                "-threads", 1, "-o", f"{tmp}/all"])
    step = f"{tmp}/all/step_00000001"
    run(C3, ["compress", "-m", step, "-f", f"{tmp}/long.jsonl", "-o", f"{tmp}/all.c3", "-page_tokens", 2000, "-dtype", "fp32"])
    expected, found = load_file(f"{tmp}/all.c3")["latents"], torch.cat(load(step).encode(pages)).numpy()
    case(f"windows: {len(expected)} of the whole vocabulary are cut alike", found.shape == expected.shape and
         relative(found, expected) <= 1e-5, (found.shape, expected.shape))


def test_paper_template(tmp):
    make_pages(f"{tmp}/words.jsonl", 12, seed=3)
    run(C3, ["tokenize", "-tok", "data/qwen2.5/qwen.tiktoken", "-vocab", 300, "-o", f"{tmp}/words", f"{tmp}/words.jsonl"])
    run(TRAIN, ["-preset", "demo", "-template", "c3", "-data", f"{tmp}/words_*.bin", "-b", 4, "-g", 1, "-steps", 5, "-lr",
                1e-2, "-warmup", 1, "-threads", 1, "-o", f"{tmp}/base"])
    step, model = compare("template", tmp, f"{tmp}/words.jsonl", f"{tmp}/base")
    compare_prompts("template", tmp, step, model)
    latents = model.encode(["the sea"])
    before, after = model.words()
    case("a prompt of one's own takes the place of the paper's", model.words("Say it: ")[1] != after and
         model.words("Repeat the text: ") == (before, after) and len(model.decode(latents, "Say it: ", max_new_tokens=3)) == 1)


def test_saved(tmp, step, model):
    """What Python saves is the same model to c3."""
    model.save_pretrained(f"{tmp}/tuned")
    sizes = [run(C3, ["compress", "-m", m, "-f", f"{tmp}/pages.jsonl", "-o", f"{tmp}/{i}.c3", "-dtype", "fp32",
                      "-threads", 1]) for i, m in enumerate((step, f"{tmp}/tuned"))]
    same = numpy.array_equal(*(load_file(f"{tmp}/{i}.c3")["latents"] for i in range(2)))
    case("save_pretrained: c3 reads it, same latents", len(sizes) == 2 and same)
    back = load(f"{tmp}/tuned")
    case("and AutoModel, with the code in it", torch.equal(back.encode(["the sea"]), model.encode(["the sea"])), os.listdir(f"{tmp}/tuned"))
    r = run(C3, ["decompress", "-m", f"{tmp}/tuned", f"{tmp}/0.c3", "-trust", "-json", "-max_new", NEW, "-dtype", "fp32"])
    again = run(C3, ["decompress", "-m", step, f"{tmp}/0.c3", "-json", "-max_new", NEW, "-dtype", "fp32"])
    case("and the same texts", [json.loads(x)["text"] for x in r.stdout.splitlines()] ==
         [json.loads(x)["text"] for x in again.stdout.splitlines()], r.stdout)


def one_line(name, folder, *arguments, says):
    r = run(C3, ["decompress", "-m", folder, *arguments], check=False)
    case(f"refused: {name}", r.returncode == 1 and not r.stdout and r.stderr.count("\n") == 1 and
         all(s in r.stderr for s in says), (r.returncode, r.stdout, r.stderr))


def test_trust(tmp, step, model):
    texts = pages_of(f"{tmp}/pages.jsonl")[:6]
    latents = model.encode(texts)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        path = f"{tmp}/made_{name}.c3"
        save_torch({"latents": latents.to(dtype).contiguous()}, path)
        r = run(C3, ["decompress", "-m", step, path, "-trust", "-json", "-dtype", "fp32"])
        found = [json.loads(line) for line in r.stdout.splitlines()]
        expected = model.decode(latents.to(dtype), max_new_tokens=NEW)
        case(f"-trust: {name} latents made in Python, a document a page", [o["text"] for o in found] == expected and
             [o["id"] for o in found] == [str(i + 1) for i in range(6)], (found, expected))
    with open(f"{tmp}/made_fp32.c3", "rb") as f:
        data = f.read()
    r = subprocess.run([C3, "decompress", "-m", step, "-", "-trust"], input=data, capture_output=True, env=environment(),
                       timeout=600)
    case("-trust: on stdin", r.returncode == 0 and r.stdout.count(b"\f") == 5, r)
    one_line("latents made elsewhere, without -trust", step, f"{tmp}/made_fp32.c3", says=["no latents"])
    one_line("-trust with -verify", step, f"{tmp}/made_fp32.c3", "-trust", "-verify", says=["-verify"])
    bad = latents.numpy().copy()
    bad[2, 3, 4] = numpy.nan
    for name, tensors, says in (
            ("another width", {"latents": latents.numpy()[:, :, :64].copy()}, ["16 of 64", "16 of 128"]),
            ("more latents", {"latents": numpy.tile(latents.numpy(), (1, 2, 1))}, ["32 of 128"]),
            ("NaN latents", {"latents": bad}, ["page 3", "latent 4", "not finite"]),
            ("fp16", {"latents": latents.numpy().astype(numpy.float16)}, ["F32 or BF16"]),
            ("another name", {"x": latents.numpy()}, ['"latents"']),
            ("two dimensions", {"latents": latents.numpy()[0].copy()}, ["(pages, latents, width)"])):
        save_file(tensors, f"{tmp}/bad.c3")
        one_line(f"-trust: {name}", step, f"{tmp}/bad.c3", "-trust", says=says)


def refused(name, call, *says):
    try:
        call()
        case(f"refused in Python: {name}", False, "nothing was said")
    except (ValueError, ImportError) as e:
        case(f"refused in Python: {name}", "\n" not in str(e) and all(s in str(e) for s in says), e)


def test_refusals(tmp, step, model):
    latents = model.encode(["a page"])
    refused("another width", lambda: model.decode(latents[:, :, :64]), "expected shape (pages, 16, 128)", "(1, 16, 64)")
    refused("no batch", lambda: model.decode(latents[0]), "(16, 128)")
    refused("more latents than the model has", lambda: model.encode(["a"], n=17), "16", "17")
    refused("none", lambda: model.encode(["a"], n=0), "found 0")
    refused("latents of more", lambda: model.decode(latents.repeat(1, 2, 1)), "(1, 32, 128)")
    bad = latents.clone()
    bad[0, 1, 2] = float("inf")
    refused("numbers that are not finite", lambda: model.decode(bad), "page 1", "not finite")
    refused("an empty page", lambda: model.encode(["a", ""]), "number 2 is empty")
    refused("no page", lambda: model.encode([]), "there is none")
    old = "import transformers; transformers.__version__ = '4.49.0'; from transformers import AutoModel; " \
          f"AutoModel.from_pretrained({step!r}, trust_remote_code=True)"
    r = subprocess.run([sys.executable, "-c", old], capture_output=True, text=True, timeout=600, env=os.environ)
    case("refused in Python: an old transformers, in one line that names the remedy", r.returncode == 1 and
         "transformers 4.49.0 is too old: expected 5.0" in r.stderr.strip().split("\n")[-1], r.stderr[-300:])


def test_code(tmp, step):
    """Whose code is in a checkpoint."""
    ours = {name: read(f"{ROOT}/scripts/python/{name}") for name in ("configuration_c3.py", "modeling_c3.py")}
    case("the checkpoint carries our files, byte for byte", all(read(f"{step}/{n}") == t for n, t in ours.items()))
    write_pages(f"{tmp}/few.jsonl", pages_of(f"{tmp}/pages.jsonl")[:4])
    again, _ = saved(f"{tmp}/again", f"{tmp}/few.jsonl", step)
    case("so does one that goes on from it", all(read(f"{again}/{n}") == t for n, t in ours.items()))
    shutil.copytree(step, f"{tmp}/theirs", ignore=shutil.ignore_patterns("trainer", "COMPLETE", "MADE_BY"))
    with open(f"{tmp}/theirs/modeling_c3.py", "w") as f:
        f.write("# the authors' own\n")
    run(TRAIN, ["-m", f"{tmp}/theirs", "-data", f"{tmp}/again_data_*.bin", "-b", 4, "-g", 1, "-steps", 1, "-lr", 0, "-o",
                f"{tmp}/kept", "-keep_code", "-threads", 1])
    case("the authors' own files are not overwritten, neither there nor with -keep_code", all(
        read(f) == "# the authors' own\n" for f in (f"{tmp}/theirs/modeling_c3.py", f"{tmp}/kept/step_00000001/modeling_c3.py")))
    run(C3, ["extract", "-m", step, "-part", "decoder", "-o", f"{tmp}/decoder"])
    case("an extract is a plain Qwen2 folder, without code", not glob.glob(f"{tmp}/decoder/*.py"))


# The model above was trained by a step since: the decoder alone is compared with the checkpoint's.
ELSEWHERE = """
model = AutoModel.from_pretrained(step, trust_remote_code=True, dtype=torch.float32)
latents = model.encode(texts)
options = dict(max_new_tokens=100, do_sample=False, pad_token_id=model.config.base_vocab)
rows = torch.stack(model.context(latents)).detach()
ids = decoder.generate(inputs_embeds=rows, attention_mask=torch.ones(rows.shape[:2]), **options)
assert ids.tolist() == model.generate(latents=latents, **options).tolist(), "the decoder elsewhere"
"""


def test_docs(tmp):
    """docs/python.md from top to bottom, in a folder with a run of this name."""
    home = f"{tmp}/docs"
    os.makedirs(f"{home}/runs")
    os.symlink(f"{tmp}/demo", f"{home}/runs/NAME")
    os.symlink(C3, f"{home}/c3")
    write_pages(f"{home}/pages.jsonl", pages_of(f"{tmp}/pages.jsonl")[:4])
    parts = re.findall(r"```python\n(.*?)```|^    (\./c3 [^\n]*)$", read(f"{ROOT}/docs/python.md"), re.M | re.S)
    script = "import subprocess\n" + "".join(
        code or f"print(subprocess.run({command!r}.split(), check=True, capture_output=True, text=True).stdout)\n"
        for code, command in parts)
    script += ELSEWHERE
    r = subprocess.run([sys.executable, "-c", script], cwd=home, capture_output=True, text=True, timeout=600, env=environment())
    case("docs/python.md runs as it stands", len(parts) == 8 and r.returncode == 0 and os.path.exists(f"{home}/mixture.c3"),
         f"{len(parts)} parts\n{r.stdout[-500:]}\n{r.stderr[-1500:]}")


for expected in sys.argv[1:]:  # test_python_door_oldest.sh
    case(f"this is transformers {expected}", VERSION == transformers.__version__ == expected, transformers.__file__)
with Folder() as folder:
    demo = test_demo(folder)
    test_fewer_latents(folder, *demo)
    test_windows(folder, pages_of(f"{folder}/pages.jsonl"))
    test_paper_template(folder)
    test_saved(folder, *demo)
    test_trust(folder, *demo)
    test_refusals(folder, *demo)
    test_code(folder, demo[0])
    test_docs(folder)
shutil.rmtree(HOME, ignore_errors=True)
done()
