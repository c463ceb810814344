// test_pages.c: pages out of text, JSONL, the official conversations and Fox's; damage named by file and line; and
// pages to shards.
#include "test/check.h"

#include <stdlib.h>
#include <unistd.h>

#include "llmc/file.h"
#include "llmc/pages.h"
#include "llmc/shard.h"
#include "llmc/tokenize.h"
#include "llmc/tokenizer.h"

static char folder[] = "build/test_pages_XXXXXX";
static Error err;

static char *put(const char *name, const char *data, size_t size) {
    char *path = string_format("%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) perror(path), exit(2);
    return path;
}
static char *put_text(const char *name, const char *text) { return put(name, text, strlen(text)); }

// All pages of a file in one string: id=text|answer; in brackets each. An error ends it with "error: ...".
static char *read_all(const char *path) {
    char *all = strdup("");
    PageReader *r;
    int got = pages_open(&r, path, &err);
    Page page;
    while (got == 0 && (got = pages_next(r, &page, &err)) > 0) {
        char *more = string_format("%s[%s=%.*s%s%.*s]", all, page.id, (int)page.length, page.text,
                                   page.answer ? "|" : "", (int)page.answer_length, page.answer ? page.answer : "");
        free(all);
        all = more;
        got = 0;
    }
    if (got == 0) { // the end stays the end
        CHECK(pages_next(r, &page, &err) == 0, "a page behind the end");
    } else {
        char *more = string_format("%serror: %s", all, err.text);
        free(all);
        all = more;
    }
    pages_close(r);
    return all;
}

// `wanted` may hold one %s: the file's path; a closing "..." allows any rest.
static void expect(const char *name, const char *data, size_t size, const char *wanted) {
    char *path = put(name, data, size), *got = read_all(path), *want = strdup("");
    for (const char *w = wanted; *w;) {
        size_t plain = strcspn(w, "%");
        char *more = string_format("%s%.*s%s", want, (int)plain, w, w[plain] ? path : "");
        free(want);
        want = more;
        w += plain + (w[plain] ? 1 : 0);
    }
    size_t n = strlen(want);
    int open_end = n > 3 && !strcmp(want + n - 3, "...");
    CHECK(open_end ? !strncmp(got, want, n - 3) : !strcmp(got, want), "%s: got  %s\n    want %s", name, got, want);
    free(path);
    free(got);
    free(want);
}
static void expect_text(const char *name, const char *text, const char *wanted) {
    expect(name, text, strlen(text), wanted);
}

static void test_text(void) {
    check_begin("text: form feeds part pages, every byte between them is kept");
    expect_text("a.txt", "one\r\ntwo\n\fthree", "[%:1=one\r\ntwo\n][%:2=three]");
    expect_text("b.txt", "one\f\ftwo\f", "[%:1=one][%:2=][%:3=two]");
    expect_text("c.txt", "", "");
    expect_text("d.txt", "\xef\xbb\xbfone", "[%:1=one]");
    expect_text("e", "[not a list]\f{", "[%:1=[not a list]][%:2={]");
    expect_text("f.txt", "{\"text\":1}", "[%:1={\"text\":1}]");
    check_begin("text: a page longer than any buffer, delimiters on every border");
    for (size_t n = (1 << 16) - 3; n < (1 << 16) + 4; n++) {
        char *text = malloc(2 * n + 2);
        memset(text, 'x', 2 * n + 1);
        text[n] = '\f';
        char *path = put("long.txt", text, 2 * n + 1), *got = read_all(path);
        text[n] = text[2 * n + 1] = 0;
        char *wanted = string_format("[%s:1=%s][%s:2=%s]", path, text, path, text + n + 1);
        CHECK(!strcmp(got, wanted), "pages of %zu bytes", n);
        free(text), free(wanted), free(path), free(got);
    }
}

static void test_lines(void) {
    check_begin("JSONL: ids, other keys, blank lines, escapes");
    expect_text(
        "a.jsonl",
        "{\"text\":\"a\",\"id\":\"first\",\"x\":[1,{}]}\n\n  \r\n{\"id\":7,\"text\":\"\\u00e9\\n\\ud83d\\ude00\"}",
        "[first=a][7=\xc3\xa9\n\xf0\x9f\x98\x80]");
    expect_text("b.jsonl", "{\"text\":\"\"}\n{\"text\":\"x\",\"image\":\"en_1.png\"}\n", "[%:1=][en_1.png=x]");
    expect_text("c.json", "\xef\xbb\xbf {\"text\":\"x\"}\n{\"text\":\"y\"}", "[%:1=x][%:2=y]");
    expect_text("d", "{\"text\":\"x\"}\n", "[%:1=x]");
    expect_text("e.jsonl", "{\"text\":\"C:\\\\u0000\"}", "[%:1=C:\\u0000]");
    check_begin("JSONL: damage is named by file and line");
    expect_text("f.jsonl", "{\"text\":\"x\"}\n\n{\"text\":\"y\"\n",
                "[%:1=x]error: %: line 3: not valid JSON near byte ...");
    expect_text("g.jsonl", "{\"text\":\"x\"} trailing\n", "error: %: line 1: JSON ends at byte ...");
    expect_text("h.jsonl", "{\"txt\":\"x\"}\n", "error: %: line 1: key \"text\" is missing");
    expect_text("i.jsonl", "{\"text\":5}\n", "error: %: line 1: \"text\": expected a text");
    expect_text("j.jsonl", "[\"text\"]\n", "error: %: line 1: expected a JSON object");
    expect_text("k.jsonl", "{\"text\":\"a\"}\n{\"text\":\"\xff\"}\n",
                "[%:1=a]error: %: line 2: invalid UTF-8 (byte 0xff)");
    expect_text("l.jsonl", "{\"text\":\"a\\u0000b\"}\n", "error: %: line 1: a zero character, ...");
    expect("m.jsonl", "{\"text\":\"a\0b\"}\n", 15, "error: %: line 1: a zero character, ...");
    expect_text("n.jsonl", "{\"text\":\"\\ud800\"}\n", "error: %: line 1: not valid JSON ...");
    expect_text("o.txt", "one\ntwo\xc3(\n\f", "error: %: line 2: invalid UTF-8 (byte 0xc3)");
    expect_text("p.txt", "one\f\ntwo\n\xed\xa0\x80", "[%:1=one]error: %: line 3: invalid UTF-8 (byte 0xed)");
    expect("q.txt", "o\0n\0e\0", 6, "error: %: line 1: a zero character, ...");
    char *got = read_all("build");
    CHECK(strstr(got, "build: cannot read: Is a directory"), "%s", got);
    free(got);
    got = read_all("build/no such file.txt");
    CHECK(strstr(got, "build/no such file.txt: cannot open: "), "%s", got);
    free(got);
}

#define TURNS(context, prompt, answer)                                                                                 \
    "{\"image\":\"\",\"conversations\":[{\"from\":\"context\",\"value\":\"" context                                    \
    "\"},{\"from\":\"human\",\"value\":\"" prompt "\"},{\"from\":\"gpt\",\"value\":\"" answer "\"}]}"

static void test_lists(void) {
    check_begin("JSON lists: the official conversations, Fox's, plain texts");
    expect_text("a.json",
                "[\n" TURNS("page } ] \\\" \\\\", "<image>\\nRepeat the text: ", "page } ] \\\" \\\\") ",\n" TURNS(
                    "c", "repeat the text", "d") "]\n",
                "[%:1=page } ] \" \\][%:2=c|d]");
    expect_text(
        "b.json",
        "[{\"image\":\"en_3.png\",\"conversations\":[{\"from\":\"human\",\"value\":\"OCR\"},{\"from\":\"gpt\","
        "\"value\":\"a text\"}]},{\"image\":\"cn_1.png\",\"conversations\":[{\"value\":\"p\"},{\"value\":\"q\"}]}]",
        "[en_3.png=a text][cn_1.png=q]");
    expect_text("c.json", " [ ] ", "");
    expect_text("d.json", "[{\"text\":\"x\",\"id\":\"i\"}]", "[i=x]");
    check_begin("JSON lists: damage is named by file and line");
    expect_text("e.json", "", "error: %: line 1: expected a list ('['), the file ends ...");
    expect_text("f.json", "\n[\n{\"text\":\"x\"}\n", "[%:1=x]error: %: line 4: expected ',' or ']', the file ends ...");
    expect_text("g.json", "[{\"text\":\"x\"\n", "error: %: line 2: expected the end of an object, the file ends ...");
    expect_text("h.json", "[{\"text\":\"x\"} , ]", "[%:1=x]error: %: line 1: expected an object ('{'), found ']'");
    expect_text("i.json", "[{\"text\":\"x\"}] x",
                "[%:1=x]error: %: line 1: expected nothing behind the list, found 'x'");
    expect_text("j.json", "[{\"text\":\"x\"}{\"text\":\"y\"}]",
                "[%:1=x]error: %: line 1: expected ',' or ']', found '{'");
    expect_text("k.json", "[1]", "error: %: line 1: expected an object ('{'), found '1'");
    expect_text("l.json", "[\n\n{\"text\":}]", "error: %: line 3: not valid JSON ...");
    expect_text("m.json", "[" TURNS("c", "Summarize: ", "d") "]",
                "error: %: line 1: the prompt is \"Summarize: \", expected ...");
    expect_text("n.json", "[{\"conversations\":[]}]",
                "error: %: line 1: 0 contexts, 0 prompts, 0 answers: expected ...");
    expect_text("o.json", "[{\"conversations\":[{\"from\":\"context\"}]}]",
                "error: %: line 1: turn 1 of the conversation: ...");
    expect_text("p.json", "[\n{\"text\":\"x\xff\"}]", "error: %: line 2: invalid UTF-8 (byte 0xff)");
    check_begin("JSON lists: an object longer than any buffer");
    size_t n = 200000;
    char *json = malloc(n + 64), *text = malloc(n + 1);
    memset(text, '}', n);
    text[n] = 0;
    sprintf(json, "[{\"id\":\"i\",\"text\":\"%s\"}]", text);
    char *path = put_text("long.json", json), *got = read_all(path);
    CHECK(strlen(got) == n + 4 && !strncmp(got + 3, text, n), "%zu bytes", strlen(got));
    free(json), free(text), free(path), free(got);
}

// ---- pages to shards -----------------------------------------------------------------------------------------------

static char *bytes_file; // a vocabulary of the 256 bytes alone, so that a token is a byte

static void make_bytes_file(void) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char text[256 * 10], *at = text;
    for (unsigned b = 0; b < 256; b++) at += sprintf(at, "%c%c== %u\n", digits[b >> 2], digits[(b & 3) << 4], b);
    bytes_file = put("bytes.tiktoken", text, (size_t)(at - text));
}

static int run(TokenizeResult *r, const char *prefix, uint64_t shard_tokens, int skip_empty, int n,
               const char *const *inputs) {
    char *path = string_format("%s/%s", folder, prefix);
    TokenizeOptions o = {bytes_file, 256, path, inputs, n, shard_tokens, skip_empty};
    int bad = tokenize_files(&o, r, &err);
    free(path);
    return bad;
}

static int there(const char *name) {
    char *path = string_format("%s/%s", folder, name);
    int yes = file_exists(path);
    free(path);
    return yes;
}

// The text of a page of a shard of bytes, or its answer's.
static int page_is(const char *name, uint64_t page, const char *context, const char *answer) {
    char *path = string_format("%s/%s", folder, name);
    Shard s;
    int same = shard_open(&s, path, &err) == 0 && page < s.pages && s.vocab == 262;
    if (same) {
        ShardPage p = shard_page(&s, page);
        same = p.context_length == strlen(context) && p.answer_length == strlen(answer);
        for (uint32_t i = 0; same && i < p.context_length; i++) same = p.context[i] == (uint32_t)(uint8_t)context[i];
        for (uint32_t i = 0; same && i < p.answer_length; i++) same = p.answer[i] == (uint32_t)(uint8_t)answer[i];
        shard_close(&s);
    }
    free(path);
    return same;
}

static void test_tokenize(void) {
    char *a = put_text("t1.txt", "abcd\fefg\f"), *b = put_text("t2.jsonl", "{\"text\":\"hij\"}\n");
    char *c = put_text("t3.json", "[" TURNS("kl", "Repeat the text:", "mno") "]"), *d = put_text("t4.txt", "x\f\fy");
    TokenizeResult r;
    check_begin("tokenize: pages of several files go into shards in order");
    const char *inputs[] = {a, b, c};
    CHECK(run(&r, "sub/one", 0, 0, 3, inputs) == 0, "%s", err.text);
    CHECK(r.pages == 4 && r.tokens == 15 && r.bytes == 15 && r.files == 1 && r.empty == 0 && r.bytes_per_token == 1.0,
          "%d files %g", r.files, r.bytes_per_token);
    CHECK(page_is("sub/one_00000.bin", 0, "abcd", "abcd") && page_is("sub/one_00000.bin", 1, "efg", "efg") &&
              page_is("sub/one_00000.bin", 2, "hij", "hij") && page_is("sub/one_00000.bin", 3, "kl", "mno"),
          "%s", err.text);
    check_begin("tokenize: a shard never exceeds its limit, unless one page does");
    CHECK(run(&r, "two", 7, 0, 3, inputs) == 0, "%s", err.text);
    CHECK(r.files == 3 && page_is("two_00000.bin", 1, "efg", "efg") && page_is("two_00001.bin", 0, "hij", "hij") &&
              page_is("two_00002.bin", 0, "kl", "mno"),
          "%d files", r.files);
    CHECK(run(&r, "two", 1, 0, 1, inputs) == 0 && r.files == 2 && page_is("two_00000.bin", 0, "abcd", "abcd"), "%s",
          err.text);
    check_begin("tokenize: shards left over from a longer run of the same prefix go");
    CHECK(r.removed == 1 && !there("two_00002.bin") && there("two_00001.bin"), "%d removed", r.removed);
    check_begin("tokenize: an empty page is an error that names file and page, or left out");
    const char *with_empty[] = {a, d};
    CHECK(run(&r, "three", 4, 0, 2, with_empty) != 0 && strstr(err.text, "t4.txt: page 2 ("), "%s", err.text);
    CHECK(!there("three_00000.bin"), "half a corpus is left");
    CHECK(run(&r, "three", 0, 1, 2, with_empty) == 0 && r.pages == 4 && r.empty == 1, "%s", err.text);
    check_begin("tokenize: no input, no page, no file, no tokenizer");
    const char *missing[] = {"build/no such file"};
    CHECK(run(&r, "four", 0, 0, 0, missing) != 0 && strstr(err.text, "no page"), "%s", err.text);
    CHECK(run(&r, "four", 0, 0, 1, missing) != 0 && strstr(err.text, "cannot open"), "%s", err.text);
    char *keep = bytes_file;
    bytes_file = a;
    CHECK(run(&r, "four", 0, 0, 1, inputs) != 0 && strstr(err.text, "t1.txt: line 1: expected `base64 rank`"), "%s",
          err.text);
    bytes_file = keep;
    CHECK(!there("four_00000.bin"), "a shard of nothing");
    free(a), free(b), free(c), free(d);
}

int main(void) {
    if (!mkdtemp(folder)) perror(folder), exit(2);
    make_bytes_file();
    test_text();
    test_lines();
    test_lists();
    test_tokenize();
    free(bytes_file);
    file_remove_tree(folder, &err);
    return check_done();
}
