// test_pages.c: pages out of text, JSONL, the official conversations and Fox's; damage named by file and line; and
// pages to shards.
#include "test/check.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/base/file.h"
#include "llmc/data/loader.h"
#include "llmc/text/pages.h"
#include "llmc/data/shard.h"
#include "llmc/data/tokenize.h"
#include "llmc/text/tokenizer.h"

static char folder[] = "build/test_pages_XXXXXX";
static Error err;

static char *put(const char *name, const char *data, size_t size) {
    char *path = string_format("%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) perror(path), exit(2);
    return path;
}
static char *put_text(const char *name, const char *text) { return put(name, text, strlen(text)); }

// All pages of a file in one string: id=text|answer?prompt; in brackets each. An error ends it with "error: ...".
static char *read_all(const char *path) {
    char *all = strdup("");
    PageReader *r;
    int got = pages_open(&r, path, &err);
    Page page;
    while (got == 0 && (got = pages_next(r, &page, &err)) > 0) {
        char *more = string_format("%s[%s=%.*s%s%.*s%s%.*s]", all, page.id, (int)page.length, page.text,
                                   page.answer ? "|" : "", (int)page.answer_length, page.answer ? page.answer : "",
                                   page.prompt ? "?" : "", (int)page.prompt_length, page.prompt ? page.prompt : "");
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

// The same, and so many pages without text.
static void expect_blank(const char *name, const char *text, uint64_t blank, const char *wanted) {
    expect_text(name, text, wanted);
    char *path = put_text(name, text);
    PageReader *r;
    Page page;
    CHECK(pages_open(&r, path, &err) == 0, "%s", err.text);
    while (pages_next(r, &page, &err) > 0) CHECK(page.number > 0, "no number");
    CHECK(pages_without_text(r) == blank, "%s: %llu pages without text", name,
          (unsigned long long)pages_without_text(r));
    pages_close(r);
    free(path);
}

#define TURNS(context, prompt, answer)                                                                                 \
    "{\"image\":\"\",\"conversations\":[{\"from\":\"context\",\"value\":\"" context                                    \
    "\"},{\"from\":\"human\",\"value\":\"" prompt "\"},{\"from\":\"gpt\",\"value\":\"" answer "\"}]}"

static void test_text(void) {
    check_begin("text: form feeds part pages, every byte between them is kept");
    expect_text("a.txt", "one\r\ntwo\n\fthree", "[%:1=one\r\ntwo\n][%:2=three]");
    expect_text("b.txt", "one\ftwo\f", "[%:1=one][%:2=two]");
    expect_text("c.txt", "", "");
    expect_text("d.txt", "\xef\xbb\xbfone", "[%:1=one]");
    expect_text("e", "[not a list]\f{", "[%:1=[not a list]][%:2={]");
    expect_text("g", "[1] Smith\n", "[%:1=[1] Smith\n]");
    expect_text("h.md", "[ ] to do", "[%:1=[ ] to do]");
    expect_text("i", "[", "[%:1=[]");
    expect_text("f.txt", "{\"text\":1}", "[%:1={\"text\":1}]");
    check_begin("a page without text is left out and counted; its number stays its own");
    expect_blank("j.txt", "one\f\ftwo\f \t\v\r\n\fthree", 2, "[%:1=one][%:3=two][%:5=three]");
    expect_blank("k.jsonl", "{\"text\":\"\"}\n{\"text\":\"x\"}\n{\"text\":\" \\n\",\"id\":\"b\"}\n", 2, "[%:2=x]");
    expect_blank("l.json", "[" TURNS("c", "repeat the text", " ") "," TURNS("c", "repeat the text", "d") "]", 1,
                 "[%:2=c|d]");
    expect_blank("m.txt", " \n", 1, "");
    expect_blank("n.txt", "\f\f", 2, "");
    expect_blank("o.txt", "\xe3\x80\x80", 0, "[%:1=\xe3\x80\x80]"); // not ASCII: text
    check_begin("white space behind the last form feed is no page");
    expect_blank("p.txt", "one\f\n", 0, "[%:1=one]");
    expect_blank("q.txt", "one\f \r\n\n", 0, "[%:1=one]");
    expect_blank("r.txt", "one\f \f", 1, "[%:1=one]");
    expect_blank("s.txt", "one\ftwo", 0, "[%:1=one][%:2=two]");
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
    expect_text("b.jsonl", "{\"text\":\"y\"}\n{\"text\":\"x\",\"image\":\"en_1.png\"}\n", "[%:1=y][en_1.png=x]");
    expect_text("c.json", "\xef\xbb\xbf {\"text\":\"x\"}\n{\"text\":\"y\"}", "[%:1=x][%:2=y]");
    expect_text("d", "{\"text\":\"x\"}\n", "[%:1=x]");
    expect_text("e.jsonl", "{\"text\":\"C:\\\\u0000\"}", "[%:1=C:\\u0000]");
    check_begin("JSONL: damage is named by file and line");
    expect_text("f.jsonl", "{\"text\":\"x\"}\n\n{\"text\":\"y\"\n",
                "[%:1=x]error: %: line 3: not valid JSON near byte ...");
    expect_text("g.jsonl", "{\"text\":\"x\"} trailing\n", "error: %: line 1: JSON ends at byte ...");
    expect_text("h.jsonl", "{\"txt\":\"x\"}\n", "error: %: line 1: key \"text\" is missing");
    expect_text("i.jsonl", "{\"text\":5}\n", "error: %: line 1: \"text\": expected a text");
    expect_text("j.jsonl", "[\"text\"]\n", "error: %: line 1: expected an object ('{'), found '\"'");
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

// The content decides, whatever the name (.txt aside, which is text).
static void test_content(void) {
    static const char *const names[] = {"a.json", "b.jsonl", "c", "d.ndjson"};
    check_begin("the same JSON is the same pages in a file of any name");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *n = names[i];
        expect_text(n, "[{\"text\":\"x\"},\n{\"text\":\"y\"}]", "[%:1=x][%:2=y]");
        expect_text(n, " \n[\n {\n\"text\":\"x\"}]\n", "[%:1=x]");
        expect_text(n, "[]", "");
        expect_text(n, "{\"text\":\"x\"}\n{\"text\":\"y\"}", "[%:1=x][%:2=y]");
        expect_text(n, "{\n  \"text\": \"x\"\n}\n", "[%:1=x]");
        expect_text(n, "{\n  \"id\": \"i\",\n  \"text\": \"a } b\"\n}\n\n{\n  \"text\": \"y\"\n}", "[i=a } b][%:2=y]");
        expect_text(n, "{ \"text\":\n\"x\" } {\"text\":\"y\"}", "[%:1=x][%:2=y]");
        expect_text(n, "{\"conversations\": [\n{\"value\": \"p\"},\n{\"value\": \"q\"}]}", "[%:1=q]");
        expect_text(n, "{\"more\":\n{\"a\":1},\n\"text\":\"x\"}", "[%:1=x]");
        expect_text(n, "[\"x\", \"y\"]", "error: %: line 1: expected an object ('{'), found '\"'");
        expect_text(n, "{\n  \"text\": 5\n}\n", "error: %: line 1: \"text\": expected a text");
        expect_text(n, "{\n  \"text\": \"x\"\n}\nrest", "[%:1=x]error: %: line 4: expected an object ('{'), found 'r'");
        expect_text(n, "{\n  \"text\": \"x\"\n", "error: %: line 3: expected the end of an object, the file ends ...");
    }
    check_begin("a first line of JSONL that was cut is named, not read on");
    expect_text("e.jsonl", "{\"text\":\"x\"\n{\"text\":\"y\"}\n", "error: %: line 1: not valid JSON near byte ...");
    expect_text("f", "{\"text\":\"x\n{\"text\":\"y\"}\n", "error: %: line 1: not valid JSON near byte ...");
    expect_text("g", "{ not JSON }\n", "error: %: line 1: not valid JSON near byte ...");
}

// A page of more than 64 MB is refused while it is read, at whatever would have been its length.
static void test_bound(void) {
    check_begin("a page without an end is refused at 64 MB, by what it is");
    static const char *const heads[] = {"", "{\"text\":\"", "{\n\"text\":\"", "[{\"text\":\""};
    for (int i = 0; i < 4; i++) {
        char *path = put_text("endless", heads[i]);
        CHECK(truncate(path, (off_t)1 << 40) == 0, "a file of a terabyte without a byte on the disk");
        char *got = read_all(path);
        CHECK(strstr(got, "page that begins here is longer than 64 MB (hint: ") &&
                  strstr(got, i ? "JSON" : "form feeds"),
              "%.300s", got);
        unlink(path);
        free(path), free(got);
    }
}

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
    expect_text("e.json", "", "error: %: line 1: expected a list ('[') or an object ('{'), the file ends ...");
    expect_text("f.json", "\n[\n{\"text\":\"x\"}\n", "[%:1=x]error: %: line 4: expected ',' or ']', the file ends ...");
    expect_text("g.json", "[{\"text\":\"x\"\n", "error: %: line 2: expected the end of an object, the file ends ...");
    expect_text("h.json", "[{\"text\":\"x\"} , ]", "[%:1=x]error: %: line 1: expected an object ('{'), found ']'");
    expect_text("i.json", "[{\"text\":\"x\"}] x",
                "[%:1=x]error: %: line 1: expected nothing behind the list, found 'x'");
    expect_text("j.json", "[{\"text\":\"x\"}{\"text\":\"y\"}]",
                "[%:1=x]error: %: line 1: expected ',' or ']', found '{'");
    expect_text("k.json", "[1]", "error: %: line 1: expected an object ('{'), found '1'");
    expect_text("l.json", "[\n\n{\"text\":}]", "error: %: line 3: not valid JSON ...");
    expect_text("n.json", "[{\"conversations\":[]}]", "error: %: line 1: a conversation without a context: ...");
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

// Strings of JSON with ' in place of ".
static void expect_quoted(const char *name, const char *text, const char *wanted) {
    char *json = string_format("%s", text);
    for (char *p = json; *p; p++) *p = *p == '\'' ? '"' : *p;
    expect_text(name, json, wanted);
    free(json);
}

static void test_prompts(void) {
    check_begin("prompts: contexts, prompts and answers, the official shape, chats; the paper's prompt is none");
    expect_text("m.json", "[" TURNS("c", "Summarize: ", "d") "]", "[%:1=c|d?Summarize: ]");
    expect_quoted("p.jsonl",
                  "{'id':'a','context':'c','prompt':'Who?','answer':'d'}\n{'context':'c','prompt':'Repeat the text: ',"
                  "'answer':'c'}\n{'context':'c','prompt':'Copy <|im_end|>','answer':'c'}\n",
                  "[a=c|d?Who?][%:2=c][%:3=c?Copy <|im_end|>]");
    expect_quoted("q.jsonl",
                  "{'messages':[{'role':'system','content':'c'},{'role':'user','content':'Who?'},{'role':'assistant',"
                  "'content':'d'}]}\n{'context':'e','messages':[{'role':'user','content':'Why?'},{'role':'assistant',"
                  "'content':'f'}]}\n",
                  "[%:1=c|d?Who?][%:2=e|f?Why?]");
    check_begin("prompts: what is missing, empty, twice or out of order is one line with file and line");
    static const char *const bad[][2] = {
        {"{'prompt':'p','answer':'d'}", "key \"context\" is missing..."},
        {"{'context':'c','answer':'d'}", "key \"prompt\" is missing..."},
        {"{'context':'c','prompt':'p'}", "key \"text\" is missing"},
        {"{'context':'c','prompt':' \\n','answer':'d'}", "the prompt is empty: ..."},
        {"{'context':' ','prompt':'p','answer':'d'}", "the context is empty: ..."},
        {"{'context':'c','prompt':'p','answer':''}", "the answer is empty: ..."},
        {"{'context':'c','prompt':7,'answer':'d'}", "..."},
        {"{'messages':[]}", "a chat without a context: ..."},
        {"{'messages':[{'role':'user','content':'p'},{'role':'assistant','content':'d'}]}",
         "a chat without a context: ..."},
        {"{'context':'c','messages':[{'role':'user','content':'p'}]}",
         "a chat without a message of the assistant: ..."},
        {"{'context':'c','messages':[{'role':'assistant','content':'d'},{'role':'user','content':'p'}]}",
         "turn 2 of the conversation is a late \"user\": ..."},
        {"{'messages':[{'role':'user','content':'p'},{'role':'system','content':'c'}]}",
         "turn 2 of the conversation is a late \"system\": ..."},
        {"{'context':'c','messages':[{'role':'user','content':'p'},{'role':'assistant','content':'d'},{'role':'user',"
         "'content':'q'}]}",
         "turn 3 of the conversation is another \"user\": ..."},
        {"{'context':'c','messages':[{'role':'system','content':'s'}]}",
         "turn 1 of the conversation: a system message beside \"context\": ..."},
        {"{'context':'c','messages':[{'role':'tool','content':'s'}]}",
         "turn 1 of the conversation: expected the role system, user or assistant, found \"tool\""},
        {"{'context':'c','messages':[{'role':'user','content':['p']}]}",
         "turn 1 of the conversation: expected a text \"content\""},
        {"{'conversations':[{'from':'gpt','value':'d'},{'from':'context','value':'c'},{'from':'human','value':'p'}]}",
         "turn 2 of the conversation is a late \"context\": ..."},
        {"{'conversations':[{'from':'context','value':'c'},{'from':'human','value':'p'}]}",
         "a conversation without an answer: ..."}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *lines = string_format("\n%s\n", bad[i][0]), *wanted = string_format("error: %%: line 2: %s", bad[i][1]);
        expect_quoted("bad.jsonl", lines, wanted);
        free(lines);
        free(wanted);
    }
}

// ---- pages to shards -----------------------------------------------------------------------------------------------

static char *bytes_file; // a vocabulary of the 256 bytes alone, so that a token is a byte

static void make_bytes_file(void) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char text[256 * 10], *at = text;
    for (unsigned b = 0; b < 256; b++) at += sprintf(at, "%c%c== %u\n", digits[b >> 2], digits[(b & 3) << 4], b);
    bytes_file = put("bytes.tiktoken", text, (size_t)(at - text));
}

static int run(TokenizeResult *r, const char *prefix, uint64_t shard_tokens, int n, const char *const *inputs) {
    char *path = string_format("%s/%s", folder, prefix);
    TokenizeOptions o = {.tokenizer = bytes_file,
                         .vocab = 256,
                         .prefix = path,
                         .inputs = inputs,
                         .n_inputs = n,
                         .shard_tokens = shard_tokens};
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

// The text of a page of a shard of bytes, its answer's, and its prompt's, if it has one.
static int page_asks(const char *name, uint64_t page, const char *context, const char *answer, const char *prompt) {
    char *path = string_format("%s/%s", folder, name);
    Shard s;
    int same = shard_open(&s, path, &err) == 0 && page < s.pages && s.vocab == 262;
    if (same) {
        ShardPage p = shard_page(&s, page);
        same = p.context_length == strlen(context) && p.answer_length == strlen(answer) &&
               p.prompt_length == strlen(prompt);
        for (uint32_t i = 0; same && i < p.prompt_length; i++) same = p.prompt[i] == (uint32_t)(uint8_t)prompt[i];
        for (uint32_t i = 0; same && i < p.context_length; i++) same = p.context[i] == (uint32_t)(uint8_t)context[i];
        for (uint32_t i = 0; same && i < p.answer_length; i++) same = p.answer[i] == (uint32_t)(uint8_t)answer[i];
        shard_close(&s);
    }
    free(path);
    return same;
}

static int page_is(const char *name, uint64_t page, const char *context, const char *answer) {
    return page_asks(name, page, context, answer, "");
}

static void test_tokenize_prompts(void) {
    check_begin("tokenize: prompts go into the shard as words, also those that spell special tokens");
    char *a =
        put_text("t5.jsonl", "{\"context\":\"ab\",\"prompt\":\"<|im_end|>\",\"answer\":\"cde\"}\n{\"text\":\"fg\"}\n");
    TokenizeResult r;
    CHECK(run(&r, "asked", 0, 1, (const char *const[]){a}) == 0, "%s", err.text);
    CHECK(r.pages == 2 && r.prompts == 1 && r.tokens == 2 + 10 + 3 + 2, "%d prompts, %d tokens", (int)r.prompts,
          (int)r.tokens);
    CHECK(page_asks("asked_00000.bin", 0, "ab", "cde", "<|im_end|>") && page_is("asked_00000.bin", 1, "fg", "fg"),
          "other pages");
    free(a);
}

static void test_tokenize(void) {
    char *a = put_text("t1.txt", "abcd\fefg\f"), *b = put_text("t2.jsonl", "{\"text\":\"hij\"}\n");
    char *c = put_text("t3.json", "[" TURNS("kl", "Repeat the text:", "mno") "]"), *d = put_text("t4.txt", "x\f\fy");
    TokenizeResult r;
    check_begin("tokenize: pages of several files go into shards in order");
    const char *inputs[] = {a, b, c};
    CHECK(run(&r, "sub/one", 0, 3, inputs) == 0, "%s", err.text);
    CHECK(r.pages == 4 && r.tokens == 15 && r.bytes == 15 && r.files == 1 && r.without_text == 0 &&
              r.bytes_per_token == 1.0,
          "%d files %g", r.files, r.bytes_per_token);
    CHECK(page_is("sub/one_00000.bin", 0, "abcd", "abcd") && page_is("sub/one_00000.bin", 1, "efg", "efg") &&
              page_is("sub/one_00000.bin", 2, "hij", "hij") && page_is("sub/one_00000.bin", 3, "kl", "mno"),
          "%s", err.text);
    check_begin("tokenize: a shard never exceeds its limit, unless one page does");
    CHECK(run(&r, "two", 7, 3, inputs) == 0, "%s", err.text);
    CHECK(r.files == 3 && page_is("two_00000.bin", 1, "efg", "efg") && page_is("two_00001.bin", 0, "hij", "hij") &&
              page_is("two_00002.bin", 0, "kl", "mno"),
          "%d files", r.files);
    CHECK(run(&r, "two", 1, 1, inputs) == 0 && r.files == 2 && page_is("two_00000.bin", 0, "abcd", "abcd"), "%s",
          err.text);
    check_begin("tokenize: shards left over from a longer run of the same prefix go");
    CHECK(r.removed == 1 && !there("two_00002.bin") && there("two_00001.bin"), "%d removed", r.removed);
    check_begin("tokenize: pages without text are left out and counted");
    const char *with_empty[] = {a, d};
    CHECK(run(&r, "three", 0, 2, with_empty) == 0 && r.pages == 4 && r.without_text == 1, "%s", err.text);
    check_begin("tokenize: no input, no page, no file, no tokenizer");
    const char *missing[] = {"build/no such file"};
    CHECK(run(&r, "four", 0, 0, missing) != 0 && strstr(err.text, "no page"), "%s", err.text);
    CHECK(run(&r, "four", 0, 1, missing) != 0 && strstr(err.text, "cannot open"), "%s", err.text);
    char *keep = bytes_file;
    bytes_file = a;
    CHECK(run(&r, "four", 0, 1, inputs) != 0 && strstr(err.text, "t1.txt: line 1: expected `base64 rank`"), "%s",
          err.text);
    bytes_file = keep;
    CHECK(!there("four_00000.bin"), "a shard of nothing");
    free(a), free(b), free(c), free(d);
}

// The shards of a prefix as the trainer sees them: "pages of files", or the error.
static char *look(const char *prefix) {
    char *pattern = string_format("%s/%s_*.bin", folder, prefix);
    Dataset d;
    int bad = dataset_open(&d, pattern, NULL, &err);
    char *seen = bad ? strdup(err.text) : string_format("%d of %d", (int)d.pages, d.n_shards);
    if (!bad) dataset_close(&d);
    free(pattern);
    return seen;
}
#define CHECK_LOOK(prefix, wanted)                                                                                     \
    do {                                                                                                               \
        char *seen = look(prefix);                                                                                     \
        CHECK(!strcmp(seen, wanted), "%s", seen);                                                                      \
        free(seen);                                                                                                    \
    } while (0)

// Nothing but shards is left beside shards.
static int is_tidy(const char *prefix) {
    char *names[2] = {string_format("%s.new", prefix), string_format("%s.lock", prefix)};
    int yes = !there(names[0]) && !there(names[1]);
    free(names[0]), free(names[1]);
    return yes;
}

static void test_replace(void) {
    char *four = put_text("r4.txt", "abcd\fefgh\fijkl\fmnop"), *two = put_text("r2.txt", "ABCD\fEFGH");
    char *broken = put_text("broken.jsonl", "{\"text\":\"1234\"}\n{\"text\":\"5678\"}\n{\"text\":\"9\"\n");
    const char *in4[] = {four}, *in2[] = {two}, *bad[] = {broken}, *missing[] = {four, "build/no such file"};
    TokenizeResult r;
    check_begin("tokenize: a data set is replaced whole, by more shards and by fewer");
    CHECK(run(&r, "set", 4, 1, in4) == 0 && r.files == 4, "%s", err.text);
    CHECK_LOOK("set", "4 of 4");
    CHECK(run(&r, "set", 4, 1, in2) == 0 && r.files == 2 && r.removed == 2, "%s", err.text);
    CHECK_LOOK("set", "2 of 2");
    CHECK(page_is("set_00000.bin", 0, "ABCD", "ABCD") && is_tidy("set"), "%s", err.text);
    CHECK(run(&r, "set", 4, 1, in4) == 0 && r.removed == 0, "%s", err.text);
    CHECK_LOOK("set", "4 of 4");
    char *gap = string_format("%s/set_00001.bin", folder);
    CHECK(unlink(gap) == 0 && run(&r, "set", 0, 1, in2) == 0 && r.removed == 2, "%d behind a gap removed", r.removed);
    CHECK_LOOK("set", "2 of 1");
    check_begin("tokenize: an error leaves the old data set as it was, and nothing beside it");
    CHECK(run(&r, "set", 4, 1, in4) == 0, "%s", err.text);
    CHECK(run(&r, "set", 4, 1, bad) == -1 && strstr(err.text, "broken.jsonl: line 3"), "%s", err.text);
    CHECK_LOOK("set", "4 of 4");
    CHECK(run(&r, "set", 4, 2, missing) == -1 && strstr(err.text, "cannot open"), "%s", err.text);
    CHECK_LOOK("set", "4 of 4");
    CHECK(page_is("set_00000.bin", 0, "abcd", "abcd") && page_is("set_00003.bin", 0, "mnop", "mnop"), "%s", err.text);
    CHECK(is_tidy("set"), "something is left");
    check_begin("tokenize: what is no file is not replaced, and nothing else either");
    CHECK(unlink(gap) == 0 && symlink(two, gap) == 0, "symlink");
    CHECK(run(&r, "set", 4, 1, in2) == -1 && strstr(err.text, "a symbolic link"), "%s", err.text);
    CHECK(page_is("set_00000.bin", 0, "abcd", "abcd") && is_tidy("set"), "%s", err.text);
    CHECK(unlink(gap) == 0 && mkdir(gap, 0777) == 0, "mkdir");
    CHECK(run(&r, "set", 4, 1, in2) == -1 && strstr(err.text, "set_00001.bin: expected a shard"), "%s", err.text);
    CHECK(rmdir(gap) == 0 && run(&r, "set", 4, 1, in4) == 0, "%s", err.text);
    check_begin("tokenize: what a killed run left is removed, what somebody else put there is not");
    char *new = string_format("%s/set.new", folder);
    CHECK(mkdir(new, 0777) == 0, "mkdir");
    free(put_text("set.new/00000.bin.tmp17", "x")), free(put_text("set.new/00000.bin", "x"));
    CHECK(run(&r, "set", 4, 1, in4) == 0 && is_tidy("set"), "%s", err.text);
    CHECK(mkdir(new, 0777) == 0, "mkdir");
    free(put_text("set.new/00000.bin", "x"));
    char *own = put_text("set.new/notes.txt", "mine");
    CHECK(run(&r, "set", 4, 1, in2) == -1 && strstr(err.text, "set.new: c3 tokenize needs this name"), "%s", err.text);
    CHECK(file_exists(own) && !there("set.lock"), "somebody's file is gone, or the lock is not");
    CHECK_LOOK("set", "4 of 4");
    char *elsewhere = string_format("%s/elsewhere", folder);
    CHECK(unlink(own) == 0 && rename(new, elsewhere) == 0 && symlink("elsewhere", new) == 0, "symlink");
    free(put_text("elsewhere/00000.bin", "x"));
    CHECK(run(&r, "set", 4, 1, in2) == -1 && there("elsewhere/00000.bin"), "a link was followed: %s", err.text);
    CHECK_LOOK("set", "4 of 4");
    free(own), free(elsewhere), free(new), free(gap), free(four), free(two), free(broken);
}

// Takes the place of libc's, for everything in this program: the steps that make a data set visible can be counted, and
// the process ended, or the call refused, at any one of them.
static int steps_left = -1, step_fails;

static int take_step(void) {
    if (steps_left < 0 || steps_left-- > 0) return 0;
    if (!step_fails) _exit(9);
    errno = EIO;
    return -1;
}

int rename(const char *from, const char *to) { return take_step() ? -1 : renameat(AT_FDCWD, from, AT_FDCWD, to); }
int unlink(const char *path) { return take_step() ? -1 : unlinkat(AT_FDCWD, path, 0); }

// A child tokenizes `input` with its step `step` being the last, or failing. 0: it had no such step, 8: it came to its
// end all the same, 9: not.
static int tokenize_until(int step, int fails, const char *input) {
    pid_t child = fork();
    if (child == 0) {
        TokenizeResult r;
        const char *in[] = {input};
        steps_left = step;
        step_fails = fails;
        int bad = run(&r, "moment", 4, 1, in);
        _exit(bad ? 9 : steps_left < 0 ? 8 : 0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status), "%d", status);
    return WEXITSTATUS(status);
}

// 'o': the old set, 'n': the new one, '?': refused, each with everything in its place; 0: something else.
static char what_is_there(int n_old, int n_new) {
    char *seen = look("moment"), old_look[32], new_look[32];
    snprintf(old_look, sizeof old_look, "%d of %d", n_old, n_old);
    snprintf(new_look, sizeof new_look, "%d of %d", n_new, n_new);
    int is_old = page_is("moment_00000.bin", 0, "abcd", "abcd"),
        is_new = page_is("moment_00000.bin", 0, "ABCD", "ABCD");
    char got = is_old && !strcmp(seen, old_look)                     ? 'o'
               : is_new && !strcmp(seen, new_look)                   ? 'n'
               : is_new && strstr(seen, "c3 tokenize again") != NULL ? '?'
                                                                     : 0;
    CHECK(got, "%s", seen);
    free(seen);
    return got;
}

static void test_every_moment(void) {
    static const char *const sets[][2] = {
        {"abcd\fefgh\fijkl", "ABCD\fEFGH"}, {"abcd\fefgh", "ABCD\fEFGH\fIJKL"}, {"abcd", "ABCD"}};
    TokenizeResult r;
    for (int fails = 0; fails < 2; fails++) {
        check_begin(
            fails ? "tokenize: a step that fails leaves the old set, or one that readers refuse; another run mends it"
                  : "tokenize: killed at any moment, it leaves the old set, the new one, or one that readers refuse");
        for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
            char *old = put_text("moment_old.txt", sets[i][0]), *new = put_text("moment_new.txt", sets[i][1]);
            const char *in_old[] = {old}, *in_new[] = {new};
            int n_old = (int)(strlen(sets[i][0]) + 1) / 5, n_new = (int)(strlen(sets[i][1]) + 1) / 5, finished = 0;
            char seen[64] = "";
            for (int step = 0; !finished && step < 60; step++) {
                CHECK(run(&r, "moment", 4, 1, in_old) == 0 && what_is_there(n_old, n_new) == 'o', "%s", err.text);
                int end = tokenize_until(step, fails, new);
                finished = end == 0;
                seen[step] = what_is_there(n_old, n_new);
                CHECK(end == 9 || seen[step] == 'n', "a good end: %s", seen);
                CHECK(end != 9 || seen[step] != 'n' || !fails, "a bad end: %s", seen);
                CHECK(run(&r, "moment", 4, 1, in_new) == 0 && what_is_there(n_old, n_new) == 'n', "%s", err.text);
                CHECK(is_tidy("moment"), "something is left");
            }
            CHECK(finished && strstr(seen, "oo") && (n_old == 1 || strchr(seen, '?')), "never seen: %s", seen);
            free(old), free(new);
        }
    }
}

// A process that tokenizes from a pipe: when `bytes` went through, all but the pipe and a buffer of it is in shards.
static pid_t tokenize_from_pipe(const char *prefix, const char *pipe_path, int *fd) {
    pid_t child = fork();
    if (child == 0) {
        TokenizeResult r;
        const char *in[] = {pipe_path};
        _exit(run(&r, prefix, 10000, 1, in) == 0 ? 0 : 1);
    }
    char line[1100] = "{\"text\":\"";
    memset(line + 9, 'x', 1000);
    strcpy(line + 1009, "\"}\n");
    *fd = open(pipe_path, O_WRONLY | O_CLOEXEC);
    for (int i = 0; i < 300; i++)
        if (write(*fd, line, 1012) != 1012) perror(pipe_path), exit(2);
    return child;
}

static void test_two_writers(void) {
    TokenizeResult r;
    int fd, status;
    char *four = put_text("k4.txt", "abcd\fefgh\fijkl\fmnop"), *pipe_path = string_format("%s/pipe.jsonl", folder);
    const char *in4[] = {four};
    CHECK(run(&r, "kill", 4, 1, in4) == 0 && mkfifo(pipe_path, 0600) == 0, "%s", err.text);
    pid_t child = tokenize_from_pipe("kill", pipe_path, &fd);
    check_begin("tokenize: a second one on the same prefix is refused and told who is there");
    char holder[64];
    snprintf(holder, sizeof holder, "process %ld", (long)child);
    CHECK(run(&r, "kill", 4, 1, in4) == -1 && strstr(err.text, "another process is writing there") &&
              strstr(err.text, holder),
          "%s", err.text);
    CHECK(there("kill.new/00010.bin") && there("kill.lock"), "the second one took what the first one needs");
    CHECK(run(&r, "other", 4, 1, in4) == 0, "another prefix beside it: %s", err.text);
    check_begin("tokenize: one that is killed between two shards leaves the old data set as it was");
    CHECK_LOOK("kill", "4 of 4");
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status), "%d", status);
    close(fd);
    CHECK_LOOK("kill", "4 of 4");
    CHECK(page_is("kill_00000.bin", 0, "abcd", "abcd") && there("kill.new"), "%s", err.text);
    check_begin("tokenize: the next one takes the place");
    child = tokenize_from_pipe("kill", pipe_path, &fd);
    close(fd);
    CHECK(waitpid(child, &status, 0) == child && status == 0, "%d", status);
    CHECK_LOOK("kill", "300 of 30");
    CHECK(is_tidy("kill"), "something is left");
    free(four), free(pipe_path);
}

static void test_long_pages(void) {
    check_begin("tokenize: pages that no default run takes are counted, the longest is named");
    char *text = malloc(30000), *path;
    memset(text, 'x', 30000);
    text[TOKENIZE_LONGEST] = text[TOKENIZE_LONGEST + 1] = text[2 * TOKENIZE_LONGEST + 3] = '\f';
    path = put("long.txt", text, 30000);
    const char *in[] = {path};
    TokenizeResult r;
    char words[160], *name = string_format("%s page 4 (%s:4)", path, path);
    CHECK(run(&r, "long", 0, 1, in) == 0 && r.without_text == 1, "%s", err.text);
    CHECK(r.too_long.all_pages == 3 && r.too_long.pages == 2 && r.too_long.tokens == 30000 - TOKENIZE_LONGEST - 3,
          "%d pages, %d tokens", (int)r.too_long.pages, (int)r.too_long.tokens);
    CHECK(r.longest == 30000 - 2 * TOKENIZE_LONGEST - 4 && !strcmp(r.longest_page, name), "%d: %s", (int)r.longest,
          r.longest_page);
    CHECK(!strcmp(left_out_text(words, &r.too_long), "2 of 3 pages with 21,870 of 29,997 tokens (72.9 %)"), "%s",
          words);
    CHECK(left_out_much(&r.too_long) && !left_out_much(&(LeftOut){.tokens = 3, .all_tokens = 100}) &&
              left_out_much(&(LeftOut){.tokens = 31, .all_tokens = 1000}) && !left_out_much(&(LeftOut){0}),
          "what is much");
    free(text), free(path), free(name);
}

int main(void) {
    if (!mkdtemp(folder)) perror(folder), exit(2);
    make_bytes_file();
    test_text();
    test_lines();
    test_content();
    test_bound();
    test_lists();
    test_prompts();
    test_tokenize();
    test_tokenize_prompts();
    test_replace();
    test_every_moment();
    test_two_writers();
    test_long_pages();
    free(bytes_file);
    file_remove_tree(folder, &err);
    return check_done();
}
