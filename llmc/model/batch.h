// batch.h: pages -> one packed micro-batch: ids, borders, positions, output rows, labels, weights, and the order in
// which the embedding's gradient is scattered. Pure host code.
#ifndef LLMC_BATCH_H
#define LLMC_BATCH_H

#include <stddef.h>
#include <stdint.h>

#include "llmc/backend.h"
#include "llmc/base/error.h"
#include "llmc/data/loader.h"
#include "llmc/text/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

// How a page is laid out: the words around latents and text in the decoder's sequence, and the windows in which the
// encoder reads a long context.
typedef struct Template {
    int32_t *prefix; // (n_prefix) up to and including `<img>`
    int32_t *suffix; // (n_suffix) from `</img>` to the start of the text, where the page is to be repeated
    int32_t *ask;    // (n_ask) in place of the suffix, before a prompt of the page's own ...
    int32_t *answer; // (n_answer) ... and behind it
    int n_prefix, n_suffix, n_ask, n_answer;
    int end;        // `<|im_end|>`: label of the last row, never an input
    int img;        // `<img>`: before the queries in the encoder's sequence
    int window;     // tokens of a context that the encoder reads at a time; 0: all
    uint8_t *edges; // (vocabulary) how the bytes of each id begin and end (template.c); NULL without windows
} Template;

// name: "c3" (the paper's instruction) or "bare"; token ids from the tokenizer.
int template_make(Template *t, const char *name, const Tokenizer *tok, Error *err);
// From now on contexts longer than `window` tokens (0: none) are read in windows.
void template_set_window(Template *t, int window, const Tokenizer *tok);
void template_free(Template *t);
// Decoder rows of a page to be repeated that are not text: prefix + latents + suffix. (The end mark is a label only.)
int template_overhead(const Template *t, int latents);
// The same of any page: in all windows `latents`.
int template_page_overhead(const Template *t, const ShardPage *page, int latents);

// Tokens of the window that begins a text of n > 0 tokens: all if they fit; else up to the last border of the best kind
// (paragraph, line, sentence, word, character) in the last quarter of a whole window.
uint32_t template_window(const Template *t, const uint32_t *text, uint32_t n);
// Windows of a text of n tokens; text NULL: the most that a text of this length can have.
int template_windows(const Template *t, const uint32_t *text, uint32_t n);

// One stack's input; to the encoder a window is a page. Output rows are the last rows of each page, those whose output
// is needed: the latent rows of the encoder, the supervised rows of the decoder. All pointers lie in the micro-batch's
// block.
typedef struct StackBatch {
    int pages, rows, outputs;    // T and Tq
    int longest, longest_output; // most rows and output rows of a page
    int runs;                    // distinct ids
    int *ids;                    // (rows) >= 0 token, < 0 slot -1-id
    int *positions;              // (rows) 0.. inside the page
    int *cu;                     // (pages+1) borders of the pages
    int *output_cu;              // (pages+1) borders in the output rows
    int *output_rows;            // (outputs) row of each output row
    int *output_positions;       // (outputs)
    int *order;                  // (rows) rows sorted by id, equal ids by row
    int *run_begin;              // (runs+1) borders of equal ids in order
} StackBatch;

typedef struct MicroBatch {
    StackBatch enc, dec;
    int *labels;        // (dec.outputs)
    float *weights;     // (dec.outputs) weight of each row's loss
    uint64_t *page_ids; // (pages) host only: page numbers, for messages
    int loss_row;       // first row in the step's losses (C3.losses)
    void *block;        // all arrays above but page_ids, in one piece
    size_t bytes, capacity;
    uint64_t *sort_work; // (2 * the longest stack's rows) host only
    Backend *b;          // allocated block; NULL: block is not owned
} MicroBatch;

// Size of a micro-batch: pages; rows in the encoder, in the decoder, supervised; windows, and latents of all windows.
// As the most that a batch may hold, windows and slots of 0 are no limit beside the others.
typedef struct BatchRows {
    int pages, enc, dec, outputs, windows, slots;
} BatchRows;

// Bytes of its block.
size_t batch_capacity(BatchRows most);
// Allocates a micro-batch of at most this size, its block in memory that upload_async may read.
int batch_create(MicroBatch *m, Backend *b, BatchRows most, Error *err);
// The same in the caller's memory: block (capacity bytes), page_ids (pages), sort_work (2 * rows).
void batch_place(MicroBatch *m, void *block, size_t capacity, uint64_t *page_ids, uint64_t *sort_work);
void batch_free(MicroBatch *m);

// Rows of one page, its texts cut to `cut` tokens. context NULL: the most that a page of these lengths can take.
BatchRows batch_page_rows(const ShardPage *page, const Template *t, int latents, uint32_t cut);

// Packs n pages. Encoder sequence of a window: its part of the context, `<img>`, latents slots 0..n-1 (shared by all
// windows); decoder sequence of a page: prefix, the slots of its windows in order, suffix or prompt, answer. A page has
// page->latents latents a window, or `latents`. Texts are cut to `cut` tokens, prompts are not. weights (n): of every
// supervised row of each page; NULL: all 1. The pages must fit the capacity, which the caller sized from the dataset.
void batch_build(MicroBatch *m, const ShardPage *pages, const uint64_t *page_ids, int n, const Template *t, int latents,
                 uint32_t cut, const float *weights);

// The same micro-batch with every pointer moved from m->block to `block`, its copy on the device.
MicroBatch batch_view(const MicroBatch *m, void *block);

#ifdef __cplusplus
}
#endif
#endif
