// gradients.h: where the gradients of each bucket lie while the backward pass computes them.
//
// ZeRO 0 and 1 keep all of them, in the layout of the parameter arena, until the step's last micro-batch. ZeRO 2 gives
// every micro-batch's gradients away at once (reduce-scatter into each rank's fp32 shard): a stack's layers then share
// two places in turn, so that one bucket can be under way while the next is computed.
#ifndef LLMC_GRADIENTS_H
#define LLMC_GRADIENTS_H

#include <stddef.h>

#include "llmc/base/error.h"
#include "llmc/model/params.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Gradients {
    int zero;
    size_t elements; // of the arena, fp32
    float *arena;    // device, owned by whoever allocated it
    float **at;      // (buckets) host: element e of bucket k's gradients is at[k][e] (device memory)
    int *previous;   // (buckets) the previous occupant of this buffer, whose reduction must finish first; -1: none
} Gradients;

// Elements of the arena with this ZeRO stage.
size_t gradients_elements(const C3Params *p, int zero);
// Lays the buckets out in the arena (may be NULL: inference). All gradients are zero at the start, padding for ever.
int gradients_create(Gradients *g, const C3Params *p, int zero, float *arena, Error *err);
void gradients_free(Gradients *g);

#ifdef __cplusplus
}
#endif
#endif
