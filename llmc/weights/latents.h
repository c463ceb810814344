// latents.h: encoded pages on disk (.c3). A safetensors file with one tensor "latents" (windows,N,D_enc), the windows
// of all pages in order: the encoder's final norm at the queries, before the projector, in the element type it was
// computed in. __metadata__ holds:
//
//   format, version   "c3-latents", "1"; "2" where a page has several windows
//   model             fingerprint of the model that can read them (checkpoint_fingerprint)
//   sha256            of model and documents, each with a closing zero byte, and the tensor's bytes
//   documents         JSON
//   {"documents":[{"id","nfc","pages":[{"tokens","sha256"},...],"gaps":["","\n\n",...,"\n"]},...]}
//
// A document is gap, page, gap, ..., page, gap: pages went through the model, gaps are the white space around them,
// kept as is. A page's "sha256" is that of its text in NFC, its "windows" their number where it is not 1; "nfc" is
// false if the document was not in NFC. The decoder's context shrinks, not the file: N latents take N * D_enc * (2 or
// 4) bytes.
#ifndef LLMC_LATENTS_H
#define LLMC_LATENTS_H

#include <stddef.h>

#include "llmc/base/error.h"
#include "llmc/weights/safetensors.h"

typedef struct LatentPage {
    int tokens;      // of its text, from 1; 0: unknown (latents_read_bare)
    int first;       // of its windows in the tensor
    int windows;     // from 1
    char sha256[65]; // of its text in NFC; "": unknown
} LatentPage;

typedef struct LatentDocument {
    char *id;
    int first, pages; // which pages of the file; at least one
    char **gaps;      // (pages+1) ASCII white space, zero-terminated
    int is_nfc;
} LatentDocument;

// Zero-initialise before filling in; latents_free() frees everything it points to.
typedef struct LatentFile {
    char model[65];
    int latents, width; // N, D_enc
    DType dtype;        // F32 or BF16
    LatentDocument *documents;
    int n_documents;
    LatentPage *pages;
    int n_pages, n_windows;
    const void *data; // (n_windows,latents,width): in `memory` or in `file`
    void *memory;     // owned; NULL when the file was read
    SafeTensors *file;
} LatentFile;

// Bytes of the latents themselves.
size_t latents_bytes(const LatentFile *f);

// The documents' share of the file's header, whose size is bounded: counted before hours of work. Zero-initialise it.
typedef struct LatentHeader {
    size_t bytes, values; // JSON escaped inside JSON; number of JSON values
} LatentHeader;
// Counts one more document of f. 1: it fits; 0: the header would be too large.
int latents_header_add(LatentHeader *h, const LatentFile *f, const LatentDocument *doc);

// Writes the file, whole or not at all; *bytes becomes its size.
int latents_write(const LatentFile *f, const char *path, uint64_t *bytes, Error *err);
// Reads an untrusted file and checks all of it: form, windows and gaps against the tensor, checksum, finite numbers.
int latents_read(LatentFile *f, const char *path, Error *err);
// Reads latents that another program made: a safetensors file with the tensor, whose form and numbers are checked;
// __metadata__ is not read. Each page is a document of its own, its id "1", "2", ...; of which model is not known.
int latents_read_bare(LatentFile *f, const char *path, Error *err);
void latents_free(LatentFile *f);

// SHA-256 of n bytes in hexadecimal.
void latents_hash(char hex[65], const void *data, size_t n);

#endif
