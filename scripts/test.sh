#!/usr/bin/env bash
# test.sh: builds everything and runs every test, one after the other; the last line is the total, "N passed, N failed".
#
#   bash scripts/test.sh            all of it (this is what CI runs)
#   bash scripts/test.sh NAME...    some: shard for test/test_shard.*, or one of the legs: build, sanitize, fuzz
#   bash scripts/test.sh -l         the names
#
# A test is test/test_NAME.c, .py or .sh; it runs in the root, prints what it likes and ends with "N passed, N failed".
# One that prints no such line, crashes, hangs (TEST_LIMIT seconds, 900 by default) or counts nothing is a failure.
# Legs: `build` fails on compiler warnings, nvcc's too: for all GPUs that are promised; `sanitize` runs the C tests again under gcc's address and undefined-
# behaviour sanitizers; `fuzz` gives each parser FUZZ_SECONDS (10) of libFuzzer. Logs are kept in build/test-logs/.
# Exit code: 0 when all passed, 1 when something failed, 2 when nothing could be run.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
{ # read whole before it runs, so that the file may change meanwhile
export LC_ALL=C.UTF-8 PYTHONUNBUFFERED=1
# All tests but test_gpu.py compute on the CPU, also where there are GPUs.
if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then sees_gpus=(env CUDA_VISIBLE_DEVICES="$CUDA_VISIBLE_DEVICES")
else sees_gpus=(env -u CUDA_VISIBLE_DEVICES); fi
export CUDA_VISIBLE_DEVICES=
limit=${TEST_LIMIT:-900} fuzz_seconds=${FUZZ_SECONDS:-10}
logs=build/test-logs

# Not under sanitizers: they would only take ten times as long there, over code that the other tests reach.
too_long_to_sanitize=""

# ---- which ----
# The demo first: it makes the pages that other tests look at.
all=$(ls test/test_demo.py test/test_*.c test/test_*.py test/test_*.sh -U 2>/dev/null | awk '!seen[$0]++')
name_of() { local file=${1##*/test_}; echo "${file%.*}"; }
if [ "${1:-}" = -l ]; then
    echo build
    for file in $all; do name_of "$file"; done
    printf 'sanitize\nfuzz\n'
    exit 0
fi
chosen=() legs=
if [ $# = 0 ]; then
    chosen=($all) legs="build sanitize fuzz"
fi
for name in "$@"; do
    case $name in
    build | sanitize | fuzz) legs="$legs $name" ;;
    -*) die "unknown option $name (hint: the head of scripts/test.sh)" ;;
    *)
        name=$(name_of "/test_${name##*test_}")
        found=$(ls test/test_"$name".* 2>/dev/null)
        [ -n "$found" ] || { warn "no test named '$name' (hint: scripts/test.sh -l)"; exit 2; }
        chosen+=($found)
        ;;
    esac
done
leg() { case " $legs " in *" $1 "*) true ;; *) false ;; esac; }

# ---- running one ----
passed=0 failed=0 current=
# A test is the leader of a session of its own, so that all it started can be found and ended: at its time limit, at
# Ctrl-C, and when it leaves something behind.
end_session() { # end_session ID SIGNAL: true when there was something to end
    local stat pid state session pids=()
    for stat in /proc/[0-9]*/stat; do
        # pid (name) state parent group session: the name may hold spaces and parentheses
        read -r stat 2>/dev/null <"$stat" || continue
        pid=${stat%% *}
        read -r state _ _ session _ <<<"${stat##*) }"
        if [ "$session" = "$1" ] && [ "$state" != Z ]; then pids+=("$pid"); fi
    done
    [ ${#pids[@]} -gt 0 ] && kill -"$2" "${pids[@]}" 2>/dev/null
}
trap '[ -z "$current" ] || end_session "$current" KILL; exit 130' INT TERM HUP

# run_logged LOG COMMAND...: the command's exit code, or 124 when the time limit ended it.
run_logged() {
    local log=$1 status start=$SECONDS
    shift
    setsid "$@" >"$log" 2>&1 </dev/null &
    current=$!
    while kill -0 $current 2>/dev/null; do
        if [ $((SECONDS - start)) -ge "$limit" ]; then
            end_session $current TERM && sleep 3
            end_session $current KILL
            wait $current 2>/dev/null
            echo "time limit: ended after $limit s" >>"$log"
            current=
            return 124
        fi
        sleep 0.05
    done
    wait $current
    status=$?
    end_session $current KILL && echo "left processes running; they were ended" >>"$log"
    current=
    return $status
}

# report NAME STATUS SECONDS LOG: one line, and the log's end when it failed; adds to the totals by the closing line.
report() {
    local name=$1 status=$2 seconds=$3 log=$4 closing p=0 f=0
    closing=$(grep -aE '^[0-9]+ passed, [0-9]+ failed$' "$log" | tail -n 1)
    if [ -n "$closing" ]; then
        p=${closing%% *}
        f=${closing#*, }
        f=${f%% *}
    fi
    # A crash after the closing line, no closing line and a count of nothing are one failure each.
    if [ "$f" = 0 ] && { [ "$status" != 0 ] || [ "$p" = 0 ]; }; then f=1; fi
    passed=$((passed + p)) failed=$((failed + f))
    if [ "$f" = 0 ]; then
        printf 'ok   %-24s %7s s (%d passed)\n' "$name" "$seconds" "$p"
    else
        printf '%sFAIL %-24s %7s s (%d passed, %d failed, exit code %d)%s\n' "$red" "$name" "$seconds" "$p" "$f" \
            "$status" "$plain"
        tail -n 60 "$log" | cut -c 1-240 | sed 's/^/     | /'
        echo "     whole log: $log"
    fi
}
test_one() { # test_one NAME LOG COMMAND...
    local name=$1 log=$2 start status=0
    shift 2
    start=$(now)
    run_logged "$log" "$@" || status=$?
    report "$name" $status "$(seconds_since "$start")" "$log"
}

# ---- building: warnings are failures ----
build() { # build NAME LOG MAKE-ARGUMENT...: false when it failed
    local name=$1 log=$2 status=0 start warned
    shift 2
    start=$(now)
    limit=3600 run_logged "$log" make -k -j2 "$@" || status=$?
    warned=$(grep -aoE '^[^ :]+:[0-9]+(:[0-9]+)?: warning: ' "$log" | cut -d: -f1 | sort -u)
    if [ $status = 0 ] && ! grep -aq 'warning:' "$log"; then
        echo "1 passed, 0 failed" >>"$log"
    else
        # So that the next run compiles them, and sees the warnings, again.
        for file in $warned; do rm -f build/"${file%.*}".o build/*/"${file%.*}".o; done
        grep -aE -A 3 'warning:|error:|\*\*\*' "$log" | head -n 40
        echo "0 passed, 1 failed" >>"$log"
    fi
    report "$name" $status "$(seconds_since "$start")" "$log"
    tail -n 1 "$log" | grep -q '^1 passed'
}

begin=$SECONDS
steps_total=
step "setup"
bash scripts/setup.sh test || { warn "setup failed: nothing was run"; exit 2; }
mpi_environment
# The toolkit that set-up found or fetched; all GPUs, whatever this machine has.
CUDA_HOME=$(bash dev/cuda/get_toolkit.sh) || { warn "no CUDA toolkit: nothing was run"; exit 2; }
export CUDA_HOME GPU_ARCH=${GPU_ARCH:-all}
mkdir -p $logs
say "logs in $logs/, time limit $limit s a test"

step "build"
# All of it, or for C tests alone only those. Tests that are scripts drive train_c3, c3 and the helper programs.
targets=()
leg build && targets=(all tests)
for file in ${chosen[@]+"${chosen[@]}"}; do
    case $file in
    *.c) targets+=("build/test/test_$(name_of "$file")") ;;
    *) targets+=(all $(ls test/*.c 2>/dev/null | sed -n '/\/test_/!s/\.c$//p' | sed 's/^/build\//')) ;;
    esac
done
[ ${#targets[@]} = 0 ] || build build $logs/build.log "${targets[@]}"

step "tests"
for file in ${chosen[@]+"${chosen[@]}"}; do
    name=$(name_of "$file")
    case $file in
    *.c) test_one "$name" $logs/"$name".log build/test/test_"$name" ;;
    test/test_gpu.py) test_one "$name" $logs/"$name".py.log ${sees_gpus[@]+"${sees_gpus[@]}"} .venv/bin/python "$file" ;;
    *.py) test_one "$name" $logs/"$name".py.log .venv/bin/python "$file" ;;
    *.sh) test_one "$name" $logs/"$name".sh.log bash "$file" ;;
    esac
done

if leg sanitize; then
    step "under sanitizers"
    # A refused allocation is a case of the tests, not a finding.
    export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 ASAN_OPTIONS=allocator_may_return_null=1
    if build sanitize-build $logs/sanitize-build.log SANITIZE=1 tests; then
        for file in test/test_*.c; do
            name=$(name_of "$file")
            case " $too_long_to_sanitize " in *" $name "*) continue ;; esac
            test_one sanitize-"$name" $logs/sanitize-"$name".log build/sanitize/test/test_"$name"
        done
    fi
fi

if leg fuzz; then
    step "fuzzers, $fuzz_seconds s each"
    if build fuzz-build $logs/fuzz-build.log fuzz; then
        for file in test/fuzz/fuzz_*.c; do
            name=${file##*/fuzz_}
            name=${name%.c}
            test_one fuzz-"$name" $logs/fuzz-"$name".log bash test/fuzz/run.sh "$name" "$fuzz_seconds"
        done
    fi
fi

say
say "took $(minutes $((SECONDS - begin))) on $(cores) cores"
printf '%d passed, %d failed\n' $passed $failed
[ $((passed + failed)) -gt 0 ] || exit 2
[ $failed = 0 ]
exit
}
