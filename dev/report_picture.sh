#!/usr/bin/env bash
# report_picture.sh [RUN [PICTURE]]: the picture of a report in README.md: RUN's report (runs/demo) in a browser without
# a window, on a desk by day and on a phone by night, as a small PNG (dev/report.png).
#
# Needs Chromium (apt-get install chromium; fonts-noto-cjk for Chinese pages) and Pillow (.venv/bin/pip install pillow).
# Installs nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

run_dir=${1:-runs/demo} picture=${2:-dev/report.png}
browser=
for name in chromium chromium-browser google-chrome; do
    if [ -z "$browser" ] && command -v $name >/dev/null; then browser=$name; fi
done
[ -n "$browser" ] || die "no Chromium (hint: apt-get install chromium fonts-noto-cjk)"
.venv/bin/python -c 'import PIL' 2>/dev/null || die "no Pillow in .venv (hint: .venv/bin/pip install pillow)"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
.venv/bin/python scripts/report.py "$run_dir" -o "$work/report.html"
# Two views of one file. The colour scheme of a frame is what the page inside it is told the reader prefers.
cat >"$work/picture.html" <<'HTML'
<!DOCTYPE html>
<style>
body{margin:0;width:1440px;height:1010px;overflow:hidden;background:#cfd5dc}
iframe{position:absolute;border:0;background:#fff}
.desk{left:28px;top:28px;width:960px;height:1010px;border-radius:12px 12px 0 0;color-scheme:light;
box-shadow:0 10px 40px #0003}
.phone{right:26px;top:70px;width:390px;height:844px;border:9px solid #0b0d10;border-radius:44px;color-scheme:dark;
box-shadow:0 14px 50px #0006}
</style>
<iframe class="desk" src="report.html"></iframe>
<iframe class="phone" src="report.html#page-1-4"></iframe>
HTML
"$browser" --headless --no-sandbox --disable-gpu --hide-scrollbars --allow-file-access-from-files \
    --user-data-dir="$work/profile" --virtual-time-budget=20000 --window-size=1440,1010 --screenshot="$work/picture.png" \
    "file://$work/picture.html" >"$work/log" 2>&1 || { tail -n 5 "$work/log" >&2; die "$browser failed"; }
# A palette is enough, and less than half of the bytes.
.venv/bin/python - "$work/picture.png" "$picture" <<'PY'
import sys

from PIL import Image

image = Image.open(sys.argv[1]).convert("RGB").quantize(224, dither=Image.Dither.NONE)
image.save(sys.argv[2], optimize=True)
PY
say "$picture: $(($(stat -c %s "$picture") / 1024)) KB"
