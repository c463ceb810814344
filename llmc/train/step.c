// step.c: see step.h.
#include "llmc/train/step.h"

#include <stdlib.h>
#include <string.h>

int step_create(StepPack *p, const StepConfig *c, Backend *b, Error *err) {
    size_t pages = (size_t)c->b * (size_t)c->g;
    BatchRows one = c->longest;
    one.pages = 1;
    int rows = c->most.enc > c->most.dec ? c->most.enc : c->most.dec;
    // a block of several pages is never larger than as many blocks of one
    *p = (StepPack){.b = b, .capacity = pages * batch_capacity(one)};
    TRY(b->alloc_host(b, &p->block, p->capacity, "micro-batches of a step", err));
    p->micro = calloc(pages, sizeof *p->micro);
    p->page_ids = malloc(pages * sizeof *p->page_ids);
    p->sort_work = malloc(2 * (size_t)rows * sizeof *p->sort_work);
    p->weight = malloc(pages * sizeof *p->weight);
    p->task = malloc(pages);
    if (p->micro && p->page_ids && p->sort_work && p->weight && p->task) return 0;
    step_free(p);
    return error_set(err, "micro-batches: out of memory for %zu pages", pages);
}

void step_free(StepPack *p) {
    if (p->block) p->b->release_host(p->b, p->block);
    void *host[] = {p->micro, p->page_ids, p->sort_work, p->weight, p->task};
    for (size_t i = 0; i < sizeof host / sizeof *host; i++) free(host[i]);
    *p = (StepPack){0};
}

int step_add_page(BatchRows *sum, BatchRows page, BatchRows most) {
    BatchRows s = {sum->pages + page.pages,     sum->enc + page.enc,         sum->dec + page.dec,
                   sum->outputs + page.outputs, sum->windows + page.windows, sum->slots + page.slots};
    if (s.pages > most.pages || s.enc > most.enc || s.dec > most.dec || s.outputs > most.outputs) return 0;
    if ((most.windows && s.windows > most.windows) || (most.slots && s.slots > most.slots)) return 0;
    *sum = s;
    return 1;
}

// The device batch under construction.
typedef struct Packing {
    BatchRows sum;
    int first;    // of its pages in the step's list
    int fused;    // micro-batches that are in it, the last perhaps in part
    size_t used;  // bytes of the block before it
    int loss_row; // rows of the batches before it
} Packing;

static void flush(StepPack *p, const StepConfig *c, const LoaderStep *s, Packing *f) {
    int n = f->sum.pages;
    if (n == 0) return;
    MicroBatch *m = &p->micro[p->n++];
    batch_place(m, (char *)p->block + f->used, p->capacity - f->used, p->page_ids + f->first, p->sort_work);
    batch_build(m, s->text + f->first, s->pages + f->first, n, c->prompt, c->model->latents, s->cut,
                p->weight + f->first);
    m->loss_row = f->loss_row;
    for (int i = f->first; c->tasks && i < f->first + n; i++) p->task[i] = (uint8_t)tasks_of(c->tasks, &s->text[i]);
    C3Flops flops = c3_flops(c->model, m, 1);
    p->flops.encoder += flops.encoder;
    p->flops.decoder += flops.decoder;
    p->flops.head += flops.head;
    *f = (Packing){.first = f->first + n, .used = f->used + m->bytes, .loss_row = f->loss_row + m->dec.outputs};
}

void step_pack(StepPack *p, const StepConfig *c, const LoaderStep *s) {
    int latents = c->model->latents;
    p->n = 0;
    p->pages = s->total_pages;
    p->supervised = s->total_supervised;
    memcpy(p->of_set, s->of_set, sizeof p->of_set);
    p->after = s->after;
    p->flops = (C3Flops){0};
    Packing now = {0};
    for (int i = 0; i < s->micro; i++) {
        int begin = s->micro_begin[i], end = s->micro_begin[i + 1], fits = 1;
        BatchRows whole = now.sum; // with all of this micro-batch
        double rows = 0;
        for (int k = begin; k < end; k++) {
            BatchRows r = batch_page_rows(&s->text[k], c->prompt, latents, s->cut);
            rows += r.outputs;
            fits = fits && step_add_page(&whole, r, c->most);
        }
        // each supervised row's share of the step's loss
        double weight = c->micro_norm ? 1 / (rows * c->g * c->ranks) : 1 / (double)s->total_supervised;
        if (c->fuse && (!fits || now.fused == c->fuse)) flush(p, c, s, &now);
        now.fused++;
        for (int k = begin; k < end; k++) {
            BatchRows r = batch_page_rows(&s->text[k], c->prompt, latents, s->cut);
            p->weight[k] = (float)weight;
            if (step_add_page(&now.sum, r, c->most)) continue;
            flush(p, c, s, &now);
            now.fused = 1;
            step_add_page(&now.sum, r, c->most);
        }
    }
    flush(p, c, s, &now);
    p->rounds = p->n;
}

// ---- the device's part -------------------------------------------------------------------------------------------

typedef struct Reduction {
    Optimizer *optimizer;
    int accumulate;
} Reduction;

static void bucket_ready(void *arg, int bucket) {
    const Reduction *r = arg;
    optimizer_reduce_bucket(r->optimizer, bucket, r->accumulate);
}

void step_queue(const StepPack *p, C3 *m, Optimizer *o) {
    Reduction r = {.optimizer = o};
    int every = o->config.zero == 2; // else gradients stay until the last batch
    for (int i = 0; i < p->n; i++) {
        r.accumulate = i > 0;
        c3_forward_backward(m, &p->micro[i], i > 0, every || i == p->n - 1 ? bucket_ready : NULL, &r);
    }
    r.accumulate = 1;
    for (int i = p->n; every && i < p->rounds; i++) c3_no_gradients(m, bucket_ready, &r);
}

void step_task_losses(const StepPack *p, const C3 *m, double loss[C3_N_TASKS], double rows[C3_N_TASKS]) {
    const uint8_t *task = p->task;
    for (int i = 0; i < C3_N_TASKS; i++) loss[i] = rows[i] = 0;
    if (!p->n) return;
    const MicroBatch *last = &p->micro[p->n - 1];
    m->b->download(m->b, m->host_losses, m->losses, (size_t)(last->loss_row + last->dec.outputs) * sizeof(float));
    for (int i = 0; i < p->n; i++) {
        const StackBatch *dec = &p->micro[i].dec;
        const float *losses = m->host_losses + p->micro[i].loss_row;
        for (int k = 0; k < dec->pages; k++, task++) {
            for (int r = dec->output_cu[k]; r < dec->output_cu[k + 1]; r++) loss[*task] += losses[r];
            rows[*task] += dec->output_cu[k + 1] - dec->output_cu[k];
        }
    }
}
