// test_model.c: what must not depend on how the cascade is computed. Bit-equal: recompute modes, inference against
// training. Within rounding: a last layer that computes outputs only against the whole one, one micro-batch against
// several, pages alone against pages packed. And: directional finite differences of the loss of the whole model.
#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "llmc/base/random.h"
#include "llmc/model/cascade.h"

enum { PAGES = 5, LONGEST = 33 };
static const int lengths[PAGES] = {7, 33, 1, 18, 12};

static Dist one = {.ranks = 1, .local_ranks = 1, .cores = 1};
static int32_t prefix[] = {1, 2, 9, 203}, suffix[] = {204, 5};

typedef struct Setup {
    C3Config config;
    Backend *b;
    C3 m;
    MicroBatch batch[PAGES];
    Template prompt;
    uint32_t tokens[PAGES][LONGEST];
    ShardPage pages[PAGES];
    uint64_t ids[PAGES];
} Setup;

static void shapes(C3Config *c, int tied, int whole_layers) {
    Error err;
    if (config_preset(c, "demo", 0, &err) != 0) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    c->enc = (Qwen2Config){.V = 206,
                           .D = 48,
                           .L = whole_layers,
                           .NH = 3,
                           .KV = 1,
                           .HS = 32,
                           .F = 80,
                           .max_positions = 512,
                           .rope_theta = 1e6f,
                           .rms_eps = 1e-6f,
                           .tied = 1};
    c->dec = (Qwen2Config){.V = 206,
                           .D = 64,
                           .L = whole_layers + 1,
                           .NH = 4,
                           .KV = 2,
                           .HS = 64,
                           .F = 112,
                           .max_positions = 512,
                           .rope_theta = 1e6f,
                           .rms_eps = 1e-6f,
                           .tied = tied};
    c->latents = 5;
    c->specials = (SpecialTokens){200, 201, 202, 203, 204, 205};
}

static int zero_stage, window;
static uint8_t edges[206]; // no better place for a cut than another

static void open_setup(Setup *s, DType dtype, int tied, int layers, Recompute mode) {
    Error err;
    memset(s, 0, sizeof *s);
    shapes(&s->config, tied, layers);
    s->prompt = (Template){.prefix = prefix,
                           .suffix = suffix,
                           .n_prefix = 4,
                           .n_suffix = 2,
                           .end = 202,
                           .img = 203,
                           .window = window,
                           .edges = edges};
    const int windows = template_windows(&s->prompt, NULL, LONGEST);
    C3Limits l = {.pages = PAGES,
                  .windows = PAGES * windows,
                  .enc_rows = PAGES * (LONGEST + 6 * windows),
                  .dec_rows = PAGES * (LONGEST + 6 + 5 * windows),
                  .dec_outputs = PAGES * (LONGEST + 1),
                  .loss_rows = PAGES * (LONGEST + 1),
                  .head_rows = 17,
                  .zero = zero_stage,
                  .recompute = mode};
    if (backend_cpu_create(&s->b, dtype, 1, &one, &err) != 0 || c3_create(&s->m, &s->config, s->b, &l, &err) != 0 ||
        c3_init_weights(&s->m, 7, 0, &err) != 0) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    uint32_t random = 12345;
    for (int p = 0; p < PAGES; p++) {
        for (int i = 0; i < LONGEST; i++) s->tokens[p][i] = (random = random * 1664525u + 1013904223u) >> 25;
        s->pages[p] = (ShardPage){.context = s->tokens[p],
                                  .answer = s->tokens[p],
                                  .context_length = (uint32_t)lengths[p],
                                  .answer_length = (uint32_t)lengths[p]};
        s->ids[p] = (uint64_t)p;
        if (batch_create(&s->batch[p], s->b, c3_batch_rows(&l), &err) != 0) exit(1);
    }
    // larger weights than the usual start: attention and gates leave their flat regions
    float *piece = malloc(s->m.params.table.total * sizeof *piece);
    s->b->cast_to_f32(s->b, piece, s->m.weights, s->m.params.table.total);
    for (size_t i = 0; i < s->m.params.table.total; i++) piece[i] *= piece[i] == 1.0f ? 1.0f : 4.0f;
    s->b->cast_from_f32(s->b, s->m.weights, piece, s->m.params.table.total);
    free(piece);
}

static void close_setup(Setup *s) {
    for (int p = 0; p < PAGES; p++) batch_free(&s->batch[p]);
    c3_free(&s->m);
    s->b->destroy(s->b);
}

// Every tensor in one piece from its own stream, whatever the number of threads.
static void test_initial_weights(int threads) {
    enum { SEED = 7 };
    C3Config config;
    C3Limits l = {.pages = 1, .enc_rows = 8, .dec_rows = 16, .dec_outputs = 2, .recompute = KEEP_NOTHING};
    Backend *b;
    C3 m;
    Error err;
    shapes(&config, 0, 1);
    if (backend_cpu_create(&b, DTYPE_F32, threads, &one, &err) != 0 || c3_create(&m, &config, b, &l, &err) != 0 ||
        c3_init_weights(&m, SEED, 0, &err) != 0) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    float *expected = malloc(m.params.table.total * sizeof *expected);
    for (int i = 0; i < m.params.table.n; i++) {
        const Param *p = &m.params.table.params[i];
        for (size_t k = 0; k < p->count; k++) expected[k] = p->init == INIT_ONE;
        if (p->init == INIT_NORMAL) random_normal(expected, random_stream(SEED, (uint64_t)i), 0, p->count, 0.02f);
        CHECK(memcmp((float *)m.weights + p->offset, expected, p->count * sizeof *expected) == 0, "%d threads: %s",
              threads, p->name);
    }
    free(expected);
    c3_free(&m);
    b->destroy(b);
}

static int rows_of_all(void) {
    int rows = 0;
    for (int p = 0; p < PAGES; p++) rows += lengths[p] + 1;
    return rows;
}

// Packs pages first..first+n-1, each row with its share of the loss of all pages.
static void build(Setup *s, int batch, int first, int n) {
    float weights[PAGES];
    for (int i = 0; i < n; i++) weights[i] = 1.0f / (float)rows_of_all();
    batch_build(&s->batch[batch], s->pages + first, s->ids + first, n, &s->prompt, s->config.latents, UINT32_MAX,
                weights);
}

// Loss and gradients of all pages, `per` pages a micro-batch.
static double pass(Setup *s, int per) {
    double loss = 0, sum, norm;
    for (int p = 0, i = 0, row = 0; p < PAGES; p += per, i++) {
        int n = PAGES - p < per ? PAGES - p : per;
        build(s, i, p, n);
        s->batch[i].loss_row = row;
        c3_forward_backward(&s->m, &s->batch[i], i > 0, NULL, NULL);
        row += s->batch[i].dec.outputs;
    }
    for (int p = 0, i = 0; p < PAGES; p += per, i++) loss += c3_read_loss(&s->m, &s->batch[i]).weighted;
    c3_read_step(&s->m, &sum, &norm);
    CHECK(fabs(sum / loss - 1) < 1e-12, "the device's sum of losses %.17g, the host's %.17g", sum, loss);
    return loss;
}

static float *gradients(Setup *s) {
    float *g = malloc(s->m.params.table.total * sizeof *g);
    s->b->download(s->b, g, s->m.grads.arena, s->m.params.table.total * sizeof *g);
    return g;
}

static double distance(const float *a, const float *b, size_t n) {
    double d = 0, sum = 0;
    for (size_t i = 0; i < n; i++) {
        d += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        sum += (double)a[i] * a[i];
    }
    return sqrt(d / sum);
}

static void test_recompute(DType dtype) {
    Setup s;
    open_setup(&s, dtype, 1, 2, RECOMPUTE_NONE);
    double loss = pass(&s, 2);
    float *g = gradients(&s);
    size_t bytes = s.m.params.table.total * sizeof *g;
    close_setup(&s);
    for (Recompute mode = RECOMPUTE_CHEAP; mode <= RECOMPUTE_LAYER; mode++) {
        open_setup(&s, dtype, 1, 2, mode);
        double other = pass(&s, 2);
        float *h = gradients(&s);
        CHECK(loss == other, "%.17g %.17g", loss, other);
        CHECK(memcmp(g, h, bytes) == 0, "mode %d: gradients differ by %g", mode, distance(g, h, bytes / sizeof *g));
        free(h);
        close_setup(&s);
    }
    free(g);
    // inference keeps nothing and adds to the residual stream in place: the same losses
    open_setup(&s, dtype, 1, 2, KEEP_NOTHING);
    double sum = 0;
    for (int p = 0; p < PAGES; p += 2) {
        build(&s, p, p, PAGES - p < 2 ? 1 : 2);
        c3_forward(&s.m, &s.batch[p]);
        sum += c3_read_loss(&s.m, &s.batch[p]).weighted;
    }
    CHECK(sum == loss, "%.17g %.17g", sum, loss);
    close_setup(&s);
}

// The same step with `per` pages a micro-batch and a last layer that computes outputs only, or everything.
static float *step(int tied, int layers, int per, int outputs_only, double *loss, size_t *n) {
    Setup s;
    open_setup(&s, DTYPE_F32, tied, layers, RECOMPUTE_NONE);
    s.m.enc.outputs_only = s.m.dec.outputs_only = outputs_only;
    *loss = pass(&s, per);
    float *g = gradients(&s);
    *n = s.m.params.table.total;
    close_setup(&s);
    return g;
}

static void test_same_mathematics(int tied, int layers) {
    size_t n;
    double loss, other;
    float *g = step(tied, layers, PAGES, 1, &loss, &n);
    const struct { int per, outputs_only; } ways[] = {{PAGES, 0}, {1, 1}, {2, 1}, {2, 0}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        float *h = step(tied, layers, ways[i].per, ways[i].outputs_only, &other, &n);
        CHECK(fabs(loss - other) < 1e-6 * loss, "%d pages, outputs only %d: loss %.9g %.9g", ways[i].per,
              ways[i].outputs_only, loss, other);
        double d = distance(g, h, n);
        CHECK(d < 1e-6 * 5, "%d pages a micro-batch, outputs only %d: gradients differ by %.3g", ways[i].per,
              ways[i].outputs_only, d);
        free(h);
    }
    free(g);
}

// Pages of different numbers of latents in one batch: losses and latents of each are those of the page alone, and the
// latents are the first of all N: bit for bit, but for 2 and fewer, for which attention adds up in another order.
static void test_mixed_latents(DType dtype) {
    static const uint32_t counts[PAGES] = {3, 5, 0, 1, 4}; // 0: all 5
    Setup s;
    open_setup(&s, dtype, 1, 2, RECOMPUTE_NONE);
    const size_t row = (size_t)s.config.enc.D * dtype_size(dtype);
    char *whole = malloc((size_t)s.config.latents * row * PAGES), *few = malloc((size_t)s.config.latents * row * PAGES);
    float together[PAGES * (LONGEST + 1)];
    build(&s, 0, 0, PAGES);
    c3_forward(&s.m, &s.batch[0]);
    s.b->download(s.b, whole, s.m.enc_acts.out, (size_t)(s.config.latents * PAGES) * row);
    for (int p = 0; p < PAGES; p++) s.pages[p].latents = counts[p];
    pass(&s, PAGES);
    float *g = gradients(&s);
    s.b->download(s.b, few, s.m.enc_acts.out, (size_t)s.batch[0].enc.outputs * row);
    memcpy(together, s.m.host_losses, (size_t)s.batch[0].dec.outputs * sizeof *together);
    CHECK(s.batch[0].enc.outputs == 18, "%d latents", s.batch[0].enc.outputs);
    for (int p = 0, at = 0, loss = 0; p < PAGES; p++) {
        int n = counts[p] ? (int)counts[p] : s.config.latents;
        CHECK(n < 3 ||
                  memcmp(few + (size_t)at * row, whole + (size_t)(p * s.config.latents) * row, (size_t)n * row) == 0,
              "page %d: %d latents are not the first of all", p, n);
        at += n;
        build(&s, p, p, 1);
        c3_forward(&s.m, &s.batch[p]);
        c3_read_loss(&s.m, &s.batch[p]);
        CHECK(memcmp(s.m.host_losses, together + loss, (size_t)(lengths[p] + 1) * sizeof *together) == 0,
              "page %d: other losses than alone", p);
        loss += lengths[p] + 1;
    }
    pass(&s, 1);
    float *h = gradients(&s);
    double d = distance(g, h, s.m.params.table.total);
    CHECK(d < (dtype == DTYPE_F32 ? 5e-6 : 2e-2), "gradients differ from those of pages alone by %.3g", d);
    for (int p = 0; p < PAGES; p++) s.pages[p].latents = 2; // in no page: the other rows of Q have no gradient
    pass(&s, 2);
    free(h);
    h = gradients(&s);
    const Param *q = params_find(&s.m.params.table, OWNER_CASCADE, "model.Q.weight");
    double sum[5] = {0};
    for (size_t i = 0; i < q->count; i++) sum[i / (size_t)s.config.enc.D] += fabs(h[q->offset + i]);
    CHECK(sum[0] > 0 && sum[1] > 0 && sum[2] == 0 && sum[4] == 0, "gradients of queries: %g %g %g %g", sum[0], sum[1],
          sum[2], sum[4]);
    free(h);
    free(g);
    free(few);
    free(whole);
    close_setup(&s);
}

// (loss(w + h d) - loss(w - h d)) / 2h against the gradient times d, d = the gradient itself plus a random direction.
static void test_finite_differences(int tied) {
    Setup s;
    open_setup(&s, DTYPE_F32, tied, 2, RECOMPUTE_NONE);
    pass(&s, PAGES);
    float *g = gradients(&s);
    for (int i = 0; i < s.m.params.table.n; i++) {
        const Param *p = &s.m.params.table.params[i];
        double norm = 0, expected = 0;
        for (size_t k = 0; k < p->count; k++) norm += (double)g[p->offset + k] * g[p->offset + k];
        norm = sqrt(norm);
        CHECK(norm > 0, "%s: no gradient", p->name);
        float *w = (float *)s.m.weights + p->offset, *old = malloc(p->count * sizeof *old);
        memcpy(old, w, p->count * sizeof *old);
        const double h = 4e-3;
        double side[2];
        for (int sign = 0; sign < 2; sign++) {
            for (size_t k = 0; k < p->count; k++) w[k] = old[k] + (float)((sign ? -h : h) * g[p->offset + k] / norm);
            side[sign] = pass(&s, PAGES);
        }
        memcpy(w, old, p->count * sizeof *old);
        free(old);
        expected = norm;
        double found = (side[0] - side[1]) / (2 * h);
        CHECK(fabs(found - expected) < 0.01 * expected + 2e-4, "%d %s: %.6g, gradient says %.6g", p->owner, p->name,
              found, expected);
    }
    free(g);
    close_setup(&s);
}

static void count_bucket(void *arg, int bucket) { ((int *)arg)[bucket]++; }

// ZeRO 2: what a rank with fewer micro-batches does in the others' reductions.
typedef struct Order {
    const C3 *m;
    int bucket[64], n;
    double sum; // of the gradients' magnitudes
} Order;

static void note_bucket(void *arg, int bucket) {
    Order *o = arg;
    const float *g = o->m->grads.at[bucket];
    o->bucket[o->n++] = bucket;
    for (size_t i = 0; i < o->m->params.table.buckets[bucket].count; i++) o->sum += fabs(g[i]);
}

static void test_no_gradients(void) {
    Setup s;
    zero_stage = 2;
    open_setup(&s, DTYPE_F32, 0, 3, RECOMPUTE_NONE);
    zero_stage = 0;
    Order with = {.m = &s.m}, without = {.m = &s.m};
    build(&s, 0, 0, PAGES);
    c3_forward_backward(&s.m, &s.batch[0], 0, note_bucket, &with);
    c3_no_gradients(&s.m, note_bucket, &without);
    CHECK(with.n == s.m.params.table.n_buckets && without.n == with.n, "%d and %d buckets", with.n, without.n);
    CHECK(!memcmp(with.bucket, without.bucket, sizeof with.bucket), "another order of buckets");
    CHECK(with.sum > 0 && without.sum == 0, "gradients of %g and %g", with.sum, without.sum);
    close_setup(&s);
}

static void test_ready_order(void) {
    // every bucket is reported exactly once, whatever is frozen
    for (int frozen = 0; frozen < 3; frozen++) {
        Setup s;
        open_setup(&s, DTYPE_F32, 1, 2, RECOMPUTE_NONE);
        s.m.enc.train = frozen != 1;
        s.m.dec.train = frozen != 2;
        int seen[64] = {0};
        build(&s, 0, 0, PAGES);
        c3_forward_backward(&s.m, &s.batch[0], 0, count_bucket, seen);
        for (int i = 0; i < s.m.params.table.n_buckets; i++) CHECK(seen[i] == 1, "bucket %d: %d times", i, seen[i]);
        float *g = gradients(&s);
        for (int i = 0; i < s.m.params.table.n; i++) {
            const Param *p = &s.m.params.table.params[i];
            double sum = 0;
            for (size_t k = 0; k < p->count; k++) sum += fabs(g[p->offset + k]);
            int is_frozen = (frozen == 1 && p->group == GROUP_ENCODER) || (frozen == 2 && p->group == GROUP_DECODER);
            CHECK(is_frozen ? sum == 0 : sum > 0, "frozen %d: %s has gradient %g", frozen, p->name, sum);
        }
        free(g);
        close_setup(&s);
    }
}

int main(void) {
    check_begin("initial weights: the same bits on 1, 2 and 3 threads");
    for (int threads = 1; threads <= 3; threads++) test_initial_weights(threads);
    check_begin("fp32: recompute modes and inference are bit-equal");
    test_recompute(DTYPE_F32);
    check_begin("bf16: recompute modes and inference are bit-equal");
    test_recompute(DTYPE_BF16);
    check_begin("outputs only or not, packed or alone, one micro-batch or several: tied, 2 layers");
    test_same_mathematics(1, 2);
    check_begin("the same: untied, 1 layer");
    test_same_mathematics(0, 1);
    check_begin("fp32: pages with different numbers of latents together are what they are alone");
    test_mixed_latents(DTYPE_F32);
    check_begin("bf16: the same");
    test_mixed_latents(DTYPE_BF16);
    check_begin("finite differences of the loss along every tensor's gradient: tied");
    test_finite_differences(1);
    check_begin("finite differences: untied");
    test_finite_differences(0);
    window = 7;
    check_begin("windows of 7 tokens: recompute modes and inference are bit-equal");
    test_recompute(DTYPE_F32);
    check_begin("windows: outputs only or not, packed or alone, one micro-batch or several");
    test_same_mathematics(1, 2);
    check_begin("windows: finite differences");
    test_finite_differences(0);
    window = 0;
    check_begin("every bucket is ready once; frozen stacks get no gradient");
    test_ready_order();
    check_begin("ZeRO 2: without a micro-batch, the same buckets in the same order, all zero");
    test_no_gradients();
    return check_done();
}
