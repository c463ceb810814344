// compress.c: c3 compress and c3 decompress: documents to latents and back.
#include "llmc/infer/compress.h"

#include <unistd.h>

#include "llmc/base/clean.h"
#include "llmc/base/file.h" // file_is_stdout
#include "llmc/commands/shared.h"

static struct {
    ModelPlace model;
    const char *file, *out;
    int page_tokens;
    DecompressOptions decompress;
} given;

// what: "encoding" or "decoding".
static void show_pages(void *what, int done, int n) {
    fprintf(stderr, "\r%s: %d of %d pages%s", (const char *)what, done, n, done == n ? "\r\033[K" : "");
    fflush(stderr);
}

static PagesDone *progress(void) { return isatty(STDERR_FILENO) ? show_pages : NULL; }

// ---- compress ------------------------------------------------------------------------------------------------------

static void compress_options(OptionTable *t) {
    const Option rows[] = {
        {.help = "Documents to latents"},
        {OPTION_TEXT("f", &given.file, "-", "FILE", ".txt, .jsonl or .json documents; - is stdin")},
        {OPTION_TEXT("o", &given.out, NULL, "X.c3", "file of the latents; - is stdout"), .required = 1},
        {OPTION_INT(
             "page_tokens", &given.page_tokens,
             "longer documents are cut, at paragraphs where possible; 0 = what the model was trained on, else 1300"),
         .max = 131072},
        {OPTION_INT("n", &given.model.latents, "latents a page, the first of the model's; 0 = all"), .max = 65536},
        {0},
    };
    add_model_options(t, &given.model);
    cli_add(t, rows);
    add_machine_options(t, &given.model);
}

static int run_compress(const char *const *words, int n, Error *err) {
    (void)words, (void)n;
    CompressSizes sizes;
    note_waiting(given.file);
    TRY(compress_file(&sizes, &given.model, given.file, given.out, given.page_tokens, progress(), "encoding", err));
    compress_print(file_is_stdout(given.out) ? stderr : stdout, &sizes, given.out);
    untrained_warn(stderr, &sizes.untrained, clean(given.file));
    if (!sizes.latents_trained) warn_latents(sizes.latents);
    return 0;
}

const Command command_compress = {
    .name = "compress",
    .what = "keep documents as the latents of their pages",
    .usage = "-m DIR -f FILE -o X.c3: keeps documents as the latents of their pages",
    .example = "c3 compress -m runs/demo -f page.txt -o page.c3",
    .options = compress_options,
    .run = run_compress,
};

// ---- decompress ----------------------------------------------------------------------------------------------------

static void decompress_options(OptionTable *t) {
    DecompressOptions *d = &given.decompress;
    const Option rows[] = {
        {.help = "Latents to documents"},
        {OPTION_TEXT("o", &d->output, "-", "FILE", "file of the documents; - is stdout")},
        {OPTION_FLAG("json", &d->json, "one JSON object a document and line")},
        {OPTION_FLAG("verify", &d->verify, "say whether all came back exactly; exit code 1 if not")},
        {OPTION_FLAG(
            "trust", &d->trust,
            "latents made elsewhere: their shape and type are checked, not the model they are of; each page is "
            "a document of its own")},
        {0},
    };
    add_model_options(t, &given.model);
    cli_add(t, rows);
    add_decoding_options(t, &d->max_new, &d->no_repeat_ngram, &d->batch);
    add_machine_options(t, &given.model);
}

static int run_decompress(const char *const *words, int n, Error *err) {
    (void)n;
    DecompressResult r;
    given.decompress.input = words[0];
    if (given.decompress.trust && given.decompress.verify)
        return error_set(err, "-verify compares with what c3 compress recorded: it does not go with -trust");
    TRY(decompress_file(&r, &given.model, &given.decompress, progress(), "decoding", err));
    if (!r.latents_trained) warn_latents(r.latents);
    if (!given.decompress.verify) return 0;
    decompress_print(stderr, &r);
    return r.exact_pages == r.pages ? 0 : 1;
}

const Command command_decompress = {
    .name = "decompress",
    .what = "write documents again from their latents",
    .usage = "-m DIR X.c3: writes documents again from their latents, with the model that made them; - is stdin",
    .example = "c3 decompress -m runs/demo page.c3 -verify",
    .word = "file of latents",
    .options = decompress_options,
    .run = run_decompress,
};
