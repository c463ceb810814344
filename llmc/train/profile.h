// profile.h: where the time of a step goes (-profile N): times of every range and operation of N steps, summed in a
// table, one by one in a trace.
//
// While a step is measured, the functions in the backend's table stand behind others that note the time before and
// after each of them (Backend.stamp): the model does not know, an operation cannot be forgotten, and other steps cost
// nothing. Stamps are read after the download of the next step: the host never waits inside one.
#ifndef LLMC_PROFILE_H
#define LLMC_PROFILE_H

#include "llmc/backend.h"
#include "llmc/train/log.h"
#include "llmc/train/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

// Steps before the first that is measured: they touch memory for the first time, and on a GPU choose kernels.
enum { PROFILE_SKIP = 2 };

// What an operation counts as: a part of the roofline, or one of these.
enum {
    KIND_PRODUCT = PART_PARTS, // of the stack or head that it lies in
    KIND_ROWS,                 // embedding, rows gathered and scattered, copies
    KIND_HOST,                 // a range without operations
    KIND_BETWEEN,              // time of a range outside of all that lies in it
    KINDS
};

// One range, or one operation in its range.
typedef struct Span {
    const char *name;
    int number;        // of the range, -1: none
    int parent;        // the span around it, -1: none
    int kind;          // of an operation; KIND_BETWEEN: a range
    int begin, end;    // stamps, counted from the profile's first
    int collective;    // runs beside the others; begin is the stamp at which its input is ready
    int rows, in, out; // of a product, else 0
} Span;

typedef struct Profile {
    Backend *b;
    Backend real;      // its table, while a step is measured
    int64_t first;     // step
    int steps;         // to measure
    int64_t under_way; // the step that is measured, 0: none
    int measured;      // steps
    Span *spans;
    int n_spans;
    size_t room;
    int open;        // the innermost span under way, -1: none
    int stamps;      // taken
    int *before;     // (steps) stamps before each step
    double *seconds; // (read) of each stamp, from the first
    int read, seconds_capacity;
    double clock; // log_seconds() at the first stamp
} Profile;

// A profile of N steps after the next PROFILE_SKIP, of those from `done` to `last`; fewer when there are not as many
// left, which the log is told. NULL: nothing to measure. profile_finish frees it. Every function takes NULL as well.
Profile *profile_start(Backend *b, int N, int64_t done, int64_t last, Log *log);
// Around the work that a step queues, and once its results have been downloaded; nothing is done in a step that is not
// measured.
void profile_begin(Profile *p, int64_t step);
void profile_end(Profile *p);
void profile_read(Profile *p);
// Whether `step` was the last to be measured.
int profile_is_complete(const Profile *p, int64_t step);
// All ranks together: rank 0 prints its table (profile_report.c) and writes FOLDER/profile.json, the trace of the ranks
// on its host; a trace that cannot be written costs a line, not the run. Frees *at and sets it to NULL.
void profile_finish(Profile **at, const Plan *plan, const char *folder, Log *log);

// ---- between profile.c and profile_report.c ----

// Mean times of the measured steps, in milliseconds by kind, beside the plan's; and as a tree of ranges.
void profile_print(FILE *out, const Profile *p, const Plan *plan);
// The trace of this rank as JSON objects with commas between them, allocated; size 0: out of memory. start:
// log_seconds() that is its time 0.
void profile_trace(char **text, size_t *size, const Profile *p, int rank, double start);
// Begin and end of a span, in seconds from the first stamp. A collective begins when its input is ready and the one
// before it, which ended at *free_at, has ended; sets *free_at. Spans are asked for in order.
void profile_times(double *begin, double *end, double *free_at, const Profile *p, const Span *s);

#ifdef __cplusplus
}
#endif
#endif
