// params.c: see params.h. Buckets and their tensors lie in the order of the forward pass, each tensor at a multiple of
// 64 elements. Only the padding at the end of a bucket depends on the number of ranks.
#include "llmc/model/params.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"

enum { TENSOR_ALIGN = 64, SHARD_ALIGN = 256, LAYER_TENSORS = 12 };

// Table under construction.
typedef struct Builder {
    ParamTable *t;
    size_t at; // next free element
} Builder;

static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

static void open_bucket(Builder *b) { b->t->buckets[b->t->n_buckets] = (Bucket){.offset = b->at, .first = b->t->n}; }

static int close_bucket(Builder *b) {
    Bucket *k = &b->t->buckets[b->t->n_buckets];
    k->count = round_up(b->at - k->offset, (size_t)b->t->ranks * SHARD_ALIGN);
    k->last = b->t->n;
    b->at = k->offset + k->count;
    return b->t->n_buckets++;
}

// Decides initialization and weight decay.
typedef enum Kind { MATRIX, EMBEDDING, BIAS, NORM } Kind;

// Appends one tensor and returns its offset. joined = 1: directly behind the previous one, as one matrix.
static size_t add(Builder *b, ParamOwner owner, const char *name, Kind kind, int rows, int cols, int joined) {
    if (!joined) b->at = round_up(b->at, TENSOR_ALIGN);
    Param *p = &b->t->params[b->t->n++];
    *p = (Param){
        .owner = owner,
        .group = owner == OWNER_ENCODER   ? GROUP_ENCODER
                 : owner == OWNER_DECODER ? GROUP_DECODER
                                          : GROUP_LATENT,
        .init = kind == BIAS   ? INIT_ZERO
                : kind == NORM ? INIT_ONE
                               : INIT_NORMAL,
        .decay = kind == MATRIX,
        .rows = rows,
        .cols = cols,
        .dims = kind == BIAS || kind == NORM ? 1 : 2,
        .bucket = b->t->n_buckets,
        .offset = b->at,
        .count = (size_t)rows * (size_t)cols,
    };
    snprintf(p->name, sizeof p->name, "%s", name);
    b->at += p->count;
    b->t->parameters += p->count;
    return p->offset;
}

// The tensors of one layer; where they start, relative to the bucket, goes to *s.
static void add_layer(Builder *b, StackParams *s, const Qwen2Config *c, ParamOwner owner, int layer) {
    const int q = c->NH * c->HS, kv = c->KV * c->HS;
    const struct {
        const char *name;
        Kind kind;
        int rows, cols, joined;
        size_t *start;
    } tensors[LAYER_TENSORS] = {
        {"input_layernorm.weight", NORM, c->D, 1, 0, &s->ln1},
        {"self_attn.q_proj.weight", MATRIX, q, c->D, 0, &s->qkv},
        {"self_attn.k_proj.weight", MATRIX, kv, c->D, 1, NULL},
        {"self_attn.v_proj.weight", MATRIX, kv, c->D, 1, NULL},
        {"self_attn.q_proj.bias", BIAS, q, 1, 0, &s->qkv_bias},
        {"self_attn.k_proj.bias", BIAS, kv, 1, 1, NULL},
        {"self_attn.v_proj.bias", BIAS, kv, 1, 1, NULL},
        {"self_attn.o_proj.weight", MATRIX, c->D, q, 0, &s->o},
        {"post_attention_layernorm.weight", NORM, c->D, 1, 0, &s->ln2},
        {"mlp.gate_proj.weight", MATRIX, c->F, c->D, 0, &s->gate_up},
        {"mlp.up_proj.weight", MATRIX, c->F, c->D, 1, NULL},
        {"mlp.down_proj.weight", MATRIX, c->D, c->F, 0, &s->down},
    };
    size_t base = b->at;
    for (int i = 0; i < LAYER_TENSORS; i++) {
        char name[sizeof((Param *)0)->name];
        snprintf(name, sizeof name, "model.layers.%d.%s", layer, tensors[i].name);
        size_t at = add(b, owner, name, tensors[i].kind, tensors[i].rows, tensors[i].cols, tensors[i].joined);
        if (tensors[i].start) *tensors[i].start = at - base;
    }
}

// Leaves room for the padding rows of a head's matrix.
static void pad_head(Builder *b, const Qwen2Config *c) {
    b->at += (size_t)(params_head_rows(c->V) - c->V) * (size_t)c->D;
}

// Embedding and layers; the final bucket is the caller's, since it differs.
static void add_stack(Builder *b, StackParams *s, const Qwen2Config *c, ParamOwner owner) {
    open_bucket(b);
    s->embed = add(b, owner, "model.embed_tokens.weight", EMBEDDING, c->V, c->D, 0);
    if (owner == OWNER_DECODER && c->tied) pad_head(b, c);
    s->head = s->embed;
    s->embed_bucket = close_bucket(b);
    s->layer_bucket = b->t->n_buckets;
    s->layer0 = b->at;
    for (int l = 0; l < c->L; l++) {
        open_bucket(b);
        add_layer(b, s, c, owner, l);
        s->layer_stride = b->t->buckets[close_bucket(b)].count;
    }
}

int params_build(C3Params *p, const C3Config *c, int ranks, Error *err) {
    *p = (C3Params){0};
    TRY(config_check_qwen2(&c->enc, "encoder", err));
    TRY(config_check_qwen2(&c->dec, "decoder", err));
    if (ranks < 1) return error_set(err, "parameter table: %d ranks: expected at least 1", ranks);
    if (c->latents < 1) return error_set(err, "parameter table: %d latents: expected at least 1", c->latents);
    ParamTable *t = &p->table;
    t->ranks = ranks;
    size_t layers = (size_t)c->enc.L + (size_t)c->dec.L;
    t->params = alloc_zeroed(layers * LAYER_TENSORS + 8, sizeof *t->params, "parameter table");
    t->buckets = alloc_zeroed(layers + 4, sizeof *t->buckets, "parameter table");
    Builder b = {.t = t};
    add_stack(&b, &p->enc, &c->enc, OWNER_ENCODER);
    open_bucket(&b);
    p->enc.final = b.at;
    p->enc.norm = add(&b, OWNER_ENCODER, "model.norm.weight", NORM, c->enc.D, 1, 0);
    p->projector = add(&b, OWNER_CASCADE, "model.mm_projector.weight", MATRIX, c->dec.D, c->enc.D, 0);
    p->projector_bias = add(&b, OWNER_CASCADE, "model.mm_projector.bias", BIAS, c->dec.D, 1, 0);
    p->Q = add(&b, OWNER_CASCADE, "model.Q.weight", EMBEDDING, c->latents, c->enc.D, 0);
    p->enc.final_bucket = close_bucket(&b);

    add_stack(&b, &p->dec, &c->dec, OWNER_DECODER);
    open_bucket(&b);
    p->dec.final = b.at;
    p->dec.norm = add(&b, OWNER_DECODER, "model.norm.weight", NORM, c->dec.D, 1, 0);
    if (!c->dec.tied) {
        p->dec.head = add(&b, OWNER_DECODER, "lm_head.weight", MATRIX, c->dec.V, c->dec.D, 0);
        pad_head(&b, &c->dec);
    }
    p->dec.final_bucket = close_bucket(&b);
    t->total = b.at;
    return 0;
}

double params_owned(const ParamTable *t, ParamOwner owner) {
    double n = 0;
    for (int i = 0; i < t->n; i++) n += t->params[i].owner == owner ? (double)t->params[i].count : 0;
    return n;
}

void params_free(C3Params *p) {
    free(p->table.params);
    free(p->table.buckets);
    *p = (C3Params){0};
}

const Param *params_find(const ParamTable *t, ParamOwner owner, const char *name) {
    for (int i = 0; i < t->n; i++) {
        if (t->params[i].owner == owner && strcmp(t->params[i].name, name) == 0) return &t->params[i];
    }
    return NULL;
}
