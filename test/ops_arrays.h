// ops_arrays.h: arrays of test_ops.c: doubles on the host, elem or float or int on the device, guard zones around that
// copy, comparison with a tolerance that follows from the size of what was added up. Defines the backend under test.
#ifndef TEST_OPS_ARRAYS_H
#define TEST_OPS_ARRAYS_H

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/backend.h"
#include "test/check.h"
#include "test/ops_reference.h" // ref_round_bf16, ref_tolerance

static Backend *B;      // the backend under test
static char where[160]; // printed with every failure

enum { GUARD = 256, MAX_ARRAYS = 64 };
typedef struct Array {
    char kind; // 'e' elem, 'f' float, 'd' double, 'i' int
    size_t n;
    double *h;  // host values, exactly representable
    char *base; // device, with guards
    void *d;    // device, first element
} Array;
static Array *arrays[MAX_ARRAYS];
static int n_arrays;
static int array_shift; // elements by which arrays begin later than on a 64-byte border

static uint64_t random_state = 88172645463325252ull;
static double uniform(void) { // [-1, 1)
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (double)(int64_t)random_state / 9223372036854775808.0;
}

static double round_elem(double x) { return B->dtype == DTYPE_BF16 ? ref_round_bf16((float)x) : (float)x; }

static size_t kind_size(char kind) { return kind == 'e' ? dtype_size(B->dtype) : kind == 'd' ? 8 : 4; }

static void put(Array *a) { // host -> device
    char *raw = malloc(a->n * 8 + 8);
    for (size_t i = 0; i < a->n; i++) {
        const float f = (float)a->h[i];
        uint32_t u;
        memcpy(&u, &f, 4);
        if (a->kind == 'i') ((int *)(void *)raw)[i] = (int)a->h[i];
        else if (a->kind == 'd') ((double *)(void *)raw)[i] = a->h[i];
        else if (a->kind == 'e' && B->dtype == DTYPE_BF16) ((uint16_t *)(void *)raw)[i] = (uint16_t)(u >> 16);
        else ((float *)(void *)raw)[i] = f;
    }
    B->upload(B, a->d, raw, a->n * kind_size(a->kind));
    free(raw);
}

static double *get(Array *a) { // device -> host; returns a->h
    char *raw = malloc(a->n * 8 + 8);
    B->download(B, raw, a->d, a->n * kind_size(a->kind));
    for (size_t i = 0; i < a->n; i++) {
        if (a->kind == 'i') a->h[i] = ((int *)(void *)raw)[i];
        else if (a->kind == 'd') a->h[i] = ((double *)(void *)raw)[i];
        else if (a->kind == 'e' && B->dtype == DTYPE_BF16) {
            const uint32_t u = (uint32_t)((uint16_t *)(void *)raw)[i] << 16;
            float f;
            memcpy(&f, &u, 4);
            a->h[i] = f;
        } else a->h[i] = ((float *)(void *)raw)[i];
    }
    free(raw);
    return a->h;
}

// Bytes of an array on the device: guard, shift, elements, guard.
static size_t whole_size(char kind, size_t n) { return 2 * GUARD + ((size_t)array_shift + n) * kind_size(kind); }

static Array *array(char kind, size_t n) { // the device's copy is filled with NaN
    Error err;
    Array *a = calloc(1, sizeof *a);
    const size_t bytes = whole_size(kind, n);
    char *fill = malloc(bytes);
    memset(fill, 0xff, bytes);
    a->kind = kind;
    a->n = n;
    a->h = calloc(n + 1, sizeof(double));
    void *base = NULL;
    if (n_arrays == MAX_ARRAYS || B->alloc(B, &base, bytes, "test array", &err)) {
        printf("cannot allocate: %s\n", n_arrays == MAX_ARRAYS ? "too many arrays" : err.text);
        exit(1);
    }
    a->base = base;
    a->d = a->base + GUARD + (size_t)array_shift * kind_size(kind);
    B->upload(B, base, fill, bytes);
    free(fill);
    arrays[n_arrays++] = a;
    return a;
}

static Array *random_array(char kind, size_t n, double scale) {
    Array *a = array(kind, n);
    for (size_t i = 0; i < n; i++) a->h[i] = kind == 'e' ? round_elem(uniform() * scale) : (float)(uniform() * scale);
    put(a);
    return a;
}

static Array *int_array(const int *values, size_t n) {
    Array *a = array('i', n);
    for (size_t i = 0; i < n; i++) a->h[i] = values[i];
    put(a);
    return a;
}

static void free_arrays(void) { // and look at the guards
    for (int i = 0; i < n_arrays; i++) {
        Array *a = arrays[i];
        const size_t bytes = whole_size(a->kind, a->n);
        unsigned char *raw = malloc(bytes);
        B->download(B, raw, a->base, bytes);
        int bad = 0;
        for (int g = 0; g < GUARD; g++) bad += raw[g] != 0xff || raw[bytes - 1 - (size_t)g] != 0xff;
        CHECK(bad == 0, "%s: array %d (%c, %zu elements): %d guard bytes were written", where, i, a->kind, a->n, bad);
        free(raw);
        B->release(B, a->base);
        free(a->h);
        free(a);
    }
    n_arrays = 0;
}

static void at(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void at(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(where, sizeof where, format, args);
    va_end(args);
}

static double *doubles(size_t n) { return calloc(n + 1, sizeof(double)); }
static inline double *copy_of(const Array *a) {
    double *x = doubles(a->n);
    memcpy(x, a->h, a->n * sizeof *x);
    return x;
}
static inline const int *ints_of(const Array *a) {
    int *x = malloc((a->n + 1) * sizeof *x);
    for (size_t i = 0; i < a->n; i++) x[i] = (int)a->h[i];
    return x;
}

// Downloads `got` and compares it with ref; `terms` is how many products or values were added up.
// rounded (bf16, may be NULL): see ops_reference.h.
static void compare_rounded(const char *what, Array *got, const double *ref, const double *mag, const double *rounded,
                            double terms) {
    get(got);
    double worst = 0;
    size_t at_worst = 0;
    for (size_t i = 0; i < got->n; i++) {
        const double tolerance = ref_tolerance(B->dtype, got->kind == 'e', ref[i], mag ? mag[i] : fabs(ref[i]),
                                               rounded ? rounded[i] : 0, terms);
        const double error = fabs(got->h[i] - ref[i]) / tolerance;
        if (!(error <= worst)) {
            worst = error;
            at_worst = i;
            if (error != error) break;
        }
    }
    CHECK(worst <= 1, "%s: %s[%zu]: expected %.9g, found %.9g, %.2f times the tolerance", where, what, at_worst,
          ref[at_worst], got->h[at_worst], worst);
}

static inline void compare(const char *what, Array *got, const double *ref, const double *mag, double terms) {
    compare_rounded(what, got, ref, mag, NULL, terms);
}

static void compare_exact(const char *what, Array *got, const double *ref) {
    get(got);
    size_t bad = got->n;
    for (size_t i = 0; i < got->n && bad == got->n; i++) {
        if (got->h[i] != ref[i] && !(got->h[i] != got->h[i] && ref[i] != ref[i])) bad = i;
    }
    CHECK(bad == got->n, "%s: %s[%zu]: expected %.9g, found %.9g", where, what, bad, ref[bad], got->h[bad]);
}

#endif
