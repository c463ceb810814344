#!/usr/bin/env bash
# train_c3.cu is C11 and C++17 at once: gcc builds it where there is no nvcc, nvcc reads it as C++. Here g++ stands for
# nvcc, at its strictest, with the same headers; gcc with the same strictness for the other side.
set -u
cd "$(dirname "$0")/.."
passed=0 failed=0
check() { # check NAME EXPECTED-STATUS COMMAND...
    local name=$1 expected=$2 output status=0
    shift 2
    output=$("$@" 2>&1) || status=$?
    if [ $((status != 0)) = "$expected" ]; then
        echo "ok   $name"
        passed=$((passed + 1))
    else
        echo "FAIL $name"
        printf '%s\n' "$output"
        failed=$((failed + 1))
    fi
}
cxx="g++ -std=c++17 -pedantic-errors -fsyntax-only -I. -x c++"
c="gcc -std=c11 -D_GNU_SOURCE -pedantic-errors -fsyntax-only -I. -x c"
check "train_c3.cu as C++17" 0 $cxx train_c3.cu
check "train_c3.cu as C11" 0 $c train_c3.cu
# The check can fail: C that is not C++.
check "C that is not C++ is seen" 1 bash -c "echo 'int *f(void *p) { int *new = p; return new; }' | $cxx -"
check "C++ that is not C is seen" 1 bash -c "echo 'int &f(int &a) { return a; }' | $c -"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
