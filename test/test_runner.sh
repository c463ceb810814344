#!/usr/bin/env bash
# The runner must not call a run good that was not: scripts/test.sh on a small tree of its own, with tests that pass,
# fail, crash after a good closing line, say nothing, count nothing, hang and leave a process behind; and a build that
# warns.
set -u
cd "$(dirname "$0")/.."
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree"/scripts "$tree"/test "$tree"/dev/cuda
cp scripts/test.sh scripts/common.sh "$tree"/scripts/
echo 'exit ${SETUP_STATUS:-0}' >"$tree"/scripts/setup.sh
echo 'echo /a/toolkit' >"$tree"/dev/cuda/get_toolkit.sh
printf 'all tests:\n\t@echo built $(NOTE)\n' >"$tree"/Makefile
fake() { printf '%s\n' "$2" >"$tree/test/test_$1.sh"; }
fake good 'echo "3 passed, 0 failed"'
fake bad 'echo "the reason"; echo "2 passed, 1 failed"; exit 1'
fake unfaithful 'echo "2 passed, 1 failed"'
fake crash 'echo "5 passed, 0 failed"; kill -SEGV $$'
fake silent 'true'
fake empty 'echo "0 passed, 0 failed"'
mine=56789.$$ # a sleep of this test and of no other
fake hang "echo '1 passed, 0 failed'; sleep $mine & sleep $mine"
fake leaver "sleep $mine & echo '1 passed, 0 failed'"

passed=0 failed=0
# expect NAME EXIT-CODE LAST-LINE PATTERN ARGUMENT...: runs the runner; its output must match the extended PATTERN.
expect() {
    local name=$1 status=0 output wanted=$2 last=$3 pattern=$4
    shift 4
    output=$(cd "$tree" && bash scripts/test.sh "$@" 2>&1) || status=$?
    if [ $status = "$wanted" ] && [ "$(tail -n 1 <<<"$output")" = "$last" ] && grep -qE "$pattern" <<<"$output"; then
        echo "ok   $name"
        passed=$((passed + 1))
    else
        echo "FAIL $name: exit code $status, expected $wanted; last line expected: $last"
        printf '%s\n' "$output" | sed 's/^/  /'
        failed=$((failed + 1))
    fi
}
expect "a good test" 0 "4 passed, 0 failed" '^ok   good +[0-9.]+ s \(3 passed\)$' good
expect "a failing test, with its reason" 1 "3 passed, 1 failed" '\| the reason$' bad
expect "a failure without an exit code" 1 "3 passed, 1 failed" '^FAIL unfaithful' unfaithful
expect "a crash behind a good closing line" 1 "6 passed, 1 failed" '^FAIL crash .*exit code 139' crash
expect "no closing line" 1 "1 passed, 1 failed" '^FAIL silent' silent
expect "nothing counted" 1 "1 passed, 1 failed" '^FAIL empty' empty
TEST_LIMIT=3 expect "a hang" 1 "2 passed, 1 failed" 'time limit: ended after 3 s' hang
expect "a process left behind" 0 "2 passed, 0 failed" '^ok   leaver' leaver
expect "several" 1 "6 passed, 2 failed" '^FAIL silent' good silent bad
expect "an unknown name" 2 "test.sh: no test named 'nothing' (hint: scripts/test.sh -l)" nothing nothing
NOTE="a.c:1:2: warning: odd" expect "a compiler's warning" 1 "3 passed, 1 failed" '^FAIL build' good
SETUP_STATUS=1 expect "a set-up that failed" 2 "test.sh: setup failed: nothing was run" 'setup' good

name="what a test started is ended"
left() { grep -aqzFx "$mine" /proc/[0-9]*/cmdline 2>/dev/null; }
for _ in $(seq 600); do # a killed process may need a moment to go
    left || break
    sleep 0.1
done
if left; then
    echo "FAIL $name"
    failed=$((failed + 1))
else
    echo "ok   $name"
    passed=$((passed + 1))
fi
echo "$passed passed, $failed failed"
[ $failed = 0 ]
