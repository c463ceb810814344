// pages.h: reads pages of text from the files people have: plain text (form feeds between pages), JSON objects
// ({"text": ...}, one a line or printed over several), and JSON lists (the official {"conversations": [{"from":
// "context", "value": ...}, ...]}, Fox's {"image", "conversations": [{"value": prompt}, {"value": text}]}, or objects
// with a text). "-" is stdin.
//
// What is asked of a text, and the answer: {"context", "prompt", "answer"}, the official shape, or a chat {"messages":
// [{"role": "system|user|assistant", "content": ...}]}. In a chat the user's message is the prompt, the assistant's the
// answer, and the context is the object's key "context" or, without it, the system message. There is one prompt and one
// answer: a question about an earlier answer cannot stand alone. Words that spell special tokens are words.
//
// The contents decide: JSON begins with '{', or with '[' followed by an object, a string or nothing. A name in .txt is
// always text, one in .json or .jsonl never.
//
// A page without text (ASCII white space alone) is skipped wherever pages are read, and counted; what follows the last
// form feed is a page only if it has text.
#ifndef LLMC_PAGES_H
#define LLMC_PAGES_H

#include <stddef.h>
#include <stdint.h>

#include "llmc/base/error.h"

typedef struct Page {
    const char *text;   // UTF-8, not zero-terminated; valid until the next page_next or pages_close
    size_t length;      // bytes
    const char *id;     // "id" or "image" of the source, or "FILE:number"; zero-terminated
    uint64_t number;    // in its file, from 1; pages without text included
    const char *answer; // NULL: the same as the context (the paper's task)
    size_t answer_length;
    const char *prompt; // what is asked of the context; NULL: to repeat it
    size_t prompt_length;
} Page;

// Whether a prompt is the paper's, ignoring case, "<image>", colon and white space.
int pages_prompt_repeats(const char *prompt);

typedef struct PageReader PageReader;
int pages_open(PageReader **out, const char *path, Error *err);
// 1 = a page, 0 = end, -1 = an error (names file and line). Pages are streamed: a JSONL file is never held whole. A
// page (its line or object) of more than 64 MB is an error before it is read to its end.
int pages_next(PageReader *r, Page *page, Error *err);
uint64_t pages_without_text(const PageReader *r); // so far
void pages_close(PageReader *r);

#endif
