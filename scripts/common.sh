# common.sh: the few shell functions the scripts share. Sourced, never run; the caller is in the repository's root.
# Nothing in the caller's environment is overridden: what is set there already is kept.

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' red=$'\e[31m' plain=$'\e[0m'; else bold= red= plain=; fi

say() { printf '%s\n' "$*"; }
warn() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { printf '%s%s: %s%s\n' "$red" "${0##*/}" "$*" "$plain" >&2; exit 1; }

# Seconds with one decimal since a time taken with now: t=$(now); ...; seconds_since $t
now() { local t; t=$(date +%s%N); echo $((t / 100000000)); }
seconds_since() { local d=$(($(now) - $1)); echo "$((d / 10)).$((d % 10))"; }
minutes() { printf '%d min %02d s' $(($1 / 60)) $(($1 % 60)); } # minutes SECONDS

# step "Heading": says what comes next, numbered when steps_total is set, with the time since the script began.
step_number=0
step() {
    step_number=$((step_number + 1))
    printf '\n%s== %s%s%s (%d:%02d)\n' "$bold" "${steps_total:+$step_number/$steps_total }" "$*" "$plain" \
        $((SECONDS / 60)) $((SECONDS % 60))
}

# Prints a command as one could type it, then runs it.
run() {
    printf '$'
    printf ' %q' "$@"
    printf '\n'
    "$@"
}

cores() { nproc 2>/dev/null || getconf _NPROCESSORS_ONLN; } # those this process may use, not those of the machine
# GPUs that programs started from here can use.
gpus() {
    [ -n "${CUDA_VISIBLE_DEVICES-all}" ] || { echo 0; return; }
    { nvidia-smi -L 2>/dev/null || true; } | grep -c '^GPU ' || true
}
memory_mb() { awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo; }

export_default() { export "$1=${!1:-$2}"; } # export_default NAME VALUE: what is set stays

# What Open MPI must be told to run as root, to start more ranks than cores and not to tie each rank to one core (it
# would with two or fewer, and leave a rank's threads to share that core), and to notice a host that is cut off in 17 s
# instead of 8 min. Variables, not options, so that an mpirun anywhere below a script obeys; OMPI_ are those of version
# 4, PRTE_ of version 5. Says what it did, once.
mpi_environment() {
    [ -z "${C3_MPI_SAID:-}" ] || return 0
    export C3_MPI_SAID=1
    export_default OMPI_MCA_rmaps_base_oversubscribe 1
    export_default OMPI_MCA_hwloc_base_binding_policy none
    export_default OMPI_MCA_mpi_yield_when_idle 1 # a waiting rank gives its core to others
    export_default PRTE_MCA_rmaps_default_mapping_policy :oversubscribe
    export_default PRTE_MCA_hwloc_default_binding_policy none
    local family
    for family in OMPI PRTE; do
        export_default "${family}_MCA_oob_tcp_keepalive_time" 5
        export_default "${family}_MCA_oob_tcp_keepalive_intvl" 3
        export_default "${family}_MCA_oob_tcp_keepalive_probes" 4
    done
    local said="mpirun: more ranks than cores allowed, ranks not bound to cores"
    if [ "$(id -u)" = 0 ]; then
        export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
        export PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
        said="$said, may run as root"
    fi
    say "$said"
}
