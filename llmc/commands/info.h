// info.h: what `c3 info` prints: what lies in a folder or a file, without loading it.
#ifndef LLMC_INFO_H
#define LLMC_INFO_H

#include <stdio.h>

#include "llmc/base/error.h"

// path: a C3 checkpoint, a run (its newest complete checkpoint), a plain Qwen2 folder, a token shard, or latents.
// Shapes, parameters per stack, types, latents, template, training state and fingerprint of a model; pages, tokens,
// vocabulary and fingerprints of a shard; pages, tokens and model of latents.
//
// check: everything is read. All checksums of a shard are computed, even if an earlier check is remembered. A folder is
// checked as below.
int info_print(FILE *out, const char *path, int check, Error *err);

// Reads every byte of a C3 or plain Qwen2 folder: every tensor of the model is there with its shape, every number is
// finite (the tensor is named), sizes and checksums are those of COMPLETE, the trainer's state can be read, and the
// tokenizer has the model's vocabulary. Prints a line for each kind of thing that is right; the first that is wrong is
// the error.
int info_check_folder(FILE *out, const char *folder, Error *err);

#endif
