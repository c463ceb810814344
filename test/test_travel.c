// test_travel.c: what goes into a saved model's folder beside its weights: a tokenizer that is found again, exact
// names, modes, links, sizes, code.
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/base/file.h"
#include "llmc/text/tokenizer.h"
#include "llmc/weights/travel.h"
#include "test/check.h"

static const char qwen[] = "data/qwen2.5/qwen.tiktoken";
static char folder[] = "build/test_travel_XXXXXX";
static Error err;

static char *in(const char *where, const char *name) { return string_format("%s/%s", where, name); }

static char *make(const char *name) {
    char *path = in(folder, name);
    CHECK(file_make_dirs(path, &err) == 0, "%s", err.text);
    return path;
}

static void put(const char *where, const char *name, const char *text) {
    char *path = in(where, name);
    FILE *f = fopen(path, "w");
    CHECK(f && fputs(text, f) >= 0, "%s", path);
    if (f) fclose(f);
    free(path);
}

static void link_to(const char *target, const char *where, const char *name) {
    char *path = in(where, name);
    CHECK(symlink(target, path) == 0, "%s", path);
    free(path);
}

static unsigned mode_of(const char *where, const char *name) {
    struct stat st;
    char *path = in(where, name);
    unsigned mode = lstat(path, &st) == 0 ? st.st_mode : 0; // a copy of a link is a file
    free(path);
    return S_ISREG(mode) ? mode & 0777 : 0;
}

static int holds(const char *where, const char *name, const char *words) {
    char *path = in(where, name), *text = NULL;
    size_t n;
    int yes = file_read(&text, &n, path, NULL) == 0 && strstr(text, words) != NULL;
    free(text);
    free(path);
    return yes;
}

// Reads what travels, removes the source, writes into a fresh folder NAME, which is returned.
static char *travel(const char *name, const Tokenizer *tokenizer, const char *path, char *source, int code,
                    char **notes) {
    Travel t;
    CHECK(travel_open(&t, tokenizer, path, source, code, 0, &err) == 0, "%s", err.text);
    if (source) CHECK(file_remove_tree(source, &err) == 0, "%s", err.text);
    char *where = make(name);
    put(where, "config.json", "{\"model_type\":\"C3\"}");
    CHECK(travel_write(&t, where, &err) == 0, "%s", err.text);
    *notes = t.notes;
    t.notes = NULL;
    travel_close(&t);
    return where;
}

static void expect_tokenizer(const char *where, const char *name, const Tokenizer *t, int cut) {
    char *path = in(where, name);
    Tokenizer *back = NULL;
    CHECK(tokenizer_load(&back, path, cut, &err) == 0, "%s", err.text);
    CHECK(back && memcmp(tokenizer_fingerprint(t), tokenizer_fingerprint(back), 32) == 0, "%s is another", path);
    tokenizer_free(back);
    free(path);
}

static void fill_source(const char *where) {
    put(where, "generation_config.json", "{\"max_new_tokens\":7}");
    put(where, "modeling_c3.py", "print('hello')\n");
    put(where, "tokenizer_secret.json", "a password");
    put(where, "README.md", "read me");
    put(where, "merges.txt", "of another tokenizer");
    put(where, ".hidden.py", "");
    put(where, "tokenizer_config.json", "{\"auto_map\":{\"AutoTokenizer\":[\"tok.QWenTokenizer\",null]}}");
    put(where, "config.json", "{\"model_type\":\"C3\",\"auto_map\":{\"AutoModel\":\"modeling_c3.C3\"},\"other\":1}");
    char *path = in(where, "generation_config.json");
    CHECK(chmod(path, 0600) == 0, "chmod");
    free(path);
}

static void test_cut(void) {
    check_begin("a cut vocabulary is written as tokenizer.json; other exact names and code stay, which is said");
    Tokenizer *t;
    char *source = make("cut source"), *notes;
    CHECK(tokenizer_load(&t, qwen, 300, &err) == 0, "%s", err.text);
    fill_source(source);
    char *where = travel("cut", t, qwen, source, 0, &notes);
    expect_tokenizer(where, "tokenizer.json", t, 300);
    CHECK(holds(where, "tokenizer_config.json", "Qwen2Tokenizer") && !holds(where, "tokenizer_config.json", "auto_map"),
          "tokenizer_config.json");
    static const char *const absent[] = {"qwen.tiktoken", "generation_config.json", "modeling_c3.py",
                                         "README.md",     "tokenizer_secret.json",  "merges.txt",
                                         ".hidden.py"};
    for (int i = 0; i < 7; i++) CHECK(!mode_of(where, absent[i]), "%s is there", absent[i]);
    CHECK(!holds(where, "config.json", "auto_map"), "auto_map");
    CHECK(!strcmp(notes, "tokenizer.json (written), tokenizer_config.json (written); modeling_c3.py is left out: code "
                         "(-keep_code takes it along)"),
          "%s", notes);
    free(notes);
    free(where);
    tokenizer_free(t);
    free(source);
}

static void test_whole(void) {
    check_begin("a whole vocabulary: qwen.tiktoken as well, modes kept, code and what names it when asked for");
    Tokenizer *t;
    char *source = make("whole source"), *named = make("named"), *own = in(named, "mytok.tiktoken"), *notes;
    CHECK(tokenizer_load(&t, qwen, 0, &err) == 0 && file_copy(qwen, own, &err) == 0, "%s", err.text);
    fill_source(source);
    char *where = travel("whole", t, own, source, 1, &notes);
    expect_tokenizer(where, "tokenizer.json", t, 0);
    expect_tokenizer(where, "qwen.tiktoken", t, 0);
    CHECK(mode_of(where, "generation_config.json") == 0600, "mode %o", mode_of(where, "generation_config.json"));
    CHECK(mode_of(where, "modeling_c3.py") && !mode_of(where, ".hidden.py") && !mode_of(where, "mytok.tiktoken") &&
              !mode_of(where, "tokenizer_secret.json"),
          "names");
    CHECK(holds(where, "config.json", "\"modeling_c3.C3\"") && !holds(where, "config.json", "other"), "auto_map");
    CHECK(holds(where, "tokenizer_config.json", "tok.QWenTokenizer"), "the authors' tokenizer");
    CHECK(strstr(notes, "modeling_c3.py") && strstr(notes, "auto_map") && !strstr(notes, "left out"), "%s", notes);
    free(notes);

    check_begin("a whole tokenizer.json travels as it is, with its companions");
    char *json = in(where, "tokenizer.json");
    put(where, "tokenizer_config.json", "{\"chat_template\":\"mine\"}");
    put(where, "special_tokens_map.json", "{}");
    put(where, "chat_template.jinja", "{{ messages }}");
    char *kept = travel("kept", t, json, NULL, 0, &notes), *written;
    CHECK(holds(kept, "tokenizer_config.json", "mine") && mode_of(kept, "special_tokens_map.json") &&
              mode_of(kept, "chat_template.jinja") && mode_of(kept, "tokenizer.json") &&
              !mode_of(kept, "qwen.tiktoken"),
          "%s", notes);
    free(notes);
    put(where, "tokenizer_config.json", "{\"auto_map\":{}}");
    written = travel("written", t, json, NULL, 0, &notes);
    CHECK(holds(written, "tokenizer_config.json", "Qwen2Tokenizer"), "a class that needs code");
    free(notes);
    free(written);
    free(kept);
    free(json);
    free(where);
    tokenizer_free(t);
    free(own);
    free(named);
    free(source);
}

// What `name` in a source becomes when it is a link to `target`, or something that no model has.
static void expect_link(const char *name, const char *source, const char *why) {
    Travel t;
    CHECK(travel_open(&t, NULL, NULL, source, 0, 0, &err) == 0, "%s", err.text);
    CHECK(why ? t.n == 0 && t.notes && strstr(t.notes, why) : t.n == 1 && !strcmp(t.files[0].data, "{}"), "%s: %s",
          name, t.notes ? t.notes : "nothing was said");
    travel_close(&t);
    char *path = in(source, "generation_config.json");
    CHECK(unlink(path) == 0, "%s", path);
    free(path);
}

static void test_links(void) {
    check_begin("links stay inside the folder or its hub cache; pipes, folders and sparse giants are left out");
    static const char name[] = "generation_config.json";
    char *source = make("links"), *blobs = make("hub/blobs"), *snapshot = make("hub/snapshots/0123"),
         *giant = in(source, name);
    put(folder, "secret", "{}");
    put(source, "inside", "{}");
    put(blobs, "abc", "{}");
    link_to("inside", source, name);
    expect_link("inside", source, NULL);
    link_to("../secret", source, name);
    expect_link("outside", source, "leaves the folder");
    link_to("nothing", source, name);
    expect_link("nowhere", source, "a link to nothing");
    link_to("../../blobs/abc", snapshot, name);
    expect_link("a hub cache", snapshot, NULL);
    link_to("../../../secret", snapshot, name);
    expect_link("outside a hub cache", snapshot, "leaves the folder");
    CHECK(mkfifo(giant, 0600) == 0, "mkfifo");
    expect_link("a pipe", source, "not a regular file");
    put(source, name, "");
    CHECK(truncate(giant, (off_t)20 << 30) == 0, "truncate");
    expect_link("20 GB", source, "too large");
    free(giant);
    free(snapshot);
    free(blobs);
    free(source);
}

int main(void) {
    if (!mkdtemp(folder)) return perror(folder), 2;
    test_cut();
    test_whole();
    test_links();
    if (file_remove_tree(folder, &err) != 0) printf("%s\n", err.text);
    return check_done();
}
