// tokenizer.h: the Qwen byte-level BPE, read from qwen.tiktoken or from a Hugging Face tokenizer.json.
//
// Text is NFC-normalised, split by Qwen's pre-tokeniser expression, and each piece is merged by rank. Special tokens
// are never made from text, even when the text spells one. Exactly equal, id by id, to the reference implementations.
// A vocabulary cut at K keeps the base ranks 0..K-1 (itself a valid BPE) and puts six specials behind them.
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

// Ids of the special tokens C3 uses.
typedef struct SpecialTokens {
    int endoftext, im_start, im_end, img, img_end, img_pad;
} SpecialTokens;

// Growing array of ids; zero-initialise it, tokens_free() it.
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

// Bytes of one id: base tokens and specials (their spelling, e.g. "<|im_end|>"); ids outside give length 0.
const char *tokenizer_bytes(const Tokenizer *t, int id, size_t *length);
// The two tokens whose merge makes the base token `rank` >= 256; -1: there are no such two (bpe.h).
int tokenizer_merge(const Tokenizer *t, int rank, int32_t parts[2]);
// Decodes n ids to allocated, zero-terminated bytes (specials are left out).
char *tokenizer_decode(const Tokenizer *t, const int32_t *ids, size_t n, size_t *length);

// NFC of valid UTF-8 in allocated, zero-terminated memory. Invalid UTF-8 is an error that names the byte offset.
int text_nfc(char **out, size_t *out_length, const char *text, size_t n, Error *err);

#ifdef __cplusplus
}
#endif
#endif
