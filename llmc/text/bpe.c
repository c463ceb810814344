// bpe.c: see bpe.h. A piece that is a token is looked up and done. Else its bytes are parts, and of all neighbouring
// parts whose concatenation is a token the pair of lowest rank, the leftmost of equals, is joined, until none is left.
//
// Most neighbours do not make a token. A bit filter small enough for the second-level cache rejects nearly all of them;
// only the rest are looked up in the table, which is larger than that cache.
//
// Short pieces keep (rank, place) of every pair as one number in an array: the next pair to join is the minimum, which
// vector instructions find quickly. Long pieces keep the same numbers in a heap, so that their time is n log n.
#include "llmc/text/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"

enum {
    SHORT_PIECE = 248, // bytes; a multiple of 8, and places must fit 8 bits. Up to there the heap is slower
    PLACE_BITS = 8,
    FILTER_BITS = 21,  // 256 KB; 7 % of it are set by Qwen's vocabulary
    NO_RANK = 0xffffff // larger than any rank; (NO_RANK << 8 | place) still fits 32 bits
};

// Tokens of up to 8 bytes are their own key; longer ones are compared in the vocabulary.
typedef struct Slot {
    uint64_t key;    // the bytes, zero-padded, or their hash
    uint32_t length; // 0: free
    uint32_t rank;
} Slot;

struct Bpe {
    const Vocabulary *v;
    Slot *slots; // (mask+1), open addressing
    size_t mask;
    unsigned shift;                          // 64 - log2(mask+1)
    uint64_t filter[1 << (FILTER_BITS - 6)]; // bit h is set: a token's hash begins with h
    size_t longest;                          // bytes of the longest token
    uint32_t byte[256];                      // rank of each one-byte token
    uint32_t pair[1 << 16];                  // rank of each two-byte token, or NO_RANK
};

// ---- the table -----------------------------------------------------------------------------------------------------

static const uint64_t multiplier = 0x9e3779b97f4a7c15u;

static inline uint64_t load_bytes(const uint8_t *p, size_t n) {
    uint64_t x = 0;
    memcpy(&x, p, n);
    return x;
}

static inline uint64_t long_key(const uint8_t *p, size_t n) {
    uint64_t h = n;
    for (; n >= 8; p += 8, n -= 8) {
        h = (h ^ load_bytes(p, 8)) * multiplier;
        h ^= h >> 29;
    }
    h = (h ^ (n ? load_bytes(p, n) : 0)) * multiplier;
    return h ^ h >> 32;
}

// Key of the n bytes at p, where `readable` bytes may be read.
static inline uint64_t make_key(const uint8_t *p, size_t n, size_t readable) {
    if (n > 8) return long_key(p, n);
    if (readable < 8) return load_bytes(p, n);
    uint64_t x;
    memcpy(&x, p, 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return x & (~(uint64_t)0 >> (64 - 8 * n));
#else
    return x & (~(uint64_t)0 << (64 - 8 * n));
#endif
}

static inline uint64_t hash_key(uint64_t key, size_t n) {
    uint64_t h = (key ^ n) * multiplier;
    return (h ^ h >> 32) * multiplier;
}

static inline uint32_t probe(const Bpe *b, uint64_t hash, uint64_t key, const uint8_t *p, size_t n) {
    for (size_t i = (size_t)(hash >> b->shift);; i = (i + 1) & b->mask) {
        const Slot *s = &b->slots[i];
        if (s->length == 0) return NO_RANK;
        if (s->key == key && s->length == n && (n <= 8 || memcmp(b->v->bytes + b->v->at[s->rank], p, n) == 0))
            return s->rank;
    }
}

// The rank of the n bytes at p if they are a token. find_piece is for bytes that probably are one, find_pair for bytes
// that probably are not.
static inline uint32_t find_piece(const Bpe *b, const uint8_t *p, size_t n, size_t readable) {
    if (n > b->longest) return NO_RANK;
    uint64_t key = make_key(p, n, readable);
    return probe(b, hash_key(key, n), key, p, n);
}

static inline uint32_t find_pair(const Bpe *b, const uint8_t *p, size_t n, size_t readable) {
    if (n > b->longest) return NO_RANK;
    uint64_t key = make_key(p, n, readable), hash = hash_key(key, n), bit = hash >> (64 - FILTER_BITS);
    if (!(b->filter[bit >> 6] >> (bit & 63) & 1)) return NO_RANK;
    return probe(b, hash, key, p, n);
}

int bpe_create(Bpe **out, const Vocabulary *v, const char *name, Error *err) {
    *out = NULL;
    Bpe *b = alloc_zeroed(1, sizeof *b, "tokenizer");
    unsigned bits = 9;
    while ((size_t)1 << bits < (size_t)v->ranks + (size_t)v->ranks / 2) bits++;
    Slot *slots = alloc_zeroed((size_t)1 << bits, sizeof *slots, "tokenizer");
    b->v = v;
    b->slots = slots;
    b->mask = ((size_t)1 << bits) - 1;
    b->shift = 64 - bits;
    for (int i = 0; i < 1 << 16; i++) b->pair[i] = NO_RANK;
    for (int rank = 0; rank < v->ranks; rank++) {
        size_t n;
        const uint8_t *p = vocabulary_rank(v, rank, &n);
        if (n > b->longest) b->longest = n;
        uint32_t other = find_piece(b, p, n, n);
        if (other != NO_RANK) {
            bpe_free(b);
            return error_set(err, "%s: ranks %u and %d are the same token (hint: the file is damaged)", name, other,
                             rank);
        }
        uint64_t key = make_key(p, n, n);
        uint64_t hash = hash_key(key, n), bit = hash >> (64 - FILTER_BITS);
        size_t i = (size_t)(hash >> b->shift);
        while (slots[i].length) i = (i + 1) & b->mask;
        slots[i] = (Slot){key, (uint32_t)n, (uint32_t)rank};
        b->filter[bit >> 6] |= (uint64_t)1 << (bit & 63);
        if (n == 1) b->byte[p[0]] = (uint32_t)rank;
        if (n == 2) b->pair[p[0] << 8 | p[1]] = (uint32_t)rank;
    }
    *out = b;
    return 0;
}

void bpe_free(Bpe *b) {
    if (!b) return;
    free(b->slots);
    free(b);
}

// ---- short pieces --------------------------------------------------------------------------------------------------

// A part is identified by the position of its first byte. pairs[i]: rank of part i with the next one << 8 | i; parts
// that are gone or make no pair are larger than any rank.
static size_t merge_short(const Bpe *b, int32_t *ids, const uint8_t *p, size_t n, size_t readable) {
    uint32_t pairs[SHORT_PIECE];
    uint32_t id[SHORT_PIECE]; // of part i
    uint8_t next[SHORT_PIECE + 1], previous[SHORT_PIECE + 1];
    size_t width = (n + 7) & ~(size_t)7; // whole vectors
    for (size_t i = 0; i < width; i++) pairs[i] = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        if (i + 1 < n) pairs[i] = b->pair[p[i] << 8 | p[i + 1]] << PLACE_BITS | (uint32_t)i;
        id[i] = b->byte[p[i]];
        next[i] = (uint8_t)(i + 1);
        previous[i] = (uint8_t)(i - 1);
    }
    for (;;) {
        uint32_t best = UINT32_MAX;
        for (size_t i = 0; i < width; i++) best = pairs[i] < best ? pairs[i] : best;
        if (best >> PLACE_BITS == NO_RANK) break;
        size_t i = best & ((1u << PLACE_BITS) - 1), gone = next[i], after = next[gone];
        id[i] = best >> PLACE_BITS;
        pairs[gone] = UINT32_MAX;
        next[i] = (uint8_t)after;
        previous[after] = (uint8_t)i;
        uint32_t rank = after < n ? find_pair(b, p + i, next[after] - i, readable - i) : NO_RANK;
        pairs[i] = rank << PLACE_BITS | (uint32_t)i;
        if (i > 0) {
            size_t before = previous[i];
            rank = find_pair(b, p + before, after - before, readable - before);
            pairs[before] = rank << PLACE_BITS | (uint32_t)before;
        }
    }
    int64_t count = 0;
    for (size_t i = 0; i < n; i = next[i]) ids[count++] = (int32_t)id[i];
    return count;
}

// ---- long pieces ---------------------------------------------------------------------------------------------------

typedef struct Part {
    uint32_t next, previous; // places of the neighbours
    uint32_t rank;           // of the pair with the next part; GONE: this part was joined to the one before it
} Part;

enum { GONE = NO_RANK + 1 };

typedef struct Heap {
    uint64_t *keys; // (n): rank << 32 | place, the smallest first
    size_t n;
} Heap;

static void sift_down(Heap *h, size_t i) {
    uint64_t key = h->keys[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= h->n) break;
        if (child + 1 < h->n && h->keys[child + 1] < h->keys[child]) child++;
        if (h->keys[child] >= key) break;
        h->keys[i] = h->keys[child];
        i = child;
    }
    h->keys[i] = key;
}

static void heap_push(Heap *h, uint64_t key) {
    size_t i = h->n++;
    for (; i > 0 && h->keys[(i - 1) / 2] > key; i = (i - 1) / 2) h->keys[i] = h->keys[(i - 1) / 2];
    h->keys[i] = key;
}

static uint64_t heap_pop(Heap *h) {
    uint64_t top = h->keys[0];
    h->keys[0] = h->keys[--h->n];
    if (h->n) sift_down(h, 0);
    return top;
}

// Looks up the rank of the pair that begins at part i, which has changed.
static void renew_pair(const Bpe *b, Heap *h, Part *parts, size_t i, const uint8_t *p, size_t n, size_t readable) {
    size_t middle = parts[i].next;
    parts[i].rank = middle < n ? find_pair(b, p + i, parts[middle].next - i, readable - i) : NO_RANK;
    if (parts[i].rank != NO_RANK) heap_push(h, (uint64_t)parts[i].rank << 32 | i);
}

// Each join removes one part and pushes at most two keys, of which it has popped one: the heap never holds more than
// 2n.
static size_t merge_long(const Bpe *b, int32_t *ids, const uint8_t *p, size_t n, size_t readable) {
    Part *parts = alloc(n, sizeof *parts, "merging");
    Heap h = {alloc(2 * n, sizeof *h.keys, "merging"), 0};
    for (size_t i = 0; i < n; i++) {
        uint32_t rank = i + 1 < n ? b->pair[p[i] << 8 | p[i + 1]] : NO_RANK;
        parts[i] = (Part){(uint32_t)i + 1, (uint32_t)i - 1, rank};
        if (rank != NO_RANK) h.keys[h.n++] = (uint64_t)rank << 32 | i;
    }
    for (size_t i = h.n / 2; i-- > 0;) sift_down(&h, i);
    while (h.n) {
        uint64_t key = heap_pop(&h);
        size_t i = (uint32_t)key;
        if (parts[i].rank != key >> 32) continue; // joined or changed since it was pushed
        size_t gone = parts[i].next, after = parts[gone].next;
        parts[gone].rank = GONE;
        parts[i].next = (uint32_t)after;
        if (after < n) parts[after].previous = (uint32_t)i;
        renew_pair(b, &h, parts, i, p, n, readable);
        if (i > 0) renew_pair(b, &h, parts, parts[i].previous, p, n, readable);
    }
    size_t count = 0;
    for (size_t i = 0; i < n; i = parts[i].next)
        ids[count++] = (int32_t)find_piece(b, p + i, parts[i].next - i, readable - i);
    free(parts);
    free(h.keys);
    return count;
}

// Joins pairs of lower rank than the token's own until none is left. Simple, because it runs once for each token.
int bpe_parts(const Bpe *b, int rank, int32_t parts[2]) {
    size_t n;
    const uint8_t *p = vocabulary_rank(b->v, rank, &n);
    size_t *begin = alloc(n + 1, sizeof *begin, "merging"), count = n; // borders of the parts
    for (size_t i = 0; i <= n; i++) begin[i] = i;
    for (;;) {
        uint32_t best = (uint32_t)rank;
        size_t at = 0;
        for (size_t i = 0; i + 1 < count; i++) {
            uint32_t pair = find_piece(b, p + begin[i], begin[i + 2] - begin[i], n - begin[i]);
            if (pair < best) best = pair, at = i;
        }
        if (best == (uint32_t)rank) break;
        memmove(begin + at + 1, begin + at + 2, (count - at - 1) * sizeof *begin);
        count--;
    }
    for (size_t i = 0; i < 2 && count == 2; i++)
        parts[i] = (int32_t)find_piece(b, p + begin[i], begin[i + 1] - begin[i], n - begin[i]);
    free(begin);
    return count == 2 ? 0 : -1;
}

size_t bpe_encode(const Bpe *b, int32_t *ids, const uint8_t *p, size_t n, size_t readable) {
    uint32_t rank = find_piece(b, p, n, readable);
    if (rank != NO_RANK) {
        ids[0] = (int32_t)rank;
        return 1;
    }
    return n <= SHORT_PIECE ? merge_short(b, ids, p, n, readable) : merge_long(b, ids, p, n, readable);
}
