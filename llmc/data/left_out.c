// left_out.c: see left_out.h.
#include "llmc/data/left_out.h"

#include <stdio.h>

#include "llmc/base/format.h"

static const double much = 0.03; // of the tokens

static double share(const LeftOut *l) { return l->all_tokens ? (double)l->tokens / (double)l->all_tokens : 0; }

const char *left_out_text(char buffer[160], const LeftOut *l) {
    char n[4][32];
    snprintf(buffer, 160, "%s of %s page%s with %s of %s tokens (%.1f %%)", format_count(n[0], (double)l->pages),
             format_count(n[1], (double)l->all_pages), l->all_pages == 1 ? "" : "s",
             format_count(n[2], (double)l->tokens), format_count(n[3], (double)l->all_tokens), 100 * share(l));
    return buffer;
}

int left_out_much(const LeftOut *l) { return share(l) > much; }

// ---- lengths a model was not trained on ----------------------------------------------------------------------------

Untrained untrained_count(const int trained_tokens[2]) {
    return (Untrained){.least = trained_tokens[0], .most = trained_tokens[1]};
}

void untrained_add(Untrained *u, size_t tokens) {
    u->pages++;
    if (!u->most) return;
    u->shorter += tokens < (size_t)u->least;
    u->longer += tokens > (size_t)u->most;
}

void untrained_warn(FILE *out, const Untrained *u, const char *path) {
    if (u->shorter + u->longer == 0) return;
    const char *how = !u->longer ? "shorter" : !u->shorter ? "longer" : "shorter or longer";
    fprintf(out, "c3: warning: %s: %lld of %lld pages are %s than any this model was trained on", path,
            (long long)u->shorter + (long long)u->longer, (long long)u->pages, how);
    fprintf(out, ", which had %d to %d tokens: expect errors in them\n", u->least, u->most);
}
