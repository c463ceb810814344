// chunk.h: long documents into pages a model can take.
#ifndef LLMC_CHUNK_H
#define LLMC_CHUNK_H

#include <stddef.h>

#include "llmc/base/error.h"
#include "llmc/text/tokenizer.h"

typedef struct PageSpan {
    size_t begin, end; // bytes of the document
    int tokens;        // 1 to the most that was asked for
} PageSpan;

// Cuts text (NFC) into pages of at most `most` tokens, each as long as it can be. A page ends where a paragraph ends
// (an empty line); where none does in reach, at the end of a line, then of a sentence, then of a word, then anywhere
// between two characters. ASCII white space between pages, before the first and behind the last belongs to none:
// everything else is in exactly one page, in order. *out (*n) is malloc'ed; *n = 0 when there is nothing but white
// space.
int chunk_pages(PageSpan **out, int *n, const char *text, size_t length, const Tokenizer *tok, int most, Error *err);

#endif
