// c3.c: the companion tool: makes shards, writes pages back from their latents, evaluates a model.
//   c3 COMMAND [options]; every command explains itself with -h, or as c3 help COMMAND.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "llmc/base/clean.h"
#include "llmc/base/cli.h"
#include "llmc/infer/compress.h"
#include "llmc/eval/eval.h"
#include "llmc/weights/extract.h"
#include "llmc/base/file.h" // the standard streams
#include "llmc/infer/progress.h"
#include "llmc/base/format.h"
#include "llmc/train/info.h"
#include "llmc/infer/model.h"
#include "llmc/train/plan.h"
#include "llmc/text/render.h"
#include "llmc/infer/sampling_options.h"
#include "llmc/data/tokenize.h"
#include "llmc/version.h"

enum { EXIT_USAGE = 2, MAX_OPTIONS = 32 };

static int fail(const Error *err, int code) {
    fflush(stdout);
    fprintf(stderr, "c3: %s\n", err->text);
    return code;
}

// ---- options that several commands share ---------------------------------------------------------------------------

typedef struct ModelOptions {
    const char *model, *tokenizer, *device, *dtype;
    int64_t threads, batch, max_new, ngram, maxlen, limit;
} ModelOptions;

// Appends the rows of a model's options to a table; returns the new count.
static int model_options(ModelOptions *o, Option *table, int n) {
    *o = (ModelOptions){.device = "auto", .dtype = "auto", .maxlen = 8192};
    const Option rows[] = {
        {.help = "Model"},
        {"m", OPTION_TEXT, &o->model, "DIR", 0, 0, NULL, "a C3 checkpoint, or a run's folder (its newest step)", 0},
        {"tok", OPTION_TEXT, &o->tokenizer, "FILE", 0, 0, NULL, "tokenizer; default: the file in the model's folder",
         0},
        {"maxlen", OPTION_INT, &o->maxlen, "N", 16, 131072, NULL, "longest decoder sequence in tokens", 0},
        {.help = "Decoding"},
        {"max_new", OPTION_INT, &o->max_new, "N", 0, 131072, NULL,
         "new tokens of a page, 0 = twice the page's + 32, at most 4096 or the page's + 1", 0},
        {"no_repeat_ngram", OPTION_INT, &o->ngram, "N", 0, 4096, NULL,
         "no N tokens in a row twice, 0 = off (the released code: 20)", 0},
        {"batch", OPTION_INT, &o->batch, "N", 0, 4096, NULL, "pages decoded together, 0 = what fits, at most 64", 0},
        {"limit", OPTION_INT, &o->limit, "N", 0, 1e9, NULL, "first pages of the file only, 0 = all", 0},
        {.help = "Machine"},
        {"device", OPTION_CHOICE, &o->device, NULL, 0, 0, "auto|cuda|cpu", "where to compute", 0},
        {"dtype", OPTION_CHOICE, &o->dtype, NULL, 0, 0, "auto|bf16|fp32", "type of weights; auto = the files' own", 0},
        {"threads", OPTION_INT, &o->threads, "N", 0, 1024, NULL, "cores, 0 = all", 0},
    };
    memcpy(table + n, rows, sizeof rows);
    return n + (int)(sizeof rows / sizeof *rows);
}

static EvalOptions decoding(const ModelOptions *o) {
    return (EvalOptions){.pages = (int)o->batch,
                         .max_new = (int)o->max_new,
                         .no_repeat_ngram = (int)o->ngram,
                         .maxlen = (int)o->maxlen,
                         .limit = (int)o->limit};
}

// Standard input may be a terminal at which nobody knows that something is waited for.
static void say_waiting(const char *path) {
    if (strcmp(path, "-") == 0 && isatty(STDIN_FILENO))
        fprintf(stderr, "c3: waiting for text at this terminal: Ctrl-D on a line of its own ends it (hint: name a file "
                        "to read that instead)\n");
}

// Parses; prints the help when asked. 0: go on, 1: done, -1: usage error.
static int parse(const char *command, const char *usage, const char *example, Option *table, int n, int argc,
                 char **argv, const char **words, int *n_words, Error *err) {
    Option fresh[MAX_OPTIONS];
    int asked;
    for (int i = 0; i < n; i++) fresh[i] = table[i];
    TRY(cli_parse(table, n, argc, argv, words, n_words, &asked, err));
    if (!asked) return 0;
    if (asked == CLI_VERSION) {
        version_print(stdout, "c3");
        return 1;
    }
    printf("c3 %s %s\n", command, usage);
    cli_help(stdout, fresh, n);
    printf("\nexample: ./%s\n", example);
    return 1;
}

// ---- work shared by reconstruct and eval ---------------------------------------------------------------------------

// Opens the model, reads the pages and loads the weights for them. out: the folder the results will go to, when the
// model shall also run eval_forced; else NULL.
static int open_pages(Model *m, EvalSet *s, const ModelOptions *o, const EvalOptions *e, const char *path,
                      const char *out, Error *err) {
    *s = (EvalSet){0};
    TRY(model_open(m, o->model, o->tokenizer, err));
    if (strcmp(m->folder, o->model) != 0) fprintf(stderr, "c3: model %s\n", clean(m->folder));
    say_waiting(path);
    TRY(eval_read(s, m, path, e, err));
    char left_out[160];
    if (s->without_text) fprintf(stderr, "c3: %s: %d pages without text are left out\n", clean(path), s->without_text);
    if (s->too_long.pages)
        fprintf(stderr, "c3: %s: %s%s left out, longer than the model takes\n", clean(path),
                left_out_much(&s->too_long) ? "warning: " : "", left_out_text(left_out, &s->too_long));
    Untrained untrained = untrained_count(m->files.config.trained_tokens);
    for (int i = 0; i < s->n; i++) untrained_add(&untrained, s->pages[i].context.n);
    untrained_warn(stderr, &untrained, clean(path));
    C3Limits limits = out ? eval_limits(s, m) : generator_model_limits();
    int watched = isatty(STDERR_FILENO);
    if (watched) fprintf(stderr, "reading the weights");
    int bad = model_load(m, o->device, o->dtype, (int)o->threads, &limits, err);
    if (watched) fprintf(stderr, "\r\033[K");
    if (!bad && out) bad = eval_try_folder(out, err); // not after hours of decoding
    return bad;
}

// For who sits at the terminal: a bar or, where `text` is a terminal too and there is one page, the page as it comes.
static Progress watch(const EvalSet *s, const Model *m, FILE *text) {
    Progress f = {.line = isatty(STDERR_FILENO) ? stderr : NULL, .tok = m->tok};
    if (text && s->n == 1 && isatty(fileno(text))) f.text = text;
    if (f.text) f.line = NULL; // two lines in one place
    return f;
}

// ---- c3 reconstruct ------------------------------------------------------------------------------------------------

static int print_page(const EvalPage *p, const Model *m, int number, int n, int colour, Error *err) {
    const C3Config *c = &m->files.config;
    char *ops, text[4][32];
    size_t n_ops, bytes = (size_t)c->latents * c->enc.D * dtype_size(m->b->dtype);
    if (metrics_align(&ops, &n_ops, p->reference, p->n_reference, p->output, p->n_output) != 0)
        return error_set(err, "out of memory");
    printf("page %d of %d: %s\n", number, n, clean(p->id));
    printf("%s characters (%s bytes), %s tokens -> %d latents of %d numbers (%s bytes): %.1f tokens a latent\n",
           format_count(text[0], (double)p->m.reference_chars), format_count(text[1], (double)p->n_reference),
           format_count(text[2], (double)p->context.n), c->latents, c->enc.D, format_count(text[3], (double)bytes),
           (double)p->context.n / c->latents);
    printf("precision %.2f %% (edit distance %zu)%s%s\n", 100 * p->m.char_precision, p->m.edit_distance,
           p->m.exact ? ", exact"
           : colour   ? ""
                      : ", wrong characters stand in [brackets]",
           p->ended ? "" : ", cut at the limit of new tokens (-max_new)");
    printf("--- original\n");
    render_marked(stdout, p->reference, p->n_reference, ops, n_ops, RENDER_REFERENCE, colour);
    printf("--- reconstruction\n");
    render_marked(stdout, p->output, p->n_output, ops, n_ops, RENDER_OUTPUT, colour);
    printf("\n");
    free(ops);
    return 0;
}

static int print_pages(const EvalSet *s, const Model *m, int json, Error *err) {
    int colour = render_wants_colour(stdout);
    double sum = 0;
    for (int i = 0; i < s->n; i++) {
        sum += s->pages[i].m.char_precision;
        if (!json) {
            TRY(print_page(&s->pages[i], m, i + 1, s->n, colour, err));
            continue;
        }
        char *line = eval_page_json(s, i, m->files.config.latents, NULL);
        if (!line) return error_set(err, "out of memory");
        printf("%s\n", line);
        free(line);
    }
    if (!json && s->n > 1) printf("%d pages, mean precision %.2f %%\n", s->n, 100 * sum / s->n);
    return 0;
}

static int run_reconstruct(int argc, char **argv) {
    ModelOptions o;
    Option table[MAX_OPTIONS];
    const char *file = "-";
    int64_t json = 0;
    Error err;
    Sampling sampling;
    SamplingOptions drawing;
    int n = sampling_options(&drawing, table, model_options(&o, table, 0));
    table[n++] = (Option){.help = "Input and output"};
    table[n++] = (Option){"f", OPTION_TEXT, &file, "FILE", 0, 0, NULL, ".txt, .jsonl or .json pages; - is stdin", 0};
    table[n++] = (Option){"json", OPTION_FLAG, &json, NULL, 0, 0, NULL, "one JSON object a page and line", 0};
    int code = parse("reconstruct", "-m DIR [-f FILE]: writes pages back from their latents and marks what is wrong",
                     "c3 reconstruct -m runs/demo -f page.txt", table, n, argc, argv, NULL, NULL, &err);
    if (code == 0 && !o.model) code = error_set(&err, "reconstruct: -m DIR is missing (hint: c3 reconstruct -h)");
    if (code == 0) code = sampling_parse(&sampling, &drawing, &err);
    if (code) return code < 0 ? fail(&err, EXIT_USAGE) : 0;
    Model m;
    EvalSet s;
    EvalOptions e = decoding(&o);
    e.skip = 1;
    e.sampling = sampling;
    int bad = open_pages(&m, &s, &o, &e, file, NULL, &err);
    Progress f = watch(&s, &m, json ? NULL : stdout);
    e.progress = &f;
    if (!bad) bad = eval_reconstruct(&s, &m, &e, &err);
    progress_end(&f);
    if (!bad && f.failed) bad = error_set(&err, "standard output: cannot write");
    if (!bad) bad = print_pages(&s, &m, (int)json, &err);
    eval_free(&s);
    model_close(&m);
    return bad ? fail(&err, 1) : 0;
}

// ---- c3 compress, c3 decompress ------------------------------------------------------------------------------------

// what: "encoding" or "decoding".
static void show_pages(void *what, int done, int n) {
    fprintf(stderr, "\r%s: %d of %d pages%s", (const char *)what, done, n, done == n ? "\r\033[K" : "");
    fflush(stderr);
}

static int run_compress(int argc, char **argv) {
    CompressModel m = {.device = "auto", .dtype = "auto"};
    const char *file = "-", *out = NULL;
    int64_t page_tokens = 0, threads = 0;
    Error err;
    Option table[] = {
        {.help = "Documents to latents"},
        {"m", OPTION_TEXT, &m.folder, "DIR", 0, 0, NULL, "a C3 checkpoint, or a run's folder (its newest step)", 0},
        {"f", OPTION_TEXT, &file, "FILE", 0, 0, NULL, ".txt, .jsonl or .json documents; - is stdin", 0},
        {"o", OPTION_TEXT, &out, "X.c3", 0, 0, NULL, "file of the latents; - is stdout", 0},
        {"page_tokens", OPTION_INT, &page_tokens, "N", 0, 131072, NULL,
         "longer documents are cut, at paragraphs where possible; 0 = what the model was trained on, else 1300", 0},
        {"tok", OPTION_TEXT, &m.tokenizer, "FILE", 0, 0, NULL, "tokenizer; default: the file in the model's folder", 0},
        {.help = "Machine"},
        {"device", OPTION_CHOICE, &m.device, NULL, 0, 0, "auto|cpu", "where to compute", 0},
        {"dtype", OPTION_CHOICE, &m.dtype, NULL, 0, 0, "auto|bf16|fp32", "type of weights and latents", 0},
        {"threads", OPTION_INT, &threads, "N", 0, 1024, NULL, "cores, 0 = all", 0},
    };
    int code = parse("compress", "-m DIR -f FILE -o X.c3: keeps documents as the latents of their pages",
                     "c3 compress -m runs/demo -f page.txt -o page.c3", table, sizeof table / sizeof *table, argc, argv,
                     NULL, NULL, &err);
    if (code == 0 && !m.folder) code = error_set(&err, "compress: -m DIR is missing (hint: c3 compress -h)");
    if (code == 0 && !out) code = error_set(&err, "compress: -o X.c3 is missing (hint: c3 compress -h)");
    if (code) return code < 0 ? fail(&err, EXIT_USAGE) : 0;
    CompressSizes sizes;
    m.threads = (int)threads;
    say_waiting(file);
    if (compress_file(&sizes, &m, file, out, (int)page_tokens, isatty(STDERR_FILENO) ? show_pages : NULL, "encoding",
                      &err) != 0)
        return fail(&err, 1);
    compress_print(file_is_stdout(out) ? stderr : stdout, &sizes, out);
    untrained_warn(stderr, &sizes.untrained, clean(file));
    return 0;
}

static int decompress(const CompressModel *m, const DecompressOptions *d, Error *err) {
    DecompressResult r;
    if (decompress_file(&r, m, d, isatty(STDERR_FILENO) ? show_pages : NULL, "decoding", err) != 0) return fail(err, 1);
    if (!d->verify) return 0;
    decompress_print(stderr, &r);
    return r.exact_pages == r.pages ? 0 : 1;
}

static int run_decompress(int argc, char **argv) {
    CompressModel m = {.device = "auto", .dtype = "auto"};
    DecompressOptions d = {.output = "-"};
    int64_t json = 0, verify = 0, batch = 0, max_new = 0, ngram = 0, threads = 0;
    const char **words = calloc((size_t)argc, sizeof *words);
    int n_words = 0;
    Error err;
    Option table[] = {
        {.help = "Latents to documents"},
        {"m", OPTION_TEXT, &m.folder, "DIR", 0, 0, NULL, "the model that made them; any other is refused", 0},
        {"o", OPTION_TEXT, &d.output, "FILE", 0, 0, NULL, "file of the documents; - is stdout", 0},
        {"json", OPTION_FLAG, &json, NULL, 0, 0, NULL, "one JSON object a document and line", 0},
        {"verify", OPTION_FLAG, &verify, NULL, 0, 0, NULL, "say whether all came back exactly; exit code 1 if not", 0},
        {"tok", OPTION_TEXT, &m.tokenizer, "FILE", 0, 0, NULL, "tokenizer; default: the file in the model's folder", 0},
        {.help = "Decoding (greedy)"},
        {"max_new", OPTION_INT, &max_new, "N", 0, 131072, NULL,
         "new tokens of a page, 0 = twice its own + 32, at most 4096 or its own + 1", 0},
        {"no_repeat_ngram", OPTION_INT, &ngram, "N", 0, 4096, NULL, "no N tokens in a row twice, 0 = off", 0},
        {"batch", OPTION_INT, &batch, "N", 0, 4096, NULL, "pages decoded together, 0 = what fits, at most 64", 0},
        {.help = "Machine"},
        {"device", OPTION_CHOICE, &m.device, NULL, 0, 0, "auto|cpu", "where to compute", 0},
        {"dtype", OPTION_CHOICE, &m.dtype, NULL, 0, 0, "auto|bf16|fp32", "type of weights", 0},
        {"threads", OPTION_INT, &threads, "N", 0, 1024, NULL, "cores, 0 = all", 0},
    };
    int code = words ? parse("decompress", "-m DIR X.c3: writes documents again from their latents; - is stdin",
                             "c3 decompress -m runs/demo page.c3 -verify", table, sizeof table / sizeof *table, argc,
                             argv, words, &n_words, &err)
                     : error_set(&err, "out of memory");
    if (code == 0 && !m.folder) code = error_set(&err, "decompress: -m DIR is missing (hint: c3 decompress -h)");
    if (code == 0 && n_words != 1)
        code = error_set(&err, "decompress: expected one file of latents, found %d", n_words);
    if (code == 0) {
        m.threads = (int)threads;
        d.input = words[0];
        d.json = (int)json;
        d.verify = (int)verify;
        d.batch = (int)batch;
        d.max_new = (int)max_new;
        d.no_repeat_ngram = (int)ngram;
        code = decompress(&m, &d, &err);
    } else {
        code = code < 0 ? fail(&err, EXIT_USAGE) : 0;
    }
    free(words);
    return code;
}

// ---- c3 eval -------------------------------------------------------------------------------------------------------

typedef struct EvalCommand {
    ModelOptions model;
    const char *out, *buckets, *perturb;
    int64_t no_controls, skip, seed;
} EvalCommand;

static int evaluate(const EvalCommand *c, const char *path, Model *m, EvalSet *s, Error *err) {
    int edges[EVAL_MAX_BUCKETS + 1], n_edges = 0;
    char *no_latents = NULL;
    EvalSummary sum;
    EvalOptions o = decoding(&c->model);
    o.skip = (int)c->skip;
    o.seed = (uint64_t)c->seed;
    TRY(perturb_parse(&o.perturb, c->perturb, err));
    if (c->buckets && (n_edges = eval_parse_edges(edges, c->buckets, err)) < 0) return -1;
    TRY(open_pages(m, s, &c->model, &o, path, c->out, err));
    Progress f = watch(s, m, NULL);
    o.progress = &f;
    eval_expect(s, m, &o, !c->no_controls);
    int bad = eval_reconstruct(s, m, &o, err);
    if (!bad) bad = eval_forced(s, m, &o, !c->no_controls, &no_latents, err);
    progress_end(&f);
    if (bad) return -1;
    eval_summarise(&sum, s, m->files.config.latents, edges, n_edges);
    EvalFiles files = {.out = c->out,
                       .model = m->folder,
                       .source = path,
                       .vocab = m->files.config.dec.V,
                       .no_latents_text = no_latents,
                       .options = o,
                       .dtype = m->b->dtype == DTYPE_F32 ? "fp32" : "bf16"};
    bad = eval_write(&files, s, &sum, err);
    if (!bad) eval_print(stdout, &files, s, &sum);
    free(no_latents);
    if (bad) return -1;
    printf("\nfiles: %s/eval.json pages.jsonl (scripts/score.py adds metrics of words and tables)\n", clean(c->out));
    return 0;
}

static int run_eval(int argc, char **argv) {
    EvalCommand c = {.perturb = "none", .seed = 1};
    Option table[MAX_OPTIONS];
    const char **words = calloc((size_t)argc, sizeof *words);
    int n_words = 0;
    Error err;
    int n = model_options(&c.model, table, 0);
    const Option rows[] = {
        {.help = "Pages"},
        {"skip", OPTION_FLAG, &c.skip, NULL, 0, 0, NULL, "leave out pages longer than the model takes; else an error",
         0},
        {"perturb", OPTION_CHOICE, &c.perturb, NULL, 0, 0, "none|random|shuffle",
         "random characters in place of each text, or its own in random order", 0},
        {"seed", OPTION_INT, &c.seed, "N", 0, 2147483647, NULL, "of -perturb", 0},
        {.help = "Tables"},
        {"o", OPTION_TEXT, &c.out, "DIR", 0, 0, NULL, "folder of the results", 0},
        {"buckets", OPTION_TEXT, &c.buckets, "EDGES", 0, 0, NULL,
         "of text tokens: 600,700,800 or 600..1300:100, the paper's; default: from the data", 0},
        {"no_controls", OPTION_FLAG, &c.no_controls, NULL, 0, 0, NULL, "leave out swapped, mean and zero latents", 0},
    };
    memcpy(table + n, rows, sizeof rows);
    n += (int)(sizeof rows / sizeof *rows);
    int code = words ? parse("eval", "-m DIR PAGES.jsonl -o OUT: reconstruction of held-out pages in numbers",
                             "c3 eval -m runs/demo data/demo/val_en.jsonl -o runs/demo/eval_en", table, n, argc, argv,
                             words, &n_words, &err)
                     : error_set(&err, "out of memory");
    if (code == 0 && !c.model.model) code = error_set(&err, "eval: -m DIR is missing (hint: c3 eval -h)");
    if (code == 0 && !c.out) code = error_set(&err, "eval: -o OUT is missing (hint: c3 eval -h)");
    if (code == 0 && n_words != 1) code = error_set(&err, "eval: expected one file of pages, found %d", n_words);
    Model m = {0};
    EvalSet s = {0};
    if (code == 0) {
        code = evaluate(&c, words[0], &m, &s, &err) == 0 ? 0 : fail(&err, 1);
        eval_free(&s);
        model_close(&m);
    } else {
        code = code < 0 ? fail(&err, EXIT_USAGE) : 0;
    }
    free(words);
    return code;
}

// ---- c3 tokenize, c3 info ------------------------------------------------------------------------------------------

static void warn_of_long_pages(const TokenizeResult *r) {
    char text[160], most[32], longest[32];
    Error line; // cleans what comes from the file
    if (!r->too_long.pages) return;
    error_set(&line,
              "warning: %s: longer than %s tokens, which training leaves out unless -maxlen is above %d, its default; "
              "the longest has %s tokens: %s (hint: form feeds part pages of a text)",
              left_out_text(text, &r->too_long), format_count(most, TOKENIZE_LONGEST), TOKENIZE_MAXLEN,
              format_count(longest, (double)r->longest), r->longest_page);
    fprintf(stderr, "c3: %s\n", line.text);
}

static int make_shards(const TokenizeOptions *o, Error *err) {
    TokenizeResult r;
    char text[2][32];
    for (int i = 0; i < o->n_inputs; i++) say_waiting(o->inputs[i]);
    TRY(tokenize_files(o, &r, err));
    printf("%s pages, %s tokens (%.2f bytes a token) in %d file%s: %s_*.bin\n", format_count(text[0], (double)r.pages),
           format_count(text[1], (double)r.tokens), r.bytes_per_token, r.files, r.files == 1 ? "" : "s",
           clean(o->prefix));
    if (r.without_text) printf("%s pages without text were left out\n", format_count(text[0], (double)r.without_text));
    if (r.removed) printf("%d later files of that name, from an earlier run, were removed\n", r.removed);
    warn_of_long_pages(&r);
    if (r.unlocked)
        fprintf(stderr, "c3: %s: this file system has no locks: run one c3 tokenize at a time\n", clean(o->prefix));
    untrained_warn(stderr, &r.untrained, clean(o->prefix));
    return 0;
}

// The same with the tokenizer and vocabulary of a model.
static int make_shards_for(const char *folder, TokenizeOptions *o, Error *err) {
    Model m;
    int bad = model_open(&m, folder, o->tokenizer, err), base = m.files.config.base_vocab;
    if (!bad) {
        o->tokenizer = m.files.tokenizer;
        o->vocab = base == QWEN_BASE_RANKS ? 0 : base;
        o->trained_tokens = m.files.config.trained_tokens;
        bad = make_shards(o, err);
    }
    model_close(&m);
    return bad;
}

static int run_tokenize(int argc, char **argv) {
    const char *model = NULL, *tokenizer = NULL, *prefix = NULL;
    int64_t vocab = 0, shard_tokens = 1 << 27;
    const char **words = calloc((size_t)argc, sizeof *words);
    int n_words = 0;
    Error err;
    Option table[] = {
        {.help = "Pages to token shards"},
        {"m", OPTION_TEXT, &model, "DIR", 0, 0, NULL, "the model they are for: its tokenizer and vocabulary", 0},
        {"tok", OPTION_TEXT, &tokenizer, "FILE", 0, 0, NULL, "tokenizer.json or qwen.tiktoken", 0},
        {"vocab", OPTION_INT, &vocab, "K", 0, QWEN_BASE_RANKS, NULL, "base tokens kept, 0 = all; not with -m", 0},
        {"o", OPTION_TEXT, &prefix, "PREFIX", 0, 0, NULL, "shards are PREFIX_00000.bin, PREFIX_00001.bin, ...", 0},
        {"shard_tokens", OPTION_INT, &shard_tokens, "N", 1, 2147483647, NULL, "most tokens of a shard", 0},
    };
    int code =
        words ? parse("tokenize",
                      "-tok FILE|-m DIR -o PREFIX INPUT...: .txt (form feeds between pages), .jsonl, .json; - is stdin",
                      "c3 tokenize -tok data/qwen2.5/qwen.tiktoken -o data/mine/train pages.jsonl", table,
                      sizeof table / sizeof *table, argc, argv, words, &n_words, &err)
              : error_set(&err, "out of memory");
    if (code == 0 && !tokenizer && !model)
        code = error_set(&err, "tokenize: -tok FILE or -m DIR is missing (hint: bash data/get_tokenizer.sh)");
    if (code == 0 && model && vocab) code = error_set(&err, "tokenize: -vocab: the model of -m has its own");
    if (code == 0 && !prefix) code = error_set(&err, "tokenize: -o PREFIX is missing (hint: c3 tokenize -h)");
    if (code == 0 && n_words == 0) code = error_set(&err, "tokenize: no file of pages (hint: c3 tokenize -h)");
    if (code == 0) {
        TokenizeOptions o = {.tokenizer = tokenizer,
                             .vocab = vocab == QWEN_BASE_RANKS ? 0 : (int)vocab, // all of them is not a cut
                             .prefix = prefix,
                             .inputs = words,
                             .n_inputs = n_words,
                             .shard_tokens = (uint64_t)shard_tokens};
        code = (model ? make_shards_for(model, &o, &err) : make_shards(&o, &err)) == 0 ? 0 : fail(&err, 1);
    } else {
        code = code < 0 ? fail(&err, EXIT_USAGE) : 0;
    }
    free(words);
    return code;
}

static int run_info(int argc, char **argv) {
    const char **words = calloc((size_t)argc, sizeof *words);
    int n_words = 0;
    int64_t check = 0;
    Error err;
    Option table[] = {
        {.help = "Depth"},
        {"check", OPTION_FLAG, &check, NULL, 0, 0, NULL, "read everything: shapes, NaNs, sizes, checksums", 0},
    };
    int code = words ? parse("info", "[-check] PATH...: what lies in a model's folder, a run's folder or a shard",
                             "c3 info -check runs/demo", table, 2, argc, argv, words, &n_words, &err)
                     : error_set(&err, "out of memory");
    if (code == 0 && n_words == 0) code = error_set(&err, "info: no folder or file (hint: c3 info -h)");
    int bad = code < 0;
    for (int i = 0; i < n_words && code == 0 && !bad; i++)
        bad = (check ? info_check : info_print)(stdout, words[i], &err) != 0;
    free(words);
    return bad ? fail(&err, code < 0 ? EXIT_USAGE : 1) : 0;
}

static int run_plan(int argc, char **argv) {
    Error err;
    int code = plan_command(stdout, argc, argv, &err);
    return code ? fail(&err, code < 0 ? EXIT_USAGE : 1) : 0;
}

// ---- c3 extract ----------------------------------------------------------------------------------------------------

static int run_extract(int argc, char **argv) {
    const char *model = NULL, *part = NULL, *out = NULL;
    Error err;
    Option table[] = {
        {.help = "One stack as a plain Qwen2 folder"},
        {"m", OPTION_TEXT, &model, "DIR", 0, 0, NULL, "a C3 checkpoint, or a run's folder (its newest step)", 0},
        {"part", OPTION_CHOICE, &part, NULL, 0, 0, "decoder|encoder", "which of the two", 0},
        {"o", OPTION_TEXT, &out, "DIR", 0, 0, NULL, "the new folder", 0},
    };
    int code = parse("extract", "-m DIR -part decoder|encoder -o OUT: a stack that any Qwen2 program loads",
                     "c3 extract -m runs/demo -part decoder -o models/demo-decoder", table,
                     sizeof table / sizeof *table, argc, argv, NULL, NULL, &err);
    if (code == 0 && (!model || !part || !out))
        code = error_set(&err, "extract: -%s is missing (hint: c3 extract -h)", !model ? "m" : !part ? "part" : "o");
    if (code) return code < 0 ? fail(&err, EXIT_USAGE) : 0;
    char *notes;
    if (extract_stack(&notes, model, strcmp(part, "encoder") == 0 ? OWNER_ENCODER : OWNER_DECODER, out, &err) != 0)
        return fail(&err, 1);
    printf("%s: the %s of %s; with it %s\n", clean(out), part, clean(model), clean(notes));
    free(notes);
    return 0;
}

// ---- main ----------------------------------------------------------------------------------------------------------

static const struct {
    const char *name, *what;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"tokenize", "make token shards from pages of text", run_tokenize},
    {"reconstruct", "write pages back from their latents, errors marked", run_reconstruct},
    {"compress", "keep documents as the latents of their pages", run_compress},
    {"decompress", "write documents again from their latents", run_decompress},
    {"eval", "evaluate a model on held-out pages: tables, metrics, controls", run_eval},
    {"info", "say what lies in a model's folder or a shard, and whether it is sound", run_info},
    {"extract", "write a model's encoder or decoder as a plain Qwen2 folder", run_extract},
    {"plan", "predict memory and time of a training run on given GPUs", run_plan},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void usage(FILE *out) {
    fprintf(out, "c3 COMMAND [options]   (c3 COMMAND -h, or c3 help COMMAND, explains one; --version)\n");
    for (int i = 0; i < N_COMMANDS; i++) fprintf(out, "  %-12s %s\n", commands[i].name, commands[i].what);
}

static int unknown_command(const char *word) {
    const char *names[N_COMMANDS], *other;
    Error err;
    for (int i = 0; i < N_COMMANDS; i++) names[i] = commands[i].name;
    other = cli_nearest(word, names, N_COMMANDS);
    if (!strcmp(word, "report")) error_set(&err, "unknown command \"report\" (hint: scripts/report.py RUN)");
    else if (other) error_set(&err, "unknown command \"%s\" (hint: did you mean %s? c3 -h lists them)", word, other);
    else error_set(&err, "unknown command \"%s\" (hint: c3 -h lists them)", word);
    return fail(&err, EXIT_USAGE);
}

static int is_one_of(const char *word, const char *a, const char *b, const char *c) {
    return !strcmp(word, a) || !strcmp(word, b) || !strcmp(word, c);
}

static int dispatch(int argc, char **argv) {
    if (argc < 2) {
        usage(stderr);
        return EXIT_USAGE;
    }
    if (is_one_of(argv[1], "version", "-version", "--version")) {
        version_print(stdout, "c3");
        return 0;
    }
    int help = is_one_of(argv[1], "help", "-h", "--help");
    if (help && argc == 2) {
        usage(stdout);
        return 0;
    }
    char *command = argv[1 + help], option[] = "-h", *explain[] = {command, option, NULL};
    for (int i = 0; i < N_COMMANDS; i++) {
        if (strcmp(command, commands[i].name) == 0)
            return help ? commands[i].run(2, explain) : commands[i].run(argc - 1, argv + 1);
    }
    return unknown_command(command);
}

int main(int argc, char **argv) {
    file_hold_standard();
    backend_cpu_prepare(argv);
    Error err;
    int code = dispatch(argc, argv);
    if (code == 0 && file_check_stdout(&err) != 0) code = fail(&err, 1);
    return code;
}
