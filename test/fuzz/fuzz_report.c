// fuzz_report.c: libFuzzer target of c3 report. The input becomes log.jsonl, eval.json, pages.jsonl and settings of a
// run, parts of it divided by zero bytes; whatever they hold, the report has no element that the program does not write
// itself, and every one of them is closed.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "llmc/base/file.h"
#include "llmc/report.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[] = "/dev/shm/fuzz_report_XXXXXX"; // in memory: nothing waits for a disk

static void put(const char *name, const uint8_t *data, size_t n) {
    char *path = string_format("%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f) != 0) abort();
    free(path);
}

static void remove_folder(void) { file_remove_tree(folder, NULL); }

static void set_up(void) {
    static const char *const folders[] = {"eval_a", "step_00000001", "step_00000001/trainer"};
    if (!mkdtemp(folder)) perror(folder), exit(1);
    atexit(remove_folder);
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char *path = string_format("%s/%s", folder, folders[i]);
        if (file_make_dirs(path, NULL) != 0) abort();
        free(path);
    }
    put("step_00000001/COMPLETE", (const uint8_t *)"", 0);
}

// Every '<' begins one of the program's own tags, and tags nest.
static void check_tags(const char *html) {
    static const char known[] =
        " html head meta title style body header main footer section article h1 h2 h3 h4 p b dl dt "
        "dd div span figure figcaption svg path table caption thead tbody tr th td small del ins "
        "details summary ul li code ";
    char stack[64][16];
    int depth = 0;
    const char *at = html;
    if (strncmp(at, "<!DOCTYPE html>", 15) != 0) abort();
    for (at += 15; (at = strchr(at, '<')) != NULL; at++) {
        int closes = at[1] == '/';
        const char *name = at + 1 + closes;
        size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz1234"), end = strcspn(name, ">");
        char word[16], padded[20];
        if (n == 0 || n >= sizeof word || !name[end]) abort();
        snprintf(word, sizeof word, "%.*s", (int)n, name);
        snprintf(padded, sizeof padded, " %s ", word);
        if (!strstr(known, padded)) abort();
        if (closes) {
            if (depth == 0 || strcmp(stack[--depth], word) != 0) abort();
        } else if (strcmp(word, "meta") != 0 && name[end - 1] != '/') {
            if (depth == 64) abort();
            memcpy(stack[depth++], word, sizeof word);
        }
    }
    if (depth != 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[] = {"log.jsonl", "eval_a/eval.json", "eval_a/pages.jsonl",
                                        "step_00000001/trainer/settings.json"};
    static int ready;
    if (!ready) set_up();
    ready = 1;
    for (int i = 0; i < 4; i++) {
        const uint8_t *end = size ? memchr(data, 0, size) : NULL;
        size_t n = end && i < 3 ? (size_t)(end - data) : size;
        put(names[i], data, n);
        data += n + (n < size);
        size -= n + (n < size);
    }
    char *out = string_format("%s/report.html", folder), *html;
    size_t n;
    Error err;
    if (report_write(folder, out, &err) != 0 || file_read(&html, &n, out, &err) != 0) abort(); // there is always a log
    check_tags(html);
    free(html);
    free(out);
    return 0;
}
