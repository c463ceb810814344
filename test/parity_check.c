// parity_check.c: the model against numbers of its PyTorch twin; driven by test_parity.py.
//
//   parity_check DIR    DIR/model, DIR/inputs.safetensors, DIR/expected.safetensors come from dev/reference.py make
//
// fp32: latents, logits, losses, every gradient (in one micro-batch and in one per page), ten optimizer steps. bf16:
// one step. Tolerances are the constants below. Every comparison is tried a second time with an error of three times
// its tolerance put in, and must then fail. What ten steps gave is saved as a checkpoint, DIR/saved and DIR/saved_bf16,
// with its row losses beside it, for the twin to read back.
#include "test/check.h"

#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "llmc/base/alloc.h"
#include "llmc/model/cascade.h"
#include "llmc/train/checkpoint.h"
#include "llmc/base/file.h"
#include "llmc/train/optimizer.h"
#include "llmc/weights/safetensors.h"

// Relative errors are of norms, |found - expected| / |expected|.
static const double LOSS = 1e-5, OUTPUT = 1e-5, GRADIENT = 1e-4, COSINE = 1e-5, UPDATE = 1e-3, NORM = 1e-5;
// bf16: a tensor may be this many times as far from fp32 arithmetic (on the same rounded weights) as PyTorch's is, and
// two splits of a batch as far from each other as PyTorch's are (or as two in fp32 may be: where pages share no row of
// an embedding PyTorch has no spread at all).
static const double BF16 = 2, SPLIT = 1e-6;
enum { STEPS = 10 };

// ---- the case's files ----------------------------------------------------------------------------------------------

typedef struct Case {
    C3Config config;
    SafeTensors *inputs, *expected;
    Template prompt;
    uint32_t *tokens[3]; // context, answer, prompt of their own: ids of all pages
    int *cu[3];          // (pages+1)
    uint32_t *latents;   // (pages) of a window; 0: all
    int pages, a_step;
    double optimizer[11];
    Dist dist;
} Case;

static void must(int bad, const Error *err) {
    if (!bad) return;
    fprintf(stderr, "parity_check: %s\n", err->text);
    exit(2);
}

static char *join(const char *folder, const char *name) {
    char *path = string_format("%s/%s", folder, name);
    if (!path) exit(2);
    return path;
}

static int has(const SafeTensors *s, const char *prefix, const char *name) {
    char *full = string_format("%s%s", prefix, name);
    int found = full && safetensors_find(s, full);
    free(full);
    return found;
}

// A copy of a tensor's bytes; *n elements of `size` bytes.
static void *numbers(const SafeTensors *s, const char *prefix, const char *name, size_t size, size_t *n) {
    char *full = string_format("%s%s", prefix, name);
    const SafeTensor *t = full ? safetensors_find(s, full) : NULL;
    if (!t) {
        fprintf(stderr, "parity_check: %s: no tensor %s%s\n", safetensors_path(s, NULL), prefix, name);
        exit(2);
    }
    void *copy = malloc(t->bytes + 1);
    if (!copy) exit(2);
    memcpy(copy, t->data, t->bytes);
    *n = t->bytes / size;
    free(full);
    return copy;
}

static void open_case(Case *c, const char *folder) {
    Error err;
    size_t n;
    *c = (Case){.dist = {.ranks = 1, .local_ranks = 1, .cores = 1}};
    char *model = join(folder, "model"), *inputs = join(folder, "inputs.safetensors"),
         *expected = join(folder, "expected.safetensors");
    must(config_read_c3(&c->config, model, &err), &err);
    must(safetensors_open(&c->inputs, inputs, &err), &err);
    must(safetensors_open(&c->expected, expected, &err), &err);
    c->tokens[0] = numbers(c->inputs, "", "context", 4, &n);
    c->tokens[1] = numbers(c->inputs, "", "answer", 4, &n);
    c->cu[0] = numbers(c->inputs, "", "context.cu", 4, &n);
    c->cu[1] = numbers(c->inputs, "", "answer.cu", 4, &n);
    c->pages = (int)n - 1;
    c->tokens[2] = numbers(c->inputs, "", "asked", 4, &n);
    c->cu[2] = numbers(c->inputs, "", "asked.cu", 4, &n);
    c->latents = numbers(c->inputs, "", "latents", 4, &n);
    c->a_step = c->pages / STEPS;
    c->prompt.prefix = numbers(c->inputs, "", "prompt.prefix", 4, &n);
    c->prompt.n_prefix = (int)n;
    c->prompt.suffix = numbers(c->inputs, "", "prompt.suffix", 4, &n);
    c->prompt.n_suffix = (int)n;
    c->prompt.ask = numbers(c->inputs, "", "prompt.ask", 4, &n);
    c->prompt.n_ask = (int)n;
    c->prompt.answer = numbers(c->inputs, "", "prompt.answer", 4, &n);
    c->prompt.n_answer = (int)n;
    int32_t *window = numbers(c->inputs, "", "window", 4, &n);
    c->prompt.window = *window;
    c->prompt.edges = calloc((size_t)c->config.enc.V, 1); // no better place for a cut than another
    free(window);
    int32_t *ends = numbers(c->inputs, "", "prompt.end_img", 4, &n);
    c->prompt.end = ends[0];
    c->prompt.img = ends[1];
    double *o = numbers(c->inputs, "", "optimizer", 8, &n);
    memcpy(c->optimizer, o, sizeof c->optimizer);
    free(o);
    free(ends);
    free(model);
    free(inputs);
    free(expected);
}

static void close_case(Case *c) {
    for (int i = 0; i < 3; i++) {
        free(c->tokens[i]);
        free(c->cu[i]);
    }
    free(c->latents);
    template_free(&c->prompt);
    safetensors_close(c->inputs);
    safetensors_close(c->expected);
}

// ---- comparing -----------------------------------------------------------------------------------------------------

typedef struct Distance {
    double relative, one_minus_cosine;
} Distance;

static Distance distance(const float *found, const float *expected, size_t n) {
    double error = 0, ff = 0, ee = 0, fe = 0;
    for (size_t i = 0; i < n; i++) {
        double f = found[i], e = expected[i];
        error += (f - e) * (f - e);
        ff += f * f;
        ee += e * e;
        fe += f * e;
    }
    return (Distance){sqrt(error / ee), 1 - fe / sqrt(ff * ee)};
}

static int within(Distance d, double relative, double cosine) {
    return d.relative <= relative && d.one_minus_cosine <= cosine; // false for NaN
}

// found + an error at right angles to `expected` of `size` times its norm: what the comparison must notice.
static float *with_error(const float *found, const float *expected, size_t n, double size) {
    float *bad = malloc(n * sizeof *bad);
    double ee = 0, re = 0, rr = 0;
    if (!bad) exit(2);
    for (int pass = 0; pass < 2; pass++) {
        uint32_t random = 99;
        if (pass) rr -= re * re / ee;
        for (size_t i = 0; i < n; i++) {
            double r = (double)((random = random * 1664525u + 1013904223u) >> 8) / (1 << 23) - 1, e = expected[i];
            if (pass == 0) {
                ee += e * e;
                re += r * e;
                rr += r * r;
            } else {
                bad[i] = (float)(found[i] + (r - e * re / ee) * size * sqrt(ee / rr));
            }
        }
    }
    return bad;
}

static int injected; // comparisons that were tried with an error put in

// n numbers with name `what`; relative <= tolerance, 1 - cosine <= cosine. Then the same with errors put in.
static Distance compare(const char *what, const char *name, const float *found, const float *expected, size_t n,
                        double tolerance, double cosine) {
    Distance d = distance(found, expected, n);
    CHECK(within(d, tolerance, cosine), "%s %s: relative error %.2e (allowed %.1e), 1 - cosine %.1e (allowed %.0e)",
          what, name, d.relative, tolerance, d.one_minus_cosine, cosine);
    if (n < 3) return d; // no room for an error at right angles
    // an angle whose 1 - cosine is three times what is allowed has the tangent sqrt(2 * 3 * cosine)
    double sizes[2] = {3 * tolerance, sqrt(6 * cosine)};
    for (int i = 0; i < (cosine < 1 ? 2 : 1); i++) {
        float *bad = with_error(found, expected, n, sizes[i]);
        Distance wrong = distance(bad, expected, n);
        int noticed = i == 0 ? !within(wrong, tolerance, INFINITY) : !within(wrong, INFINITY, cosine);
        CHECK(noticed, "%s %s: an error of %.1e is not noticed (found %.1e, 1 - cosine %.1e)", what, name, sizes[i],
              wrong.relative, wrong.one_minus_cosine);
        injected++;
        free(bad);
    }
    return d;
}

static void compare_number(const char *what, double found, double expected, double tolerance) {
    CHECK(fabs(found - expected) <= tolerance * fabs(expected), "%s: expected %.9g, found %.9g", what, expected, found);
    for (int sign = -1; sign <= 1; sign += 2) {
        double bad = expected * (1 + sign * 3 * tolerance);
        CHECK(!(fabs(bad - expected) <= tolerance * fabs(expected)), "%s: an error is not noticed", what);
        injected++;
    }
}

static void full_name(char out[80], const Param *p) {
    snprintf(out, 80, "%s%s", p->owner == OWNER_ENCODER ? "encoder." : "", p->name);
}

// ---- the model -----------------------------------------------------------------------------------------------------

typedef struct Run {
    Backend *b;
    C3 m;
    MicroBatch micro;
    int rows; // supervised rows of the first step
} Run;

static int length(const Case *c, int which, int page) { return c->cu[which][page + 1] - c->cu[which][page]; }

static ShardPage page_of(const Case *c, int p) {
    return (ShardPage){.context = c->tokens[0] + c->cu[0][p],
                       .answer = c->tokens[1] + c->cu[1][p],
                       .prompt = c->tokens[2] + c->cu[2][p],
                       .context_length = (uint32_t)length(c, 0, p),
                       .answer_length = (uint32_t)length(c, 1, p),
                       .prompt_length = (uint32_t)length(c, 2, p),
                       .latents = c->latents[p]};
}

static int supervised(const Case *c, int first, int n) {
    int rows = 0;
    for (int p = first; p < first + n; p++) rows += length(c, 1, p) + 1;
    return rows;
}

static const char *device = "cpu";

static int larger(int a, int b) { return a > b ? a : b; }

static void open_run(Run *r, const Case *c, const char *folder, DType dtype) {
    Error err;
    C3Limits l = {.pages = c->a_step, .recompute = RECOMPUTE_NONE};
    for (int s = 0; s < STEPS; s++) {
        int enc = 0, dec = 0, windows = 0, slots = 0, kept = supervised(c, s * c->a_step, c->a_step);
        for (int p = s * c->a_step; p < (s + 1) * c->a_step; p++) {
            ShardPage page = page_of(c, p);
            BatchRows rows = batch_page_rows(&page, &c->prompt, c->config.latents, UINT32_MAX);
            enc += rows.enc;
            dec += rows.dec;
            windows += rows.windows;
            slots += rows.slots;
        }
        l.enc_rows = larger(enc, l.enc_rows);
        l.dec_rows = larger(dec, l.dec_rows);
        l.windows = larger(windows, l.windows);
        l.slots = larger(slots, l.slots);
        l.dec_outputs = larger(kept, l.dec_outputs);
    }
    l.head_rows = l.dec_outputs; // all logits at once, so that they can be looked at
    memset(r, 0, sizeof *r);
    r->rows = supervised(c, 0, c->a_step);
    must(backend_create(&r->b, device, dtype, 1, (Dist *)&c->dist, NULL, &err), &err);
    must(c3_create(&r->m, &c->config, r->b, &l, &err), &err);
    must(batch_create(&r->micro, r->b, c3_batch_rows(&l), &err), &err);
    char *model = join(folder, "model");
    must(checkpoint_load_weights(r->b, r->m.weights, &r->m.params, &c->config, model, &err), &err);
    free(model);
}

static void close_run(Run *r) {
    batch_free(&r->micro);
    c3_free(&r->m);
    r->b->destroy(r->b);
}

static void build(Run *r, const Case *c, int first, int n, float weight) {
    ShardPage pages[64];
    uint64_t ids[64];
    float weights[64];
    for (int i = 0; i < n; i++) {
        int p = first + i;
        pages[i] = page_of(c, p);
        ids[i] = (uint64_t)p;
        weights[i] = weight;
    }
    batch_build(&r->micro, pages, ids, n, &c->prompt, c->config.latents, UINT32_MAX, weights);
}

// One step's gradients, `per` pages a micro-batch. The mean loss; row losses into losses if not NULL.
static double step_gradients(Run *r, const Case *c, int first, int per, float *losses, void (*ready)(void *, int),
                             void *arg) {
    double loss = 0;
    float weight = 1.0f / (float)supervised(c, first, c->a_step);
    for (int p = 0; p < c->a_step; p += per) {
        int n = c->a_step - p < per ? c->a_step - p : per, last = p + n == c->a_step;
        build(r, c, first + p, n, weight);
        c3_forward_backward(&r->m, &r->micro, p > 0, last ? ready : NULL, arg);
        C3Loss l = c3_read_loss(&r->m, &r->micro);
        loss += l.sum;
        if (losses) memcpy(losses, r->m.host_losses, (size_t)l.rows * sizeof *losses);
        if (losses) losses += l.rows;
    }
    return loss * weight;
}

static float *download(Run *r, const elem_t *from, size_t n) {
    float *host = malloc(n * sizeof *host), *device_f32;
    Error err;
    if (!host) exit(2);
    must(r->b->alloc(r->b, (void **)&device_f32, n * sizeof *host, "a copy", &err), &err);
    r->b->cast_to_f32(r->b, device_f32, from, n);
    r->b->download(r->b, host, device_f32, n * sizeof *host);
    r->b->release(r->b, device_f32);
    return host;
}

static float *download_gradients(Run *r) {
    float *host = malloc(r->m.params.table.total * sizeof *host);
    if (!host) exit(2);
    r->b->download(r->b, host, r->m.grads.arena, r->m.params.table.total * sizeof *host);
    return host;
}

// ---- fp32 ----------------------------------------------------------------------------------------------------------

static void compare_outputs(Run *r, const Case *c) {
    size_t n;
    check_begin("latents, logits, losses of each row");
    build(r, c, 0, c->a_step, 1.0f / (float)r->rows);
    c3_forward(&r->m, &r->micro);
    const size_t latents = (size_t)r->micro.enc.outputs;
    const struct {
        const char *name;
        const elem_t *found;
        size_t rows, width, ld; // rows of logits are padded
    } outputs[] = {
        {"latents", r->m.enc_acts.out, latents, (size_t)c->config.enc.D, (size_t)c->config.enc.D},
        {"logits", r->m.logits, (size_t)r->rows, (size_t)c->config.dec.V, (size_t)params_head_rows(c->config.dec.V)},
    };
    for (int i = 0; i < 2; i++) {
        size_t rows = outputs[i].rows, width = outputs[i].width, ld = outputs[i].ld;
        float *expected = numbers(c->expected, "", outputs[i].name, 4, &n);
        float *mine = download(r, outputs[i].found, rows * ld);
        for (size_t k = 1; k < rows; k++) memmove(mine + k * width, mine + k * ld, width * sizeof *mine);
        CHECK(n == rows * width, "%s: expected %zu numbers, found %zu", outputs[i].name, n, rows * width);
        if (n == rows * width) compare("", outputs[i].name, mine, expected, n, OUTPUT, COSINE);
        free(expected);
        free(mine);
    }
    float *losses = numbers(c->expected, "", "row_losses", 4, &n);
    CHECK(c3_read_loss(&r->m, &r->micro).rows == (int)n, "expected %zu rows", n);
    compare("", "row losses", r->m.host_losses, losses, n, OUTPUT, COSINE);
    free(losses);
}

static void compare_gradients(Run *r, const Case *c, int per, const char *how) {
    double *losses, worst = 0;
    size_t n;
    check_begin(how);
    losses = numbers(c->expected, "", "step_losses", 8, &n);
    compare_number("loss", step_gradients(r, c, 0, per, NULL, NULL, NULL), losses[0], LOSS);
    float *mine = download_gradients(r);
    for (int i = 0; i < r->m.params.table.n; i++) {
        const Param *p = &r->m.params.table.params[i];
        char name[80];
        full_name(name, p);
        float *expected = numbers(c->expected, "grad.", name, 4, &n);
        CHECK(n == p->count, "gradient of %s: expected %zu numbers, found %zu", name, n, p->count);
        if (n == p->count) {
            double error = compare("gradient of", name, mine + p->offset, expected, n, GRADIENT, COSINE).relative;
            worst = error > worst ? error : worst;
        }
        free(expected);
    }
    printf("  largest relative error of %d gradients: %.1e\n", r->m.params.table.n, worst);
    free(mine);
    free(losses);
}

static void bucket_ready(void *arg, int bucket) { optimizer_reduce_bucket(arg, bucket, 0); }

static OptimizerConfig optimizer_config(const Case *c) {
    const double *o = c->optimizer; // in the order of OPTIMIZER in dev/reference.py
    return (OptimizerConfig){.lr = o[0],
                             .lr_min = o[1],
                             .beta1 = o[2],
                             .beta2 = o[3],
                             .eps = o[4],
                             .weight_decay = o[5],
                             .clip = o[6],
                             .warmup = (int64_t)o[7],
                             .steps = (int64_t)o[8],
                             .group_scale = {o[9], o[10], 1.0},
                             .schedule = SCHEDULE_COSINE};
}

static void compare_steps(Run *r, const Case *c) {
    Error err;
    size_t n;
    double *losses = numbers(c->expected, "", "step_losses", 8, &n), worst = 0,
           *norms = numbers(c->expected, "", "grad_norms", 8, &n), *rates = numbers(c->expected, "", "rates", 8, &n);
    OptimizerConfig config = optimizer_config(c);
    Optimizer o;
    check_begin("ten optimizer steps: losses, norms, rates, updates of the parameters");
    must(optimizer_create(&o, &config, &r->m.params, r->b, r->m.weights, &r->m.grads, r->m.sums + 1, &err), &err);
    optimizer_reset(&o);
    float *before = download(r, r->m.weights, r->m.params.table.total);
    for (int s = 0; s < STEPS; s++) {
        double loss = step_gradients(r, c, s * c->a_step, s % 2 ? 1 : c->a_step, NULL, bucket_ready, &o);
        double rate = optimizer_step(&o, s + 1), sum, norm;
        c3_read_step(&r->m, &sum, &norm);
        compare_number("loss", loss, losses[s], LOSS);
        compare_number("gradient norm", norm, norms[s], NORM);
        compare_number("rate", rate, rates[s], 1e-12);
    }
    float *after = download(r, r->m.weights, r->m.params.table.total);
    for (size_t i = 0; i < r->m.params.table.total; i++) after[i] -= before[i];
    for (int i = 0; i < r->m.params.table.n; i++) {
        const Param *p = &r->m.params.table.params[i];
        char name[80];
        full_name(name, p);
        float *expected = numbers(c->expected, "update.", name, 4, &n);
        double error = compare("update of", name, after + p->offset, expected, n, UPDATE, COSINE).relative;
        worst = error > worst ? error : worst;
        free(expected);
    }
    printf("  largest relative error of %d updates: %.1e\n", r->m.params.table.n, worst);
    optimizer_free(&o);
    free(before);
    free(after);
    free(losses);
    free(norms);
    free(rates);
}

// ---- for the twin to read back -------------------------------------------------------------------------------------

static void save(Run *r, const Case *c, const char *folder, const char *name) {
    Error err;
    char *saved = join(folder, name), *losses_path = string_format("%s/%s_losses.safetensors", folder, name);
    SafeWriter *w;
    build(r, c, 0, c->a_step, 1.0f / (float)r->rows);
    c3_forward(&r->m, &r->micro);
    c3_read_loss(&r->m, &r->micro);
    SafeEntry entry = {"row_losses", DTYPE_F32, 1, {r->rows}};
    C3Config config = c->config;
    config.dtype = r->b->dtype;
    must(!losses_path || mkdir(saved, 0777), &(Error){"cannot make the folder of the saved checkpoint"});
    FileSum sums[2];
    must(weights_save(r->b, r->m.weights, &r->m.params, &config, saved, sums, &err), &err);
    must(safetensors_writer_open(&w, losses_path, &entry, 1, NULL, 0, &err), &err);
    must(safetensors_writer_data(w, r->m.host_losses, (size_t)r->rows * 4, &err), &err);
    must(safetensors_writer_commit(w, &err), &err);
    free(saved);
    free(losses_path);
}

// ---- bf16 ----------------------------------------------------------------------------------------------------------

static double one_number(const Case *c, const char *prefix, const char *name) {
    size_t n;
    float *p = numbers(c->expected, prefix, name, 4, &n);
    double value = n == 1 ? p[0] : NAN;
    free(p);
    return value;
}

static void compare_bf16(Run *r, const Case *c) {
    size_t n;
    float *losses = malloc((size_t)r->rows * sizeof *losses), *expected;
    double worst[2] = {0, 0};
    check_begin("bf16: losses and gradients no further from fp32 arithmetic than twice PyTorch's");
    step_gradients(r, c, 0, c->a_step, losses, NULL, NULL);
    float *whole = download_gradients(r);
    expected = numbers(c->expected, "", "bf16.row_losses", 4, &n);
    compare("bf16", "row losses", losses, expected, n, BF16 * one_number(c, "", "bf16.loss_error"), 1);
    free(expected);
    step_gradients(r, c, 0, (c->a_step + 1) / 2, losses, NULL, NULL);
    float *halves = download_gradients(r);
    for (int i = 0; i < r->m.params.table.n; i++) {
        const Param *p = &r->m.params.table.params[i];
        char name[80];
        full_name(name, p);
        double allowed[2] = {one_number(c, "bf16.error.", name), one_number(c, "bf16.spread.", name)};
        expected = numbers(c->expected, "bf16.grad.", name, 4, &n);
        Distance d[2];
        d[0] = compare("bf16 gradient of", name, whole + p->offset, expected, n, BF16 * allowed[0], 1);
        d[1] = compare("two splits: gradient of", name, halves + p->offset, whole + p->offset, n,
                       fmax(BF16 * allowed[1], SPLIT), 1);
        for (int k = 0; k < 2; k++) worst[k] = fmax(worst[k], d[k].relative / fmax(allowed[k], k ? SPLIT : 0));
        free(expected);
    }
    printf("  largest error of a gradient: %.2f of PyTorch's; between two splits: %.2f of PyTorch's\n", worst[0],
           worst[1]);
    free(losses);
    free(whole);
    free(halves);
}

int main(int argc, char **argv) {
    Case c;
    Run r;
    if (argc != 2 && argc != 3) {
        fprintf(stderr, "usage: parity_check DIR [cpu|cuda] (see dev/reference.py make)\n");
        return 2;
    }
    if (argc == 3) device = argv[2];
    open_case(&c, argv[1]);
    open_run(&r, &c, argv[1], DTYPE_F32);
    check_begin("the twin has the tensors of the table");
    for (int i = 0; i < r.m.params.table.n; i++) {
        char name[80];
        full_name(name, &r.m.params.table.params[i]);
        CHECK(has(c.expected, "grad.", name), "no gradient of %s", name);
    }
    compare_outputs(&r, &c);
    compare_gradients(&r, &c, c.a_step, "loss and gradients, one micro-batch");
    compare_gradients(&r, &c, 1, "loss and gradients, a micro-batch for each page");
    compare_steps(&r, &c);
    save(&r, &c, argv[1], "saved");
    close_run(&r);
    open_run(&r, &c, argv[1], DTYPE_BF16);
    compare_bf16(&r, &c);
    save(&r, &c, argv[1], "saved_bf16");
    close_run(&r);
    close_case(&c);
    printf("%d errors put in on purpose\n", injected);
    return check_done();
}
