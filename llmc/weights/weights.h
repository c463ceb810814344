// weights.h: tensors of the table between a model's files and device memory, in pieces of bounded size.
#ifndef LLMC_WEIGHTS_H
#define LLMC_WEIGHTS_H

#include <stdint.h>

#include "llmc/backend.h"
#include "llmc/model/params.h"
#include "llmc/weights/safetensors.h"
#include "llmc/weights/travel.h"

#ifdef __cplusplus
extern "C" {
#endif

// ---- a whole model ----

// Fills the weight arena (device, element type of b) from a C3 folder. Every tensor of the table must be there with its
// shape (embedding rows beyond the table's are cut; too few are an error); tensors of other names are ignored. Of a
// tied model lm_head.weight is not read: stored beside the embedding, it must be the same.
int checkpoint_load_weights(Backend *b, elem_t *weights, const C3Params *p, const C3Config *c, const char *folder,
                            Error *err);
// Writes the model files into an existing folder, tensor by tensor (no second copy of the model), then what travels
// along; travel NULL: nothing does.
int checkpoint_save_weights(Backend *b, const elem_t *weights, const C3Params *p, const C3Config *c,
                            const Travel *travel, const char *folder, Error *err);
// SHA-256 over names, shapes and tensor bytes of a folder's model files, independent of sharding; 64 hex digits.
int checkpoint_fingerprint(char hex[65], const char *folder, Error *err);

// ---- what saving and loading share ----

// A file of a checkpoint as COMPLETE records it.
typedef struct FileSum {
    char name[64]; // relative to the checkpoint's folder
    char host[64]; // that wrote it; "": the host of rank 0
    uint64_t bytes;
    uint32_t crc;
} FileSum;

// Moves n elements between host and device memory piece by piece: the host side is a writer, or a tensor t of s from
// element `from` on, converted to `type`. An element that is NaN or infinite is an error that names the tensor.
int weights_write(SafeWriter *w, Backend *b, const void *device, size_t bytes, Error *err);
int weights_read(Backend *b, void *device, DType type, const SafeTensors *s, const SafeTensor *t, size_t from, size_t n,
                 Error *err);

// Error unless the n elements x, of which the first is element `from` of tensor t, are finite numbers.
int weights_check_finite(const void *x, DType type, size_t n, const SafeTensors *s, const SafeTensor *t, size_t from,
                         Error *err);
// The tensor of a parameter, its type and shape checked; NULL and err otherwise. Files of a base model (Qwen2Model)
// spell names without "model.". Tables over the vocabulary may have more rows than the parameter; any_rows: any number
// of them.
const SafeTensor *weights_find(const SafeTensors *s, const Param *p, int any_rows, Error *err);
// Is the parameter a table over the vocabulary (embedding, head)?
int weights_over_vocabulary(const Param *p);
// The parameter that a tensor of that name in a file fills; NULL: none.
const Param *weights_param(const ParamTable *table, ParamOwner owner, const char *name);
// Refuses files of a tied model with a head of their own that is not the embedding: transformers 4 leaves it out,
// transformers 5 uses it.
int weights_check_tied(const SafeTensors *s, int tied, Error *err);
// Refuses layers that the files have and the table has not: a model of another depth or kind than config.json says.
int weights_check_layers(const SafeTensors *s, const ParamTable *table, ParamOwner owner, Error *err);
// Opens the files of a C3 folder: files[0] its own, files[1] the encoder's.
int weights_open_c3(SafeTensors *files[2], const char *folder, Error *err);

// config.json, model.safetensors, llm1/: the model alone. sums (2): what was written.
int weights_save(Backend *b, const elem_t *weights, const C3Params *p, const C3Config *c, const char *folder,
                 FileSum sums[2], Error *err);

#ifdef __cplusplus
}
#endif
#endif
