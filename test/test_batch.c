// test_batch.c: packing against a plain derivation from the text of batch.h, over random pages, prompts, templates,
// cuts, windows and numbers of latents.
#include "test/check.h"

#include <stdlib.h>

#include "llmc/model/batch.h"

enum { MAX_PAGES = 8, MAX_TEXT = 400, MAX_ROWS = 3 * MAX_PAGES * (MAX_TEXT + 100) };

static uint64_t rng_state = 7;
static uint32_t rng(uint32_t below) {
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((rng_state >> 33) % below);
}

// What a stack's input must be, derived row by row.
typedef struct Plain {
    int rows, outputs, pages, longest, longest_output;
    int ids[MAX_ROWS], positions[MAX_ROWS], is_kept[MAX_ROWS], label[MAX_ROWS], cu[2 * MAX_PAGES * MAX_TEXT];
} Plain;

static void plain_page(Plain *s, const int *ids, const int *keep, const int *label, int n) {
    int kept = 0;
    for (int i = 0; i < n; i++) {
        s->ids[s->rows] = ids[i];
        s->positions[s->rows] = i;
        s->is_kept[s->rows] = keep[i];
        s->label[s->rows++] = label[i];
        kept += keep[i];
    }
    s->outputs += kept;
    s->cu[++s->pages] = s->rows;
    if (n > s->longest) s->longest = n;
    if (kept > s->longest_output) s->longest_output = kept;
}

static void plain_build(Plain *enc, Plain *dec, const ShardPage *pages, int n, const Template *t, int N, uint32_t cut) {
    int slot = 0;
    memset(enc, 0, sizeof *enc);
    memset(dec, 0, sizeof *dec);
    for (int p = 0; p < n; p++) {
        static int ids[2 * MAX_ROWS], keep[2 * MAX_ROWS], label[2 * MAX_ROWS];
        uint32_t length = pages[p].context_length < cut ? pages[p].context_length : cut, at = 0;
        int r, latents = pages[p].latents ? (int)pages[p].latents : N, slots = 0;
        do {
            uint32_t end = t->window && length - at > (uint32_t)t->window ? at + (uint32_t)t->window : length;
            memset(keep, 0, sizeof keep);
            for (r = 0; at < end; at++) ids[r++] = (int)pages[p].context[at];
            ids[r++] = t->img;
            for (int i = 0; i < latents; i++) {
                keep[r] = 1;
                ids[r++] = -1 - i;
            }
            plain_page(enc, ids, keep, label, r);
            slots += latents;
        } while (at < length);

        r = 0;
        memset(keep, 0, sizeof keep);
        for (int i = 0; i < t->n_prefix; i++) ids[r++] = t->prefix[i];
        for (int i = 0; i < slots; i++) ids[r++] = -1 - slot++;
        if (pages[p].prompt_length) {
            for (int i = 0; i < t->n_ask; i++) ids[r++] = t->ask[i];
            for (uint32_t i = 0; i < pages[p].prompt_length; i++) ids[r++] = (int)pages[p].prompt[i];
            for (int i = 0; i < t->n_answer; i++) ids[r++] = t->answer[i];
        } else {
            for (int i = 0; i < t->n_suffix; i++) ids[r++] = t->suffix[i];
        }
        uint32_t answer = pages[p].answer_length < cut ? pages[p].answer_length : cut;
        for (uint32_t i = 0; i < answer; i++) { // row r-1 has seen everything before answer[i]
            keep[r - 1] = 1;
            label[r - 1] = (int)pages[p].answer[i];
            ids[r++] = (int)pages[p].answer[i];
        }
        keep[r - 1] = 1;
        label[r - 1] = t->end;
        plain_page(dec, ids, keep, label, r);
    }
}

static void compare_stack(const char *name, const StackBatch *s, const Plain *e) {
    CHECK(s->pages == e->pages && s->rows == e->rows && s->outputs == e->outputs, "%s: %d pages %d rows %d kept", name,
          s->pages, s->rows, s->outputs);
    CHECK(s->longest == e->longest && s->longest_output == e->longest_output, "%s: longest %d kept %d", name,
          s->longest, s->longest_output);
    if (s->rows != e->rows || s->outputs != e->outputs || s->pages != e->pages) return;
    int kept_before[MAX_ROWS + 1] = {0}, seen[MAX_ROWS] = {0};
    for (int i = 0, k = 0; i < e->rows; i++) {
        CHECK(s->ids[i] == e->ids[i], "%s: row %d: id %d, expected %d", name, i, s->ids[i], e->ids[i]);
        CHECK(s->positions[i] == e->positions[i], "%s: row %d: position %d", name, i, s->positions[i]);
        if (e->is_kept[i]) {
            CHECK(s->output_rows[k] == i, "%s: kept row %d is %d, expected %d", name, k, s->output_rows[k], i);
            CHECK(s->output_positions[k] == e->positions[i], "%s: kept row %d: position %d", name, k,
                  s->output_positions[k]);
            k++;
        }
        kept_before[i + 1] = k;
    }
    for (int p = 0; p <= e->pages; p++) {
        CHECK(s->cu[p] == e->cu[p], "%s: page %d begins at %d", name, p, s->cu[p]);
        CHECK(s->output_cu[p] == kept_before[e->cu[p]], "%s: kept rows of page %d begin at %d", name, p,
              s->output_cu[p]);
    }
    // the sorted rows
    CHECK(s->runs > 0 && s->run_begin[0] == 0 && s->run_begin[s->runs] == s->rows, "%s: %d runs", name, s->runs);
    for (int i = 0, run = 0; i < s->rows; i++) {
        int row = s->order[i];
        CHECK(row >= 0 && row < s->rows && !seen[row], "%s: row %d stands twice in the order", name, row);
        if (row < 0 || row >= s->rows) return;
        seen[row] = 1;
        if (i == 0) continue;
        int before = s->order[i - 1], same = e->ids[before] == e->ids[row];
        CHECK(e->ids[before] < e->ids[row] || (same && before < row), "%s: order at %d", name, i);
        int border = run + 1 <= s->runs && s->run_begin[run + 1] == i;
        CHECK(border == !same, "%s: border of a run at %d", name, i);
        run += border;
    }
}

static uint32_t texts[2 * MAX_PAGES][MAX_TEXT];

static void random_pages(ShardPage *pages, int n, uint32_t vocab, uint32_t longest) {
    for (int p = 0; p < n; p++) {
        for (int i = 0; i < MAX_TEXT; i++) texts[2 * p][i] = rng(vocab), texts[2 * p + 1][i] = rng(vocab);
        pages[p] = (ShardPage){.context = texts[2 * p], .answer = texts[2 * p], .prompt = texts[2 * p + 1] + 7};
        pages[p].context_length = pages[p].answer_length = 1 + rng(longest);
        if (rng(3) == 0) pages[p].prompt_length = 1 + rng(20);
        if (rng(3) == 0) pages[p].latents = 1 + rng(10);
        if (rng(3) == 0) {
            pages[p].answer = texts[2 * p + 1];
            pages[p].answer_length = 1 + rng(longest);
        }
    }
}

static Template make_template(int n_prefix, int n_suffix, int base) {
    Template t = {.n_prefix = n_prefix, .n_suffix = n_suffix, .end = base + 2, .img = base + 3};
    t.prefix = malloc((size_t)n_prefix * sizeof *t.prefix);
    t.suffix = malloc((size_t)(n_suffix ? n_suffix : 1) * sizeof *t.suffix);
    for (int i = 0; i < n_prefix; i++) t.prefix[i] = i == n_prefix - 1 ? t.img : (int32_t)rng((uint32_t)base);
    for (int i = 0; i < n_suffix; i++) t.suffix[i] = i == 0 ? base + 4 : (int32_t)rng((uint32_t)base);
    t.n_ask = 1 + (int)rng(3);
    t.n_answer = (int)rng(3);
    t.ask = t.prefix; // any words do
    t.answer = t.prefix;
    if (t.n_ask > n_prefix) t.n_ask = n_prefix;
    if (t.n_answer > n_prefix) t.n_answer = n_prefix;
    return t;
}

static void drop_template(Template *t) {
    free(t->prefix);
    free(t->suffix);
    free(t->edges);
}

static Backend *cpu;
static const float quarter = 0.25f;

static void test_random(void) {
    check_begin("random batches equal the plain derivation");
    static Plain enc, dec;
    static const uint32_t vocabs[] = {3, 40, 2043, 2048, 151860, 5000000}; // one, two and three digits of the sort
    for (int round = 0; round < 300; round++) {
        int n = 1 + (int)rng(MAX_PAGES), N = 1 + (int)rng(40);
        uint32_t vocab = vocabs[rng(6)], longest = 1 + rng(MAX_TEXT), cut = rng(2) ? UINT32_MAX : 1 + rng(longest);
        static const int afters[] = {0, 1, 9};
        Template t = make_template(1 + (int)rng(20), afters[rng(3)], (int)vocab);
        t.window = rng(2) ? 0 : 1 + (int)rng(longest);
        t.edges = calloc(vocab, 1); // borders of characters alone: windows are whole (test_template)
        ShardPage pages[MAX_PAGES];
        uint64_t numbers[MAX_PAGES];
        random_pages(pages, n, vocab, longest);
        for (int p = 0; p < n; p++) numbers[p] = rng(1u << 31) * (uint64_t)1000003;
        plain_build(&enc, &dec, pages, n, &t, N, cut);
        MicroBatch m;
        Error err;
        BatchRows most = {n, enc.rows, dec.rows, dec.outputs, t.window ? enc.pages : 0, t.window ? enc.outputs : 0};
        CHECK(batch_create(&m, cpu, most, &err) == 0, "%s", err.text);
        float weights[MAX_PAGES]; // a page's own
        for (int p = 0; p < n; p++) weights[p] = 1.0f / (float)(1 + round + p);
        for (int again = 0; again < 2; again++) { // a block is used again and again
            batch_build(&m, pages, numbers, n, &t, N, cut, weights);
            compare_stack("encoder", &m.enc, &enc);
            compare_stack("decoder", &m.dec, &dec);
            for (int i = 0; i < m.dec.outputs; i++) {
                CHECK(m.labels[i] == dec.label[m.dec.output_rows[i]], "label %d is %d", i, m.labels[i]);
            }
            for (int p = 0; p < n; p++)
                for (int i = m.dec.output_cu[p]; i < m.dec.output_cu[p + 1]; i++)
                    CHECK(m.weights[i] == weights[p], "weight %d", i);
            CHECK(memcmp(m.page_ids, numbers, (size_t)n * sizeof *numbers) == 0, "page numbers");
            CHECK(m.bytes <= m.capacity, "%zu bytes of %zu", m.bytes, m.capacity);
        }
        batch_free(&m);
        drop_template(&t);
    }
}

static void test_example(void) {
    check_begin("the paper's page, written out by hand");
    uint32_t text[3] = {5, 6, 5};
    int32_t prefix[2] = {100, 103}, suffix[2] = {104, 7};
    Template t = {.prefix = prefix, .suffix = suffix, .n_prefix = 2, .n_suffix = 2, .end = 102, .img = 103};
    ShardPage page = {.context = text, .answer = text, .context_length = 3, .answer_length = 3};
    MicroBatch m;
    Error err;
    CHECK(template_overhead(&t, 2) == 6, "overhead %d", template_overhead(&t, 2));
    CHECK(batch_create(&m, cpu, (BatchRows){.pages = 1, .enc = 6, .dec = 9, .outputs = 4}, &err) == 0, "%s", err.text);
    batch_build(&m, &page, NULL, 1, &t, 2, UINT32_MAX, &quarter);
    static const int enc_ids[] = {5, 6, 5, 103, -1, -2}, dec_ids[] = {100, 103, -1, -2, 104, 7, 5, 6, 5},
                     enc_order[] = {5, 4, 0, 2, 1, 3}, enc_runs[] = {0, 1, 2, 4, 5, 6}, labels[] = {5, 6, 5, 102},
                     kept[] = {5, 6, 7, 8};
    CHECK(m.enc.rows == 6 && memcmp(m.enc.ids, enc_ids, sizeof enc_ids) == 0, "encoder ids");
    CHECK(m.dec.rows == 9 && memcmp(m.dec.ids, dec_ids, sizeof dec_ids) == 0, "decoder ids");
    CHECK(memcmp(m.enc.order, enc_order, sizeof enc_order) == 0, "order");
    CHECK(m.enc.runs == 5 && memcmp(m.enc.run_begin, enc_runs, sizeof enc_runs) == 0, "runs");
    CHECK(m.enc.outputs == 2 && m.enc.output_rows[0] == 4 && m.enc.output_rows[1] == 5, "latent rows");
    CHECK(m.dec.outputs == 4 && memcmp(m.dec.output_rows, kept, sizeof kept) == 0, "supervised rows");
    CHECK(memcmp(m.labels, labels, sizeof labels) == 0, "labels");

    check_begin("a cut shortens context and answer, and the end mark stays");
    batch_build(&m, &page, NULL, 1, &t, 2, 2, &quarter);
    CHECK(m.enc.rows == 5 && m.dec.rows == 8 && m.dec.outputs == 3, "%d %d %d", m.enc.rows, m.dec.rows, m.dec.outputs);
    CHECK(m.labels[0] == 5 && m.labels[1] == 6 && m.labels[2] == 102, "labels");

    check_begin("without anything behind the latents the last latent predicts the first token");
    t.n_suffix = 0;
    batch_build(&m, &page, NULL, 1, &t, 2, UINT32_MAX, &quarter);
    CHECK(m.dec.rows == 7 && m.dec.outputs == 4 && m.dec.output_rows[0] == 3 && m.dec.ids[3] == -2, "kept row %d",
          m.dec.output_rows[0]);
    batch_free(&m);
}

static void test_view(void) {
    check_begin("a view points at the same places of the copy, all within the bytes that are copied");
    static Plain enc, dec;
    ShardPage pages[3];
    random_pages(pages, 3, 500, 50);
    Template t = make_template(4, 3, 500);
    plain_build(&enc, &dec, pages, 3, &t, 6, UINT32_MAX);
    MicroBatch m;
    Error err;
    BatchRows most = {.pages = 5, .enc = enc.rows + 100, .dec = dec.rows + 100, .outputs = dec.outputs + 50};
    CHECK(batch_create(&m, cpu, most, &err) == 0, "%s", err.text);
    CHECK(m.capacity == batch_capacity(most), "capacity");
    batch_build(&m, pages, NULL, 3, &t, 6, UINT32_MAX, NULL);
    char *copy = malloc(m.bytes); // exactly as large as what is copied: a sanitizer sees what lies outside
    memcpy(copy, m.block, m.bytes);
    MicroBatch view = batch_view(&m, copy);
    memset(m.block, 0x5a, m.bytes);
    compare_stack("encoder", &view.enc, &enc);
    compare_stack("decoder", &view.dec, &dec);
    for (int i = 0; i < view.dec.outputs; i++)
        CHECK(view.labels[i] == dec.label[view.dec.output_rows[i]] && view.weights[i] == 1.0f, "label or weight %d", i);
    CHECK(view.block == copy, "block");
    free(copy);
    batch_free(&m);
    drop_template(&t);
}

int main(void) {
    Error err;
    if (backend_cpu_create(&cpu, DTYPE_F32, 1, NULL, &err) != 0) return 1;
    test_example();
    test_random();
    test_view();
    cpu->destroy(cpu);
    return check_done();
}
