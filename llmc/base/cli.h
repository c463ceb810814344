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

// An option, or a heading, which has a help alone.
typedef struct Option {
    const char *name; // without the dash
    // Where the value goes; what stands there before parsing is the default. The one that is set says what kind of
    // value the option takes.
    int *integer;
    int64_t *int64;
    double *real;
    const char **text;
    int *flag;            // 0 or 1; takes no value
    double min, max;      // of numbers, ends included
    const char *choices;  // of text: "auto|cuda|cpu", one of these words
    const char *argument; // what the help calls the value: "DIR"; NULL: "N", of a real "X"
    const char *help;     // one line
    int required;         // there is no default
    int given;            // set by cli_parse: stood on the command line
} Option;

// A row by its kind: {OPTION_INT("b", &b, 1, 64, "pages a batch"), .argument = "B"}.
#define OPTION_INT(NAME, VALUE, LEAST, LARGEST, HELP)                                                                  \
    .name = NAME, .integer = VALUE, .min = LEAST, .max = LARGEST, .help = HELP
#define OPTION_INT64(NAME, VALUE, LEAST, LARGEST, HELP)                                                                \
    .name = NAME, .int64 = VALUE, .min = LEAST, .max = LARGEST, .help = HELP
#define OPTION_REAL(NAME, VALUE, LEAST, LARGEST, HELP)                                                                 \
    .name = NAME, .real = VALUE, .min = LEAST, .max = LARGEST, .help = HELP
#define OPTION_TEXT(NAME, VALUE, ARGUMENT, HELP)  .name = NAME, .text = VALUE, .argument = ARGUMENT, .help = HELP
#define OPTION_CHOICE(NAME, VALUE, CHOICES, HELP) .name = NAME, .text = VALUE, .choices = CHOICES, .help = HELP
#define OPTION_FLAG(NAME, VALUE, HELP)            .name = NAME, .flag = VALUE, .help = HELP

enum { CLI_MAX_OPTIONS = 80 };

typedef struct OptionTable {
    Option rows[CLI_MAX_OPTIONS];
    int n;
} OptionTable;

// Appends rows up to the first that is empty.
void cli_add(OptionTable *t, const Option *rows);

// What was asked for instead of the program's work.
enum { CLI_HELP = 1, CLI_VERSION };

// Parses argv[1..]: `-name value`, `-name=value`, also with two dashes. Words that are no option and no value are
// collected in positional (room for argc pointers; NULL: they are an error). -h and --help set *asked to CLI_HELP and
// stop, --version to CLI_VERSION; else it is 0. An unknown option, a value out of range, a word that is no number or a
// required option that is missing is an error that says what was expected; the nearest known option is suggested. The
// strings point into argv.
int cli_parse(OptionTable *t, int argc, char **argv, const char **positional, int *n_positional, int *asked,
              Error *err);

// The one of n names (NULLs are passed over) that `word` may have been meant for; NULL: none is near.
const char *cli_nearest(const char *word, const char *const *names, int n);

// Prints the options by heading, with the values they have: the defaults, before parsing.
void cli_help(FILE *out, const OptionTable *t);

// The current value as text, into a buffer that is returned. A number reads back as the same number.
const char *cli_value(const Option *o, char *buffer, size_t room);

// Of integer, int64, real and flag.
double cli_number(const Option *o);

// {"lr":1e-05,"b":2,...} of all options; the caller frees it.
char *cli_json(const OptionTable *t);

#ifdef __cplusplus
}
#endif
#endif
