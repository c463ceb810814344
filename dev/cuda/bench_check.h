// bench_check.h: the operations at the bench's shapes against double precision on the host: 64 sampled outputs of each
// product, 16 rows of the rest, attention whole. A line "ok   NAME" or "FAIL NAME: ..." each. The tests of single
// operations (test/test_ops.c) use shapes of at most 600 rows; large ones take other cuBLASLt kernels and many waves.
#ifndef DEV_BENCH_CHECK_H
#define DEV_BENCH_CHECK_H

#include "llmc/backend.h"
#include "llmc/model/config.h"

// Ends the program with the error if `bad` is not 0.
void bench_must(int bad, const Error *err);
// Device memory of zeros, and of n small numbers of the run's element type.
void *bench_memory(Backend *b, size_t bytes);
void *bench_numbers(Backend *b, size_t n);

void check_products(Backend *b, const char *name, int T, int K, int N, int with_bias);
// pages of `length` rows each; queries, keys and values side by side in a row, as in the model.
void check_attention(Backend *b, const char *name, const Qwen2Config *c, int pages, int length);
void check_elementwise(Backend *b, const char *name, const Qwen2Config *c, int T);
void check_loss_and_optimizer(Backend *b, int R, int V, int ld);
// "N passed, N failed"; the exit code.
int check_total(void);

#endif
