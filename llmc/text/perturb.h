// perturb.h: texts without language, made from a corpus. No language model could guess them, so what is reconstructed
// has come through the latents. With the unchanged corpus these are the kinds of text of the paper's Figure 4.
#ifndef LLMC_PERTURB_H
#define LLMC_PERTURB_H

#include <stddef.h>
#include <stdint.h>

#include "llmc/base/error.h"
#include "llmc/text/tokenizer.h"

typedef enum Perturb {
    PERTURB_NONE,
    PERTURB_RANDOM,  // letters and digits with equal chances, and about one blank in seven
    PERTURB_SHUFFLE, // the text's own characters (NFC) in random order
} Perturb;

// "none", "random" or "shuffle".
const char *perturb_name(Perturb kind);
int perturb_parse(Perturb *kind, const char *name, Error *err);

// The perturbed text, allocated, zero-terminated, NFC. It has at most as many tokens as the original, so that pages
// keep their bucket and compression ratio: a random text is drawn until it has them; a shuffled one, whose characters
// no longer form words, is cut. The same seed and text give the same result.
int perturb_text(char **out, size_t *n_out, const char *text, size_t n, Perturb kind, uint64_t seed,
                 const Tokenizer *tok, Error *err);

#endif
