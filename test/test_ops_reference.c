// test_ops_reference.c: the references of the operation tests themselves: every backward against finite differences of
// its forward, in double precision.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "test/check.h"
#include "test/ops_reference.h"

static double uniform(void) { // [-1, 1)
    static uint64_t state = 88172645463325252ull;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (double)(int64_t)state / 9223372036854775808.0;
}

typedef double Objective(const double *x, void *context); // sum of dout * forward(x)

static void differences(const char *what, Objective *f, void *context, double *x, const double *gradient, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const double h = 1e-5, kept = x[i];
        x[i] = kept + h;
        const double up = f(x, context);
        x[i] = kept - h;
        const double down = f(x, context);
        x[i] = kept;
        const double expected = (up - down) / (2 * h);
        CHECK(fabs(expected - gradient[i]) <= 1e-7 * (1 + fabs(expected)),
              "%s[%zu]: finite difference %.9g, gradient %.9g", what, i, expected, gradient[i]);
    }
}

static void fill(double *x, int n) {
    for (int i = 0; i < n; i++) x[i] = uniform();
}

enum { RT = 3, RD = 5 };
typedef struct NormContext {
    double w[RD], x[RT * RD], dout[RT * RD];
} NormContext;
static double norm_of(const double *x, const double *w, const double *dout) {
    double out[RT * RD], rstd[RT], sum = 0;
    ref_rmsnorm_forward(out, NULL, rstd, x, w, RT, RD, 1e-6);
    for (int i = 0; i < RT * RD; i++) sum += out[i] * dout[i];
    return sum;
}
static double norm_x(const double *x, void *c) { return norm_of(x, ((NormContext *)c)->w, ((NormContext *)c)->dout); }
static double norm_w(const double *w, void *c) { return norm_of(((NormContext *)c)->x, w, ((NormContext *)c)->dout); }

static double swiglu_x(const double *x, void *dout) {
    double out[RT * RD], sum = 0;
    ref_swiglu_forward(out, x, RT, RD);
    for (int i = 0; i < RT * RD; i++) sum += out[i] * ((double *)dout)[i];
    return sum;
}

enum { RV = 7 };
static double entropy_x(const double *x, void *labels) { // sum of weight (1, 2, 3) * loss
    double copy[RT * RV], loss[RT], mag[RT], sum = 0;
    int correct[RT];
    memcpy(copy, x, sizeof copy);
    ref_cross_entropy(loss, mag, correct, copy, NULL, labels, NULL, RT, RV);
    for (int r = 0; r < RT; r++) sum += (r + 1) * loss[r];
    return sum;
}

enum { AQ = 5, AK = 9, ANH = 4, AKV = 2, AHS = 2, ANQ = AQ * ANH * AHS, ANK = AK * AKV * AHS }; // pages: 2 of 4, 3 of 5
static const int a_cu[] = {0, 2, 5}, a_begin[] = {0, 4}, a_end[] = {4, 9};
static const RefPages a_pages = {2, a_cu, a_begin, a_end};
typedef struct AttentionContext {
    double q[ANQ], k[ANK], v[ANK], dout[ANQ];
} AttentionContext;
static double attention_of(const AttentionContext *c) {
    double out[ANQ], mag[ANQ], rounded[ANQ], lse[AQ * ANH], lse_mag[AQ * ANH], sum = 0;
    ref_attention_forward(out, mag, rounded, lse, lse_mag, c->q, ANH * AHS, c->k, c->v, AKV * AHS, &a_pages, ANH, AKV,
                          AHS);
    for (int i = 0; i < ANQ; i++) sum += out[i] * c->dout[i];
    return sum;
}
static double attention_any(const double *x, void *c) { // x lies in c
    (void)x;
    return attention_of(c);
}

enum { RN = 4 };
typedef struct MatmulContext {
    double in[RT * RD], w[RN * RD], dout[RT * RN];
} MatmulContext;
static double matmul_any(const double *x, void *context) {
    (void)x;
    const MatmulContext *c = context;
    double out[RT * RN], sum = 0;
    ref_matmul(out, NULL, c->in, RD, 1, c->w, 1, RD, NULL, RT, RN, RD, 0);
    for (int i = 0; i < RT * RN; i++) sum += out[i] * c->dout[i];
    return sum;
}

static void test_references(void) {
    check_begin("references: backward = finite differences of forward");
    double mag[256], mag2[256], mag3[256];
    NormContext norm;
    double dx[256] = {0}, dw[256] = {0}, rstd[RT], out[256];
    fill(norm.w, RD), fill(norm.x, RT * RD), fill(norm.dout, RT * RD);
    memset(mag2, 0, sizeof mag2);
    ref_rmsnorm_forward(out, NULL, rstd, norm.x, norm.w, RT, RD, 1e-6);
    ref_rmsnorm_backward(dx, mag, dw, mag2, norm.dout, norm.x, norm.w, rstd, RT, RD);
    differences("rmsnorm dx", norm_x, &norm, norm.x, dx, RT * RD);
    differences("rmsnorm dw", norm_w, &norm, norm.w, dw, RD);

    double gate_up[2 * RT * RD], dout[RT * RD];
    fill(gate_up, 2 * RT * RD), fill(dout, RT * RD);
    ref_swiglu_backward(dx, mag, dout, gate_up, RT, RD);
    differences("swiglu", swiglu_x, dout, gate_up, dx, 2 * RT * RD);

    double logits[RT * RV], weights[RT] = {1, 2, 3}, loss[RT];
    int labels[RT] = {0, 3, 6}, correct[RT];
    fill(logits, RT * RV);
    memcpy(dx, logits, sizeof logits);
    ref_cross_entropy(loss, mag2, correct, dx, mag, labels, weights, RT, RV);
    differences("cross entropy", entropy_x, labels, logits, dx, RT * RV);

    AttentionContext a;
    double lse[AQ * ANH], lse_mag[AQ * ANH], dq[ANQ] = {0}, dk[ANK] = {0}, dv[ANK] = {0};
    fill(a.q, ANQ), fill(a.k, ANK), fill(a.v, ANK), fill(a.dout, ANQ);
    ref_attention_forward(out, mag, mag2, lse, lse_mag, a.q, ANH * AHS, a.k, a.v, AKV * AHS, &a_pages, ANH, AKV, AHS);
    ref_attention_backward(dq, mag, mag, dk, mag2, mag2, dv, mag3, mag3, a.dout, out, lse, a.q, ANH * AHS, a.k, a.v,
                           AKV * AHS, &a_pages, ANH, AKV, AHS);
    differences("attention dq", attention_any, &a, a.q, dq, ANQ);
    differences("attention dk", attention_any, &a, a.k, dk, ANK);
    differences("attention dv", attention_any, &a, a.v, dv, ANK);

    MatmulContext m;
    fill(m.in, RT * RD), fill(m.w, RN * RD), fill(m.dout, RT * RN);
    ref_matmul(dx, NULL, m.dout, RN, 1, m.w, RD, 1, NULL, RT, RD, RN, 0);
    ref_matmul(dw, NULL, m.dout, 1, RN, m.in, RD, 1, NULL, RN, RD, RT, 0);
    differences("matmul din", matmul_any, &m, m.in, dx, RT * RD);
    differences("matmul dw", matmul_any, &m, m.w, dw, RN * RD);

    double x[2 * RT], turned[2 * RT],
        table[4] = {cos(0.3), cos(0.3), sin(0.3), sin(0.3)}; // rope backward undoes forward
    const int positions[RT] = {0, 0, 0};
    fill(x, 2 * RT);
    memcpy(turned, x, sizeof x);
    table[1] = table[2];
    ref_rope(turned, mag, 2, table, positions, RT, 1, 2, 0);
    CHECK(fabs(turned[0] - x[0]) > 1e-3, "rope does nothing");
    ref_rope(turned, mag, 2, table, positions, RT, 1, 2, 1);
    for (int i = 0; i < 2 * RT; i++) CHECK(fabs(turned[i] - x[i]) < 1e-12, "rope backward does not undo forward");
}

int main(void) {
    test_references();
    return check_done();
}
