// info.h: what `c3 info` prints: what lies in a folder or a file, without loading it.
#ifndef LLMC_INFO_H
#define LLMC_INFO_H

#include <stdio.h>

#include "llmc/base/error.h"

// path: a C3 checkpoint, a run (its newest complete checkpoint), a plain Qwen2 folder, a token shard, or latents.
// Shapes, parameters per stack, types, latents, template, training state and fingerprint of a model; pages, tokens,
// vocabulary and fingerprints of a shard; pages, tokens and model of latents.
int info_print(FILE *out, const char *path, Error *err);

// `c3 info -check`: the same, and everything is read. Of a shard all checksums are computed, also where an earlier
// check is remembered. Of what a folder holds: that every tensor of the model is there with its shape, that every
// number is finite (the tensor is named), that sizes and checksums are those of COMPLETE, that the state of the trainer
// can be read and the tokenizer has the model's vocabulary. What is right is printed, the first thing that is wrong is
// the error.
int info_check(FILE *out, const char *path, Error *err);

#endif
