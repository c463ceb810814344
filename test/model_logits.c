// model_logits.c: latents and logits of a model on given pages; driven by test_hf.py.
//
//   model_logits -pages IN.safetensors -o OUT.safetensors [-m DIR] [-enc DIR -dec DIR] [-n N] [-dtype bf16] [-save DIR]
//
// IN has the tensors `context`, `context.cu`, `prompt.prefix`, `prompt.suffix`, `prompt.end_img` (all I32) that
// dev/reference.py writes; pages answer with their context. OUT gets `latents` (pages*N,D) and `logits` (rows,V) in
// fp32. -save writes the model as a checkpoint.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/train/checkpoint.h"
#include "llmc/base/file.h"
#include "llmc/weights/safetensors.h"
#include "llmc/train/options.h"
#include "llmc/weights/model_files.h"

typedef struct Pages {
    uint32_t *tokens;
    int *cu; // (n+1)
    int n;
    Template prompt;
} Pages;

static void must(int bad, const Error *err) {
    if (!bad) return;
    fprintf(stderr, "model_logits: %s\n", err->text);
    exit(1);
}

// A copy of a tensor of 32-bit numbers.
static void *numbers(const SafeTensors *s, const char *name, int *n) {
    const SafeTensor *t = safetensors_find(s, name);
    void *copy = t ? malloc(t->bytes + 1) : NULL;
    must(!copy, &(Error){"a tensor is missing"});
    memcpy(copy, t->data, t->bytes);
    *n = (int)(t->bytes / 4);
    return copy;
}

static Pages read_pages(const char *path) {
    SafeTensors *s;
    Error err;
    Pages p = {0};
    int n;
    must(safetensors_open(&s, path, &err), &err);
    p.tokens = numbers(s, "context", &n);
    p.cu = numbers(s, "context.cu", &p.n);
    p.n--;
    p.prompt.prefix = numbers(s, "prompt.prefix", &p.prompt.n_prefix);
    p.prompt.suffix = numbers(s, "prompt.suffix", &p.prompt.n_suffix);
    int32_t *ends = numbers(s, "prompt.end_img", &n);
    p.prompt.end = ends[0];
    p.prompt.img = ends[1];
    free(ends);
    safetensors_close(s);
    return p;
}

static float *download(const C3 *m, const elem_t *device, size_t n) {
    float *host = malloc(n * sizeof *host), *wide = NULL;
    Error err = {"out of memory"};
    must(!host || m->b->alloc(m->b, (void **)&wide, n * sizeof *host, "a copy", &err), &err);
    m->b->cast_to_f32(m->b, wide, device, n);
    m->b->download(m->b, host, wide, n * sizeof *host);
    m->b->release(m->b, wide);
    return host;
}

// (rows,V): on the device rows are padded.
static float *unpadded_logits(const C3 *m, int rows) {
    const size_t V = (size_t)m->config.dec.V, ld = (size_t)params_head_rows(m->config.dec.V);
    float *logits = download(m, m->logits, (size_t)rows * ld);
    for (int r = 1; r < rows; r++) memmove(logits + (size_t)r * V, logits + (size_t)r * ld, V * sizeof *logits);
    return logits;
}

static void write_outputs(const C3 *m, const Pages *p, int rows, const char *path) {
    const int D = m->config.enc.D, V = m->config.dec.V, N = m->config.latents * p->n;
    float *latents = download(m, m->enc_acts.out, (size_t)N * D), *logits = unpadded_logits(m, rows);
    SafeEntry entries[] = {{"latents", DTYPE_F32, 2, {N, D}}, {"logits", DTYPE_F32, 2, {rows, V}}};
    SafeWriter *w;
    Error err;
    must(safetensors_writer_open(&w, path, entries, 2, NULL, 0, &err), &err);
    must(safetensors_writer_data(w, latents, (size_t)N * D * 4, &err), &err);
    must(safetensors_writer_data(w, logits, (size_t)rows * V * 4, &err), &err);
    must(safetensors_writer_commit(w, &err), &err);
    free(latents);
    free(logits);
}

static void run(C3 *m, const Pages *p, const C3Limits *l, const char *path) {
    MicroBatch batch;
    Error err;
    ShardPage *pages = calloc((size_t)p->n, sizeof *pages);
    uint64_t *ids = calloc((size_t)p->n, sizeof *ids);
    must(!pages || !ids, &(Error){"out of memory"});
    must(batch_create(&batch, m->b, c3_batch_rows(l), &err), &err);
    for (int i = 0; i < p->n; i++) {
        uint32_t *text = p->tokens + p->cu[i], n = (uint32_t)(p->cu[i + 1] - p->cu[i]);
        pages[i] = (ShardPage){.context = text, .answer = text, .context_length = n, .answer_length = n};
    }
    batch_build(&batch, pages, ids, p->n, &p->prompt, m->config.latents, UINT32_MAX, NULL);
    c3_forward(m, &batch);
    C3Loss loss = c3_read_loss(m, &batch);
    write_outputs(m, p, loss.rows, path);
    batch_free(&batch);
    free(pages);
    free(ids);
}

int main(int argc, char **argv) {
    TrainOptions o;
    OptionTable table = {.n = 0};
    const char *in = NULL, *save = NULL;
    int help = 0;
    const Option own[] = {
        {OPTION_TEXT("pages", &in, NULL, "FILE", "input"), .required = 1},
        {OPTION_TEXT("save", &save, NULL, "DIR", "where the model is saved")},
        {0},
    };
    Error err;
    options_table(&o, &table);
    cli_add(&table, own);
    must(cli_parse(&table, argc, argv, NULL, NULL, &help, &err), &err);
    Pages p = read_pages(in);
    Dist dist = {.ranks = 1, .local_ranks = 1};
    ModelFiles s;
    Backend *b;
    C3 m;
    ModelChoice choice = options_model(&o);
    must(model_files_open(&s, &choice, &err), &err);
    const int tokens = p.cu[p.n], overhead = template_overhead(&p.prompt, s.config.latents);
    C3Limits l = {.pages = p.n,
                  .enc_rows = tokens + p.n * (1 + s.config.latents),
                  .dec_rows = tokens + p.n * overhead,
                  .dec_outputs = tokens + p.n,
                  .head_rows = tokens + p.n, // all logits at once, so that they can be looked at
                  .recompute = KEEP_NOTHING};
    must(backend_cpu_create(&b, options_dtype(&o), (int)o.threads, &dist, &err), &err);
    must(c3_create(&m, &s.config, b, &l, &err), &err);
    must(model_files_load(&s, &m, (uint64_t)o.seed, &err), &err);
    if (s.notes) printf("%s", s.notes);
    run(&m, &p, &l, o.out);
    if (save) {
        FileSum sums[2];
        must(file_make_dirs(save, &err), &err);
        must(weights_save(b, m.weights, &m.params, &s.config, save, sums, &err), &err);
    }
    c3_free(&m);
    b->destroy(b);
    model_files_close(&s);
    template_free(&p.prompt);
    free(p.tokens);
    free(p.cu);
    return 0;
}
