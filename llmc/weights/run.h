// run.h: the folder of a run, as those see it who read there (what a run writes: run_writer.h).
//
//   OUT/step_00005000/   a checkpoint (checkpoint.h), whole once COMPLETE is in it
//   OUT/run.json         {"run": 16 hex digits, "last": "step_00005000", "remove_below": 5000}
//   OUT/old_1/, ...      what another run had left there, and steps that were abandoned: never read, never removed
//   OUT/log.jsonl  OUT/lock  OUT/stop
//
// The newest checkpoint is what the run wrote last, which run.json names. Where that one is not there (removed by hand,
// or the run died before it had its name) it is the highest step that this run made; where there is none, or no
// run.json, the highest step.
#ifndef LLMC_RUN_H
#define LLMC_RUN_H

#include <stdint.h>

#include "llmc/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct RunInfo {
    char id[17];          // of the run; "" where there is no run.json
    char last[32];        // name of the checkpoint the run stands on; "": none yet
    int64_t remove_below; // the run's own checkpoints of lower steps are superfluous
} RunInfo;

int run_read(RunInfo *info, const char *run, Error *err);

// What looks like a checkpoint: step_N, step_N.tmp (being written), step_N.old (being removed).
typedef struct StepFolder {
    int64_t step;
    int plain;    // named step_N alone
    int is_link;  // somebody else's doing
    int complete; // plain, and COMPLETE is there
    int own;      // MADE_BY names this run
    char *path;
} StepFolder;

// Newest first, malloc'ed; free with run_free_list. A run that is not there has none.
int run_list(StepFolder **out, int *n, const char *run, const RunInfo *info, Error *err);
void run_free_list(StepFolder *folders, int n);
// The newest checkpoint of such a list as said above; NULL: none is complete.
const StepFolder *run_newest(const StepFolder *folders, int n, const RunInfo *info);
const char *run_step_name(const StepFolder *f); // "step_00005000"

// Newest complete checkpoint of a run, malloc'ed; NULL when there is none. A folder that cannot be listed is an error.
int checkpoint_newest(char **out, const char *run, Error *err);
// The folder of a model that `folder` stands for: itself, where it holds config.json, or the newest complete step of a
// run; malloc'ed.
int checkpoint_folder(char **out, const char *folder, Error *err);
// The same, and the run that made it leaves it where it is until checkpoint_release: a shared lock on its COMPLETE.
// *hold: to be released; 0: there is nothing to hold (no COMPLETE).
int checkpoint_hold(char **out, int *hold, const char *folder, Error *err);
void checkpoint_release(int *hold);

#ifdef __cplusplus
}
#endif
#endif
