#!/usr/bin/env bash
# paper_corpus.sh: a corpus as near to the paper's as one can come with open data. The paper trained on 1 M pages of OCR
# text, English and Chinese, that were never published.
#
#   bash scripts/paper_corpus.sh -fox FILE [-fox FILE] [-o DIR] [-pages N] [-sets NAME,...] [-gb X]
#
# fetches the page sets into DIR/sources and makes pages of 600 to 1300 tokens of them, 60 % English and 40 % Chinese,
# into DIR/pages (data/corpus.py: filters, doubles, splits, shards). Fox, the benchmark, stays out of training: -fox names
# its en_page_ocr.json and cn_page_ocr.json (GitHub: ucaslcl/Fox); -fox none goes without. Interrupted, the same line
# goes on. Options behind -- are handed to data/corpus.py (-workers N, ...).
#
#   set           repository on the hub                       what, licence as its page says
#   finepdfs_en   HuggingFaceFW/finepdfs  data/eng_Latn       PDF of the web, text layer or OCR; ODC-By
#   finepdfs_zh   HuggingFaceFW/finepdfs  data/cmn_Hani       the same in Chinese; ODC-By
#   olmocr        allenai/olmOCR-mix-1025                     about 260,000 pages read by a model; ODC-By
#   pdfa          pixparse/pdfa-eng-wds                       PDF of the web with their text; see its page
#   idl           pixparse/idl-wds                            19 M pages of industry documents; see its page
#   loc           storytracer/LoC-PD-Books                    books, OCR; public domain
#
# By default the first two, -gb 6 of each (1 M pages of 950 tokens are about 2.5 GB of English and 1.8 GB of Chinese text;
# the rest is what the filters drop). Expected, not measured, for these: 12 GB of downloads, 40 GB of disk with the
# intermediate files, an hour at 100 Mbit/s and, at 1,000 pages a second, half an hour for the corpus. No set could be
# downloaded where this was written: names, sizes and licences are from memory of their pages, and the scripts were tested on
# small files of the published layouts.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

out=data/paper pages=1000000 sets=finepdfs_en,finepdfs_zh gb=6
fox=() more=()
while [ $# -gt 0 ]; do
    case $1 in --) shift; more=("$@"); break ;; -fox | -o | -pages | -sets | -gb) [ $# -gt 1 ] || die "$1: expected a value" ;; esac
    case $1 in
    -fox) fox+=("$2") ;;
    -o) out=$2 ;;
    -pages) pages=$2 ;;
    -sets) sets=$2 ;;
    -gb) gb=$2 ;;
    *) die "unknown option $1 (known: -fox -o -pages -sets -gb, and -- for those of data/corpus.py)" ;;
    esac
    shift 2
done
[ ${#fox[@]} -gt 0 ] || die "-fox is missing: expected Fox's en_page_ocr.json and cn_page_ocr.json (hint: GitHub ucaslcl/Fox; -fox none goes without)"
keep_out=()
for file in "${fox[@]}"; do
    [ "$file" != none ] || continue
    [ -f "$file" ] || die "$file: not there (hint: Fox's en_page_ocr.json or cn_page_ocr.json)"
    keep_out+=(-keep_out "$file")
done

python=.venv/bin/python
[ -x $python ] || python=python3
where() { # repository and files of a set
    case $1 in
    finepdfs_en) echo "HuggingFaceFW/finepdfs data/eng_Latn/train/*.parquet" ;;
    finepdfs_zh) echo "HuggingFaceFW/finepdfs data/cmn_Hani/train/*.parquet" ;;
    olmocr) echo "allenai/olmOCR-mix-1025 *.parquet" ;;
    pdfa) echo "pixparse/pdfa-eng-wds *.tar" ;;
    idl) echo "pixparse/idl-wds *.tar" ;;
    loc) echo "storytracer/LoC-PD-Books *.parquet" ;;
    *) die "-sets: unknown set $1 (known: finepdfs_en finepdfs_zh olmocr pdfa idl loc)" ;;
    esac
}
places=()
for set in ${sets//,/ }; do
    place=$(where "$set")
    places+=("$set $place")
done
inputs=()
for place in "${places[@]}"; do
    read -r set repository files <<<"$place"
    run $python scripts/fetch_hub.py "$repository" "$out/sources/$set" -type dataset -files "$files" -most_gb "$gb"
    for kind in parquet tar; do
        while IFS= read -r file; do inputs+=("$file"); done < <(find "$out/sources/$set" -name "*.$kind" -not -path '*/.cache/*' | sort)
    done
done
run $python data/corpus.py "${inputs[@]}" -o "$out/pages" -pages "$pages" -least 600 -most 1300 -lang en=0.6,zh=0.4 \
    ${keep_out[@]+"${keep_out[@]}"} ${more[@]+"${more[@]}"}
