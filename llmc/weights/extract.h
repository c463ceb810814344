// extract.h: one stack of a C3 model as a plain Qwen2 folder, which every program for Qwen2 loads.
#ifndef LLMC_EXTRACT_H
#define LLMC_EXTRACT_H

#include "llmc/base/error.h"
#include "llmc/model/params.h"

// Writes config.json, model.safetensors and the tokenizer into OUT, a new folder, whole or not at all. model: a C3
// folder, or a run's folder (its newest complete step). owner: OWNER_ENCODER or OWNER_DECODER. Elements are copied
// unchanged; one that is NaN or infinite is an error that names its tensor. *notes: which tokenizer files were written,
// malloc'ed.
int extract_stack(char **notes, const char *model, ParamOwner owner, const char *out, Error *err);

#endif
