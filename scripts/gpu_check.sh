#!/usr/bin/env bash
# gpu_check.sh: what this project can check and measure on a machine with an NVIDIA GPU, most valuable first, and one
# table. It runs from a bundle (scripts/bundle.sh), where nothing is built or fetched, or from a checkout, where set-up
# and make come first.
#
#   bash scripts/gpu_check.sh                  all of it, about 10 minutes on an H200
#   bash scripts/gpu_check.sh -seconds 500     what fits into this time; the rest is left out, and the table says so
#   bash scripts/gpu_check.sh -only parity     the lines with this word in their name
#   bash scripts/gpu_check.sh -o DIR           where the logs go (build/gpu-check)
#
# Every line has a time limit, and a failed one does not stop the next. Operations run a process each: a fault of one GPU
# kernel takes its process along. Logs are cut to 300 KB. Where python3 has PyTorch with CUDA, the same shapes run there.
# Exit code: 0 when every line passed or was left out, 1 when one failed, 2 when there is nothing to check.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

out=build/gpu-check budget=0 only=
while [ $# -gt 0 ]; do
    case $1 in
    -seconds) budget=${2:?} && shift 2 ;;
    -only) only=${2:?} && shift 2 ;;
    -o) out=${2:?} && shift 2 ;;
    *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; [ "$1" = -h ]; exit ;;
    esac
done
PYTHON=${PYTHON:-python3}
data=data/bundle tests=build/test bench=build/dev/cuda/bench
mkdir -p "$out"
rows=() failed=0 passed=0
began=$SECONDS

row() { rows+=("| $1 | $2 | ${3:-} | ${4:-} |"); }
left_out() { row "$1" "left out: $2"; say "  $1: left out, $2"; }
chosen() { case $1 in *"$only"*) ;; *) return 1 ;; esac; }

# limit SECONDS: what is left of it; nothing when the time is up.
limit() {
    local left=$((budget > 0 ? budget - SECONDS + began : $1))
    [ $left -ge 3 ] || return 1
    echo $((left < $1 ? left : $1))
}

# attempt LOG SECONDS COMMAND...: runs it with its output in LOG, cut to 300 KB, and ends all its processes at the limit.
attempt() {
    local log=$1 seconds=$2 status=0
    shift 2
    { timeout --kill-after=5 "$seconds" "$@" >"$log.whole" 2>&1 </dev/null; } 2>/dev/null || status=$? # no word on signals
    { head -c 200000 "$log.whole"; [ "$(wc -c <"$log.whole")" -le 300000 ] || echo "[...]"; tail -c +200001 "$log.whole" | tail -c 100000; } >"$log"
    rm -f "$log.whole"
    return $status
}

verdict() { case $1 in 0) echo passed ;; 124 | 137) echo "FAILED, over its $2 s" ;; *) echo "FAILED, exit code $1" ;; esac; }

# line NAME SECONDS COMMAND...: one check, one row: how it ended, its last line of results, its time.
line() {
    local name=$1 seconds status=0 start log
    chosen "$name" || return 0
    seconds=$(limit "$2") || { left_out "$name" "no time"; return 0; }
    shift 2
    log=$out/${name//[^a-zA-Z0-9]/_}.log start=$(now)
    attempt "$log" "$seconds" "$@" || status=$?
    if [ $status = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    say "  $name: $(verdict $status "$seconds") ($(seconds_since "$start") s)"
    [ $status = 0 ] || tail -n 8 "$log" | sed 's/^/    | /'
    row "$name" "$(verdict $status "$seconds")" "$(closing "$log")" "$(seconds_since "$start") s"
}
closing() { grep -aE '^[0-9]+ passed, [0-9]+ failed|ERROR SUMMARY|^summary: ' "$1" | tail -n 1 | tr '|' '/'; }

# each NAME SECONDS LIST COMMAND...: COMMAND ITEM for each item, a process each; one row that names those which failed.
each() {
    local name=$1 most=$2 items=$3 item seconds status start good=0 bad="" missed=""
    chosen "$name" || return 0
    shift 3
    start=$(now)
    for item in $items; do
        seconds=$(limit "$most") || { missed="$missed $item"; continue; }
        status=0
        attempt "$out/${name//[^a-zA-Z0-9]/_}_${item##*/}.log" "$seconds" "$@" "$item" || status=$?
        if [ $status = 0 ]; then good=$((good + 1)); else bad="$bad ${item##*/} ($(verdict $status "$seconds"))"; fi
    done
    if [ -n "$bad" ]; then failed=$((failed + 1)); elif [ $good -gt 0 ]; then passed=$((passed + 1)); fi
    say "  $name: $good passed${bad:+; FAILED:$bad}${missed:+; no time for$missed} ($(seconds_since "$start") s)"
    [ $good = 0 ] && [ -z "$bad" ] && { row "$name" "left out: no time"; return 0; }
    row "$name" "$([ -z "$bad" ] && echo passed || echo "FAILED:$bad")" "$good passed${missed:+, no time for$missed}" \
        "$(seconds_since "$start") s"
}

# ---- the machine, the programs ----
command -v nvidia-smi >/dev/null || { warn "nvidia-smi is not here: this script is for machines with NVIDIA GPUs"; exit 2; }
gpus=$(nvidia-smi --query-gpu=name --format=csv,noheader) || { warn "nvidia-smi finds no GPU: $gpus"; exit 2; }
gpu=$(printf '%s\n' "$gpus" | head -n 1)
memory=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits | head -n 1) # MiB
if [ ! -e MANIFEST ]; then
    step "set-up and build"
    bash scripts/setup.sh test || exit 2
    mpi_environment
    make -s -j"$(cores)" all tests bench || { warn "the build failed"; exit 2; }
    bash scripts/bundle.sh -data || { warn "cannot make the cases and pages"; exit 2; }
    began=$SECONDS
fi

has_torch() { timeout 60 "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; }
torch_is_here=0
has_torch && torch_is_here=1

# ---- the lines ----
step "the card"
line "card" 10 nvidia-smi
line "version" 10 ./train_c3 --version
line "plan" 20 ./train_c3 -plan -device cuda -preset paper

step "operations, a process each"
operations=$($tests/test_ops -list)
each "operations bf16" "${C3_CHECK_OPERATION:-20}" "$operations" $tests/test_ops -device cuda -dtype bf16 -only
each "operations fp32" "${C3_CHECK_OPERATION:-20}" "$operations" $tests/test_ops -device cuda -dtype fp32 -only

step "loss, gradients and ten steps beside PyTorch's (cases made beforehand)"
parity() { # parity CASE: on a copy, for the program writes beside it
    local copy status=0
    copy=$(mktemp -d) && cp -r "$1/." "$copy" && "$tests/parity_check" "$copy" cuda || status=$?
    rm -rf "$copy"
    return $status
}
export -f parity
export tests
each "parity" 30 "$(printf '%s\n' $data/parity/*)" bash -c 'parity "$1"' parity

step "kernels at the paper's shapes: checked, timed"
line "kernels, 7864 rows" 60 $bench -device cuda -check -rows 7864 -repeats "${C3_CHECK_REPEATS:-20}"
line "kernels, 8112 rows" 60 $bench -device cuda -check -rows 8112 -repeats "${C3_CHECK_REPEATS:-20}"

step "the same in PyTorch"
if [ $torch_is_here = 1 ]; then line "PyTorch kernels" 90 "$PYTHON" dev/bench_torch.py kernels
else chosen "PyTorch kernels" && left_out "PyTorch kernels" "no PyTorch with CUDA in $PYTHON"; fi

step "the paper's model"
# ZeRO-0 on one card: 4.6 G parameters x (2 + 4 + 12 bytes), activations beside them.
preset=${C3_CHECK_PRESET:-paper}
steps=(./train_c3 -preset "$preset" -tok data/qwen2.5/qwen.tiktoken -data "$data/pages_*.bin" -device cuda -b 2 -g "${C3_CHECK_G:-16}"
       -steps 6 -warmup 2 -no_save -val_every 0 -profile 3 -o)
if [ "$preset" != paper ] || [ "$memory" -ge 125000 ]; then
    rm -rf "$out/paper"
    line "the paper's step" 100 "${steps[@]}" "$out/paper"
    [ ! -e "$out/paper/profile.json" ] || gzip -f "$out/paper/profile.json" # ui.perfetto.dev opens it so
    if [ "$preset" = paper ]; then # the best of cuBLASLt's algorithms, and what they gain
        rm -rf "$out/tune" "$out/tuned"
        line "algorithms timed" 100 "${steps[@]}" "$out/tune" -tune -steps 3
        line "the paper's step, tuned" 100 "${steps[@]}" "$out/tuned" -algorithms "$out/tune/algorithms.json"
    fi
    if [ $torch_is_here = 1 ]; then line "the same step in PyTorch" 90 "$PYTHON" dev/bench_torch.py step
    else chosen "the same step in PyTorch" && left_out "the same step in PyTorch" "no PyTorch with CUDA in $PYTHON"; fi
else
    left_out "the paper's step" "$memory MiB on this card; the paper's model takes 128 GB alone"
fi

step "training: bits, recomputation, resume, the CPU's losses"
line "training" 120 "$PYTHON" test/test_gpu.py

step "compute-sanitizer"
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null || true)
if [ -z "$sanitizer" ]; then
    chosen "compute-sanitizer" && left_out "compute-sanitizer" "it is not installed"
else
    for tool in memcheck racecheck; do
        for operation in attention rmsnorm; do
            line "compute-sanitizer $tool $operation" 90 "$sanitizer" --tool $tool --error-exitcode 9 \
                $tests/test_ops -device cuda -dtype bf16 -only $operation
        done
    done
fi

# ---- the table ----
{
    printf '%s\n' "$gpus" | sort | uniq -c | sed 's/^ */GPUs: /'
    say "driver $(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1); $gpu, $memory MiB"
    ./train_c3 --version | head -n 4
    say "$(. /etc/os-release && echo "$PRETTY_NAME"), $(cores) cores"
    say
    say "| check | result | cases | time |"
    say "|---|---|---|---|"
    printf '%s\n' "${rows[@]}"
} >"$out/table.md"
[ ! -d "$out/paper" ] || find "$out/paper" -size +4M -delete
say
cat "$out/table.md"
say
say "logs: $out/"
say "$passed passed, $failed failed"
[ $((passed + failed)) -gt 0 ] || exit 2
[ $failed = 0 ]
