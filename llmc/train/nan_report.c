// nan_report.c: see nan_report.h.
#include "llmc/train/nan_report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

// 1 when n floats on the device, or elements when elem is set, hold a number that is not finite.
static int any_bad(Backend *b, const void *device, size_t n, int elem, float *device_piece, float *host, size_t piece) {
    for (size_t at = 0; at < n; at += piece) {
        size_t count = n - at < piece ? n - at : piece;
        const float *from = device_piece;
        if (elem) b->cast_to_f32(b, device_piece, elem_at(b, device, at), count);
        else from = (const float *)device + at;
        b->download(b, host, from, count * sizeof *host);
        if (safetensors_not_finite(host, DTYPE_F32, count) < count) return 1;
    }
    return 0;
}

// Flags [2i+1] of the tensors of which this rank's piece of the summed gradients holds a bad number.
static void bad_gradients(int *flags, const Optimizer *o, float *host, size_t piece) {
    const ParamTable *t = &o->params->table;
    for (int i = 0; i < t->n; i++) {
        const Param *p = &t->params[i];
        size_t begin, count, from = p->offset - t->buckets[p->bucket].offset, to = from + p->count;
        const float *held = optimizer_gradients(o, p->bucket, &begin, &count);
        size_t lo = from > begin ? from : begin, hi = to < begin + count ? to : begin + count;
        if (lo < hi) flags[2 * i + 1] = any_bad(o->backend, held + (lo - begin), hi - lo, 0, NULL, host, piece);
    }
}

static void bad_tensors(Names *weights, Names *grads, C3 *m, const Optimizer *o, const Dist *dist) {
    enum { PIECE = 1 << 16 };
    Backend *b = m->b;
    const ParamTable *t = &m->params.table;
    float *host = malloc(PIECE * sizeof *host), *device = NULL;
    int *flags = calloc(2 * (size_t)t->n, sizeof *flags);
    Error ignored;
    if (host && flags && b->alloc(b, (void **)&device, PIECE * sizeof *device, "search", &ignored) == 0) {
        for (int i = 0; i < t->n; i++) {
            const Param *p = &t->params[i];
            flags[2 * i] = any_bad(b, elem_at(b, m->weights, p->offset), p->count, 1, device, host, PIECE);
        }
        bad_gradients(flags, o, host, PIECE);
    }
    if (flags) dist_max_int(dist, flags, 2 * t->n);
    for (int i = 0; flags && i < t->n; i++) {
        char name[NAME];
        const Param *p = &t->params[i];
        snprintf(name, sizeof name, "%s%s",
                 p->owner == OWNER_ENCODER   ? "encoder "
                 : p->owner == OWNER_DECODER ? "decoder "
                                             : "",
                 p->name);
        if (flags[2 * i]) add(weights, name);
        if (flags[2 * i + 1]) add(grads, name);
    }
    if (device) b->release(b, device);
    free(flags);
    free(host);
}

// This rank's pages with a loss that is not finite.
static void bad_pages(Names *pages, C3 *m, const Dataset *data, const MicroBatch *micro, int n) {
    for (int i = 0; i < n; i++) {
        c3_read_loss(m, &micro[i]); // leaves the rows' losses in m->host_losses
        for (int p = 0; p < micro[i].dec.pages; p++) {
            int bad = 0;
            for (int r = micro[i].dec.output_cu[p]; r < micro[i].dec.output_cu[p + 1]; r++)
                bad |= !isfinite(m->host_losses[r]);
            if (!bad) continue;
            char *name = dataset_page_name(data, micro[i].page_ids[p]);
            add(pages, name ? name : "?");
            free(name);
        }
    }
}

// All ranks' names in rank order.
static void gather(Names *names, const Dist *dist) {
    Names *all = malloc((size_t)dist->ranks * sizeof *all);
    if (!all) return;
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
        "smaller -lr, a longer -warmup, or go on from an earlier checkpoint)",
        (long long)step, loss, grad_norm, phrase(a, sizeof a, &pages, "pages with a bad loss"),
        phrase(b, sizeof b, &weights, "bad weights"), phrase(c, sizeof c, &grads, "bad gradients"));
}
