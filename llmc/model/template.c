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
static int make_c3(Tokens *before, Tokens *after, const Tokenizer *tok, Error *err) {
    const SpecialTokens *s = tokenizer_specials(tok);
    TRY(add_special(before, s->im_start, err));
    TRY(add_text(before, tok,
                 "system\nYou should follow the instructions carefully and explain your answers in detail.", err));
    TRY(add_special(before, s->im_end, err));
    TRY(add_special(before, s->im_start, err));
    TRY(add_text(before, tok, "user\n", err));
    TRY(add_special(before, s->img, err));
    TRY(add_special(after, s->img_end, err));
    TRY(add_text(after, tok, "\nRepeat the text: ", err));
    TRY(add_special(after, s->im_end, err));
    TRY(add_special(after, s->im_start, err));
    return add_text(after, tok, "assistant\n", err);
}

static int make_bare(Tokens *before, Tokens *after, const Tokenizer *tok, Error *err) {
    TRY(add_special(before, tokenizer_specials(tok)->img, err));
    return add_special(after, tokenizer_specials(tok)->img_end, err);
}

int template_make(Template *t, const char *name, const Tokenizer *tok, Error *err) {
    Tokens before = {0}, after = {0};
    int bad;
    *t = (Template){0};
    if (!strcmp(name, "c3")) bad = make_c3(&before, &after, tok, err);
    else if (!strcmp(name, "bare")) bad = make_bare(&before, &after, tok, err);
    else bad = error_set(err, "template: expected c3 or bare, found '%s'", name);
    if (bad) {
        free(before.ids);
        free(after.ids);
        return -1;
    }
    *t = (Template){.before = before.ids,
                    .after = after.ids,
                    .n_before = (int)before.n,
                    .n_after = (int)after.n,
                    .end = tokenizer_specials(tok)->im_end,
                    .img = tokenizer_specials(tok)->img};
    return 0;
}

void template_free(Template *t) {
    free(t->before);
    free(t->after);
    *t = (Template){0};
}
