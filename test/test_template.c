// test_template.c: the words around the latents, with a tokenizer of single bytes, so that ids can be read as text.
#include "test/check.h"

#include <stdlib.h>

#include "llmc/model/batch.h"

// Stands in for the tokenizer: this program is linked with these functions instead.
struct Tokenizer {
    SpecialTokens specials;
    const char *refused; // text that is an error
};

const SpecialTokens *tokenizer_specials(const Tokenizer *t) { return &t->specials; }

int tokenizer_encode(const Tokenizer *t, Tokens *out, const char *text, size_t n, Error *err) {
    if (t->refused && strncmp(text, t->refused, strlen(t->refused)) == 0) return error_set(err, "refused");
    if (out->room < out->n + n) {
        out->room = out->n + n;
        out->ids = realloc(out->ids, out->room * sizeof *out->ids);
        if (!out->ids) return error_set(err, "out of memory");
    }
    for (size_t i = 0; i < n; i++) out->ids[out->n++] = (unsigned char)text[i];
    return 0;
}

int tokenizer_size(const Tokenizer *t) { return t->specials.img_pad + 1; }

const char *tokenizer_bytes(const Tokenizer *t, int id, size_t *length) {
    static char byte;
    const char *longer[] = {NULL, "。", ".\n\n"};
    byte = (char)id;
    *length = id == 1 || id == 2 ? strlen(longer[id]) : id < t->specials.endoftext;
    return id == 1 || id == 2 ? longer[id] : &byte;
}

static const Tokenizer bytes = {.specials = {1000, 1001, 1002, 1003, 1004, 1005}};

static const char *spelling(int id) {
    static const char *const names[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<imgpad>"};
    return names[id - 1000];
}

static int reads_as(const int32_t *ids, int n, const char *expected) {
    char text[1024] = "";
    for (int i = 0; i < n; i++) {
        size_t at = strlen(text);
        if (ids[i] >= 1000) snprintf(text + at, sizeof text - at, "%s", spelling(ids[i]));
        else snprintf(text + at, sizeof text - at, "%c", ids[i]);
    }
    if (strcmp(text, expected) == 0) return 1;
    printf("  found    '%s'\n  expected '%s'\n", text, expected);
    return 0;
}

// The windows of a text of bytes, joined by '|'.
static void check_windows(const Template *t, const char *text, const char *expected) {
    uint32_t ids[256] = {0}, n = (uint32_t)strlen(text), at = 0;
    char cut[512] = "";
    int windows = 0;
    for (uint32_t i = 0; i < n; i++) ids[i] = (unsigned char)text[i];
    while (at < n) {
        uint32_t end = at + template_window(t, ids + at, n - at);
        snprintf(cut + strlen(cut), sizeof cut - strlen(cut), "%s%.*s", at ? "|" : "", (int)(end - at), text + at);
        at = end;
        windows++;
    }
    CHECK(strcmp(cut, expected) == 0, "found '%s', expected '%s'", cut, expected);
    CHECK(template_windows(t, ids, n) == (n ? windows : 1), "%d windows of '%s'", template_windows(t, ids, n), text);
    CHECK(template_windows(t, NULL, n) >= windows, "%d windows were thought the most", template_windows(t, NULL, n));
}

static void test_windows(void) {
    check_begin("windows end at the best border of their last quarter");
    Template t = {0};
    template_set_window(&t, 16, &bytes);
    check_windows(&t, "", "");
    check_windows(&t, "sixteen letters.", "sixteen letters.");
    check_windows(&t, "These are words of a sentence", "These are words| of a sentence");
    check_windows(&t, "Twelve char. Go on and on", "Twelve char.| Go on and on");
    check_windows(&t, "Twelve char\x01Go on and on", "Twelve char\x01|Go on and on");
    check_windows(&t, "Values of 3.1415926 and others", "Values of 3.1415|926 and others");
    check_windows(&t, "One two. Threefour five six", "One two. Threefo|ur five six"); // too far from the end
    check_windows(&t, "A sentence. A line\nof it. Mor", "A sentence. A| line\nof it. Mor");
    check_windows(&t, "This is line\nOne. Two. Three.", "This is line\n|One. Two. Three.");
    check_windows(&t, "A paragraph\x02Li\nOne. Two. Three.", "A paragraph\x02|Li\nOne. Two.| Three.");
    check_windows(&t, "字字字字字字", "字字字字字|字"); // never inside a character
    template_set_window(&t, 1, &bytes);
    check_windows(&t, "abc", "a|b|c");
    template_set_window(&t, 0, &bytes);
    check_windows(&t, "one window, however long it is", "one window, however long it is");
    template_free(&t);
}

int main(void) {
    Error err = {""};
    test_windows();
    Template t;
    check_begin("the paper's template, character by character");
    CHECK(template_make(&t, "c3", &bytes, &err) == 0, "%s", err.text);
    CHECK(reads_as(t.prefix, t.n_prefix,
                   "<|im_start|>system\nYou should follow the instructions carefully and explain your answers in "
                   "detail.<|im_end|><|im_start|>user\n<img>"),
          "before the latents");
    CHECK(reads_as(t.suffix, t.n_suffix, "</img>\nRepeat the text: <|im_end|><|im_start|>assistant\n"), "behind them");
    CHECK(reads_as(t.ask, t.n_ask, "</img>\n"), "before a prompt");
    CHECK(reads_as(t.answer, t.n_answer, "<|im_end|><|im_start|>assistant\n"), "behind a prompt");
    ShardPage asked = {.prompt_length = 17}, repeat = {0};
    CHECK(template_page_overhead(&t, &asked, 3) == template_overhead(&t, 3), "the paper's prompt has 17 bytes");
    CHECK(template_page_overhead(&t, &repeat, 3) == template_overhead(&t, 3), "overhead of a page to repeat");
    CHECK(t.prefix[0] == 1001 && t.prefix[t.n_prefix - 1] == 1003 && t.suffix[0] == 1004,
          "specials are no ids of text");
    CHECK(t.end == 1002 && t.img == 1003, "end %d img %d", t.end, t.img);
    CHECK(template_overhead(&t, 32) == t.n_prefix + 32 + t.n_suffix, "overhead");
    template_free(&t);
    CHECK(!t.prefix && !t.suffix && t.n_prefix == 0, "not emptied");

    check_begin("the bare template");
    CHECK(template_make(&t, "bare", &bytes, &err) == 0, "%s", err.text);
    CHECK(reads_as(t.prefix, t.n_prefix, "<img>") && reads_as(t.suffix, t.n_suffix, "</img>"), "words");
    CHECK(reads_as(t.ask, t.n_ask, "</img>") && reads_as(t.answer, t.n_answer, "<|im_start|>"), "around a prompt");
    CHECK(t.end == 1002 && t.img == 1003 && template_overhead(&t, 8) == 10, "end, img or overhead");
    template_free(&t);

    check_begin("another name, and a tokenizer that fails");
    CHECK(template_make(&t, "fancy", &bytes, &err) == -1 && strstr(err.text, "fancy") && !t.prefix, "%s", err.text);
    static const char *const pieces[] = {"system", "user", "\nRepeat", "assistant"};
    for (int i = 0; i < 4; i++) {
        Tokenizer broken = bytes;
        broken.refused = pieces[i];
        CHECK(template_make(&t, "c3", &broken, &err) == -1 && !t.prefix && !t.suffix, "%s was ignored", pieces[i]);
    }
    return check_done();
}
