// decompress.c: latents to documents, see compress.h.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/base/clean.h"
#include "llmc/base/file.h"
#include "llmc/base/json.h"
#include "llmc/base/temp_file.h"
#include "llmc/infer/compress.h"
#include "llmc/infer/model.h"
#include "llmc/weights/latents.h"
#include "llmc/weights/weights.h" // checkpoint_fingerprint

// ---- decoding ------------------------------------------------------------------------------------------------------

typedef struct PageText {
    char *text; // NFC
    size_t length;
    int exact; // as it was compressed, by checksum
} PageText;

typedef struct Decompressor {
    Model *m;
    LatentFile file;
    float *latents;      // (n_windows,N,D_enc)
    GeneratePage *pages; // (n_pages)
    PageText *texts;     // (n_pages)
    const DecompressOptions *o;
} Decompressor;

static int check_model(const Decompressor *d, Error *err) {
    const C3Config *c = &d->m->files.config;
    const LatentFile *f = &d->file;
    const char *path = d->o->input;
    char model[65];
    if (f->latents > c->latents || f->width != c->enc.D)
        return error_set(err, "%s: latents of another model: %d of %d numbers a page, %s has %d of %d", path,
                         f->latents, f->width, d->m->folder, c->latents, c->enc.D);
    TRY(model_use_latents(d->m, f->latents, err));
    int most = model_longest_page(d->m), words = template_overhead(&d->m->t, 0);
    for (int i = 0; i < f->n_pages; i++) {
        if (f->pages[i].tokens > most)
            return error_set(err, "%s: page %d has %d tokens, %s takes at most %d", path, i + 1, f->pages[i].tokens,
                             d->m->folder, most);
        if (words + (int64_t)f->pages[i].windows * f->latents + f->pages[i].tokens >= c->dec.max_positions)
            return error_set(err, "%s: page %d has %d windows of %d latents: more than %s has positions for", path,
                             i + 1, f->pages[i].windows, f->latents, d->m->folder);
    }
    if (d->o->trust) return 0;
    TRY(checkpoint_fingerprint(model, d->m->folder, err));
    if (strcmp(model, f->model) == 0) return 0;
    return error_set(err,
                     "%s: latents of another model: fingerprint %.16s..., %s has %.16s... (hint: c3 info shows it)",
                     path, f->model, d->m->folder, model);
}

static int read_text(Decompressor *d, int i, Error *err) {
    PageText *t = &d->texts[i];
    char hex[65];
    TRY(generate_nfc(&t->text, &t->length, d->m->tok, &d->pages[i], err));
    latents_hash(hex, t->text, t->length);
    t->exact = strcmp(hex, d->file.pages[i].sha256) == 0;
    return 0;
}

// Of a page that may be as long as any the model was trained on.
static int unknown_tokens(const Model *m) {
    int longest = m->files.config.trained_tokens[1];
    return longest ? longest : GENERATE_MAX_NEW - 1;
}

static int decode(Decompressor *d, PagesDone *progress, void *arg, Error *err) {
    const LatentFile *f = &d->file;
    const Model *m = d->m;
    size_t n = (size_t)f->n_pages, window = (size_t)f->latents * (size_t)f->width;
    GeneratorLimits limits = {.pages = f->n_pages, .together = d->o->batch, .context = 1};
    Generator *g = NULL;
    d->latents = malloc((size_t)f->n_windows * window * sizeof *d->latents);
    d->pages = calloc(n, sizeof *d->pages);
    d->texts = calloc(n, sizeof *d->texts);
    if (!d->latents || !d->pages || !d->texts)
        return error_set(err, "%s: out of memory (%d pages)", d->o->input, f->n_pages);
    safetensors_convert(d->latents, DTYPE_F32, f->data, f->dtype, (size_t)f->n_windows * window);
    for (size_t i = 0; i < n; i++) {
        int tokens = f->pages[i].tokens ? f->pages[i].tokens : unknown_tokens(m);
        int slots = f->pages[i].windows * f->latents;
        int most = model_new_tokens(m, template_overhead(&m->t, slots), tokens, d->o->max_new);
        d->pages[i] =
            (GeneratePage){.latents = d->latents + (size_t)f->pages[i].first * window, .slots = slots, .max_new = most};
        if (slots > limits.slots) limits.slots = slots;
        if (most > limits.max_new) limits.max_new = most;
    }
    TRY(generator_create(&g, &m->c3, &m->t, &limits, err));
    if (d->o->json) generator_confidence(g);
    int bad = generate_pages(g, d->pages, f->n_pages, d->o->no_repeat_ngram, progress, arg, err);
    for (int i = 0; i < f->n_pages && !bad; i++) bad = read_text(d, i, err);
    generator_free(g);
    return bad;
}

// ---- joining and writing -------------------------------------------------------------------------------------------

static int count_exact(const Decompressor *d, const LatentDocument *doc) {
    int exact = 0;
    for (int i = 0; i < doc->pages; i++) exact += d->texts[doc->first + i].exact;
    return exact;
}

static void verify(const Decompressor *d, DecompressResult *r) {
    for (int k = 0; k < d->file.n_documents; k++) {
        const LatentDocument *doc = &d->file.documents[k];
        int exact = count_exact(d, doc);
        for (int i = 0; i < doc->pages && !r->first_wrong[0]; i++) {
            if (!d->texts[doc->first + i].exact)
                snprintf(r->first_wrong, sizeof r->first_wrong, "page %d of %.200s", i + 1, doc->id);
        }
        r->exact_pages += exact;
        r->exact_documents += exact == doc->pages;
        r->not_nfc += !doc->is_nfc;
    }
    r->documents = d->file.n_documents;
    r->pages = d->file.n_pages;
}

// The document: gap, page, gap, ..., page, gap; malloc'ed, zero-terminated.
static char *join(const Decompressor *d, const LatentDocument *doc) {
    size_t length = 0, at = 0;
    for (int i = 0; i <= doc->pages; i++)
        length += strlen(doc->gaps[i]) + (i < doc->pages ? d->texts[doc->first + i].length : 0);
    char *text = alloc(length + 1, 1, "a document");
    for (int i = 0; i <= doc->pages; i++) {
        const PageText page = i < doc->pages ? d->texts[doc->first + i] : (PageText){.text = ""};
        size_t gap = strlen(doc->gaps[i]);
        memcpy(text + at, doc->gaps[i], gap);
        memcpy(text + at + gap, page.text, page.length);
        at += gap + page.length;
    }
    text[at] = 0;
    return text;
}

// What the decoder says of each page of the document.
static void add_confidence(cJSON *o, const Decompressor *d, const LatentDocument *doc) {
    cJSON *mean = cJSON_AddArrayToObject(o, "mean_log_prob"), *least = cJSON_AddArrayToObject(o, "least_log_prob");
    for (int i = 0; i < doc->pages; i++) {
        const GeneratePage *p = &d->pages[doc->first + i];
        cJSON_AddItemToArray(mean, cJSON_CreateNumber(p->log_prob / (p->n + p->ended)));
        cJSON_AddItemToArray(least, cJSON_CreateNumber(p->least_log_prob));
    }
}

static char *document_line(const Decompressor *d, const LatentDocument *doc, const char *text) {
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "id", doc->id);
    cJSON_AddStringToObject(o, "text", text);
    if (d->o->verify) cJSON_AddBoolToObject(o, "exact", count_exact(d, doc) == doc->pages);
    add_confidence(o, d, doc);
    char *line = json_line(o);
    cJSON_Delete(o);
    string_append(&line, "\n");
    return line;
}

// Unchanged, but cleaned when it goes to a terminal.
static int write_text(FileWriter *w, const char *text, Error *err) {
    if (!isatty(fileno(w->stream))) return file_write(w, text, strlen(text), err);
    clean_print(w->stream, text, strlen(text));
    return 0;
}

static int write_documents(const Decompressor *d, FileWriter *w, Error *err) {
    int bad = 0;
    for (int k = 0; k < d->file.n_documents && !bad; k++) {
        const LatentDocument *doc = &d->file.documents[k];
        char *text = join(d, doc), *line = d->o->json ? document_line(d, doc, text) : NULL;
        if (k > 0 && !line) bad = file_write(w, "\f", 1, err);
        if (!bad) bad = write_text(w, line ? line : text, err);
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
    int (*read)(LatentFile *, const char *, Error *) = d->o->trust ? latents_read_bare : latents_read;
    if (strcmp(d->o->input, "-") != 0) return read(&d->file, d->o->input, err);
    TempFile scratch;
    TRY(temp_file_make(&scratch, err));
    int bad = temp_file_fill(&scratch, err) != 0 || read(&d->file, scratch.path, err) != 0;
    temp_file_remove(&scratch); // its mapping stays
    return bad ? error_prefix(err, "standard input") : 0;
}

static int decompress(Decompressor *d, DecompressResult *r, const ModelPlace *model, PagesDone *progress, void *arg,
                      Error *err) {
    Model *m = d->m;
    C3Limits limits = generator_model_limits();
    TRY(read_input(d, err));
    TRY(model_open(m, model, err));
    TRY(check_model(d, err));
    TRY(file_check_writable(d->o->output, err));
    TRY(model_load(m, model, &limits, err));
    TRY(decode(d, progress, arg, err));
    verify(d, r);
    r->latents = d->file.latents;
    r->latents_trained = model_knows_latents(m);
    return write_output(d, err);
}

int decompress_file(DecompressResult *result, const ModelPlace *model, const DecompressOptions *o, PagesDone *progress,
                    void *arg, Error *err) {
    Model m = {0};
    Decompressor d = {.m = &m, .o = o};
    *result = (DecompressResult){0};
    int bad = decompress(&d, result, model, progress, arg, err);
    if (d.pages) generate_free(d.pages, d.file.n_pages);
    for (int i = 0; d.texts && i < d.file.n_pages; i++) free(d.texts[i].text);
    free(d.texts);
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
