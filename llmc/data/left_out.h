// left_out.h: reports pages that were dropped or cut: how many, and how much of the text. One page can be most of the
// data.
#ifndef LLMC_LEFT_OUT_H
#define LLMC_LEFT_OUT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct LeftOut {
    uint64_t pages, tokens;         // dropped or cut
    uint64_t all_pages, all_tokens; // in all
} LeftOut;

// "1 of 40 pages with 102,027 of 117,000 tokens (87.2 %)"; returns the buffer.
const char *left_out_text(char buffer[160], const LeftOut *l);
// 1 if it is so much of the text (more than 3 %) that it must not go unnoticed.
int left_out_much(const LeftOut *l);

// Pages whose lengths the model was not trained on.
typedef struct Untrained {
    int64_t pages, shorter, longer; // all; shorter, longer than any it was trained on
    int least, most;                // tokens of the pages it was trained on; 0, 0: unknown, nothing is counted
} Untrained;
Untrained untrained_count(const int trained_tokens[2]); // C3Config.trained_tokens; none yet
void untrained_add(Untrained *u, size_t tokens);
// Prints a one-line warning, if there is anything to warn of.
void untrained_warn(FILE *out, const Untrained *u, const char *path);

#ifdef __cplusplus
}
#endif
#endif
