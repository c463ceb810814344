// model.c: see model.h.
#include "model.h"

#include <stdlib.h>
#include <string.h>

#include "checkpoint.h" // checkpoint_newest
#include "file.h"

// The folder that holds config.json: `folder` itself or the newest complete step in it.
static int resolve(char **out, const char *folder, Error *err) {
    char *config = string_format("%s/config.json", folder);
    if (!config) return error_set(err, "out of memory");
    int is_model = file_exists(config), is_there = file_exists(folder);
    free(config);
    if (!is_there)
        return error_set(err, "%s: no such folder (hint: -m takes a C3 checkpoint or a run's folder)", folder);
    *out = is_model ? strdup(folder) : checkpoint_newest(folder);
    if (!*out)
        return error_set(err,
                         "%s: expected config.json of a C3 checkpoint or a complete step_* folder of a run, found "
                         "neither",
                         folder);
    return 0;
}

int model_open(Model *m, const char *folder, const char *tokenizer, Error *err) {
    *m = (Model){.dist = dist_alone()};
    TRY(resolve(&m->folder, folder, err));
    TrainOptions o = {.model = m->folder, .template_name = "auto", .tokenizer = tokenizer};
    TRY(source_open(&m->source, &o, err));
    const C3Config *c = &m->source.config;
    TRY(tokenizer_load(&m->tok, m->source.tokenizer, c->base_vocab == QWEN_BASE_RANKS ? 0 : c->base_vocab, err));
    if (tokenizer_base(m->tok) != c->base_vocab)
        return error_set(err, "%s: has %d base tokens, the model %s expects %d (hint: -tok FILE)", m->source.tokenizer,
                         tokenizer_base(m->tok), m->folder, c->base_vocab);
    return template_make(&m->t, c->template_name, m->tok, err);
}

int model_load(Model *m, const char *device, const char *dtype, int threads, const C3Limits *limits, Error *err) {
    DType type = strcmp(dtype, "fp32") == 0   ? DTYPE_F32
                 : strcmp(dtype, "bf16") == 0 ? DTYPE_BF16
                                              : m->source.config.dtype;
    if (type == DTYPE_F16) type = DTYPE_F32; // fp16 is a type of files alone
    if (strcmp(device, "auto") != 0 && strcmp(device, "cpu") != 0)
        return error_set(err, "-device %s: this build has no such device (hint: -device cpu)", device);
    TRY(backend_cpu_create(&m->b, type, threads, &m->dist, err));
    TRY(c3_create(&m->c3, &m->source.config, m->b, limits, err));
    return source_fill(&m->source, &m->c3, 0, err);
}

void model_close(Model *m) {
    if (m->c3.b) c3_free(&m->c3);
    if (m->b) m->b->destroy(m->b);
    template_free(&m->t);
    tokenizer_free(m->tok);
    source_close(&m->source);
    free(m->folder);
    *m = (Model){0};
}
