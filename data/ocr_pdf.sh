#!/usr/bin/env bash
# Pages of PDF files as JSONL, by optical character recognition: what the model is meant to compress in practice.
#
#   bash data/ocr_pdf.sh [-l chi_sim+eng] [-r 300] [-f FIRST] [-t LAST] [-j JOBS] [-c LEAST] FILE.pdf... > pages.jsonl
#
#   -l  languages of tesseract, the main one first       -r  dots per inch       -j  pages at a time (all cores)
#   -c  least mean confidence, 0 to 100: pages below it are left out and counted (60)
#
# One line a page, in the order of the pages: {"id", "source", "page", "confidence", "text"}. Wrapped lines are joined,
# a blank line stands between blocks. 1 to 3 s a page and core; 0.1 to 5 % of the characters are wrong on prose; tables
# come out of order. A file that gives no page is named and left out, the others are read, and the exit code is 1.
# Then: ./c3 tokenize -tok FILE -o data/ocr/train pages.jsonl
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
languages=chi_sim+eng resolution=300 first=1 last=0 jobs=$(nproc) least=60
die() { echo "ocr_pdf.sh: $*" >&2; exit 1; }
usage() { sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
number() { [[ $2 =~ ^[0-9]+$ ]] || die "-$1: expected a number, found '$2'"; }

while getopts l:r:f:t:j:c:h option; do
    case $option in
        l) languages=$OPTARG ;;
        r) number r "$OPTARG"; resolution=$OPTARG ;;
        f) number f "$OPTARG"; first=$OPTARG ;;
        t) number t "$OPTARG"; last=$OPTARG ;;
        j) number j "$OPTARG"; jobs=$OPTARG ;;
        c) number c "$OPTARG"; least=$OPTARG ;;
        *) usage ;;
    esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || usage
for need in pdftoppm:poppler-utils pdfinfo:poppler-utils tesseract:tesseract-ocr python3:python3; do
    command -v "${need%%:*}" >/dev/null ||
        die "${need%%:*} is missing (hint: apt-get install --no-install-recommends ${need##*:})"
done
installed=$(tesseract --list-langs 2>/dev/null)
for language in ${languages//+/ }; do
    grep -qx "$language" <<<"$installed" ||
        die "tesseract does not know '$language' (hint: apt-get install tesseract-ocr-${language//_/-})"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# One page: picture, recognition, a table of words with their confidence. Each job is one thread.
recognise() {
    local n=$1 at
    at=$work/page$n
    pdftoppm -r "$resolution" -gray -png -f "$n" -l "$n" -singlefile "$pdf" "$at" &&
        OMP_THREAD_LIMIT=1 tesseract "$at.png" "$at" -l "$languages" --psm 3 tsv 2>/dev/null || rm -f "$at.tsv"
    rm -f "$at.png"
}
export -f recognise
export work resolution languages

bad=0
left_out() { echo "ocr_pdf.sh: $*: left out" >&2; bad=$((bad + 1)); }
for pdf in "$@"; do
    [ -f "$pdf" ] && [ -r "$pdf" ] || { left_out "cannot read $pdf"; continue; }
    pages=$(pdfinfo "$pdf" 2>/dev/null | awk '/^Pages:/ {print $2}') || true
    [ -n "$pages" ] || { left_out "$pdf is not a PDF that pdfinfo can read"; continue; }
    end=$((last > 0 && last < pages ? last : pages))
    [ "$first" -ge 1 ] && [ "$first" -le "$end" ] ||
        { left_out "$pdf: pages $first to $end asked for, it has $pages"; continue; }
    export pdf
    seq "$first" "$end" | xargs -P "$jobs" -I{} bash -c 'recognise {}' || true
    python3 "$here/ocr_pages.py" "$pdf" "$work" "$first" "$end" "$least" || left_out "no page of $pdf"
    rm -f "$work"/page*.tsv
done
[ "$bad" = 0 ] || die "$bad of $# files left out"
