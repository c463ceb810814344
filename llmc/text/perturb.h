// perturb.h: texts with no language in them, made from a corpus: what comes back of them has come through the latents,
// for no language model could guess it. With the corpus as it is they are the kinds of text of the paper's Figure 4.
#ifndef LLMC_PERTURB_H
#define LLMC_PERTURB_H

#include <stddef.h>
#include <stdint.h>

#include "llmc/base/error.h"
#include "llmc/text/tokenizer.h"

typedef enum Perturb {
    PERTURB_NONE,
    PERTURB_RANDOM,  // letters and digits drawn with equal chances, a blank in place of about one in seven
    PERTURB_SHUFFLE, // the text's own characters (NFC) in random order
} Perturb;

// "none", "random" or "shuffle".
const char *perturb_name(Perturb kind);
int perturb_parse(Perturb *kind, const char *name, Error *err);

// The perturbed text, malloc'ed and zero-terminated, NFC. It has at most as many tokens as the text has, so that pages
// keep their bucket and their compression ratio: a random text is drawn until it has them, a shuffled one, whose
// characters no longer make words, is cut. seed: same seed and text, same result.
int perturb_text(char **out, size_t *n_out, const char *text, size_t n, Perturb kind, uint64_t seed,
                 const Tokenizer *tok, Error *err);

#endif
