// terminal.h: whether a person watches what is printed, and in how wide a window.
#ifndef LLMC_TERMINAL_H
#define LLMC_TERMINAL_H

#ifdef __cplusplus
extern "C" {
#endif

// The terminal that what is written to fd ends at, as a descriptor to ask for its width; -1: none. mpirun gives its
// first rank a pseudo-terminal wherever its own output goes: there mpirun's own output counts. The descriptor is fd or
// one of our own (terminal_close).
int terminal_behind(int fd);
void terminal_close(int terminal, int fd);
// Columns of its window, 80 when it does not say.
int terminal_columns(int terminal);

#ifdef __cplusplus
}
#endif
#endif
