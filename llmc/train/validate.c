// validate.c: see validate.h.
#include "llmc/train/validate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/base/random.h"
#include "llmc/infer/generate.h"
#include "llmc/text/metrics.h"
#include "llmc/text/render.h"
#include "llmc/train/step.h" // step_add_page

// What a validation asks the model for.
typedef struct Asked {
    const Template *prompt;
    int latents; // 0: the decoder alone
    ValidationPages of;
} Asked;

// The row behind the text has the weight 0 where the decoder is asked alone: nothing says that a text ends there.
static void drop_ends(MicroBatch *micro) {
    for (int p = 0; p < micro->dec.pages; p++) micro->weights[micro->dec.output_cu[p + 1] - 1] = 0;
}

// Cut first: what follows a cut beginning is not the end of the page.
static ShardPage page_of(const ValidationPages *v, uint64_t number) {
    ShardPage page = dataset_page(v->d, number);
    if (!v->tasks) return page;
    if (page.answer == page.context && page.answer_length > v->cut) page.context_length = page.answer_length = v->cut;
    tasks_make(v->tasks, &page, v->task, random_mix(number));
    return page;
}

// sums (3), of all ranks: weighted loss, right rows, weighted rows.
static void sum_losses(double sums[3], C3 *m, const Asked *a, MicroBatch *micro, const Dist *dist) {
    const uint32_t cut = a->of.cut;
    BatchRows most = c3_batch_rows(&m->limits);
    ShardPage *batch = alloc((size_t)most.pages, sizeof *batch, "validation pages");
    uint64_t *ids = alloc((size_t)most.pages, sizeof *ids, "validation pages");
    uint64_t end = a->of.pages < a->of.d->pages ? a->of.pages : a->of.d->pages;
    memset(sums, 0, 3 * sizeof *sums);
    for (uint64_t at = (uint64_t)dist->rank; at < end;) {
        BatchRows sum = {0};
        for (int n = 0; at < end; at += (uint64_t)dist->ranks, n = sum.pages) {
            ShardPage page = page_of(&a->of, at);
            if (!step_add_page(&sum, batch_page_rows(&page, a->prompt, a->latents, cut), most)) break;
            batch[n] = page;
            ids[n] = at;
        }
        batch_build(micro, batch, ids, sum.pages, a->prompt, a->latents, cut, NULL);
        if (!a->latents) drop_ends(micro);
        if (a->latents) c3_forward(m, micro);
        else c3_forward_latents(m, micro, m->enc_acts.out); // of no rows
        C3Loss loss = c3_read_loss(m, micro);
        sums[0] += loss.weighted;
        sums[1] += loss.correct;
        sums[2] += loss.rows - (a->latents ? 0 : sum.pages);
    }
    free(batch);
    free(ids);
    dist_sum_double(dist, sums, 3);
}

Validation validate(C3 *m, const ValidationPages *v, const Template *prompt, MicroBatch *micro, const Dist *dist) {
    const Asked a = {prompt, v->latents ? v->latents : m->config.latents, *v};
    double sums[3];
    sum_losses(sums, m, &a, micro, dist);
    return (Validation){.loss = sums[0] / sums[2], .token_accuracy = sums[1] / sums[2]};
}

double validate_plain(C3 *m, const Dataset *d, const Template *plain, MicroBatch *micro, const Dist *dist,
                      uint64_t pages, uint32_t longest) {
    const Asked a = {plain, 0, {.d = d, .pages = pages, .cut = longest}};
    double sums[3];
    sum_losses(sums, m, &a, micro, dist);
    return exp(sums[0] / sums[2]);
}

// ---- samples -------------------------------------------------------------------------------------------------------

static void log_sample(Log *log, const Tokenizer *tok, ShardPage page, const GeneratePage *written) {
    size_t n_text = 0, n_output = 0;
    char *text = generate_text(tok, (const int32_t *)page.answer, (int)page.answer_length, &n_text);
    char *output = generate_text(tok, written->ids, written->n, &n_output);
    char *ops;
    size_t n_ops;
    PageMetrics m;
    metrics_page(&m, text, n_text, output, n_output);
    metrics_align(&ops, &n_ops, text, n_text, output, n_output);
    log_note(log, "sample: %u tokens, character precision %.3f", page.answer_length, m.char_precision);
    int colour = render_wants_colour(stdout);
    render_marked(stdout, text, n_text, ops, n_ops, RENDER_REFERENCE, colour);
    render_marked(stdout, output, n_output, ops, n_ops, RENDER_OUTPUT, colour);
    free(ops);
    free(text);
    free(output);
}

int validate_samples(C3 *m, const Dataset *d, const Template *prompt, const Tokenizer *tokenizer, int n, Log *log,
                     Error *err) {
    GeneratorLimits limits = {.pages = n,
                              .together = n,
                              .context = (int)d->longest_context,
                              .max_new = (int)d->longest_answer + 1,
                              .prompt = (int)d->longest_asked};
    GeneratePage *pages = alloc_zeroed((size_t)n, sizeof *pages, "samples");
    ShardPage *originals = alloc((size_t)n, sizeof *originals, "samples");
    Generator *g = NULL;
    int bad = generator_create(&g, m, prompt, &limits, err);
    for (int i = 0; !bad && i < n; i++) {
        originals[i] = dataset_page(d, d->pages * (uint64_t)i / (uint64_t)n);
        pages[i].context = (const int32_t *)originals[i].context;
        pages[i].n_context = (int)originals[i].context_length;
        pages[i].prompt = (const int32_t *)originals[i].prompt;
        pages[i].n_prompt = (int)originals[i].prompt_length;
    }
    if (!bad) bad = generate_pages(g, pages, n, 0, NULL, NULL, err);
    for (int i = 0; !bad && i < n; i++) log_sample(log, tokenizer, originals[i], &pages[i]);
    generate_free(pages, n);
    generator_free(g);
    free(originals);
    free(pages);
    return bad;
}
