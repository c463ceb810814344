// render.h: shows a page and its reconstruction with the wrong characters marked.
#ifndef LLMC_RENDER_H
#define LLMC_RENDER_H

#include <stddef.h>
#include <stdio.h>

typedef enum RenderSide {
    RENDER_REFERENCE, // marks what is missing from the output
    RENDER_OUTPUT,    // marks what is not in the reference
} RenderSide;

// 1 if out is a terminal with colours and NO_COLOR is not set.
int render_wants_colour(FILE *out);

// Prints one side of an alignment (metrics.h: ops over code points) with runs of wrong characters in reverse red or,
// without colour, in [brackets]; a wrong line end is also shown as \n. The text is cleaned (clean.h) and followed by a
// line end.
void render_marked(FILE *out, const char *text, size_t n, const char *ops, size_t n_ops, RenderSide side, int colour);

#endif
