// tokenizer_json.h: writes a tokenizer, whole or cut, as the two files that transformers reads. AutoTokenizer then
// gives the same ids as tokenizer_encode, except for texts that spell a special token, which transformers takes for the
// token.
#ifndef LLMC_TOKENIZER_JSON_H
#define LLMC_TOKENIZER_JSON_H

#include <stddef.h>

#include "llmc/base/error.h"
#include "llmc/text/tokenizer.h"

// tokenizer.json: vocabulary, merges, special tokens; allocated. Gaps between the whole vocabulary's specials are
// filled with <|extra_0|>, <|extra_1|>, ..., because added tokens are numbered without gaps. A vocabulary that no list
// of merges makes is an error.
int tokenizer_json(char **out, size_t *length, const Tokenizer *t, Error *err);
// tokenizer_config.json, allocated.
void tokenizer_config_json(char **out, size_t *length, const Tokenizer *t);

#endif
