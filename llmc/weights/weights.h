// weights.h: the model's tensors between its files and device memory, in pieces of bounded size. The room weights/
// holds models at rest: safetensors, a run's folder, loading, resizing and extracting models, latents. It uses model/,
// data/, text/ and base/.
#ifndef LLMC_WEIGHTS_H
#define LLMC_WEIGHTS_H

#include <stdint.h>

#include "llmc/backend.h"
#include "llmc/model/params.h"
#include "llmc/weights/safetensors.h"

#ifdef __cplusplus
extern "C" {
#endif

// ---- a whole model ----

// Fills the weight arena (device, element type of b) from a C3 folder. Every tensor of the table must be there with its
// shape (embedding rows beyond the table's are cut; too few are an error); other tensors are ignored, but for layers
// that the table does not have. A tied model's lm_head.weight, where it is stored, must equal the embedding.
int checkpoint_load_weights(Backend *b, elem_t *weights, const C3Params *p, const C3Config *c, const char *folder,
                            Error *err);
// SHA-256 over names, shapes and tensor bytes of a folder's model files, independent of sharding; 64 hex digits.
int checkpoint_fingerprint(char hex[65], const char *folder, Error *err);

// A file of a checkpoint as COMPLETE records it.
typedef struct FileSum {
    char name[64]; // relative to the checkpoint's folder
    char host[64]; // that wrote it; "": the host of rank 0
    uint64_t bytes;
    uint32_t crc;
} FileSum;
// Writes config.json, model.safetensors and llm1/ into an existing folder, in b's element type. sums (2): the files'.
int weights_save(Backend *b, const elem_t *weights, const C3Params *p, const C3Config *c, const char *folder,
                 FileSum sums[2], Error *err);

// ---- tensors ----

extern const char *const weights_metadata[1][2]; // of model files: transformers requires it

// Copies from device memory to a writer, or n elements of tensor t of s, from element `from` on, to device memory,
// converted to `type`. Reading, an element that is NaN or infinite is an error that names the tensor.
int weights_write(SafeWriter *w, Backend *b, const void *device, size_t bytes, Error *err);
int weights_read(Backend *b, void *device, DType type, const SafeTensors *s, const SafeTensor *t, size_t from, size_t n,
                 Error *err);

// Error unless the n elements x, of which the first is element `from` of tensor t, are finite numbers.
int weights_check_finite(const void *x, DType type, size_t n, const SafeTensors *s, const SafeTensor *t, size_t from,
                         Error *err);
// The same for the first n elements of t, in its own type (F32, BF16 or F16); copy, if not NULL, gets the bytes.
int weights_check_tensor(const SafeTensors *s, const SafeTensor *t, size_t n, SafeWriter *copy, Error *err);
// The tensor of a parameter, its type and shape checked; NULL and err otherwise. Names in files of a base model
// (Qwen2Model) are without "model.". Tables over the vocabulary may have more rows than the parameter; any_rows: any
// number.
const SafeTensor *weights_find(const SafeTensors *s, const Param *p, int any_rows, Error *err);
// 1 when the parameter is a table over the vocabulary (embedding, head).
int weights_over_vocabulary(const Param *p);
// The parameter that a file's tensor of that name belongs to; NULL: none.
const Param *weights_param(const ParamTable *table, ParamOwner owner, const char *name);
// Refuses files of a tied model whose head differs from the embedding: transformers 4 ignores it, 5 uses it.
int weights_check_tied(const SafeTensors *s, int tied, Error *err);
// Refuses layers that the table does not have: a model of another depth or kind than config.json says.
int weights_check_layers(const SafeTensors *s, const ParamTable *table, ParamOwner owner, Error *err);
// Opens the files of a C3 folder: files[0] its own, files[1] the encoder's.
int weights_open_c3(SafeTensors *files[2], const char *folder, Error *err);
void weights_close_c3(SafeTensors *files[2]);

#ifdef __cplusplus
}
#endif
#endif
