// kinds.h: errors by kind of text: digits, punctuation, white space, the letters of each script; names and code.
#ifndef LLMC_KINDS_H
#define LLMC_KINDS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// A character is of exactly one kind before N_CHARACTER_KINDS. Scripts, not languages: English and French are both
// Latin. The two after it are read from the text around a character, and come on top.
typedef enum TextKind {
    KIND_DIGITS,      // of any script, fractions and Roman numerals among them
    KIND_PUNCTUATION, // and symbols: everything that is none of the others
    KIND_SPACE,
    KIND_LATIN, // letters
    KIND_GREEK,
    KIND_CYRILLIC,
    KIND_ARABIC,
    KIND_HAN,
    KIND_KANA,
    KIND_HANGUL,
    KIND_OTHER_LETTERS,
    N_CHARACTER_KINDS,
    // Letters of capitalised words inside a sentence: the first letter is a capital, another one is not, and the last
    // character before the word that is no blank is a letter, a digit or a comma on the same line. Without the first
    // words of sentences, words in capitals, and scripts that have none.
    KIND_NAMES = N_CHARACTER_KINDS,
    // All characters of lines that look like code: they end in `{`, `}`, `);` or `};`, or hold one of == != += := -> =>
    // :: && || () </ /* ` = `.
    KIND_CODE,
    N_KINDS
} TextKind;

typedef struct KindInfo {
    const char *key, *label; // in files; in tables
} KindInfo;
extern const KindInfo text_kinds[N_KINDS];

typedef struct KindErrors {
    size_t chars, lost, added; // of the original; of them with another or none in their place; too many in the output
} KindErrors;

// One entry a character of n bytes of UTF-8: bit k is set where it is of kind k. Allocated; *count: how many.
uint16_t *kinds_of(size_t *count, const char *text, size_t n);
// ops (n_ops): the alignment of metrics_align.
void kinds_count(KindErrors errors[N_KINDS], const char *reference, size_t n_reference, const char *output,
                 size_t n_output, const char *ops, size_t n_ops);

#ifdef __cplusplus
}
#endif
#endif
