// log.h: what a run says while it runs. A line a step on stdout (when steps are fast, one every five seconds; on a
// terminal, also behind mpirun, a progress bar, and a line every minute), and OUT/log.jsonl, one object a line for
// every step:
//
//   {"step","time","loss","lr","grad_norm","pages","tokens","ms","tokens_per_second","mfu","memory_mb",
//    "peak_share","tflop_encoder","tflop_decoder","tflop_head"}                  a step
//   {"step","time","val_loss","val_token_accuracy"}                               a validation, and while training
//    "val_cut","val_cut_loss","val_cut_token_accuracy"     pages are cut to val_cut tokens, the same of pages cut so
//
// With -n_mix 8,16,32 a validation also has "val_n8_loss", "val_n8_token_accuracy" and so on: from 8 latents a page,
// the mean over the sets; "val_loss" is from all of them, here 32.
//
// Of pages with names (-data NAME=..., -val NAME=...) a step also has "data_pages_NAME" and "data_tokens_NAME" of every
// set, a validation "val_loss_NAME", "val_token_accuracy_NAME" (and of cut pages); those without a name are then the
// means over the sets. With -val_lm a validation has "val_lm_perplexity", of plain text without latents,
// "val_lm_ratio", to that at the start, and "val_lm_alarm": 1 when the ratio is above its bound, else 0.
//
// With several tasks (-mix, or pages with prompts of their own) a step has "loss_TASK", the mean over the rows of each
// (null where the step has none), and with -mix a validation is one of each task: "val_loss_TASK" (for pages with names
// "val_loss_NAME_TASK") ..., and those without are means by the weights of -mix.
//
// time is the wall clock's, ISO 8601 in UTC: "2026-01-31T12:00:00.123Z". mfu is the share of the data sheet's
// peak, null where none is known; peak_share that of the peak measured at the start. Both count the FLOPs the
// mathematics needs: true tokens, the head on supervised rows, nothing recomputed.
//
// The file is one consistent history, one line a step: on resume, what was written after the resumed step is dropped
// first (run_begin has set aside what another run wrote). Rank 0 has a Log, the others have NULL, with which every
// function does nothing.
#ifndef LLMC_LOG_H
#define LLMC_LOG_H

#include <stdint.h>

#include "llmc/base/error.h"
#include "llmc/model/config.h" // C3Task
#include "llmc/model/latents_mix.h"

#ifdef __cplusplus
extern "C" {
#endif

// A clock that only goes forward.
double log_seconds(void);

typedef struct LogSet {
    const char *name;
    double pages, tokens; // of the step
} LogSet;

typedef struct LogStep {
    int64_t step; // from 1
    double loss, lr, grad_norm;
    double pages, tokens;                            // of the whole step, all ranks; tokens of text
    double seconds;                                  // wall clock
    double flops_encoder, flops_decoder, flops_head; // of the step, all ranks; 0: unknown
    double sheet_flops;                              // data-sheet peak of all ranks together, per second; 0: unknown
    double peak_flops;                               // the same, measured; 0: not measured
    int is_gpu;                                      // an unknown data sheet is reported
    double memory_bytes;                             // of one rank
    LogSet *sets;                                    // (n_sets) with names
    int n_sets;
    int has_tasks;
    double task_loss[C3_N_TASKS]; // NAN: no page
} LogStep;

// Of one set of pages, or the mean over several.
typedef struct LogPages {
    const char *name;
    double loss, token_accuracy;
    double cut_loss, cut_token_accuracy; // where there is a cut
} LogPages;

typedef struct LogValidation {
    int64_t step;
    LogPages all;   // over all sets
    LogPages *sets; // (n_sets) with names
    int n_sets;
    int by_task;             // `all` is the mean over tasks by weight
    int no_pages;            // there is plain text alone
    uint32_t cut;            // tokens that training pages are cut to; 0: they are whole
    LogPages fewer[MIX_MAX]; // (n_fewer) from fewer latents, mean over the sets, whole pages
    int latents[MIX_MAX];    // (n_fewer) from how many
    int n_fewer;
    double perplexity, ratio; // of plain text, and to that at the start; 0: not measured
    double bound;             // of the ratio
} LogValidation;

typedef struct Log Log;

// folder: OUT, which exists. step: steps done before (0 for a new run); lines of later steps, and lines that were cut
// in the middle, are dropped. steps: the run's last step.
int log_open(Log **out, const char *folder, int64_t step, int64_t steps, Error *err);
void log_close(Log *log);

// A number that is not finite is written as null. A full disk costs lines, not the run: it is reported once, and no
// half line is left.
void log_step(Log *log, const LogStep *s);
void log_validation(Log *log, const LogValidation *v);
// A line for people: stdout alone.
void log_note(Log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));

#ifdef __cplusplus
}
#endif
#endif
