// test_shard.c: token shards: round trip, every kind of damage, the remembered check, random mutations.
#include "test/check.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/base/file.h"
#include "llmc/data/shard.h"

enum { VOCAB = 1000, PAGES = 7, HEADER = 1024, ENTRY = 24 };
static const uint8_t fingerprint[32] = {1, 2, 3, 250, 251, [31] = 99};
static char folder[] = "build/test_shard_XXXXXX";
static char *path;

static uint64_t rng_state = 1;
static uint32_t rng(uint32_t below) {
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((rng_state >> 33) % below);
}

// Page p: 3 + 5p tokens of context; every third page has an answer of its own of p + 1 tokens.
static int context_length(int p) { return 3 + 5 * p; }
static int answer_length(int p) { return p % 3 == 2 ? p + 1 : 0; }
static int32_t token(int p, int i) { return (p * 131 + i * 17) % VOCAB; }
static int32_t answer_token(int p, int i) { return (p * 37 + i * 71 + 5) % VOCAB; }

static int write_shard(const char *name, Error *err) {
    ShardWriter *w;
    TRY(shard_writer_open(&w, name, VOCAB, fingerprint, err));
    for (int p = 0; p < PAGES; p++) {
        int32_t context[64], answer[64];
        for (int i = 0; i < context_length(p); i++) context[i] = token(p, i);
        for (int i = 0; i < answer_length(p); i++) answer[i] = answer_token(p, i);
        size_t n = (size_t)answer_length(p);
        if (shard_writer_add(w, context, (size_t)context_length(p), n ? answer : NULL, n, err)) {
            shard_writer_discard(w);
            return -1;
        }
    }
    return shard_writer_commit(w, err);
}

static void put_file(const char *name, const void *data, size_t size) {
    FILE *f = fopen(name, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) perror(name), exit(2);
}

static void put32(uint8_t *at, uint32_t value) { memcpy(at, &value, 4); }
static void put64(uint8_t *at, uint64_t value) { memcpy(at, &value, 8); }

// Writes the header's CRC, and those of the sections, anew, so that the checks behind them are reached.
static void repair(uint8_t *data, size_t size) {
    uint64_t tokens_at;
    memcpy(&tokens_at, data + 80, 8);
    if (tokens_at >= HEADER && tokens_at <= size) {
        put32(data + 88, file_crc32(0, data + HEADER, tokens_at - HEADER));
        put32(data + 92, file_crc32(0, data + tokens_at, size - tokens_at));
    }
    put32(data + 1020, file_crc32(0, data, 1020));
}

// Writes the bytes, opens them, and expects a refusal whose line holds the file's name and every given word.
static void refuse(const uint8_t *data, size_t size, const char *const *words) {
    char *name = string_format("%s/damaged.bin", folder);
    put_file(name, data, size);
    Shard s;
    Error err = {""};
    int got = shard_open(&s, name, &err);
    CHECK(got == -1, "a damaged file was opened");
    CHECK(strncmp(err.text, name, strlen(name)) == 0, "no file name in front: %s", err.text);
    for (; *words; words++) CHECK(strstr(err.text, *words), "no '%s' in: %s", *words, err.text);
    if (got == 0) shard_close(&s);
    free(name);
}
#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void test_round_trip(void) {
    check_begin("a shard reads back as it was written");
    Error err = {""};
    CHECK(write_shard(path, &err) == 0, "%s", err.text);
    Shard s;
    CHECK(shard_open(&s, path, &err) == 0, "%s", err.text);
    CHECK(s.pages == PAGES && s.vocab == VOCAB, "%d pages, vocabulary %d", (int)s.pages, (int)s.vocab);
    CHECK(memcmp(s.fingerprint, fingerprint, 32) == 0, "fingerprint");
    uint64_t tokens = 0;
    for (int p = 0; p < PAGES; p++) {
        ShardPage page = shard_page(&s, (uint64_t)p);
        int n = context_length(p), m = answer_length(p);
        tokens += (uint64_t)(n + m);
        CHECK((int)page.context_length == n, "page %d: %d", p, (int)page.context_length);
        CHECK((int)page.answer_length == (m ? m : n), "page %d: %d", p, (int)page.answer_length);
        CHECK(m || page.answer == page.context, "page %d: the answer is stored twice", p);
        for (int i = 0; i < n; i++) CHECK((int)page.context[i] == token(p, i), "page %d token %d", p, i);
        for (int i = 0; i < m; i++) CHECK((int)page.answer[i] == answer_token(p, i), "page %d token %d", p, i);
    }
    CHECK(s.tokens == tokens, "%d tokens", (int)s.tokens);
    CHECK(s.map.size == HEADER + PAGES * ENTRY + tokens * 4, "%zu bytes", s.map.size);
    shard_close(&s);

    check_begin(
        "many pages and several megabytes read back, the same identity each time, another one for other tokens");
    char *big = string_format("%s/big.bin", folder);
    uint32_t crc[3] = {0};
    enum { N = 3000, LENGTH = 1100 };
    static int32_t ids[LENGTH];
    for (int round = 0; round < 3; round++) {
        ShardWriter *w;
        CHECK(shard_writer_open(&w, big, VOCAB, fingerprint, &err) == 0, "%s", err.text);
        for (int p = 0; p < N; p++) {
            for (int i = 0; i < LENGTH; i++) ids[i] = (p * 7 + i * 3 + (round == 2 && p == N - 1)) % VOCAB;
            CHECK(shard_writer_add(w, ids, LENGTH, NULL, 0, &err) == 0, "%s", err.text);
        }
        CHECK(shard_writer_tokens(w) == (uint64_t)N * LENGTH, "tokens so far");
        CHECK(shard_writer_commit(w, &err) == 0, "%s", err.text);
        CHECK(shard_open(&s, big, &err) == 0, "%s", err.text);
        crc[round] = s.crc;
        ShardPage last = shard_page(&s, N - 1);
        CHECK(memcmp(last.context, ids, sizeof ids) == 0, "last page");
        shard_close(&s);
    }
    CHECK(crc[0] == crc[1] && crc[0] != crc[2], "%08x %08x %08x", crc[0], crc[1], crc[2]);
    free(big);

    check_begin("a shard without pages is valid");
    char *empty = string_format("%s/nothing.bin", folder);
    ShardWriter *w;
    CHECK(shard_writer_open(&w, empty, VOCAB, fingerprint, &err) == 0, "%s", err.text);
    CHECK(shard_writer_commit(w, &err) == 0, "%s", err.text);
    CHECK(shard_open(&s, empty, &err) == 0, "%s", err.text);
    CHECK(s.pages == 0 && s.tokens == 0, "not empty");
    shard_close(&s);
    free(empty);
}

static void test_prompts(void) {
    check_begin("prompts read back beside contexts and answers; a shard without any keeps the version that has none");
    enum { N = 4 };
    static const uint32_t ids[12] = {5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, VOCAB - 1}, wrong[1] = {VOCAB};
    const ShardPage pages[N] = {
        {.context = ids, .context_length = 4, .answer = ids, .answer_length = 4},
        {.context = ids,
         .context_length = 5,
         .answer = ids + 8,
         .answer_length = 4,
         .prompt = ids + 5,
         .prompt_length = 3},
        {.context = ids, .context_length = 2, .answer = ids, .answer_length = 2, .prompt = ids + 9, .prompt_length = 1},
        {.context = ids + 3, .context_length = 1, .answer = ids + 4, .answer_length = 2}};
    Error err = {""};
    char *name = string_format("%s/prompts.bin", folder), *data;
    size_t size;
    for (int with = 0; with < 2; with++) {
        ShardWriter *w;
        Shard s;
        CHECK(shard_writer_open(&w, name, VOCAB, fingerprint, &err) == 0, "%s", err.text);
        for (int p = 0; p < N; p++) {
            ShardPage page = pages[p];
            if (!with) page.prompt_length = 0;
            CHECK(shard_writer_add_page(w, &page, &err) == 0, "%s", err.text);
        }
        ShardPage bad = pages[1];
        bad.prompt = wrong;
        bad.prompt_length = 1;
        CHECK(shard_writer_add_page(w, &bad, &err) == -1 && strstr(err.text, "of the prompt"), "%s", err.text);
        CHECK(shard_writer_commit(w, &err) == 0, "%s", err.text);
        CHECK(file_read(&data, &size, name, &err) == 0 && data[8] == 1 + with, "version %d", data[8]);
        free(data);
        CHECK(shard_open(&s, name, &err) == 0, "%s", err.text);
        for (int p = 0; p < N; p++) {
            ShardPage a = shard_page(&s, (uint64_t)p), b = pages[p];
            if (!with) b.prompt_length = 0;
            CHECK(a.context_length == b.context_length && a.answer_length == b.answer_length &&
                      a.prompt_length == b.prompt_length && (a.answer == a.context) == (b.answer == b.context),
                  "page %d: %u + %u + %u", p, a.context_length, a.prompt_length, a.answer_length);
            CHECK(!memcmp(a.context, b.context, 4 * b.context_length) &&
                      !memcmp(a.answer, b.answer, 4 * b.answer_length) &&
                      !(b.prompt_length && memcmp(a.prompt, b.prompt, 4 * b.prompt_length)),
                  "page %d: other tokens", p);
        }
        shard_close(&s);
    }
    unlink(name);
    free(name);
}

static void test_writer_errors(void) {
    check_begin("the writer refuses empty pages and ids outside the vocabulary, and goes on undamaged");
    Error err;
    ShardWriter *w;
    char *name = string_format("%s/writer.bin", folder);
    int32_t good[4] = {0, 1, 2, VOCAB - 1}, high[2] = {5, VOCAB}, negative[1] = {-1};
    CHECK(shard_writer_open(&w, name, VOCAB, fingerprint, &err) == 0, "%s", err.text);
    CHECK(shard_writer_add(w, good, 0, NULL, 0, &err) == -1 && strstr(err.text, "page 1"), "%s", err.text);
    CHECK(shard_writer_add(w, good, 4, good, 0, &err) == -1 && strstr(err.text, "answer"), "%s", err.text);
    CHECK(shard_writer_add(w, good, 4, NULL, 0, &err) == 0, "%s", err.text);
    CHECK(shard_writer_add(w, high, 2, NULL, 0, &err) == -1 && strstr(err.text, "page 2") && strstr(err.text, "1000"),
          "%s", err.text);
    CHECK(shard_writer_add(w, good, 4, negative, 1, &err) == -1 && strstr(err.text, "-1"), "%s", err.text);
    CHECK(shard_writer_add(w, good, 3, good, 2, &err) == 0, "%s", err.text);
    CHECK(shard_writer_add(w, good, (size_t)1 << 31, NULL, 0, &err) == -1 && strstr(err.text, "another shard"), "%s",
          err.text);
    CHECK(shard_writer_commit(w, &err) == 0, "%s", err.text);
    Shard s;
    CHECK(shard_open(&s, name, &err) == 0, "%s", err.text);
    CHECK(s.pages == 2 && s.tokens == 9, "%d pages, %d tokens", (int)s.pages, (int)s.tokens);
    shard_close(&s);
    unlink(name);

    check_begin("a discarded or impossible shard leaves no file");
    CHECK(shard_writer_open(&w, name, VOCAB, fingerprint, &err) == 0, "%s", err.text);
    shard_writer_discard(w);
    CHECK(!file_exists(name), "left over");
    CHECK(shard_writer_open(&w, "/nonexistent/folder/x.bin", VOCAB, fingerprint, &err) == -1 && !w, "%s", err.text);
    free(name);
}

static void test_damage(void) {
    char *data;
    size_t size;
    Error err = {""};
    Shard s;
    check_begin("a missing file, a folder and an empty file are refused");
    CHECK(shard_open(&s, "/nonexistent.bin", &err) == -1 && strstr(err.text, "/nonexistent.bin"), "%s", err.text);
    CHECK(shard_open(&s, folder, &err) == -1 && strstr(err.text, folder), "%s", err.text);
    refuse((const uint8_t *)"", 0, WORDS("empty", "c3 tokenize"));

    check_begin("foreign files are refused");
    uint8_t text[2000];
    memset(text, 'x', sizeof text);
    refuse(text, sizeof text, WORDS("not a token shard", "78 78", "c3 tokenize"));
    refuse(text, 20, WORDS("not a token shard"));
    refuse(text, 3, WORDS("cut short", "3 bytes"));
    memset(text, 0, sizeof text);
    refuse(text, sizeof text, WORDS("not a token shard"));

    CHECK(file_read(&data, &size, path, &err) == 0, "%s", err.text);
    uint8_t *copy = malloc(size + 64);
    uint64_t tokens_at;
    memcpy(&tokens_at, data + 80, 8);

    check_begin("a file cut anywhere, or longer than it says, is refused");
    for (size_t n = 0; n < size; n += n < 1100 ? 7 : 1) {
        memcpy(copy, data, size);
        refuse(copy, n, n == 0 ? WORDS("empty") : WORDS("cut short", "c3 tokenize"));
    }
    refuse(copy, size - 1, WORDS("cut short"));
    memcpy(copy, data, size);
    memset(copy + size, 0, 64);
    refuse(copy, size + 64, WORDS("bytes behind the end"));

    check_begin("another version is refused and both versions are said");
    memcpy(copy, data, size);
    put32(copy + 8, 7);
    refuse(copy, size, WORDS("expected version 1 or 2", "found version 7", "c3 tokenize"));
    repair(copy, size);
    refuse(copy, size, WORDS("expected version 1 or 2", "found version 7"));

    check_begin("a wrong checksum of header, index or tokens is refused and the place is said");
    memcpy(copy, data, size);
    copy[40] ^= 1;
    refuse(copy, size, WORDS("header", "CRC-32", "damaged"));
    memcpy(copy, data, size);
    copy[HEADER + 1] ^= 4;
    refuse(copy, size, WORDS("page index", "CRC-32", "damaged"));
    memcpy(copy, data, size);
    copy[size - 4] ^= 1;
    refuse(copy, size, WORDS("tokens", "CRC-32", "damaged"));

    check_begin("ids beyond the vocabulary are refused, with page and token");
    memcpy(copy, data, size);
    put32(copy + tokens_at + 4 * (3 + 2), VOCAB); // page 2, token 3
    repair(copy, size);
    refuse(copy, size, WORDS("page 2 ", "token 3 ", "below 1000", "found 1000"));
    put32(copy + tokens_at + 4, 0xffffffffu);
    repair(copy, size);
    refuse(copy, size, WORDS("page 1 ", "token 2 ", "found 4294967295"));
    memcpy(copy, data, size);
    put32(copy + 32, 0);
    repair(copy, size);
    refuse(copy, size, WORDS("below 0"));
    put32(copy + 32, 0x80000000u); // ids that would be negative as ints
    repair(copy, size);
    refuse(copy, size, WORDS("vocabulary", "2147483648"));

    check_begin("counts that overflow are refused");
    static const uint64_t huge[] = {UINT64_MAX,        UINT64_MAX / 4,    UINT64_MAX / 24 + 1, (uint64_t)1 << 63,
                                    (uint64_t)1 << 62, (uint64_t)1 << 61, (uint64_t)1 << 32,   ((uint64_t)1 << 31) + 1};
    for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
        for (int which = 0; which < 3; which++) {
            memcpy(copy, data, size);
            if (which != 1) put64(copy + 16, huge[i]);
            if (which != 0) put64(copy + 24, huge[i]);
            repair(copy, size);
            refuse(copy, size, WORDS("header", "tokens"));
        }
    }
    memcpy(copy, data, size);
    put64(copy + 16, (uint64_t)1 << 61); // 24 * 2^61 is 0 in 64 bits: every size agrees, but for the overflow
    put64(copy + 24, (size - HEADER) / 4);
    put64(copy + 80, HEADER);
    repair(copy, size);
    refuse(copy, size, WORDS("header", "no more pages than tokens"));
    memcpy(copy, data, size);
    put64(copy + 16, PAGES + 1); // sizes that would fit together, but not with the offset
    put64(copy + 24, (size - HEADER - (PAGES + 1) * ENTRY) / 4);
    repair(copy, size);
    refuse(copy, size, WORDS("header", "tokens at"));
    for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
        for (int at = 72; at <= 80; at += 8) {
            memcpy(copy, data, size);
            put64(copy + at, huge[i]);
            put32(copy + 1020, file_crc32(0, copy, 1020));
            refuse(copy, size, WORDS("header", "expected the"));
        }
    }

    check_begin("an index that jumps, overlaps, overflows or leaves tokens out is refused, with the page");
    uint8_t *entry = copy + HEADER + 2 * ENTRY; // page 3: 13 + 3 tokens from 11
    static const struct {
        uint64_t offset;
        uint32_t context, answer;
    } bad[] = {{12, 13, 3},          {10, 13, 3},
               {11, 0, 16},          {11, 0xffffffff, 0xffffffff},
               {11, 13, 0xffffffff}, {UINT64_MAX - 4, 5, 0},
               {0, 13, 3},           {11, 100000, 0}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        memcpy(copy, data, size);
        put64(entry, bad[i].offset);
        put32(entry + 8, bad[i].context);
        put32(entry + 12, bad[i].answer);
        repair(copy, size);
        refuse(copy, size, WORDS("page 3 ", "c3 tokenize"));
    }
    memcpy(copy, data, size);
    put32(copy + HEADER + (PAGES - 1) * ENTRY + 8, 1); // the last page ends early
    repair(copy, size);
    refuse(copy, size, WORDS("page index", "in all"));
    memcpy(copy, data, size);
    put32(entry + 16, 2); // of 13 + 3 tokens, 2 + 1 make a prompt and an answer: in version 2
    put32(entry + 12, 1);
    repair(copy, size);
    refuse(copy, size, WORDS("page 3 ", "no prompt in a shard of version 1", "found 2"));
    put32(copy + 8, 2);
    put32(entry + 20, 9);
    repair(copy, size);
    refuse(copy, size, WORDS("page 3 ", "zero", "found 9"));
    put32(entry + 20, 0);
    put32(entry + 16, 0xffffffff);
    repair(copy, size);
    refuse(copy, size, WORDS("page 3 ", "13 + 4294967295 + 1 from 11"));
    free(copy);
    free(data);
}

static void backdate(const char *name, int seconds) {
    struct timespec times[2];
    clock_gettime(CLOCK_REALTIME, &times[0]);
    times[0].tv_sec -= seconds;
    times[1] = times[0];
    utimensat(AT_FDCWD, name, times, 0);
}

static void test_remembered(void) {
    check_begin("the check is remembered beside the file, only for this file as it is");
    Error err = {""};
    Shard s;
    char *name = string_format("%s/kept.bin", folder), *ok = string_format("%s/kept.bin.ok", folder);
    CHECK(write_shard(name, &err) == 0, "%s", err.text);
    CHECK(shard_open(&s, name, &err) == 0, "%s", err.text);
    shard_close(&s);
    CHECK(!file_exists(ok), "a file written a moment ago was remembered");
    backdate(name, 100);
    CHECK(shard_open(&s, name, &err) == 0, "%s", err.text);
    shard_close(&s);
    CHECK(file_exists(ok), "not remembered");

    char *data;
    size_t size;
    struct stat st;
    stat(name, &st);
    CHECK(file_read(&data, &size, name, &err) == 0, "%s", err.text);
    data[size - 4] ^= 1; // damage that only the CRC can see
    put_file(name, data, size);
    CHECK(shard_open(&s, name, &err) == -1 && strstr(err.text, "CRC-32"), "other mtime, still trusted: %s", err.text);
    struct timespec times[2] = {st.st_mtim, st.st_mtim};
    utimensat(AT_FDCWD, name, times, 0);
    CHECK(shard_open(&s, name, &err) == 0, "size, mtime and CRC are the remembered ones: the CRC must be skipped: %s",
          err.text);
    shard_close(&s);

    check_begin("ids and index are checked even when the CRC is remembered");
    put32((uint8_t *)data + size - 4, VOCAB + 3);
    put_file(name, data, size);
    utimensat(AT_FDCWD, name, times, 0);
    CHECK(shard_open(&s, name, &err) == -1 && strstr(err.text, "found 1003"), "%s", err.text);
    put32((uint8_t *)data + HEADER + 8, 0xffffff);
    put_file(name, data, size);
    utimensat(AT_FDCWD, name, times, 0);
    CHECK(shard_open(&s, name, &err) == -1 && strstr(err.text, "page 1 "), "%s", err.text);

    check_begin("a foreign, cut or hostile .ok file is not believed and does no harm");
    static const char *const lines[] = {"", "checked", "checked size 1 mtime_ns 1 crc 00000000\n"};
    for (int i = 0; i < 4; i++) {
        CHECK(write_shard(name, &err) == 0, "%s", err.text);
        backdate(name, 50);
        if (i < 3) put_file(ok, lines[i], strlen(lines[i]));
        else CHECK(unlink(ok) == 0 && mkdir(ok, 0777) == 0, "mkdir");
        CHECK(shard_open(&s, name, &err) == 0, "%s", err.text);
        shard_close(&s);
        if (i < 3) {
            char *line;
            size_t n;
            CHECK(file_read(&line, &n, ok, &err) == 0 && strncmp(line, "checked size ", 13) == 0 && n > 50, "'%s'",
                  line);
            free(line);
        }
    }
    rmdir(ok);
    free(data);
    free(ok);
    free(name);
}

static void test_verify(void) {
    check_begin("what is remembered is said, and computed when asked; damage is then no longer vouched for");
    Error err = {""};
    Shard s;
    struct stat st;
    char *data, *name = string_format("%s/trusted.bin", folder), *ok = string_format("%s/trusted.bin.ok", folder);
    size_t size;
    CHECK(write_shard(name, &err) == 0, "%s", err.text);
    backdate(name, 100);
    stat(name, &st);
    CHECK(shard_open(&s, name, &err) == 0 && !s.trusted && shard_verify(&s, &err) == 0, "%s", err.text);
    shard_close(&s);
    CHECK(shard_open(&s, name, &err) == 0 && s.trusted && shard_verify(&s, &err) == 0 && !s.trusted, "%s", err.text);
    shard_close(&s);
    CHECK(file_read(&data, &size, name, &err) == 0, "%s", err.text);
    data[size - 4] ^= 1;
    put_file(name, data, size);
    struct timespec times[2] = {st.st_mtim, st.st_mtim};
    utimensat(AT_FDCWD, name, times, 0);
    CHECK(shard_open(&s, name, &err) == 0 && s.trusted, "%s", err.text);
    CHECK(shard_verify(&s, &err) == -1 && strstr(err.text, "tokens: expected CRC-32"), "%s", err.text);
    shard_close(&s);
    CHECK(!file_exists(ok) && shard_open(&s, name, &err) == -1, "damage is still vouched for");
    free(data);
    free(ok);
    free(name);
}

static void test_sets(void) {
    check_begin("a set: each shard says which of how many; the contents decide, and the identity stays");
    Error err = {""};
    Shard s, t;
    char *names[3], *again = string_format("%s/again.bin", folder);
    for (int i = 0; i < 3; i++) {
        names[i] = string_format("%s/set%d.bin", folder, i);
        CHECK(write_shard(names[i], &err) == 0, "%s", err.text);
    }
    CHECK(shard_open(&s, names[0], &err) == 0 && s.set.count == 0 && s.set.id == 0, "%s", err.text);
    const uint32_t crc = s.crc;
    shard_close(&s);
    CHECK(shard_make_set(names, 3, &err) == 0, "%s", err.text);
    CHECK(shard_open(&s, names[0], &err) == 0 && shard_open(&t, names[2], &err) == 0, "%s", err.text);
    CHECK(s.set.index == 0 && t.set.index == 2 && s.set.count == 3 && t.set.count == 3, "%u of %u, %u of %u",
          s.set.index, s.set.count, t.set.index, t.set.count);
    CHECK(s.set.id != 0 && s.set.id == t.set.id && s.crc == crc, "ids differ, or the identity does");
    shard_close(&t);
    CHECK(write_shard(again, &err) == 0, "%s", err.text);
    char *other[] = {again, names[1], names[2]}, *two[] = {again, names[1]};
    CHECK(shard_make_set(other, 3, &err) == 0 && shard_open(&t, again, &err) == 0, "%s", err.text);
    CHECK(t.set.id == s.set.id, "the same contents, another set");
    shard_close(&t);
    CHECK(shard_make_set(two, 2, &err) == 0 && shard_open(&t, again, &err) == 0, "%s", err.text);
    CHECK(t.set.id != s.set.id && t.set.count == 2, "another set, the same id");
    shard_close(&t);
    shard_close(&s);

    check_begin("a place beyond the set, or in none, is refused");
    char *data;
    size_t size;
    CHECK(file_read(&data, &size, again, &err) == 0, "%s", err.text);
    put32((uint8_t *)data + 104, 2);
    repair((uint8_t *)data, size);
    refuse((uint8_t *)data, size, WORDS("shard 0 to 1 of its set", "found 2"));
    put32((uint8_t *)data + 108, 0);
    repair((uint8_t *)data, size);
    refuse((uint8_t *)data, size, WORDS("of its set"));
    CHECK(shard_make_set((char *[]){again, (char *)"build/none.bin"}, 2, &err) == -1 &&
              strstr(err.text, "build/none.bin: cannot open"),
          "%s", err.text);
    free(data);
    for (int i = 0; i < 3; i++) free(names[i]);
    free(again);
}

// Reads everything the reader hands out, as the trainer would.
static void read_all(const Shard *s) {
    uint64_t seen = 0;
    for (uint64_t p = 0; p < s->pages; p++) {
        ShardPage page = shard_page(s, p);
        int bad = 0;
        for (uint32_t i = 0; i < page.context_length; i++) bad |= page.context[i] >= s->vocab;
        for (uint32_t i = 0; i < page.answer_length; i++) bad |= page.answer[i] >= s->vocab;
        CHECK(!bad, "an id outside the vocabulary was handed out");
        seen += page.context_length + (page.answer == page.context ? 0 : page.answer_length);
    }
    CHECK(seen == s->tokens, "pages do not cover the tokens");
}

static void test_mutations(void) {
    Error err = {""};
    char *data, *name = string_format("%s/mutant.bin", folder);
    size_t size;
    CHECK(file_read(&data, &size, path, &err) == 0, "%s", err.text);
    uint8_t *copy = malloc(size);
    for (int repaired = 0; repaired < 2; repaired++) {
        check_begin(repaired ? "random mutations with repaired checksums are refused or harmless"
                             : "every random mutation is refused");
        int opened = 0;
        for (int round = 0; round < 4000; round++) {
            memcpy(copy, data, size);
            size_t n = rng(8) ? size : rng((uint32_t)size + 1);
            for (uint32_t k = 0, many = 1 + rng(6); k < many; k++) {
                uint32_t place = rng(3);
                size_t at = place == 0 ? rng(100) : place == 1 ? HEADER + rng(PAGES * ENTRY) : rng((uint32_t)size);
                if (rng(2)) copy[at] = (uint8_t)rng(256);
                else copy[at] ^= (uint8_t)(1 << rng(8));
            }
            int same = n == size && memcmp(copy, data, size) == 0;
            if (repaired && n >= HEADER) repair(copy, n);
            put_file(name, copy, n);
            Shard s;
            int got = shard_open(&s, name, &err);
            CHECK(repaired || same || got == -1, "a mutation was not noticed");
            CHECK(got == 0 || strncmp(err.text, name, strlen(name)) == 0, "%s", err.text);
            if (got == 0) {
                read_all(&s);
                shard_close(&s);
                opened += !same;
            }
        }
        CHECK(repaired == (opened > 100), "%d mutants opened: the test does not reach what it should", opened);
    }
    free(copy);
    free(data);
    free(name);
}

int main(void) {
    if (!mkdtemp(folder)) return perror(folder), 2;
    path = string_format("%s/pages.bin", folder);
    test_round_trip();
    test_prompts();
    test_writer_errors();
    test_damage();
    test_remembered();
    test_verify();
    test_sets();
    test_mutations();
    free(path);
    file_remove_tree(folder, NULL);
    return check_done();
}
