// test_optimizer.c: learning-rate schedules, clipping, groups, decay and freezing against a plain AdamW in double
// precision over the tensor table; a gradient that is not finite changes nothing.
#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "llmc/model/cascade.h"
#include "llmc/train/optimizer.h"

static Dist one = {.ranks = 1, .local_ranks = 1, .cores = 1};

static void near(const char *what, double found, double expected) {
    CHECK(fabs(found - expected) <= 1e-12 * (1 + fabs(expected)), "%s: %.17g, expected %.17g", what, found, expected);
}

static void test_schedules(void) {
    OptimizerConfig c = {.lr = 1e-3, .lr_min = 1e-4, .warmup = 10, .steps = 100, .schedule = SCHEDULE_COSINE};
    near("first step", optimizer_lr(&c, 1), 1e-4);
    near("in the warmup", optimizer_lr(&c, 7), 7e-4);
    near("peak", optimizer_lr(&c, 10), 1e-3);
    near("cosine, one step on", optimizer_lr(&c, 11), 1e-4 + 9e-4 * (1 + cos(M_PI * 1 / 91)) / 2);
    near("cosine, last step", optimizer_lr(&c, 100), 1e-4 + 9e-4 * (1 + cos(M_PI * 90 / 91)) / 2);
    CHECK(optimizer_lr(&c, 100) > c.lr_min, "the last update is wasted");
    c.schedule = SCHEDULE_LINEAR;
    near("linear, half way", optimizer_lr(&c, 55), 1e-4 + 9e-4 * (1 - 45.0 / 91));
    c.schedule = SCHEDULE_CONSTANT;
    near("constant", optimizer_lr(&c, 100), 1e-3);
    c.schedule = SCHEDULE_WSD;
    near("wsd, stable", optimizer_lr(&c, 80), 1e-3);
    near("wsd, decay", optimizer_lr(&c, 100), 1e-4 + 9e-4 * (1 - 90.0 / 91) / 0.2);
    c.schedule = SCHEDULE_COSINE;
    c.warmup = 0;
    near("no warmup", optimizer_lr(&c, 1), 1e-4 + 9e-4 * (1 + cos(M_PI / 101)) / 2);
    c.warmup = 1000; // longer than the run
    near("all warmup", optimizer_lr(&c, 100), 1e-4);
}

typedef struct Setup {
    Backend *b;
    C3 m;
    Optimizer o;
} Setup;

static void open_setup(Setup *s, DType dtype, const OptimizerConfig *oc) {
    Error err;
    C3Config c;
    C3Limits l = {.pages = 1, .enc_rows = 64, .dec_rows = 64, .dec_outputs = 32};
    if (config_preset(&c, "demo", 256, &err) != 0 || backend_cpu_create(&s->b, dtype, 1, &one, &err) != 0 ||
        c3_create(&s->m, &c, s->b, &l, &err) != 0 || c3_init_weights(&s->m, 3, 0, &err) != 0 ||
        optimizer_create(&s->o, oc, &s->m.params, s->b, s->m.weights, &s->m.grads, s->m.sums + 1, &err) != 0) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
}

static void close_setup(Setup *s) {
    optimizer_free(&s->o);
    c3_free(&s->m);
    s->b->destroy(s->b);
}

// The gradient of element i at a step: any numbers of either sign.
static float gradient(size_t i, int step) { return 2e-5f * (float)((int)((i * 7 + (size_t)step * 131) % 1009) - 504); }

static void fill_gradients(Setup *s, int step) {
    const ParamTable *t = &s->m.params.table;
    for (int p = 0; p < t->n; p++) {
        for (size_t i = 0; i < t->params[p].count; i++)
            s->m.grads.arena[t->params[p].offset + i] = gradient(i + (size_t)p, step);
    }
}

// The gradient norm of the step.
static double update(Setup *s, int step) {
    double loss, norm;
    for (int i = 0; i < s->m.params.table.n_buckets; i++) optimizer_reduce_bucket(&s->o, i, 0);
    optimizer_step(&s->o, step);
    c3_read_step(&s->m, &loss, &norm);
    return norm;
}

static double step_once(Setup *s, int step) {
    fill_gradients(s, step);
    return update(s, step);
}

// Three steps of AdamW on one tensor in double precision; returns the largest error relative to the learning rate.
static double against_reference(const Setup *s, const Param *p, int index, const float *before, const double *scale) {
    const OptimizerConfig *c = &s->o.config;
    double worst = 0;
    for (size_t i = 0; i < p->count; i++) {
        double x = before[p->offset + i], m = 0, v = 0;
        for (int step = 1; step <= 3; step++) {
            double g = gradient(i + (size_t)index, step) * scale[step],
                   lr = optimizer_lr(c, step) * c->group_scale[p->group];
            m = c->beta1 * m + (1 - c->beta1) * g;
            v = c->beta2 * v + (1 - c->beta2) * g * g;
            if (c->frozen[p->group]) continue;
            x -= lr * (m / (1 - pow(c->beta1, step)) / (sqrt(v / (1 - pow(c->beta2, step))) + c->eps) +
                       (p->decay ? c->weight_decay * x : 0));
        }
        double found = s->o.master ? s->o.master[p->offset + i] : ((const float *)s->m.weights)[p->offset + i];
        worst = fmax(worst, fabs(found - x) / c->lr);
    }
    return worst;
}

static void test_steps(DType dtype) {
    OptimizerConfig oc = {.lr = 1e-2,
                          .beta1 = 0.9,
                          .beta2 = 0.99,
                          .eps = 1e-8,
                          .weight_decay = 0.1,
                          .clip = 0.5,
                          .group_scale = {0.5, 2, 1},
                          .frozen = {0, 0, 0},
                          .warmup = 2,
                          .steps = 10};
    for (int frozen = 0; frozen < 2; frozen++) {
        oc.frozen[GROUP_DECODER] = frozen;
        Setup s;
        open_setup(&s, dtype, &oc);
        const ParamTable *t = &s.m.params.table;
        float *before = malloc(t->total * sizeof *before);
        s.b->cast_to_f32(s.b, before, s.m.weights, t->total);
        double scale[4];
        for (int step = 1; step <= 3; step++) {
            double sum = 0;
            for (int p = 0; p < t->n; p++) {
                for (size_t i = 0; i < t->params[p].count; i++) sum += pow(gradient(i + (size_t)p, step), 2);
            }
            double norm = step_once(&s, step);
            CHECK(fabs(norm / sqrt(sum) - 1) < 1e-6, "norm %g, expected %g", norm, sqrt(sum));
            scale[step] = fmin(1, oc.clip / (sqrt(sum) + 1e-6));
            CHECK(scale[step] < 1, "nothing was clipped");
        }
        for (int p = 0; p < t->n; p++) {
            double worst = against_reference(&s, &t->params[p], p, before, scale);
            CHECK(worst < 1e-3, "%s: off by %.3g of the learning rate", t->params[p].name, worst);
        }
        free(before);
        close_setup(&s);
    }
}

static void test_not_finite(void) {
    OptimizerConfig oc = {.lr = 1e-2,
                          .beta1 = 0.9,
                          .beta2 = 0.99,
                          .eps = 1e-8,
                          .clip = 1,
                          .group_scale = {1, 1, 1},
                          .warmup = 0,
                          .steps = 10};
    Setup s;
    open_setup(&s, DTYPE_BF16, &oc);
    step_once(&s, 1);
    size_t bytes = s.m.params.table.total * 2, state = s.o.state_count * sizeof(float);
    void *weights = malloc(bytes), *m = malloc(state), *master = malloc(state);
    memcpy(weights, s.m.weights, bytes), memcpy(m, s.o.m, state), memcpy(master, s.o.master, state);
    const float bad[] = {NAN, INFINITY};
    for (int i = 0; i < 2; i++) {
        fill_gradients(&s, 2);
        s.m.grads.arena[s.m.params.table.params[s.m.params.table.n - 1].offset] = bad[i];
        double norm = update(&s, 2);
        CHECK(!isfinite(norm), "the norm is %g", norm);
        CHECK(!memcmp(weights, s.m.weights, bytes) && !memcmp(m, s.o.m, state) && !memcmp(master, s.o.master, state),
              "something changed");
    }
    free(weights), free(m), free(master);
    close_setup(&s);
}

int main(void) {
    check_begin("learning-rate schedules");
    test_schedules();
    check_begin("fp32: three steps with clipping, groups, decay, freezing");
    test_steps(DTYPE_F32);
    check_begin("bf16: the same on the master weights");
    test_steps(DTYPE_BF16);
    check_begin("a gradient that is not finite changes nothing");
    test_not_finite();
    return check_done();
}
