// fuzz_latents.c: libFuzzer target of the reader of latents. Each input is opened as it is, and as the documents of a
// file that is right otherwise, since no fuzzer finds a SHA-256. What is accepted must hold together: every page of the
// tensor is in one document, in order, and can be written and read again.
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h> // memfd_create
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/base/file.h"
#include "llmc/weights/latents.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const LatentFile *f) {
    int pages = 0;
    volatile char sum = 0;
    for (int d = 0; d < f->n_documents; d++) {
        const LatentDocument *doc = &f->documents[d];
        if (doc->first != pages || doc->pages < 1 || !doc->id[0]) abort();
        pages += doc->pages;
        for (int i = 0; i <= doc->pages; i++) sum = (char)(sum + (char)strlen(doc->gaps[i]));
    }
    if (pages != f->n_pages) abort();
    int windows = 0;
    for (int i = 0; i < f->n_pages; i++) {
        const LatentPage *p = &f->pages[i];
        if (p->tokens < 1 || strlen(p->sha256) != 64 || p->first != windows || p->windows < 1) abort();
        windows += p->windows;
    }
    if (windows != f->n_windows) abort();
    for (size_t i = 0; i < latents_bytes(f); i++) sum = (char)(sum + ((const char *)f->data)[i]);
}

static void open_and_check(const uint8_t *data, size_t size) {
    int fd = memfd_create("latents", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    char *path = string_format("/proc/self/fd/%d", fd);
    LatentFile f;
    Error err;
    if (latents_read(&f, path, &err) == 0) {
        check(&f);
        latents_free(&f);
    } else if (!strstr(err.text, path)) {
        abort(); // every refusal names the file
    }
    free(path);
    close(fd);
}

// A file around these documents, its checksum right: two pages of one number each.
static void open_documents(const char *documents) {
    static const char numbers[4];
    char hash[65], model[65];
    memset(model, '0', 64);
    model[64] = 0;
    size_t length = strlen(documents) + 1, total = 65 + length + sizeof numbers;
    char *hashed = malloc(total);
    if (!hashed) return;
    memcpy(hashed, model, 65);
    memcpy(hashed + 65, documents, length);
    memcpy(hashed + 65 + length, numbers, sizeof numbers);
    latents_hash(hash, hashed, total);
    free(hashed);
    const char *const metadata[][2] = {
        {"format", "c3-latents"}, {"version", "1"}, {"model", model}, {"sha256", hash}, {"documents", documents}};
    SafeEntry entry = {.name = "latents", .dtype = DTYPE_BF16, .dims = 3, .shape = {2, 1, 1}};
    char path[] = "/dev/shm/fuzz_latents_XXXXXX"; // in memory: nothing waits for a disk
    int fd = mkstemp(path);
    if (fd < 0) perror(path), exit(1);
    close(fd);
    SafeWriter *w;
    Error err;
    LatentFile f;
    if (safetensors_writer_open(&w, path, &entry, 1, metadata, 5, &err) == 0) {
        if (safetensors_writer_data(w, numbers, sizeof numbers, &err) || safetensors_writer_commit(w, &err)) abort();
        if (latents_read(&f, path, &err) == 0) {
            check(&f);
            latents_free(&f);
        } else if (strstr(err.text, "damaged") || !strstr(err.text, path)) {
            abort(); // the checksum is right
        }
    }
    unlink(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    open_and_check(data, size);
    char *text = malloc(size + 1);
    if (!text) return 0;
    memcpy(text, data, size);
    text[size] = 0;
    open_documents(text);
    free(text);
    return 0;
}
