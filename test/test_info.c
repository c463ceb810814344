// test_info.c: what `c3 info` says about a checkpoint, a run, a plain Qwen2 folder, a shard, and about what is none of
// them.
#include <unistd.h>

#include "llmc/commands/info.h"
#include "llmc/data/shard.h"
#include "test/known_model.h"

static char folder[] = "build/test_info_XXXXXX";

static int checking; // info -check

// What info_print writes, or the error; free it.
static char *info(const char *path, int *bad) {
    char *text = NULL;
    size_t size = 0;
    Error err = {""};
    FILE *out = open_memstream(&text, &size);
    *bad = info_print(out, path, checking, &err);
    fclose(out);
    if (!*bad) return text;
    free(text);
    return strdup(err.text);
}

static void expect(const char *path, int refused, const char *const *words, int n) {
    int bad;
    char *text = info(path, &bad);
    CHECK((bad != 0) == refused, "%s: %s", path, text);
    for (int i = 0; i < n; i++) CHECK(strstr(text, words[i]), "%s: expected \"%s\" in:\n%s", path, words[i], text);
    free(text);
}

static void test_models(void) {
    check_begin(
        "a checkpoint: shapes, parameters, types, template, training state, fingerprint; its run stands for it");
    char *run = in_run(folder, "run"), *step = in_run(run, "step_00000003"), *llm1 = in_run(step, "llm1"), hex[65] = "";
    Error err = {""};
    Rig r;
    rig_open(&r, small_config(), DTYPE_BF16, 0);
    rig_fill(&r, 3);
    float losses[3] = {3, 2, 1.25f};
    TrainState s = {.step = 3,
                    .tokens_seen = 4321,
                    .loader = {.seed = 0xfedcba9876543210u, .epoch = 2, .position = 17},
                    .settings = "{\"lr\":1e-05}",
                    .losses = losses,
                    .tokenizer = {0xab, 0xcd}};
    CheckpointJob job = {
        .backend = r.b, .dist = r.dist, .config = &r.config, .params = &r.params, .optimizer = &r.optimizer};
    CHECK(checkpoint_save(&job, &s, run, 1, &err) == 0, "%s", err.text);
    CHECK(checkpoint_fingerprint(hex, step, &err) == 0, "%s", err.text);
    size_t enc = 0;
    for (int i = 0; i < r.params.table.n; i++)
        enc += r.params.table.params[i].owner == OWNER_ENCODER ? r.params.table.params[i].count : 0;
    char *encoder = string_format("%zu,%03zu parameters: 2 layers, width 30, heads 2/1 x 16, mlp 44, vocabulary 262",
                                  enc / 1000, enc % 1000);
    const char *const words[] = {step,
                                 encoder,
                                 "projector 30 -> 50",
                                 "5 latents",
                                 "bare",
                                 "256 base tokens",
                                 "<img> 259",
                                 "BF16: 30 tensors, 122 KB",
                                 "head of its own",
                                 "1.2500",
                                 "4,321",
                                 "18364758544493064720",
                                 "{\"lr\":1e-05}",
                                 "abcd0000",
                                 hex};
    expect(step, 0, words, 15);
    expect(run, 0, words, 15);
    check_begin("a plain Qwen2 folder");
    const char *const plain[] = {"plain Qwen2", encoder, "head is the embedding", "fingerprint"};
    expect(llm1, 0, plain, 4);
    check_begin("a damaged checkpoint, an empty folder and nothing at all are refused by name");
    char *weights = in_run(llm1, "model.safetensors"), *empty = in_run(folder, "empty");
    CHECK(truncate(weights, 1000) == 0 && file_make_dirs(empty, &err) == 0, "truncate");
    const char *const damaged[] = {"llm1/model.safetensors"}, *const nothing[] = {"hint"},
                      *const none[] = {"config.json"};
    expect(step, 1, damaged, 1);
    expect(empty, 1, none, 1);
    expect("build/not there", 1, nothing, 1);
    rig_close(&r);
    free(empty);
    free(weights);
    free(encoder);
    free(llm1);
    free(step);
    free(run);
}

// One byte of a file, from its end.
static void flip(const char *path, size_t from_end, uint8_t bits) {
    char *data = NULL;
    size_t size = 0;
    Error err = {""};
    CHECK(file_read(&data, &size, path, &err) == 0, "%s", err.text);
    if (!data) return;
    data[size - from_end] = (char)((uint8_t)data[size - from_end] ^ bits);
    put(path, data, size);
    free(data);
}

static void expect_refusal(const char *path, const char *a, const char *b) {
    const char *const words[] = {a, b};
    expect(path, 1, words, 2);
}

static void test_check(void) {
    check_begin("-check reads all: shapes, numbers, checksums, the trainer's state; the run stands for its checkpoint");
    char *run = in_run(folder, "checked"), *step = in_run(run, "step_00000001"), *llm1 = in_run(step, "llm1");
    char *weights = in_run(step, "model.safetensors"), *encoder = in_run(llm1, "model.safetensors"),
         *marker = in_run(step, "COMPLETE"), *tokenizer = in_run(step, "qwen.tiktoken"),
         *optimizer = in_run(step, "trainer/optimizer_00000.safetensors"), sum[64];
    Error err = {""};
    Rig r;
    rig_open(&r, small_config(), DTYPE_F32, 0);
    rig_fill(&r, 1);
    float loss = 2;
    TrainState s = {.step = 1, .settings = "{}", .losses = &loss};
    CheckpointJob job = job_of(&r);
    CHECK(checkpoint_save(&job, &s, run, 1, &err) == 0, "%s", err.text);
    checking = 1;
    snprintf(sum, sizeof sum, "%zu,%03zu, all finite", r.params.table.parameters / 1000,
             r.params.table.parameters % 1000);
    const char *const right[] = {"checksums      of 6 files right", "56, each there", sum,
                                 "numbers of optimizer state, all finite", "fingerprint"};
    expect(run, 0, right, 5);
    const char *const plain[] = {"26, each there", "checksums      none"};
    expect(llm1, 0, plain, 2);

    check_begin("-check finds one flipped bit by the checksum, where no checksum is kept by the numbers");
    flip(weights, 1, 0x01);
    expect_refusal(run, weights, "CRC-32");
    flip(weights, 1, 0x01);
    put(marker, "{\"files\": []}", 13);
    put(tokenizer, "IQ== 0\n", 7);
    expect_refusal(step, tokenizer, "");
    unlink(tokenizer);
    const uint32_t nan = 0xffc00000u;
    char *data = NULL;
    size_t size = 0;
    CHECK(file_read(&data, &size, encoder, &err) == 0, "%s", err.text);
    memcpy(data + size - 4, &nan, 4); // the last tensor of the encoder's file is its final norm
    put(encoder, data, size);
    expect_refusal(step, encoder, "tensor \"model.norm.weight\": element 29 is NaN");
    free(data);
    rig_fill(&r, 1);
    CHECK(file_remove_tree(run, &err) == 0 && checkpoint_save(&job, &s, run, 1, &err) == 0, "%s", err.text);
    CHECK(file_read(&data, &size, optimizer, &err) == 0, "%s", err.text);
    memcpy(data + size - 4, &nan, 4);
    put(optimizer, data, size);
    put(marker, "{\"files\": []}", 13);
    expect_refusal(step, optimizer, "is NaN");
    CHECK(truncate(optimizer, (off_t)size - 8) == 0, "truncate");
    expect_refusal(step, optimizer, "");
    checking = 0;
    rig_close(&r);
    free(data);
    free(optimizer);
    free(tokenizer);
    free(marker);
    free(encoder);
    free(weights);
    free(llm1);
    free(step);
    free(run);
}

static void test_shards(void) {
    check_begin("a shard: pages, tokens, vocabulary, tokenizer, checksums; a damaged one is refused");
    char *path = in_run(folder, "pages.bin");
    Error err = {""};
    ShardWriter *w = NULL;
    uint8_t fingerprint[32] = {0x12, 0x34};
    int32_t page[40] = {1, 2, 3};
    CHECK(shard_writer_open(&w, path, 4102, fingerprint, &err) == 0, "%s", err.text);
    CHECK(shard_writer_add(w, page, 40, NULL, 0, &err) == 0 && shard_writer_add(w, page, 10, page, 7, &err) == 0, "%s",
          err.text);
    const uint32_t asked[3] = {1, 2, 3};
    CHECK(shard_writer_add_page(w, &(ShardPage){asked, asked + 2, 1, 1, asked + 1, 1, 0}, &err) == 0, "%s", err.text);
    CHECK(shard_writer_commit(w, &err) == 0, "%s", err.text);
    const char *const words[] = {path,
                                 "3, the longest of 40 tokens",
                                 "2 pages have an answer",
                                 "1 pages have a prompt",
                                 "4102 ids",
                                 "12340000",
                                 "right"};
    expect(path, 0, words, 7);
    CHECK(truncate(path, 1100) == 0, "truncate");
    const char *const damaged[] = {path};
    expect(path, 1, damaged, 1);
    free(path);
}

int main(void) {
    Error err;
    dist = (Dist){.ranks = 1, .local_ranks = 1, .cores = 1};
    if (!mkdtemp(folder)) return perror(folder), 2;
    test_models();
    test_check();
    test_shards();
    if (file_remove_tree(folder, &err) != 0) printf("%s\n", err.text);
    return check_done();
}
