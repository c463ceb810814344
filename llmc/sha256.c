// sha256.c: see sha256.h.
#include "sha256.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

enum { BLOCK = 64 };

// The first 32 bits of the fractions of the cube roots of the first 64 primes.
static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

// ---- portable ------------------------------------------------------------------------------------------------------

static uint32_t turn(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void plain_block(uint32_t state[8], const uint8_t *p) {
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t b = turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + a + w[i - 7] + b;
    }
    memcpy(s, state, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]), most = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
        uint32_t t = s[7] + (turn(s[4], 6) ^ turn(s[4], 11) ^ turn(s[4], 25)) + choice + K[i] + w[i];
        uint32_t u = (turn(s[0], 2) ^ turn(s[0], 13) ^ turn(s[0], 22)) + most;
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += t;
        s[0] = t + u;
    }
    for (int i = 0; i < 8; i++) state[i] += s[i];
}

// ---- x86's SHA extensions ------------------------------------------------------------------------------------------
// The instructions keep a b e f in one register and c d g h in the other, the first letter in the highest lane; one of
// them does two rounds.

#if defined(__x86_64__)
static int has_instructions(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSE4_1)) return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}

__attribute__((target("sha,sse4.1"))) static void sha_blocks(uint32_t state[8], const uint8_t *p, size_t n) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203); // words are big-endian
    __m128i abcd = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xb1);
    __m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1b);
    __m128i abef = _mm_alignr_epi8(abcd, efgh, 8), cdgh = _mm_blend_epi16(efgh, abcd, 0xf0);
    for (; n > 0; n--, p += BLOCK) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4]; // 16 words of the schedule, those of rounds 4j..4j+15
        for (int i = 0; i < 4; i++) w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(p + 16 * i)), swap);
#pragma GCC unroll 16
        for (int j = 0; j < 16; j++) {
            __m128i *now = &w[j % 4], next = w[(j + 1) % 4], after = w[(j + 2) % 4], last = w[(j + 3) % 4];
            __m128i words = _mm_add_epi32(*now, _mm_loadu_si128((const __m128i *)(K + 4 * j)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, words);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(words, 0x0e));
            __m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(*now, next), _mm_alignr_epi8(last, after, 4));
            *now = _mm_sha256msg2_epu32(sum, last);
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    abcd = _mm_shuffle_epi32(abef, 0x1b); // a b e f
    efgh = _mm_shuffle_epi32(cdgh, 0xb1); // g h c d
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(abcd, efgh, 0xf0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(efgh, abcd, 8));
}
#else
static int has_instructions(void) { return 0; }
static void sha_blocks(uint32_t state[8], const uint8_t *p, size_t n) {
    for (; n > 0; n--, p += BLOCK) plain_block(state, p);
}
#endif

// ---- any number of bytes -------------------------------------------------------------------------------------------

static void blocks(Sha256 *s, const uint8_t *p, size_t n) {
    if (!s->plain) {
        sha_blocks(s->state, p, n);
        return;
    }
    for (; n > 0; n--, p += BLOCK) plain_block(s->state, p);
}

void sha256_init(Sha256 *s) {
    // the first 32 bits of the fractions of the square roots of the first 8 primes
    *s = (Sha256){
        .state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19},
        .plain = !has_instructions()};
}

void sha256_update(Sha256 *s, const void *data, size_t n) {
    const uint8_t *p = data;
    size_t have = s->bytes % BLOCK;
    s->bytes += n;
    if (have > 0) {
        size_t some = n < BLOCK - have ? n : BLOCK - have;
        if (some > 0) memcpy(s->block + have, p, some);
        if (have + some < BLOCK) return;
        blocks(s, s->block, 1);
        p += some;
        n -= some;
    }
    blocks(s, p, n / BLOCK);
    if (n % BLOCK > 0) memcpy(s->block, p + n / BLOCK * BLOCK, n % BLOCK);
}

void sha256_final(Sha256 *s, uint8_t digest[32]) {
    const uint64_t bits = 8 * s->bytes;
    uint8_t end[2 * BLOCK] = {0x80};
    size_t have = s->bytes % BLOCK, n = (have < BLOCK - 8 ? BLOCK : 2 * BLOCK) - have;
    for (size_t i = 0; i < 8; i++) end[n - 1 - i] = (uint8_t)(bits >> 8 * i);
    sha256_update(s, end, n);
    for (int i = 0; i < 32; i++) digest[i] = (uint8_t)(s->state[i / 4] >> (24 - 8 * (i % 4)));
}
