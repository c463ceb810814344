// pages.c: see pages.h. A record (the text up to a form feed, a line, an object of a list) is gathered from a buffered
// stream, checked to be UTF-8 without zero bytes, and, if it is JSON, parsed alone: memory is that of the longest page.
#include "llmc/text/pages.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h> // strcasecmp

#include "llmc/base/alloc.h"
#include "llmc/base/file.h"
#include "llmc/base/json.h"
#include "llmc/base/unicode.h" // utf8_valid

// Text; JSON objects, one a line; JSON objects of several lines each; one JSON list of objects.
typedef enum Kind { KIND_TEXT, KIND_LINES, KIND_OBJECTS, KIND_LIST } Kind;
enum {
    MAX_RECORD = 64 << 20
}; // bytes of a page's line or object: 500 times the text a decoder of 131,072 rows can write
typedef enum List { LIST_AHEAD, LIST_OPEN, LIST_ENDED } List;

struct PageReader {
    FILE *stream;
    char *path; // as given
    Kind kind;
    char buffer[1 << 16];
    size_t at, filled; // of the buffer
    size_t line;       // of the next byte, from 1
    uint64_t number;   // pages so far, and
    uint64_t blank;    // those of them that had no text
    char *record;      // (length) of room bytes
    size_t length, room;
    size_t record_line;
    int delimited; // read_until: it ended with the delimiter, not with the file
    List list;     // KIND_LIST: how far it is
    cJSON *tree;   // of the record
    char *id;
};

// ---- the stream ----------------------------------------------------------------------------------------------------

// Makes at least `want` bytes available in the buffer if the file has them. -1: read error.
static int fill(PageReader *r, size_t want, Error *err) {
    if (r->filled - r->at >= want) return 0;
    memmove(r->buffer, r->buffer + r->at, r->filled - r->at);
    r->filled -= r->at;
    r->at = 0;
    while (r->filled < want && !feof(r->stream)) { // a terminal can be read on after its end
        size_t got = fread(r->buffer + r->filled, 1, sizeof r->buffer - r->filled, r->stream);
        if (got == 0) break;
        r->filled += got;
    }
    return ferror(r->stream) ? error_set(err, "%s: cannot read: %s", r->path, strerror(errno)) : 0;
}

// Peeks at the next byte; EOF at the end or, with *bad set, after a read error.
static int peek(PageReader *r, int *bad, Error *err) {
    if (r->at == r->filled && (*bad = fill(r, 1, err)) != 0) return EOF;
    return r->at < r->filled ? (unsigned char)r->buffer[r->at] : EOF;
}

static int append(PageReader *r, const char *data, size_t n, Error *err) {
    if (r->length + n > MAX_RECORD)
        return error_set(err, "%s: line %zu: a page that begins here is longer than %d MB (hint: %s)", r->path,
                         r->record_line, MAX_RECORD >> 20,
                         r->kind == KIND_TEXT ? "form feeds part pages" : "one JSON object is one page");
    if (r->length + n + 1 > r->room) {
        size_t room = 2 * (r->length + n) + 4096;
        char *bigger = realloc(r->record, room);
        if (!bigger) return error_set(err, "%s: line %zu: out of memory for %zu bytes", r->path, r->record_line, room);
        r->record = bigger;
        r->room = room;
    }
    memcpy(r->record + r->length, data, n);
    r->length += n;
    r->record[r->length] = 0;
    for (const char *p = data, *end = data + n; (p = memchr(p, '\n', (size_t)(end - p))) != NULL; p++) r->line++;
    return 0;
}

static int start_record(PageReader *r, Error *err) {
    r->length = 0;
    r->record_line = r->line;
    return append(r, "", 0, err);
}

// Reads up to the next delimiter, which is consumed but not part of the record. 1 = a record, 0 = end of file.
static int read_until(PageReader *r, char delimiter, Error *err) {
    int bad = 0;
    TRY(start_record(r, err));
    r->delimited = 0;
    if (peek(r, &bad, err) == EOF) return bad;
    while (peek(r, &bad, err) != EOF) {
        const char *from = r->buffer + r->at;
        const char *found = memchr(from, delimiter, r->filled - r->at);
        size_t n = found ? (size_t)(found - from) : r->filled - r->at;
        TRY(append(r, from, n, err));
        r->at += n;
        if (!found) continue;
        r->at++;
        r->delimited = 1;
        if (delimiter == '\n') r->line++;
        break;
    }
    return bad ? -1 : 1;
}

// Skips white space between the objects of a list and returns the byte after it.
static int skip_space(PageReader *r, int *bad, Error *err) {
    for (;;) {
        int c = peek(r, bad, err);
        if (c != ' ' && c != '\t' && c != '\r' && c != '\n') return c;
        if (c == '\n') r->line++;
        r->at++;
    }
}

static int expected(const PageReader *r, const char *what, int found, Error *err) {
    if (found == EOF)
        return error_set(err, "%s: line %zu: expected %s, the file ends (hint: truncated?)", r->path, r->line, what);
    return error_set(err, "%s: line %zu: expected %s, found '%c'", r->path, r->line, what, found);
}

// Collects one object, up to its closing brace.
static int read_braces(PageReader *r, Error *err) {
    int bad = 0, depth = 0, in_string = 0, escaped = 0;
    TRY(start_record(r, err));
    while (peek(r, &bad, err) != EOF) {
        size_t i = r->at;
        for (int done = 0; i < r->filled && !done; i++) {
            char c = r->buffer[i];
            if (escaped) escaped = 0;
            else if (in_string) escaped = c == '\\', in_string = c != '"';
            else if (c == '"') in_string = 1;
            else if (c == '{') depth++;
            else if (c == '}') done = --depth == 0;
        }
        TRY(append(r, r->buffer + r->at, i - r->at, err));
        r->at = i;
        if (depth == 0) return 1;
    }
    return bad ? -1 : expected(r, "the end of an object", EOF, err);
}

// The next object of a list. 1 = a record, 0 = the list, and the file, have ended.
static int read_element(PageReader *r, Error *err) {
    int bad = 0, comma = 0, c = skip_space(r, &bad, err);
    if (r->list == LIST_ENDED) return bad ? -1 : c == EOF ? 0 : expected(r, "nothing behind the list", c, err);
    int first = r->list == LIST_AHEAD;
    if (first ? c == '[' : c == ',') {
        r->at++;
        comma = !first;
        r->list = LIST_OPEN;
        c = skip_space(r, &bad, err);
    } else if (first || c != ']') {
        return bad ? -1 : expected(r, first ? "a list ('[') or an object ('{')" : "',' or ']'", c, err);
    }
    if (c == '{') return read_braces(r, err);
    if (bad) return -1;
    if (c != ']' || comma) return expected(r, "an object ('{')", c, err);
    r->at++;
    r->list = LIST_ENDED;
    return read_element(r, err);
}

// The next of several objects separated by white space.
static int read_next_object(PageReader *r, Error *err) {
    int bad = 0, c = skip_space(r, &bad, err);
    if (c == '{') return read_braces(r, err);
    return bad ? -1 : c == EOF ? 0 : expected(r, "an object ('{')", c, err);
}

static int read_record(PageReader *r, Error *err) {
    switch (r->kind) {
    case KIND_TEXT:
        return read_until(r, '\f', err);
    case KIND_LINES:
        return read_until(r, '\n', err);
    case KIND_OBJECTS:
        return read_next_object(r, err);
    default:
        return read_element(r, err);
    }
}

// ---- records to pages ----------------------------------------------------------------------------------------------

// The line of the file that byte `offset` of the record is on.
static size_t line_of(const PageReader *r, size_t offset) {
    size_t line = r->record_line;
    for (size_t i = 0; i < offset; i++) line += r->record[i] == '\n';
    return line;
}

// Text has no zero byte (in JSON, "\u0000"): it means a binary file, UTF-16, or a broken extraction.
static int check_record(const PageReader *r, Error *err) {
    size_t valid = utf8_valid(r->record, r->length);
    if (valid < r->length)
        return error_set(err, "%s: line %zu: invalid UTF-8 (byte 0x%02x)", r->path, line_of(r, valid),
                         (unsigned)(unsigned char)r->record[valid]);
    size_t zero = strlen(r->record);
    if (r->kind != KIND_TEXT && zero == r->length) {
        for (const char *p = r->record; (p = strchr(p, '\\')) != NULL; p += 2) {
            if (strncmp(p, "\\u0000", 6) == 0) zero = (size_t)(p - r->record);
            if (zero < r->length || !p[1]) break;
        }
    }
    if (zero == r->length) return 0;
    return error_set(err, "%s: line %zu: a zero character, which no text has (hint: UTF-16, or a binary file?)",
                     r->path, line_of(r, zero));
}

static void set_id(PageReader *r, Page *page) {
    free(r->id);
    r->id = NULL;
    const cJSON *id = r->tree ? json_find(r->tree, "id") : NULL, *image = r->tree ? json_find(r->tree, "image") : NULL;
    int64_t whole;
    if (cJSON_IsString(id) && *id->valuestring) r->id = string_copy(id->valuestring);
    else if (id && json_whole(&whole, id, -(1LL << 53), 1LL << 53) == 0)
        r->id = string_format("%lld", (long long)whole);
    else if (cJSON_IsString(image) && *image->valuestring) r->id = string_copy(image->valuestring);
    else r->id = string_format("%s:%llu", r->path, (unsigned long long)r->number);
    page->id = r->id;
}

int pages_prompt_repeats(const char *prompt) {
    char letters[64];
    size_t n = 0;
    for (const char *p = prompt; *p; p++) {
        if (strncmp(p, "<image>", 7) == 0) p += 6;
        else if (isalpha((unsigned char)*p) || (unsigned char)*p >= 0x80) {
            if (n + 1 >= sizeof letters) return 0;
            letters[n++] = *p;
        }
    }
    letters[n] = 0;
    return strcasecmp(letters, "repeatthetext") == 0;
}

static int is_blank(const char *text) { return text[strspn(text, " \t\n\v\f\r")] == 0; }

// What an object says, as far as it does: NULL where it is silent.
typedef struct Asked {
    const char *context, *prompt, *answer;
} Asked;

// The page of a complete Asked. The paper's prompt is none, its answer may be the context itself.
static int set_page(Page *page, const Asked *a, const char *where, Error *err) {
    page->text = a->context;
    page->length = strlen(a->context);
    if (strcmp(a->context, a->answer) != 0) {
        page->answer = a->answer;
        page->answer_length = strlen(a->answer);
    }
    if (!a->prompt || pages_prompt_repeats(a->prompt)) return 0;
    page->prompt = a->prompt;
    page->prompt_length = strlen(a->prompt);
    const char *empty = is_blank(a->prompt)    ? "prompt"
                        : is_blank(a->context) ? "context"
                        : is_blank(a->answer)  ? "answer"
                                               : NULL;
    return empty ? error_set(err, "%s: the %s is empty: expected a context, a prompt and an answer with text", where,
                             empty)
                 : 0;
}

// The text under one of the keys of a turn; the turn is named from 1 on.
static int turn_text(const char **out, const cJSON *turn, const char *key, int number, const char *where, Error *err) {
    const cJSON *value = json_find(turn, key);
    *out = cJSON_IsString(value) ? value->valuestring : NULL;
    return *out ? 0 : error_set(err, "%s: turn %d of the conversation: expected a text \"%s\"", where, number, key);
}

// Context, prompt and answer stand in this order, each once at most.
static int take_turn(const char **part, const char *text, const Asked *a, const char *role, int number,
                     const char *where, Error *err) {
    const int late = (part == &a->context && (a->prompt || a->answer)) || (part == &a->prompt && a->answer);
    if (*part || late)
        return error_set(err,
                         "%s: turn %d of the conversation is %s \"%s\": expected one context, one prompt and one "
                         "answer, in this order (hint: a line for each question)",
                         where, number, *part ? "another" : "a late", role);
    *part = text;
    return 0;
}

// The official shape has turns from "context", "human" and "gpt", one of each; Fox's has two turns, prompt and text.
static int read_conversation(Page *page, const cJSON *turns, const char *where, Error *err) {
    Asked a = {0};
    const char *last = NULL;
    int count = 0;
    for (const cJSON *turn = turns->child; turn; turn = turn->next) {
        const cJSON *from = json_find(turn, "from");
        const char *role = cJSON_IsString(from) ? from->valuestring : "";
        TRY(turn_text(&last, turn, "value", ++count, where, err));
        const char **part = !strcmp(role, "context") ? &a.context
                            : !strcmp(role, "human") ? &a.prompt
                            : !strcmp(role, "gpt")   ? &a.answer
                                                     : NULL;
        if (part) TRY(take_turn(part, last, &a, role, count, where, err));
    }
    if (!a.context && count == 2) {
        page->text = last;
        page->length = strlen(last);
        return 0;
    }
    if (!a.context || !a.answer)
        return error_set(err,
                         "%s: a conversation without %s: expected a context, a prompt and an answer (or Fox's "
                         "prompt and text)",
                         where, a.context ? "an answer" : "a context");
    return set_page(page, &a, where, err);
}

static int read_chat(Page *page, const cJSON *object, const cJSON *turns, const char *where, Error *err) {
    Asked a = {0};
    int count = 0;
    const cJSON *given = json_find(object, "context");
    if (given && !cJSON_IsString(given)) return error_set(err, "%s: \"context\": expected a text", where);
    for (const cJSON *turn = turns->child; turn; turn = turn->next) {
        const char *role, *text;
        TRY(turn_text(&role, turn, "role", ++count, where, err));
        TRY(turn_text(&text, turn, "content", count, where, err));
        const char **part = !strcmp(role, "system")      ? &a.context
                            : !strcmp(role, "user")      ? &a.prompt
                            : !strcmp(role, "assistant") ? &a.answer
                                                         : NULL;
        if (!part)
            return error_set(err,
                             "%s: turn %d of the conversation: expected the role system, user or assistant, found "
                             "\"%.40s\"",
                             where, count, role);
        if (given && part == &a.context)
            return error_set(err,
                             "%s: turn %d of the conversation: a system message beside \"context\": expected one "
                             "of them (hint: put both into \"context\")",
                             where, count);
        TRY(take_turn(part, text, &a, role, count, where, err));
    }
    if (given) a.context = given->valuestring;
    if (!a.context)
        return error_set(err, "%s: a chat without a context: expected a key \"context\" or a system message", where);
    if (!a.prompt || !a.answer)
        return error_set(err, "%s: a chat without a message of the %s: expected a prompt and its answer", where,
                         a.prompt ? "assistant" : "user");
    return set_page(page, &a, where, err);
}

static int read_asked(Page *page, const cJSON *object, const char *where, Error *err) {
    Asked a;
    TRY(json_text(&a.context, object, "context", where, err));
    TRY(json_text(&a.prompt, object, "prompt", where, err));
    TRY(json_text(&a.answer, object, "answer", where, err));
    return set_page(page, &a, where, err);
}

static int read_object(PageReader *r, Page *page, Error *err) {
    char where[600];
    snprintf(where, sizeof where, "%.500s: line %zu", r->path, r->record_line);
    cJSON_Delete(r->tree);
    r->tree = NULL;
    TRY(json_parse(&r->tree, r->record, r->length, where, err));
    const cJSON *text = json_find(r->tree, "text"), *turns = json_find(r->tree, "conversations");
    const cJSON *messages = json_find(r->tree, "messages"), *answer = json_find(r->tree, "answer");
    if (!text && cJSON_IsArray(turns)) return read_conversation(page, turns, where, err);
    if (!text && cJSON_IsArray(messages)) return read_chat(page, r->tree, messages, where, err);
    if (!text && answer) return read_asked(page, r->tree, where, err);
    if (!cJSON_IsString(text))
        return error_set(err, text ? "%s: \"text\": expected a text" : "%s: key \"text\" is missing", where);
    page->text = text->valuestring;
    page->length = strlen(text->valuestring);
    return 0;
}

int pages_next(PageReader *r, Page *page, Error *err) {
    for (;;) {
        *page = (Page){0};
        int got = read_record(r, err);
        if (got <= 0) return got;
        TRY(check_record(r, err));
        const int blank = is_blank(r->record);
        if (blank && r->kind == KIND_LINES) continue;
        if (blank && r->kind == KIND_TEXT && r->number > 0 && !r->delimited) return 0; // after the last form feed
        page->number = ++r->number;
        page->text = r->record;
        page->length = r->length;
        if (r->kind != KIND_TEXT) TRY(read_object(r, page, err));
        if (!is_blank(page->text) && !(page->answer && is_blank(page->answer))) {
            set_id(r, page);
            return 1;
        }
        r->blank++;
    }
}

uint64_t pages_without_text(const PageReader *r) { return r->blank; }

// ---- open and close ------------------------------------------------------------------------------------------------

static const char *past_space(const char *p, const char *end) {
    while (p < end && *p && strchr(" \t\r\n", *p)) p++;
    return p;
}

// Whether the object at p continues after the end of its line: inside braces a key or '}' must follow (after a colon, a
// value). Anything else is a truncated line of JSONL.
static int is_of_several_lines(const char *p, const char *end) {
    uint64_t lists = 0; // bit 0: the innermost bracket is '['; bit 1: the one around it...
    int depth = 0, in_string = 0;
    char before = 0; // the last character that is not white space
    for (; p < end; p++) {
        if (in_string) {
            if (*p == '\\') p++;
            else in_string = *p != '"' && *p != '\n';
            continue;
        }
        if (*p == '\n') {
            const char *next = past_space(p, end);
            return next < end && ((lists & 1) || before == ':' || *next == '"' || *next == '}');
        }
        if (*p == '"') in_string = 1;
        if (*p == '{' || *p == '[') depth++, lists = lists << 1 | (*p == '[');
        if ((*p == '}' || *p == ']') && --depth == 0) return 0;
        if (*p == '}' || *p == ']') lists >>= 1;
        if (*p != ' ' && *p != '\t' && *p != '\r') before = *p;
    }
    return 0;
}

// Whether the '[' at p begins a JSON list. "[1] Smith" and "[ ] to do" are text.
static int is_list(const char *p, const char *end) {
    const char *next = past_space(p + 1, end);
    if (next < end && *next == ']') return past_space(next + 1, end) == end;
    return next < end && (*next == '{' || *next == '"');
}

// Decides by the first bytes and, where these are ambiguous, by the name.
static Kind find_kind(const PageReader *r) {
    const char *dot = strrchr(r->path, '.'), *end = r->buffer + r->filled, *p = past_space(r->buffer + r->at, end);
    const int lines = dot && !strcasecmp(dot, ".jsonl"), json = lines || (dot && !strcasecmp(dot, ".json"));
    if (dot && !strcasecmp(dot, ".txt")) return KIND_TEXT;
    if (p < end && *p == '{') return is_of_several_lines(p, end) ? KIND_OBJECTS : KIND_LINES;
    if (p < end && *p == '[' && (json || is_list(p, end))) return KIND_LIST;
    return lines ? KIND_LINES : json ? KIND_LIST : KIND_TEXT;
}

int pages_open(PageReader **out, const char *path, Error *err) {
    *out = NULL;
    PageReader *r = alloc_zeroed(1, sizeof *r, "reader");
    r->path = string_copy(strcmp(path, "-") ? path : "stdin");
    r->line = 1;
    r->stream = strcmp(path, "-") ? fopen(path, "rbe") : stdin;
    int bad = r->stream ? fill(r, sizeof r->buffer, err) : error_set(err, "%s: cannot open: %s", path, strerror(errno));
    if (bad) {
        pages_close(r);
        return -1;
    }
    if (r->filled >= 3 && memcmp(r->buffer, "\xef\xbb\xbf", 3) == 0) r->at = 3; // a byte order mark is not text
    r->kind = find_kind(r);
    *out = r;
    return 0;
}

void pages_close(PageReader *r) {
    if (!r) return;
    if (r->stream && r->stream != stdin) fclose(r->stream);
    cJSON_Delete(r->tree);
    free(r->record);
    free(r->path);
    free(r->id);
    free(r);
}
