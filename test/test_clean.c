// test_clean.c: text from outside, as it is printed: in lines, arguments, errors, JSON.
#include "llmc/clean.h"

#include <stdlib.h>

#include "check.h"
#include "llmc/error.h"
#include "llmc/json.h"

// What must not reach a terminal, and how it is printed; and what must, as it is.
static const struct {
    const char *in, *out;
} cases[] = {
    {"plain é 天 🙂 \\ \" '", "plain é 天 🙂 \\ \" '"},
    {"\x1b]0;title\x07\x7f", "\\x1b]0;title\\x07\\x7f"},
    {"a\nb\tc\rd", "a\\x0ab\\x09c\\x0dd"},
    {"\xc2\x80\xc2\x9b\xc2\x9f\xc2\xa0", "\\u0080\\u009b\\u009f\xc2\xa0"},
    {"\xd8\x9c\xe2\x80\x8e\xe2\x80\x8f", "\\u061c\\u200e\\u200f"},
    {"\xe2\x80\xa7\xe2\x80\xa8\xe2\x80\xa9\xe2\x80\xaa\xe2\x80\xae\xe2\x80\xaf",
     "\xe2\x80\xa7\\u2028\\u2029\\u202a\\u202e\xe2\x80\xaf"},
    {"\xe2\x81\xa5\xe2\x81\xa6\xe2\x81\xa9\xe2\x81\xaa", "\xe2\x81\xa5\\u2066\\u2069\xe2\x81\xaa"},
    {"\x9b\xff\xc3(\xe5\xa4", "\\x9b\\xff\\xc3(\\xe5\\xa4"},
    {"\xed\xa0\x80\xf4\x90\x80\x80", "\\xed\\xa0\\x80\\xf4\\x90\\x80\\x80"},
    {"", ""},
};
enum { N_CASES = sizeof cases / sizeof *cases };

static char *printed(const char *text) {
    char *got = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&got, &n);
    clean_print(out, text, strlen(text));
    fclose(out);
    return got;
}

static void test_lines(void) {
    Error err;
    char got[256];
    check_begin("controls, C1, directions, separators and broken bytes are escaped, once");
    for (int i = 0; i < N_CASES; i++) {
        clean_text(got, sizeof got, cases[i].in);
        CHECK(!strcmp(got, cases[i].out), "case %d: '%s'", i, got);
        CHECK(!strcmp(clean(cases[i].in), cases[i].out), "case %d as an argument: '%s'", i, clean(cases[i].in));
        CHECK(!strcmp(clean(cases[i].out), cases[i].out), "case %d twice: '%s'", i, clean(cases[i].out));
        error_set(&err, "%s", cases[i].in);
        CHECK(!strcmp(err.text, cases[i].out), "case %d in an error: '%s'", i, err.text);
        error_set(&err, "end");
        error_prefix(&err, "%s", cases[i].in);
        snprintf(got, sizeof got, "%s: end", cases[i].out);
        CHECK(!strcmp(err.text, got), "case %d before an error: '%s'", i, err.text);
    }

    check_begin("a text keeps its line ends and tabs, and nothing else");
    for (int i = 0; i < N_CASES; i++) {
        char *text = printed(cases[i].in);
        CHECK(i == 2 || !strcmp(text, cases[i].out), "case %d: '%s'", i, text);
        free(text);
    }
    char *text = printed(cases[2].in);
    CHECK(!strcmp(text, "a\nb\tc\\x0dd"), "'%s'", text);
    free(text);

    check_begin("cut at a whole character, escaped or not");
    char small[8];
    for (size_t room = 1; room <= sizeof small; room++) {
        clean_text(small, room, "\xc3\xa9\x1b\xe5\xa4\xa9z"); // 2 bytes, 4, 3, 1
        const char *expected[] = {"", "", "é", "é", "é", "é", "é\\x1b", "é\\x1b"};
        CHECK(!strcmp(small, expected[room - 1]), "room %zu: '%s'", room, small);
    }

    check_begin("eight arguments of one line stand side by side; a long one is cut");
    const char *list[8];
    char number[2] = "0";
    for (int i = 0; i < 8; i++) number[0] = (char)('0' + i), list[i] = clean(number);
    for (int i = 0; i < 8; i++) CHECK(list[i][0] == '0' + i, "argument %d: %s", i, list[i]);
    static char huge[9000];
    memset(huge, '\033', sizeof huge - 1);
    CHECK(strlen(clean(huge)) == 4092, "%zu bytes", strlen(clean(huge)));
    error_set(&err, "%s", huge);
    CHECK(strlen(err.text) == 1020, "%zu bytes", strlen(err.text));
}

static void test_json(void) {
    check_begin("JSON says the same with its own escapes");
    for (int i = 0; i < 7; i++) { // valid UTF-8
        cJSON *o = cJSON_CreateObject(), *again = NULL;
        Error err;
        cJSON_AddStringToObject(o, cases[i].in, cases[i].in);
        char *line = json_line(o);
        cJSON_Delete(o);
        CHECK(line && !strcmp(clean(line), line), "case %d: '%s'", i, line ? line : "");
        CHECK(line && json_parse(&again, line, strlen(line), "line", &err) == 0, "%s", err.text);
        const cJSON *item = again ? json_find(again, cases[i].in) : NULL;
        CHECK(cJSON_IsString(item) && !strcmp(item->valuestring, cases[i].in), "case %d: '%s'", i, line ? line : "");
        cJSON_Delete(again);
        free(line);
    }
    CHECK(!json_line(NULL), "a line of nothing");
}

int main(void) {
    test_lines();
    test_json();
    return check_done();
}
