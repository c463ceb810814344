// temp_file.c: see temp_file.h.
#include "llmc/base/temp_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/base/file.h"

int temp_file_make(TempFile *s, Error *err) {
    const char *place = getenv("TMPDIR");
    *s = (TempFile){.folder = string_format("%s/c3-XXXXXX", place && *place ? place : "/tmp")};
    if (!mkdtemp(s->folder)) {
        error_set(err, "%s: cannot make the folder: %s (hint: TMPDIR)", s->folder, strerror(errno));
        free(s->folder);
        *s = (TempFile){0};
        return -1;
    }
    s->path = string_format("%s/pipe", s->folder);
    return 0;
}

int temp_file_fill(const TempFile *s, Error *err) {
    char buffer[1 << 16];
    size_t n;
    FileWriter w;
    int bad = 0;
    TRY(file_create(&w, s->path, err));
    while (!bad && (n = fread(buffer, 1, sizeof buffer, stdin)) > 0) bad = file_write(&w, buffer, n, err);
    if (!bad && ferror(stdin)) bad = error_set(err, "standard input: cannot read: %s", strerror(errno));
    return file_end(&w, bad, err);
}

void temp_file_remove(TempFile *s) {
    if (s->folder) file_remove_tree(s->folder, NULL);
    free(s->folder);
    free(s->path);
    *s = (TempFile){0};
}
