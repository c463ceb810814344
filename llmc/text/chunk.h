// chunk.h: splits long documents into pages that a model can take.
#ifndef LLMC_CHUNK_H
#define LLMC_CHUNK_H

#include <stddef.h>

#include "llmc/base/error.h"
#include "llmc/text/tokenizer.h"

typedef struct PageSpan {
    size_t begin, end; // bytes of the document
    int tokens;        // 1 to `most`
} PageSpan;

// Splits text (NFC) into pages of at most `most` tokens, each as long as possible. A page ends at the end of a
// paragraph (an empty line); if none is in reach, of a line, then of a sentence, then of a word, then between any two
// characters. ASCII white space between pages, before the first and after the last belongs to none; everything else is
// in exactly one page, in order. *out (*n) is allocated; *n = 0 if there is nothing but white space.
int chunk_pages(PageSpan **out, int *n, const char *text, size_t length, const Tokenizer *tok, int most, Error *err);

#endif
