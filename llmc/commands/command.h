// command.h: the commands of c3. A command is a table of options and a function; it lives in a file of this folder and
// has a line in c3.c. This room may use every other.
#ifndef LLMC_COMMAND_H
#define LLMC_COMMAND_H

#include "llmc/base/cli.h"
#include "llmc/base/error.h"

typedef struct Command {
    const char *name;
    const char *what;    // in the list of commands
    const char *usage;   // its arguments and what it does, for the first line of the help
    const char *example; // a whole line
    // Sets the defaults and fills the table, which points to variables of the command's file.
    void (*options)(OptionTable *t);
    // Its positional arguments: what one of them is ("file of pages"; NULL: it takes none), and whether it takes more
    // than one. At least one is needed.
    const char *word;
    int many;
    // What no single option's range can say; NULL: nothing. An error is one of usage (exit code 2).
    int (*check)(Error *err);
    // The work. Returns 0, or -1 with an Error (exit code 1), or 1: exit code 1, and the reason has been printed.
    int (*run)(const char *const *words, int n, Error *err);
} Command;

// Parses the command line, prints help, version or the error, and does what it asks for. Returns the exit code: 0 done,
// 1 failed, 2 wrong usage.
int commands_main(const Command *const *commands, int n, int argc, char **argv);

// A line on stderr, as "c3: note".
void command_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
