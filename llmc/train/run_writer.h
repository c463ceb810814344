// run_writer.h: what a run does in its folder beside saving: takes it for itself, sets aside what is in the way of
// its history, removes the checkpoints it no longer needs. See run.h for what lies there.
//
// Nothing is removed but what this run made: checkpoints carry MADE_BY, written before anything else, with the run's
// id from run.json. Whatever else is in the way is moved to OUT/old_1, old_2, ... and named.
#ifndef LLMC_RUN_WRITER_H
#define LLMC_RUN_WRITER_H

#include "llmc/base/dist.h"
#include "llmc/base/json.h"
#include "llmc/base/lock.h"
#include "llmc/weights/run.h"

#ifdef __cplusplus
extern "C" {
#endif

// What run.json says of a run besides run.h's keys: "host" of rank 0, "command", "build" of its last start, and
// "started", when it began: 2026-01-31T12:00:00Z.
typedef struct RunOrigin {
    int argc;
    char **argv;
    const char *build;
} RunOrigin;

// The name of this host; "?": unknown.
void run_host(char host[64]);

typedef struct RunClaim {
    Lock lock;
    int made;           // the folder was not there before
    int unsure;         // its file system knows no locks
    const char *folder; // NULL: not claimed
} RunClaim;

// One rank takes the run's folder, which is made where it is missing, before it reads or writes there. An error names
// who has it.
int run_claim(RunClaim *claim, const char *run, Error *err);
// Lets go. A folder that was made and is still empty is removed again.
void run_unclaim(RunClaim *claim);

// The checkpoint that -resume auto means: the newest; malloc'ed, NULL: none, start anew. An error when something newer
// looks like a checkpoint and cannot be used, for it may be the one that was meant.
int run_resumable(char **out, const char *run, Error *err);

// All ranks together, when it is known where the run begins: resumed is the checkpoint it continues, NULL when it
// starts anew. What is in the way of its history (later steps; everything, log.jsonl and profile.json too, when the
// checkpoint is not one of this folder) is set aside; what an earlier process of this run left half-done is finished;
// OUT/stop goes. *notes: what was done, in lines, on rank 0 ("" when nothing was); the caller frees it. origin: kept in
// run.json; NULL: what it says stays. *best: the step whose checkpoint the run calls its best (-keep_best), 0: none,
// -1: the one of run.json; afterwards 0 where that checkpoint is not there.
int run_begin(char **notes, int64_t *best, const Dist *dist, const char *run, const char *resumed,
              const RunOrigin *origin, Error *err);
// Is the name RUN/best free for -keep_best?
int run_check_best(const char *run, Error *err);

// ---- for checkpoint.c ----

// Prints a JSON object into FOLDER/NAME, and deletes the object.
int run_write_json(cJSON *json, const char *folder, const char *name, Error *err);

// run.json: the run's number, made when it is not there.
int run_identity(RunInfo *info, const char *run, Error *err);
// Before step_N gets its name: the newest `keep` complete ones, step_N among them, are to stay (keep <= 0: all), and
// that of step `best` (0: none, -1: the one that is the best already).
int run_will_save(RunInfo *info, const char *run, int64_t step, int keep, int64_t best, Error *err);
// Makes RUN/best lead to info->best.
int run_link_best(const char *run, const RunInfo *info, Error *err);
// Removes this run's checkpoints below info->remove_below, but for those somebody holds (checkpoint_hold), and its
// leftovers.
int run_prune(const char *run, const RunInfo *info, Error *err);
// Makes room for a folder of this name: what this run made is removed, anything else is set aside.
int run_clear(const char *run, const char *path, const RunInfo *info, Error *err);

#ifdef __cplusplus
}
#endif
#endif
