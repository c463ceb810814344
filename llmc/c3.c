// c3.c: the cascade, see c3.h. The only file that knows which stack is the encoder and which the decoder.
//
// One id convention joins the two: the encoder's slots are Q, shared by all pages; the decoder's slots are the
// projected latents of this batch. The gradient of the decoder's slots is what flows back through projector and
// encoder.
#include "c3.h"

#include <stdlib.h>
#include <string.h>

#include "random.h"

// ---- memory --------------------------------------------------------------------------------------------------------

// Rows of logits at a time: a few megabytes, so that a chunk stays in a cache, but enough rows for an efficient
// product.
static int head_rows_for(const C3Config *c, const C3Limits *l) {
    if (l->head_rows > 0) return l->head_rows < l->dec_kept ? l->head_rows : l->dec_kept;
    int rows = (int)((2 << 20) / (size_t)c->dec.V);
    rows = rows < 256 ? 256 : rows > 1024 ? 1024 : rows / 64 * 64;
    return rows < l->dec_kept ? rows : l->dec_kept;
}

static int carve(C3 *m, Arena *arena, const C3Config *c, const C3Limits *l, DType dtype) {
    size_t e = dtype_size(dtype), slots = (size_t)l->pages * c->latents, kept = (size_t)l->dec_kept;
    size_t head = (size_t)head_rows_for(c, l);
    int train = l->recompute != KEEP_NOTHING;
    if (qwen2_carve(&m->enc_acts, arena, &c->enc, dtype, l->enc_rows, (int)slots, l->recompute) != 0) return -1;
    if (qwen2_carve(&m->dec_acts, arena, &c->dec, dtype, l->dec_rows, l->dec_kept, l->recompute) != 0) return -1;
    m->projected = arena_take(arena, slots * c->dec.D * e);
    m->logits = arena_take(arena, head * c->dec.V * e);
    m->losses = arena_take(arena, (size_t)l->micro_batches * kept * sizeof(float));
    m->correct = arena_take(arena, (size_t)l->micro_batches * kept * sizeof(int));
    if (!train) return 0;
    m->dhidden = arena_take(arena, kept * c->dec.D * e);
    m->dslots = arena_take(arena, slots * c->dec.D * sizeof(float));
    m->dprojected = arena_take(arena, slots * c->dec.D * e);
    m->dlatents = arena_take(arena, slots * c->enc.D * e);
    return 0;
}

int c3_memory(C3Memory *memory, const C3Config *config, const C3Params *params, const C3Limits *limits, DType dtype) {
    C3 counted = {0};
    Arena arena = {0};
    int bad = carve(&counted, &arena, config, limits, dtype);
    qwen2_release(&counted.enc_acts);
    qwen2_release(&counted.dec_acts);
    memory->parameters = params->table.total * dtype_size(dtype);
    memory->gradients = limits->recompute == KEEP_NOTHING ? 0 : params->table.total * sizeof(float);
    memory->activations = arena.used;
    memory->inputs = batch_capacity(limits->pages, limits->enc_rows, limits->dec_rows, limits->dec_kept);
    return bad;
}

static int allocate(C3 *m, Error *err) {
    Backend *b = m->b;
    const C3Limits *l = &m->limits;
    C3Memory memory;
    if (c3_memory(&memory, &m->config, &m->params, l, b->dtype) != 0)
        return error_set(err, "activations: out of memory");
    TRY(b->alloc(b, &m->weights, memory.parameters, "parameters", err));
    b->zero(b, m->weights, memory.parameters); // the padding of the buckets stays zero for ever
    if (memory.gradients) {
        TRY(b->alloc(b, (void **)&m->grads, memory.gradients, "gradients", err));
        b->zero(b, m->grads, memory.gradients);
    }
    TRY(b->alloc(b, &m->arena, memory.activations, "activations", err));
    TRY(b->alloc(b, &m->batch_device, memory.inputs, "inputs", err));
    Arena arena = {.base = m->arena};
    if (carve(m, &arena, &m->config, l, b->dtype) != 0) return error_set(err, "activations: out of memory");
    size_t losses = (size_t)l->micro_batches * l->dec_kept;
    m->host_losses = malloc(losses * sizeof(float));
    m->host_correct = malloc(losses * sizeof(int));
    if (!m->host_losses || !m->host_correct) return error_set(err, "losses: out of memory (%zu rows)", losses);
    return 0;
}

int c3_create(C3 *m, const C3Config *config, Backend *b, const C3Limits *limits, Error *err) {
    *m = (C3){.config = *config, .limits = *limits, .b = b};
    m->limits.head_rows = head_rows_for(config, limits);
    if (params_build(&m->params, config, b->dist ? b->dist->ranks : 1, err) != 0 || allocate(m, err) != 0 ||
        qwen2_create(&m->enc, &config->enc, &m->params.enc, b, m->weights, m->grads, limits->enc_rows, err) != 0 ||
        qwen2_create(&m->dec, &config->dec, &m->params.dec, b, m->weights, m->grads, limits->dec_rows, err) != 0) {
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
    void *device[] = {m->weights, m->grads, m->arena, m->batch_device};
    for (size_t i = 0; i < sizeof device / sizeof *device; i++) {
        if (device[i]) b->release(b, device[i]);
    }
    free(m->host_losses);
    free(m->host_correct);
    params_free(&m->params);
    *m = (C3){0};
}

// ---- initial values ------------------------------------------------------------------------------------------------

void c3_initial_values(float *out, const Param *p, uint64_t stream, size_t from, size_t n) {
    if (p->init == INIT_NORMAL) random_normal(out, stream, from, n, 0.02f);
    else
        for (size_t k = 0; k < n; k++) out[k] = p->init == INIT_ONE ? 1.0f : 0.0f;
}

int c3_init_weights(C3 *m, uint64_t seed, int only_cascade, Error *err) {
    enum { PIECE = 1 << 16 };
    Backend *b = m->b;
    float *host = malloc(PIECE * sizeof *host);
    float *device = NULL;
    if (!host) return error_set(err, "initial weights: out of memory");
    if (b->alloc(b, (void **)&device, PIECE * sizeof *device, "initial weights", err) != 0) {
        free(host);
        return -1;
    }
    for (int i = 0; i < m->params.table.n; i++) {
        const Param *p = &m->params.table.params[i];
        if (only_cascade && p->group != GROUP_LATENT) continue;
        uint64_t stream = random_stream(seed, (uint64_t)i);
        for (size_t at = 0; at < p->count; at += PIECE) {
            size_t n = p->count - at < PIECE ? p->count - at : PIECE;
            c3_initial_values(host, p, stream, at, n);
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
    m->b->matmul_forward(m->b, m->projected, latents, weight(m, m->params.projector),
                         weight(m, m->params.projector_bias), rows, m->config.enc.D, m->config.dec.D);
}

void c3_encode(C3 *m, const StackBatch *d) {
    qwen2_forward(&m->enc, &m->enc_acts, d, weight(m, m->params.Q), NULL);
    project(m, m->enc_acts.out, d->kept);
}

// Logits, loss and (train) their gradients on the supervised rows, a chunk of rows at a time: no (rows,V) array exists.
static void head(C3 *m, const MicroBatch *d, int micro, int train, int accumulate) {
    Backend *b = m->b;
    int K = d->dec.kept, D = m->config.dec.D, V = m->config.dec.V, chunk = m->limits.head_rows;
    elem_t *w = weight(m, m->params.dec.head);
    float *dw = m->dec.train ? m->grads + m->params.dec.head : NULL;
    size_t slot = (size_t)micro * m->limits.dec_kept;
    for (int at = 0; at < K; at += chunk) {
        int R = K - at < chunk ? K - at : chunk;
        const elem_t *hidden = elem_at(b, m->dec_acts.out, (size_t)at * D);
        b->matmul_forward(b, m->logits, hidden, w, NULL, R, D, V);
        b->cross_entropy(b, m->losses + slot + at, m->correct + slot + at, m->logits, d->labels + at,
                         train ? d->weights + at : NULL, R, V);
        if (!train) continue;
        b->matmul_backward_input(b, elem_at(b, m->dhidden, (size_t)at * D), m->logits, w, R, D, V, 0);
        if (dw) b->matmul_backward_weight(b, dw, NULL, m->logits, hidden, R, D, V, accumulate || at > 0);
    }
}

static MicroBatch upload(C3 *m, const MicroBatch *host) {
    m->b->upload(m->b, m->batch_device, host->block, host->bytes);
    return batch_view(host, m->batch_device);
}

void c3_forward(C3 *m, const MicroBatch *host, int micro) {
    MicroBatch d = upload(m, host);
    c3_encode(m, &d.enc);
    qwen2_forward(&m->dec, &m->dec_acts, &d.dec, m->projected, NULL);
    head(m, &d, micro, 0, 0);
}

void c3_forward_latents(C3 *m, const MicroBatch *host, int micro, const elem_t *latents) {
    MicroBatch d = upload(m, host);
    project(m, latents, d.enc.kept);
    qwen2_forward(&m->dec, &m->dec_acts, &d.dec, m->projected, NULL);
    head(m, &d, micro, 0, 0);
}

// The embeddings' gradients are sums over scattered rows: with accumulate = 0 they start from zero. A tied decoder's
// embedding has already been written by the head.
static void clear_scattered(C3 *m, int accumulate) {
    Backend *b = m->b;
    const C3Config *c = &m->config;
    if (accumulate) return;
    b->zero(b, m->grads + m->params.Q, (size_t)c->latents * c->enc.D * sizeof(float));
    if (m->enc.train) b->zero(b, m->grads + m->params.enc.embed, (size_t)c->enc.V * c->enc.D * sizeof(float));
    if (m->dec.train && !c->dec.tied)
        b->zero(b, m->grads + m->params.dec.embed, (size_t)c->dec.V * c->dec.D * sizeof(float));
}

void c3_forward_backward(C3 *m, const MicroBatch *host, int micro, int accumulate, void (*ready)(void *, int),
                         void *arg) {
    Backend *b = m->b;
    const C3Config *c = &m->config;
    const C3Params *p = &m->params;
    MicroBatch d = upload(m, host);
    int slots = d.enc.kept; // pages * N, in the order of the decoder's slots
    c3_encode(m, &d.enc);
    qwen2_forward(&m->dec, &m->dec_acts, &d.dec, m->projected, NULL);
    clear_scattered(m, accumulate);
    head(m, &d, micro, 1, accumulate);

    b->zero(b, m->dslots, (size_t)slots * c->dec.D * sizeof(float));
    qwen2_backward(&m->dec, &m->dec_acts, &d.dec, m->dhidden, m->dslots, accumulate, ready, arg);
    if (ready) ready(arg, p->dec.tail_bucket);
    if (ready) ready(arg, p->dec.embed_bucket);

    b->cast_from_f32(b, m->dprojected, m->dslots, (size_t)slots * c->dec.D);
    b->matmul_backward_input(b, m->dlatents, m->dprojected, weight(m, p->projector), slots, c->enc.D, c->dec.D, 0);
    b->matmul_backward_weight(b, m->grads + p->projector, m->grads + p->projector_bias, m->dprojected,
                              m->enc_acts.out, slots, c->enc.D, c->dec.D, accumulate);
    qwen2_backward(&m->enc, &m->enc_acts, &d.enc, m->dlatents, m->grads + p->Q, accumulate, ready, arg);
    if (ready) ready(arg, p->enc.tail_bucket); // holds Q, which is complete only now
    if (ready) ready(arg, p->enc.embed_bucket);
}

C3Loss c3_read_loss(C3 *m, const MicroBatch *host, int micro) {
    size_t slot = (size_t)micro * m->limits.dec_kept;
    int n = host->dec.kept;
    m->b->download(m->b, m->host_losses, m->losses + slot, (size_t)n * sizeof(float));
    m->b->download(m->b, m->host_correct, m->correct + slot, (size_t)n * sizeof(int));
    C3Loss loss = {.rows = n};
    for (int i = 0; i < n; i++) {
        loss.sum += m->host_losses[i];
        loss.weighted += (double)host->weights[i] * m->host_losses[i];
        loss.correct += m->host_correct[i];
    }
    return loss;
}

// ---- work ----------------------------------------------------------------------------------------------------------

// Products of one stack for `rows` rows of which `kept` go through the last layer's queries, output and MLP;
// `pairs` (`kept_pairs`): query-key pairs the causal attention looks at.
static double stack_flops(const Qwen2Config *c, double rows, double kept, double pairs, double kept_pairs) {
    double D = c->D, F = c->F, heads = (double)c->NH * c->HS, kv = 2.0 * c->KV * c->HS, L = c->L;
    double q_and_rest = D * heads + heads * D + 3 * D * F, keys = D * kv;
    return 2 * ((L - 1) * rows * (q_and_rest + keys) + kept * q_and_rest + rows * keys) +
           4 * heads * ((L - 1) * pairs + kept_pairs);
}

// Pairs seen by the last k of n rows.
static double causal_pairs(double n, double k) { return k * (n - k) + k * (k + 1) / 2; }

C3Flops c3_page_flops(const C3Config *c, int tokens, int before_text, int backward) {
    double N = c->latents, e = tokens + 1 + N, d = before_text + tokens, k = tokens + 1, scale = backward ? 3 : 1;
    return (C3Flops){
        .encoder = scale * (stack_flops(&c->enc, e, N, causal_pairs(e, e), causal_pairs(e, N)) +
                            2 * N * c->enc.D * (double)c->dec.D),
        .decoder = scale * stack_flops(&c->dec, d, k, causal_pairs(d, d), causal_pairs(d, k)),
        .head = scale * 2 * k * c->dec.D * (double)c->dec.V,
    };
}

C3Flops c3_flops(const C3Config *c, const MicroBatch *host, int backward) {
    C3Flops sum = {0};
    for (int p = 0; p < host->dec.pages; p++) {
        int rows = host->dec.cu[p + 1] - host->dec.cu[p], kept = host->dec.kept_cu[p + 1] - host->dec.kept_cu[p];
        C3Flops f = c3_page_flops(c, kept - 1, rows - (kept - 1), backward);
        sum.encoder += f.encoder;
        sum.decoder += f.decoder;
        sum.head += f.head;
    }
    return sum;
}
