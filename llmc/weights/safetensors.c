// safetensors.c: see safetensors.h. A file is: length of the header (8 bytes, little endian), the header (JSON: name ->
// dtype, shape, data_offsets), the data. It is untrusted: every size is checked against the file, and the tensors must
// cover the data exactly, without overlap or hole.
#include "llmc/weights/safetensors.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "llmc/base/alloc.h"
#include "llmc/base/file.h"
#include "llmc/base/json.h"

enum { MAX_HEADER = SAFETENSORS_MAX_HEADER, MAX_INDEX_BYTES = 100000000, LENGTH_BYTES = 8, HEADER_ALIGN = 8 };
static const char metadata_key[] = "__metadata__";

typedef struct File {
    char *path;
    FileMap map;
    cJSON *header;       // owns names, types and metadata
    const uint8_t *data; // (size) behind the header
    size_t size;
} File;

typedef struct Entry {
    SafeTensor tensor; // first, so that a SafeTensor the caller holds leads back to its Entry
    int file;
} Entry;

struct SafeTensors {
    char *opened; // what safetensors_open was given
    File *files;
    int n_files;
    Entry *entries; // (n) sorted by name
    int n;
};

// ---- one tensor ----------------------------------------------------------------------------------------------------

static const struct {
    const char *name;
    int bits;
} types[] = {
    {"F32", 32},    {"BF16", 16},   {"F16", 16},    {"F64", 64},    {"I64", 64},    {"I32", 32}, {"I16", 16},
    {"I8", 8},      {"U64", 64},    {"U32", 32},    {"U16", 16},    {"U8", 8},      {"BOOL", 8}, {"C64", 64},
    {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4},
};

static int find_type(const char *name) {
    int n = (int)(sizeof types / sizeof *types);
    for (int i = 0; i < n; i++) {
        if (strcmp(types[i].name, name) == 0) return i;
    }
    return -1;
}

// Bytes of a shape; -1 on overflow, or when they are not a whole number.
static int shape_bytes(uint64_t *bytes, const int64_t *shape, int dims, int bits) {
    uint64_t n = (uint64_t)bits;
    for (int i = 0; i < dims; i++) {
        if (__builtin_mul_overflow(n, (uint64_t)shape[i], &n)) return -1;
    }
    *bytes = n / 8;
    return n % 8 == 0 ? 0 : -1;
}

// The member `key` of a tensor's entry; NULL unless it is there exactly once.
static const cJSON *only_member(const cJSON *entry, const char *key) {
    const cJSON *found = NULL, *item;
    cJSON_ArrayForEach(item, entry) {
        if (strcmp(item->string, key) != 0) continue;
        if (found) return NULL;
        found = item;
    }
    return found;
}

static int parse_shape(SafeTensor *t, const cJSON *shape, Error *err) {
    const int64_t most = (int64_t)1 << 53;
    const cJSON *item;
    if (!cJSON_IsArray(shape)) return error_set(err, "expected a list \"shape\"");
    cJSON_ArrayForEach(item, shape) {
        if (t->dims == SAFETENSORS_MAX_DIMS) return error_set(err, "more than %d dimensions", SAFETENSORS_MAX_DIMS);
        if (json_whole(&t->shape[t->dims++], item, 0, most) != 0)
            return error_set(err, "\"shape\": expected whole numbers from 0");
    }
    return 0;
}

static int parse_entry(SafeTensor *t, const cJSON *entry, const File *f, Error *err) {
    if (!cJSON_IsObject(entry)) return error_set(err, "expected an object");
    const char *dtype = cJSON_GetStringValue(only_member(entry, "dtype"));
    const cJSON *offsets = only_member(entry, "data_offsets");
    const int type = dtype ? find_type(dtype) : -1;
    if (type < 0)
        return error_set(err, "\"dtype\": expected a type such as F32 or BF16, found %s", dtype ? dtype : "none");
    t->type = types[type].name;
    t->supported = type < 3;
    t->dtype = type == 0 ? DTYPE_F32 : type == 1 ? DTYPE_BF16 : DTYPE_F16;
    TRY(parse_shape(t, only_member(entry, "shape"), err));
    int64_t begin = 0, end = 0;
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 ||
        json_whole(&begin, cJSON_GetArrayItem(offsets, 0), 0, INT64_MAX) != 0 ||
        json_whole(&end, cJSON_GetArrayItem(offsets, 1), 0, INT64_MAX) != 0)
        return error_set(err, "\"data_offsets\": expected two whole numbers");
    if (begin > end || (uint64_t)end > f->size)
        return error_set(err, "bytes %lld to %lld: expected inside the %zu bytes of data (truncated?)",
                         (long long)begin, (long long)end, f->size);
    uint64_t bytes = 0;
    if (shape_bytes(&bytes, t->shape, t->dims, types[type].bits) != 0 || bytes != (uint64_t)(end - begin))
        return error_set(err, "%lld bytes of data do not fit its shape and type %s", (long long)(end - begin), t->type);
    t->data = f->data + begin;
    t->bytes = (size_t)bytes;
    return 0;
}

// One entry of the header.
static int parse_tensor(SafeTensor *t, const cJSON *entry, const File *f, Error *err) {
    *t = (SafeTensor){.name = entry->string};
    if (parse_entry(t, entry, f, err) == 0) return 0;
    return error_prefix(err, "%s: tensor \"%s\"", f->path, t->name);
}

// ---- one file ------------------------------------------------------------------------------------------------------

static int by_place(const void *x, const void *y) {
    const SafeTensor *a = &((const Entry *)x)->tensor, *b = &((const Entry *)y)->tensor;
    if (a->data != b->data) return (const char *)a->data < (const char *)b->data ? -1 : 1;
    return a->bytes < b->bytes ? -1 : a->bytes > b->bytes;
}

static int by_name(const void *x, const void *y) {
    return strcmp(((const Entry *)x)->tensor.name, ((const Entry *)y)->tensor.name);
}

// The tensors of a file must follow one another from the first byte of data to the last.
static int check_cover(Entry *entries, int n, const File *f, Error *err) {
    const char *path = f->path;
    const uint8_t *at = f->data;
    if (n > 0) qsort(entries, (size_t)n, sizeof *entries, by_place);
    for (int i = 0; i < n; i++) {
        const SafeTensor *t = &entries[i].tensor;
        if (t->data != at)
            return error_set(err, "%s: tensor \"%s\" begins at byte %zu of the data, the one before ends at %zu (%s)",
                             path, t->name, (size_t)((const uint8_t *)t->data - f->data), (size_t)(at - f->data),
                             (const uint8_t *)t->data < at ? "overlap" : "hole");
        at += t->bytes;
    }
    if (at == f->data + f->size) return 0;
    return error_set(err, "%s: tensors end at byte %zu of the data, the file at %zu", path, (size_t)(at - f->data),
                     f->size);
}

static int check_metadata(const cJSON *metadata, const char *path, Error *err) {
    const cJSON *item;
    if (metadata && !cJSON_IsObject(metadata)) return error_set(err, "%s: %s: expected an object", path, metadata_key);
    cJSON_ArrayForEach(item, metadata) {
        if (!cJSON_IsString(item)) return error_set(err, "%s: %s: expected texts only", path, metadata_key);
    }
    return 0;
}

static int parse_header(File *f, Error *err) {
    uint64_t length = 0;
    if (f->map.size < LENGTH_BYTES)
        return error_set(err, "%s: %zu bytes: expected a safetensors file, which has at least %d", f->path, f->map.size,
                         LENGTH_BYTES);
    for (int i = 0; i < LENGTH_BYTES; i++) length |= (uint64_t)f->map.data[i] << 8 * i;
    if (length > MAX_HEADER || length > f->map.size - LENGTH_BYTES)
        return error_set(
            err, "%s: header of %llu bytes: expected at most %llu (truncated, or no safetensors file?)", f->path,
            (unsigned long long)length,
            (unsigned long long)(f->map.size - LENGTH_BYTES < MAX_HEADER ? f->map.size - LENGTH_BYTES : MAX_HEADER));
    const char *text = (const char *)f->map.data + LENGTH_BYTES;
    if (length == 0 || text[0] != '{') return error_set(err, "%s: byte 8: expected the header's '{'", f->path);
    f->data = f->map.data + LENGTH_BYTES + length;
    f->size = f->map.size - LENGTH_BYTES - (size_t)length;
    return json_parse(&f->header, text, (size_t)length, f->path, err);
}

// Appends the tensors of one more file.
static int add_file(SafeTensors *s, const char *path, Error *err) {
    s->files = alloc_resize(s->files, (size_t)s->n_files + 1, sizeof *s->files, "model files");
    File *f = &s->files[s->n_files++]; // from here on safetensors_close frees it
    *f = (File){.path = string_copy(path)};
    TRY(file_map(&f->map, path, err));
    TRY(file_check_lfs(f->map.data, f->map.size, path, err));
    file_map_in_order(&f->map);
    TRY(parse_header(f, err));
    int count = cJSON_GetArraySize(f->header);
    Entry *entries = realloc(s->entries, (size_t)(s->n + count + 1) * sizeof *entries);
    if (!entries) return error_set(err, "%s: %d tensors: out of memory", path, count);
    s->entries = entries;
    int first = s->n;
    const cJSON *item;
    cJSON_ArrayForEach(item, f->header) {
        if (strcmp(item->string, metadata_key) == 0) {
            TRY(check_metadata(item, path, err));
            continue;
        }
        entries[s->n].file = s->n_files - 1;
        TRY(parse_tensor(&entries[s->n].tensor, item, f, err));
        s->n++;
    }
    return check_cover(entries + first, s->n - first, f, err);
}

// ---- a folder with an index ----------------------------------------------------------------------------------------

static int by_text(const void *x, const void *y) { return strcmp(*(const char *const *)x, *(const char *const *)y); }

static int check_map(const cJSON *map, const char *path, Error *err) {
    const cJSON *item;
    if (!cJSON_IsObject(map)) return error_set(err, "%s: key \"weight_map\": expected an object", path);
    cJSON_ArrayForEach(item, map) {
        const char *name = cJSON_IsString(item) ? item->valuestring : "";
        if (!*name || strchr(name, '/') || strstr(name, ".."))
            return error_set(err, "%s: tensor \"%s\": expected the name of a file in this folder, found \"%s\"", path,
                             item->string, name);
    }
    return 0;
}

// Opens each file of the map once.
static int open_mapped(SafeTensors *s, const cJSON *map, const char *folder, const char *path, Error *err) {
    int n = cJSON_GetArraySize(map), used = 0;
    const char **names = malloc((size_t)(n + 1) * sizeof *names);
    if (!names) return error_set(err, "%s: out of memory", path);
    const cJSON *item;
    cJSON_ArrayForEach(item, map) names[used++] = item->valuestring;
    qsort(names, (size_t)n, sizeof *names, by_text);
    int bad = 0;
    for (int i = 0; i < n && !bad; i++) {
        if (i > 0 && strcmp(names[i], names[i - 1]) == 0) continue;
        char *file = string_format("%s/%s", folder, names[i]);
        if (file_exists(file)) {
            bad = add_file(s, file, err);
        } else {
            const char *tensor = "";
            cJSON_ArrayForEach(item, map) {
                if (strcmp(item->valuestring, names[i]) == 0) tensor = item->string;
            }
            bad = error_set(err, "%s: is missing, but %s says that tensor \"%s\" is in it", file, path, tensor);
        }
        free(file);
    }
    free(names);
    return bad;
}

// Every tensor must be in the file that the index names, but for a tied model's head, which may be in no file:
// transformers loads such models, and weights_find reports a head that is needed.
static int check_mapped(const SafeTensors *s, const cJSON *map, const char *path, Error *err) {
    const cJSON *item;
    cJSON_ArrayForEach(item, map) {
        const SafeTensor *t = safetensors_find(s, item->string);
        const char *file = t ? safetensors_path(s, t) : NULL, *slash = file ? strrchr(file, '/') : NULL;
        if (!t && strcmp(item->string, "lm_head.weight") == 0) continue;
        if (!slash || strcmp(slash + 1, item->valuestring) != 0)
            return error_set(err, "%s: says that tensor \"%s\" is in %s, where it is not", path, item->string,
                             item->valuestring);
    }
    return 0;
}

// Sorts by name; a name must be there once.
static int sort_entries(SafeTensors *s, Error *err) {
    if (s->n > 0) qsort(s->entries, (size_t)s->n, sizeof *s->entries, by_name);
    for (int i = 1; i < s->n; i++) {
        const SafeTensor *t = &s->entries[i].tensor;
        if (strcmp(s->entries[i - 1].tensor.name, t->name) == 0)
            return error_set(err, "%s: tensor \"%s\" is there twice", safetensors_path(s, t), t->name);
    }
    return 0;
}

static int add_index(SafeTensors *s, const char *folder, const char *path, Error *err) {
    cJSON *json = NULL;
    TRY(json_read(&json, path, MAX_INDEX_BYTES, err));
    const cJSON *map = json_find(json, "weight_map");
    int bad = check_map(map, path, err);
    if (!bad) bad = open_mapped(s, map, folder, path, err);
    if (!bad) bad = sort_entries(s, err);
    if (!bad) bad = check_mapped(s, map, path, err);
    cJSON_Delete(json);
    return bad;
}

// ---- opening -------------------------------------------------------------------------------------------------------

static int error_no_files(const char *folder, Error *err) {
    char *pickle = string_format("%s/pytorch_model.bin", folder), *parts = string_format("%s.index.json", pickle);
    int is_pickle = file_exists(pickle) || file_exists(parts);
    free(pickle);
    free(parts);
    return error_set(err, "%s: expected model.safetensors or model.safetensors.index.json in this folder%s", folder,
                     is_pickle ? ", found pytorch_model.bin (hint: load it with transformers and save_pretrained it, "
                                 "which writes safetensors)"
                               : "");
}

static int add_folder(SafeTensors *s, const char *folder, Error *err) {
    char *single = string_format("%s/model.safetensors", folder);
    char *index = string_format("%s/model.safetensors.index.json", folder);
    int bad;
    if (file_exists(single)) bad = add_file(s, single, err) || sort_entries(s, err);
    else if (file_exists(index)) bad = add_index(s, folder, index, err);
    else bad = error_no_files(folder, err);
    free(single);
    free(index);
    return bad ? -1 : 0;
}

int safetensors_open(SafeTensors **out, const char *path, Error *err) {
    *out = NULL;
    SafeTensors *s = alloc_zeroed(1, sizeof *s, "model files");
    s->opened = string_copy(path);
    struct stat st;
    int bad = stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? add_folder(s, path, err)
                                                          : add_file(s, path, err) || sort_entries(s, err);
    if (bad) {
        safetensors_close(s);
        return -1;
    }
    *out = s;
    return 0;
}

void safetensors_close(SafeTensors *s) {
    if (!s) return;
    for (int i = 0; i < s->n_files; i++) {
        cJSON_Delete(s->files[i].header);
        file_unmap(&s->files[i].map);
        free(s->files[i].path);
    }
    free(s->files);
    free(s->entries);
    free(s->opened);
    free(s);
}

int safetensors_count(const SafeTensors *s) { return s->n; }
const SafeTensor *safetensors_at(const SafeTensors *s, int i) { return &s->entries[i].tensor; }

const SafeTensor *safetensors_find(const SafeTensors *s, const char *name) {
    int low = 0, high = s->n;
    while (low < high) {
        int middle = low + (high - low) / 2, order = strcmp(name, s->entries[middle].tensor.name);
        if (order == 0) return &s->entries[middle].tensor;
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}

const char *safetensors_metadata(const SafeTensors *s, const char *key) {
    for (int i = 0; i < s->n_files; i++) {
        const cJSON *metadata = json_find(s->files[i].header, metadata_key);
        const cJSON *item = metadata ? json_find(metadata, key) : NULL;
        if (item) return item->valuestring;
    }
    return NULL;
}

const char *safetensors_path(const SafeTensors *s, const SafeTensor *t) {
    return t ? s->files[((const Entry *)t)->file].path : s->opened;
}

// ---- conversion ----------------------------------------------------------------------------------------------------
// Data in files may be unaligned: elements are read with memcpy, which compiles to plain (vector) loads.

static inline float float_of_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t bits_of_float(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

// Round to nearest even; a NaN stays one.
static inline uint16_t bf16_of_bits(uint32_t u) {
    uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16, nan = (u >> 16) | 0x40u;
    return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

// A half as the bits of an fp32 number. Subnormal halves become normal by a subtraction without subnormal floats.
static inline uint32_t bits_of_half(uint16_t h) {
    uint32_t magnitude = (uint32_t)(h & 0x7fffu) << 13, sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t normal = magnitude + (112u << 23), special = magnitude | 0x7f800000u;
    uint32_t subnormal = bits_of_float(float_of_bits(magnitude + (113u << 23)) - float_of_bits(113u << 23));
    uint32_t finite = magnitude < (1u << 23) ? subnormal : normal;
    return sign | (magnitude >= (31u << 23) ? special : finite);
}

static inline uint16_t load16(const char *in, size_t i) {
    uint16_t x;
    memcpy(&x, in + 2 * i, sizeof x);
    return x;
}

static inline uint32_t load32(const char *in, size_t i) {
    uint32_t x;
    memcpy(&x, in + 4 * i, sizeof x);
    return x;
}

void safetensors_convert(void *restrict out, DType out_type, const void *restrict in, DType in_type, size_t n) {
    assert(out_type == DTYPE_F32 || out_type == DTYPE_BF16);
    const char *restrict x = in;
    uint32_t *restrict wide = out;
    uint16_t *restrict narrow = out;
    if (in_type == out_type) {
        if (n > 0) memcpy(out, in, n * dtype_size(in_type));
    } else if (out_type == DTYPE_F32 && in_type == DTYPE_BF16) {
        for (size_t i = 0; i < n; i++) wide[i] = (uint32_t)load16(x, i) << 16;
    } else if (out_type == DTYPE_F32) {
        for (size_t i = 0; i < n; i++) wide[i] = bits_of_half(load16(x, i));
    } else if (in_type == DTYPE_F32) {
        for (size_t i = 0; i < n; i++) narrow[i] = bf16_of_bits(load32(x, i));
    } else {
        for (size_t i = 0; i < n; i++) narrow[i] = bf16_of_bits(bits_of_half(load16(x, i)));
    }
}

// 1 when the exponent of one of n elements is all ones: NaN or infinite. Branchless, so that it vectorises.
static int any_special(const char *x, DType type, size_t n) {
    uint32_t found = 0;
    if (type == DTYPE_F32) {
        for (size_t i = 0; i < n; i++) found |= (load32(x, i) & 0x7f800000u) == 0x7f800000u;
    } else {
        const uint16_t exponent = type == DTYPE_BF16 ? 0x7f80u : 0x7c00u;
        for (size_t i = 0; i < n; i++) found |= (load16(x, i) & exponent) == exponent;
    }
    return found != 0;
}

size_t safetensors_not_finite(const void *data, DType type, size_t n) {
    enum { BLOCK = 4096 };
    const char *x = data;
    const size_t size = dtype_size(type);
    for (size_t at = 0; at < n; at += BLOCK) {
        size_t some = n - at < BLOCK ? n - at : BLOCK;
        if (!any_special(x + at * size, type, some)) continue;
        while (!any_special(x + at * size, type, 1)) at++;
        return at;
    }
    return n;
}

// ---- writing -------------------------------------------------------------------------------------------------------

struct SafeWriter {
    FileWriter file;
    uint64_t left; // bytes of data still to come,
    uint64_t data; // of all
};

// Adds one tensor to the header and moves *at past it.
static int describe(cJSON *header, const SafeEntry *e, uint64_t *at, const char *path, Error *err) {
    const int type = e->dtype == DTYPE_F32 ? 0 : e->dtype == DTYPE_BF16 ? 1 : 2;
    uint64_t bytes = 0, begin = *at;
    if (e->dims < 0 || e->dims > SAFETENSORS_MAX_DIMS ||
        shape_bytes(&bytes, e->shape, e->dims, types[type].bits) != 0 || __builtin_add_overflow(*at, bytes, at) ||
        *at > (uint64_t)1 << 53)
        return error_set(err, "%s: tensor \"%s\": its shape is too large to be written", path, e->name);
    cJSON *tensor = cJSON_AddObjectToObject(header, e->name);
    cJSON_AddStringToObject(tensor, "dtype", types[type].name);
    cJSON *shape = cJSON_AddArrayToObject(tensor, "shape");
    for (int i = 0; i < e->dims; i++) cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)e->shape[i]));
    double offsets[2] = {(double)begin, (double)*at};
    cJSON_AddItemToObject(tensor, "data_offsets", cJSON_CreateDoubleArray(offsets, 2));
    return 0;
}

// The header as text, padded with spaces so that the data begin at a multiple of 8 bytes. NULL and err: a shape is too
// large, or the header.
static char *header_text(const SafeEntry *entries, int n, const char *const (*metadata)[2], int n_metadata,
                         uint64_t *data, const char *path, Error *err) {
    cJSON *header = cJSON_CreateObject();
    cJSON *meta = n_metadata > 0 ? cJSON_AddObjectToObject(header, metadata_key) : NULL;
    for (int i = 0; i < n_metadata; i++) cJSON_AddStringToObject(meta, metadata[i][0], metadata[i][1]);
    int bad = 0;
    *data = 0;
    for (int i = 0; !bad && i < n; i++) bad = describe(header, &entries[i], data, path, err);
    char *text = bad ? NULL : cJSON_PrintUnformatted(header), *padded = NULL;
    cJSON_Delete(header);
    if (!text) return NULL;
    size_t length = (strlen(text) + HEADER_ALIGN - 1) / HEADER_ALIGN * HEADER_ALIGN;
    if (length > MAX_HEADER) error_set(err, "%s: header of %zu bytes: expected at most %d", path, length, MAX_HEADER);
    else padded = string_format("%-*s", (int)length, text);
    cJSON_free(text);
    return padded;
}

int safetensors_writer_open(SafeWriter **out, const char *path, const SafeEntry *entries, int n,
                            const char *const (*metadata)[2], int n_metadata, Error *err) {
    *out = NULL;
    uint64_t data = 0;
    char *text = header_text(entries, n, metadata, n_metadata, &data, path, err);
    if (!text) return -1;
    SafeWriter *w = alloc_zeroed(1, sizeof *w, "writing a model file");
    w->left = w->data = data;
    size_t length = strlen(text);
    uint8_t prefix[LENGTH_BYTES];
    for (int i = 0; i < LENGTH_BYTES; i++) prefix[i] = (uint8_t)(length >> 8 * i);
    int bad = file_create(&w->file, path, err) || file_write(&w->file, prefix, sizeof prefix, err) ||
              file_write(&w->file, text, length, err);
    free(text);
    if (!bad) *out = w;
    else safetensors_writer_discard(w);
    return bad ? -1 : 0;
}

int safetensors_writer_data(SafeWriter *w, const void *data, size_t bytes, Error *err) {
    if (bytes > w->left)
        return error_set(err, "%s: %zu bytes more of data: expected at most %llu", w->file.path, bytes,
                         (unsigned long long)w->left);
    w->left -= bytes;
    return file_write(&w->file, data, bytes, err);
}

uint32_t safetensors_writer_crc(const SafeWriter *w, uint64_t *bytes) {
    *bytes = w->file.bytes;
    return w->file.crc;
}

int safetensors_writer_commit(SafeWriter *w, Error *err) {
    if (w->left > 0) {
        error_set(err, "%s: %llu of %llu bytes of data were given", w->file.path,
                  (unsigned long long)(w->data - w->left), (unsigned long long)w->data);
        safetensors_writer_discard(w);
        return -1;
    }
    int bad = file_commit(&w->file, err);
    free(w);
    return bad;
}

void safetensors_writer_discard(SafeWriter *w) {
    if (!w) return;
    file_discard(&w->file);
    free(w);
}

int safetensors_writer_end(SafeWriter *w, int bad, Error *err) {
    if (!bad) return safetensors_writer_commit(w, err);
    safetensors_writer_discard(w);
    return -1;
}
