// tokenizer.h: the Qwen byte-level BPE, read from qwen.tiktoken or from a Hugging Face tokenizer.json.
//
// Text is NFC-normalised, split by Qwen's pre-tokeniser expression, and each piece is merged by rank. Special tokens
// are never made from text, even if the text spells one. Ids are exactly those of the reference implementations. A
// vocabulary cut at K keeps the base ranks 0..K-1 (a valid BPE by itself), followed by six specials.
#ifndef LLMC_TOKENIZER_H
#define LLMC_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "llmc/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { QWEN_BASE_RANKS = 151643 };

typedef struct Tokenizer Tokenizer;

// The ids of the special tokens that C3 uses.
typedef struct SpecialTokens {
    int endoftext, im_start, im_end, img, img_end, img_pad;
} SpecialTokens;

// A growing array of ids; zero-initialise it, release it with tokens_free().
typedef struct Tokens {
    int32_t *ids;
    size_t n, room;
} Tokens;
void tokens_free(Tokens *t);

// vocab = 0 keeps all base ranks of the file (specials then have C3's numbers: 151643 `<|endoftext|>`, 151644, 151645,
// 151857 `<img>`, ...); vocab = K > 0 keeps the ranks 0..K-1 and the specials are K..K+5. K must be >= 256.
int tokenizer_load(Tokenizer **out, const char *path, int vocab, Error *err);
void tokenizer_free(Tokenizer *t);

int tokenizer_base(const Tokenizer *t); // K, or the number of base ranks
int tokenizer_size(const Tokenizer *t); // rows of an embedding that holds every id: highest id + 1
const SpecialTokens *tokenizer_specials(const Tokenizer *t);
// SHA-256 of the list rank -> bytes (cut at K) and the specials, not of the file: tokenizer.json and qwen.tiktoken of
// the same vocabulary agree.
const uint8_t *tokenizer_fingerprint(const Tokenizer *t); // (32)

// Appends the ids of n bytes of UTF-8 text. Invalid UTF-8 is an error that names the byte offset. Thread-safe.
int tokenizer_encode(const Tokenizer *t, Tokens *out, const char *text, size_t n, Error *err);

// The bytes of an id: a base token, or a special as it is spelled ("<|im_end|>"); length 0 for any other id.
const char *tokenizer_bytes(const Tokenizer *t, int id, size_t *length);
// The two tokens whose merge makes the base token `rank` >= 256; -1: there are none (bpe.h).
int tokenizer_merge(const Tokenizer *t, int rank, int32_t parts[2]);
// Decodes n ids to allocated, zero-terminated bytes, leaving out specials.
char *tokenizer_decode(const Tokenizer *t, const int32_t *ids, size_t n, size_t *length);

// NFC of valid UTF-8, allocated and zero-terminated. Invalid UTF-8 is an error that names the byte offset.
int text_nfc(char **out, size_t *out_length, const char *text, size_t n, Error *err);

#ifdef __cplusplus
}
#endif
#endif
