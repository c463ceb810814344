// eval.h: how well a model reconstructs held-out pages: decoding, metrics, controls, and the paper's tables (by length,
// by position). The room eval/ uses infer/ and the rooms above it.
//
// Decoding is free-running and greedy. Teacher-forced are token_accuracy, loss and perplexity: over the supervised rows
// (the text's tokens and the end mark), each predicted from the true text before it.
//
// OUT/eval.json, the file other programs read. Accuracies and precisions are fractions of 1, losses nats a token.
//   "model" "source" "dtype" "perturb" "seed" "latents" "pages"  what was evaluated; perturb: none, random or shuffle
//   MEANS         "char_precision" "char_precision_micro" "exact_match" "token_match" "token_accuracy" "loss"
//                 "perplexity"
//   "tokens_per_latent"                                          text tokens / latents, mean over pages
//   "by_position" [20]  "late_errors"   accuracy in each twentieth of a page; share of all errors in the last quarter
//   "buckets"     [{"from","to","pages","compression", MEANS, "by_position" [20]}]; without pages: char_precision and
//                 compression are null, the rest is left out
//   "published"   [{"name","latents","buckets":[{"from","to","precision","compression" or null}]}] (baselines.h)
//   "decoder_alone" {"loss","perplexity","token_accuracy","uniform_perplexity","what"}: see eval_forced(); uniform: of
//                 a guess with equal chances, the vocabulary's size
//   "control_swapped_latents" "control_no_latents" "control_zero_latents"
//                 {"char_precision","token_accuracy","loss","perplexity","what"[,"text"]}; left out when not run
//   "by_kind"     [{"kind","pages","characters","lost","added","rate","low","high","few"}]: EvalKind, of the kinds
//                 (kinds.h) that occur; rate = lost / characters
//   "confidence"  {"exact","wrong","auroc","least_auroc","rank_correlation","few","bins":
//   [{"from","to","pages","exact",
//                 "low","high","expected","char_precision"}]}: EvalConfidence; few: fewer than 10 exact or wrong pages
//   "task"        "continue" (-task); else left out
//   "worst"       [{"page","id","tokens","char_precision","edit_distance"}] worst first; page: line of pages.jsonl,
//                 from 0
//   "pages_cut_at_max_new" "pages_not_nfc" "left_out_empty" (without text) "left_out_too_long"
//   "left_out_too_long_tokens" "left_out_of_tokens"  counts; the last: tokens of all pages with text
//   "max_new" "no_repeat_ngram"                                  the options
//   "definitions" {key: what it means}
// OUT/pages.jsonl, one page per line, in the order of the file; of a page with a prompt of its own "text" is the answer
// that is expected, "reconstruction" the one that was written:
//   "id" ["prompt"] "text" "reconstruction" "tokens" "latents" "char_precision" "mean_log_prob" "least_log_prob"
//   "edit_distance" "exact" "output_tokens" "ended"
//                                  the reconstruction as the model wrote it; NFC forms are compared. Of ln p of the
//                                  tokens it wrote, the end mark included: the mean, the least
//   "by_kind"                      {kind: [characters, lost, added]} of the kinds that occur
//   "same_tokens"                  positions where output and original have the same token
//   "forced_rows" "forced_correct" "loss"  teacher-forced: tokens and end mark; right ones; mean of -ln p
//   "decoder_alone"                {"correct","loss"} of the same rows
//   "control_..."                  {"char_precision","correct","loss"}, as in eval.json
// scripts/score.py (word metrics, tables) and scripts/report.py work from these two files.
#ifndef LLMC_EVAL_H
#define LLMC_EVAL_H

#include <stddef.h>
#include <stdio.h>

#include "llmc/model/cascade.h"
#include "llmc/infer/progress.h"
#include "llmc/infer/generate.h"
#include "llmc/data/left_out.h"
#include "llmc/text/metrics.h"
#include "llmc/infer/model.h"
#include "llmc/text/perturb.h"

// What the decoder is given in place of a page. The last three, the controls, show how much of a result comes through
// the latents.
typedef enum EvalCondition {
    EVAL_OWN,     // the page's own latents
    EVAL_ALONE,   // none: the decoder alone, see eval_forced()
    EVAL_SWAPPED, // the latents of page i+1 (for the last page the first's)
    EVAL_MEAN,    // the mean latents of all pages (position by position, at the encoder's output): what is left is what
                  // the decoder knows about such texts in general
    EVAL_ZERO,    // latents that are zero (the projector's bias remains)
    N_CONDITIONS
} EvalCondition;

typedef struct EvalConditionInfo {
    const char *key, *what;      // in both files
    const char *label;           // in the printed table
    const char *pass, *decoding; // phases (progress.h)
} EvalConditionInfo;
extern const EvalConditionInfo eval_conditions[N_CONDITIONS];

// The supervised rows of one page under one condition.
typedef struct EvalForced {
    double loss;           // sum over the rows of -log p(label), nats
    int correct;           // rows whose label has the largest logit
    double char_precision; // of the decoded text; controls only
} EvalForced;

typedef struct EvalPage {
    char *id;                        // as in the file
    char *reference, *output;        // NFC, UTF-8, zero-terminated
    size_t n_reference, n_output;    // bytes
    char *written;                   // what the model wrote, if that is not in NFC; else NULL
    Tokens context, answer;          // what the encoder reads; what is to come back (answer.n == 0: the context)
    char *prompt_text;               // of a page with a prompt; else NULL
    Tokens prompt;                   // what is asked; none: to repeat the text
    int windows;                     // in which the encoder reads it
    int output_tokens, ended;        // ended = 0: cut at the limit of new tokens
    double log_prob, least_log_prob; // of the output_tokens + ended tokens that were chosen, see GeneratePage
    int same_tokens;                 // positions where output and reference tokens are equal
    int forced_rows;                 // tokens of the answer + 1
    EvalForced forced[N_CONDITIONS];
    PageMetrics m;
} EvalPage;

typedef struct EvalSet {
    EvalPage *pages;
    int n;
    int without_text; // pages left out
    LeftOut too_long; // pages longer than the model takes: left out; tokens of the answers
    int not_nfc;      // evaluated pages whose text differs from its NFC form, which is what is compared
} EvalSet;

typedef struct EvalOptions {
    int pages;   // decoded together, as GeneratorLimits.together
    int max_new; // new tokens of a page; 0: what generate_new_tokens chooses
    int no_repeat_ngram;
    Sampling sampling;  // of eval_reconstruct
    Progress *progress; // may be NULL
    int maxlen;         // longest decoder sequence, besides the model's own limit
    int limit;          // most pages that are read; 0: all
    int skip;           // pages longer than the model takes: 1 leaves them out and counts them, 0 refuses them
    Perturb perturb;    // how texts are changed first; the answer is then the context, and to be repeated
    const char *prompt; // not NULL: in place of the pages' own
    C3Task task;        // C3_CONTINUE: of pages without a prompt, as a validation of that task makes them
    uint64_t seed;      // of the perturbation
} EvalOptions;

// Means over pages, unless noted.
typedef struct EvalMeans {
    int pages, cut;                              // cut: at the limit of new tokens
    double char_precision, char_precision_micro; // micro: 1 - all edits / all longer lengths
    double exact_match;
    double token_match;                 // free-running: equal positions / reference tokens, over all tokens
    double token_accuracy, loss;        // teacher-forced, over all rows
    double compression;                 // text tokens per latent
    double by_position[METRICS_SLICES]; // 1 - errors / characters of that twentieth of the pages, not below 0
    double late_errors;                 // errors in the last quarter of the pages / all errors; 0 without errors
} EvalMeans;

typedef struct EvalBucket {
    int from, to; // text tokens from <= t < to
    EvalMeans m;
} EvalBucket;

// Errors of one kind of text (kinds.h), over all pages.
typedef struct EvalKind {
    int pages;                 // that have such characters
    double chars, lost, added; // as KindErrors
    // 95 % interval of lost / chars: Wilson's, of as many independent characters as say as much as these do (chars /
    // design effect): errors of one page come together
    double low, high;
    int few; // fewer than EVAL_FEW_CHARS characters or EVAL_FEW_PAGES pages: the interval may be far too narrow
} EvalKind;

enum { EVAL_FEW_CHARS = 100, EVAL_FEW_PAGES = 10, EVAL_BINS = 10 };

// Neighbouring pages, sorted by mean log probability.
typedef struct EvalBin {
    int pages, exact;
    double from, to;       // mean ln p of the first and the last of them
    double low, high;      // Wilson's 95 % interval of exact / pages
    double expected;       // mean of p(page) = exp(log_prob), 0 where the page was cut: the share of exact pages if the
                           // decoder knew itself
    double char_precision; // mean
} EvalBin;

// Can one tell without the original that a page came back wrong?
typedef struct EvalConfidence {
    int exact, wrong; // pages
    // Of all pairs of an exact page and a wrong one the share in which the exact one is the more confident, by its mean
    // and by its least ln p (area under the ROC curve; 0.5: confidence says nothing); NaN without pairs.
    double auroc, least_auroc;
    double rank_correlation; // Spearman's, of mean ln p and char_precision; NaN where all pages are equal
    EvalBin bins[EVAL_BINS]; // least confident first; of EVAL_FEW_PAGES pages at least, where that leaves two
    int n_bins;
} EvalConfidence;

enum { EVAL_MAX_BUCKETS = 64, EVAL_WORST = 10 };

typedef struct EvalSummary {
    int latents;
    EvalMeans all;
    struct {
        double loss, accuracy; // per row
        double char_precision; // controls only
    } conditions[N_CONDITIONS];
    EvalBucket buckets[EVAL_MAX_BUCKETS];
    int n_buckets;
    int worst[EVAL_WORST]; // (n_worst) pages with errors, lowest char_precision first
    int n_worst;
    EvalKind kinds[N_KINDS];
    EvalConfidence confidence; // of at least one page
} EvalSummary;

// Reads the pages of a file (see pages.h) and tokenizes them. A file without a usable page is an error.
int eval_read(EvalSet *s, const Model *m, const char *path, const EvalOptions *o, Error *err);
void eval_free(EvalSet *s);

// Limits of a model that can run eval_forced on these pages (inference).
C3Limits eval_limits(const EvalSet *s, const Model *m);

// Announces the phases of eval_reconstruct and eval_forced, with their likely numbers of tokens, to o->progress.
void eval_expect(const EvalSet *s, const Model *m, const EvalOptions *o, int controls);
// Decodes every page and compares: output, output_tokens, ended, same_tokens, m.
int eval_reconstruct(EvalSet *s, const Model *m, const EvalOptions *o, Error *err);
// Teacher-forced rows: forced_rows and forced, of the first two conditions or, with controls, of all.
// EVAL_ALONE: the decoder's sequence without its N latent positions (`<img></img>` is empty). Its perplexity says how
// well the decoder's language model predicts the text by itself. No decoder was trained on an empty `<img></img>`; one
// trained from scratch has never seen text without latents, and may do far worse than a uniform guess.
// no_latents_text: what the decoder writes from the mean latents, malloc'ed (NULL without controls).
int eval_forced(EvalSet *s, Model *m, const EvalOptions *o, int controls, char **no_latents_text, Error *err);

// edges: n_edges ascending bucket borders in text tokens; n_edges = 0: the paper's (600, 700, ... 1300) if more than
// half of the pages lie between them, else round numbers that fit the data, at most 8 buckets.
void eval_summarise(EvalSummary *out, const EvalSet *s, int latents, const int *edges, int n_edges);

// Parts of eval_summarise.
void eval_by_kind(EvalKind kinds[N_KINDS], const EvalSet *s);
void eval_confidence(EvalConfidence *c, const EvalSet *s);

// "600,700,800" or "600..1300:100" -> edges (room for EVAL_MAX_BUCKETS + 1). Returns how many; -1: an error.
int eval_parse_edges(int *edges, const char *text, Error *err);

// What the files say of the evaluation, besides its numbers.
typedef struct EvalFiles {
    const char *out; // folder, made if missing
    const char *model, *source, *dtype;
    int vocab;                   // rows of the decoder's vocabulary
    const char *no_latents_text; // NULL: no controls were run
    EvalOptions options;
} EvalFiles;

// Creates the folder and checks that a file can be written there, before hours of decoding.
int eval_try_folder(const char *out, Error *err);
// Writes OUT/eval.json and OUT/pages.jsonl, both or none: both are written before either is renamed.
int eval_write(const EvalFiles *f, const EvalSet *s, const EvalSummary *sum, Error *err);
// Prints the results as tables.
void eval_print(FILE *out, const EvalFiles *f, const EvalSet *s, const EvalSummary *sum);
double eval_mean_log_prob(const EvalPage *p); // a token
int eval_few_pairs(const EvalConfidence *c);  // too few to trust auroc
// Prints the precision by length of the same pages from several numbers of latents, beside the paper's where it has
// one.
void eval_print_latents(FILE *out, const EvalSummary *sums, int n);
// Page i as a line of pages.jsonl, malloc'ed, no newline. f NULL: only the keys up to least_log_prob.
char *eval_page_json(const EvalSet *s, int i, int latents, const EvalFiles *f);

// ---- shared by the files of this room ------------------------------------------------------------------------------

const Tokens *eval_answer(const EvalPage *p); // what is to come back
// One page as the model takes it, with the context of another or its own; its rows. prompt: the answer's.
ShardPage eval_shard_page(const EvalPage *context, const EvalPage *answer);
BatchRows eval_page_rows(const EvalPage *p, const Model *m);
int eval_new_tokens(const EvalPage *p, const Model *m, const EvalOptions *o);
// (n) requests for generate_pages, page i with the context of page i + shift; malloc'ed.
GeneratePage *eval_requests(const EvalSet *s, int shift, const Model *m, const EvalOptions *o);
double eval_tokens(const EvalSet *s);                                         // of the answers and their end marks
int eval_longest_new(const EvalSet *s, const Model *m, const EvalOptions *o); // most new tokens of a page
int eval_generator(Generator **g, const EvalSet *s, const Model *m, const EvalOptions *o, Error *err);
// Whether a condition other than EVAL_OWN was run and means something: a single page cannot be swapped, and the mean is
// its own latents.
int eval_condition_ran(const EvalFiles *f, const EvalSet *s, EvalCondition condition);
// Index of the bucket among the published ones (baselines.h); -1: none of them.
int eval_published_bucket(const EvalBucket *k);

#endif
