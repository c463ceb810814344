// extract.c: see extract.h.
#include "llmc/weights/extract.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/weights/run.h" // checkpoint_hold
#include "llmc/model/config.h"
#include "llmc/base/file.h"
#include "llmc/weights/model_files.h"
#include "llmc/weights/travel.h"
#include "llmc/weights/weights.h"

typedef struct Stack {
    char *folder; // of the C3 model
    int hold;     // keeps a run from removing it
    Qwen2Config config;
    DType dtype; // of config.json: the embedding's
    SpecialTokens specials;
    C3Params params;            // names of the tensors
    Travel travel;              // the tokenizer
    SafeTensors *files[2];      // the root's, the encoder's
    const SafeTensors *s;       // the one of the two that has the stack
    const SafeTensor **tensors; // (n)
    SafeEntry *entries;         // (n) tensors as they are written
    int n;
} Stack;

static void stack_close(Stack *s) {
    weights_close_c3(s->files);
    free(s->tensors);
    free(s->entries);
    params_free(&s->params);
    travel_close(&s->travel);
    checkpoint_release(&s->hold);
    free(s->folder);
}

static void add_tensor(Stack *s, const SafeTensor *t, const char *name, int64_t rows) {
    SafeEntry e = {.name = name, .dtype = t->dtype, .dims = t->dims};
    memcpy(e.shape, t->shape, sizeof e.shape);
    e.shape[0] = rows; // without the vocabulary's padding
    s->tensors[s->n] = t;
    s->entries[s->n++] = e;
}

// The stack's tensors in the table's order; last an encoder's head, which is not in the table.
static int list_tensors(Stack *s, const ParamTable *table, ParamOwner owner, Error *err) {
    s->tensors = alloc((size_t)table->n + 1, sizeof *s->tensors, "list of tensors");
    s->entries = alloc((size_t)table->n + 1, sizeof *s->entries, "list of tensors");
    TRY(weights_check_layers(s->s, table, owner, err));
    TRY(weights_check_tied(s->s, s->config.tied, err));
    for (int i = 0; i < table->n; i++) {
        const Param *p = &table->params[i];
        if (p->owner != owner) continue;
        const SafeTensor *t = weights_find(s->s, p, 0, err);
        if (!t) return -1;
        add_tensor(s, t, p->name, p->rows);
        if (strcmp(p->name, "model.embed_tokens.weight") == 0) s->dtype = t->dtype;
    }
    if (owner == OWNER_DECODER || s->config.tied) return 0;
    const SafeTensor *head = safetensors_find(s->s, "lm_head.weight");
    int usable =
        head && head->supported && head->dims == 2 && head->shape[0] >= s->config.V && head->shape[1] == s->config.D;
    if (usable) add_tensor(s, head, head->name, s->config.V);
    else s->config.tied = 1; // the encoder was trained without a head
    return 0;
}

// The tokenizer the model was trained with; without one, the notes say so.
static int read_tokenizer(Stack *s, Error *err) {
    ModelFiles files;
    Tokenizer *tokenizer = NULL;
    ModelChoice o = {.model = s->folder};
    Error none;
    int bad = model_files_shapes(&files, &o, 0, err);
    if (!bad && model_files_find_tokenizer(&files, &o, &none) != 0) {
        s->travel.notes = string_copy(none.text);
    } else if (!bad) {
        bad = model_files_tokenizer(&tokenizer, &files, err);
        if (!bad) bad = travel_open(&s->travel, tokenizer, files.tokenizer, NULL, 0, 0, err);
    }
    tokenizer_free(tokenizer);
    model_files_close(&files);
    return bad;
}

static int stack_open(Stack *s, const char *model, ParamOwner owner, Error *err) {
    C3Config c;
    TRY(checkpoint_hold(&s->folder, &s->hold, model, err));
    TRY(config_read_c3(&c, s->folder, err));
    TRY(weights_open_c3(s->files, s->folder, err));
    s->s = s->files[owner == OWNER_ENCODER];
    s->config = owner == OWNER_ENCODER ? c.enc : c.dec;
    s->specials = c.specials;
    TRY(params_build(&s->params, &c, 1, err));
    TRY(list_tensors(s, &s->params.table, owner, err));
    return read_tokenizer(s, err);
}

static int copy_tensor(SafeWriter *w, const Stack *s, const SafeTensor *t, const SafeEntry *e, Error *err) {
    size_t n = 1;
    for (int d = 0; d < e->dims; d++) n *= (size_t)e->shape[d];
    return weights_check_tensor(s->s, t, n, w, err);
}

static int write_tensors(const Stack *s, const char *folder, Error *err) {
    char *path = string_format("%s/model.safetensors", folder);
    SafeWriter *w = NULL;
    int bad = safetensors_writer_open(&w, path, s->entries, s->n, weights_metadata, 1, err);
    for (int i = 0; i < s->n && !bad; i++) bad = copy_tensor(w, s, s->tensors[i], &s->entries[i], err);
    free(path);
    return safetensors_writer_end(w, bad, err);
}

static int write_folder(const Stack *s, const char *temporary, const char *out, Error *err) {
    TRY(file_make_dirs(temporary, err));
    TRY(config_write_qwen2(&s->config, s->dtype, &s->specials, temporary, err));
    TRY(write_tensors(s, temporary, err));
    TRY(travel_write(&s->travel, temporary, err));
    TRY(file_sync_dir(temporary, err));
    if (rename(temporary, out) == 0) return 0;
    return error_set(err, "%s: cannot rename to %s: %s", temporary, out, strerror(errno));
}

int extract_stack(char **notes, const char *model, ParamOwner owner, const char *out, Error *err) {
    *notes = NULL;
    if (file_exists(out)) return error_set(err, "%s: is there already (hint: -o names a new folder)", out);
    Stack s = {0};
    int bad = stack_open(&s, model, owner, err);
    size_t length = strlen(out);
    while (length > 1 && out[length - 1] == '/') length--;
    char *temporary = string_format("%.*s.tmp", (int)length, out);
    if (!bad && file_exists(temporary)) {
        bad =
            error_set(err, "%s: is there already (hint: a c3 extract that was killed leaves it; remove it)", temporary);
    } else if (!bad) {
        bad = write_folder(&s, temporary, out, err);
        if (bad) (void)file_remove_tree(temporary, NULL);
    }
    free(temporary);
    if (!bad) {
        *notes = s.travel.notes;
        s.travel.notes = NULL;
    }
    stack_close(&s);
    return bad;
}
