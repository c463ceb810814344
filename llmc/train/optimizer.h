// optimizer.h: AdamW over the buckets of the tensor table, ZeRO stages 0 to 2, clipping by global norm, learning-rate
// schedules.
//
// Every stage reduce-scatters each bucket's gradients, so every rank holds the sum of its own shard: elements
// [rank * count/ranks, (rank+1) * count/ranks) of the bucket. ZeRO-1 keeps m, v and master of that shard alone, updates
// it and gathers the parameters; ZeRO-0 gathers the gradients and updates everything everywhere, with the same bits.
// ZeRO-2 is ZeRO-1 that reduces after every micro-batch into a shard of its own, so that full gradients are not kept.
#ifndef LLMC_OPTIMIZER_H
#define LLMC_OPTIMIZER_H

#include <stddef.h>
#include <stdint.h>

#include "llmc/backend.h"
#include "llmc/model/gradients.h"
#include "llmc/model/params.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum Schedule { SCHEDULE_COSINE, SCHEDULE_CONSTANT, SCHEDULE_LINEAR, SCHEDULE_WSD } Schedule;

typedef struct OptimizerConfig {
    double lr, lr_min, beta1, beta2, eps, weight_decay, clip; // clip <= 0: no clipping
    double group_scale[N_GROUPS];                             // -lr_enc, -lr_dec, -lr_latent
    int frozen[N_GROUPS];
    Schedule schedule;
    int64_t warmup, steps;
    int zero; // 0, 1 or 2
} OptimizerConfig;

// Learning rate of step s (counted from 1): peak*s/warmup up to warmup, then the schedule; cosine:
// lr_min + (lr-lr_min)*(1+cos(pi*(s-warmup)/(steps-warmup+1)))/2.
double optimizer_lr(const OptimizerConfig *c, int64_t step);

typedef struct Optimizer {
    OptimizerConfig config;
    const C3Params *params;
    Backend *backend;
    elem_t *weights;        // (total) the model's parameters, not owned
    const Gradients *grads; // not owned
    float *shards;          // ZeRO 2: (total / ranks) this rank's sums of gradients; else NULL
    float *master, *m, *v;  // (state_count) fp32; master is NULL in fp32 runs
    size_t state_count;     // zero 0: total; else total / ranks
    double *partial;        // (ranks, buckets) device: sums of squares, each rank's shard of each bucket
    double *norm;           // device, not owned: the gradient norm of the step
    float *scale;           // device: clip factor
} Optimizer;

// Bytes of m, v (and master) of this rank; of its gradient shards (ZeRO 2, else 0).
size_t optimizer_bytes(const C3Params *p, DType dtype, int zero);
size_t optimizer_shard_bytes(const C3Params *p, int zero);
// norm: device memory for the gradient norm of each step (C3.sums + 1).
int optimizer_create(Optimizer *o, const OptimizerConfig *config, const C3Params *params, Backend *backend,
                     elem_t *weights, const Gradients *grads, double *norm, Error *err);
void optimizer_free(Optimizer *o);
// master = weights (after initialisation or loading of weights alone), m = v = 0.
void optimizer_reset(Optimizer *o);

// Reduces the gradients of one bucket over the ranks, as soon as they are complete and in the same order on every rank:
// in the step's last micro-batch, or, with ZeRO 2, in every one (accumulate = 0 in the first). Only queued.
void optimizer_reduce_bucket(Optimizer *o, int bucket, int accumulate);

// Queues clipping, AdamW and the gathering of the parameters; all buckets have been reduced. The next forward pass
// awaits each bucket's gather. A norm that is not finite changes nothing. Returns the learning rate.
double optimizer_step(Optimizer *o, int64_t step);

// The summed gradients this rank holds of a bucket: elements [*begin, *begin + *count) of it (device memory).
const float *optimizer_gradients(const Optimizer *o, int bucket, size_t *begin, size_t *count);

// The piece of state this rank is responsible for saving in a bucket: elements [*begin, *begin + *count) of the bucket
// (offsets inside the bucket, the same whatever the rank count), found at o->m + *at (likewise v, master). Loading
// fills the pieces of optimizer_held() instead: all this rank needs.
void optimizer_owned(const Optimizer *o, int bucket, size_t *begin, size_t *count, size_t *at);
void optimizer_held(const Optimizer *o, int bucket, size_t *begin, size_t *count, size_t *at);

#ifdef __cplusplus
}
#endif
#endif
