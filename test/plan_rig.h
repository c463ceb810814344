// plan_rig.h: the paper's run as test_plan.c and test_roofline.c plan it: preset paper, 8 ranks, pages of 950 tokens.
#ifndef TEST_PLAN_RIG_H
#define TEST_PLAN_RIG_H

#include <math.h>
#include <stdlib.h>

#include "llmc/train/plan.h"
#include "test/check.h"

enum { MACHINES = 8, TOKENS = 950 };
static C3Config paper;
static C3Params paper_params; // for 8 ranks

static inline PlanShape paper_shape(double memory) {
    const Gpu *h100 = gpu_find("h100");
    return (PlanShape){.config = &paper,
                       .params = &paper_params,
                       .longest = {1, TOKENS + 33, TOKENS + 64, TOKENS + 1},
                       .enc = TOKENS + 33,
                       .dec = TOKENS + 64,
                       .outputs = TOKENS + 1,
                       .latents = 32,
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

static inline PlanChoice choose(const PlanShape *s) {
    PlanChoice c = {0};
    Error err = {""};
    CHECK(plan_choose(&c, s, &err) == 0, "%s", err.text);
    return c;
}

static inline RooflineTimes times_of(const PlanShape *s, const PlanChoice *c, const char *gpu, double faster) {
    RooflineLoad l = plan_load(s, c);
    RooflineRates r = roofline_rates(gpu_find(gpu), s->dtype, 0);
    RooflineTimes t;
    r.products *= faster;
    roofline_step(&t, &l, &r);
    return t;
}

static inline void make_paper(void) {
    Error err;
    if (config_preset(&paper, "paper", 0, &err) == 0 && params_build(&paper_params, &paper, MACHINES, &err) == 0)
        return;
    fprintf(stderr, "%s\n", err.text);
    exit(2);
}

#endif
