// arena.h: one allocation for each kind of memory. The same carving code runs twice: without a base it only counts
// bytes, then it hands out pointers into an allocation of exactly that size.
#ifndef LLMC_ARENA_H
#define LLMC_ARENA_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Arena {
    char *base;  // NULL while counting
    size_t used; // bytes handed out so far
} Arena;

// The next `bytes`, 64-byte aligned; NULL while counting.
static inline void *arena_take(Arena *a, size_t bytes) {
    void *p = a->base ? a->base + a->used : NULL;
    a->used += (bytes + 63) & ~(size_t)63;
    return p;
}

#ifdef __cplusplus
}
#endif
#endif
