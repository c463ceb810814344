#!/usr/bin/env bash
# finetune.sh: from a C3 model and documents of your own to a model that knows them, and a table of before and after.
#
#   bash scripts/finetune.sh MODEL INPUT... [-o DIR] [-old PAGES.jsonl]... [-rehearse SHARDS] [-two_phase] [options]
#
#   MODEL       a C3 checkpoint or a run's folder: yours, the demo's (runs/demo), or the released one
#   INPUT       files and folders: PDF, HTML, text, JSONL, ...; everything data/corpus.py reads
#   -o DIR      folder of the pages and of the run (runs/finetune)
#   -old FILE   held-out pages that the model is good at now, JSONL; several times: what it forgets is measured on them
#   -rehearse GLOB   shards it was trained on, mixed in as three pages in ten, so that it forgets less
#   -two_phase  first 40 % of the steps with the decoder frozen, then all of it, the decoder at a fifth of the rate
#   options     go to train_c3: -steps N, -lr X, -val_lm GLOB, ...
#
#   1 pages   data/corpus.py -m MODEL: cleaned, without doubles, cut to the lengths the model was trained on, in its
#             vocabulary; split by document into train, val and test, one long document by stretches
#   2 before  c3 eval of the test pages and of every -old
#   3 train   64 pages a step, four times through the pages (100 to 2,000 steps), stopped when four validations in a row
#             are no better; the best checkpoint is kept. The rate goes by the decoder's width: 5e-6 at 2048, as the
#             power -1.5 of it below (3.2e-4 for the demo's 128): a guess through two points
#   4 after   the same pages with the best checkpoint; DIR/finetune.md, and DIR/report.html
#
# The same command goes on where it was interrupted. Other pages or another model need another -o. On GPUs one rank each
# (GPUS=N: how many), on a CPU one a core.
#
# Predicted, not measured (./train_c3 -preset paper -plan -gpu h100 -plan_ranks 2 -b 1 -g 32), pages of 950 text tokens:
#   one GPU      AdamW's state is 55.6 GB and all of it 84 GB before the first activation: an H200 or B200 holds it, 3.2 s
#                a step on an H200; an H100 does not
#   2 x H100     ZeRO-1 halves the state: 78.4 GB a rank with 4 pages at a time; 1.71e+15 FLOP and 1.75 s a step,
#                2,000 steps in 1.0 h
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

# ---- words ----
case ${1:-} in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; exit ;; esac
[ $# -ge 2 ] || die "expected MODEL INPUT... (hint: -h)"
model=$1 out=runs/finetune rehearse='' two_phase='' given_steps='' inputs=() old=()
shift
while [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; do inputs+=("$1"); shift; done
options=()
while [ $# -gt 0 ]; do
    case $1 in
    -o | -old | -rehearse | -steps) [ $# -ge 2 ] || die "$1: expected a value after it" ;;
    esac
    case $1 in
    -o) out=$2; shift ;;
    -old) [ -f "$2" ] || die "$2: no such file"; old+=("$2"); shift ;;
    -rehearse) rehearse=$2; shift ;;
    -steps) given_steps=$2; shift ;;
    -two_phase) two_phase=1 ;;
    *) options+=("$1") ;;
    esac
    shift
done
[ ${#inputs[@]} -gt 0 ] || die "expected documents after $model (hint: -h)"
[ -x ./train_c3 ] && [ -x ./c3 ] || die "no ./train_c3 (hint: make)"
for input in "${inputs[@]}"; do [ "$input" = - ] || [ -e "$input" ] || die "$input: no such file or folder"; done
facts=$(./c3 info "$model") || exit 1
fact() { sed -n "s/^ *$1 *//p" <<<"$facts" | head -n 1; }
width=$(fact decoder | sed -n 's/.*width \([0-9]*\),.*/\1/p')
[ -n "$width" ] || die "$model: not a C3 model"
[ -f "$out/about" ] || [ ! -e "$out/run.json" ] || die "$out: holds a run that is no fine-tuning (hint: another -o)"
names=(new) pages=("$out/data/test.jsonl")
for file in ${old[@]+"${old[@]}"}; do
    name=$(basename "$file" .jsonl)
    name=old_${name//[^A-Za-z0-9]/_}
    case " ${names[*]} " in *" $name "*) die "-old $file: a second file of that name (hint: rename it)" ;; esac
    names+=("$name")
    pages+=("$file")
done
ranks=${GPUS:-$(gpus)}
[ "$ranks" != 0 ] || ranks=$(cores)
while [ $((64 % ranks)) != 0 ]; do ranks=$((ranks - 1)); done
command -v mpirun >/dev/null || ranks=1
steps_total=4

# ---- 1: pages ----
step "pages"
bash scripts/setup.sh corpus
mkdir -p "$out"
run .venv/bin/python data/corpus.py "${inputs[@]}" -m "$model" -o "$out/data"
[ -s "$out/data/test.jsonl" ] ||
    die "$out/data: no test page, for a tenth of the pages is held out (hint: ten pages at least)"
# What this folder is about: a model and pages, whatever their names.
about="model $(fact fingerprint), pages $(cat "$out"/data/*.bin | sha256sum | cut -c 1-16)"
[ ! -f "$out/about" ] || [ "$(cat "$out/about")" = "$about" ] ||
    die "$out: holds the fine-tuning of another model or of other pages (hint: another -o)"
echo "$about" >"$out/about"

# ---- 2: before ----
step "before"
look() { # look WHEN MODEL: evaluations that are not there yet
    local i to
    for i in "${!names[@]}"; do
        to=$out/eval_${names[i]}_$1
        [ -f "$to/eval.json" ] || run ./c3 eval -m "$2" "${pages[i]}" -o "$to" -limit 300 -skip -no_controls
    done
}
look before "$model"

# ---- 3: train ----
read -r trained validated most <<<"$(python3 -c 'import json, sys
made = json.load(open(sys.argv[1]))
print(made["kept"]["train"]["pages"], made["kept"]["val"]["pages"], made["options"]["most"])' "$out/data/manifest.json")"
steps=$((trained * 4 / 64))
[ "$steps" -ge 100 ] || steps=100
[ "$steps" -le 2000 ] || steps=2000
steps=${given_steps:-$steps}
rate=$(awk -v w="$width" 'BEGIN { printf "%.2g", 5e-6 * (w < 2048 ? (2048 / w) ^ 1.5 : 1) }')
step "train: $trained pages, $steps steps, rate $rate for a width of $width, $ranks rank(s)"
mpi_environment
launcher=()
[ "$ranks" = 1 ] || launcher=(mpirun -np "$ranks")
data=(-data "$out/data/train_*.bin")
[ -z "$rehearse" ] || data=(-data "new=$out/data/train_*.bin:0.7" -data "old=$rehearse:0.3")
val=()
[ "$validated" = 0 ] || val=(-val "$out/data/val_*.bin" -keep_best -patience 4)
micro=1 # pages of a micro-batch: some 4,000 tokens
while [ $((2 * micro * most)) -le 4096 ] && [ $((64 / ranks % (2 * micro))) = 0 ]; do micro=$((2 * micro)); done
train() { # train FROM TO STEPS OPTION...
    local from=$1 to=$2 n=$3
    shift 3
    run ${launcher[@]+"${launcher[@]}"} ./train_c3 -m "$from" "${data[@]}" ${val[@]+"${val[@]}"} -o "$to" \
        -b $micro -g $((64 / ranks / micro)) -lr "$rate" -warmup $((n / 20 + 1)) -val_every $(((n + 9) / 10)) -steps "$n" \
        "$@" ${options[@]+"${options[@]}"}
}
from=$model last=()
if [ -n "$two_phase" ]; then
    first=$((steps * 2 / 5))
    train "$model" "$out/phase_1" "$first" -freeze dec
    from=$out/phase_1 last=(-lr_dec 0.2)
    [ ! -e "$from/best" ] || from=$from/best
    steps=$((steps - first))
fi
train "$from" "$out" "$steps" ${last[@]+"${last[@]}"}

# ---- 4: after ----
step "after"
best=$out
[ ! -e "$out/best" ] || best=$out/best
look after "$best"
.venv/bin/python scripts/finetune_table.py "$out"
.venv/bin/python scripts/report.py "$out"
say
say "$best is the model; $out/finetune.md the table; $out/report.html all of it in a browser"
