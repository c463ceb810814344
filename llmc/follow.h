// follow.h: a person watches decoding: a line of progress with tokens per second, or the text itself as it is written.
#ifndef LLMC_FOLLOW_H
#define LLMC_FOLLOW_H

#include <stdint.h>
#include <stdio.h>

#include "text_stream.h"
#include "tokenizer.h"

typedef struct Follow {
    FILE *progress;       // gets the line, rewritten in place; NULL: none
    FILE *text;           // gets the text of a single page; NULL: none
    const Tokenizer *tok; // for text
    TextStream stream;
    int64_t tokens; // written so far
    int pages, done;
    double start, shown; // seconds; 0 before the first token
    int failed;          // the text could not be written, or memory ran out
} Follow;

// What generator_listen and generate_pages take, arg: the Follow.
void follow_token(void *arg, int page, int32_t id);
void follow_pages(void *arg, int done, int n);
// Clears the line, or ends the text; a summary in its place: "123 tokens in 4.5 s, 27.3 tokens/s".
void follow_end(Follow *f);

#endif
