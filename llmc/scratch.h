// scratch.h: a file that is made for a pipe: what comes from stdin but must be mapped.
#ifndef LLMC_SCRATCH_H
#define LLMC_SCRATCH_H

#include "error.h"

typedef struct Scratch {
    char *folder, *path; // the file is alone in a folder of its own, in TMPDIR or /tmp; NULL: there is none
} Scratch;

// Makes the folder; the file itself is not there yet.
int scratch_make(Scratch *s, Error *err);
int scratch_fill(const Scratch *s, Error *err); // stdin into the file
void scratch_remove(Scratch *s);                // harmless on a zero one

#endif
