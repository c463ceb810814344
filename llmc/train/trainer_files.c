// trainer_files.c: see trainer_files.h. Optimizer state is stored as pieces of buckets, "KIND.BUCKET.FIRST_ELEMENT".
// Positions inside a bucket do not depend on the number of ranks, so any number of ranks finds its pieces in the files
// of any other; padding depends on it and is not stored.
#include "llmc/train/trainer_files.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/base/file.h"
#include "llmc/train/run_writer.h" // run_write_json

enum { MAX_STATE_BYTES = 1 << 20, MAX_RANKS = 1 << 16 };

// ---- state.json, settings.json -------------------------------------------------------------------------------------

// 64-bit numbers are written as texts: JSON's are doubles.
static void put_u64(cJSON *json, const char *key, uint64_t value) {
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    cJSON_AddStringToObject(json, key, text);
}

static int get_u64(uint64_t *out, const cJSON *json, const char *key, const char *path, Error *err) {
    const char *text = NULL;
    TRY(json_text(&text, json, key, path, err));
    uint64_t value = 0;
    int bad = *text == 0;
    for (const char *c = text; *c && !bad; c++)
        bad = *c < '0' || *c > '9' || __builtin_mul_overflow(value, 10u, &value) ||
              __builtin_add_overflow(value, (uint64_t)(*c - '0'), &value);
    if (bad) return error_set(err, "%s: \"%s\": expected a 64-bit number in quotes, found \"%s\"", path, key, text);
    *out = value;
    return 0;
}

// cJSON's own numbers do not all read back as the same double.
static void put_exactly(cJSON *json, const char *key, double value) {
    char text[32];
    snprintf(text, sizeof text, "%.17g", value);
    cJSON_AddRawToObject(json, key, text);
}

// What only some runs have.
static void put_sets(cJSON *json, const TrainState *s) {
    cJSON *sets = cJSON_AddArrayToObject(json, "sets");
    for (int i = 0; i < s->n_sets; i++) {
        cJSON *set = cJSON_CreateObject();
        cJSON_AddItemToArray(sets, set);
        cJSON_AddStringToObject(set, "name", s->set_names[i]);
        put_u64(set, "pages_taken", s->loader.taken[i]);
        cJSON_AddNumberToObject(set, "tokens_seen", s->set_tokens[i]);
    }
}

static void put_best(cJSON *json, const BestValidation *b) {
    cJSON *best = cJSON_AddObjectToObject(json, "best_validation");
    put_exactly(best, "loss", b->loss);
    cJSON_AddNumberToObject(best, "step", (double)b->step);
    cJSON_AddNumberToObject(best, "validations_since", (double)b->since);
}

static cJSON *state_json(const TrainState *s, int ranks, DType dtype) {
    cJSON *json = cJSON_CreateObject();
    char hex[65];
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", s->tokenizer[i]);
    cJSON_AddNumberToObject(json, "format", s->n_sets > 1 ? 3 : 2);
    cJSON_AddNumberToObject(json, "step", (double)s->step);
    cJSON_AddNumberToObject(json, "tokens_seen", s->tokens_seen);
    put_u64(json, "loader_seed", s->loader.seed);
    put_u64(json, "loader_epoch", s->loader.epoch);
    put_u64(json, "loader_position", s->loader.position);
    put_u64(json, "dataset", s->loader.dataset);
    cJSON_AddStringToObject(json, "tokenizer", hex);
    cJSON_AddNumberToObject(json, "ranks", ranks);
    cJSON_AddStringToObject(json, "dtype", dtype == DTYPE_F32 ? "fp32" : "bf16");
    if (s->n_sets > 1) put_sets(json, s);
    if (s->best.is_known) put_best(json, &s->best);
    if (s->plain_start > 0 && isfinite(s->plain_start)) put_exactly(json, "plain_perplexity_at_start", s->plain_start);
    return json;
}

static int parse_fingerprint(uint8_t out[32], const cJSON *json, const char *path, Error *err) {
    const char *hex = NULL;
    TRY(json_text(&hex, json, "tokenizer", path, err));
    int bad = strlen(hex) != 64 || strspn(hex, "0123456789abcdef") != 64;
    for (int i = 0; i < 32 && !bad; i++) {
        char pair[3] = {hex[2 * i], hex[2 * i + 1], 0};
        out[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    return bad ? error_set(err, "%s: \"tokenizer\": expected 64 hex digits, found \"%s\"", path, hex) : 0;
}

static int parse_sets(TrainState *s, const cJSON *json, const char *path, Error *err) {
    const cJSON *sets = json_find(json, "sets"), *set;
    if (!sets) return 0;
    if (!cJSON_IsArray(sets) || cJSON_GetArraySize(sets) > DATA_MAX_SETS)
        return error_set(err, "%s: \"sets\": expected a list of at most %d", path, DATA_MAX_SETS);
    cJSON_ArrayForEach(set, sets) {
        const char *name = NULL;
        TRY(json_text(&name, set, "name", path, err));
        if (strlen(name) >= DATA_NAME) return error_set(err, "%s: \"sets\": a name is too long: \"%s\"", path, name);
        strcpy(s->set_names[s->n_sets], name);
        TRY(get_u64(&s->loader.taken[s->n_sets], set, "pages_taken", path, err));
        TRY(json_real(&s->set_tokens[s->n_sets], set, "tokens_seen", 0, 1e18, path, err));
        s->n_sets++;
    }
    return 0;
}

static int parse_best(BestValidation *b, const cJSON *json, const char *path, Error *err) {
    const cJSON *best = json_find(json, "best_validation");
    if (!best) return 0;
    b->is_known = 1;
    TRY(json_real(&b->loss, best, "loss", 0, 1e9, path, err));
    TRY(json_int(&b->step, best, "step", 0, (int64_t)1 << 40, path, err));
    return json_int(&b->since, best, "validations_since", 0, (int64_t)1 << 40, path, err);
}

static int parse_state(TrainState *s, int *ranks, const cJSON *json, const char *path, Error *err) {
    int64_t number = 0;
    uint64_t dataset = 0;
    TRY(json_int(&number, json, "format", 1, TRAIN_STATE_FORMAT, path, err));
    s->format = (int)number;
    TRY(json_int(&s->step, json, "step", 0, (int64_t)1 << 40, path, err));
    TRY(json_real(&s->tokens_seen, json, "tokens_seen", 0, 1e18, path, err));
    TRY(get_u64(&s->loader.seed, json, "loader_seed", path, err));
    TRY(get_u64(&s->loader.epoch, json, "loader_epoch", path, err));
    TRY(get_u64(&s->loader.position, json, "loader_position", path, err));
    TRY(get_u64(&dataset, json, "dataset", path, err));
    if (dataset > UINT32_MAX) return error_set(err, "%s: \"dataset\": expected a 32-bit number", path);
    s->loader.dataset = (uint32_t)dataset;
    TRY(json_int(&number, json, "ranks", 1, MAX_RANKS, path, err));
    *ranks = (int)number;
    TRY(parse_sets(s, json, path, err));
    TRY(parse_best(&s->best, json, path, err));
    if (json_find(json, "plain_perplexity_at_start"))
        TRY(json_real(&s->plain_start, json, "plain_perplexity_at_start", 1e-9, 1e300, path, err));
    return parse_fingerprint(s->tokenizer, json, path, err);
}

static int read_json_files(TrainState *s, int *ranks, const char *state, const char *settings, Error *err) {
    cJSON *json = NULL;
    TRY(json_read(&json, state, MAX_STATE_BYTES, err));
    int bad = parse_state(s, ranks, json, state, err);
    cJSON_Delete(json);
    if (bad) return -1;
    TRY(json_read(&json, settings, MAX_STATE_BYTES, err)); // is it an object?
    cJSON_Delete(json);
    size_t size = 0;
    return file_read(&s->settings, &size, settings, err);
}

// ---- history.safetensors -------------------------------------------------------------------------------------------

static int write_history(const TrainState *s, const char *path, Error *err) {
    SafeEntry entry = {.name = "loss", .dtype = DTYPE_F32, .dims = 1, .shape = {s->step}};
    SafeWriter *w = NULL;
    TRY(safetensors_writer_open(&w, path, &entry, 1, NULL, 0, err));
    if (s->step > 0 && safetensors_writer_data(w, s->losses, (size_t)s->step * sizeof(float), err) != 0) {
        safetensors_writer_discard(w);
        return -1;
    }
    return safetensors_writer_commit(w, err);
}

static int read_history(TrainState *s, const char *path, Error *err) {
    SafeTensors *files = NULL;
    TRY(safetensors_open(&files, path, err));
    const SafeTensor *t = safetensors_find(files, "loss");
    int bad = 0;
    if (!t || !t->supported || t->dtype != DTYPE_F32 || t->dims != 1 || t->shape[0] != s->step)
        bad =
            error_set(err, "%s: expected a tensor \"loss\" of %lld F32 numbers, one a step", path, (long long)s->step);
    if (!bad && !(s->losses = malloc(t->bytes + 1))) bad = error_set(err, "%s: out of memory", path);
    if (!bad) memcpy(s->losses, t->data, t->bytes);
    s->room = (size_t)s->step;
    safetensors_close(files);
    return bad;
}

// ---- the three together --------------------------------------------------------------------------------------------

static const char *const state_names[3] = {"trainer/state.json", "trainer/settings.json",
                                           "trainer/history.safetensors"};

static void make_paths(char *paths[3], const char *folder) {
    for (int i = 0; i < 3; i++) paths[i] = string_format("%s/%s", folder, state_names[i]);
}

static void free_paths(char *paths[3]) {
    for (int i = 0; i < 3; i++) free(paths[i]);
}

int trainer_write_state(const TrainState *s, int ranks, DType dtype, const char *folder, FileSum sums[3], Error *err) {
    char *paths[3];
    make_paths(paths, folder);
    int bad = run_write_json(state_json(s, ranks, dtype), folder, state_names[0], err);
    const char *settings = s->settings ? s->settings : "{}"; // as given: a 64-bit number would not survive cJSON
    if (!bad) bad = file_write_whole(paths[1], settings, strlen(settings), 0, err);
    if (!bad) bad = write_history(s, paths[2], err);
    for (int i = 0; i < 3 && !bad; i++) bad = trainer_sum_file(&sums[i], folder, state_names[i], err);
    free_paths(paths);
    return bad;
}

int trainer_read_state(TrainState *s, int *ranks, const char *folder, Error *err) {
    *s = (TrainState){0};
    char *paths[3];
    make_paths(paths, folder);
    int bad = read_json_files(s, ranks, paths[0], paths[1], err);
    if (!bad) bad = read_history(s, paths[2], err);
    if (bad) train_state_free(s);
    free_paths(paths);
    return bad;
}

int trainer_sum_file(FileSum *sum, const char *folder, const char *name, Error *err) {
    *sum = (FileSum){0};
    snprintf(sum->name, sizeof sum->name, "%s", name);
    char *path = string_format("%s/%s", folder, name);
    FileMap map;
    int bad = file_map(&map, path, err);
    free(path);
    if (bad) return -1;
    sum->bytes = map.size;
    sum->crc = file_crc32(0, map.data, map.size);
    file_unmap(&map);
    return 0;
}

// ---- optimizer files: writing --------------------------------------------------------------------------------------

static const char *const kinds[3] = {"m", "v", "master"};
enum { PIECE_NAME = 48 };

// Elements of a bucket that belong to tensors; padding follows.
static size_t bucket_used(const ParamTable *t, int bucket) {
    const Param *last = &t->params[t->buckets[bucket].last - 1];
    return last->offset + last->count - t->buckets[bucket].offset;
}

static float *state_of(const Optimizer *o, int kind) { return kind == 0 ? o->m : kind == 1 ? o->v : o->master; }

// The owned piece of a bucket without its padding; 0 when it is padding only.
static size_t owned_piece(const Optimizer *o, int bucket, size_t *begin, size_t *at) {
    size_t count, used = bucket_used(&o->params->table, bucket);
    optimizer_owned(o, bucket, begin, &count, at);
    if (*begin >= used) return 0;
    return *begin + count < used ? count : used - *begin;
}

static int list_pieces(SafeEntry *entries, char (*names)[PIECE_NAME], const Optimizer *o) {
    int n = 0;
    for (int k = 0; k < 3; k++) {
        for (int b = 0; state_of(o, k) && b < o->params->table.n_buckets; b++) {
            size_t begin, at, count = owned_piece(o, b, &begin, &at);
            if (count == 0) continue;
            snprintf(names[n], PIECE_NAME, "%s.%d.%zu", kinds[k], b, begin);
            entries[n] = (SafeEntry){.name = names[n], .dtype = DTYPE_F32, .dims = 1, .shape = {(int64_t)count}};
            n++;
        }
    }
    return n;
}

static int write_pieces(SafeWriter *w, const Optimizer *o, Error *err) {
    for (int k = 0; k < 3; k++) {
        for (int b = 0; state_of(o, k) && b < o->params->table.n_buckets; b++) {
            size_t begin, at, count = owned_piece(o, b, &begin, &at);
            if (count > 0) TRY(weights_write(w, o->backend, state_of(o, k) + at, count * sizeof(float), err));
        }
    }
    return 0;
}

int trainer_write_optimizer(const Optimizer *o, int rank, int ranks, const char *folder, FileSum *sum, Error *err) {
    *sum = (FileSum){0};
    snprintf(sum->name, sizeof sum->name, "trainer/optimizer_%05d.safetensors", rank);
    char *path = string_format("%s/%s", folder, sum->name), rank_text[16], ranks_text[16];
    snprintf(rank_text, sizeof rank_text, "%d", rank);
    snprintf(ranks_text, sizeof ranks_text, "%d", ranks);
    const char *const metadata[][2] = {{"rank", rank_text}, {"ranks", ranks_text}};
    size_t room = 3 * (size_t)o->params->table.n_buckets;
    SafeEntry *entries = alloc(room, sizeof *entries, "optimizer pieces");
    char(*names)[PIECE_NAME] = alloc(room, sizeof *names, "optimizer pieces");
    SafeWriter *w = NULL;
    int bad = safetensors_writer_open(&w, path, entries, list_pieces(entries, names, o), metadata, 2, err);
    if (!bad) bad = write_pieces(w, o, err);
    if (bad) {
        safetensors_writer_discard(w);
    } else {
        sum->crc = safetensors_writer_crc(w, &sum->bytes);
        bad = safetensors_writer_commit(w, err);
    }
    free(names);
    free(entries);
    free(path);
    return bad;
}

// ---- optimizer files: reading --------------------------------------------------------------------------------------

typedef struct Piece {
    int kind, bucket;
    size_t begin, count; // elements of the bucket
    const SafeTensors *file;
    const SafeTensor *tensor;
} Piece;

typedef struct Pieces {
    SafeTensors **files;
    int n_files;
    Piece *all; // (n) sorted by kind, bucket, begin
    int n;
} Pieces;

// "KIND.BUCKET.FIRST_ELEMENT", exactly as it is written.
static int parse_name(Piece *p, const char *name) {
    char kind[8], again[PIECE_NAME];
    if (sscanf(name, "%7[a-z].%9d.%18zu", kind, &p->bucket, &p->begin) != 3 || p->bucket < 0) return -1;
    for (p->kind = 0; p->kind < 3 && strcmp(kind, kinds[p->kind]) != 0;) p->kind++;
    snprintf(again, sizeof again, "%s.%d.%zu", kind, p->bucket, p->begin);
    return p->kind < 3 && strcmp(again, name) == 0 ? 0 : -1;
}

static int add_pieces(Pieces *pieces, const SafeTensors *s, const ParamTable *table, Error *err) {
    int count = safetensors_count(s);
    Piece *all = realloc(pieces->all, (size_t)(pieces->n + count + 1) * sizeof *all);
    if (!all) return error_set(err, "%s: out of memory for %d tensors", safetensors_path(s, NULL), count);
    pieces->all = all;
    for (int i = 0; i < count; i++) {
        const SafeTensor *t = safetensors_at(s, i);
        Piece *p = &all[pieces->n++];
        *p = (Piece){.file = s, .tensor = t};
        if (parse_name(p, t->name) != 0 || !t->supported || t->dtype != DTYPE_F32 || t->dims != 1)
            return error_set(err, "%s: tensor \"%s\": expected F32 pieces of optimizer state, named as m.0.0",
                             safetensors_path(s, t), t->name);
        p->count = (size_t)t->shape[0];
        size_t used = p->bucket < table->n_buckets ? bucket_used(table, p->bucket) : 0;
        if (p->begin > used || p->count > used - p->begin)
            return error_set(
                err,
                "%s: tensor \"%s\" has %zu elements: expected at most %zu elements in bucket %d of %d (another "
                "model's state?)",
                safetensors_path(s, t), t->name, p->count, used, p->bucket, table->n_buckets);
    }
    return 0;
}

static int by_place(const void *x, const void *y) {
    const Piece *a = x, *b = y;
    if (a->kind != b->kind) return a->kind - b->kind;
    if (a->bucket != b->bucket) return a->bucket < b->bucket ? -1 : 1;
    return a->begin < b->begin ? -1 : a->begin > b->begin;
}

// Pieces of a kind must cover every bucket's elements once; master may be absent altogether.
static int check_cover(const Pieces *p, const ParamTable *table, const char *folder, Error *err) {
    int i = 0;
    for (int k = 0; k < 3; k++) {
        if (k == 2 && i == p->n) return 0;
        for (int b = 0; b < table->n_buckets; b++) {
            size_t at = 0, used = bucket_used(table, b);
            for (; i < p->n && p->all[i].kind == k && p->all[i].bucket == b && p->all[i].begin == at; i++)
                at += p->all[i].count;
            if (at != used)
                return error_set(
                    err,
                    "%s/trainer: optimizer state %s of bucket %d: elements 0 to %zu are there, expected %zu, "
                    "each once",
                    folder, kinds[k], b, at, used);
        }
    }
    return i == p->n ? 0 : error_set(err, "%s/trainer: tensor \"%s\" is there twice", folder, p->all[i].tensor->name);
}

static void close_pieces(Pieces *p) {
    for (int i = 0; i < p->n_files; i++) safetensors_close(p->files[i]);
    free(p->files);
    free(p->all);
}

static int open_pieces(Pieces *p, int ranks, const ParamTable *table, const char *folder, Error *err) {
    *p = (Pieces){.files = alloc_zeroed((size_t)ranks, sizeof *p->files, "optimizer files")};
    for (int r = 0; r < ranks; r++) {
        char *path = string_format("%s/trainer/optimizer_%05d.safetensors", folder, r);
        int bad = safetensors_open(&p->files[r], path, err);
        free(path);
        if (bad) return -1;
        p->n_files++;
        TRY(add_pieces(p, p->files[r], table, err));
    }
    qsort(p->all, (size_t)p->n, sizeof *p->all, by_place);
    return check_cover(p, table, folder, err);
}

// Elements [begin, begin + count) of a bucket to device (count), in any element type.
static int read_range(const Pieces *p, int kind, int bucket, Backend *b, void *device, DType type, size_t begin,
                      size_t count, Error *err) {
    for (int i = 0; i < p->n; i++) {
        const Piece *piece = &p->all[i];
        if (piece->kind != kind || piece->bucket != bucket) continue;
        size_t from = piece->begin > begin ? piece->begin : begin, end = piece->begin + piece->count;
        size_t to = end < begin + count ? end : begin + count;
        if (from >= to) continue;
        char *out = (char *)device + (from - begin) * dtype_size(type);
        TRY(weights_read(b, out, type, piece->file, piece->tensor, from - piece->begin, to - from, err));
    }
    return 0;
}

// Master weights of a checkpoint without them are its fp32 model files: the part of one parameter that lies in the held
// piece [begin, begin + count) of its bucket.
static int load_master_of(const Optimizer *o, const Param *p, const SafeTensors *s, Error *err) {
    size_t begin, count, at, start = p->offset - o->params->table.buckets[p->bucket].offset;
    optimizer_held(o, p->bucket, &begin, &count, &at);
    size_t from = start > begin ? start : begin;
    size_t to = start + p->count < begin + count ? start + p->count : begin + count;
    if (from >= to) return 0;
    const SafeTensor *t = weights_find(s, p, 0, err);
    if (!t) return -1;
    if (t->dtype != DTYPE_F32)
        return error_set(err, "%s: tensor \"%s\" is %s and there are no master weights beside it in fp32",
                         safetensors_path(s, t), p->name, t->type);
    return weights_read(o->backend, o->master + at + (from - begin), DTYPE_F32, s, t, from - start, to - from, err);
}

static int load_master(const Optimizer *o, const char *folder, Error *err) {
    SafeTensors *files[2];
    TRY(weights_open_c3(files, folder, err));
    int bad = 0;
    for (int i = 0; i < o->params->table.n && !bad; i++) {
        const Param *p = &o->params->table.params[i];
        bad = load_master_of(o, p, files[p->owner == OWNER_ENCODER], err);
    }
    safetensors_close(files[0]);
    safetensors_close(files[1]);
    return bad;
}

static int read_all(Optimizer *o, const Pieces *p, const char *folder, Error *err) {
    const ParamTable *table = &o->params->table;
    Backend *b = o->backend;
    int has_master = p->n > 0 && p->all[p->n - 1].kind == 2;
    for (int i = 0; i < table->n_buckets; i++) {
        size_t begin, count, at, offset = table->buckets[i].offset;
        optimizer_held(o, i, &begin, &count, &at);
        TRY(read_range(p, 0, i, b, o->m + at, DTYPE_F32, begin, count, err));
        TRY(read_range(p, 1, i, b, o->v + at, DTYPE_F32, begin, count, err));
        if (!has_master) continue;
        if (o->master) TRY(read_range(p, 2, i, b, o->master + at, DTYPE_F32, begin, count, err));
        else TRY(read_range(p, 2, i, b, elem_at(b, o->weights, offset), b->dtype, 0, table->buckets[i].count, err));
    }
    return o->master && !has_master ? load_master(o, folder, err) : 0;
}

int trainer_read_optimizer(Optimizer *o, int ranks, const char *folder, Error *err) {
    Pieces p;
    optimizer_reset(o); // padding is zero, whatever was there before
    int bad = open_pieces(&p, ranks, &o->params->table, folder, err);
    if (!bad) bad = read_all(o, &p, folder, err);
    close_pieces(&p);
    return bad;
}
