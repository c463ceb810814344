// batch.h: pages -> one packed micro-batch: ids, borders, positions, kept rows, labels, weights, and the order in which
// the embedding's gradient is scattered. Pure host code.
#ifndef LLMC_BATCH_H
#define LLMC_BATCH_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "loader.h"
#include "tokenizer.h"

// What stands around the latents and the text in the decoder's sequence.
typedef struct Template {
    int32_t *before, *after; // (n_before) up to and including `<img>`; (n_after) from `</img>` to the start of the text
    int n_before, n_after;
    int end;                 // `<|im_end|>`: label of the last row, never an input
    int img;                 // `<img>`: stands before the queries in the encoder's sequence
} Template;

// name: "c3" (the paper's instruction) or "bare"; token ids from the tokenizer.
int template_make(Template *t, const char *name, const Tokenizer *tok, Error *err);
void template_free(Template *t);
// Decoder rows of a page that are not text: before + latents + after. (The end mark is a label only.)
int template_overhead(const Template *t, int latents);

// One stack's input. "Kept" rows are the suffix of each page whose output somebody needs: the latent rows of the
// encoder, the supervised rows of the decoder. All pointers lie in the micro-batch's one block.
typedef struct StackBatch {
    int pages, rows, kept;   // T and Tq
    int longest, longest_kept; // of one page
    int runs;                // distinct ids
    int *ids;                // (rows) >= 0 token, < 0 slot -1-id
    int *positions;          // (rows) 0.. inside the page
    int *cu;                 // (pages+1) borders of the pages
    int *kept_cu;            // (pages+1) borders in the kept rows
    int *kept_rows;          // (kept) row of each kept row
    int *kept_positions;     // (kept)
    int *order;              // (rows) rows sorted by id, equal ids by row
    int *run_begin;          // (runs+1) borders of equal ids in order
} StackBatch;

typedef struct MicroBatch {
    StackBatch enc, dec;
    int *labels;          // (dec.kept)
    float *weights;       // (dec.kept) weight of each row's loss
    uint64_t *page_ids;   // (pages) host only: page numbers, for messages
    void *block;          // all arrays above but page_ids, one allocation
    size_t bytes, capacity;
} MicroBatch;

// Bytes of a block for at most `pages` pages with at most these rows in all.
size_t batch_capacity(int pages, int enc_rows, int dec_rows, int dec_kept);
int batch_create(MicroBatch *m, int pages, int enc_rows, int dec_rows, int dec_kept, Error *err);
void batch_free(MicroBatch *m);

// Packs n pages. Encoder sequence of a page: context, `<img>`, latents slots 0..N-1 (shared by all pages); decoder
// sequence: before, slots p*N..p*N+N-1, after, answer. Texts longer than `cut` tokens are cut. weights: one number for
// every row. Never more than the capacity (the caller sized it from the dataset).
void batch_build(MicroBatch *m, const ShardPage *pages, const uint64_t *page_ids, int n, const Template *t, int latents,
                 uint32_t cut, float weight);

// The same micro-batch with every pointer moved from m->block to `block` (device memory that holds a copy of it).
MicroBatch batch_view(const MicroBatch *m, void *block);

#endif
