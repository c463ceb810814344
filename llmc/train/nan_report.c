// nan_report.c: see nan_report.h.
#include "llmc/train/nan_report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/weights/safetensors.h" // safetensors_not_finite

enum { SHOWN = 3, NAME = 160 };

// Appends ", name" up to SHOWN times, then counts silently.
typedef struct Names {
    char text[SHOWN * NAME];
    int n;
} Names;

static void add(Names *names, const char *name) {
    size_t used = strlen(names->text);
    if (names->n++ < SHOWN) snprintf(names->text + used, sizeof names->text - used, "%s%s", used ? ", " : "", name);
}

static int any_bad(Backend *b, const void *device, DType type, size_t n) {
    enum { PIECE_BYTES = 1 << 16 };
    char host[PIECE_BYTES];
    const size_t size = dtype_size(type), piece = PIECE_BYTES / size;
    for (size_t at = 0; at < n; at += piece) {
        size_t count = n - at < piece ? n - at : piece;
        b->download(b, host, (const char *)device + at * size, count * size);
        if (safetensors_not_finite(host, type, count) < count) return 1;
    }
    return 0;
}

// Does this rank's piece of the tensor's summed gradients hold a bad number?
static int has_bad_gradients(const Optimizer *o, const Param *p) {
    size_t begin, count, from = p->offset - o->params->table.buckets[p->bucket].offset, to = from + p->count;
    const float *held = optimizer_gradients(o, p->bucket, &begin, &count);
    size_t lo = from > begin ? from : begin, hi = to < begin + count ? to : begin + count;
    return lo < hi && any_bad(o->backend, held + (lo - begin), DTYPE_F32, hi - lo);
}

static void bad_tensors(Names *weights, Names *grads, C3 *m, const Optimizer *o, const Dist *dist) {
    const ParamTable *t = &m->params.table;
    int *flags = alloc_zeroed(2 * (size_t)t->n, sizeof *flags, "bad tensors"); // weights, gradients
    for (int i = 0; i < t->n; i++) {
        const Param *p = &t->params[i];
        flags[2 * i] = any_bad(m->b, elem_at(m->b, m->weights, p->offset), m->b->dtype, p->count);
        flags[2 * i + 1] = has_bad_gradients(o, p);
    }
    dist_max_int(dist, flags, 2 * t->n);
    for (int i = 0; i < t->n; i++) {
        char name[NAME];
        const Param *p = &t->params[i];
        const char *stack = p->owner == OWNER_ENCODER ? "encoder " : p->owner == OWNER_DECODER ? "decoder " : "";
        snprintf(name, sizeof name, "%s%s", stack, p->name);
        if (flags[2 * i]) add(weights, name);
        if (flags[2 * i + 1]) add(grads, name);
    }
    free(flags);
}

// This rank's pages with a loss that is not finite.
static void bad_pages(Names *pages, C3 *m, const Dataset *data, const MicroBatch *micro, int n) {
    for (int i = 0; i < n; i++) {
        c3_read_loss(m, &micro[i]); // leaves the rows' losses in m->host_losses
        for (int p = 0; p < micro[i].dec.pages; p++) {
            size_t first = (size_t)micro[i].dec.output_cu[p], end = (size_t)micro[i].dec.output_cu[p + 1];
            if (safetensors_not_finite(m->host_losses + first, DTYPE_F32, end - first) == end - first) continue;
            char *name = dataset_page_name(data, micro[i].page_ids[p]);
            add(pages, name ? name : "?");
            free(name);
        }
    }
}

// All ranks' names in rank order.
static void gather(Names *names, const Dist *dist) {
    Names *all = alloc((size_t)dist->ranks, sizeof *all, "names of all ranks");
    dist_all_gather(dist, all, names, sizeof *names);
    *names = (Names){0};
    for (int r = 0; r < dist->ranks; r++) {
        if (all[r].n == 0) continue;
        int before = names->n;
        add(names, all[r].text);
        names->n = before + all[r].n;
    }
    free(all);
}

static const char *phrase(char *buffer, size_t room, const Names *names, const char *what) {
    if (names->n == 0) snprintf(buffer, room, "%s: none", what);
    else snprintf(buffer, room, "%s: %.150s%s", what, names->text, names->n > SHOWN ? ", ..." : "");
    return buffer;
}

int nan_report(C3 *m, const Optimizer *o, const Dataset *data, const MicroBatch *micro, int n, const Dist *dist,
               int64_t step, double loss, double grad_norm, Error *err) {
    Names pages = {0}, weights = {0}, grads = {0};
    m->b->synchronize(m->b);
    bad_pages(&pages, m, data, micro, n);
    gather(&pages, dist);
    bad_tensors(&weights, &grads, m, o, dist);
    char a[256], b[256], c[256];
    return error_set(
        err,
        "step %lld: loss %g, gradient norm %g: not finite; %s; %s; %s. Nothing was changed or saved (hint: a "
        "smaller -lr, a longer -warmup, or resume an earlier checkpoint)",
        (long long)step, loss, grad_norm, phrase(a, sizeof a, &pages, "pages with a bad loss"),
        phrase(b, sizeof b, &weights, "bad weights"), phrase(c, sizeof c, &grads, "bad gradients"));
}
