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

// The values of an option that may be given several times.
enum { CLI_MAX_VALUES = 16 };
typedef struct OptionList {
    const char *values[CLI_MAX_VALUES];
    int n;
} OptionList;

// An option, or a heading, which has a help alone.
typedef struct Option {
    const char *name; // without the dash
    // Where the value goes. The one that is set says what kind of value the option takes.
    int *integer;
    int64_t *int64;
    double *real;
    const char **text;
    OptionList *list;
    int *flag;                // 0 or 1; takes no value
    double initial;           // the default of integer, int64 and real
    const char *initial_text; // and of text and list, whose first value takes its place; that of a flag is 0
    double min, max;          // of numbers, ends included; max 0: as large as the type holds exactly
    const char *choices;      // of text: "auto|cuda|cpu", one of these words
    const char *argument;     // what the help calls the value: "DIR"; NULL: "N", of a real "X"
    const char *help;         // one line
    int required;             // there is no default
    int given;                // set by cli_parse: it is on the command line
} Option;

// The row of an option by its kind, followed by more fields by name:
// {OPTION_INT("b", &b, "pages a batch"), .initial = 2, .min = 1, .max = 64}
#define OPTION_INT(NAME, VALUE, HELP)   .name = NAME, .integer = VALUE, .help = HELP
#define OPTION_INT64(NAME, VALUE, HELP) .name = NAME, .int64 = VALUE, .help = HELP
#define OPTION_REAL(NAME, VALUE, HELP)  .name = NAME, .real = VALUE, .help = HELP
#define OPTION_TEXT(NAME, VALUE, DEFAULT, ARGUMENT, HELP)                                                              \
    .name = NAME, .text = VALUE, .initial_text = DEFAULT, .argument = ARGUMENT, .help = HELP
#define OPTION_LIST(NAME, VALUES, DEFAULT, ARGUMENT, HELP)                                                             \
    .name = NAME, .list = VALUES, .initial_text = DEFAULT, .argument = ARGUMENT, .help = HELP
#define OPTION_CHOICE(NAME, VALUE, DEFAULT, CHOICES, HELP)                                                             \
    .name = NAME, .text = VALUE, .initial_text = DEFAULT, .choices = CHOICES, .help = HELP
#define OPTION_FLAG(NAME, VALUE, HELP) .name = NAME, .flag = VALUE, .help = HELP

enum { CLI_MAX_OPTIONS = 80 };

typedef struct OptionTable {
    Option rows[CLI_MAX_OPTIONS];
    int n;
} OptionTable;

// Appends rows up to the first that is empty, and sets the values to their defaults.
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

// Prints the options by heading, with their values: before parsing, the defaults.
void cli_help(FILE *out, const OptionTable *t);

// The current value as text, into a buffer that is returned. A number reads back as the same number; the values of a
// list are separated by spaces.
const char *cli_value(const Option *o, char *buffer, size_t room);

// Of integer, int64, real and flag.
double cli_number(const Option *o);

// {"lr":1e-05,"b":2,...} of all options; the caller frees it.
char *cli_json(const OptionTable *t);

#ifdef __cplusplus
}
#endif
#endif
