// roofline.h: what GPUs can do by their data sheets, and how long an optimizer step takes on them by arithmetic.
// Nothing here was measured by this project: a time is a prediction, and roofline.c says of every constant whether it
// is from a data sheet, assumed, or fitted to public measurements.
#ifndef LLMC_ROOFLINE_H
#define LLMC_ROOFLINE_H

#include "llmc/base/gpu_sheets.h"
#include "llmc/model/config.h"
#include "llmc/model/qwen2.h" // Recompute

#ifdef __cplusplus
extern "C" {
#endif

// Kernels for causal attention. They compute whole tiles: a query is charged for `tail` more keys than it sees, and for
// another `shared` divided by the query heads of a key/value head, where blocks stack the rows of these heads.
typedef struct RooflineAttention {
    double forward, backward;  // FLOP/s inside whole tiles
    int products;              // of the backward: 5, or 7 where scores and dP are computed twice
    double tail[2], shared[2]; // forward, backward
} RooflineAttention;

// What one GPU really delivers, by this model.
typedef struct RooflineRates {
    double products; // FLOP/s of large matrix products
    RooflineAttention attention;
    double bandwidth; // bytes/s of streaming operations
    double link;      // bytes/s of collectives
    int sms;
    int collective_sms; // that a collective keeps from other kernels while it runs
} RooflineRates;

// measured: FLOP/s of a matrix product on this GPU, 0: unknown, the data sheet's times the fitted efficiency. A GPU
// without figures for attention (roofline_models) gets an H100's, a multiprocessor: enough to compare choices.
RooflineRates roofline_rates(const Gpu *gpu, DType dtype, double measured);
// Whether times on this GPU are worth printing.
int roofline_models(const Gpu *gpu, DType dtype);

// One stack's part of a device batch, on average. outputs: rows that go through the last layer's queries, output and
// MLP.
typedef struct RooflineStack {
    const Qwen2Config *c;
    double rows, outputs;
    double pairs, output_pairs; // query-key pairs causal attention looks at, in a whole layer and in the last
} RooflineStack;

// One rank's share of an optimizer step.
typedef struct RooflineLoad {
    RooflineStack stacks[2]; // in the order of the forward pass
    int n_stacks;
    double head_rows;  // of a device batch, V logits each from D numbers
    double head_chunk; // of these, rows whose logits are computed at a time; 0: all
    int D, V;
    double batches; // device batches a step
    double parameters;
    int element;  // bytes of weights and activations
    int gradient; // bytes of a parameter's gradient
    int state;    // bytes AdamW and the norm read and write for each parameter
    int ranks, zero;
    Recompute recompute;
} RooflineLoad;

// Parts of a step. The first three are matrix products; KERNELS is what their starts and ends cost; REDUCE and GATHER
// are what nothing hides of the collectives, COLLECTIVES what the hidden rest takes from the other kernels.
enum {
    PART_STACK0,
    PART_STACK1,
    PART_HEAD,
    PART_ATTENTION,
    PART_ELEMENTWISE,
    PART_LOGITS,
    PART_RECOMPUTE,
    PART_GRADIENTS,
    PART_OPTIMIZER,
    PART_KERNELS,
    PART_REDUCE,
    PART_GATHER,
    PART_COLLECTIVES,
    PART_PARTS
};

typedef struct RooflinePart {
    double flops, bytes; // bytes of memory; of the link for collectives
    double seconds;
} RooflinePart;

typedef struct RooflineTimes {
    RooflinePart parts[PART_PARTS];
    double total;             // seconds
    double flops;             // that the mathematics asks for: recomputation and padding not counted
    double reduce, gather;    // seconds of the whole collectives, hidden or not
    double forward, backward; // seconds of one device batch, which overlap with them
    double weights;           // bytes of weights the products read; inside their time
} RooflineTimes;

void roofline_step(RooflineTimes *t, const RooflineLoad *load, const RooflineRates *rates);
// A few words on a part.
const char *roofline_part_name(int part);
// The assumptions in lines, for -plan.
const char *roofline_assumptions(void);

#ifdef __cplusplus
}
#endif
#endif
