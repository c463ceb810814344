// perturb.c: see perturb.h.
#include "llmc/text/perturb.h"

#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/base/random.h"
#include "llmc/base/unicode.h" // utf8_read

static const char *const names[] = {"none", "random", "shuffle"};

const char *perturb_name(Perturb kind) { return names[kind]; }

int perturb_parse(Perturb *kind, const char *name, Error *err) {
    for (int i = PERTURB_NONE; i <= PERTURB_SHUFFLE; i++) {
        if (strcmp(name, names[i]) != 0) continue;
        *kind = (Perturb)i;
        return 0;
    }
    return error_set(err, "perturb: expected none, random or shuffle, found '%s'", name);
}

// Tokens of a text; -1 on an error.
static int64_t count(const Tokenizer *tok, const char *text, size_t n, Error *err) {
    Tokens t = {0};
    int bad = tokenizer_encode(tok, &t, text, n, err);
    size_t tokens = t.n;
    tokens_free(&t);
    return bad ? -1 : (int64_t)tokens;
}

// Shortens a text of NFC characters, never to less than one, until it has at most `most` tokens.
static int cut(char *text, size_t *n, size_t most, const Tokenizer *tok, Error *err) {
    Tokens t = {0};
    size_t bytes = *n;
    TRY(tokenizer_encode(tok, &t, text, *n, err));
    if (t.n > most) {
        // the end of the first tokens; cutting there can add a token, because the last piece merges differently
        bytes = 0;
        for (size_t i = 0, length; i < most; i++, bytes += length) tokenizer_bytes(tok, t.ids[i], &length);
    }
    tokens_free(&t);
    for (int64_t tokens = bytes < *n ? INT64_MAX : 0; tokens > (int64_t)most;) {
        while (bytes > 0 && ((unsigned char)text[bytes] & 0xc0) == 0x80) bytes--;
        uint32_t first;
        size_t least = utf8_read(&first, (const uint8_t *)text);
        if (bytes <= least) {
            bytes = least;
            break;
        }
        tokens = count(tok, text, bytes, err);
        if (tokens < 0) return -1;
        if (tokens > (int64_t)most) bytes--;
    }
    text[bytes] = 0;
    *n = bytes;
    return 0;
}

// Letters and digits until the text has `tokens` tokens.
static int draw_text(char **out, size_t *n_out, size_t tokens, uint64_t state, const Tokenizer *tok, Error *err) {
    static const char alphabet[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    char *text = NULL;
    int64_t found = 0;
    size_t n = 0;
    while (found < (int64_t)tokens) {
        size_t more = 2 * tokens + 16;
        text = alloc_resize(text, n + more + 1, 1, "text");
        for (size_t end = n + more; n < end; n++) {
            int blank = random_below(&state, 7) == 0 && n > 0 && text[n - 1] != ' ';
            text[n] = blank ? ' ' : alphabet[random_below(&state, sizeof alphabet - 1)];
        }
        found = count(tok, text, n, err);
        if (found < 0) {
            free(text);
            return -1;
        }
    }
    text[n] = 0;
    *out = text;
    *n_out = n;
    return 0;
}

// The characters of an NFC text in random order (Fisher and Yates).
static int shuffle(char **out, size_t *n_out, const char *text, size_t n, uint64_t state, Error *err) {
    size_t *begin = alloc(n + 1, sizeof *begin, "characters"), characters = 0;
    char *mixed = alloc(n + 1, 1, "text");
    for (size_t at = 0; at < n; characters++) {
        uint32_t c;
        begin[characters] = at;
        at += utf8_read(&c, (const uint8_t *)text + at);
    }
    size_t written = 0;
    for (size_t left = characters; left > 0; left--) {
        size_t i = random_below(&state, (uint32_t)left);
        uint32_t c;
        size_t length = utf8_read(&c, (const uint8_t *)text + begin[i]);
        memcpy(mixed + written, text + begin[i], length);
        written += length;
        begin[i] = begin[left - 1];
    }
    free(begin);
    int bad = text_nfc(out, n_out, mixed, n, err); // marks may now follow other bases
    free(mixed);
    return bad;
}

int perturb_text(char **out, size_t *n_out, const char *text, size_t n, Perturb kind, uint64_t seed,
                 const Tokenizer *tok, Error *err) {
    char *normal;
    size_t length;
    *out = NULL;
    TRY(text_nfc(&normal, &length, text, n, err));
    int64_t tokens = count(tok, normal, length, err);
    if (tokens <= 0 || kind == PERTURB_NONE) {
        *out = normal;
        *n_out = length;
        if (tokens >= 0) return 0;
        free(normal);
        *out = NULL;
        return -1;
    }
    int bad = kind == PERTURB_RANDOM ? draw_text(out, n_out, (size_t)tokens, seed, tok, err)
                                     : shuffle(out, n_out, normal, length, seed, err);
    free(normal);
    if (!bad && cut(*out, n_out, (size_t)tokens, tok, err) == 0) return 0;
    free(*out);
    *out = NULL;
    return -1;
}
