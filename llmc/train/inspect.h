// inspect.h: whether a model's folder is sound: every byte of it is read. The part of `c3 info` behind --check.
#ifndef LLMC_INSPECT_H
#define LLMC_INSPECT_H

#include <stdio.h>

#include "llmc/base/error.h"

// folder: a C3 or plain Qwen2 model, a checkpoint of a run among them. Prints a line for each kind of thing that is
// right; the first that is wrong is the error.
int inspect_folder(FILE *out, const char *folder, Error *err);

#endif
