#!/usr/bin/env bash
# get_toolkit.sh: prints the folder of a CUDA toolkit (with bin/nvcc and include/), fetching one if there is none.
#
#   bash dev/cuda/get_toolkit.sh             the toolkit
#   bash dev/cuda/get_toolkit.sh nvdisasm    the disassembler's path
#
# Looked for in CUDA_HOME, beside the nvcc on the PATH, in /usr/local/cuda. A toolkit counts when it has what this project
# compiles with: nvcc, the runtime's headers, cublasLt.h, nccl.h (also found in the compiler's own include path). Otherwise
# NVIDIA's wheels are fetched from PyPI into .cuda/ (1.2 GB; CUDA_WHEELS=1: always). No GPU or driver is needed.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/common.sh
root=$PWD/.cuda

# wheels FOLDER PACKAGE...: into .cuda/FOLDER, whole or not at all
wheels() {
    local folder=$root/$1 python=python3
    shift
    [ -e "$folder/complete" ] && return
    mkdir -p "$root"
    echo '*' >"$root/.gitignore"
    [ ! -x .venv/bin/python ] || python=.venv/bin/python
    rm -rf "$folder"
    warn "fetching $* from PyPI into .cuda/"
    "$python" -m pip install -q --no-deps --target "$folder" "$@" >&2 ||
        die "pip could not fetch the CUDA wheels, see above (hint: set CUDA_HOME to a toolkit)"
    : >"$folder/complete"
}

complete() { # complete TOOLKIT: has it all that is needed?
    [ -x "$1/bin/nvcc" ] && [ -f "$1/include/cuda_runtime.h" ] && [ -f "$1/include/cublasLt.h" ] || return 1
    [ -f "$1/include/nccl.h" ] || echo '#include <nccl.h>' | g++ -I"$1/include" -fsyntax-only -x c++ - 2>/dev/null
}
find_toolkit() {
    local on_path candidate
    on_path=$(command -v nvcc || true)
    [ -z "$on_path" ] || on_path=$(dirname "$(dirname "$(readlink -f "$on_path")")")
    for candidate in "${CUDA_HOME:-}" "$on_path" /usr/local/cuda; do
        if [ -n "$candidate" ] && complete "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}
fetch_toolkit() {
    local v="13.0.*" toolkit=$root/toolkit/nvidia/cu13 part
    wheels toolkit "nvidia-cuda-nvcc==$v" "nvidia-cuda-crt==$v" "nvidia-nvvm==$v" "nvidia-cuda-cccl==$v" \
        "nvidia-cuda-runtime==$v" "nvidia-nvtx==$v" nvidia-cublas==13.* nvidia-nccl-cu13
    # NCCL comes in a folder of its own; linkers want names without a version, nvcc wants lib64.
    for part in include lib; do ln -sfn "$root"/toolkit/nvidia/nccl/$part/* "$toolkit/$part/"; done
    (cd "$toolkit/lib" && for part in *.so.*; do ln -sfn "$part" "${part%%.so.*}.so"; done)
    ln -sfn lib "$toolkit/lib64"
    chmod +x "$toolkit"/bin/* "$toolkit"/nvvm/bin/*
    complete "$toolkit" || die "the fetched toolkit in .cuda/ lacks something (hint: rm -rf .cuda and try again)"
    printf '%s\n' "$toolkit"
}

case ${1:-} in
'') if [ -n "${CUDA_WHEELS:-}" ] || ! find_toolkit; then fetch_toolkit; fi ;;
nvdisasm)
    if [ -z "${CUDA_WHEELS:-}" ] && command -v nvdisasm; then exit; fi
    toolkit=$(bash dev/cuda/get_toolkit.sh)
    if [ -x "$toolkit/bin/nvdisasm" ]; then
        printf '%s\n' "$toolkit/bin/nvdisasm"
    else
        wheels nvdisasm nvidia-cuda-nvdisasm==13.*
        found=$(find "$root/nvdisasm" -name nvdisasm -type f)
        chmod +x "$found"
        printf '%s\n' "$found"
    fi
    ;;
*) die "unknown argument '$1' (hint: none, or nvdisasm)" ;;
esac
