// tokenize.c: see tokenize.h.
#include "tokenize.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h> // unlink

#include "file.h"
#include "pages.h"
#include "shard.h"
#include "tokenizer.h"

static const uint64_t default_shard_tokens = (uint64_t)1 << 27, most_shard_tokens = (uint64_t)1 << 31;

typedef struct Job {
    const TokenizeOptions *o;
    TokenizeResult *r;
    Tokenizer *tokenizer;
    ShardWriter *writer; // of shard r->files; NULL between shards
    Tokens context, answer;
    uint64_t limit;
} Job;

static char *shard_path(const Job *j, int number) { return string_format("%s_%05d.bin", j->o->prefix, number); }

static int open_shard(Job *j, Error *err) {
    char *path = shard_path(j, j->r->files);
    if (!path) return error_set(err, "%s: out of memory", j->o->prefix);
    int bad = shard_writer_open(&j->writer, path, (uint32_t)tokenizer_size(j->tokenizer),
                                tokenizer_fingerprint(j->tokenizer), err);
    free(path);
    return bad;
}

static int commit_shard(Job *j, Error *err) {
    if (!j->writer) return 0;
    ShardWriter *w = j->writer;
    j->writer = NULL;
    TRY(shard_writer_commit(w, err));
    j->r->files++;
    return 0;
}

static int add_page(Job *j, const Page *page, Error *err) {
    j->context.n = j->answer.n = 0;
    TRY(tokenizer_encode(j->tokenizer, &j->context, page->text, page->length, err));
    if (page->answer) TRY(tokenizer_encode(j->tokenizer, &j->answer, page->answer, page->answer_length, err));
    if (j->context.n == 0 || (page->answer && j->answer.n == 0)) {
        if (!j->o->skip_empty) return error_set(err, "the page is empty (hint: -skip_empty leaves such pages out)");
        j->r->empty++;
        return 0;
    }
    uint64_t tokens = j->context.n + j->answer.n;
    if (j->writer && shard_writer_tokens(j->writer) + tokens > j->limit) TRY(commit_shard(j, err));
    if (!j->writer) TRY(open_shard(j, err));
    TRY(shard_writer_add(j->writer, j->context.ids, j->context.n, page->answer ? j->answer.ids : NULL, j->answer.n,
                         err));
    untrained_add(&j->r->untrained, j->context.n);
    j->r->pages++;
    j->r->tokens += tokens;
    j->r->bytes += page->length + page->answer_length;
    return 0;
}

static int add_file(Job *j, const char *path, Error *err) {
    PageReader *reader;
    TRY(pages_open(&reader, path, err));
    Page page;
    int got;
    uint64_t number = 0;
    while ((got = pages_next(reader, &page, err)) > 0) {
        number++;
        if (add_page(j, &page, err) != 0) {
            got = error_prefix(err, "%s: page %llu (%.80s)", path, (unsigned long long)number, page.id);
            break;
        }
    }
    pages_close(reader);
    return got;
}

// Shards that an earlier run left behind the last one of this run would be read together with them.
static int remove_later(Job *j, Error *err) {
    for (int number = j->r->files;; number++) {
        char *path = shard_path(j, number), *mark = path ? string_format("%s.ok", path) : NULL;
        int there = path && mark && file_exists(path);
        int bad = !path || !mark ? error_set(err, "%s: out of memory", j->o->prefix) : 0;
        if (there) {
            bad = file_remove_tree(path, err);
            unlink(mark); // the remembered check, if there is one
            j->r->removed += !bad;
        }
        free(path);
        free(mark);
        if (bad || !there) return bad;
    }
}

static int make_folder(const char *prefix, Error *err) {
    const char *slash = strrchr(prefix, '/');
    if (!slash || slash == prefix) return 0;
    char *folder = strndup(prefix, (size_t)(slash - prefix));
    int bad = folder ? file_make_dirs(folder, err) : error_set(err, "%s: out of memory", prefix);
    free(folder);
    return bad;
}

static void undo(Job *j) {
    if (j->writer) shard_writer_discard(j->writer);
    j->writer = NULL;
    for (int number = 0; number < j->r->files; number++) {
        char *path = shard_path(j, number);
        if (path) unlink(path);
        free(path);
    }
}

static int run(Job *j, Error *err) {
    TRY(tokenizer_load(&j->tokenizer, j->o->tokenizer, j->o->vocab, err));
    TRY(make_folder(j->o->prefix, err));
    for (int i = 0; i < j->o->n_inputs; i++) TRY(add_file(j, j->o->inputs[i], err));
    if (j->r->pages == 0)
        return error_set(err, "%s: no page in %d file%s, nothing to write", j->o->n_inputs ? j->o->inputs[0] : "input",
                         j->o->n_inputs, j->o->n_inputs == 1 ? "" : "s");
    TRY(commit_shard(j, err));
    return remove_later(j, err);
}

int tokenize_files(const TokenizeOptions *o, TokenizeResult *r, Error *err) {
    *r = (TokenizeResult){0};
    if (o->model) r->untrained = untrained_count(o->model);
    Job j = {.o = o, .r = r, .limit = o->shard_tokens ? o->shard_tokens : default_shard_tokens};
    if (j.limit > most_shard_tokens) j.limit = most_shard_tokens;
    int bad = run(&j, err);
    if (bad) undo(&j);
    else r->bytes_per_token = (double)r->bytes / (double)r->tokens;
    tokens_free(&j.context);
    tokens_free(&j.answer);
    tokenizer_free(j.tokenizer);
    return bad;
}
