// template.c: the words around the latents in the decoder's sequence (declared in batch.h). They are tokenized once, at
// the start; specials enter by number, the plain text between them by the tokenizer.
#include "llmc/model/batch.h"

#include <stdlib.h>
#include <string.h>

static int add_special(Tokens *t, int id, Error *err) {
    if (t->n == t->room) {
        size_t room = t->room ? 2 * t->room : 64;
        int32_t *bigger = realloc(t->ids, room * sizeof *bigger);
        if (!bigger) return error_set(err, "template: out of memory");
        t->ids = bigger;
        t->room = room;
    }
    t->ids[t->n++] = id;
    return 0;
}

static int add_text(Tokens *t, const Tokenizer *tok, const char *text, Error *err) {
    return tokenizer_encode(tok, t, text, strlen(text), err);
}

// The paper's instruction. The released code tokenizes each stretch between specials alone, as here.
static int make_c3(Tokens *prefix, Tokens *suffix, const Tokenizer *tok, Error *err) {
    const SpecialTokens *s = tokenizer_specials(tok);
    TRY(add_special(prefix, s->im_start, err));
    TRY(add_text(prefix, tok,
                 "system\nYou should follow the instructions carefully and explain your answers in detail.", err));
    TRY(add_special(prefix, s->im_end, err));
    TRY(add_special(prefix, s->im_start, err));
    TRY(add_text(prefix, tok, "user\n", err));
    TRY(add_special(prefix, s->img, err));
    TRY(add_special(suffix, s->img_end, err));
    TRY(add_text(suffix, tok, "\nRepeat the text: ", err));
    TRY(add_special(suffix, s->im_end, err));
    TRY(add_special(suffix, s->im_start, err));
    return add_text(suffix, tok, "assistant\n", err);
}

static int make_bare(Tokens *prefix, Tokens *suffix, const Tokenizer *tok, Error *err) {
    TRY(add_special(prefix, tokenizer_specials(tok)->img, err));
    return add_special(suffix, tokenizer_specials(tok)->img_end, err);
}

int template_make(Template *t, const char *name, const Tokenizer *tok, Error *err) {
    Tokens prefix = {0}, suffix = {0};
    int bad;
    *t = (Template){0};
    if (!strcmp(name, "c3")) bad = make_c3(&prefix, &suffix, tok, err);
    else if (!strcmp(name, "bare")) bad = make_bare(&prefix, &suffix, tok, err);
    else bad = error_set(err, "template: expected c3 or bare, found '%s'", name);
    if (bad) {
        free(prefix.ids);
        free(suffix.ids);
        return -1;
    }
    *t = (Template){.prefix = prefix.ids,
                    .suffix = suffix.ids,
                    .n_prefix = (int)prefix.n,
                    .n_suffix = (int)suffix.n,
                    .end = tokenizer_specials(tok)->im_end,
                    .img = tokenizer_specials(tok)->img};
    return 0;
}

void template_free(Template *t) {
    free(t->prefix);
    free(t->suffix);
    *t = (Template){0};
}
