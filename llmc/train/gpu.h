// gpu.h: what GPUs can do by their data sheets, and how long an optimizer step takes on them by arithmetic. Nothing
// here was measured by this project: a time is a prediction, and gpu.c says of every constant whether it is from a data
// sheet, assumed, or fitted to public measurements.
#ifndef LLMC_GPU_H
#define LLMC_GPU_H

#include "llmc/base/gpu_sheets.h"
#include "llmc/model/config.h"
#include "llmc/model/qwen2.h" // Recompute

#ifdef __cplusplus
extern "C" {
#endif

// What one GPU really delivers, by this model.
typedef struct GpuRates {
    double products;  // FLOP/s of large matrix products
    double attention; // FLOP/s inside attention
    double bandwidth; // bytes/s of streaming operations
    double link;      // bytes/s of collectives
    int sms;
} GpuRates;

// measured: FLOP/s of a matrix product on this GPU, 0: unknown, the data sheet's times the fitted efficiency.
GpuRates gpu_rates(const Gpu *gpu, DType dtype, double measured);

// One stack's part of a device batch, on average. kept: rows that go through the last layer's queries, output and MLP.
typedef struct GpuStack {
    const Qwen2Config *c;
    double rows, kept;
    double pairs, kept_pairs; // query-key pairs causal attention looks at, in a whole layer and in the last
} GpuStack;

// One rank's share of an optimizer step.
typedef struct GpuLoad {
    GpuStack stacks[2]; // in the order of the forward pass
    int n_stacks;
    double head_rows; // of a device batch, V logits each from D numbers
    int D, V;
    double batches; // device batches a step
    double parameters;
    int element;  // bytes of weights and activations
    int gradient; // bytes of a parameter's gradient
    int state;    // bytes AdamW and the norm read and write for each parameter
    int ranks, zero;
    Recompute recompute;
} GpuLoad;

// Parts of a step. The first three are matrix products; KERNELS is what their starts and ends cost; REDUCE and GATHER
// are what nothing hides of the collectives.
enum {
    GPU_STACK0,
    GPU_STACK1,
    GPU_HEAD,
    GPU_ATTENTION,
    GPU_ELEMENTWISE,
    GPU_LOGITS,
    GPU_RECOMPUTE,
    GPU_GRADIENTS,
    GPU_OPTIMIZER,
    GPU_KERNELS,
    GPU_REDUCE,
    GPU_GATHER,
    GPU_PARTS
};

typedef struct GpuPart {
    double flops, bytes; // bytes of memory; of the link for collectives
    double seconds;
} GpuPart;

typedef struct GpuTimes {
    GpuPart parts[GPU_PARTS];
    double total;             // seconds
    double flops;             // that the mathematics asks for: recomputation and padding not counted
    double reduce, gather;    // seconds of the whole collectives, hidden or not
    double forward, backward; // seconds of one device batch, behind which they hide
    double weights;           // bytes of weights the products read; inside their time
} GpuTimes;

void gpu_step(GpuTimes *t, const GpuLoad *load, const GpuRates *rates);
// A few words on a part.
const char *gpu_part_name(int part);
// The assumptions in lines, for -plan.
const char *gpu_assumptions(void);

#ifdef __cplusplus
}
#endif
#endif
