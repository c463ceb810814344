#!/usr/bin/env bash
# test_run_scripts.sh: the scripts of real runs: the figures in their headers are what -plan predicts now, they start what
# they say, and refuse what cannot be divided.
set -uo pipefail
cd "$(dirname "$0")/.."
passed=0 failed=0
check() { # check NAME CONDITION...
    local name=$1
    shift
    if "$@"; then
        echo "ok   $name"
        passed=$((passed + 1))
    else
        echo "FAIL $name"
        failed=$((failed + 1))
    fi
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
says() { grep -qF -- "$2" "$1" || { echo "  no '$2' in $1"; tail -n 3 "$1"; false; }; }
plan() { ./train_c3 -preset paper -plan "$@"; }

# ---- headers against the plan ----
plan -gpu h100 -plan_ranks 8 >"$work/h100"
for gpu in h100 h800 h200 a100; do
    line=$(grep -E "^#   +$gpu " scripts/run_paper.sh)
    read -r _ _ step low _ high hours _ <<<"$line"
    plan -gpu $gpu -plan_ranks 8 >"$work/plan"
    check "run_paper.sh: $gpu, $step s a step, $low to $high, $hours h" \
        eval "says $work/plan 'predicted  $step s a step' && says $work/plan '40000 steps in $hours h' &&
              says $work/plan 'range      $low to $high s'"
done
plan -gpu b200 -plan_ranks 8 >"$work/plan"
check "run_paper.sh: b200 is not modelled" eval 'says $work/plan "not modelled" && says scripts/run_paper.sh "b200    not modelled"'
memory() { awk -v kind="$1" '$1 == kind && $3 == "GB" { print $2 " GB" }' "$2"; }
for kind in parameters gradients optimizer activations total checkpoint; do
    check "run_paper.sh: $kind $(memory $kind "$work/h100")" says scripts/run_paper.sh "$(memory $kind "$work/h100")"
done
plan -gpu h100 -plan_ranks 8 -fuse 1 >"$work/plan"
check "run_paper.sh: without fusing" says scripts/run_paper.sh "-fuse 1: total $(memory total "$work/plan")"
check "run_paper.sh: FLOPs of a step" says "$work/h100" "$(grep -oE '[0-9.]+e\+15 FLOP' scripts/run_paper.sh)"

plan -gpu h100 -plan_ranks 2 -b 1 -g 32 >"$work/plan"
check "finetune.sh: memory of 2 x H100" says scripts/finetune.sh "$(memory total "$work/plan") a rank"
check "finetune.sh: its time" eval "says $work/plan 'predicted  1.75 s a step' && says $work/plan '1.71e+15 FLOP' &&
    says scripts/finetune.sh '1.71e+15 FLOP and 1.75 s'"
plan -gpu h100 -plan_ranks 32 -g 4 >"$work/plan"
check "run_slurm.sh: its time" eval "says $work/plan 'predicted  0.43 s a step' && says $work/plan '0.40 to 0.46 s, 4.4' &&
    says $work/plan '40000 steps in 4.7 h' && says scripts/run_slurm.sh '0.43 s a step (0.40 to 0.46), 40,000 steps in 4.7 h'"

# ---- what they start ----
mkdir "$work/bin"
printf '#!/bin/sh\necho "$0 $*" >>"%s/started"\n' "$work" >"$work/bin/srun"
cp "$work/bin/srun" "$work/bin/mpirun"
chmod +x "$work/bin/"*
started() { PATH="$work/bin:$PATH" "$@" >"$work/out" 2>&1 && tail -n 1 "$work/started" >"$work/line"; }
check "run_paper.sh starts 8 ranks of 2 x 16 pages" \
    eval 'started bash scripts/run_paper.sh -o runs/x && says $work/line "-np 8 ./train_c3 -b 2 -g 16 -lr 1e-5 -steps 40000 -o runs/x"'
check "run_paper.sh on 4 GPUs keeps 256 pages a step" \
    eval 'GPUS=4 started bash scripts/run_paper.sh && says $work/line "-np 4 ./train_c3 -b 2 -g 32"'
check "run_paper.sh refuses 3 GPUs" eval '! GPUS=3 started bash scripts/run_paper.sh && says $work/out "GPUS=3"'
check "run_slurm.sh starts 32 ranks of 2 x 4 pages" \
    eval 'SLURM_NTASKS=32 started bash scripts/run_slurm.sh -val x && says $work/line "./train_c3 -b 2 -g 4 -lr 1e-5" &&
          says $work/line "-val x"'
check "run_slurm.sh outside Slurm says so" eval '! SLURM_NTASKS= started bash scripts/run_slurm.sh && says $work/out Slurm'

# ---- fine-tuning for real: the demo's model on some of its held-out pages ----
model=$(ls -d runs/demo/step_* 2>/dev/null | head -n 1)
mkdir "$work/a" "$work/b"
head -n 200 data/demo/val_en.jsonl >"$work/a/pages.jsonl"
tail -n 99 data/demo/val_en.jsonl | # one document
    python3 -c 'import json, sys; print(json.dumps({"text": "\n".join(json.loads(line)["text"] for line in sys.stdin)}))' >"$work/b/pages.jsonl"
touch -d "2 days ago" "$work/b/pages.jsonl"
head -n 20 data/demo/val_zh.jsonl >"$work/old pages.jsonl"
finetune() { # finetune PAGES DIR OPTION...
    local from=$1 to=$2
    shift 2
    GPUS=1 bash scripts/finetune.sh "$model" "$from" -o "$to" -steps 2 -threads 1 "$@" >"$work/out" 2>&1
}
check "finetune.sh: pages, before, training, after, a table" \
    eval 'finetune "$work/a" "$work/run a" -old "$work/old pages.jsonl" -rehearse "data/demo/train_*.bin" &&
          says $work/out "done at step 2 of 2" && [ "$(grep -c "^| " "$work/run a/finetune.md")" = 4 ] &&
          says "$work/run a/finetune.md" "| old_old_pages | 20 |" && [ -f "$work/run a/report.html" ]' || tail -n 8 "$work/out"
cp "$work/run a/finetune.md" "$work/before"
check "finetune.sh: the same command trains no more, and says the same" \
    eval 'finetune "$work/a" "$work/run a" -old "$work/old pages.jsonl" -rehearse "data/demo/train_*.bin" &&
          says $work/out "nothing was trained" && ! grep -q "c3 eval" $work/out && cmp -s "$work/before" "$work/run a/finetune.md"' ||
    tail -n 8 "$work/out"
check "finetune.sh: other pages in an older file of the same name are other pages: not into that folder" \
    eval '! finetune "$work/b" "$work/run a" && says $work/out "$work/run a"' || tail -n 8 "$work/out"
check "finetune.sh -two_phase: first with the decoder frozen, then all of it; one document alone" \
    eval 'finetune "$work/b" "$work/run b" -two_phase -steps 5 && says $work/out "-freeze dec" && says $work/out "in one stretch" &&
          says "$work/run b/finetune.md" "| new |" && says $work/out "done at step 3 of 3" &&
          [ -f "$work/run b/phase_1/run.json" ]' || tail -n 8 "$work/out"
check "finetune.sh names a file that is missing" eval '! finetune nowhere.jsonl "$work/c" && says $work/out "nowhere.jsonl"'
mkdir "$work/run d" && echo "{}" >"$work/run d/run.json"
check "finetune.sh: another run's folder is not touched" \
    eval '! finetune "$work/a" "$work/run d" && says $work/out "run d: holds a run" && [ "$(ls "$work/run d")" = run.json ]'
check "finetune.sh: two -old of one name" \
    eval '! finetune "$work/a" "$work/run a" -old "$work/old pages.jsonl" -old "$work/old pages.jsonl" && says $work/out "a second file"'
check "finetune.sh names what is no model" \
    eval '! bash scripts/finetune.sh "$work/a" "$work/b" -o "$work/c" >"$work/out" 2>&1 && says $work/out "$work/a"'
echo "$passed passed, $failed failed"
[ $failed = 0 ]
