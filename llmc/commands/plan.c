// plan.c: c3 plan: memory, work and predicted times of a run with the trainer's options, without starting it.
#include "llmc/train/plan.h"

#include "llmc/commands/command.h"

static TrainOptions given;

static void options(OptionTable *t) { options_table(&given, t); }

static int check(Error *err) {
    given.plan = 1;
    return options_check(&given, err);
}

static int run(const char *const *words, int n, Error *err) {
    (void)words, (void)n;
    Dist one = dist_alone();
    int bad = plan_run(stdout, &given, &one, NULL, err);
    options_free(&given);
    return bad;
}

const Command command_plan = {
    .name = "plan",
    .what = "predict memory and time of a training run on given GPUs",
    .usage = "[the options of train_c3]: memory, work and predicted times of a run, without starting it",
    .example = "c3 plan -gpu h100 -plan_ranks 8 -b 2 -g 16",
    .options = options,
    .check = check,
    .run = run,
};
