// test_sample.c: drawing a token, against the definition: sort, cut, walk.
#include <math.h>
#include <stdlib.h>

#include "../llmc/infer/sample.h"
#include "check.h"

enum { MOST = 3000 };

static uint64_t state = 88172645463325252u;
static double uniform(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (double)(state >> 11) * 0x1p-53;
}

// ---- the definition ----

static const float *sorted_by;
static int more_likely(const void *a, const void *b) {
    int x = *(const int *)a, y = *(const int *)b;
    if (sorted_by[x] != sorted_by[y]) return sorted_by[x] > sorted_by[y] ? -1 : 1;
    return x - y;
}

// p (V): the probabilities of drawing, zero outside the smallest set that reaches top_p.
static void nucleus(double *p, const float *logits, int V, double temperature, double top_p) {
    static int order[MOST];
    double total = 0, sum = 0, kept = 0, maximum = -INFINITY;
    for (int v = 0; v < V; v++) {
        order[v] = v;
        if (logits[v] > maximum) maximum = logits[v];
    }
    for (int v = 0; v < V; v++) total += p[v] = isnan(logits[v]) ? 0 : exp((logits[v] - maximum) / temperature);
    sorted_by = logits;
    qsort(order, (size_t)V, sizeof *order, more_likely);
    for (int i = 0; i < V; i++) {
        p[order[i]] = sum < top_p * total ? p[order[i]] / total : 0;
        sum += p[order[i]] * total;
        kept += p[order[i]];
    }
    for (int v = 0; v < V; v++) p[v] /= kept;
}

// ---- cases ----

static void random_logits(float *x, int V, double spread) {
    for (int v = 0; v < V; v++) x[v] = (float)(spread * (uniform() + uniform() - uniform() - uniform()));
}

// Over equally spaced u, how often a token is drawn is its probability, but for one draw at each border.
static void test_distribution(int V, double spread, double temperature, double top_p) {
    enum { DRAWS = 100000 };
    static float x[MOST];
    static double p[MOST];
    static int32_t work[MOST];
    static int drawn[MOST];
    static char name[100];
    check_end_case(); // its name lies there
    snprintf(name, sizeof name, "frequencies: %d tokens, spread %g, temperature %g, top_p %g", V, spread, temperature,
             top_p);
    check_begin(name);
    random_logits(x, V, spread);
    if (V > 3) x[1] = x[2] = x[3]; // ties
    nucleus(p, x, V, temperature, top_p > 0 ? top_p : 1);
    memset(drawn, 0, sizeof drawn);
    for (int i = 0; i < DRAWS; i++) drawn[sample_token(x, V, temperature, top_p, (i + 0.5) / DRAWS, work)]++;
    for (int v = 0; v < V; v++)
        CHECK(fabs(drawn[v] - p[v] * DRAWS) <= 1.01, "token %d: drawn %d times of %d, probability %g", v, drawn[v],
              DRAWS, p[v]);
}

static void test_greedy(void) {
    int32_t work[8];
    check_begin("greedy: temperature 0, a tiny one, a tiny top_p; the lowest id of equal ones");
    const float x[6] = {1, 5, -INFINITY, 5, NAN, 4.9f};
    CHECK(sample_token(x, 6, 0, 0, 0.999, work) == 1, "temperature 0");
    CHECK(sample_token(x, 6, 1, 1e-9, 0.999, work) == 1, "top_p 1e-9");
    for (int i = 0; i < 100; i++) {
        int32_t t = sample_token(x, 6, 1e-6, 0, i / 100.0, work);
        CHECK(t == 1 || t == 3, "a tiny temperature drew %d", t);
    }
    check_begin("what may not be drawn");
    for (int i = 0; i < 1000; i++) {
        int32_t t = sample_token(x, 6, 100, i % 2 ? 0.999999 : 0, i / 1000.0, work);
        CHECK(t == 0 || t == 1 || t == 3 || t == 5, "drew %d", t);
    }
    const float none[3] = {-INFINITY, NAN, -INFINITY}, all_the_same[4] = {-2, -2, -2, -2};
    CHECK(sample_token(none, 3, 1, 0.9, 0.5, work) == -1, "a token where there is none");
    CHECK(sample_token(none, 3, 0, 0, 0.5, work) == -1, "a token where there is none, greedy");
    CHECK(sample_token(all_the_same, 4, 1, 0.5, 0.99, work) == 1, "top_p 0.5 of four equal ones: the first two");
}

static void test_uniform(void) {
    enum { DRAWS = 200000, BINS = 20 };
    int bins[BINS] = {0};
    check_begin("numbers of a seed: spread evenly, other ones for other pages, positions and seeds");
    for (int i = 0; i < DRAWS; i++) {
        double u = sample_uniform(7, (uint64_t)(i % 100), (uint64_t)(i / 100));
        CHECK(u >= 0 && u < 1, "%g", u);
        bins[(int)(u * BINS)]++;
    }
    for (int i = 0; i < BINS; i++)
        CHECK(fabs(bins[i] - DRAWS / (double)BINS) < 5 * sqrt(DRAWS / (double)BINS), "bin %d: %d", i, bins[i]);
    double u = sample_uniform(7, 3, 9);
    CHECK(u == sample_uniform(7, 3, 9), "the same numbers differ");
    CHECK(u != sample_uniform(8, 3, 9) && u != sample_uniform(7, 4, 9) && u != sample_uniform(7, 3, 10) &&
              sample_uniform(7, 3, 4) != sample_uniform(7, 4, 3),
          "two numbers agree");
}

int main(void) {
    test_distribution(1, 1, 1, 0);
    test_distribution(50, 2, 1, 0);
    test_distribution(50, 2, 0.7, 0.9);
    test_distribution(50, 2, 3, 0.5);
    test_distribution(1000, 4, 1, 0.95);
    test_distribution(1000, 4, 0.5, 1);
    test_distribution(MOST, 0.5, 1, 0.8);
    test_greedy();
    test_uniform();
    return check_done();
}
