#!/usr/bin/env bash
# The demo's pages in one command: fetches nine Debian packages (17 MB, no root needed), takes the texts out of them and
# makes pages of 1 to 64 tokens with data/corpus.py. Wants a Debian or Ubuntu system, the vocabulary, ./c3 and
# scripts/setup.sh demo.
#
#   bash data/make_demo.sh [options of data/corpus.py, e.g. -vocab 8192 -most 128]
#
#   data/cache/    packages as downloaded, and unpacked
#   data/corpus/   en.jsonl, zh.jsonl, de.jsonl, code.jsonl, made_up.jsonl: whole documents; held/ the same, not trained on
#   data/demo/     shards and pages (train.jsonl.zst, val.jsonl), manifest.json; of val.jsonl val_en.jsonl and val_zh.jsonl (whole
#                  pages), val_short.jsonl (below 24 tokens) and val_other.jsonl (German, code, numbers)
#
# A second run sees by the contents of all files, in and out, that nothing has changed, and ends at once.
set -euo pipefail
cd "$(dirname "$0")/.."

PACKAGES="r-cran-janeaustenr sword-text-web fortunes manpages-zh libreoffice-help-zh-cn fortunes-zh fortunes-de
          python3-jinja2 libstb-dev"
TOKENIZER=${TOKENIZER:-data/qwen2.5/qwen.tiktoken}
die() { echo "make_demo.sh: $*" >&2; exit 1; }

command -v python3 >/dev/null || die "python3 is missing (hint: apt-get install python3)"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' || die "python3 is older than 3.9: $(python3 --version)"
[ -x .venv/bin/python ] && [ -x "${C3:-./c3}" ] || die "no .venv or no ./c3 (hint: bash scripts/setup.sh demo; make)"
[ -f "$TOKENIZER" ] || die "no vocabulary at $TOKENIZER (hint: bash data/get_tokenizer.sh; or set TOKENIZER=FILE)"

OUTPUTS="data/demo/train_00000.bin data/demo/val_en.jsonl data/demo/val_zh.jsonl data/demo/val_short.jsonl
         data/demo/val_other.jsonl data/demo/manifest.json"
# What the result depends on, and the result.
fingerprint() {
    { echo "$@"
      sha256sum data/*.py data/make_demo.sh data/cache/*.deb $OUTPUTS || true
      sha256sum <"$TOKENIZER"; } 2>/dev/null | sha256sum
}
if [ -f data/demo/stamp ] && [ "$(cat data/demo/stamp)" = "$(fingerprint "$@")" ]; then
    echo "data/demo is up to date"
    exit 0
fi

rm -rf data/demo/{stamp,work,corpus_settings.json,manifest.json}
mkdir -p data/cache data/corpus data/demo
have() { ls data/cache/"$1"_*.deb >/dev/null 2>&1; }
missing=""
for p in $PACKAGES; do
    have "$p" || missing="$missing $p"
done
if [ -n "$missing" ]; then
    for tool in apt-get dpkg-deb; do
        command -v $tool >/dev/null || die "$tool is missing: the texts come from Debian packages." \
            "On another system fetch the .deb files of these from a Debian mirror into data/cache/:$missing"
    done
    download() { (cd data/cache && apt-get download -q "$@" 2>apt.log); }
    echo "downloading:$missing"
    # Package lists are often absent in containers; root can fetch them.
    if ! download $missing && [ "$(id -u)" = 0 ] && ! apt-cache show $missing >/dev/null 2>&1; then
        echo "no package lists here: running apt-get update"
        apt-get update -q >/dev/null || die "apt-get update failed (is there a network?)"
    fi
    # Another release may lack one of them: the demo can do without one, not without one of each language.
    for p in $missing; do
        have "$p" || download "$p" || echo "not to be had here, left out: $p" >&2
    done
fi
have r-cran-janeaustenr || have sword-text-web || have fortunes || lacking=English
have libreoffice-help-zh-cn || have manpages-zh || have fortunes-zh || lacking=Chinese
if [ -n "${lacking:-}" ]; then
    cat data/cache/apt.log >&2 || true
    die "no package with $lacking texts (hint: run 'apt-get update' as root; or put into data/cache/ .deb of:$missing)"
fi

rm -rf data/cache/unpacked.new && mkdir data/cache/unpacked.new
for p in $PACKAGES; do
    have "$p" || continue
    dpkg-deb -x "$(ls data/cache/"$p"_*.deb | sort -V | tail -n 1)" data/cache/unpacked.new/"$p" ||
        die "data/cache/${p}_*.deb is damaged (hint: delete it and run again)"
done
rm -rf data/cache/unpacked && mv data/cache/unpacked.new data/cache/unpacked

python3 data/debian_texts.py data/cache/unpacked data/corpus
python3 data/made_up_texts.py data/corpus
.venv/bin/python data/corpus.py 'data/corpus/*.jsonl' -held data/corpus/held -o data/demo -tok "$TOKENIZER" -as_is -vocab 2048 \
    -least 1 -most 64 -lang zh=0.2 -test 0 "$@"
.venv/bin/python - <<'PY'
import io, json, zstandard
with open("data/demo/train.jsonl.zst", "rb") as f:
    known = {json.loads(line)["text"].strip() for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(f), "utf-8")}
with open("data/demo/val.jsonl", encoding="utf-8") as f:
    pages = [page for page in map(json.loads, f) if page["text"].strip() not in known]
of = {name: [p for p in pages if p["source"] == f"held/{name}.jsonl"] for name in ("en", "zh", "de", "code", "made_up")}
whole, short = ({name: [p for p in of[name] if (p["tokens"] >= 24) == long] for name in ("en", "zh")} for long in (True, False))
sets = {"en": whole["en"][:300], "zh": whole["zh"][:300], "short": short["en"][:150] + short["zh"][:150],
        "other": of["de"][:100] + of["code"][:100] + of["made_up"][:100]}
for name, chosen in sets.items():
    with open(f"data/demo/val_{name}.jsonl", "w", encoding="utf-8") as f:
        f.writelines(json.dumps(page, ensure_ascii=False) + "\n" for page in chosen)
PY
fingerprint "$@" >data/demo/stamp
