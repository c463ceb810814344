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

// The paper's instruction, around the prompt "Repeat the text: " or another. As in the released code, each stretch
// between specials is tokenized alone; the pre-tokenizer cuts behind the newline, so a prompt's ids stand by
// themselves.
static int make_c3(Tokens part[4], const Tokenizer *tok, Error *err) {
    const SpecialTokens *s = tokenizer_specials(tok);
    Tokens *prefix = &part[0], *suffix = &part[1], *ask = &part[2], *answer = &part[3];
    add_special(prefix, s->im_start);
    TRY(add_text(prefix, tok,
                 "system\nYou should follow the instructions carefully and explain your answers in detail.", err));
    add_special(prefix, s->im_end);
    add_special(prefix, s->im_start);
    TRY(add_text(prefix, tok, "user\n", err));
    add_special(prefix, s->img);
    add_special(answer, s->im_end);
    add_special(answer, s->im_start);
    TRY(add_text(answer, tok, "assistant\n", err));
    add_special(ask, s->img_end);
    TRY(add_text(ask, tok, "\n", err));
    add_special(suffix, s->img_end);
    TRY(add_text(suffix, tok, "\nRepeat the text: ", err));
    for (size_t i = 0; i < answer->n; i++) add_special(suffix, answer->ids[i]);
    return 0;
}

int template_make(Template *t, const char *name, const Tokenizer *tok, Error *err) {
    const SpecialTokens *s = tokenizer_specials(tok);
    Tokens part[4] = {{0}}; // prefix, suffix, ask, answer
    *t = (Template){0};
    if (strcmp(name, "bare") == 0) {
        add_special(&part[0], s->img);
        add_special(&part[1], s->img_end);
        add_special(&part[2], s->img_end);
        add_special(&part[3], s->im_start); // else nothing would say where the prompt ends
    } else if (strcmp(name, "c3") != 0) {
        return error_set(err, "template: expected c3 or bare, found '%s'", name);
    } else if (make_c3(part, tok, err) != 0) {
        for (int i = 0; i < 4; i++) free(part[i].ids);
        return -1;
    }
    *t = (Template){.prefix = part[0].ids,
                    .suffix = part[1].ids,
                    .ask = part[2].ids,
                    .answer = part[3].ids,
                    .n_prefix = (int)part[0].n,
                    .n_suffix = (int)part[1].n,
                    .n_ask = (int)part[2].n,
                    .n_answer = (int)part[3].n,
                    .end = s->im_end,
                    .img = s->img};
    return 0;
}

void template_free(Template *t) {
    void *parts[] = {t->prefix, t->suffix, t->ask, t->answer, t->edges};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) free(parts[i]);
    *t = (Template){0};
}

int template_overhead(const Template *t, int latents) { return t->n_prefix + latents + t->n_suffix; }

int template_page_overhead(const Template *t, const ShardPage *page, int latents) {
    if (!page->prompt_length) return template_overhead(t, latents);
    return t->n_prefix + latents + t->n_ask + (int)page->prompt_length + t->n_answer;
}

// ---- windows -------------------------------------------------------------------------------------------------------

// How a token begins and ends.
enum {
    INSIDE = 1, // begins inside a character
    SPACE = 2,  // begins with white space
    STOP = 4,   // ends a sentence if white space follows
    WIDE = 8,   // ends a sentence
    LINE = 16,
    PARAGRAPH = 32
};

static int ends_with_any(const char *text, size_t n, const char *const *endings) {
    for (; *endings; endings++) {
        size_t k = strlen(*endings);
        if (n >= k && memcmp(text + n - k, *endings, k) == 0) return 1;
    }
    return 0;
}

static uint8_t edges_of(const char *text, size_t n) {
    static const char *const stops[] = {".", "!", "?", ".\"", "!\"", "?\"", ".”", "!”", "?”", ".)", NULL};
    static const char *const wide[] = {"。", "！", "？", "。”", "！”", "？”", "。」", "！」", "？」", NULL};
    if (n == 0) return 0;
    unsigned char first = (unsigned char)text[0];
    int edges = 0, newlines = 0;
    if ((first & 0xc0) == 0x80) edges |= INSIDE;
    if (first == ' ' || (first >= '\t' && first <= '\r')) edges |= SPACE;
    if (ends_with_any(text, n, stops)) edges |= STOP;
    if (ends_with_any(text, n, wide)) edges |= WIDE;
    for (size_t i = n; i > 0 && strchr("\n\r", text[i - 1]) && text[i - 1]; i--) newlines += text[i - 1] == '\n';
    if (newlines) edges |= newlines > 1 ? PARAGRAPH : LINE;
    return (uint8_t)edges;
}

void template_set_window(Template *t, int window, const Tokenizer *tok) {
    const int n = tokenizer_size(tok);
    free(t->edges);
    t->edges = NULL;
    t->window = window;
    if (!window) return;
    t->edges = alloc((size_t)n, 1, "windows");
    for (int id = 0; id < n; id++) {
        size_t length;
        const char *text = tokenizer_bytes(tok, id, &length);
        t->edges[id] = edges_of(text, length);
    }
}

// How good a place for a cut is between two tokens with these edges: 0 (inside a character) to 5 (between paragraphs).
static int border_between(int before, int after) {
    if (after & INSIDE) return 0;
    if (before & PARAGRAPH) return 5;
    if (before & LINE) return 4;
    if (before & WIDE || (before & STOP && after & SPACE)) return 3;
    return after & SPACE ? 2 : 1;
}

uint32_t template_window(const Template *t, const uint32_t *text, uint32_t n) {
    const uint32_t most = (uint32_t)t->window, least = most - most / 4;
    if (!most || n <= most) return n;
    uint32_t best = most;
    for (uint32_t at = most, kind = 0; at >= least && at > 0; at--) {
        uint32_t found = (uint32_t)border_between(t->edges[text[at - 1]], t->edges[text[at]]);
        if (found <= kind) continue;
        kind = found;
        best = at;
    }
    return best;
}

int template_windows(const Template *t, const uint32_t *text, uint32_t n) {
    const uint32_t most = (uint32_t)t->window;
    if (!most || n <= most) return 1;
    if (!text) return 1 + (int)((n - most + (most - most / 4) - 1) / (most - most / 4));
    int windows = 0;
    for (uint32_t at = 0; at < n; at += template_window(t, text + at, n - at)) windows++;
    return windows;
}
