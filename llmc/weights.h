// weights.h: tensors of the table between a model's files and device memory, in pieces of bounded size. What the rest
// of the program calls is in checkpoint.h; this is what its parts share.
#ifndef LLMC_WEIGHTS_H
#define LLMC_WEIGHTS_H

#include <stdint.h>

#include "backend.h"
#include "optimizer.h"
#include "params.h"
#include "safetensors.h"

// A file of a checkpoint as COMPLETE records it.
typedef struct FileSum {
    char name[64]; // relative to the checkpoint's folder
    uint64_t bytes;
    uint32_t crc;
} FileSum;

// Moves n elements between host and device memory piece by piece: the host side is a writer, or a tensor of a file from
// element `from` on, converted to `type`.
int weights_write(SafeWriter *w, Backend *b, const void *device, size_t bytes, Error *err);
int weights_read(Backend *b, void *device, DType type, const SafeTensor *t, size_t from, size_t n, Error *err);

// config.json, model.safetensors, llm1/: the model alone. sums (2): what was written.
int weights_save(Backend *b, const elem_t *weights, const C3Params *p, const C3Config *c, const char *source,
                 const char *folder, FileSum sums[2], Error *err);
// Tokenizer files and what else travels along with a model.
int weights_copy_others(const char *tokenizer_path, const char *source, const char *folder, Error *err);
// Fills the held pieces of o->master from the fp32 model files of a checkpoint that kept no master weights of its own.
int weights_load_master(const Optimizer *o, const char *folder, Error *err);

#endif
