// safetensors.h: reading (mapped, untrusted) and writing (streamed) of safetensors files; single files and folders with
// an index.
#ifndef LLMC_SAFETENSORS_H
#define LLMC_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "llmc/backend.h" // DType
#include "llmc/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { SAFETENSORS_MAX_DIMS = 8, SAFETENSORS_MAX_HEADER = 100000000 }; // bytes of a header, the format's own limit

typedef struct SafeTensor {
    const char *name;
    const char *type; // as in the file: "F32", "BF16", "F16", "I64", ...
    DType dtype;      // when supported is 1
    int supported;    // F32, BF16, F16
    int dims;
    int64_t shape[SAFETENSORS_MAX_DIMS];
    const void *data; // inside the mapping
    size_t bytes;
} SafeTensor;

// All tensors of one file, or of a folder: FOLDER/model.safetensors, or the files FOLDER/model.safetensors.index.json
// names (a tensor whose file is missing, or that lies in another one, is an error that names both).
typedef struct SafeTensors SafeTensors;
int safetensors_open(SafeTensors **out, const char *path, Error *err);
void safetensors_close(SafeTensors *s);
int safetensors_count(const SafeTensors *s);
const SafeTensor *safetensors_at(const SafeTensors *s, int i);              // sorted by name
const SafeTensor *safetensors_find(const SafeTensors *s, const char *name); // NULL: not there
const char *safetensors_metadata(const SafeTensors *s, const char *key);    // of __metadata__; NULL: not there
const char *safetensors_path(const SafeTensors *s, const SafeTensor *t);    // its file; t NULL: what was opened

// Converts n elements from a tensor's type (F32, BF16, F16) to fp32 or bf16 (round to nearest even).
void safetensors_convert(void *out, DType out_type, const void *in, DType in_type, size_t n);

// Index of the first of n elements that is NaN or infinite; n when there is none.
size_t safetensors_not_finite(const void *data, DType type, size_t n);

// Writing: declare all tensors, then write their bytes in this order, in pieces of any size.
typedef struct SafeWriter SafeWriter;
typedef struct SafeEntry {
    const char *name;
    DType dtype;
    int dims;
    int64_t shape[SAFETENSORS_MAX_DIMS];
} SafeEntry;
// metadata: n_metadata pairs key, value. Opens PATH.tmp and writes the header.
int safetensors_writer_open(SafeWriter **out, const char *path, const SafeEntry *entries, int n,
                            const char *const (*metadata)[2], int n_metadata, Error *err);
int safetensors_writer_data(SafeWriter *w, const void *data, size_t bytes, Error *err);
// CRC-32 and size of what was written so far.
uint32_t safetensors_writer_crc(const SafeWriter *w, uint64_t *bytes);
// Checks that every declared byte was written, then fsync, rename. Frees w in any case.
int safetensors_writer_commit(SafeWriter *w, Error *err);
void safetensors_writer_discard(SafeWriter *w);
// Commits; or, after an error (bad != 0), discards and returns -1 (w may then be NULL).
int safetensors_writer_end(SafeWriter *w, int bad, Error *err);

#ifdef __cplusplus
}
#endif
#endif
