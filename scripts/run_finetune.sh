#!/usr/bin/env bash
# run_finetune.sh: goes on from a C3 checkpoint (the released one, or your own) with your own pages, on one machine.
#
#   bash scripts/run_finetune.sh CHECKPOINT PAGES.jsonl [options of train_c3]      GPUS=N: how many (1)
#
# PAGES.jsonl holds {"text": "..."} a line; every fiftieth page is kept for validation. 2,000 steps of 64 pages, AdamW,
# the rate rises to 5e-6 over 50 steps and falls to 0.
#
# Predicted, not measured (./train_c3 -preset paper -plan -gpu h100 -plan_ranks 2 -b 1 -g 32), pages of 950 text tokens:
#   one GPU      AdamW's state is 55.6 GB and all of it 84 GB before the first activation: an H200 or B200 holds it, 3.1 s
#                a step on an H200; an H100 does not
#   2 x H100     ZeRO-1 halves the state: 78.2 GB a rank with 4 pages at a time; 1.71e+15 FLOP and 1.74 s a step,
#                2,000 steps in 1.0 h
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

[ $# -ge 2 ] || die "expected CHECKPOINT PAGES.jsonl [options of train_c3]"
checkpoint=$1 pages=$2
shift 2
gpus=${GPUS:-1}
[ $((64 % gpus)) = 0 ] || die "GPUS=$gpus: expected a divisor of 64"
[ -f "$checkpoint/config.json" ] || die "$checkpoint: no config.json there (hint: a C3 checkpoint's folder)"
[ -f "$pages" ] || die "$pages: no such file"
[ -x ./train_c3 ] && [ -x ./c3 ] || die "no ./train_c3 (hint: make)"
name=$(basename "$pages" .jsonl)
data=data/$name
tokenizer=
for file in "$checkpoint"/qwen.tiktoken "$checkpoint"/tokenizer.json data/qwen2.5/qwen.tiktoken; do
    [ -n "$tokenizer" ] || [ ! -f "$file" ] || tokenizer=$file
done
[ -n "$tokenizer" ] || die "no tokenizer in $checkpoint (hint: bash data/get_tokenizer.sh)"

mkdir -p "$data"
if [ ! "$data/train_00000.bin" -nt "$pages" ]; then
    awk 'NR % 50 != 0' "$pages" >"$data/train.jsonl"
    awk 'NR % 50 == 0' "$pages" >"$data/val.jsonl"
    vocabulary=$(tr -d '[:space:]' <"$checkpoint/config.json" | sed -n 's/.*"im_start_token":\([0-9]*\).*/\1/p')
    small=() # a cut vocabulary's specials follow its last token
    [ -z "$vocabulary" ] || [ "$vocabulary" -ge 151000 ] || small=(-vocab $((vocabulary - 3)))
    run ./c3 tokenize -tok "$tokenizer" ${small[@]+"${small[@]}"} -o "$data/train" "$data/train.jsonl"
    [ ! -s "$data/val.jsonl" ] ||
        run ./c3 tokenize -tok "$tokenizer" ${small[@]+"${small[@]}"} -o "$data/val" "$data/val.jsonl"
fi
validation=()
[ ! -f "$data/val_00000.bin" ] || validation=(-val "$data/val_*.bin" -val_every 250)

mpi_environment
launcher=(mpirun -np "$gpus")
[ "$gpus" -gt 1 ] || launcher=()
run ${launcher[@]+"${launcher[@]}"} ./train_c3 -m "$checkpoint" -data "$data/train_*.bin" \
    ${validation[@]+"${validation[@]}"} -o "runs/$name" -b 1 -g $((64 / gpus)) -lr 5e-6 -warmup 50 -steps 2000 \
    -save_every 500 "$@"
