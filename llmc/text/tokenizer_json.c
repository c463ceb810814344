// tokenizer_json.c: see tokenizer_json.h. The text is printed as it is, without a tree of 300,000 values in between.
#include "llmc/text/tokenizer_json.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/text/vocabulary.h" // vocabulary_alphabet, vocabulary_expression

enum { EXTRAS = QWEN_BASE_RANKS + 3 }; // id of <|extra_0|>

// A token in the byte-level alphabet, between quotes of JSON.
static void put_token(FILE *out, const Tokenizer *t, int id, const uint16_t spelled[256]) {
    size_t n;
    const char *p = tokenizer_bytes(t, id, &n);
    for (size_t i = 0; i < n; i++) {
        unsigned c = spelled[(uint8_t)p[i]];
        if (c == '"' || c == '\\') fputc('\\', out);
        if (c < 0x80) {
            fputc((int)c, out);
        } else {
            fputc((int)(0xc0 | c >> 6), out);
            fputc((int)(0x80 | (c & 0x3f)), out);
        }
    }
}

static void put_vocabulary(FILE *out, const Tokenizer *t, const uint16_t spelled[256]) {
    for (int id = 0; id < tokenizer_base(t); id++) {
        fputs(id ? ",\"" : "\"", out);
        put_token(out, t, id, spelled);
        fprintf(out, "\":%d", id);
    }
}

static int put_merges(FILE *out, const Tokenizer *t, const uint16_t spelled[256], Error *err) {
    for (int id = 256; id < tokenizer_base(t); id++) {
        int32_t parts[2];
        if (tokenizer_merge(t, id, parts) != 0)
            return error_set(err, "rank %d is not made by merging two tokens of lower rank", id);
        fputs(id > 256 ? ",\"" : "\"", out);
        put_token(out, t, parts[0], spelled);
        fputc(' ', out);
        put_token(out, t, parts[1], spelled);
        fputc('"', out);
    }
    return 0;
}

static void put_specials(FILE *out, const Tokenizer *t) {
    for (int id = tokenizer_base(t); id < tokenizer_size(t); id++) {
        size_t n;
        const char *text = tokenizer_bytes(t, id, &n); // none of these needs an escape
        fprintf(out, "%s{\"id\":%d,\"content\":\"", id > tokenizer_base(t) ? "," : "", id);
        if (n) fprintf(out, "%.*s", (int)n, text);
        else fprintf(out, "<|extra_%d|>", id - EXTRAS);
        fputs("\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true}", out);
    }
}

static void put_expression(FILE *out) {
    for (const char *c = vocabulary_expression; *c; c++) {
        if (*c == '\\' || *c == '"') fputc('\\', out);
        fputc(*c, out);
    }
}

static int put_all(FILE *out, const Tokenizer *t, Error *err) {
    static const char byte_level[] =
        "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":false,\"use_regex\":false}";
    uint16_t spelled[256];
    vocabulary_alphabet(spelled);
    fputs("{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[", out);
    put_specials(out, t);
    fputs("],\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
          "\"Split\","
          "\"pattern\":{\"Regex\":\"",
          out);
    put_expression(out);
    fprintf(out, "\"},\"behavior\":\"Isolated\",\"invert\":false},%s]},\"post_processor\":%s,\"decoder\":%s,",
            byte_level, byte_level, byte_level);
    fputs("\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":\"\","
          "\"end_of_word_suffix\":\"\",\"fuse_unk\":false,\"byte_fallback\":false,\"vocab\":{",
          out);
    put_vocabulary(out, t, spelled);
    fputs("},\"merges\":[", out);
    TRY(put_merges(out, t, spelled, err));
    fputs("]}}\n", out);
    return 0;
}

int tokenizer_json(char **out, size_t *length, const Tokenizer *t, Error *err) {
    *out = NULL;
    FILE *f = open_memstream(out, length);
    if (!f) return error_set(err, "tokenizer.json: out of memory");
    int bad = put_all(f, t, err);
    if (fclose(f) != 0 && !bad) bad = error_set(err, "tokenizer.json: out of memory");
    if (!bad) return 0;
    free(*out);
    *out = NULL;
    return -1;
}

void tokenizer_config_json(char **out, size_t *length, const Tokenizer *t) {
    cJSON *o = cJSON_CreateObject();
    size_t n;
    const SpecialTokens *s = tokenizer_specials(t);
    cJSON_AddStringToObject(o, "tokenizer_class", "Qwen2Tokenizer");
    cJSON_AddBoolToObject(o, "add_prefix_space", 0);
    cJSON_AddNullToObject(o, "bos_token");
    cJSON_AddStringToObject(o, "eos_token", tokenizer_bytes(t, s->im_end, &n));
    cJSON_AddStringToObject(o, "pad_token", tokenizer_bytes(t, s->endoftext, &n));
    cJSON_AddNullToObject(o, "unk_token");
    cJSON_AddStringToObject(o, "errors", "replace");
    cJSON_AddBoolToObject(o, "clean_up_tokenization_spaces", 0);
    cJSON_AddBoolToObject(o, "split_special_tokens", 0);
    *out = cJSON_Print(o);
    cJSON_Delete(o);
    *length = strlen(*out);
}
