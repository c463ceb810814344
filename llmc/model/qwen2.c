// qwen2.c: the forward and backward pass of a Qwen2 stack. See qwen2.h for sizes and shapes.
//
// One layer:   x_mid  = x     + O(attention(rope(QKV(rmsnorm(x)) + bias)))
//              x_next = x_mid + down(silu(gate(h)) * up(h)),   h = rmsnorm(x_mid)
// Residual adds are fused into the product before them where the backend has matmul_forward_add, else into the norm
// that follows. In the last layer only the output rows need queries, output projection and MLP, while every row still
// gives keys and values ("outputs only").
#include "llmc/model/qwen2.h"

#include <math.h>
#include <stdlib.h>

#include "llmc/base/alloc.h"

static elem_t *weight(const Qwen2 *q, size_t offset) { return elem_at(q->b, q->weights, offset); }
static size_t layer_base(const Qwen2 *q, int l) { return q->p.layer0 + (size_t)l * q->p.layer_stride; }
// Gradient at offset `within` of its bucket; NULL: the stack is frozen.
static float *grad(const Qwen2 *q, int bucket, size_t within) {
    return q->train ? q->grads->at[bucket] + within : NULL;
}
static float *final_grad(const Qwen2 *q, size_t offset) { return grad(q, q->p.final_bucket, offset - q->p.final); }
static float *layer_grad(const Qwen2 *q, int l, size_t within) { return grad(q, q->p.layer_bucket + l, within); }

// ---- creation ------------------------------------------------------------------------------------------------------

int qwen2_create(Qwen2 *q, const Qwen2Config *c, const StackParams *p, Backend *b, elem_t *weights,
                 const Gradients *grads, int positions, Error *err) {
    *q = (Qwen2){.c = *c, .p = *p, .b = b, .weights = weights, .grads = grads, .positions = positions};
    q->train = grads != NULL;
    q->outputs_only = 1;
    int half = c->HS / 2;
    size_t n = (size_t)positions * c->HS;
    TRY(b->alloc(b, (void **)&q->cos_sin, n * sizeof(float), "rotary table", err));
    float *table = alloc(n, sizeof *table, "rotary table");
    for (int t = 0; t < positions; t++) {
        for (int i = 0; i < half; i++) {
            // the inverse frequency is rounded to fp32 before it is multiplied, as in the reference implementation
            float inv_freq = (float)(1.0 / pow(c->rope_theta, 2.0 * i / c->HS));
            float angle = (float)t * inv_freq;
            table[(size_t)t * c->HS + i] = (float)cos((double)angle);
            table[(size_t)t * c->HS + half + i] = (float)sin((double)angle);
        }
    }
    b->upload(b, q->cos_sin, table, n * sizeof *table);
    free(table);
    return 0;
}

void qwen2_free(Qwen2 *q) {
    if (q->b && q->cos_sin) q->b->release(q->b, q->cos_sin);
    q->cos_sin = NULL;
}

// Buffers that a mode does not keep for every layer are carved once, for layer 0, and shared by the others.
void qwen2_carve(StackActs *a, Arena *arena, const Qwen2Config *c, DType dtype, int rows, int outputs, Recompute mode) {
    if (!a->layers) a->layers = alloc_zeroed((size_t)c->L, sizeof *a->layers, "activations");
    size_t e = dtype_size(dtype), T = (size_t)rows, K = (size_t)outputs, D = (size_t)c->D, F = (size_t)c->F;
    size_t heads = (size_t)c->NH * c->HS, qkv = heads + 2 * (size_t)c->KV * c->HS;
    a->mode = mode;
    a->rows = rows;
    a->outputs = outputs;
    for (int l = 0; l < c->L; l++) {
        LayerActs *n = &a->layers[l], *first = &a->layers[0];
        int own_x = l == 0 || mode != KEEP_NOTHING;
        int own_rest = l == 0 || mode == RECOMPUTE_NONE || mode == RECOMPUTE_CHEAP;
        int own_cheap = l == 0 || mode == RECOMPUTE_NONE;
        n->x = own_x ? arena_take(arena, T * D * e) : first->x;
        // inference: the residual stream lives in one buffer that is added to in place
        n->x_mid = mode == KEEP_NOTHING ? first->x : own_rest ? arena_take(arena, T * D * e) : first->x_mid;
        n->rstd1 = own_rest ? arena_take(arena, T * sizeof(float)) : first->rstd1;
        n->rstd2 = own_rest ? arena_take(arena, T * sizeof(float)) : first->rstd2;
        n->qkv = own_rest ? arena_take(arena, T * qkv * e) : first->qkv;
        n->attn = own_rest ? arena_take(arena, T * heads * e) : first->attn;
        n->lse = own_rest ? arena_take(arena, T * (size_t)c->NH * sizeof(float)) : first->lse;
        n->gate_up = own_rest ? arena_take(arena, T * 2 * F * e) : first->gate_up;
        n->ln1 = own_cheap ? arena_take(arena, T * D * e) : first->ln1;
        n->ln2 = own_cheap ? arena_take(arena, T * D * e) : first->ln2;
        n->act = own_cheap ? arena_take(arena, T * F * e) : first->act;
    }
    a->x_final = arena_take(arena, K * D * e);
    a->rstd_final = arena_take(arena, K * sizeof(float));
    a->out = arena_take(arena, K * D * e);
    a->delta = arena_take(arena, T * D * e);
    a->ln1_out = arena_take(arena, K * D * e);
    a->x_out = arena_take(arena, K * D * e);
}

void qwen2_carve_backward(StackActs *a, Arena *arena, const Qwen2Config *c, DType dtype) {
    size_t e = dtype_size(dtype), T = (size_t)a->rows, K = (size_t)a->outputs, D = (size_t)c->D;
    size_t heads = (size_t)c->NH * c->HS, qkv = heads + 2 * (size_t)c->KV * c->HS;
    a->dx = arena_take(arena, T * D * e);
    a->dx_kept = arena_take(arena, K * D * e);
    a->dln = arena_take(arena, T * D * e);
    a->dln_out = arena_take(arena, K * D * e);
    a->dact = arena_take(arena, T * (size_t)c->F * e);
    a->dattn = arena_take(arena, T * heads * e);
    a->dqkv = arena_take(arena, T * qkv * e);
}

void qwen2_release(StackActs *a) {
    free(a->layers);
    *a = (StackActs){0};
}

// ---- layout of queries, keys, values
// ----------------------------------------------------------------------------------------------

// Queries, keys and values of a layer: one (T,QKV) matrix, or, for outputs only, (K,NH*HS) followed by (T,2*KV*HS).
typedef struct QKVView {
    elem_t *q, *k, *v;
    int ldq, ldk;
    AttentionPages pages;
} QKVView;

static int computes_outputs_only(const Qwen2 *q, int l, const StackBatch *d) {
    return q->outputs_only && l == q->c.L - 1 && d->outputs < d->rows;
}

static QKVView qkv_view(const Qwen2 *q, elem_t *base, const StackBatch *d, int outputs_only) {
    int heads = q->c.NH * q->c.HS, kv = q->c.KV * q->c.HS;
    QKVView v = {
        .q = base, .ldq = outputs_only ? heads : heads + 2 * kv, .ldk = outputs_only ? 2 * kv : heads + 2 * kv};
    v.k = elem_at(q->b, base, outputs_only ? (size_t)d->outputs * heads : (size_t)heads);
    v.v = elem_at(q->b, v.k, (size_t)kv);
    v.pages = (AttentionPages){.pages = d->pages,
                               .max_q = outputs_only ? d->longest_output : d->longest,
                               .max_k = d->longest,
                               .cu_q = outputs_only ? d->output_cu : d->cu,
                               .k_begin = d->cu,
                               .k_end = d->cu + 1};
    return v;
}

// ---- forward -------------------------------------------------------------------------------------------------------

// qkv = rope(QKV(ln1) + bias)
static void project_qkv(const Qwen2 *q, StackActs *a, LayerActs *n, int l, const StackBatch *d, int outputs_only) {
    Backend *b = q->b;
    const Qwen2Config *c = &q->c;
    size_t base = layer_base(q, l);
    elem_t *w = weight(q, base + q->p.qkv), *bias = weight(q, base + q->p.qkv_bias);
    int T = d->rows, D = c->D, heads = c->NH * c->HS, kv = c->KV * c->HS;
    QKVView v = qkv_view(q, n->qkv, d, outputs_only);
    if (!outputs_only) {
        b->matmul_forward(b, n->qkv, n->ln1, w, bias, T, D, heads + 2 * kv);
        b->rope(b, n->qkv, v.ldq, q->cos_sin, d->positions, T, c->NH + c->KV, c->HS);
        return;
    }
    b->gather_rows(b, a->ln1_out, n->ln1, d->output_rows, d->outputs, D);
    b->matmul_forward(b, v.q, a->ln1_out, w, bias, d->outputs, D, heads);
    b->matmul_forward(b, v.k, n->ln1, elem_at(b, w, (size_t)heads * D), elem_at(b, bias, (size_t)heads), T, D, 2 * kv);
    b->rope(b, v.q, v.ldq, q->cos_sin, d->output_positions, d->outputs, c->NH, c->HS);
    b->rope(b, v.k, v.ldk, q->cos_sin, d->positions, T, c->KV, c->HS);
}

static void attend(const Qwen2 *q, LayerActs *n, int l, const StackBatch *d, int outputs_only, const KVCache *cache) {
    Backend *b = q->b;
    const Qwen2Config *c = &q->c;
    QKVView v = qkv_view(q, n->qkv, d, outputs_only);
    if (!cache) {
        b->attention_forward(b, n->attn, n->lse, v.q, v.ldq, v.k, v.v, v.ldk, &v.pages, c->NH, c->KV, c->HS);
        return;
    }
    int width = 2 * c->KV * c->HS;
    elem_t *kv = elem_at(b, cache->kv, (size_t)l * cache->rows * width);
    b->scatter_rows(b, kv, width, v.k, v.ldk, cache->write_rows, d->rows, width);
    b->attention_forward(b, n->attn, NULL, v.q, v.ldq, kv, elem_at(b, kv, (size_t)(width / 2)), width,
                         outputs_only ? &cache->outputs : &cache->pages, c->NH, c->KV, c->HS);
}

// sum = x + in w^T for the weight at offset `w`: now, or, where the backend adds in the norm that follows, a->delta
// gets the product and the norm x. Returns what the norm adds; NULL: nothing.
static const elem_t *add_product(const Qwen2 *q, StackActs *a, elem_t *sum, const elem_t *x, const elem_t *in, size_t w,
                                 int R, int K) {
    Backend *b = q->b;
    if (b->matmul_forward_add) {
        b->matmul_forward_add(b, sum, x, in, weight(q, w), R, K, q->c.D);
        return NULL;
    }
    b->matmul_forward(b, a->delta, in, weight(q, w), NULL, R, K, q->c.D);
    return a->delta;
}

// From a layer's input x and ln1 up to `act`, the input of its last matrix product; R rows from the attention on.
static void layer_forward(const Qwen2 *q, StackActs *a, int l, const StackBatch *d, const KVCache *cache) {
    Backend *b = q->b;
    const Qwen2Config *c = &q->c;
    LayerActs *n = &a->layers[l];
    size_t base = layer_base(q, l);
    int outputs_only = computes_outputs_only(q, l, d), R = outputs_only ? d->outputs : d->rows, D = c->D;
    project_qkv(q, a, n, l, d, outputs_only);
    attend(q, n, l, d, outputs_only, cache);
    elem_t *x = n->x;
    if (outputs_only) b->gather_rows(b, x = a->x_out, n->x, d->output_rows, d->outputs, D);
    const elem_t *delta = add_product(q, a, n->x_mid, x, n->attn, base + q->p.o, R, c->NH * c->HS);
    b->rmsnorm_forward(b, n->ln2, n->x_mid, n->rstd2, delta ? x : n->x_mid, delta, weight(q, base + q->p.ln2), R, D,
                       c->rms_eps);
    b->matmul_forward(b, n->gate_up, n->ln2, weight(q, base + q->p.gate_up), NULL, R, D, 2 * c->F);
    b->swiglu_forward(b, n->act, n->gate_up, R, c->F);
}

void qwen2_forward(const Qwen2 *q, StackActs *a, const StackBatch *d, const elem_t *slots, const KVCache *cache) {
    Backend *b = q->b;
    const Qwen2Config *c = &q->c;
    int T = d->rows, K = d->outputs, D = c->D, L = c->L;
    b->wait_for(b, params_gather_tag(q->p.embed_bucket)); // the all-gather of parameters may still be running
    b->embedding_forward(b, a->layers[0].x, weight(q, q->p.embed), slots, d->ids, T, D);
    const elem_t *x = a->layers[0].x, *delta = NULL;         // of the norm: it adds them where there is a delta
    int late = !computes_outputs_only(q, L - 1, d) && K < T; // output rows are picked behind the last layer only
    for (int l = 0; l < L; l++) {
        b->range_push(b, "layer", l);
        b->wait_for(b, params_gather_tag(q->p.layer_bucket + l));
        LayerActs *n = &a->layers[l];
        b->rmsnorm_forward(b, n->ln1, n->x, n->rstd1, x, delta, weight(q, layer_base(q, l) + q->p.ln1), T, D,
                           c->rms_eps);
        layer_forward(q, a, l, d, cache);
        elem_t *sum = l + 1 < L ? n[1].x : late ? a->delta : a->x_final;
        delta = add_product(q, a, sum, n->x_mid, n->act, layer_base(q, l) + q->p.down,
                            computes_outputs_only(q, l, d) ? K : T, c->F);
        x = delta ? n->x_mid : sum;
        b->range_pop(b);
    }
    b->wait_for(b, params_gather_tag(q->p.final_bucket));
    if (late) {
        elem_t *picked = delta ? a->x_out : a->x_final;
        b->gather_rows(b, picked, x, d->output_rows, K, D);
        if (delta) b->gather_rows(b, a->ln1_out, delta, d->output_rows, K, D);
        x = picked;
        delta = delta ? a->ln1_out : NULL;
    }
    b->rmsnorm_forward(b, a->out, a->x_final, a->rstd_final, x, delta, weight(q, q->p.norm), K, D, c->rms_eps);
}

// ---- backward ------------------------------------------------------------------------------------------------------

// Recomputes what the mode did not keep. The operations are deterministic: the same bits.
static void layer_recompute(const Qwen2 *q, StackActs *a, int l, const StackBatch *d) {
    Backend *b = q->b;
    const Qwen2Config *c = &q->c;
    LayerActs *n = &a->layers[l];
    size_t base = layer_base(q, l);
    int outputs_only = computes_outputs_only(q, l, d), R = outputs_only ? d->outputs : d->rows;
    if (a->mode == RECOMPUTE_NONE) {
        if (outputs_only) b->gather_rows(b, a->ln1_out, n->ln1, d->output_rows, d->outputs, c->D);
        return;
    }
    b->range_push(b, "recompute", -1);
    b->rmsnorm_forward(b, n->ln1, NULL, n->rstd1, n->x, NULL, weight(q, base + q->p.ln1), d->rows, c->D, c->rms_eps);
    if (a->mode == RECOMPUTE_LAYER) {
        layer_forward(q, a, l, d, NULL);
    } else {
        if (outputs_only) b->gather_rows(b, a->ln1_out, n->ln1, d->output_rows, d->outputs, c->D);
        b->rmsnorm_forward(b, n->ln2, NULL, n->rstd2, n->x_mid, NULL, weight(q, base + q->p.ln2), R, c->D, c->rms_eps);
        b->swiglu_forward(b, n->act, n->gate_up, R, c->F);
    }
    b->range_pop(b);
}

// din = dout w and, unless the stack is frozen, dw = dout^T in, for the weight at offset `w` of layer l.
static void linear_backward(const Qwen2 *q, elem_t *din, const elem_t *dout, const elem_t *in, int l, size_t w, int T,
                            int K, int N, int accumulate) {
    q->b->matmul_backward_input(q->b, din, dout, weight(q, layer_base(q, l) + w), T, K, N, 0);
    if (q->train) q->b->matmul_backward_weight(q->b, layer_grad(q, l, w), NULL, dout, in, T, K, N, accumulate);
}

// a->dln (T,D) = gradient of ln1, from the gradient of the attention's output.
static void attention_block_backward(const Qwen2 *q, StackActs *a, LayerActs *n, int l, const StackBatch *d,
                                     int outputs_only, int accumulate) {
    Backend *b = q->b;
    const Qwen2Config *c = &q->c;
    size_t w = q->p.qkv;
    float *dbias = layer_grad(q, l, q->p.qkv_bias);
    int T = d->rows, D = c->D, heads = c->NH * c->HS, kv = c->KV * c->HS;
    QKVView v = qkv_view(q, n->qkv, d, outputs_only), g = qkv_view(q, a->dqkv, d, outputs_only);
    b->attention_backward(b, g.q, g.ldq, g.k, g.v, g.ldk, a->dattn, n->attn, n->lse, v.q, v.k, v.v, &v.pages, c->NH,
                          c->KV, c->HS);
    if (!outputs_only) {
        b->rope_backward(b, g.q, dbias, q->cos_sin, d->positions, T, heads + 2 * kv, c->NH + c->KV, c->HS, accumulate);
        linear_backward(q, a->dln, a->dqkv, n->ln1, l, w, T, D, heads + 2 * kv, accumulate);
        return;
    }
    size_t w_kv = w + (size_t)heads * D;
    b->rope_backward(b, g.q, dbias, q->cos_sin, d->output_positions, d->outputs, heads, c->NH, c->HS, accumulate);
    b->rope_backward(b, g.k, dbias ? dbias + heads : NULL, q->cos_sin, d->positions, T, 2 * kv, c->KV, c->HS,
                     accumulate);
    linear_backward(q, a->dln, g.k, n->ln1, l, w_kv, T, D, 2 * kv, accumulate);
    linear_backward(q, a->dln_out, g.q, a->ln1_out, l, w, d->outputs, D, heads, accumulate);
    b->scatter_add_rows(b, a->dln, a->dln_out, d->output_rows, d->outputs, D);
}

// dx (R,D): gradient of the residual stream behind the layer (output rows if outputs_only). Returns the gradient at
// the layer's input (T,D).
static elem_t *layer_backward(const Qwen2 *q, StackActs *a, int l, const StackBatch *d, elem_t *dx, int accumulate) {
    Backend *b = q->b;
    const Qwen2Config *c = &q->c;
    LayerActs *n = &a->layers[l];
    size_t base = layer_base(q, l);
    int outputs_only = computes_outputs_only(q, l, d), T = d->rows, R = outputs_only ? d->outputs : T, D = c->D,
        F = c->F;
    layer_recompute(q, a, l, d);
    int previous = q->grads->previous[q->p.layer_bucket + l];
    if (previous >= 0) b->wait_for(b, params_reduce_tag(previous)); // it used this layer's buffer
    // MLP
    linear_backward(q, a->dact, dx, n->act, l, q->p.down, R, F, D, accumulate);
    b->swiglu_backward(b, n->gate_up, a->dact, n->gate_up, R, F);
    linear_backward(q, a->dln, n->gate_up, n->ln2, l, q->p.gate_up, R, D, 2 * F, accumulate);
    b->rmsnorm_backward(b, dx, layer_grad(q, l, q->p.ln2), a->dln, n->x_mid, weight(q, base + q->p.ln2), n->rstd2, R, D,
                        accumulate);
    // attention
    linear_backward(q, a->dattn, dx, n->attn, l, q->p.o, R, c->NH * c->HS, D, accumulate);
    attention_block_backward(q, a, n, l, d, outputs_only, accumulate);
    if (outputs_only) { // the other rows get gradients only through keys and values
        b->zero(b, a->dx, (size_t)T * D * dtype_size(b->dtype));
        b->scatter_add_rows(b, a->dx, dx, d->output_rows, d->outputs, D);
        dx = a->dx;
    }
    b->rmsnorm_backward(b, dx, layer_grad(q, l, q->p.ln1), a->dln, n->x, weight(q, base + q->p.ln1), n->rstd1, T, D,
                        accumulate);
    return dx;
}

void qwen2_backward(const Qwen2 *q, StackActs *a, const StackBatch *d, const elem_t *dout, float *dslots,
                    int accumulate, void (*ready)(void *arg, int bucket), void *arg) {
    Backend *b = q->b;
    const Qwen2Config *c = &q->c;
    int T = d->rows, K = d->outputs, D = c->D, L = c->L;
    size_t e = dtype_size(b->dtype);
    elem_t *dx = a->dx_kept;
    b->zero(b, dx, (size_t)K * D * e);
    b->rmsnorm_backward(b, dx, final_grad(q, q->p.norm), dout, a->x_final, weight(q, q->p.norm), a->rstd_final, K, D,
                        accumulate);
    if (!computes_outputs_only(q, L - 1, d)) {
        b->zero(b, a->dx, (size_t)T * D * e);
        b->scatter_add_rows(b, a->dx, dx, d->output_rows, K, D);
        dx = a->dx;
    }
    for (int l = L - 1; l >= 0; l--) {
        b->range_push(b, "layer", l);
        dx = layer_backward(q, a, l, d, dx, accumulate);
        if (ready) ready(arg, q->p.layer_bucket + l);
        b->range_pop(b);
    }
    if (q->train || dslots)
        b->embedding_backward(b, grad(q, q->p.embed_bucket, 0), dslots, dx, d->ids, d->order, d->run_begin, d->runs, D);
}
