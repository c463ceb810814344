// roofline.c: see roofline.h.
//
// Each operation takes the longer of its arithmetic and its memory traffic; operations follow one another; collectives
// hide behind the backward pass and the next forward pass. Matrix products come in tiles that fill the processors in
// waves, which is what small batches lose by.
#include "llmc/train/roofline.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// ---- achieved efficiency -------------------------------------------------------------------------------------------

// PRODUCTS is fitted: to LLM.Q's bf16 training on 8 x H100 (github.com/IST-DASLab/llmq, benchmarks/H100x8.md; Qwen2.5
// of 1.5B and 3B, 524,288 tokens a step, pages of 1,024: 457 and 240 thousand tokens a second). test/test_roofline.c
// holds the model to them, and to five more of LLM.Q's figures that were not used.
static const double PRODUCTS = 0.70;      // of the data sheet's peak, for products whose tiles fill every wave
static const double PRODUCTS_FP32 = 0.80; // fp32 runs; assumed
// What a run's products reach of the square product of 8192 that the backend times at its start: on an H100 such a one
// reaches 0.80 of the data sheet (795 TFLOP/s at best).
static const double OF_MEASURED = 0.70 / 0.80;
// A copy from device to device moves about 3.0 TB/s on an H100 and 4.3 on an H200, reads and writes together: 0.90 of
// the data sheet's 3.35 and 4.8. Norms, SwiGLU, the loss and AdamW are assumed to stream like a copy.
static const double BANDWIDTH = 0.895;
static const double LINK = 0.80;           // assumed; nccl-tests' bus bandwidth on large buffers
static const double KERNEL_SECONDS = 2e-6; // one kernel's start and end beyond its work; assumed
// Blocks of a collective, each on a multiprocessor of its own: as many as NCCL has channels, 24 on 8 x A100 with
// NVSwitch (the log in issue 100 of github.com/NVIDIA/nccl-tests); assumed for the others.
static const int COLLECTIVE_SMS = 24;

// Attention is charged for the whole tiles that its bf16 kernels compute; in keys a query:
//   forward   tiles of 128 rows x 64 keys, half of each beyond the diagonal: 64 + 32; start and end: a tile more, 64
//   backward  4 products in tiles of 64 keys x 32 rows, 32 + 16, start and end 32; 3 of 64 rows x 64 keys, 32 + 32,
//             start and end 64
// Rows are those of all heads of a key/value head (attention.cuh), so that what counts rows shrinks with the group. So
// charged, and at the rates of gpu_sheets.c, FlashAttention-2's tiles give its published figures (test_roofline). The
// bounds that instruction counts set to our kernels lie above these rates: 49 % of an H100's peak forward, 36 %
// backward, all products counted (attention_forward.cu, attention_backward.cu).
static const RooflineAttention TENSOR_CORES = {
    .products = 7, .tail = {32 + 64, (4 * 32 + 3 * 96) / 7.0}, .shared = {64, (4 * 48 + 3 * 32) / 7.0}};
static const double ATTENTION_FP32 = 0.32; // of the peak, in plain fp32 arithmetic; assumed

int roofline_models(const Gpu *gpu, DType dtype) { return dtype == DTYPE_F32 || gpu->attention[0] > 0; }

static RooflineAttention attention_rates(const Gpu *gpu, DType dtype) {
    RooflineAttention a = TENSOR_CORES;
    if (dtype == DTYPE_F32)
        return (RooflineAttention){gpu->fp32 * ATTENTION_FP32, gpu->fp32 * ATTENTION_FP32, 7, {0}, {0}};
    const Gpu *known = roofline_models(gpu, dtype) ? gpu : gpu_find("h100");
    const double peak = known->bf16 * gpu->sms / known->sms;
    a.forward = peak * known->attention[0];
    a.backward = peak * known->attention[1];
    return a;
}

RooflineRates roofline_rates(const Gpu *gpu, DType dtype, double measured) {
    double peak = dtype == DTYPE_F32 ? gpu->fp32 : gpu->bf16;
    double expected = peak * (dtype == DTYPE_F32 ? PRODUCTS_FP32 : PRODUCTS);
    return (RooflineRates){.products = measured > 0 ? measured * OF_MEASURED : expected,
                           .attention = attention_rates(gpu, dtype),
                           .bandwidth = gpu->bandwidth * BANDWIDTH,
                           .link = gpu->link * LINK,
                           .sms = gpu->sms,
                           .collective_sms = COLLECTIVE_SMS};
}

const char *roofline_assumptions(void) {
    static char text[1000];
    snprintf(
        text, sizeof text,
        "  fitted   products reach %.0f %% of the data sheet's peak, less what their last waves of tiles leave idle:\n"
        "           with this LLM.Q's 457 and 240 thousand tokens/s on 8 x H100 come out right (test_roofline)\n"
        "  public   attention is as fast as FlashAttention-2, tile by tile, with %d products in the backward; memory\n"
        "           moves %.0f %% of the data sheet's rate, like a copy; a collective takes %d multiprocessors\n"
        "  assumed  links %.0f %% of the data sheet's rate, %.0f us a kernel; one host; ranks evenly loaded; the\n"
        "           loader, logs and checkpoints cost nothing\n",
        100 * PRODUCTS, TENSOR_CORES.products, 100 * BANDWIDTH, COLLECTIVE_SMS, 100 * LINK, 1e6 * KERNEL_SECONDS);
    return text;
}

// ---- matrix products -----------------------------------------------------------------------------------------------

typedef struct Product {
    double flops, seconds;
} Product;

// (M,K) x (K,N). Tiles of the usual sizes, the best of them; all processors work on one wave of tiles at a time.
static Product product(const RooflineRates *r, double M, double N, double K, int element) {
    static const struct {
        double m, n, share; // share: of the largest tile's rate (smaller tiles read their operands more often)
    } tiles[] = {{128, 256, 1}, {256, 128, 1}, {128, 192, 0.97}, {192, 128, 0.97}, {128, 128, 0.95}, {64, 256, 0.9}};
    double best = INFINITY;
    if (M <= 0) return (Product){0, 0};
    for (size_t i = 0; i < sizeof tiles / sizeof *tiles; i++) {
        double waves = ceil(ceil(M / tiles[i].m) * ceil(N / tiles[i].n) / r->sms);
        double seconds = waves * r->sms * tiles[i].m * tiles[i].n * 2 * K / (r->products * tiles[i].share);
        best = seconds < best ? seconds : best;
    }
    double memory = element * (M * K + K * N + M * N) / r->bandwidth;
    return (Product){2 * M * N * K, best > memory ? best : memory};
}

static void add(RooflinePart *p, Product x, double times) {
    p->flops += times * x.flops;
    p->seconds += times * x.seconds;
}

// A Linear's product forward, and its two backward. Batches differ in their rows: the mean over some sizes
// around the average, so that no lucky size decides.
static void linear(RooflineTimes *t, int part, const RooflineLoad *l, const RooflineRates *r, double rows, double in,
                   double out, double layers) {
    static const double sizes[] = {0.92, 0.96, 1, 1.04, 1.08};
    enum { N_SIZES = sizeof sizes / sizeof *sizes };
    RooflinePart *p = &t->parts[part];
    for (int i = 0; i < N_SIZES; i++) {
        double n = rows * sizes[i], times = layers / N_SIZES;
        Product f = product(r, n, out, in, l->element), dx = product(r, n, in, out, l->element),
                dw = product(r, out, in, n, l->element);
        add(p, f, times);
        add(p, dx, times);
        add(p, dw, times);
        t->forward += times * f.seconds;
        t->backward += times * (dx.seconds + dw.seconds);
    }
    t->weights += rows > 0 ? layers * 2 * in * out * l->element : 0;
}

// ---- one device batch ----------------------------------------------------------------------------------------------

// Queries, output and MLP of `layers` layers, keys and values of the same rows when `kv`.
static void layer_products(RooflineTimes *t, int part, const RooflineLoad *l, const RooflineRates *r,
                           const Qwen2Config *c, double rows, int kv, double layers) {
    double heads = (double)c->NH * c->HS, keys = kv ? 2.0 * c->KV * c->HS : 0;
    linear(t, part, l, r, rows, c->D, heads + keys, layers);
    linear(t, part, l, r, rows, heads, c->D, layers);
    linear(t, part, l, r, rows, c->D, 2.0 * c->F, layers);
    linear(t, part, l, r, rows, c->F, c->D, layers);
}

// Seconds of a layer's attention.
static double attention_pass(const RooflineRates *r, const Qwen2Config *c, double queries, double pairs, int backward) {
    const RooflineAttention *a = &r->attention;
    double added = a->tail[backward] + a->shared[backward] * c->KV / c->NH;
    return (backward ? a->products : 2) * 2.0 * c->NH * c->HS * (pairs + queries * added) /
           (backward ? a->backward : a->forward);
}

static void stream(RooflineTimes *t, int part, const RooflineRates *r, double bytes) {
    t->parts[part].bytes += bytes;
    t->parts[part].seconds += bytes / r->bandwidth;
}

// What the recomputation modes do again in the backward pass of `layers` layers: norms and SwiGLU, or all of the
// forward pass but its last product.
static void recompute(RooflineTimes *t, const RooflineLoad *l, const RooflineRates *r, const RooflineStack *s,
                      double layers) {
    const Qwen2Config *c = s->c;
    double D = c->D, F = c->F, heads = (double)c->NH * c->HS, qkv = heads + 2.0 * c->KV * c->HS;
    double rotated = (double)(c->NH + c->KV) * c->HS, e = l->element, n = s->rows * layers;
    if (l->recompute == RECOMPUTE_CHEAP) stream(t, PART_RECOMPUTE, r, n * e * (4 * D + 3 * F));
    if (l->recompute != RECOMPUTE_LAYER) return;
    RooflinePart *p = &t->parts[PART_RECOMPUTE];
    add(p, product(r, s->rows, qkv, D, l->element), layers);
    add(p, product(r, s->rows, D, heads, l->element), layers);
    add(p, product(r, s->rows, 2 * F, D, l->element), layers);
    add(p, (Product){4 * heads * s->pairs, attention_pass(r, c, s->rows, s->pairs, 0)}, layers);
    stream(t, PART_RECOMPUTE, r, n * e * (5 * D + 2 * rotated + 3 * F));
}

// Operations that stream their arrays through memory: elements read and written for each row of a layer. Attention's
// own traffic hides behind its arithmetic, but for the kernel before its backward.
//   forward   two norms 4 D, residuals that products add 2 D, rotary 2 R, SwiGLU 3 F
//   backward  two norms 8 D, rotary with the bias sums R + QKV, sums of dout * out 2 H, SwiGLU 5 F
static void layer_streams(RooflineTimes *t, const RooflineLoad *l, const RooflineRates *r, const Qwen2Config *c,
                          double rows) {
    double D = c->D, F = c->F, heads = (double)c->NH * c->HS, qkv = heads + 2.0 * c->KV * c->HS;
    double rotated = (double)(c->NH + c->KV) * c->HS, e = l->element;
    double forward = rows * e * (6 * D + 2 * rotated + 3 * F);
    double backward = rows * e * (8 * D + rotated + qkv + 2 * heads + 5 * F);
    stream(t, PART_ELEMENTWISE, r, forward + backward);
    t->forward += forward / r->bandwidth;
    t->backward += backward / r->bandwidth;
}

static void stack(RooflineTimes *t, int part, const RooflineLoad *l, const RooflineRates *r, const RooflineStack *s) {
    enum { FORWARD_KERNELS = 9, BACKWARD_KERNELS = 19 };
    const Qwen2Config *c = s->c;
    double layers = c->L - 1;
    layer_products(t, part, l, r, c, s->rows, 1, layers);
    layer_products(t, part, l, r, c, s->outputs, 0, 1);
    linear(t, part, l, r, s->rows, c->D, 2.0 * c->KV * c->HS, 1);
    layer_streams(t, l, r, c, layers * s->rows + s->outputs);
    // the mathematics asks for two products forward and five backward, of which one recomputes: it counts four
    double forward =
        layers * attention_pass(r, c, s->rows, s->pairs, 0) + attention_pass(r, c, s->outputs, s->output_pairs, 0);
    double backward =
        layers * attention_pass(r, c, s->rows, s->pairs, 1) + attention_pass(r, c, s->outputs, s->output_pairs, 1);
    t->parts[PART_ATTENTION].flops += 12.0 * c->NH * c->HS * (layers * s->pairs + s->output_pairs);
    t->parts[PART_ATTENTION].seconds += forward + backward;
    t->forward += forward;
    t->backward += backward;
    recompute(t, l, r, s, layers + (s->rows > 0 ? s->outputs / s->rows : 0));
    int kernels = FORWARD_KERNELS + BACKWARD_KERNELS +
                  (l->recompute == RECOMPUTE_CHEAP   ? 3
                   : l->recompute == RECOMPUTE_LAYER ? FORWARD_KERNELS - 1
                                                     : 0);
    t->parts[PART_KERNELS].seconds += c->L * kernels * KERNEL_SECONDS;
}

// ---- a step --------------------------------------------------------------------------------------------------------

// What happens once for each parameter and batch. The first batch writes the gradients, the others read and write them,
// the reduce-scatter reads them; with ZeRO 2 every batch's are written, read, and added to the shard. Then AdamW.
static void parameters(RooflineTimes *t, const RooflineLoad *l, const RooflineRates *r) {
    double all = l->parameters * l->gradient, shard = l->parameters / l->ranks;
    double passes = 2 * l->batches - (l->ranks > 1 ? 0 : 1);
    stream(t, PART_GRADIENTS, r, l->zero == 2 ? l->batches * (2 * all + 3 * shard * l->gradient) : passes * all);
    stream(t, PART_OPTIMIZER, r, (l->zero ? shard : l->parameters) * l->state);
}

// Bytes over the link, and their exposed time: what exceeds the pass that overlaps with them, and the bucket that is
// complete last (and needed first), the first stack's embedding.
static void collective(RooflineTimes *t, int part, double *seconds, const RooflineLoad *l, const RooflineRates *r,
                       double bytes, double overlap, double times) {
    double share = (double)(l->ranks - 1) / l->ranks, sent = l->parameters * bytes * share;
    double bucket = (double)l->V * l->stacks[0].c->D * bytes * share;
    double longer = sent / r->link - overlap;
    *seconds = times * sent / r->link;
    t->parts[part].bytes = times * sent;
    t->parts[part].seconds = l->ranks > 1 ? times * (bucket / r->link + (longer > 0 ? longer : 0)) : 0;
    // what is hidden slows the pass that hides it
    t->parts[PART_COLLECTIVES].seconds += fmax(0, *seconds - t->parts[part].seconds) * r->collective_sms / r->sms;
}

// The head in chunks of rows, each of which but the first reads and writes the gradient of the head's weight once more.
// Cross entropy reads the logits twice and writes their gradients.
static void head(RooflineTimes *t, const RooflineLoad *l, const RooflineRates *r) {
    double chunks = l->head_chunk > 0 ? fmax(1, ceil(l->head_rows / l->head_chunk)) : 1;
    double again = (chunks - 1) * 2 * l->D * l->V * l->gradient;
    linear(t, PART_HEAD, l, r, l->head_rows / chunks, l->D, l->V, chunks);
    stream(t, PART_LOGITS, r, 3 * l->head_rows * l->V * l->element);
    stream(t, PART_GRADIENTS, r, again);
    t->backward += again / r->bandwidth;
}

void roofline_step(RooflineTimes *t, const RooflineLoad *l, const RooflineRates *r) {
    *t = (RooflineTimes){0};
    for (int i = 0; i < l->n_stacks; i++) stack(t, PART_STACK0 + i, l, r, &l->stacks[i]);
    head(t, l, r);
    t->backward += t->parts[PART_RECOMPUTE].seconds;
    for (int i = 0; i <= PART_RECOMPUTE; i++) t->flops += i == PART_RECOMPUTE ? 0 : t->parts[i].flops * l->batches;
    for (int i = 0; i < PART_PARTS; i++) {
        t->parts[i].flops *= l->batches;
        t->parts[i].bytes *= l->batches;
        t->parts[i].seconds *= l->batches;
    }
    t->weights *= l->batches;
    parameters(t, l, r);
    collective(t, PART_REDUCE, &t->reduce, l, r, l->gradient, t->backward, l->zero == 2 ? l->batches : 1);
    // without shards of the optimizer it is the gradients that are gathered, and nothing overlaps with that
    collective(t, PART_GATHER, &t->gather, l, r, l->zero ? l->element : l->gradient, l->zero ? t->forward : 0, 1);
    for (int i = 0; i < PART_PARTS; i++) t->total += t->parts[i].seconds;
}

const char *roofline_part_name(int part) {
    static const char *const names[PART_PARTS] = {"products of the encoder",
                                                  "products of the decoder",
                                                  "products of the head",
                                                  "attention",
                                                  "norms, SwiGLU, rotary",
                                                  "logits and loss",
                                                  "recomputation",
                                                  "gradients",
                                                  "AdamW, norm",
                                                  "starts of kernels",
                                                  "reduce-scatter, exposed",
                                                  "all-gather, exposed",
                                                  "multiprocessors for NCCL"};
    return names[part];
}
