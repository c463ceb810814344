// vocabulary.c: see vocabulary.h. Both formats fill one list of (offset, length) by rank, in any order of the file;
// then the list is checked and laid out by rank.
#include "llmc/text/vocabulary.h"

#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/base/file.h" // file_check_lfs
#include "llmc/base/json.h"
#include "llmc/base/unicode.h" // utf8_valid, utf8_read

enum { MAX_RANKS = 1 << 20, MAX_TOKEN_BYTES = 1 << 16, LEAST_ENTRY = 6 }; // `"a":0,`

typedef struct Entry {
    uint32_t offset, length; // in bytes; length 0: rank not seen yet
} Entry;

typedef struct Reader {
    Entry *entries; // (room)
    long room;      // the most ranks a file of this size can have
    int ranks;      // highest rank seen + 1
    int count;      // ranks seen
    uint8_t *bytes; // all tokens so far, in the file's order; room for the whole file, which is longer
    size_t used;
    const char *name;
} Reader;

static int reader_open(Reader *r, size_t size, const char *name, Error *err) {
    long room = size / LEAST_ENTRY < MAX_RANKS ? (long)(size / LEAST_ENTRY) + 1 : MAX_RANKS;
    *r = (Reader){calloc((size_t)room, sizeof(Entry)), room, 0, 0, malloc(size + 1), 0, name};
    if (r->entries && r->bytes) return 0;
    free(r->entries);
    free(r->bytes);
    return error_set(err, "%s: out of memory", name);
}

// The token's `length` bytes are already at r->bytes + r->used.
static int reader_add(Reader *r, long rank, size_t length, Error *err) {
    if (length == 0 || length > MAX_TOKEN_BYTES)
        return error_set(err, "%s: rank %ld has %zu bytes, expected 1 to %d", r->name, rank, length, MAX_TOKEN_BYTES);
    if (rank < 0 || rank >= r->room)
        return error_set(err, "%s: rank %ld, but a file of this size has at most %ld", r->name, rank, r->room);
    Entry *e = &r->entries[rank];
    if (e->length) return error_set(err, "%s: rank %ld occurs twice (hint: the file is damaged)", r->name, rank);
    *e = (Entry){(uint32_t)r->used, (uint32_t)length};
    r->used += length;
    r->count++;
    if (rank >= r->ranks) r->ranks = (int)rank + 1;
    return 0;
}

// ---- qwen.tiktoken: a line `base64 rank` each ----------------------------------------------------------------------

static int base64_value(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

// Decodes n characters, padded to a multiple of four. Returns the number of bytes, -1 if it is not base64.
static long base64_decode(uint8_t *out, const char *in, size_t n) {
    if (n == 0 || n % 4) return -1;
    size_t pad = in[n - 1] != '=' ? 0 : in[n - 2] != '=' ? 1 : 2;
    uint8_t *o = out;
    for (size_t i = 0; i < n; i += 4) {
        uint32_t word = 0;
        for (size_t k = 0; k < 4; k++) {
            int v = i + k >= n - pad ? 0 : base64_value(in[i + k]);
            if (v < 0) return -1;
            word = word << 6 | (uint32_t)v;
        }
        size_t bytes = i + 4 == n ? 3 - pad : 3;
        for (size_t k = 0; k < bytes; k++) *o++ = (uint8_t)(word >> (16 - 8 * k));
    }
    return o - out;
}

static int read_tiktoken(Reader *r, const char *data, size_t size, Error *err) {
    size_t line = 0;
    for (const char *p = data, *end = data + size; p < end;) {
        line++;
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        const char *stop = newline ? newline : end, *next = newline ? newline + 1 : end;
        if (stop > p && stop[-1] == '\r') stop--;
        if (stop == p && next == end) break; // an empty last line
        const char *space = memchr(p, ' ', (size_t)(stop - p));
        if (!space || stop - space < 2 || stop - space > 8)
            return error_set(err, "%s: line %zu: expected `base64 rank`", r->name, line);
        long bytes = base64_decode(r->bytes + r->used, p, (size_t)(space - p));
        if (bytes < 0) return error_set(err, "%s: line %zu: the token is not base64", r->name, line);
        long rank = 0;
        for (const char *d = space + 1; d < stop; d++) {
            if (*d < '0' || *d > '9') return error_set(err, "%s: line %zu: the rank is not a number", r->name, line);
            rank = 10 * rank + (*d - '0');
        }
        TRY(reader_add(r, rank, (size_t)bytes, err));
        p = next;
    }
    return 0;
}

// ---- tokenizer.json: tokens spelled in the byte-level alphabet -----------------------------------------------------

enum { ALPHABET = 0x144 }; // code points of the alphabet lie below

const char vocabulary_expression[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

// Visible Latin-1 stands for itself, the other 68 bytes for U+0100 and up, in order.
void vocabulary_alphabet(uint16_t spelled[256]) {
    for (int b = 0, next = 0x100; b < 256; b++) {
        int visible = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
        spelled[b] = (uint16_t)(visible ? b : next++);
    }
}

static void make_alphabet(int16_t byte_of[ALPHABET]) {
    uint16_t spelled[256];
    vocabulary_alphabet(spelled);
    for (int c = 0; c < ALPHABET; c++) byte_of[c] = -1;
    for (int b = 0; b < 256; b++) byte_of[spelled[b]] = (int16_t)b;
}

// Translates a token's spelling to its bytes. Returns their number, -1 for a character outside the alphabet.
static long spelled_bytes(uint8_t *out, const char *text, const int16_t byte_of[ALPHABET]) {
    size_t n = strlen(text);
    if (utf8_valid(text, n) != n) return -1;
    long length = 0;
    for (size_t i = 0; i < n;) {
        uint32_t c;
        i += utf8_read(&c, (const uint8_t *)text + i);
        if (c >= ALPHABET || byte_of[c] < 0) return -1;
        out[length++] = (uint8_t)byte_of[c];
    }
    return length;
}

// A merge is "a b" or, in newer files, ["a","b"]. Its result must be the token whose rank follows from its position.
static int check_merge(const Reader *r, int index, const cJSON *merge, const int16_t byte_of[ALPHABET],
                       uint8_t *scratch, size_t room, Error *err) {
    const char *left = NULL, *right = NULL;
    char *copy = NULL;
    if (cJSON_IsString(merge)) {
        copy = string_copy(merge->valuestring);
        char *space = strchr(copy, ' ');
        if (space) {
            *space = 0;
            left = copy;
            right = space + 1;
        }
    } else if (cJSON_IsArray(merge) && cJSON_GetArraySize(merge) == 2 && cJSON_IsString(merge->child) &&
               cJSON_IsString(merge->child->next)) {
        left = merge->child->valuestring;
        right = merge->child->next->valuestring;
    }
    const Entry *e = &r->entries[256 + index];
    int same = 0;
    if (left && right && strlen(left) + strlen(right) <= room) {
        long a = spelled_bytes(scratch, left, byte_of);
        long b = a > 0 ? spelled_bytes(scratch + a, right, byte_of) : -1;
        same = b > 0 && (uint32_t)(a + b) == e->length && memcmp(scratch, r->bytes + e->offset, e->length) == 0;
    }
    free(copy);
    if (same) return 0;
    return error_set(err,
                     "%s: merge %d does not make the token %d: merges and vocabulary disagree (hint: is it Qwen's?)",
                     r->name, index, 256 + index);
}

static const char *text_of(const cJSON *object, const char *key) {
    const cJSON *item = json_find(object, key);
    return cJSON_IsString(item) ? item->valuestring : item ? "something else" : NULL;
}

// What else affects ids. It may be missing, but must not differ from Qwen's.
static int check_kind(const cJSON *root, const cJSON *model, const char *name, Error *err) {
    const cJSON *cutter = json_find(root, "pre_tokenizer"), *steps = json_find(cutter, "pretokenizers");
    const cJSON *split = cJSON_IsArray(steps) ? steps->child : cutter;
    const char *type = text_of(model, "type"), *normal = text_of(json_find(root, "normalizer"), "type");
    const char *expression = text_of(json_find(split, "pattern"), "Regex");
    if (type && strcmp(type, "BPE") != 0)
        return error_set(err, "%s: model.type: expected \"BPE\", found \"%.40s\" (hint: another model's tokenizer)",
                         name, type);
    if (normal && strcmp(normal, "NFC") != 0)
        return error_set(err, "%s: normalizer: expected \"NFC\", found \"%.40s\"", name, normal);
    if (cutter && (!expression || strcmp(expression, vocabulary_expression) != 0))
        return error_set(err, "%s: pre_tokenizer: expected Qwen's expression, found \"%.80s\"", name,
                         expression                ? expression
                         : text_of(cutter, "type") ? text_of(cutter, "type")
                                                   : "none");
    return 0;
}

static int read_json_tree(Reader *r, const cJSON *root, size_t size, Error *err) {
    const cJSON *model = json_find(root, "model");
    const cJSON *vocab = model ? json_find(model, "vocab") : NULL, *merges = model ? json_find(model, "merges") : NULL;
    if (!cJSON_IsObject(vocab) || !cJSON_IsArray(merges))
        return error_set(err, "%s: expected a tokenizer.json with model.vocab and model.merges (a BPE)", r->name);
    TRY(check_kind(root, model, r->name, err));
    int16_t byte_of[ALPHABET];
    make_alphabet(byte_of);
    for (const cJSON *item = vocab->child; item; item = item->next) {
        int64_t rank;
        if (json_whole(&rank, item, 0, MAX_RANKS - 1) != 0)
            return error_set(err, "%s: model.vocab: \"%.40s\" has no valid id", r->name, item->string);
        long bytes = spelled_bytes(r->bytes + r->used, item->string, byte_of);
        if (bytes < 0)
            return error_set(err, "%s: model.vocab: \"%.40s\" is not spelled in the byte-level alphabet", r->name,
                             item->string);
        TRY(reader_add(r, (long)rank, (size_t)bytes, err));
    }
    int n_merges = cJSON_GetArraySize(merges);
    if (r->count != r->ranks || r->ranks < 256 || n_merges != r->ranks - 256)
        return error_set(err,
                         "%s: %d tokens up to id %d and %d merges: expected every id, and a merge for each from 256 on",
                         r->name, r->count, r->ranks - 1, n_merges);
    int index = 0;
    for (const cJSON *merge = merges->child; merge; merge = merge->next, index++)
        TRY(check_merge(r, index, merge, byte_of, r->bytes + r->used, size - r->used, err));
    return 0;
}

static int read_json(Reader *r, const char *data, size_t size, Error *err) {
    cJSON *root;
    TRY(json_parse(&root, data, size, r->name, err));
    int bad = read_json_tree(r, root, size, err);
    cJSON_Delete(root);
    return bad;
}

// ---- the list ------------------------------------------------------------------------------------------------------

static int check_list(const Reader *r, int expected, int cut, Error *err) {
    if (r->count != r->ranks || r->ranks < 256 || (r->ranks != expected && r->ranks != cut)) {
        for (int rank = 0; rank < r->ranks && r->ranks <= expected; rank++) {
            if (!r->entries[rank].length)
                return error_set(err, "%s: rank %d is missing (hint: the file is damaged)", r->name, rank);
        }
        return error_set(err, "%s: %d ranks, expected Qwen's %d (hint: truncated, or another model's tokenizer)",
                         r->name, r->count, expected);
    }
    if (cut > r->ranks)
        return error_set(err, "%s: a vocabulary of %d was asked for, the file has %d ranks", r->name, cut, r->ranks);
    uint8_t seen[256] = {0};
    for (int rank = 0; rank < 256; rank++)
        if (r->entries[rank].length == 1) seen[r->bytes[r->entries[rank].offset]] = 1;
    for (int b = 0; b < 256; b++)
        if (!seen[b])
            return error_set(err, "%s: the byte 0x%02x is not among the first 256 ranks (hint: not a byte-level BPE)",
                             r->name, b);
    return 0;
}

static int lay_out(Vocabulary *v, const Reader *r, int cut, Error *err) {
    int ranks = cut ? cut : r->ranks;
    *v = (Vocabulary){.ranks = ranks, .bytes = malloc(r->used), .at = malloc(((size_t)ranks + 1) * sizeof *v->at)};
    if (!v->bytes || !v->at) {
        vocabulary_free(v);
        return error_set(err, "%s: out of memory", r->name);
    }
    v->at[0] = 0;
    for (int rank = 0; rank < ranks; rank++) {
        Entry e = r->entries[rank];
        memcpy(v->bytes + v->at[rank], r->bytes + e.offset, e.length);
        v->at[rank + 1] = v->at[rank] + e.length;
    }
    return 0;
}

int vocabulary_parse(Vocabulary *v, const char *data, size_t size, int expected, int cut, const char *name,
                     Error *err) {
    *v = (Vocabulary){0};
    if (size == 0) return error_set(err, "%s: the file is empty, expected qwen.tiktoken or tokenizer.json", name);
    if (size > VOCABULARY_MAX_BYTES) return error_set(err, "%s: %zu bytes: too large for a tokenizer", name, size);
    TRY(file_check_lfs(data, size, name, err));
    Reader r;
    TRY(reader_open(&r, size, name, err));
    size_t start = 0;
    while (start < size && (data[start] == ' ' || data[start] == '\n' || data[start] == '\r' || data[start] == '\t'))
        start++;
    int bad = start < size && data[start] == '{' ? read_json(&r, data, size, err) : read_tiktoken(&r, data, size, err);
    if (!bad) bad = check_list(&r, expected, cut, err);
    if (!bad) bad = lay_out(v, &r, cut, err);
    free(r.entries);
    free(r.bytes);
    return bad;
}

void vocabulary_free(Vocabulary *v) {
    free(v->bytes);
    free(v->at);
    *v = (Vocabulary){0};
}
