// cli.h: options. One table drives parsing, -h, the printed settings and the settings saved with a checkpoint, so none
// of them can drift from the others.
#ifndef LLMC_CLI_H
#define LLMC_CLI_H

#include <stdint.h>
#include <stdio.h>

#include "llmc/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum OptionType {
    OPTION_INT,    // value: int64_t
    OPTION_REAL,   // value: double
    OPTION_TEXT,   // value: const char *
    OPTION_CHOICE, // value: const char *; one of the words of `choices`, separated by '|'
    OPTION_FLAG,   // value: int64_t 0 or 1; takes no argument
} OptionType;

typedef struct Option {
    const char *name; // without the dash; NULL: a heading, `help` is its text
    OptionType type;
    void *value;          // where the parsed value goes; what it holds before parsing is the default
    const char *argument; // name of the value in the help: "DIR", "N"
    double min, max;      // range of OPTION_INT and OPTION_REAL, ends included
    const char *choices;  // OPTION_CHOICE
    const char *help;     // one line
    int given;            // set by cli_parse: stood on the command line
} Option;

// What was asked for instead of the program's work.
enum { CLI_HELP = 1, CLI_VERSION };

// Parses argv[1..]: `-name value`, `-name=value`, also with two dashes. Words that are no option and no value are
// collected in positional (room for argc pointers; NULL: they are an error). -h and --help set *asked to CLI_HELP and
// stop, --version to CLI_VERSION; else it is 0. An unknown option, a value out of range or a word that is no number is
// an error that says what was expected; the nearest known option is suggested. The strings point into argv.
int cli_parse(Option *options, int n, int argc, char **argv, const char **positional, int *n_positional, int *asked,
              Error *err);

// The one of n names (NULLs are passed over) that `word` may have been meant for; NULL: none is near.
const char *cli_nearest(const char *word, const char *const *names, int n);

// Prints the options by heading with their defaults (call it before parsing changes the values, or on a fresh table).
void cli_help(FILE *out, const Option *options, int n);

// The option of that name; NULL when there is none.
Option *cli_find(Option *options, int n, const char *name);

// The current value as text, into a buffer that is returned. A number reads back as the same number.
const char *cli_value(const Option *o, char *buffer, size_t room);

// {"lr":1e-05,"b":2,...} of all options, malloc'ed; NULL when memory ran out.
char *cli_json(const Option *options, int n);

#ifdef __cplusplus
}
#endif
#endif
