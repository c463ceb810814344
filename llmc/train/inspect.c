// inspect.c: see inspect.h.
#include "llmc/train/inspect.h"

#include <stdlib.h>
#include <string.h>

#include "llmc/train/checkpoint.h"
#include "llmc/weights/run.h"
#include "llmc/weights/weights.h"
#include "llmc/base/clean.h"
#include "llmc/base/file.h"
#include "llmc/base/format.h"
#include "llmc/weights/safetensors.h"
#include "llmc/weights/model_files.h"
#include "llmc/text/tokenizer.h"

static void row(FILE *out, const char *name, const char *text) { fprintf(out, "  %-14s %s\n", name, text); }

// ---- tensors -------------------------------------------------------------------------------------------------------

// Numbers of all tensors of s; other types than F32, BF16, F16 hold no numbers that could be infinite.
static int check_numbers(double *numbers, const SafeTensors *s, Error *err) {
    for (int i = 0; i < safetensors_count(s); i++) {
        const SafeTensor *t = safetensors_at(s, i);
        if (!t->supported) continue;
        const size_t n = t->bytes / dtype_size(t->dtype);
        TRY(weights_check_tensor(s, t, n, NULL, err));
        *numbers += (double)n;
    }
    return 0;
}

static int check_shapes(int *tensors, const SafeTensors *s, const ParamTable *table, ParamOwner owner, Error *err) {
    for (int i = 0; i < table->n; i++) {
        if (table->params[i].owner != owner) continue;
        if (!weights_find(s, &table->params[i], 0, err)) return -1;
        ++*tensors;
    }
    return owner == OWNER_CASCADE ? 0 : weights_check_layers(s, table, owner, err);
}

// Tensors that nothing reads are said: a tied model's head, a vision tower of another model.
static void say_others(FILE *out, const SafeTensors *s, const ParamTable *table, ParamOwner a, ParamOwner b) {
    for (int i = 0; i < safetensors_count(s); i++) {
        const char *name = safetensors_at(s, i)->name;
        if (!weights_param(table, a, name) && !weights_param(table, b, name))
            fprintf(out, "  %-14s \"%s\" in %s\n", "not read", clean(name),
                    clean(safetensors_path(s, safetensors_at(s, i))));
    }
}

static void print_tensors(FILE *out, int tensors, double numbers) {
    char count[32];
    fprintf(out, "  %-14s %d, each there with its shape\n", "tensors", tensors);
    fprintf(out, "  %-14s %s, all finite\n", "numbers", format_count(count, numbers));
}

static int check_c3_files(FILE *out, const C3Config *c, SafeTensors *const files[2], const ParamTable *table,
                          Error *err) {
    int tensors = 0;
    double numbers = 0;
    TRY(weights_check_tied(files[0], c->dec.tied, err));
    TRY(check_shapes(&tensors, files[1], table, OWNER_ENCODER, err));
    TRY(check_shapes(&tensors, files[0], table, OWNER_CASCADE, err));
    TRY(check_shapes(&tensors, files[0], table, OWNER_DECODER, err));
    TRY(check_numbers(&numbers, files[1], err));
    TRY(check_numbers(&numbers, files[0], err));
    print_tensors(out, tensors, numbers);
    say_others(out, files[1], table, OWNER_ENCODER, OWNER_ENCODER);
    say_others(out, files[0], table, OWNER_CASCADE, OWNER_DECODER);
    return 0;
}

static int check_c3(FILE *out, C3Config *c, const char *folder, Error *err) {
    C3Params p;
    SafeTensors *files[2];
    TRY(config_read_c3(c, folder, err));
    TRY(params_build(&p, c, 1, err));
    int bad = weights_open_c3(files, folder, err);
    if (!bad) {
        bad = check_c3_files(out, c, files, &p.table, err);
        safetensors_close(files[0]);
        safetensors_close(files[1]);
    }
    params_free(&p);
    return bad;
}

static int check_qwen2(FILE *out, const char *folder, Error *err) {
    C3Config c = {.latents = 1};
    C3Params p;
    SafeTensors *s;
    int tensors = 0;
    double numbers = 0;
    TRY(config_read_qwen2(&c.dec, folder, err));
    c.enc = c.dec;
    TRY(params_build(&p, &c, 1, err));
    int bad = safetensors_open(&s, folder, err);
    if (!bad) {
        bad = weights_check_tied(s, c.dec.tied, err) || check_shapes(&tensors, s, &p.table, OWNER_DECODER, err) ||
                      check_numbers(&numbers, s, err)
                  ? -1
                  : 0;
        if (!bad) print_tensors(out, tensors, numbers);
        if (!bad) say_others(out, s, &p.table, OWNER_DECODER, OWNER_DECODER);
        safetensors_close(s);
    }
    params_free(&p);
    return bad;
}

// ---- what lies beside them -----------------------------------------------------------------------------------------

// The tokenizer in the folder, where there is one; two files must be the same one.
static int check_tokenizer(FILE *out, const C3Config *c, const char *folder, Error *err) {
    static const char *const names[] = {"qwen.tiktoken", "tokenizer.json"};
    ModelFiles s = {.config = *c};
    Tokenizer *found[2] = {NULL, NULL};
    int bad = 0;
    snprintf(s.text, sizeof s.text, "%s", folder);
    for (int i = 0; i < 2 && !bad; i++) {
        s.tokenizer = string_format("%s/%s", folder, names[i]);
        if (!s.tokenizer) bad = error_set(err, "%s: out of memory", folder);
        else if (file_exists(s.tokenizer)) bad = model_files_tokenizer(&found[i], &s, err);
        if (!bad && found[i]) fprintf(out, "  %-14s %s has the model's vocabulary\n", "tokenizer", names[i]);
        free(s.tokenizer);
    }
    if (!bad && found[0] && found[1] &&
        memcmp(tokenizer_fingerprint(found[0]), tokenizer_fingerprint(found[1]), 32) != 0)
        bad = error_set(err, "%s: %s and %s are different tokenizers: expected the same ranks in both", folder,
                        names[0], names[1]);
    tokenizer_free(found[0]);
    tokenizer_free(found[1]);
    return bad;
}

// Optimizer files of a checkpoint: its numbers; the loss history and state.json are read as a resumed run would.
static int check_trainer(FILE *out, const char *folder, Error *err) {
    TrainState state;
    TRY(checkpoint_read_state(&state, folder, err));
    train_state_free(&state);
    double numbers = 0;
    char text[32];
    for (int rank = 0, there = 1; there; rank++) {
        char *path = string_format("%s/trainer/optimizer_%05d.safetensors", folder, rank);
        if (!path) return error_set(err, "%s: out of memory", folder);
        SafeTensors *s = NULL;
        int bad = 0;
        there = file_exists(path);
        if (there) bad = safetensors_open(&s, path, err) || check_numbers(&numbers, s, err);
        safetensors_close(s);
        free(path);
        if (bad) return -1;
    }
    fprintf(out, "  %-14s %s numbers of optimizer state, all finite\n", "trainer", format_count(text, numbers));
    return 0;
}

static int check_sums(FILE *out, const char *folder, Error *err) {
    int files = 0;
    char *marker = string_format("%s/COMPLETE", folder);
    if (!marker) return error_set(err, "%s: out of memory", folder);
    int there = file_exists(marker);
    free(marker);
    if (!there) {
        row(out, "checksums", "none: only a run's checkpoints keep them, in COMPLETE");
        return 0;
    }
    TRY(checkpoint_verify(&files, folder, err));
    fprintf(out, "  %-14s of %d files right, and their sizes\n", "checksums", files);
    return 0;
}

int inspect_folder(FILE *out, const char *folder, Error *err) {
    char *llm1 = string_format("%s/llm1", folder), *trainer = string_format("%s/trainer", folder);
    int bad = llm1 && trainer ? 0 : error_set(err, "%s: out of memory", folder);
    fprintf(out, "check\n");
    if (!bad) bad = check_sums(out, folder, err); // first: what is damaged is best told by its file
    if (!bad && file_exists(llm1)) {
        C3Config c;
        bad = check_c3(out, &c, folder, err);
        if (!bad) bad = check_tokenizer(out, &c, folder, err);
    } else if (!bad) {
        bad = check_qwen2(out, folder, err);
    }
    if (!bad && file_exists(trainer)) bad = check_trainer(out, folder, err);
    free(trainer);
    free(llm1);
    return bad;
}
