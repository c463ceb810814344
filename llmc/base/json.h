// json.h: untrusted JSON. cJSON parses; these functions limit what it is given (size, nesting, number of values) and
// fetch values with their type and range checked, so that every error names file and key.
#ifndef LLMC_JSON_H
#define LLMC_JSON_H

#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "llmc/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { JSON_MAX_VALUES = 1 << 22 }; // cJSON takes 64 bytes a value

// Parses `size` bytes of text, which need no zero byte after them. `where` names the source in errors. The root must be
// an object. The caller frees *out with cJSON_Delete.
int json_parse(cJSON **out, const char *text, size_t size, const char *where, Error *err);
// The same for a file of at most max_bytes.
int json_read(cJSON **out, const char *path, size_t max_bytes, Error *err);
// The value on one line, allocated, without a line end; what clean.h would escape is written as JSON's own \uXXXX. NULL
// for a NULL value.
char *json_line(const cJSON *value);
// Writes an object to PATH, completely or not at all.
int json_write(const cJSON *object, const char *path, Error *err);

// A whole number in [min, max]. Missing, not a whole number or out of range: an error that names where and key.
int json_int(int64_t *out, const cJSON *object, const char *key, int64_t min, int64_t max, const char *where,
             Error *err);
int json_real(double *out, const cJSON *object, const char *key, double min, double max, const char *where, Error *err);
// *out is owned by the object.
int json_text(const char **out, const cJSON *object, const char *key, const char *where, Error *err);
// A member that is present and not null, else NULL. Names are case-sensitive.
const cJSON *json_find(const cJSON *object, const char *key);
// The whole number of a value without a key (an element of an array): 0 and *out, or -1.
int json_whole(int64_t *out, const cJSON *item, int64_t min, int64_t max);

// Adds a float in the fewest digits that read back as the same float ("1e-06", not "9.99999997e-07").
cJSON *json_add_float(cJSON *object, const char *key, float value);

#ifdef __cplusplus
}
#endif
#endif
