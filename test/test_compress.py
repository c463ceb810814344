"""c3 compress and c3 decompress with the demo's model: pages and documents through latents on disk and back, what a
stranger finds in the file, and everything that must be refused."""
import glob
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import unicodedata

from harness import C3, ROOT, Folder, case, done, environment, leftovers

DEMO = os.path.join(ROOT, "runs/demo")
STEP = sorted(glob.glob(os.path.join(DEMO, "step_*")))[-1]
N, WIDTH = 16, 128


def c3(*args, stdin=None):
    r = subprocess.run([C3, *map(str, args)], input=stdin or b"", capture_output=True, env=environment(), timeout=300)
    return r.returncode, r.stdout, r.stderr.decode()


def compress(out, source, *more, stdin=None):
    return c3("compress", "-m", DEMO, "-f", source, "-o", out, *more, stdin=stdin)


def decompress(file, *more):
    return c3("decompress", "-m", DEMO, file, *more)


def refused(name, result, *says, code=1, left=()):
    got, out, err = result
    good = got == code and err.startswith("c3: ") and err.count("\n") == 1 and not out and all(s in err for s in says)
    here = [p for p in left if os.path.exists(p)]
    case(f"refused: {name}", good and not here, (got, out[:200], err, here))


def lines(data):
    return [json.loads(line) for line in data.splitlines()]


def write(path, data):
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())
    return path


def header(path):
    """Header and data of a safetensors file."""
    with open(path, "rb") as f:
        data = f.read()
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + size]), data[8 + size:]


def rewrite(path, source, change):
    """The file of latents with its documents changed and its checksum right again."""
    head, data = header(source)
    meta = head["__metadata__"]
    documents = json.loads(meta["documents"])
    change(documents["documents"])
    meta["documents"] = json.dumps(documents)
    meta["sha256"] = hashlib.sha256(f"{meta['model']}\0{meta['documents']}\0".encode() + data).hexdigest()
    text = json.dumps(head).encode()
    return write(path, struct.pack("<Q", len(text)) + text + data)


def pages_of(part, n):
    """Without the white space around them, which c3 compress keeps beside the latents."""
    with open(os.path.join(ROOT, f"data/demo/val_{part}.jsonl")) as f:
        pages = [json.loads(line) for line in f][:n]
    return [p | {"text": p["text"].strip()} for p in pages]


def test_pages(tmp):
    """JSONL pages; returns those the model gives back exactly."""
    pages = pages_of("en", 40) + pages_of("zh", 20)
    source = write(f"{tmp}/pages.jsonl", "".join(json.dumps(p) + "\n" for p in pages))
    code, out, err = c3("reconstruct", "-m", DEMO, "-f", source, "-json")
    wanted = lines(out)
    code, out, err = compress(f"{tmp}/pages.c3", source)
    size = os.path.getsize(f"{tmp}/pages.c3")
    tokens = sum(p["tokens"] for p in wanted)
    case("compress says documents, tokens, latents, bytes", code == 0 and not err and
         "60 documents, 60 pages" in out.decode() and f"{tokens:,} tokens" in out.decode() and
         f"{60 * N * WIDTH * 2:,} of latents" in out.decode() and f"the file {size:,}:" in out.decode(),
         (code, out.decode(), err))
    code, out, err = decompress(f"{tmp}/pages.c3", "-json", "-verify")
    got = lines(out)
    exact = [p["text"] == p["reconstruction"] for p in wanted]
    case("decompress writes what reconstruct writes", [p["text"] for p in got] == [p["reconstruction"] for p in wanted],
         got)
    far = [(a["id"], a[k], b[k]) for a, b in zip(got, wanted) for k in ("mean_log_prob", "least_log_prob")
           if len(a[k]) != 1 or abs(a[k][0] - b[k]) > 1e-5]
    case("with the confidence that reconstruct shows", not far and len({a["least_log_prob"][0] for a in got}) > 50, far)
    case("ids and order are kept", [p["id"] for p in got] == [p["id"] for p in pages])
    case("-verify says which pages came back exactly", [p["exact"] for p in got] == exact and
         f"verify: {sum(exact)} of 60 pages" in err and code == (0 if all(exact) else 1), (code, err, exact))
    case("the model is good enough for the rest of this test", sum(exact) >= 40, exact)
    code, out, err = decompress(f"{tmp}/pages.c3", "-json", "-batch", 7)
    case("without -verify: exit code 0, no verdict, the same text", code == 0 and not err and
         [p["text"] for p in lines(out)] == [p["text"] for p in got] and "exact" not in lines(out)[0], (code, err))
    return [p for p, good in zip(pages, exact) if good], wanted


def test_file(tmp, wanted):
    head, data = header(f"{tmp}/pages.c3")
    meta, tensor = head["__metadata__"], head["latents"]
    documents = json.loads(meta["documents"])["documents"]
    case("a safetensors file of one tensor in the run's element type", tensor["shape"] == [60, N, WIDTH] and
         tensor["dtype"] == "BF16" and len(data) == 60 * N * WIDTH * 2, tensor)
    case("token counts and checksums of the texts are in it", all(
        d["pages"] == [{"tokens": w["tokens"], "sha256": hashlib.sha256(w["text"].encode()).hexdigest()}]
        for d, w in zip(documents, wanted)), documents[:2])
    info = c3("info", DEMO)[1].decode()
    case("the fingerprint is the one c3 info shows", re.fullmatch("[0-9a-f]{64}", meta["model"]) and
         meta["model"] in info, (meta["model"], info))
    code, out, err = c3("info", f"{tmp}/pages.c3")
    tokens = sum(w["tokens"] for w in wanted)
    case("c3 info of it", code == 0 and not err and all(s in out.decode() for s in (
        meta["model"], "60 in 60 documents", f"{N} of {WIDTH} numbers", f"{tokens:,}, {tokens / 60 / N:.1f} a latent")),
         (code, out, err))
    text = f"{meta['model']}\0{meta['documents']}\0".encode()
    case("its checksum is what the format says", hashlib.sha256(text + data).hexdigest() == meta["sha256"])
    compress(f"{tmp}/fp32.c3", f"{tmp}/pages.jsonl", "-dtype", "fp32")
    head, wide = header(f"{tmp}/fp32.c3")
    narrow = struct.unpack(f"<{len(data) // 2}H", data)
    close = [abs(a - struct.unpack("<f", struct.pack("<I", b << 16))[0])
             for a, b in zip(struct.unpack(f"<{len(wide) // 4}f", wide), narrow)]
    case("-dtype fp32: F32 latents, those of bf16 within its error", head["latents"]["dtype"] == "F32" and
         0 < max(close) < 0.25, (head["latents"], max(close)))
    code, out, err = decompress(f"{tmp}/fp32.c3", "-verify", "-json")
    case("and bf16 decodes them", code in (0, 1) and len(lines(out)) == 60 and "verify:" in err, (code, err))


def test_documents(tmp, good):
    """Pages that come back exactly, put together with white space of every kind."""
    long = [p["text"] for p in good if "\n" not in p["text"] and p["tokens"] > 33]  # no two in 64
    first = "  \n" + long[0] + "\r\n\r\n" + long[1] + "\n \t\n\n" + long[2] + "\n\n"
    second = long[3] + "\n\n" + long[4]
    text = (first + "\f" + second).encode()
    code, out, err = compress(f"{tmp}/doc.c3", "-", "-page_tokens", 64, stdin=text)
    head, _ = header(f"{tmp}/doc.c3")
    documents = json.loads(head["__metadata__"]["documents"])["documents"]
    case("text on stdin: documents between form feeds, pages cut at paragraphs", code == 0 and
         [len(d["pages"]) for d in documents] == [3, 2] and documents[0]["gaps"][1] == "\r\n\r\n",
         (code, out, err, documents))
    code, out, err = decompress(f"{tmp}/doc.c3", "-verify")
    case("they come back byte for byte", code == 0 and out == text and "5 of 5 pages" in err and
         "2 of 2 documents" in err, (code, out, text, err))
    code, out, err = decompress(f"{tmp}/doc.c3", "-json")
    case("-json: a confidence for each page", code == 0 and [len(d["mean_log_prob"]) for d in lines(out)] == [3, 2] and
         all(least <= mean <= 0 for d in lines(out) for mean, least in zip(d["mean_log_prob"], d["least_log_prob"])), (out, err))
    code, out, err = decompress(f"{tmp}/doc.c3", "-o", f"{tmp}/doc.txt")
    with open(f"{tmp}/doc.txt", "rb") as f:
        case("-o FILE", code == 0 and not out and f.read() == text, (code, out, err))
    code, latents, err = compress("-", "-", "-page_tokens", 64, stdin=text)
    with open(f"{tmp}/doc.c3", "rb") as f:
        case("-o -: the same file on stdout, the sizes on stderr", code == 0 and latents == f.read() and
             "5 pages" in err, (code, len(latents), err))
    code, out, err = c3("decompress", "-m", DEMO, "-", stdin=latents)
    case("latents on stdin", code == 0 and out == text and not err, (code, out, err))
    refused("damaged latents on stdin", c3("decompress", "-m", DEMO, "-", stdin=latents[:-5]), "standard input")
    rewrite(f"{tmp}/other.c3", f"{tmp}/doc.c3", lambda d: d[0]["pages"][1].update(sha256="0" * 64))
    code, out, err = decompress(f"{tmp}/other.c3", "-verify")
    case("a page that is not what it was is named, and fails", code == 1 and out == text and "4 of 5 pages" in err and
         "1 of 2 documents" in err and "page 2 of stdin:1" in err, (code, err))
    story = "\n".join(p["text"] for p in pages_of("en", 90))
    compress(f"{tmp}/story.c3", "-", stdin=story.encode())
    head, _ = header(f"{tmp}/story.c3")
    tokens = [p["tokens"] for p in json.loads(head["__metadata__"]["documents"])["documents"][0]["pages"]]
    case("without -page_tokens pages are as long as those the model was trained on", len(tokens) >= 60 and
         58 < max(tokens) <= 64, tokens)
    page = next(p["text"] for p in good if ";" in p["text"])
    other = page.replace(";", "\u037e")  # the Greek question mark, which NFC turns into a semicolon
    assert unicodedata.normalize("NFC", other) == page
    code, out, err = compress(f"{tmp}/nfd.c3", "-", stdin=json.dumps({"text": other}).encode())
    said = "not in NFC" in out.decode()
    code, out, err = decompress(f"{tmp}/nfd.c3", "-verify")
    case("text that is not in NFC is said to be so; its NFC form comes back", said and code == 0 and
         out.decode() == page and "not in NFC" in err, (code, out, err))


def test_refusals(tmp):
    out = f"{tmp}/new.c3"
    page = b'{"text": "a page"}\n'
    for name, stdin, says in (
            ("no documents", b"", ["no page"]), ("a page without text", b'{"text": ""}\n', ["1 without text"]),
            ("invalid UTF-8", b"good \xff bad", ["stdin"]), ("broken JSON", b'{"text": "a"\n', ["line 1"])):
        refused(name, compress(out, "-", stdin=stdin), *says, left=[out])
    refused("no such pages", compress(out, f"{tmp}/none.txt"), "none.txt", left=[out])
    refused("no such model", c3("compress", "-m", f"{tmp}/none", "-f", "-", "-o", out, stdin=page), "none", left=[out])
    refused("pages longer than the model takes", compress(out, "-", "-page_tokens", 100000, stdin=page),
            "-page_tokens 100000", left=[out])
    refused("pages too short for any text", compress(out, "-", "-page_tokens", 3, stdin=page), "at least 16",
            left=[out])
    refused("nowhere to write", compress(f"{tmp}/none/x.c3", "-", stdin=page), f"{tmp}/none/x.c3")
    refused("compress without -o", c3("compress", "-m", DEMO), "-o X.c3", code=2)
    refused("compress without -m", c3("compress", "-o", out), "-m DIR", code=2)
    refused("decompress without a file", c3("decompress", "-m", DEMO), "found 0", code=2)
    refused("decompress without -m", c3("decompress", f"{tmp}/doc.c3"), "-m DIR", code=2)

    with open(f"{tmp}/doc.c3", "rb") as f:
        data = f.read()
    text = f"{tmp}/out.txt"
    for name, content, says in (("truncated latents", data[:-1], "bytes"), ("an empty file", b"", "0 bytes"),
                                ("a damaged number", data[:-9] + bytes([data[-9] ^ 64]) + data[-8:], "damaged"),
                                ("a text", b"just a text, no latents", "no safetensors file")):
        bad = write(f"{tmp}/bad.c3", content)
        refused(name, decompress(bad, "-o", text), "bad.c3", says, left=[text])
    refused("c3 info of damaged latents", c3("info", write(f"{tmp}/bad.c3", data[:-1] + b"!")), "damaged")
    refused("weights in place of latents", decompress(f"{STEP}/model.safetensors"), "no latents")
    refused("no such latents", decompress(f"{tmp}/none.c3"), "none.c3")
    refused("nowhere to write the text", decompress(f"{tmp}/doc.c3", "-o", f"{tmp}/none/x.txt"), "none/x.txt")
    many = rewrite(f"{tmp}/many.c3", f"{tmp}/doc.c3", lambda d: d[1]["pages"][1].update(tokens=10 ** 6))
    refused("a page of more tokens than the model takes", decompress(many), "page 5", "1000000")
    none = rewrite(f"{tmp}/zero.c3", f"{tmp}/doc.c3", lambda d: d[1]["pages"][1].update(tokens=0))
    refused("a page of no tokens", decompress(none), "document 2", "tokens")

    other = f"{tmp}/other_model"
    shutil.copytree(STEP, other, ignore=shutil.ignore_patterns("trainer"))
    with open(f"{other}/model.safetensors", "r+b") as f:
        f.seek(-1, os.SEEK_END)
        last = f.read(1)[0]
        f.seek(-1, os.SEEK_END)
        f.write(bytes([last ^ 1]))
    refused("latents of a model that differs in one bit", c3("decompress", "-m", other, f"{tmp}/doc.c3", "-o", text),
            "another model", left=[text])
    shutil.rmtree(other)
    with open("/dev/full", "wb") as full:
        r = subprocess.run([C3, "decompress", "-m", DEMO, f"{tmp}/doc.c3"], stdout=full, stderr=subprocess.PIPE,
                           env=environment(), timeout=300)
    case("refused: a full disk behind stdout", r.returncode == 1 and b"standard output: cannot" in r.stderr, r)


UNTRAINED = "c3: warning: the model was not trained with {} latents a page: expect errors"


def test_fewer_latents(tmp):
    """-n: the first n of N latents, in every command. The demo's model was trained with all 16 alone, which is said."""
    pages = [p["text"] for p in pages_of("en", 3)]
    write(f"{tmp}/three.jsonl", "".join(json.dumps({"text": t}) + "\n" for t in pages))
    files = {}
    for n in (16, 12, 3):
        code, _, err = compress(f"{tmp}/n{n}.c3", f"{tmp}/three.jsonl", "-n", n, "-dtype", "fp32", "-threads", 1)
        head, data = header(f"{tmp}/n{n}.c3")
        files[n] = [data[i * n * WIDTH * 4:(i + 1) * n * WIDTH * 4] for i in range(3)]
        case(f"compress -n {n}: (3, {n}, {WIDTH}) latents, said {'nothing' if n == N else 'once'} of training",
             code == 0 and head["latents"]["shape"] == [3, n, WIDTH] and
             err.count(UNTRAINED.format(n)) == (n != N) == err.count("warning"), (code, head["latents"], err))
    case("they are the first of all, bit for bit", all(files[N][i].startswith(files[n][i]) for n in (12, 3) for i in range(3)))
    code, out, err = decompress(f"{tmp}/n12.c3", "-json", "-dtype", "fp32")
    _, pages, noted = c3("reconstruct", "-m", DEMO, "-f", f"{tmp}/three.jsonl", "-json", "-n", 12, "-dtype", "fp32")
    _, whole, _ = c3("reconstruct", "-m", DEMO, "-f", f"{tmp}/three.jsonl", "-json", "-dtype", "fp32")
    case("decompress takes 12 latents for a model of 16: reconstruct -n 12 writes the same, which is not what all 16 give",
         code == 0 and [o["text"] for o in lines(out)] == [o["reconstruction"] for o in lines(pages)] !=
         [o["reconstruction"] for o in lines(whole)] and lines(pages)[0]["latents"] == 12, (out, pages))
    case("both say that the model was not trained so", all(e.count("warning") == 1 == e.count(UNTRAINED.format(12)) for e in
                                                           (err, noted)), (err, noted))
    evaluate = ["eval", "-m", DEMO, f"{tmp}/three.jsonl", "-no_controls", "-dtype", "fp32"]
    code, out, err = c3(*evaluate, "-n", "16,12", "-o", f"{tmp}/eval")
    c3(*evaluate, "-o", f"{tmp}/alone")
    c3(*evaluate, "-n", 12, "-o", f"{tmp}/twelve")
    case("eval -n 16,12: OUT_n12 and OUT_n16 are those of 12 and 16 alone", code == 0 and not os.path.exists(f"{tmp}/eval") and all(
        open(f"{tmp}/eval_n{n}/{name}", "rb").read() == open(f"{tmp}/{single}/{name}", "rb").read()
        for n, single in ((12, "twelve"), (16, "alone")) for name in ("eval.json", "pages.jsonl")), err)
    sums = [json.load(open(f"{tmp}/eval_n{n}/eval.json")) for n in (12, 16)]
    row = re.search(r"\| +12 latents \| +16 latents\n(?s:.*)\nall +3 \| +(\S+)% +\S+x \| +(\S+)% +(\S+)x\n", out.decode())
    case("and one table shows both", row and [row[1], row[2], row[3]] == [
        *(f"{100 * s['char_precision']:.2f}" for s in sums), f"{sums[1]['tokens_per_latent']:.1f}"], out.decode()[-900:])
    case("which warns of 12 alone", err.count("warning") == 1 == err.count(UNTRAINED.format(12)), err)
    trained = f"{tmp}/trained"
    shutil.copytree(STEP, trained, ignore=shutil.ignore_patterns("trainer", "COMPLETE"))
    with open(f"{trained}/config.json", encoding="utf-8") as f:
        config = json.load(f)
    write(f"{trained}/config.json", json.dumps(config | {"c3_trained_latents": [8, 12, 16]}))
    code, _, err = c3("reconstruct", "-m", trained, "-f", f"{tmp}/three.jsonl", "-n", 12)
    info = c3("info", trained)[1].decode()
    case("of a model that was trained so nothing is said", code == 0 and "warning" not in err, err)
    case("c3 info names the numbers", "with 8, 12, 16 latents a page" in info, info)
    shutil.rmtree(trained)
    for name, args in (("compress", ["-f", f"{tmp}/three.jsonl", "-o", f"{tmp}/no.c3"]), ("reconstruct", ["-f", f"{tmp}/three.jsonl"]),
                       ("eval", [f"{tmp}/three.jsonl", "-o", f"{tmp}/no"])):
        refused(f"{name} -n 17", c3(name, "-m", DEMO, *args, "-n", 17), "has 16 latents", "17 of -n", left=[f"{tmp}/no.c3", f"{tmp}/no"])
    for n in ("0", "8,8", "8,x", "8:1", "-3", "8.5"):
        refused(f"eval -n {n}", c3(*evaluate, "-n", n, "-o", f"{tmp}/no"), "-n", code=2, left=[f"{tmp}/no"])
    wide = rewrite(f"{tmp}/wide.c3", f"{tmp}/n16.c3", lambda d: None)
    head, data = header(wide)
    head["latents"]["shape"] = [3, 2 * N, WIDTH // 2]
    text = json.dumps(head).encode()
    write(wide, struct.pack("<Q", len(text)) + text + data)
    refused("latents of another width", decompress(wide), "32 of 64", "16 of 128")


def main():
    with Folder() as tmp:
        os.environ["TMPDIR"] = f"{tmp}/pipes"
        os.mkdir(f"{tmp}/pipes")
        good, wanted = test_pages(tmp)
        test_file(tmp, wanted)
        test_documents(tmp, good)
        test_refusals(tmp)
        test_fewer_latents(tmp)
        left = leftovers(tmp) + os.listdir(os.environ["TMPDIR"])
        case("no half-written file is left, nor one made for a pipe", not left, left)
    done()


main()
