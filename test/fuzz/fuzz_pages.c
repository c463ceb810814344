// fuzz_pages.c: libFuzzer target of the page reader: the same bytes as text, JSONL, a JSON list and a file without a
// telling name.
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h> // memfd_create
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/base/file.h"
#include "llmc/text/pages.h"
#include "llmc/base/unicode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[64];

static void remove_folder(void) {
    Error err;
    file_remove_tree(folder, &err);
}

static void read_pages(const char *path, size_t size) {
    PageReader *r;
    Page page;
    Error err;
    size_t total = 0;
    if (pages_open(&r, path, &err) != 0) abort();
    int got;
    while ((got = pages_next(r, &page, &err)) > 0) {
        if (!page.text || !page.id || !*page.id || utf8_valid(page.text, page.length) != page.length) abort();
        if (page.answer && utf8_valid(page.answer, page.answer_length) != page.answer_length) abort();
        if (page.prompt && utf8_valid(page.prompt, page.prompt_length) != page.prompt_length) abort();
        if (page.text[strspn(page.text, " \t\n\v\f\r")] == 0) abort(); // a page without text
        total += page.length + page.prompt_length + page.answer_length;
    }
    if (total > size) abort();
    if (got < 0 && strncmp(err.text, path, strlen(path)) != 0) abort(); // every refusal names the file
    pages_close(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const endings[] = {".txt", ".jsonl", ".json", ""};
    static char *paths[4];
    if (!paths[0]) {
        snprintf(folder, sizeof folder, "%s/fuzz_pages_XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : ".");
        if (!mkdtemp(folder)) abort();
        atexit(remove_folder);
        int fd = memfd_create("pages", 0);
        for (int i = 0; i < 4; i++) {
            char *target = string_format("/proc/self/fd/%d", fd);
            paths[i] = string_format("%s/pages%s", folder, endings[i]);
            if (symlink(target, paths[i]) != 0) abort();
            free(target);
        }
    }
    FILE *f = fopen(paths[0], "wb"); // all four names are one file in memory
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) abort();
    for (int i = 0; i < 4; i++) read_pages(paths[i], size);
    return 0;
}
