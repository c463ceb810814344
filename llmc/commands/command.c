// command.c: see command.h.
#include "llmc/commands/command.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/version.h"

enum { EXIT_USAGE = 2, MAX_COMMANDS = 32 };

static int fail(const Error *err, int code) {
    fflush(stdout);
    fprintf(stderr, "c3: %s\n", err->text);
    return code;
}

void command_note(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "c3: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
}

// ---- one command ---------------------------------------------------------------------------------------------------

static void explain(const Command *c) {
    OptionTable t = {.n = 0};
    c->options(&t);
    printf("c3 %s %s\n", c->name, c->usage);
    cli_help(stdout, &t);
    printf("\nexample: ./%s\n", c->example);
}

static int parse(const Command *c, int argc, char **argv, const char **words, int *n, int *asked, Error *err) {
    OptionTable t = {.n = 0};
    c->options(&t);
    TRY(cli_parse(&t, argc, argv, c->word ? words : NULL, n, asked, err));
    if (*asked) return 0;
    if (c->word && *n != 1 && !(*n > 1 && c->many))
        return error_set(err, "expected %s %s, found %d (hint: -h explains)", c->many ? "at least one" : "one", c->word,
                         *n);
    return c->check ? c->check(err) : 0;
}

static int run(const Command *c, int argc, char **argv) {
    const char **words = alloc((size_t)argc, sizeof *words, "arguments");
    Error err;
    int n = 0, asked, code = 0;
    if (parse(c, argc, argv, words, &n, &asked, &err) != 0) {
        error_prefix(&err, "%s", c->name);
        code = fail(&err, EXIT_USAGE);
    } else if (asked == CLI_HELP) {
        explain(c);
    } else if (asked == CLI_VERSION) {
        version_print(stdout, "c3");
    } else {
        code = c->run(words, n, &err);
        if (code < 0) code = fail(&err, 1);
    }
    free(words);
    return code;
}

// ---- the list ------------------------------------------------------------------------------------------------------

static void usage(FILE *out, const Command *const *commands, int n) {
    fprintf(out, "c3 COMMAND [options]   (c3 COMMAND -h, or c3 help COMMAND, explains one; --version)\n");
    for (int i = 0; i < n; i++) fprintf(out, "  %-12s %s\n", commands[i]->name, commands[i]->what);
}

static int unknown(const Command *const *commands, int n, const char *word) {
    const char *names[MAX_COMMANDS];
    Error err;
    for (int i = 0; i < n; i++) names[i] = commands[i]->name;
    const char *other = cli_nearest(word, names, n);
    if (!strcmp(word, "report")) error_set(&err, "unknown command \"report\" (hint: scripts/report.py RUN)");
    else if (other) error_set(&err, "unknown command \"%s\" (hint: did you mean %s? c3 -h lists them)", word, other);
    else error_set(&err, "unknown command \"%s\" (hint: c3 -h lists them)", word);
    return fail(&err, EXIT_USAGE);
}

static int is_one_of(const char *word, const char *a, const char *b, const char *c) {
    return !strcmp(word, a) || !strcmp(word, b) || !strcmp(word, c);
}

int commands_main(const Command *const *commands, int n, int argc, char **argv) {
    assert(n <= MAX_COMMANDS);
    if (argc < 2) {
        usage(stderr, commands, n);
        return EXIT_USAGE;
    }
    if (is_one_of(argv[1], "version", "-version", "--version")) {
        version_print(stdout, "c3");
        return 0;
    }
    int help = is_one_of(argv[1], "help", "-h", "--help");
    if (help && argc == 2) {
        usage(stdout, commands, n);
        return 0;
    }
    for (int i = 0; i < n; i++) {
        if (strcmp(argv[1 + help], commands[i]->name) != 0) continue;
        if (!help) return run(commands[i], argc - 1, argv + 1);
        explain(commands[i]);
        return 0;
    }
    return unknown(commands, n, argv[1 + help]);
}
