#!/usr/bin/env bash
# test.sh: sets up, builds everything with warnings as errors, and runs every test; the last line is the total.
#
#   bash scripts/test.sh               all of it (this is what CI runs)
#   bash scripts/test.sh -k shard      some, by name; what stands here goes to pytest: -k NAME, -x, test/test_train.py, ...
#
# Set-up (scripts/setup.sh test) installs what is missing and says so. The build is of three kinds: the product and its
# tests for CPUs and for all GPUs that are promised, the C tests again under gcc's address and undefined-behaviour
# sanitizers, and libFuzzer programs for every parser. The demo runs first: other tests look at its pages and its model.
# pytest then runs the programs in test/, JOBS (2) at a time; see test/conftest.py. Logs and JUnit files are kept in
# build/test-logs/. TEST_LIMIT: seconds a program may take; FUZZ_SECONDS (10): of each fuzzer.
# Exit code: 0 when all passed, 1 when something failed, 2 when nothing could be run.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
{ # read whole before it runs, so that the file may change meanwhile
logs=build/test-logs python=.venv/bin/python failed=0 builds=0
case ${1:-} in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; exit 0 ;; esac

# build NAME MAKE-ARGUMENT...: warnings are failures; their files are compiled, and warn, again next time.
build() {
    local log=$logs/$1.log status=0 file
    shift
    make -k -j"$(cores)" "$@" >"$log" 2>&1 </dev/null || status=$?
    [ $status != 0 ] || ! grep -aq 'warning:' "$log" || status=1
    [ $status = 0 ] && return
    builds=$((builds + 1)) failed=1
    for file in $(grep -aoE '^[^ :]+:[0-9]+(:[0-9]+)?: warning: ' "$log" | cut -d: -f1 | sort -u); do
        rm -f build/"${file%.*}".o build/*/"${file%.*}".o
    done
    grep -aE -A 3 'warning:|error:|\*\*\*' "$log" | head -n 40
    warn "the build warns or fails: $log"
}

# run_tests NAME PYTEST-ARGUMENT...: adds a JUnit file for the total.
run_tests() {
    local name=$1
    shift
    $python -m pytest --junitxml="$logs/$name.xml" "$@" </dev/null || failed=1
}

began=$SECONDS
step "set-up"
bash scripts/setup.sh test || { warn "set-up failed: nothing was run"; exit 2; }
mpi_environment
# The toolkit that set-up found or fetched; all GPUs, whatever this machine has.
CUDA_HOME=$(bash dev/cuda/get_toolkit.sh) || { warn "no CUDA toolkit: nothing was run"; exit 2; }
export CUDA_HOME GPU_ARCH=${GPU_ARCH:-all}
mkdir -p $logs
rm -f $logs/*.xml

step "build"
build build all tests
build sanitize SANITIZE=1 tests
build fuzz fuzz

if [ $# = 0 ]; then
    step "demo"
    run_tests demo test/test_demo.py
    step "tests, ${JOBS:-2} at a time; logs in $logs/"
    run_tests tests -n "${JOBS:-2}" --ignore=test/test_demo.py --durations=12
else
    step "tests"
    run_tests tests "$@"
fi

say
say "took $(minutes $((SECONDS - began))) on $(cores) cores"
$python - $builds $logs/*.xml <<'PY' || exit 2
import sys
import xml.etree.ElementTree as tree

builds = int(sys.argv[1])  # that failed
suites = [s for path in sys.argv[2:] for s in tree.parse(path).iter("testsuite")]
bad = sum(int(s.get("failures")) + int(s.get("errors")) for s in suites)
total = sum(int(s.get("tests")) - int(s.get("skipped")) for s in suites)
print(f"{total - bad} passed, {bad + builds} failed")
sys.exit(0 if total else 1)
PY
[ $failed = 0 ]
exit
}
