// terminal.h: whether output goes to a terminal that somebody watches, and how wide it is.
#ifndef LLMC_TERMINAL_H
#define LLMC_TERMINAL_H

#ifdef __cplusplus
extern "C" {
#endif

// The terminal that output to fd ends up on, as a descriptor to ask for its width; -1: none. mpirun gives its first
// rank a pseudo-terminal wherever its own output goes; in that case mpirun's own output decides. The descriptor is fd
// or a new one (terminal_close).
int terminal_behind(int fd);
void terminal_close(int terminal, int fd);
// Its width in columns; 80 if it does not say.
int terminal_columns(int terminal);

#ifdef __cplusplus
}
#endif
#endif
