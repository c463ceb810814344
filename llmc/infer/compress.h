// compress.h: documents -> latents on disk -> documents: cutting, encoding, decoding and verifying around latents.h.
#ifndef LLMC_COMPRESS_H
#define LLMC_COMPRESS_H

#include <stdio.h>

#include "llmc/base/error.h"
#include "llmc/data/left_out.h"
#include "llmc/infer/generate.h" // PagesDone
#include "llmc/infer/model.h"    // ModelPlace

enum { COMPRESS_PAGE_TOKENS = 1300 }; // the longest pages of the paper's tables

typedef struct CompressSizes {
    int documents, pages;
    int not_nfc;                      // documents that were not in NFC: only their NFC form can come back
    Untrained untrained;              // pages of lengths the model was not trained on
    double text_bytes, characters;    // of the documents in NFC
    double tokens;                    // of all pages
    int without_text;                 // documents left out
    LeftOut cut;                      // documents longer than one page
    int chunk_pages, page_tokens;     // pages made of these; most tokens of a page
    int windows, window;              // of all pages; most tokens of one
    int latents, width, number_bytes; // of one window; numbers in a latent; bytes of a number
    int latents_trained;              // was the model trained with that number?
    double latent_bytes, file_bytes;
} CompressSizes;

// Cuts the documents of `input` (pages.h) into pages of at most page_tokens tokens (0: the longest the model was
// trained on, if unknown 1300, but never more than it takes), encodes them in order and writes `output` ("-": stdout).
int compress_file(CompressSizes *sizes, const ModelPlace *model, const char *input, const char *output, int page_tokens,
                  PagesDone *progress, void *arg, Error *err);
// Prints the sizes of text, latents and file.
void compress_print(FILE *out, const CompressSizes *s, const char *file);

typedef struct DecompressOptions {
    const char *input;  // latents; "-": stdin
    const char *output; // "-": stdout
    int json; // one line {"id","text"[,"exact"],"mean_log_prob":[],"least_log_prob":[]} per document, ln p of the
              // tokens of each page (generate.h), null: -Inf; else plain text, form feeds between documents
    int verify;
    int trust;   // latents made elsewhere: latents_read_bare; not with verify
    int batch;   // pages decoded together, as GeneratorLimits.together
    int max_new; // new tokens of a page; 0: what generate_new_tokens chooses
    int no_repeat_ngram;
} DecompressOptions;

typedef struct DecompressResult {
    int documents, pages;
    int exact_documents, exact_pages; // NFC text equal, by checksum
    int not_nfc;                      // documents that were not in NFC when they were compressed
    int latents, latents_trained;     // of a page; was the model trained with that number?
    char first_wrong[256];            // "page 2 of a.txt:3", the first page that differs; "": none
} DecompressResult;

// Decodes the pages of a latents file, of as many latents as the model has or fewer, and joins them with the white
// space that stood between them. Latents of another model are refused, unless o->trust.
int decompress_file(DecompressResult *result, const ModelPlace *model, const DecompressOptions *o, PagesDone *progress,
                    void *arg, Error *err);
// Prints the result of -verify.
void decompress_print(FILE *out, const DecompressResult *r);

#endif
