// weights.c: see weights.h. Elements flow through one small buffer: there is never a second copy of the model.
#include "llmc/weights/weights.h"

#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/base/file.h"
#include "llmc/base/sha256.h"

enum { PIECE_BYTES = 1 << 24 };
static const char embedding_name[] = "model.embed_tokens.weight", head_name[] = "lm_head.weight";
static const char base_model[] = "model."; // transformers' prefix; files of the base model alone are without it
enum { BASE_MODEL = sizeof base_model - 1 };

static int has_prefix(const char *name) { return strncmp(name, base_model, BASE_MODEL) == 0; }

// ---- pieces --------------------------------------------------------------------------------------------------------

int weights_write(SafeWriter *w, Backend *b, const void *device, size_t bytes, Error *err) {
    size_t piece = bytes < PIECE_BYTES ? bytes : PIECE_BYTES;
    char *host = alloc(piece, 1, "a piece of a tensor");
    int bad = 0;
    for (size_t at = 0; !bad && at < bytes; at += piece) {
        size_t n = bytes - at < piece ? bytes - at : piece;
        b->download(b, host, (const char *)device + at, n);
        bad = safetensors_writer_data(w, host, n, err);
    }
    free(host);
    return bad;
}

int weights_check_finite(const void *x, DType type, size_t n, const SafeTensors *s, const SafeTensor *t, size_t from,
                         Error *err) {
    size_t i = safetensors_not_finite(x, type, n);
    if (i == n) return 0;
    return error_set(err,
                     "%s: tensor \"%s\": element %zu is NaN or infinite (hint: the file is damaged, or the training "
                     "that made it had gone wrong)",
                     safetensors_path(s, t), t->name, from + i);
}

int weights_check_tensor(const SafeTensors *s, const SafeTensor *t, size_t n, SafeWriter *copy, Error *err) {
    const size_t size = dtype_size(t->dtype), piece = PIECE_BYTES / size;
    for (size_t at = 0; at < n; at += piece) {
        size_t count = n - at < piece ? n - at : piece;
        const char *data = (const char *)t->data + at * size;
        TRY(weights_check_finite(data, t->dtype, count, s, t, at, err));
        if (copy) TRY(safetensors_writer_data(copy, data, count * size, err));
        file_map_done(data, count * size);
    }
    return 0;
}

// Pieces of the file are released after use: the whole mapping would count as a second copy of the model.
int weights_read(Backend *b, void *device, DType type, const SafeTensors *s, const SafeTensor *t, size_t from, size_t n,
                 Error *err) {
    const size_t size = dtype_size(type), in_size = dtype_size(t->dtype), most = PIECE_BYTES / size;
    const size_t piece = n < most ? n : most;
    const char *in = (const char *)t->data + from * in_size;
    char *host = t->dtype == type ? NULL : alloc(piece, size, "a piece of a tensor");
    int bad = 0;
    for (size_t at = 0; at < n && !bad; at += piece) {
        size_t count = n - at < piece ? n - at : piece;
        if (host) safetensors_convert(host, type, in + at * in_size, t->dtype, count);
        const void *values = host ? host : in + at * in_size;
        bad = weights_check_finite(values, type, count, s, t, from + at, err);
        if (!bad) b->upload(b, (char *)device + at * size, values, count * size);
        file_map_done(in + at * in_size, count * in_size);
    }
    free(host);
    return bad;
}

// ---- loading -------------------------------------------------------------------------------------------------------

static const char *shape_text(char text[64], const int64_t *shape, int dims) {
    int n = snprintf(text, 64, "(");
    for (int i = 0; i < dims && n < 40; i++)
        n += snprintf(text + n, 64 - (size_t)n, "%s%lld", i ? ", " : "", (long long)shape[i]);
    snprintf(text + n, 64 - (size_t)n, ")");
    return text;
}

int weights_over_vocabulary(const Param *p) {
    return strcmp(p->name, embedding_name) == 0 || strcmp(p->name, head_name) == 0;
}

static const SafeTensor *find_named(const SafeTensors *s, const char *name) {
    const SafeTensor *t = safetensors_find(s, name);
    return t || !has_prefix(name) ? t : safetensors_find(s, name + BASE_MODEL);
}

static int error_missing(const SafeTensors *s, const char *name, Error *err) {
    const char *file = safetensors_path(s, NULL);
    if (strcmp(name, head_name) == 0)
        return error_set(err,
                         "%s: tensor \"%s\" is missing (hint: a model whose head is its embedding says "
                         "\"tie_word_embeddings\": true in config.json)",
                         file, name);
    if (strcmp(name, embedding_name) == 0 && safetensors_find(s, head_name))
        return error_set(err,
                         "%s: tensor \"%s\" is missing, \"%s\" is there (hint: where they are one tensor, store it as "
                         "the embedding: load the model with transformers and save_pretrained it)",
                         file, name, head_name);
    int n = safetensors_count(s);
    return error_set(err, "%s: tensor \"%s\" is missing among %d tensors%s%.100s%s", file, name, n,
                     n ? " such as \"" : "", n ? safetensors_at(s, 0)->name : "",
                     n ? "\" (hint: is it a Qwen2 model, as config.json says?)" : "");
}

const SafeTensor *weights_find(const SafeTensors *s, const Param *p, int any_rows, Error *err) {
    const SafeTensor *t = find_named(s, p->name);
    if (!t) {
        error_missing(s, p->name, err);
        return NULL;
    }
    if (!t->supported) {
        error_set(err, "%s: tensor \"%s\": expected F32, BF16 or F16, found %s", safetensors_path(s, t), p->name,
                  t->type);
        return NULL;
    }
    const int64_t expected[2] = {p->rows, p->cols};
    int longer = weights_over_vocabulary(p) && t->dims > 0 && t->shape[0] > p->rows;
    if (t->dims == p->dims && (t->shape[0] == p->rows || longer || (any_rows && t->shape[0] > 0)) &&
        (p->dims == 1 || t->shape[1] == p->cols))
        return t;
    char a[64], b[64];
    error_set(err, "%s: tensor \"%s\": expected shape %s, found %s", safetensors_path(s, t), p->name,
              shape_text(a, expected, p->dims), shape_text(b, t->shape, t->dims));
    return NULL;
}

static int ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

const Param *weights_param(const ParamTable *table, ParamOwner owner, const char *name) {
    const Param *p = params_find(table, owner, name);
    char full[2 * sizeof p->name];
    snprintf(full, sizeof full, "%s%s", base_model, name);
    return p ? p : params_find(table, owner, full);
}

int weights_check_layers(const SafeTensors *s, const ParamTable *table, ParamOwner owner, Error *err) {
    for (int i = 0; i < safetensors_count(s); i++) {
        const SafeTensor *t = safetensors_at(s, i);
        const char *plain = t->name + (has_prefix(t->name) ? BASE_MODEL : 0);
        if (strncmp(plain, "layers.", 7) != 0 || weights_param(table, owner, t->name)) continue;
        if (ends_with(t->name, ".rotary_emb.inv_freq")) continue; // in old files; config.json determines it
        return error_set(err,
                         "%s: tensor \"%s\" is no part of the model that config.json describes (hint: is "
                         "num_hidden_layers right, is it a Qwen2 model?)",
                         safetensors_path(s, t), t->name);
    }
    return 0;
}

// Elements [at, at + n) of both as fp32.
static int same_piece(const SafeTensor *a, const SafeTensor *b, size_t at, size_t n, float *x, float *y) {
    const size_t size_a = dtype_size(a->dtype), size_b = dtype_size(b->dtype);
    const char *in_a = (const char *)a->data + at * size_a, *in_b = (const char *)b->data + at * size_b;
    safetensors_convert(x, DTYPE_F32, in_a, a->dtype, n);
    safetensors_convert(y, DTYPE_F32, in_b, b->dtype, n);
    file_map_done(in_a, n * size_a);
    file_map_done(in_b, n * size_b);
    return memcmp(x, y, n * sizeof *x) == 0;
}

int weights_check_tied(const SafeTensors *s, int tied, Error *err) {
    const SafeTensor *e = find_named(s, embedding_name), *h = safetensors_find(s, head_name);
    if (!tied || !e || !h) return 0;
    const size_t n = e->supported ? e->bytes / dtype_size(e->dtype) : 0, most = PIECE_BYTES / 2 / sizeof(float);
    int same = e->supported && h->supported && e->dims == h->dims && memcmp(e->shape, h->shape, sizeof e->shape) == 0;
    float *x = alloc(2 * most, sizeof *x, "comparing embedding and head");
    for (size_t at = 0; same && at < n; at += most)
        same = same_piece(e, h, at, n - at < most ? n - at : most, x, x + most);
    free(x);
    if (same) return 0;
    return error_set(
        err,
        "%s: tensor \"%s\" is not the embedding, but config.json says \"tie_word_embeddings\": true (hint: "
        "transformers 4 leaves this tensor out, transformers 5 uses it: say false to use it, or remove it)",
        safetensors_path(s, h), head_name);
}

static int load_owner(Backend *b, elem_t *weights, const ParamTable *table, ParamOwner owner, const SafeTensors *s,
                      Error *err) {
    for (int i = 0; i < table->n; i++) {
        const Param *p = &table->params[i];
        if (p->owner != owner) continue;
        const SafeTensor *t = weights_find(s, p, 0, err);
        if (!t) return -1;
        TRY(weights_read(b, elem_at(b, weights, p->offset), b->dtype, s, t, 0, p->count, err));
    }
    return owner == OWNER_CASCADE ? 0 : weights_check_layers(s, table, owner, err);
}

int weights_open_c3(SafeTensors *files[2], const char *folder, Error *err) {
    char *llm1 = string_format("%s/llm1", folder);
    files[1] = NULL;
    int bad = safetensors_open(&files[0], folder, err);
    if (!bad) bad = safetensors_open(&files[1], llm1, err);
    free(llm1);
    if (!bad) return 0;
    weights_close_c3(files);
    files[0] = NULL;
    return -1;
}

void weights_close_c3(SafeTensors *files[2]) {
    safetensors_close(files[0]);
    safetensors_close(files[1]);
}

int checkpoint_load_weights(Backend *b, elem_t *weights, const C3Params *p, const C3Config *c, const char *folder,
                            Error *err) {
    SafeTensors *files[2];
    TRY(weights_open_c3(files, folder, err));
    int bad = load_owner(b, weights, &p->table, OWNER_ENCODER, files[1], err);
    if (!bad) bad = load_owner(b, weights, &p->table, OWNER_CASCADE, files[0], err);
    if (!bad) bad = weights_check_tied(files[0], c->dec.tied, err);
    if (!bad) bad = load_owner(b, weights, &p->table, OWNER_DECODER, files[0], err);
    weights_close_c3(files);
    return bad;
}

// ---- saving --------------------------------------------------------------------------------------------------------

const char *const weights_metadata[1][2] = {{"format", "pt"}};

static int in_file(const Param *p, int encoder) { return (p->owner == OWNER_ENCODER) == encoder; }

// One model.safetensors: the encoder's, or everything else.
static int save_file(Backend *b, const elem_t *weights, const ParamTable *table, int encoder, const char *folder,
                     FileSum *sum, Error *err) {
    *sum = (FileSum){0};
    snprintf(sum->name, sizeof sum->name, "%smodel.safetensors", encoder ? "llm1/" : "");
    char *path = string_format("%s/%s", folder, sum->name);
    SafeEntry *entries = alloc((size_t)table->n, sizeof *entries, "list of tensors");
    int n = 0;
    for (int i = 0; i < table->n; i++) {
        const Param *p = &table->params[i];
        if (in_file(p, encoder))
            entries[n++] =
                (SafeEntry){.name = p->name, .dtype = b->dtype, .dims = p->dims, .shape = {p->rows, p->cols}};
    }
    SafeWriter *w = NULL;
    int bad = safetensors_writer_open(&w, path, entries, n, weights_metadata, 1, err);
    for (int i = 0; i < table->n && !bad; i++) {
        const Param *p = &table->params[i];
        if (in_file(p, encoder))
            bad = weights_write(w, b, elem_at(b, weights, p->offset), p->count * dtype_size(b->dtype), err);
    }
    if (!bad) sum->crc = safetensors_writer_crc(w, &sum->bytes);
    bad = safetensors_writer_end(w, bad, err);
    free(entries);
    free(path);
    return bad;
}

int weights_save(Backend *b, const elem_t *weights, const C3Params *p, const C3Config *c, const char *folder,
                 FileSum sums[2], Error *err) {
    C3Config saved = *c;
    saved.dtype = b->dtype;
    TRY(config_write_c3(&saved, folder, err));
    TRY(save_file(b, weights, &p->table, 0, folder, &sums[0], err));
    return save_file(b, weights, &p->table, 1, folder, &sums[1], err);
}

// ---- fingerprint ---------------------------------------------------------------------------------------------------

static void hash_number(Sha256 *sha, uint64_t n) {
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(n >> 8 * i);
    sha256_update(sha, bytes, sizeof bytes);
}

// Names with their zero byte, shapes as dimensions and sizes in 64 bits, then the bytes; sorted by name.
static void hash_tensors(Sha256 *sha, const SafeTensors *s, const char *prefix) {
    for (int i = 0; i < safetensors_count(s); i++) {
        const SafeTensor *t = safetensors_at(s, i);
        sha256_update(sha, prefix, strlen(prefix));
        sha256_update(sha, t->name, strlen(t->name) + 1);
        hash_number(sha, (uint64_t)t->dims);
        for (int d = 0; d < t->dims; d++) hash_number(sha, (uint64_t)t->shape[d]);
        for (size_t at = 0; at < t->bytes; at += PIECE_BYTES) {
            size_t n = t->bytes - at < PIECE_BYTES ? t->bytes - at : PIECE_BYTES;
            const uint8_t *data = (const uint8_t *)t->data + at;
            sha256_update(sha, data, n);
            file_map_done(data, n);
        }
    }
}

int checkpoint_fingerprint(char hex[65], const char *folder, Error *err) {
    char *llm1 = string_format("%s/llm1", folder);
    SafeTensors *files[2] = {NULL, NULL};
    int bad = file_exists(llm1) ? weights_open_c3(files, folder, err) : safetensors_open(&files[0], folder, err);
    free(llm1);
    if (bad) return -1;
    Sha256 sha;
    sha256_init(&sha);
    hash_tensors(&sha, files[0], "");
    if (files[1]) hash_tensors(&sha, files[1], "llm1/");
    sha256_final_hex(&sha, hex);
    weights_close_c3(files);
    return 0;
}
