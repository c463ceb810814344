// ask.c: c3 ask: an answer out of a text's latents.
#include <stdlib.h>
#include <string.h>

#include "llmc/base/clean.h"
#include "llmc/base/json.h"
#include "llmc/commands/shared.h"

static struct {
    ModelPlace model;
    EvalOptions eval;
    const char *file;
    int json;
} given;

static void options(OptionTable *t) {
    const Option rows[] = {
        {.help = "Input and output"},
        {OPTION_TEXT("f", &given.file, "-", "FILE", "the text: .txt, .jsonl or .json pages; - is stdin")},
        {OPTION_FLAG("json", &given.json, "one JSON object a page and line")},
        {0},
    };
    add_eval_options(t, &given.model, &given.eval);
    cli_add(t, rows);
}

static void print_json(const EvalPage *p) {
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "id", p->id);
    cJSON_AddStringToObject(o, "prompt", given.eval.prompt);
    cJSON_AddStringToObject(o, "answer", p->output);
    cJSON_AddBoolToObject(o, "ended", p->ended);
    char *line = json_line(o);
    printf("%s\n", line);
    free(line);
    cJSON_Delete(o);
}

static void print_answers(const EvalSet *s) {
    for (int i = 0; i < s->n; i++) {
        const EvalPage *p = &s->pages[i];
        if (given.json) {
            print_json(p);
            continue;
        }
        if (s->n > 1) printf("%s: ", clean(p->id));
        clean_print(stdout, p->output, p->n_output);
        printf("\n");
        if (!p->ended) command_note("%s: cut at the limit of new tokens (-max_new)", clean(p->id));
    }
}

static int ask(Model *m, EvalSet *s, Error *err) {
    TRY(open_pages(m, s, &given.model, &given.eval, given.file, NULL, err));
    Progress f = watch(s, m, NULL);
    given.eval.progress = &f;
    int bad = eval_reconstruct(s, m, &given.eval, err);
    progress_end(&f);
    if (!bad) print_answers(s);
    return bad;
}

static int run(const char *const *words, int n, Error *err) {
    (void)n;
    Model m = {0};
    EvalSet s = {0};
    given.eval.prompt = words[0];
    int bad = words[0][strspn(words[0], " \t\n")] ? ask(&m, &s, err) : error_set(err, "the question is empty");
    eval_free(&s);
    model_close(&m);
    return bad;
}

const Command command_ask = {
    .name = "ask",
    .what = "answer a question from a text's latents",
    .usage = "-m DIR -f FILE QUESTION: what the decoder answers that sees the text's latents alone",
    .example = "c3 ask -m runs/demo -f page.txt \"What is the code of Mira?\"",
    .word = "question",
    .options = options,
    .run = run,
};
