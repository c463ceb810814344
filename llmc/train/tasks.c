// tasks.c: see tasks.h.
#include "llmc/train/tasks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/random.h"

static const char continue_prompt[] = "Continue the text: ";

// What part of a page that is to be continued the encoder reads.
static const double least_share = 0.4, most_share = 0.7;

static int parse(TaskMix *m, const char *text, Error *err) {
    double sum = 0;
    for (const char *at = text; at;) {
        size_t n = strcspn(at, ":,");
        char *end = NULL;
        int task = 0;
        while (task < C3_INSTRUCT && (strlen(c3_task_names[task]) != n || strncmp(at, c3_task_names[task], n) != 0))
            task++;
        double weight = at[n] == ':' ? strtod(at + n + 1, &end) : 0;
        if (task == C3_INSTRUCT)
            return error_set(err, "-mix %s: expected repeat or continue before each weight, found \"%.*s\"", text,
                             (int)n, at);
        if (!end || end == at + n + 1 || (*end && *end != ',') || !(weight > 0) || weight > 1e9)
            return error_set(err, "-mix %s: %s: expected a weight above 0 and up to 1e9, as in %s:0.5", text,
                             c3_task_names[task], c3_task_names[task]);
        if (m->weight[task] > 0) return error_set(err, "-mix %s: %s stands there twice", text, c3_task_names[task]);
        m->weight[task] = weight;
        sum += weight;
        at = *end ? end + 1 : NULL;
    }
    for (int i = 0; i < C3_N_TASKS; i++) m->weight[i] /= sum;
    return 0;
}

int tasks_open(TaskMix *m, const char *text, const Tokenizer *tok, Error *err) {
    *m = (TaskMix){.given = text != NULL};
    if (!text) return 0;
    TRY(parse(m, text, err));
    return tok ? tokenizer_encode(tok, &m->prompt, continue_prompt, strlen(continue_prompt), err) : 0;
}

void tasks_close(TaskMix *m) {
    tokens_free(&m->prompt);
    *m = (TaskMix){0};
}

static double fraction(uint64_t draw) { return (double)(draw >> 11) * 0x1p-53; }

static int is_plain(const ShardPage *page) {
    return page->prompt_length == 0 && page->answer == page->context && page->answer_length == page->context_length;
}

void tasks_make(const TaskMix *m, ShardPage *page, C3Task task, uint64_t draw) {
    if (task != C3_CONTINUE || !is_plain(page) || page->context_length < 2) return;
    const double share = least_share + (most_share - least_share) * fraction(draw);
    uint32_t all = page->context_length, read = (uint32_t)(share * all);
    page->context_length = read ? read : 1;
    page->answer = page->context + page->context_length;
    page->answer_length = all - page->context_length;
    page->prompt = (const uint32_t *)m->prompt.ids;
    page->prompt_length = (uint32_t)m->prompt.n;
}

void tasks_draw(const TaskMix *m, ShardPage *page, uint64_t draw) {
    double at = fraction(draw);
    int task = 0;
    while (task < C3_INSTRUCT - 1 && at >= m->weight[task]) at -= m->weight[task++];
    tasks_make(m, page, (C3Task)task, random_mix(draw));
}

C3Task tasks_of(const TaskMix *m, const ShardPage *page) {
    if (!page->prompt_length) return C3_REPEAT;
    return page->prompt == (const uint32_t *)m->prompt.ids ? C3_CONTINUE : C3_INSTRUCT;
}

uint32_t tasks_longest(const TaskMix *m, uint32_t longest) {
    if (!(m->weight[C3_CONTINUE] > 0)) return 0;
    return (uint32_t)m->prompt.n + (uint32_t)ceil((1 - least_share) * longest) + 1;
}
