// extract.c: c3 extract: one stack of a C3 model as a plain Qwen2 folder.
#include "llmc/weights/extract.h"

#include <stdlib.h>
#include <string.h>

#include "llmc/base/clean.h"
#include "llmc/commands/command.h"

static struct { const char *model, *part, *out; } given;

static void options(OptionTable *t) {
    const Option rows[] = {
        {.help = "One stack as a plain Qwen2 folder"},
        {OPTION_TEXT("m", &given.model, NULL, "DIR", "a C3 checkpoint, or a run's folder (its newest step)"),
         .required = 1},
        {OPTION_CHOICE("part", &given.part, NULL, "decoder|encoder", "which of the two"), .required = 1},
        {OPTION_TEXT("o", &given.out, NULL, "OUT", "the new folder"), .required = 1},
        {0},
    };
    cli_add(t, rows);
}

static int run(const char *const *words, int n, Error *err) {
    (void)words, (void)n;
    char *notes;
    ParamOwner owner = strcmp(given.part, "encoder") == 0 ? OWNER_ENCODER : OWNER_DECODER;
    TRY(extract_stack(&notes, given.model, owner, given.out, err));
    printf("%s: the %s of %s; with it %s\n", clean(given.out), given.part, clean(given.model), clean(notes));
    free(notes);
    return 0;
}

const Command command_extract = {
    .name = "extract",
    .what = "write a model's encoder or decoder as a plain Qwen2 folder",
    .usage = "-m DIR -part decoder|encoder -o OUT: a stack that any Qwen2 program loads",
    .example = "c3 extract -m runs/demo -part decoder -o models/demo-decoder",
    .options = options,
    .run = run,
};
