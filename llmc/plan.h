// plan.h: what a run will need: memory by kind, disk, FLOPs a step. Printed at the start and by -plan.
#ifndef LLMC_PLAN_H
#define LLMC_PLAN_H

#include <stdint.h>
#include <stdio.h>

#include "c3.h"
#include "corpus.h"
#include "optimizer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Plan {
    const TrainOptions *o;
    const Corpus *corpus;
    const C3Config *config;
    const C3Params *params;
    C3Limits limits;
    int fuse; // micro-batches a device batch, at most
    DType dtype;
    int ranks, local_ranks, zero;
    int64_t pages_a_step;
    double text_tokens;   // of an average page
    int before_text;      // decoder rows before the text
    double peak_flops;    // of a rank; 0: unknown
    int64_t steps;
} Plan;

typedef struct PlanBytes {
    size_t parameters, gradients, optimizer, activations, inputs, total; // of one rank
    uint64_t checkpoint;                                                 // of all ranks, on disk
} PlanBytes;

int plan_bytes(PlanBytes *bytes, const Plan *p, Error *err);
// The plan of a run with these options and pages, and its bytes.
int plan_make(Plan *p, PlanBytes *bytes, const TrainOptions *o, const Corpus *corpus, const C3Config *config,
              const C3Params *params, const Dist *dist, int64_t steps, Error *err);
void plan_print(FILE *out, const Plan *p, const PlanBytes *bytes);
// Memory of this host's ranks against what the host has; an error says by how much and which option saves what.
int plan_check_memory(const Plan *p, const PlanBytes *bytes, Error *err);

// "12.3 GB", into a buffer that is returned.
const char *format_bytes(char buffer[32], double bytes);
// "1234567" as "1,234,567".
const char *format_count(char buffer[32], double count);

#ifdef __cplusplus
}
#endif
#endif
