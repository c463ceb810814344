// model_files.c: see model_files.h.
#include "llmc/weights/model_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/base/file.h"
#include "llmc/data/loader.h" // dataset_vocabulary
#include "llmc/weights/run.h" // checkpoint_hold
#include "llmc/weights/weights.h"

static const char default_enc[] = "models/Qwen2.5-1.5B", default_dec[] = "models/Qwen2.5-3B";

// The vocabulary of the model: -vocab, or the one its stacks agree on. Stacks of another vocabulary are resized to it;
// a plain decoder loses its padding rows, a plain encoder with too few rows gets more.
static int set_vocabulary(ModelFiles *s, const ModelChoice *o, Error *err) {
    C3Config *c = &s->config;
    s->stored[0].rows = c->enc.V;
    s->stored[1].rows = c->dec.V;
    s->stored[1].tied = c->dec.tied; // not of the encoder, whose head is never used
    if (!o->vocab && s->stored[0].base != s->stored[1].base)
        return error_set(err,
                         "%s has %d base tokens, %s has %d (hint: -vocab K keeps the first K of both, and adds rows "
                         "where there are fewer)",
                         s->enc ? s->enc : s->folder, s->stored[0].base, s->dec ? s->dec : s->folder,
                         s->stored[1].base);
    int base = o->vocab ? o->vocab : s->stored[1].base, rows = config_rows(base);
    if (base != s->stored[0].base || (s->enc && c->enc.V < rows)) c->enc.V = rows;
    if (base != s->stored[1].base || s->dec) c->dec.V = rows;
    c->base_vocab = base;
    c->specials = config_specials(base);
    return 0;
}

static int from_two_stacks(ModelFiles *s, const ModelChoice *o, Error *err) {
    C3Config *c = &s->config;
    TRY(config_read_qwen2_base(&c->enc, &s->stored[0].base, s->enc, err));
    TRY(config_read_qwen2_base(&c->dec, &s->stored[1].base, s->dec, err));
    c->latents = 32;
    snprintf(c->template_name, sizeof c->template_name, "c3");
    c->dtype = o->dtype;
    snprintf(s->text, sizeof s->text, "%s + %s", s->enc, s->dec);
    return set_vocabulary(s, o, err);
}

// A C3 folder; -enc or -dec replaces one of its stacks.
static int from_c3(ModelFiles *s, const ModelChoice *o, Error *err) {
    C3Config *c = &s->config;
    TRY(checkpoint_hold(&s->folder, &s->hold, o->model, err));
    TRY(config_read_c3(c, s->folder, err));
    s->stored[0].base = s->stored[1].base = c->base_vocab;
    s->stored_latents = c->latents;
    if (s->enc) TRY(config_read_qwen2_base(&c->enc, &s->stored[0].base, s->enc, err));
    if (s->dec) TRY(config_read_qwen2_base(&c->dec, &s->stored[1].base, s->dec, err));
    snprintf(s->text, sizeof s->text, "%s%s%s%s%s", s->folder, s->enc ? ", encoder " : "", s->enc ? s->enc : "",
             s->dec ? ", decoder " : "", s->dec ? s->dec : "");
    return set_vocabulary(s, o, err);
}

static int error_no_model(const ModelChoice *o, Error *err) {
    return error_set(
        err,
        "no model: looked for %s and %s and, for pages, %s (hint: put Qwen/Qwen2.5-1.5B and Qwen/Qwen2.5-3B "
        "from the Hugging Face hub into these folders and make pages with `./c3 tokenize -tok "
        "%s/tokenizer.json -o data/ocr/train PAGES.jsonl`; `-preset tiny` needs no model files)",
        default_enc, default_dec, o->pages, default_enc);
}

// Without -vocab a preset takes the vocabulary of the pages; has_pages = 0: it keeps its own.
static int from_preset(ModelFiles *s, const ModelChoice *o, int has_pages, Error *err) {
    C3Config *c = &s->config;
    uint32_t vocab;
    TRY(config_preset(c, o->preset, o->vocab, err));
    snprintf(s->text, sizeof s->text, "preset %s, random weights", o->preset);
    if (!o->vocab && has_pages) {
        TRY(dataset_vocabulary(&vocab, o->pages, err));
        int own = c->base_vocab, base = config_base((int)vocab);
        TRY(config_preset(c, o->preset, base, err));
        if (base != own)
            snprintf(s->text, sizeof s->text, "preset %s, random weights, vocabulary of the pages: %d, not %d",
                     o->preset, base, own);
    }
    c->dtype = o->dtype;
    return 0;
}

// assume: models and pages may be missing; missing default models have the paper's shapes.
static int find_shapes(ModelFiles *s, const ModelChoice *o, int assume, Error *err) {
    if (o->preset) return from_preset(s, o, !assume, err);
    int nothing = !o->model && !o->enc && !file_exists(default_enc) && !file_exists(default_dec);
    if (nothing && assume) {
        snprintf(s->text, sizeof s->text, "no files in models/: the shapes of preset paper");
        TRY(config_preset(&s->config, "paper", o->vocab, err));
        s->config.dtype = o->dtype;
        return 0;
    }
    s->enc = o->enc;
    s->dec = o->dec;
    if (o->model) return from_c3(s, o, err);
    if (!s->enc) s->enc = default_enc;
    if (!s->dec) s->dec = default_dec;
    if (nothing) return error_no_model(o, err);
    return from_two_stacks(s, o, err);
}

int model_files_find_tokenizer(ModelFiles *s, const ModelChoice *o, Error *err) {
    s->tokenizer = string_copy(o->tokenizer);
    if (s->tokenizer) return 0;
    static const char *const names[] = {"qwen.tiktoken", "tokenizer.json"};
    const char *const folders[] = {s->folder, s->enc, "data/qwen2.5"};
    for (int f = 0; f < 3; f++) {
        for (int n = 0; folders[f] && n < 2; n++) {
            s->tokenizer = string_format("%s/%s", folders[f], names[n]);
            if (file_exists(s->tokenizer)) return 0;
            free(s->tokenizer);
            s->tokenizer = NULL;
        }
    }
    const char *folder = s->folder ? s->folder : s->enc;
    return error_set(err,
                     "no tokenizer: expected tokenizer.json or qwen.tiktoken in %s%sdata/qwen2.5 (hint: bash "
                     "data/get_tokenizer.sh, or -tok FILE)",
                     folder ? folder : "", folder ? " or " : "");
}

// -n, or the model's own; of a new model the largest of -n_mix.
static int choose_latents(ModelFiles *s, const ModelChoice *o, Error *err) {
    const int most = o->mix ? latents_mix_most(o->mix) : 0;
    if (o->latents) s->config.latents = o->latents;
    else if (most && !s->folder) s->config.latents = most;
    if (!most || most == s->config.latents) return 0;
    return error_set(err,
                     "-n_mix: its largest is %d, the model has %d latents a page: expected the same (hint: -n %d %s "
                     "the model, or %d in -n_mix)",
                     most, s->config.latents, most, most > s->config.latents ? "grows" : "cuts", s->config.latents);
}

int model_files_shapes(ModelFiles *s, const ModelChoice *o, int assume, Error *err) {
    *s = (ModelFiles){0};
    TRY(find_shapes(s, o, assume, err));
    C3Config *c = &s->config;
    TRY(choose_latents(s, o, err));
    if (o->template_name) {
        if (s->folder && strcmp(o->template_name, c->template_name) != 0)
            return error_set(err, "%s: was trained with -template %s, found -template %s", s->folder, c->template_name,
                             o->template_name);
        snprintf(c->template_name, sizeof c->template_name, "%s", o->template_name);
    }
    if (o->window) c->window = o->window;
    return config_check_window(c, s->text, err);
}

int model_files_open(ModelFiles *s, const ModelChoice *o, Error *err) {
    TRY(model_files_shapes(s, o, 0, err));
    return model_files_find_tokenizer(s, o, err);
}

void model_files_close(ModelFiles *s) {
    checkpoint_release(&s->hold);
    free(s->tokenizer);
    free(s->folder);
    free(s->notes);
    s->tokenizer = s->folder = s->notes = NULL;
}

int model_files_tokenizer(Tokenizer **out, const ModelFiles *s, Error *err) {
    const int base = s->config.base_vocab;
    TRY(tokenizer_load(out, s->tokenizer, base == QWEN_BASE_RANKS ? 0 : base, err));
    if (tokenizer_base(*out) == base) return 0;
    return error_set(err, "%s: has %d base tokens, the model %s expects %d (hint: -tok FILE)", s->tokenizer,
                     tokenizer_base(*out), s->text, base);
}

// ---- weights -------------------------------------------------------------------------------------------------------

// Reads a stack from the Qwen2 folder that replaces it, or, folder NULL, from the C3 folder's files.
static int read_stack(Resizer *a, ParamOwner owner, const char *folder, const SafeTensors *files, FileVocab config,
                      Error *err) {
    if (!folder) return resize_stack(a, owner, files, config, err);
    SafeTensors *own;
    TRY(safetensors_open(&own, folder, err));
    int bad = resize_stack(a, owner, own, config, err);
    safetensors_close(own);
    return bad;
}

// The queries belong to the encoder, the projector to both stacks: with a new stack they are new too.
static int read_model(const ModelFiles *s, Resizer *a, SafeTensors *const files[2], Error *err) {
    TRY(read_stack(a, OWNER_ENCODER, s->enc, files[1], s->stored[0], err));
    TRY(read_stack(a, OWNER_DECODER, s->dec, files[0], s->stored[1], err));
    if (!s->folder) return 0;
    if (!s->enc) TRY(resize_queries(a, files[0], s->stored_latents, err));
    if (!s->enc && !s->dec) return resize_projector(a, files[0], err);
    if (a->weights)
        string_append(&a->notes, "  %-14s %s new: the old weights fit no other %s\n", "cascade",
                      s->enc ? "queries and projector are" : "the projector is", s->enc ? "encoder" : "decoder");
    return 0;
}

static int open_and_read(const ModelFiles *s, Resizer *a, Error *err) {
    SafeTensors *files[2] = {NULL, NULL};
    if (s->folder) TRY(weights_open_c3(files, s->folder, err));
    int bad = read_model(s, a, files, err);
    weights_close_c3(files);
    return bad;
}

int model_files_check(const ModelFiles *s, Error *err) {
    C3Params p;
    if (!s->folder && !s->enc) return 0;
    TRY(params_build(&p, &s->config, 1, err));
    Resizer a = {.params = &p, .base = s->config.base_vocab};
    int bad = open_and_read(s, &a, err);
    params_free(&p);
    return bad;
}

int model_files_load(ModelFiles *s, C3 *m, uint64_t seed, Error *err) {
    if (!s->folder && !s->enc) return c3_init_weights(m, seed, 0, err);
    TRY(c3_init_weights(m, seed, 1, err)); // the cascade's, which may be in no file
    Resizer a = {
        .backend = m->b, .weights = m->weights, .params = &m->params, .base = m->config.base_vocab, .seed = seed};
    int bad = open_and_read(s, &a, err);
    s->notes = a.notes;
    return bad;
}
