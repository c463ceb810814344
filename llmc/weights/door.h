// door.h: the Python files that a checkpoint carries, so that transformers' AutoModel loads it with trust_remote_code:
// scripts/python/*.py, part of the program.
#ifndef LLMC_DOOR_H
#define LLMC_DOOR_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { DOOR_FILES = 2 };

typedef struct DoorFile {
    const char *name; // in the checkpoint
    const char *text; // not zero-terminated
    size_t size;
} DoorFile;

// File i of DOOR_FILES.
DoorFile door_file(int i);
// JSON: the entry "auto_map" of config.json, which names them.
extern const char door_auto_map[];

#ifdef __cplusplus
}
#endif
#endif
