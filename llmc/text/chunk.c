// chunk.c: see chunk.h. For each page the borders of the best kind within reach are listed and the last one whose page
// still fits is found by halving; "fits" is always what the tokenizer says of that very page.
#include "llmc/text/chunk.h"

#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"

// Bytes searched for each token: more than tokens have on average in any language, so that the reach never limits
// prose.
enum { REACH = 16 };

typedef enum Border { BORDER_PARAGRAPH, BORDER_LINE, BORDER_SENTENCE, BORDER_WORD, BORDER_CHARACTER, N_BORDERS } Border;

typedef struct Cutter {
    const char *text;
    size_t length;
    const Tokenizer *tok;
    int most;
    Tokens tokens;   // of the page tried last
    size_t *borders; // page ends of one kind within reach
} Cutter;

static int is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
static int is_continuation(char c) { return ((unsigned char)c & 0xc0) == 0x80; }

static size_t skip_space(const Cutter *c, size_t at) {
    while (at < c->length && is_space(c->text[at])) at++;
    return at;
}

static size_t trim_end(const Cutter *c, size_t begin, size_t end) {
    while (end > begin && is_space(c->text[end - 1])) end--;
    return end;
}

// ---- borders -------------------------------------------------------------------------------------------------------

// Whether the text from `begin` to byte i ends with one of these characters.
static int ends_with(const Cutter *c, size_t begin, size_t i, const char *const *set) {
    for (; *set; set++) {
        size_t n = strlen(*set);
        if (i - begin >= n && memcmp(c->text + i - n, *set, n) == 0) return 1;
    }
    return 0;
}

static int begins_with(const Cutter *c, size_t i, const char *const *set) {
    for (; *set; set++) {
        size_t n = strlen(*set);
        if (c->length - i >= n && memcmp(c->text + i, *set, n) == 0) return 1;
    }
    return 0;
}

static int ends_sentence(const Cutter *c, size_t begin, size_t i) {
    static const char *const stops[] = {".", "!", "?", ".\"", "!\"", "?\"", ".”", "!”", "?”", ".)", NULL};
    static const char *const wide[] = {"。", "！", "？", "。”", "！”", "？”", "。」", "！」", "？」", NULL};
    static const char *const closing[] = {"”", "’", "」", "』", "）", "》", NULL};
    return (is_space(c->text[i]) && ends_with(c, begin, i, stops)) ||
           (ends_with(c, begin, i, wide) && !begins_with(c, i, closing));
}

// Whether the line that ends before byte i is empty.
static int ends_paragraph(const Cutter *c, size_t begin, size_t i) {
    size_t at = i - 1;
    while (at > begin && c->text[at - 1] != '\n' && is_space(c->text[at - 1])) at--;
    return at > begin && c->text[at - 1] == '\n';
}

// Whether a page that starts at `begin` may end before byte i.
static int is_border(const Cutter *c, size_t begin, size_t i, Border kind) {
    const char *t = c->text;
    switch (kind) {
    case BORDER_PARAGRAPH:
        return t[i - 1] == '\n' && ends_paragraph(c, begin, i);
    case BORDER_LINE:
        return t[i - 1] == '\n';
    case BORDER_SENTENCE:
        return !is_continuation(t[i]) && ends_sentence(c, begin, i);
    case BORDER_WORD:
        return is_space(t[i]);
    default:
        return !is_continuation(t[i]);
    }
}

// ---- one page ------------------------------------------------------------------------------------------------------

// Tokens of the page begin..end in *n.
static int count_tokens(Cutter *c, int *n, size_t begin, size_t end, Error *err) {
    c->tokens.n = 0;
    TRY(tokenizer_encode(c->tok, &c->tokens, c->text + begin, end - begin, err));
    *n = (int)c->tokens.n;
    return 0;
}

// Boundaries of a kind in begin+1..reach, ascending, as page ends (trailing white space trimmed).
static size_t list_borders(Cutter *c, size_t begin, size_t reach, Border kind) {
    size_t n = 0, end = begin; // end: after the last character before i that is not white space
    for (size_t i = begin + 1; i <= reach && i < c->length; i++) {
        if (!is_space(c->text[i - 1])) end = i;
        if (is_border(c, begin, i, kind) && end > begin && (n == 0 || end > c->borders[n - 1])) c->borders[n++] = end;
    }
    return n;
}

// The longest page from page->begin on that ends at a boundary of this kind. 1: found, 0: none fits, -1: error.
static int longest(Cutter *c, PageSpan *page, size_t reach, Border kind, Error *err) {
    size_t low = 0, high = list_borders(c, page->begin, reach, kind); // below low they fit, from high on they do not
    page->end = page->begin;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int tokens;
        TRY(count_tokens(c, &tokens, page->begin, c->borders[middle], err));
        if (tokens > c->most) {
            high = middle;
            continue;
        }
        page->end = c->borders[middle];
        page->tokens = tokens;
        low = middle + 1;
    }
    return page->end > page->begin;
}

static int next_page(Cutter *c, PageSpan *page, size_t begin, Error *err) {
    size_t end = trim_end(c, begin, c->length), reach = begin + (size_t)c->most * REACH;
    *page = (PageSpan){.begin = begin, .end = end};
    if (end <= reach) {
        TRY(count_tokens(c, &page->tokens, begin, end, err));
        if (page->tokens <= c->most) return 0;
    }
    if (reach > end) reach = end;
    for (int kind = 0; kind < N_BORDERS; kind++) {
        int found = longest(c, page, reach, (Border)kind, err);
        if (found) return found < 0 ? -1 : 0;
    }
    return error_set(err, "byte %zu: one character takes more than %d tokens", begin, c->most);
}

// ---- all -----------------------------------------------------------------------------------------------------------

static int cut_all(Cutter *c, PageSpan **out, int *n, Error *err) {
    size_t room = 0;
    for (size_t at = skip_space(c, 0); at < c->length; at = skip_space(c, (*out)[*n - 1].end)) {
        *out = alloc_grow(*out, (size_t)*n, &room, sizeof **out, "pages");
        TRY(next_page(c, &(*out)[*n], at, err));
        ++*n;
    }
    return 0;
}

int chunk_pages(PageSpan **out, int *n, const char *text, size_t length, const Tokenizer *tok, int most, Error *err) {
    Cutter c = {.text = text, .length = length, .tok = tok, .most = most};
    size_t reach = (size_t)most * REACH;
    *out = NULL;
    *n = 0;
    c.borders = alloc(reach < length ? reach : length, sizeof *c.borders, "borders");
    int bad = cut_all(&c, out, n, err);
    free(c.borders);
    tokens_free(&c.tokens);
    if (!bad) return 0;
    free(*out);
    *out = NULL;
    *n = 0;
    return -1;
}
