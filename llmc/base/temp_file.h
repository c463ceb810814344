// temp_file.h: a file that is made for a pipe: what comes from stdin but must be mapped.
#ifndef LLMC_TEMP_FILE_H
#define LLMC_TEMP_FILE_H

#include "llmc/base/error.h"

typedef struct TempFile {
    char *folder, *path; // the file is alone in a folder of its own, in TMPDIR or /tmp; NULL: there is none
} TempFile;

// Makes the folder; the file itself is not there yet.
int temp_file_make(TempFile *s, Error *err);
int temp_file_fill(const TempFile *s, Error *err); // stdin into the file
void temp_file_remove(TempFile *s);                // harmless on a zero one

#endif
