// qwen2.h: one Qwen2 stack (embedding, L layers, final norm), forward and backward over a packed batch, and the same
// forward with a key/value cache for decoding. Encoder and decoder are two instances of this type; nothing here knows
// which is which.
//
// Sizes: T rows of the batch, K output rows (the last rows of each page, those whose output is needed), D width, F MLP
// width, NH query heads, KV key/value heads, HS head size, QKV = (NH + 2 KV) HS.
#ifndef LLMC_QWEN2_H
#define LLMC_QWEN2_H

#include "llmc/base/arena.h"
#include "llmc/backend.h"
#include "llmc/model/batch.h"
#include "llmc/model/config.h"
#include "llmc/model/gradients.h"
#include "llmc/model/params.h"

#ifdef __cplusplus
extern "C" {
#endif

// What the forward pass keeps for the backward pass. Results are bit-equal in all modes.
typedef enum Recompute {
    RECOMPUTE_NONE,  // everything
    RECOMPUTE_CHEAP, // all but norms and SwiGLU, which are computed again: saves 2 D + F elements a row and layer
    RECOMPUTE_LAYER, // only each layer's input is kept
    KEEP_NOTHING,    // inference: no backward pass
} Recompute;

// Activations of one layer. In modes that keep less, layers share buffers.
typedef struct LayerActs {
    elem_t *x;       // (T,D) residual stream at the layer's input
    elem_t *ln1;     // (T,D) normalised x
    float *rstd1;    // (T)
    elem_t *qkv;     // (T,QKV) after rotary; outputs only: (K,NH*HS) queries, then (T,2*KV*HS) keys and values
    elem_t *attn;    // (T,NH*HS)
    float *lse;      // (T,NH)
    elem_t *x_mid;   // (T,D) residual stream between attention and MLP
    elem_t *ln2;     // (T,D)
    float *rstd2;    // (T)
    elem_t *gate_up; // (T,2F)
    elem_t *act;     // (T,F)
} LayerActs;

typedef struct StackActs {
    Recompute mode;
    int rows, outputs; // capacity: T and K
    LayerActs *layers; // (L) host array
    elem_t *x_final;   // (K,D) residual stream behind the last layer, output rows
    float *rstd_final; // (K)
    elem_t *out;       // (K,D) output of the final norm: the stack's result
    elem_t *delta;     // (T,D) scratch: what a block adds to the residual stream
    elem_t *ln1_out;   // (K,D) scratch of a last layer that computes outputs only: normalised input at output rows
    elem_t *x_out;     // (K,D) scratch: residual stream at output rows
    // backward only
    elem_t *dx;      // (T,D) gradient of the residual stream
    elem_t *dx_kept; // (K,D)
    elem_t *dln;     // (T,D)
    elem_t *dln_out; // (K,D)
    elem_t *dact;    // (T,F)
    elem_t *dattn;   // (T,NH*HS)
    elem_t *dqkv;    // (T,QKV)
} StackActs;

// Keys and values of past rows, for decoding. Layer l's cache is (rows, 2*KV*HS) at kv + l * rows * 2*KV*HS.
typedef struct KVCache {
    elem_t *kv;
    int rows;               // capacity over all sequences
    const int *write_rows;  // (T) device: cache row of each new row
    AttentionPages pages;   // device: new rows as queries over cache rows as keys
    AttentionPages outputs; // the same for the output rows alone
} KVCache;

typedef struct Qwen2 {
    Qwen2Config c;
    StackParams p;
    Backend *b;
    elem_t *weights;        // the parameter arena
    const Gradients *grads; // where gradients go; NULL in inference
    float *cos_sin;         // (positions,HS), device, owned
    int positions;          // rows of cos_sin
    int train;              // 0: frozen or inference, no weight gradients
    int outputs_only;       // 1: the last layer computes only what the output rows need (tests compare with 0)
} Qwen2;

int qwen2_create(Qwen2 *q, const Qwen2Config *c, const StackParams *p, Backend *b, elem_t *weights,
                 const Gradients *grads, int positions, Error *err);
void qwen2_free(Qwen2 *q);

// Carves the activations for at most `rows` rows and `outputs` output rows out of an arena (see arena.h; run it twice).
// a->layers is allocated on the first run.
void qwen2_carve(StackActs *a, Arena *arena, const Qwen2Config *c, DType dtype, int rows, int outputs, Recompute mode);
// The same for the backward pass, at most as many rows; nothing in these buffers outlives one qwen2_backward.
void qwen2_carve_backward(StackActs *a, Arena *arena, const Qwen2Config *c, DType dtype);
void qwen2_release(StackActs *a); // frees a->layers

// a->out (K,D) = final norm of the stack at the output rows. d: device view of the batch; slots (S,D): rows for
// negative ids. cache NULL: attention inside the batch. With a cache the new keys and values are appended to it first.
void qwen2_forward(const Qwen2 *q, StackActs *a, const StackBatch *d, const elem_t *slots, const KVCache *cache);

// dout (K,D): gradient of a->out. Adds (or, with accumulate = 0, writes) the gradients of all the stack's parameters
// but the head; the embedding's is always added to, since a tied head has written there. dslots (S,D) float is added
// to, or NULL: not wanted. ready(arg, bucket), if not NULL, is called when a layer's bucket is complete.
void qwen2_backward(const Qwen2 *q, StackActs *a, const StackBatch *d, const elem_t *dout, float *dslots,
                    int accumulate, void (*ready)(void *arg, int bucket), void *arg);

#ifdef __cplusplus
}
#endif
#endif
