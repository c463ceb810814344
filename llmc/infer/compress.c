// compress.c: documents to latents, see compress.h.
#include "llmc/infer/compress.h"

#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/base/clean.h"
#include "llmc/base/file.h"
#include "llmc/base/format.h"
#include "llmc/infer/model.h"
#include "llmc/text/chunk.h"
#include "llmc/text/pages.h"
#include "llmc/weights/latents.h"
#include "llmc/weights/weights.h" // checkpoint_fingerprint

// ---- reading and cutting -------------------------------------------------------------------------------------------

// Pages waiting for the encoder, and the file they go into.
typedef struct Compressor {
    Model *m;
    CompressSizes *sizes;
    LatentFile file;
    Tokens *tokens; // (file.n_pages)
    size_t page_room, token_room, document_room;
    LatentHeader header;
} Compressor;

static int add_page(Compressor *c, const char *text, size_t length, Error *err) {
    LatentFile *f = &c->file;
    const size_t n = (size_t)f->n_pages;
    f->pages = alloc_grow(f->pages, n, &c->page_room, sizeof *f->pages, "pages");
    c->tokens = alloc_grow(c->tokens, n, &c->token_room, sizeof *c->tokens, "pages");
    LatentPage *page = &f->pages[f->n_pages];
    Tokens *tokens = &c->tokens[f->n_pages++];
    *tokens = (Tokens){0};
    TRY(tokenizer_encode(c->m->tok, tokens, text, length, err));
    *page = (LatentPage){.tokens = (int)tokens->n, .first = f->n_windows};
    page->windows = template_windows(&c->m->t, (const uint32_t *)tokens->ids, (uint32_t)tokens->n);
    f->n_windows += page->windows;
    untrained_add(&c->sizes->untrained, tokens->n);
    latents_hash(page->sha256, text, length);
    return 0;
}

// Pages and gaps of one document, whose text (length) is in NFC.
static int add_spans(Compressor *c, LatentDocument *doc, const PageSpan *spans, int n, const char *text, size_t length,
                     Error *err) {
    size_t at = 0;
    doc->gaps = alloc_zeroed((size_t)n + 1, sizeof *doc->gaps, "a document's pages");
    doc->first = c->file.n_pages;
    doc->pages = n;
    for (int i = 0; i <= n; i++) {
        size_t begin = i < n ? spans[i].begin : length;
        doc->gaps[i] = string_format("%.*s", (int)(begin - at), text + at);
        if (i == n) break;
        TRY(add_page(c, text + begin, spans[i].end - begin, err));
        at = spans[i].end;
    }
    return 0;
}

static double count_characters(const char *text, size_t n) {
    size_t characters = 0;
    for (size_t i = 0; i < n; i++) characters += ((unsigned char)text[i] & 0xc0) != 0x80;
    return (double)characters;
}

static void count_cut(const Compressor *c, const LatentDocument *doc) {
    CompressSizes *sizes = c->sizes;
    uint64_t tokens = 0;
    for (int i = 0; i < doc->pages; i++) tokens += (uint64_t)c->file.pages[doc->first + i].tokens;
    sizes->cut.all_pages++;
    sizes->cut.all_tokens += tokens;
    if (doc->pages < 2) return;
    sizes->cut.pages++;
    sizes->cut.tokens += tokens;
    sizes->chunk_pages += doc->pages;
}

static int add_document(Compressor *c, const Page *in, Error *err) {
    LatentFile *f = &c->file;
    CompressSizes *sizes = c->sizes;
    char *text;
    size_t length;
    PageSpan *spans;
    int n;
    TRY(text_nfc(&text, &length, in->text, in->length, err));
    int bad = chunk_pages(&spans, &n, text, length, c->m->tok, sizes->page_tokens, err);
    if (!bad) {
        f->documents =
            alloc_grow(f->documents, (size_t)f->n_documents, &c->document_room, sizeof *f->documents, "documents");
        LatentDocument *doc = &f->documents[f->n_documents++]; // from here on latents_free frees it
        *doc = (LatentDocument){.id = string_copy(in->id)};
        doc->is_nfc = length == in->length && memcmp(text, in->text, length) == 0;
        bad = add_spans(c, doc, spans, n, text, length, err);
        sizes->not_nfc += !doc->is_nfc;
        sizes->text_bytes += (double)length;
        sizes->characters += count_characters(text, length);
        if (!bad) count_cut(c, doc);
    }
    free(spans);
    free(text);
    return bad ? error_prefix(err, "%.200s", in->id) : 0;
}

// Does the last document fit into the file's header?
static int check_header(Compressor *c, const char *path, Error *err) {
    const LatentFile *f = &c->file;
    if (latents_header_add(&c->header, f, &f->documents[f->n_documents - 1])) return 0;
    return error_set(
        err,
        "%s: more documents than one .c3 holds: its list of pages may have %d MB, which the first %d documents "
        "fill (hint: cut the input there and write several files)",
        path, SAFETENSORS_MAX_HEADER / 1000000, f->n_documents - 1);
}

static int read_documents(Compressor *c, const char *path, Error *err) {
    PageReader *r;
    Page page;
    int more, bad = 0;
    TRY(pages_open(&r, path, err));
    while (!bad && (more = pages_next(r, &page, err)) != 0)
        bad = more < 0 || add_document(c, &page, err) != 0 || check_header(c, path, err) != 0;
    c->sizes->without_text = (int)pages_without_text(r);
    pages_close(r);
    if (!bad && c->file.n_documents == 0)
        bad = error_set(err, "%s: no page to work on (%d without text)", path, c->sizes->without_text);
    return bad ? -1 : 0;
}

// ---- encoding ------------------------------------------------------------------------------------------------------

// Rows of the encoder's batches: enough for efficient products. Fewest tokens that can hold any character.
enum { ENCODE_ROWS = 4096, FEWEST_TOKENS = 16 };

// asked = 0: the longest the model was trained on, else the paper's, within the `most` it takes.
static int choose_page_tokens(int *out, const Model *m, int asked, Error *err) {
    int most = model_longest_page(m), trained = m->files.config.trained_tokens[1];
    int usual = trained ? trained : COMPRESS_PAGE_TOKENS;
    if (most < FEWEST_TOKENS) return error_set(err, "%s: takes pages of at most %d tokens", m->folder, most);
    if (asked && asked < FEWEST_TOKENS)
        return error_set(err, "-page_tokens %d: expected at least %d", asked, FEWEST_TOKENS);
    if (asked > most)
        return error_set(err, "-page_tokens %d: the model %s takes pages of at most %d tokens", asked, m->folder, most);
    *out = asked ? asked : usual < FEWEST_TOKENS ? FEWEST_TOKENS : usual < most ? usual : most;
    return 0;
}

static C3Limits encode_limits(const Compressor *c) {
    int N = c->m->files.config.latents, page = 0;
    C3Limits l = {.recompute = KEEP_NOTHING, .head_rows = 1};
    for (int i = 0; i < c->file.n_pages; i++) {
        int rows = c->file.pages[i].tokens + c->file.pages[i].windows * (1 + N);
        if (rows > page) page = rows;
    }
    l.enc_rows = page > ENCODE_ROWS ? page : ENCODE_ROWS;
    l.pages = l.windows = l.enc_rows / (2 + N);
    if (l.pages > c->file.n_pages) l.pages = c->file.n_pages;
    if (l.windows > c->file.n_windows) l.windows = c->file.n_windows;
    l.dec_rows = l.pages * template_overhead(&c->m->t, 0) + l.windows * N; // batch_build packs the prompts as well
    l.dec_outputs = l.pages;
    return l;
}

// Packs pages from `first` on, as many as fit into one batch. Returns how many.
static int pack(const Compressor *c, MicroBatch *batch, ShardPage *pages, int first) {
    const C3Limits *l = &c->m->c3.limits;
    int N = c->file.latents, n = 0, rows = 0;
    for (; n < l->pages && first + n < c->file.n_pages; n++) {
        const Tokens *t = &c->tokens[first + n];
        rows += (int)t->n + c->file.pages[first + n].windows * (1 + N);
        if (rows > l->enc_rows) break;
        pages[n] = generate_prompt(t->ids, (int)t->n);
    }
    batch_build(batch, pages, NULL, n, &c->m->t, N, UINT32_MAX, NULL);
    return n;
}

static int encode(Compressor *c, PagesDone *progress, void *arg, Error *err) {
    C3 *m = &c->m->c3;
    Backend *b = c->m->b;
    LatentFile *f = &c->file;
    MicroBatch batch = {0};
    const C3Limits *l = &m->limits;
    size_t window = (size_t)f->latents * (size_t)f->width * dtype_size(f->dtype);
    f->data = f->memory = malloc((size_t)f->n_windows * window);
    if (!f->memory) return error_set(err, "out of memory for the latents of %d pages", f->n_pages);
    ShardPage *pages = alloc((size_t)l->pages, sizeof *pages, "a batch of pages");
    int bad = batch_create(&batch, b, c3_batch_rows(l), err);
    for (int first = 0; first < f->n_pages && !bad;) {
        int n = pack(c, &batch, pages, first);
        b->upload(b, m->batch_device, batch.block, batch.bytes);
        MicroBatch d = batch_view(&batch, m->batch_device);
        c3_encode(m, &d.enc);
        b->download(b, (char *)f->memory + (size_t)f->pages[first].first * window, m->enc_acts.out,
                    (size_t)d.enc.pages * window);
        first += n;
        if (progress) progress(arg, first, f->n_pages);
    }
    batch_free(&batch);
    free(pages);
    return bad;
}

// ---- compress ------------------------------------------------------------------------------------------------------

static void count_sizes(CompressSizes *s, const Model *m, const LatentFile *f, uint64_t file_bytes) {
    s->documents = f->n_documents;
    s->pages = f->n_pages;
    s->windows = f->n_windows;
    s->window = m->t.window;
    for (int i = 0; i < f->n_pages; i++) s->tokens += f->pages[i].tokens;
    s->latents = f->latents;
    s->latents_trained = model_knows_latents(m);
    s->width = f->width;
    s->number_bytes = (int)dtype_size(f->dtype);
    s->latent_bytes = (double)latents_bytes(f);
    s->file_bytes = (double)file_bytes;
}

static int compress(Compressor *c, const ModelPlace *model, const char *input, const char *output, int page_tokens,
                    PagesDone *progress, void *arg, Error *err) {
    Model *m = c->m;
    LatentFile *f = &c->file;
    uint64_t bytes;
    TRY(model_open(m, model, err));
    TRY(choose_page_tokens(&c->sizes->page_tokens, m, page_tokens, err));
    TRY(file_check_writable(output, err));
    c->sizes->untrained = untrained_count(m->files.config.trained_tokens);
    TRY(read_documents(c, input, err));
    C3Limits limits = encode_limits(c);
    TRY(checkpoint_fingerprint(f->model, m->folder, err));
    TRY(model_load(m, model, &limits, err));
    f->latents = m->files.config.latents;
    f->width = m->files.config.enc.D;
    f->dtype = m->b->dtype;
    TRY(encode(c, progress, arg, err));
    TRY(latents_write(f, output, &bytes, err));
    count_sizes(c->sizes, m, f, bytes);
    return 0;
}

int compress_file(CompressSizes *sizes, const ModelPlace *model, const char *input, const char *output, int page_tokens,
                  PagesDone *progress, void *arg, Error *err) {
    Model m = {0};
    Compressor c = {.m = &m, .sizes = sizes};
    *sizes = (CompressSizes){0};
    int bad = compress(&c, model, input, output, page_tokens, progress, arg, err);
    for (int i = 0; i < c.file.n_pages; i++) tokens_free(&c.tokens[i]);
    free(c.tokens);
    latents_free(&c.file);
    model_close(&m);
    return bad;
}

void compress_print(FILE *out, const CompressSizes *s, const char *file) {
    char t[3][32];
    fprintf(out, "%s: %s document%s, %s page%s\n", strcmp(file, "-") ? clean(file) : "standard output",
            format_count(t[0], s->documents), s->documents == 1 ? "" : "s", format_count(t[1], s->pages),
            s->pages == 1 ? "" : "s");
    fprintf(out, "text     %s characters, %s bytes, %s tokens\n", format_count(t[0], s->characters),
            format_count(t[1], s->text_bytes), format_count(t[2], s->tokens));
    if (s->windows > s->pages)
        fprintf(out, "windows  %s: the encoder reads a page in up to %d tokens at a time\n",
                format_count(t[0], s->windows), s->window);
    fprintf(out, "latents  %s x %d: %.1f tokens a latent; a page is %.0f rows to the decoder in place of %.0f\n",
            format_count(t[0], s->windows), s->latents, s->tokens / s->windows / s->latents,
            (double)s->windows / s->pages * s->latents, s->tokens / s->pages);
    fprintf(out, "bytes    %s of latents (%d numbers of %d bytes each), the file %s: %.1f times the text\n",
            format_count(t[0], s->latent_bytes), s->width, s->number_bytes, format_count(t[1], s->file_bytes),
            s->file_bytes / s->text_bytes);
    if (s->cut.pages) {
        char text[160];
        fprintf(out, "cut      %s of the documents, into %s pages of at most %s tokens (-page_tokens)\n",
                left_out_text(text, &s->cut), format_count(t[0], s->chunk_pages), format_count(t[1], s->page_tokens));
    }
    if (s->without_text)
        fprintf(out, "%d document%s without text left out\n", s->without_text, s->without_text == 1 ? "" : "s");
    if (s->not_nfc)
        fprintf(out, "%d document%s not in NFC: the NFC form is what can come back\n", s->not_nfc,
                s->not_nfc == 1 ? " is" : "s are");
}
