#!/usr/bin/env bash
# test_fuzz.sh: what a fuzzing run (test/fuzz/run.sh) counts as found: a crash, and an input that takes processor time;
# not one that waits while a machine does other things.
set -u
cd "$(dirname "$0")/.."
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree"/test/fuzz "$tree"/build/fuzz
cp test/fuzz/run.sh "$tree"/test/fuzz/
echo 'import sys; open(sys.argv[2] + "/seed", "w").write("seed")' >"$tree"/test/fuzz/seeds.py
passed=0 failed=0
# expect NAME EXIT-CODE KEPT STATEMENT: a parser that does STATEMENT once, with its seed; KEPT inputs are kept.
expect() {
    local status=0 kept
    rm -rf "$tree"/build/fuzz/one.*
    printf '%s\n' '#include <stddef.h>' '#include <stdint.h>' '#include <stdlib.h>' '#include <time.h>' \
        'int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);' \
        'int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {' '    static int done;' \
        '    if (size < 4 || data[0] != 115 || done++) return 0;' "    $4" '    return 0;' '}' >"$tree"/one.c
    clang -g -fsanitize=fuzzer -Wl,--wrap=LLVMFuzzerTestOneInput -o "$tree"/build/fuzz/one "$tree"/one.c \
        test/fuzz/slow.c >"$tree"/out 2>&1 && bash "$tree"/test/fuzz/run.sh one 1 1 >"$tree"/out 2>&1 || status=$?
    kept=$(ls "$tree"/build/fuzz/one.found | wc -l)
    if [ $status = "$2" ] && [ "$kept" = "$3" ] && tail -n 1 "$tree"/out | grep -q "$((1 - $2)) passed, $2 failed"; then
        echo "ok   $1"
        passed=$((passed + 1))
    else
        echo "FAIL $1: exit code $status, expected $2; $kept inputs kept, expected $3"
        tail -n 20 "$tree"/out | sed 's/^/  /'
        failed=$((failed + 1))
    fi
}
expect "nothing found" 0 0 ';'
expect "a crash" 1 1 'abort();'
expect "an input that takes more processor time than allowed" 1 1 'for (volatile int i = 0;; i++) {}'
expect "an input that waits longer than that" 0 0 'nanosleep(&(struct timespec){.tv_sec = 3}, NULL);'
echo "$passed passed, $failed failed"
[ $failed = 0 ]
