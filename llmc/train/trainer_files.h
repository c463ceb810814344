// trainer_files.h: the files of a checkpoint's trainer/ folder: state, settings, loss history, optimizer state.
// checkpoint.c puts them together.
#ifndef LLMC_TRAINER_FILES_H
#define LLMC_TRAINER_FILES_H

#include "llmc/train/checkpoint.h"
#include "llmc/weights/weights.h" // FileSum

// state.json, settings.json, history.safetensors in FOLDER/trainer; sums (3). One rank writes them.
int trainer_write_state(const TrainState *s, int ranks, DType dtype, const char *folder, FileSum sums[3], Error *err);
// *ranks: how many optimizer files there are.
int trainer_read_state(TrainState *s, int *ranks, const char *folder, Error *err);

// This rank's FOLDER/trainer/optimizer_%05d.safetensors: the pieces it owns, without the padding of the buckets.
int trainer_write_optimizer(const Optimizer *o, int rank, int ranks, const char *folder, FileSum *sum, Error *err);
// Fills the pieces this rank holds from the files of `ranks` ranks. Every element must be there once. Weights have been
// loaded already; what the files know better than the model files (master weights) replaces them.
int trainer_read_optimizer(Optimizer *o, int ranks, const char *folder, Error *err);

// Size and CRC-32 of FOLDER/NAME as it lies on the disk.
int trainer_sum_file(FileSum *sum, const char *folder, const char *name, Error *err);

#endif
