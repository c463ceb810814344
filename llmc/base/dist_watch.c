// dist_watch.c: see dist_watch.h.
#include "llmc/base/dist_watch.h"

#ifdef HAVE_MPI
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/base/stop.h" // stop_signal

// What a rank tells the others.
typedef struct Beat {
    int32_t passed; // waits completed so far; the order is the same on all ranks
    int32_t waits;  // 1: waiting for others
    int32_t number; // its number in a roll call; -1: none
} Beat;

typedef struct Peer {
    Beat heard, sent; // in flight
    Beat last;        // received before
    double heard_at;  // seconds
    MPI_Request in, out;
} Peer;

static struct Watch {
    pthread_mutex_t lock; // protects what follows, and MPI
    pthread_cond_t wake;  // asks the thread to end
    pthread_t thread;
    int runs, ending, parent;
    MPI_Comm comm; // MPI_COMM_NULL: no beats
    Peer *peers;   // (ranks)
    Beat mine;
    double interval, quiet; // seconds between heartbeats; of silence before a rank is mentioned
    double beat_at, changed_at, said_at;
} watch = {.lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP, // who ends the run may hold it
           .comm = MPI_COMM_NULL,
           .parent = -1,
           .mine.number = -1};

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void watch_lock(void) { pthread_mutex_lock(&watch.lock); }
void watch_unlock(void) { pthread_mutex_unlock(&watch.lock); }

// ---- ends ----------------------------------------------------------------------------------------------------------

void watch_abort(int code) {
    signal(SIGALRM, SIG_DFL);
    alarm(10);      // do not hang on a launcher that does not answer
    usleep(200000); // time for the launcher to forward the output; Open MPI 5 drops what it has not read
    watch_lock();
    MPI_Abort(MPI_COMM_WORLD, code);
    _exit(code);
}

static void die(const Dist *d, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));
static void die(const Dist *d, const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "rank %d on %s: %s\n", d->rank, dist_host(d, d->rank), text);
    watch_abort(1);
}

void watch_check(const Dist *d, int code, const char *call) {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING];
    int n = 0;
    MPI_Error_string(code, text, &n);
    die(d, "%s: %.*s", call, n, text);
}

// ---- beats ---------------------------------------------------------------------------------------------------------

static void receive(const Dist *d, int r) {
    watch_check(d, MPI_Irecv(&watch.peers[r].heard, sizeof(Beat), MPI_BYTE, r, 0, watch.comm, &watch.peers[r].in),
                "MPI_Irecv");
}

static int is_done(const Dist *d, MPI_Request *request) { // not MPI_Testall: the simulated NCCL looks at that one
    int done = 0;
    watch_check(d, MPI_Test(request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    return done;
}

// Receives what has arrived and, when due, sends. Called with the lock held.
static void beat(const Dist *d, double now) {
    if (watch.comm == MPI_COMM_NULL) return;
    // If this process itself was stopped or starved, its silence says nothing about the others.
    int was_away = now - watch.beat_at > 4 * watch.interval, is_time = now - watch.beat_at >= watch.interval;
    for (int r = 0; r < d->ranks; r++) {
        Peer *p = &watch.peers[r];
        if (r == d->rank) continue;
        if (was_away) p->heard_at = watch.changed_at = now;
        while (is_done(d, &p->in)) {
            if (p->heard.passed != p->last.passed || p->heard.waits != p->last.waits) watch.changed_at = now;
            p->last = p->heard;
            p->heard_at = now;
            receive(d, r);
        }
        if (!is_time || !is_done(d, &p->out)) continue;
        p->sent = watch.mine;
        watch_check(d, MPI_Isend(&p->sent, sizeof(Beat), MPI_BYTE, r, 0, watch.comm, &p->out), "MPI_Isend");
    }
    if (is_time) watch.beat_at = now;
}

static void *run(void *dist) {
    const Dist *d = dist;
    watch_lock();
    while (!watch.ending) {
        struct pollfd parent = {.fd = watch.parent, .events = POLLIN};
        if (watch.parent >= 0 && poll(&parent, 1, 0) > 0) {
            fprintf(stderr, "rank %d on %s: its launcher is gone: stopped here\n", d->rank, dist_host(d, d->rank));
            _exit(1);
        }
        beat(d, seconds());
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += (long)(watch.interval * 1e9);
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&watch.wake, &watch.lock, &until);
    }
    watch_unlock();
    return NULL;
}

void watch_open(const Dist *d, int parent, int can_beat) {
    watch.parent = parent;
    watch.interval = d->timeout < 10 ? d->timeout / 10 : 1;
    watch.quiet = d->timeout < 20 ? d->timeout / 4 : 5;
    watch.beat_at = watch.changed_at = seconds();
    if (d->ranks > 1 && can_beat) {
        watch.peers = alloc_zeroed((size_t)d->ranks, sizeof *watch.peers, "the watch over ranks");
        watch_check(d, MPI_Comm_dup(MPI_COMM_WORLD, &watch.comm), "MPI_Comm_dup");
        MPI_Comm_set_errhandler(watch.comm, MPI_ERRORS_RETURN);
        for (int r = 0; r < d->ranks; r++) {
            watch.peers[r] = (Peer){.heard_at = seconds(), .in = MPI_REQUEST_NULL, .out = MPI_REQUEST_NULL};
            watch.peers[r].last.number = -1;
            if (r != d->rank) receive(d, r);
        }
    } else if (parent < 0) {
        return;
    }
    sigset_t all, before;
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&watch.wake, &clock);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); // signals go to the main thread
    watch.runs = pthread_create(&watch.thread, NULL, run, (void *)d) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!watch.runs) die(d, "cannot start a thread");
}

void watch_close(const Dist *d) {
    if (!watch.runs) return;
    watch_lock();
    watch.ending = 1;
    pthread_cond_signal(&watch.wake);
    watch_unlock();
    pthread_join(watch.thread, NULL);
    watch.runs = 0;
    for (int r = 0; watch.peers && r < d->ranks; r++) {
        Peer *p = &watch.peers[r];
        if (r == d->rank) continue;
        MPI_Cancel(&p->in);
        MPI_Request_free(&p->in);
        if (p->out != MPI_REQUEST_NULL) MPI_Request_free(&p->out);
    }
}

// ---- waiting -------------------------------------------------------------------------------------------------------

static int is_silent(const Dist *d, int r, double now, double limit) {
    return r != d->rank && now - watch.peers[r].heard_at > limit;
}

static int count_silent(const Dist *d, double now, double limit) {
    int n = 0;
    for (int r = 0; r < d->ranks; r++) n += is_silent(d, r, now, limit);
    return n;
}

// "rank 1 on node2 (no sign of life for 12 s), rank 3 on ..." of those that are silent longer than a limit, or of all
// others that this rank waits for. Returns how many.
static int name_them(const Dist *d, char text[512], double now, double limit) {
    int n = 0, silent = count_silent(d, now, limit), length = 0;
    text[0] = 0;
    for (int r = 0; r < d->ranks && length < 400; r++) {
        const Peer *p = &watch.peers[r];
        int is_meant = silent ? is_silent(d, r, now, limit) : !p->last.waits || p->last.passed != watch.mine.passed;
        if (r == d->rank || !is_meant) continue;
        length +=
            snprintf(text + length, 512 - (size_t)length, "%srank %d on %.60s (", n++ ? ", " : "", r, dist_host(d, r));
        if (silent)
            length += snprintf(text + length, 512 - (size_t)length, "no sign of life for %.0f s)", now - p->heard_at);
        else length += snprintf(text + length, 512 - (size_t)length, p->last.waits ? "waits elsewhere)" : "at work)");
    }
    return n;
}

// The lowest rank that is alive and waiting reports first; the others only if it does not.
static int is_speaker(const Dist *d, double now) {
    for (int r = 0; r < d->rank; r++) {
        if (watch.peers[r].last.waits && !is_silent(d, r, now, watch.quiet)) return 0;
    }
    return 1;
}

// Whether all ranks have been waiting that long without progress.
static int is_stuck(const Dist *d, double now, double since, double limit) {
    for (int r = 0; r < d->ranks; r++) {
        if (r != d->rank && !watch.peers[r].last.waits) return 0;
    }
    return now - watch.changed_at > limit && now - since > limit;
}

// Called from time to time, with the lock held, by a rank that has been waiting since `since`.
static void look(const Dist *d, double now, double since, const char *call) {
    static const char hint[] = "C3_COMM_TIMEOUT=SECONDS allows more time";
    char names[512];
    int asked = stop_signal() != 0, speaks = is_speaker(d, now);
    double late = speaks ? 0 : 2 * watch.interval;
    double limit = (asked ? watch.quiet : d->timeout) + late; // after a request to stop, waiting longer gains nothing
    if (now - since > watch.quiet && count_silent(d, now, limit)) {
        name_them(d, names, now, limit);
        die(d, "%s waits in vain%s: %s (hint: that process is stopped, or the network is down; %s)", call,
            asked ? " and was asked to stop" : "", names, hint);
    }
    if (is_stuck(d, now, since, d->timeout + late)) {
        int n = name_them(d, names, now, limit);
        die(d, "%s: all ranks wait and nothing has moved for %.0f s%s%s (hint: a very slow network? %s)", call,
            now - watch.changed_at, n ? ": " : "", names, hint);
    }
    double patience = count_silent(d, now, watch.quiet) ? watch.quiet : d->timeout;
    if (speaks && now - since > patience && now - watch.said_at > d->timeout / 2) {
        watch.said_at = now;
        if (name_them(d, names, now, watch.quiet))
            fprintf(stderr, "rank %d on %s waits for %s\n", d->rank, dist_host(d, d->rank), names);
    }
}

// At first the others may arrive at any moment. Later a nap is short beside the wait so far, and leaves the core to
// others that work.
static void pause_after(double waited) {
    if (waited < 500e-6) {
        sched_yield();
        return;
    }
    double nap = waited / 256;
    usleep(nap < 20e-6 ? 20 : nap < 1e-3 ? (useconds_t)(nap * 1e6) : 1000);
}

void watch_finish(const Dist *d, MPI_Request *requests, int n, const char *call) {
    double since = seconds(), now = since, looked = since;
    for (;;) {
        int done = 0;
        watch_lock();
        int code = MPI_Testall(n, requests, &done, MPI_STATUSES_IGNORE);
        if (done) watch.mine.passed++;
        watch.mine.waits = !done;
        if (!done && watch.comm != MPI_COMM_NULL && now - looked > watch.interval / 4) {
            looked = now;
            beat(d, now);
            look(d, now, since, call);
        }
        watch_unlock();
        watch_check(d, code, call);
        if (done) return;
        pause_after(now - since);
        now = seconds();
    }
}

void watch_roll_call(const Dist *d, int number, double patience, int *numbers) {
    enum { PAUSES = 50 };
    for (int r = 0; r < d->ranks; r++) numbers[r] = r == d->rank ? number : -1;
    if (watch.comm == MPI_COMM_NULL) return;
    for (int i = 0, missing = 1; i < PAUSES && missing; i++) {
        watch_lock();
        watch.mine.number = number;
        if (i == 0) watch.beat_at -= watch.interval; // now, not when next due
        beat(d, seconds());
        missing = 0;
        for (int r = 0; r < d->ranks; r++) {
            if (r == d->rank) continue;
            numbers[r] = watch.peers[r].last.number;
            missing += numbers[r] < 0;
        }
        watch_unlock();
        if (missing) usleep((useconds_t)(patience / PAUSES * 1e6));
    }
}

#else
typedef int dist_watch_needs_mpi; // ISO C forbids an empty file
#endif
