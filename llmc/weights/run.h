// run.h: the folder of a run, for readers (writing: train/run_writer.h). Uses base alone.
//
//   OUT/step_00005000/   a checkpoint (checkpoint.h), whole once COMPLETE is in it
//   OUT/run.json         {"run": 16 hex digits, "last": "step_00005000", "remove_below": 5000, "best": "step_00003000"}
//   OUT/best             a link to the checkpoint that run.json calls best (-keep_best)
//   OUT/old_1/, ...      leftovers of another run, and abandoned steps: never read, never removed
//   OUT/log.jsonl  OUT/lock  OUT/stop
//
// The newest checkpoint is the one run.json names: the last that was written. If it is missing (removed by hand, or the
// run died before the rename), it is the highest step that this run made; without such a step, or without run.json, the
// highest step.
#ifndef LLMC_RUN_H
#define LLMC_RUN_H

#include <stdint.h>

#include "llmc/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct RunInfo {
    char id[17];          // of the run; "" without run.json
    char last[32];        // name of the last checkpoint; "": none yet
    int64_t remove_below; // the run's own checkpoints of lower steps may be removed, but for:
    char best[32];        // name of the checkpoint of the lowest validation loss; "": none is kept
} RunInfo;

int run_read(RunInfo *info, const char *run, Error *err);

// A folder named like a checkpoint: step_N, step_N.tmp (being written), step_N.old (being removed).
typedef struct StepFolder {
    int64_t step;
    int plain;    // named step_N, without suffix
    int is_link;  // not made by a run
    int complete; // plain, and COMPLETE exists
    int own;      // MADE_BY names this run
    char *path;
} StepFolder;

// All of a run, newest first; free with run_free_list. A missing folder has none.
int run_list(StepFolder **out, int *n, const char *run, const RunInfo *info, Error *err);
void run_free_list(StepFolder *folders, int n);
// The newest checkpoint of such a list, as defined above; NULL: none is complete.
const StepFolder *run_newest(const StepFolder *folders, int n, const RunInfo *info);
const char *run_step_name(const StepFolder *f); // "step_00005000"
// Where the link RUN/best leads: "step_00003000", malloc'ed; NULL: it is none that a run made.
char *run_best_target(const char *best);

// Newest complete checkpoint of a run, malloc'ed; NULL if there is none. A folder that cannot be listed is an error.
int checkpoint_newest(char **out, const char *run, Error *err);
// The model that `folder` names: the folder itself if it holds config.json (of a run's `best` the step it leads to),
// else the newest complete step of a run; malloc'ed.
int checkpoint_folder(char **out, const char *folder, Error *err);
// The same, with a shared lock on its COMPLETE, so that the run does not remove it before checkpoint_release. *hold: to
// be released; 0: nothing to lock (no COMPLETE).
int checkpoint_hold(char **out, int *hold, const char *folder, Error *err);
void checkpoint_release(int *hold);

#ifdef __cplusplus
}
#endif
#endif
