// cascade.c: see cascade.h. The only file that knows which stack is the encoder and which the decoder.
//
// One id convention joins the two: the encoder's slots are Q, shared by all pages; the decoder's slots are the
// projected latents of the batch, and their gradient flows back through projector and encoder.
#include "llmc/model/cascade.h"

#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/base/random.h"

// ---- memory --------------------------------------------------------------------------------------------------------

// Rows of logits at a time: few enough that a chunk stays in cache, enough for an efficient matrix product. On a
// GPU the gradient of the head's weight is read and written once a chunk: at most 4,096 rows, whose logits take
// little more memory than the backward passes that use the same place later.
int c3_head_rows(const C3Config *c, const C3Limits *l, int is_gpu) {
    if (l->head_rows > 0) return l->head_rows < l->dec_outputs ? l->head_rows : l->dec_outputs;
    int rows = (int)((2 << 20) / (size_t)c->dec.V);
    rows = is_gpu ? 4096 : rows < 256 ? 256 : rows > 1024 ? 1024 : rows / 64 * 64;
    return rows < l->dec_outputs ? rows : l->dec_outputs;
}

static int loss_rows(const C3Limits *l) { return l->loss_rows > l->dec_outputs ? l->loss_rows : l->dec_outputs; }

// What is carved next begins where the last such piece began; *end: the end of the longest.
static void share(Arena *arena, size_t begin, size_t *end) {
    if (arena->used > *end) *end = arena->used;
    arena->used = begin;
}

// Logits and the buffers of the two backward passes, of which a training step needs one after the other: one place.
static void carve_shared(C3 *m, Arena *arena, const C3Config *c, const C3Limits *l, DType dtype) {
    const size_t begin = arena->used;
    size_t end = begin;
    m->logits = arena_take(arena, (size_t)l->head_rows * (size_t)params_head_rows(c->dec.V) * dtype_size(dtype));
    share(arena, begin, &end);
    if (l->recompute != KEEP_NOTHING) {
        qwen2_carve_backward(&m->dec_acts, arena, &c->dec, dtype);
        share(arena, begin, &end);
        qwen2_carve_backward(&m->enc_acts, arena, &c->enc, dtype);
        share(arena, begin, &end);
    }
    arena->used = end;
}

static void carve(C3 *m, Arena *arena, const C3Config *c, const C3Limits *l, DType dtype) {
    size_t e = dtype_size(dtype), slots = (size_t)c3_slots(c, l), outputs = (size_t)l->dec_outputs;
    size_t losses = (size_t)loss_rows(l);
    qwen2_carve(&m->enc_acts, arena, &c->enc, dtype, l->enc_rows, (int)slots, l->recompute);
    qwen2_carve(&m->dec_acts, arena, &c->dec, dtype, l->dec_rows, l->dec_outputs, l->recompute);
    carve_shared(m, arena, c, l, dtype);
    m->projected = arena_take(arena, slots * c->dec.D * e);
    m->losses = arena_take(arena, losses * sizeof(float));
    m->correct = arena_take(arena, losses * sizeof(int));
    m->sums = arena_take(arena, 2 * sizeof(double));
    if (l->recompute == KEEP_NOTHING) return;
    m->dhidden = arena_take(arena, outputs * c->dec.D * e);
    m->dslots = arena_take(arena, slots * c->dec.D * sizeof(float));
    m->dprojected = arena_take(arena, slots * c->dec.D * e);
    m->dlatents = arena_take(arena, slots * c->enc.D * e);
}

int c3_slots(const C3Config *c, const C3Limits *l) {
    return l->slots ? l->slots : (l->windows ? l->windows : l->pages) * c->latents;
}

static int larger(int a, int b) { return a > b ? a : b; }

// The arguments of Backend.reserve.
static void scratch_shape(const C3Config *c, const C3Limits *l, int *rows, int *heads, int *width) {
    const Qwen2Config *e = &c->enc, *d = &c->dec;
    *rows = larger(l->enc_rows, l->dec_rows);
    *heads = larger(e->NH, d->NH);
    *width = larger(larger((e->NH + 2 * e->KV) * e->HS, (d->NH + 2 * d->KV) * d->HS), larger(e->D, d->D));
}

C3Memory c3_memory(const C3Config *config, const C3Params *params, const C3Limits *limits, DType dtype, int is_gpu) {
    C3 counted = {0};
    Arena arena = {0};
    C3Limits l = *limits;
    int rows, heads, width;
    l.head_rows = c3_head_rows(config, limits, is_gpu);
    carve(&counted, &arena, config, &l, dtype);
    qwen2_release(&counted.enc_acts);
    qwen2_release(&counted.dec_acts);
    scratch_shape(config, &l, &rows, &heads, &width);
    return (C3Memory){
        .parameters = params->table.total * dtype_size(dtype),
        .gradients = l.recompute == KEEP_NOTHING ? 0 : gradients_elements(params, l.zero) * sizeof(float),
        .activations = arena.used,
        .inputs = batch_capacity(c3_batch_rows(&l)),
        .scratch = is_gpu ? backend_scratch_bytes(rows, heads, width) + BACKEND_GEMM_WORKSPACE : 0,
    };
}

static int allocate(C3 *m, Error *err) {
    Backend *b = m->b;
    const C3Limits *l = &m->limits;
    C3Memory memory = c3_memory(&m->config, &m->params, l, b->dtype, b->is_gpu);
    int rows, heads, width;
    scratch_shape(&m->config, l, &rows, &heads, &width);
    TRY(b->reserve(b, rows, heads, width, err));
    TRY(b->alloc(b, &m->weights, memory.parameters, "parameters", err));
    b->zero(b, m->weights, memory.parameters); // the padding of the buckets stays zero
    if (memory.gradients) {
        float *grads;
        TRY(b->alloc(b, (void **)&grads, memory.gradients, "gradients", err));
        b->zero(b, grads, memory.gradients);
        gradients_create(&m->grads, &m->params, l->zero, grads);
    }
    TRY(b->alloc(b, &m->arena, memory.activations, "activations", err));
    TRY(b->alloc(b, &m->batch_device, memory.inputs, "inputs", err));
    Arena arena = {.base = m->arena};
    carve(m, &arena, &m->config, l, b->dtype);
    b->zero(b, m->sums, 2 * sizeof *m->sums);
    m->host_losses = alloc((size_t)loss_rows(l), sizeof *m->host_losses, "losses");
    m->host_correct = alloc((size_t)l->dec_outputs, sizeof *m->host_correct, "losses");
    return 0;
}

int c3_create(C3 *m, const C3Config *config, Backend *b, const C3Limits *limits, Error *err) {
    *m = (C3){.config = *config, .limits = *limits, .b = b};
    m->limits.head_rows = c3_head_rows(config, limits, b->is_gpu);
    m->limits.loss_rows = loss_rows(limits);
    const Gradients *grads = limits->recompute == KEEP_NOTHING ? NULL : &m->grads;
    if (params_build(&m->params, config, b->dist ? b->dist->ranks : 1, err) != 0 || allocate(m, err) != 0 ||
        qwen2_create(&m->enc, &config->enc, &m->params.enc, b, m->weights, grads, limits->enc_rows, err) != 0 ||
        qwen2_create(&m->dec, &config->dec, &m->params.dec, b, m->weights, grads, limits->dec_rows, err) != 0) {
        c3_free(m);
        return -1;
    }
    return 0;
}

void c3_free(C3 *m) {
    Backend *b = m->b;
    qwen2_free(&m->enc);
    qwen2_free(&m->dec);
    qwen2_release(&m->enc_acts);
    qwen2_release(&m->dec_acts);
    void *device[] = {m->weights, m->grads.arena, m->arena, m->batch_device};
    for (size_t i = 0; i < sizeof device / sizeof *device; i++) {
        if (device[i]) b->release(b, device[i]);
    }
    free(m->host_losses);
    free(m->host_correct);
    gradients_free(&m->grads);
    params_free(&m->params);
    *m = (C3){0};
}

// ---- initial values ------------------------------------------------------------------------------------------------

void c3_initial_values(float *out, const Param *p, uint64_t stream, size_t from, size_t n, int threads) {
    enum { BLOCK = 1 << 12 }; // even, as normal numbers come in pairs; a tenth of a millisecond
    const size_t blocks = (n + BLOCK - 1) / BLOCK;
    (void)threads; // of a build without OpenMP
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (blocks > 1 && threads > 1)
    for (size_t i = 0; i < blocks; i++) {
        const size_t at = i * BLOCK, count = n - at < BLOCK ? n - at : BLOCK;
        if (p->init == INIT_NORMAL) random_normal(out + at, stream, from + at, count, 0.02f);
        else
            for (size_t k = at; k < at + count; k++) out[k] = p->init == INIT_ONE ? 1.0f : 0.0f;
    }
}

int c3_init_weights(C3 *m, uint64_t seed, int only_cascade, Error *err) {
    enum { PIECE = 1 << 20 };
    Backend *b = m->b;
    float *device;
    TRY(b->alloc(b, (void **)&device, PIECE * sizeof *device, "initial weights", err));
    float *host = alloc(PIECE, sizeof *host, "initial weights");
    for (int i = 0; i < m->params.table.n; i++) {
        const Param *p = &m->params.table.params[i];
        if (only_cascade && p->group != GROUP_LATENT) continue;
        uint64_t stream = random_stream(seed, (uint64_t)i);
        for (size_t at = 0; at < p->count; at += PIECE) {
            size_t n = p->count - at < PIECE ? p->count - at : PIECE;
            c3_initial_values(host, p, stream, at, n, b->threads);
            b->upload(b, device, host, n * sizeof *host);
            b->cast_from_f32(b, elem_at(b, m->weights, p->offset + at), device, n);
        }
    }
    b->synchronize(b);
    b->release(b, device);
    free(host);
    return 0;
}

// ---- forward and backward ------------------------------------------------------------------------------------------

static elem_t *weight(const C3 *m, size_t offset) { return elem_at(m->b, m->weights, offset); }

static void project(C3 *m, const elem_t *latents, int rows) {
    if (rows == 0) return; // a batch without latents: the decoder alone
    m->b->matmul_forward(m->b, m->projected, latents, weight(m, m->params.projector),
                         weight(m, m->params.projector_bias), rows, m->config.enc.D, m->config.dec.D);
}

void c3_encode(C3 *m, const StackBatch *d) {
    m->b->range_push(m->b, "encoder forward", -1);
    m->b->wait_for(m->b, params_gather_tag(m->params.enc.final_bucket)); // Q and projector
    qwen2_forward(&m->enc, &m->enc_acts, d, weight(m, m->params.Q), NULL);
    project(m, m->enc_acts.out, d->outputs);
    m->b->range_pop(m->b);
}

static void decode(C3 *m, const StackBatch *d) {
    m->b->range_push(m->b, "decoder forward", -1);
    qwen2_forward(&m->dec, &m->dec_acts, d, m->projected, NULL);
    m->b->range_pop(m->b);
}

// The gradient of the tensor at this offset of the parameter arena.
static float *gradient(const C3 *m, int bucket, size_t offset) {
    return m->grads.at[bucket] + (offset - m->params.table.buckets[bucket].offset);
}

// Logits, loss and (train) their gradients on the supervised rows, a chunk of rows at a time, so that no (rows,V) array
// exists. Rows of logits are padded to whole tiles; weights and gradients of the padding are zero.
static void head(C3 *m, const MicroBatch *d, int train, int accumulate) {
    Backend *b = m->b;
    const C3Params *p = &m->params;
    int K = d->dec.outputs, D = m->config.dec.D, V = m->config.dec.V, chunk = m->limits.head_rows;
    int padded = params_head_rows(V);
    elem_t *w = weight(m, p->dec.head);
    float *dw = train && m->dec.train
                    ? gradient(m, m->config.dec.tied ? p->dec.embed_bucket : p->dec.final_bucket, p->dec.head)
                    : NULL;
    size_t row = (size_t)d->loss_row;
    b->range_push(b, "head and loss", -1);
    for (int at = 0; at < K; at += chunk) {
        int R = K - at < chunk ? K - at : chunk;
        const elem_t *hidden = elem_at(b, m->dec_acts.out, (size_t)at * D);
        b->matmul_forward(b, m->logits, hidden, w, NULL, R, D, padded);
        b->cross_entropy(b, m->losses + row + at, m->correct + row + at, m->logits, d->labels + at,
                         train ? d->weights + at : NULL, R, V, padded);
        if (!train) continue;
        b->matmul_backward_input(b, elem_at(b, m->dhidden, (size_t)at * D), m->logits, w, R, D, padded, 0);
        if (dw) b->matmul_backward_weight(b, dw, NULL, m->logits, hidden, R, D, padded, accumulate || at > 0);
    }
    b->range_pop(b);
}

static MicroBatch upload(C3 *m, const MicroBatch *host) {
    m->b->upload_async(m->b, m->batch_device, host->block, host->bytes);
    return batch_view(host, m->batch_device);
}

void c3_forward(C3 *m, const MicroBatch *host) {
    MicroBatch d = upload(m, host);
    c3_encode(m, &d.enc);
    decode(m, &d.dec);
    head(m, &d, 0, 0);
}

void c3_forward_latents(C3 *m, const MicroBatch *host, const elem_t *latents) {
    MicroBatch d = upload(m, host);
    m->b->wait_for(m->b, params_gather_tag(m->params.enc.final_bucket));
    project(m, latents, d.enc.outputs);
    decode(m, &d.dec);
    head(m, &d, 0, 0);
}

// Buckets written before the backward pass of their layers: their previous contents must have been reduced (ZeRO 2).
static void wait_for_whole_buckets(C3 *m) {
    const C3Params *p = &m->params;
    int buckets[] = {p->dec.embed_bucket, p->dec.final_bucket, p->enc.embed_bucket, p->enc.final_bucket};
    for (int i = 0; i < 4; i++) {
        if (m->grads.previous[buckets[i]] >= 0) m->b->wait_for(m->b, params_reduce_tag(m->grads.previous[buckets[i]]));
    }
}

// The embeddings' gradients are sums over scattered rows: with accumulate = 0 they start from zero. A tied decoder's
// embedding has already been written by the head.
static void clear_scattered(C3 *m, int accumulate) {
    Backend *b = m->b;
    const C3Config *c = &m->config;
    const C3Params *p = &m->params;
    if (accumulate) return;
    b->zero(b, gradient(m, p->enc.final_bucket, p->Q), (size_t)c->latents * c->enc.D * sizeof(float));
    if (m->enc.train)
        b->zero(b, gradient(m, p->enc.embed_bucket, p->enc.embed), (size_t)c->enc.V * c->enc.D * sizeof(float));
    if (m->dec.train && !c->dec.tied)
        b->zero(b, gradient(m, p->dec.embed_bucket, p->dec.embed), (size_t)c->dec.V * c->dec.D * sizeof(float));
}

// Gradients of the encoder's latents and of the projector, from that of the projected latents (m->dslots).
static void projector_backward(C3 *m, int slots, int accumulate) {
    Backend *b = m->b;
    const C3Config *c = &m->config;
    const C3Params *p = &m->params;
    int last = p->enc.final_bucket;
    b->cast_from_f32(b, m->dprojected, m->dslots, (size_t)slots * c->dec.D);
    b->matmul_backward_input(b, m->dlatents, m->dprojected, weight(m, p->projector), slots, c->enc.D, c->dec.D, 0);
    b->matmul_backward_weight(b, gradient(m, last, p->projector), gradient(m, last, p->projector_bias), m->dprojected,
                              m->enc_acts.out, slots, c->enc.D, c->dec.D, accumulate);
}

void c3_forward_backward(C3 *m, const MicroBatch *host, int accumulate, void (*ready)(void *, int), void *arg) {
    Backend *b = m->b;
    const C3Params *p = &m->params;
    MicroBatch d = upload(m, host);
    int slots = d.enc.outputs;                 // pages * N, in the order of the decoder's slots
    int add = accumulate && m->grads.zero < 2; // ZeRO 2 adds in the shards
    c3_encode(m, &d.enc);
    decode(m, &d.dec);
    wait_for_whole_buckets(m);
    clear_scattered(m, add);
    head(m, &d, 1, add);
    b->weighted_sum(b, m->sums, m->losses + d.loss_row, d.weights, d.dec.outputs, accumulate);

    b->range_push(b, "decoder backward", -1);
    b->zero(b, m->dslots, (size_t)slots * m->config.dec.D * sizeof(float));
    qwen2_backward(&m->dec, &m->dec_acts, &d.dec, m->dhidden, m->dslots, add, ready, arg);
    if (ready) ready(arg, p->dec.final_bucket);
    if (ready) ready(arg, p->dec.embed_bucket);
    b->range_pop(b);

    b->range_push(b, "encoder backward", -1);
    projector_backward(m, slots, add);
    qwen2_backward(&m->enc, &m->enc_acts, &d.enc, m->dlatents, gradient(m, p->enc.final_bucket, p->Q), add, ready, arg);
    if (ready) ready(arg, p->enc.final_bucket); // holds Q, which is complete only now
    if (ready) ready(arg, p->enc.embed_bucket);
    b->range_pop(b);
}

static void ready_without(C3 *m, int bucket, void (*ready)(void *, int), void *arg) {
    if (m->grads.previous[bucket] >= 0) m->b->wait_for(m->b, params_reduce_tag(m->grads.previous[bucket]));
    m->b->zero(m->b, m->grads.at[bucket], m->params.table.buckets[bucket].count * sizeof(float));
    ready(arg, bucket);
}

void c3_no_gradients(C3 *m, void (*ready)(void *, int), void *arg) {
    const StackParams *stacks[] = {&m->params.dec, &m->params.enc};
    for (int i = 0; i < 2; i++) {
        const StackParams *s = stacks[i];
        for (int k = s->final_bucket - 1; k >= s->layer_bucket; k--) ready_without(m, k, ready, arg);
        ready_without(m, s->final_bucket, ready, arg);
        ready_without(m, s->embed_bucket, ready, arg);
    }
}

C3Loss c3_read_loss(C3 *m, const MicroBatch *host) {
    size_t row = (size_t)host->loss_row;
    int n = host->dec.outputs;
    m->b->download(m->b, m->host_losses, m->losses + row, (size_t)n * sizeof(float));
    m->b->download(m->b, m->host_correct, m->correct + row, (size_t)n * sizeof(int));
    C3Loss loss = {.rows = n};
    for (int i = 0; i < n; i++) {
        loss.sum += m->host_losses[i];
        loss.weighted += (double)host->weights[i] * m->host_losses[i];
        loss.correct += m->host_correct[i];
    }
    return loss;
}

void c3_read_step(C3 *m, double *loss, double *grad_norm) {
    double sums[2];
    m->b->download(m->b, sums, m->sums, sizeof sums);
    *loss = sums[0];
    *grad_norm = sums[1];
}

// ---- FLOPs ---------------------------------------------------------------------------------------------------------

// One stack, forward, for `rows` rows of which `outputs` go through the last layer's queries, output projection and
// MLP; pairs, output_pairs: query-key pairs of a whole layer, and of the last.
static double stack_flops(const Qwen2Config *c, double rows, double outputs, double pairs, double output_pairs) {
    double D = c->D, F = c->F, heads = (double)c->NH * c->HS, kv = 2.0 * c->KV * c->HS, L = c->L;
    double q_and_rest = D * heads + heads * D + 3 * D * F, keys = D * kv;
    return 2 * ((L - 1) * rows * (q_and_rest + keys) + outputs * q_and_rest + rows * keys) +
           4 * heads * ((L - 1) * pairs + output_pairs);
}

// One window of e rows, the last n of them latents.
static double window_flops(const C3Config *c, double e, double n) {
    return stack_flops(&c->enc, e, n, causal_pairs(e, e), causal_pairs(e, n)) + 2 * n * c->enc.D * (double)c->dec.D;
}

// Adds one page's decoder: d rows, the last k of them supervised.
static void add_written(C3Flops *sum, const C3Config *c, double d, double k, double scale) {
    sum->decoder += scale * stack_flops(&c->dec, d, k, causal_pairs(d, d), causal_pairs(d, k));
    sum->head += scale * 2 * k * c->dec.D * (double)c->dec.V;
}

C3Flops c3_page_flops(const C3Config *c, int tokens, int words, int backward) {
    double N = c->latents, scale = backward ? 3 : 1, windows = config_windows(c, tokens);
    C3Flops sum = {.encoder = scale * windows * window_flops(c, tokens / windows + 1 + N, N)};
    add_written(&sum, c, words + windows * N + tokens, tokens + 1, scale);
    return sum;
}

C3Flops c3_flops(const C3Config *c, const MicroBatch *host, int backward) {
    const StackBatch *e = &host->enc, *d = &host->dec;
    double scale = backward ? 3 : 1;
    C3Flops sum = {0};
    for (int w = 0; w < e->pages; w++)
        sum.encoder += scale * window_flops(c, e->cu[w + 1] - e->cu[w], e->output_cu[w + 1] - e->output_cu[w]);
    for (int p = 0; p < d->pages; p++)
        add_written(&sum, c, d->cu[p + 1] - d->cu[p], d->output_cu[p + 1] - d->output_cu[p], scale);
    return sum;
}
