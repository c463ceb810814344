#!/usr/bin/env bash
# test_cuda_build.sh: what `make` makes of the toolkits, libraries and options it finds. Nothing is compiled: make's own
# account of what it would do is read. Then what the built program says on this machine.
set -u
cd "$(dirname "$0")/.."
passed=0 failed=0
unset GPU_ARCH NO_CUDA NVCC SANITIZE
empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT
expect() { # expect NAME PATTERN COMMAND...: PATTERN is found in what is printed; !PATTERN: is not
    local name=$1 pattern=$2 output ok=1
    shift 2
    output=$("$@" 2>&1)
    case $pattern in
    !*) if grep -qE -e "${pattern#!}" <<<"$output"; then ok=; fi ;;
    *) grep -qE -e "$pattern" <<<"$output" || ok= ;;
    esac
    if [ -n "$ok" ]; then
        passed=$((passed + 1))
        echo "ok   $name"
    else
        failed=$((failed + 1))
        printf 'FAIL %s: expected %s\n' "$name" "$pattern"
        tail -n 5 <<<"$output" | cut -c 1-300 | sed 's/^/     | /'
    fi
}
toolkit=$(bash dev/cuda/get_toolkit.sh)
would() { make -n -B BUILD="$empty" CUDA_HOME="$toolkit" "$@" "$empty/llmc/cuda/nccl.o" "$empty/test/test_ops"; }
found() { make -s BUILD="$empty" CUDA_HOME="$toolkit" "$@" found; }
export CUDA_HOME=$toolkit

expect "the toolkit is named, with its version" "^CUDA [0-9.]+ in .*, sm_80 sm_90" found GPU_ARCH=all
expect "NCCL is named" "NCCL in /" found
expect "a chosen architecture, and PTX of it" "-gencode arch=compute_90,code=sm_90 -gencode arch=compute_90,code=compute_90 " \
    would GPU_ARCH=90
expect "several, in order; PTX of the newest" "code=sm_80 .*code=sm_90 .*arch=compute_100,code=sm_100 .*code=compute_100 " \
    would "GPU_ARCH=100 80 90"
expect "all of them" "code=sm_80 .*code=sm_90 " would GPU_ARCH=all
expect "kernels are linked into the programs that can use a GPU" "test_ops .*llmc/cuda/nccl.o.*libcudart_static.a" would
expect "nvcc compiles the trainer" "nvcc .* -c train_c3.cu " make -n -B BUILD="$empty" CUDA_HOME="$toolkit" "$empty/train_c3.o"
expect "without CUDA the C compiler does" "^ *[a-z0-9-]*cc .* -x c -c train_c3.cu " \
    make -n -B BUILD="$empty" NO_CUDA=1 "$empty/train_c3.o"
expect "NO_CUDA=1 says so" "^CUDA no: NO_CUDA=1" found NO_CUDA=1
expect "NO_CUDA=1 links no kernels" "!llmc/cuda/[a-z]+\\.o .*test_ops|cudart|nvcc" make -n -B BUILD="$empty" NO_CUDA=1 "$empty/test/test_ops"
expect "sanitizers look at host code" "^CUDA no: host code" found SANITIZE=1
expect "no nvcc: said" "^CUDA no: no nvcc" found NVCC=no-such-nvcc
expect "no nvcc: the same as without CUDA" "!cudart" make -n -B BUILD="$empty" NVCC=no-such-nvcc "$empty/test/test_ops"
mkdir "$empty/bin"
printf '#!/bin/sh\necho release 12.0, V12.0.1\n' >"$empty/bin/nvcc"
chmod +x "$empty/bin/nvcc"
expect "a toolkit without cuBLASLt: said, CPU only" "^CUDA no: $empty/bin/nvcc has no cuBLASLt" \
    found NVCC="$empty/bin/nvcc"
if ! nvidia-smi -L >/dev/null 2>&1; then
    expect "the kernels without a GPU say so" "no GPU can be used: .* \\(hint: nvidia-smi" \
        build/test/test_ops -device cuda
fi

# Where cuBLASLt and NCCL are looked for when a GPU is opened.
echo 'int c3_test_library(void) { return 1; }' | gcc -shared -fPIC -x c - -o "$empty/library.so"
mkdir "$empty/search"
read -ra mpi <<<"$(mpicc --showme:link)"
gcc -std=c11 -fopenmp -DHAVE_NCCL -D_GNU_SOURCE -Wall -Wextra -I. -Werror -O2 -isystem "$toolkit/include" \
    test/cuda/libraries_check.c build/libc3.a "${mpi[@]}" -lcjson -lutf8proc -lz -lcrypto -lm -ldl -o "$empty/libraries_check"
while IFS= read -r line; do
    case $line in
    "ok "*) passed=$((passed + 1)) ;;
    FAIL*) failed=$((failed + 1)) ;;
    *" passed, "*" failed") continue ;;
    esac
    echo "$line"
done < <("$empty/libraries_check" "$empty/search" "$empty/library.so" 2>&1 || echo "FAIL the search of libraries: exit code $?")
echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed -gt 0 ]
