// trainer.h: what the trainer holds, and its start: the phases between the command line and the first step. Each is
// called on all ranks; an error on one is an error on all.
#ifndef LLMC_TRAINER_H
#define LLMC_TRAINER_H

#include "llmc/train/checkpoint.h"
#include "llmc/train/corpus.h"
#include "llmc/train/log.h"
#include "llmc/train/options.h"
#include "llmc/train/plan.h"
#include "llmc/train/profile.h"
#include "llmc/train/run_writer.h"
#include "llmc/train/step.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Trainer {
    Dist dist;
    TrainOptions o;
    OptionTable options;
    ModelFiles files;
    Corpus corpus; // tokenizer, template, training and validation pages
    Travel travel; // what goes into a checkpoint beside the weights (rank 0)
    Backend *backend;
    const char *notes; // about the choice of the device
    C3 model;
    Optimizer optimizer;
    Loader *loader;
    StepConfig packing;
    StepPack packs[2]; // the step under way, and the next
    MicroBatch val_batch;
    RunClaim claim;
    char *resumed; // the checkpoint it resumes; NULL: it starts anew
    TrainState state;
    int64_t steps; // last step of the run
    PlanMachine machine;
    Plan plan;
    Log *log;         // rank 0; else NULL
    Profile *profile; // NULL: no step is to be measured
} Trainer;

// The options make sense and are the same on all ranks.
int trainer_check_options(Trainer *t, Error *err);
// -plan: prints it.
int trainer_print_plan(Trainer *t, Error *err);
// -o: takes the folder and finds the checkpoint to resume.
int trainer_claim_run(Trainer *t, Error *err);
// Configuration, tokenizer, shards; the number of steps.
int trainer_read_inputs(Trainer *t, Error *err);
// The backend, and how the run uses its memory.
int trainer_open_device(Trainer *t, Error *err);
// Model, optimizer and batches, allocated.
int trainer_build(Trainer *t, Error *err);
// Weights and state of the run's beginning: fresh, of -m, or of the checkpoint.
int trainer_load(Trainer *t, Error *err);
// The loader, and -o as one history up to here: the last phase that can fail, because it moves what is in the way.
int trainer_open_run(Trainer *t, int argc, char **argv, Error *err);
// Settings and plan, on stdout.
void trainer_print_settings(const Trainer *t);

// ---- validation (trainer_validate.c) ----

// Before the first step: what training starts from. A resumed run that knows of no plain text yet begins with that.
void trainer_first_validation(Trainer *t);
// Behind a step: where it is due, or the step is the last, validates, logs and shows samples. *best: the model is the
// best so far.
int trainer_validate(Trainer *t, int last, int *best, Error *err);
// -patience: has it been long enough?
int trainer_has_waited(const Trainer *t);
// The last lines of the log: where the run stands, what it saw of each set, its best validation.
void trainer_say_end(Trainer *t, int stopping);

// All ranks.
int64_t trainer_pages_a_step(const Trainer *t);
CheckpointJob trainer_checkpoint_job(Trainer *t);

#ifdef __cplusplus
}
#endif
#endif
