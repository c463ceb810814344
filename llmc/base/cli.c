// cli.c: see cli.h.
#include "llmc/base/cli.h"

#include <cjson/cJSON.h> // escaping of strings in cli_json
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- looking up ----------------------------------------------------------------------------------------------------

Option *cli_find(Option *options, int n, const char *name) {
    for (int i = 0; i < n; i++) {
        if (options[i].name && strcmp(options[i].name, name) == 0) return &options[i];
    }
    return NULL;
}

// Levenshtein distance of two short words; long ones count as far away.
static int distance(const char *a, const char *b) {
    enum { MAX = 32 };
    size_t n = strlen(a), m = strlen(b);
    if (n >= MAX || m >= MAX) return MAX;
    int row[MAX + 1];
    for (size_t j = 0; j <= m; j++) row[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int cost = diagonal + (a[i - 1] != b[j - 1]), above = row[j] + 1, left = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = cost < above ? cost : above;
            row[j] = row[j] < left ? row[j] : left;
        }
    }
    return row[m];
}

const char *cli_nearest(const char *word, const char *const *names, int n) {
    const char *best = NULL;
    int best_distance = 1 + (int)strlen(word) / 2;
    for (int i = 0; i < n; i++) {
        if (!names[i]) continue;
        int d = distance(names[i], word);
        if (d < best_distance) {
            best_distance = d;
            best = names[i];
        }
    }
    return best;
}

static int unknown_option(const Option *options, int n, const char *name, Error *err) {
    enum { MAX = 128 };
    const char *names[MAX];
    if (n > MAX) n = MAX;
    for (int i = 0; i < n; i++) names[i] = options[i].name;
    const char *other = cli_nearest(name, names, n);
    if (!other) return error_set(err, "unknown option -%s (hint: -h lists them)", name);
    return error_set(err, "unknown option -%s (hint: did you mean -%s? -h lists them)", name, other);
}

static int has_choice(const char *choices, const char *word) {
    size_t n = strlen(word);
    for (const char *c = choices; c; c = strchr(c, '|') ? strchr(c, '|') + 1 : NULL) {
        size_t length = strcspn(c, "|");
        if (length == n && strncmp(c, word, n) == 0) return 1;
    }
    return 0;
}

// ---- parsing -------------------------------------------------------------------------------------------------------

// The range in the shortest form: 8192, 1e-05.
static int out_of_range(const Option *o, const char *text, Error *err) {
    return error_set(err, "-%s: expected a number from %.10g to %.10g, found %s", o->name, o->min, o->max, text);
}

static int parse_number(const Option *o, const char *text, Error *err) {
    char *end = NULL;
    errno = 0;
    if (o->type == OPTION_INT) {
        long long v = strtoll(text, &end, 10);
        if (end == text || *end || isspace((unsigned char)*text))
            return error_set(err, "-%s: expected a whole number, found \"%s\"", o->name, text);
        if (errno || (double)v < o->min || (double)v > o->max) return out_of_range(o, text, err);
        *(int64_t *)o->value = v;
        return 0;
    }
    double v = strtod(text, &end);
    if (end == text || *end || isspace((unsigned char)*text) || isnan(v))
        return error_set(err, "-%s: expected a number, found \"%s\"", o->name, text);
    if (!(v >= o->min && v <= o->max)) return out_of_range(o, text, err);
    *(double *)o->value = v;
    return 0;
}

static int parse_value(Option *o, const char *text, Error *err) {
    o->given = 1;
    switch (o->type) {
    case OPTION_INT:
    case OPTION_REAL:
        return parse_number(o, text, err);
    case OPTION_CHOICE:
        if (!has_choice(o->choices, text))
            return error_set(err, "-%s: expected one of %s, found \"%s\"", o->name, o->choices, text);
        *(const char **)o->value = text;
        return 0;
    case OPTION_TEXT:
        *(const char **)o->value = text;
        return 0;
    case OPTION_FLAG:
        break;
    }
    return error_set(err, "-%s takes no value, found \"%s\"", o->name, text);
}

static int is_option_word(const char *word) {
    return word[0] == '-' && word[1] != 0 && !isdigit((unsigned char)word[1]) && word[1] != '.';
}

static int parse_option(Option *options, int n, int argc, char **argv, int *i, int *asked, Error *err) {
    const char *word = argv[*i] + (argv[*i][1] == '-' ? 2 : 1);
    char name[64];
    size_t length = strcspn(word, "=");
    snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : sizeof name - 1), word);
    if (strcmp(name, "h") == 0 || strcmp(name, "help") == 0) {
        *asked = CLI_HELP;
        return 0;
    }
    if (strcmp(name, "version") == 0) {
        *asked = CLI_VERSION;
        return 0;
    }
    Option *o = cli_find(options, n, name);
    if (!o) return unknown_option(options, n, name, err);
    if (o->type == OPTION_FLAG && !word[length]) {
        *(int64_t *)o->value = 1;
        o->given = 1;
        return 0;
    }
    if (word[length] == '=') return parse_value(o, word + length + 1, err);
    if (*i + 1 >= argc || (is_option_word(argv[*i + 1]) && o->type != OPTION_TEXT))
        return error_set(err, "-%s: expected a value (%s) behind it", o->name, o->argument ? o->argument : "VALUE");
    return parse_value(o, argv[++*i], err);
}

int cli_parse(Option *options, int n, int argc, char **argv, const char **positional, int *n_positional, int *asked,
              Error *err) {
    if (n_positional) *n_positional = 0;
    *asked = 0;
    int value = 0; // place of the last option's value
    for (int i = 1; i < argc && !*asked; i++) {
        if (argv[i][0] == '-' && argv[i][1] != 0) {
            int option = i;
            TRY(parse_option(options, n, argc, argv, &i, asked, err));
            if (i > option) value = i;
        } else if (positional) {
            positional[(*n_positional)++] = argv[i];
        } else if (i > 1 && value == i - 1) { // what the shell makes of -data d/*.bin
            return error_set(err, "unexpected word \"%s\" behind %s %s (hint: quote a pattern: %s '*.bin')", argv[i],
                             argv[i - 2], argv[i - 1], argv[i - 2]);
        } else {
            return error_set(err, "unexpected word \"%s\" (hint: options start with -; -h lists them)", argv[i]);
        }
    }
    return 0;
}

// ---- printing ------------------------------------------------------------------------------------------------------

// In few digits, and in as many more as it takes to read back the same number.
static void print_real(char *buffer, size_t room, double value) {
    for (int digits = 10; digits <= 17; digits++) {
        snprintf(buffer, room, "%.*g", digits, value);
        if (strtod(buffer, NULL) == value) return;
    }
}

const char *cli_value(const Option *o, char *buffer, size_t room) {
    const char *text;
    switch (o->type) {
    case OPTION_FLAG:
    case OPTION_INT:
        snprintf(buffer, room, "%lld", (long long)*(int64_t *)o->value);
        break;
    case OPTION_REAL:
        print_real(buffer, room, *(double *)o->value);
        break;
    case OPTION_TEXT:
    case OPTION_CHOICE:
        text = *(const char **)o->value;
        snprintf(buffer, room, "%s", text ? text : "");
        break;
    }
    return buffer;
}

void cli_help(FILE *out, const Option *options, int n) {
    for (int i = 0; i < n; i++) {
        const Option *o = &options[i];
        if (!o->name) {
            fprintf(out, "\n%s\n", o->help);
            continue;
        }
        char left[64], value[256];
        const char *argument = o->type == OPTION_FLAG ? "" : o->choices ? o->choices : o->argument ? o->argument : "N";
        snprintf(left, sizeof left, "-%s %s", o->name, argument);
        fprintf(out, "  %-34s %s", left, o->help);
        cli_value(o, value, sizeof value);
        if (o->type != OPTION_FLAG && value[0]) fprintf(out, " [%s]", value);
        fprintf(out, "\n");
    }
}

char *cli_json(const Option *options, int n) {
    cJSON *object = cJSON_CreateObject();
    for (int i = 0; object && i < n; i++) {
        const Option *o = &options[i];
        if (!o->name) continue;
        char value[64];
        const char *text;
        switch (o->type) {
        case OPTION_FLAG:
        case OPTION_INT:
        case OPTION_REAL:
            cJSON_AddRawToObject(object, o->name, cli_value(o, value, sizeof value));
            break;
        case OPTION_TEXT:
        case OPTION_CHOICE:
            text = *(const char **)o->value;
            if (text) cJSON_AddStringToObject(object, o->name, text);
            else cJSON_AddNullToObject(object, o->name);
            break;
        }
    }
    char *text = object ? cJSON_PrintUnformatted(object) : NULL;
    cJSON_Delete(object);
    return text;
}
