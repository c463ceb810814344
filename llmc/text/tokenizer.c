// tokenizer.c: see tokenizer.h. Text passes through unicode.c (valid? NFC?), pretokenize.c (pieces) and bpe.c (ids).
#include "llmc/text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/text/bpe.h"
#include "llmc/base/file.h"
#include "llmc/text/pretokenize.h"
#include "llmc/base/sha256.h"
#include "llmc/base/unicode.h"
#include "llmc/text/vocabulary.h"

enum { SPECIALS = 6, FINGERPRINT = 32 };

struct Tokenizer {
    Vocabulary vocabulary;
    Bpe *bpe;
    SpecialTokens specials;
    uint8_t fingerprint[FINGERPRINT];
};

static const char *const special_text[SPECIALS] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>",
                                                   "<img>",         "</img>",       "<imgpad>"};

void tokens_free(Tokens *t) {
    free(t->ids);
    *t = (Tokens){0};
}

// ---- loading -------------------------------------------------------------------------------------------------------

static int special_id(const SpecialTokens *s, int i) {
    const int ids[SPECIALS] = {s->endoftext, s->im_start, s->im_end, s->img, s->img_end, s->img_pad};
    return ids[i];
}

static SpecialTokens number_specials(int vocab) {
    if (vocab == 0) return (SpecialTokens){151643, 151644, 151645, 151857, 151858, 151859}; // Qwen's and C3's numbers
    return (SpecialTokens){vocab, vocab + 1, vocab + 2, vocab + 3, vocab + 4, vocab + 5};
}

static void hash_token(Sha256 *hash, int id, const void *bytes, size_t length) {
    uint8_t head[8];
    for (int i = 0; i < 4; i++) {
        head[i] = (uint8_t)((uint32_t)id >> 8 * i);
        head[4 + i] = (uint8_t)(length >> 8 * i);
    }
    sha256_update(hash, head, sizeof head);
    sha256_update(hash, bytes, length);
}

// SHA-256 of (id, length, bytes) of every token in order of rank, then of the specials; numbers are u32, little endian.
static void make_fingerprint(Tokenizer *t) {
    Sha256 hash;
    sha256_init(&hash);
    for (int rank = 0; rank < t->vocabulary.ranks; rank++) {
        size_t n;
        const uint8_t *p = vocabulary_rank(&t->vocabulary, rank, &n);
        hash_token(&hash, rank, p, n);
    }
    for (int i = 0; i < SPECIALS; i++)
        hash_token(&hash, special_id(&t->specials, i), special_text[i], strlen(special_text[i]));
    sha256_final(&hash, t->fingerprint);
}

int tokenizer_load(Tokenizer **out, const char *path, int vocab, Error *err) {
    *out = NULL;
    if (vocab != 0 && (vocab < 256 || vocab > QWEN_BASE_RANKS))
        return error_set(err, "%s: a vocabulary of %d was asked for, expected 256 to %d, or 0 for all", path, vocab,
                         QWEN_BASE_RANKS);
    unicode_init();
    FileMap map;
    TRY(file_map(&map, path, err));
    Tokenizer *t = alloc_zeroed(1, sizeof *t, "tokenizer");
    int bad = vocabulary_parse(&t->vocabulary, (const char *)map.data, map.size, QWEN_BASE_RANKS, vocab, path, err);
    file_unmap(&map);
    if (!bad) bad = bpe_create(&t->bpe, &t->vocabulary, path, err);
    if (bad) {
        tokenizer_free(t);
        return -1;
    }
    t->specials = number_specials(vocab);
    make_fingerprint(t);
    *out = t;
    return 0;
}

void tokenizer_free(Tokenizer *t) {
    if (!t) return;
    bpe_free(t->bpe);
    vocabulary_free(&t->vocabulary);
    free(t);
}

int tokenizer_base(const Tokenizer *t) { return t->vocabulary.ranks; }
int tokenizer_size(const Tokenizer *t) { return t->specials.img_pad + 1; }
const SpecialTokens *tokenizer_specials(const Tokenizer *t) { return &t->specials; }
const uint8_t *tokenizer_fingerprint(const Tokenizer *t) { return t->fingerprint; }

// ---- text to ids ---------------------------------------------------------------------------------------------------

static void make_room(Tokens *t, size_t more) {
    if (more <= t->room - t->n) return;
    t->room = t->n + more + (t->n + more) / 2 + 64;
    t->ids = alloc_resize(t->ids, t->room, sizeof *t->ids, "tokens");
}

static void encode_nfc(const Tokenizer *t, Tokens *out, const uint8_t *p, size_t n) {
    for (const uint8_t *end = p + n; p < end;) {
        size_t length = pretokenize_next(p, end);
        make_room(out, length);
        out->n += bpe_encode(t->bpe, out->ids + out->n, p, length, (size_t)(end - p));
        p += length;
    }
}

// *normal: allocated NFC of the text, or NULL when the text is NFC already.
static int normalize(char **normal, size_t *normal_length, const char *text, size_t n, Error *err) {
    *normal = NULL;
    if (n >= UINT32_MAX) return error_set(err, "text: expected less than 4 GiB, found %zu bytes", n);
    unicode_init();
    int invalid;
    size_t known = unicode_nfc_check(&invalid, (const uint8_t *)text, n);
    if (known == n) return 0;
    size_t valid = invalid ? known : known + utf8_valid(text + known, n - known);
    if (valid < n)
        return error_set(err, "text: invalid UTF-8 at byte %zu (0x%02x)", valid, (unsigned)(uint8_t)text[valid]);
    *normal = unicode_nfc(normal_length, (const uint8_t *)text, n, known);
    return 0;
}

int tokenizer_encode(const Tokenizer *t, Tokens *out, const char *text, size_t n, Error *err) {
    char *normal;
    size_t length = 0;
    TRY(normalize(&normal, &length, text, n, err));
    encode_nfc(t, out, (const uint8_t *)(normal ? normal : text), normal ? length : n);
    free(normal);
    return 0;
}

int text_nfc(char **out, size_t *out_length, const char *text, size_t n, Error *err) {
    TRY(normalize(out, out_length, text, n, err));
    if (*out) return 0;
    *out = alloc(n + 1, 1, "text");
    if (n) memcpy(*out, text, n);
    (*out)[n] = 0;
    *out_length = n;
    return 0;
}

// ---- ids to text ---------------------------------------------------------------------------------------------------

const char *tokenizer_bytes(const Tokenizer *t, int id, size_t *length) {
    if (id >= 0 && id < t->vocabulary.ranks) return (const char *)vocabulary_rank(&t->vocabulary, id, length);
    for (int i = 0; i < SPECIALS; i++) {
        if (id != special_id(&t->specials, i)) continue;
        *length = strlen(special_text[i]);
        return special_text[i];
    }
    *length = 0;
    return "";
}

int tokenizer_merge(const Tokenizer *t, int rank, int32_t parts[2]) { return bpe_parts(t->bpe, rank, parts); }

char *tokenizer_decode(const Tokenizer *t, const int32_t *ids, size_t n, size_t *length) {
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        size_t bytes = 0;
        if (ids[i] < t->vocabulary.ranks) tokenizer_bytes(t, ids[i], &bytes);
        total += bytes;
    }
    char *text = alloc(total + 1, 1, "text"), *at = text;
    for (size_t i = 0; i < n; i++) {
        size_t bytes = 0;
        if (ids[i] >= t->vocabulary.ranks) continue;
        const char *p = tokenizer_bytes(t, ids[i], &bytes);
        memcpy(at, p, bytes);
        at += bytes;
    }
    *at = 0;
    *length = total;
    return text;
}
