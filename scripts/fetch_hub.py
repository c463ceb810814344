#!/usr/bin/env python3
"""fetch_hub.py: files of one commit of a repository on the Hugging Face hub, checked.

    scripts/fetch_hub.py OWNER/NAME DIR [-type dataset] [-files PATTERN[,PATTERN...]] [-most_gb X] [-revision main]

The first call asks the hub which commit `main` is and writes it into DIR/SOURCE.json with size and checksum of every file;
from then on that commit is meant, and only what is missing or wrong is fetched. An interrupted file goes on where it
stopped. A file that is whole has the SHA-256 that SOURCE.json says. -most_gb takes files in the order of their names up to
about that size, at least one. HF_ENDPOINT names another hub, HF_TOKEN gives access where it is needed.
"""
import argparse
import fnmatch
import hashlib
import json
import os
import shutil
import sys
import time
import urllib.error
import urllib.request

import runs

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
try:
    from huggingface_hub import HfApi, get_token, hf_hub_url
except ImportError as e:
    sys.exit(f"fetch_hub.py: huggingface_hub is missing: {e} (hint: .venv/bin/pip install 'huggingface_hub>=1.0')")

SPARE = 1 << 26  # bytes of disk left over
BLOCK = 1 << 20
TRIES, WAIT = 5, 2.0  # of a download that breaks off, seconds before the second


def sums(path):
    """SHA-256 of a file, and the number that git gives it."""
    whole, git = hashlib.sha256(), hashlib.sha1(f"blob {os.path.getsize(path)}\0".encode())
    with open(path, "rb") as f:
        while block := f.read(BLOCK):
            whole.update(block)
            git.update(block)
    return whole.hexdigest(), git.hexdigest()


def is_right(path, file):
    """Size, then the sum that is known: SHA-256, or before the first download of a small file git's."""
    if not os.path.isfile(path) or os.path.getsize(path) != file["size"]:
        return False
    whole, git = sums(path)
    return whole == file["sha256"] if file.get("sha256") else git == file["git"]


def choose(siblings, patterns, most):
    """{name: size and sums} of the files that the patterns name, until they are `most` bytes."""
    chosen, total = {}, 0
    for s in sorted(siblings, key=lambda s: s.rfilename):
        if not any(fnmatch.fnmatch(s.rfilename, p) for p in patterns) or (chosen and total + s.size > most):
            continue
        total += s.size
        chosen[s.rfilename] = {"size": s.size, "git": s.blob_id, "sha256": s.lfs.sha256 if s.lfs else None}
    return chosen


def source(o):
    """SOURCE.json, made on the first call."""
    path = os.path.join(o.dir, "SOURCE.json")
    wanted = {"repository": o.repository, "type": o.type, "asked": [o.revision, o.files, o.most_gb]}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            found = runs.parse(f.read())
        if {k: found.get(k) for k in wanted} != wanted or not isinstance(found.get("files"), dict):
            raise ValueError(f"{path}: of another call: expected {json.dumps(wanted)} (hint: another folder, or remove it)")
        return found
    info = HfApi().repo_info(o.repository, repo_type=o.type, revision=o.revision, files_metadata=True)
    files = choose(info.siblings, o.files.split(","), o.most_gb * 1e9)
    if not files:
        raise ValueError(f"{o.repository}: no file named {o.files} (it has {len(info.siblings)}: "
                         f"{', '.join(s.rfilename for s in info.siblings[:5])}, ...)")
    return wanted | {"commit": info.sha, "files": files}


def save(found, folder):
    runs.write_whole(os.path.join(folder, "SOURCE.json"), json.dumps(found, indent=1) + "\n")


def download_rest(url, part, size):
    """What of a file is not in `part` yet. The hub's own client begins a file anew in every process."""
    request = urllib.request.Request(url, headers={"User-Agent": "fetch_hub.py"})
    if get_token():
        request.add_unredirected_header("Authorization", f"Bearer {get_token()}")  # not for the storage behind the hub
    with open(part, "ab") as f:
        if f.tell() > size:
            f.truncate(0)
        if f.tell() == size:
            return
        request.add_header("Range", f"bytes={f.tell()}-")
        with urllib.request.urlopen(request, timeout=60) as answer:
            if answer.status != 206:
                f.truncate(0)
            shutil.copyfileobj(answer, f, BLOCK)
        if f.tell() != size:
            raise OSError(f"{part}: broke off: expected {size} bytes, found {f.tell()} (hint: the same command goes on)")


def download(url, path, size):
    part = path + ".part"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    for i in range(TRIES):
        try:
            download_rest(url, part, size)
            return os.replace(part, path)
        except urllib.error.HTTPError as e:
            if e.code < 500 or i == TRIES - 1:
                raise ValueError(f"{url}: {e}") from None
        except OSError:
            if i == TRIES - 1:
                raise
        time.sleep(WAIT * 2 ** i)


def fetch(o):
    found = source(o)
    wrong = [name for name, file in found["files"].items() if not is_right(os.path.join(o.dir, name), file)]
    need = sum(found["files"][name]["size"] for name in wrong)
    folder = os.path.abspath(o.dir)
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    free = shutil.disk_usage(folder).free
    if need + SPARE > free:
        raise ValueError(f"{o.dir}: not enough disk: expected {need / 1e9:.2f} GB, found {free / 1e9:.2f} GB free")
    os.makedirs(o.dir, exist_ok=True)
    save(found, o.dir)
    print(f"{o.dir}: {o.repository} at {found['commit']}: {len(found['files'])} files, {len(wrong)} to fetch, "
          f"{need / 1e9:.2f} GB", flush=True)
    for name in wrong:
        path, file = os.path.join(o.dir, name), found["files"][name]
        download(hf_hub_url(o.repository, name, repo_type=o.type, revision=found["commit"]), path, file["size"])
        if not is_right(path, file):
            os.remove(path)
            raise ValueError(f"{path}: another checksum than the hub's (it was removed; hint: the same command again)")
        file["sha256"] = sums(path)[0]
        save(found, o.dir)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0].split(": ", 1)[1])
    parser.add_argument("repository", metavar="OWNER/NAME")
    parser.add_argument("dir", metavar="DIR")
    parser.add_argument("-type", choices=("model", "dataset"), default="model")
    parser.add_argument("-files", default="*", metavar="PATTERN,...", help="which files [all]")
    parser.add_argument("-most_gb", type=float, default=1e6, metavar="X", help="gigabytes, about [all]")
    parser.add_argument("-revision", default="main")
    try:
        fetch(parser.parse_args())
    except Exception as e:  # the errors of the network have the classes of whichever HTTP library the hub's client uses
        first = next(filter(None, str(e).splitlines()), type(e).__name__)
        sys.exit(f"fetch_hub.py: {runs.clean(first)}")
    except KeyboardInterrupt:
        sys.exit("fetch_hub.py: stopped (the same command goes on)")


if __name__ == "__main__":
    main()
