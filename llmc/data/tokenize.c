// tokenize.c: see tokenize.h.
#include "llmc/data/tokenize.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h> // unlink, rmdir

#include "llmc/base/alloc.h"
#include "llmc/base/file.h"
#include "llmc/base/lock.h"
#include "llmc/text/pages.h"
#include "llmc/data/shard.h"
#include "llmc/text/tokenizer.h"

static const uint64_t default_shard_tokens = (uint64_t)1 << 27, most_shard_tokens = (uint64_t)1 << 31;

typedef struct Job {
    const TokenizeOptions *o;
    TokenizeResult *r;
    Tokenizer *tokenizer;
    Lock lock;
    char *folder;        // of the prefix
    const char *name;    // of the prefix, in that folder
    char *staging;       // folder of the new shards; NULL: not made
    char **paths;        // (r->files) the new shards
    ShardWriter *writer; // of shard r->files; NULL between shards
    Tokens context, prompt, answer;
    uint64_t limit;
} Job;

// ---- names ---------------------------------------------------------------------------------------------------------

// The number in "00012.bin", at least five digits and no zeros in front of more; -1: another name.
static int64_t shard_number(const char *name) {
    size_t digits = strspn(name, "0123456789");
    if (digits < 5 || digits > 9 || (digits > 5 && name[0] == '0') || strcmp(name + digits, ".bin") != 0) return -1;
    return strtoll(name, NULL, 10);
}

static char *final_path(const Job *j, int64_t number) {
    return string_format("%s_%05lld.bin", j->o->prefix, (long long)number);
}

// Calls visit for every existing shard of this prefix, whatever its number.
static int each_old_shard(Job *j, int (*visit)(Job *, int64_t number, const char *path, Error *), Error *err) {
    DIR *dir = opendir(j->folder);
    if (!dir) return error_set(err, "%s: cannot list: %s", j->folder, strerror(errno));
    const size_t n = strlen(j->name);
    int bad = 0;
    for (struct dirent *e; !bad && (e = readdir(dir));) {
        if (strncmp(e->d_name, j->name, n) != 0 || e->d_name[n] != '_') continue;
        int64_t number = shard_number(e->d_name + n + 1);
        if (number < 0) continue;
        char *path = final_path(j, number);
        bad = visit(j, number, path, err);
        free(path);
    }
    closedir(dir);
    return bad;
}

// A link's target would not be replaced, and devices and folders cannot be: an error before the work begins.
static int check_replaceable(Job *j, int64_t number, const char *path, Error *err) {
    (void)j, (void)number;
    struct stat st;
    if (lstat(path, &st) != 0 || S_ISREG(st.st_mode)) return 0;
    return error_set(err, "%s: expected a shard to replace, found %s (hint: move it away, or choose another -o)", path,
                     S_ISLNK(st.st_mode) ? "a symbolic link" : "no regular file");
}

// ---- the folder of new shards --------------------------------------------------------------------------------------

// Removes only what a run put there: names that contain a shard's, with whatever a temporary name adds.
static int is_staged(const char *name) {
    const char *end = strstr(name, ".bin");
    return end && end - name >= 5 && strspn(end - 5, "0123456789") == 5;
}

static int remove_staging(const char *path, Error *err) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) return 0;
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (is_staged(e->d_name)) unlinkat(fd, e->d_name, 0);
    if (dir) closedir(dir);
    if (dir && rmdir(path) == 0) return 0;
    return error_set(err,
                     "%s: c3 tokenize needs this name for a folder of its own and cannot remove what is there: %s "
                     "(hint: move it away)",
                     path, strerror(errno));
}

// A folder of our own, so that nobody else can put a link there.
static int make_staging(Job *j, Error *err) {
    char *path = string_format("%s.new", j->o->prefix);
    int bad = remove_staging(path, err);
    if (!bad && mkdir(path, 0700) != 0) bad = error_set(err, "%s: cannot make the folder: %s", path, strerror(errno));
    if (bad) free(path);
    else j->staging = path;
    return bad;
}

// ---- pages ---------------------------------------------------------------------------------------------------------

static int open_shard(Job *j, Error *err) {
    j->paths = alloc_resize(j->paths, (size_t)j->r->files + 1, sizeof *j->paths, "names of shards");
    char *path = string_format("%s/%05d.bin", j->staging, j->r->files);
    if (shard_writer_open(&j->writer, path, (uint32_t)tokenizer_size(j->tokenizer), tokenizer_fingerprint(j->tokenizer),
                          err) != 0) {
        free(path);
        return -1;
    }
    j->paths[j->r->files++] = path;
    return 0;
}

static int commit_shard(Job *j, Error *err) {
    ShardWriter *w = j->writer;
    j->writer = NULL;
    return w ? shard_writer_commit(w, err) : 0;
}

static void note_length(TokenizeResult *r, const Page *page, const char *path, uint64_t tokens) {
    LeftOut *l = &r->too_long;
    l->all_pages++;
    l->all_tokens += tokens;
    if (tokens > TOKENIZE_LONGEST) l->pages++, l->tokens += tokens;
    if (tokens <= r->longest) return;
    r->longest = tokens;
    snprintf(r->longest_page, sizeof r->longest_page, "%.300s page %llu (%.100s)", path,
             (unsigned long long)page->number, page->id);
}

static int add_page(Job *j, const Page *page, const char *path, Error *err) {
    j->context.n = j->prompt.n = j->answer.n = 0;
    TRY(tokenizer_encode(j->tokenizer, &j->context, page->text, page->length, err));
    if (page->answer) TRY(tokenizer_encode(j->tokenizer, &j->answer, page->answer, page->answer_length, err));
    if (page->prompt) TRY(tokenizer_encode(j->tokenizer, &j->prompt, page->prompt, page->prompt_length, err));
    const Tokens *answer = page->answer ? &j->answer : &j->context;
    const ShardPage made = {.context = (const uint32_t *)j->context.ids,
                            .context_length = (uint32_t)j->context.n,
                            .answer = (const uint32_t *)answer->ids,
                            .answer_length = (uint32_t)answer->n,
                            .prompt = (const uint32_t *)j->prompt.ids,
                            .prompt_length = (uint32_t)j->prompt.n};
    uint64_t tokens = j->context.n + j->prompt.n + j->answer.n;
    if (j->writer && shard_writer_tokens(j->writer) + tokens > j->limit) TRY(commit_shard(j, err));
    if (!j->writer) TRY(open_shard(j, err));
    TRY(shard_writer_add_page(j->writer, &made, err));
    untrained_add(&j->r->untrained, j->context.n);
    j->r->pages++;
    j->r->tokens += tokens;
    j->r->bytes += page->length + page->prompt_length + page->answer_length;
    j->r->prompts += page->prompt != NULL;
    note_length(j->r, page, path, j->prompt.n + answer->n);
    return 0;
}

static int add_file(Job *j, const char *path, Error *err) {
    PageReader *reader;
    TRY(pages_open(&reader, path, err));
    Page page;
    int got;
    while ((got = pages_next(reader, &page, err)) > 0) {
        if (add_page(j, &page, path, err) != 0) {
            got = error_prefix(err, "%s: page %llu (%.80s)", path, (unsigned long long)page.number, page.id);
            break;
        }
    }
    j->r->without_text += pages_without_text(reader);
    pages_close(reader);
    return got;
}

static int add_files(Job *j, Error *err) {
    const TokenizeOptions *o = j->o;
    for (int i = 0; i < o->n_inputs; i++) TRY(add_file(j, o->inputs[i], err));
    if (j->r->pages == 0)
        return error_set(err, "%s: no page with text in %d file%s, nothing to write",
                         o->n_inputs ? o->inputs[0] : "input", o->n_inputs, o->n_inputs == 1 ? "" : "s");
    TRY(commit_shard(j, err));
    return shard_make_set(j->paths, j->r->files, err);
}

// ---- in place of the old ones --------------------------------------------------------------------------------------

// Shards with higher numbers, left by an earlier run, would be read together with these.
static int remove_later(Job *j, int64_t number, const char *path, Error *err) {
    if (number < j->r->files) return 0;
    char *mark = string_format("%s.ok", path);
    int bad = unlink(path) != 0 ? error_set(err, "%s: cannot remove: %s", path, strerror(errno)) : 0;
    unlink(mark); // the remembered check, if any
    free(mark);
    j->r->removed += !bad;
    return bad;
}

static int put_in_place(Job *j, Error *err) {
    TRY(each_old_shard(j, check_replaceable, err));
    for (int i = 0; i < j->r->files; i++) {
        char *path = final_path(j, i);
        int bad = rename(j->paths[i], path) != 0;
        if (bad)
            error_set(err, "%s: cannot take this name: %s (%d of %d new shards are in place: run it again)", path,
                      strerror(errno), i, j->r->files);
        free(path);
        if (bad) return -1;
    }
    TRY(file_sync_dir(j->folder, err)); // before the first old one is removed
    return each_old_shard(j, remove_later, err);
}

// ---- all -----------------------------------------------------------------------------------------------------------

static int take_place(Job *j, Error *err) {
    const char *prefix = j->o->prefix, *slash = strrchr(prefix, '/');
    j->name = slash ? slash + 1 : prefix;
    j->folder = slash == prefix ? string_copy("/")
                : slash         ? string_format("%.*s", (int)(slash - prefix), prefix)
                                : string_copy(".");
    TRY(file_make_dirs(j->folder, err));
    char *path = string_format("%s.lock", prefix);
    int bad = lock_take(&j->lock, path, prefix, &j->r->unlocked, err);
    free(path);
    TRY(bad);
    TRY(each_old_shard(j, check_replaceable, err));
    return make_staging(j, err);
}

static int run(Job *j, Error *err) {
    TRY(tokenizer_load(&j->tokenizer, j->o->tokenizer, j->o->vocab, err));
    TRY(take_place(j, err));
    TRY(add_files(j, err));
    return put_in_place(j, err);
}

int tokenize_files(const TokenizeOptions *o, TokenizeResult *r, Error *err) {
    *r = (TokenizeResult){0};
    if (o->trained_tokens) r->untrained = untrained_count(o->trained_tokens);
    Job j = {.o = o, .r = r, .limit = o->shard_tokens ? o->shard_tokens : default_shard_tokens, .lock = LOCK_NONE};
    if (j.limit > most_shard_tokens) j.limit = most_shard_tokens;
    int bad = run(&j, err);
    if (!bad) r->bytes_per_token = (double)r->bytes / (double)r->tokens;
    if (j.writer) shard_writer_discard(j.writer);
    if (j.staging) remove_staging(j.staging, NULL);
    lock_release(&j.lock);
    for (int i = 0; i < r->files; i++) free(j.paths[i]);
    free(j.paths);
    free(j.staging);
    free(j.folder);
    tokens_free(&j.context);
    tokens_free(&j.prompt);
    tokens_free(&j.answer);
    tokenizer_free(j.tokenizer);
    return bad;
}
