// gradients.c: see gradients.h.
#include "llmc/model/gradients.h"

#include <stdlib.h>

#include "llmc/base/alloc.h"

// A stack under ZeRO 2: two places, of one size, for its layers; one each for the embedding and the final bucket, which
// are written early in the backward pass and complete only at its end.
static size_t layout_stack(Gradients *g, const C3Params *p, const StackParams *s, size_t start) {
    const Bucket *k = p->table.buckets;
    int layers = s->final_bucket - s->layer_bucket;
    size_t at = start, layer = k[s->layer_bucket].count;
    for (int l = 0; g->at && l < layers; l++) {
        g->at[s->layer_bucket + l] = g->arena + at + (size_t)(l % 2) * layer;
        // the backward pass runs from the last layer to the first, then comes the next micro-batch
        g->previous[s->layer_bucket + l] = s->layer_bucket + (l + 2 < layers ? l + 2 : l % 2);
    }
    at += (layers > 1 ? 2 : 1) * layer;
    int whole[] = {s->embed_bucket, s->final_bucket};
    for (int i = 0; i < 2; i++) {
        if (g->at) {
            g->at[whole[i]] = g->arena + at;
            g->previous[whole[i]] = whole[i];
        }
        at += k[whole[i]].count;
    }
    return at;
}

static size_t layout(Gradients *g, const C3Params *p, int zero) {
    if (zero == 2) return layout_stack(g, p, &p->dec, layout_stack(g, p, &p->enc, 0));
    for (int i = 0; g->at && i < p->table.n_buckets; i++) {
        g->at[i] = g->arena + p->table.buckets[i].offset;
        g->previous[i] = -1;
    }
    return p->table.total;
}

size_t gradients_elements(const C3Params *p, int zero) {
    Gradients counted = {0};
    return layout(&counted, p, zero);
}

void gradients_create(Gradients *g, const C3Params *p, int zero, float *arena) {
    size_t buckets = (size_t)p->table.n_buckets;
    *g = (Gradients){.zero = zero, .arena = arena};
    g->at = alloc_zeroed(buckets, sizeof *g->at, "gradients");
    g->previous = alloc_zeroed(buckets, sizeof *g->previous, "gradients");
    layout(g, p, zero);
}

void gradients_free(Gradients *g) {
    free(g->at);
    free(g->previous);
    *g = (Gradients){0};
}
