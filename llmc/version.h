// version.h: what --version prints: which build of which commit this is, and what it will use here.
#ifndef LLMC_VERSION_H
#define LLMC_VERSION_H

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

// The commit this was built from.
const char *version_commit(void);
void version_print(FILE *out, const char *program);

#ifdef __cplusplus
}
#endif
#endif
