// generate.c: decoding, see generate.h.
//
// A generator has slots for pages; slot s owns the cache rows s*slot_rows .. (s+1)*slot_rows-1. Two kinds of step:
//   prefill  free slots take waiting pages: encoder over the new pages, projector, decoder over their prompts in one
//            packed batch; the last row of each page gives its first token
//   decode   one row per live page through the decoder; its keys and values are appended to the slot's cache rows
// Nothing is allocated in between but the tokens of a finished page.
#include "llmc/infer/generate.h"

#include <math.h> // INFINITY, isnan
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/base/arena.h"
#include "llmc/text/text_stream.h"

// Rows of a prefill: enough for efficient products, few enough that the activations stay small beside the weights.
enum { PREFILL_ROWS = 4096, MOST_SLOTS = 64 };
// Device bytes of a generator whose number of slots nobody chose.
static const size_t most_bytes = (size_t)4 << 30;

typedef struct Slot {
    GeneratePage *page; // NULL: free
    int32_t *history;   // (slot_rows) prompt, then the new tokens
    int overhead;       // rows of the prompt, latents included
    int n;              // of history
    int limit;          // n at which the page is cut
} Slot;

// Index arrays of one decoder step, one block. decode: one row per page; prefill: only the cache part is used.
typedef struct StepArrays {
    int *ids, *positions; // (pages)
    int *cu;              // (pages+1)
    int *k_begin, *k_end; // (pages) cache rows of each page
    int *write_rows;      // (rows) cache row of each new row
    size_t bytes;
} StepArrays;

struct Generator {
    const C3 *m; // weights and sizes
    const Template *t;
    Backend *b;
    Qwen2 enc, dec; // the model's stacks with rotary tables of their own length
    BatchRows page; // the most that a page takes: dec: rows of its prompt
    int slots, slot_rows;
    int prefill; // most pages of a prefill
    int context, prompt, enc_rows, dec_rows, max_new;
    Slot *slot;         // (slots)
    int *live;          // (slots) the occupied ones of a step, ascending
    MicroBatch batch;   // prefill: host side
    ShardPage *prompts; // (prefill)
    void *step_host;    // StepArrays, host side
    int *chosen;        // (slots) host: largest logit of each row, then the token that was chosen
    float *losses;      // (slots) host: -ln p of it
    int confidence;     // whether losses are computed
    elem_t *row;        // (V) host: one row of logits ...
    float *row_f32;     // (V) ... in fp32; -Inf: may not be chosen
    int32_t *work;      // (V) host: of sample_token
    Sampling sampling;
    void (*token)(void *arg, int page, int32_t id);
    void *token_arg;
    const GeneratePage *pages; // of generate_pages
    int32_t *history;          // all slots' histories
    // device
    void *arena, *batch_device, *step_device;
    StackActs enc_acts, dec_acts;
    elem_t *projected; // (prefill*page.slots,D_dec)
    elem_t *logits;    // (slots,params_head_rows(V))
    int *argmax;       // (slots)
    float *row_losses; // (slots)
    int *row_correct;  // (slots)
    float *latents;    // (page.slots,D_enc) given latents in fp32
    elem_t *kv;        // (L,slots*slot_rows,2*KV*HS)
};

// The arrays of a step of `pages` pages and `rows` rows in a block; block NULL: their size alone.
static StepArrays step_arrays(void *block, int pages, int rows) {
    Arena arena = {.base = block};
    const size_t each = (size_t)pages * sizeof(int);
    StepArrays a;
    a.ids = arena_take(&arena, each);
    a.positions = arena_take(&arena, each);
    a.cu = arena_take(&arena, each + sizeof(int));
    a.k_begin = arena_take(&arena, each);
    a.k_end = arena_take(&arena, each);
    a.write_rows = arena_take(&arena, (size_t)rows * sizeof(int));
    a.bytes = arena.used;
    return a;
}

C3Limits generator_model_limits(void) {
    return (C3Limits){.pages = 1, .enc_rows = 1, .dec_rows = 1, .dec_outputs = 1, .recompute = KEEP_NOTHING};
}

// ---- creation ------------------------------------------------------------------------------------------------------

// What the encoder reads and the decoder sees of a page before it writes.
static ShardPage prompt_of(const Generator *g, const GeneratePage *page) {
    ShardPage p = page->latents ? generate_prompt(NULL, 0) : generate_prompt(page->context, page->n_context);
    if (page->latents) p.latents = (uint32_t)(page->slots ? page->slots : g->m->config.latents);
    p.prompt = (const uint32_t *)page->prompt;
    p.prompt_length = (uint32_t)page->n_prompt;
    return p;
}

static BatchRows prompt_rows(const Generator *g, const ShardPage *prompt) {
    return batch_page_rows(prompt, g->t, g->m->config.latents, UINT32_MAX);
}

static void set_sizes(Generator *g, const GeneratorLimits *l, int slots) {
    GeneratePage longest = {.n_context = l->context};
    ShardPage prompt = prompt_of(g, &longest);
    g->page = prompt_rows(g, &prompt);
    prompt.prompt_length = (uint32_t)l->prompt;
    int asked = prompt_rows(g, &prompt).dec;
    if (asked > g->page.dec) g->page.dec = asked;
    g->prompt = l->prompt;
    if (l->slots > g->page.slots) {
        g->page.dec += l->slots - g->page.slots;
        g->page.slots = l->slots;
    }
    if (g->page.enc < 1 + g->page.slots) g->page.enc = 1 + g->page.slots; // given latents take rows as well
    g->slots = slots;
    g->context = l->context;
    g->max_new = l->max_new;
    g->slot_rows = g->page.dec + l->max_new;
    g->prefill = PREFILL_ROWS / g->page.dec;
    if (g->prefill < 1) g->prefill = 1;
    if (g->prefill > slots) g->prefill = slots;
    g->dec_rows = g->prefill * g->page.dec;
    if (g->dec_rows < slots) g->dec_rows = slots;
    int64_t rows = (int64_t)g->page.enc * g->prefill, most = g->page.enc > PREFILL_ROWS ? g->page.enc : PREFILL_ROWS;
    g->enc_rows = (int)(rows < most ? rows : most);
}

static BatchRows prefill_rows(const Generator *g) {
    return (BatchRows){.pages = g->prefill,
                       .enc = g->enc_rows,
                       .dec = g->dec_rows,
                       .outputs = g->prefill,
                       .windows = g->prefill * g->page.windows,
                       .slots = g->prefill * g->page.slots};
}

static void carve(Generator *g, Arena *arena) {
    const C3Config *c = &g->m->config;
    DType dtype = g->b->dtype;
    size_t e = dtype_size(dtype), given = (size_t)g->page.slots, slots = (size_t)g->slots;
    qwen2_carve(&g->enc_acts, arena, &c->enc, dtype, g->enc_rows, g->prefill * g->page.slots, KEEP_NOTHING);
    qwen2_carve(&g->dec_acts, arena, &c->dec, dtype, g->dec_rows, g->slots, KEEP_NOTHING);
    g->projected = arena_take(arena, (size_t)g->prefill * given * c->dec.D * e);
    g->logits = arena_take(arena, slots * (size_t)params_head_rows(c->dec.V) * e);
    g->argmax = arena_take(arena, slots * sizeof(int));
    g->row_losses = arena_take(arena, slots * sizeof(float));
    g->row_correct = arena_take(arena, slots * sizeof(int));
    g->latents = arena_take(arena, given * c->enc.D * sizeof(float));
    g->kv = arena_take(arena, (size_t)c->dec.L * slots * g->slot_rows * 2 * c->dec.KV * c->dec.HS * e);
    g->step_device = arena_take(arena, step_arrays(NULL, g->slots, g->dec_rows).bytes);
    g->batch_device = arena_take(arena, batch_capacity(prefill_rows(g)));
}

// Device bytes with so many slots.
static size_t count_bytes(const Generator *g, const GeneratorLimits *l, int slots) {
    Generator counted = {.m = g->m, .t = g->t, .b = g->b};
    Arena arena = {0};
    set_sizes(&counted, l, slots);
    carve(&counted, &arena);
    qwen2_release(&counted.enc_acts);
    qwen2_release(&counted.dec_acts);
    return arena.used;
}

static int choose_slots(const Generator *g, const GeneratorLimits *l) {
    int slots = l->together > 0 ? l->together : MOST_SLOTS;
    if (slots > l->pages) slots = l->pages;
    while (l->together == 0 && slots > 1 && count_bytes(g, l, slots) > most_bytes) slots = (slots + 1) / 2;
    return slots;
}

static int allocate_host(Generator *g, Error *err) {
    static const char what[] = "decoding";
    size_t slots = (size_t)g->slots, V = (size_t)g->m->config.dec.V;
    g->slot = alloc_zeroed(slots, sizeof *g->slot, what);
    g->live = alloc(slots, sizeof *g->live, what);
    g->prompts = alloc((size_t)g->prefill, sizeof *g->prompts, what);
    g->step_host = alloc(step_arrays(NULL, g->slots, g->dec_rows).bytes, 1, what);
    g->chosen = alloc(slots, sizeof *g->chosen, what);
    g->losses = alloc(slots, sizeof *g->losses, what);
    g->row = alloc(V, dtype_size(g->b->dtype), what);
    g->row_f32 = alloc(V, sizeof *g->row_f32, what);
    g->work = alloc(V, sizeof *g->work, what);
    g->history = alloc(slots * g->slot_rows, sizeof *g->history, what);
    for (int s = 0; s < g->slots; s++) g->slot[s].history = g->history + (size_t)s * g->slot_rows;
    return batch_create(&g->batch, g->b, prefill_rows(g), err);
}

static int allocate(Generator *g, const GeneratorLimits *limits, Error *err) {
    const C3 *m = g->m;
    size_t bytes = count_bytes(g, limits, g->slots);
    TRY(allocate_host(g, err));
    TRY(g->b->alloc(g->b, &g->arena, bytes, "decoding (caches and activations)", err));
    Arena arena = {.base = g->arena};
    carve(g, &arena);
    // rows that no page has written are never read; zeros, so that a mistake there would at least be reproducible
    g->b->zero(g->b, g->arena, bytes);
    int window = g->t->window && g->t->window < g->context ? g->t->window : g->context;
    TRY(qwen2_create(&g->enc, &m->config.enc, &m->params.enc, g->b, m->weights, NULL, window + 1 + m->config.latents,
                     err));
    return qwen2_create(&g->dec, &m->config.dec, &m->params.dec, g->b, m->weights, NULL, g->slot_rows, err);
}

int generator_create(Generator **out, const C3 *m, const Template *t, const GeneratorLimits *limits, Error *err) {
    *out = NULL;
    Generator *g = alloc(1, sizeof *g, "decoding");
    *g = (Generator){.m = m, .t = t, .b = m->b};
    set_sizes(g, limits, choose_slots(g, limits));
    if (allocate(g, limits, err) != 0) {
        generator_free(g);
        return -1;
    }
    *out = g;
    return 0;
}

void generator_free(Generator *g) {
    if (!g) return;
    qwen2_free(&g->enc);
    qwen2_free(&g->dec);
    qwen2_release(&g->enc_acts);
    qwen2_release(&g->dec_acts);
    if (g->arena) g->b->release(g->b, g->arena);
    batch_free(&g->batch);
    void *host[] = {g->slot,   g->live, g->prompts, g->step_host, g->chosen,
                    g->losses, g->row,  g->row_f32, g->work,      g->history};
    for (size_t i = 0; i < sizeof host / sizeof *host; i++) free(host[i]);
    free(g);
}

void generator_sampling(Generator *g, const Sampling *s) { g->sampling = *s; }

void generator_confidence(Generator *g) { g->confidence = 1; }

void generator_listen(Generator *g, void (*token)(void *arg, int page, int32_t id), void *arg) {
    g->token = token;
    g->token_arg = arg;
}

// ---- which token comes next ----------------------------------------------------------------------------------------

// Do the last n-1 tokens of the history stand at i as well? Then history[i + n - 1] would complete a repeated n-gram.
static int is_tail(const Slot *s, int n, int i) {
    return memcmp(s->history + i, s->history + s->n - (n - 1), (size_t)(n - 1) * sizeof *s->history) == 0;
}

static int is_repeated(const Slot *s, int n, int32_t token) {
    for (int i = 0; i + n <= s->n; i++) {
        if (s->history[i + n - 1] == token && is_tail(s, n, i)) return 1;
    }
    return 0;
}

// Row r of the logits into row_f32.
static void read_row(Generator *g, int r) {
    size_t V = (size_t)g->m->config.dec.V;
    int is_f32 = g->b->dtype == DTYPE_F32;
    g->b->download(g->b, is_f32 ? (elem_t *)g->row_f32 : g->row,
                   elem_at(g->b, g->logits, (size_t)r * params_head_rows((int)V)), V * dtype_size(g->b->dtype));
    for (size_t v = 0; v < V && !is_f32; v++) {
        uint32_t bits = (uint32_t)((const uint16_t *)g->row)[v] << 16;
        memcpy(&g->row_f32[v], &bits, sizeof bits);
    }
}

static void ban_repeats(Generator *g, const Slot *s, int n) {
    for (int i = 0; i + n <= s->n; i++) {
        int32_t next = s->history[i + n - 1];
        if (next < g->m->config.dec.V && is_tail(s, n, i)) g->row_f32[next] = -INFINITY;
    }
}

// The next token of a page, from row r of the logits; the end mark when nothing else is left.
static int32_t choose_token(Generator *g, const Slot *s, int r, int ngram) {
    const Sampling *o = &g->sampling;
    if (o->temperature <= 0 && !(ngram > 0 && is_repeated(s, ngram, g->chosen[r]))) return g->chosen[r];
    read_row(g, r);
    if (ngram > 0) ban_repeats(g, s, ngram);
    double u = sample_uniform(o->seed, (uint64_t)(s->page - g->pages), (uint64_t)(s->n - s->overhead));
    int32_t token = sample_token(g->row_f32, g->m->config.dec.V, o->temperature, o->top_p, u, g->work);
    return token < 0 ? g->t->end : token;
}

static int ends_page(const Generator *g, int32_t token) {
    int ends = token == g->t->end;
    for (int i = 0; i < g->sampling.n_stop; i++) ends |= token == g->sampling.stop[i];
    return ends;
}

// Hands the page its tokens and frees its slot.
static void end_page(Slot *s, int ended) {
    GeneratePage *p = s->page;
    s->page = NULL;
    p->n = s->n - s->overhead;
    p->ended = ended;
    p->ids = alloc((size_t)p->n, sizeof *p->ids, "tokens of a page");
    memcpy(p->ids, s->history + s->overhead, (size_t)p->n * sizeof *p->ids);
}

// The losses of the chosen tokens, added to their pages.
static void add_confidence(Generator *g, int n) {
    Backend *b = g->b;
    const int V = g->m->config.dec.V;
    b->upload(b, g->argmax, g->chosen, (size_t)n * sizeof *g->chosen);
    b->cross_entropy(b, g->row_losses, g->row_correct, g->logits, g->argmax, NULL, n, V, params_head_rows(V));
    b->download(b, g->losses, g->row_losses, (size_t)n * sizeof *g->losses);
    for (int i = 0; i < n; i++) {
        GeneratePage *p = g->slot[g->live[i]].page;
        double log_prob = isnan(g->losses[i]) ? -INFINITY : -g->losses[i];
        p->log_prob += log_prob;
        if (log_prob < p->least_log_prob) p->least_log_prob = log_prob;
    }
}

// Head over the first n rows of the decoder's output; row i belongs to slot live[i]. Appends each row's token to its
// page. Returns how many pages ended.
static int choose_tokens(Generator *g, int n, int ngram) {
    Backend *b = g->b;
    const Qwen2Config *c = &g->m->config.dec;
    int done = 0;
    b->matmul_forward(b, g->logits, g->dec_acts.out, elem_at(b, g->m->weights, g->m->params.dec.head), NULL, n, c->D,
                      params_head_rows(c->V));
    b->argmax(b, g->argmax, g->logits, n, c->V, params_head_rows(c->V));
    b->download(b, g->chosen, g->argmax, (size_t)n * sizeof *g->chosen);
    for (int i = 0; i < n; i++) g->chosen[i] = choose_token(g, &g->slot[g->live[i]], i, ngram);
    if (g->confidence) add_confidence(g, n);
    for (int i = 0; i < n; i++) {
        Slot *s = &g->slot[g->live[i]];
        int32_t token = g->chosen[i];
        int ended = ends_page(g, token);
        if (!ended) s->history[s->n++] = token;
        if (!ended && g->token) g->token(g->token_arg, (int)(s->page - g->pages), token);
        if (!ended && s->n < s->limit) continue;
        end_page(s, ended);
        done++;
    }
    return done;
}

// ---- the two kinds of step -----------------------------------------------------------------------------------------

static KVCache cache_view(const Generator *g, const StepArrays *d, const int *cu, int pages, int max_q, int max_k) {
    AttentionPages p = {
        .pages = pages, .max_q = max_q, .max_k = max_k, .cu_q = cu, .k_begin = d->k_begin, .k_end = d->k_end};
    return (KVCache){
        .kv = g->kv, .rows = g->slots * g->slot_rows, .write_rows = d->write_rows, .pages = p, .outputs = p};
}

// The history begins with the prompt, for no_repeat_ngram; latents count as `<imgpad>`.
static void start_slot(Generator *g, Slot *s, GeneratePage *page, BatchRows rows) {
    const Template *t = g->t;
    int32_t *to = s->history;
    s->page = page;
    for (int i = 0; i < t->n_prefix; i++) *to++ = t->prefix[i];
    for (int i = 0; i < rows.slots; i++) *to++ = g->m->config.specials.img_pad;
    const int asks = page->n_prompt > 0;
    for (int i = 0; i < t->n_suffix && !asks; i++) *to++ = t->suffix[i];
    for (int i = 0; i < t->n_ask && asks; i++) *to++ = t->ask[i];
    for (int i = 0; i < page->n_prompt; i++) *to++ = page->prompt[i];
    for (int i = 0; i < t->n_answer && asks; i++) *to++ = t->answer[i];
    s->n = s->overhead = rows.dec;
    s->limit = s->overhead + (page->max_new > 0 && page->max_new < g->max_new ? page->max_new : g->max_new);
}

ShardPage generate_prompt(const int32_t *context, int n) {
    static const uint32_t nothing[1];
    return (ShardPage){
        .context = n ? (const uint32_t *)context : nothing, .context_length = (uint32_t)n, .answer = nothing};
}

// The latents of the pages of d into enc_acts.out (slots,D_enc): their own, or those of the encoder.
static void encode(Generator *g, GeneratePage *const *pages, const MicroBatch *d) {
    Backend *b = g->b;
    const C3 *m = g->m;
    size_t width = (size_t)m->config.enc.D;
    if (!pages[0]->latents) {
        qwen2_forward(&g->enc, &g->enc_acts, &d->enc, elem_at(b, m->weights, m->params.Q), NULL);
        return;
    }
    for (int i = 0; i < d->dec.pages; i++) {
        size_t first = (size_t)g->batch.enc.output_cu[i] * width;
        size_t size = (size_t)g->batch.enc.output_cu[i + 1] * width - first;
        b->upload(b, g->latents, pages[i]->latents, size * sizeof(float));
        b->cast_from_f32(b, elem_at(b, g->enc_acts.out, first), g->latents, size);
    }
}

// Takes the first of the waiting pages into free slots, as many as fit into one batch. Returns how many: all with given
// latents, or all with a context.
static int take(Generator *g, GeneratePage **waiting, int n_waiting) {
    int n = 0, rows = 0;
    for (int s = 0; s < g->slots && n < g->prefill && n < n_waiting; s++) {
        if (g->slot[s].page) continue;
        if (!waiting[n]->latents != !waiting[0]->latents) break;
        g->prompts[n] = prompt_of(g, waiting[n]);
        BatchRows r = prompt_rows(g, &g->prompts[n]);
        if (rows + r.enc > g->enc_rows) break;
        rows += r.enc;
        start_slot(g, &g->slot[s], waiting[n], r);
        g->live[n++] = s;
    }
    return n;
}

// Takes waiting pages and writes their first tokens. *taken: how many. Returns how many are already done.
static int prefill(Generator *g, GeneratePage **waiting, int n_waiting, int *taken, int ngram) {
    Backend *b = g->b;
    const C3 *m = g->m;
    const C3Config *c = &m->config;
    int n = *taken = take(g, waiting, n_waiting);
    batch_build(&g->batch, g->prompts, NULL, n, g->t, c->latents, UINT32_MAX, NULL);
    b->upload(b, g->batch_device, g->batch.block, g->batch.bytes);
    MicroBatch d = batch_view(&g->batch, g->batch_device);
    encode(g, waiting, &d);
    b->matmul_forward(b, g->projected, g->enc_acts.out, elem_at(b, m->weights, m->params.projector),
                      elem_at(b, m->weights, m->params.projector_bias), d.enc.outputs, c->enc.D, c->dec.D);
    StepArrays host = step_arrays(g->step_host, n, d.dec.rows), device = step_arrays(g->step_device, n, d.dec.rows);
    for (int i = 0, row = 0; i < n; i++) {
        int first = g->live[i] * g->slot_rows, overhead = g->slot[g->live[i]].overhead;
        host.k_begin[i] = first;
        host.k_end[i] = first + overhead;
        for (int r = 0; r < overhead; r++) host.write_rows[row++] = first + r;
        host.ids[i] = host.positions[i] = host.cu[i] = 0;
    }
    host.cu[n] = 0;
    b->upload(b, g->step_device, g->step_host, host.bytes);
    KVCache cache = cache_view(g, &device, d.dec.cu, n, d.dec.longest, d.dec.longest);
    cache.outputs.max_q = d.dec.longest_output;
    cache.outputs.cu_q = d.dec.output_cu;
    qwen2_forward(&g->dec, &g->dec_acts, &d.dec, g->projected, &cache);
    return choose_tokens(g, n, ngram);
}

// One more token for every live page. Returns how many are done with it.
static int decode_step(Generator *g, int ngram) {
    int n = 0, longest = 0;
    for (int s = 0; s < g->slots; s++) {
        if (g->slot[s].page) g->live[n++] = s;
    }
    StepArrays host = step_arrays(g->step_host, n, n), device = step_arrays(g->step_device, n, n);
    for (int i = 0; i < n; i++) {
        const Slot *s = &g->slot[g->live[i]];
        int first = g->live[i] * g->slot_rows;
        host.ids[i] = s->history[s->n - 1];
        host.positions[i] = s->n - 1;
        host.cu[i] = i;
        host.k_begin[i] = first;
        host.k_end[i] = first + s->n;
        host.write_rows[i] = first + s->n - 1;
        if (s->n > longest) longest = s->n;
    }
    host.cu[n] = n;
    g->b->upload(g->b, g->step_device, g->step_host, host.bytes);
    KVCache cache = cache_view(g, &device, device.cu, n, 1, longest);
    StackBatch d = {.pages = n,
                    .rows = n,
                    .outputs = n,
                    .longest = 1,
                    .longest_output = 1,
                    .ids = device.ids,
                    .positions = device.positions,
                    .cu = device.cu};
    qwen2_forward(&g->dec, &g->dec_acts, &d, NULL, &cache);
    return choose_tokens(g, n, ngram);
}

// ---- all pages -----------------------------------------------------------------------------------------------------

static int longer_context(const void *a, const void *b) {
    const GeneratePage *x = *(GeneratePage *const *)a, *y = *(GeneratePage *const *)b;
    if (x->n_context != y->n_context) return x->n_context > y->n_context ? -1 : 1;
    return x < y ? -1 : x > y; // equal lengths: in the order given
}

int generate_pages(Generator *g, GeneratePage *pages, int n, int no_repeat_ngram, PagesDone *progress, void *arg,
                   Error *err) {
    for (int i = 0; i < n; i++) {
        pages[i].ids = NULL;
        pages[i].n = pages[i].ended = 0;
        pages[i].log_prob = pages[i].least_log_prob = 0;
    }
    for (int i = 0; i < n; i++) {
        if (!pages[i].latents && pages[i].n_context > g->context)
            return error_set(err, "page %d has %d tokens, decoding was prepared for %d", i + 1, pages[i].n_context,
                             g->context);
        if (pages[i].n_prompt > g->prompt)
            return error_set(err, "page %d has a prompt of %d tokens, decoding was prepared for %d", i + 1,
                             pages[i].n_prompt, g->prompt);
        if (pages[i].latents && pages[i].slots > g->page.slots)
            return error_set(err, "page %d has %d latents, decoding was prepared for %d", i + 1, pages[i].slots,
                             g->page.slots);
    }
    if (n <= 0) return 0;
    g->pages = pages;
    GeneratePage **waiting = alloc((size_t)n, sizeof *waiting, "decoding");
    for (int i = 0; i < n; i++) waiting[i] = &pages[i];
    qsort(waiting, (size_t)n, sizeof *waiting, longer_context);
    for (int next = 0, done = 0; done < n;) {
        int ended, taken = 0;
        if (next < n && next - done < g->slots) ended = prefill(g, waiting + next, n - next, &taken, no_repeat_ngram);
        else ended = decode_step(g, no_repeat_ngram);
        next += taken;
        done += ended;
        if (ended > 0 && progress) progress(arg, done, n);
    }
    free(waiting);
    return 0;
}

void generate_free(GeneratePage *pages, int n) {
    for (int i = 0; i < n; i++) {
        free(pages[i].ids);
        pages[i].ids = NULL;
    }
}

// ---- ids to text ---------------------------------------------------------------------------------------------------

int generate_new_tokens(int tokens, int asked, int room) {
    int most = tokens < GENERATE_MAX_NEW ? GENERATE_MAX_NEW : tokens + 1; // the page itself always fits
    int n = asked > 0 ? asked : tokens < most / 2 ? 2 * tokens + 32 : most;
    if (asked <= 0 && n > most) n = most;
    return n < room ? n : room;
}

char *generate_text(const Tokenizer *tok, const int32_t *ids, int n, size_t *length) {
    TextStream stream = {0};
    char *text = text_stream_tokens(&stream, tok, ids, n, length); // has room for text_stream_end
    *length += text_stream_end(&stream, text + *length);
    text[*length] = 0;
    return text;
}

int generate_nfc(char **text, size_t *length, const Tokenizer *tok, const GeneratePage *page, Error *err) {
    size_t n;
    char *raw = generate_text(tok, page->ids, page->n, &n);
    int bad = text_nfc(text, length, raw, n, err);
    free(raw);
    return bad;
}
