// pages.h: pages of text from the files people have: .txt (form feeds between pages), .jsonl ({"text": ...} a line,
// other keys kept by id), .json (the official list of {"conversations": [{"from": "context", "value": ...}, ...]}, and
// Fox's list of {"image", "conversations": [{"value": prompt}, {"value": text}]}). "-" is stdin (JSONL when it starts
// with '{', else text).
#ifndef LLMC_PAGES_H
#define LLMC_PAGES_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

typedef struct Page {
    const char *text; // UTF-8, not zero-terminated; valid until the next page_next or pages_close
    size_t length;    // bytes
    const char *id;   // "id" or "image" of the source, or "FILE:number" counted from 1; zero-terminated
    const char *answer; // NULL: the answer is the context (the paper's task)
    size_t answer_length;
} Page;

typedef struct PageReader PageReader;
int pages_open(PageReader **out, const char *path, Error *err);
// 1 = a page, 0 = end, -1 = error (names file and line). Pages are streamed: a JSONL file is never held whole.
int pages_next(PageReader *r, Page *page, Error *err);
void pages_close(PageReader *r);

#endif
