// sampling_options.h: a command's options for sampling tokens.
#ifndef LLMC_SAMPLING_OPTIONS_H
#define LLMC_SAMPLING_OPTIONS_H

#include "llmc/base/cli.h"
#include "llmc/base/error.h"
#include "llmc/infer/sample.h"

enum { SAMPLING_MAX_STOP = 64 };

typedef struct SamplingOptions {
    double temperature, top_p;
    int64_t seed;
    const char *stop;
    int32_t stop_ids[SAMPLING_MAX_STOP];
} SamplingOptions;

// Sets the defaults (greedy) and appends the rows to a table of n; returns the new count.
int sampling_options(SamplingOptions *o, Option *table, int n);
// Checks what was parsed; out points into o.
int sampling_parse(Sampling *out, SamplingOptions *o, Error *err);

#endif
