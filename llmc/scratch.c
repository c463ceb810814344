// scratch.c: see scratch.h.
#include "scratch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"

int scratch_make(Scratch *s, Error *err) {
    const char *place = getenv("TMPDIR");
    *s = (Scratch){.folder = string_format("%s/c3-XXXXXX", place && *place ? place : "/tmp")};
    if (!s->folder) return error_set(err, "out of memory");
    if (!mkdtemp(s->folder)) {
        error_set(err, "%s: cannot make the folder: %s (hint: TMPDIR)", s->folder, strerror(errno));
        free(s->folder);
        *s = (Scratch){0};
        return -1;
    }
    s->path = string_format("%s/pipe", s->folder);
    if (s->path) return 0;
    scratch_remove(s);
    return error_set(err, "out of memory");
}

int scratch_fill(const Scratch *s, Error *err) {
    char buffer[1 << 16];
    size_t n;
    FileWriter w;
    int bad = 0;
    TRY(file_create(&w, s->path, err));
    while (!bad && (n = fread(buffer, 1, sizeof buffer, stdin)) > 0) bad = file_write(&w, buffer, n, err);
    if (!bad && ferror(stdin)) bad = error_set(err, "standard input: cannot read: %s", strerror(errno));
    if (!bad) return file_commit(&w, err);
    file_discard(&w);
    return -1;
}

void scratch_remove(Scratch *s) {
    if (s->folder) file_remove_tree(s->folder, NULL);
    free(s->folder);
    free(s->path);
    *s = (Scratch){0};
}
