// left_out.h: pages that were dropped or cut, in words and numbers: how many, and how much of the text they are. A page
// is one line of a report; what it holds may be most of the data.
#ifndef LLMC_LEFT_OUT_H
#define LLMC_LEFT_OUT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct LeftOut {
    uint64_t pages, tokens;         // left out, or cut
    uint64_t all_pages, all_tokens; // of which
} LeftOut;

// "1 of 40 pages with 102,027 of 117,000 tokens (87.2 %)", into a buffer that is returned.
const char *left_out_text(char buffer[160], const LeftOut *l);
// 1: so much of the text that nobody should have to look for it (more than 3 %).
int left_out_much(const LeftOut *l);

// Pages of lengths the model was not trained on.
typedef struct Untrained {
    int64_t pages, shorter, longer; // all; those shorter, those longer than any it was trained on
    int least, most;                // tokens it was trained on; 0, 0: nobody knows, and nothing is counted
} Untrained;
Untrained untrained_count(const int trained_tokens[2]); // C3Config.trained_tokens; none yet
void untrained_add(Untrained *u, size_t tokens);
// A warning for stderr, a line; nothing where there is nothing to say.
void untrained_warn(FILE *out, const Untrained *u, const char *path);

#ifdef __cplusplus
}
#endif
#endif
