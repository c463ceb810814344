// resume.c: see resume.h.
#include "llmc/train/resume.h"

#include <stdlib.h>
#include <string.h>

#include "llmc/train/run_writer.h" // run_resumable

int resume_folder(char **folder, const TrainOptions *o, Error *err) {
    *folder = NULL;
    if (!strcmp(o->resume, "no")) return 0;
    if (!strcmp(o->resume, "auto")) return run_resumable(folder, o->out, err);
    *folder = strdup(o->resume);
    return *folder ? 0 : error_set(err, "out of memory");
}

static int fits(TrainState *saved, char **notes, const char *folder, const TrainOptions *o, const Option *table,
                int n_options, int64_t pages_a_step, const Corpus *corpus, Error *err) {
    int force = (int)o->resume_force;
    if (memcmp(saved->tokenizer, tokenizer_fingerprint(corpus->tokenizer), sizeof saved->tokenizer) != 0)
        return error_set(err, "%s: was trained with another tokenizer (hint: -tok FILE)", folder);
    if (options_compare(notes, saved->settings, table, n_options, pages_a_step, force, err) != 0)
        return error_prefix(err, "%s", folder);
    if (saved->loader.dataset == corpus->train.identity) return 0;
    if (!force)
        return error_set(err, "%s: the training pages have changed since (hint: -resume_force starts them anew)",
                         folder);
    saved->loader.dataset = corpus->train.identity;
    saved->loader.position = 0;
    return 0;
}

int resume_load(TrainState *state, char **notes, const CheckpointJob *job, const char *folder, const TrainOptions *o,
                const Option *table, int n_options, int64_t pages_a_step, const Corpus *corpus, Error *err) {
    *notes = NULL;
    TRY(checkpoint_read_state(state, folder, err));
    if (fits(state, notes, folder, o, table, n_options, pages_a_step, corpus, err) == 0 &&
        checkpoint_load(job, folder, err) == 0)
        return 0;
    free(*notes);
    *notes = NULL;
    train_state_free(state);
    return -1;
}
