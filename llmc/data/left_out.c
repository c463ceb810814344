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
