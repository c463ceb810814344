// known_model.h: a small model with its optimizer whose every number is known, for tests of what files hold.
#ifndef TEST_KNOWN_MODEL_H
#define TEST_KNOWN_MODEL_H

#include <math.h>
#include <stdlib.h>

#include "llmc/base/alloc.h"
#include "llmc/train/checkpoint.h"
#include "llmc/base/file.h"
#include "llmc/weights/safetensors.h"
#include "test/check.h"

typedef struct Rig {
    Dist *dist;
    Backend *b;
    C3Config config;
    C3Params params;
    elem_t *weights;
    float *grads;
    Gradients places; // of grads
    double norm;
    Optimizer optimizer;
} Rig;

static Dist dist; // of this process

static inline C3Config small_config(void) {
    C3Config c;
    CHECK(config_preset(&c, "demo", 256, NULL) == 0, "preset");
    c.latents = 5;
    c.enc.rope_theta = c.dec.rope_theta = 1e6f;
    c.enc.D = 30, c.enc.NH = 2, c.enc.KV = 1, c.enc.HS = 16, c.enc.F = 44;
    c.dec.D = 50, c.dec.NH = 3, c.dec.KV = 1, c.dec.HS = 18, c.dec.F = 61;
    c.dec.tied = 0;
    return c;
}

static inline void must(int bad, const Error *err) {
    if (!bad) return;
    printf("FAIL cannot set up: %s\n", err->text);
    exit(1);
}

static inline void rig_open(Rig *r, C3Config config, DType dtype, int zero) {
    Error err = {""};
    *r = (Rig){.dist = &dist, .config = config};
    must(backend_cpu_create(&r->b, dtype, 1, &dist, &err), &err);
    must(params_build(&r->params, &r->config, dist.ranks, &err), &err);
    must(r->b->alloc(r->b, &r->weights, r->params.table.total * dtype_size(dtype), "weights", &err), &err);
    must(r->b->alloc(r->b, (void **)&r->grads, r->params.table.total * sizeof(float), "gradients", &err), &err);
    r->b->zero(r->b, r->weights, r->params.table.total * dtype_size(dtype));
    gradients_create(&r->places, &r->params, zero, r->grads);
    OptimizerConfig oc = {
        .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .steps = 10, .zero = zero, .group_scale = {1, 1, 1}};
    must(optimizer_create(&r->optimizer, &oc, &r->params, r->b, r->weights, &r->places, &r->norm, &err), &err);
}

static inline void rig_close(Rig *r) {
    optimizer_free(&r->optimizer);
    r->b->release(r->b, r->weights);
    r->b->release(r->b, r->grads);
    gradients_free(&r->places);
    params_free(&r->params);
    r->b->destroy(r->b);
}

static inline CheckpointJob job_of(Rig *r) {
    return (CheckpointJob){
        .backend = r->b, .dist = r->dist, .config = &r->config, .params = &r->params, .optimizer = &r->optimizer};
}

// The number at element e of a bucket: kind 0 m, 1 v, 2 master; full mantissas, so that no conversion goes unnoticed.
static inline float number(int kind, int bucket, size_t e, int64_t step) {
    uint64_t x = ((uint64_t)step * 1000003 + (uint64_t)bucket * 31 + (uint64_t)kind) * 0x9e3779b97f4a7c15u + e;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    float f = (float)(int32_t)(x >> 32) * 0x1p-31f;
    return kind == 1 ? fabsf(f) : f;
}

// Elements of a bucket in front of its padding.
static inline size_t used(const Rig *r, int bucket) {
    const ParamTable *t = &r->params.table;
    const Param *last = &t->params[t->buckets[bucket].last - 1];
    return last->offset + last->count - t->buckets[bucket].offset;
}

// What the whole weight arena must hold, in the run's element type; free it.
static inline void *expected_weights(const Rig *r, int64_t step) {
    const ParamTable *t = &r->params.table;
    float *wide = calloc(t->total, sizeof *wide);
    for (int i = 0; i < t->n; i++) {
        const Param *p = &t->params[i];
        size_t at = p->offset - t->buckets[p->bucket].offset;
        for (size_t e = 0; e < p->count; e++) wide[p->offset + e] = number(2, p->bucket, at + e, step);
    }
    if (r->b->dtype == DTYPE_F32) return wide;
    uint16_t *narrow = malloc(t->total * sizeof *narrow);
    safetensors_convert(narrow, DTYPE_BF16, wide, DTYPE_F32, t->total);
    free(wide);
    return narrow;
}

// What a rank's optimizer state must hold; free it. Between tensors of a bucket there may be a few zeros of alignment.
static inline float *expected_state(const Rig *r, int kind, int64_t step) {
    const ParamTable *t = &r->params.table;
    float *state = calloc(r->optimizer.state_count, sizeof *state);
    for (int i = 0; i < t->n; i++) {
        const Param *p = &t->params[i];
        size_t begin, count, at, start = p->offset - t->buckets[p->bucket].offset;
        optimizer_held(&r->optimizer, p->bucket, &begin, &count, &at);
        for (size_t e = start; e < start + p->count; e++) {
            if (e >= begin && e < begin + count) state[at + e - begin] = number(kind, p->bucket, e, step);
        }
    }
    return state;
}

static inline float *state_array(Rig *r, int kind) {
    return kind == 0 ? r->optimizer.m : kind == 1 ? r->optimizer.v : r->optimizer.master;
}

static inline void rig_fill(Rig *r, int64_t step) {
    void *weights = expected_weights(r, step);
    r->b->upload(r->b, r->weights, weights, r->params.table.total * dtype_size(r->b->dtype));
    free(weights);
    for (int kind = 0; kind < 3; kind++) {
        if (!state_array(r, kind)) continue;
        float *state = expected_state(r, kind, step);
        r->b->upload(r->b, state_array(r, kind), state, r->optimizer.state_count * sizeof *state);
        free(state);
    }
}

// Puts values everywhere that no checkpoint holds; into the padding of the optimizer state, too.
static inline void rig_spoil(Rig *r) {
    rig_fill(r, 999999);
    size_t n = r->optimizer.state_count;
    float *sevens = malloc(n * sizeof *sevens);
    for (size_t i = 0; i < n; i++) sevens[i] = 7;
    for (int kind = 0; kind < 3; kind++) {
        if (state_array(r, kind)) r->b->upload(r->b, state_array(r, kind), sevens, n * sizeof *sevens);
    }
    free(sevens);
}

// Bytes of the weights that differ from what step `step` held, padding included.
static inline size_t different_weights(const Rig *r, int64_t step) {
    size_t bad = 0, bytes = r->params.table.total * dtype_size(r->b->dtype);
    char *expected = expected_weights(r, step), *found = malloc(bytes);
    r->b->download(r->b, found, r->weights, bytes);
    for (size_t i = 0; i < bytes; i++) bad += expected[i] != found[i];
    free(expected);
    free(found);
    return bad;
}

// The same for weights and optimizer state.
static inline size_t differences(Rig *r, int64_t step) {
    size_t bad = different_weights(r, step), n = r->optimizer.state_count;
    for (int kind = 0; kind < 3; kind++) {
        if (!state_array(r, kind)) continue;
        float *wanted = expected_state(r, kind, step), *got = malloc(n * sizeof *got);
        r->b->download(r->b, got, state_array(r, kind), n * sizeof *got);
        for (size_t i = 0; i < n; i++) bad += memcmp(&wanted[i], &got[i], sizeof *got) != 0;
        free(wanted);
        free(got);
    }
    return bad;
}

// ---- files ---------------------------------------------------------------------------------------------------------

static inline char *in_run(const char *run, const char *name) { return string_format("%s/%s", run, name); }

static inline int exists(const char *run, const char *name) {
    char *path = in_run(run, name);
    int found = file_exists(path);
    free(path);
    return found;
}

static inline void put(const char *path, const char *data, size_t size) {
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(data, 1, size, f) == size, "%s", path);
    if (f) fclose(f);
}

#endif
