#!/usr/bin/env bash
# bundle.sh: one folder, and a tarball of it, for a machine with an NVIDIA driver where nothing can be installed: a
# cluster without root, a borrowed card. It needs no compiler, package, network or root there: x86-64 Linux with glibc as
# new as the one here, or newer.
#
#   bash scripts/bundle.sh [OUT]     makes OUT (build/train_c3) and OUT.tar.gz, and checks them
#   bash scripts/bundle.sh -data     only data/bundle: the parity cases and pages that scripts/gpu_check.sh works with
#
# Inside: train_c3 and c3 for one rank (they need no MPI), mpi/train_c3 and mpi/c3 for the machine's own Open MPI, operation
# tests, the parity checker and its cases, the bench, tokenizer, pages of 950 tokens, the small libraries in lib/, and
# scripts/gpu_check.sh. Not inside, for their size: cuBLASLt and NCCL, which are taken from the machine's CUDA toolkit or
# from its Python's packages (c3 info says which).
# GPU_ARCH: as for make; default all. CUDA_BUILD: a build for these GPUs whose kernels are taken. Takes 3 minutes on two
# cores, without CUDA_BUILD 4.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
case ${1:-} in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; exit ;; esac

# ---- cases and pages: data/bundle ----
make_data() {
    local c3=$1 to=data/bundle
    [ ! -e $to/complete ] || return 0
    rm -rf $to
    mkdir -p $to/parity
    .venv/bin/python dev/reference.py make --out $to/parity --case own_answer heads128_small
    # Pages of 950 tokens: the demo's texts, one after the other, cut where a page is full.
    C3=$c3 bash data/make_demo.sh >/dev/null
    .venv/bin/python - $to/pages.jsonl <<'PY'
import json
import sys

text, pages = "", 0
with open("data/demo/val.jsonl", encoding="utf-8") as f, open(sys.argv[1], "w", encoding="utf-8") as out:
    for line in f:
        text += json.loads(line)["text"] + "\n"
        if len(text.encode()) > 3700:  # 950 tokens or a little less
            out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            text, pages = "", pages + 1
        if pages == 256:
            break
PY
    "$c3" tokenize -tok data/qwen2.5/qwen.tiktoken -o $to/pages $to/pages.jsonl
    rm $to/pages.jsonl
    : >$to/complete
}
if [ "${1:-}" = -data ]; then make_data ./c3; exit; fi

out=${1:-build/train_c3}
[ "$(uname -m)" = x86_64 ] || die "bundles are for x86-64, this is $(uname -m)"
steps_total=4
step "set-up"
bash scripts/setup.sh test
CUDA_HOME=$(bash dev/cuda/get_toolkit.sh)
export CUDA_HOME GPU_ARCH=${GPU_ARCH:-all}

step "build: one rank, then Open MPI's; the kernels are compiled once"
one=build/bundle/one mpi=build/bundle/mpi
export CUDA_BUILD=${CUDA_BUILD:-$one}
make -s -j"$(cores)" BUNDLE=1 MPICC= BUILD=$one BIN=$one/ all $one/test/test_ops $one/test/parity_check $one/dev/cuda/bench
make -s -j"$(cores)" BUNDLE=1 BUILD=$mpi BIN=$mpi/ all
[ -f "$CUDA_BUILD/llmc/cuda/cuda.o" ] || die "the build is one for CPUs: $(make -s found NO_CUDA=)"

step "pages, cases, libraries"
make_data $one/c3
rm -rf "$out" "$out.tar.gz"
mkdir -p "$out"/{lib,mpi,test,scripts,dev,data/qwen2.5,build/test,build/dev/cuda}
install -s -m 755 $one/train_c3 $one/c3 "$out"
install -s -m 755 $mpi/train_c3 $mpi/c3 "$out/mpi"
install -s -m 755 $one/test/test_ops $one/test/parity_check "$out/build/test"
install -s -m 755 $one/dev/cuda/bench "$out/build/dev/cuda"
cp -r data/bundle "$out/data"
cp data/qwen2.5/qwen.tiktoken "$out/data/qwen2.5"
cp scripts/{gpu_check,common,run_paper}.sh "$out/scripts"
cp test/{test_gpu,harness}.py "$out/test"
cp dev/bench_torch.py "$out/dev"
cp LICENSE "$out"
# Of what the programs load, all but glibc and what belongs to the machine (MPI and its kin).
for library in $(ldd "$out/train_c3" | awk '$3 ~ /^\// { print $3 }'); do
    case ${library##*/} in
    libc.so* | libm.so* | libpthread.so* | libdl.so* | librt.so* | ld-linux*) ;;
    *) install -m 644 "$(readlink -f "$library")" "$out/lib/${library##*/}" ;;
    esac
done
glibc=$(objdump -T "$out"/train_c3 "$out"/c3 "$out"/build/test/* "$out"/lib/* 2>/dev/null | grep -o 'GLIBC_2\.[0-9]*' | sort -Vu | tail -n 1)
cat >"$out/README" <<TXT
train_c3, bundled: $(git describe --tags --always --dirty 2>/dev/null || echo unknown)
x86-64 Linux with ${glibc/_/ } or newer and an NVIDIA driver for CUDA $("$CUDA_HOME/bin/nvcc" --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p') or newer.

  ./train_c3 -h                        one rank: one GPU, or the CPU
  mpirun -np 8 mpi/train_c3 ...        eight GPUs, with this machine's Open MPI 4 or 5 and NCCL
  bash scripts/gpu_check.sh            checks and measures the card; the table goes into an issue
  bash scripts/run_paper.sh            the paper's run

cuBLASLt and NCCL are looked for by name (LD_LIBRARY_PATH), in CUDA_HOME and /usr/local/cuda*, and in the packages of Python
(VIRTUAL_ENV, CONDA_PREFIX, the python3 on the PATH); train_c3 names those it took.
TXT
(cd "$out" && find . -type f ! -name MANIFEST -print0 | sort -z | xargs -0 sha256sum >MANIFEST)

step "check, tarball"
# As on a machine that has nothing: only what lies in the bundle, glibc, and no environment.
for program in train_c3 c3; do
    env -i PATH=/nonexistent "$out/$program" --version >/dev/null || die "$out/$program does not start"
    missing=$(env -i ldd "$out/$program" | awk -v lib="$(realpath "$out")/lib/" '$3 ~ /^\// && index($3, lib) != 1 { print $1 }' |
        grep -vE '^(libc|libm|libpthread|libdl|librt)\.so' || true)
    [ -z "$missing" ] || die "$program takes $missing from this machine"
done
tar -C "$(dirname "$out")" -czf "$out.tar.gz" "$(basename "$out")"
bytes=$(stat -c %s "$out.tar.gz")
say "$out.tar.gz: $((bytes / 1000000)) MB; unpacked $(du -sm "$out" | cut -f1) MB; needs ${glibc/_/ }"
[ "$bytes" -lt 60000000 ] || die "$out.tar.gz has $bytes bytes; 60 MB are the most"
