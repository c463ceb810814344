// pretokenize.h: splits text as Qwen's pre-tokeniser expression does.
#ifndef LLMC_PRETOKENIZE_H
#define LLMC_PRETOKENIZE_H

#include <stddef.h>
#include <stdint.h>

// The length in bytes of the first piece of p..end, which is valid UTF-8 and not empty. Needs unicode_init().
size_t pretokenize_next(const uint8_t *p, const uint8_t *end);

#endif
