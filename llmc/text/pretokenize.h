// pretokenize.h: cuts text where Qwen's pre-tokeniser expression does.
#ifndef LLMC_PRETOKENIZE_H
#define LLMC_PRETOKENIZE_H

#include <stddef.h>
#include <stdint.h>

// Length in bytes of the first piece of p..end, which is valid UTF-8 and not empty. unicode_init() must have run.
size_t pretokenize_next(const uint8_t *p, const uint8_t *end);

#endif
