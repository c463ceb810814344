// checkpoint.h: RUN/step_00005000/: the model in the released code's Hugging Face layout, trainer/ beside it, MADE_BY
// written first, COMPLETE last.
//
//   MADE_BY                            number of the run (run.json), host: a run removes only what it made
//   config.json  model.safetensors  llm1/config.json  llm1/model.safetensors  tokenizer files  .py files
//   trainer/state.json                 step, loader state, fingerprints, rank count that wrote it
//   trainer/settings.json              the options in force
//   trainer/history.safetensors        loss of every step so far
//   trainer/optimizer_00000.safetensors ... one file a rank: tensors "m.B.E", "v.B.E", "master.B.E": bucket B, from
//                                      element E of the bucket on. Any number of ranks reads any partition.
//   COMPLETE                           size and CRC-32 of the files above; its presence makes the folder a checkpoint
//
// The folder is built as step_00005000.tmp and renamed once it is whole, so that a crash at any moment leaves what was
// there before. Where hosts have disks of their own each keeps the part its ranks wrote, under the same name, without
// COMPLETE, which is where rank 0 is; to resume, the parts have to be brought together, and errors say from where.
#ifndef LLMC_CHECKPOINT_H
#define LLMC_CHECKPOINT_H

#include <stdint.h>

#include "llmc/model/config.h"
#include "llmc/base/dist.h"
#include "llmc/data/loader.h"
#include "llmc/train/optimizer.h"
#include "llmc/model/params.h"
#include "llmc/weights/run.h" // checkpoint_newest, checkpoint_folder
#include "llmc/weights/travel.h"
#include "llmc/weights/weights.h" // checkpoint_load_weights

#ifdef __cplusplus
extern "C" {
#endif

// 3: pages of several sets. 2: of one. 1: pages were shuffled with another generator, so that a position means others.
enum { TRAIN_STATE_FORMAT = 3 };

// The lowest validation loss so far, and how long ago that was.
typedef struct BestValidation {
    int is_known; // else nothing of it has been kept
    double loss;
    int64_t step;  // after which it was measured
    int64_t since; // validations since then
} BestValidation;

typedef struct TrainState {
    int format;   // of the file it was read from; 0: not from a file
    int64_t step; // optimizer steps done
    LoaderState loader;
    double tokens_seen; // text tokens
    int n_sets;         // of the training pages; their names and tokens_seen:
    char set_names[DATA_MAX_SETS][DATA_NAME];
    double set_tokens[DATA_MAX_SETS];
    BestValidation best;
    double plain_start; // -val_lm: perplexity of plain text when the run began; 0: not measured
    char *settings;     // JSON object text of the options in force (owned)
    uint8_t tokenizer[32];
    float *losses; // (step) loss of every step from 1 on (owned)
    size_t room;   // of losses
} TrainState;
void train_state_free(TrainState *s);
// The training pages that the state is of.
void train_state_sets(TrainState *s, const Dataset *d);
// One step further: its loss, its text tokens, in all and of each set, the loader's position after it.
void train_state_advance(TrainState *s, double loss, double tokens, const SetCount *of_set, LoaderState after);

typedef struct CheckpointJob {
    Backend *backend;
    const Dist *dist;
    const C3Config *config;
    const C3Params *params;
    Optimizer *optimizer; // weights, m, v, master
    const Travel *travel; // files saved beside the weights; NULL: none
    int64_t best;         // the checkpoint of this step stays as well, RUN/best leads to it; 0: none, -1: as it was
} CheckpointJob;

// Saves RUN/step_%08lld on all ranks together. Once COMPLETE is durable, older complete ones of this run beyond the
// newest `keep` are deleted (keep <= 0: none is), unless a reader holds them, and what it had left half-written;
// whatever else has that name is set aside (run_writer.h). On an error on any rank, all ranks return -1 with the line
// of the lowest failing rank, the half-written folder is removed, and what was there before is untouched; an older one
// that cannot be deleted is an error, too, and says that the new one is saved. Free disk space is checked first.
int checkpoint_save(const CheckpointJob *job, const TrainState *state, const char *run, int keep, Error *err);
// Reads state.json (weights and optimizer state are not touched), so that options can be compared first.
int checkpoint_read_state(TrainState *state, const char *folder, Error *err);
// Fills weights, m, v, master from a complete checkpoint written by any number of ranks. In bf16 runs weights are taken
// from the model files and master from the optimizer files.
int checkpoint_load(const CheckpointJob *job, const char *folder, Error *err);
// Sizes and CRC-32 of all files that COMPLETE names; *files: how many.
int checkpoint_verify(int *files, const char *folder, Error *err);
// Bytes a checkpoint of this model takes, all ranks together.
uint64_t checkpoint_bytes(const C3Params *p, DType dtype);

#ifdef __cplusplus
}
#endif
#endif
