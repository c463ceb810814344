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

// The words around latents and text in the decoder's sequence.
typedef struct Template {
    int32_t *prefix; // (n_prefix) up to and including `<img>`
    int32_t *suffix; // (n_suffix) from `</img>` to the start of the text
    int n_prefix, n_suffix;
    int end; // `<|im_end|>`: label of the last row, never an input
    int img; // `<img>`: before the queries in the encoder's sequence
} Template;

// name: "c3" (the paper's instruction) or "bare"; token ids from the tokenizer.
int template_make(Template *t, const char *name, const Tokenizer *tok, Error *err);
void template_free(Template *t);
// Decoder rows of a page that are not text: prefix + latents + suffix. (The end mark is a label only.)
int template_overhead(const Template *t, int latents);

// One stack's input. Output rows are the last rows of each page, those whose output is needed: the latent rows of the
// encoder, the supervised rows of the decoder. All pointers lie in the micro-batch's block.
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

// Size of a micro-batch: pages, and rows in the encoder, in the decoder, supervised.
typedef struct BatchRows {
    int pages, enc, dec, outputs;
} BatchRows;

// Bytes of its block.
size_t batch_capacity(BatchRows most);
// Allocates a micro-batch of at most this size, its block in memory that upload_async may read.
int batch_create(MicroBatch *m, Backend *b, BatchRows most, Error *err);
// The same in the caller's memory: block (capacity bytes), page_ids (pages), sort_work (2 * rows).
void batch_place(MicroBatch *m, void *block, size_t capacity, uint64_t *page_ids, uint64_t *sort_work);
void batch_free(MicroBatch *m);

// Rows of one page, its texts cut to `cut` tokens.
BatchRows batch_page_rows(const ShardPage *page, const Template *t, int latents, uint32_t cut);

// Packs n pages. Encoder sequence of a page: context, `<img>`, latents slots 0..N-1 (shared by all pages); decoder
// sequence: prefix, slots p*N..p*N+N-1, suffix, answer. Texts are cut to `cut` tokens. weights (n): of every supervised
// row of each page; NULL: all 1. The pages must fit the capacity, which the caller sized from the dataset.
void batch_build(MicroBatch *m, const ShardPage *pages, const uint64_t *page_ids, int n, const Template *t, int latents,
                 uint32_t cut, const float *weights);

// The same micro-batch with every pointer moved from m->block to `block`, its copy on the device.
MicroBatch batch_view(const MicroBatch *m, void *block);

#ifdef __cplusplus
}
#endif
#endif
