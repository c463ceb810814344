// algorithms.cu: see algorithms.h. The file is JSON:
//     {"device": "cuda NVIDIA H200, sm_90", "driver": 13000, "cublaslt": 130100, "type": "bf16", "products": [
//         {"product": "forward", "T": 8192, "K": 2048, "N": 22016, "align": [16, 16, 16], "algorithm": "0a...",
//          "ms": 1.02, "first_ms": 1.10, "id": 66, "tile": 20, "stages": 35, "split_k": 1}, ...]}
// T is the largest of its bucket, align that of A, B and D in bytes, algorithm cuBLASLt's own 64 bytes. What follows is
// for readers alone: times, and how cuBLASLt names the algorithm's parts.
#include "llmc/cuda/algorithms.h"

#include "llmc/base/alloc.h"
#include "llmc/base/clean.h"
#include "llmc/base/file.h"
#include "llmc/base/json.h"

#include <stdlib.h>
#include <string.h>

static const char *const kinds[] = {"forward", "forward with bias", "forward with residual", "d input", "d weight"};
enum { N_KINDS = sizeof kinds / sizeof *kinds };
const char *kind_name(int kind) { return kinds[kind]; }

const Algorithm *algorithm_find(const AlgorithmTable *t, const PlanKey *key) {
    for (int i = 0; i < t->n; i++) {
        if (!memcmp(&t->rows[i].key, key, sizeof *key)) return &t->rows[i];
    }
    return NULL;
}

void algorithm_add(AlgorithmTable *t, const Algorithm *row) {
    t->rows = (Algorithm *)alloc_resize(t->rows, (size_t)t->n + 1, sizeof *t->rows, "algorithms");
    t->rows[t->n++] = *row;
}

// ---- to which machine a table belongs ----
struct Origin {
    char device[320];
    int64_t driver, cublaslt;
    const char *type;
};

static Origin origin_here(const Backend *b) {
    int driver = 0;
    Origin o = {};
    CUDA_CHECK(cudaDriverGetVersion(&driver));
    snprintf(o.device, sizeof o.device, "%s", b->name);
    o.driver = driver;
    o.cublaslt = (int64_t)cublasLtGetVersion();
    o.type = b->dtype == DTYPE_BF16 ? "bf16" : "fp32";
    return o;
}

static char *origin_text(const Origin *o) {
    return string_format("%s, CUDA driver %d, cuBLASLt %d, %s", clean(o->device), (int)o->driver, (int)o->cublaslt,
                         clean(o->type));
}

static int read_origin(Origin *o, const cJSON *root, const char *path, Error *err) {
    const char *device;
    *o = {};
    TRY(json_text(&device, root, "device", path, err));
    TRY(json_int(&o->driver, root, "driver", 0, INT32_MAX, path, err));
    TRY(json_int(&o->cublaslt, root, "cublaslt", 0, INT32_MAX, path, err));
    TRY(json_text(&o->type, root, "type", path, err));
    snprintf(o->device, sizeof o->device, "%s", device);
    return 0;
}

// ---- reading ----
static int digit(char c) {
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

static int from_hex(void *data, size_t bytes, const char *text) {
    if (strlen(text) != 2 * bytes) return -1;
    for (size_t i = 0; i < bytes; i++) {
        const int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
        if (high < 0 || low < 0) return -1;
        ((unsigned char *)data)[i] = (unsigned char)(high << 4 | low);
    }
    return 0;
}

static int read_row(Algorithm *row, const cJSON *item, const char *where, Error *err) {
    const char *kind, *hex;
    int64_t T, K, N, align[3];
    *row = {};
    if (!cJSON_IsObject(item)) return error_set(err, "%s: expected an object", where);
    TRY(json_text(&kind, item, "product", where, err));
    while (row->key.kind < N_KINDS && strcmp(kind, kinds[row->key.kind]) != 0) row->key.kind++;
    if (row->key.kind == N_KINDS)
        return error_set(
            err,
            "%s: product: expected \"forward\", \"forward with bias\", \"forward with residual\", \"d input\" "
            "or \"d weight\"",
            where);
    TRY(json_int(&T, item, "T", 1, INT32_MAX, where, err));
    TRY(json_int(&K, item, "K", 1, INT32_MAX, where, err));
    TRY(json_int(&N, item, "N", 1, INT32_MAX, where, err));
    const cJSON *list = json_find(item, "align");
    for (int i = 0; i < 3; i++) {
        if (cJSON_GetArraySize(list) != 3 || json_whole(&align[i], cJSON_GetArrayItem(list, i), 1, 16))
            return error_set(err, "%s: align: expected three numbers from 1 to 16", where);
    }
    TRY(json_text(&hex, item, "algorithm", where, err));
    TRY(json_real(&row->ms, item, "ms", 0, 1e9, where, err));
    TRY(json_real(&row->first_ms, item, "first_ms", 0, 1e9, where, err));
    if (from_hex(&row->algo, sizeof row->algo, hex))
        return error_set(err, "%s: algorithm: expected %zu hexadecimal digits", where, 2 * sizeof row->algo);
    row->key = {row->key.kind, (int)K, (int)N, (int)T, 0, (int)align[0], (int)align[1], (int)align[2]};
    return 0;
}

static int read_rows(AlgorithmTable *t, const cJSON *root, const char *path, Error *err) {
    const cJSON *list = json_find(root, "products"), *item;
    if (!cJSON_IsArray(list)) return error_set(err, "%s: products: expected an array", path);
    cJSON_ArrayForEach(item, list) {
        Algorithm row;
        char *where = string_format("%s: product %d", path, t->n + 1);
        const int bad = read_row(&row, item, where, err);
        free(where);
        TRY(bad);
        algorithm_add(t, &row);
    }
    return 0;
}

// 0: read, 1: it belongs to another machine, -1: damaged.
static int parse(AlgorithmTable *t, char **note, const Backend *b, const char *text, const char *path, Error *err) {
    cJSON *root = NULL;
    Origin theirs;
    const Origin here = origin_here(b);
    TRY(json_parse(&root, text, strlen(text), path, err));
    int bad = read_origin(&theirs, root, path, err);
    const bool other = !bad && (strcmp(theirs.device, here.device) != 0 || theirs.driver != here.driver ||
                                theirs.cublaslt != here.cublaslt || strcmp(theirs.type, here.type) != 0);
    if (other) {
        char *was = origin_text(&theirs), *is = origin_text(&here);
        *note = string_format("%s is not used: it was made on %s; here: %s", path, was, is);
        free(was);
        free(is);
    } else if (!bad && !(bad = read_rows(t, root, path, err))) {
        *note = string_format("%d in %s", t->n, path);
    }
    cJSON_Delete(root);
    return bad ? bad : other;
}

int algorithms_read(AlgorithmTable *t, char **note, Backend *b, const char *path, Error *err) {
    const Dist *d = b->dist;
    char *text = NULL;
    size_t size = 0;
    int bad = d->rank == 0 ? file_read(&text, &size, path, err) : 0;
    TRY(dist_agree(d, bad, err));
    dist_share_text(d, &text);
    bad = parse(t, note, b, text, path, err);
    free(text);
    TRY(dist_agree(d, bad < 0, err));
    int other = bad; // of one rank's machine: then no rank uses it
    dist_max_int(d, &other, 1);
    if (!other) return 0;
    t->n = 0;
    if (!bad) {
        free(*note);
        *note = string_format("%s is not used: it does not belong to the GPU of another rank", path);
    }
    return 0;
}

// ---- writing ----
static cJSON *row_json(const Algorithm *row) {
    static const struct {
        const char *name;
        cublasLtMatmulAlgoConfigAttributes_t attribute;
    } parts[] = {{"id", CUBLASLT_ALGO_CONFIG_ID},
                 {"tile", CUBLASLT_ALGO_CONFIG_TILE_ID},
                 {"stages", CUBLASLT_ALGO_CONFIG_STAGES_ID},
                 {"split_k", CUBLASLT_ALGO_CONFIG_SPLITK_NUM}};
    const PlanKey *key = &row->key;
    const int align[] = {key->align_a, key->align_b, key->align_d};
    char hex[2 * sizeof row->algo + 1];
    for (size_t i = 0; i < sizeof row->algo; i++)
        snprintf(hex + 2 * i, 3, "%02x", ((const unsigned char *)&row->algo)[i]);
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "product", kinds[key->kind]);
    cJSON_AddNumberToObject(o, "T", key->rows);
    cJSON_AddNumberToObject(o, "K", key->K);
    cJSON_AddNumberToObject(o, "N", key->N);
    cJSON_AddItemToObject(o, "align", cJSON_CreateIntArray(align, 3));
    cJSON_AddStringToObject(o, "algorithm", hex);
    json_add_float(o, "ms", (float)row->ms);
    json_add_float(o, "first_ms", (float)row->first_ms);
    for (auto &part : parts) {
        int value = 0;
        size_t written = 0;
        if (cublasLtMatmulAlgoConfigGetAttribute(&row->algo, part.attribute, &value, sizeof value, &written) ==
            CUBLAS_STATUS_SUCCESS)
            cJSON_AddNumberToObject(o, part.name, value);
    }
    return o;
}

int algorithms_write(const AlgorithmTable *t, const Backend *b, const char *path, Error *err) {
    const Origin here = origin_here(b);
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "device", here.device);
    cJSON_AddNumberToObject(root, "driver", (double)here.driver);
    cJSON_AddNumberToObject(root, "cublaslt", (double)here.cublaslt);
    cJSON_AddStringToObject(root, "type", here.type);
    cJSON *list = cJSON_AddArrayToObject(root, "products");
    for (int i = 0; i < t->n; i++) cJSON_AddItemToArray(list, row_json(&t->rows[i]));
    const int bad = json_write(root, path, err);
    cJSON_Delete(root);
    return bad;
}
