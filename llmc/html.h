// html.h: texts nobody vouches for, inside a page of HTML.
#ifndef LLMC_HTML_H
#define LLMC_HTML_H

#include <stddef.h>
#include <stdio.h>

// Prints n bytes as text of an element or of an attribute in quotes: & < > " ' become references; control characters
// and those that change the direction of writing are shown as escapes (\x1b, \u202e), so that a text can neither leave
// its place nor turn its neighbours around; bytes that are no UTF-8 become U+FFFD. Line ends and tabs stay.
void html_text(FILE *out, const char *text, size_t n);
// The same for a zero-terminated text; NULL prints nothing.
void html_string(FILE *out, const char *text);

// Two texts and the alignment of their characters (metrics.h). Runs of characters of the reference that did not come
// back become <del>, runs of the output that should not be there <ins>; a wrong line end is shown as a sign as well.
void html_reference(FILE *out, const char *text, size_t n, const char *ops, size_t n_ops);
void html_output(FILE *out, const char *text, size_t n, const char *ops, size_t n_ops);

#endif
