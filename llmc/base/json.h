// json.h: JSON from files nobody vouches for. cJSON parses; these few functions bound what it may be given (size,
// nesting, number of values) and fetch values with their type and range checked, so that every error names file and
// key.
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

// Parses `size` bytes of text (no zero byte needed behind them). `where` names the source in errors. The root must be
// an object. The caller calls cJSON_Delete on *out.
int json_parse(cJSON **out, const char *text, size_t size, const char *where, Error *err);
// The same for a file of at most max_bytes.
int json_read(cJSON **out, const char *path, size_t max_bytes, Error *err);
// One line without a line end, malloc'ed: what clean.h would escape stands there as JSON's own \uXXXX. NULL: out of
// memory, or no value.
char *json_line(const cJSON *value);
// Prints an object into PATH, whole or not at all.
int json_write(const cJSON *object, const char *path, Error *err);

// A whole number in [min, max]. Missing, of another type, not whole, outside: an error that names where and key.
int json_int(int64_t *out, const cJSON *object, const char *key, int64_t min, int64_t max, const char *where,
             Error *err);
int json_real(double *out, const cJSON *object, const char *key, double min, double max, const char *where, Error *err);
// *out belongs to the object.
int json_text(const char **out, const cJSON *object, const char *key, const char *where, Error *err);
// A member that is there and not null; NULL otherwise. Names are compared with case.
const cJSON *json_find(const cJSON *object, const char *key);
// A whole number without a key (an element of an array): 0 and *out, or -1.
int json_whole(int64_t *out, const cJSON *item, int64_t min, int64_t max);

// Adds a float in the fewest digits that read back as the same float ("1e-06", not "9.99999997e-07"). NULL: no memory.
cJSON *json_add_float(cJSON *object, const char *key, float value);

#ifdef __cplusplus
}
#endif
#endif
