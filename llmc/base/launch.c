// launch.c: see launch.h. Open MPI 4 leaves its parameters in the environment of every rank; version 5 keeps them to
// itself, but mpirun's command line and environment can be read on its host.
#include "llmc/base/launch.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int launch_wants_mpi(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK", "MPI_LOCALNRANKS"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (getenv(names[i])) return 1;
    }
    return 0;
}

int launch_check(int ranks, const char *library, Error *err) {
    // The nearest launcher decides: mpirun's daemons are themselves started by srun.
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"};
    const char *name = NULL, *text = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !text; i++) text = getenv(name = names[i]);
    if (ranks > 1 || !text || atoi(text) <= 1) return 0;
    if (!library)
        return error_set(
            err, "started as %s ranks (%s), but this build has no MPI (hint: install libopenmpi-dev, then make)", text,
            name);
    return error_set(err,
                     "%s=%s: started as one of %s, but no other was met: each would train alone and write over the "
                     "others (hint: use the mpirun of %s, or srun --mpi=pmix; for a run of its own: env -u %s)",
                     name, text, text, library, name);
}

// ---- the launcher --------------------------------------------------------------------------------------------------

// Name and parent of a process; returns 0 if there is none.
static int read_stat(int pid, char name[64]) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) fclose(f);
    text[n] = 0;
    char *open = strchr(text, '('), *close = strrchr(text, ')');
    if (!open || !close) return 0;
    snprintf(name, 64, "%.*s", (int)(close - open - 1), open + 1);
    int parent = 0;
    return sscanf(close + 1, " %*c %d", &parent) == 1 ? parent : 0;
}

static int is_one_of(const char *name, const char *const *names, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (strcmp(name, names[i]) == 0) return 1;
    }
    return 0;
}

static const char *const open_mpi[] = {"mpirun", "mpiexec", "orterun", "orted", "prterun", "prte", "prted"};
static const char *const others[] = {"slurmstepd", "hydra_pmi_proxy", "mpiexec.hydra"};

int launch_parent(void) {
    char name[64];
    for (int pid = getppid(); pid > 1;) {
        int above = read_stat(pid, name);
        if (is_one_of(name, open_mpi, sizeof open_mpi / sizeof *open_mpi) ||
            is_one_of(name, others, sizeof others / sizeof *others))
            return pid;
        pid = above;
    }
    return 0;
}

int launch_parent_descriptor(int parent) {
#ifdef SYS_pidfd_open
    return parent ? (int)syscall(SYS_pidfd_open, parent, 0) : -1;
#else
    return (void)parent, -1;
#endif
}

// ---- the mask ------------------------------------------------------------------------------------------------------

// Whether a word of mpirun's command line, or a variable, asks for a binding of ranks to cores.
static int is_about_cores(const char *word) {
    static const char *const parts[] = {
        "bind-to", "binding_policy", "bind_to_", "cpu-set",   "cpu_set",   "cpu-list",  "cpu_list", "pe-list",
        ":PE=",    ":pe=",           "rankfile", "rank_file", "cpus-per-", "cpus_per_", "slot-list"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (strstr(word, parts[i])) return 1;
    }
    return 0;
}

static int is_parameter(const char *variable) {
    return strncmp(variable, "OMPI_MCA_", 9) == 0 || strncmp(variable, "PRTE_MCA_", 9) == 0;
}

// The strings of /proc/PID/cmdline or /proc/PID/environ.
static int file_asks(int pid, const char *file, int variables) {
    char path[64], *word = NULL;
    size_t room = 0;
    int asks = 0;
    snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
    FILE *f = fopen(path, "r");
    while (f && !asks && getdelim(&word, &room, 0, f) > 0)
        asks = (!variables || is_parameter(word)) && is_about_cores(word);
    free(word);
    if (f) fclose(f);
    return asks;
}

LaunchMask launch_mask(int parent) {
    char name[64] = "";
    if (parent) (void)read_stat(parent, name);
    if (!is_one_of(name, open_mpi, sizeof open_mpi / sizeof *open_mpi)) return MASK_ASKED;
    for (char **v = environ; *v; v++) {
        if (is_parameter(*v) && is_about_cores(*v)) return MASK_ASKED;
    }
    if (file_asks(parent, "cmdline", 0) || file_asks(parent, "environ", 1)) return MASK_ASKED;
    return strcmp(name, "prted") == 0 ? MASK_UNKNOWN : MASK_DEFAULT;
}

void launch_take_mask(int parent) {
    cpu_set_t set;
    if (sched_getaffinity(parent, sizeof set, &set) == 0) (void)sched_setaffinity(0, sizeof set, &set);
}

int launch_cores(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}
