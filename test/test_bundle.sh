#!/usr/bin/env bash
# test_bundle.sh: scripts/bundle.sh, and what it makes in a root folder that holds nothing but the bundle and glibc: no
# shell, no packages, no /proc. The kernels are those that scripts/test.sh has built.
set -u
cd "$(dirname "$0")/.."
passed=0 failed=0
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
expect() { # expect NAME PATTERN COMMAND...: exit code 0, and PATTERN is found in what is printed
    local name=$1 pattern=$2 output status=0
    shift 2
    output=$("$@" 2>&1) || status=$?
    if [ $status = 0 ] && grep -qE -e "$pattern" <<<"$output"; then
        passed=$((passed + 1))
        echo "ok   $name"
    else
        failed=$((failed + 1))
        printf 'FAIL %s: exit code %s, expected %s\n' "$name" $status "$pattern"
        tail -n 8 <<<"$output" | cut -c 1-300 | sed 's/^/     | /'
    fi
}

[ -f build/llmc/cuda/cuda.o ] && export CUDA_BUILD=${CUDA_BUILD:-build}
expect "built, checked and packed, under 60 MB" "train_c3.tar.gz: [1-5]?[0-9] MB; .* needs GLIBC 2\." bash scripts/bundle.sh "$folder/train_c3"

# The root: what the tarball holds, and of this machine the loader and glibc's libraries.
root=$folder/root
mkdir -p "$root/tmp" "$root/lib64" "$root/lib"
tar -xzf "$folder/train_c3.tar.gz" -C "$root"
cp -L /lib64/ld-linux-x86-64.so.2 "$root/lib64"
for name in libc.so.6 libm.so.6 libpthread.so.0 libdl.so.2 librt.so.1; do
    cp -L "$(gcc -print-file-name=$name)" "$root/lib"
done
enter=("$(command -v chroot)" "$root")
chroot / /bin/true 2>/dev/null || enter=("$(command -v unshare)" -r "${enter[@]}") # no root, or one that may not
# $ORIGIN, which the programs find lib/ by, is /proc/self/exe's folder, or without /proc what LD_ORIGIN_PATH says.
inside() { env -i LD_ORIGIN_PATH="$(dirname "$1")" "${enter[@]}" "$@"; }
bundle=/train_c3
pages=$bundle/data/bundle/pages_00000.bin

expect "the manifest is right" "^$" bash -c "cd '$root$bundle' && sha256sum --quiet -c MANIFEST"
expect "train_c3 starts" "CUDA +[0-9.]+ for sm_" inside $bundle/train_c3 --version
expect "c3 starts" "^c3 " inside $bundle/c3 --version
expect "pages can be read" "pages +256," inside $bundle/c3 info $pages
expect "a few steps of training on the CPU" "done" inside $bundle/train_c3 -preset demo -n 8 -template bare -threads 1 -b 1 -g 1 \
    -tok $bundle/data/qwen2.5/qwen.tiktoken -data $pages -steps 2 -warmup 1 -o /tmp/run -no_save
expect "loss, gradients and ten steps as PyTorch's" "^[6-9] passed, 0 failed" \
    inside $bundle/build/test/parity_check $bundle/data/bundle/parity/heads128_small
expect "operation tests" "^[1-9][0-9]* passed, 0 failed" inside $bundle/build/test/test_ops -only norm
expect "the plan of the paper's run" "predicted  [0-9.]+ s a step" inside $bundle/c3 plan -gpu h100 -plan_ranks 8
mv "$root$bundle/lib" "$root$bundle/elsewhere"
without_lib() { ! inside $bundle/c3 --version; }
expect "nothing of this machine is used: without lib/ it does not start" "error while loading shared libraries" without_lib

echo "$passed passed, $failed failed"
[ $failed = 0 ]
