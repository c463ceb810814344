// tokenizer_json.h: a tokenizer, cut or whole, as the two files transformers reads. AutoTokenizer then makes the same
// ids of a text as tokenizer_encode, but for texts that spell a special token: transformers takes them for it.
#ifndef LLMC_TOKENIZER_JSON_H
#define LLMC_TOKENIZER_JSON_H

#include <stddef.h>

#include "llmc/base/error.h"
#include "llmc/text/tokenizer.h"

// tokenizer.json: vocabulary, merges, special tokens; malloc'ed. The places between the whole vocabulary's specials are
// filled with <|extra_0|>, <|extra_1|>, ...: added tokens are numbered without gaps. A vocabulary that no list of
// merges makes is an error.
int tokenizer_json(char **out, size_t *length, const Tokenizer *t, Error *err);
// tokenizer_config.json; malloc'ed.
void tokenizer_config_json(char **out, size_t *length, const Tokenizer *t);

#endif
