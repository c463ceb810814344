// test_plan.c: the plan of a run. The roofline must reproduce public measurements before it may predict; then the
// paper's run; then what is chosen for how much memory, and what is said when there is too little.
#include <math.h>
#include <stdlib.h>

#include "llmc/train/plan.h"
#include "test/check.h"

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

enum { MACHINES = 8, TOKENS = 950 };
static C3Config paper;
static C3Params paper_params; // for 8 ranks

static PlanShape paper_shape(double memory) {
    const Gpu *h100 = gpu_find("h100");
    return (PlanShape){.config = &paper,
                       .params = &paper_params,
                       .longest = {1, TOKENS + 33, TOKENS + 64, TOKENS + 1},
                       .enc = TOKENS + 33,
                       .dec = TOKENS + 64,
                       .outputs = TOKENS + 1,
                       .b = 2,
                       .g = 16,
                       .ranks = MACHINES,
                       .zero = 1,
                       .dtype = DTYPE_BF16,
                       .is_gpu = 1,
                       .gpu = h100,
                       .recompute = -1,
                       .memory = (size_t)memory,
                       .reserve = plan_reserve((size_t)memory, 1)};
}

static PlanChoice choose(const PlanShape *s) {
    PlanChoice c = {0};
    Error err = {""};
    CHECK(plan_choose(&c, s, &err) == 0, "%s", err.text);
    return c;
}

static RooflineTimes times_of(const PlanShape *s, const PlanChoice *c, const char *gpu, double faster) {
    RooflineLoad l = plan_load(s, c);
    RooflineRates r = roofline_rates(gpu_find(gpu), s->dtype, 0);
    RooflineTimes t;
    r.products *= faster;
    roofline_step(&t, &l, &r);
    return t;
}

static void test_paper_memory(void) {
    check_begin("paper's run, a rank of 8: bf16 weights 9.3 GB, fp32 gradients 18.5, optimizer 6.9");
    PlanShape s = paper_shape(gpu_find("h100")->memory);
    s.fuse = 1;
    s.recompute = RECOMPUTE_NONE;
    PlanChoice c = choose(&s);
    CHECK(fabs((double)c.bytes.parameters / 1e9 - 9.3) < 0.05, "%zu", c.bytes.parameters);
    CHECK(fabs((double)c.bytes.gradients / 1e9 - 18.5) < 0.05, "%zu", c.bytes.gradients);
    CHECK(fabs((double)c.bytes.optimizer / 1e9 - 6.9) < 0.1, "%zu", c.bytes.optimizer);
    check_begin("paper's run, -b 2 -g 16 without recompute or fusing: more than 10 GB to spare of an H100");
    double spare = (double)c.bytes.memory - (double)c.bytes.reserve - (double)c.bytes.total;
    printf("  total %.1f GB, spare beyond the reserve %.1f GB\n", (double)c.bytes.total / 1e9, spare / 1e9);
    CHECK(c.limits.recompute == RECOMPUTE_NONE && c.batches == 16 && spare > 10e9, "spare %.1f GB", spare / 1e9);
    check_begin("activations of two pages: 2.05 MB a row of the encoder, 3.30 of the decoder, within 10 %");
    double rows = 2 * (2.05e6 * (TOKENS + 33) + 3.30e6 * (TOKENS + 64)); // the design's arithmetic
    double logits = 1902.0 * 151936 * 2;
    CHECK(fabs((double)c.bytes.activations - logits - rows) < 0.1 * rows, "%zu against %.0f", c.bytes.activations,
          rows + logits);
}

static void test_paper_time(void) {
    check_begin("paper's run on 8 x H100: the plan's FLOPs are c3_page_flops', ideal 0.87 s");
    PlanShape s = paper_shape(gpu_find("h100")->memory);
    PlanChoice c = choose(&s);
    RooflineTimes t = times_of(&s, &c, "h100", 1);
    C3Flops f = c3_page_flops(&paper, TOKENS, 64, 1);
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

// ---- choices -------------------------------------------------------------------------------------------------------

static void check_choice(const PlanShape *s, const PlanChoice *c) {
    const C3Limits *l = &c->limits;
    CHECK(s->memory == 0 || c->bytes.total + s->reserve <= s->memory, "%zu of %zu", c->bytes.total, s->memory);
    CHECK(l->enc_rows >= s->longest.enc && l->dec_rows >= s->longest.dec && l->dec_outputs >= s->longest.outputs,
          "no room for the longest page: %d %d %d", l->enc_rows, l->dec_rows, l->dec_outputs);
    if (c->fuse) CHECK(c->fuse <= s->g && l->pages == c->fuse * s->b, "fuse %d, pages %d", c->fuse, l->pages);
    else CHECK(s->is_gpu && !s->fuse && l->pages >= 1 && l->pages <= s->b * s->g, "%d pages at a time", l->pages);
    CHECK(l->dec_rows <= (int64_t)l->pages * s->longest.dec, "%d rows for %d pages", l->dec_rows, l->pages);
    CHECK(l->loss_rows == s->b * s->g * s->longest.outputs && l->zero == s->zero, "loss rows %d, zero %d", l->loss_rows,
          l->zero);
}

static void test_budgets(void) {
    static const struct {
        double memory;
        Recompute mode;
        double batches;
    } expected[] = {{0, RECOMPUTE_NONE, 1},       {300e9, RECOMPUTE_NONE, 1}, {130e9, RECOMPUTE_NONE, 2},
                    {84.9e9, RECOMPUTE_NONE, 4},  {79e9, RECOMPUTE_NONE, 5},  {71e9, RECOMPUTE_CHEAP, 4},
                    {62e9, RECOMPUTE_NONE, 8},    {57e9, RECOMPUTE_CHEAP, 8}, {52e9, RECOMPUTE_CHEAP, 11},
                    {45.5e9, RECOMPUTE_LAYER, 3}, {41e9, RECOMPUTE_LAYER, 8}, {39e9, RECOMPUTE_LAYER, 32}};
    check_begin("what is kept, and how many pages are computed at a time, by memory");
    double before = 0;
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        PlanShape s = paper_shape(expected[i].memory);
        PlanChoice c = choose(&s);
        double seconds = times_of(&s, &c, "h100", 1).total;
        printf("  %6.1f GB: recompute %d, %2.0f device batches, %.1f GB used, %.3f s\n", expected[i].memory / 1e9,
               c.limits.recompute, c.batches, (double)c.bytes.total / 1e9, seconds);
        CHECK(c.limits.recompute == expected[i].mode && c.batches == expected[i].batches,
              "%.1f GB: mode %d, %.0f batches", expected[i].memory / 1e9, c.limits.recompute, c.batches);
        CHECK(seconds >= before - 1e-12, "less memory, faster: %.3f after %.3f", seconds, before);
        check_choice(&s, &c);
        before = seconds;
    }
}

static void test_best(void) {
    check_begin("no mode and no -fuse that fits is predicted to be faster than the choice; the same twice");
    for (int i = 0; i < 24; i++) {
        PlanShape s = paper_shape((40 + 3.5 * i) * 1e9);
        if (i % 2) s.longest = (BatchRows){1, 3033, 3064, 3001}; // pages of very different lengths
        PlanChoice c = {0}, again = {0};
        Error err = {""};
        if (plan_choose(&c, &s, &err) != 0) {
            CHECK(s.memory < 48e9, "%zu bytes: %s", s.memory, err.text);
            continue;
        }
        check_choice(&s, &c);
        CHECK(plan_choose(&again, &s, &err) == 0 && memcmp(&again.limits, &c.limits, sizeof c.limits) == 0, "differs");
        double best = times_of(&s, &c, "h100", 1).total;
        for (int trial = 0; trial < 3 * 16; trial++) {
            PlanShape given = s;
            given.recompute = trial / 16;
            given.fuse = 1 + trial % 16;
            if (plan_choose(&again, &given, &err) != 0) continue;
            check_choice(&given, &again);
            CHECK((int)again.limits.recompute == given.recompute && again.fuse == given.fuse, "not what was asked for");
            double other = times_of(&given, &again, "h100", 1).total;
            CHECK(other >= best - 1e-12, "%zu bytes: mode %d, fuse %d takes %.4f s, the choice %.4f", s.memory,
                  given.recompute, given.fuse, other, best);
        }
    }
}

static void test_cpu(void) {
    check_begin("on a CPU: micro-batches as they are; recomputed only when memory is short; split when it is shorter");
    PlanShape s = paper_shape(0);
    s.is_gpu = 0;
    s.gpu = NULL;
    s.reserve = 0;
    PlanChoice c = choose(&s);
    CHECK(c.fuse == 1 && c.batches == 16 && c.limits.recompute == RECOMPUTE_NONE && c.bytes.scratch == 0, "fuse %d",
          c.fuse);
    CHECK(c.limits.dec_rows == 2 * s.longest.dec && c.limits.enc_rows == 2 * s.longest.enc, "%d", c.limits.dec_rows);
    int before = RECOMPUTE_NONE, seen[3] = {0}, split = 0;
    for (size_t memory = c.bytes.total; memory > 30000000000u; memory -= 500000000u) {
        Error err = {""};
        s.memory = memory;
        if (plan_choose(&c, &s, &err) != 0) break;
        check_choice(&s, &c);
        CHECK((int)c.limits.recompute >= before, "less memory, less recomputed");
        CHECK(c.batches == 16 || c.limits.recompute == RECOMPUTE_LAYER, "split before recomputing");
        before = (int)c.limits.recompute;
        seen[before] = 1;
        split |= c.batches > 16;
    }
    CHECK(seen[0] && seen[1] && seen[2] && split, "%d %d %d, split %d", seen[0], seen[1], seen[2], split);
    s.memory = 0;
    s.fuse = 4;
    c = choose(&s);
    CHECK(c.fuse == 4 && c.batches == 4 && c.limits.dec_rows == 8 * s.longest.dec, "-fuse 4: %d", c.limits.dec_rows);
    s.fuse = 60000;
    c = choose(&s);
    CHECK(c.fuse == 16 && c.batches == 1, "-fuse beyond -g: %d", c.fuse);
}

static void test_short_pages(void) {
    check_begin(
        "a batch is bounded by rows: with short pages and one long one it takes more micro-batches than long pages");
    PlanShape s = paper_shape(60e9);
    PlanChoice uniform = choose(&s);
    s.longest = (BatchRows){1, 4033, 4064, 4001};
    PlanChoice mixed = choose(&s);
    CHECK(mixed.limits.dec_rows >= 4064 && mixed.limits.dec_rows < 2 * 4064, "%d rows", mixed.limits.dec_rows);
    CHECK(mixed.batches <= 2 * uniform.batches && mixed.batches < 16, "%.0f batches, uniform pages %.0f", mixed.batches,
          uniform.batches);
}

// ---- refusals ------------------------------------------------------------------------------------------------------

static double number_behind(const char *text, const char *words) { // bytes of "WORDS 12.3 GB"; -1: not there
    const char *at = strstr(text, words);
    double n;
    char unit[3];
    if (!at || sscanf(at + strlen(words), " %lf %2s", &n, unit) != 2) return -1;
    return n * (unit[0] == 'G' ? 1e9 : unit[0] == 'M' ? 1e6 : unit[0] == 'K' ? 1e3 : 1);
}

// Hints in the order of what they help: those that are enough first, and of these and of the others what saves most.
static void check_hints(const char *text, int expected) {
    double before = INFINITY;
    int n = 0, was_enough = 1;
    for (const char *at = text; (at = strstr(at, " save")); n++) {
        const char *number = at += strspn(at, " saves"), *end = number + strcspn(number, ",)");
        double saved = number_behind(number, "");
        int enough = strncmp(end - strlen(" (enough"), " (enough", strlen(" (enough")) == 0;
        CHECK(enough <= was_enough && (enough != was_enough || saved <= before), "order: %s", text);
        was_enough = enough;
        before = saved;
    }
    CHECK(n == expected, "%d hints: %s", n, text);
}

static void test_refusal(void) {
    check_begin("too little memory: kinds, what there is, and how much each option saves");
    PlanShape s = paper_shape(46e9), changed = s;
    s.recompute = RECOMPUTE_NONE;
    s.zero = 0;
    PlanChoice c;
    Error err = {""};
    CHECK(plan_choose(&c, &s, &err) == -1, "accepted");
    printf("  %s\n", err.text);
    static const char *const words[] = {"parameters 9.3 GB", "gradients 18.5 GB", "optimizer 55.6 GB",
                                        "there are 46.0 GB", "reserve"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) CHECK(strstr(err.text, words[i]), "no '%s'", words[i]);
    changed.memory = 0;
    changed.fuse = 1;
    changed.b = 1;
    double all[3][3];
    for (changed.zero = 0; changed.zero <= 2; changed.zero++) {
        for (changed.recompute = 0; changed.recompute <= 2; changed.recompute++) {
            PlanChoice one = choose(&changed);
            all[changed.zero][changed.recompute] = (double)one.bytes.total;
        }
    }
    const struct {
        const char *words;
        double saved;
    } hints[] = {{"-recompute cheap saves", all[0][0] - all[0][1]},
                 {"-recompute layer saves", all[0][0] - all[0][2]},
                 {"-zero 1 saves", all[0][0] - all[1][0]},
                 {"-zero 2 saves", all[0][0] - all[2][0]}};
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++) {
        double told = number_behind(err.text, hints[i].words);
        CHECK(fabs(told - hints[i].saved) < 0.06e9, "%s: %.3g told, %.3g true", hints[i].words, told, hints[i].saved);
    }
    CHECK(number_behind(err.text, "-maxlen 540 saves") > 1e9, "-maxlen");
    check_hints(err.text, 5);
    CHECK(strstr(err.text, "-zero 1 saves 48.6 GB (enough)") || !strstr(err.text, "-zero 1 saves 48.6 GB,"), "enough");

    check_begin("the option that is told to be enough is enough, the others are not");
    s.zero = 1;
    CHECK(plan_choose(&c, &s, &err) == (all[1][0] + (double)s.reserve <= (double)s.memory ? 0 : -1), "-zero 1");
    s.zero = 0;
    s.recompute = RECOMPUTE_LAYER;
    CHECK(plan_choose(&c, &s, &err) == -1 && !strstr(err.text, "-recompute") && strstr(err.text, "-zero 1"), "%s",
          err.text);
    s = paper_shape(4e9);
    s.ranks = 1;
    CHECK(plan_choose(&c, &s, &err) == -1 && !strstr(err.text, "-zero") && !strstr(err.text, "enough"), "%s", err.text);
    s.zero = 0;
    s.recompute = RECOMPUTE_LAYER;
    CHECK(plan_choose(&c, &s, &err) == -1 && strstr(err.text, "(hint: 8 ranks save 48.6 GB)"), "%s", err.text);
    s.memory = 85000000000u;
    CHECK(plan_choose(&c, &s, &err) == -1 && strstr(err.text, "(hint: 2 ranks save 27.8 GB (enough))"), "%s", err.text);
    s.is_gpu = 0; // cores share the memory
    CHECK(plan_choose(&c, &s, &err) == -1 && !strstr(err.text, "ranks save"), "%s", err.text);
    s.b = s.g = 65536;
    s.memory = 0;
    CHECK(plan_choose(&c, &s, &err) == -1 && strstr(err.text, "-b 65536 x -g 65536"), "%s", err.text);
}

// ---- names, options, the whole report ------------------------------------------------------------------------------

static void test_gpus(void) {
    static const struct {
        const char *name, *found;
    } names[] = {{"h100", "h100"},
                 {"NVIDIA H100 80GB HBM3", "h100"},
                 {"NVIDIA H800", "h800"},
                 {"NVIDIA H200", "h200"},
                 {"NVIDIA A100-SXM4-80GB", "a100"},
                 {"NVIDIA B200", "b200"},
                 {"NVIDIA GeForce RTX 4090", "4090"},
                 {"cuda NVIDIA H100 80GB HBM3", "h100"},
                 {"NVIDIA H100 PCIe", NULL},
                 {"NVIDIA H100 NVL", NULL},
                 {"NVIDIA GH200 480GB", NULL},
                 {"NVIDIA GB200", NULL},
                 {"NVIDIA A100-SXM4-40GB", NULL},
                 {"NVIDIA GeForce RTX 4090 Laptop GPU", NULL},
                 {"NVIDIA GeForce RTX 3090", NULL},
                 {"", NULL},
                 {NULL, NULL}};
    check_begin("GPUs by short name and by the driver's; variants with another data sheet are unknown");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const Gpu *g = gpu_find(names[i].name);
        CHECK(names[i].found ? g && strcmp(g->name, names[i].found) == 0 : !g, "%s: %s", names[i].name,
              g ? g->name : "unknown");
    }
    RooflineRates r = roofline_rates(gpu_find("h100"), DTYPE_BF16, 123e12),
                  s = roofline_rates(gpu_find("h100"), DTYPE_BF16, 0);
    CHECK(fabs(r.products - 0.7 / 0.8 * 123e12) < 1e9 && s.products > 500e12 && s.products < 989e12,
          "measured %g, else %g", r.products, s.products);
}

static int parsed(TrainOptions *o, const char *line, Error *err) {
    static char words[512];
    char *argv[32] = {words};
    int argc = 1, help;
    OptionTable table = {.n = 0};
    options_table(o, &table);
    snprintf(words, sizeof words, "train_c3 %s", line);
    for (char *w = strtok(words, " "); w; w = strtok(NULL, " ")) argv[w == words ? 0 : argc++] = w;
    TRY(cli_parse(&table, argc, argv, NULL, NULL, &help, err));
    return options_check(o, err);
}

static void test_options(void) {
    check_begin("-fuse, -recompute, -zero: auto by default, numbers checked, ZeRO 2 of one rank is 1");
    TrainOptions o;
    Error err = {""};
    CHECK(parsed(&o, "", &err) == 0 && options_fuse(&o) == 0 && options_recompute(&o) == -1, "%s", err.text);
    CHECK(options_zero(&o, 1) == 0 && options_zero(&o, 8) == 1, "-zero auto");
    CHECK(parsed(&o, "-fuse 3 -zero 2 -recompute layer", &err) == 0 && options_fuse(&o) == 3, "%s", err.text);
    CHECK(options_zero(&o, 1) == 1 && options_zero(&o, 2) == 2 && options_recompute(&o) == RECOMPUTE_LAYER, "-zero 2");
    static const char *const wrong[] = {
        "-fuse 0", "-fuse x3",  "-fuse 3x",      "-fuse -1",         "-fuse 99999999999999999999",
        "-fuse=",  "-gpu h100", "-plan_ranks 4", "-gpu h100x -plan", "-recompute some"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK(parsed(&o, wrong[i], &err) == -1, "%s was accepted", wrong[i]);
}

static char *report_on(const PlanMachine *machine, const char *line, int *bad, Error *err) {
    TrainOptions o;
    char *text = NULL;
    size_t size;
    Dist one = {.ranks = 1, .local_ranks = 1, .cores = 1};
    FILE *out = open_memstream(&text, &size);
    *bad = parsed(&o, line, err) != 0 || plan_run(out, &o, &one, machine, err) != 0;
    fclose(out);
    return text;
}

static char *report_of(const char *line, int *bad, Error *err) { return report_on(NULL, line, bad, err); }

static void test_report(void) {
    check_begin("-plan without GPU, models and data says what it assumes and that it predicts");
    Error err = {""};
    int bad;
    char *text = report_of("-preset paper -plan -gpu h100 -plan_ranks 8 -o nowhere/at/all", &bad, &err);
    static const char *const words[] = {"assumed, no data was read: 950 text tokens",
                                        "-b 2 x -g 16 x 8 ranks",
                                        "4,632,694,272",
                                        "9.3 GB   bf16",
                                        "18.5 GB   fp32",
                                        "predicted, not measured",
                                        "products of the decoder",
                                        "fitted",
                                        "multiprocessors for NCCL",
                                        "reduce-scatter"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) CHECK(strstr(text, words[i]), "no '%s'", words[i]);
    CHECK(!bad && strstr(text, "MFU 5") && strstr(text, " h\n"), "%s\n%s", err.text, text);
    // the largest term first
    const char *decoder = strstr(text, "products of the decoder"), *attention = strstr(text, "\n  attention"),
               *adamw = strstr(text, "AdamW, norm");
    CHECK(decoder && attention && adamw && decoder < attention && attention < adamw, "order");
    free(text);
    text = report_of("-preset paper -plan -gpu b200 -plan_ranks 8", &bad, &err);
    CHECK(!bad && strstr(text, "not modelled   B200") && !strstr(text, "predicted") && strstr(text, "spare"), "%s",
          text);
    free(text);
    text = report_of("-preset paper -plan -gpu h100 -plan_ranks 8 -plan_tokens 475", &bad, &err);
    CHECK(!bad && strstr(text, "475 text tokens each"), "%s", err.text);
    free(text);
    text = report_of("-preset tiny -plan", &bad, &err);
    CHECK(!bad && strstr(text, "n/a") && !strstr(text, "predicted"), "a CPU: %s\n%s", err.text, text);
    free(text);
    text = report_of("-preset tiny -plan -gpu h100 -steps 3", &bad, &err);
    CHECK(!bad && strstr(text, "3 steps in under 1 s\n") && !strstr(text, " 0.00 s"), "a short run: %s", text);
    free(text);
    text = report_of("-preset tiny -plan -gpu measured", &bad, &err);
    CHECK(bad && strstr(err.text, "measured"), "no GPU: %s", err.text);
    free(text);
    text = report_of("-preset tiny -plan -gpu h100 -data nowhere/*.bin", &bad, &err);
    CHECK(bad && strstr(err.text, "nowhere"), "data that was named must be there: %s", err.text);
    free(text);
}

static void test_small_machine(void) {
    check_begin("a plan that does not fit is printed all the same; it is an error where -gpu asked for that machine");
    const PlanMachine small = {.name = "small", .memory = 16000000000u};
    const char *row, *here;
    Error err = {""};
    int bad;
    char *text = report_on(&small, "-preset paper -plan", &bad, &err);
    CHECK(!bad && strstr(text, "all kept") && strstr(text, "work of a step"), "%s\n%s", err.text, text);
    CHECK((row = strstr(text, "\n  short ")) && strstr(row, "GB   of 16.0 GB") && !strstr(text, "spare"), "%s", text);
    CHECK((here = strstr(text, "\nhere this does not fit: memory: a rank needs")) && strstr(here, "-gpu h100"), "%s",
          text);
    free(text);
    text = report_on(&small, "-preset tiny -plan", &bad, &err);
    CHECK(!bad && strstr(text, "spare") && !strstr(text, "does not fit"), "what fits: %s", text);
    free(text);
    text = report_on(&small, "-preset paper -plan -gpu 4090", &bad, &err);
    CHECK(bad && strstr(err.text, "memory: a rank needs") && strstr(err.text, "8 ranks save"), "%s", err.text);
    CHECK(strstr(text, "\n  short ") && strstr(text, "predicted, not measured"), "%s", text);
    free(text);

    check_begin("memory that a GPU has given away already is part of the reserve, not added to it");
    PlanMachine h100 = {.is_gpu = 1, .name = "NVIDIA H100 80GB HBM3", .memory = 84900000000u, .used = 600000000};
    const char *const line = "-preset paper -plan -plan_ranks 8";
    char *sheet = report_of("-preset paper -plan -plan_ranks 8 -gpu h100", &bad, &err);
    text = report_on(&h100, line, &bad, &err);
    CHECK((row = strstr(text, "\n  fused ")) && strstr(sheet, row = strndup(row, strcspn(row + 1, "\n") + 1)), "%s\n%s",
          row, sheet);
    free((char *)row);
    free(text);
    h100.used = 40000000000u; // another program's
    text = report_on(&h100, line, &bad, &err);
    CHECK((row = strstr(text, "\n  fused ")) && !strstr(sheet, row = strndup(row, strcspn(row + 1, "\n") + 1)), "%s",
          text);
    free((char *)row);
    free(text);
    free(sheet);

    check_begin("pages that -maxlen would leave out are not planned with");
    text = report_of("-preset paper -plan -gpu h100 -plan_ranks 8 -plan_tokens 9000", &bad, &err);
    CHECK(bad && strstr(err.text, "-plan_tokens 9000: such a page is a decoder sequence of 9065, -maxlen is 8192"),
          "%s", err.text);
    free(text);
    text = report_of("-preset paper -plan -gpu h100 -plan_ranks 8 -plan_longest 8128", &bad, &err);
    CHECK(bad && strstr(err.text, "-plan_longest 8128") && strstr(err.text, "hint: -maxlen 8193"), "%s", err.text);
    free(text);
    text = report_of("-preset paper -plan -gpu h100 -plan_ranks 8 -plan_longest 8128 -maxlen 8193", &bad, &err);
    CHECK(!bad, "%s", err.text);
    free(text);
}

static void test_disk(void) {
    check_begin("a checkpoint that does not fit on the disk is refused at the start");
    TrainOptions o = {.out = "build/some/run"};
    Plan p = {.o = &o, .choice = {.bytes = {.checkpoint = 1}}};
    Error err = {""};
    CHECK(plan_check_disk(&p, &err) == 0, "%s", err.text);
    p.choice.bytes.checkpoint = (uint64_t)1 << 60;
    CHECK(plan_check_disk(&p, &err) == -1 && strstr(err.text, "build/some/run: a checkpoint takes"), "%s", err.text);
    o.out = "/";
    CHECK(plan_check_disk(&p, &err) == -1, "/");
    o.out = "run";
    CHECK(plan_check_disk(&p, &err) == -1, "run");
}

int main(void) {
    Error err;
    if (config_preset(&paper, "paper", 0, &err) != 0 || params_build(&paper_params, &paper, MACHINES, &err) != 0)
        return fprintf(stderr, "%s\n", err.text), 2;
    test_measured();
    test_attention();
    test_paper_memory();
    test_paper_time();
    test_head();
    test_monotone();
    test_budgets();
    test_best();
    test_cpu();
    test_short_pages();
    test_refusal();
    test_gpus();
    test_options();
    test_report();
    test_small_machine();
    test_disk();
    params_free(&paper_params);
    return check_done();
}
