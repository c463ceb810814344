// terminal.c: see terminal.h.
#include "llmc/base/terminal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int parent_of(int pid) {
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    size_t n = fread(line, 1, sizeof line - 1, f);
    fclose(f);
    line[n] = 0;
    const char *behind = strrchr(line, ')'); // the name before it may contain anything
    int parent = 0;
    return behind && sscanf(behind + 1, " %*c %d", &parent) == 1 ? parent : 0;
}

// What a descriptor of a process refers to, as named in /proc: "/dev/pts/3", "pipe:[4711]".
static int name_of(char name[128], int pid, int fd) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
    ssize_t n = readlink(path, name, 127);
    name[n > 0 ? n : 0] = 0;
    return n > 0 ? 0 : -1;
}

// Shells and wrappers between mpirun and this process share its pseudo-terminal; the first ancestor that does not is
// mpirun, or on another host its daemon, whose output is nobody's terminal.
static int behind_mpirun(int fd) {
    char own[128], theirs[128], path[64];
    int pid = getpid();
    if (name_of(own, pid, fd) != 0) return -1;
    do {
        pid = parent_of(pid);
        if (pid <= 1 || name_of(theirs, pid, fd) != 0) return -1;
    } while (strcmp(own, theirs) == 0);
    snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
    int terminal = open(path, O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (terminal < 0 || isatty(terminal)) return terminal;
    close(terminal);
    return -1;
}

int terminal_behind(int fd) {
    if (!isatty(fd)) return -1;
    return getenv("OMPI_COMM_WORLD_SIZE") ? behind_mpirun(fd) : fd;
}

void terminal_close(int terminal, int fd) {
    if (terminal >= 0 && terminal != fd) close(terminal);
}

int terminal_columns(int terminal) {
    struct winsize window;
    return ioctl(terminal, TIOCGWINSZ, &window) == 0 && window.ws_col > 1 ? window.ws_col : 80;
}
