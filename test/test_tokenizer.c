// test_tokenizer.c: round trips, cuts, specials, both file formats, damaged files, hostile texts. Equality with the
// reference implementations: test_tokenizer.py.
#include "test/check.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/base/file.h"
#include "llmc/text/pretokenize.h"
#include "llmc/text/tokenizer.h"
#include "llmc/text/tokenizer_json.h"
#include "llmc/base/unicode.h"
#include "llmc/text/vocabulary.h"

static const char *const qwen = "data/qwen2.5/qwen.tiktoken";
static char folder[] = "build/test_tokenizer_XXXXXX";
static Error err;

static char *put(const char *name, const void *data, size_t size) {
    char *path = string_format("%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) perror(path), exit(2);
    return path;
}

static Tokenizer *load(const char *path, int vocab) {
    Tokenizer *t;
    CHECK(tokenizer_load(&t, path, vocab, &err) == 0, "%s", err.text);
    if (!t) exit(check_done());
    return t;
}

static Tokens encode(const Tokenizer *t, const char *text, size_t n) {
    Tokens ids = {0};
    CHECK(tokenizer_encode(t, &ids, text, n, &err) == 0, "%s", err.text);
    return ids;
}

// Encodes and decodes; the result must be the text's NFC.
static size_t round_trip(const Tokenizer *t, const char *text, size_t n) {
    Tokens ids = encode(t, text, n);
    size_t length, normal_length;
    char *back = tokenizer_decode(t, ids.ids, ids.n, &length), *normal;
    CHECK(text_nfc(&normal, &normal_length, text, n, &err) == 0, "%s", err.text);
    CHECK(length == normal_length && !memcmp(back, normal, length) && !back[length], "%zu bytes from %zu", length, n);
    free(back), free(normal), free(ids.ids);
    return ids.n;
}

static int same_ids(const Tokenizer *t, const char *text, size_t n, const int32_t *wanted) {
    Tokens ids = encode(t, text, strlen(text));
    int same = ids.n == n && memcmp(ids.ids, wanted, n * sizeof *wanted) == 0;
    for (size_t i = 0; !same && i < ids.n; i++) printf("  %s: id %zu is %d\n", text, i, ids.ids[i]);
    tokens_free(&ids);
    return same;
}
#define SAME(t, text, ...)                                                                                             \
    CHECK(same_ids(t, text, sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t), (int32_t[]){__VA_ARGS__}), "%s", text)

// ---- the whole vocabulary ------------------------------------------------------------------------------------------

static void test_known(const Tokenizer *t) {
    check_begin("known ids of Qwen2.5");
    SAME(t, "Hello, world!", 9707, 11, 1879, 0);
    SAME(t, "Repeat the text: ", 38718, 279, 1467, 25, 220);
    SAME(t, "assistant\n", 77091, 198);
    CHECK(tokenizer_base(t) == 151643 && tokenizer_size(t) == 151860, "%d %d", tokenizer_base(t), tokenizer_size(t));
    const SpecialTokens *s = tokenizer_specials(t);
    CHECK(s->endoftext == 151643 && s->im_start == 151644 && s->im_end == 151645 && s->img == 151857 &&
              s->img_end == 151858 && s->img_pad == 151859,
          "specials");
}

static void test_specials(const Tokenizer *t) {
    check_begin("text that spells a special token stays text; specials have bytes but are not decoded");
    const char *texts[] = {"<|im_end|>", "<|endoftext|>", "<img></img><imgpad>", "a<|im_start|>b"};
    for (int i = 0; i < 4; i++) {
        Tokens ids = encode(t, texts[i], strlen(texts[i]));
        for (size_t k = 0; k < ids.n; k++) CHECK(ids.ids[k] < tokenizer_base(t), "%s gives %d", texts[i], ids.ids[k]);
        tokens_free(&ids);
        CHECK(round_trip(t, texts[i], strlen(texts[i])) > 1, "%s", texts[i]);
    }
    size_t n;
    const SpecialTokens *s = tokenizer_specials(t);
    CHECK(!strcmp(tokenizer_bytes(t, s->im_end, &n), "<|im_end|>") && n == 10, "im_end");
    CHECK(!strcmp(tokenizer_bytes(t, s->img, &n), "<img>") && n == 5, "img");
    const int outside[] = {-1, INT32_MIN, 151646, 151856, 151860, INT32_MAX};
    for (int i = 0; i < 6; i++) CHECK(tokenizer_bytes(t, outside[i], &n) && n == 0, "id %d", outside[i]);
    const int32_t ids[] = {s->im_start, 9707, s->img, s->img_pad, 0, -5, 151700, s->im_end};
    char *text = tokenizer_decode(t, ids, 8, &n);
    CHECK(n == 6 && !strcmp(text, "Hello!"), "%s", text);
    free(text);
}

// A deterministic text of `n` random characters below `limit`, surrogates left out.
static size_t random_text(char *out, size_t n, uint32_t limit, uint32_t seed) {
    size_t length = 0;
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        uint32_t c = (seed >> 8) % limit;
        if (c >= 0xd800 && c < 0xe000) c = ' ';
        uint8_t *o = (uint8_t *)out + length;
        if (c < 0x80) o[0] = (uint8_t)c, length += 1;
        else if (c < 0x800) o[0] = (uint8_t)(0xc0 | c >> 6), o[1] = (uint8_t)(0x80 | (c & 63)), length += 2;
        else if (c < 0x10000)
            o[0] = (uint8_t)(0xe0 | c >> 12), o[1] = (uint8_t)(0x80 | (c >> 6 & 63)), o[2] = (uint8_t)(0x80 | (c & 63)),
            length += 3;
        else
            o[0] = (uint8_t)(0xf0 | c >> 18), o[1] = (uint8_t)(0x80 | (c >> 12 & 63)),
            o[2] = (uint8_t)(0x80 | (c >> 6 & 63)), o[3] = (uint8_t)(0x80 | (c & 63)), length += 4;
    }
    return length;
}

static void test_round_trips(const Tokenizer *t) {
    check_begin("encode, decode: the NFC of random text of every kind");
    char *text = malloc(4096);
    const uint32_t limits[] = {0x80, 0x100, 0x370, 0x800, 0x3100, 0x10000, 0x20000, 0x110000};
    for (uint32_t i = 0; i < 2000; i++) round_trip(t, text, random_text(text, 1 + i % 600, limits[i % 8], i));
    free(text);
    CHECK(round_trip(t, "", 0) == 0, "the empty text");
    CHECK(round_trip(t, "a\0b", 3) == 3, "a zero byte");
    check_begin("appending: ids already there stay");
    Tokens ids = {0};
    for (int i = 0; i < 300; i++) CHECK(tokenizer_encode(t, &ids, "Hello, world!", 13, &err) == 0, "%s", err.text);
    CHECK(ids.n == 1200 && ids.ids[1196] == 9707 && ids.ids[3] == 0, "%zu", ids.n);
    CHECK(tokenizer_encode(t, &ids, "ok \xff", 4, &err) != 0 && ids.n == 1200, "an error leaves them as they were");
    tokens_free(&ids);
    check_begin("every token decodes to its bytes, and its bytes, where they are a piece, encode to it");
    int encoded = 0;
    for (int id = 0; id < tokenizer_base(t); id++) {
        size_t n;
        const char *p = tokenizer_bytes(t, id, &n);
        for (size_t k = 0; k < n; k++)
            if (!((p[k] >= 'a' && p[k] <= 'z') || (k == 0 && p[k] == ' '))) n = 0;
        if (n == 0 || (n == 1 && *p == ' ')) continue;
        encoded++;
        Tokens one = encode(t, p, n);
        CHECK(one.n == 1 && one.ids[0] == id, "%d", id);
        tokens_free(&one);
    }
    CHECK(encoded > 30000, "%d", encoded);
}

// Cuts that ids cannot show, because no token of the vocabulary reaches across them. '|' parts the pieces.
static void test_pieces(void) {
    check_begin("pieces of the expression, alternative by alternative");
    const char *const cases[] = {"'\xc5\xbf|s",
                                 "'S|x|'re|x|'vE|x|'LL|x|'m|'d|'T",
                                 "'r|'v|'l|'x",
                                 "1|2|\xc2\xbd|a",
                                 " a|_b|\tc|\n|d",
                                 "  | e",
                                 " |1|  | !|\t|!",
                                 "\n  \n|  | a",
                                 " \r\n|x",
                                 "!\n\r\n| ",
                                 "a|  \t",
                                 "\xe3\x80\x80|\xe3\x80\x80\xe5\xad\x97",
                                 "a|\xcc\x81|1|\xcc\x81"
                                 "b"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[64], got[128] = "";
        size_t n = 0;
        for (const char *c = cases[i]; *c; c++)
            if (*c != '|') text[n++] = *c;
        const uint8_t *p = (const uint8_t *)text, *end = p + n;
        while (p < end) {
            size_t length = pretokenize_next(p, end);
            if (*got) strcat(got, "|");
            strncat(got, (const char *)p, length);
            p += length;
        }
        CHECK(!strcmp(got, cases[i]), "got %s, wanted %s", got, cases[i]);
    }
}

static void test_invalid(const Tokenizer *t) {
    check_begin("invalid UTF-8 is refused with its byte offset");
    const struct {
        const char *text;
        int at;
    } cases[] = {{"\x80", 0},         {"abc\xff", 3},           {"ab\xc0\xaf", 2},       {"\xe0\x9f\xbf", 0},
                 {"\xed\xa0\x80", 0}, {"x\xf0\x8f\xbf\xbf", 1}, {"\xf4\x90\x80\x80", 0}, {"caf\xc3", 3},
                 {"\xe4\xb8", 0},     {"a\xcc\x81 \xc3(", 4},   {"12345678\xf5", 8},     {"e\xcc\x81\xe2\x82", 3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Tokens ids = {0};
        char *normal, wanted[64];
        size_t n = strlen(cases[i].text), length;
        snprintf(wanted, sizeof wanted, "invalid UTF-8 at byte %d ", cases[i].at);
        CHECK(tokenizer_encode(t, &ids, cases[i].text, n, &err) != 0 && strstr(err.text, wanted), "case %zu: %s", i,
              err.text);
        CHECK(text_nfc(&normal, &length, cases[i].text, n, &err) != 0 && !normal && strstr(err.text, wanted),
              "NFC, case %zu", i);
        CHECK(utf8_valid(cases[i].text, n) == (size_t)cases[i].at, "case %zu: valid up to %zu", i,
              utf8_valid(cases[i].text, n));
        tokens_free(&ids);
    }
    CHECK(utf8_valid("\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80\xc2\x80", 12) == 12, "the borders are valid");
}

static double cpu_seconds(void) {
    struct timespec s;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &s);
    return (double)s.tv_sec + 1e-9 * (double)s.tv_nsec;
}

// Quadratic work on 2 MB would take hours of CPU time.
static void test_hostile(const Tokenizer *t) {
    check_begin("2 MB of one piece or of marks to be sorted: time stays near linear");
    size_t n = 2000000;
    char *text = malloc(n + 4);
    double start = cpu_seconds();
    memset(text, 'a', n);
    round_trip(t, text, n);
    memset(text, ' ', n);
    round_trip(t, text, n);
    memset(text, '\n', n);
    round_trip(t, text, n);
    memset(text, '!', n);
    round_trip(t, text, n);
    for (size_t i = 0; i < n; i++) text[i] = "abcdefgh"[i * i / 7 % 8];
    round_trip(t, text, n);
    for (size_t i = 0; i + 3 <= n; i += 3) memcpy(text + i, "\xe5\xad\x97", 3);
    round_trip(t, text, n - n % 3);
    for (size_t i = 0; i < n; i += 4) memcpy(text + i, "\xcc\x81\xcc\xa3", 4); // above and below: all to be sorted
    round_trip(t, text, n);
    double seconds = cpu_seconds() - start;
    CHECK(seconds < 60, "%.1f s", seconds);
    free(text);
}

static void test_nfc(void) {
    check_begin("NFC");
    const char *const cases[][2] = {{"e\xcc\x81", "\xc3\xa9"},                                // composes
                                    {"e\xcc\xa3\xcc\x82", "\xe1\xbb\x87"},                    // twice
                                    {"e\xcc\x82\xcc\xa3", "\xe1\xbb\x87"},                    // out of order
                                    {"\xe2\x84\xab", "\xc3\x85"},                             // Angstrom sign
                                    {"\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab", "\xed\x95\x9c"}, // Hangul
                                    {"\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc"}, // excluded from composition
                                    {"a\xcc\x95\xcc\x81", "\xc3\xa1\xcc\x95"}, // 232 before 230: sorted, then composed
                                    {"\xef\xac\x81 \xc2\xbd", "\xef\xac\x81 \xc2\xbd"}, // compatibility forms stay
                                    {"\xcc\x81", "\xcc\x81"},
                                    {"plain", "plain"},
                                    {"", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *normal;
        size_t n;
        const char *wanted = cases[i][1];
        CHECK(text_nfc(&normal, &n, cases[i][0], strlen(cases[i][0]), &err) == 0, "%s", err.text);
        CHECK(n == strlen(wanted) && !strcmp(normal, wanted), "case %zu: %s", i, normal);
        free(normal);
    }
    check_begin("the table covers all letters, numbers, spaces, marks there are");
    unicode_init();
    CHECK((unicode_entry('a') & CHAR_CLASS) == CHAR_LETTER && (unicode_entry('7') & CHAR_CLASS) == CHAR_NUMBER &&
              (unicode_entry(0x3000) & CHAR_CLASS) == CHAR_SPACE && unicode_entry('\n') == CHAR_NEWLINE &&
              (unicode_entry(0x301) & CHAR_MAY_CHANGE) && unicode_entry(0xd800) == CHAR_OTHER &&
              (unicode_entry(0x323af) & CHAR_CLASS) <= CHAR_LETTER,
          "classes");
}

// ---- cuts ----------------------------------------------------------------------------------------------------------

static void test_cut(const Tokenizer *full) {
    check_begin("a vocabulary cut at K: ids below K, specials behind, round trips");
    for (int i = 0; i < 4; i++) {
        int k = (int[]){256, 257, 4096, 151643}[i];
        Tokenizer *t = load(qwen, k);
        const SpecialTokens *s = tokenizer_specials(t);
        CHECK(tokenizer_base(t) == k && tokenizer_size(t) == k + 6 && s->endoftext == k && s->im_start == k + 1 &&
                  s->im_end == k + 2 && s->img == k + 3 && s->img_end == k + 4 && s->img_pad == k + 5,
              "%d", k);
        const char *text = "Hello, world! \xe4\xbd\xa0\xe5\xa5\xbd <|im_end|> \xf0\x9f\x98\x80";
        Tokens ids = encode(t, text, strlen(text)), whole = encode(full, text, strlen(text));
        for (size_t n = 0; n < ids.n; n++) CHECK(ids.ids[n] < k, "id %d", ids.ids[n]);
        CHECK(k == 256 ? ids.n == strlen(text) : k < 151643 ? ids.n > whole.n : ids.n == whole.n, "%zu ids", ids.n);
        round_trip(t, text, strlen(text));
        CHECK(memcmp(tokenizer_fingerprint(t), tokenizer_fingerprint(full), 32) != 0, "the fingerprint is another");
        tokens_free(&ids), tokens_free(&whole);
        tokenizer_free(t);
    }
    Tokenizer *t = NULL;
    for (int i = 0; i < 5; i++) {
        int k = (int[]){-1, 1, 255, 151644, INT32_MAX}[i];
        CHECK(tokenizer_load(&t, qwen, k, &err) != 0 && !t && strstr(err.text, "expected 256 to 151643"), "%d: %s", k,
              err.text);
    }
}

// ---- both formats --------------------------------------------------------------------------------------------------

static void append(char *out, size_t *at, const char *text) {
    size_t n = strlen(text);
    memcpy(out + *at, text, n);
    *at += n;
}

// A token in the byte-level alphabet, as the inside of a JSON string.
static void append_spelled(char *out, size_t *at, const uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        unsigned b = p[i], c = b;
        if (b <= 0x20) c = 0x100 + b;
        else if (b >= 0x7f && b <= 0xa0) c = 0x121 + b - 0x7f;
        else if (b == 0xad) c = 0x143;
        if (c == '"' || c == '\\') out[(*at)++] = '\\';
        if (c < 0x80) out[(*at)++] = (char)c;
        else out[(*at)++] = (char)(0xc0 | c >> 6), out[(*at)++] = (char)(0x80 | (c & 63));
    }
}

// Finds some split of a token into two, which is what the reader can check; "a b" or ["a","b"].
static void append_merge(char *out, size_t *at, const Tokenizer *t, int id, int pairs) {
    size_t n;
    const uint8_t *p = (const uint8_t *)tokenizer_bytes(t, id, &n);
    append(out, at, pairs ? "[\"" : "\"");
    append_spelled(out, at, p, 1);
    append(out, at, pairs ? "\",\"" : " ");
    append_spelled(out, at, p + 1, n - 1);
    append(out, at, pairs ? "\"]" : "\"");
}

// tokenizer.json of a tokenizer's base ranks with Qwen2.5's first three added tokens.
static char *make_json(const Tokenizer *t, const char *name, int pairs) {
    size_t total = 1000, n, at = 0;
    for (int id = 0; id < tokenizer_base(t); id++) total += 4 * (tokenizer_bytes(t, id, &n), n) + 64;
    char *json = malloc(2 * total), number[32];
    append(json, &at,
           "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":151643,\"content\":\"<|endoftext|>\"},"
           "{\"id\":151644,\"content\":\"<|im_start|>\"},{\"id\":151645,\"content\":\"<|im_end|>\"}],"
           "\"model\":{\"type\":\"BPE\",\"vocab\":{");
    for (int id = tokenizer_base(t) - 1; id >= 0; id--) { // any order will do
        const uint8_t *p = (const uint8_t *)tokenizer_bytes(t, id, &n);
        append(json, &at, "\"");
        append_spelled(json, &at, p, n);
        snprintf(number, sizeof number, "\":%d%s", id, id ? "," : "");
        append(json, &at, number);
    }
    append(json, &at, "},\"merges\":[");
    for (int id = 256; id < tokenizer_base(t); id++) {
        if (id > 256) append(json, &at, ",\n");
        append_merge(json, &at, t, id, pairs);
    }
    append(json, &at, "]}}\n");
    char *path = put(name, json, at);
    free(json);
    return path;
}

// Computed from the definition by another program (Python's hashlib).
static void test_fingerprint(const Tokenizer *full) {
    check_begin("the fingerprint is SHA-256 over (id, length, bytes) of all ranks and specials");
    static const char *const wanted[2] = {"77b43f491e7bc572ee5fa5030439cdb30c26893f948a37af85a4eb2d6e72387a",
                                          "dbcb01e9c62753d11d46ab97b1d7bd64040923922ae54fac6ab78f7b103b9eca"};
    Tokenizer *cut = load(qwen, 4096);
    for (int k = 0; k < 2; k++) {
        char hex[65] = "";
        for (int i = 0; i < 32; i++) sprintf(hex + 2 * i, "%02x", tokenizer_fingerprint(k ? cut : full)[i]);
        CHECK(!strcmp(hex, wanted[k]), "%s", hex);
    }
    tokenizer_free(cut);
}

static void test_formats(const Tokenizer *full) {
    check_begin("tokenizer.json and qwen.tiktoken: same fingerprint, same ids");
    for (int pairs = 0; pairs < 2; pairs++) {
        char *path = make_json(full, "tokenizer.json", pairs);
        for (int cut = 0; cut < 2; cut++) {
            Tokenizer *a = load(path, cut ? 1000 : 0), *b = load(qwen, cut ? 1000 : 0);
            CHECK(!memcmp(tokenizer_fingerprint(a), tokenizer_fingerprint(b), 32), "cut %d", cut);
            const char *text = "Both read \xe8\xbf\x99\xe6\xae\xb5\xe8\xaf\x9d alike.\n\n";
            Tokens x = encode(a, text, strlen(text)), y = encode(b, text, strlen(text));
            CHECK(x.n == y.n && !memcmp(x.ids, y.ids, 4 * x.n), "ids");
            tokens_free(&x), tokens_free(&y);
            tokenizer_free(a), tokenizer_free(b);
        }
        free(path);
    }
}

// ---- damage --------------------------------------------------------------------------------------------------------

static void refused(const char *name, const char *data, size_t size, int vocab, const char *why) {
    char *path = put(name, data, size);
    Tokenizer *t;
    int bad = tokenizer_load(&t, path, vocab, &err);
    CHECK(bad && !t && strstr(err.text, why) && strstr(err.text, path) && !strchr(err.text, '\n'),
          "%s: %s (wanted: %s)", name, bad ? err.text : "loaded", why);
    if (!bad) tokenizer_free(t);
    unlink(path);
    free(path);
}

static void test_damage(void) {
    char *data;
    size_t n;
    if (file_read(&data, &n, qwen, &err)) puts(err.text), exit(2);
    check_begin("damaged qwen.tiktoken");
    refused("empty", data, 0, 0, "the file is empty");
    refused("half", data, n / 2, 0, "");
    char *line = memchr(data + n / 2, '\n', n / 2);
    refused("lines", data, (size_t)(line + 1 - data), 0, "ranks, expected Qwen's 151643");
    refused("digit", data, n - 2, 0, "occurs twice");
    refused("binary",
            "\x7f"
            "ELF\0\0\0\1",
            8, 0, "line 1: expected `base64 rank`");
    refused("text", "Once upon a time\nthere was\n", 27, 0, "line 1: ");
    char *copy = malloc(n + 64);
    memcpy(copy, data, n);
    copy[line + 1 - data] = '*';
    refused("base64", copy, n, 0, "is not base64");
    size_t rest = n - (size_t)(line + 1 - data);
    const char *second = (const char *)memchr(line + 1, '\n', rest) + 1;
    size_t after = n - (size_t)(second - data), before = (size_t)(line + 1 - data);
    memcpy(copy, data, before);
    memcpy(copy + before, second, after);
    refused("gap", copy, before + after, 0, "is missing");
    memcpy(copy, data, n);
    memcpy(copy + n, data, 8); // "IQ== 0\n": rank 0 again
    refused("twice", copy, n + 7, 0, "rank 0 occurs twice");
    memcpy(copy, "Ig==", 4); // rank 0 gets the bytes of rank 1
    refused("no byte", copy, n, 0, "0x21 is not among");
    memcpy(copy, data, n);
    char *late = copy + n - 2;
    while (late[-1] != '\n') late--;
    size_t cut = (size_t)(late - copy) + (size_t)sprintf(late, "IQ== 151642\n");
    refused("same bytes", copy, cut, 0, "ranks 0 and 151642 are the same token");
    refused("longer", "IQ== 9999999\n", 13, 0, "rank 9999999");
    refused("negative", "IQ== -1\n", 8, 0, "the rank is not a number");
    refused("no token", " 0\n", 3, 0, "");
    check_begin("another model's tokenizer, another cut");
    char *small = malloc(1 << 14);
    size_t at = 0;
    for (unsigned b = 0; b < 300; b++) {
        static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        at += (size_t)(b < 256 ? sprintf(small + at, "%c%c== %u\n", digits[b >> 2], digits[(b & 3) << 4], b)
                               : sprintf(small + at, "%c%cE= %u\n", digits[b - 256], 'G', b));
    }
    refused("foreign", small, at, 0, "300 ranks, expected Qwen's 151643");
    refused("foreign", small, at, 299, "300 ranks, expected Qwen's 151643");
    refused("foreign", small, at, 301, "300 ranks, expected Qwen's 151643");
    char *path = put("cut before", small, at);
    Tokenizer *t = load(path, 300); // exactly the ranks that were asked for: a file cut before
    CHECK(tokenizer_base(t) == 300, "%d", tokenizer_base(t));
    tokenizer_free(t);
    free(path);
    memcpy(small, "AAA= 0\n", 7);
    refused("no bytes", small, at, 300, "the byte 0x00 is not among the first 256 ranks");
    free(small), free(copy), free(data);
}

static void test_written(const Tokenizer *full) {
    check_begin("tokenizer.json as it is written is the same tokenizer, cut or whole");
    for (int k = 0; k < 3; k++) {
        const int cuts[] = {0, 256, 4096};
        Tokenizer *cut = cuts[k] ? load(qwen, cuts[k]) : NULL;
        const Tokenizer *t = cut ? cut : full;
        char *text = NULL;
        size_t n;
        CHECK(tokenizer_json(&text, &n, t, &err) == 0 && strlen(text) == n, "%s", err.text);
        char *path = put("written.json", text, n);
        Tokenizer *back = load(path, cuts[k]);
        CHECK(!memcmp(tokenizer_fingerprint(t), tokenizer_fingerprint(back), 32), "cut %d", cuts[k]);
        tokenizer_free(back), tokenizer_free(cut);
        free(path), free(text);
    }
}

static void test_damaged_json(void) {
    check_begin("damaged tokenizer.json");
    Tokenizer *cut = load(qwen, 300);
    char *path = make_json(cut, "small.json", 0), *json;
    size_t n;
    CHECK(file_read(&json, &n, path, &err) == 0, "%s", err.text);
    refused("foreign.json", json, n, 0, "300 ranks, expected Qwen's 151643");
    Tokenizer *t = load(path, 300);
    CHECK(!memcmp(tokenizer_fingerprint(t), tokenizer_fingerprint(cut), 32), "a cut tokenizer.json");
    tokenizer_free(t);
    const char *pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    refused("pointer.json", pointer, strlen(pointer), 300, "git lfs pull");
    refused("half.json", json, n / 2, 300, "not valid JSON");
    refused("list.json", "[1]", 3, 300, "");
    refused("config.json", "{\"model_type\":\"qwen2\"}", 22, 0, "expected a tokenizer.json with model.vocab");
    refused("unigram.json", "{\"model\":{\"vocab\":[[\"a\",0]]}}", 29, 0, "expected a tokenizer.json with model.vocab");
    const struct {
        const char *from, *to, *why;
    } edits[] = {{":299,", ":298,", "occurs twice"},
                 {":299,", ":-99,", "has no valid id"},
                 {":299,", ":2.5,", "has no valid id"},
                 {":299,", ":420,", "expected every id"},
                 {"\"merges\":[\"", "\"merges\":[7,\"", "expected every id"},
                 {"\"merges\":[\"", "\"merges\":[\"x", "merge 0 does not make the token 256"},
                 {"\"A\":", "\" \":", "is not spelled in the byte-level alphabet"},
                 {"\"A\":", "\"\":", "has 0 bytes"},
                 {"\"A\":", "\"B\":", "0x41 is not among"},
                 {"\"BPE\"", "\"WordPiece\"", "model.type: expected \"BPE\", found \"WordPiece\""},
                 {"\"BPE\"", "7", "model.type: expected \"BPE\""},
                 {"\"model\":", "\"normalizer\":{\"type\":\"Lowercase\"},\"model\":", "found \"Lowercase\""},
                 {"\"model\":", "\"pre_tokenizer\":{\"type\":\"Whitespace\"},\"model\":", "found \"Whitespace\""},
                 {"\"model\":", "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"}},\"model\":",
                  "expected Qwen's expression, found \"a\""}};
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        char *found = strstr(json, edits[i].from);
        CHECK(found != NULL, "edit %zu", i);
        if (!found) continue;
        char *edited = string_format("%.*s%s%s", (int)(found - json), json, edits[i].to, found + strlen(edits[i].from));
        refused("edited.json", edited, strlen(edited), 300, edits[i].why);
        free(edited);
    }
    CHECK(tokenizer_load(&t, "build/no such file", 0, &err) && strstr(err.text, "build/no such file: cannot open"),
          "%s", err.text);
    CHECK(tokenizer_load(&t, "build", 0, &err) && strstr(err.text, "not a regular file"), "%s", err.text);
    tokenizer_free(cut);
    free(json), free(path);
}

int main(void) {
    if (!file_exists(qwen)) {
        printf("FAIL: %s is not there (hint: bash data/get_tokenizer.sh)\n0 passed, 1 failed\n", qwen);
        return 1;
    }
    if (!mkdtemp(folder)) perror(folder), exit(2);
    check_begin("load");
    Tokenizer *t = load(qwen, 0);
    test_known(t);
    test_specials(t);
    test_nfc();
    test_round_trips(t);
    test_pieces();
    test_invalid(t);
    test_hostile(t);
    test_cut(t);
    test_fingerprint(t);
    test_formats(t);
    test_damage();
    test_written(t);
    test_damaged_json();
    tokenizer_free(t);
    file_remove_tree(folder, &err);
    return check_done();
}
