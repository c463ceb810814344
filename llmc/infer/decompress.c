// decompress.c: latents to documents, see compress.h.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "llmc/weights/run.h"
#include "llmc/weights/weights.h"
#include "llmc/base/clean.h"
#include "llmc/infer/compress.h"
#include "llmc/base/file.h"
#include "llmc/infer/generate.h"
#include "llmc/base/json.h"
#include "llmc/weights/latents.h"
#include "llmc/base/temp_file.h"

static int no_memory(Error *err) { return error_set(err, "out of memory"); }

// ---- decoding ------------------------------------------------------------------------------------------------------

typedef struct Decompressor {
    Model *m;
    LatentFile file;
    float *latents;       // (n_pages,N,D_enc)
    GeneratePage *pages;  // (n_pages)
    char **texts;         // (n_pages) NFC
    size_t *text_lengths; // (n_pages)
    const DecompressOptions *o;
} Decompressor;

static int check_model(const Decompressor *d, Error *err) {
    const C3Config *c = &d->m->files.config;
    const LatentFile *f = &d->file;
    const char *path = d->o->input;
    char model[65];
    if (f->latents != c->latents || f->width != c->enc.D)
        return error_set(err, "%s: latents of another model: %d of %d numbers a page, %s has %d of %d", path,
                         f->latents, f->width, d->m->folder, c->latents, c->enc.D);
    int most = compress_longest_page(d->m);
    for (int i = 0; i < f->n_pages; i++) {
        if (f->pages[i].tokens > most)
            return error_set(err, "%s: page %d has %d tokens, %s takes at most %d", path, i + 1, f->pages[i].tokens,
                             d->m->folder, most);
    }
    TRY(checkpoint_fingerprint(model, d->m->folder, err));
    if (strcmp(model, f->model) == 0) return 0;
    return error_set(err,
                     "%s: latents of another model: fingerprint %.16s..., %s has %.16s... (hint: c3 info shows it)",
                     path, f->model, d->m->folder, model);
}

static int new_tokens(const Decompressor *d, int tokens) {
    int room = d->m->files.config.dec.max_positions - template_overhead(&d->m->t, d->file.latents);
    return generate_new_tokens(tokens, d->o->max_new, room);
}

static int make_generator(Generator **g, const Decompressor *d, Error *err) {
    const size_t most = (size_t)4 << 30; // bytes of caches and activations when nobody chose the number of pages
    const Model *m = d->m;
    GeneratorLimits l = {.pages = d->o->batch > 0 ? d->o->batch : 64, .context = 1};
    size_t bytes;
    for (int i = 0; i < d->file.n_pages; i++) {
        if (d->pages[i].max_new > l.max_new) l.max_new = d->pages[i].max_new;
    }
    if (l.pages > d->file.n_pages) l.pages = d->file.n_pages;
    for (;; l.pages = (l.pages + 1) / 2) {
        if (generator_memory(&bytes, &m->c3, &m->t, &l) != 0) return no_memory(err);
        if (bytes <= most || l.pages == 1 || d->o->batch > 0) break;
    }
    return generator_create(g, &m->c3, &m->t, &l, err);
}

static int take_text(Decompressor *d, int i, Error *err) {
    size_t length;
    char *text = generate_text(d->m->tok, d->pages[i].ids, d->pages[i].n, &length);
    if (!text) return no_memory(err);
    int bad = text_nfc(&d->texts[i], &d->text_lengths[i], text, length, err);
    free(text);
    return bad;
}

static int decode(Decompressor *d, CompressProgress *progress, void *arg, Error *err) {
    const LatentFile *f = &d->file;
    size_t n = (size_t)f->n_pages, page = (size_t)f->latents * (size_t)f->width;
    Generator *g = NULL;
    d->latents = malloc(n * page * sizeof *d->latents);
    d->pages = calloc(n, sizeof *d->pages);
    d->texts = calloc(n, sizeof *d->texts);
    d->text_lengths = calloc(n, sizeof *d->text_lengths);
    if (!d->latents || !d->pages || !d->texts || !d->text_lengths) return no_memory(err);
    safetensors_convert(d->latents, DTYPE_F32, f->data, f->dtype, n * page);
    for (size_t i = 0; i < n; i++) {
        d->pages[i] = (GeneratePage){.latents = d->latents + i * page, .max_new = new_tokens(d, f->pages[i].tokens)};
    }
    int bad = make_generator(&g, d, err) != 0 ||
              generate_pages(g, d->pages, f->n_pages, d->o->no_repeat_ngram, progress, arg, err) != 0;
    for (int i = 0; i < f->n_pages && !bad; i++) bad = take_text(d, i, err) != 0;
    generator_free(g);
    return bad ? -1 : 0;
}

// ---- joining and writing -------------------------------------------------------------------------------------------

static int is_exact(const Decompressor *d, int page) {
    char hex[65];
    latents_hash(hex, d->texts[page], d->text_lengths[page]);
    return strcmp(hex, d->file.pages[page].sha256) == 0;
}

static void verify(const Decompressor *d, DecompressResult *r) {
    for (int k = 0; k < d->file.n_documents; k++) {
        const LatentDocument *doc = &d->file.documents[k];
        int exact = 0;
        for (int i = 0; i < doc->pages; i++) {
            int same = is_exact(d, doc->first + i);
            exact += same;
            if (!same && !r->first_wrong[0])
                snprintf(r->first_wrong, sizeof r->first_wrong, "page %d of %.200s", i + 1, doc->id);
        }
        r->exact_pages += exact;
        r->exact_documents += exact == doc->pages;
        r->not_nfc += !doc->is_nfc;
    }
    r->documents = d->file.n_documents;
    r->pages = d->file.n_pages;
}

// A document as it was: gap, page, gap, ..., page, gap; malloc'ed, zero-terminated. NULL: out of memory.
static char *join(const Decompressor *d, const LatentDocument *doc) {
    size_t length = 0, at = 0;
    for (int i = 0; i <= doc->pages; i++)
        length += strlen(doc->gaps[i]) + (i < doc->pages ? d->text_lengths[doc->first + i] : 0);
    char *text = malloc(length + 1);
    for (int i = 0; text && i <= doc->pages; i++) {
        const char *page = i < doc->pages ? d->texts[doc->first + i] : "";
        size_t gap = strlen(doc->gaps[i]), n = i < doc->pages ? d->text_lengths[doc->first + i] : 0;
        memcpy(text + at, doc->gaps[i], gap);
        memcpy(text + at + gap, page, n);
        at += gap + n;
    }
    if (text) text[at] = 0;
    return text;
}

static char *document_line(const Decompressor *d, const LatentDocument *doc, const char *text) {
    int exact = 1;
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "id", doc->id);
    cJSON_AddStringToObject(o, "text", text);
    for (int i = 0; i < doc->pages && exact; i++) exact = is_exact(d, doc->first + i);
    if (d->o->verify) cJSON_AddBoolToObject(o, "exact", exact);
    char *line = json_line(o), *ended = line ? string_format("%s\n", line) : NULL;
    cJSON_Delete(o);
    free(line);
    return ended;
}

// As it is, byte for byte; for a person's eyes alone it is cleaned.
static int write_text(FileWriter *w, const char *text, Error *err) {
    if (!isatty(fileno(w->stream))) return file_write(w, text, strlen(text), err);
    clean_print(w->stream, text, strlen(text));
    return 0;
}

static int write_documents(const Decompressor *d, FileWriter *w, Error *err) {
    int bad = 0;
    for (int k = 0; k < d->file.n_documents && !bad; k++) {
        const LatentDocument *doc = &d->file.documents[k];
        char *text = join(d, doc), *line = text && d->o->json ? document_line(d, doc, text) : NULL;
        const char *out = d->o->json ? line : text;
        if (!out) bad = no_memory(err);
        if (!bad && k > 0 && !d->o->json) bad = file_write(w, "\f", 1, err);
        if (!bad) bad = write_text(w, out, err);
        free(line);
        free(text);
    }
    return bad;
}

static int write_output(const Decompressor *d, Error *err) {
    FileWriter w;
    TRY(file_create(&w, d->o->output, err));
    if (write_documents(d, &w, err) == 0) return file_commit(&w, err);
    file_discard(&w);
    return -1;
}

// ---- decompress ----------------------------------------------------------------------------------------------------

static int read_input(Decompressor *d, Error *err) {
    if (strcmp(d->o->input, "-") != 0) return latents_read(&d->file, d->o->input, err);
    TempFile scratch;
    TRY(temp_file_make(&scratch, err));
    int bad = temp_file_fill(&scratch, err) != 0 || latents_read(&d->file, scratch.path, err) != 0;
    temp_file_remove(&scratch); // a mapping outlives its name
    return bad ? error_prefix(err, "standard input") : 0;
}

static int decompress_all(Decompressor *d, DecompressResult *r, const CompressModel *model, CompressProgress *progress,
                          void *arg, Error *err) {
    Model *m = d->m;
    TRY(read_input(d, err));
    TRY(model_open(m, model->folder, model->tokenizer, err));
    TRY(check_model(d, err));
    TRY(file_check_writable(d->o->output, err));
    // the generator brings its own activations
    int overhead = template_overhead(&m->t, d->file.latents);
    C3Limits limits = {.pages = 1,
                       .enc_rows = 2 + d->file.latents,
                       .dec_rows = overhead,
                       .dec_outputs = 1,
                       .head_rows = 1,
                       .recompute = KEEP_NOTHING};
    TRY(model_load(m, model->device, model->dtype, model->threads, &limits, err));
    TRY(decode(d, progress, arg, err));
    verify(d, r);
    return write_output(d, err);
}

int decompress_file(DecompressResult *result, const CompressModel *model, const DecompressOptions *o,
                    CompressProgress *progress, void *arg, Error *err) {
    Model m = {0};
    Decompressor d = {.m = &m, .o = o};
    *result = (DecompressResult){0};
    int bad = decompress_all(&d, result, model, progress, arg, err);
    if (d.pages) generate_free(d.pages, d.file.n_pages);
    for (int i = 0; d.texts && i < d.file.n_pages; i++) free(d.texts[i]);
    free(d.texts);
    free(d.text_lengths);
    free(d.pages);
    free(d.latents);
    latents_free(&d.file);
    model_close(&m);
    return bad;
}

void decompress_print(FILE *out, const DecompressResult *r) {
    fprintf(out, "verify: %d of %d pages came back exactly, %d of %d documents%s%s\n", r->exact_pages, r->pages,
            r->exact_documents, r->documents, r->first_wrong[0] ? "; the first page that did not: " : "",
            clean(r->first_wrong));
    if (r->not_nfc)
        fprintf(out, "verify: %d document%s not in NFC before; compared is the NFC form\n", r->not_nfc,
                r->not_nfc == 1 ? " was" : "s were");
}
