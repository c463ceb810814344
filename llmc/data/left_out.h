// left_out.h: pages that were dropped or cut, in words and numbers: how many, and how much of the text they are. A page
// is one line of a report; what it holds may be most of the data.
#ifndef LLMC_LEFT_OUT_H
#define LLMC_LEFT_OUT_H

#include <stdint.h>

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

#ifdef __cplusplus
}
#endif
#endif
