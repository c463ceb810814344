// generate.h: decoding. The decoder writes a page from its latents, a token at a time, with a key/value cache; pages
// are decoded in batches, and a page that ends gives its place to the next.
#ifndef LLMC_GENERATE_H
#define LLMC_GENERATE_H

#include <stdint.h>

#include "llmc/model/batch.h"
#include "llmc/model/cascade.h"
#include "llmc/base/error.h"
#include "llmc/infer/sample.h"
#include "llmc/text/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

// The released code's limit of new tokens.
enum { GENERATE_MAX_NEW = 4096 };
// Most new tokens of a page of `tokens` tokens: `asked`, or if that is 0 twice as many + 32, at most 4096, but always
// enough for the page itself and its end mark. room: positions the decoder has for them.
int generate_new_tokens(int tokens, int asked, int room);

// What a generator is made for: everything is allocated for these numbers at its creation.
typedef struct GeneratorLimits {
    int pages;    // in all
    int together; // pages decoded together; 0: as many as fit into 4 GB of caches and activations, at most 64
    int context;  // tokens of the longest page the encoder reads
    int slots;    // latents of one page, in all its windows; 0: those of a page of `context` tokens
    int prompt;   // tokens of the longest prompt of a page's own; 0: there is none
    int max_new;  // new tokens of one page, the end mark included
} GeneratorLimits;

// One page to write.
typedef struct GeneratePage {
    const int32_t *context; // (n_context) what the encoder reads
    int n_context;
    const float *latents;  // (slots,D_enc) host, not NULL: in place of the encoder's output (before the projector)
    int slots;             // of these; 0: N
    const int32_t *prompt; // (n_prompt) what is asked; none: to repeat the text
    int n_prompt;
    int max_new;  // 0: the generator's
    int32_t *ids; // out (n): the text without the end mark; generate_free() frees it
    int n;
    int ended; // out: 1: by the end mark or a stop token; 0: cut at max_new
    // out, after generator_confidence(), else 0: ln p of the n + ended tokens that were chosen, each given the latents
    // and the tokens before it; p is softmax(logits), whatever the temperature; -Inf where
    // logits are NaN
    double log_prob, least_log_prob; // the sum of them; the least
} GeneratePage;

typedef struct Generator Generator;

// Told of pages done out of n.
typedef void PagesDone(void *arg, int done, int n);

// The limits of a model that only generators use: they have activations of their own.
C3Limits generator_model_limits(void);

// Borrows the model's weights, configuration and backend, and t, which must outlive it. Activations and caches are its
// own, so that a model can generate between two steps of its training.
int generator_create(Generator **out, const C3 *m, const Template *t, const GeneratorLimits *limits, Error *err);
void generator_free(Generator *g);
// How tokens are chosen from now on (default: greedy). s->stop must outlive the generator's use.
void generator_sampling(Generator *g, const Sampling *s);
// From now on pages are given their log probabilities: one cross entropy more for each step, and the same tokens.
void generator_confidence(Generator *g);
// token, if not NULL, is told of every token as soon as it is chosen; page: its index in generate_pages' array.
void generator_listen(Generator *g, void (*token)(void *arg, int page, int32_t id), void *arg);

// Writes all pages, the longest contexts first. no_repeat_ngram = n > 0: no n-gram occurs twice in prompt and text, as
// in Hugging Face's generate (latents count as `<imgpad>` tokens). A page's text does not depend on the pages beside
// it: on the CPU bit for bit, elsewhere but for rounding in matrix products. progress, if not NULL, is told when pages
// are done. The error: a page longer than the generator was made for; then no page is written.
int generate_pages(Generator *g, GeneratePage *pages, int n, int no_repeat_ngram, PagesDone *progress, void *arg,
                   Error *err);
void generate_free(GeneratePage *pages, int n);

// A page whose text is still to be written: its only supervised row is the last of the prompt.
ShardPage generate_prompt(const int32_t *context, int n);

// The text of ids as valid UTF-8, malloc'ed and zero-terminated (text_stream.h: piece by piece); invalid bytes (a model
// may stop inside a character) become U+FFFD.
char *generate_text(const Tokenizer *tok, const int32_t *ids, int n, size_t *length);
// The text of a page that was written, in NFC.
int generate_nfc(char **text, size_t *length, const Tokenizer *tok, const GeneratePage *page, Error *err);

#ifdef __cplusplus
}
#endif
#endif
