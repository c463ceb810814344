// template.c: the words around the latents in the decoder's sequence (declared in batch.h). Tokenized once, at start:
// specials by number, the text between them by the tokenizer.
#include "llmc/model/batch.h"

#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"

static void add_special(Tokens *t, int id) {
    t->ids = alloc_grow(t->ids, t->n, &t->room, sizeof *t->ids, "template");
    t->ids[t->n++] = id;
}

static int add_text(Tokens *t, const Tokenizer *tok, const char *text, Error *err) {
    return tokenizer_encode(tok, t, text, strlen(text), err);
}

// The paper's instruction. As in the released code, each stretch between specials is tokenized alone.
static int make_c3(Tokens *prefix, Tokens *suffix, const Tokenizer *tok, Error *err) {
    const SpecialTokens *s = tokenizer_specials(tok);
    add_special(prefix, s->im_start);
    TRY(add_text(prefix, tok,
                 "system\nYou should follow the instructions carefully and explain your answers in detail.", err));
    add_special(prefix, s->im_end);
    add_special(prefix, s->im_start);
    TRY(add_text(prefix, tok, "user\n", err));
    add_special(prefix, s->img);
    add_special(suffix, s->img_end);
    TRY(add_text(suffix, tok, "\nRepeat the text: ", err));
    add_special(suffix, s->im_end);
    add_special(suffix, s->im_start);
    return add_text(suffix, tok, "assistant\n", err);
}

int template_make(Template *t, const char *name, const Tokenizer *tok, Error *err) {
    const SpecialTokens *s = tokenizer_specials(tok);
    Tokens prefix = {0}, suffix = {0};
    *t = (Template){0};
    if (strcmp(name, "bare") == 0) {
        add_special(&prefix, s->img);
        add_special(&suffix, s->img_end);
    } else if (strcmp(name, "c3") != 0) {
        return error_set(err, "template: expected c3 or bare, found '%s'", name);
    } else if (make_c3(&prefix, &suffix, tok, err) != 0) {
        free(prefix.ids);
        free(suffix.ids);
        return -1;
    }
    *t = (Template){.prefix = prefix.ids,
                    .suffix = suffix.ids,
                    .n_prefix = (int)prefix.n,
                    .n_suffix = (int)suffix.n,
                    .end = s->im_end,
                    .img = s->img};
    return 0;
}

void template_free(Template *t) {
    free(t->prefix);
    free(t->suffix);
    *t = (Template){0};
}
