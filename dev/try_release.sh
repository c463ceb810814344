#!/usr/bin/env bash
# try_release.sh: the committed tree on another release of Debian or Ubuntu, in a fresh system of its own (debootstrap).
#
#   dev/try_release.sh [-c COMPILER] [-d FOLDER] RELEASE [WHAT]
#
#   RELEASE        its name: bookworm, trixie, noble...
#   WHAT build     (default) scripts/setup.sh build; make all tests: a warning is a failure; two ranks under mpirun
#        demo      build, and scripts/demo.sh
#        test ARG...   scripts/test.sh ARG... instead, with its own set-up and build; without arguments: all
#   -c COMPILER    build with this one, a package of that name: gcc-13
#   -d FOLDER      make the system there and keep it; used again, with all that is installed in it, when it is there.
#                  Otherwise it is made under TMPDIR and removed at the end
#
# Wants root (chroot, mounts; these live in a namespace and end with it), some minutes, and 1 GB; WHAT test: 12 GB.
# Packages come from where this machine's apt gets those of the same distribution, or from MIRROR=address: a Debian tries
# Debians, an Ubuntu Ubuntus, unless MIRROR and the other's keyring package (ubuntu-keyring) are given. Settings of apt
# and pip, proxies and certificates of this machine hold inside.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

compiler=gcc folder=
while getopts c:d:h option; do
    case $option in
    c) compiler=$OPTARG ;;
    d) folder=$(realpath -m "$OPTARG") ;;
    *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; exit 0 ;;
    esac
done
shift $((OPTIND - 1))
release=${1:-} what=${2:-build}
[ -n "$release" ] || die "which release? (hint: dev/try_release.sh trixie)"
case $what in build | demo | test) ;; *) die "unknown '$what' (hint: build, demo or test)" ;; esac
[ "$(id -u)" = 0 ] || die "wants root, for chroot"
shift $(($# < 2 ? $# : 2))

# ---- the system ----
if ! command -v debootstrap >/dev/null; then
    say "installing debootstrap"
    apt-get install -y -q --no-install-recommends debootstrap >/dev/null || die "no debootstrap (hint: apt-get update)"
fi
mirror() { # where apt gets this distribution's own packages
    local distribution
    distribution=$(. /etc/os-release && echo "$ID")
    apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
        awk -v of="$distribution" 'tolower($1) == of && $2 == "main" && $3 !~ /-/ { print $4; exit }'
}
MIRROR=${MIRROR:-$(mirror)}
[ -n "$MIRROR" ] || die "apt names no mirror of this distribution (hint: apt-get update, or MIRROR=address)"
root=$folder
if [ -z "$folder" ]; then
    root=$(mktemp -d "${TMPDIR:-/tmp}/try_release.XXXXXX")
    trap 'rm -rf --one-file-system "$root"' EXIT
fi
if [ ! -e "$root/etc/debootstrapped" ]; then
    step "$release by debootstrap"
    mkdir -p "$root"
    debootstrap --variant=minbase "$release" "$root" "$MIRROR" >"$root/debootstrap.out" 2>&1 ||
        { tail -n 20 "$root/debootstrap.out"; die "debootstrap failed (hint: does $MIRROR hold $release?)"; }
    echo "$release" >"$root/etc/debootstrapped"
fi
[ "$(cat "$root/etc/debootstrapped")" = "$release" ] || die "$root holds $(cat "$root/etc/debootstrapped")"

# What it takes to reach the package registries from inside as from outside.
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
[ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/"
mkdir -p "$root/usr/local/share/ca-certificates"
find /usr/local/share/ca-certificates -name '*.crt' -exec cp -t "$root/usr/local/share/ca-certificates" {} +
apt-config dump | grep -E '^Acquire::(https?|ftp|Retries|Check-)' >"$root/etc/apt/apt.conf.d/90outside" || true
inherited=()
for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY ${!PIP_*}; do
    [ -z "${!name:-}" ] || inherited+=("$name=${!name}")
done

# ---- the tree, as committed ----
tree=$root/usr/src/train_c3
rm -rf --one-file-system "$tree"
mkdir -p "$tree"
git archive HEAD | tar -x -C "$tree"

# inside COMMAND: in the chroot; /proc, /dev and /sys are mounted in a namespace that ends with the command
inside() {
    # shellcheck disable=SC2016 # expanded by the inner shells
    unshare --mount --pid --fork --kill-child bash -ec '
        root=$1
        shift
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount --rbind /sys "$root/sys"
        exec chroot "$root" env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
            LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@" </dev/null' \
        inside "$root" ${inherited[@]+"${inherited[@]}"} CC="$compiler" bash -ec "cd /usr/src/train_c3; $1"
}

step "set-up"
[ "$what" = test ] || inside 'bash scripts/setup.sh build'
if [ "$compiler" != gcc ] && ! inside "command -v $compiler" >/dev/null; then
    say "  $compiler"
    inside "apt-get update -q && apt-get install -y -q --no-install-recommends $compiler" >"$root/compiler.out" 2>&1 ||
        { tail -n 20 "$root/compiler.out"; die "no package $compiler in $release"; }
fi

if [ "$what" = test ]; then
    step "scripts/test.sh $*"
    inside "bash scripts/test.sh $*"
else
    step "build"
    inside "make -j$(cores) all tests" >"$root/build.out" 2>&1 || { tail -n 30 "$root/build.out"; die "make failed"; }
    if grep -A 5 'warning:' "$root/build.out"; then die "$compiler warns, see above"; fi
    step "two ranks"
    inside '. scripts/common.sh; mpi_environment; mpirun -np 2 ./train_c3 -preset tiny -plan >/dev/null'
    if [ "$what" = demo ]; then inside 'bash scripts/demo.sh'; fi
fi

# shellcheck disable=SC2016
inside '. /etc/os-release; echo; echo "$PRETTY_NAME: $($CC --version | head -n 1), $(mpirun --version | head -n 1)," \
    "$(python3 --version 2>/dev/null || echo no Python)"; echo "all right"'
