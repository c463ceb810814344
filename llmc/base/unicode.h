// unicode.h: UTF-8, the five character classes that Qwen's pre-tokeniser distinguishes, and NFC.
//
// One byte for each code point holds its class and whether normalisation must look at it. Almost all text is NFC
// already: one pass proves it. Where it is not, only the stretch between two characters that cannot combine is
// normalised.
#ifndef LLMC_UNICODE_H
#define LLMC_UNICODE_H

#include <stddef.h>
#include <stdint.h>

typedef enum CharClass { CHAR_OTHER, CHAR_LETTER, CHAR_NUMBER, CHAR_SPACE, CHAR_NEWLINE } CharClass; // NEWLINE: \r, \n

enum {
    UNICODE_TABLE = 0x40000, // above: tags, variation selectors, private use: CHAR_OTHER, never changed by NFC
    CHAR_CLASS = 7,          // mask of the class in a table entry
    CHAR_MAY_CHANGE = 8      // flag: combines, decomposes, or is ordered among marks
};
extern uint8_t unicode_table[UNICODE_TABLE];

// Fills the table; call once, from any thread. Everything below but the UTF-8 functions needs it.
void unicode_init(void);

static inline unsigned unicode_entry(uint32_t c) { return c < UNICODE_TABLE ? unicode_table[c] : CHAR_OTHER; }

typedef enum CharCase {
    CASE_NONE,
    CASE_UPPER,
    CASE_LOWER,
    CASE_MARK
} CharCase; // UPPER: title case too; MARK: combines
// Needs no table.
CharCase unicode_case(uint32_t c);

// Decodes one character of valid UTF-8 and returns its length in bytes.
static inline unsigned utf8_read(uint32_t *c, const uint8_t *p) {
    if (p[0] < 0x80) return *c = p[0], 1;
    if (p[0] < 0xe0) return *c = (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu), 2;
    if (p[0] < 0xf0) return *c = (p[0] & 0xfu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu), 3;
    return *c = (p[0] & 7u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu), 4;
}

// The number of bytes of valid UTF-8 at the start of text, n if all of it is. Surrogates and over-long forms are not.
size_t utf8_valid(const char *text, size_t n);

// The length of the character at p (n > 0 bytes available); 0: not a character; -1: incomplete.
int utf8_length(const uint8_t *p, size_t n);

// The number of bytes of valid UTF-8 at the start that are certainly NFC, up to a character boundary; n if all of it
// is. `invalid` is set to 1 if broken UTF-8 stops it.
size_t unicode_nfc_check(int *invalid, const uint8_t *text, size_t n);

// NFC of valid UTF-8, allocated, with a zero byte after it. `known`: what unicode_nfc_check returned, or 0.
char *unicode_nfc(size_t *out_length, const uint8_t *text, size_t n, size_t known);

#endif
