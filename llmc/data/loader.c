// loader.c: see loader.h. Which pages a step takes depends on (seed, epoch, position) alone; who gets which of them is
// settled afterwards, by every rank for itself and with the same result, so nothing has to be sent.
#include "llmc/data/loader.h"

#include <inttypes.h> // PRIu64
#include <limits.h>
#include <pthread.h>
#include <signal.h> // the thread leaves signals to the main thread
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h> // madvise
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/base/random.h"

#define LEARN 0x6c6561726eu // keeps the draws for learn apart from those of the order

// The unit of load balancing: a page, or an indivisible micro-batch.
typedef struct Item {
    uint64_t cost;
    int place; // in the step's order
    int bin;   // rank, then micro-batch
} Item;

struct Loader {
    const Dataset *d;
    LoaderConfig c;
    int step_pages;  // of all ranks
    LoaderState at;  // where the next step begins
    uint64_t step;   // its number
    uint32_t *order; // (d->pages) permutations, NULL without shuffle: of all pages, or of each set's in its place
    uint64_t order_epoch[DATA_MAX_SETS]; // and their epochs
    int order_ready[DATA_MAX_SETS];
    uint64_t *taken;     // (step_pages) pages of the step in order
    ShardPage *text;     // (step_pages) what is learned from each
    Item *items, *mine;  // (step_pages) all items of a step; this rank's
    int *count;          // (bins) items, and
    uint64_t *load;      // (bins) work of each bin
    int *micro_of;       // (step_pages) micro-batch of each position in the step; -1: another rank's
    LoaderStep steps[2]; // one for the caller, one being prepared
    int current;         // the caller's

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int threaded, ready, stop; // ready: steps[!current] is prepared
};

// ---- the order of an epoch -----------------------------------------------------------------------------------------

static void shuffle(uint32_t *order, uint32_t n, uint64_t seed, uint64_t epoch) {
    uint64_t state = random_mix(random_mix(seed) + epoch); // so that the streams of two epochs are unrelated
    for (uint32_t i = 0; i < n; i++) order[i] = i;
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = random_below(&state, i), swap = order[i - 1];
        order[i - 1] = order[j];
        order[j] = swap;
    }
}

static void normalise(LoaderState *at, uint64_t pages) {
    if (at->position < pages) return;
    at->epoch++;
    at->position = 0;
}

// The page at a place of an epoch, among `pages` from `first` on that are shuffled together. order: which of them.
static uint64_t page_at(Loader *l, int order, uint64_t first, uint64_t pages, uint64_t seed, uint64_t epoch,
                        uint64_t place) {
    if (!l->order) return first + place;
    if (!l->order_ready[order] || l->order_epoch[order] != epoch) {
        shuffle(l->order + first, (uint32_t)pages, seed, epoch);
        l->order_epoch[order] = epoch;
        l->order_ready[order] = 1;
    }
    return first + l->order[first + place];
}

// The set that the n-th page of a run comes from.
static int draw_set(const Dataset *d, uint64_t seed, uint64_t n) {
    double sum = 0, at = (double)(random_mix(random_mix(~seed) + n) >> 11) * 0x1p-53;
    for (int i = 0; i < d->n_sets; i++) sum += d->sets[i].weight;
    int set = 0;
    for (at = at * sum - d->sets[0].weight; at >= 0 && set < d->n_sets - 1;) at -= d->sets[++set].weight;
    return set;
}

// The next page of the endless sequence of epochs, and what is learned from it. Returns its set.
static int take(Loader *l, uint32_t cut, uint64_t *page, ShardPage *text) {
    const Dataset *d = l->d;
    LoaderState *at = &l->at;
    uint64_t place = at->epoch * d->pages + at->position;
    int set;
    if (dataset_weighted(d)) {
        set = draw_set(d, at->seed, place);
        const PageSet *s = &d->sets[set];
        uint64_t n = at->taken[set]++;
        *page = page_at(l, set, s->first, s->pages, random_stream(at->seed, (uint64_t)set), n / s->pages, n % s->pages);
    } else {
        *page = page_at(l, 0, 0, d->pages, at->seed, at->epoch, at->position);
        set = dataset_set(d, *page);
    }
    *text = dataset_page(d, *page);
    if (l->c.learn && text->answer == text->context && text->answer_length > cut)
        text->context_length = text->answer_length = cut; // what follows a cut beginning is not the end of the page
    if (l->c.learn) l->c.learn(l->c.learn_arg, text, set, random_mix(random_mix(at->seed ^ LEARN) + place));
    at->position++;
    normalise(at, d->pages);
    return set;
}

// ---- dealing -------------------------------------------------------------------------------------------------------

static uint32_t shorter(uint32_t a, uint32_t b) { return a < b ? a : b; }

// The work of a page: linear in its tokens, twice as much in the decoder as in the encoder, plus attention, 3 % of the
// whole at 950 tokens. Where the encoder reads windows, attention is within each, and the decoder has the latents of
// more than one. In integers, so that every rank computes the same.
static uint64_t page_cost(const LoaderConfig *c, ShardPage page, uint32_t cut) {
    uint64_t context = shorter(page.context_length, cut), seen = context;
    uint64_t rows = shorter(page.answer_length, cut) + page.prompt_length;
    if (c->window && context > c->window) {
        seen = c->window;
        rows += (context - seen) * (page.latents ? page.latents : c->latents) / seen;
    }
    return context * (32768 + seen) + 2 * rows * (32768 + rows);
}

static int by_cost(const void *a, const void *b) { // descending; ties in the step's order
    const Item *x = a, *y = b;
    return x->cost != y->cost ? (x->cost < y->cost ? 1 : -1) : x->place - y->place;
}

// Longest processing time first: each item of the sorted list goes to the bin with the least work that still has room.
// Every bin ends up with exactly n / bins items.
static void deal(Item *items, int n, int bins, int *count, uint64_t *load) {
    memset(count, 0, (size_t)bins * sizeof *count);
    memset(load, 0, (size_t)bins * sizeof *load);
    for (int i = 0; i < n; i++) {
        int best = -1;
        for (int k = 0; k < bins; k++)
            if (count[k] < n / bins && (best < 0 || load[k] < load[best])) best = k;
        items[i].bin = best;
        count[best]++;
        load[best] += items[i].cost;
    }
}

// Swaps one item of bin `high` for one of bin `low`: the pair that leaves their loads closest, if that helps. Both
// walks go down the sorted list once, because the best partner only gets cheaper.
static int swap_best(Item *items, int n, int high, int low, uint64_t *load) {
    uint64_t gap = load[high] - load[low], best = gap;
    int give = -1, get = -1, above = -1, j = 0; // above: the cheapest item of `low` that costs more than wanted
    for (int i = 0; i < n; i++) {
        if (items[i].bin != high) continue;
        uint64_t cost = items[i].cost, wanted = cost > gap / 2 ? cost - gap / 2 : 0;
        for (; j < n && (items[j].bin != low || items[j].cost > wanted); j++)
            if (items[j].bin == low) above = j;
        for (int k = 0; k < 2; k++) {
            int with = k ? j : above;
            if (with < 0 || with >= n || items[with].cost >= cost) continue;
            uint64_t moved = 2 * (cost - items[with].cost), left = moved > gap ? moved - gap : gap - moved;
            if (left >= best) continue;
            best = left;
            give = i;
            get = with;
        }
    }
    if (give < 0) return 0;
    items[give].bin = low;
    items[get].bin = high;
    load[high] -= items[give].cost - items[get].cost;
    load[low] += items[give].cost - items[get].cost;
    return 1;
}

// Swaps between the bins of most and least work until they differ by less than one part in 4096, or no swap helps.
static void even_out(Item *items, int n, int bins, uint64_t *load) {
    for (int round = 0; round < 4 * bins; round++) {
        int high = 0, low = 0;
        for (int k = 1; k < bins; k++) {
            if (load[k] > load[high]) high = k;
            if (load[k] < load[low]) low = k;
        }
        if (load[high] - load[low] <= load[high] / 4096 || !swap_best(items, n, high, low, load)) return;
    }
}

// Distributes the items over the ranks and collects this rank's in l->mine, sorted by cost.
static int deal_ranks(Loader *l, int n) {
    qsort(l->items, (size_t)n, sizeof *l->items, by_cost);
    deal(l->items, n, l->c.ranks, l->count, l->load);
    even_out(l->items, n, l->c.ranks, l->load);
    int got = 0;
    for (int i = 0; i < n; i++)
        if (l->items[i].bin == l->c.rank) l->mine[got++] = l->items[i];
    return got;
}

// Fills micro_of for the step in l->taken.
static void deal_step(Loader *l, uint32_t cut) {
    int b = l->c.b, n = l->step_pages, units = l->c.keep_micro ? n / b : n, per_unit = n / units;
    for (int i = 0; i < n; i++) l->micro_of[i] = -1;
    for (int u = 0; u < units; u++) {
        l->items[u] = (Item){.place = u * per_unit};
        for (int k = 0; k < per_unit; k++) l->items[u].cost += page_cost(&l->c, l->text[u * per_unit + k], cut);
    }
    int got = deal_ranks(l, units);
    if (l->c.keep_micro) {
        for (int i = 0; i < got; i++) l->mine[i].bin = i;
    } else {
        deal(l->mine, got, l->c.g, l->count, l->load);
    }
    for (int i = 0; i < got; i++)
        for (int k = 0; k < per_unit; k++) l->micro_of[l->mine[i].place + k] = l->mine[i].bin;
}

// Pages of a micro-batch keep the step's order.
static void fill_step(Loader *l, LoaderStep *s) {
    for (int m = 0; m <= l->c.g; m++) s->micro_begin[m] = m * l->c.b;
    int *next = l->count;
    for (int m = 0; m < l->c.g; m++) next[m] = s->micro_begin[m];
    for (int i = 0; i < l->step_pages; i++) {
        if (l->micro_of[i] < 0) continue;
        int to = next[l->micro_of[i]]++;
        s->pages[to] = l->taken[i];
        s->text[to] = l->text[i];
    }
}

// ---- steps ---------------------------------------------------------------------------------------------------------

static void touch_range(const uint32_t *tokens, uint32_t n, int advise) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)tokens & ~(page - 1);
    uintptr_t end = (uintptr_t)(tokens + n);
    if (advise) {
        madvise((void *)begin, end - begin, MADV_WILLNEED);
        return;
    }
    for (uintptr_t at = (uintptr_t)tokens; at < end; at = (at & ~(page - 1)) + page) (void)*(const volatile char *)at;
}

// Brings this rank's tokens into memory. All are requested first, so that the disk can read them together.
static void touch_tokens(const LoaderStep *s) {
    for (int advise = 1; advise >= 0; advise--) {
        for (int i = 0; i < s->n; i++) {
            ShardPage page = s->text[i];
            touch_range(page.context, shorter(page.context_length, s->cut), advise);
            if (page.answer != page.context) touch_range(page.answer, shorter(page.answer_length, s->cut), advise);
        }
    }
}

static void work_out(Loader *l, LoaderStep *s) {
    uint32_t cut = l->c.cut ? l->c.cut(l->c.cut_arg, l->step) : UINT32_MAX;
    s->cut = cut ? cut : 1; // a page keeps at least one token
    s->n = l->c.b * l->c.g;
    s->micro = l->c.g;
    s->total_pages = (uint64_t)l->step_pages;
    s->total_supervised = 0;
    memset(s->of_set, 0, sizeof s->of_set);
    for (int i = 0; i < l->step_pages; i++) {
        SetCount *set = &s->of_set[take(l, s->cut, &l->taken[i], &l->text[i])];
        uint32_t tokens = shorter(l->text[i].answer_length, s->cut);
        set->pages++;
        set->tokens += tokens;
        s->total_supervised += (uint64_t)tokens + 1;
    }
    s->after = l->at;
    l->step++;
    deal_step(l, s->cut);
    fill_step(l, s);
}

static void *prefetch(void *arg) {
    Loader *l = arg;
    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        if (l->ready) {
            pthread_cond_wait(&l->changed, &l->lock);
            continue;
        }
        LoaderStep *s = &l->steps[!l->current];
        pthread_mutex_unlock(&l->lock);
        work_out(l, s);
        touch_tokens(s);
        pthread_mutex_lock(&l->lock);
        l->ready = 1;
        pthread_cond_broadcast(&l->changed);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

const LoaderStep *loader_next(Loader *l) {
    if (!l->threaded) {
        work_out(l, &l->steps[0]);
        return &l->steps[0];
    }
    pthread_mutex_lock(&l->lock);
    while (!l->ready) pthread_cond_wait(&l->changed, &l->lock);
    l->current = !l->current;
    l->ready = 0;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    return &l->steps[l->current];
}

// ---- opening and closing -------------------------------------------------------------------------------------------

static int check_start(const Dataset *d, const LoaderConfig *c, const LoaderState *start, Error *err) {
    if (c->b < 1 || c->g < 1 || c->ranks < 1 || c->rank < 0 || c->rank >= c->ranks)
        return error_set(err, "loader: expected -b and -g of at least 1 and a rank below %d, found %d, %d and rank %d",
                         c->ranks, c->b, c->g, c->rank);
    int n;
    if (__builtin_mul_overflow(c->b, c->g, &n) || __builtin_mul_overflow(n, c->ranks, &n) || n > 1 << 24)
        return error_set(err, "loader: expected at most %d pages a step, found -b %d x -g %d x %d ranks", 1 << 24, c->b,
                         c->g, c->ranks);
    if (start->dataset != d->identity)
        return error_set(err,
                         "loader: expected the dataset with fingerprint %08" PRIx32 ", found %08" PRIx32
                         " (hint: the shards, or -maxlen, are not those the run began with)",
                         start->dataset, d->identity);
    if (start->position > d->pages)
        return error_set(err, "loader: expected a position up to %" PRIu64 " in the epoch, found %" PRIu64, d->pages,
                         start->position);
    return 0;
}

static void allocate(Loader *l) {
    size_t n = (size_t)l->step_pages, rank_pages = (size_t)l->c.b * (size_t)l->c.g;
    size_t bins = (size_t)(l->c.ranks > l->c.g ? l->c.ranks : l->c.g);
    if (l->c.shuffle) l->order = alloc(l->d->pages, sizeof *l->order, "the order of pages");
    l->taken = alloc(n, sizeof *l->taken, "pages of a step");
    l->text = alloc(n, sizeof *l->text, "pages of a step");
    l->items = alloc(n, sizeof *l->items, "pages of a step");
    l->mine = alloc(rank_pages, sizeof *l->mine, "pages of a step");
    l->micro_of = alloc(n, sizeof *l->micro_of, "pages of a step");
    l->count = alloc(bins, sizeof *l->count, "micro-batches");
    l->load = alloc(bins, sizeof *l->load, "micro-batches");
    for (int i = 0; i < 2; i++) {
        l->steps[i].pages = alloc(rank_pages, sizeof(uint64_t), "pages of a step");
        l->steps[i].text = alloc(rank_pages, sizeof(ShardPage), "pages of a step");
        l->steps[i].micro_begin = alloc((size_t)l->c.g + 1, sizeof(int), "micro-batches");
    }
}

static int start_thread(Loader *l, Error *err) {
    sigset_t asked, before; // signals from outside; a SIGBUS of the thread itself is handled there (file_map)
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    sigfillset(&asked);
    sigdelset(&asked, SIGBUS);
    pthread_sigmask(SIG_SETMASK, &asked, &before); // inherited by the thread
    int code = pthread_create(&l->thread, NULL, prefetch, l);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code != 0) return error_set(err, "loader: cannot start the prefetch thread: %s", strerror(code));
    l->threaded = 1;
    return 0;
}

int loader_open(Loader **out, const Dataset *d, const LoaderConfig *config, LoaderState start, uint64_t first_step,
                Error *err) {
    *out = NULL;
    TRY(check_start(d, config, &start, err));
    Loader *l = alloc_zeroed(1, sizeof *l, "loader");
    l->d = d;
    l->c = *config;
    l->step_pages = config->b * config->g * config->ranks;
    l->at = start;
    l->step = first_step;
    normalise(&l->at, d->pages);
    allocate(l);
    int bad = config->prefetch ? start_thread(l, err) : 0;
    if (bad) loader_close(l);
    else *out = l;
    return bad;
}

void loader_close(Loader *l) {
    if (!l) return;
    if (l->threaded) {
        pthread_mutex_lock(&l->lock);
        l->stop = 1;
        pthread_cond_broadcast(&l->changed);
        pthread_mutex_unlock(&l->lock);
        pthread_join(l->thread, NULL);
        pthread_cond_destroy(&l->changed);
        pthread_mutex_destroy(&l->lock);
    }
    for (int i = 0; i < 2; i++) {
        free(l->steps[i].pages);
        free(l->steps[i].text);
        free(l->steps[i].micro_begin);
    }
    free(l->order);
    free(l->taken);
    free(l->text);
    free(l->items);
    free(l->mine);
    free(l->micro_of);
    free(l->count);
    free(l->load);
    free(l);
}
