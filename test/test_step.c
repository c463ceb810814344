// test_step.c: packing a step into device batches: fused, split, page by page; every page once, in order, with its own
// weight. And the table of where a step's time goes.
#include "test/check.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/model/config.h"
#include "llmc/train/profile.h"
#include "llmc/train/step.h"

enum { PAGES = 60, LONGEST = 40, LATENTS = 3, B = 3, G = 5 };
static char folder[] = "build/test_step_XXXXXX";
static int32_t prefix[] = {490, 491}, suffix[] = {492};
static const Template prompt = {
    .prefix = prefix, .suffix = suffix, .n_prefix = 2, .n_suffix = 1, .end = 493, .img = 494};
static Backend *cpu;
static Dataset data;
static C3Config model;

static void must(int bad, const Error *err) {
    if (!bad) return;
    printf("FAIL cannot set up: %s\n", err->text);
    exit(1);
}

static void make_data(void) {
    Error err = {""};
    ShardWriter *w;
    static const uint8_t tokenizer[32] = {1};
    char *path = string_format("%s/pages.bin", mkdtemp(folder));
    must(shard_writer_open(&w, path, 500, tokenizer, &err), &err);
    for (int p = 0; p < PAGES; p++) {
        int32_t ids[LONGEST];
        int length = p == 17 ? LONGEST : 1 + p * 7 % 31; // page 17 is the longest by far
        for (int i = 0; i < length; i++) ids[i] = (p * 5 + i) % 480;
        must(shard_writer_add(w, ids, (size_t)length, NULL, 0, &err), &err);
    }
    must(shard_writer_commit(w, &err), &err);
    must(dataset_open(&data, path, NULL, &err), &err);
    unlink(path);
    free(path);
    must(config_preset(&model, "demo", 256, &err), &err);
    model.latents = LATENTS;
}

static BatchRows longest(void) {
    ShardPage page = {.context_length = LONGEST, .answer_length = LONGEST};
    return batch_page_rows(&page, &prompt, LATENTS, UINT32_MAX);
}

static StepConfig config(int fuse, int pages_of_room, int micro_norm) {
    BatchRows one = longest();
    return (StepConfig){.model = &model,
                        .prompt = &prompt,
                        .longest = one,
                        .fuse = fuse,
                        .b = B,
                        .g = G,
                        .ranks = 2,
                        .micro_norm = micro_norm,
                        .most = {fuse ? fuse * B : B * G, pages_of_room * one.enc, pages_of_room * one.dec,
                                 pages_of_room * one.outputs}};
}

// What was asked for, in the order of the loader.
static void make_step(LoaderStep *s, uint64_t *pages, ShardPage *text, int *borders, uint32_t cut) {
    *s = (LoaderStep){.pages = pages,
                      .text = text,
                      .micro_begin = borders,
                      .n = B * G,
                      .micro = G,
                      .total_pages = 2 * B * G,
                      .total_supervised = 1000,
                      .cut = cut,
                      .after = {.seed = 3, .epoch = 4, .position = 5}};
    for (int i = 0; i < B * G; i++) {
        pages[i] = (uint64_t)(i * 4 + 1); // page 17 is the second of a micro-batch
        text[i] = dataset_page(&data, pages[i]);
    }
    for (int i = 0; i <= G; i++) borders[i] = i * B;
}

// Pages, weights and rows of the batches, one after the other, against the step; the batches within their limits.
static void check_pack(const StepPack *p, const StepConfig *c, const LoaderStep *s) {
    int page = 0, loss_row = 0, begun = 0;
    C3Flops flops = {0};
    const char *end = p->block;
    CHECK(p->pages == s->total_pages && p->supervised == s->total_supervised && p->after.position == 5, "counts");
    for (int i = 0; i < p->n; i++) {
        const MicroBatch *m = &p->micro[i];
        CHECK(m->dec.pages > 0 && m->dec.pages <= c->most.pages, "batch %d: %d pages", i, m->dec.pages);
        CHECK(m->enc.rows <= c->most.enc && m->dec.rows <= c->most.dec && m->dec.outputs <= c->most.outputs,
              "batch %d: rows", i);
        CHECK(m->loss_row == loss_row, "batch %d: losses from row %d", i, m->loss_row);
        CHECK((const char *)m->block >= end, "batch %d overlaps the one before", i);
        end = (const char *)m->block + m->bytes;
        for (int k = 0; k < m->dec.pages; k++, page++) {
            ShardPage original = dataset_page(&data, s->pages[page]);
            int micro = page / B, length = (int)(original.answer_length < s->cut ? original.answer_length : s->cut);
            double rows = 0;
            for (int q = micro * B; q < micro * B + B; q++) {
                uint32_t n = dataset_page(&data, s->pages[q]).answer_length;
                rows += (n < s->cut ? n : s->cut) + 1;
            }
            double weight = c->micro_norm ? 1 / (rows * G * 2) : 1.0 / 1000;
            CHECK(m->page_ids[k] == s->pages[page], "page %d is %d", page, (int)m->page_ids[k]);
            CHECK(m->dec.output_cu[k + 1] - m->dec.output_cu[k] == length + 1, "page %d: rows", page);
            for (int r = m->dec.output_cu[k]; r < m->dec.output_cu[k + 1]; r++) {
                CHECK(m->weights[r] == (float)weight, "page %d: weight %g, expected %g", page, m->weights[r], weight);
                int label =
                    r + 1 < m->dec.output_cu[k + 1] ? (int)original.answer[r - m->dec.output_cu[k]] : prompt.end;
                CHECK(m->labels[r] == label, "page %d: label", page);
            }
            begun += page % B == 0;
        }
        loss_row += m->dec.outputs;
        C3Flops f = c3_flops(&model, m, 1);
        flops.encoder += f.encoder, flops.decoder += f.decoder, flops.head += f.head;
    }
    CHECK(page == B * G && begun == G, "%d pages of %d micro-batches", page, begun);
    CHECK(flops.encoder == p->flops.encoder && flops.decoder == p->flops.decoder && flops.head == p->flops.head,
          "FLOPs");
}

// Page by page: no batch had room for the first page of the next one.
static void check_full(const StepPack *p, const StepConfig *c) {
    for (int i = 0; i + 1 < p->n; i++) {
        const StackBatch *enc = &p->micro[i].enc, *dec = &p->micro[i].dec, *next = &p->micro[i + 1].dec;
        BatchRows sum = {.pages = dec->pages, .enc = enc->rows, .dec = dec->rows, .outputs = dec->outputs};
        BatchRows page = {
            .pages = 1, .enc = p->micro[i + 1].enc.cu[1], .dec = next->cu[1], .outputs = next->output_cu[1]};
        CHECK(!step_add_page(&sum, page, c->most), "batch %d of %d had room for one more page", i, p->n);
    }
}

static void test_packing(void) {
    Error err;
    uint64_t pages[B * G];
    ShardPage text[B * G];
    int borders[G + 1];
    LoaderStep s;
    for (int micro_norm = 0; micro_norm < 2; micro_norm++) {
        for (int fuse = 0; fuse <= G + 1; fuse++) {
            int most = fuse ? fuse * B : G * B;
            for (int room = 1; room <= most; room++) {
                StepConfig c = config(fuse, room, micro_norm);
                StepPack p;
                must(step_create(&p, &c, cpu, &err), &err);
                for (int again = 0; again < 2; again++) { // its memory serves every second step
                    make_step(&s, pages, text, borders, again ? UINT32_MAX : 9);
                    step_pack(&p, &c, &s);
                    check_pack(&p, &c, &s);
                }
                if (fuse && room == most) CHECK(p.n == (G + fuse - 1) / fuse, "fuse %d: %d batches", fuse, p.n);
                if (fuse && room == 1) CHECK(p.n > G, "nothing was split: %d batches", p.n);
                if (!fuse) check_full(&p, &c);
                step_free(&p);
            }
        }
    }
}

// ---- the profile ----------------------------------------------------------------------------------------------------

// The number at a place (from 0) behind the line's name; NAN: there is no such line or number.
static double column(const char *text, const char *name, int place) {
    char start[64];
    snprintf(start, sizeof start, "\n  %s ", name);
    const char *line = strstr(text, start);
    double value = NAN;
    if (!line) return NAN;
    line += strlen(start);
    for (int i = 0; i <= place; i++) {
        int used = 0;
        if (sscanf(line, " %lf %n", &value, &used) != 1) return NAN;
        line += used;
        if (*line == '%') line++;
    }
    return value;
}

static void test_profile(void) {
    check_begin("a profile's table: each kind's time beside the plan's, each range's with and without what lies in it");
    // seconds of the stamps of two steps, 1 s each
    double seconds[] = {0, 0.1, 0.1, 0.4, 0.4, 0.4, 0.5, 0.6, 0.7, 0.7, 0.9, 1, 0.3, 0.8, 1, 2};
    Span spans[] = {
        {"step", 3, -1, KIND_BETWEEN, 0, 11, 0, 0, 0, 0},    {"decoder forward", -1, 0, KIND_BETWEEN, 1, 8, 0, 0, 0, 0},
        {"product", -1, 1, KIND_PRODUCT, 2, 3, 0, 7, 8, 9},  {"recompute", -1, 1, KIND_BETWEEN, 4, 7, 0, 0, 0, 0},
        {"norm", -1, 3, PART_ELEMENTWISE, 5, 6, 0, 0, 0, 0}, {"load", -1, 0, KIND_BETWEEN, 9, 10, 0, 0, 0, 0},
        {"gather", -1, -1, PART_GATHER, 2, 12, 1, 0, 0, 0},  {"gather", -1, -1, PART_GATHER, 2, 13, 1, 0, 0, 0},
        {"step", 4, -1, KIND_BETWEEN, 14, 15, 0, 0, 0, 0},   {"zero", -1, 8, KIND_ROWS, 14, 14, 0, 0, 0, 0}};
    Profile p = {.measured = 2, .spans = spans, .n_spans = 10, .seconds = seconds};
    C3Params params;
    Error err = {""};
    must(params_build(&params, &model, 1, &err), &err);
    Plan plan = {.shape = {.config = &model,
                           .params = &params,
                           .longest = {1, 50, 60, 40},
                           .enc = 50,
                           .dec = 60,
                           .outputs = 40,
                           .b = 2,
                           .g = 2,
                           .ranks = 1,
                           .dtype = DTYPE_BF16,
                           .is_gpu = 1,
                           .gpu = gpu_find("h100"),
                           .recompute = -1}};
    must(plan_choose(&plan.choice, &plan.shape, &err), &err);
    RooflineTimes t;
    char *text;
    size_t size;
    plan_times(&t, &plan, 1);
    FILE *out = open_memstream(&text, &size);
    profile_print(out, &p, &plan);
    fclose(out);
    const struct {
        const char *name;
        int place;
        double value;
    } expected[] = {
        {"products of the decoder", 0, 150},
        {"products of the decoder", 1, 15},
        {"products of the decoder", 2, 1e3 * t.parts[PART_STACK1].seconds},
        {"recomputation", 0, 50},
        {"host: loading, packing", 0, 100},
        {"between operations", 0, 700},
        {"gradients                                 in the products", 0, 1e3 * t.parts[PART_GRADIENTS].seconds},
        {"all", 2, 1e3 * t.total},
        {"step", 0, 1000},
        {"step", 2, 600},
        {"step", 3, 1},
        {"  decoder forward", 0, 300},
        {"  decoder forward", 2, 50},
        {"    recompute", 2, 50},
        {"      norm", 0, 50},
        {"gather", 0, 350}, // the second begins where the first ends
        {"gather", 3, 1}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        double found = column(text, expected[i].name, expected[i].place);
        CHECK(fabs(found - expected[i].value) < 0.006, "%s, number %d: expected %g, found %g\n%s", expected[i].name,
              expected[i].place, expected[i].value, found, text);
    }
    free(text);
    params_free(&params);
}

int main(void) {
    Error err;
    must(backend_cpu_create(&cpu, DTYPE_F32, 1, NULL, &err), &err);
    make_data();
    check_begin("fused, split, page by page: every page once, in order, with its weight, within the limits");
    test_packing();
    test_profile();
    dataset_close(&data);
    rmdir(folder);
    cpu->destroy(cpu);
    return check_done();
}
