// tasks.h: what is asked of the pages of a run. A page that has a prompt of its own is learned as it is; of the others
// -mix says how many are to be repeated, as in the paper, and how many continued.
#ifndef LLMC_TASKS_H
#define LLMC_TASKS_H

#include "llmc/base/error.h"
#include "llmc/data/shard.h"
#include "llmc/model/config.h"
#include "llmc/text/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct TaskMix {
    int given;                 // 0: no -mix: every page as it is
    double weight[C3_N_TASKS]; // of the drawn tasks; sum 1
    Tokens prompt;             // of C3_CONTINUE
} TaskMix;

// text: "repeat:0.7,continue:0.3"; NULL: no -mix. tok NULL: checks the text alone.
int tasks_open(TaskMix *m, const char *text, const Tokenizer *tok, Error *err);
void tasks_close(TaskMix *m);

// Makes this task of a page that has no prompt and whose answer is its context. To be continued, the context keeps the
// first 40 to 70 % of the tokens, by the random number, and the rest is the answer; one token alone is repeated.
void tasks_make(const TaskMix *m, ShardPage *page, C3Task task, uint64_t draw);
// The same with a task drawn by weight.
void tasks_draw(const TaskMix *m, ShardPage *page, uint64_t draw);
// The task of a page that has been made or has a prompt of its own.
C3Task tasks_of(const TaskMix *m, const ShardPage *page);
// Most tokens of prompt and answer that a drawn task asks for, of pages of up to `longest` tokens; 0: no prompt.
uint32_t tasks_longest(const TaskMix *m, uint32_t longest);

#ifdef __cplusplus
}
#endif
#endif
