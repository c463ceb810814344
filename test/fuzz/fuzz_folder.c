// fuzz_folder.c: libFuzzer target of everything that reads a model's folder. The first byte of the input says which
// file of a sound folder the rest replaces: the two config.json, the header of the root's tensors (numbers follow it),
// their index, COMPLETE, the trainer's state. The folder is then checked and taken apart, and made sound again.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/weights/extract.h"
#include "llmc/base/file.h"
#include "llmc/commands/info.h"
#include "llmc/model/params.h"
#include "llmc/weights/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CONFIG, LLM1_CONFIG, HEADER, INDEX, MARKER, STATE, N_FILES };
static const char *const names[N_FILES] = {"config.json",       "llm1/config.json",
                                           "model.safetensors", "model.safetensors.index.json",
                                           "COMPLETE",          "trainer/state.json"};
static char folder[64], *paths[N_FILES], *sound[N_FILES], *parts[2], *moved;
static size_t lengths[N_FILES], numbers; // bytes behind the header
static FILE *out;

static void remove_folder(void) {
    (void)file_remove_tree(folder, NULL);
    for (int i = 0; i < N_FILES; i++) {
        free(paths[i]);
        free(sound[i]);
    }
    for (int i = 0; i < 2; i++) free(parts[i]);
    free(moved);
    fclose(out);
}

static void write_file(const char *path, const void *data, size_t size) {
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) abort();
}

static void write_tensors(const ParamTable *table, int encoder, const char *path) {
    SafeEntry entries[64];
    SafeWriter *w;
    int n = 0;
    size_t bytes = 0;
    for (int i = 0; i < table->n; i++) {
        const Param *p = &table->params[i];
        if ((p->owner == OWNER_ENCODER) != encoder) continue;
        entries[n++] = (SafeEntry){.name = p->name, .dtype = DTYPE_BF16, .dims = p->dims, .shape = {p->rows, p->cols}};
        bytes += 2 * p->count;
    }
    char *zeros = calloc(1, bytes);
    if (!zeros || safetensors_writer_open(&w, path, entries, n, NULL, 0, NULL) != 0 ||
        safetensors_writer_data(w, zeros, bytes, NULL) != 0 || safetensors_writer_commit(w, NULL) != 0)
        abort();
    if (!encoder) numbers = bytes;
    free(zeros);
}

// The shapes are those of seeds.py.
static void write_model(void) {
    C3Config c;
    C3Params p;
    char *encoder = string_format("%s/llm1/model.safetensors", folder);
    if (!encoder || config_preset(&c, "demo", 256, NULL) != 0) abort();
    for (int i = 0; i < 2; i++) {
        Qwen2Config *q = i ? &c.dec : &c.enc;
        q->D = q->HS = q->F = 8;
        q->L = q->NH = q->KV = 1;
    }
    c.latents = 2;
    if (params_build(&p, &c, 1, NULL) != 0 || config_write_c3(&c, folder, NULL) != 0) abort();
    write_tensors(&p.table, 0, paths[HEADER]);
    write_tensors(&p.table, 1, encoder);
    params_free(&p);
    free(encoder);
}

static void set_up(void) {
    snprintf(folder, sizeof folder, "%s/fuzz_folder_XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : ".");
    out = fopen("/dev/null", "w");
    if (!out || !mkdtemp(folder)) abort();
    for (int i = 0; i < N_FILES; i++) paths[i] = string_format("%s/%s", folder, names[i]);
    for (int i = 0; i < 2; i++) parts[i] = string_format("%s/part%d", folder, i);
    moved = string_format("%s/model-00001.safetensors", folder);
    write_model();
    for (int i = 0; i <= HEADER; i++) {
        if (file_read(&sound[i], &lengths[i], paths[i], NULL) != 0) abort();
    }
    if (info_print(out, folder, 1, NULL) != 0) abort(); // or nothing behind the first refusal would be tried
    atexit(remove_folder);
}

// An input as the header of a file whose length field is right and whose numbers have the right size.
static void write_header(const uint8_t *data, size_t size) {
    uint8_t *file = calloc(1, 8 + size + numbers);
    if (!file) abort();
    for (int i = 0; i < 8; i++) file[i] = (uint8_t)((uint64_t)size >> 8 * i);
    memcpy(file + 8, data, size);
    write_file(paths[HEADER], file, 8 + size + numbers);
    free(file);
}

static void check(void) {
    Error err = {""};
    if (info_print(out, folder, 1, &err) != 0 && (!err.text[0] || !strstr(err.text, folder))) abort();
    for (int i = 0; i < 2; i++) {
        char *left = string_format("%s.tmp", parts[i]);
        char *notes = NULL;
        int bad = extract_stack(&notes, folder, i ? OWNER_DECODER : OWNER_ENCODER, parts[i], &err);
        if (bad && (!strstr(err.text, folder) || file_exists(parts[i]))) abort();
        if (!left || file_exists(left)) abort(); // whole or not at all
        if (!bad && (info_print(out, parts[i], 1, &err) != 0 || file_remove_tree(parts[i], &err) != 0)) abort();
        free(left);
        free(notes);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!out) set_up();
    if (size == 0) return 0;
    int which = data[0] % N_FILES;
    char *trainer = string_format("%s/trainer", folder);
    if (which == INDEX && rename(paths[HEADER], moved) != 0) abort();
    if (which == STATE && file_make_dirs(trainer, NULL) != 0) abort();
    if (which == STATE) write_file(paths[MARKER], "{\"files\": []}", 13);
    if (which == HEADER) write_header(data + 1, size - 1);
    else write_file(paths[which], data + 1, size - 1);
    check();
    if (which == INDEX && rename(moved, paths[HEADER]) != 0) abort();
    if (which <= HEADER) write_file(paths[which], sound[which], lengths[which]);
    else unlink(paths[which]);
    if (which == STATE && (unlink(paths[MARKER]) != 0 || file_remove_tree(trainer, NULL) != 0)) abort();
    free(trainer);
    return 0;
}
