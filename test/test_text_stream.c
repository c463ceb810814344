// test_text_stream.c: text in pieces: whole characters, the same in whatever pieces the bytes come.
#include <stdlib.h>

#include "../llmc/text/text_stream.h"
#include "check.h"

static uint64_t state = 88172645463325252u;
static unsigned next(unsigned n) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)(state >> 33) % n;
}

// Is it UTF-8 from its first to its last byte? From the definition: encode every character again and compare.
static int is_utf8(const char *text, size_t n) {
    const unsigned char *s = (const unsigned char *)text;
    for (size_t i = 0; i < n;) {
        int length = s[i] < 0x80 ? 1 : s[i] < 0xe0 ? 2 : s[i] < 0xf0 ? 3 : 4;
        unsigned c = length == 1 ? s[i] : s[i] & (0x3fu >> (length - 1));
        if (i + (size_t)length > n) return 0;
        for (int k = 1; k < length; k++) c = c << 6 | (s[i + (size_t)k] & 0x3fu);
        if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return 0;
        unsigned char again[4] = {(unsigned char)c};
        int n_again = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        static const unsigned char first[] = {0, 0, 0xc0, 0xe0, 0xf0};
        for (int k = n_again - 1; k > 0; k--, c >>= 6) again[k] = (unsigned char)(0x80 | (c & 0x3f));
        if (n_again > 1) again[0] = (unsigned char)(first[n_again] | c);
        if (n_again != length || memcmp(again, s + i, (size_t)length) != 0) return 0;
        i += (size_t)length;
    }
    return 1;
}

// All bytes at once, and in pieces of random lengths; every piece must be valid. Returns the length of the text.
static size_t both_ways(char *out, const char *bytes, size_t n, const char *what) {
    TextStream whole = {0}, cut = {0};
    size_t length = text_stream_add(&whole, out, bytes, n), at = 0;
    length += text_stream_end(&whole, out + length);
    char *pieces = malloc(3 * n + 64);
    for (size_t i = 0; i < n;) {
        size_t some = 1 + next(4), end = i + some < n ? i + some : n;
        size_t written = text_stream_add(&cut, pieces + at, bytes + i, end - i);
        CHECK(is_utf8(pieces + at, written), "%s: a piece is no UTF-8", what);
        at += written;
        i = end;
    }
    at += text_stream_end(&cut, pieces + at);
    CHECK(at == length && memcmp(pieces, out, at) == 0, "%s: pieces give another text", what);
    CHECK(is_utf8(out, length), "%s: no UTF-8", what);
    free(pieces);
    return length;
}

static void expect(const char *bytes, const char *text) {
    char out[200];
    size_t length = both_ways(out, bytes, strlen(bytes), text);
    CHECK(length == strlen(text) && memcmp(out, text, length) == 0, "expected \"%s\", found \"%.*s\"", text,
          (int)length, out);
}

#define BAD "\xef\xbf\xbd"

int main(void) {
    check_begin("characters of one to four bytes, and nothing");
    expect("", "");
    expect("plain", "plain");
    expect("h\xc3\xa9 \xe6\xbc\xa2\xe5\xad\x97 \xf0\x9f\x98\x80!",
           "h\xc3\xa9 \xe6\xbc\xa2\xe5\xad\x97 \xf0\x9f\x98\x80!");
    expect("\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80", "\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80");
    check_begin("bytes that are no character: one U+FFFD each, and what follows is kept");
    expect("a\x80z", "a" BAD "z");
    expect("a\xe6\xbcz", "a" BAD BAD "z");
    expect("\xe6\xe6\xbc\xa2", BAD "\xe6\xbc\xa2");
    expect("\xc0\x80", BAD BAD);                 // too long for its character
    expect("\xe0\x9f\xbf", BAD BAD BAD);         // the same
    expect("\xf0\x8f\xbf\xbf", BAD BAD BAD BAD); // the same
    expect("\xed\xa0\x80", BAD BAD BAD);         // a surrogate
    expect("\xf4\x90\x80\x80", BAD BAD BAD BAD); // beyond U+10FFFF
    expect("\xff\xfe\xf5", BAD BAD BAD);
    check_begin("a text that ends inside a character");
    expect("ok\xe6", "ok" BAD);
    expect("ok\xf0\x9f\x98", "ok" BAD BAD BAD);
    check_begin("nothing whole is held back");
    {
        TextStream s = {0};
        char out[32];
        CHECK(text_stream_add(&s, out, "a\xe6", 2) == 1 && out[0] == 'a', "the letter before");
        CHECK(text_stream_add(&s, out, "\xbc", 1) == 0, "half a character came out");
        CHECK(text_stream_add(&s, out, "\xa2", 1) == 3 && !memcmp(out, "\xe6\xbc\xa2", 3), "the character");
        CHECK(text_stream_add(&s, out, "\xe6z", 2) == 4 && !memcmp(out, BAD "z", 4), "what cannot become one");
        CHECK(text_stream_end(&s, out) == 0, "something is left");
    }
    check_begin("random bytes, and characters with random bytes among them");
    for (int round = 0; round < 20000; round++) {
        char bytes[64], out[3 * 64 + 9];
        size_t n = 0;
        for (unsigned i = next(12); i > 0; i--) {
            static const char *const some[] = {"a", "\xc3\xa9", "\xe6\xbc\xa2", "\xf0\x9f\x98\x80"};
            const char *c = some[next(4)];
            for (; *c && (next(8) || round % 2); c++) bytes[n++] = *c;
            if (next(4) == 0) bytes[n++] = (char)next(256);
        }
        both_ways(out, bytes, n, "random");
    }
    return check_done();
}
