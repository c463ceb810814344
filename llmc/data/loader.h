// loader.h: which pages belong to which step, rank and micro-batch.
//
// One permutation per epoch from (seed, epoch); step s takes the next b*g*ranks pages of the endless sequence of epochs
// (the last pages of one epoch and the first of the next share a step). Inside a step pages are dealt to ranks and
// micro-batches, balanced by length. State to resume: (seed, epoch, position, dataset fingerprint), and it does not
// depend on the number of ranks as long as b*g*ranks is the same. Nothing is seen twice or skipped after a resume.
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

// All shards of a list of names and patterns, in sorted order, as one numbered list of pages.
//
// Commas part the list. What is there under the very name it is given by is taken first, commas, brackets and
// backslashes included; the rest are patterns as the shell's, in which folders that are there under their very name are
// not patterns. Shards of one set (shard.h) come whole: a pattern that finds a part of one, or parts of two beside each
// other, finds a data set that is being written or was not finished, and is refused. Files that are named one by one
// may be a part.
typedef struct Dataset {
    Shard *shards;
    int n_shards;
    uint64_t pages;                           // usable pages: those longer than maxlen are left out
    LeftOut too_long;                         // pages left out, in answer tokens
    int trusted;                              // shards whose checksums an earlier check vouches for
    int unnamed;                              // shards that belong to the sets of the named ones but were not named
    uint64_t tokens;                          // answer tokens of the usable pages
    uint32_t longest_context, longest_answer; // among the usable pages
    uint32_t shortest_context;
    uint32_t vocab;
    uint8_t fingerprint[32]; // of the tokenizer, the same in all shards
    uint32_t identity;       // CRC over the shards' CRCs and counts and `pages`: the dataset's fingerprint
    uint32_t *page_shard;    // (pages) numbered list: shard of each usable page
    uint64_t *page_index;    // (pages) its number in that shard
} Dataset;

// overhead: decoder tokens that are not text (template + latents + end mark); a page is usable when
// overhead + answer tokens <= maxlen (maxlen = 0: no limit). No file, no page: an error that names the pattern.
int dataset_open(Dataset *d, const char *globs, uint32_t overhead, uint32_t maxlen, Error *err);
// The vocabulary of the first file, out of its header: dataset_open checks the rest.
int dataset_vocabulary(uint32_t *vocab, const char *globs, Error *err);
void dataset_close(Dataset *d);
ShardPage dataset_page(const Dataset *d, uint64_t page);
// "FILE page N (from 1)" of a page number, for messages; the caller frees it.
char *dataset_page_name(const Dataset *d, uint64_t page);

typedef struct LoaderState {
    uint64_t seed, epoch, position; // position: pages of this epoch already given out
    uint32_t dataset;               // Dataset.identity
} LoaderState;

// The pages of one rank in one step.
typedef struct LoaderStep {
    uint64_t *pages;           // (n) page numbers, micro-batch after micro-batch
    int *micro_begin;          // (g+1) borders of the micro-batches in pages
    int n, micro;              // pages of this rank; micro-batches (g)
    uint64_t total_pages;      // of the whole step, all ranks
    uint64_t total_supervised; // supervised rows of the whole step (sum of cut answer lengths + 1), all ranks
    uint32_t cut;              // page length limit of this step (length warmup); UINT32_MAX = none
    LoaderState after;         // state once this step is done
} LoaderStep;

typedef struct LoaderConfig {
    int b, g; // pages a micro-batch, micro-batches a rank
    int rank, ranks;
    int keep_micro; // 1 (-loss_norm micro): micro-batches keep their b pages, only whole ones move between ranks
    int shuffle;    // 0: the order of the files (validation)
    int prefetch;   // 1: a thread works out the next step ahead; the steps are the same without
    uint32_t (*cut)(void *arg, uint64_t step); // page length limit of a step, a function of the step alone; NULL: none.
    void *cut_arg;                             // Called on the prefetch thread
} LoaderConfig;

// start: {seed, 0, 0, dataset identity} for a new run, or the state saved after the last step; one of another dataset
// is refused. The dataset must outlive the loader.
typedef struct Loader Loader;
int loader_open(Loader **out, const Dataset *d, const LoaderConfig *config, LoaderState start, uint64_t first_step,
                Error *err);
// The next step; valid until the next call. A thread of its own has already worked it out and touched its tokens.
const LoaderStep *loader_next(Loader *l);
void loader_close(Loader *l);

#ifdef __cplusplus
}
#endif
#endif
