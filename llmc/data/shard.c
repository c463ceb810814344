// shard.c: see shard.h. Nothing in the file is believed before it was compared with the file's size; the checks that
// touch every byte run once over the tokens, in parallel, at the speed of memory.
//
//   0     magic "C3SHARD\n"           40    fingerprint of the tokenizer, 32 bytes
//   8     version u32                 72    offset of the page index u64 (1024)
//   12    bytes of this header u32    80    offset of the tokens u64 (right behind the index)
//   16    pages u64                   88    CRC-32 of the page index u32
//   24    tokens u64                  92    CRC-32 of the tokens u32
//   32    vocabulary size u32         96    set: id u64, index u32, count u32 (all 0: none)
//   36    zero u32                    112   zeros
//                                     1020  CRC-32 of the 1020 bytes above u32
//
// A page of the index is 24 bytes: first token u64, context length u32, answer length u32 (0: the answer is the
// context), prompt length u32 (0: the paper's prompt), zero u32. Its tokens are the context and, behind it, the prompt
// and the answer. Pages follow each other without gaps, from token 0 to the last. Version 1 has no prompts: a shard
// whose pages have none is still written as such.
#include "llmc/data/shard.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h> // PRIu64
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h> // size and mtime of the file, for the remembered check
#include <time.h>
#include <unistd.h>
#include <zlib.h> // crc32_combine

#include "llmc/base/alloc.h"
#include "llmc/base/sha256.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "shards are little endian and are mapped as they are");

enum {
    VERSION = 1,
    WITH_PROMPTS = 2,
    HEADER_BYTES = 1024,
    CRC_BLOCK = 1 << 20,
    CRC_PIECE = 1 << 14
}; // blocks and pieces: in tokens
static const char MAGIC[8] = "C3SHARD\n";
#define MAX_TOKENS ((uint64_t)1 << 31)
#define HINT       "(hint: re-create it with c3 tokenize)"

typedef struct Header {
    char magic[8];
    uint32_t version, header_bytes;
    uint64_t pages, tokens;
    uint32_t vocab, zero;
    uint8_t fingerprint[32];
    uint64_t index_offset, token_offset;
    uint32_t index_crc, token_crc;
    ShardSet set;
    uint8_t zeros[908];
    uint32_t header_crc;
} Header;
_Static_assert(sizeof(Header) == HEADER_BYTES, "the header is 1024 bytes");

typedef struct IndexEntry {
    uint64_t offset; // first token of the page
    uint32_t context, answer, prompt, zero;
} IndexEntry;
_Static_assert(sizeof(IndexEntry) == 24, "an entry of the index is 24 bytes");
_Static_assert(offsetof(Header, set) == 96 && sizeof(ShardSet) == 16, "the set's record stands at 96");

static uint32_t header_crc(const Header *h) { return file_crc32(0, h, offsetof(Header, header_crc)); }

// The CRC of the contents, independent of the set it belongs to.
static uint32_t content_crc(const Header *h) {
    Header alone = *h;
    alone.set = (ShardSet){0};
    return header_crc(&alone);
}

// ---- the remembered check: PATH.ok holds size, mtime and CRC of the file that passed -------------------------------

typedef struct Stamp {
    uint64_t size;
    int64_t mtime_ns;
} Stamp;

static int stamp_of(Stamp *stamp, const char *path) {
    struct stat st;
    if (stat(path, &st) != 0) return -1;
    *stamp = (Stamp){(uint64_t)st.st_size, (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec};
    return 0;
}

static int stamp_line(char line[96], const Stamp *stamp, uint32_t crc) {
    return snprintf(line, 96, "checked size %" PRIu64 " mtime_ns %" PRId64 " crc %08x\n", stamp->size, stamp->mtime_ns,
                    crc);
}

static int was_checked(const char *path, const Stamp *stamp, uint32_t crc) {
    char expected[96], found[97];
    int n = stamp_line(expected, stamp, crc);
    char *name = string_format("%s.ok", path);
    int fd = name ? open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1;
    free(name);
    if (fd < 0) return 0;
    ssize_t got = read(fd, found, sizeof found);
    close(fd);
    return got == n && memcmp(found, expected, (size_t)n) == 0;
}

// Best effort: a folder that cannot be written is not an error. A file so new that a later write could have the same
// mtime is not remembered. One write() of one line, so that ranks doing this at the same time write the same bytes.
static void remember_checked(const char *path, const Stamp *before, uint32_t crc) {
    Stamp after;
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0 || stamp_of(&after, path) != 0) return;
    if (after.size != before->size || after.mtime_ns != before->mtime_ns) return;
    if ((int64_t)now.tv_sec - after.mtime_ns / 1000000000 < 2) return;
    char line[96];
    int n = stamp_line(line, before, crc);
    char *name = string_format("%s.ok", path);
    int fd = name ? open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666) : -1;
    if (fd >= 0) {
        int whole = write(fd, line, (size_t)n) == n;
        close(fd);
        if (!whole) unlink(name);
    }
    free(name);
}

// ---- reading -------------------------------------------------------------------------------------------------------

static int check_header(Shard *s, Error *err) {
    const char *path = s->path;
    uint64_t size = s->map.size;
    if (size == 0) return error_set(err, "%s: the file is empty: expected a token shard " HINT, path);
    if (size >= sizeof MAGIC && memcmp(s->map.data, MAGIC, sizeof MAGIC) != 0) {
        const uint8_t *m = s->map.data;
        return error_set(err,
                         "%s: not a token shard: expected the magic bytes 43 33 53 48 41 52 44 0a, found "
                         "%02x %02x %02x %02x %02x %02x %02x %02x (hint: make shards with c3 tokenize)",
                         path, m[0], m[1], m[2], m[3], m[4], m[5], m[6], m[7]);
    }
    if (size < HEADER_BYTES)
        return error_set(err, "%s: cut short: expected at least %d bytes of header, found %" PRIu64 " bytes " HINT,
                         path, HEADER_BYTES, size);
    const Header *h = (const Header *)(const void *)s->map.data; // mappings are page-aligned
    if (h->version != VERSION && h->version != WITH_PROMPTS)
        return error_set(err, "%s: header: expected version %d or %d, found version %" PRIu32 " " HINT, path, VERSION,
                         WITH_PROMPTS, h->version);
    uint32_t crc = header_crc(h);
    if (crc != h->header_crc)
        return error_set(err,
                         "%s: header: expected CRC-32 %08" PRIx32 ", found %08" PRIx32 ": the file is damaged " HINT,
                         path, h->header_crc, crc);
    if (h->header_bytes != HEADER_BYTES || h->index_offset != HEADER_BYTES)
        return error_set(err, "%s: header: expected the page index at %d, found it at %" PRIu64 " " HINT, path,
                         HEADER_BYTES, h->index_offset);
    if (h->tokens > MAX_TOKENS || h->pages > h->tokens) // from here on no sum below can overflow
        return error_set(err,
                         "%s: header: expected at most %" PRIu64 " tokens and no more pages than tokens, found %" PRIu64
                         " tokens in %" PRIu64 " pages " HINT,
                         path, MAX_TOKENS, h->tokens, h->pages);
    if (h->vocab > INT32_MAX) // ids become ints, where negative ones mean something else
        return error_set(err, "%s: header: expected a vocabulary of at most %" PRId32 ", found %" PRIu32 " " HINT, path,
                         INT32_MAX, h->vocab);
    uint64_t token_offset = HEADER_BYTES + h->pages * sizeof(IndexEntry);
    if (h->token_offset != token_offset)
        return error_set(err, "%s: header: expected the tokens at %" PRIu64 ", found them at %" PRIu64 " " HINT, path,
                         token_offset, h->token_offset);
    uint64_t expected = token_offset + h->tokens * sizeof(uint32_t);
    if (size != expected)
        return error_set(
            err,
            "%s: %s: expected %" PRIu64 " bytes for %" PRIu64 " pages and %" PRIu64 " tokens, found %" PRIu64 " " HINT,
            path, size < expected ? "cut short" : "bytes behind the end", expected, h->pages, h->tokens, size);
    if (h->set.count ? h->set.index >= h->set.count : h->set.index || h->set.id)
        return error_set(err, "%s: header: expected shard 0 to %" PRIu32 " of its set, found %" PRIu32 " " HINT, path,
                         h->set.count ? h->set.count - 1 : 0, h->set.index);
    s->pages = h->pages;
    s->tokens = h->tokens;
    s->vocab = h->vocab;
    s->has_prompts = h->version == WITH_PROMPTS;
    s->set = h->set;
    memcpy(s->fingerprint, h->fingerprint, sizeof s->fingerprint);
    s->crc = content_crc(h); // the header holds the CRCs of the sections
    s->index = s->map.data + HEADER_BYTES;
    s->token_data = (const uint32_t *)(const void *)(s->map.data + token_offset);
    return 0;
}

static int check_index(const Shard *s, Error *err) {
    const IndexEntry *e = s->index;
    uint64_t next = 0; // the first token not yet claimed by a page
    for (uint64_t i = 0; i < s->pages; i++) {
        uint64_t length = (uint64_t)e[i].context + e[i].prompt + e[i].answer;
        if (e[i].offset != next || e[i].context == 0 || length > s->tokens - next)
            return error_set(err,
                             "%s: page %" PRIu64 " (from 1): expected tokens from %" PRIu64 " within %" PRIu64
                             ", found %" PRIu32 " + %" PRIu32 " + %" PRIu32 " from %" PRIu64 " " HINT,
                             s->path, i + 1, next, s->tokens, e[i].context, e[i].prompt, e[i].answer, e[i].offset);
        if ((e[i].prompt != 0 && !s->has_prompts) || e[i].zero != 0)
            return error_set(err, "%s: page %" PRIu64 " (from 1): expected %s, found %" PRIu32 " " HINT, s->path, i + 1,
                             e[i].zero ? "zero behind the prompt's length" : "no prompt in a shard of version 1",
                             e[i].zero ? e[i].zero : e[i].prompt);
        next += length;
    }
    if (next != s->tokens)
        return error_set(err, "%s: page index: expected pages of %" PRIu64 " tokens in all, found %" PRIu64 " " HINT,
                         s->path, s->tokens, next);
    return 0;
}

static int bad_id(const Shard *s, Error *err) {
    const IndexEntry *e = s->index;
    uint64_t at = 0, page = 0;
    while (s->token_data[at] < s->vocab) at++;
    while (page + 1 < s->pages && e[page + 1].offset <= at) page++;
    return error_set(err,
                     "%s: page %" PRIu64 " (from 1), token %" PRIu64 " (from 1): expected an id below %" PRIu32
                     ", the vocabulary size, found %" PRIu32 " " HINT,
                     s->path, page + 1, at - e[page].offset + 1, s->vocab, s->token_data[at]);
}

// One pass over the tokens for the highest id and, unless remembered, the CRC. Blocks are distributed over the threads;
// in a block, small pieces stay in cache from one check to the next.
static int check_tokens(const Shard *s, int with_crc, Error *err) {
    uint32_t block_crc[MAX_TOKENS / CRC_BLOCK], highest = 0;
    int blocks = (int)((s->tokens + CRC_BLOCK - 1) / CRC_BLOCK);
#pragma omp parallel for schedule(dynamic) reduction(max : highest) if (blocks > 1)
    for (int b = 0; b < blocks; b++) {
        uint64_t begin = (uint64_t)b * CRC_BLOCK;
        uint64_t end = begin + CRC_BLOCK < s->tokens ? begin + CRC_BLOCK : s->tokens;
        uint32_t crc = 0;
        for (uint64_t p = begin; p < end; p += CRC_PIECE) {
            const uint32_t *t = s->token_data + p;
            int n = (int)(end - p < CRC_PIECE ? end - p : CRC_PIECE);
            uint32_t high = 0;
            for (int i = 0; i < n; i++) high = t[i] > high ? t[i] : high;
            if (high > highest) highest = high;
            if (with_crc) crc = file_crc32(crc, t, (size_t)n * sizeof *t);
        }
        block_crc[b] = crc;
    }
    if (with_crc) {
        const Header *h = (const Header *)(const void *)s->map.data;
        uint32_t crc = 0;
        for (int b = 0; b < blocks; b++) {
            uint64_t left = s->tokens - (uint64_t)b * CRC_BLOCK;
            uint64_t n = left < CRC_BLOCK ? left : CRC_BLOCK;
            crc = (uint32_t)crc32_combine(crc, block_crc[b], (z_off_t)(n * sizeof(uint32_t)));
        }
        if (crc != h->token_crc)
            return error_set(
                err, "%s: tokens: expected CRC-32 %08" PRIx32 ", found %08" PRIx32 ": the file is damaged " HINT,
                s->path, h->token_crc, crc);
    }
    return s->tokens > 0 && highest >= s->vocab ? bad_id(s, err) : 0;
}

static int check_index_crc(const Shard *s, Error *err) {
    const Header *h = (const Header *)(const void *)s->map.data;
    uint32_t crc = file_crc32(0, s->index, s->pages * sizeof(IndexEntry));
    if (crc == h->index_crc) return 0;
    return error_set(err,
                     "%s: page index: expected CRC-32 %08" PRIx32 ", found %08" PRIx32 ": the file is damaged " HINT,
                     s->path, h->index_crc, crc);
}

static int check_all(Shard *s, Error *err) {
    Stamp stamp;
    int have_stamp = stamp_of(&stamp, s->path) == 0 && stamp.size == s->map.size;
    TRY(check_header(s, err));
    s->trusted = have_stamp && was_checked(s->path, &stamp, s->crc);
    if (!s->trusted) TRY(check_index_crc(s, err));
    TRY(check_index(s, err));
    TRY(check_tokens(s, !s->trusted, err));
    if (have_stamp && !s->trusted) remember_checked(s->path, &stamp, s->crc);
    return 0;
}

int shard_verify(Shard *s, Error *err) {
    if (!s->trusted) return 0;
    if (check_index_crc(s, err) != 0 || check_tokens(s, 1, err) != 0) {
        char *mark = string_format("%s.ok", s->path);
        if (mark) unlink(mark);
        free(mark);
        return -1;
    }
    s->trusted = 0;
    return 0;
}

int shard_open(Shard *s, const char *path, Error *err) {
    *s = (Shard){0};
    TRY(file_map(&s->map, path, err));
    s->path = string_copy(path);
    int bad = check_all(s, err);
    if (bad) shard_close(s);
    return bad;
}

int shard_vocabulary(uint32_t *vocab, const char *path, Error *err) {
    Shard s = {0};
    TRY(file_map(&s.map, path, err));
    s.path = string_copy(path);
    int bad = check_header(&s, err);
    *vocab = s.vocab;
    shard_close(&s);
    return bad;
}

void shard_close(Shard *s) {
    file_unmap(&s->map);
    free(s->path);
    *s = (Shard){0};
}

ShardPage shard_page(const Shard *s, uint64_t page) {
    const IndexEntry *e = (const IndexEntry *)s->index + page;
    const uint32_t *context = s->token_data + e->offset, *prompt = context + e->context;
    return (ShardPage){.context = context,
                       .context_length = e->context,
                       .answer = e->answer ? prompt + e->prompt : context,
                       .answer_length = e->answer ? e->answer : e->context,
                       .prompt = e->prompt ? prompt : NULL,
                       .prompt_length = e->prompt};
}

// ---- writing -------------------------------------------------------------------------------------------------------

// The index precedes the tokens but is complete only after them, so tokens are spooled to an unnamed file beside the
// shard.
struct ShardWriter {
    FileWriter file;
    FILE *spool; // tokens
    Header header;
    IndexEntry *index; // (room)
    size_t room;
    int broken; // a write failed half-way, so that spool and header disagree
};

int shard_writer_open(ShardWriter **out, const char *path, uint32_t vocab, const uint8_t fingerprint[32], Error *err) {
    *out = NULL;
    ShardWriter *w = alloc_zeroed(1, sizeof *w, "shard");
    Header *h = &w->header;
    memcpy(h->magic, MAGIC, sizeof MAGIC);
    h->version = VERSION;
    h->header_bytes = HEADER_BYTES;
    h->index_offset = HEADER_BYTES;
    h->vocab = vocab;
    memcpy(h->fingerprint, fingerprint, sizeof h->fingerprint);
    int bad = file_create(&w->file, path, err);
    if (!bad) bad = (w->spool = file_spool(path, err)) ? 0 : -1;
    if (bad) shard_writer_discard(w);
    else *out = w;
    return bad;
}

static int check_ids(const ShardWriter *w, const uint32_t *ids, size_t n, const char *what, Error *err) {
    for (size_t i = 0; i < n; i++) {
        if (ids[i] >= w->header.vocab)
            return error_set(err,
                             "%s: page %" PRIu64 " (from 1), token %zu (from 1) of the %s: expected an id from 0 "
                             "below %" PRIu32 ", found %" PRId32,
                             w->file.path, w->header.pages + 1, i + 1, what, w->header.vocab, (int32_t)ids[i]);
    }
    return 0;
}

static int spool_tokens(ShardWriter *w, const uint32_t *ids, size_t n, Error *err) {
    if (n && fwrite(ids, sizeof *ids, n, w->spool) != n) {
        w->broken = 1;
        return error_set(err, "%s: cannot write %zu tokens: %s", w->file.path, n, strerror(errno));
    }
    if (n) w->header.token_crc = file_crc32(w->header.token_crc, ids, n * sizeof *ids);
    return 0;
}

int shard_writer_add_page(ShardWriter *w, const ShardPage *p, Error *err) {
    Header *h = &w->header;
    const int own = p->answer != p->context || p->answer_length != p->context_length; // else it is stored once
    if (p->context_length == 0 || p->answer_length == 0)
        return error_set(err, "%s: page %" PRIu64 " (from 1): expected at least one token of %s, found none",
                         w->file.path, h->pages + 1, p->context_length ? "answer" : "text");
    uint64_t left = MAX_TOKENS - h->tokens,
             n = (uint64_t)p->context_length + p->prompt_length + (own ? p->answer_length : 0);
    if (n > left)
        return error_set(err,
                         "%s: page %" PRIu64 " (from 1): expected at most %" PRIu64 " tokens in a shard, found %" PRIu64
                         " + %" PRIu64 " (hint: begin another shard)",
                         w->file.path, h->pages + 1, MAX_TOKENS, h->tokens, n);
    w->index = alloc_grow(w->index, h->pages, &w->room, sizeof *w->index, "page index");
    TRY(check_ids(w, p->context, p->context_length, "context", err));
    TRY(check_ids(w, p->prompt, p->prompt_length, "prompt", err));
    TRY(check_ids(w, p->answer, own ? p->answer_length : 0, "answer", err));
    TRY(spool_tokens(w, p->context, p->context_length, err));
    TRY(spool_tokens(w, p->prompt, p->prompt_length, err));
    TRY(spool_tokens(w, p->answer, own ? p->answer_length : 0, err));
    w->index[h->pages++] = (IndexEntry){.offset = h->tokens,
                                        .context = p->context_length,
                                        .answer = own ? p->answer_length : 0,
                                        .prompt = p->prompt_length};
    h->tokens += n;
    if (p->prompt_length) h->version = WITH_PROMPTS;
    return 0;
}

// More than a page can have stays too many.
static uint32_t capped(size_t n) { return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX; }

int shard_writer_add(ShardWriter *w, const int32_t *context, size_t n_context, const int32_t *answer, size_t n_answer,
                     Error *err) {
    return shard_writer_add_page(w,
                                 &(ShardPage){.context = (const uint32_t *)context,
                                              .context_length = capped(n_context),
                                              .answer = (const uint32_t *)(answer ? answer : context),
                                              .answer_length = capped(answer ? n_answer : n_context)},
                                 err);
}

uint64_t shard_writer_tokens(const ShardWriter *w) { return w->header.tokens; }

static int copy_spool(ShardWriter *w, Error *err) {
    if (fflush(w->spool) != 0 || fseeko(w->spool, 0, SEEK_SET) != 0)
        return error_set(err, "%s: cannot read the tokens back: %s", w->file.path, strerror(errno));
    size_t room = 1 << 20;
    char *buffer = alloc(room, 1, "tokens");
    uint64_t left = w->header.tokens * sizeof(uint32_t);
    int bad = 0;
    while (left && !bad) {
        size_t n = left < room ? (size_t)left : room;
        if (fread(buffer, 1, n, w->spool) != n)
            bad = error_set(err, "%s: cannot read the tokens back: %s", w->file.path, strerror(errno));
        else bad = file_write(&w->file, buffer, n, err);
        left -= n;
    }
    free(buffer);
    return bad;
}

int shard_writer_commit(ShardWriter *w, Error *err) {
    Header *h = &w->header;
    size_t index_bytes = h->pages * sizeof *w->index;
    h->token_offset = HEADER_BYTES + index_bytes;
    h->index_crc = file_crc32(0, w->index, index_bytes);
    h->header_crc = header_crc(h);
    int bad = w->broken ? error_set(err, "%s: not finished: an earlier write failed", w->file.path) : 0;
    if (!bad) bad = file_write(&w->file, h, sizeof *h, err);
    if (!bad && index_bytes) bad = file_write(&w->file, w->index, index_bytes, err);
    if (!bad) bad = copy_spool(w, err);
    if (!bad) bad = file_commit(&w->file, err);
    shard_writer_discard(w);
    return bad;
}

void shard_writer_discard(ShardWriter *w) {
    if (!w) return;
    file_discard(&w->file);
    if (w->spool) fclose(w->spool);
    free(w->index);
    free(w);
}

// ---- sets ----------------------------------------------------------------------------------------------------------

static int access_header(const char *path, Header *h, int writing, Error *err) {
    int fd = open(path, (writing ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return error_set(err, "%s: cannot open: %s", path, strerror(errno));
    errno = EIO; // for a short read
    int bad =
        writing ? pwrite(fd, h, sizeof *h, 0) != sizeof *h || fsync(fd) != 0 : pread(fd, h, sizeof *h, 0) != sizeof *h;
    if (bad) error_set(err, "%s: cannot %s the header: %s", path, writing ? "write" : "read", strerror(errno));
    close(fd);
    return bad ? -1 : 0;
}

int shard_make_set(char *const *paths, int n, Error *err) {
    Header h;
    Sha256 sum;
    uint8_t digest[32];
    int bad = 0;
    sha256_init(&sum);
    for (int i = 0; i < n && !bad; i++) {
        bad = access_header(paths[i], &h, 0, err);
        if (!bad) sha256_update(&sum, &h, offsetof(Header, set)); // counts, tokenizer and the sections' checksums
    }
    sha256_final(&sum, digest);
    for (int i = 0; i < n && !bad; i++) {
        bad = access_header(paths[i], &h, 0, err);
        if (bad) break;
        h.set = (ShardSet){.index = (uint32_t)i, .count = (uint32_t)n};
        memcpy(&h.set.id, digest, sizeof h.set.id);
        h.header_crc = header_crc(&h);
        bad = access_header(paths[i], &h, 1, err);
    }
    return bad;
}
