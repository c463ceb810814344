#!/usr/bin/env python3
"""test_hub.py: scripts/fetch_hub.py, get_models.sh and paper_corpus.sh against a hub on the loopback interface that answers
as the real one does: commits, sizes and checksums, ranges, files that come slowly, damaged, or not at all."""
import hashlib
import http.server
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.parse

from harness import ROOT, Folder, case, done, wait_for

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = random.Random(1).randbytes(3_000_000)
MODEL = {"config.json": b'{"model_type": "qwen2"}\n', "LICENSE": b"Apache-2.0\n", "README.md": b"not asked for\n",
         "merges.txt": b"a b\n", "model.safetensors": WEIGHTS, "tokenizer.json": b"{}\n"}
FINEPDFS = {f"data/{language}/{part}/000_0000{i}.parquet": f"PAR1 {language} {part} {i}".encode() * (i + 1)
            for language in ("eng_Latn", "cmn_Hani", "deu_Latn") for part in ("train", "test") for i in range(3)}
REPOSITORIES = {"models/Qwen/Qwen2.5-1.5B": MODEL, "models/Qwen/Qwen2.5-3B": MODEL, "datasets/HuggingFaceFW/finepdfs": FINEPDFS}


def digests(data):
    return hashlib.sha256(data).hexdigest(), hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    """What of the hub's interface huggingface_hub asks for: the description of a repository, and its files."""
    protocol_version = "HTTP/1.1"
    log, slow, damaged, broken = [], set(), set(), set()  # requests; files that come in drops, with a wrong bit, half at first

    def log_message(self, *_):
        pass

    def reply(self, code, body=b"", **headers):
        self.send_response(code)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def describe(self, kind, repository):
        files = REPOSITORIES.get(f"{kind}/{repository}")
        if files is None:
            return self.reply(404, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        siblings = []
        for name, data in files.items():
            sha256, git = digests(data)
            lfs = {"lfs": {"sha256": sha256, "size": len(data), "pointerSize": 134}} if "." + name.split(".")[-1] in \
                (".safetensors", ".parquet") else {}
            siblings.append({"rfilename": name, "size": len(data), "blobId": git, **lfs})
        about = {"id": repository, "sha": COMMIT, "siblings": siblings, "private": False, "tags": [], "downloads": 0}
        return self.reply(200, json.dumps(about).encode(), Content_Type="application/json")

    def file(self, kind, repository, revision, name):
        data = REPOSITORIES.get(f"{kind}/{repository}", {}).get(name)
        if data is None or revision != COMMIT:
            return self.reply(404, X_Error_Code="EntryNotFound")
        sha256, git = digests(data)
        large = name.endswith((".safetensors", ".parquet"))
        if name in self.damaged:
            data = data[:-1] + bytes([data[-1] ^ 1])
        begin = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1]) if self.headers["Range"] else 0
        headers = {"ETag": f'"{sha256 if large else git}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        self.log.append((self.command, name, begin))
        if name in self.broken and self.command == "GET":
            self.broken.remove(name)
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[:len(data) // 2])
            self.close_connection = True
            return None
        if name in self.slow and self.command == "GET":
            self.send_response(206 if begin else 200)
            for key, value in {**headers, "Content-Length": len(data) - begin}.items():
                self.send_header(key, str(value))
            self.end_headers()
            for at in range(begin, len(data), 100_000):
                self.wfile.write(data[at:at + 100_000])
                time.sleep(0.2)
            return None
        return self.reply(206 if begin else 200, data[begin:], **headers)

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        try:
            if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/revision/main", path):
                self.describe(*found.groups())
            elif found := re.fullmatch(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self.file(found[1] or "models", *found.groups()[1:])
            else:
                self.reply(404)
        except (BrokenPipeError, ConnectionResetError):
            pass

    do_HEAD = do_GET


def environment(tmp, endpoint, **more):
    plain = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
    return plain | {"HF_ENDPOINT": endpoint, "HF_HOME": f"{tmp}/hf", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "MODELS": f"{tmp}/models", **more}


def call(command, env, cwd=ROOT):
    r = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=120)
    return r.returncode, r.stdout, r.stderr


def read(path):
    with open(path, "rb") as f:
        return f.read()


def same(folder, files):
    """Names of the files that are not what the hub has."""
    return [n for n, data in files.items() if not os.path.exists(f"{folder}/{n}") or read(f"{folder}/{n}") != data]


def test_models(tmp, env):
    script = ["bash", "scripts/get_models.sh"]
    code, out, err = call(script, env)
    wanted = {k: v for k, v in MODEL.items() if k != "README.md"}
    wrong = [w for m in ("1.5B", "3B") for w in same(f"{tmp}/models/Qwen2.5-{m}", wanted)]
    case("get_models.sh: both models come whole, and nothing else", code == 0 and not wrong and
         not os.path.exists(f"{tmp}/models/Qwen2.5-3B/README.md"), (code, out, err, wrong))
    folder = f"{tmp}/models/Qwen2.5-3B"
    source = json.loads(read(f"{folder}/SOURCE.json"))
    sums = {n: f["sha256"] for n, f in source["files"].items()}
    case("SOURCE.json names the commit that main was, and the files' SHA-256", source["commit"] == COMMIT and
         sums == {n: digests(data)[0] for n, data in wanted.items()}, source)
    Hub.log.clear()
    code, out, err = call(script, env)
    case("again: verified, nothing is fetched", code == 0 and "0 to fetch" in out and not Hub.log, (code, out, err, Hub.log))
    with open(f"{folder}/model.safetensors", "r+b") as f:
        f.seek(1000)
        f.write(b"damage")
    os.remove(f"{folder}/config.json")
    code, out, err = call(script, env)
    gets = [n for c, n, _ in Hub.log if c == "GET"]
    case("what is damaged or missing is fetched again, nothing else", code == 0 and not same(folder, wanted) and
         sorted(gets) == ["config.json", "model.safetensors"], (code, out, err, gets))


def test_interrupted(tmp, env):
    folder = f"{tmp}/slow"
    command = [sys.executable, "scripts/fetch_hub.py", "Qwen/Qwen2.5-1.5B", folder]
    Hub.slow.add("model.safetensors")
    program = subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    part = f"{folder}/model.safetensors.part"
    started = wait_for(lambda: os.path.exists(part) and os.path.getsize(part) >= 1_000_000, 60)
    program.send_signal(signal.SIGKILL)
    program.communicate()
    Hub.slow.clear()
    Hub.log.clear()
    code, out, err = call(command, env)
    begins = [begin for c, n, begin in Hub.log if c == "GET" and n == "model.safetensors"]
    case("killed in the middle of a file: it goes on there", started and code == 0 and not same(folder, MODEL) and
         len(begins) == 1 and begins[0] >= 1_000_000, (started, code, out, err, Hub.log))
    os.remove(f"{folder}/model.safetensors")
    Hub.broken.add("model.safetensors")
    Hub.log.clear()
    code, out, err = call(command, env)
    begins = [begin for c, n, begin in Hub.log if n == "model.safetensors"]
    case("a connection that breaks: it goes on by itself", code == 0 and not same(folder, MODEL) and begins ==
         [0, len(WEIGHTS) // 2], (code, out, err, begins))


def refused(name, result, *says):
    code, _, err = result
    last = err.strip().split("\n")
    case(f"refused in one line: {name}", code != 0 and len(last) == 1 and all(s in err for s in says), result)


def test_refusals(tmp, env):
    fetch = [sys.executable, "scripts/fetch_hub.py"]
    Hub.damaged.add("model.safetensors")
    refused("a file that arrives damaged", call([*fetch, "Qwen/Qwen2.5-1.5B", f"{tmp}/damaged"], env), "checksum")
    case("it does not stay", not os.path.exists(f"{tmp}/damaged/model.safetensors"))
    Hub.damaged.clear()
    refused("no such repository", call([*fetch, "nobody/nothing", f"{tmp}/n"], env), "404")
    refused("no file of that name", call([*fetch, "Qwen/Qwen2.5-1.5B", f"{tmp}/n", "-files", "*.bin"], env), "no file named")
    refused("another repository into the same folder", call([*fetch, "Qwen/Qwen2.5-1.5B", f"{tmp}/models/Qwen2.5-3B"], env),
            "of another call")
    REPOSITORIES["models/big/model"] = {"model.safetensors": b"x"}
    Hub.describe, plain = (lambda self, kind, repository: self.reply(200, json.dumps(
        {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": "model.safetensors", "size": 10 ** 18, "blobId": "0" * 40,
         "lfs": {"sha256": "0" * 64, "size": 10 ** 18, "pointerSize": 134}}]}).encode())), Hub.describe
    refused("more than the disk has", call([*fetch, "big/model", f"{tmp}/big"], env), "not enough disk", "1000000000.00 GB")
    Hub.describe = plain
    case("before anything is written", not os.path.exists(f"{tmp}/big"))
    refused("no hub", call([*fetch, "Qwen/Qwen2.5-1.5B", f"{tmp}/n"], env | {"HF_ENDPOINT": "http://127.0.0.1:9"}))


RECORDER = "import json, sys\nwith open('corpus.json', 'w') as f:\n    json.dump(sys.argv[1:], f)\n"


def test_corpus(tmp, env):
    """paper_corpus.sh in a checkout whose data/corpus.py notes how it was called."""
    tree = f"{tmp}/tree"
    os.makedirs(f"{tree}/data")
    for name in ("scripts", ".venv"):
        os.symlink(os.path.join(ROOT, name), f"{tree}/{name}")
    with open(f"{tree}/data/corpus.py", "w") as f:
        f.write(RECORDER)
    with open(f"{tree}/en_page_ocr.json", "w") as f:
        f.write("[]")
    script = ["bash", "scripts/paper_corpus.sh"]
    code, out, err = call([*script, "-fox", "en_page_ocr.json", "-pages", "500", "-gb", "0.00000007", "--", "-workers", "2"],
                          env, tree)
    case("paper_corpus.sh ends well", code == 0, (code, out, err))
    found = json.loads(read(f"{tree}/corpus.json"))
    case("its inputs: the two languages' training files, as many as -gb says", found[:4] == [
        f"data/paper/sources/finepdfs_{s}/data/{name}/train/000_0000{i}.parquet"
        for s, name in (("en", "eng_Latn"), ("zh", "cmn_Hani")) for i in (0, 1)], found)
    case("they are what the hub has", not [n for n in FINEPDFS if "/train/" in n and n[-9] in "01" and "deu" not in n and read(
        f"{tree}/data/paper/sources/finepdfs_{'en' if 'eng' in n else 'zh'}/{n}") != FINEPDFS[n]])
    case("the call: lengths, shares, Fox kept out, further options", found[4:] == [
        "-o", "data/paper/pages", "-pages", "500", "-least", "600", "-most", "1300", "-lang", "en=0.6,zh=0.4",
        "-keep_out", "en_page_ocr.json", "-workers", "2"], found[4:])
    refused("without Fox", call(script, env, tree), "-fox is missing")
    refused("Fox is not there", call([*script, "-fox", "none.json"], env, tree), "none.json: not there")
    refused("an unknown set", call([*script, "-fox", "none", "-sets", "finepdf"], env, tree), "unknown set finepdf")
    shutil.rmtree(tree)


with Folder() as folder:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    env_of_hub = environment(folder, f"http://127.0.0.1:{server.server_port}")
    test_models(folder, env_of_hub)
    test_interrupted(folder, env_of_hub)
    test_refusals(folder, env_of_hub)
    test_corpus(folder, env_of_hub)
done()
