// shared.h: options and steps that several commands share.
#ifndef LLMC_COMMANDS_SHARED_H
#define LLMC_COMMANDS_SHARED_H

#include "llmc/eval/eval.h"
#include "llmc/infer/compress.h" // ModelPlace
#include "llmc/commands/command.h"

// -m and -tok.
void add_model_options(OptionTable *t, ModelPlace *m);
// -device, -dtype and -threads; sets their defaults.
void add_machine_options(OptionTable *t, ModelPlace *m);
// -max_new, -no_repeat_ngram and -batch.
void add_decoding_options(OptionTable *t, int *max_new, int *no_repeat_ngram, int *batch);
// All of these with -maxlen and -limit, for commands that read pages.
void add_eval_options(OptionTable *t, ModelPlace *m, EvalOptions *o);

// Standard input may be a terminal whose user does not know that text is expected.
void note_waiting(const char *path);

// Says that the model was not trained with pages of this number of latents.
void warn_latents(int latents);

// Opens the model, reads the pages and loads the weights for them. out: the folder of the results, when eval_forced is
// to run as well; else NULL. *m and *s are to be closed after an error, too.
int open_pages(Model *m, EvalSet *s, const ModelPlace *place, const EvalOptions *o, const char *path, const char *out,
               Error *err);

// On a terminal: a bar or, where `text` is a terminal as well and there is one page, the page as it is written.
Progress watch(const EvalSet *s, const Model *m, FILE *text);

#endif
