// test_config.c: config.json in and out: what is written is read back; every missing key and every absurd number is
// refused with the file's name and the key's; both spellings of transformers 4 and 5 are read.
#include <stdlib.h>
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/model/config.h"
#include "llmc/base/file.h"
#include "llmc/base/json.h"
#include "test/check.h"

static char folder[] = "build/test_config_XXXXXX";

static void write_text(const char *name, const char *text) {
    char *path = string_format("%s/%s", folder, name);
    FileWriter w;
    Error err = {""};
    int bad = file_create(&w, path, &err) || file_write(&w, text, strlen(text), &err) || file_commit(&w, &err);
    CHECK(!bad, "%s", err.text);
    free(path);
}

static cJSON *read_object(const char *name) {
    char *path = string_format("%s/%s", folder, name);
    cJSON *json = NULL;
    Error err = {""};
    CHECK(json_read(&json, path, 1 << 20, &err) == 0, "%s", err.text);
    free(path);
    return json;
}

static void write_object(const char *name, const cJSON *json) {
    char *text = cJSON_PrintUnformatted(json);
    write_text(name, text);
    free(text);
}

static C3Config preset(const char *name, int vocab) {
    C3Config c;
    Error err = {""};
    CHECK(config_preset(&c, name, vocab, &err) == 0, "%s", err.text);
    return c;
}

static int same_stack(const Qwen2Config *a, const Qwen2Config *b) {
    return a->V == b->V && a->D == b->D && a->L == b->L && a->NH == b->NH && a->KV == b->KV && a->HS == b->HS &&
           a->F == b->F && a->max_positions == b->max_positions && a->rope_theta == b->rope_theta &&
           a->rms_eps == b->rms_eps && a->tied == b->tied;
}

static void test_round_trips(void) {
    check_begin("every preset is read back as it was written");
    const char *const names[] = {"demo", "tiny", "small", "medium", "paper"};
    Error err = {""};
    for (int i = 0; i < 5; i++) {
        for (int type = 0; type < 3; type++) {
            C3Config c = preset(names[i], i < 3 && type == 1 ? 1000 : 0), back;
            c.dtype = (DType)type;
            c.dec.tied = type == 2;
            if (type == 2) config_add_trained(&c, 7, 1300 + i);
            if (type == 2) c.window = 1024 + i;
            if (type == 1) c.dec.HS = 20 + 2 * i; // heads that do not fill the width: head_dim is written
            if (type == 2) c.dec.rope_theta = 12345.678f, c.dec.rms_eps = 1.2345678e-5f, c.latents = 77 + i;
            CHECK(config_write_c3(&c, folder, &err) == 0, "%s", err.text);
            CHECK(config_read_c3(&back, folder, &err) == 0, "%s", err.text);
            CHECK(same_stack(&c.enc, &back.enc) && same_stack(&c.dec, &back.dec), "%s: stacks differ", names[i]);
            CHECK(c.latents == back.latents && c.base_vocab == back.base_vocab && c.dtype == back.dtype, "%s",
                  names[i]);
            CHECK(memcmp(&c.specials, &back.specials, sizeof c.specials) == 0, "%s: specials", names[i]);
            CHECK(memcmp(c.trained_tokens, back.trained_tokens, sizeof c.trained_tokens) == 0,
                  "%s: trained on %d to %d", names[i], back.trained_tokens[0], back.trained_tokens[1]);
            CHECK(strcmp(c.template_name, back.template_name) == 0, "%s: template %s", names[i], back.template_name);
            CHECK(c.window == back.window, "%s: windows of %d", names[i], back.window);
        }
    }
    check_begin("what it was trained on grows with what it is trained on");
    C3Config trained = preset("demo", 0);
    config_add_trained(&trained, 24, 64);
    config_add_trained(&trained, 30, 40);
    CHECK(trained.trained_tokens[0] == 24 && trained.trained_tokens[1] == 64, "a narrower range took something away");
    config_add_trained(&trained, 5, 90);
    CHECK(trained.trained_tokens[0] == 5 && trained.trained_tokens[1] == 90, "a wider range was not taken");
    const LatentsMix mix = {3, {4, 8, 16}, {0}}, other = {2, {6, 16}, {0}}, none = {0};
    config_add_latents(&trained, &none);
    CHECK(trained.n_trained_latents == 0 && config_knows_latents(&trained, 16) && !config_knows_latents(&trained, 8),
          "a model of one number of latents");
    config_add_latents(&trained, &mix);
    config_add_latents(&trained, &other);
    CHECK(config_write_c3(&trained, folder, &err) == 0 && config_read_c3(&trained, folder, &err) == 0, "%s", err.text);
    CHECK(trained.n_trained_latents == 4 && trained.trained_latents[0] == 4 && trained.trained_latents[1] == 6 &&
              trained.trained_latents[2] == 8 && trained.trained_latents[3] == 16 &&
              config_knows_latents(&trained, 6) && !config_knows_latents(&trained, 7),
          "%d numbers of latents", trained.n_trained_latents);
    trained.latents = 7; // cut to these, and trained with them
    config_add_latents(&trained, &none);
    CHECK(trained.n_trained_latents == 3 && trained.trained_latents[1] == 6 && trained.trained_latents[2] == 7,
          "%d numbers of latents after a cut", trained.n_trained_latents);
    check_begin("a plain Qwen2 config is read back; the two kinds are not taken for each other");
    C3Config c = preset("small", 0);
    Qwen2Config q;
    c.enc.tied = 0;
    CHECK(config_write_qwen2(&c.enc, DTYPE_BF16, &c.specials, folder, &err) == 0, "%s", err.text);
    CHECK(config_read_qwen2(&q, folder, &err) == 0 && same_stack(&q, &c.enc), "%s", err.text);
    CHECK(config_read_c3(&c, folder, &err) != 0 && strstr(err.text, "-enc"), "%s", err.text);
    CHECK(config_write_c3(&c, folder, &err) != 0, "a broken C3Config was written");
    c = preset("small", 0);
    CHECK(config_write_c3(&c, folder, &err) == 0, "%s", err.text);
    CHECK(config_read_qwen2(&q, folder, &err) != 0 && strstr(err.text, "-m"), "%s", err.text);
}

// Reads the folder and expects a refusal that names the file and `word`.
static void expect_refusal(const char *file, const char *word, const char *what) {
    C3Config c;
    Error err = {""};
    int bad = config_read_c3(&c, folder, &err);
    CHECK(bad != 0, "%s was accepted", what);
    CHECK(!bad || (strstr(err.text, file) && strstr(err.text, word)), "%s: %s", what, err.text);
}

static void test_missing(void) {
    check_begin("each missing key is an error that names file and key");
    C3Config c = preset("tiny", 0);
    CHECK(config_write_c3(&c, folder, NULL) == 0, "write");
    const char *const files[] = {"config.json", "llm1/config.json"};
    const char *const required[] = {
        "model_type",          "vocab_size",          "hidden_size",       "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "intermediate_size", "max_position_embeddings",
        "rope_theta",          "rms_norm_eps",        "latent_token_len",  "contexts_compression_llm_hidden_size",
        "im_start_token",      "im_end_token",        "im_patch_token",    "eos_token_id"};
    for (int f = 0; f < 2; f++) {
        for (int k = 0; k < (f == 0 ? 16 : 10); k++) {
            cJSON *json = read_object(files[f]), *whole = cJSON_Duplicate(json, 1);
            cJSON_DeleteItemFromObjectCaseSensitive(json, required[k]);
            write_object(files[f], json);
            expect_refusal(files[f], required[k], required[k]);
            write_object(files[f], whole);
            cJSON_Delete(json);
            cJSON_Delete(whole);
        }
    }
    C3Config back;
    CHECK(config_read_c3(&back, folder, NULL) == 0, "the whole config is still read");
}

static void test_absurd(void) {
    check_begin("absurd values are refused with file and key");
    C3Config c = preset("tiny", 0);
    CHECK(config_write_c3(&c, folder, NULL) == 0, "write");
    const struct {
        const char *key, *value, *word; // word: what the error must name
    } absurd[] = {
        {"vocab_size", "0", "vocab_size"},
        {"vocab_size", "1e300", "vocab_size"},
        {"vocab_size", "4102.5", "vocab_size"},
        {"vocab_size", "4101", "vocab_size"},
        {"vocab_size", "\"4102\"", "vocab_size"},
        {"hidden_size", "-128", "hidden_size"},
        {"hidden_size", "1e999", "hidden_size"},
        {"hidden_size", "191", "num_attention_heads"},
        {"num_hidden_layers", "100000000", "num_hidden_layers"},
        {"num_hidden_layers", "[2]", "num_hidden_layers"},
        {"num_attention_heads", "0", "num_attention_heads"},
        {"num_key_value_heads", "4", "num_key_value_heads"},
        {"num_key_value_heads", "null", "num_key_value_heads"},
        {"intermediate_size", "2147483648", "intermediate_size"},
        {"head_dim", "33", "head size"},
        {"head_dim", "0", "head_dim"},
        {"rope_theta", "0", "rope_theta"},
        {"rope_theta", "\"1e6\"", "rope_theta"},
        {"rms_norm_eps", "-1e-6", "rms_norm_eps"},
        {"rms_norm_eps", "0", "rms_norm_eps"},
        {"max_position_embeddings", "-1", "max_position_embeddings"},
        {"latent_token_len", "0", "latent_token_len"},
        {"latent_token_len", "1e9", "latent_token_len"},
        {"contexts_compression_llm_hidden_size", "256", "contexts_compression_llm_hidden_size"},
        {"im_start_token", "5", "im_start_token"},
        {"im_end_token", "5", "im_end_token"},
        {"im_patch_token", "4102", "im_patch_token"},
        {"eos_token_id", "4096", "eos_token_id"},
        {"use_im_start_end", "false", "use_im_start_end"},
        {"tie_word_embeddings", "1", "tie_word_embeddings"},
        {"torch_dtype", "\"int8\"", "torch_dtype"},
        {"model_type", "\"llama\"", "model_type"},
        {"model_type", "7", "model_type"},
        {"hidden_act", "\"gelu\"", "hidden_act"},
        {"use_sliding_window", "true", "use_sliding_window"},
        {"layer_types", "[\"sliding_attention\"]", "layer_types"},
        {"rope_scaling", "{\"rope_type\":\"yarn\"}", "rope_type"},
        {"rope_parameters", "7", "rope_parameters"},
        {"rope_parameters", "{\"rope_theta\": 10000.0}",
         "\"rope_theta\" is 1e+06 and \"rope_parameters.rope_theta\" is 10000"},
        {"rope_scaling", "{\"rope_type\": \"default\", \"rope_theta\": 10000.0}",
         "\"rope_theta\" is 1e+06 and \"rope_scaling.rope_theta\" is 10000"},
        {"rope_parameters", "{\"full_attention\": {\"rope_theta\": 10000.0}}", "rope_parameters.full_attention"},
        {"c3_template", "\"other\"", "c3_template"},
        {"c3_template", "\"longer than any template's name\"", "c3_template"},
        {"c3_template", "3", "c3_template"},
        {"c3_trained_tokens", "64", "c3_trained_tokens"},
        {"c3_trained_tokens", "[24]", "c3_trained_tokens"},
        {"c3_trained_tokens", "[24, 64, 1]", "c3_trained_tokens"},
        {"c3_trained_tokens", "[0, 64]", "c3_trained_tokens"},
        {"c3_trained_tokens", "[64, 24]", "c3_trained_tokens"},
        {"c3_trained_tokens", "[24, 1e10]", "c3_trained_tokens"},
        {"c3_trained_tokens", "[24, \"64\"]", "c3_trained_tokens"},
        {"c3_trained_latents", "16", "c3_trained_latents"},
        {"c3_trained_latents", "[]", "c3_trained_latents"},
        {"c3_trained_latents", "[0, 8]", "c3_trained_latents"},
        {"c3_trained_latents", "[8, 8]", "c3_trained_latents"},
        {"c3_trained_latents", "[8, 1e6]", "c3_trained_latents"},
        {"c3_trained_latents", "[8, \"9\"]", "c3_trained_latents"},
    };
    for (size_t i = 0; i < sizeof absurd / sizeof *absurd; i++) {
        cJSON *json = read_object("config.json"), *whole = cJSON_Duplicate(json, 1);
        cJSON_DeleteItemFromObjectCaseSensitive(json, absurd[i].key);
        cJSON_AddRawToObject(json, absurd[i].key, absurd[i].value);
        write_object("config.json", json);
        char *what = string_format("%s = %s", absurd[i].key, absurd[i].value);
        expect_refusal("config.json", absurd[i].word, what);
        write_object("config.json", whole);
        free(what);
        cJSON_Delete(json);
        cJSON_Delete(whole);
    }
    check_begin("files that are no JSON objects");
    const char *const texts[] = {"",         "{",   "[]", "7", "{} x", "{\"a\":}", "{\"model_type\":\"C3\"",
                                 "\xff\xfe", "nul", "{}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        write_text("config.json", texts[i]);
        expect_refusal("config.json", "", texts[i]);
    }
    char *deep = malloc(200001);
    memset(deep, '[', 200000);
    deep[200000] = 0;
    write_text("config.json", deep);
    expect_refusal("config.json", "nested", "200,000 brackets");
    free(deep);
    char *path = string_format("%s/config.json", folder);
    unlink(path);
    free(path);
    expect_refusal("config.json", "cannot open", "no file");
}

static void test_longest_page(void) {
    check_begin("the longest page is what the positions of both stacks leave");
    C3Config c = preset("demo", 0); // 16 latents, 2 words around them
    c.enc.max_positions = 100;
    c.dec.max_positions = 1000;
    CHECK(config_longest_page(&c, 18) == 83, "%d: <img> and 16 queries behind the text", config_longest_page(&c, 18));
    c.dec.max_positions = 60;
    CHECK(config_longest_page(&c, 18) == 41, "%d: 18 before the text, the end mark", config_longest_page(&c, 18));
    c.dec.max_positions = 18;
    CHECK(config_longest_page(&c, 18) < 1, "%d", config_longest_page(&c, 18));
}

static void test_windows(void) {
    C3Config c = preset("demo", 0); // 16 latents, 2 words around them
    Error err = {""};
    c.enc.max_positions = 100;
    c.dec.max_positions = 200;
    check_begin("windows: the encoder bounds one, the decoder the latents of all and the text");
    static const struct {
        int window, longest; // 181 rows behind the first 16 latents, 2 words and before the end mark
    } cases[] = {{83, 149}, {64, 149}, {40, 130}, {16, 85}};
    for (int i = 0; i < 4; i++) {
        c.window = cases[i].window;
        int n = config_longest_page(&c, 18);
        // a window is cut in its last quarter: so many more windows a longer text may have
        int least = c.window - c.window / 4, more = n <= c.window ? 0 : (n - c.window + least - 1) / least;
        int after = n + 1 <= c.window ? 0 : (n + 1 - c.window + least - 1) / least;
        CHECK(n + 16 * more <= 181 && n + 1 + 16 * after > 181, "windows of %d: %d tokens", c.window, n);
        CHECK(n == cases[i].longest, "windows of %d: %d tokens", c.window, n);
        CHECK(config_check_window(&c, "a model", &err) == 0, "%s", err.text);
    }
    c.window = 15;
    CHECK(config_check_window(&c, "a model", &err) == -1 &&
              strstr(err.text, "a model: windows of 15 tokens: expected at "
                               "least 16"),
          "%s", err.text);
    c.window = 84;
    CHECK(config_check_window(&c, "a model", &err) == -1 && strstr(err.text, "at most 83"), "%s", err.text);
    CHECK(config_write_c3(&c, folder, &err) == -1, "windows beyond the positions were written");
    c.window = 0;
    CHECK(config_windows(&c, 1000) == 1, "one window");
    c.window = 64;
    CHECK(config_windows(&c, 64) == 1 && config_windows(&c, 560) == 10, "ten windows");
}

static void test_spellings(void) {
    check_begin("transformers 5 spellings: rope_parameters, dtype");
    C3Config c = preset("tiny", 0), back;
    Error err = {""};
    c.dtype = DTYPE_BF16;
    c.dec.rope_theta = 5e5f;
    CHECK(config_write_c3(&c, folder, NULL) == 0, "write");
    cJSON *json = read_object("config.json");
    cJSON_DeleteItemFromObjectCaseSensitive(json, "rope_theta");
    cJSON_DeleteItemFromObjectCaseSensitive(json, "torch_dtype");
    cJSON_AddRawToObject(json, "rope_parameters", "{\"rope_theta\": 500000.0, \"rope_type\": \"default\"}");
    cJSON_AddStringToObject(json, "dtype", "bfloat16");
    cJSON_AddRawToObject(json, "layer_types", "[\"full_attention\",\"full_attention\"]");
    cJSON_AddNullToObject(json, "rope_scaling");
    CHECK(cJSON_IsNull(cJSON_GetObjectItem(json, "sliding_window")), "a width of a window that is not used");
    write_object("config.json", json);
    CHECK(config_read_c3(&back, folder, &err) == 0, "%s", err.text);
    CHECK(back.dec.rope_theta == 5e5f && back.dtype == DTYPE_BF16, "theta %g, type %d", (double)back.dec.rope_theta,
          back.dtype);
    cJSON_AddNumberToObject(json, "rope_theta", 500000);
    write_object("config.json", json);
    CHECK(config_read_c3(&back, folder, &err) == 0 && back.dec.rope_theta == 5e5f, "the same twice: %s", err.text);
    cJSON_DeleteItemFromObjectCaseSensitive(json, "rope_theta");
    cJSON_DeleteItemFromObjectCaseSensitive(json, "rope_scaling");
    cJSON_AddRawToObject(json, "rope_scaling", "{\"rope_type\": \"default\"}");
    write_object("config.json", json);
    expect_refusal("config.json", "\"rope_scaling\" beside \"rope_parameters\"", "rope_scaling hides a theta");
    cJSON_DeleteItemFromObjectCaseSensitive(json, "rope_scaling");
    cJSON_DeleteItemFromObjectCaseSensitive(json, "tie_word_embeddings");
    write_object("config.json", json);
    CHECK(config_read_c3(&back, folder, &err) == 0 && back.dec.tied == 0, "absent means untied: %s", err.text);
    cJSON_Delete(json);

    check_begin("a released model's config: C3's own numbering");
    c = preset("paper", 0);
    CHECK(config_write_c3(&c, folder, NULL) == 0, "write");
    json = read_object("config.json");
    cJSON_ReplaceItemInObjectCaseSensitive(json, "eos_token_id", cJSON_CreateNumber(151643));
    cJSON_ReplaceItemInObjectCaseSensitive(json, "max_position_embeddings", cJSON_CreateNumber(131072));
    write_object("config.json", json);
    cJSON_Delete(json);
    CHECK(config_read_c3(&back, folder, &err) == 0, "%s", err.text);
    CHECK(back.base_vocab == 151643 && back.specials.im_end == 151645 && back.specials.img == 151857, "specials");
    CHECK(back.dec.max_positions == 131072 && strcmp(back.template_name, "c3") == 0, "positions, template");

    check_begin("presets: unknown names and impossible vocabularies are refused");
    CHECK(config_preset(&c, "huge", 0, &err) != 0 && strstr(err.text, "huge"), "%s", err.text);
    CHECK(config_preset(&c, "tiny", 255, &err) != 0 && config_preset(&c, "tiny", 151644, &err) != 0, "%s", err.text);
    CHECK(config_preset(&c, "tiny", 256, &err) == 0 && c.enc.V == 262 && c.specials.img_pad == 261, "%s", err.text);
}

int main(void) {
    if (!mkdtemp(folder)) return perror(folder), 2;
    test_round_trips();
    test_missing();
    test_absurd();
    test_longest_page();
    test_windows();
    test_spellings();
    Error err;
    if (file_remove_tree(folder, &err) != 0) printf("%s\n", err.text);
    return check_done();
}
