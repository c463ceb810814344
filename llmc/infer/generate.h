// generate.h: decoding. The decoder writes a page from its latents, a token at a time, with a key/value cache;
// many pages are decoded together so that every product is a matrix, and a page that ends gives its place to the next.
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
// New tokens of a page of `tokens`: `asked`, or where that is 0 twice as many + 32, at most 4096, but always the page
// itself and its end mark. room: positions the decoder has left for them.
int generate_new_tokens(int tokens, int asked, int room);

// What a generator is made for: everything is allocated for these numbers at its creation.
typedef struct GeneratorLimits {
    int pages;   // decoded together
    int context; // tokens of the longest page the encoder reads
    int max_new; // new tokens of one page, the end mark included
} GeneratorLimits;

// One page to write.
typedef struct GeneratePage {
    const int32_t *context; // (n_context) what the encoder reads
    int n_context;
    const float *latents; // (N,D_enc) host, not NULL: in place of the encoder's output (before the projector)
    int max_new;          // 0: the generator's
    int32_t *ids;         // out (n): the text without the end mark, malloc'ed; generate_free() frees it
    int n;
    int ended; // out: 1 when the end mark or a stop token came, 0 when max_new did
} GeneratePage;

typedef struct Generator Generator;

// The limits to create a model with that only generators will use: they bring activations of their own.
C3Limits generator_model_limits(void);

// Borrows the model's weights, configuration and backend, which must outlive it; its activations and caches are its
// own, so that a model in training can be looked at between two steps. t must outlive it too.
int generator_create(Generator **out, const C3 *m, const Template *t, const GeneratorLimits *limits, Error *err);
void generator_free(Generator *g);
// How tokens are chosen from now on; greedy until it is called. s->stop must outlive the generator's use.
void generator_sampling(Generator *g, const Sampling *s);
// From now on told of every token of a text as soon as it is chosen: page counts in the array given to generate_pages.
// NULL: nobody is.
void generator_listen(Generator *g, void (*token)(void *arg, int page, int32_t id), void *arg);
// Device bytes of a generator; -1 when memory ran out.
int generator_memory(size_t *bytes, const C3 *m, const Template *t, const GeneratorLimits *limits);

// Writes all pages, the longest contexts first, as many together as the generator was made for. no_repeat_ngram = n >
// 0: no n tokens in a row stand twice in prompt and text together, as in Hugging Face's generate (latents count as
// `<imgpad>` tokens). A page's text does not depend on the pages beside it: on the CPU bit for bit, elsewhere but for
// the rounding of the matrix products. progress, if not NULL, is told of each page that is done. -1: a page longer than
// the generator was made for, or out of memory; then no page has ids.
int generate_pages(Generator *g, GeneratePage *pages, int n, int no_repeat_ngram,
                   void (*progress)(void *arg, int done, int n), void *arg, Error *err);
void generate_free(GeneratePage *pages, int n);

// The latents of one page, (N,D_enc) fp32 on the host: what GeneratePage.latents takes.
int generate_latents(Generator *g, float *latents, const int32_t *context, int n_context, Error *err);

// The text of ids as valid UTF-8 (text_stream.h while they come), malloc'ed and zero-terminated; bytes that are no
// UTF-8 (a model may end inside a character) become U+FFFD. NULL when memory ran out.
char *generate_text(const Tokenizer *tok, const int32_t *ids, int n, size_t *length);

#ifdef __cplusplus
}
#endif
#endif
