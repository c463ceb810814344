// optimizer.c: see optimizer.h. Everything walks the buckets of the tensor table; nothing here waits for the device.
#include "llmc/train/optimizer.h"

#include <math.h>

#include "llmc/base/dist.h" // rank, ranks

double optimizer_lr(const OptimizerConfig *c, int64_t step) {
    double s = (double)step, warmup = (double)c->warmup, steps = (double)c->steps;
    if (s < warmup) return c->lr * s / warmup;
    // progress runs from 0 at the end of the warmup to just short of 1 at the last step, so that no update is wasted
    double progress = (s - warmup) / (steps - warmup + 1);
    if (progress > 1) progress = 1;
    switch (c->schedule) {
    case SCHEDULE_CONSTANT:
        return c->lr;
    case SCHEDULE_LINEAR:
        return c->lr_min + (c->lr - c->lr_min) * (1 - progress);
    case SCHEDULE_WSD: // warmup, stable, and a linear decay over the last fifth
        return progress < 0.8 ? c->lr : c->lr_min + (c->lr - c->lr_min) * (1 - progress) / 0.2;
    case SCHEDULE_COSINE:
        break;
    }
    return c->lr_min + (c->lr - c->lr_min) * (1 + cos(M_PI * progress)) / 2;
}

static size_t state_elements(const C3Params *p, int zero) {
    return zero >= 1 ? p->table.total / (size_t)p->table.ranks : p->table.total;
}

size_t optimizer_bytes(const C3Params *p, DType dtype, int zero) {
    return state_elements(p, zero) * sizeof(float) * (dtype == DTYPE_F32 ? 2 : 3);
}

size_t optimizer_shard_bytes(const C3Params *p, int zero) {
    return zero == 2 ? p->table.total / (size_t)p->table.ranks * sizeof(float) : 0;
}

int optimizer_create(Optimizer *o, const OptimizerConfig *config, const C3Params *params, Backend *b, elem_t *weights,
                     const Gradients *grads, double *norm, Error *err) {
    *o = (Optimizer){
        .config = *config, .params = params, .backend = b, .weights = weights, .grads = grads, .norm = norm};
    o->state_count = state_elements(params, config->zero);
    size_t bytes = o->state_count * sizeof(float), shards = optimizer_shard_bytes(params, config->zero);
    size_t sums = (size_t)params->table.ranks * (size_t)params->table.n_buckets;
    if (b->alloc(b, (void **)&o->m, bytes, "AdamW first moments", err) != 0 ||
        b->alloc(b, (void **)&o->v, bytes, "AdamW second moments", err) != 0 ||
        (b->dtype != DTYPE_F32 && b->alloc(b, (void **)&o->master, bytes, "fp32 master weights", err) != 0) ||
        (shards && b->alloc(b, (void **)&o->shards, shards, "gradient shards", err) != 0) ||
        b->alloc(b, (void **)&o->partial, sums * sizeof(double), "norms", err) != 0 ||
        b->alloc(b, (void **)&o->scale, sizeof(float), "clip factor", err) != 0) {
        optimizer_free(o);
        return -1;
    }
    optimizer_reset(o);
    return 0;
}

void optimizer_free(Optimizer *o) {
    void *device[] = {o->m, o->v, o->master, o->shards, o->partial, o->scale};
    for (size_t i = 0; o->backend && i < sizeof device / sizeof *device; i++) {
        if (device[i]) o->backend->release(o->backend, device[i]);
    }
    *o = (Optimizer){0};
}

// ---- shards --------------------------------------------------------------------------------------------------------

static size_t share(const Optimizer *o, const Bucket *k) { return k->count / (size_t)o->params->table.ranks; }
static size_t rank_of(const Optimizer *o) { return o->backend->dist ? (size_t)o->backend->dist->rank : 0; }

// Index in the state arrays of element `at` of a bucket (ZeRO 1 and 2: it must be in this rank's shard).
static size_t state_at(const Optimizer *o, const Bucket *k, size_t at) {
    if (o->config.zero < 1) return k->offset + at;
    return k->offset / (size_t)o->params->table.ranks + at - rank_of(o) * share(o, k);
}

void optimizer_owned(const Optimizer *o, int bucket, size_t *begin, size_t *count, size_t *at) {
    const Bucket *k = &o->params->table.buckets[bucket];
    *count = share(o, k);
    *begin = rank_of(o) * *count;
    *at = state_at(o, k, *begin);
}

void optimizer_held(const Optimizer *o, int bucket, size_t *begin, size_t *count, size_t *at) {
    const Bucket *k = &o->params->table.buckets[bucket];
    optimizer_owned(o, bucket, begin, count, at);
    if (o->config.zero >= 1) return;
    *begin = 0;
    *count = k->count;
    *at = k->offset;
}

void optimizer_reset(Optimizer *o) {
    Backend *b = o->backend;
    b->zero(b, o->m, o->state_count * sizeof(float));
    b->zero(b, o->v, o->state_count * sizeof(float));
    for (int i = 0; o->master && i < o->params->table.n_buckets; i++) {
        size_t begin, count, at;
        optimizer_held(o, i, &begin, &count, &at);
        b->cast_to_f32(b, o->master + at, elem_at(b, o->weights, o->params->table.buckets[i].offset + begin), count);
    }
}

// ---- a step --------------------------------------------------------------------------------------------------------

// This rank's piece of a bucket's summed gradients.
static float *shard(const Optimizer *o, int bucket) {
    const Bucket *k = &o->params->table.buckets[bucket];
    if (o->shards) return o->shards + k->offset / (size_t)o->params->table.ranks;
    return o->grads->at[bucket] + rank_of(o) * share(o, k);
}

const float *optimizer_gradients(const Optimizer *o, int bucket, size_t *begin, size_t *count) {
    *count = share(o, &o->params->table.buckets[bucket]);
    *begin = rank_of(o) * *count;
    return shard(o, bucket);
}

void optimizer_reduce_bucket(Optimizer *o, int bucket, int accumulate) {
    Backend *b = o->backend;
    size_t n = share(o, &o->params->table.buckets[bucket]);
    b->reduce_scatter(b, shard(o, bucket), o->grads->at[bucket], n, o->shards && accumulate, params_reduce_tag(bucket));
}

// Global norm and clip factor, on the device.
static void clip(Optimizer *o) {
    Backend *b = o->backend;
    const ParamTable *t = &o->params->table;
    const int norm_tag = params_reduce_tag(t->n_buckets);
    double *mine = o->partial + rank_of(o) * (size_t)t->n_buckets;
    for (int i = 0; i < t->n_buckets; i++) {
        b->wait_for(b, params_reduce_tag(i));
        b->sum_squares(b, mine + i, shard(o, i), share(o, &t->buckets[i]));
    }
    b->all_gather(b, o->partial, (size_t)t->n_buckets * sizeof(double), norm_tag);
    b->wait_for(b, norm_tag);
    b->clip_scale(b, o->scale, o->norm, o->partial, t->n_buckets * t->ranks, o->config.clip);
}

static int same_treatment(const Optimizer *o, const Param *a, const Param *b) {
    return a->group == b->group && (o->config.weight_decay == 0 || a->decay == b->decay);
}

// AdamW on elements [lo, hi) of a bucket, whose gradients are at grad, in as few passes as the groups allow. Tensors
// start at multiples of 64 elements and the padding after them is zero in every array and stays so.
static void update(Optimizer *o, const Bucket *k, const float *grad, size_t lo, size_t hi, AdamWParams base) {
    Backend *b = o->backend;
    const Param *params = o->params->table.params;
    for (int i = k->first, next; i < k->last; i = next) {
        for (next = i + 1; next < k->last && same_treatment(o, &params[i], &params[next]);) next++;
        size_t from = params[i].offset - k->offset, to = next < k->last ? params[next].offset - k->offset : k->count;
        from = from > lo ? from : lo;
        to = to < hi ? to : hi;
        if (from >= to || o->config.frozen[params[i].group]) continue;
        AdamWParams p = base;
        p.lr *= (float)o->config.group_scale[params[i].group];
        p.weight_decay = params[i].decay ? (float)o->config.weight_decay : 0.0f;
        size_t at = state_at(o, k, from);
        b->adamw(b, elem_at(b, o->weights, k->offset + from), o->master ? o->master + at : NULL, o->m + at, o->v + at,
                 grad + (from - lo), o->scale, to - from, &p);
    }
}

// Buckets in the order in which the next forward pass needs them, so that it waits for no gather but its own: the
// encoder's tail holds Q, which enters below its first layer.
static int needed(const Optimizer *o, int i) {
    const StackParams *enc = &o->params->enc;
    if (i <= enc->embed_bucket || i > enc->final_bucket) return i;
    return i == enc->embed_bucket + 1 ? enc->final_bucket : i - 1;
}

double optimizer_step(Optimizer *o, int64_t step) {
    Backend *b = o->backend;
    const OptimizerConfig *c = &o->config;
    const ParamTable *t = &o->params->table;
    double lr = optimizer_lr(c, step);
    AdamWParams p = {.lr = (float)lr,
                     .beta1 = (float)c->beta1,
                     .beta2 = (float)c->beta2,
                     .eps = (float)c->eps,
                     .bias1 = (float)(1 - pow(c->beta1, (double)step)),
                     .bias2 = (float)(1 - pow(c->beta2, (double)step))};
    b->range_push(b, "optimizer", -1);
    clip(o);
    for (int i = 0; c->zero < 1 && i < t->n_buckets; i++)
        b->all_gather(b, o->grads->at[i], share(o, &t->buckets[i]) * sizeof(float), params_gather_tag(i));
    for (int j = 0; j < t->n_buckets; j++) {
        int i = needed(o, j);
        const Bucket *k = &t->buckets[i];
        size_t n = share(o, k), mine = rank_of(o) * n;
        if (c->zero < 1) {
            b->wait_for(b, params_gather_tag(i));
            update(o, k, o->grads->at[i], 0, k->count, p);
        } else {
            update(o, k, shard(o, i), mine, mine + n, p);
            b->all_gather(b, elem_at(b, o->weights, k->offset), n * dtype_size(b->dtype), params_gather_tag(i));
        }
    }
    b->range_pop(b);
    return lr;
}
