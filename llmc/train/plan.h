// plan.h: what a run will need, and how it uses the available memory: which activations are kept, how many
// micro-batches the device takes at once; memory by kind, disk, work, predicted times. Printed at the start and by
// -plan.
//
// One rule chooses: of all that fits, what the roofline of roofline.h predicts to be fastest. Recomputing costs FLOPs
// and traffic; small batches cost gradients read and written more often, and products whose waves are not full.
#ifndef LLMC_PLAN_H
#define LLMC_PLAN_H

#include <stdint.h>
#include <stdio.h>

#include "llmc/model/cascade.h"
#include "llmc/train/corpus.h"
#include "llmc/train/roofline.h"
#include "llmc/train/optimizer.h"

#ifdef __cplusplus
extern "C" {
#endif

// What a run computes on; all zero: a CPU with this host's memory.
typedef struct PlanMachine {
    int is_gpu;
    const char *name; // of the backend or the GPU; NULL: not known
    size_t memory;    // bytes of the device (a CPU: of the host, for a rank); 0: unknown
    size_t used; // of these, taken already: the CUDA context, NCCL's buffers, other programs; the most of all ranks
    double peak_flops; // measured FLOP/s of a rank; 0: not measured
} PlanMachine;

// Of the backend's device; all ranks call it together.
PlanMachine plan_machine(Backend *b, const Dist *dist);

typedef struct PlanBytes {
    size_t parameters, gradients, optimizer, activations, inputs, scratch, total; // of one rank
    size_t memory, reserve; // available, and how much of that is not used; 0: unknown
    uint64_t checkpoint;    // of all ranks, on disk
} PlanBytes;

// All that memory and times depend on.
typedef struct PlanShape {
    const C3Config *config;
    const C3Params *params;   // built for `ranks`
    BatchRows longest;        // what the longest page of the data takes
    double enc, dec, outputs; // rows of an average page
    double windows;           // of an average page; 0: one
    double latents;           // of an average page
    int b, g, ranks, zero;
    DType dtype;
    int is_gpu;
    const Gpu *gpu;         // whose times are predicted; NULL: unknown, the choice is that of an H100
    int recompute;          // a Recompute, -1: choose
    int fuse;               // 0: choose
    size_t memory, reserve; // bytes; memory 0: unlimited
} PlanShape;

typedef struct PlanChoice {
    C3Limits limits;
    int fuse;       // micro-batches a device batch, at most; 0: pages, whatever their micro-batch
    double batches; // device batches a step, with average pages
    PlanBytes bytes;
} PlanChoice;

// The limits of a device batch that fit and are predicted to be fastest. A pure function: the same on all ranks. An
// error when one longest page does not fit, naming for each option how much it saves, those that are enough first; then
// c is the least there is.
int plan_choose(PlanChoice *c, const PlanShape *s, Error *err);
// Work and traffic of a rank's step with this choice, for roofline_step.
RooflineLoad plan_load(const PlanShape *s, const PlanChoice *c);
// What is left alone of a device's memory: the CUDA context, NCCL's buffers, fragmentation; 0 on a CPU.
size_t plan_reserve(size_t memory, int is_gpu);

typedef struct Plan {
    const TrainOptions *o;
    PlanShape shape;
    PlanChoice choice;
    int64_t steps, pages_a_step;
    const Dataset *train; // NULL: none, pages of -plan_tokens are assumed
    const Dataset *val;   // (n_val)
    int n_val;
    double text_tokens;  // of an average page
    int words;           // decoder rows around latents and text
    const char *machine; // name, or NULL
    double peak_flops;   // measured, of a rank; 0: unknown
    Error refusal;       // with -plan: why it does not fit, and what helps; empty: it does
} Plan;

// The plan of a run with these options and pages. corpus NULL: pages are assumed (-plan_tokens, -plan_longest). machine
// NULL: nothing is known of it; -gpu takes its place. params: built for plan_ranks(). Everything given must outlive p.
int plan_make(Plan *p, const TrainOptions *o, const Corpus *corpus, const C3Config *config, const C3Params *params,
              const Dist *dist, const PlanMachine *machine, int64_t steps, Error *err);
// -plan_ranks, or as many as there are.
int plan_ranks(const TrainOptions *o, const Dist *dist);
void plan_print(FILE *out, const Plan *p);
// Predicted seconds of a step on p->shape.gpu, which must be known, and of its parts, with products faster by this
// factor than expected.
double plan_times(RooflineTimes *t, const Plan *p, double faster);
// Free space where the run's folder will be, against a checkpoint: an error when not even one fits. Call it at the
// start, on one rank.
int plan_check_disk(const Plan *p, Error *err);

// -plan and `c3 plan`: all of it for these options, on a machine that need not have a GPU, models or data: shapes of
// missing models are preset paper's, missing pages are assumed; the output says so. What does not fit is printed all
// the same; it is an error only where -gpu asked for a machine to fit into.
int plan_run(FILE *out, const TrainOptions *o, const Dist *dist, const PlanMachine *machine, Error *err);

#ifdef __cplusplus
}
#endif
#endif
