#!/usr/bin/env bash
# gpu_check.sh: everything this project can check and measure on a machine with NVIDIA GPUs, and one table to paste into
# an issue. No machine that builds this project has a GPU: what you send is worth a lot.
#
#   bash scripts/gpu_check.sh            all of it: 10 minutes and more
#   bash scripts/gpu_check.sh -quick     without compute-sanitizer and bench
#
# Checks: every operation against double precision; loss, gradients and ten steps against PyTorch; 30 steps of a small
# model against the CPU backend; two ranks on two GPUs (if there are two): ZeRO stages, recompute modes, resume; memcheck,
# racecheck and synccheck of compute-sanitizer on the operations. Measures: each kernel beside its peak (dev/cuda/bench.c).
# Logs: build/gpu-check/. Exit code 0 when every check passed.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
case ${1:-} in
'' | -quick) quick=${1:-} ;;
*) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; [ "$1" = -h ]; exit ;;
esac

logs=build/gpu-check
mkdir -p $logs
rows=() failed=0
# check NAME COMMAND...: runs it with its output in a log; a row of the table says how it ended.
check() {
    local name=$1 log status=0 start closing
    shift
    log=$logs/${name//[^a-z0-9]/_}.log
    start=$(now)
    say "  $name ($log)"
    "$@" >"$log" 2>&1 || status=$?
    closing=$(grep -aE '^[0-9]+ passed, [0-9]+ failed$|^=+ ERROR SUMMARY' "$log" | tail -n 1)
    [ $status = 0 ] || { failed=1; tail -n 15 "$log" | sed 's/^/    | /'; }
    rows+=("| $name | $([ $status = 0 ] && echo passed || echo "FAILED, exit code $status") | ${closing:-} | $(seconds_since "$start") s |")
}

command -v nvidia-smi >/dev/null || die "nvidia-smi is not here: this script is for machines with NVIDIA GPUs"
gpus=$(nvidia-smi --query-gpu=name --format=csv,noheader) || die "nvidia-smi finds no GPU: $gpus"
count=$(printf '%s\n' "$gpus" | wc -l)

steps_total=4
step "set-up and build"
bash scripts/setup.sh test || exit 1
mpi_environment
make -s -j"$(cores)" all tests bench || die "the build failed"

step "checks"
export PARITY_DEVICE=cuda
check "operations" build/test/test_ops -device cuda
check "parity with PyTorch" .venv/bin/python test/test_parity.py
check "training on GPUs" .venv/bin/python test/test_gpu.py

step "compute-sanitizer"
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null || true)
if [ -n "$quick" ] || [ -z "$sanitizer" ]; then
    say "  left out: ${quick:-compute-sanitizer is not here}"
    rows+=("| compute-sanitizer | left out: ${quick:-not installed} | | |")
else
    for tool in memcheck racecheck synccheck; do
        check "compute-sanitizer $tool" "$sanitizer" --tool $tool --error-exitcode 9 build/test/test_ops -device cuda
    done
fi

step "kernels at the paper's shapes"
if [ -n "$quick" ]; then
    say "  left out: -quick"
else
    check "bench" build/dev/cuda/bench -device cuda
fi

cat <<TXT

---- for the issue: from here ----
$(printf '%s\n' "$gpus" | sort | uniq -c | sed 's/^ */GPUs: /')
driver $(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1), $(nvcc --version 2>/dev/null | sed -n 's/^Cuda compilation tools, //p')
commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), $(. /etc/os-release && echo "$PRETTY_NAME")

| check ($count GPU) | result | cases | time |
|---|---|---|---|
$(printf '%s\n' "${rows[@]}")

$([ -f $logs/bench.log ] && [ -z "$quick" ] && sed 's/^/    /' $logs/bench.log)
---- to here ----
TXT
exit $failed
