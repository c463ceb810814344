// plan.c: see plan.h. Here: memory, the choice, and the load of the roofline; plan_report.c prints it.
#include "llmc/train/plan.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "llmc/train/checkpoint.h" // checkpoint_bytes
#include "llmc/base/format.h"

// ---- memory --------------------------------------------------------------------------------------------------------

size_t plan_reserve(size_t memory, int is_gpu) {
    return is_gpu ? (size_t)(0.04 * (double)memory) + (size_t)1500000000 : 0;
}

static PlanBytes count_bytes(const PlanShape *s, const C3Limits *limits) {
    C3Memory m = c3_memory(s->config, s->params, limits, s->dtype, s->is_gpu);
    PlanBytes bytes = {.parameters = m.parameters,
                       .gradients = m.gradients + optimizer_shard_bytes(s->params, s->zero),
                       .optimizer = optimizer_bytes(s->params, s->dtype, s->zero),
                       .activations = m.activations,
                       .inputs = m.inputs,
                       .scratch = m.scratch,
                       .memory = s->memory,
                       .reserve = s->reserve,
                       .checkpoint = checkpoint_bytes(s->params, s->dtype)};
    bytes.total =
        bytes.parameters + bytes.gradients + bytes.optimizer + bytes.activations + bytes.inputs + bytes.scratch;
    return bytes;
}

static int fits_memory(const PlanBytes *b) { return b->memory == 0 || b->total + b->reserve <= b->memory; }

// ---- candidates ----------------------------------------------------------------------------------------------------

// Capacities are counted in parts of the longest page.
enum { PART = 64 };

static int scaled(int rows, int parts) { return (int)(((int64_t)rows * parts + PART - 1) / PART); }

// Average pages that a device batch holds.
static int pages_held(const PlanShape *s, const C3Limits *l) {
    double rows = fmin(l->enc_rows / s->enc, fmin(l->dec_rows / s->dec, l->dec_outputs / s->outputs));
    return (int)fmax(1, fmin(floor(rows + 1e-9), l->pages));
}

// Device batches a step, with average pages.
static double device_batches(const PlanShape *s, const C3Limits *l, int fuse) {
    double pages = pages_held(s, l);
    if (!fuse) return ceil(s->b * s->g / pages);
    double whole = fmin(floor(pages / s->b), fuse); // micro-batches
    return whole >= 1 ? ceil(s->g / whole) : s->g * ceil(s->b / pages);
}

// A batch with room for `parts` parts of the longest page. Where pages fill it, it is bounded by rows alone, but for
// the arrays that are sized by pages and windows: twice what average pages would make it.
static PlanChoice candidate(const PlanShape *s, Recompute mode, int parts) {
    PlanChoice c = {.fuse = s->fuse ? (s->fuse < s->g ? s->fuse : s->g) : !s->is_gpu};
    double average = (double)parts / PART * s->longest.dec / s->dec;
    c.limits = (C3Limits){.pages = c.fuse ? c.fuse * s->b : (int)fmin(s->b * s->g, ceil(2 * average)),
                          .enc_rows = scaled(s->longest.enc, parts),
                          .dec_rows = scaled(s->longest.dec, parts),
                          .dec_outputs = scaled(s->longest.outputs, parts),
                          .loss_rows = s->b * s->g * s->longest.outputs,
                          .zero = s->zero,
                          .recompute = mode};
    if (s->config->window) {
        int most = scaled(s->longest.windows, parts), usual = (int)ceil(c.limits.pages * s->windows);
        c.limits.windows = most > usual ? most : usual;
        c.limits.slots = c.limits.windows * s->config->latents;
    }
    c.batches = device_batches(s, &c.limits, c.fuse);
    c.bytes = count_bytes(s, &c.limits);
    return c;
}

static int most_parts(const PlanShape *s) {
    int64_t pages = (int64_t)s->b * (s->fuse ? (s->fuse < s->g ? s->fuse : s->g) : s->is_gpu ? s->g : 1);
    int64_t rows = s->longest.enc > s->longest.dec ? s->longest.enc : s->longest.dec;
    int64_t most = INT_MAX / PART / (rows > 4 ? rows / 4 : 1); // rows of a batch stay far from the end of an int
    return (int)((pages < most ? pages : most) * PART);
}

// The largest batch of this mode that fits; where not even one longest page does, that one page.
static PlanChoice largest(const PlanShape *s, Recompute mode) {
    int low = PART, high = most_parts(s);
    PlanChoice c = candidate(s, mode, low);
    if (!fits_memory(&c.bytes)) return c;
    while (low < high) {
        int middle = low + (high - low + 1) / 2;
        PlanChoice tried = candidate(s, mode, middle);
        if (fits_memory(&tried.bytes)) low = middle;
        else high = middle - 1;
    }
    c = candidate(s, mode, low);
    // no more room than the same number of batches needs when all pages are of the longest
    double needed = (c.fuse ? ceil(s->g / c.batches) * s->b : ceil(s->b * s->g / c.batches)) * PART;
    return low > needed && needed >= PART ? candidate(s, mode, (int)needed) : c;
}

// A batch for this number of average pages, and for one of the longest.
static PlanChoice holding(const PlanShape *s, Recompute mode, int pages) {
    double share = fmax(s->enc / s->longest.enc, fmax(s->dec / s->longest.dec, s->outputs / s->longest.outputs));
    return candidate(s, mode, (int)fmax(PART, ceil(pages * share * PART)));
}

// ---- the load ------------------------------------------------------------------------------------------------------

RooflineLoad plan_load(const PlanShape *s, const PlanChoice *c) {
    double pages = (double)s->b * s->g / c->batches; // of a device batch, on average
    int shared = s->dtype == DTYPE_F32 ? 0 : 1;      // a master copy beside the weights
    double of_page = s->windows > 1 ? s->windows : 1, windows = pages * of_page, enc = s->enc / of_page;
    double N = s->latents;
    return (RooflineLoad){
        .stacks = {{&s->config->enc, pages * s->enc, windows * N, windows * causal_pairs(enc, enc),
                    windows * causal_pairs(enc, N)},
                   {&s->config->dec, pages * s->dec, pages * s->outputs, pages * causal_pairs(s->dec, s->dec),
                    pages * causal_pairs(s->dec, s->outputs)}},
        .n_stacks = 2,
        .head_rows = pages * s->outputs,
        .head_chunk = c3_head_rows(s->config, &c->limits, s->is_gpu),
        .D = s->config->dec.D,
        .V = params_head_rows(s->config->dec.V),
        .batches = c->batches,
        .parameters = (double)s->params->table.total,
        .element = (int)dtype_size(s->dtype),
        .gradient = 4,
        // norm: gradient; AdamW: gradient, m and v there and back, master or weight there and back, weight written
        .state = 4 + 4 + 16 + 8 + 2 * shared,
        .ranks = s->ranks,
        .zero = s->zero,
        .recompute = c->limits.recompute,
    };
}

static double predicted_seconds(const PlanShape *s, const PlanChoice *c) {
    RooflineRates rates = roofline_rates(s->gpu ? s->gpu : gpu_find("h100"), s->dtype, 0);
    RooflineLoad load = plan_load(s, c);
    RooflineTimes times;
    roofline_step(&times, &load, &rates);
    return times.total;
}

// ---- refusal -------------------------------------------------------------------------------------------------------

enum { MAX_REMEDIES = 8 };

// What could be changed, and what it would save.
typedef struct Remedies {
    struct Remedy {
        char what[48];
        double saved;
        int enough;
    } all[MAX_REMEDIES];
    int n;
} Remedies;

// Notes what the changed shape saves of `total`; less than a hundredth is no help.
static void remedy(Remedies *r, const PlanShape *changed, Recompute mode, size_t total, const char *what) {
    PlanChoice c = candidate(changed, mode, PART);
    double saved = (double)total - (double)c.bytes.total;
    if (r->n == MAX_REMEDIES || saved < 0.01 * (double)total) return;
    r->all[r->n] = (struct Remedy){.saved = saved, .enough = fits_memory(&c.bytes)};
    snprintf(r->all[r->n++].what, sizeof r->all->what, "%s", what);
}

// GPUs share the optimizer's state: twice as many, and so on, until it fits. On a CPU ranks share the memory too.
static void more_ranks(Remedies *r, const PlanShape *s, Recompute mode, size_t total) {
    PlanShape changed = *s;
    C3Params params;
    int before = r->n;
    if (!s->is_gpu || (s->ranks > 1 && !s->zero)) return;
    changed.zero = s->zero ? s->zero : 1;
    for (int ranks = 2 * s->ranks; ranks <= 8 * s->ranks; ranks *= 2) {
        char what[48];
        if (params_build(&params, s->config, ranks, NULL) != 0) return;
        changed.ranks = ranks;
        changed.params = &params;
        snprintf(what, sizeof what, "%d ranks save", ranks);
        r->n = before;
        remedy(r, &changed, mode, total, what);
        params_free(&params);
        if (r->n > before && r->all[before].enough) return;
    }
}

// What is enough comes first, then what saves most.
static int by_help(const void *x, const void *y) {
    const struct Remedy *a = x, *b = y;
    if (a->enough != b->enough) return b->enough - a->enough;
    return a->saved > b->saved ? -1 : a->saved < b->saved;
}

static BatchRows half_as_long(const PlanShape *s) {
    BatchRows r = s->longest;
    int text = (r.outputs - 1) / 2, fewer = r.windows / 2, slots = fewer * s->config->latents;
    r.enc -= text + fewer + slots;
    r.dec -= text + slots;
    r.outputs -= text;
    r.windows -= fewer;
    r.slots -= slots;
    return r;
}

static void find_remedies(Remedies *r, const PlanShape *s, Recompute mode, size_t total) {
    char maxlen[48];
    PlanShape changed = *s;
    *r = (Remedies){.n = 0};
    if (mode == RECOMPUTE_NONE) remedy(r, s, RECOMPUTE_CHEAP, total, "-recompute cheap saves");
    if (mode != RECOMPUTE_LAYER) remedy(r, s, RECOMPUTE_LAYER, total, "-recompute layer saves");
    for (int zero = s->zero + 1; zero <= 2 && s->ranks > 1; zero++) {
        changed.zero = zero;
        remedy(r, &changed, mode, total, zero == 1 ? "-zero 1 saves" : "-zero 2 saves");
    }
    more_ranks(r, s, mode, total);
    changed = *s;
    changed.longest = half_as_long(s);
    snprintf(maxlen, sizeof maxlen, "-maxlen %d saves", changed.longest.dec + 1);
    remedy(r, &changed, mode, total, maxlen);
    changed = *s;
    changed.dtype = DTYPE_BF16;
    remedy(r, &changed, mode, total, "-dtype bf16 saves");
    qsort(r->all, (size_t)r->n, sizeof *r->all, by_help);
}

static int refuse(const PlanShape *s, const PlanChoice *c, Error *err) {
    char hints[512] = "", need[32], have[32], kept[32], part[5][32], saved[32];
    const PlanBytes *b = &c->bytes;
    Remedies r;
    find_remedies(&r, s, c->limits.recompute, b->total);
    for (int i = 0; i < r.n; i++) {
        size_t at = strlen(hints);
        snprintf(hints + at, sizeof hints - at, "%s %s %s%s", i ? "," : " (hint:", r.all[i].what,
                 format_bytes(saved, r.all[i].saved), r.all[i].enough ? " (enough)" : "");
    }
    return error_set(
        err,
        "memory: a rank needs %s for one page of the longest, %d rows: parameters %s, gradients %s, optimizer %s, "
        "activations %s, inputs and scratch %s; there are %s%s%s%s%s%s",
        format_bytes(need, (double)b->total), s->longest.dec, format_bytes(part[0], (double)b->parameters),
        format_bytes(part[1], (double)b->gradients), format_bytes(part[2], (double)b->optimizer),
        format_bytes(part[3], (double)b->activations), format_bytes(part[4], (double)(b->inputs + b->scratch)),
        format_bytes(have, (double)b->memory), b->reserve ? ", of which " : "",
        b->reserve ? format_bytes(kept, (double)b->reserve) : "", b->reserve ? " are kept in reserve" : "", hints,
        r.n ? ")" : "");
}

// ---- the choice ----------------------------------------------------------------------------------------------------

int plan_choose(PlanChoice *c, const PlanShape *s, Error *err) {
    Recompute first = s->recompute < 0 ? RECOMPUTE_NONE : (Recompute)s->recompute;
    Recompute last = s->recompute < 0 ? RECOMPUTE_LAYER : first;
    if ((int64_t)s->b * s->g > INT_MAX / 4 / s->longest.outputs)
        return error_set(err, "-b %d x -g %d pages of up to %d tokens: more rows a step than 500 million", s->b, s->g,
                         s->longest.outputs);
    PlanChoice tried;
    double best = INFINITY;
    for (int mode = (int)first; mode <= (int)last; mode++) {
        tried = largest(s, (Recompute)mode);
        if (!fits_memory(&tried.bytes)) continue;
        for (int pages = pages_held(s, &tried.limits); pages >= 1; pages--) {
            // on a CPU whatever keeps micro-batches whole, and of that what recomputes least
            double seconds = s->is_gpu ? predicted_seconds(s, &tried) : tried.batches + 1e-3 * mode;
            if (seconds < best) *c = tried;
            best = fmin(seconds, best);
            if (tried.fuse) break;
            // a smaller batch may end in a fuller last wave of tiles, or a fuller last chunk of the head
            tried = holding(s, (Recompute)mode, pages - 1);
        }
    }
    if (best < INFINITY) return 0;
    *c = tried;
    return refuse(s, c, err);
}

// ---- the plan of a run ---------------------------------------------------------------------------------------------

int plan_ranks(const TrainOptions *o, const Dist *dist) { return o->plan_ranks ? (int)o->plan_ranks : dist->ranks; }

// Decoder rows around latents and text, when no tokenizer has been loaded: with the whole vocabulary the paper's words
// are 21 tokens before the latents and 11 after them.
static int assumed_words(const C3Config *c) { return strcmp(c->template_name, "c3") ? 2 : 32; }

static int assume_pages(Plan *p, Error *err) {
    const TrainOptions *o = p->o;
    int of_longest = o->plan_longest > o->plan_tokens;
    int longest = (int)(of_longest ? o->plan_longest : o->plan_tokens);
    const C3Config *c = p->shape.config;
    const Template t = {.window = c->window, .n_suffix = assumed_words(c)};
    const ShardPage page = {.context_length = (uint32_t)longest, .answer_length = (uint32_t)longest};
    p->shape.longest = batch_page_rows(&page, &t, c->latents, UINT32_MAX);
    int rows = p->shape.longest.dec + 1; // the end mark counts as well
    if (rows > o->maxlen)
        return error_set(err,
                         "-plan_%s %d: such a page is a decoder sequence of %d, -maxlen is %lld (hint: -maxlen %d)",
                         of_longest ? "longest" : "tokens", longest, rows, (long long)o->maxlen, rows);
    p->text_tokens = (double)o->plan_tokens;
    p->words = assumed_words(c);
    return 0;
}

static void real_pages(Plan *p, const Corpus *corpus) {
    p->train = &corpus->train;
    p->val = corpus->val;
    p->n_val = corpus->n_val;
    p->text_tokens = (double)p->train->tokens / (double)p->train->pages;
    p->words = template_overhead(&corpus->prompt, 0);
    p->shape.longest = corpus_longest(corpus);
}

PlanMachine plan_machine(Backend *b, const Dist *dist) {
    PlanMachine m = {.is_gpu = b->is_gpu, .name = b->name, .peak_flops = b->peak_flops};
    if (!b->is_gpu) return m;
    size_t available;
    b->memory(b, &available, &m.memory);
    int megabytes[] = {-(int)(m.memory >> 20), (int)((m.memory - available) >> 20)};
    dist_max_int(dist, megabytes, 2);
    m.memory = (size_t)-megabytes[0] << 20;
    m.used = (size_t)megabytes[1] << 20;
    return m;
}

// The GPU that -gpu names, or this machine's.
static int find_machine(Plan *p, const PlanMachine *machine, int local_ranks, Error *err) {
    PlanShape *s = &p->shape;
    const char *name = p->o->gpu;
    size_t used = 0;
    if (name && strcmp(name, "measured") != 0) {
        s->gpu = gpu_find(name);
        p->machine = s->gpu->title;
        s->is_gpu = 1;
        s->memory = (size_t)s->gpu->memory;
    } else {
        const PlanMachine unknown = {0}, *m = machine ? machine : &unknown;
        p->machine = m->name;
        p->peak_flops = m->peak_flops;
        s->gpu = gpu_find(m->name);
        s->is_gpu = m->is_gpu;
        s->memory = m->memory;
        used = m->used;
        if (name && !(s->is_gpu && p->peak_flops > 0))
            return error_set(err,
                             "-gpu measured: no GPU of this machine was measured (hint: -gpu h100, or -device cuda)");
    }
    if (!s->is_gpu && !s->memory)
        s->memory = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGE_SIZE) / (size_t)local_ranks;
    s->reserve = plan_reserve(s->memory, s->is_gpu);
    if (s->reserve < used) s->reserve = used; // the reserve is for what is used already, not to be added to it
    return 0;
}

// Of what does not fit a plan shows what it would take: into the GPU that -gpu names at the least; else, nothing being
// asked of this machine, as it would be with memory enough.
static int choose(Plan *p, Error *err) {
    PlanShape enough = p->shape;
    PlanChoice ample;
    Error refusal;
    if (plan_choose(&p->choice, &p->shape, &refusal) == 0) return 0;
    enough.memory = enough.reserve = 0;
    if (!enough.fuse) enough.fuse = 1;
    if (!p->o->plan || plan_choose(&ample, &enough, NULL) != 0) return error_set(err, "%s", refusal.text);
    p->refusal = refusal;
    if (p->o->gpu) return 0;
    p->choice = ample;
    p->choice.bytes.memory = p->shape.memory;
    p->choice.bytes.reserve = p->shape.reserve;
    return 0;
}

int plan_make(Plan *p, const TrainOptions *o, const Corpus *corpus, const C3Config *config, const C3Params *params,
              const Dist *dist, const PlanMachine *machine, int64_t steps, Error *err) {
    *p = (Plan){.o = o, .steps = steps};
    PlanShape *s = &p->shape;
    *s = (PlanShape){.config = config,
                     .params = params,
                     .b = (int)o->b,
                     .g = (int)o->g,
                     .ranks = plan_ranks(o, dist),
                     .dtype = options_dtype(o),
                     .recompute = options_recompute(o),
                     .fuse = options_fuse(o)};
    s->zero = options_zero(o, s->ranks);
    p->pages_a_step = o->b * o->g * s->ranks;
    TRY(find_machine(p, machine, dist->local_ranks, err));
    if (corpus) real_pages(p, corpus);
    else TRY(assume_pages(p, err));
    s->latents = latents_mix_mean(&o->latents_mix, config->latents);
    s->windows = config_windows(config, p->text_tokens); // context and answer are of one length in the paper's task
    s->enc = p->text_tokens + s->windows * (1 + s->latents);
    s->dec = p->text_tokens + s->windows * s->latents + p->words;
    s->outputs = p->text_tokens + 1;
    return choose(p, err);
}
