// batch.c: see batch.h. One block holds all arrays of a micro-batch without gaps, so that one copy of m->bytes bytes
// moves it to the device.
#include "llmc/model/batch.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/base/arena.h"

static void carve_stack(StackBatch *s, Arena *a, int pages, int rows, int outputs) {
    size_t n = (size_t)rows * sizeof(int), k = (size_t)outputs * sizeof(int), p = ((size_t)pages + 1) * sizeof(int);
    s->pages = pages;
    s->rows = rows;
    s->outputs = outputs;
    s->ids = arena_take(a, n);
    s->positions = arena_take(a, n);
    s->cu = arena_take(a, p);
    s->output_cu = arena_take(a, p);
    s->output_rows = arena_take(a, k);
    s->output_positions = arena_take(a, k);
    s->order = arena_take(a, n);
    s->run_begin = arena_take(a, n + sizeof(int)); // as many runs as rows, at most
}

static void carve(MicroBatch *m, Arena *a, BatchRows r) {
    carve_stack(&m->enc, a, r.windows, r.enc, r.slots);
    carve_stack(&m->dec, a, r.pages, r.dec, r.outputs);
    m->labels = arena_take(a, (size_t)r.outputs * sizeof *m->labels);
    m->weights = arena_take(a, (size_t)r.outputs * sizeof *m->weights);
}

size_t batch_capacity(BatchRows most) {
    MicroBatch m;
    Arena count = {0};
    if (!most.windows) most.windows = most.pages;
    if (!most.slots) most.slots = most.enc;
    carve(&m, &count, most);
    return count.used;
}

void batch_place(MicroBatch *m, void *block, size_t capacity, uint64_t *page_ids, uint64_t *sort_work) {
    *m = (MicroBatch){.block = block, .capacity = capacity, .page_ids = page_ids, .sort_work = sort_work};
}

int batch_create(MicroBatch *m, Backend *b, BatchRows most, Error *err) {
    void *block = NULL;
    size_t capacity = batch_capacity(most), longest = (size_t)(most.enc > most.dec ? most.enc : most.dec);
    *m = (MicroBatch){0};
    TRY(b->alloc_host(b, &block, capacity, "micro-batch", err));
    uint64_t *host = alloc((size_t)most.pages + 2 * longest, sizeof *host, "micro-batch");
    batch_place(m, block, capacity, host, host + most.pages);
    m->b = b;
    return 0;
}

void batch_free(MicroBatch *m) {
    if (m->b) {
        m->b->release_host(m->b, m->block);
        free(m->page_ids);
    }
    *m = (MicroBatch){0};
}

// ---- rows sorted by id ---------------------------------------------------------------------------------------------

// A radix sort, least significant digit first, so that equal ids keep the order of their rows. No id is below -slots.
// work (2*rows): id + slots in the upper half, row in the lower.
static void sort_by_id(StackBatch *s, int slots, uint64_t *work) {
    enum { BITS = 11, DIGITS = 1 << BITS };
    int n = s->rows;
    uint64_t *from = work, *to = work + n, highest = 0;
    for (int i = 0; i < n; i++) {
        uint64_t key = (uint64_t)((int64_t)s->ids[i] + slots);
        highest = key > highest ? key : highest;
        from[i] = key << 32 | (uint32_t)i;
    }
    for (int shift = 32; highest >> (shift - 32); shift += BITS) {
        int begin[DIGITS] = {0};
        for (int i = 0; i < n; i++) begin[from[i] >> shift & (DIGITS - 1)]++;
        for (int d = 0, sum = 0; d < DIGITS; d++) {
            int count = begin[d];
            begin[d] = sum;
            sum += count;
        }
        for (int i = 0; i < n; i++) to[begin[from[i] >> shift & (DIGITS - 1)]++] = from[i];
        uint64_t *swap = from;
        from = to;
        to = swap;
    }
    s->runs = 0;
    for (int i = 0; i < n; i++) {
        s->order[i] = (int)(uint32_t)from[i];
        if (i == 0 || from[i] >> 32 != from[i - 1] >> 32) s->run_begin[s->runs++] = i;
    }
    s->run_begin[s->runs] = n;
}

// ---- packing -------------------------------------------------------------------------------------------------------

static int *put(int *to, const int32_t *ids, int n) {
    if (n) memcpy(to, ids, (size_t)n * sizeof *to);
    return to + n;
}

static int *put_text(int *to, const uint32_t *ids, int n) {
    if (n) memcpy(to, ids, (size_t)n * sizeof *to); // the shard's reader has checked that ids fit an int
    return to + n;
}

static int *put_slots(int *to, int first, int n) {
    for (int i = 0; i < n; i++) *to++ = -1 - (first + i);
    return to;
}

// Closes page p, whose ids end at `end`: positions, borders, and its last `outputs` rows as output rows.
static void close_page(StackBatch *s, int p, const int *end, int outputs) {
    int begin = s->cu[p], rows = (int)(end - s->ids) - begin, k = s->output_cu[p];
    for (int i = 0; i < rows; i++) s->positions[begin + i] = i;
    for (int i = 0; i < outputs; i++) {
        s->output_rows[k + i] = begin + rows - outputs + i;
        s->output_positions[k + i] = rows - outputs + i;
    }
    s->cu[p + 1] = begin + rows;
    s->output_cu[p + 1] = k + outputs;
    if (rows > s->longest) s->longest = rows;
    if (outputs > s->longest_output) s->longest_output = outputs;
}

static int shorter(uint32_t length, uint32_t cut) { return (int)(length < cut ? length : cut); }

static int page_latents(const ShardPage *page, int latents) { return page->latents ? (int)page->latents : latents; }

BatchRows batch_page_rows(const ShardPage *page, const Template *t, int latents, uint32_t cut) {
    int answer = shorter(page->answer_length, cut), context = shorter(page->context_length, cut);
    int windows = template_windows(t, page->context, (uint32_t)context), slots = windows * page_latents(page, latents);
    return (BatchRows){.pages = 1,
                       .enc = context + windows + slots,
                       .dec = template_page_overhead(t, page, slots) + answer,
                       .outputs = answer + 1,
                       .windows = windows,
                       .slots = slots};
}

// The windows of a page into the encoder's sequences from window w on. Returns the window after its last.
static int put_windows(StackBatch *enc, int w, const ShardPage *page, const Template *t, int latents, uint32_t cut) {
    const uint32_t *text = page->context;
    uint32_t left = (uint32_t)shorter(page->context_length, cut);
    do {
        uint32_t n = left ? template_window(t, text, left) : 0;
        int *to = put_text(enc->ids + enc->cu[w], text, (int)n);
        *to++ = t->img;
        close_page(enc, w++, put_slots(to, 0, latents), latents);
        text += n;
        left -= n;
    } while (left);
    return w;
}

static int *put_prompt(int *to, const ShardPage *page, const Template *t) {
    if (!page->prompt_length) return put(to, t->suffix, t->n_suffix);
    to = put(to, t->ask, t->n_ask);
    to = put_text(to, page->prompt, (int)page->prompt_length);
    return put(to, t->answer, t->n_answer);
}

void batch_build(MicroBatch *m, const ShardPage *pages, const uint64_t *page_ids, int n, const Template *t, int latents,
                 uint32_t cut, const float *weights) {
    BatchRows sum = {0};
    for (int p = 0; p < n; p++) {
        BatchRows r = batch_page_rows(&pages[p], t, latents, cut);
        sum.pages++;
        sum.enc += r.enc;
        sum.dec += r.dec;
        sum.outputs += r.outputs;
        sum.windows += r.windows;
        sum.slots += r.slots;
    }
    Arena arena = {.base = m->block};
    *m = (MicroBatch){
        .b = m->b, .block = m->block, .capacity = m->capacity, .page_ids = m->page_ids, .sort_work = m->sort_work};
    carve(m, &arena, sum);
    m->bytes = arena.used;
    assert(m->bytes <= m->capacity);

    int *dec = m->dec.ids, *label = m->labels, w = 0, slot = 0;
    float *weight = m->weights;
    m->enc.cu[0] = m->enc.output_cu[0] = m->dec.cu[0] = m->dec.output_cu[0] = 0;
    for (int p = 0; p < n; p++) {
        int answer = shorter(pages[p].answer_length, cut);
        m->page_ids[p] = page_ids ? page_ids[p] : (uint64_t)p;
        w = put_windows(&m->enc, w, &pages[p], t, page_latents(&pages[p], latents), cut);

        dec = put(dec, t->prefix, t->n_prefix);
        dec = put_slots(dec, slot, m->enc.output_cu[w] - slot);
        slot = m->enc.output_cu[w];
        dec = put_prompt(dec, &pages[p], t);
        dec = put_text(dec, pages[p].answer, answer);
        close_page(&m->dec, p, dec, answer + 1); // the row before the text predicts its first token
        label = put_text(label, pages[p].answer, answer);
        *label++ = t->end;
        for (int i = 0; i <= answer; i++) *weight++ = weights ? weights[p] : 1.0f;
    }
    sort_by_id(&m->enc, m->enc.longest_output, m->sort_work);
    sort_by_id(&m->dec, sum.slots, m->sort_work);
}

// ---- the same arrays elsewhere -------------------------------------------------------------------------------------

static void *moved(const void *p, const void *from, void *to) {
    return (char *)to + ((const char *)p - (const char *)from);
}

static void move_stack(StackBatch *s, const void *from, void *to) {
    int **arrays[] = {&s->ids,         &s->positions,        &s->cu,    &s->output_cu,
                      &s->output_rows, &s->output_positions, &s->order, &s->run_begin};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) *arrays[i] = moved(*arrays[i], from, to);
}

MicroBatch batch_view(const MicroBatch *m, void *block) {
    MicroBatch view = *m;
    move_stack(&view.enc, m->block, block);
    move_stack(&view.dec, m->block, block);
    view.labels = moved(m->labels, m->block, block);
    view.weights = moved(m->weights, m->block, block);
    view.block = block;
    return view;
}
