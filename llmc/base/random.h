// random.h: the one generator, SplitMix64 (Steele, Lea and Flood 2014): initial weights, the order of pages, sampling,
// perturbed texts. It is counter-based: element k of a stream can be drawn without those before it, so that values
// depend on seed and place alone, not on ranks, threads or order.
#ifndef LLMC_RANDOM_H
#define LLMC_RANDOM_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#define RANDOM_STEP 0x9e3779b97f4a7c15u

static inline uint64_t random_next(uint64_t *state) {
    uint64_t z = (*state += RANDOM_STEP);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

// One number from one state: what random_next returns for it.
static inline uint64_t random_mix(uint64_t state) { return random_next(&state); }

// Uniform below n (n > 0), without bias (Lemire's multiplication).
static inline uint32_t random_below(uint64_t *state, uint32_t n) {
    uint64_t product = (random_next(state) >> 32) * n;
    if ((uint32_t)product < n) {
        uint32_t reject = -n % n;
        while ((uint32_t)product < reject) product = (random_next(state) >> 32) * n;
    }
    return (uint32_t)(product >> 32);
}

// The stream of parameter i of the tensor table.
static inline uint64_t random_stream(uint64_t seed, uint64_t i) {
    uint64_t state = seed * 0x2545f4914f6cdd1du + i;
    random_next(&state);
    return state;
}

// out (n): elements [from, from + n) of a stream of normal numbers (Box-Muller); from is even.
static inline void random_normal(float *out, uint64_t stream, size_t from, size_t n, float scale) {
    uint64_t state = stream + from * RANDOM_STEP;
    for (size_t k = 0; k < n; k += 2) {
        double u = ((double)(random_next(&state) >> 11) + 1.0) * 0x1p-53;
        double v = (double)(random_next(&state) >> 11) * 0x1p-53;
        double r = sqrt(-2.0 * log(u)), angle = 6.283185307179586477 * v;
        out[k] = (float)(r * cos(angle)) * scale;
        if (k + 1 < n) out[k + 1] = (float)(r * sin(angle)) * scale;
    }
}

#endif
