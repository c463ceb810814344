// temp_file.h: a temporary file for what comes from stdin but must be mapped.
#ifndef LLMC_TEMP_FILE_H
#define LLMC_TEMP_FILE_H

#include "llmc/base/error.h"

typedef struct TempFile {
    char *folder, *path; // a folder in TMPDIR or /tmp that holds this file alone; NULL: none
} TempFile;

// Makes the folder; the file does not exist yet.
int temp_file_make(TempFile *s, Error *err);
int temp_file_fill(const TempFile *s, Error *err); // copies stdin into the file
void temp_file_remove(TempFile *s);                // does nothing on a zero one

#endif
