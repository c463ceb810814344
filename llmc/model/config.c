// config.c: see config.h. Keys are those of Hugging Face's Qwen2 config and of the released C3 code. transformers 5
// writes "rope_parameters" and "dtype" where version 4 had "rope_theta" and "torch_dtype". Both are read; what is
// written here can be read by both.
#include "llmc/model/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/base/file.h"
#include "llmc/base/json.h"
#include "llmc/model/batch.h" // template_windows

enum { MAX_CONFIG_BYTES = 1 << 20 };

// Generous limits, within which no arithmetic on sizes can overflow.
enum {
    MAX_V = 1 << 24,
    MAX_D = 1 << 17,
    MAX_L = 1024,
    MAX_HEADS = 1024,
    MAX_HS = 1024,
    MAX_F = 1 << 20,
    MAX_POSITIONS = 1 << 27,
    MAX_LATENTS = 1 << 16
};

// ---- checks --------------------------------------------------------------------------------------------------------

const char *const c3_task_names[C3_N_TASKS] = {"repeat", "continue", "instruct"};

static int check_range(const char *where, const char *key, int value, int max, Error *err) {
    if (value >= 1 && value <= max) return 0;
    return error_set(err, "%s: \"%s\": expected a whole number from 1 to %d, found %d", where, key, max, value);
}

int config_check_qwen2(const Qwen2Config *c, const char *where, Error *err) {
    TRY(check_range(where, "vocab_size", c->V, MAX_V, err));
    TRY(check_range(where, "hidden_size", c->D, MAX_D, err));
    TRY(check_range(where, "num_hidden_layers", c->L, MAX_L, err));
    TRY(check_range(where, "num_attention_heads", c->NH, MAX_HEADS, err));
    TRY(check_range(where, "num_key_value_heads", c->KV, MAX_HEADS, err));
    TRY(check_range(where, "head_dim", c->HS, MAX_HS, err));
    TRY(check_range(where, "intermediate_size", c->F, MAX_F, err));
    TRY(check_range(where, "max_position_embeddings", c->max_positions, MAX_POSITIONS, err));
    if (c->NH % c->KV != 0)
        return error_set(err, "%s: num_attention_heads %d: expected a multiple of num_key_value_heads %d", where, c->NH,
                         c->KV);
    if (c->HS % 2 != 0)
        return error_set(err, "%s: head size %d: expected an even number, as rotary embedding pairs its halves", where,
                         c->HS);
    if (!(c->rope_theta >= 1 && c->rope_theta <= 1e12f))
        return error_set(err, "%s: \"rope_theta\": expected a number from 1 to 1e12, found %g", where,
                         (double)c->rope_theta);
    if (!(c->rms_eps > 0 && c->rms_eps <= 1))
        return error_set(err, "%s: \"rms_norm_eps\": expected a number above 0 and at most 1, found %g", where,
                         (double)c->rms_eps);
    return 0;
}

int config_check_window(const C3Config *c, const char *where, Error *err) {
    const int most = c->enc.max_positions - 1 - c->latents;
    if (!c->window) return 0;
    if (c->window < c->latents)
        return error_set(err, "%s: windows of %d tokens: expected at least %d, the latents of each (hint: -n %d)",
                         where, c->window, c->latents, c->window);
    if (c->window <= most) return 0;
    return error_set(err,
                     "%s: windows of %d tokens: expected at most %d, the positions of the encoder beside <img> and %d "
                     "queries (max_position_embeddings)",
                     where, c->window, most, c->latents);
}

// Sizes and ids of a whole model.
static int check_c3(const C3Config *c, const char *where, Error *err) {
    TRY(check_range(where, "latent_token_len", c->latents, MAX_LATENTS, err));
    int highest = c->specials.img_pad;
    if (c->dec.V <= highest || c->enc.V <= c->specials.img)
        return error_set(err, "%s: vocab_size %d (decoder), %d (encoder): expected above %d, the highest special token",
                         where, c->dec.V, c->enc.V, highest);
    if (strcmp(c->template_name, "c3") != 0 && strcmp(c->template_name, "bare") != 0)
        return error_set(err, "%s: \"c3_template\": expected \"c3\" or \"bare\", found \"%s\"", where,
                         c->template_name);
    return config_check_window(c, where, err);
}

// ---- reading -------------------------------------------------------------------------------------------------------

static int read_int(int *out, const cJSON *json, const char *key, int max, const char *path, Error *err) {
    int64_t value = 0;
    TRY(json_int(&value, json, key, 1, max, path, err));
    *out = (int)value;
    return 0;
}

static int read_bool(int *out, const cJSON *json, const char *key, int otherwise, const char *path, Error *err) {
    const cJSON *item = json_find(json, key);
    if (item && !cJSON_IsBool(item)) return error_set(err, "%s: \"%s\": expected true or false", path, key);
    *out = item ? cJSON_IsTrue(item) : otherwise;
    return 0;
}

// A key that may be absent but whose value must be the one this code computes with.
static int read_only_text(const cJSON *json, const char *key, const char *expected, const char *path, Error *err) {
    const cJSON *item = json_find(json, key);
    if (!item || (cJSON_IsString(item) && strcmp(item->valuestring, expected) == 0)) return 0;
    return error_set(err, "%s: \"%s\": expected \"%s\", found %s%s", path, key, expected,
                     cJSON_IsString(item) ? "" : "something else", cJSON_IsString(item) ? item->valuestring : "");
}

// An object of rotary settings. Anything but the plain rotary embedding, the same in all layers, is refused.
static int check_rope_object(const cJSON *o, const char *key, const char *path, Error *err) {
    const cJSON *item;
    if (!cJSON_IsObject(o)) return error_set(err, "%s: \"%s\": expected an object", path, key);
    cJSON_ArrayForEach(item, o) {
        if (cJSON_IsObject(item))
            return error_set(err, "%s: \"%s.%s\": expected one set of settings for all layers", path, key,
                             item->string);
    }
    TRY(read_only_text(o, "rope_type", "default", path, err));
    return read_only_text(o, "type", "default", path, err);
}

// transformers 4 keeps rope_theta beside the sizes; transformers 5 keeps it in rope_parameters, which win when it finds
// both, and takes rope_scaling, where present, in place of rope_parameters. Files in which these differ mean a
// different model to each version, so they are refused.
static int read_rope(float *theta, const cJSON *json, const char *path, Error *err) {
    static const char *const names[] = {"rope_theta", "rope_parameters.rope_theta", "rope_scaling.rope_theta"};
    const cJSON *v5 = json_find(json, "rope_parameters"), *scaling = json_find(json, "rope_scaling");
    const cJSON *const places[] = {json, v5, scaling};
    int first = -1;
    if (v5) TRY(check_rope_object(v5, "rope_parameters", path, err));
    if (scaling) TRY(check_rope_object(scaling, "rope_scaling", path, err));
    for (int i = 0; i < 3; i++) {
        if (!places[i] || !json_find(places[i], "rope_theta")) continue;
        double value = 0;
        TRY(json_real(&value, places[i], "rope_theta", 1, 1e12, path, err));
        if (first >= 0 && (float)value != *theta)
            return error_set(err,
                             "%s: \"%s\" is %g and \"%s\" is %g: expected one value (hint: transformers 4 and 5 "
                             "read different ones; remove the one the model was not trained with)",
                             path, names[first], (double)*theta, names[i], value);
        *theta = (float)value;
        if (first < 0) first = i;
    }
    if (first == 1 && scaling && scaling->child)
        return error_set(err,
                         "%s: \"rope_scaling\" beside \"rope_parameters\": expected one of them (hint: transformers 5 "
                         "would take the first, which has no rope_theta)",
                         path);
    double value;
    return first >= 0 ? 0 : json_real(&value, json, "rope_theta", 1, 1e12, path, err); // an error
}

// Features of Qwen2 configs that change the mathematics and are not supported.
static int refuse_unsupported(const cJSON *json, const char *path, Error *err) {
    TRY(read_only_text(json, "hidden_act", "silu", path, err));
    int sliding = 0;
    TRY(read_bool(&sliding, json, "use_sliding_window", 0, path, err));
    if (sliding) return error_set(err, "%s: \"use_sliding_window\": expected false, found true", path);
    const cJSON *types = json_find(json, "layer_types"), *type;
    if (types && !cJSON_IsArray(types)) return error_set(err, "%s: \"layer_types\": expected a list", path);
    cJSON_ArrayForEach(type, types) {
        if (!cJSON_IsString(type) || strcmp(type->valuestring, "full_attention") != 0)
            return error_set(err, "%s: \"layer_types\": expected \"full_attention\" everywhere", path);
    }
    return 0;
}

// The keys of one Qwen2 stack.
static int read_stack(Qwen2Config *c, const cJSON *json, const char *path, Error *err) {
    *c = (Qwen2Config){0};
    TRY(read_int(&c->V, json, "vocab_size", MAX_V, path, err));
    TRY(read_int(&c->D, json, "hidden_size", MAX_D, path, err));
    TRY(read_int(&c->L, json, "num_hidden_layers", MAX_L, path, err));
    TRY(read_int(&c->NH, json, "num_attention_heads", MAX_HEADS, path, err));
    TRY(read_int(&c->KV, json, "num_key_value_heads", MAX_HEADS, path, err));
    TRY(read_int(&c->F, json, "intermediate_size", MAX_F, path, err));
    TRY(read_int(&c->max_positions, json, "max_position_embeddings", MAX_POSITIONS, path, err));
    if (json_find(json, "head_dim")) {
        TRY(read_int(&c->HS, json, "head_dim", MAX_HS, path, err));
    } else {
        if (c->D % c->NH != 0)
            return error_set(err, "%s: hidden_size %d: expected a multiple of num_attention_heads %d", path, c->D,
                             c->NH);
        c->HS = c->D / c->NH;
    }
    TRY(read_rope(&c->rope_theta, json, path, err));
    double eps = 0;
    TRY(json_real(&eps, json, "rms_norm_eps", 1e-30, 1, path, err));
    c->rms_eps = (float)eps;
    TRY(read_bool(&c->tied, json, "tie_word_embeddings", 0, path, err)); // absent: Qwen2's default
    TRY(refuse_unsupported(json, path, err));
    return config_check_qwen2(c, path, err);
}

static const char *const dtype_names[] = {[DTYPE_F32] = "float32", [DTYPE_BF16] = "bfloat16", [DTYPE_F16] = "float16"};

static int read_dtype(DType *out, const cJSON *json, const char *path, Error *err) {
    const char *key = json_find(json, "torch_dtype") ? "torch_dtype" : "dtype", *name = NULL;
    *out = DTYPE_F32; // torch's default where nothing is said
    if (!json_find(json, key)) return 0;
    TRY(json_text(&name, json, key, path, err));
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, dtype_names[i]) == 0) {
            *out = (DType)i;
            return 0;
        }
    }
    return error_set(err, "%s: \"%s\": expected float32, bfloat16 or float16, found \"%s\"", path, key, name);
}

// expected: "C3" or "qwen2"; each is often given for the other.
static int check_model_type(const cJSON *json, const char *expected, const char *path, Error *err) {
    const char *found = NULL;
    TRY(json_text(&found, json, "model_type", path, err));
    if (strcmp(found, expected) == 0) return 0;
    const char *hint = strcmp(found, "qwen2") == 0 ? " (hint: a plain Qwen2 folder is given with -enc or -dec)"
                       : strcmp(found, "C3") == 0  ? " (hint: a C3 folder is given with -m)"
                                                   : "";
    return error_set(err, "%s: \"model_type\": expected \"%s\", found \"%s\"%s", path, expected, found, hint);
}

static int read_base(int *base, const Qwen2Config *c, const cJSON *json, const char *path, Error *err) {
    int64_t eos = -1;
    const cJSON *item = json_find(json, "eos_token_id");
    *base = QWEN_BASE_RANKS;
    if (c->V >= QWEN_BASE_RANKS) return 0;
    if (!item || json_whole(&eos, item, 256 + 2, c->V - 1) != 0)
        return error_set(err,
                         "%s: \"vocab_size\" %d: expected at least %d rows, as Qwen2.5 has them, or a vocabulary cut "
                         "at K >= 256 whose \"eos_token_id\" is K+2",
                         path, c->V, QWEN_BASE_RANKS);
    *base = (int)eos - 2;
    return 0;
}

// base may be NULL.
static int read_qwen2_at(Qwen2Config *c, int *base, const char *path, Error *err) {
    cJSON *json = NULL;
    TRY(json_read(&json, path, MAX_CONFIG_BYTES, err));
    int bad = check_model_type(json, "qwen2", path, err);
    if (!bad) bad = read_stack(c, json, path, err);
    if (!bad && base) bad = read_base(base, c, json, path, err);
    cJSON_Delete(json);
    return bad;
}

int config_read_qwen2_base(Qwen2Config *c, int *base, const char *folder, Error *err) {
    char *path = string_format("%s/config.json", folder);
    int bad = read_qwen2_at(c, base, path, err);
    free(path);
    return bad;
}

int config_read_qwen2(Qwen2Config *c, const char *folder, Error *err) {
    return config_read_qwen2_base(c, NULL, folder, err);
}

// Special tokens: numbered as by C3, or directly behind a vocabulary cut at K.
static int read_specials(C3Config *c, const cJSON *json, const char *path, Error *err) {
    int64_t img = 0, img_end = 0, img_pad = 0;
    TRY(json_int(&img, json, "im_start_token", 0, MAX_V, path, err));
    TRY(json_int(&img_end, json, "im_end_token", 0, MAX_V, path, err));
    TRY(json_int(&img_pad, json, "im_patch_token", 0, MAX_V, path, err));
    c->base_vocab = img == config_specials(QWEN_BASE_RANKS).img ? QWEN_BASE_RANKS : (int)img - 3;
    c->specials = config_specials(c->base_vocab);
    if (c->base_vocab < 256 || c->base_vocab > QWEN_BASE_RANKS || img_end != c->specials.img_end ||
        img_pad != c->specials.img_pad)
        return error_set(err,
                         "%s: im_start_token %lld, im_end_token %lld, im_patch_token %lld: expected 151857, 151858, "
                         "151859, or K+3, K+4, K+5 of a vocabulary cut at K >= 256",
                         path, (long long)img, (long long)img_end, (long long)img_pad);
    int wrapped = 1;
    TRY(read_bool(&wrapped, json, "use_im_start_end", 1, path, err));
    if (!wrapped) return error_set(err, "%s: \"use_im_start_end\": expected true, found false", path);
    if (c->base_vocab == QWEN_BASE_RANKS) return 0; // released checkpoints have <|endoftext|> or <|im_end|>
    int64_t eos = 0;
    TRY(json_int(&eos, json, "eos_token_id", 0, MAX_V, path, err));
    if (eos != c->specials.im_end)
        return error_set(err, "%s: \"eos_token_id\": expected %d, found %lld", path, c->specials.im_end,
                         (long long)eos);
    return 0;
}

static int read_template(C3Config *c, const cJSON *json, const char *path, Error *err) {
    const char *name = "c3";
    if (json_find(json, "c3_template")) TRY(json_text(&name, json, "c3_template", path, err));
    if (strlen(name) >= sizeof c->template_name)
        return error_set(err, "%s: \"c3_template\": expected \"c3\" or \"bare\", found \"%s\"", path, name);
    memcpy(c->template_name, name, strlen(name) + 1);
    return 0;
}

static int read_trained(C3Config *c, const cJSON *json, const char *path, Error *err) {
    const cJSON *list = json_find(json, "c3_trained_tokens");
    int64_t n[2];
    if (!list) return 0;
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != 2 ||
        json_whole(&n[0], cJSON_GetArrayItem(list, 0), 1, MAX_POSITIONS) != 0 ||
        json_whole(&n[1], cJSON_GetArrayItem(list, 1), n[0], MAX_POSITIONS) != 0)
        return error_set(err, "%s: \"c3_trained_tokens\": expected [least, most], whole numbers from 1 to %d", path,
                         MAX_POSITIONS);
    config_add_trained(c, (int)n[0], (int)n[1]);
    return 0;
}

static int read_tasks(C3Config *c, const cJSON *json, const char *path, Error *err) {
    const cJSON *list = json_find(json, "c3_tasks"), *name;
    c->tasks = list ? 0 : 1u << C3_REPEAT;
    if (!list) return 0;
    if (!cJSON_IsArray(list)) return error_set(err, "%s: \"c3_tasks\": expected a list of names", path);
    cJSON_ArrayForEach(name, list) {
        int task = 0;
        while (task < C3_N_TASKS && !(cJSON_IsString(name) && !strcmp(name->valuestring, c3_task_names[task]))) task++;
        if (task == C3_N_TASKS)
            return error_set(err, "%s: \"c3_tasks\": expected names among repeat, continue and instruct, found %.40s",
                             path, cJSON_IsString(name) ? name->valuestring : "another value");
        c->tasks |= 1u << task;
    }
    return 0;
}

static int read_trained_latents(C3Config *c, const cJSON *json, const char *path, Error *err) {
    const cJSON *list = json_find(json, "c3_trained_latents"), *item;
    int64_t n = 0;
    if (!list) return 0;
    int ok = cJSON_IsArray(list) && cJSON_GetArraySize(list) <= CONFIG_MAX_LATENTS;
    cJSON_ArrayForEach(item, list) {
        ok = ok && json_whole(&n, item, n + 1, c->latents) == 0;
        if (ok) c->trained_latents[c->n_trained_latents++] = (int)n;
    }
    if (ok && c->n_trained_latents) return 0;
    return error_set(err, "%s: \"c3_trained_latents\": expected 1 to %d whole numbers from 1 to %d, ascending", path,
                     CONFIG_MAX_LATENTS, c->latents);
}

static int read_root(C3Config *c, int *encoder_width, const cJSON *json, const char *path, Error *err) {
    TRY(check_model_type(json, "C3", path, err));
    TRY(read_stack(&c->dec, json, path, err));
    TRY(read_int(&c->latents, json, "latent_token_len", MAX_LATENTS, path, err));
    TRY(read_int(encoder_width, json, "contexts_compression_llm_hidden_size", MAX_D, path, err));
    TRY(read_specials(c, json, path, err));
    TRY(read_template(c, json, path, err));
    if (json_find(json, "c3_window")) TRY(read_int(&c->window, json, "c3_window", MAX_POSITIONS, path, err));
    TRY(read_trained(c, json, path, err));
    TRY(read_tasks(c, json, path, err));
    TRY(read_trained_latents(c, json, path, err));
    return read_dtype(&c->dtype, json, path, err);
}

static int read_c3_at(C3Config *c, const char *root, const char *llm1, Error *err) {
    *c = (C3Config){0};
    int encoder_width = 0;
    cJSON *json = NULL;
    TRY(json_read(&json, root, MAX_CONFIG_BYTES, err));
    int bad = read_root(c, &encoder_width, json, root, err);
    cJSON_Delete(json);
    if (bad) return bad;
    TRY(read_qwen2_at(&c->enc, NULL, llm1, err));
    if (encoder_width != c->enc.D)
        return error_set(err,
                         "%s: \"hidden_size\": expected %d, as contexts_compression_llm_hidden_size in %s, found %d",
                         llm1, encoder_width, root, c->enc.D);
    return check_c3(c, root, err);
}

int config_read_c3(C3Config *c, const char *folder, Error *err) {
    char *root = string_format("%s/config.json", folder), *llm1 = string_format("%s/llm1/config.json", folder);
    int bad = read_c3_at(c, root, llm1, err);
    free(root);
    free(llm1);
    return bad;
}

// ---- writing -------------------------------------------------------------------------------------------------------

// The keys of one stack. architectures: (1)
static cJSON *new_config(const char *const *architectures, const char *model_type, const Qwen2Config *c, DType dtype,
                         const SpecialTokens *s) {
    cJSON *o = cJSON_CreateObject();
    cJSON_AddItemToObject(o, "architectures", cJSON_CreateStringArray(architectures, 1));
    cJSON_AddStringToObject(o, "model_type", model_type);
    cJSON_AddNumberToObject(o, "vocab_size", c->V);
    cJSON_AddNumberToObject(o, "hidden_size", c->D);
    cJSON_AddNumberToObject(o, "num_hidden_layers", c->L);
    cJSON_AddNumberToObject(o, "num_attention_heads", c->NH);
    cJSON_AddNumberToObject(o, "num_key_value_heads", c->KV);
    if (c->HS * c->NH != c->D) cJSON_AddNumberToObject(o, "head_dim", c->HS);
    cJSON_AddNumberToObject(o, "intermediate_size", c->F);
    cJSON_AddStringToObject(o, "hidden_act", "silu");
    cJSON_AddNumberToObject(o, "max_position_embeddings", c->max_positions);
    json_add_float(o, "rope_theta", c->rope_theta);
    json_add_float(o, "rms_norm_eps", c->rms_eps);
    cJSON_AddBoolToObject(o, "tie_word_embeddings", c->tied);
    cJSON_AddBoolToObject(o, "use_sliding_window", 0);
    cJSON_AddNullToObject(o, "sliding_window"); // a width, even unused, makes transformers 4 warn
    cJSON_AddStringToObject(o, "torch_dtype", dtype_names[dtype]);
    cJSON_AddNumberToObject(o, "bos_token_id", s->endoftext);
    cJSON_AddNumberToObject(o, "eos_token_id", s->im_end);
    return o;
}

static int write_config(cJSON *config, const char *folder, Error *err) {
    char *path = string_format("%s/config.json", folder);
    int bad = json_write(config, path, err);
    free(path);
    cJSON_Delete(config);
    return bad;
}

int config_write_qwen2(const Qwen2Config *c, DType dtype, const SpecialTokens *s, const char *folder, Error *err) {
    TRY(config_check_qwen2(c, folder, err));
    return write_config(new_config((const char *[]){"Qwen2ForCausalLM"}, "qwen2", c, dtype, s), folder, err);
}

static cJSON *task_list(unsigned tasks) {
    cJSON *list = cJSON_CreateArray();
    for (int i = 0; i < C3_N_TASKS; i++)
        if (tasks >> i & 1) cJSON_AddItemToArray(list, cJSON_CreateString(c3_task_names[i]));
    return list;
}

int config_write_c3(const C3Config *c, const char *folder, Error *err) {
    TRY(config_check_qwen2(&c->dec, folder, err));
    TRY(check_c3(c, folder, err));
    char *llm1 = string_format("%s/llm1", folder);
    // the encoder's head is neither used nor stored: written as tied, its folder is a complete model
    Qwen2Config enc = c->enc;
    enc.tied = 1;
    int bad = file_make_dirs(llm1, err);
    if (!bad) bad = config_write_qwen2(&enc, c->dtype, &c->specials, llm1, err);
    free(llm1);
    if (bad) return -1;
    cJSON *o = new_config((const char *[]){"C3QwenForCausalLM"}, "C3", &c->dec, c->dtype, &c->specials);
    cJSON_AddNumberToObject(o, "latent_token_len", c->latents);
    cJSON_AddNumberToObject(o, "contexts_compression_llm_hidden_size", c->enc.D);
    cJSON_AddNumberToObject(o, "im_start_token", c->specials.img);
    cJSON_AddNumberToObject(o, "im_end_token", c->specials.img_end);
    cJSON_AddNumberToObject(o, "im_patch_token", c->specials.img_pad);
    cJSON_AddBoolToObject(o, "use_im_start_end", 1);
    if (strcmp(c->template_name, "c3") != 0) cJSON_AddStringToObject(o, "c3_template", c->template_name);
    if (c->window) cJSON_AddNumberToObject(o, "c3_window", c->window);
    if (c->trained_tokens[1]) cJSON_AddItemToObject(o, "c3_trained_tokens", cJSON_CreateIntArray(c->trained_tokens, 2));
    if (c->tasks & ~(1u << C3_REPEAT)) cJSON_AddItemToObject(o, "c3_tasks", task_list(c->tasks));
    if (c->n_trained_latents)
        cJSON_AddItemToObject(o, "c3_trained_latents", cJSON_CreateIntArray(c->trained_latents, c->n_trained_latents));
    return write_config(o, folder, err);
}

// ---- what it was trained on ----------------------------------------------------------------------------------------

void config_add_trained(C3Config *c, int least, int most) {
    int *known = c->trained_tokens;
    if (!known[0] || least < known[0]) known[0] = least;
    if (most > known[1]) known[1] = most;
}

int config_knows_latents(const C3Config *c, int n) {
    int known = c->n_trained_latents == 0 && n == c->latents;
    for (int i = 0; i < c->n_trained_latents; i++) known |= c->trained_latents[i] == n;
    return known;
}

static void add_latents(C3Config *c, int n) {
    int i = c->n_trained_latents, *known = c->trained_latents;
    if ((i && config_knows_latents(c, n)) || i == CONFIG_MAX_LATENTS) return;
    for (; i > 0 && known[i - 1] > n; i--) known[i] = known[i - 1];
    known[i] = n;
    c->n_trained_latents++;
}

void config_add_latents(C3Config *c, const LatentsMix *mix) {
    while (c->n_trained_latents && c->trained_latents[c->n_trained_latents - 1] > c->latents) c->n_trained_latents--;
    for (int i = 0; i < mix->n; i++) add_latents(c, mix->latents[i]);
    if (!mix->n && c->n_trained_latents) add_latents(c, c->latents);
}

// ---- presets -------------------------------------------------------------------------------------------------------

SpecialTokens config_specials(int base_vocab) {
    if (base_vocab == QWEN_BASE_RANKS)
        return (SpecialTokens){.endoftext = 151643,
                               .im_start = 151644,
                               .im_end = 151645,
                               .img = 151857,
                               .img_end = 151858,
                               .img_pad = 151859};
    int k = base_vocab;
    return (SpecialTokens){
        .endoftext = k, .im_start = k + 1, .im_end = k + 2, .img = k + 3, .img_end = k + 4, .img_pad = k + 5};
}

static const struct {
    const char *name;
    int vocab; // K
    int latents;
    const char *template_name;
    float rope_theta; // Qwen's 1e6; pages of at most 64 tokens need no wavelengths beyond a few hundred positions
    int D[2], L[2], NH[2], KV[2], HS[2], F[2]; // encoder, decoder
} presets[] = {
    {"demo", 2048, 16, "bare", 1e2f, {128, 128}, {2, 2}, {4, 4}, {2, 2}, {32, 32}, {384, 384}},
    {"tiny", 4096, 8, "c3", 1e6f, {128, 192}, {2, 2}, {4, 6}, {2, 2}, {32, 32}, {384, 512}},
    {"small", 8192, 32, "c3", 1e6f, {256, 320}, {4, 4}, {4, 5}, {2, 1}, {64, 64}, {704, 896}},
    {"medium", QWEN_BASE_RANKS, 32, "c3", 1e6f, {896, 896}, {4, 4}, {14, 14}, {2, 2}, {64, 64}, {4864, 4864}},
    {"paper", QWEN_BASE_RANKS, 32, "c3", 1e6f, {1536, 2048}, {28, 36}, {12, 16}, {2, 2}, {128, 128}, {8960, 11008}},
};
enum { N_PRESETS = sizeof presets / sizeof *presets, QWEN_ROWS = 151936 };

int config_rows(int base_vocab) { return config_specials(base_vocab).img_pad + 1; }

int config_longest_page(const C3Config *c, int overhead) {
    int enc = c->enc.max_positions - 1 - c->latents, dec = c->dec.max_positions - overhead - 1;
    if (!c->window) return enc < dec ? enc : dec;
    const Template t = {.window = c->window};
    int fits = 0, high = dec; // the first window is in the overhead
    while (fits < high) {
        int middle = fits + (high - fits + 1) / 2;
        int64_t more = (int64_t)(template_windows(&t, NULL, (uint32_t)middle) - 1) * c->latents;
        if (middle + more <= dec) fits = middle;
        else high = middle - 1;
    }
    return fits < dec ? fits : dec;
}

double config_windows(const C3Config *c, double tokens) {
    const double usual = 0.875 * c->window; // cut somewhere in its last quarter
    return !c->window || tokens <= c->window ? 1 : tokens / usual;
}

int config_base(int rows) { return rows == config_rows(QWEN_BASE_RANKS) ? QWEN_BASE_RANKS : rows - config_rows(0); }

int config_preset(C3Config *c, const char *name, int vocab, Error *err) {
    int i = 0;
    while (i < N_PRESETS && strcmp(presets[i].name, name) != 0) i++;
    if (i == N_PRESETS)
        return error_set(err, "preset: expected demo, tiny, small, medium or paper, found \"%s\"", name);
    int k = vocab ? vocab : presets[i].vocab, whole = k == QWEN_BASE_RANKS;
    if (k < 256 || k > QWEN_BASE_RANKS)
        return error_set(err, "preset %s: vocabulary %d: expected 256 (all bytes) to %d", name, k, QWEN_BASE_RANKS);
    *c = (C3Config){.latents = presets[i].latents, .specials = config_specials(k), .base_vocab = k, .dtype = DTYPE_F32};
    snprintf(c->template_name, sizeof c->template_name, "%s", presets[i].template_name);
    for (int s = 0; s < 2; s++) {
        Qwen2Config *q = s == 0 ? &c->enc : &c->dec;
        *q = (Qwen2Config){.V = whole && s == 0 ? QWEN_ROWS : config_rows(k),
                           .D = presets[i].D[s],
                           .L = presets[i].L[s],
                           .NH = presets[i].NH[s],
                           .KV = presets[i].KV[s],
                           .HS = presets[i].HS[s],
                           .F = presets[i].F[s],
                           .max_positions = 32768,
                           .rope_theta = presets[i].rope_theta,
                           .rms_eps = 1e-6f,
                           .tied = 1};
    }
    return 0;
}
