// cascade.h: the cascade. The encoder reads the page and N trainable queries; its final norm at the queries gives N
// latents; a projector maps them to the decoder's width; the decoder sees them in place of the page and writes the page
// again; the loss is on the text alone. Context Cascade Compression, arXiv 2511.15244.
//
// Room model: the mathematics of C3. It uses base, text, data and the backend's table.
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

// The most that one micro-batch may hold. Everything is allocated for these numbers before step 0.
typedef struct C3Limits {
    int pages;              // pages a micro-batch
    int windows, slots;     // windows and latents of all its pages; 0: one window a page, all N latents a window
    int enc_rows, dec_rows; // rows in all
    int dec_outputs;        // supervised rows in all
    int loss_rows;          // rows whose losses are kept until they are read (those of a step); 0: dec_outputs
    int head_rows;          // rows of logits at a time; 0 chooses
    int zero;               // ZeRO stage; 2: gradients are reduced after every micro-batch (gradients.h)
    Recompute recompute;    // KEEP_NOTHING: inference
} C3Limits;

// The size of a micro-batch with these limits.
static inline BatchRows c3_batch_rows(const C3Limits *l) {
    BatchRows rows = {l->pages, l->enc_rows, l->dec_rows, l->dec_outputs, l->windows, l->slots};
    return rows;
}

// Bytes by kind, as printed at start and by -plan.
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
    elem_t *logits;     // (head_rows,V); shares its place with the buffers of the backward passes
    elem_t *dhidden;    // (dec_outputs,D_dec) gradient of the decoder's output
    float *dslots;      // (pages*N,D_dec) gradient of projected
    elem_t *dprojected; // the same in the element type
    elem_t *dlatents;   // (pages*N,D_enc)
    float *losses;      // (loss_rows)
    int *correct;       // (loss_rows)
    double *sums;       // (2) the step's weighted loss so far, and its gradient norm, which the optimizer writes
    float *host_losses; // (loss_rows) host copies
    int *host_correct;  // (dec_outputs)
} C3;

// Rows of logits at a time with these limits.
int c3_head_rows(const C3Config *config, const C3Limits *limits, int is_gpu);
// Latents of all pages of a micro-batch, at most.
int c3_slots(const C3Config *config, const C3Limits *limits);
// What c3_create would allocate.
C3Memory c3_memory(const C3Config *config, const C3Params *params, const C3Limits *limits, DType dtype, int is_gpu);

int c3_create(C3 *m, const C3Config *config, Backend *b, const C3Limits *limits, Error *err);
void c3_free(C3 *m);
// Random weights as the tensor table says: normal(0, 0.02), biases 0, norms 1. Every parameter has its own stream of
// the seed, so the values depend on neither ranks, threads nor order. Filled by all host threads of the backend.
// only_cascade: Q and projector alone.
int c3_init_weights(C3 *m, uint64_t seed, int only_cascade, Error *err);
// out (n), host: elements [from, from + n) of a parameter's initial values; from is even. stream: random_stream(seed,
// the parameter's place in the table).
void c3_initial_values(float *out, const Param *p, uint64_t stream, size_t from, size_t n, int threads);

// Forward and backward of one micro-batch. The weighted gradients, and the weighted loss in m->sums[0], are written
// (accumulate = 0: the step's first micro-batch) or added to. Losses go to rows host->loss_row and on. ready(arg,
// bucket), if not NULL, is called when a bucket's gradients are complete. Nothing here waits for the device; host's
// block is read until a later download has returned.
void c3_forward_backward(C3 *m, const MicroBatch *host, int accumulate, void (*ready)(void *, int), void *arg);
// ZeRO 2: joins the reductions of a micro-batch that other ranks have and this one lacks, with zero gradients: the same
// buckets in the same order.
void c3_no_gradients(C3 *m, void (*ready)(void *, int), void *arg);
// Forward alone: losses, and which rows were predicted correctly.
void c3_forward(C3 *m, const MicroBatch *host);

// The same with given latents, (pages*N,D_enc) device, in place of the encoder's; they may lie in m->enc_acts.out. A
// batch built with 0 latents has none in the decoder's sequence: the decoder's knowledge without a page.
void c3_forward_latents(C3 *m, const MicroBatch *host, const elem_t *latents);

typedef struct C3Loss {
    double weighted, sum; // sum of weight x loss in row order; of the losses alone
    int rows, correct;
} C3Loss;
// Reads a micro-batch's losses back (waits), and leaves those of the rows in m->host_losses.
C3Loss c3_read_loss(C3 *m, const MicroBatch *host);
// The one readback of a step (waits for the whole step): its weighted loss and gradient norm.
void c3_read_step(C3 *m, double *loss, double *grad_norm);

// Computes the latents of a batch into m->enc_acts.out and their projection into m->projected. d: device view of the
// encoder's batch.
void c3_encode(C3 *m, const StackBatch *d);

// Query-key pairs that causal attention computes for the last k of n rows.
static inline double causal_pairs(double n, double k) { return k * (n - k) + k * (k + 1) / 2; }

// FLOPs of one micro-batch's matrix products and attention (2 per multiply-add; backward counts twice the forward),
// without padding; attention counts the causal half. Used for MFU and -plan.
typedef struct C3Flops {
    double encoder, decoder, head;
} C3Flops;
C3Flops c3_flops(const C3Config *c, const MicroBatch *host, int backward);
// The same for one page of `tokens` text tokens, in as many windows as is usual, and `words` decoder rows around them.
C3Flops c3_page_flops(const C3Config *c, int tokens, int words, int backward);

#ifdef __cplusplus
}
#endif
#endif
