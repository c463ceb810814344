#!/usr/bin/env bash
# test_cudasim.sh: the simulation of CUDA on the CPU (dev/cudasim), before anything relies on it: every intrinsic, every
# mode, NCCL with 1 to 4 ranks, the event log; and bugs planted one by one, each of which some build or mode must find.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
mpi_environment >/dev/null
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_vader_single_copy_mechanism=none LC_ALL=C
unset SIM_ORDER SIM_ASYNC SIM_THREADS SIM_DEVICES SIM_MEMORY SIM_ARCH SIM_DRIVER SIM_HOST_GUARD SIM_LOG SIM_NCCL_FAULT
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
bin=build/cudasim passed=0 failed=0

# expect NAME CODE PATTERN COMMAND...: CODE is the exit code, ! for any but 0; PATTERN must be found in what is printed.
expect() {
    local name=$1 code=$2 pattern=$3 status=0 ok=1
    shift 3
    timeout 120 bash -c '"$@"' _ "$@" >"$folder/out" 2>&1 || status=$?
    if [ "$code" = ! ]; then [ $status != 0 ] && [ $status != 124 ] || ok=; else [ $status = "$code" ] || ok=; fi
    grep -aqE -e "$pattern" "$folder/out" || ok=
    if [ -n "$ok" ]; then
        passed=$((passed + 1))
        echo "ok   $name"
    else
        failed=$((failed + 1))
        echo "FAIL $name: exit code $status, expected $code and '$pattern': $*"
        tail -n 12 "$folder/out" | sed 's/^/     | /'
    fi
}
all_passed='^[1-9][0-9]* passed, 0 failed$'
mpi() { # mpi RANKS COMMAND...
    local ranks=$1
    shift
    mpirun --bind-to none -np "$ranks" "$@"
}
export -f mpi

echo "building (make cudasim)"
make -s cudasim >"$folder/build" 2>&1 || { tail -n 30 "$folder/build"; echo "0 passed, 1 failed"; exit 1; }
grep -a -A 3 'warning:' "$folder/build" && failed=1

# ---- translation ----
translated() { printf '%s\n' "$1" | sed -E -f dev/cudasim/cuda_to_cpp.sed; }
export -f translated
expect "launch" 0 '^    f<64> ->\*sim::cfg\(dim3\(2, 3\), 32, 0, s\)\(x, y\);$' \
    translated '    f<64><<<dim3(2, 3), 32, 0, s>>>(x, y);'
expect "dynamic shared memory" 0 '^  unsigned char \*p = \(unsigned char \*\)sim::dynamic_shared\(\);$' \
    translated '  extern __shared__ __align__(128) unsigned char p[];'
expect "static shared memory" 0 'shared_variable<bf16 \[2\]\[8 \* N\], 16\+0>\(tile_tag, "tile"\); // two$' \
    translated '  __shared__ alignas(16) bf16 tile[2][8 * N]; // two'
expect "shared memory it cannot translate is left for the compiler to refuse" 0 '^  __shared__ int a, b\[3\];$' \
    translated '  __shared__ int a, b[3];'

# ---- intrinsics, in every order and build ----
for t in warp ptx; do
    for order in forward reverse random:1 random:2; do
        expect "$t, order $order" 0 "$all_passed" env SIM_ORDER=$order $bin/opt/test_$t
    done
    expect "$t, blocks on 3 threads" 0 "$all_passed" env SIM_THREADS=3 SIM_ORDER=random $bin/opt/test_$t
    expect "$t, address sanitizer" 0 "$all_passed" env SIM_ORDER=random $bin/asan/test_$t
    expect "$t, race check" 0 'racecheck: [1-9][0-9]* accesses, 0 reports' env SIM_ORDER=random $bin/race/test_$t race
done

# ---- the host's API, cuBLASLt ----
for mode in eager lazy random:1 random:2 random:3; do
    expect "runtime, streams $mode" 0 "$all_passed" env SIM_ASYNC=$mode $bin/opt/test_runtime
done
expect "runtime, lazy, address sanitizer" 0 "$all_passed" env SIM_ASYNC=lazy $bin/asan/test_runtime
expect "runtime, race check" 0 'racecheck: [1-9][0-9]* accesses, 0 reports' $bin/race/test_runtime
expect "cublaslt" 0 "$all_passed" env SIM_ASYNC=lazy $bin/opt/test_cublaslt
expect "cublaslt, address sanitizer" 0 "$all_passed" $bin/asan/test_cublaslt
expect "cublaslt: a matrix less aligned than planned" 86 'matrix A is less aligned than the 16 bytes' \
    $bin/opt/test_cublaslt misaligned

query=$bin/opt/test_runtime
expect "a machine without GPU" 0 '^devices 0 \(cudaErrorNoDevice\)' env SIM_DEVICES=0 $query query
expect "an old driver" 0 '^devices 0 \(cudaErrorInsufficientDriver\)' env SIM_DRIVER=11080 $query query
expect "another GPU, smaller memory" 0 'capability 7\.5, 3145728 bytes, 65536 bytes of shared' \
    env SIM_ARCH=75 SIM_MEMORY=3M $query query
expect "out of memory" 1 'cudaMalloc.*: out of memory' env SIM_MEMORY=1K $bin/opt/test_runtime
for bad in SIM_ORDER=backward SIM_ORDER=forward:1 SIM_ASYNC=random:x SIM_THREADS=0 SIM_MEMORY=5X SIM_DEVICES=-1; do
    expect "refuses $bad" 86 "${bad%%=*}=.* expected" env $bad $query query
done

# ---- planted bugs ----
export ASAN_OPTIONS=detect_leaks=0 # a run that fails does not tidy up
for build in opt asan race; do
    for setting in SIM_ORDER=forward SIM_ORDER=random:3 SIM_ASYNC=lazy; do
        expect "no bug, $build, $setting" 0 '^26 right$' env $setting $bin/$build/test_bugs
    done
done
# finds NAME BUILD SETTING CODE PATTERN
finds() { expect "$1: found by $2 $3" "$4" "$5" env ${3:-A=} $bin/$2/test_bugs "$1" bug; }
wrong='[1-9][0-9]* of [0-9]+ values are wrong'
for order in forward reverse random:1; do
    for bug in missing_barrier missing_barrier_before_reuse missing_syncwarp tile_no_wait tile_no_barrier_before \
        tile_no_barrier_after; do
        finds $bug opt SIM_ORDER=$order 1 "$wrong"
    done
done
finds missing_barrier race "" 87 'racecheck: read after write, 4 bytes at offset [0-9]+ of dynamic shared memory: kernel rev'
finds missing_barrier_before_reuse race "" 87 'racecheck: write after read, 4 bytes at offset [0-9]+ of part'
finds missing_syncwarp race "" 87 'racecheck: read after write, 4 bytes at offset [0-9]+ of buffer'
finds tile_no_wait race "" 87 'racecheck: access to the destination of a cp.async under way, 16 bytes at .* of tile_'
finds tile_no_barrier_before race "" 87 'racecheck: .* 16 bytes at offset [0-9]+ of tile_'
finds tile_no_barrier_after race "" 87 'racecheck: write after read, 16 bytes at offset [0-9]+ of tile_'
finds plain_atomic race "" 87 'racecheck: read after write, 4 bytes .*: kernel count_kernel'
finds fence_too_early race "" 87 'racecheck: read after write, .* of another block'
finds missing_fence race "" 87 'racecheck: read after write, .* of another block'
finds cp_async_never_waited opt "" 86 'the thread ends with a cp.async it has not waited for'
finds write_past_global opt "" 86 'add_one_kernel wrote past the end of a device allocation of 1024 bytes'
finds write_past_global asan "" 1 'AddressSanitizer: use-after-poison'
finds read_past_global asan "" 1 'AddressSanitizer: use-after-poison'
finds read_past_global race "" 87 'read outside of all variables, 4 bytes at offset 1024 of a device allocation of 1024'
finds write_past_dynamic_shared opt "" 86 'wrote past the end of dynamic shared memory \(1024 bytes'
finds write_past_static_shared opt "" 86 'wrote past the end of one \(128 bytes'
for bug in write_past_dynamic_shared write_past_static_shared; do
    finds $bug asan "" 1 'AddressSanitizer: use-after-poison'
    finds $bug race "" ! 'write outside of all variables'
done
finds misaligned_vector asan "" 1 'misaligned address'
finds misaligned_ldmatrix opt "" 86 'ldmatrix: the row.s address is not aligned'
finds ended_lanes_in_mask opt "" 86 'deadlock in kernel warp_sum_kernel.*20 of 32 threads wait'
finds ended_lanes_in_mask opt SIM_ORDER=reverse 86 'mask ffffffff names lanes that have ended|deadlock'
finds divergent_barrier opt "" 86 'threads \(0,0,0\) to \(39,0,0\): __syncthreads, where 40 of 64 have arrived'
finds divergent_barrier opt SIM_ORDER=random 86 '__shfl_sync, waiting for lanes 000000ff of mask ffffffff'
for bug in missing_event_wait result_read_too_early input_overwritten_too_early; do
    finds $bug opt SIM_ASYNC=lazy 1 "$wrong"
    finds $bug opt SIM_ASYNC=random:3 1 "$wrong"
done
finds host_reads_device opt "" 86 'host code touches device memory'
finds kernel_gets_host_pointer opt "" 86 'argument 2 of a kernel launch, .* is neither device nor pinned memory'
finds use_after_free opt "" 86 'argument 2 of a kernel launch, .* is neither device nor pinned memory'
finds copy_past_end opt "" 86 'cudaMemcpy: 1028 bytes at offset 0 of an allocation of 1024 bytes'
finds stack_overflow opt "" 86 'stack overflow'

# ---- NCCL ----
if [ -x $bin/opt/test_nccl ]; then
    for ranks in 1 2 4; do
        for mode in eager lazy random; do
            expect "nccl, $ranks ranks, $mode" 0 "$all_passed" env SIM_ASYNC=$mode bash -c "mpi $ranks $bin/opt/test_nccl"
        done
    done
    expect "nccl, 2 ranks, address sanitizer" 0 "$all_passed" bash -c "mpi 2 $bin/asan/test_nccl"
    expect "nccl, 2 ranks, race check" 0 'rank 1: racecheck: [1-9][0-9]* accesses, 0 reports' \
        bash -c "mpi 2 $bin/race/test_nccl"
    expect "nccl: two ranks on one GPU" 0 'rank 1: invalid usage' bash -c "mpi 2 $bin/opt/test_nccl same_device"
    expect "nccl: ranks that disagree" ! 'calls ncclAllReduce number 1 of (100|50) elements .* ncclAllReduce number 1 of (100|50)' \
        bash -c "mpi 2 $bin/opt/test_nccl mismatch"
    for mode in eager lazy random; do
        expect "nccl: a hanging collective times out, $mode" 0 'rank 0: timed out' \
            env SIM_ASYNC=$mode SIM_NCCL_FAULT=hang:1:2 bash -c "mpi 2 $bin/opt/test_nccl watchdog"
    done
    expect "nccl: an error shows in the asynchronous query" 0 'rank 1: remote process exited' \
        env SIM_ASYNC=lazy SIM_NCCL_FAULT=error:1:2 bash -c "mpi 2 $bin/opt/test_nccl watchdog"
    expect "nccl: a rank that dies in a collective" ! 'process rank 1 .* exited on signal 9' \
        env SIM_NCCL_FAULT=kill:1:2 bash -c "mpi 2 $bin/opt/test_nccl watchdog"
    expect "nccl: refuses a fault it does not know" 86 'SIM_NCCL_FAULT=explode:0:1: hang, error, stop or kill' \
        env SIM_NCCL_FAULT=explode:0:1 $bin/opt/test_nccl watchdog

    # The event log: reduce-scatters overlap with the backward pass of later layers, and with nothing else.
    for step in overlapped serial; do
        for mode in eager lazy random; do
            SIM_LOG=$folder/$step.$mode SIM_ASYNC=$mode mpi 2 $bin/opt/test_nccl $step >"$folder/out" 2>&1
            expect "event log, $step step, $mode" 0 '^as expected$' python3 - "$folder/$step.$mode.1" $step $mode <<'PY'
import sys
sys.path.insert(0, "dev/cudasim")
from event_log import EventLog
log, step, mode = EventLog(sys.argv[1]), sys.argv[2], sys.argv[3]
backward = [log.find(kind="kernel", name="backward_kernel", range=f"layer {l}")[0] for l in range(4)]
reduce = [log.find(kind="collective", name="ncclReduceScatter", range=f"layer {l}")[0] for l in range(4)]
update = log.find(kind="kernel", name="update_kernel", range="step")
assert len(update) == 4 and all(u.stream == b.stream != r.stream for u in update for b in backward for r in reduce)
for l in range(4):
    assert log.must_precede(backward[l], reduce[l]) and not log.must_precede(reduce[l], backward[l])
    assert all(log.must_precede(r, u) for r in reduce for u in update)
    for later in range(l):  # layers whose backward comes after that of l
        assert log.can_overlap(reduce[l], backward[later]) == (step == "overlapped"), (l, later)
        assert reduce[l].position < backward[later].position
assert not log.host_waits(backward[3], update[3])
assert all(op.run is not None and op.done is not None for op in backward + reduce + update)
if mode == "lazy":  # nothing ran before the host's wait at the end
    assert backward[3].run > update[3].position
if mode == "eager":
    assert reduce[3].done < backward[2].position
print("as expected")
PY
        done
    done
    SIM_LOG=$folder/listed SIM_ASYNC=lazy mpi 1 $bin/opt/test_nccl >/dev/null 2>&1
    expect "event log, listed" 0 'collective ncclReduceScatter on stream [0-9] in step/layer 3, after' \
        python3 dev/cudasim/event_log.py "$folder/listed.0"
else
    echo "no MPI here: NCCL is not tested"
fi

# ---- machine code ----
sass() { python3 dev/cuda/sass_check.py "$1" dev/cudasim/tests/test_ptx.cu; }
export -f sass
expect "kernels within their budget" 0 '^15 kernels checked, 0 outside' sass dev/cudasim/tests/sass_budget.json
sed 's/"architectures.*/"architectures": [80],/; s/"HMMA": {"min": 16}/"HMMA": {"min": 17}/; s/"max": 128/"max": 40/' \
    dev/cudasim/tests/sass_budget.json >"$folder/tight.json"
expect "a budget that is too tight" 1 'registers 56 > 40; HMMA 16 < 17' sass "$folder/tight.json"
sed 's/"architectures.*/"architectures": [80],/; s/tile_gemm_kernel/no_such_kernel/' \
    dev/cudasim/tests/sass_budget.json >"$folder/stale.json"
expect "a budget for a kernel that is gone" 1 'no_such_kernel<0> is in the budget and in no file' sass "$folder/stale.json"
echo '{"kernels": {"f": {"HMMA": 3}}}' >"$folder/bad.json"
expect "a malformed budget" 2 'HMMA: 3 in the budget' sass "$folder/bad.json"

echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed -gt 0 ]
