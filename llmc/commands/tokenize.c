// tokenize.c: c3 tokenize: pages to token shards.
#include "llmc/data/tokenize.h"

#include "llmc/base/clean.h"
#include "llmc/base/format.h"
#include "llmc/commands/shared.h"

static struct {
    TokenizeOptions o;
    const char *model;
    int64_t shard_tokens;
} given;

static void options(OptionTable *t) {
    const Option rows[] = {
        {.help = "Pages to token shards"},
        {OPTION_TEXT("m", &given.model, NULL, "DIR", "the model they are for: its tokenizer and vocabulary")},
        {OPTION_TEXT("tok", &given.o.tokenizer, NULL, "FILE", "tokenizer.json or qwen.tiktoken")},
        {OPTION_INT("vocab", &given.o.vocab, "base tokens kept, 0 = all; not with -m"), .max = QWEN_BASE_RANKS,
         .argument = "K"},
        {OPTION_TEXT("o", &given.o.prefix, NULL, "PREFIX", "shards are PREFIX_00000.bin, PREFIX_00001.bin, ..."),
         .required = 1},
        {OPTION_INT64("shard_tokens", &given.shard_tokens, "most tokens of a shard"), .initial = 1 << 27, .min = 1,
         .max = 2147483647},
        {0},
    };
    cli_add(t, rows);
}

static int check(Error *err) {
    TokenizeOptions *o = &given.o;
    if (!o->tokenizer && !given.model)
        return error_set(err, "-tok FILE or -m DIR is missing (hint: bash data/get_tokenizer.sh)");
    if (given.model && o->vocab) return error_set(err, "-vocab: the model of -m has its own");
    if (o->vocab == QWEN_BASE_RANKS) o->vocab = 0; // all of them is not a cut
    o->shard_tokens = (uint64_t)given.shard_tokens;
    return 0;
}

static void warn_of_long_pages(const TokenizeResult *r) {
    char text[160], most[32], longest[32];
    Error line; // cleans what comes from the file
    if (!r->too_long.pages) return;
    error_set(&line,
              "warning: %s: longer than %s tokens, which training leaves out unless -maxlen is above %d, its default; "
              "the longest has %s tokens: %s (hint: form feeds part pages of a text)",
              left_out_text(text, &r->too_long), format_count(most, TOKENIZE_LONGEST), TOKENIZE_MAXLEN,
              format_count(longest, (double)r->longest), r->longest_page);
    command_note("%s", line.text);
}

static int make_shards(const TokenizeOptions *o, Error *err) {
    TokenizeResult r;
    char text[2][32];
    for (int i = 0; i < o->n_inputs; i++) note_waiting(o->inputs[i]);
    TRY(tokenize_files(o, &r, err));
    printf("%s pages, %s tokens (%.2f bytes a token) in %d file%s: %s_*.bin\n", format_count(text[0], (double)r.pages),
           format_count(text[1], (double)r.tokens), r.bytes_per_token, r.files, r.files == 1 ? "" : "s",
           clean(o->prefix));
    if (r.prompts) printf("%s pages have a prompt of their own\n", format_count(text[0], (double)r.prompts));
    if (r.without_text) printf("%s pages without text were left out\n", format_count(text[0], (double)r.without_text));
    if (r.removed) printf("%d later files of that name, from an earlier run, were removed\n", r.removed);
    warn_of_long_pages(&r);
    if (r.unlocked) command_note("%s: this file system has no locks: run one c3 tokenize at a time", clean(o->prefix));
    untrained_warn(stderr, &r.untrained, clean(o->prefix));
    return 0;
}

// With the tokenizer and vocabulary of a model.
static int make_shards_for(const char *folder, TokenizeOptions *o, Error *err) {
    Model m;
    int bad = model_open(&m, &(ModelPlace){.folder = folder, .tokenizer = o->tokenizer}, err),
        base = m.files.config.base_vocab;
    if (!bad) {
        o->tokenizer = m.files.tokenizer;
        o->vocab = base == QWEN_BASE_RANKS ? 0 : base;
        o->trained_tokens = m.files.config.trained_tokens;
        bad = make_shards(o, err);
    }
    model_close(&m);
    return bad;
}

static int run(const char *const *words, int n, Error *err) {
    given.o.inputs = words;
    given.o.n_inputs = n;
    return given.model ? make_shards_for(given.model, &given.o, err) : make_shards(&given.o, err);
}

const Command command_tokenize = {
    .name = "tokenize",
    .what = "make token shards from pages of text",
    .usage = "-tok FILE|-m DIR -o PREFIX INPUT...: .txt (form feeds between pages), .jsonl, .json; - is stdin",
    .example = "c3 tokenize -tok data/qwen2.5/qwen.tiktoken -o data/mine/train pages.jsonl",
    .word = "file of pages",
    .many = 1,
    .options = options,
    .check = check,
    .run = run,
};
