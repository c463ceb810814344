// sample.c: see sample.h. Sums are doubles in a fixed order.
#include "llmc/infer/sample.h"

#include <math.h>

#include "llmc/base/random.h"

// Probabilities below e^-60 of the largest change no draw: they vanish in the sum of doubles.
static const double FARTHEST = 60;

double sample_uniform(uint64_t seed, uint64_t page, uint64_t position) {
    return (double)(random_mix(random_mix(random_mix(seed) ^ page) ^ position) >> 11) * 0x1p-53;
}

static int32_t largest(const float *logits, int V) {
    int32_t best = -1;
    for (int v = 0; v < V; v++) {
        if (logits[v] > (best < 0 ? -INFINITY : logits[best])) best = v;
    }
    return best;
}

static double weight(const float *logits, int32_t id, double maximum, double temperature) {
    return exp(((double)logits[id] - maximum) / temperature);
}

// ---- ids by probability: a heap whose root is the most likely one, ties by id ----

static int before(const float *logits, int32_t a, int32_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

static void sift_down(int32_t *heap, int n, int at, const float *logits) {
    const int32_t id = heap[at];
    for (int child = 2 * at + 1; child < n; at = child, child = 2 * at + 1) {
        if (child + 1 < n && before(logits, heap[child + 1], heap[child])) child++;
        if (before(logits, id, heap[child])) break;
        heap[at] = heap[child];
        heap[child] = id;
    }
}

// Moves the most likely of n ids to the end of the array.
static int32_t pop(int32_t *heap, int n, const float *logits) {
    const int32_t top = heap[0];
    heap[0] = heap[n - 1];
    heap[n - 1] = top;
    sift_down(heap, n - 1, 0, logits);
    return top;
}

// ---- drawing ----

int32_t sample_token(const float *logits, int V, double temperature, double top_p, double u, int32_t *work) {
    const int32_t best = largest(logits, V);
    if (best < 0 || temperature <= 0 || logits[best] == INFINITY) return best;
    const double maximum = logits[best];
    const float least = (float)(maximum - FARTHEST * temperature);
    double total = 0, sum = 0;
    int n = 0;
    for (int v = 0; v < V; v++) {
        if (!(logits[v] >= least)) continue;
        work[n++] = v;
        total += weight(logits, v, maximum, temperature);
    }
    int first = n, drawn; // ids first..n-1 of work are the set, the most likely last
    if (top_p > 0 && top_p < 1) {
        for (int i = n / 2 - 1; i >= 0; i--) sift_down(work, n, i, logits);
        while (first > 0 && sum < top_p * total)
            sum += weight(logits, pop(work, first--, logits), maximum, temperature);
        total = sum;
    } else {
        first = 0;
    }
    sum = 0;
    for (drawn = n - 1; drawn > first; drawn--) {
        sum += weight(logits, work[drawn], maximum, temperature);
        if (u * total < sum) break;
    }
    return work[drawn];
}
