// info.h: what `c3 info` prints: what lies in a folder or a file, without loading it.
#ifndef LLMC_INFO_H
#define LLMC_INFO_H

#include <stdio.h>

#include "error.h"

// path: a C3 checkpoint, a run (its newest complete checkpoint), a plain Qwen2 folder, a token shard, or latents.
// Shapes, parameters per stack, types, latents, template, training state and fingerprint of a model; pages, tokens,
// vocabulary and fingerprints of a shard; pages, tokens and model of latents.
int info_print(FILE *out, const char *path, Error *err);

#endif
