#!/usr/bin/env bash
# run_paper.sh: the paper's training run on one machine with 8 GPUs. Options behind the script's name are handed to
# train_c3 (-o DIR, -val GLOB, -plan, ...); GPUS=N takes another number of GPUs and keeps 256 pages a step.
#
# Nothing below has been measured: it is what `./train_c3 -preset paper -plan -gpu h100 -plan_ranks 8` predicts, with
# the assumptions that it prints, for pages of 950 text tokens and 32 latents. test/test_run_scripts.sh compares.
#
#   work      4.63 G parameters; a page: encoder 7.7 TFLOP, decoder 17.3, head and loss 1.8
#             256 pages a step: 6.86e+15 FLOP = 0.87 s on 8 x 989 TFLOP/s (H100, bf16, the data sheet's peak)
#   memory    a rank: bf16 weights 9.3 GB, fp32 gradients 18.5 GB, AdamW and master weights over 8 ranks 6.9 GB,
#             activations 44.4 GB for 8 pages at a time: total 79.2 GB of an H100's 84.9 GB
#             (-fuse 1: total 46.2 GB; pages of more than 8,000 tokens among short ones: -recompute cheap by itself)
#   time      GPU     s a step   range          40,000 steps
#             h100    1.66       1.54 to 1.80   18.4 h
#             h800    1.68       1.56 to 1.82   18.6 h
#             h200    1.55       1.44 to 1.69   17.3 h
#             a100    4.63       4.26 to 5.08   51.4 h
#             b200    not modelled: how fast the kernels of attention are there is not public
#   disk      a checkpoint is 64.9 GB, and two are there while a new one is written
#
# What must be there first: models/Qwen2.5-1.5B and models/Qwen2.5-3B (README.md), pages in data/ocr/train_*.bin (or
# -data GLOB). The run can be interrupted and started again with the same line: it goes on from its newest checkpoint.
# kill -USR1 to mpirun, or a file OUT/stop, finishes the step and saves.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

gpus=${GPUS:-8}
pages=256 # a step
batch=2   # a micro-batch
[ $((pages % (gpus * batch))) = 0 ] || die "GPUS=$gpus: expected a divisor of $((pages / batch))"
[ -x ./train_c3 ] || die "no ./train_c3 (hint: make)"
mpi_environment
launcher=(mpirun -np "$gpus")
[ "$gpus" -gt 1 ] || launcher=()
run ${launcher[@]+"${launcher[@]}"} ./train_c3 -b $batch -g $((pages / (gpus * batch))) -lr 1e-5 -steps 40000 "$@"
