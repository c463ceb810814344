// latents.c: see latents.h.
#include "llmc/weights/latents.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/base/json.h"
#include "llmc/base/sha256.h"
#include "llmc/base/unicode.h" // utf8_valid

static const char FORMAT[] = "c3-latents", TENSOR[] = "latents";
static const char *const versions[] = {"1", "2"}; // pages of one window, of several

enum { MAX_TOKENS = 1 << 24 };

size_t latents_bytes(const LatentFile *f) {
    return (size_t)f->n_windows * (size_t)f->latents * (size_t)f->width * dtype_size(f->dtype);
}

void latents_hash(char hex[65], const void *data, size_t n) {
    Sha256 sha;
    sha256_init(&sha);
    sha256_update(&sha, data, n);
    sha256_final_hex(&sha, hex);
}

// "sha256" of a file: model and documents (each with its closing zero), then the tensor's bytes.
static void hash_file(char hex[65], const LatentFile *f, const char *documents) {
    Sha256 sha;
    sha256_init(&sha);
    sha256_update(&sha, f->model, strlen(f->model) + 1);
    sha256_update(&sha, documents, strlen(documents) + 1);
    sha256_update(&sha, f->data, latents_bytes(f));
    sha256_final_hex(&sha, hex);
}

void latents_free(LatentFile *f) {
    for (int d = 0; d < f->n_documents; d++) {
        LatentDocument *doc = &f->documents[d];
        for (int i = 0; doc->gaps && i <= doc->pages; i++) free(doc->gaps[i]);
        free(doc->gaps);
        free(doc->id);
    }
    free(f->documents);
    free(f->pages);
    free(f->memory);
    safetensors_close(f->file);
    *f = (LatentFile){0};
}

// ---- writing -------------------------------------------------------------------------------------------------------

static cJSON *document_json(const LatentFile *f, const LatentDocument *doc) {
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "id", doc->id);
    cJSON_AddBoolToObject(o, "nfc", doc->is_nfc);
    cJSON *pages = cJSON_AddArrayToObject(o, "pages"), *gaps = cJSON_AddArrayToObject(o, "gaps");
    for (int i = 0; i < doc->pages; i++) {
        const LatentPage *p = &f->pages[doc->first + i];
        cJSON *page = cJSON_CreateObject();
        cJSON_AddNumberToObject(page, "tokens", p->tokens);
        cJSON_AddStringToObject(page, "sha256", p->sha256);
        if (p->windows > 1) cJSON_AddNumberToObject(page, "windows", p->windows);
        cJSON_AddItemToArray(pages, page);
    }
    for (int i = 0; i <= doc->pages; i++) cJSON_AddItemToArray(gaps, cJSON_CreateString(doc->gaps[i]));
    return o;
}

// The metadata "documents"; freed with cJSON_free.
static char *documents_text(const LatentFile *f) {
    cJSON *root = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(root, "documents");
    for (int d = 0; d < f->n_documents; d++) cJSON_AddItemToArray(list, document_json(f, &f->documents[d]));
    char *text = cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    return text;
}

int latents_header_add(LatentHeader *h, const LatentFile *f, const LatentDocument *doc) {
    const size_t others = 1024; // the rest of the header
    cJSON *json = document_json(f, doc);
    char *text = cJSON_PrintUnformatted(json);
    cJSON_Delete(json);
    h->bytes++; // the comma
    for (int i = 0; i < doc->pages; i++) h->values += f->pages[doc->first + i].windows > 1;
    for (const char *c = text; *c; c++) h->bytes += *c == '"' || *c == '\\' ? 2 : 1;
    h->values += 6 + 4 * (size_t)doc->pages; // brackets and commas: json_parse counts these
    cJSON_free(text);
    return h->bytes + others <= SAFETENSORS_MAX_HEADER && h->values + others <= JSON_MAX_VALUES;
}

int latents_write(const LatentFile *f, const char *path, uint64_t *bytes, Error *err) {
    char hash[65], *documents = documents_text(f);
    hash_file(hash, f, documents);
    const char *const metadata[][2] = {{"format", FORMAT},
                                       {"version", versions[f->n_windows > f->n_pages]},
                                       {"model", f->model},
                                       {"sha256", hash},
                                       {"documents", documents}};
    SafeEntry entry = {.name = TENSOR, .dtype = f->dtype, .dims = 3, .shape = {f->n_windows, f->latents, f->width}};
    SafeWriter *w;
    int bad = safetensors_writer_open(&w, path, &entry, 1, metadata, sizeof metadata / sizeof *metadata, err);
    cJSON_free(documents);
    if (bad) return -1;
    bad = safetensors_writer_data(w, f->data, latents_bytes(f), err);
    safetensors_writer_crc(w, bytes);
    return safetensors_writer_end(w, bad, err);
}

// ---- reading: documents --------------------------------------------------------------------------------------------

static int is_hash(const char *hex) { return hex && strlen(hex) == 64 && strspn(hex, "0123456789abcdef") == 64; }

// The next page of the file, whose windows are the next of the tensor.
static int read_page(LatentFile *f, const cJSON *item, const char *where, int number, Error *err) {
    LatentPage *p = &f->pages[f->n_pages];
    const int first = f->n_pages ? p[-1].first + p[-1].windows : 0, left = f->n_windows - first;
    const cJSON *several = json_find(item, "windows");
    int64_t tokens = 0, windows = 1;
    const char *hash = cJSON_GetStringValue(json_find(item, "sha256"));
    if (json_whole(&tokens, json_find(item, "tokens"), 1, MAX_TOKENS) != 0)
        return error_set(err, "%s: page %d: \"tokens\": expected a whole number from 1", where, number);
    if (!is_hash(hash)) return error_set(err, "%s: page %d: \"sha256\": expected 64 hex digits", where, number);
    if (several && json_whole(&windows, several, 1, left < tokens ? left : tokens) != 0)
        return error_set(err, "%s: page %d: \"windows\": expected 1 to its %lld tokens, and %d are left of the tensor",
                         where, number, (long long)tokens, left);
    *p = (LatentPage){.tokens = (int)tokens, .first = first, .windows = (int)windows};
    memcpy(p->sha256, hash, sizeof p->sha256);
    f->n_pages++;
    return 0;
}

static int read_gaps(LatentDocument *doc, const cJSON *gaps, const char *where, Error *err) {
    if (!cJSON_IsArray(gaps) || cJSON_GetArraySize(gaps) != doc->pages + 1)
        return error_set(err, "%s: \"gaps\": expected %d texts", where, doc->pages + 1);
    doc->gaps = calloc((size_t)doc->pages + 1, sizeof *doc->gaps);
    if (!doc->gaps) return error_set(err, "%s: out of memory (%d pages)", where, doc->pages);
    int i = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, gaps) {
        const char *gap = cJSON_GetStringValue(item);
        if (!gap || gap[strspn(gap, " \t\r\n\v\f")])
            return error_set(err, "%s: \"gaps\": entry %d: expected white space", where, i);
        doc->gaps[i++] = string_copy(gap);
    }
    return 0;
}

// One more document; its pages and windows are the next of the file.
static int read_document(LatentFile *f, const cJSON *item, const char *path, Error *err) {
    char where[600];
    LatentDocument *doc = &f->documents[f->n_documents++]; // from here on latents_free frees it
    const char *id = cJSON_GetStringValue(json_find(item, "id"));
    const cJSON *pages = json_find(item, "pages"), *nfc = json_find(item, "nfc"), *page;
    snprintf(where, sizeof where, "%.500s: document %d", path, f->n_documents);
    int count = cJSON_IsArray(pages) ? cJSON_GetArraySize(pages) : 0, number = 0;
    if (!id || !*id || utf8_valid(id, strlen(id)) != strlen(id))
        return error_set(err, "%s: \"id\": expected a text", where);
    if (!cJSON_IsBool(nfc)) return error_set(err, "%s: \"nfc\": expected true or false", where);
    if (count < 1 || count > f->n_windows - f->n_pages)
        return error_set(err, "%s: %d pages: expected 1 to the %d that are left of the tensor's %d", where, count,
                         f->n_windows - f->n_pages, f->n_windows);
    *doc = (LatentDocument){.id = string_copy(id), .first = f->n_pages, .pages = count, .is_nfc = cJSON_IsTrue(nfc)};
    cJSON_ArrayForEach(page, pages) TRY(read_page(f, page, where, ++number, err));
    return read_gaps(doc, json_find(item, "gaps"), where, err);
}

static int read_documents(LatentFile *f, const cJSON *root, const char *path, Error *err) {
    const cJSON *list = json_find(root, "documents"), *item;
    int n = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0;
    f->documents = calloc((size_t)n + 1, sizeof *f->documents);
    f->pages = calloc((size_t)f->n_windows + 1, sizeof *f->pages);
    if (!f->documents || !f->pages) return error_set(err, "%s: out of memory (%d pages)", path, f->n_windows);
    cJSON_ArrayForEach(item, list) TRY(read_document(f, item, path, err));
    int windows = f->n_pages ? f->pages[f->n_pages - 1].first + f->pages[f->n_pages - 1].windows : 0;
    if (windows != f->n_windows || n < 1)
        return error_set(err, "%s: its %d documents have %d pages, %d windows, the tensor has %d", path, n, f->n_pages,
                         windows, f->n_windows);
    return 0;
}

// ---- reading: the whole --------------------------------------------------------------------------------------------

static int check_tensor(LatentFile *f, const char *path, Error *err) {
    const SafeTensor *t = safetensors_find(f->file, TENSOR);
    if (!t || safetensors_count(f->file) != 1)
        return error_set(err, "%s: expected one tensor \"%s\", found %d tensors", path, TENSOR,
                         safetensors_count(f->file));
    int ok = t->supported && t->dtype != DTYPE_F16 && t->dims == 3;
    for (int i = 0; ok && i < 3; i++) ok = t->shape[i] >= 1 && t->shape[i] <= INT_MAX / 64;
    if (!ok)
        return error_set(err, "%s: tensor \"%s\": expected (pages, latents, width) numbers of type F32 or BF16", path,
                         TENSOR);
    f->n_windows = (int)t->shape[0];
    f->latents = (int)t->shape[1];
    f->width = (int)t->shape[2];
    f->dtype = t->dtype;
    f->data = t->data;
    return 0;
}

static int check_finite(const LatentFile *f, const char *path, Error *err) {
    size_t width = (size_t)f->width, page = (size_t)f->latents * width, n = (size_t)f->n_windows * page;
    size_t bad = safetensors_not_finite(f->data, f->dtype, n);
    if (bad == n) return 0;
    int p = f->n_pages - 1;
    while ((size_t)f->pages[p].first > bad / page) p--;
    bad -= (size_t)f->pages[p].first * page;
    return error_set(err, "%s: page %d: latent %zu has a number that is not finite", path, p + 1, bad / width + 1);
}

static int check_data(const LatentFile *f, const char *documents, const char *path, Error *err) {
    char hash[65];
    const char *expected = safetensors_metadata(f->file, "sha256");
    if (!is_hash(expected)) return error_set(err, "%s: \"sha256\": expected 64 hex digits", path);
    hash_file(hash, f, documents);
    if (strcmp(hash, expected) != 0)
        return error_set(err, "%s: the file is damaged: SHA-256 %.16s..., expected %.16s...", path, hash, expected);
    return 0;
}

static int read_all(LatentFile *f, const char *path, Error *err) {
    TRY(safetensors_open(&f->file, path, err));
    const char *format = safetensors_metadata(f->file, "format"), *version = safetensors_metadata(f->file, "version");
    const char *model = safetensors_metadata(f->file, "model"), *text = safetensors_metadata(f->file, "documents");
    if (!format || strcmp(format, FORMAT) != 0)
        return error_set(err, "%s: a safetensors file, but no latents (hint: c3 compress writes them)", path);
    if (!version || (strcmp(version, versions[0]) != 0 && strcmp(version, versions[1]) != 0))
        return error_set(err, "%s: latents of version %.20s, this program reads versions %s and %s", path,
                         version ? version : "(none)", versions[0], versions[1]);
    if (!is_hash(model)) return error_set(err, "%s: \"model\": expected 64 hex digits", path);
    if (!text) return error_set(err, "%s: \"documents\" is missing", path);
    memcpy(f->model, model, sizeof f->model);
    TRY(check_tensor(f, path, err));
    TRY(check_data(f, text, path, err));
    char where[600];
    cJSON *root;
    snprintf(where, sizeof where, "%.500s: \"documents\"", path);
    TRY(json_parse(&root, text, strlen(text), where, err));
    int bad = read_documents(f, root, path, err);
    cJSON_Delete(root);
    return bad ? bad : check_finite(f, path, err);
}

int latents_read(LatentFile *f, const char *path, Error *err) {
    *f = (LatentFile){0};
    if (read_all(f, path, err) == 0) return 0;
    latents_free(f);
    return -1;
}

static int read_bare(LatentFile *f, const char *path, Error *err) {
    TRY(safetensors_open(&f->file, path, err));
    TRY(check_tensor(f, path, err));
    f->n_pages = f->n_windows;
    f->pages = alloc((size_t)f->n_pages, sizeof *f->pages, "pages of latents");
    f->documents = alloc((size_t)f->n_pages, sizeof *f->documents, "pages of latents");
    for (; f->n_documents < f->n_pages; f->n_documents++) {
        LatentDocument *doc = &f->documents[f->n_documents];
        f->pages[f->n_documents] = (LatentPage){.first = f->n_documents, .windows = 1};
        *doc = (LatentDocument){.first = f->n_documents, .pages = 1, .is_nfc = 1};
        doc->id = string_format("%d", f->n_documents + 1);
        doc->gaps = alloc(2, sizeof *doc->gaps, "pages of latents");
        doc->gaps[0] = string_copy("");
        doc->gaps[1] = string_copy("");
    }
    return check_finite(f, path, err);
}

int latents_read_bare(LatentFile *f, const char *path, Error *err) {
    *f = (LatentFile){0};
    if (read_bare(f, path, err) == 0) return 0;
    latents_free(f);
    return -1;
}
