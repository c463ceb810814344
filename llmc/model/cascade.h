// cascade.h: the cascade. encoder (reads the page and N trainable queries) -> its final norm at the queries: N latents
// -> projector -> decoder (sees the latents in place of the page and writes the page again) -> loss on the text alone.
// Context Cascade Compression, arXiv 2511.15244.
#ifndef LLMC_CASCADE_H
#define LLMC_CASCADE_H

#include <stdint.h>

#include "llmc/backend.h"
#include "llmc/model/batch.h"
#include "llmc/model/config.h"
#include "llmc/base/dist.h"
#include "llmc/model/params.h"
#include "llmc/model/qwen2.h"

#ifdef __cplusplus
extern "C" {
#endif

// What one micro-batch may hold at most: everything is allocated for these numbers before step 0.
typedef struct C3Limits {
    int pages;              // pages a micro-batch
    int enc_rows, dec_rows; // rows in all
    int dec_outputs;        // supervised rows in all
    int loss_rows;          // rows whose losses are kept until they are read: those of a step; 0: dec_outputs
    int head_rows;          // rows of logits at a time; 0 chooses
    int zero;               // 2: gradients leave after every micro-batch (gradients.h)
    Recompute recompute;    // KEEP_NOTHING: inference
} C3Limits;

// The same as a micro-batch is created for.
static inline BatchRows c3_batch_rows(const C3Limits *l) {
    BatchRows rows = {l->pages, l->enc_rows, l->dec_rows, l->dec_outputs};
    return rows;
}

// Bytes by kind, as printed at the start and by -plan.
typedef struct C3Memory {
    size_t parameters, gradients, activations, inputs;
    size_t scratch; // the backend's own, on a GPU
} C3Memory;

typedef struct C3 {
    C3Config config;
    C3Params params;
    C3Limits limits;
    Backend *b;
    elem_t *weights; // (params.table.total) device
    Gradients grads; // arena NULL in inference
    Qwen2 enc, dec;
    StackActs enc_acts, dec_acts;
    void *arena;        // activations
    void *batch_device; // copy of the micro-batch
    elem_t *projected;  // (pages*N,D_dec) what the decoder sees
    elem_t *logits;     // (head_rows,V)
    elem_t *dhidden;    // (dec_outputs,D_dec) gradient of the decoder's output
    float *dslots;      // (pages*N,D_dec) gradient of projected
    elem_t *dprojected; // the same in the element type
    elem_t *dlatents;   // (pages*N,D_enc)
    float *losses;      // (loss_rows)
    int *correct;       // (loss_rows)
    double *sums;       // (2) weighted loss of the step so far; place for its gradient norm (the optimizer's)
    float *host_losses; // host copies of the two
    int *host_correct;
} C3;

// Sizes of a model before it exists.
int c3_memory(C3Memory *m, const C3Config *config, const C3Params *params, const C3Limits *limits, DType dtype,
              int is_gpu);

int c3_create(C3 *m, const C3Config *config, Backend *b, const C3Limits *limits, Error *err);
void c3_free(C3 *m);
// Random weights from the tensor table: normal(0, 0.02), biases 0, norms 1; every parameter has its own stream of the
// seed, so that the values depend on neither ranks nor order. only_cascade: Q and projector alone.
int c3_init_weights(C3 *m, uint64_t seed, int only_cascade, Error *err);
// out (n), host: elements [from, from + n) of a parameter's initial values; from is even. stream: random_stream(seed,
// the parameter's place in the table).
void c3_initial_values(float *out, const Param *p, uint64_t stream, size_t from, size_t n);

// Forward and backward of one micro-batch. The weighted gradients, and the weighted loss in m->sums[0], are written
// (accumulate = 0: the step's first micro-batch) or added to. Losses go to rows host->loss_row and on. ready, if not
// NULL, is told of each bucket whose gradients are complete. Nothing here waits for the device; host's block is read
// until a later download has returned.
void c3_forward_backward(C3 *m, const MicroBatch *host, int accumulate, void (*ready)(void *, int), void *arg);
// Takes part in the reductions of a micro-batch that other ranks have and this one has not (ZeRO 2): the same buckets
// in the same order, without a gradient.
void c3_no_gradients(C3 *m, void (*ready)(void *, int), void *arg);
// Forward alone: losses and which rows were right.
void c3_forward(C3 *m, const MicroBatch *host);

// The same with given latents, (pages*N,D_enc) device, in place of the encoder's (m->enc_acts.out may be used). A batch
// built with 0 latents leaves their positions out of the decoder's sequence: what the decoder knows by itself.
void c3_forward_latents(C3 *m, const MicroBatch *host, const elem_t *latents);

// Reads a micro-batch's losses back (waits). sum: unweighted; rows, correct: counts; weighted: sum of weight x loss, in
// row order. The rows' losses are left in m->host_losses.
typedef struct C3Loss {
    double weighted, sum;
    int rows, correct;
} C3Loss;
C3Loss c3_read_loss(C3 *m, const MicroBatch *host);
// The one readback of a step (waits for all of it): its weighted loss and gradient norm.
void c3_read_step(C3 *m, double *loss, double *grad_norm);

// The latents of a batch, in m->enc_acts.out: encoder and, into m->projected, projector. d: device view of the
// encoder's batch.
void c3_encode(C3 *m, const StackBatch *d);

// FLOPs of the products of one micro-batch with these sizes (2 per multiply-add, backward twice the forward), true rows
// only; attention counts the causal half. Used for MFU and -plan.
typedef struct C3Flops {
    double encoder, decoder, head;
} C3Flops;
C3Flops c3_flops(const C3Config *c, const MicroBatch *host, int backward);
// The same for one page of `tokens` text tokens and `before_text` decoder rows before the text.
C3Flops c3_page_flops(const C3Config *c, int tokens, int before_text, int backward);

#ifdef __cplusplus
}
#endif
#endif
