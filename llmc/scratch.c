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

static int copy(FILE *from, const char *from_name, FILE *to, const char *to_name, Error *err) {
    char buffer[1 << 16];
    size_t n;
    while ((n = fread(buffer, 1, sizeof buffer, from)) > 0) {
        if (fwrite(buffer, 1, n, to) != n) break;
    }
    if (ferror(from)) return error_set(err, "%s: cannot read: %s", from_name, strerror(errno));
    if (n > 0 || fflush(to) != 0) return error_set(err, "%s: cannot write: %s", to_name, strerror(errno));
    return 0;
}

int scratch_fill(const Scratch *s, Error *err) {
    FILE *f = fopen(s->path, "wbe");
    if (!f) return error_set(err, "%s: cannot create: %s", s->path, strerror(errno));
    int bad = copy(stdin, "standard input", f, s->path, err);
    if (fclose(f) != 0 && !bad) bad = error_set(err, "%s: cannot write: %s", s->path, strerror(errno));
    return bad;
}

int scratch_print(const Scratch *s, Error *err) {
    FILE *f = fopen(s->path, "rbe");
    if (!f) return error_set(err, "%s: cannot open: %s", s->path, strerror(errno));
    int bad = copy(f, s->path, stdout, "standard output", err);
    fclose(f);
    return bad;
}

void scratch_remove(Scratch *s) {
    if (s->folder) file_remove_tree(s->folder, NULL);
    free(s->folder);
    free(s->path);
    *s = (Scratch){0};
}
