// loader.h: which pages belong to which step, rank and micro-batch.
//
// Each epoch has one permutation, from (seed, epoch). Step s takes the next b*g*ranks pages of the endless sequence of
// epochs; the last pages of one epoch and the first of the next can share a step. Within a step pages are distributed
// over ranks and micro-batches so that their lengths balance. The state for resuming, (seed, epoch, position, dataset
// fingerprint), does not depend on the number of ranks as long as b*g*ranks is the same. No page is repeated or
// skipped.
//
// With weights (dataset_weighted) each page of the sequence comes from a set drawn by weight, out of the seed and the
// number of pages before it; each set has epochs and permutations of its own. Then the position counts the pages of all
// sets, and the state also says how many of each were taken. Weights may change where a run is resumed.
#ifndef LLMC_LOADER_H
#define LLMC_LOADER_H

#include <stddef.h>
#include <stdint.h>

#include "llmc/base/error.h"
#include "llmc/data/left_out.h"
#include "llmc/data/shard.h"

#ifdef __cplusplus
extern "C" {
#endif

// All shards of a list of names and patterns, sorted, as one numbered list of pages.
//
// The list is separated by commas. An existing file or folder of exactly the given name is taken first, even if the
// name contains commas, brackets or backslashes; the rest are shell patterns. Shards of a set (shard.h) must be
// complete: a pattern that finds part of a set, or parts of two side by side, has found a data set that is being
// written or was not finished, and is an error. Files named one by one may be a part.
//
// Several data sets can be joined to one: their pages are numbered one set after the other.
enum { DATA_MAX_SETS = 16, DATA_NAME = 32 };
typedef struct PageSet {
    char name[DATA_NAME];          // "": none
    double weight;                 // of its share of the pages; 0 (then of all sets): every page is as frequent
    uint64_t first, pages, tokens; // its pages in the numbered list, their answer tokens
} PageSet;

typedef struct Dataset {
    Shard *shards;
    int n_shards;
    uint64_t pages;                           // usable pages: those longer than maxlen are left out
    LeftOut too_long;                         // pages left out, in answer tokens
    int trusted;                              // shards whose checksums were verified earlier
    int unnamed;                              // shards of the named ones' sets that were not named
    uint64_t tokens;                          // answer tokens of the usable pages
    uint32_t longest_context, longest_answer; // among the usable pages
    uint32_t shortest_context;
    uint64_t asked;         // usable pages with a prompt of their own, and
    uint32_t longest_asked; // the most tokens of prompt and answer of one of these
    uint32_t vocab;
    uint8_t fingerprint[32];     // of the tokenizer, the same in all shards
    uint32_t identity;           // CRC over the shards' CRCs and counts and `pages`: the dataset's fingerprint
    PageSet sets[DATA_MAX_SETS]; // (n_sets) 1 without names
    int n_sets;
    uint32_t *page_shard; // (pages) numbered list: shard of each usable page
    uint64_t *page_index; // (pages) its number in that shard
} Dataset;

// Which pages are usable: those that take at most so many tokens in the decoder's sequence: template, latents, answer
// and end mark. Only the lengths of a page may be looked at.
typedef struct PageLimit {
    uint64_t most;
    uint64_t (*tokens)(const void *arg, const ShardPage *page);
    const void *arg;
} PageLimit;

// limit NULL: all pages are usable. No file or no page is an error that names the pattern.
int dataset_open(Dataset *d, const char *globs, const PageLimit *limit, Error *err);
// The vocabulary of the first file, from its header; dataset_open checks the rest.
int dataset_vocabulary(uint32_t *vocab, const char *globs, Error *err);
void dataset_close(Dataset *d);
// Does such a list of names and patterns find files?
int dataset_finds(const char *globs);
// Adds the pages of `more`, whose tokenizer is the same, as further sets; `more` is empty afterwards.
int dataset_append(Dataset *d, Dataset *more, Error *err);
// The set of a page, its place in d->sets.
int dataset_set(const Dataset *d, uint64_t page);
// Are pages drawn from sets by weight?
static inline int dataset_weighted(const Dataset *d) { return d->n_sets > 1 && d->sets[0].weight > 0; }
ShardPage dataset_page(const Dataset *d, uint64_t page);
// "FILE page N (from 1)" for a page number, for messages; the caller frees it.
char *dataset_page_name(const Dataset *d, uint64_t page);

typedef struct LoaderState {
    uint64_t seed, epoch, position; // position: pages of this epoch already taken
    uint32_t dataset;               // Dataset.identity
    uint64_t taken[DATA_MAX_SETS];  // pages of each set, of a weighted dataset; else 0
} LoaderState;

// Pages of one set, and the tokens of their answers, as far as they are not cut off.
typedef struct SetCount {
    double pages, tokens;
} SetCount;

// The pages of one rank in one step.
typedef struct LoaderStep {
    uint64_t *pages;                // (n) page numbers, micro-batch after micro-batch
    ShardPage *text;                // (n) the pages themselves, as they are to be learned (LoaderConfig.learn)
    int *micro_begin;               // (g+1) boundaries of the micro-batches in pages
    int n, micro;                   // pages of this rank; micro-batches (g)
    uint64_t total_pages;           // of the whole step, all ranks
    uint64_t total_supervised;      // supervised rows of the whole step (sum of cut answer lengths + 1), all ranks
    SetCount of_set[DATA_MAX_SETS]; // of the whole step
    uint32_t cut;                   // page length limit of this step (length warmup); UINT32_MAX = none
    LoaderState after;              // state once this step is done
} LoaderStep;

typedef struct LoaderConfig {
    int b, g; // pages a micro-batch, micro-batches a rank
    int rank, ranks;
    int keep_micro; // 1 (-loss_norm micro): micro-batches keep their b pages and move between ranks only as a whole
    uint32_t window, latents; // tokens that the encoder reads at a time, 0: all; and latents of each window
    int shuffle;              // 0: the order of the files (validation)
    int prefetch;             // 1: a thread prepares the next step; the steps are the same without
    uint32_t (*cut)(void *arg, uint64_t step); // page length limit of a step, a function of the step alone; NULL: none.
    void *cut_arg;                             // Called on the prefetch thread
    // Makes of a page of this set what is to be learned from it: a task, a number of latents. draw: a random number for
    // the page's place in the run, the same after resuming and with any number of ranks. NULL: pages as they are.
    // A page that is its own answer comes cut as the step cuts it. Called on the prefetch thread; what it points to
    // must outlive the loader.
    void (*learn)(void *arg, ShardPage *page, int set, uint64_t draw);
    void *learn_arg;
} LoaderConfig;

// start: {seed, 0, 0, dataset identity} for a new run, or the state saved after the last step; a state of another
// dataset is refused. The dataset must outlive the loader.
typedef struct Loader Loader;
int loader_open(Loader **out, const Dataset *d, const LoaderConfig *config, LoaderState start, uint64_t first_step,
                Error *err);
// The next step, valid until the next call. A thread has already prepared it and touched its tokens.
const LoaderStep *loader_next(Loader *l);
void loader_close(Loader *l);

#ifdef __cplusplus
}
#endif
#endif
