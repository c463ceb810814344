#!/usr/bin/env bash
# test_cuda_attention.sh: the attention kernels of llmc/cuda: results in simulation (test/cuda/test_attention.cu), in
# several orders of threads and in the builds that watch memory and races. Their machine code: test_sass.sh.
set -uo pipefail
cd "$(dirname "$0")/.."
unset SIM_ORDER SIM_ASYNC SIM_THREADS SIM_DEVICES SIM_MEMORY SIM_ARCH SIM_DRIVER SIM_HOST_GUARD SIM_LOG SIM_NCCL_FAULT
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
bin=build/cudasim passed=0 failed=0

# expect NAME PATTERN COMMAND...: succeeds and prints the pattern
expect() {
    local name=$1 pattern=$2
    shift 2
    if timeout 550 "$@" >"$folder/out" 2>&1 && grep -aqE -e "$pattern" "$folder/out"; then
        passed=$((passed + 1))
        echo "ok   $name"
    else
        failed=$((failed + 1))
        echo "FAIL $name: '$pattern' was expected of $*"
        tail -n 12 "$folder/out" | sed 's/^/     | /'
    fi
}

echo "building"
make -s $bin/{opt,asan,race}/test_attention >"$folder/build" 2>&1 ||
    { tail -n 30 "$folder/build"; echo "0 passed, 1 failed"; exit 1; }
grep -a -A 3 'warning:' "$folder/build" && failed=1

all_passed='^[1-9][0-9]* passed, 0 failed$'
expect "all shapes" "$all_passed" $bin/opt/test_attention
for order in reverse random:1 random:2; do
    expect "order $order" "$all_passed" env SIM_ORDER=$order SIM_ASYNC=lazy $bin/opt/test_attention short
done
expect "address sanitizer" "$all_passed" env SIM_ORDER=random $bin/asan/test_attention short
expect "race check" 'racecheck: [1-9][0-9]* accesses, 0 reports' env SIM_ORDER=random $bin/race/test_attention short
echo "$passed passed, $failed failed"
[ $failed = 0 ]
