// render.h: a page and its reconstruction for the eye, with the wrong characters marked.
#ifndef LLMC_RENDER_H
#define LLMC_RENDER_H

#include <stddef.h>
#include <stdio.h>

typedef enum RenderSide {
    RENDER_REFERENCE, // marks what did not come back
    RENDER_OUTPUT,    // marks what should not be there
} RenderSide;

// 1 when out is a terminal that shows colours and NO_COLOR is not set.
int render_wants_colour(FILE *out);

// Prints one side of an alignment (metrics.h: ops over code points), runs of wrong characters in reverse red or,
// without colour, in [brackets]; a wrong line end is shown as \n as well. The text is cleaned (clean.h). Ends with a
// line end.
void render_marked(FILE *out, const char *text, size_t n, const char *ops, size_t n_ops, RenderSide side, int colour);

#endif
