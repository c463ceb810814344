// test_template.c: the words around the latents, with a tokenizer of single bytes, so that ids can be read as text.
#include "test/check.h"

#include <stdlib.h>

#include "llmc/model/batch.h"

// Stands in for the tokenizer: this program is linked with these two functions instead.
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

int main(void) {
    Error err = {""};
    Template t;
    check_begin("the paper's template, character by character");
    CHECK(template_make(&t, "c3", &bytes, &err) == 0, "%s", err.text);
    CHECK(reads_as(t.prefix, t.n_prefix,
                   "<|im_start|>system\nYou should follow the instructions carefully and explain your answers in "
                   "detail.<|im_end|><|im_start|>user\n<img>"),
          "before the latents");
    CHECK(reads_as(t.suffix, t.n_suffix, "</img>\nRepeat the text: <|im_end|><|im_start|>assistant\n"), "behind them");
    CHECK(t.prefix[0] == 1001 && t.prefix[t.n_prefix - 1] == 1003 && t.suffix[0] == 1004,
          "specials are no ids of text");
    CHECK(t.end == 1002 && t.img == 1003, "end %d img %d", t.end, t.img);
    CHECK(template_overhead(&t, 32) == t.n_prefix + 32 + t.n_suffix, "overhead");
    template_free(&t);
    CHECK(!t.prefix && !t.suffix && t.n_prefix == 0, "not emptied");

    check_begin("the bare template");
    CHECK(template_make(&t, "bare", &bytes, &err) == 0, "%s", err.text);
    CHECK(reads_as(t.prefix, t.n_prefix, "<img>") && reads_as(t.suffix, t.n_suffix, "</img>"), "words");
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
