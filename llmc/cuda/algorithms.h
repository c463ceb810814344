// algorithms.h: a table of cuBLASLt's algorithms that were timed (-tune), as a file: which GPU, driver and library they
// belong to, then for each product the fastest. Used by matmul.cu alone.
#ifndef LLMC_CUDA_ALGORITHMS_H
#define LLMC_CUDA_ALGORITHMS_H

#include "llmc/cuda/cuda.h"

enum Kind { FORWARD, FORWARD_BIAS, FORWARD_ADD, BACKWARD_INPUT, BACKWARD_WEIGHT };
// "forward", ...
const char *kind_name(int kind);

struct PlanKey {
    int kind, K, N, rows; // rows: the bucket's, or the exact number with exact = 1
    int exact;
    int align_a, align_b, align_d; // bytes, up to 16
};

struct Algorithm {
    PlanKey key; // never an exact one
    cublasLtMatmulAlgo_t algo;
    double ms, first_ms; // of one product with it, and with the heuristic's first
};

struct AlgorithmTable {
    Algorithm *rows;
    int n;
};

// NULL: there is none.
const Algorithm *algorithm_find(const AlgorithmTable *t, const PlanKey *key);
void algorithm_add(AlgorithmTable *t, const Algorithm *row);

// Reads a table on rank 0 and gives it to all. One of another GPU, driver, library or element type leaves t empty.
// *note: what was read or why not, allocated. A damaged file is an error that names it. Called by all ranks.
int algorithms_read(AlgorithmTable *t, char **note, Backend *b, const char *path, Error *err);
// Writes it whole.
int algorithms_write(const AlgorithmTable *t, const Backend *b, const char *path, Error *err);

#endif
