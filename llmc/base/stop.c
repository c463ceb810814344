// stop.c: see stop.h. The handler only notes the signal; the loop looks at the end of each step.
#include "llmc/base/stop.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static volatile sig_atomic_t caught, pressed;

static void on_signal(int number) {
    // a closing terminal may send SIGHUP twice, and then SIGTERM
    if (pressed && (number == SIGINT || number == SIGTERM)) { // the second request: default action, at once
        signal(number, SIG_DFL);
        raise(number);
    }
    if (number == SIGINT || number == SIGTERM) pressed = 1;
    caught = number;
}

void stop_install(void) {
    struct sigaction action, before;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART; // collectives and file writes continue
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    if (sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, NULL);
}

int stop_signal(void) { return caught; }

static int is_asked(char *path, size_t room, const char *out_dir) {
    struct stat st;
    int n = snprintf(path, room, "%s/stop", out_dir);
    return n > 0 && (size_t)n < room && lstat(path, &st) == 0 && !S_ISDIR(st.st_mode);
}

const char *stop_requested(const char *out_dir) {
    static char path[4096];
    switch (caught) {
    case 0:
        return is_asked(path, sizeof path, out_dir) ? path : NULL;
    case SIGINT:
        return "SIGINT";
    case SIGTERM:
        return "SIGTERM";
    case SIGHUP:
        return "SIGHUP";
    default:
        return "SIGUSR1";
    }
}

int stop_clear(int *found, const char *out_dir, Error *err) {
    char path[4096];
    *found = is_asked(path, sizeof path, out_dir);
    if (!*found || unlink(path) == 0 || errno == ENOENT) return 0; // ENOENT: another host on the same disk did it
    return error_set(err, "%s: cannot remove: %s (hint: it asks every run here to stop)", path, strerror(errno));
}
