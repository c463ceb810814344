// stop.c: see stop.h. The handler only notes the signal; the loop looks at the end of each step.
#include "stop.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t caught;

static void on_signal(int number) {
    if (caught && number != SIGUSR1) { // asked twice: the default action, now
        signal(number, SIG_DFL);
        raise(number);
    }
    caught = number;
}

void stop_install(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART; // collectives and file writes go on
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
}

int stop_signal(void) { return caught; }

static int stop_path(char *path, size_t room, const char *out_dir) {
    int n = snprintf(path, room, "%s/stop", out_dir);
    return n > 0 && (size_t)n < room;
}

const char *stop_requested(const char *out_dir) {
    static char path[4096];
    if (caught) return caught == SIGINT ? "SIGINT" : caught == SIGTERM ? "SIGTERM" : "SIGUSR1";
    if (stop_path(path, sizeof path, out_dir) && access(path, F_OK) == 0) return path;
    return NULL;
}

void stop_acknowledge(const char *out_dir) {
    char path[4096];
    if (stop_path(path, sizeof path, out_dir)) unlink(path);
}
