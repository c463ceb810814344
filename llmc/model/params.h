// params.h: the tensor table. One row a parameter: Hugging Face name, shape, owner, learning-rate group, weight decay,
// initialization, place. Initialization, loading, saving, AdamW, ZeRO, gradient tests and `c3 info` all walk it.
#ifndef LLMC_PARAMS_H
#define LLMC_PARAMS_H

#include <stddef.h>

#include "llmc/model/config.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ParamOwner { OWNER_ENCODER, OWNER_DECODER, OWNER_CASCADE } ParamOwner; // llm1/ file, root file, root file
typedef enum ParamGroup { GROUP_ENCODER, GROUP_DECODER, GROUP_LATENT, N_GROUPS } ParamGroup;
typedef enum ParamInit { INIT_NORMAL, INIT_ZERO, INIT_ONE } ParamInit; // normal(0, 0.02)

typedef struct Param {
    char name[64]; // as in the checkpoint: "model.layers.3.mlp.up_proj.weight", "model.Q.weight"
    ParamOwner owner;
    ParamGroup group;
    ParamInit init;
    int decay;      // weight decay applies (matrices only: not norms, biases, Q, embeddings)
    int rows, cols; // cols = 1 for vectors (one dimension in the file)
    int dims;       // 1 or 2
    int bucket;
    size_t offset; // first element in the parameter arena (the same in gradients and full optimizer state)
    size_t count;  // rows * cols
} Param;

// The unit of reduce-scatter, AdamW shards and all-gather: an embedding; a layer; a stack's final bucket (final norm,
// untied head, projector and Q). Padded with zeros to a multiple of ranks x 256 elements.
typedef struct Bucket {
    size_t offset, count; // elements; count is a multiple of ranks * 256
    int first, last;      // params first..last-1
} Bucket;

typedef struct ParamTable {
    Param *params;
    int n;
    Bucket *buckets;
    int n_buckets;
    size_t total;      // elements of the arena, padding included
    size_t parameters; // true parameters
    int ranks;
} ParamTable;

// Where the tensors of one stack start. QKV weights are one matrix (NH*HS + 2*KV*HS, D), gate and up one (2F, D).
typedef struct StackParams {
    int embed_bucket, layer_bucket, final_bucket; // layer l is bucket layer_bucket + l
    size_t embed, norm, head;                     // head == embed when tied
    size_t final;                                 // offset of the final bucket
    size_t layer0;                                // offset of layer 0; a layer's stride is layer_stride
    size_t layer_stride;
    size_t ln1, qkv, qkv_bias, o, ln2, gate_up, down; // relative to the layer
} StackParams;

typedef struct C3Params {
    ParamTable table;
    StackParams enc, dec;
    size_t Q, projector, projector_bias;
} C3Params;

// Rows of the head's matrix for a vocabulary of V, padded so that the matrix product has whole tiles and rows of logits
// begin at multiples of 16 bytes. Weights and gradients of the padding stay zero.
static inline int params_head_rows(int V) { return V >= 16384 ? (V + 127) / 128 * 128 : (V + 7) / 8 * 8; }

// Tags of a bucket's collectives (backend.h): the reduction of its gradients, the gathering of its parameters.
static inline int params_reduce_tag(int bucket) { return 2 * bucket; }
static inline int params_gather_tag(int bucket) { return 2 * bucket + 1; }

int params_build(C3Params *p, const C3Config *c, int ranks, Error *err);
void params_free(C3Params *p);
double params_owned(const ParamTable *t, ParamOwner owner);                        // how many parameters
const Param *params_find(const ParamTable *t, ParamOwner owner, const char *name); // NULL: not there

#ifdef __cplusplus
}
#endif
#endif
