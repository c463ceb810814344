// compress.h: documents -> latents on disk -> documents. Cutting, encoding, decoding and verifying around latents.h.
#ifndef LLMC_COMPRESS_H
#define LLMC_COMPRESS_H

#include <stdio.h>

#include "llmc/base/error.h"
#include "llmc/data/left_out.h"
#include "llmc/infer/model.h"

// What both directions share: which model, and on what it runs (see model.h).
typedef struct CompressModel {
    const char *folder, *tokenizer, *device, *dtype;
    int threads;
} CompressModel;

// Told of pages done out of n.
typedef void CompressProgress(void *arg, int done, int n);

enum { COMPRESS_PAGE_TOKENS = 1300 }; // the longest pages of the paper's tables

typedef struct CompressSizes {
    int documents, pages;
    int not_nfc;                      // documents that were not in NFC; their NFC form is what can come back
    Untrained untrained;              // pages of lengths the model was not trained on
    double text_bytes, characters;    // of the documents in NFC
    double tokens;                    // of all pages
    int without_text;                 // documents left out
    LeftOut cut;                      // documents longer than a page, and
    int chunk_pages, page_tokens;     // the pages made of them, of at most so many tokens
    int latents, width, number_bytes; // of one page: latents of `width` numbers of so many bytes
    double latent_bytes, file_bytes;
} CompressSizes;

// Cuts the documents of `input` (see pages.h) into pages of at most page_tokens tokens (0: the longest the model was
// trained on or, where nobody knows, 1300 or what it takes if that is less), encodes them in order and writes `output`
// ("-": stdout).
int compress_file(CompressSizes *sizes, const CompressModel *model, const char *input, const char *output,
                  int page_tokens, CompressProgress *progress, void *arg, Error *err);

// The sizes for a person: text, latents, bytes.
void compress_print(FILE *out, const CompressSizes *s, const char *file);

typedef struct DecompressOptions {
    const char *input;  // latents; "-": stdin
    const char *output; // "-": stdout
    int json;           // a line {"id","text"[,"exact"]} a document; else plain text, form feeds between documents
    int verify;
    int batch;   // pages decoded together; 0: as many as fit into a few gigabytes, at most 64
    int max_new; // new tokens of a page; 0: what generate_new_tokens chooses
    int no_repeat_ngram;
} DecompressOptions;

typedef struct DecompressResult {
    int documents, pages;
    int exact_documents, exact_pages; // text in NFC equal, by checksum
    int not_nfc;                      // documents that were not in NFC when they were compressed
    char first_wrong[256];            // "page 2 of a.txt:3", the first page that did not come back; "" when all did
} DecompressResult;

// Decodes the pages of a latents file and joins them again with the white space that stood between them. Latents of
// another model are refused.
int decompress_file(DecompressResult *result, const CompressModel *model, const DecompressOptions *o,
                    CompressProgress *progress, void *arg, Error *err);
// What -verify says.
void decompress_print(FILE *out, const DecompressResult *r);

// Tokens of the longest page a model reads and writes.
int compress_longest_page(const Model *m);

#endif
