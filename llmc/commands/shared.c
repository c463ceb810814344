// shared.c: see shared.h.
#include "llmc/commands/shared.h"

#include <string.h>
#include <unistd.h>

#include "llmc/base/clean.h"

// ---- options -------------------------------------------------------------------------------------------------------

void add_model_options(OptionTable *t, ModelPlace *m) {
    const Option rows[] = {
        {.help = "Model"},
        {OPTION_TEXT("m", &m->folder, NULL, "DIR", "a C3 checkpoint, or a run's folder (its newest step)"),
         .required = 1},
        {OPTION_TEXT("tok", &m->tokenizer, NULL, "FILE", "tokenizer; default: the model's own")},
        {0},
    };
    cli_add(t, rows);
}

void add_machine_options(OptionTable *t, ModelPlace *m) {
    const Option rows[] = {
        {.help = "Machine"},
        {OPTION_CHOICE("device", &m->device, "auto", "auto|cuda|cpu", "where to compute")},
        {OPTION_CHOICE("dtype", &m->dtype, "auto", "auto|bf16|fp32", "type of the weights; auto = the files' own")},
        {OPTION_INT("threads", &m->threads, "cores, 0 = all"), .max = 1024},
        {0},
    };
    cli_add(t, rows);
}

void add_decoding_options(OptionTable *t, int *max_new, int *no_repeat_ngram, int *batch) {
    const Option rows[] = {
        {.help = "Decoding"},
        {OPTION_INT("max_new", max_new,
                    "new tokens of a page, 0 = twice the page's + 32, at most 4096 or the page's + 1"),
         .max = 131072},
        {OPTION_INT("no_repeat_ngram", no_repeat_ngram, "no N tokens in a row twice, 0 = off (the released code: 20)"),
         .max = 4096},
        {OPTION_INT("batch", batch, "pages decoded together, 0 = what fits, at most 64"), .max = 4096},
        {0},
    };
    cli_add(t, rows);
}

void add_eval_options(OptionTable *t, ModelPlace *m, EvalOptions *o) {
    const Option rows[] = {
        {.help = "Pages"},
        {OPTION_INT("maxlen", &o->maxlen, "longest decoder sequence in tokens"), .initial = 8192, .min = 16,
         .max = 131072},
        {OPTION_INT("limit", &o->limit, "first pages of the file only, 0 = all"), .max = 1e9},
        {0},
    };
    add_model_options(t, m);
    add_machine_options(t, m);
    add_decoding_options(t, &o->max_new, &o->no_repeat_ngram, &o->pages);
    cli_add(t, rows); // last, so that a command can add to "Pages"
}

// ---- steps ---------------------------------------------------------------------------------------------------------

void note_waiting(const char *path) {
    if (strcmp(path, "-") == 0 && isatty(STDIN_FILENO))
        command_note(
            "waiting for text at this terminal: Ctrl-D on a line of its own ends it (hint: name a file to read "
            "that instead)");
}

void warn_latents(int latents) {
    command_note("warning: the model was not trained with %d latents a page: expect errors (hint: train_c3 -n_mix)",
                 latents);
}

static void note_left_out(const EvalSet *s, const char *path) {
    char text[160];
    if (s->without_text) command_note("%s: %d pages without text are left out", clean(path), s->without_text);
    if (s->too_long.pages)
        command_note("%s: %s%s left out, longer than the model takes", clean(path),
                     left_out_much(&s->too_long) ? "warning: " : "", left_out_text(text, &s->too_long));
}

static void note_prompts(const Model *m, const EvalSet *s) {
    int asked = 0;
    for (int i = 0; i < s->n && !asked; i++) asked = s->pages[i].prompt.n > 0;
    if (asked && !(m->files.config.tasks & ~(1u << C3_REPEAT)))
        command_note("%s was trained to repeat texts, on no other prompt: expect no answer (hint: train_c3 -mix, or "
                     "pages with prompts)",
                     clean(m->folder));
}

int open_pages(Model *m, EvalSet *s, const ModelPlace *place, const EvalOptions *o, const char *path, const char *out,
               Error *err) {
    *s = (EvalSet){0};
    TRY(model_open(m, place, err));
    if (strcmp(m->folder, place->folder) != 0) command_note("model %s", clean(m->folder));
    note_waiting(path);
    TRY(eval_read(s, m, path, o, err));
    note_left_out(s, path);
    note_prompts(m, s);
    Untrained untrained = untrained_count(m->files.config.trained_tokens);
    for (int i = 0; i < s->n; i++) untrained_add(&untrained, s->pages[i].context.n);
    untrained_warn(stderr, &untrained, clean(path));
    C3Limits limits = out ? eval_limits(s, m) : generator_model_limits();
    int watched = isatty(STDERR_FILENO);
    if (watched) fprintf(stderr, "reading the weights");
    int bad = model_load(m, place, &limits, err);
    if (watched) fprintf(stderr, "\r\033[K");
    if (!bad && out) bad = eval_try_folder(out, err); // not after hours of decoding
    return bad;
}

Progress watch(const EvalSet *s, const Model *m, FILE *text) {
    Progress f = {.line = isatty(STDERR_FILENO) ? stderr : NULL, .tok = m->tok};
    if (text && s->n == 1 && isatty(fileno(text))) f.text = text;
    if (f.text) f.line = NULL; // two lines in one place
    return f;
}
