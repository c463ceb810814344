// info_check.c: the part of c3 info behind -check, see info.h.
#include "llmc/commands/info.h"

#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
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

// Names tensors that nothing reads: a tied model's head, a vision tower of another model.
static void print_unread(FILE *out, const SafeTensors *s, const ParamTable *table, ParamOwner a, ParamOwner b) {
    for (int i = 0; i < safetensors_count(s); i++) {
        const char *name = safetensors_at(s, i)->name;
        if (!weights_param(table, a, name) && !weights_param(table, b, name))
            fprintf(out, "  %-14s \"%s\" in %s\n", "not read", clean(name),
                    clean(safetensors_path(s, safetensors_at(s, i))));
    }
}

// files: the root's and the encoder's; a plain Qwen2 folder is a decoder alone, without the second.
static int check_files(FILE *out, const C3Config *c, SafeTensors *const files[2], const ParamTable *table, Error *err) {
    int tensors = 0;
    double numbers = 0;
    char count[32];
    TRY(weights_check_tied(files[0], c->dec.tied, err));
    if (files[1]) TRY(check_shapes(&tensors, files[1], table, OWNER_ENCODER, err));
    if (files[1]) TRY(check_shapes(&tensors, files[0], table, OWNER_CASCADE, err));
    TRY(check_shapes(&tensors, files[0], table, OWNER_DECODER, err));
    if (files[1]) TRY(check_numbers(&numbers, files[1], err));
    TRY(check_numbers(&numbers, files[0], err));
    fprintf(out, "  %-14s %d, each there with its shape\n", "tensors", tensors);
    fprintf(out, "  %-14s %s, all finite\n", "numbers", format_count(count, numbers));
    if (files[1]) print_unread(out, files[1], table, OWNER_ENCODER, OWNER_ENCODER);
    print_unread(out, files[0], table, files[1] ? OWNER_CASCADE : OWNER_DECODER, OWNER_DECODER);
    return 0;
}

static int check_weights(FILE *out, C3Config *c, const char *folder, int is_c3, Error *err) {
    C3Params p;
    SafeTensors *files[2] = {NULL, NULL};
    *c = (C3Config){.latents = 1};
    TRY(is_c3 ? config_read_c3(c, folder, err) : config_read_qwen2(&c->dec, folder, err));
    if (!is_c3) c->enc = c->dec;
    TRY(params_build(&p, c, 1, err));
    int bad = is_c3 ? weights_open_c3(files, folder, err) : safetensors_open(&files[0], folder, err);
    if (!bad) {
        bad = check_files(out, c, files, &p.table, err);
        safetensors_close(files[0]);
        safetensors_close(files[1]);
    }
    params_free(&p);
    return bad;
}

// ---- the other files -----------------------------------------------------------------------------------------------

// The tokenizer in the folder, where there is one; two files must be the same one.
static int check_tokenizer(FILE *out, const C3Config *c, const char *folder, Error *err) {
    static const char *const names[] = {"qwen.tiktoken", "tokenizer.json"};
    ModelFiles s = {.config = *c};
    Tokenizer *found[2] = {NULL, NULL};
    int bad = 0;
    snprintf(s.text, sizeof s.text, "%s", folder);
    for (int i = 0; i < 2 && !bad; i++) {
        s.tokenizer = string_format("%s/%s", folder, names[i]);
        if (file_exists(s.tokenizer)) bad = model_files_tokenizer(&found[i], &s, err);
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

int info_check_folder(FILE *out, const char *folder, Error *err) {
    char *llm1 = string_format("%s/llm1", folder), *trainer = string_format("%s/trainer", folder);
    C3Config c;
    int is_c3 = file_exists(llm1);
    fprintf(out, "check\n");
    int bad = check_sums(out, folder, err); // first: damage is best reported by file
    if (!bad) bad = check_weights(out, &c, folder, is_c3, err);
    if (!bad && is_c3) bad = check_tokenizer(out, &c, folder, err);
    if (!bad && file_exists(trainer)) bad = check_trainer(out, folder, err);
    free(trainer);
    free(llm1);
    return bad;
}
