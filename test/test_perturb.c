// test_perturb.c: random and shuffled texts: what they are made of, how long they are, that they are drawn fairly.
#include <stdlib.h>

#include "../llmc/text/metrics.h"
#include "../llmc/text/perturb.h"
#include "check.h"

static Tokenizer *tok;

static const char *const english =
    "When I considered all that I had seen, there was nothing in it which I could call my own; "
    "the sea was calm, and the boat went out.\nNobody looked after it.";
static const char *const chinese = "天缺西南江面清，纤云不动小滩横。\n墙头语鹊衣犹湿，楼外残雷气未平。";

static size_t tokens_of(const char *text) {
    Tokens t = {0};
    Error err;
    CHECK(tokenizer_encode(tok, &t, text, strlen(text), &err) == 0, "%s", err.text);
    size_t n = t.n;
    tokens_free(&t);
    return n;
}

// The caller frees it.
static char *perturbed(const char *text, Perturb kind, uint64_t seed) {
    char *out = NULL;
    size_t n = 0;
    Error err = {""};
    CHECK(perturb_text(&out, &n, text, strlen(text), kind, seed, tok, &err) == 0, "%s", err.text);
    if (!out) return strdup("");
    CHECK(strlen(out) == n, "length %zu of %zu", n, strlen(out));
    return out;
}

static void test_random(void) {
    check_begin("random: letters, digits, single blanks; as many tokens as the text");
    size_t characters = 0, blanks = 0, seen[256] = {0};
    for (uint64_t seed = 0; seed < 200; seed++) {
        const char *text = seed % 2 ? english : chinese;
        char *out = perturbed(text, PERTURB_RANDOM, seed);
        size_t most = tokens_of(text), found = tokens_of(out);
        CHECK(found <= most && found + 1 >= most, "seed %d: %zu tokens of %zu", (int)seed, found, most);
        CHECK(!strstr(out, "  ") && out[0] != ' ', "%s", out);
        for (char *c = out; *c; c++) {
            seen[(unsigned char)*c]++;
            characters++;
            blanks += *c == ' ';
        }
        free(out);
    }
    size_t kinds = 0;
    double square = 0, mean = (double)(characters - blanks) / 62;
    for (int c = 0; c < 256; c++) {
        int known = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        CHECK(known || c == ' ' || seen[c] == 0, "character %d", c);
        kinds += known && seen[c] > 0;
        if (known) square += ((double)seen[c] - mean) * ((double)seen[c] - mean) / mean;
    }
    CHECK(characters > 5000 && kinds == 62, "%zu characters, %zu kinds", characters, kinds);
    CHECK(square > 25 && square < 115, "chi square %.1f with 61 degrees of freedom", square); // beyond: 1 in 10,000
    CHECK(blanks * 9 > characters && blanks * 6 < characters, "%zu blanks in %zu", blanks, characters);
}

static int by_byte(const void *a, const void *b) { return *(const char *)a - *(const char *)b; }

static void test_shuffle(void) {
    check_begin("shuffle: the text's own characters, fewer where they would take more tokens");
    int whole = 0, moved = 0;
    for (uint64_t seed = 0; seed < 100; seed++) {
        const char *text = seed % 2 ? english : chinese;
        char *out = perturbed(text, PERTURB_SHUFFLE, seed);
        CHECK(tokens_of(out) <= tokens_of(text), "%zu of %zu tokens", tokens_of(out), tokens_of(text));
        // what is left, sorted, is a part of the text, sorted
        char *a = strdup(text), *b = strdup(out);
        size_t n = strlen(a), m = strlen(b), found = 0;
        qsort(a, n, 1, by_byte);
        qsort(b, m, 1, by_byte);
        for (size_t i = 0; i < n && found < m; i++) found += a[i] == b[found];
        CHECK(found == m, "a character that the text has not: %s", out);
        whole += m == n;
        PageMetrics k;
        metrics_page(&k, text, n, out, m);
        moved += k.char_precision < 0.6;
        free(a);
        free(b);
        free(out);
    }
    CHECK(whole < 100 && moved == 100, "%d whole, %d moved", whole, moved);

    check_begin("shuffle: every order with equal chances");
    static const char *const orders[] = {"123", "132", "213", "231", "312", "321"}; // a digit is a token, always
    int counts[6] = {0};
    for (uint64_t seed = 0; seed < 3000; seed++) {
        char *out = perturbed("123", PERTURB_SHUFFLE, seed);
        for (int i = 0; i < 6; i++) counts[i] += strcmp(out, orders[i]) == 0;
        free(out);
    }
    for (int i = 0; i < 6; i++) CHECK(counts[i] > 400 && counts[i] < 600, "%s: %d of 3000", orders[i], counts[i]);
}

static void test_edges(void) {
    check_begin("the same seed gives the same text, another another");
    for (int kind = PERTURB_RANDOM; kind <= PERTURB_SHUFFLE; kind++) {
        char *a = perturbed(english, (Perturb)kind, 7), *b = perturbed(english, (Perturb)kind, 7),
             *c = perturbed(english, (Perturb)kind, 8);
        CHECK(strcmp(a, b) == 0 && strcmp(a, c) != 0 && strcmp(a, english) != 0, "%s", perturb_name((Perturb)kind));
        free(a);
        free(b);
        free(c);
    }
    check_begin("short texts, marks, invalid UTF-8");
    static const char *const texts[] = {"x", "好", "e\xcc\x81", "\xcc\x81 e", " ", "\n", "😀", "a\xcc\x81\xcc\x80 b"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        for (int kind = PERTURB_NONE; kind <= PERTURB_SHUFFLE; kind++) {
            for (uint64_t seed = 0; seed < 20; seed++) {
                char *out = perturbed(texts[i], (Perturb)kind, seed), *normal;
                size_t n;
                Error err;
                CHECK(out[0] != 0, "text %zu, %s: empty", i, perturb_name((Perturb)kind));
                CHECK(text_nfc(&normal, &n, out, strlen(out), &err) == 0 && strcmp(normal, out) == 0, "text %zu: NFC",
                      i);
                free(normal);
                free(out);
            }
        }
    }
    char *out;
    size_t n;
    Error err;
    CHECK(perturb_text(&out, &n, "", 0, PERTURB_SHUFFLE, 1, tok, &err) == 0 && n == 0, "an empty text");
    free(out);
    for (int kind = PERTURB_NONE; kind <= PERTURB_SHUFFLE; kind++)
        CHECK(perturb_text(&out, &n, "a\xff", 2, (Perturb)kind, 1, tok, &err) == -1 && !out &&
                  strstr(err.text, "UTF-8"),
              "invalid UTF-8 is taken");
    Perturb kind;
    CHECK(perturb_parse(&kind, "shuffle", &err) == 0 && kind == PERTURB_SHUFFLE, "a name");
    CHECK(perturb_parse(&kind, "shuffled", &err) == -1 && strstr(err.text, "shuffled"), "another name");
}

int main(void) {
    Error err;
    if (tokenizer_load(&tok, "data/qwen2.5/qwen.tiktoken", 2048, &err) != 0) {
        printf("  %s\n0 passed, 1 failed\n", err.text);
        return 1;
    }
    test_random();
    test_shuffle();
    test_edges();
    tokenizer_free(tok);
    return check_done();
}
