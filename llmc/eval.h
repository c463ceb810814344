// eval.h: how well a model gives back pages it has not seen: reconstruction, metrics, controls, and the tables of the
// paper (buckets by length, accuracy by position).
//
// Everything is free-running greedy decoding but token_accuracy, which is teacher-forced: the share of supervised rows
// (text and end mark) whose label has the largest logit when the text before is the true one.
#ifndef LLMC_EVAL_H
#define LLMC_EVAL_H

#include <stddef.h>
#include <stdio.h>

#include "c3.h"
#include "generate.h"
#include "metrics.h"
#include "model.h"

// Controls show how much of a result comes through the latents.
typedef enum Control {
    CONTROL_SWAPPED,    // page i is decoded from the latents of page i+1 (the last from the first's)
    CONTROL_NO_LATENTS, // every page from the same latents: their mean over the pages (position by position, at the
                        // encoder's output); all that is left is what the decoder knows about such texts at large
    CONTROL_ZERO,       // every page from latents that are zero (the projector's bias remains)
    N_CONTROLS
} Control;

typedef struct EvalPage {
    char *id;                     // as in the file
    char *reference, *output;     // NFC, UTF-8, zero-terminated
    size_t n_reference, n_output; // bytes
    Tokens context, answer;       // what the encoder reads; what shall come back (answer.n == 0: the context)
    int output_tokens, ended;     // ended = 0: cut at the limit of new tokens
    int same_tokens;              // positions where output and reference tokens are equal
    int forced_rows, forced_correct;
    PageMetrics m;
    double control_precision[N_CONTROLS];
    int control_correct[N_CONTROLS]; // of forced_rows
} EvalPage;

typedef struct EvalSet {
    EvalPage *pages;
    int n;
    int empty, too_long; // left out: pages without a token; pages longer than the model takes
    int not_nfc;         // evaluated pages whose text differs from its NFC form, which is what is compared
} EvalSet;

typedef struct EvalOptions {
    int pages;   // decoded together; 0: as many as fit into a few gigabytes, at most 64
    int max_new; // new tokens of a page; 0: twice the page's tokens + 32, at most 4096
    int no_repeat_ngram;
    Sampling sampling;                              // of eval_reconstruct
    void (*token)(void *arg, int page, int32_t id); // of eval_reconstruct, see generator_listen; NULL: nobody
    void *token_arg;
    int maxlen; // longest decoder sequence; the model's own limit holds as well
    int limit;  // pages read at most; 0: all
} EvalOptions;

typedef struct EvalBucket {
    int from, to, pages; // text tokens from <= t < to
    double char_precision, word_precision, word_recall, compression;
} EvalBucket;

enum { EVAL_MAX_BUCKETS = 64 };

typedef struct EvalSummary {
    int pages, latents, cut;                     // cut: pages that did not end by themselves
    double char_precision, char_precision_micro; // mean over pages; 1 - all edits / all longer lengths
    double token_accuracy;                       // teacher-forced
    double token_match;                          // free-running: equal positions / reference tokens
    double exact_match, word_precision, word_recall, word_f1, bleu4, rouge_l, tokens_per_latent;
    double by_position[METRICS_SLICES]; // 1 - errors / characters of that twentieth of the pages, not below 0
    double control_precision[N_CONTROLS], control_accuracy[N_CONTROLS];
    EvalBucket buckets[EVAL_MAX_BUCKETS];
    int n_buckets;
} EvalSummary;

// Reads the pages of a file (see pages.h) and tokenizes them. A file without a usable page is an error.
int eval_read(EvalSet *s, const Model *m, const char *path, const EvalOptions *o, Error *err);
void eval_free(EvalSet *s);

// Limits of a model that can run eval_forced on these pages (inference).
C3Limits eval_limits(const EvalSet *s, const Model *m);

// Writes every page again and compares: output, output_tokens, ended, same_tokens, m. progress may be NULL.
int eval_reconstruct(EvalSet *s, const Model *m, const EvalOptions *o, void (*progress)(void *, int, int), void *arg,
                     Error *err);
// Teacher-forced rows: forced_rows, forced_correct; with controls also control_precision and control_correct.
// no_latents_text: what the decoder writes from the mean latents, malloc'ed (NULL without controls).
int eval_forced(EvalSet *s, Model *m, const EvalOptions *o, int controls, char **no_latents_text, Error *err);

// edges: n_edges ascending bucket borders in text tokens; n_edges = 0: round steps from the data, at most 8 buckets.
void eval_summarise(EvalSummary *out, const EvalSet *s, int latents, const int *edges, int n_edges);

// "600,700,800" or "600..1300:100" -> edges (room for EVAL_MAX_BUCKETS + 1). Returns how many, -1 on an error.
int eval_parse_edges(int *edges, const char *text, Error *err);

// What stands beside the numbers in the files.
typedef struct EvalFiles {
    const char *out; // folder, made if it is not there
    const char *model, *source, *dtype;
    const char *no_latents_text; // NULL: no controls were run
    EvalOptions options;
} EvalFiles;

// Writes OUT/eval.json (everything, for programs), eval.csv (a row a page), eval.txt (the table a person reads; also to
// stream, if not NULL), pages.jsonl (texts and reconstructions) and fox.json (for the Fox benchmark's own tool).
int eval_write(const EvalFiles *f, const EvalSet *s, const EvalSummary *sum, FILE *stream, Error *err);
// One page as a line of pages.jsonl: {"id","text","reconstruction","tokens","latents","char_precision"}, malloc'ed, no
// newline; NULL when memory ran out.
char *eval_page_json(const EvalPage *p, int latents);

#endif
