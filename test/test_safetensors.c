// test_safetensors.c: what is written is read back; damaged, truncated, contradictory and hostile files are refused
// with the file's name; random damage never crashes; conversions are exact on every 16-bit pattern.
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/base/file.h"
#include "llmc/weights/safetensors.h"
#include "test/check.h"

static char folder[] = "build/test_safetensors_XXXXXX";
static char *path; // FOLDER/model.safetensors

// Without fsync, and never over an old file (whose blocks some file systems then flush): there are thousands of them.
static void write_bytes(const char *name, const void *data, size_t size) {
    char *where = string_format("%s/%s", folder, name);
    unlink(where);
    FILE *f = fopen(where, "wb");
    CHECK(f && fwrite(data, 1, size, f) == size, "%s", where);
    if (f) fclose(f);
    free(where);
}

// A file from the header's text and `size` bytes of data; length < 0: the text's own.
static void write_file(const char *name, const char *header, long long length, size_t size) {
    size_t n = strlen(header);
    uint64_t claimed = length < 0 ? n : (uint64_t)length;
    uint8_t *file = calloc(1, 8 + n + size);
    memcpy(file, &claimed, 8); // the tests run on little-endian machines
    memcpy(file + 8, header, n);
    for (size_t i = 0; i < size; i++) file[8 + n + i] = (uint8_t)(i * 7 + 1);
    write_bytes(name, file, 8 + n + size);
    free(file);
}

static void expect_refusal(const char *what, const char *word) {
    SafeTensors *s = NULL;
    Error err = {""};
    int bad = safetensors_open(&s, path, &err);
    CHECK(bad != 0 && s == NULL, "%s was accepted", what);
    CHECK(!bad || (strstr(err.text, path) && strstr(err.text, word)), "%s: %s", what, err.text);
    safetensors_close(s);
}

// ---- round trip ----------------------------------------------------------------------------------------------------

static const SafeEntry entries[] = {
    {"zebra.weight", DTYPE_BF16, 2, {3, 5}},
    {"alpha", DTYPE_F32, 1, {7}},
    {"empty", DTYPE_F32, 2, {0, 4}},
    {"scalar", DTYPE_F16, 0, {0}},
    {"with \"quotes\" \\ and \xc3\xa9", DTYPE_F32, 3, {2, 1, 2}},
};
enum { N_ENTRIES = sizeof entries / sizeof *entries };

static size_t entry_bytes(const SafeEntry *e) {
    size_t n = dtype_size(e->dtype);
    for (int i = 0; i < e->dims; i++) n *= (size_t)e->shape[i];
    return n;
}

static void write_valid(void) {
    const char *const metadata[][2] = {{"format", "pt"}, {"note", "a \"quoted\" one"}};
    SafeWriter *w = NULL;
    Error err = {""};
    CHECK(safetensors_writer_open(&w, path, entries, N_ENTRIES, metadata, 2, &err) == 0, "%s", err.text);
    for (int i = 0; i < N_ENTRIES; i++) {
        uint8_t data[64];
        size_t n = entry_bytes(&entries[i]);
        for (size_t k = 0; k < n; k++) data[k] = (uint8_t)(k * 11 + (size_t)i);
        CHECK(safetensors_writer_data(w, data, n / 2, &err) == 0, "%s", err.text); // in two pieces
        CHECK(safetensors_writer_data(w, data + n / 2, n - n / 2, &err) == 0, "%s", err.text);
    }
    CHECK(safetensors_writer_commit(w, &err) == 0, "%s", err.text);
}

static void test_round_trip(void) {
    check_begin("what was written is read back: names, types, shapes, bytes, metadata");
    write_valid();
    SafeTensors *s = NULL;
    Error err = {""};
    CHECK(safetensors_open(&s, path, &err) == 0, "%s", err.text);
    if (!s) return;
    CHECK(safetensors_count(s) == N_ENTRIES, "%d tensors", safetensors_count(s));
    for (int i = 0; i < N_ENTRIES; i++) {
        const SafeEntry *e = &entries[i];
        const SafeTensor *t = safetensors_find(s, e->name);
        CHECK(t != NULL, "%s is not found", e->name);
        if (!t) continue;
        CHECK(t->supported && t->dtype == e->dtype && t->dims == e->dims && t->bytes == entry_bytes(e), "%s", e->name);
        for (int d = 0; d < e->dims; d++) CHECK(t->shape[d] == e->shape[d], "%s: shape", e->name);
        for (size_t k = 0; k < t->bytes; k++)
            CHECK(((const uint8_t *)t->data)[k] == (uint8_t)(k * 11 + (size_t)i), "%s: byte %zu", e->name, k);
        CHECK(strcmp(safetensors_path(s, t), path) == 0, "%s", safetensors_path(s, t));
    }
    for (int i = 1; i < safetensors_count(s); i++)
        CHECK(strcmp(safetensors_at(s, i - 1)->name, safetensors_at(s, i)->name) < 0, "not sorted at %d", i);
    CHECK(safetensors_find(s, "nobody") == NULL && safetensors_find(s, "") == NULL, "found what is not there");
    CHECK(strcmp(safetensors_metadata(s, "note"), "a \"quoted\" one") == 0, "metadata");
    CHECK(safetensors_metadata(s, "other") == NULL, "metadata that is not there");
    CHECK(((uintptr_t)safetensors_find(s, "zebra.weight")->data) % 8 == 0, "data not aligned");
    safetensors_close(s);
    CHECK(safetensors_open(&s, folder, &err) == 0 && safetensors_count(s) == N_ENTRIES, "as a folder: %s", err.text);
    safetensors_close(s);

    check_begin("the writer refuses too many bytes, too few, impossible shapes, and leaves the old file alone");
    SafeWriter *w = NULL;
    uint8_t data[200] = {0};
    CHECK(safetensors_writer_open(&w, path, entries, 1, NULL, 0, &err) == 0, "%s", err.text);
    CHECK(safetensors_writer_data(w, data, 31, &err) != 0 && strstr(err.text, path), "31 of 30 bytes were taken");
    CHECK(safetensors_writer_data(w, data, 29, &err) == 0, "%s", err.text);
    CHECK(safetensors_writer_commit(w, &err) != 0 && strstr(err.text, "29 of 30"), "%s", err.text);
    SafeEntry huge = {"huge", DTYPE_F32, 3, {1LL << 40, 1LL << 40, 2}};
    CHECK(safetensors_writer_open(&w, path, &huge, 1, NULL, 0, &err) != 0 && strstr(err.text, "huge"), "%s", err.text);
    CHECK(safetensors_open(&s, path, &err) == 0 && safetensors_count(s) == N_ENTRIES, "%s", err.text);
    safetensors_close(s);
}

// ---- refusals ------------------------------------------------------------------------------------------------------

static void test_headers(void) {
    check_begin("headers that contradict the file or themselves");
    const struct {
        const char *what, *header;
        size_t data;
        const char *word;
    } bad[] = {
        {"overlap",
         "{\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[4,12]}}",
         12, "overlap"},
        {"hole",
         "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[8,12]}}",
         12, "hole"},
        {"hole in front", "{\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[8,12]}}", 12, "hole"},
        {"bytes behind", "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 12, "end at byte 4"},
        {"truncated", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 12, "inside"},
        {"backwards", "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[8,4]}}", 12, "inside"},
        {"shape against bytes", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,12]}}", 12, "shape"},
        {"product overflows", "{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
         "shape"},
        {"negative size", "{\"a\":{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,12]}}", 12, "shape"},
        {"fractional size", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1.5],\"data_offsets\":[0,12]}}", 12, "shape"},
        {"endless offset", "{\"a\":{\"dtype\":\"U8\",\"shape\":[12],\"data_offsets\":[0,1e999]}}", 12, "data_offsets"},
        {"nine dimensions", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1,
         "dimensions"},
        {"half a byte", "{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]}}", 1, "shape"},
        {"unknown type", "{\"a\":{\"dtype\":\"F33\",\"shape\":[3],\"data_offsets\":[0,12]}}", 12, "F33"},
        {"no type", "{\"a\":{\"shape\":[3],\"data_offsets\":[0,12]}}", 12, "dtype"},
        {"type twice", "{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}", 3, "dtype"},
        {"no shape", "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,12]}}", 12, "shape"},
        {"shape is no list", "{\"a\":{\"dtype\":\"U8\",\"shape\":12,\"data_offsets\":[0,12]}}", 12, "shape"},
        {"no offsets", "{\"a\":{\"dtype\":\"U8\",\"shape\":[12]}}", 12, "data_offsets"},
        {"three offsets", "{\"a\":{\"dtype\":\"U8\",\"shape\":[12],\"data_offsets\":[0,6,12]}}", 12, "data_offsets"},
        {"tensor is no object", "{\"a\":[1,2]}", 0, "object"},
        {"name twice",
         "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
         "\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}",
         8, "twice"},
        {"metadata of numbers", "{\"__metadata__\":{\"a\":1}}", 0, "__metadata__"},
        {"metadata no object", "{\"__metadata__\":\"a\"}", 0, "__metadata__"},
        {"no JSON", "{\"a\":", 0, "JSON"},
        {"a list", "[]", 0, "{"},
        {"two objects", "{}{}", 0, "JSON"},
        {"an empty header", "", 0, ""},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file("model.safetensors", bad[i].header, -1, bad[i].data);
        expect_refusal(bad[i].what, bad[i].word);
    }
    check_begin("the same forms, correct, are accepted: unsorted offsets, other types, padding, unknown keys");
    const char *const good[] = {
        "{\"b\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[4,12]},"
        "\"a\":{\"data_offsets\":[0,4],\"dtype\":\"F32\",\"shape\":[]}}   ",
        "{\"a\":{\"dtype\":\"I64\",\"shape\":[1,1],\"data_offsets\":[0,8],\"note\":null},"
        "\"c\":{\"dtype\":\"BOOL\",\"shape\":[0,9007199254740992],\"data_offsets\":[8,8]},"
        "\"b\":{\"dtype\":\"F4\",\"shape\":[2,4],\"data_offsets\":[8,12]}}",
    };
    for (int i = 0; i < 2; i++) {
        SafeTensors *s = NULL;
        Error err = {""};
        write_file("model.safetensors", good[i], -1, 12);
        CHECK(safetensors_open(&s, path, &err) == 0, "%s", err.text);
        CHECK(!s || safetensors_find(s, "a")->supported == (i == 0), "supported");
        safetensors_close(s);
    }
}

static void test_sizes(void) {
    check_begin("huge, short and missing headers");
    const long long lengths[] = {100000001, 1LL << 62, -2LL, 3, 0};
    const char *header = "{\"__metadata__\":{}}     ";
    for (int i = 0; i < 5; i++) {
        size_t n = strlen(header);
        uint8_t file[64] = {0};
        uint64_t claimed = (uint64_t)lengths[i];
        memcpy(file, &claimed, 8);
        memcpy(file + 8, header, n);
        write_bytes("model.safetensors", file, 8 + n);
        expect_refusal("header length", "");
    }
    write_bytes("model.safetensors", "", 0);
    expect_refusal("an empty file", "");
    write_bytes("model.safetensors", "1234567", 7);
    expect_refusal("seven bytes", "");
    char *deep = malloc(100001);
    memset(deep, '[', 100000);
    memcpy(deep, "{\"a\":", 5);
    deep[100000] = 0;
    write_file("model.safetensors", deep, -1, 0);
    expect_refusal("100,000 brackets", "nested");
    free(deep);
    unlink(path);
    expect_refusal("no file", "cannot open");

    check_begin("every truncation of a valid file is refused");
    write_valid();
    char *data = NULL;
    size_t size = 0;
    CHECK(file_read(&data, &size, path, NULL) == 0, "read back");
    for (size_t n = 0; n < size; n++) {
        write_bytes("model.safetensors", data, n);
        SafeTensors *s = NULL;
        Error err = {""};
        CHECK(safetensors_open(&s, path, &err) != 0 && strstr(err.text, path), "%zu of %zu bytes", n, size);
        safetensors_close(s);
    }
    free(data);
}

// Reads every byte that a successful open promises.
static void touch(const SafeTensors *s) {
    volatile uint8_t sum = 0;
    for (int i = 0; i < safetensors_count(s); i++) {
        const SafeTensor *t = safetensors_at(s, i);
        for (size_t k = 0; k < t->bytes; k++) sum = (uint8_t)(sum + ((const uint8_t *)t->data)[k]);
        CHECK(safetensors_find(s, t->name) == t, "%s", t->name);
    }
}

static void test_mutations(void) {
    check_begin("flipped bits and random damage in the header: refused or read, never a crash");
    write_valid();
    char *data = NULL;
    size_t size = 0;
    CHECK(file_read(&data, &size, path, NULL) == 0, "read back");
    uint64_t header;
    memcpy(&header, data, 8);
    int refused = 0, accepted = 0;
    srand(1);
    char *copy = malloc(size);
    for (int round = 0; round < 3000; round++) {
        memcpy(copy, data, size);
        int changes = 1 + rand() % 3;
        for (int i = 0; i < changes; i++) {
            size_t at = (size_t)rand() % (8 + header);
            copy[at] = (char)(round % 2 ? copy[at] ^ (1 << rand() % 8) : rand());
        }
        write_bytes("model.safetensors", copy, size);
        SafeTensors *s = NULL;
        Error err = {""};
        if (safetensors_open(&s, path, &err) == 0) {
            touch(s);
            accepted++;
        } else {
            CHECK(strstr(err.text, path) != NULL, "the refusal names no file: %s", err.text);
            refused++;
        }
        safetensors_close(s);
    }
    CHECK(refused > 1000 && accepted > 10, "%d refused, %d accepted", refused, accepted); // names may change freely
    free(copy);
    free(data);
}

// ---- folders -------------------------------------------------------------------------------------------------------

static void expect_index_refusal(const char *index, const char *word, const char *other) {
    write_bytes("model.safetensors.index.json", index, strlen(index));
    SafeTensors *s = NULL;
    Error err = {""};
    int bad = safetensors_open(&s, folder, &err);
    CHECK(bad != 0, "accepted: %s", index);
    CHECK(!bad || (strstr(err.text, word) && strstr(err.text, other)), "%s: %s", index, err.text);
    safetensors_close(s);
}

static void expect_refusal_of(const char *file, const char *content, const char *word) {
    SafeTensors *s = NULL;
    Error err = {""};
    write_bytes(file, content, strlen(content));
    CHECK(safetensors_open(&s, folder, &err) != 0 && strstr(err.text, word), "%s: %s", file, err.text);
    char *made = string_format("%s/%s", folder, file);
    unlink(made);
    free(made);
}

static void test_not_fetched(void) {
    check_begin("a Git LFS pointer and a pickle in place of weights are called what they are");
    const char *pointer = "version https://git-lfs.github.com/spec/v1\n"
                          "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 1001\n";
    unlink(path);
    expect_refusal_of("model.safetensors", pointer, "git lfs pull");
    expect_refusal_of("model.safetensors.index.json", pointer, "git lfs pull");
    expect_refusal_of("pytorch_model.bin", "PK", "save_pretrained");
    expect_refusal_of("pytorch_model.bin.index.json", "{}", "save_pretrained");
}

static void test_folders(void) {
    check_begin("a folder with an index; its missing files and tensors are named");
    unlink(path);
    SafeTensors *s = NULL;
    Error err = {""};
    CHECK(safetensors_open(&s, folder, &err) != 0 && strstr(err.text, "model.safetensors"), "%s", err.text);
    write_file("model-00001-of-00002.safetensors", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
               -1, 4);
    write_file("model-00002-of-00002.safetensors", "{\"b\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[0,8]}}",
               -1, 8);
    const char *index = "{\"metadata\":{\"total_size\":12},\"weight_map\":{\"b\":\"model-00002-of-00002.safetensors\","
                        "\"a\":\"model-00001-of-00002.safetensors\"}}";
    write_bytes("model.safetensors.index.json", index, strlen(index));
    CHECK(safetensors_open(&s, folder, &err) == 0, "%s", err.text);
    CHECK(s && safetensors_count(s) == 2 && safetensors_find(s, "a")->bytes == 4, "two tensors of two files");
    CHECK(s && strstr(safetensors_path(s, safetensors_find(s, "b")), "00002-of"), "file of b");
    CHECK(s && strcmp(safetensors_path(s, NULL), folder) == 0, "what was opened");
    safetensors_close(s);
    index = "{\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\",\"lm_head.weight\":"
            "\"model-00001-of-00002.safetensors\"}}";
    write_bytes("model.safetensors.index.json", index, strlen(index));
    CHECK(safetensors_open(&s, folder, &err) == 0 && safetensors_count(s) == 1, "a tied head: %s", err.text);
    safetensors_close(s);
    expect_index_refusal("{\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\",\"zz\":\"gone.safetensors\"}}",
                         "gone.safetensors", "\"zz\"");
    expect_index_refusal("{\"weight_map\":{\"b\":\"model-00001-of-00002.safetensors\"}}", "\"b\"", "00001");
    expect_index_refusal("{\"weight_map\":{\"a\":\"../model.safetensors\"}}", "\"a\"", "name of a file");
    expect_index_refusal("{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "\"a\"", "name of a file");
    expect_index_refusal("{\"weight_map\":{\"a\":\"\"}}", "\"a\"", "index.json");
    expect_index_refusal("{\"weight_map\":{\"a\":5}}", "\"a\"", "index.json");
    expect_index_refusal("{\"weight_map\":[]}", "weight_map", "index.json");
    expect_index_refusal("{}", "weight_map", "index.json");
    expect_index_refusal("{\"weight_map\":", "JSON", "index.json");

    check_begin("a tensor in two files of a folder is refused");
    write_file("model-00002-of-00002.safetensors", "{\"a\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[0,8]}}",
               -1, 8);
    expect_index_refusal("{\"weight_map\":{\"a\":\"model-00002-of-00002.safetensors\",\"b\":"
                         "\"model-00001-of-00002.safetensors\"}}",
                         "\"a\"", "twice");
}

// ---- conversion ----------------------------------------------------------------------------------------------------

// Value of a half from its definition.
static float half_value(uint16_t h) {
    int sign = h >> 15, exponent = h >> 10 & 31, mantissa = h & 1023;
    float value = exponent == 31 ? (mantissa ? NAN : INFINITY)
                  : exponent     ? ldexpf(1024.0f + (float)mantissa, exponent - 25)
                                 : ldexpf((float)mantissa, -24);
    return sign ? -value : value;
}

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float value_of(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

// The nearer of the two bf16 neighbours, the even one when both are as near: by comparing distances in double.
static uint16_t nearest_bf16(float f) {
    uint32_t u = bits_of(f);
    uint16_t low = (uint16_t)(u >> 16), high = (uint16_t)(low + 1);
    double below = fabs((double)f - (double)value_of((uint32_t)low << 16));
    double top = isinf(value_of((uint32_t)high << 16)) ? copysign(ldexp(1, 128), (double)f) // what would come next
                                                       : (double)value_of((uint32_t)high << 16);
    double above = fabs(top - (double)f);
    return below < above || (below == above && low % 2 == 0) ? low : high;
}

static void test_conversion(void) {
    check_begin("every half and every bfloat16 to fp32, unaligned");
    enum { N = 65536 };
    uint8_t *raw = malloc(4 * N + 1);
    float *wide = malloc(N * sizeof *wide);
    uint16_t *narrow = malloc(N * sizeof *narrow);
    for (int i = 0; i < N; i++) memcpy(raw + 1 + 2 * i, &(uint16_t){(uint16_t)i}, 2);
    safetensors_convert(wide, DTYPE_F32, raw + 1, DTYPE_F16, N);
    for (int i = 0; i < N; i++) {
        float expected = half_value((uint16_t)i);
        CHECK(isnan(expected) ? isnan(wide[i]) : bits_of(expected) == bits_of(wide[i]), "half %04x: %g", i,
              (double)wide[i]);
    }
    safetensors_convert(wide, DTYPE_F32, raw + 1, DTYPE_BF16, N);
    for (int i = 0; i < N; i++) CHECK(bits_of(wide[i]) == (uint32_t)i << 16, "bfloat16 %04x", i);
    safetensors_convert(narrow, DTYPE_BF16, raw + 1, DTYPE_BF16, N);
    for (int i = 0; i < N; i++) CHECK(narrow[i] == i, "copy %04x", i);

    check_begin("fp32 and half to bfloat16 round to the nearest, ties to even; NaN and infinity stay");
    for (int i = 0; i < N; i++) wide[i] = half_value((uint16_t)i);
    safetensors_convert(narrow, DTYPE_BF16, raw + 1, DTYPE_F16, N);
    for (int i = 0; i < N; i++) {
        float got = value_of((uint32_t)narrow[i] << 16);
        CHECK(isnan(wide[i])   ? isnan(got)
              : isinf(wide[i]) ? got == wide[i]
                               : narrow[i] == nearest_bf16(wide[i]),
              "half %04x (%g) -> %04x", i, (double)wide[i], narrow[i]);
    }
    srand(2);
    for (int i = 0; i < N; i++) {
        uint32_t u = (uint32_t)rand() << 16 ^ (uint32_t)rand();
        if (i % 4 == 0) u = (u & 0xffff0000u) | 0x8000u;      // exact ties
        if (i % 64 == 1) u = (u & 0x80000000u) | 0x7f7fffffu; // rounds to infinity
        if (i % 64 == 2) u |= 0x7f800000u;
        if (i % 64 == 3) u = (u & 0x8000ffffu) | 0x7f800000u | (i % 128 == 3); // NaN in the low bits alone
        wide[i] = value_of(u);
    }
    safetensors_convert(narrow, DTYPE_BF16, wide, DTYPE_F32, N);
    for (int i = 0; i < N; i++) {
        float got = value_of((uint32_t)narrow[i] << 16);
        CHECK(isnan(wide[i])   ? isnan(got)
              : isinf(wide[i]) ? got == wide[i]
                               : narrow[i] == nearest_bf16(wide[i]),
              "%08x -> %04x", bits_of(wide[i]), narrow[i]);
    }
    free(raw);
    free(wide);
    free(narrow);
}

int main(void) {
    if (!mkdtemp(folder)) return perror(folder), 2;
    path = string_format("%s/model.safetensors", folder);
    test_round_trip();
    test_headers();
    test_sizes();
    test_mutations();
    test_not_fetched();
    test_folders();
    test_conversion();
    free(path);
    Error err;
    if (file_remove_tree(folder, &err) != 0) printf("%s\n", err.text);
    return check_done();
}
