// ops_reference.h: the backend's operations in double precision and the plainest loops, for test_ops.c.
//
// Beside a result each reference gives its `mag`: the sum of the absolute values of what was added up. An fp32
// computation of the same sum is off by a few rounding errors of that size, whatever cancels: tolerances follow from
// it.
#ifndef TEST_OPS_REFERENCE_H
#define TEST_OPS_REFERENCE_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/backend.h"

// ---- rounding, tolerances ----
static inline float ref_round_bf16(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    u = x != x ? u | 0x400000 : u + 0x7fff + (u >> 16 & 1);
    u &= 0xffff0000u;
    memcpy(&x, &u, 4);
    return x;
}

// What an fp32 sum of `terms` values may be off by. rounded: in bf16, the sum of absolute values whose factors may have
// been rounded to bf16 first; is_elem: the result is stored in the run's element type.
static inline double ref_tolerance(DType dtype, int is_elem, double expected, double mag, double rounded,
                                   double terms) {
    double tolerance = ldexp(4 + sqrt(terms), -23) * mag + 1e-37;
    if (dtype == DTYPE_BF16) tolerance += ldexp(1.001, -8) * rounded;
    if (dtype == DTYPE_BF16 && is_elem) tolerance += ldexp(1.001, -8) * (fabs(expected) + tolerance);
    return tolerance;
}

// ---- RMSNorm ----
static inline void ref_rmsnorm_forward(double *out, double *mag, double *rstd, const double *x, const double *w, int T,
                                       int D, double eps) {
    for (int t = 0; t < T; t++) {
        double squares = 0;
        for (int i = 0; i < D; i++) squares += x[t * D + i] * x[t * D + i];
        rstd[t] = 1 / sqrt(squares / D + eps);
        for (int i = 0; i < D; i++) {
            out[t * D + i] = x[t * D + i] * rstd[t] * w[i];
            if (mag) mag[t * D + i] = fabs(out[t * D + i]);
        }
    }
}

// dx and dw are added to.
static inline void ref_rmsnorm_backward(double *dx, double *dx_mag, double *dw, double *dw_mag, const double *dout,
                                        const double *x, const double *w, const double *rstd, int T, int D) {
    for (int t = 0; t < T; t++) {
        const double *xt = x + t * D, *g = dout + t * D, r = rstd[t];
        double dots = 0, dots_mag = 0;
        for (int i = 0; i < D; i++) {
            dots += g[i] * w[i] * xt[i];
            dots_mag += fabs(g[i] * w[i] * xt[i]);
            dw[i] += g[i] * xt[i] * r;
            dw_mag[i] += fabs(g[i] * xt[i] * r);
        }
        for (int i = 0; i < D; i++) {
            dx_mag[t * D + i] = fabs(dx[t * D + i]) + fabs(r * g[i] * w[i]) + fabs(r * r * r * xt[i]) * dots_mag / D;
            dx[t * D + i] += r * (g[i] * w[i] - r * r * xt[i] * dots / D);
        }
    }
}

// ---- matmul: c (M,N) (+)= op(a) op(b); a[i,k] = a[i*ai + k*ak], b[k,j] = b[k*bk + j*bj] ----
static inline void ref_matmul(double *c, double *mag, const double *a, int ai, int ak, const double *b, int bk, int bj,
                              const double *bias, int M, int N, int K, int accumulate) {
    for (int i = 0; i < M; i++) {
        for (int j = 0; j < N; j++) {
            double sum = bias ? bias[j] : 0;
            if (accumulate) sum += c[i * N + j];
            double sizes = fabs(sum);
            for (int k = 0; k < K; k++) {
                const double p = a[i * ai + k * ak] * b[k * bk + j * bj];
                sum += p;
                sizes += fabs(p);
            }
            c[i * N + j] = sum;
            if (mag) mag[i * N + j] = sizes;
        }
    }
}

// ---- rotary ----
static inline void ref_rope(double *x, double *mag, int ld, const double *cos_sin, const int *positions, int T,
                            int heads, int HS, int backward) {
    for (int t = 0; t < T; t++) {
        for (int h = 0; h < heads; h++) {
            for (int i = 0; i < HS / 2; i++) {
                const double c = cos_sin[positions[t] * HS + i];
                const double s = cos_sin[positions[t] * HS + HS / 2 + i] * (backward ? -1 : 1);
                const int a = t * ld + h * HS + i, b = a + HS / 2;
                const double x1 = x[a], x2 = x[b];
                x[a] = x1 * c - x2 * s;
                x[b] = x2 * c + x1 * s;
                mag[a] = mag[b] = fabs(x1) + fabs(x2);
            }
        }
    }
}

// ---- attention. out, lse, and backward; q (Tq,NH,HS) with row distance ldq, k and v (Tk,KV,HS) with ldk ----
typedef struct RefPages {
    int pages;
    const int *cu_q, *k_begin, *k_end;
} RefPages;

static inline double ref_score(const double *q, const double *k, int HS, double *mag) {
    double s = 0, sizes = 0;
    for (int d = 0; d < HS; d++) {
        s += q[d] * k[d];
        sizes += fabs(q[d] * k[d]);
    }
    *mag = sizes / sqrt(HS);
    return s / sqrt(HS);
}

// rounded: the sum of the absolute values of what P or dS is multiplied with, times |P| or |dS|: in bf16 these two may
// be rounded to bf16 before their products (every flash attention does), which is off by half a unit in their last
// place.
static inline void ref_attention_forward(double *out, double *mag, double *rounded, double *lse, double *lse_mag,
                                         const double *q, int ldq, const double *k, const double *v, int ldk,
                                         const RefPages *g, int NH, int KV, int HS) {
    for (int page = 0; page < g->pages; page++) {
        const int q_len = g->cu_q[page + 1] - g->cu_q[page], k_len = g->k_end[page] - g->k_begin[page];
        double *p = (double *)malloc(((size_t)k_len + 1) * sizeof *p);
        for (int i = 0; i < q_len; i++) {
            for (int h = 0; h < NH; h++) {
                const int t = g->cu_q[page] + i, seen = k_len - q_len + i + 1, kv = h / (NH / KV);
                double largest = -INFINITY, sum = 0, score_mag = 0, m;
                for (int j = 0; j < seen; j++) {
                    p[j] = ref_score(q + t * ldq + h * HS, k + (g->k_begin[page] + j) * ldk + kv * HS, HS, &m);
                    if (p[j] > largest) largest = p[j];
                    if (m > score_mag) score_mag = m;
                }
                for (int j = 0; j < seen; j++) sum += p[j] = exp(p[j] - largest);
                lse[t * NH + h] = largest + log(sum);
                lse_mag[t * NH + h] = 1 + score_mag + fabs(lse[t * NH + h]);
                for (int d = 0; d < HS; d++) {
                    double o = 0, size = 0;
                    for (int j = 0; j < seen; j++) {
                        const double x = p[j] / sum * v[(g->k_begin[page] + j) * ldk + kv * HS + d];
                        o += x;
                        size += fabs(x);
                    }
                    out[(t * NH + h) * HS + d] = o;
                    mag[(t * NH + h) * HS + d] = size * (1 + score_mag);
                    rounded[(t * NH + h) * HS + d] = size;
                }
            }
        }
        free(p);
    }
}

// out and lse are what the forward stored. dq, dk, dv must be zero at rows of the pages.
static inline void ref_attention_backward(double *dq, double *dq_mag, double *dq_rounded, double *dk, double *dk_mag,
                                          double *dk_rounded, double *dv, double *dv_mag, double *dv_rounded,
                                          const double *dout, const double *out, const double *lse, const double *q,
                                          int ldq, const double *k, const double *v, int ldk, const RefPages *g, int NH,
                                          int KV, int HS) {
    const double scale = 1 / sqrt(HS);
    for (int page = 0; page < g->pages; page++) {
        const int q_len = g->cu_q[page + 1] - g->cu_q[page], k_len = g->k_end[page] - g->k_begin[page];
        for (int i = 0; i < q_len; i++) {
            for (int h = 0; h < NH; h++) {
                const int t = g->cu_q[page] + i, kv = h / (NH / KV), o = (t * NH + h) * HS, qo = t * ldq + h * HS;
                double delta = 0, delta_mag = 0;
                for (int d = 0; d < HS; d++) {
                    delta += dout[o + d] * out[o + d];
                    delta_mag += fabs(dout[o + d] * out[o + d]);
                }
                for (int j = 0; j < k_len - q_len + i + 1; j++) {
                    const int ko = (g->k_begin[page] + j) * ldk + kv * HS;
                    double m, dp = 0, dp_mag = 0;
                    const double p = exp(ref_score(q + qo, k + ko, HS, &m) - lse[t * NH + h]);
                    for (int d = 0; d < HS; d++) {
                        dp += dout[o + d] * v[ko + d];
                        dp_mag += fabs(dout[o + d] * v[ko + d]);
                    }
                    const double ds = p * (dp - delta) * scale;
                    const double ds_mag = p * (dp_mag + delta_mag) * scale * (1 + m + fabs(lse[t * NH + h]));
                    for (int d = 0; d < HS; d++) {
                        dv[ko + d] += p * dout[o + d];
                        dv_mag[ko + d] += p * fabs(dout[o + d]) * (1 + m + fabs(lse[t * NH + h]));
                        dq[qo + d] += ds * k[ko + d];
                        dq_mag[qo + d] += ds_mag * fabs(k[ko + d]);
                        dk[ko + d] += ds * q[qo + d];
                        dk_mag[ko + d] += ds_mag * fabs(q[qo + d]);
                        dv_rounded[ko + d] += p * fabs(dout[o + d]);
                        dq_rounded[qo + d] += fabs(ds * k[ko + d]);
                        dk_rounded[ko + d] += fabs(ds * q[qo + d]);
                    }
                }
            }
        }
    }
}

// ---- SwiGLU ----
static inline void ref_swiglu_forward(double *out, const double *gate_up, int T, int F) {
    for (int t = 0; t < T; t++) {
        for (int i = 0; i < F; i++) {
            const double g = gate_up[t * 2 * F + i], u = gate_up[t * 2 * F + F + i];
            out[t * F + i] = g / (1 + exp(-g)) * u;
        }
    }
}

static inline void ref_swiglu_backward(double *dgate_up, double *mag, const double *dout, const double *gate_up, int T,
                                       int F) {
    for (int t = 0; t < T; t++) {
        for (int i = 0; i < F; i++) {
            const int a = t * 2 * F + i, b = a + F;
            const double g = gate_up[a], u = gate_up[b], d = dout[t * F + i], s = 1 / (1 + exp(-g));
            dgate_up[a] = d * u * (s + g * s * (1 - s));
            dgate_up[b] = d * g * s;
            mag[a] = fabs(d * u) * (s + fabs(g) * s * (1 - s)) * (1 + fabs(g));
            mag[b] = fabs(dgate_up[b]) * (1 + fabs(g));
        }
    }
}

// ---- cross entropy; logits become their gradient when weights is not NULL ----
static inline void ref_cross_entropy(double *loss, double *loss_mag, int *correct, double *logits, double *mag,
                                     const int *labels, const double *weights, int R, int V) {
    for (int r = 0; r < R; r++) {
        double *x = logits + (size_t)r * V, largest = x[0], sum = 0;
        int at = 0;
        for (int i = 1; i < V; i++) {
            if (x[i] > largest) {
                largest = x[i];
                at = i;
            }
        }
        for (int i = 0; i < V; i++) sum += exp(x[i] - largest);
        loss[r] = log(sum) + largest - x[labels[r]];
        loss_mag[r] = 1 + fabs(largest) + fabs(x[labels[r]]) + log(sum);
        correct[r] = at == labels[r];
        if (!weights) continue;
        for (int i = 0; i < V; i++) {
            const double p = exp(x[i] - largest) / sum, onehot = i == labels[r];
            mag[(size_t)r * V + i] = fabs(weights[r]) * ((p > 0 ? p * (1 + largest - x[i]) : 0) + onehot);
            x[i] = weights[r] * (p - onehot);
        }
    }
}

// ---- AdamW ----
static inline void ref_adamw(double *x, double *m, double *v, const double *grad, double scale, size_t n,
                             const AdamWParams *p) {
    for (size_t i = 0; i < n; i++) {
        const double g = grad[i] * scale;
        m[i] = p->beta1 * m[i] + (1 - (double)p->beta1) * g;
        v[i] = p->beta2 * v[i] + (1 - (double)p->beta2) * g * g;
        x[i] -= p->lr * (m[i] / p->bias1 / (sqrt(v[i] / p->bias2) + p->eps) + p->weight_decay * x[i]);
    }
}

#endif
