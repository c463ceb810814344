// cli.c: see cli.h.
#include "llmc/base/cli.h"

#include <assert.h>
#include <cjson/cJSON.h> // escaping of strings in cli_json
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void set_default(const Option *o) {
    if (o->integer) *o->integer = (int)o->initial;
    if (o->int64) *o->int64 = (int64_t)o->initial;
    if (o->real) *o->real = o->initial;
    if (o->text) *o->text = o->initial_text;
    if (o->list) *o->list = (OptionList){{o->initial_text}, o->initial_text != NULL};
    if (o->flag) *o->flag = 0;
}

void cli_add(OptionTable *t, const Option *rows) {
    for (; rows->name || rows->help; rows++) {
        assert(t->n < CLI_MAX_OPTIONS);
        t->rows[t->n++] = *rows;
        set_default(rows);
    }
}

// ---- looking up ----------------------------------------------------------------------------------------------------

static Option *find(OptionTable *t, const char *name) {
    for (int i = 0; i < t->n; i++) {
        if (t->rows[i].name && strcmp(t->rows[i].name, name) == 0) return &t->rows[i];
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

static int unknown_option(const OptionTable *t, const char *name, Error *err) {
    const char *names[CLI_MAX_OPTIONS];
    for (int i = 0; i < t->n; i++) names[i] = t->rows[i].name;
    const char *other = cli_nearest(name, names, t->n);
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

static double largest(const Option *o) { return o->max > 0 ? o->max : o->integer ? INT_MAX : 9e15; }

// The range in the shortest form: 8192, 1e-05.
static int check_range(const Option *o, double value, const char *text, Error *err) {
    if (value >= o->min && value <= largest(o)) return 0;
    return error_set(err, "-%s: expected a number from %.10g to %.10g, found %s", o->name, o->min, largest(o), text);
}

static int parse_integer(const Option *o, const char *text, Error *err) {
    char *end = NULL;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end || isspace((unsigned char)*text))
        return error_set(err, "-%s: expected a whole number, found \"%s\"", o->name, text);
    TRY(check_range(o, errno ? INFINITY : (double)v, text, err));
    if (o->integer) *o->integer = (int)v;
    else *o->int64 = v;
    return 0;
}

static int parse_real(const Option *o, const char *text, Error *err) {
    char *end = NULL;
    double v = strtod(text, &end);
    if (end == text || *end || isspace((unsigned char)*text) || isnan(v))
        return error_set(err, "-%s: expected a number, found \"%s\"", o->name, text);
    TRY(check_range(o, v, text, err));
    *o->real = v;
    return 0;
}

static int add_value(const Option *o, int is_first, const char *text, Error *err) {
    OptionList *list = o->list;
    if (is_first) list->n = 0;
    if (list->n == CLI_MAX_VALUES) return error_set(err, "-%s: expected at most %d of them", o->name, CLI_MAX_VALUES);
    list->values[list->n++] = text;
    return 0;
}

static int parse_value(Option *o, const char *text, Error *err) {
    int is_first = !o->given;
    o->given = 1;
    if (o->list) return add_value(o, is_first, text, err);
    if (o->flag) return error_set(err, "-%s takes no value, found \"%s\"", o->name, text);
    if (o->real) return parse_real(o, text, err);
    if (!o->text) return parse_integer(o, text, err);
    if (o->choices && !has_choice(o->choices, text))
        return error_set(err, "-%s: expected one of %s, found \"%s\"", o->name, o->choices, text);
    *o->text = text;
    return 0;
}

static int is_option_word(const char *word) {
    return word[0] == '-' && word[1] != 0 && !isdigit((unsigned char)word[1]) && word[1] != '.';
}

static const char *argument_of(const Option *o) {
    return o->flag ? "" : o->choices ? o->choices : o->argument ? o->argument : o->real ? "X" : "N";
}

static int parse_option(OptionTable *t, int argc, char **argv, int *i, int *asked, Error *err) {
    const char *word = argv[*i] + (argv[*i][1] == '-' ? 2 : 1);
    char name[64];
    size_t length = strcspn(word, "=");
    snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : sizeof name - 1), word);
    if (strcmp(name, "h") == 0 || strcmp(name, "help") == 0) *asked = CLI_HELP;
    if (strcmp(name, "version") == 0) *asked = CLI_VERSION;
    if (*asked) return 0;
    Option *o = find(t, name);
    if (!o) return unknown_option(t, name, err);
    if (word[length] == '=') return parse_value(o, word + length + 1, err);
    if (o->flag) {
        *o->flag = o->given = 1;
        return 0;
    }
    int takes_any = o->list || (o->text && !o->choices);
    if (*i + 1 >= argc || (is_option_word(argv[*i + 1]) && !takes_any))
        return error_set(err, "-%s: expected a value (%s) after it", o->name, argument_of(o));
    return parse_value(o, argv[++*i], err);
}

int cli_parse(OptionTable *t, int argc, char **argv, const char **positional, int *n_positional, int *asked,
              Error *err) {
    if (n_positional) *n_positional = 0;
    *asked = 0;
    int value = 0; // place of the last option's value
    for (int i = 1; i < argc && !*asked; i++) {
        if (argv[i][0] == '-' && argv[i][1] != 0) {
            int option = i;
            TRY(parse_option(t, argc, argv, &i, asked, err));
            if (i > option) value = i;
        } else if (positional) {
            positional[(*n_positional)++] = argv[i];
        } else if (i > 1 && value == i - 1) { // the shell has expanded -data d/*.bin
            return error_set(err, "unexpected word \"%s\" after %s %s (hint: quote a pattern: %s '*.bin')", argv[i],
                             argv[i - 2], argv[i - 1], argv[i - 2]);
        } else {
            return error_set(err, "unexpected word \"%s\" (hint: options start with -; -h lists them)", argv[i]);
        }
    }
    for (int i = 0; i < t->n && !*asked; i++) {
        const Option *o = &t->rows[i];
        if (o->required && !o->given)
            return error_set(err, "-%s %s is missing (hint: -h explains)", o->name, argument_of(o));
    }
    return 0;
}

// ---- printing ------------------------------------------------------------------------------------------------------

// In as few digits as read back as the same number, but at least 10 significant ones.
static void print_real(char *buffer, size_t room, double value) {
    for (int digits = 10; digits <= 17; digits++) {
        snprintf(buffer, room, "%.*g", digits, value);
        if (strtod(buffer, NULL) == value) return;
    }
}

double cli_number(const Option *o) {
    return o->real ? *o->real : o->int64 ? (double)*o->int64 : o->integer ? *o->integer : *o->flag;
}

const char *cli_value(const Option *o, char *buffer, size_t room) {
    size_t at = 0;
    buffer[0] = 0;
    for (int i = 0; o->list && i < o->list->n && at < room; i++)
        at += (size_t)snprintf(buffer + at, room - at, "%s%s", i ? " " : "", o->list->values[i]);
    if (o->list) return buffer;
    if (o->text) snprintf(buffer, room, "%s", *o->text ? *o->text : "");
    else if (o->real) print_real(buffer, room, *o->real);
    else snprintf(buffer, room, "%.0f", cli_number(o));
    return buffer;
}

void cli_help(FILE *out, const OptionTable *t) {
    for (int i = 0; i < t->n; i++) {
        const Option *o = &t->rows[i];
        if (!o->name) {
            fprintf(out, "\n%s\n", o->help);
            continue;
        }
        char left[64], value[256];
        snprintf(left, sizeof left, "-%s %s", o->name, argument_of(o));
        fprintf(out, "  %-34s %s", left, o->help);
        cli_value(o, value, sizeof value);
        if (!o->flag && value[0]) fprintf(out, " [%s]", value);
        fprintf(out, "\n");
    }
}

// One value as a text, several as an array.
static void add_list(cJSON *object, const Option *o) {
    const OptionList *list = o->list;
    cJSON *json = list->n > 1    ? cJSON_CreateStringArray(list->values, list->n)
                  : list->n == 1 ? cJSON_CreateString(list->values[0])
                                 : cJSON_CreateNull();
    cJSON_AddItemToObject(object, o->name, json);
}

char *cli_json(const OptionTable *t) {
    cJSON *object = cJSON_CreateObject();
    for (int i = 0; i < t->n; i++) {
        const Option *o = &t->rows[i];
        char value[64];
        if (!o->name) continue;
        if (o->list) add_list(object, o);
        else if (!o->text) cJSON_AddRawToObject(object, o->name, cli_value(o, value, sizeof value));
        else if (*o->text) cJSON_AddStringToObject(object, o->name, *o->text);
        else cJSON_AddNullToObject(object, o->name);
    }
    char *text = cJSON_PrintUnformatted(object);
    cJSON_Delete(object);
    return text;
}
