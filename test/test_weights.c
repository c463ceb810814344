// test_weights.c: model files in and out: every element type into every other, tables over the vocabulary cut, and the
// fingerprint.
#include <unistd.h>

#include "llmc/weights/resize.h"
#include "llmc/train/checkpoint.h"
#include "test/known_model.h"

static char folder[] = "build/test_weights_XXXXXX";
static FileSum sums[2];

// ---- weights alone -------------------------------------------------------------------------------------------------

static void test_weights(void) {
    check_begin(
        "a folder of weights is read back, the config beside it too; a tied model with another head is refused");
    char *where = in_run(folder, "weights");
    Error err = {""};
    CHECK(file_make_dirs(where, &err) == 0, "%s", err.text);
    Rig r;
    rig_open(&r, small_config(), DTYPE_F32, 0);
    rig_fill(&r, 1);
    CHECK(weights_save(r.b, r.weights, &r.params, &r.config, where, sums, &err) == 0, "%s", err.text);
    C3Config back;
    CHECK(config_read_c3(&back, where, &err) == 0 && back.dec.F == 61 && back.dtype == DTYPE_F32, "%s", err.text);
    rig_spoil(&r);
    CHECK(checkpoint_load_weights(r.b, r.weights, &r.params, &r.config, where, &err) == 0, "%s", err.text);
    CHECK(different_weights(&r, 1) == 0, "%zu bytes differ", different_weights(&r, 1));
    rig_close(&r);
    back.dec.tied = 1;
    rig_open(&r, back, DTYPE_F32, 0);
    CHECK(checkpoint_load_weights(r.b, r.weights, &r.params, &r.config, where, &err) != 0 &&
              strstr(err.text, "lm_head.weight") && strstr(err.text, "tie_word_embeddings"),
          "%s", err.text);
    rig_close(&r);

    check_begin("an untied model without its head is refused with a hint");
    C3Config config = small_config();
    config.dec.tied = 1;
    rig_open(&r, config, DTYPE_F32, 0);
    CHECK(weights_save(r.b, r.weights, &r.params, &r.config, where, sums, &err) == 0, "%s", err.text);
    rig_close(&r);
    rig_open(&r, small_config(), DTYPE_F32, 0);
    CHECK(checkpoint_load_weights(r.b, r.weights, &r.params, &r.config, where, &err) != 0 &&
              strstr(err.text, "lm_head.weight") && strstr(err.text, "tie_word_embeddings"),
          "%s", err.text);
    rig_close(&r);
    free(where);
}

static void test_conversion(void) {
    check_begin("weights saved in fp32 and read in bf16 are the nearest ones; bf16 in fp32 are the same");
    char *where = in_run(folder, "conversion");
    Error err = {""};
    CHECK(file_make_dirs(where, &err) == 0, "%s", err.text);
    for (int from = 0; from < 2; from++) {
        Rig a, b;
        rig_open(&a, small_config(), from ? DTYPE_BF16 : DTYPE_F32, 0);
        rig_open(&b, small_config(), from ? DTYPE_F32 : DTYPE_BF16, 0);
        rig_fill(&a, 6);
        rig_spoil(&b);
        CHECK(weights_save(a.b, a.weights, &a.params, &a.config, where, sums, &err) == 0, "%s", err.text);
        CHECK(checkpoint_load_weights(b.b, b.weights, &b.params, &b.config, where, &err) == 0, "%s", err.text);
        size_t total = a.params.table.total, bad = 0;
        const uint16_t *narrow = from ? a.weights : b.weights; // the CPU's device memory is the host's
        uint16_t *rounded = malloc(total * sizeof *rounded);
        safetensors_convert(rounded, DTYPE_BF16, from ? b.weights : a.weights, DTYPE_F32, total);
        for (size_t i = 0; i < total; i++) bad += rounded[i] != narrow[i];
        const float *wide = from ? b.weights : a.weights;
        for (size_t i = 0; i < total && from; i++) {
            uint32_t bits;
            memcpy(&bits, &wide[i], sizeof bits);
            bad += bits != (uint32_t)narrow[i] << 16;
        }
        CHECK(bad == 0, "%zu of %zu elements differ", bad, total);
        free(rounded);
        rig_close(&a);
        rig_close(&b);
    }
    free(where);
}

// ---- fingerprint ---------------------------------------------------------------------------------------------------

// Splits FOLDER/model.safetensors into two files with an index.
static void split(const char *where) {
    char *single = in_run(where, "model.safetensors"), *index = in_run(where, "model.safetensors.index.json");
    SafeTensors *s = NULL;
    Error err = {""};
    CHECK(safetensors_open(&s, single, &err) == 0, "%s", err.text);
    FILE *f = fopen(index, "w");
    fprintf(f, "{\"weight_map\":{");
    int n = safetensors_count(s), half = n / 3;
    for (int part = 0; part < 2; part++) {
        char *path = string_format("%s/model-%d.safetensors", where, part);
        SafeEntry entries[64];
        int count = 0;
        for (int i = part ? half : 0; i < (part ? n : half); i++) {
            const SafeTensor *t = safetensors_at(s, i);
            entries[count] = (SafeEntry){.name = t->name, .dtype = t->dtype, .dims = t->dims};
            memcpy(entries[count++].shape, t->shape, sizeof t->shape);
            fprintf(f, "%s\"%s\":\"model-%d.safetensors\"", i ? "," : "", t->name, part);
        }
        SafeWriter *w = NULL;
        CHECK(safetensors_writer_open(&w, path, entries, count, NULL, 0, &err) == 0, "%s", err.text);
        for (int i = 0; i < count; i++) {
            const SafeTensor *t = safetensors_at(s, i + (part ? half : 0));
            CHECK(safetensors_writer_data(w, t->data, t->bytes, &err) == 0, "%s", err.text);
        }
        CHECK(safetensors_writer_commit(w, &err) == 0, "%s", err.text);
        free(path);
    }
    fprintf(f, "}}");
    fclose(f);
    safetensors_close(s);
    unlink(single);
    free(index);
    free(single);
}

static void test_fingerprint(void) {
    check_begin("the fingerprint depends on names, shapes and bytes, not on how files are cut");
    char *where = in_run(folder, "print"), hex[65] = "", again[65] = "";
    Error err = {""};
    CHECK(file_make_dirs(where, &err) == 0, "%s", err.text);
    Rig r;
    rig_open(&r, small_config(), DTYPE_BF16, 0);
    rig_fill(&r, 5);
    CHECK(weights_save(r.b, r.weights, &r.params, &r.config, where, sums, &err) == 0, "%s", err.text);
    CHECK(checkpoint_fingerprint(hex, where, &err) == 0 && strlen(hex) == 64, "%s", err.text);
    split(where);
    CHECK(checkpoint_fingerprint(again, where, &err) == 0 && strcmp(hex, again) == 0, "%s, %s %s", hex, again,
          err.text);
    rig_spoil(&r);
    CHECK(checkpoint_load_weights(r.b, r.weights, &r.params, &r.config, where, &err) == 0, "sharded: %s", err.text);
    char *encoder = in_run(where, "llm1/model.safetensors"), *data = NULL;
    size_t size = 0;
    CHECK(file_read(&data, &size, encoder, &err) == 0, "%s", err.text);
    data[size - 1] ^= 1;
    put(encoder, data, size);
    CHECK(checkpoint_fingerprint(again, where, &err) == 0 && strcmp(hex, again) != 0, "one bit makes no difference");
    CHECK(checkpoint_fingerprint(again, "build/no such folder", &err) != 0 && strstr(err.text, "no such"), "%s",
          err.text);
    rig_close(&r);
    free(data);
    free(encoder);
    free(where);
}

// ---- the C side of test_safetensors.py -----------------------------------------------------------------------------

static void print_tensor(const char *name, const float *values, size_t n) {
    printf("%s %zu %08x\n", name, n, file_crc32(0, values, n * sizeof *values));
}

// Name, elements and CRC-32 of the elements as fp32, one tensor a line.
static int list(const char *path, Error *err) {
    SafeTensors *s = NULL;
    TRY(safetensors_open(&s, path, err));
    for (int i = 0; i < safetensors_count(s); i++) {
        const SafeTensor *t = safetensors_at(s, i);
        if (!t->supported) {
            printf("%s %zu %s\n", t->name, t->bytes, t->type);
            continue;
        }
        size_t n = t->bytes / dtype_size(t->dtype);
        float *values = malloc((n + 1) * sizeof *values);
        safetensors_convert(values, DTYPE_F32, t->data, t->dtype, n);
        print_tensor(t->name, values, n);
        free(values);
    }
    safetensors_close(s);
    return 0;
}

// A plain Qwen2 folder, read as an encoder: what arrived in memory.
static int stack(const char *path, Error *err) {
    C3Config c = small_config();
    TRY(config_read_qwen2(&c.enc, path, err));
    printf("config %d %d %d %d %d %d %d %d %g %g %d\n", c.enc.V, c.enc.D, c.enc.L, c.enc.NH, c.enc.KV, c.enc.HS,
           c.enc.F, c.enc.max_positions, (double)c.enc.rope_theta, (double)c.enc.rms_eps, c.enc.tied);
    Rig r;
    rig_open(&r, c, DTYPE_F32, 0);
    Resizer a = {.backend = r.b, .weights = r.weights, .params = &r.params, .base = c.base_vocab};
    SafeTensors *s = NULL;
    int bad = safetensors_open(&s, path, err);
    if (!bad) bad = resize_stack(&a, OWNER_ENCODER, s, (FileVocab){.base = c.base_vocab, .rows = c.enc.V}, err);
    safetensors_close(s);
    for (int i = 0; i < r.params.table.n && !bad; i++) {
        const Param *p = &r.params.table.params[i];
        if (p->owner == OWNER_ENCODER) print_tensor(p->name, (float *)r.weights + p->offset, p->count);
    }
    rig_close(&r);
    return bad;
}

static int write_model(const char *path, const char *type, Error *err) {
    Rig r;
    rig_open(&r, small_config(), strcmp(type, "fp32") ? DTYPE_BF16 : DTYPE_F32, 0);
    rig_fill(&r, 3);
    int bad = weights_save(r.b, r.weights, &r.params, &r.config, path, sums, err);
    rig_close(&r);
    return bad;
}

static int command(int argc, char **argv) {
    Error err = {"unknown command"};
    int bad = -1;
    char hex[65];
    if (!strcmp(argv[1], "list")) bad = list(argv[2], &err);
    if (!strcmp(argv[1], "stack")) bad = stack(argv[2], &err);
    if (!strcmp(argv[1], "write") && argc == 4) bad = write_model(argv[2], argv[3], &err);
    if (!strcmp(argv[1], "fingerprint") && (bad = checkpoint_fingerprint(hex, argv[2], &err)) == 0) printf("%s\n", hex);
    if (bad) fprintf(stderr, "%s\n", err.text);
    return bad ? 1 : 0;
}

int main(int argc, char **argv) {
    Error err;
    dist = (Dist){.ranks = 1, .local_ranks = 1, .cores = 1};
    if (argc > 2) return command(argc, argv);
    if (!mkdtemp(folder)) return perror(folder), 2;
    test_weights();
    test_conversion();
    test_fingerprint();
    if (file_remove_tree(folder, &err) != 0) printf("%s\n", err.text);
    return check_done();
}
