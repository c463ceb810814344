// json.c: see json.h.
#include "llmc/base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/base/clean.h"
#include "llmc/base/file.h"

// Input is bounded (JSON_MAX_VALUES) and output is the program's own, so cJSON allocates as in alloc.h: running out of
// memory ends the run, and none of its functions returns NULL for it.
static void *take(size_t bytes) { return alloc(bytes, 1, "JSON"); }
__attribute__((constructor)) static void use_alloc(void) {
    cJSON_InitHooks(&(cJSON_Hooks){.malloc_fn = take, .free_fn = free});
}

// cJSON recurses for each level of nesting. Safetensors headers and configs need 4.
enum { MAX_DEPTH = 32 };

// Counts levels and values in one pass before the parser runs.
static int check_bounds(const char *text, size_t size, const char *where, Error *err) {
    int depth = 0, in_string = 0;
    size_t values = 0;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\') i++;
            else if (c == '"') in_string = 0;
            continue;
        }
        switch (c) {
        case '"':
            in_string = 1;
            break;
        case '{':
        case '[':
            values++;
            if (++depth > MAX_DEPTH)
                return error_set(err, "%s: JSON at byte %zu: nested deeper than %d levels", where, i, MAX_DEPTH);
            break;
        case '}':
        case ']':
            depth--;
            break;
        case ',':
            values++;
            break;
        default:
            break;
        }
        if (values > JSON_MAX_VALUES) return error_set(err, "%s: JSON: more than %d values", where, JSON_MAX_VALUES);
    }
    return 0;
}

int json_parse(cJSON **out, const char *text, size_t size, const char *where, Error *err) {
    *out = NULL;
    TRY(check_bounds(text, size, where, err));
    const char *end = text;
    cJSON *root = cJSON_ParseWithLengthOpts(text, size, &end, 0);
    if (!root) {
        size_t at = end >= text && end <= text + size ? (size_t)(end - text) : 0;
        return error_set(err, "%s: not valid JSON near byte %zu", where, at);
    }
    for (; end < text + size; end++) {
        if (*end != ' ' && *end != '\n' && *end != '\t' && *end != '\r') {
            cJSON_Delete(root);
            return error_set(err, "%s: JSON ends at byte %zu, expected nothing behind it", where, (size_t)(end - text));
        }
    }
    if (!cJSON_IsObject(root)) {
        cJSON_Delete(root);
        return error_set(err, "%s: expected a JSON object", where);
    }
    *out = root;
    return 0;
}

int json_read(cJSON **out, const char *path, size_t max_bytes, Error *err) {
    *out = NULL;
    FileMap map;
    TRY(file_map(&map, path, err));
    int bad = map.size > max_bytes ? error_set(err, "%s: %zu bytes, expected at most %zu", path, map.size, max_bytes)
              : map.size == 0      ? error_set(err, "%s: the file is empty, expected a JSON object", path)
                                   : file_check_lfs(map.data, map.size, path, err);
    if (!bad) bad = json_parse(out, (const char *)map.data, map.size, path, err);
    file_unmap(&map);
    return bad;
}

char *json_line(const cJSON *value) {
    char *text = value ? cJSON_PrintUnformatted(value) : NULL, *line = NULL;
    size_t size = 0;
    FILE *out = text ? open_memstream(&line, &size) : NULL;
    for (size_t at = 0, n = text ? strlen(text) : 0, used; out && at < n; at += used) { // all inside strings
        uint32_t c;
        used = clean_next(&c, text + at, n - at);
        if (clean_must(c) && c < CLEAN_BROKEN) fprintf(out, "\\u%04x", c);
        else fwrite(text + at, 1, used, out);
    }
    cJSON_free(text);
    if (out && fclose(out) != 0) {
        free(line);
        line = NULL;
    }
    return line;
}

int json_write(const cJSON *object, const char *path, Error *err) {
    char *text = cJSON_Print(object);
    string_append(&text, "\n");
    int bad = file_write_whole(path, text, strlen(text), 0, err);
    free(text);
    return bad;
}

const cJSON *json_find(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return item && !cJSON_IsNull(item) ? item : NULL;
}

int json_whole(int64_t *out, const cJSON *item, int64_t min, int64_t max) {
    if (!cJSON_IsNumber(item)) return -1;
    double v = item->valuedouble;
    // doubles hold whole numbers exactly up to 2^53
    if (!(fabs(v) <= 9007199254740992.0) || v != floor(v) || v < (double)min || v > (double)max) return -1;
    *out = (int64_t)v;
    return 0;
}

static int missing(const char *key, const char *where, Error *err) {
    return error_set(err, "%s: key \"%s\" is missing", where, key);
}

int json_int(int64_t *out, const cJSON *object, const char *key, int64_t min, int64_t max, const char *where,
             Error *err) {
    const cJSON *item = json_find(object, key);
    if (!item) return missing(key, where, err);
    if (!cJSON_IsNumber(item))
        return error_set(err, "%s: \"%s\": expected a whole number from %lld to %lld", where, key, (long long)min,
                         (long long)max);
    if (json_whole(out, item, min, max) != 0)
        return error_set(err, "%s: \"%s\": expected a whole number from %lld to %lld, found %.17g", where, key,
                         (long long)min, (long long)max, item->valuedouble);
    return 0;
}

int json_real(double *out, const cJSON *object, const char *key, double min, double max, const char *where,
              Error *err) {
    const cJSON *item = json_find(object, key);
    if (!item) return missing(key, where, err);
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= min && item->valuedouble <= max))
        return error_set(err, "%s: \"%s\": expected a number from %g to %g, found %s%.17g", where, key, min, max,
                         cJSON_IsNumber(item) ? "" : "something else: ", item->valuedouble);
    *out = item->valuedouble;
    return 0;
}

int json_text(const char **out, const cJSON *object, const char *key, const char *where, Error *err) {
    const cJSON *item = json_find(object, key);
    if (!item) return missing(key, where, err);
    if (!cJSON_IsString(item)) return error_set(err, "%s: \"%s\": expected a text", where, key);
    *out = item->valuestring;
    return 0;
}

cJSON *json_add_float(cJSON *object, const char *key, float value) {
    char text[32];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value) break;
    }
    if (!strpbrk(text, ".e")) strcat(text, ".0"); // so that readers see a float
    return cJSON_AddRawToObject(object, key, text);
}
