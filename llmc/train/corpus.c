// corpus.c: see corpus.h.
#include "llmc/train/corpus.h"

#include <string.h>

static int open_pages(const Corpus *c, Dataset *d, const char *globs, const ModelFiles *s, Error *err) {
    const C3Config *m = &s->config;
    uint32_t overhead = (uint32_t)template_overhead(&c->prompt, c->latents) + 1; // the end mark counts as well
    TRY(dataset_open(d, globs, overhead, (uint32_t)c->maxlen, err));
    // a context of its own may be longer than the page's answer
    if (d->longest_context + (int64_t)c->latents + 1 > m->enc.max_positions)
        return error_set(err, "%s: a context of %u tokens: the encoder has positions for %d (max_position_embeddings)",
                         globs, d->longest_context, m->enc.max_positions - 1 - c->latents);
    if (memcmp(d->fingerprint, tokenizer_fingerprint(c->tokenizer), sizeof d->fingerprint) == 0) return 0;
    return error_set(err,
                     "%s: made with another tokenizer or -vocab than %s (%u ids there, %d here) (hint: `c3 tokenize` "
                     "with this file and the model's vocabulary)",
                     globs, s->tokenizer, d->vocab, tokenizer_size(c->tokenizer));
}

int corpus_open(Corpus *c, const ModelFiles *s, const TrainOptions *o, Error *err) {
    *c = (Corpus){.latents = s->config.latents};
    TRY(model_files_tokenizer(&c->tokenizer, s, err));
    TRY(template_make(&c->prompt, s->config.template_name, c->tokenizer, err));
    const int overhead = template_overhead(&c->prompt, c->latents), longest = config_longest_page(&s->config, overhead);
    if (longest < 1) return error_set(err, "%s: has no positions for text (max_position_embeddings)", s->text);
    c->maxlen = o->maxlen < longest + overhead + 1 ? o->maxlen : longest + overhead + 1;
    TRY(open_pages(c, &c->train, o->data, s, err));
    if (!o->val) return 0;
    c->has_val = 1;
    return open_pages(c, &c->val, o->val, s, err);
}

void corpus_close(Corpus *c) {
    dataset_close(&c->train);
    if (c->has_val) dataset_close(&c->val);
    template_free(&c->prompt);
    tokenizer_free(c->tokenizer);
    *c = (Corpus){0};
}

BatchRows corpus_longest(const Corpus *c) {
    uint32_t context = c->train.longest_context, answer = c->train.longest_answer;
    if (c->has_val && c->val.longest_context > context) context = c->val.longest_context;
    if (c->has_val && c->val.longest_answer > answer) answer = c->val.longest_answer;
    ShardPage page = {.context_length = context, .answer_length = answer};
    return batch_page_rows(&page, &c->prompt, c->latents, UINT32_MAX);
}

uint32_t corpus_cut(const Corpus *c, int64_t step) {
    double until = c->cut_share * (double)c->cut_steps;
    if ((double)step > until) return UINT32_MAX;
    return (uint32_t)(10 + ((double)c->train.longest_answer - 10) * (double)step / until);
}

static uint32_t page_cut(void *corpus, uint64_t step) { return corpus_cut(corpus, (int64_t)step); }

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
        .shuffle = 1,
        .prefetch = 1,
        .cut = o->len_warmup > 0 ? page_cut : NULL,
        .cut_arg = c,
    };
    return loader_open(out, &c->train, &config, state, (uint64_t)done + 1, err);
}

StepConfig corpus_packing(const Corpus *c, const TrainOptions *o, const C3Config *model, BatchRows most, int fuse,
                          int ranks) {
    return (StepConfig){
        .model = model,
        .prompt = &c->prompt,
        .data = &c->train,
        .most = most,
        .longest = corpus_longest(c),
        .fuse = fuse,
        .b = (int)o->b,
        .g = (int)o->g,
        .ranks = ranks,
        .micro_norm = !strcmp(o->loss_norm, "micro"),
    };
}
