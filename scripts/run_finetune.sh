#!/usr/bin/env bash
# run_finetune.sh: goes on from a C3 checkpoint (the released one, or your own) with your own pages, on one machine.
#
#   bash scripts/run_finetune.sh CHECKPOINT PAGES.jsonl [options of train_c3]      GPUS=N: how many (1)
#
# PAGES.jsonl holds {"text": "..."} a line; every fiftieth page is kept for validation. 2,000 steps of 64 pages, AdamW,
# the rate rises to 5e-6 over 50 steps and falls to 0. Shards lie in data/NAME-KEY and the run in runs/NAME-KEY, where
# KEY stands for what is in the pages and in the model, whatever their names: the same command goes on with its run, and
# another file of the same name is another run.
#
# Predicted, not measured (./train_c3 -preset paper -plan -gpu h100 -plan_ranks 2 -b 1 -g 32), pages of 950 text tokens:
#   one GPU      AdamW's state is 55.6 GB and all of it 84 GB before the first activation: an H200 or B200 holds it, 3.2 s
#                a step on an H200; an H100 does not
#   2 x H100     ZeRO-1 halves the state: 78.4 GB a rank with 4 pages at a time; 1.71e+15 FLOP and 1.76 s a step,
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
key() { sha256sum | cut -c 1-12; }
# Whatever decides the tokens: the pages, the vocabulary's size in config.json, the tokenizer's possible files.
tokens=$(cat "$pages" "$checkpoint"/{config.json,qwen.tiktoken,tokenizer.json} data/qwen2.5/{qwen.tiktoken,tokenizer.json} \
    2>/dev/null | key) || true
model=$(./c3 info "$checkpoint" | sed -n 's/^ *fingerprint *//p')
data=data/$name-$tokens
run=runs/$name-$(echo "$tokens $model" | key)

if [ ! -f "$data/done" ]; then
    rm -rf "$data"
    mkdir -p "$data"
    awk 'NR % 50 != 0' "$pages" >"$data/train.jsonl"
    awk 'NR % 50 == 0' "$pages" >"$data/val.jsonl"
    run ./c3 tokenize -m "$checkpoint" -o "$data/train" "$data/train.jsonl"
    [ ! -s "$data/val.jsonl" ] || run ./c3 tokenize -m "$checkpoint" -o "$data/val" "$data/val.jsonl"
    touch "$data/done"
fi
validation=()
[ ! -f "$data/val_00000.bin" ] || validation=(-val "$data/val_*.bin" -val_every 250)

mpi_environment
launcher=(mpirun -np "$gpus")
[ "$gpus" -gt 1 ] || launcher=()
run ${launcher[@]+"${launcher[@]}"} ./train_c3 -m "$checkpoint" -data "$data/train_*.bin" \
    ${validation[@]+"${validation[@]}"} -o "$run" -b 1 -g $((64 / gpus)) -lr 5e-6 -warmup 50 -steps 2000 \
    -save_every 500 "$@"
