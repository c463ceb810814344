// test_roofline.c: the prediction of a step's time. It must reproduce public measurements before it may predict; then
// the paper's run, and which way the model bends.
#include "test/plan_rig.h"

// ---- public measurements -------------------------------------------------------------------------------------------

// LLM.Q's bf16 training (github.com/IST-DASLab/llmq, benchmarks/H100x8.md and H100x1.md): Qwen2.5, pages of 1,024
// tokens, `batch` pages a micro-batch, `micro` micro-batches a step and GPU; thousand tokens a second. What differs
// from ours is in the load: gradients and AdamW moments are bf16, without a master copy; logits for every row;
// attention is cuDNN's. Not known: how its norms and products differ from ours in speed.
typedef struct Measured {
    const char *what;
    Qwen2Config c;
    int batch, micro, ranks;
    double ktokens;
    int fitted; // the product rate in roofline.c was fitted to it
} Measured;

static const Measured measured[] = {
    {"1.5B on 8", {.V = 151936, .D = 1536, .L = 28, .NH = 12, .KV = 2, .HS = 128, .F = 8960}, 32, 2, 8, 457, 1},
    {"3B on 8", {.V = 151936, .D = 2048, .L = 36, .NH = 16, .KV = 2, .HS = 128, .F = 11008}, 16, 4, 8, 240, 1},
    {"0.5B on 8", {.V = 151936, .D = 896, .L = 24, .NH = 14, .KV = 2, .HS = 64, .F = 4864}, 32, 2, 8, 1164, 0},
    {"7B on 8", {.V = 152064, .D = 3584, .L = 28, .NH = 28, .KV = 4, .HS = 128, .F = 18944}, 8, 8, 8, 112, 0},
    {"1.5B on 1", {.V = 151936, .D = 1536, .L = 28, .NH = 12, .KV = 2, .HS = 128, .F = 8960}, 32, 16, 1, 59.2, 0},
    {"3B on 1", {.V = 151936, .D = 2048, .L = 36, .NH = 16, .KV = 2, .HS = 128, .F = 11008}, 16, 32, 1, 30.9, 0},
    {"7B on 1", {.V = 152064, .D = 3584, .L = 28, .NH = 28, .KV = 4, .HS = 128, .F = 18944}, 4, 128, 1, 13.83, 0},
};
enum { N_MEASURED = sizeof measured / sizeof *measured };

// Attention of LLM.Q is cuDNN's: at head dimension 128 539 TFLOP/s forward on long causal pages, 516 backward
// (FlashAttention-3, arXiv 2407.08608, figures 5 and 6).
static const RooflineAttention cudnn = {539e12, 516e12, 5, {160, 160}, {0}};

static double predicted_ktokens(const Measured *m, double faster) {
    const Qwen2Config *c = &m->c;
    double rows = m->batch * 1024.0, pairs = m->batch * 1024.0 * 1025 / 2;
    double D = c->D, heads = (double)c->NH * c->HS, kv = 2.0 * c->KV * c->HS;
    RooflineLoad l = {.stacks = {{c, rows, rows, pairs, pairs}},
                      .n_stacks = 1,
                      .head_rows = rows,
                      .D = c->D,
                      .V = c->V,
                      .batches = m->micro,
                      .parameters = c->V * D + c->L * (D * (2 * heads + kv) + 3 * D * c->F),
                      .element = 2,
                      .gradient = 2,
                      .state = 2 + 2 + 4 * 2 + 2 * 2,
                      .ranks = m->ranks,
                      .zero = 1};
    RooflineRates rates = roofline_rates(gpu_find("h100"), DTYPE_BF16, 0);
    RooflineTimes t;
    rates.products *= faster;
    rates.attention = cudnn;
    roofline_step(&t, &l, &rates);
    return rows * m->micro * m->ranks / t.total / 1000;
}

static void test_measured(void) {
    static char names[N_MEASURED][96];
    for (int i = 0; i < N_MEASURED; i++) {
        const Measured *m = &measured[i];
        char *name = names[i];
        snprintf(name, sizeof names[i], "LLM.Q's Qwen2.5-%s H100 within %s", m->what,
                 m->fitted ? "2 % (fitted)" : "5 %");
        check_begin(name);
        double k = predicted_ktokens(m, 1), off = k / m->ktokens - 1;
        printf("  %s H100: measured %.4g thousand tokens/s, the model says %.4g (%+.1f %%)\n", m->what, m->ktokens, k,
               100 * off);
        CHECK(fabs(off) <= (m->fitted ? 0.02 : 0.05), "%+.1f %%", 100 * off);
    }
}

// FlashAttention-2 on one H100 at head dimension 128, 16 heads, 16,384 tokens in pages of 512 to 16,384: TFLOP/s, with
// 4 or 10 FLOPs for each pair of query and key (FlashAttention-3, arXiv 2407.08608, figure 5 with causal mask, figure 6
// without). Its blocks have 128 rows and tiles of 64 keys (forward), 128 keys and tiles of 64 rows (backward, which
// also clears, adds up and converts an fp32 dQ).
static void test_attention(void) {
    enum { PAGES = 6, ROWS = 16384 };
    static const double forward[PAGES] = {191, 260, 298, 319, 333, 335},
                        backward[PAGES] = {214, 260, 291, 310, 318, 322};
    const Qwen2Config c = {.V = 1, .D = 1, .L = 1, .NH = 16, .KV = 16, .HS = 128, .F = 1};
    RooflineLoad l = {.n_stacks = 1, .head_rows = 1, .D = 1, .V = 1, .batches = 1, .ranks = 1};
    RooflineRates r = roofline_rates(gpu_find("h100"), DTYPE_BF16, 0);
    RooflineTimes t;
    const double dq = (2 * 2 + 4 + 4 + 2) * (double)ROWS * c.NH * c.HS / r.bandwidth;
    check_begin("attention, with FlashAttention-2's tiles: its published figures within 6 %, pages of 512 within 12 %");
    for (int i = 0; i < PAGES; i++) {
        double page = 512 << i, causal = ROWS * (page + 1) / 2, all = ROWS * page;
        l.stacks[0] = (RooflineStack){&c, ROWS, ROWS, causal, causal};
        r.attention = (RooflineAttention){0.35 * 989.4e12, INFINITY, 5, {64 + 32 + 64}, {0}};
        roofline_step(&t, &l, &r);
        double f = 4.0 * c.NH * c.HS * causal / t.parts[PART_ATTENTION].seconds / 1e12;
        l.stacks[0] = (RooflineStack){&c, ROWS, ROWS, all, all};
        r.attention = (RooflineAttention){INFINITY, 0.325 * 989.4e12, 5, {0, 64}, {0}};
        roofline_step(&t, &l, &r);
        double b = 10.0 * c.NH * c.HS * all / (t.parts[PART_ATTENTION].seconds + dq) / 1e12;
        printf("  pages of %5.0f: forward %.0f TFLOP/s, published %.0f; backward %.0f, published %.0f\n", page, f,
               forward[i], b, backward[i]);
        CHECK(fabs(f / forward[i] - 1) < (i ? 0.06 : 0.12) && fabs(b / backward[i] - 1) < 0.06, "pages of %.0f", page);
    }
    check_begin(
        "ours: the H100's rates are FlashAttention-2's, the backward has two products more; a B200 is not modelled");
    r = roofline_rates(gpu_find("h100"), DTYPE_BF16, 0);
    CHECK(r.attention.forward == 0.35 * 989.4e12 && r.attention.backward == 0.325 * 989.4e12, "%g",
          r.attention.forward);
    l.stacks[0] = (RooflineStack){&c, ROWS, ROWS, 1e9, 1e9};
    roofline_step(&t, &l, &r);
    double counted =
        2 * (1e9 + ROWS * (96.0 + 64)) / 0.35 + (4 * (1e9 + ROWS * 80.0) + 3 * (1e9 + ROWS * 128.0)) / 0.325;
    counted *= 2.0 * c.NH * c.HS / 989.4e12;
    CHECK(fabs(t.parts[PART_ATTENTION].seconds / counted - 1) < 1e-6, "%g s, counted %g",
          t.parts[PART_ATTENTION].seconds, counted);
    CHECK(roofline_models(gpu_find("a100"), DTYPE_BF16) && !roofline_models(gpu_find("b200"), DTYPE_BF16), "models");
}

// ---- the paper's run -----------------------------------------------------------------------------------------------

static void test_paper_time(void) {
    check_begin("paper's run on 8 x H100: the plan's FLOPs are c3_page_flops', ideal 0.87 s");
    PlanShape s = paper_shape(gpu_find("h100")->memory);
    PlanChoice c = choose(&s);
    RooflineTimes t = times_of(&s, &c, "h100", 1);
    C3Flops f = c3_page_flops(&paper, TOKENS, 32, 1);
    double flops = 32 * (f.encoder + f.decoder + f.head), ideal = flops / 989.4e12;
    CHECK(fabs(t.flops / flops - 1) < 2e-3, "%.4g against %.4g", t.flops, flops);
    CHECK(fabs(ideal - 0.867) < 0.01, "%.3f", ideal);

    check_begin("predicted: at most 1.70 s a step, 1.58 with products 10 % faster, which keeps LLM.Q within 10 %");
    double fast = times_of(&s, &c, "h100", 1.1).total;
    printf("  predicted %.3f s a step, 40,000 steps %.1f h; with products 10 %% faster %.3f s, %.1f h; ideal %.3f s\n",
           t.total, t.total * 40000 / 3600, fast, fast * 40000 / 3600, ideal);
    CHECK(t.total > ideal && t.total <= 1.70, "%.3f s", t.total);
    CHECK(fast <= 1.58, "%.3f s", fast);
    for (int i = 0; i < 2; i++) {
        double off = predicted_ktokens(&measured[i], 1.1) / measured[i].ktokens - 1;
        CHECK(fabs(off) <= 0.1, "%s: %+.1f %%", measured[i].what, 100 * off);
    }

    check_begin("hidden collectives take 24 of the 132 multiprocessors while they run");
    double hidden = t.reduce - t.parts[PART_REDUCE].seconds + t.gather - t.parts[PART_GATHER].seconds;
    CHECK(hidden > 0.05 && fabs(t.parts[PART_COLLECTIVES].seconds / (hidden * 24 / 132) - 1) < 1e-9, "%g of %g s",
          t.parts[PART_COLLECTIVES].seconds, hidden);

    check_begin(
        "unfused on H800s the reduce-scatter is longer than the last backward pass, and that is what is exposed");
    s.fuse = 1;
    c = choose(&s);
    RooflineTimes h800 = times_of(&s, &c, "h800", 1), h100 = times_of(&s, &c, "h100", 1);
    double sent = (double)paper_params.table.total * 4 * 7 / 8 / (200e9 * 0.8);
    double bucket = (double)params_head_rows(paper.dec.V) * paper.enc.D * 4 * 7 / 8 / (200e9 * 0.8);
    CHECK(fabs(h800.reduce / sent - 1) < 1e-3, "%.4f against %.4f", h800.reduce, sent);
    CHECK(h800.reduce > h800.backward, "%.3f against %.3f", h800.reduce, h800.backward);
    CHECK(fabs(h800.parts[PART_REDUCE].seconds - (sent - h800.backward + bucket)) < 1e-3, "%.4f",
          h800.parts[PART_REDUCE].seconds);
    CHECK(h100.parts[PART_REDUCE].seconds < 5e-3, "%.4f", h100.parts[PART_REDUCE].seconds);
}

static void test_head(void) {
    check_begin("the head in chunks: each but the first reads and writes the gradient of its weight once more");
    PlanShape s = paper_shape(gpu_find("h100")->memory);
    PlanChoice c = choose(&s);
    RooflineLoad load = plan_load(&s, &c);
    RooflineRates rates = roofline_rates(gpu_find("h100"), DTYPE_BF16, 0);
    RooflineTimes all, t;
    const double pass = 2.0 * params_head_rows(paper.dec.V) * paper.dec.D * 4;
    CHECK(load.head_chunk == 4096, "%.0f rows on a GPU", load.head_chunk);
    load.head_rows = 7608;
    load.head_chunk = 0;
    roofline_step(&all, &load, &rates);
    for (int chunks = 1; chunks <= 4; chunks++) {
        load.head_chunk = ceil(load.head_rows / chunks);
        roofline_step(&t, &load, &rates);
        double more = t.parts[PART_GRADIENTS].bytes - all.parts[PART_GRADIENTS].bytes;
        CHECK(fabs(more - load.batches * (chunks - 1) * pass) < 1, "%d chunks: %.0f bytes more", chunks, more);
        CHECK(fabs(t.parts[PART_HEAD].flops / all.parts[PART_HEAD].flops - 1) < 1e-12, "%d chunks: FLOPs", chunks);
        CHECK(chunks == 1 ? t.total == all.total : t.total > all.total, "%d chunks: %.4f s", chunks, t.total);
    }

    check_begin("logits share their place with the buffers of the backward passes: few rows of them cost nothing");
    C3Limits l = c.limits;
    size_t bytes[3];
    for (int i = 0; i < 3; i++) {
        l.head_rows = i == 0 ? 1 : i == 1 ? 1024 : 4096;
        bytes[i] = c3_memory(&paper, &paper_params, &l, DTYPE_BF16, 1).activations;
    }
    double longest = 2.0 * ((l.dec_rows + l.dec_outputs) * 2 * 2048 + l.dec_rows * (11008.0 + 2048 + 2560)),
           logits = 2.0 * 4096 * params_head_rows(paper.dec.V);
    CHECK(bytes[1] == bytes[0], "1,024 rows take %zu bytes more than one", bytes[1] - bytes[0]);
    CHECK(fabs((double)(bytes[2] - bytes[0]) - (logits - longest)) < 1000, "%zu instead of %.0f", bytes[2] - bytes[0],
          logits - longest);
}

// ---- the model bends the right way ---------------------------------------------------------------------------------

static void test_monotone(void) {
    check_begin("more rows, fewer fused, a slower memory, link or processor: never a shorter step");
    PlanShape s = paper_shape(0); // all the memory it wants
    s.fuse = 4;
    s.recompute = RECOMPUTE_NONE;
    PlanChoice c = choose(&s);
    RooflineLoad load = plan_load(&s, &c), other;
    RooflineRates rates = roofline_rates(gpu_find("h100"), DTYPE_BF16, 0), slower;
    RooflineTimes t, base;
    roofline_step(&base, &load, &rates);
    double before = 0;
    for (int rows = 1; rows < 20000; rows += rows < 600 ? 1 : 97) {
        other = load;
        for (int i = 0; i < 2; i++) other.stacks[i].rows = rows;
        roofline_step(&t, &other, &rates);
        CHECK(t.total >= before, "%d rows: %.6f after %.6f", rows, t.total, before);
        before = t.total;
    }
    double *const part[] = {&slower.products, &slower.attention.forward, &slower.attention.backward, &slower.bandwidth};
    for (int i = 0; i < 4; i++) {
        slower = rates;
        *part[i] /= 2;
        roofline_step(&t, &load, &slower);
        CHECK(t.total > base.total * 1.01 && t.total < base.total * 2, "rate %d: %.3f", i, t.total);
    }
    before = 0;
    for (double link = 400e9; link > 1e9; link /= 2) {
        slower = rates;
        slower.link = link;
        roofline_step(&t, &load, &slower);
        CHECK(t.total >= before, "link %g: %.3f", link, t.total);
        before = t.total;
    }
    CHECK(before > 2 * base.total, "a slow link is hidden: %.3f", before);
    before = INFINITY;
    for (s.fuse = 1; s.fuse <= 16; s.fuse *= 2) {
        c = choose(&s);
        double total = times_of(&s, &c, "h100", 1).total;
        CHECK(total < before, "fuse %d: %.3f after %.3f", s.fuse, total, before);
        before = total;
    }
    check_begin("recomputing costs: none < cheap < layer; ZeRO 2 costs more than 1; AdamW is divided over the ranks");
    s.fuse = 4;
    before = 0;
    for (s.recompute = RECOMPUTE_NONE; s.recompute <= RECOMPUTE_LAYER; s.recompute++) {
        c = choose(&s);
        double total = times_of(&s, &c, "h100", 1).total;
        CHECK(total > before * 1.01, "mode %d: %.3f after %.3f", s.recompute, total, before);
        before = total;
    }
    other = load;
    other.zero = 2;
    roofline_step(&t, &other, &rates);
    CHECK(t.total > base.total, "%.3f", t.total);
    other = load;
    other.ranks = 16;
    roofline_step(&t, &other, &rates);
    double ratio = base.parts[PART_OPTIMIZER].seconds / t.parts[PART_OPTIMIZER].seconds;
    CHECK(fabs(ratio - 2) < 1e-9, "%.3f", ratio);
    other.zero = 0;
    roofline_step(&t, &other, &rates);
    ratio = t.parts[PART_OPTIMIZER].seconds / base.parts[PART_OPTIMIZER].seconds;
    CHECK(fabs(ratio - MACHINES) < 1e-9, "%.3f", ratio);
}

int main(void) {
    make_paper();
    test_measured();
    test_attention();
    test_paper_time();
    test_head();
    test_monotone();
    params_free(&paper_params);
    return check_done();
}
