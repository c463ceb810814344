// model.c: see model.h.
#include "llmc/infer/model.h"

#include <string.h>

#include "llmc/infer/generate.h" // generate_new_tokens
#include "llmc/weights/run.h"    // checkpoint_release

int model_open(Model *m, const ModelPlace *place, Error *err) {
    *m = (Model){.dist = dist_alone()};
    ModelChoice o = {.model = place->folder, .tokenizer = place->tokenizer};
    TRY(model_files_open(&m->files, &o, err));
    m->folder = m->files.folder;
    TRY(model_files_check(&m->files, err));
    TRY(model_files_tokenizer(&m->tok, &m->files, err));
    TRY(model_use_latents(m, place->latents, err));
    TRY(template_make(&m->t, m->files.config.template_name, m->tok, err));
    template_set_window(&m->t, m->files.config.window, m->tok);
    return 0;
}

int model_load(Model *m, const ModelPlace *place, const C3Limits *limits, Error *err) {
    const char *dtype = place->dtype;
    DType type = strcmp(dtype, "fp32") == 0   ? DTYPE_F32
                 : strcmp(dtype, "bf16") == 0 ? DTYPE_BF16
                                              : m->files.config.dtype;
    if (type == DTYPE_F16) type = DTYPE_F32; // fp16 occurs in files only
    TRY(backend_create(&m->b, place->device, type, place->threads, &m->dist, NULL, err));
    C3Config whole = m->files.config;
    whole.latents = m->files.stored_latents;
    TRY(c3_create(&m->c3, &whole, m->b, limits, err));
    TRY(model_files_load(&m->files, &m->c3, 0, err));
    m->c3.config.latents = m->files.config.latents;
    checkpoint_release(&m->files.hold); // nothing more is read from the folder
    return 0;
}

int model_use_latents(Model *m, int n, Error *err) {
    const int N = m->files.stored_latents;
    if (n > N) return error_set(err, "%s: has %d latents a page, expected at least the %d of -n", m->folder, N, n);
    m->files.config.latents = n ? n : N;
    if (m->c3.b) m->c3.config.latents = m->files.config.latents;
    return 0;
}

int model_knows_latents(const Model *m) {
    C3Config whole = m->files.config;
    whole.latents = m->files.stored_latents;
    return config_knows_latents(&whole, m->files.config.latents);
}

void model_close(Model *m) {
    if (m->c3.b) c3_free(&m->c3);
    if (m->b) m->b->destroy(m->b);
    template_free(&m->t);
    tokenizer_free(m->tok);
    model_files_close(&m->files);
    *m = (Model){0};
}

int model_longest_page(const Model *m) {
    const C3Config *c = &m->files.config;
    return config_longest_page(c, template_overhead(&m->t, c->latents));
}

int model_new_tokens(const Model *m, int overhead, int tokens, int asked) {
    return generate_new_tokens(tokens, asked, m->files.config.dec.max_positions - overhead);
}
