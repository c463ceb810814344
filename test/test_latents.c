// test_latents.c: the file of latents: what is written comes back, any damage is refused by name; and the cutting of
// documents into pages.
#include "test/check.h"

#include <stdlib.h>
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/text/chunk.h"
#include "llmc/base/file.h"
#include "llmc/weights/latents.h"
#include "llmc/text/tokenizer.h"

static char folder[] = "build/test_latents_XXXXXX";
static char *path; // of the file under test
static Error err;
static uint64_t bytes;

// ---- files ---------------------------------------------------------------------------------------------------------

// Two documents of two pages and one, N = 2, width 3; the second page has `windows`, the others one.
static LatentFile windowed(DType dtype, int windows) {
    static const char *const gaps[] = {" ", "\n\n", "", "\t", "\r\n\v\f"};
    LatentFile f = {.latents = 2, .width = 3, .dtype = dtype, .n_documents = 2, .n_pages = 3, .n_windows = 2 + windows};
    latents_hash(f.model, "model", 5);
    f.pages = calloc(3, sizeof *f.pages);
    f.documents = calloc(2, sizeof *f.documents);
    for (int i = 0; i < 3; i++) {
        f.pages[i].tokens = 7 + i;
        f.pages[i].windows = i == 1 ? windows : 1;
        f.pages[i].first = i == 2 ? 1 + windows : i;
        latents_hash(f.pages[i].sha256, "page", (size_t)i + 1);
    }
    for (int d = 0, gap = 0; d < 2; d++) {
        LatentDocument *doc = &f.documents[d];
        *doc = (LatentDocument){
            .id = strdup(d ? "b \"quoted\" \\ \n 页" : "a"), .first = 2 * d, .pages = 2 - d, .is_nfc = !d};
        doc->gaps = calloc((size_t)doc->pages + 1, sizeof *doc->gaps);
        for (int i = 0; i <= doc->pages; i++) doc->gaps[i] = strdup(gaps[gap++]);
    }
    f.data = f.memory = malloc(latents_bytes(&f));
    float numbers[48];
    for (int i = 0; i < 48; i++) numbers[i] = (float)(i - 9) * 0.37f;
    safetensors_convert(f.memory, dtype, numbers, DTYPE_F32, (size_t)(6 * f.n_windows));
    return f;
}

static LatentFile example(DType dtype) { return windowed(dtype, 1); }

static void check_same(const LatentFile *a, const LatentFile *b) {
    CHECK(!strcmp(a->model, b->model) && a->latents == b->latents && a->width == b->width && a->dtype == b->dtype,
          "model %s, %d x %d", b->model, b->latents, b->width);
    CHECK(a->n_pages == b->n_pages && a->n_documents == b->n_documents && a->n_windows == b->n_windows,
          "%d pages, %d documents, %d windows", b->n_pages, b->n_documents, b->n_windows);
    CHECK(memcmp(a->data, b->data, latents_bytes(a)) == 0, "numbers differ");
    for (int i = 0; i < a->n_pages && i < b->n_pages; i++) {
        CHECK(a->pages[i].tokens == b->pages[i].tokens && !strcmp(a->pages[i].sha256, b->pages[i].sha256),
              "page %d: %d tokens, %s", i, b->pages[i].tokens, b->pages[i].sha256);
        CHECK(a->pages[i].first == b->pages[i].first && a->pages[i].windows == b->pages[i].windows,
              "page %d: windows %d+%d", i, b->pages[i].first, b->pages[i].windows);
    }
    for (int d = 0; d < a->n_documents && d < b->n_documents; d++) {
        const LatentDocument *x = &a->documents[d], *y = &b->documents[d];
        CHECK(!strcmp(x->id, y->id) && x->first == y->first && x->pages == y->pages && x->is_nfc == y->is_nfc,
              "document %d: %s, pages %d+%d", d, y->id, y->first, y->pages);
        for (int i = 0; i <= x->pages && i <= y->pages; i++)
            CHECK(!strcmp(x->gaps[i], y->gaps[i]), "document %d: gap %d is \"%s\"", d, i, y->gaps[i]);
    }
}

static void test_round_trip(DType dtype, int windows, const char *name) {
    check_begin(name);
    LatentFile f = windowed(dtype, windows), g;
    CHECK(latents_write(&f, path, &bytes, &err) == 0, "%s", err.text);
    int bad = latents_read(&g, path, &err);
    CHECK(bad == 0, "%s", err.text);
    if (!bad) check_same(&f, &g);
    CHECK(bad || !strcmp(safetensors_metadata(g.file, "version"), windows > 1 ? "2" : "1"), "version");
    latents_free(&f);
    latents_free(&g);
}

static void test_header(int windows) {
    check_begin("what documents take of the header is known to the byte before it is written; too many do not fit");
    LatentFile f = windowed(DTYPE_F32, windows), g = {0};
    LatentHeader h = {0};
    for (int d = 0; d < 2; d++) CHECK(latents_header_add(&h, &f, &f.documents[d]) == 1, "document %d", d);
    CHECK(latents_write(&f, path, &bytes, &err) == 0 && latents_read(&g, path, &err) == 0, "%s", err.text);
    const char *documents = safetensors_metadata(g.file, "documents");
    size_t escaped = 0, values = 0;
    for (const char *c = documents; *c; c++) escaped += *c == '"' || *c == '\\' ? 2 : 1;
    // {"documents":[ and ]} with their quotes escaped, less the one comma there is not
    CHECK(h.bytes + 18 - 1 == escaped, "%zu bytes counted, %zu written", h.bytes, escaped);
    for (const char *c = documents, *quoted = NULL; *c; c++) {
        if (*c == '\\') c++;
        else if (*c == '"') quoted = quoted ? NULL : c;
        else if (!quoted) values += strchr("{[,", *c) != NULL;
    }
    CHECK(h.values + 2 - 1 == values, "%zu values counted, %zu written", h.values, values);
    latents_free(&g);
    free(f.documents[0].id);
    f.documents[0].id = malloc(20000001);
    memset(f.documents[0].id, '"', 20000000); // " is \" in JSON, and \\\" in JSON inside it
    f.documents[0].id[20000000] = 0;
    CHECK(latents_header_add(&h, &f, &f.documents[0]) == 1 && h.bytes > 80000000, "%zu bytes", h.bytes);
    CHECK(latents_header_add(&h, &f, &f.documents[0]) == 0, "%zu bytes", h.bytes);
    latents_free(&f);
}

static void put(const void *data, size_t size) {
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) perror(path), exit(2);
}

static int refused(const char *what) {
    LatentFile f;
    err.text[0] = 0;
    if (latents_read(&f, path, &err) == 0) {
        latents_free(&f);
        return 0;
    }
    return strstr(err.text, path) && strstr(err.text, what);
}

static void test_every_bit(void) {
    check_begin("a file with any one bit turned over is refused, and so is any beginning of it");
    LatentFile f = example(DTYPE_BF16);
    char *data;
    size_t size;
    if (latents_write(&f, path, &bytes, &err) != 0 || file_read(&data, &size, path, &err) != 0) exit(2);
    for (size_t i = 0; i < 8 * size; i++) {
        data[i / 8] ^= (char)(1 << i % 8);
        put(data, size);
        CHECK(refused(""), "bit %zu of byte %zu: '%c'", i % 8, i / 8, data[i / 8]);
        data[i / 8] ^= (char)(1 << i % 8);
    }
    for (size_t n = 0; n < size; n++) {
        put(data, n);
        CHECK(refused(""), "cut at %zu", n);
    }
    put(data, size);
    CHECK(!refused(""), "the file itself: %s", err.text);
    free(data);
    latents_free(&f);
}

// A file whose checksum is right and whose contents are not: what only somebody who means it can write.
static void test_hostile(void) {
    check_begin("contents that do not fit one another are refused by name, checksum or not");
    const struct {
        const char *says;
        int what;
    } cases[] = {{"page 2: \"tokens\"", 0},
                 {"white space", 1},
                 {"\"id\"", 2},
                 {"page 2: latent 7 has a number that is not finite", 3},
                 {"\"sha256\": expected 64", 4},
                 {"the 0 that are left of the tensor's 2", 5},
                 {"2 pages, 6 windows, the tensor has 7", 6},
                 {"\"model\"", 7},
                 {"\"id\"", 8},
                 {"page 2: \"windows\": expected 1 to its 8 tokens, and 6 are left", 9},
                 {"page 2: \"windows\": expected 1 to its 4 tokens", 10}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        LatentFile f = windowed(DTYPE_F32, cases[i].what == 5 ? 1 : 5);
        int documents = f.n_documents;
        switch (cases[i].what) {
        case 0:
            f.pages[1].tokens = 0;
            break;
        case 1:
            memcpy(f.documents[0].gaps[1], "a", 2);
            break;
        case 2:
            f.documents[1].id[0] = 0;
            break;
        case 3:
            ((float *)f.memory)[24] = 1.0f / 0.0f;
            break;
        case 4:
            f.pages[2].sha256[3] = 'g';
            break;
        case 5:
            f.n_pages = f.n_windows = 2;
            break; // the documents have three
        case 6:
            f.n_documents = 1;
            break;
        case 7:
            f.model[5] = 'X';
            break;
        case 9:
            f.pages[1].windows = 7;
            break;
        case 10:
            f.pages[1].tokens = 4;
            break;
        default:
            memcpy(f.documents[0].id, "\xff", 2);
            break;
        }
        if (latents_write(&f, path, &bytes, &err) != 0) printf("%s\n", err.text), exit(2);
        CHECK(refused(cases[i].says), "case %zu: found \"%s\", expected \"%s\"", i, err.text, cases[i].says);
        f.n_documents = documents;
        latents_free(&f);
    }
}

static void test_foreign(void) {
    check_begin("other files: no file, a folder, an empty one, text, a safetensors file without latents, two tensors");
    SafeEntry entries[] = {{.name = "latents", .dtype = DTYPE_F32, .dims = 1, .shape = {1}},
                           {.name = "b", .dtype = DTYPE_F32, .dims = 1, .shape = {1}}};
    float numbers[2] = {1, 2};
    unlink(path);
    CHECK(refused("No such file"), "%s", err.text);
    LatentFile f;
    CHECK(latents_read(&f, folder, &err) != 0 && strstr(err.text, folder), "%s", err.text);
    put("", 0);
    CHECK(refused("0 bytes"), "%s", err.text);
    put("just some text", 14);
    CHECK(refused("no safetensors file"), "%s", err.text);
    for (int n = 1; n <= 2; n++) {
        char model[65];
        latents_hash(model, "x", 1);
        const char *const meta[][2] = {
            {"format", n == 1 ? "pt" : "c3-latents"}, {"version", "1"}, {"model", model}, {"documents", "{}"}};
        SafeWriter *w;
        if (safetensors_writer_open(&w, path, entries, n, meta, 4, &err) != 0 ||
            safetensors_writer_data(w, numbers, (size_t)n * 4, &err) != 0 || safetensors_writer_commit(w, &err) != 0)
            exit(2);
        CHECK(refused(n == 1 ? "no latents" : "expected one tensor"), "%s", err.text);
    }
}

// ---- cutting -------------------------------------------------------------------------------------------------------

static Tokenizer *tok;

// Cuts and joins the pages with '|', gaps left out, in a static buffer.
static const char *cut(const char *text, int most) {
    static char out[4096];
    PageSpan *spans;
    int n;
    size_t at = 0;
    if (chunk_pages(&spans, &n, text, strlen(text), tok, most, &err) != 0) return err.text;
    for (int i = 0; i < n; i++)
        at += (size_t)snprintf(out + at, sizeof out - at, "%s%.*s", i ? "|" : "", (int)(spans[i].end - spans[i].begin),
                               text + spans[i].begin);
    out[at] = 0;
    free(spans);
    return out;
}

static void test_borders(void) {
    const struct {
        const char *name, *text, *pages;
        int most;
    } cases[] = {
        {"what fits is one page", "one\n\ntwo", "one\n\ntwo", 16},
        {"white space around a page is none of it", " \n one \n", "one", 16},
        {"nothing but white space: no page", " \n\t\r\n", "", 16},
        {"paragraphs before lines", "aaaa\nbbbb\n\ncccc\ndddd", "aaaa\nbbbb|cccc\ndddd", 15},
        {"an empty line may hold spaces", "aaaa\nbbbb\n \t\ncccc\ndddd", "aaaa\nbbbb|cccc\ndddd", 18},
        {"as many paragraphs as fit", "a\n\nb\n\nc\n\nd\n\ne", "a\n\nb\n\nc|d\n\ne", 8},
        {"lines before sentences", "aa. bb\ncc. dd ee", "aa. bb|cc. dd ee", 10},
        {"sentences before words", "aa bb. cc dd ee", "aa bb.|cc dd ee", 9},
        {"the end of a quotation", "aa \"bb.\" cc dd", "aa \"bb.\"|cc dd", 9},
        {"words before characters", "aaaa bbbb cccc", "aaaa bbbb|cccc", 9},
        {"characters when nothing else is there", "abcdefghijkl", "abcdefgh|ijkl", 8},
        {"Chinese sentences have no spaces", "天地。玄黄。宇", "天地。|玄黄。宇", 16},
        {"a closing mark stays with its sentence", "“天地。”玄黄", "“天地。”|玄黄", 16},
        {"never inside a character", "天地玄黄", "天地|玄黄", 7},
        {"not even when none fits", "天", "byte 0: one character takes more than 2 tokens", 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_begin(cases[i].name);
        const char *got = cut(cases[i].text, cases[i].most);
        CHECK(!strcmp(got, cases[i].pages), "\"%s\", expected \"%s\"", got, cases[i].pages);
    }
}

static uint64_t state = 88172645463325252u;
static unsigned below(unsigned n) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)(state >> 33) % n;
}

static int at_paragraph(const char *text) { return strncmp(text, "\n\n", 2) == 0; }

static void test_random_documents(void) {
    check_begin(
        "random documents: pages fit, nothing is lost, two that end with their paragraphs would not fit in one");
    static const char *const pieces[] = {"word", " ", "\n",   "\n\n", ". ", "天",   "。",
                                         "\t",   "a", "\r\n", "  ",   "é",  "\n \n"};
    for (int round = 0; round < 300; round++) {
        char text[2048] = "";
        size_t n = 0;
        for (unsigned k = 1 + below(200); k > 0; k--)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s", pieces[below(sizeof pieces / sizeof *pieces)]);
        int most = 16 + (int)below(60), count;
        PageSpan *spans;
        Tokens tokens = {0};
        if (chunk_pages(&spans, &count, text, n, tok, most, &err) != 0) exit(2);
        for (int i = 0; i <= count; i++) {
            size_t begin = i ? spans[i - 1].end : 0, end = i < count ? spans[i].begin : n;
            CHECK(end >= begin && strspn(text + begin, " \t\r\n") >= end - begin, "round %d: text lost at %zu", round,
                  begin);
            if (i == count) break;
            tokens.n = 0;
            tokenizer_encode(tok, &tokens, text + spans[i].begin, spans[i].end - spans[i].begin, &err);
            CHECK((int)tokens.n == spans[i].tokens && tokens.n >= 1 && (int)tokens.n <= most,
                  "round %d: page %d has %zu tokens, said %d of %d", round, i, tokens.n, spans[i].tokens, most);
            tokens.n = 0;
            if (i + 1 < count && at_paragraph(text + spans[i].end) && at_paragraph(text + spans[i + 1].end)) {
                tokenizer_encode(tok, &tokens, text + spans[i].begin, spans[i + 1].end - spans[i].begin, &err);
                CHECK((int)tokens.n > most, "round %d: pages %d and %d fit into one", round, i, i + 1);
            }
        }
        tokens_free(&tokens);
        free(spans);
    }
}

static void test_long_document(void) {
    check_begin("a document of a megabyte without any border");
    size_t n = 1 << 20;
    char *text = malloc(n);
    for (size_t i = 0; i < n; i++) text[i] = (char)('a' + below(26));
    PageSpan *spans;
    int count;
    CHECK(chunk_pages(&spans, &count, text, n, tok, 1024, &err) == 0, "%s", err.text);
    CHECK(count == 1024 && spans[0].tokens == 1024 && spans[count - 1].end == n, "%d pages", count);
    free(spans);
    memset(text, ' ', n); // a page, then nothing for long
    text[0] = text[n - 1] = 'x';
    CHECK(chunk_pages(&spans, &count, text, n, tok, 1024, &err) == 0 && count == 2, "%d pages: %s", count, err.text);
    free(spans);
    free(text);
}

// A tokenizer of single bytes: tokens are bytes.
static void make_tokenizer(void) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *name = string_format("%s/bytes.tiktoken", folder);
    FILE *f = fopen(name, "w");
    if (!f) perror(name), exit(2);
    for (int i = 0; i < 256; i++) fprintf(f, "%c%c== %d\n", letters[i >> 2], letters[(i & 3) << 4], i);
    fclose(f);
    if (tokenizer_load(&tok, name, 256, &err) != 0) printf("%s\n", err.text), exit(2);
    unlink(name);
    free(name);
}

int main(void) {
    if (!mkdtemp(folder)) return perror(folder), 2;
    path = string_format("%s/x.c3", folder);
    make_tokenizer();
    test_round_trip(DTYPE_F32, 1, "what is written comes back, fp32");
    test_round_trip(DTYPE_BF16, 1, "what is written comes back, bf16");
    test_round_trip(DTYPE_BF16, 3, "a page of three windows");
    test_header(1);
    test_header(4);
    test_every_bit();
    test_hostile();
    test_foreign();
    test_borders();
    test_random_documents();
    test_long_document();
    tokenizer_free(tok);
    free(path);
    file_remove_tree(folder, &err);
    return check_done();
}
