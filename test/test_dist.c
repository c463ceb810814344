// Ranks that wait for each other: who is missing is named in time, who works is waited for. The program starts itself
// under mpirun; each scene is what the ranks do there.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "llmc/base/alloc.h"
#include "llmc/base/dist.h"
#include "llmc/base/file.h"
#include "llmc/base/stop.h"

// ---- scenes --------------------------------------------------------------------------------------------------------

static int sums(const Dist *d) {
    enum { N = 300001 }; // several messages
    float *x = malloc((size_t)d->ranks * N * sizeof *x);
    int bad = 0, most[2] = {d->rank, -d->rank};
    double total[2] = {d->rank + 1, 0.5};
    for (int r = 0; r < d->ranks; r++) {
        for (int i = 0; i < N; i++) x[(size_t)r * N + i] = (float)(r * 7 + i % 1000 + d->rank);
    }
    dist_reduce_scatter(d, x, N);
    dist_all_gather_in_place(d, x, N * sizeof *x);
    for (int r = 0; r < d->ranks; r++) {
        for (int i = 0; i < N; i++)
            bad += x[(size_t)r * N + i] != (float)(d->ranks * (r * 7 + i % 1000) + d->ranks * (d->ranks - 1) / 2);
    }
    dist_max_int(d, most, 2);
    dist_sum_double(d, total, 2);
    bad += most[0] != d->ranks - 1 || most[1] != 0;
    bad += total[0] != d->ranks * (d->ranks + 1) / 2 || total[1] != 0.5 * d->ranks;
    free(x);
    return bad;
}

static int agree(const Dist *d) {
    Error err = {"none"};
    char here[128], record[64], *text = d->rank == 0 ? strdup("chosen") : NULL;
    snprintf(here, sizeof here, "rank 1 on %s: disk", dist_host(d, 1));
    int bad = dist_agree(d, 0, &err) != 0;
    int failed = d->rank > 0 ? error_set(&err, d->rank == 1 ? "disk full" : "another") : 0;
    bad += dist_agree(d, failed, &err) != -1 || strncmp(err.text, here, strlen(here)) != 0;
    error_set(&err, "the same everywhere");
    bad += dist_agree(d, -1, &err) != -1 || strcmp(err.text, "the same everywhere") != 0;
    dist_share_text(d, &text);
    bad += !text || strcmp(text, "chosen") != 0;
    free(text);
    bad += dist_same(d, "step: 4\npages: 7\n", &err) != 0;
    snprintf(record, sizeof record, "step: 4\npages: %d\nlast: %d\n", d->rank == 1 ? 8 : 7, d->rank);
    bad += dist_same(d, record, &err) != -1 || !strstr(err.text, "rank 1 on ") ||
           !strstr(err.text, "pages: expected 7") || !strstr(err.text, "found 8");
    return bad;
}

static int scene(const char *name, const Dist *d) {
    if (!strcmp(name, "sums")) return sums(d);
    if (!strcmp(name, "agree")) return agree(d);
    if (!strcmp(name, "work") && d->rank == 0) usleep((useconds_t)(2e6 * d->timeout)); // alive, and long away
    if (!strcmp(name, "stopped") && d->rank == d->ranks - 1) raise(SIGSTOP);
    if (!strcmp(name, "elsewhere") && d->rank == 0) dist_broadcast(d, (char[64]){0}, 64, 1);
    if (!strcmp(name, "asked")) {
        stop_install();
        if (d->rank == 0) raise(SIGUSR1);
        else raise(SIGSTOP);
    }
    for (int i = 0; i < 3; i++) dist_barrier(d);
    return 0;
}

// ---- around them ---------------------------------------------------------------------------------------------------

// Runs a scene; what it printed is at *notes, malloc'ed. Returns the exit status, -1: not ended within the time.
static int play(const char *self, int ranks, const char *timeout, const char *name, char **notes) {
    char *command =
        string_format("OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ASAN_OPTIONS=detect_leaks=0 "
                      "C3_COMM_TIMEOUT=%s timeout 120 mpirun --oversubscribe --bind-to none -np %d %s %s 2>&1",
                      timeout, ranks, self, name);
    size_t n = 0, room = 1 << 16;
    *notes = calloc(room, 1);
    FILE *f = popen(command, "r");
    n = fread(*notes, 1, room - 1, f);
    (*notes)[n] = 0;
    int status = pclose(f);
    free(command);
    return WIFEXITED(status) && WEXITSTATUS(status) != 124 ? WEXITSTATUS(status) : -1;
}

#define PLAY(ranks, timeout, name, condition)                                                                          \
    do {                                                                                                               \
        char *notes;                                                                                                   \
        int code = play(self, ranks, timeout, name, &notes);                                                           \
        CHECK(condition, "exit %d: %s", code, notes);                                                                  \
        free(notes);                                                                                                   \
    } while (0)

static void test_scenes(const char *self) {
    check_begin("sums over ranks");
    PLAY(1, "60", "sums", code == 0);
    PLAY(2, "60", "sums", code == 0);
    PLAY(3, "60", "sums", code == 0);
    check_begin("ranks agree: errors name rank and host, records are compared");
    PLAY(3, "60", "agree", code == 0);
    check_begin("a rank that works for twice the deadline is waited for, and that is said");
    PLAY(2, "3", "work", code == 0 && strstr(notes, "waits for rank 0 on ") && strstr(notes, "(at work)"));
    check_begin("a stopped rank is named, and the run ends");
    PLAY(3, "1", "stopped", code > 0 && strstr(notes, "waits in vain: rank 2 on ") && strstr(notes, "no sign of life"));
    check_begin("ranks that wait in different places are named, and the run ends");
    PLAY(2, "1", "elsewhere", code > 0 && strstr(notes, "nothing has moved for ") && strstr(notes, "waits elsewhere"));
    check_begin("a signal while waiting for a stopped rank: the end comes at once, not after the deadline");
    PLAY(2, "4000", "asked", code > 0 && strstr(notes, "was asked to stop: rank 1 on "));
    check_begin("the deadline must be a number");
    PLAY(2, "soon", "sums", code > 0 && strstr(notes, "C3_COMM_TIMEOUT=soon"));
}

int main(int argc, char **argv) {
    if (argc == 2) {
        static Dist d;
        Error err;
        int bad = dist_init(&d, &argc, &argv, &err);
        if (bad) printf("%s\n", err.text);
        else bad = scene(argv[1], &d);
        dist_finalize(&d);
        return bad != 0;
    }
    if (system("mpirun --version >/dev/null 2>&1") != 0) printf("  no mpirun: several ranks are not tested\n");
    else test_scenes(argv[0]);
    return check_done();
}
