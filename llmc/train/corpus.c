// corpus.c: see corpus.h.
#include "llmc/train/corpus.h"

#include <string.h>

#include "llmc/base/alloc.h"

// The tokenizer that made the pages is the model's.
static int check_tokenizer(const Corpus *c, const Dataset *d, const ModelFiles *s, Error *err) {
    if (memcmp(d->fingerprint, tokenizer_fingerprint(c->tokenizer), sizeof d->fingerprint) == 0) return 0;
    return error_set(err,
                     "%s: made with another tokenizer or -vocab than %s (%u ids there, %d here) (hint: `c3 tokenize` "
                     "with this file and the model's vocabulary)",
                     d->shards[0].path, s->tokenizer, d->vocab, tokenizer_size(c->tokenizer));
}

// The longest decoder sequence that a page of these lengths can be; the end mark counts as well.
static uint64_t decoder_tokens(const void *corpus, const ShardPage *page) {
    const Corpus *c = corpus;
    ShardPage lengths = *page;
    lengths.context = NULL;
    return (uint64_t)batch_page_rows(&lengths, &c->prompt, c->latents, UINT32_MAX).dec + 1;
}

static int open_pages(const Corpus *c, Dataset *d, const SetSpecs *sets, const ModelFiles *s, Error *err) {
    const C3Config *m = &s->config;
    const PageLimit limit = {.most = (uint64_t)c->maxlen, .tokens = decoder_tokens, .arg = c};
    TRY(sets_open(d, sets, &limit, err));
    // a context of its own may be longer than the page's answer
    if (!m->window && d->longest_context + (int64_t)c->latents + 1 > m->enc.max_positions)
        return error_set(err, "%s: a context of %u tokens: the encoder has positions for %d (max_position_embeddings)",
                         d->shards[0].path, d->longest_context, m->enc.max_positions - 1 - c->latents);
    return check_tokenizer(c, d, s, err);
}

// A document between two `<|endoftext|>`, as a Qwen2.5 decoder saw it before it had latents.
static int open_plain(Corpus *c, const char *globs, const ModelFiles *s, Error *err) {
    const int end = tokenizer_specials(c->tokenizer)->endoftext;
    c->has_plain = 1;
    c->plain_text = (Template){.prefix = alloc(1, sizeof(int32_t), "template"), .n_prefix = 1, .end = end, .img = end};
    c->plain_text.prefix[0] = end;
    TRY(dataset_open(&c->plain, globs, NULL, err));
    return check_tokenizer(c, &c->plain, s, err);
}

int corpus_open(Corpus *c, const ModelFiles *s, const TrainOptions *o, Error *err) {
    *c = (Corpus){.latents = s->config.latents, .latents_mix = &o->latents_mix};
    TRY(model_files_tokenizer(&c->tokenizer, s, err));
    TRY(template_make(&c->prompt, s->config.template_name, c->tokenizer, err));
    template_set_window(&c->prompt, s->config.window, c->tokenizer);
    const int overhead = template_overhead(&c->prompt, c->latents), longest = config_longest_page(&s->config, overhead);
    const int most = s->config.window ? s->config.dec.max_positions : longest + overhead + 1;
    if (longest < 1) return error_set(err, "%s: has no positions for text (max_position_embeddings)", s->text);
    c->maxlen = o->maxlen < most ? o->maxlen : most;
    TRY(tasks_open(&c->tasks, o->mix, c->tokenizer, err));
    TRY(open_pages(c, &c->train, &o->train_sets, s, err));
    for (int i = 0; i < o->val_sets.n; i++) {
        SetSpecs one = {.list = {o->val_sets.list[i]}, .n = 1};
        c->n_val++; // also of one that fails: it is closed
        TRY(open_pages(c, &c->val[i], &one, s, err));
    }
    return o->val_lm ? open_plain(c, o->val_lm, s, err) : 0;
}

void corpus_close(Corpus *c) {
    dataset_close(&c->train);
    for (int i = 0; i < c->n_val; i++) dataset_close(&c->val[i]);
    dataset_close(&c->plain);
    tasks_close(&c->tasks);
    template_free(&c->plain_text);
    template_free(&c->prompt);
    tokenizer_free(c->tokenizer);
    *c = (Corpus){0};
}

static uint32_t longer(uint32_t a, uint32_t b) { return a > b ? a : b; }

BatchRows corpus_longest(const Corpus *c) {
    ShardPage page = {.context_length = c->train.longest_context, .answer_length = c->train.longest_answer};
    uint32_t asked = longer(c->train.longest_asked, tasks_longest(&c->tasks, c->train.longest_answer));
    for (int i = 0; i < c->n_val; i++) {
        page.context_length = longer(page.context_length, c->val[i].longest_context);
        page.answer_length = longer(page.answer_length, c->val[i].longest_answer);
        asked = longer(asked, longer(c->val[i].longest_asked, tasks_longest(&c->tasks, c->val[i].longest_answer)));
    }
    BatchRows rows = batch_page_rows(&page, &c->prompt, c->latents, UINT32_MAX);
    if (!asked) return rows;
    page.prompt_length = asked; // an answer counts as a part of it
    page.answer_length = 0;
    int dec = batch_page_rows(&page, &c->prompt, c->latents, UINT32_MAX).dec;
    if (dec > rows.dec) rows.dec = dec;
    return rows;
}

unsigned corpus_tasks(const Corpus *c) {
    unsigned tasks = 0;
    const int plain = c->train.asked < c->train.pages;
    for (int i = 0; i < C3_INSTRUCT; i++)
        if (plain && (c->tasks.given ? c->tasks.weight[i] > 0 : i == C3_REPEAT)) tasks |= 1u << i;
    return c->train.asked ? tasks | 1u << C3_INSTRUCT : tasks;
}

uint32_t corpus_plain_longest(const Corpus *c) {
    BatchRows page = corpus_longest(c);
    int rows = page.enc < page.outputs ? page.enc : page.outputs; // the decoder has at least as many as outputs
    return (uint32_t)rows - 1;
}

uint32_t corpus_cut(const Corpus *c, int64_t step) {
    double until = c->cut_share * (double)c->cut_steps;
    if (until <= 0 || (double)step > until) return UINT32_MAX;
    return (uint32_t)(10 + ((double)c->train.longest_answer - 10) * (double)step / until);
}

static uint32_t page_cut(void *corpus, uint64_t step) { return corpus_cut(corpus, (int64_t)step); }

// What is learned from a page of a run: a task (-mix), from its first n latents (-n_mix).
static void learn(void *corpus, ShardPage *page, int set, uint64_t draw) {
    const Corpus *c = corpus;
    (void)set;
    if (c->tasks.given) tasks_draw(&c->tasks, page, draw);
    if (c->latents_mix->n) page->latents = (uint32_t)latents_mix_draw(c->latents_mix, draw);
}

int corpus_loader(Loader **out, Corpus *c, const TrainOptions *o, const Dist *dist, LoaderState state, int64_t done,
                  int64_t steps, Error *err) {
    c->cut_share = o->len_warmup;
    c->cut_steps = steps;
    LoaderConfig config = {
        .b = (int)o->b,
        .g = (int)o->g,
        .rank = dist->rank,
        .ranks = dist->ranks,
        .keep_micro = !strcmp(o->loss_norm, "micro"),
        .window = (uint32_t)c->prompt.window,
        .latents = (uint32_t)c->latents,
        .shuffle = 1,
        .prefetch = 1,
        .cut = o->len_warmup > 0 ? page_cut : NULL,
        .cut_arg = c,
        .learn = c->tasks.given || c->latents_mix->n ? learn : NULL,
        .learn_arg = c,
    };
    return loader_open(out, &c->train, &config, state, (uint64_t)done + 1, err);
}

StepConfig corpus_packing(const Corpus *c, const TrainOptions *o, const C3Config *model, BatchRows most, int fuse,
                          int ranks) {
    return (StepConfig){
        .model = model,
        .prompt = &c->prompt,
        .tasks = c->tasks.given || c->train.asked ? &c->tasks : NULL,
        .most = most,
        .longest = corpus_longest(c),
        .fuse = fuse,
        .b = (int)o->b,
        .g = (int)o->g,
        .ranks = ranks,
        .micro_norm = !strcmp(o->loss_norm, "micro"),
    };
}
