// source.c: see source.h.
#include "source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"
#include "file.h"

static const char default_enc[] = "models/Qwen2.5-1.5B", default_dec[] = "models/Qwen2.5-3B";

// Rows of the decoder's embedding that C3's numbering of special tokens leaves: the padding behind them is cut.
enum { C3_VOCAB = 151860 };

static int from_two_stacks(ModelSource *s, const TrainOptions *o, Error *err) {
    C3Config *c = &s->config;
    TRY(config_read_qwen2(&c->enc, s->enc, err));
    TRY(config_read_qwen2(&c->dec, s->dec, err));
    if (c->enc.V < C3_VOCAB || c->dec.V < C3_VOCAB)
        return error_set(err, "%s: vocab_size %d: expected at least %d rows, as Qwen2.5 has them",
                         c->enc.V < C3_VOCAB ? s->enc : s->dec, c->enc.V < C3_VOCAB ? c->enc.V : c->dec.V, C3_VOCAB);
    c->dec.V = C3_VOCAB;
    c->latents = 32;
    c->base_vocab = QWEN_BASE_RANKS;
    c->specials = config_specials(QWEN_BASE_RANKS);
    snprintf(c->template_name, sizeof c->template_name, "c3");
    c->dtype = options_dtype(o);
    snprintf(s->text, sizeof s->text, "%s + %s", s->enc, s->dec);
    return 0;
}

static int nothing_there(const TrainOptions *o, Error *err) {
    return error_set(
        err,
        "no model: looked for %s and %s and, for pages, %s (hint: put Qwen/Qwen2.5-1.5B and Qwen/Qwen2.5-3B "
        "from the Hugging Face hub into these folders and make pages with `./c3 tokenize -tok "
        "%s/tokenizer.json -o data/ocr/train PAGES.jsonl`; `-preset tiny` needs no model files)",
        default_enc, default_dec, o->data, default_enc);
}

// assume: missing default models have the paper's shapes.
static int find_shapes(ModelSource *s, const TrainOptions *o, int assume, Error *err) {
    int nothing = !o->preset && !o->model && !o->enc && !file_exists(default_enc) && !file_exists(default_dec);
    if (o->preset || (nothing && assume)) {
        if (nothing) snprintf(s->text, sizeof s->text, "no files in models/: the shapes of preset paper");
        else snprintf(s->text, sizeof s->text, "preset %s, random weights", o->preset);
        TRY(config_preset(&s->config, nothing ? "paper" : o->preset, (int)o->vocab, err));
        s->config.dtype = options_dtype(o);
        return 0;
    }
    if (o->model) {
        s->folder = o->model;
        snprintf(s->text, sizeof s->text, "%s", o->model);
        return config_read_c3(&s->config, o->model, err);
    }
    s->enc = o->enc ? o->enc : default_enc;
    s->dec = o->dec ? o->dec : default_dec;
    if (nothing) return nothing_there(o, err);
    return from_two_stacks(s, o, err);
}

// The first that exists: -tok, the model's folder, the encoder's, the fetched vocabulary.
static int find_tokenizer(ModelSource *s, const TrainOptions *o, Error *err) {
    if (o->tokenizer) {
        s->tokenizer = strdup(o->tokenizer);
        return s->tokenizer ? 0 : error_set(err, "out of memory");
    }
    static const char *const names[] = {"qwen.tiktoken", "tokenizer.json"};
    const char *const folders[] = {s->folder, s->enc, "data/qwen2.5"};
    for (int f = 0; f < 3; f++) {
        for (int n = 0; folders[f] && n < 2; n++) {
            s->tokenizer = string_format("%s/%s", folders[f], names[n]);
            if (!s->tokenizer) return error_set(err, "out of memory");
            if (file_exists(s->tokenizer)) return 0;
            free(s->tokenizer);
            s->tokenizer = NULL;
        }
    }
    return error_set(err, "no tokenizer: expected tokenizer.json or qwen.tiktoken in %s%sdata/qwen2.5 (hint: bash "
                          "data/get_tokenizer.sh, or -tok FILE)",
                     s->folder ? s->folder : s->enc ? s->enc : "", s->folder || s->enc ? " or " : "");
}

int source_shapes(ModelSource *s, const TrainOptions *o, int assume, Error *err) {
    *s = (ModelSource){0};
    TRY(find_shapes(s, o, assume, err));
    C3Config *c = &s->config;
    if (s->folder && o->latents && o->latents != c->latents)
        return error_set(err, "%s: has %d latents a page, -n asks for %lld (hint: leave -n out)", s->folder, c->latents,
                         (long long)o->latents);
    if (o->latents) c->latents = (int)o->latents;
    if (strcmp(o->template_name, "auto") != 0) {
        if (s->folder && strcmp(o->template_name, c->template_name) != 0)
            return error_set(err, "%s: was trained with -template %s, found -template %s", s->folder, c->template_name,
                             o->template_name);
        snprintf(c->template_name, sizeof c->template_name, "%s", o->template_name);
    }
    return 0;
}

int source_open(ModelSource *s, const TrainOptions *o, Error *err) {
    TRY(source_shapes(s, o, 0, err));
    return find_tokenizer(s, o, err);
}

void source_close(ModelSource *s) {
    free(s->tokenizer);
    s->tokenizer = NULL;
}

int source_fill(const ModelSource *s, C3 *m, uint64_t seed, Error *err) {
    if (s->folder) return checkpoint_load_weights(m->b, m->weights, &m->params, &m->config, s->folder, err);
    if (!s->enc) return c3_init_weights(m, seed, 0, err);
    TRY(c3_init_weights(m, seed, 1, err));
    TRY(checkpoint_load_stack(m->b, m->weights, &m->params, OWNER_ENCODER, s->enc, err));
    return checkpoint_load_stack(m->b, m->weights, &m->params, OWNER_DECODER, s->dec, err);
}
