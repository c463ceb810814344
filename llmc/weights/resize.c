// resize.c: see resize.h. A table over the vocabulary is filled in runs of rows, each of which is read from wherever
// the file has these tokens, or is new.
#include "llmc/weights/resize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/model/config.h"
#include "llmc/base/random.h"
#include "llmc/weights/weights.h"

enum { SPECIALS = 6, MOST_SAMPLES = 4096 };
static const float noise = 0.1f; // of the spread of the old rows

// ---- new rows ------------------------------------------------------------------------------------------------------

// The rows of a tensor and their statistics, for drawing more of them.
typedef struct Rows {
    const SafeTensors *files;
    const SafeTensor *t;
    int n, cols;
    float *row;    // (cols) the last that rows_get read
    double *mean;  // (cols)
    double spread; // root of the mean square distance of an element from its column's mean
    float *draws;  // (cols)
    void *narrow;  // (cols) in the run's element type
} Rows;

static void rows_close(Rows *r) {
    free(r->row);
    free(r->mean);
    free(r->draws);
    free(r->narrow);
}

static int rows_get(Rows *r, int i, Error *err) {
    const size_t from = (size_t)i * (size_t)r->cols;
    const char *in = (const char *)r->t->data + from * dtype_size(r->t->dtype);
    safetensors_convert(r->row, DTYPE_F32, in, r->t->dtype, (size_t)r->cols);
    return weights_check_finite(r->row, DTYPE_F32, (size_t)r->cols, r->files, r->t, from, err);
}

// Mean of each column and spread around it, of at most MOST_SAMPLES rows evenly spread over the table.
static int rows_open(Rows *r, const SafeTensors *s, const SafeTensor *t, int cols, Error *err) {
    const size_t width = (size_t)cols;
    *r = (Rows){.files = s, .t = t, .n = (int)t->shape[0], .cols = cols};
    r->row = alloc(width, sizeof *r->row, "new rows");
    r->draws = alloc(width, sizeof *r->draws, "new rows");
    r->narrow = alloc(width, sizeof(float), "new rows");
    r->mean = alloc_zeroed(width, sizeof *r->mean, "new rows");
    const int samples = r->n < MOST_SAMPLES ? r->n : MOST_SAMPLES;
    double squares = 0, of_means = 0;
    for (int i = 0; i < samples; i++) {
        TRY(rows_get(r, (int)((int64_t)i * r->n / samples), err));
        for (size_t k = 0; k < width; k++) {
            r->mean[k] += (double)r->row[k] / samples;
            squares += (double)r->row[k] * r->row[k];
        }
    }
    for (size_t k = 0; k < width; k++) of_means += r->mean[k] * r->mean[k];
    double variance = (squares / samples - of_means) / (double)width;
    r->spread = variance > 0 ? sqrt(variance) : 0;
    return 0;
}

// Writes row i of parameter p: old row `like` (< 0: the mean of all) plus noise.
static int write_new_row(const Resizer *a, Rows *r, const Param *p, int i, int like, Error *err) {
    Backend *b = a->backend;
    const size_t width = (size_t)r->cols, even = (width + 1) / 2 * 2;
    uint64_t stream = random_stream(a->seed, (uint64_t)(p - a->params->table.params));
    random_normal(r->draws, stream, (size_t)i * even, width, noise * (float)r->spread);
    if (like >= 0) TRY(rows_get(r, like, err));
    for (size_t k = 0; k < width; k++) r->draws[k] += like >= 0 ? r->row[k] : (float)r->mean[k];
    safetensors_convert(r->narrow, b->dtype, r->draws, DTYPE_F32, width);
    b->upload(b, elem_at(b, a->weights, p->offset + (size_t)i * width), r->narrow, width * dtype_size(b->dtype));
    return 0;
}

// Reads rows from.. of the tensor into rows to.. of the parameter, n of them.
static int read_rows(const Resizer *a, const Param *p, const SafeTensors *s, const SafeTensor *t, int to, int from,
                     int n, Error *err) {
    Backend *b = a->backend;
    const size_t width = (size_t)p->cols;
    return weights_read(b, elem_at(b, a->weights, p->offset + (size_t)to * width), b->dtype, s, t, (size_t)from * width,
                        (size_t)n * width, err);
}

// ---- vocabulary ----------------------------------------------------------------------------------------------------

typedef struct Numbering {
    int base, rows, specials[SPECIALS];
} Numbering;

static Numbering numbering(int base, int rows) {
    SpecialTokens s = config_specials(base);
    return (Numbering){base, rows, {s.endoftext, s.im_start, s.im_end, s.img, s.img_end, s.img_pad}};
}

// The files' row for token `row` of the model; -1: none.
static int row_in_files(int row, const Numbering *model, const Numbering *files) {
    int found = -1;
    if (model->base == files->base || (row < model->base && row < files->base)) found = row;
    for (int k = 0; k < SPECIALS && model->base != files->base; k++) {
        if (row == model->specials[k]) found = files->specials[k];
    }
    return found < files->rows ? found : -1;
}

typedef struct RowCount {
    int kept, fresh;
} RowCount;

static int read_table(const Resizer *a, const Param *p, const SafeTensors *s, const SafeTensor *t, int base,
                      RowCount *count, Error *err) {
    Numbering model = numbering(a->base, p->rows), files = numbering(base, (int)t->shape[0]);
    Rows rows = {0};
    int bad = 0;
    *count = (RowCount){0};
    for (int row = 0, next; row < p->rows && !bad; row = next) {
        int from = row_in_files(row, &model, &files);
        for (next = row + 1; next < p->rows; next++) {
            int other = row_in_files(next, &model, &files);
            if (from < 0 ? other >= 0 : other != from + next - row) break;
        }
        if (from >= 0) {
            count->kept += next - row;
            bad = read_rows(a, p, s, t, row, from, next - row, err);
            continue;
        }
        if (!rows.t) bad = rows_open(&rows, s, t, p->cols, err);
        for (int i = row; i < next && !bad; i++) bad = write_new_row(a, &rows, p, i, -1, err);
        count->fresh += next - row;
    }
    rows_close(&rows);
    return bad;
}

static void note_table(Resizer *a, const Param *p, const SafeTensors *s, int base, int file_rows, RowCount n) {
    const char *stack = p->owner == OWNER_ENCODER ? "encoder" : "decoder";
    const char *table = strcmp(p->name, "lm_head.weight") == 0 ? "head" : "embedding";
    if (n.fresh == 0 && n.kept == file_rows) return;
    if (base != a->base)
        string_append(&a->notes, "  %-14s %s: %d base tokens in the files, %d here\n", stack, table, base, a->base);
    if (n.kept < file_rows)
        string_append(&a->notes, "  %-14s %s: %d of the %d rows in %s are left out\n", stack, table, file_rows - n.kept,
                      file_rows, safetensors_path(s, NULL));
    if (n.fresh > 0)
        string_append(&a->notes, "  %-14s %s: %d of %d rows are new (the mean of the old ones, and noise)\n", stack,
                      table, n.fresh, p->rows);
}

// The table of a parameter over the vocabulary, as config.json describes it.
static const SafeTensor *find_vocabulary_table(const SafeTensors *s, const Param *p, int rows, Error *err) {
    const SafeTensor *t = weights_find(s, p, 1, err);
    if (t && t->shape[0] >= rows && t->shape[0] <= INT32_MAX) return t;
    if (t)
        error_set(err, "%s: tensor \"%s\": expected at least the %d rows that config.json says, found %lld",
                  safetensors_path(s, t), p->name, rows, (long long)t->shape[0]);
    return NULL;
}

int resize_stack(Resizer *a, ParamOwner owner, const SafeTensors *s, FileVocab config, Error *err) {
    Backend *b = a->backend;
    const ParamTable *table = &a->params->table;
    TRY(weights_check_layers(s, table, owner, err));
    TRY(weights_check_tied(s, config.tied, err));
    for (int i = 0; i < table->n; i++) {
        const Param *p = &table->params[i];
        if (p->owner != owner) continue;
        int over = weights_over_vocabulary(p);
        const SafeTensor *t = over ? find_vocabulary_table(s, p, config.rows, err) : weights_find(s, p, 0, err);
        if (!t) return -1;
        if (!a->weights) continue;
        if (!over) {
            TRY(weights_read(b, elem_at(b, a->weights, p->offset), b->dtype, s, t, 0, p->count, err));
            continue;
        }
        RowCount count;
        TRY(read_table(a, p, s, t, config.base, &count, err));
        note_table(a, p, s, config.base, (int)t->shape[0], count);
    }
    return 0;
}

// ---- the cascade ---------------------------------------------------------------------------------------------------

static int read_cascade_tensor(const Resizer *a, const SafeTensors *s, const char *name, Error *err) {
    Backend *b = a->backend;
    const Param *p = params_find(&a->params->table, OWNER_CASCADE, name);
    const SafeTensor *t = weights_find(s, p, 0, err);
    if (!t) return -1;
    return a->weights ? weights_read(b, elem_at(b, a->weights, p->offset), b->dtype, s, t, 0, p->count, err) : 0;
}

int resize_projector(Resizer *a, const SafeTensors *s, Error *err) {
    TRY(read_cascade_tensor(a, s, "model.mm_projector.weight", err));
    return read_cascade_tensor(a, s, "model.mm_projector.bias", err);
}

int resize_queries(Resizer *a, const SafeTensors *s, int latents, Error *err) {
    const Param *p = params_find(&a->params->table, OWNER_CASCADE, "model.Q.weight");
    const SafeTensor *t = weights_find(s, p, 1, err);
    if (!t) return -1;
    if (t->shape[0] != latents)
        return error_set(err, "%s: tensor \"%s\": expected the %d rows that config.json says, found %lld",
                         safetensors_path(s, t), p->name, latents, (long long)t->shape[0]);
    if (!a->weights) return 0;
    const int old = t->shape[0] < p->rows ? (int)t->shape[0] : p->rows;
    TRY(read_rows(a, p, s, t, 0, 0, old, err));
    if (t->shape[0] > p->rows)
        string_append(&a->notes, "  %-14s the first %d of the %lld in %s; the others are left out\n", "latents",
                      p->rows, (long long)t->shape[0], safetensors_path(s, NULL));
    if (old == p->rows) return 0;
    Rows rows = {0};
    int bad = rows_open(&rows, s, t, p->cols, err);
    for (int i = old; i < p->rows && !bad; i++) bad = write_new_row(a, &rows, p, i, i % old, err);
    rows_close(&rows);
    string_append(&a->notes, "  %-14s %d, of which %d are in %s; the others are copies of these, and noise\n",
                  "latents", p->rows, old, safetensors_path(s, NULL));
    return bad;
}
