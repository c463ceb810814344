// run_writer.c: see run_writer.h.
#include "llmc/train/run_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/base/clean.h"
#include "llmc/base/file.h"
#include "llmc/base/stop.h" // stop_clear

void run_host(char host[64]) {
    char name[64] = "?";
    if (gethostname(name, sizeof name - 1) != 0) strcpy(name, "?");
    snprintf(host, 64, "%s", name);
}

// ---- one writer ----------------------------------------------------------------------------------------------------

int run_claim(RunClaim *claim, const char *run, Error *err) {
    *claim = (RunClaim){.lock = LOCK_NONE, .made = !file_exists(run)};
    char *path = string_format("%s/lock", run);
    int bad = file_make_dirs(run, err);
    if (!bad) bad = lock_take(&claim->lock, path, run, &claim->unsure, err);
    if (!bad) claim->folder = run;
    free(path);
    return bad;
}

void run_unclaim(RunClaim *claim) {
    if (!claim->folder) return;
    lock_release(&claim->lock);
    if (claim->made) (void)rmdir(claim->folder); // fails, as it should, when something is in it
    claim->folder = NULL;
}

// ---- run.json ------------------------------------------------------------------------------------------------------

enum { MAX_INFO_BYTES = 1 << 16, MAX_COMMAND_BYTES = 4096 };

static void put(cJSON *json, const char *key, cJSON *value) {
    cJSON_DeleteItemFromObjectCaseSensitive(json, key);
    cJSON_AddItemToObject(json, key, value);
}

// The command line as one would type it; words with characters that a shell reads are quoted.
static char *command_line(const RunOrigin *o) {
    char *line = string_copy("");
    for (int i = 0; i < o->argc; i++) {
        const char *word = o->argv[i];
        const char *quote = word[0] && !word[strcspn(word, " \t\n\"'\\$`*?[](){}<>|&;#~!")] ? "" : "'";
        string_append(&line, "%s%s", i ? " " : "", quote);
        for (size_t n; word[n = strcspn(word, "'")]; word += n + 1) string_append(&line, "%.*s'\\''", (int)n, word);
        string_append(&line, "%s%s", word, quote);
    }
    return line;
}

static void put_origin(cJSON *json, const RunOrigin *o, int is_new) {
    char host[64], now[32], command[MAX_COMMAND_BYTES], *line = command_line(o);
    time_t seconds = time(NULL);
    struct tm utc;
    strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &utc));
    run_host(host);
    clean_text(command, sizeof command, line); // valid UTF-8, and cut where it is very long
    put(json, "host", cJSON_CreateString(host));
    put(json, "command", cJSON_CreateString(command));
    put(json, "build", cJSON_CreateString(o->build));
    if (is_new || !json_find(json, "started")) put(json, "started", cJSON_CreateString(now));
    free(line);
}

int run_write_json(cJSON *json, const char *folder, const char *name, Error *err) {
    char *path = string_format("%s/%s", folder, name);
    int bad = json_write(json, path, err);
    cJSON_Delete(json);
    free(path);
    return bad;
}

// origin: of a start of the trainer; NULL: what the file says of it stays.
static int write_info(const RunInfo *info, const char *run, const RunOrigin *origin, int is_new, Error *err) {
    char *path = string_format("%s/run.json", run);
    cJSON *json = NULL;
    int bad = file_exists(path) ? json_read(&json, path, MAX_INFO_BYTES, err) : 0;
    free(path);
    if (bad) return -1;
    if (!json) json = cJSON_CreateObject();
    put(json, "run", cJSON_CreateString(info->id));
    put(json, "last", cJSON_CreateString(info->last));
    put(json, "remove_below", cJSON_CreateNumber((double)info->remove_below));
    if (info->best[0]) put(json, "best", cJSON_CreateString(info->best));
    else cJSON_DeleteItemFromObjectCaseSensitive(json, "best");
    if (origin) put_origin(json, origin, is_new);
    return run_write_json(json, run, "run.json", err);
}

static int new_id(RunInfo *info, const char *run, Error *err) {
    uint64_t number;
    if (getrandom(&number, sizeof number, 0) != sizeof number)
        return error_set(err, "%s: cannot get random bytes: %s", run, strerror(errno));
    snprintf(info->id, sizeof info->id, "%016llx", (unsigned long long)number);
    return 0;
}

int run_identity(RunInfo *info, const char *run, Error *err) {
    TRY(run_read(info, run, err));
    if (info->id[0]) return 0;
    TRY(new_id(info, run, err));
    return write_info(info, run, NULL, 0, err);
}

static void name_step(char name[32], int64_t step) { snprintf(name, 32, "step_%08lld", (long long)step); }

int run_will_save(RunInfo *info, const char *run, int64_t step, int keep, int64_t best, Error *err) {
    StepFolder *folders;
    int n, kept = 1; // the one to come
    TRY(run_list(&folders, &n, run, info, err));
    int64_t lowest = step;
    for (int i = 0; i < n && kept < keep; i++) {
        if (!folders[i].complete || !folders[i].own || folders[i].step >= step) continue;
        lowest = folders[i].step;
        kept++;
    }
    run_free_list(folders, n);
    if (keep > 0) info->remove_below = lowest;
    name_step(info->last, step);
    if (best > 0) name_step(info->best, best);
    else if (best == 0) info->best[0] = 0;
    return write_info(info, run, NULL, 0, err);
}

// ---- the best checkpoint -------------------------------------------------------------------------------------------

int run_check_best(const char *run, Error *err) {
    struct stat st;
    char *path = string_format("%s/best", run), *target = run_best_target(path);
    int bad = 0;
    if (!target && lstat(path, &st) == 0)
        bad = error_set(
            err, "%s: expected nothing, or the link to a checkpoint that -keep_best makes (hint: move it away)", path);
    free(target);
    free(path);
    return bad;
}

int run_link_best(const char *run, const RunInfo *info, Error *err) {
    char *path = string_format("%s/best", run), *target = run_best_target(path);
    int bad = 0;
    if (!info->best[0])
        bad = target && unlink(path) != 0 && errno != ENOENT
                  ? error_set(err, "%s: cannot remove: %s", path, strerror(errno))
                  : 0;
    else if (!target || strcmp(target, info->best) != 0)
        bad = run_check_best(run, err) || file_link(path, info->best, err) ? -1 : 0;
    free(target);
    free(path);
    return bad;
}

// ---- removing ------------------------------------------------------------------------------------------------------

// Takes the lock of a checkpoint's readers; -1: somebody reads there.
static int lock_readers(int *fd, const char *folder) {
    char *marker = string_format("%s/COMPLETE", folder);
    *fd = open(marker, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    free(marker);
    if (*fd < 0 || flock(*fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return 0;
    close(*fd);
    return -1;
}

// It loses its name first: half removed, it must not look like a checkpoint.
static int remove_step(const StepFolder *f, Error *err) {
    int fd, bad;
    if (!f->plain) return file_remove_tree(f->path, err);
    if (lock_readers(&fd, f->path) != 0) return 0; // the next time
    char *old = string_format("%s.old", f->path);
    bad = file_remove_tree(old, err);
    if (!bad && rename(f->path, old) != 0 && errno != ENOENT)
        bad = error_set(err, "%s: cannot rename: %s", f->path, strerror(errno));
    if (!bad) bad = file_remove_tree(old, err);
    free(old);
    if (fd >= 0) close(fd);
    return bad;
}

int run_prune(const char *run, const RunInfo *info, Error *err) {
    StepFolder *folders;
    int n, bad = 0;
    TRY(run_list(&folders, &n, run, info, err));
    for (int i = 0; i < n && !bad; i++) {
        const StepFolder *f = &folders[i];
        if (!f->plain && !f->own) (void)rmdir(f->path); // died before it could mark it: empty
        if (f->plain && !strcmp(run_step_name(f), info->best)) continue;
        if (f->own && (!f->plain || f->step < info->remove_below)) bad = remove_step(f, err);
    }
    run_free_list(folders, n);
    return bad;
}

// ---- setting aside -------------------------------------------------------------------------------------------------

typedef struct Aside {
    const char *run;
    char *folder; // OUT/old_N, made when the first thing goes there
    char *notes;
} Aside;

static int make_aside(Aside *a, Error *err) {
    for (int i = 1; !a->folder; i++) {
        a->folder = string_format("%s/old_%d", a->run, i);
        if (mkdir(a->folder, 0777) == 0) return 0;
        if (errno != EEXIST) return error_set(err, "%s: cannot make the folder: %s", a->folder, strerror(errno));
        free(a->folder);
        a->folder = NULL;
    }
    return 0;
}

// copy: it stays where it is as well.
static int set_aside(Aside *a, const char *name, int copy, Error *err) {
    TRY(make_aside(a, err));
    char *from = string_format("%s/%s", a->run, name), *to = string_format("%s/%s", a->folder, name);
    int bad = 0;
    if (copy) bad = file_copy(from, to, err);
    else if (rename(from, to) != 0 && errno != ENOENT) // not there: another host's view of this disk is older
        bad = error_set(err, "%s: cannot move to %s: %s", from, to, strerror(errno));
    if (!bad) string_append(&a->notes, "%s%s", a->notes ? ", " : "", name);
    free(from);
    free(to);
    return bad;
}

static int in_use(const StepFolder *f, Error *err) {
    return error_set(
        err,
        "%s: is being read, by this run (-m) or another process, and has to be set aside (hint: another -o, "
        "or wait for the reader)",
        f->path);
}

static int set_step_aside(Aside *a, const StepFolder *f, Error *err) {
    int fd;
    if (lock_readers(&fd, f->path) != 0) return in_use(f, err);
    int bad = set_aside(a, run_step_name(f), 0, err);
    if (fd >= 0) close(fd);
    return bad;
}

static void end_aside(Aside *a) {
    free(a->folder);
    free(a->notes);
}

int run_clear(const char *run, const char *path, const RunInfo *info, Error *err) {
    StepFolder *folders;
    Aside a = {.run = run};
    int n, bad = 0;
    TRY(run_list(&folders, &n, run, info, err));
    for (int i = 0; i < n && !bad; i++) {
        if (strcmp(folders[i].path, path) != 0) continue;
        if (folders[i].own) bad = file_remove_tree(path, err);
        else if (rmdir(path) != 0) bad = set_step_aside(&a, &folders[i], err);
    }
    run_free_list(folders, n);
    end_aside(&a);
    return bad;
}

// ---- going on ------------------------------------------------------------------------------------------------------

static int unusable(const StepFolder *f, const StepFolder *newest, const char *run, Error *err) {
    char *older = newest ? string_format("-resume %s continues from the one before, ", newest->path) : string_copy("");
    error_set(err,
              "%s: looks like a checkpoint and cannot be used: %s (hint: mend it or move it away; %s-resume no starts "
              "anew, both set it aside in %s; or another -o)",
              f->path,
              f->complete                           ? "another run made it"
              : f->is_link && !file_exists(f->path) ? "a link that leads nowhere"
                                                    : "COMPLETE is not there",
              older, run);
    free(older);
    return -1;
}

int run_resumable(char **out, const char *run, Error *err) {
    RunInfo info;
    StepFolder *folders;
    int n, bad = 0;
    *out = NULL;
    TRY(run_read(&info, run, err));
    TRY(run_list(&folders, &n, run, &info, err));
    const StepFolder *newest = run_newest(folders, n, &info);
    for (int i = 0; i < n && !bad; i++) {
        const StepFolder *f = &folders[i];
        if (!f->plain || (newest && f->step <= newest->step)) continue;
        if (!f->complete || !f->own) bad = unusable(f, newest, run, err);
    }
    if (!bad && newest) *out = string_copy(newest->path);
    run_free_list(folders, n);
    return bad;
}

static int is_same(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

// Is it named like a later step, whoever made it? Leftovers of this run are left to run_prune.
static int is_ahead(const StepFolder *f, int64_t step) { return f->step > step && (f->plain || !f->own); }

// Before anything is changed.
static int check_unread(const StepFolder *folders, int n, int64_t step, Error *err) {
    for (int i = 0; i < n; i++) {
        int fd = -1;
        if (!is_ahead(&folders[i], step)) continue;
        if (lock_readers(&fd, folders[i].path) != 0) return in_use(&folders[i], err);
        if (fd >= 0) close(fd);
    }
    return 0;
}

static int clear_steps(Aside *a, const StepFolder *folders, int n, int64_t step, Error *err) {
    for (int i = 0; i < n; i++) {
        const StepFolder *f = &folders[i];
        if (is_ahead(f, step) && (f->plain || rmdir(f->path) != 0)) TRY(set_step_aside(a, f, err));
    }
    return 0;
}

static int is_there(const Aside *a, const char *name) {
    struct stat st;
    char *path = string_format("%s/%s", a->run, name);
    int there = stat(path, &st) == 0 && st.st_size > 0;
    free(path);
    return there;
}

static int clear_log(Aside *a, int whole, Error *err) {
    if (whole && is_there(a, "profile.json")) TRY(set_aside(a, "profile.json", 0, err));
    if (!is_there(a, "log.jsonl")) return 0;
    if (whole) return set_aside(a, "log.jsonl", 0, err);
    return a->folder ? set_aside(a, "log.jsonl", 1, err) : 0; // with the steps it tells of
}

// The best checkpoint of the history up to step `from` (-1: a new one).
static void choose_best(RunInfo *info, const StepFolder *folders, int n, int64_t from, int64_t *best) {
    char name[32] = "";
    if (*best > 0) name_step(name, *best);
    else if (*best < 0) memcpy(name, info->best, sizeof name);
    *best = 0;
    for (int i = 0; i < n; i++) {
        const StepFolder *f = &folders[i];
        if (f->complete && f->own && f->step <= from && !strcmp(run_step_name(f), name)) *best = f->step;
    }
    if (*best) name_step(info->best, *best);
    else info->best[0] = 0;
}

static int clear_best(Aside *a, const RunInfo *info, Error *err) {
    char *path = string_format("%s/best", a->run), *target = run_best_target(path);
    int bad = target && !info->best[0] && a->folder ? set_aside(a, "best", 0, err) : 0;
    free(target);
    free(path);
    return bad ? bad : run_link_best(a->run, info, err);
}

// *step: of the checkpoint that is resumed, where it is one of this folder; else -1.
static int begin(Aside *a, RunInfo *info, int64_t *step, int64_t *best, const char *resumed, const RunOrigin *origin,
                 Error *err) {
    StepFolder *folders;
    int n;
    TRY(run_read(info, a->run, err));
    TRY(run_list(&folders, &n, a->run, info, err));
    const StepFolder *from = NULL;
    for (int i = 0; resumed && i < n; i++) {
        if (folders[i].plain && is_same(folders[i].path, resumed)) from = &folders[i];
    }
    *step = from ? from->step : -1;
    // a removal was planned for when the last one has its name
    if (!from || strcmp(info->last, run_step_name(from)) != 0) info->remove_below = 0;
    snprintf(info->last, sizeof info->last, "%s", from ? run_step_name(from) : "");
    choose_best(info, folders, n, *step, best);
    int bad = check_unread(folders, n, *step, err);
    if (!bad) bad = run_prune(a->run, info, err);
    if (!bad && (!from || !info->id[0])) bad = new_id(info, a->run, err);
    if (!bad)
        bad =
            write_info(info, a->run, origin, !from, err); // first: from here on the abandoned steps are not the newest
    if (!bad) bad = clear_steps(a, folders, n, *step, err);
    if (!bad) bad = clear_log(a, !from, err);
    if (!bad) bad = clear_best(a, info, err);
    run_free_list(folders, n);
    return bad;
}

// The same on a host whose disk is its own; on a shared disk there is nothing left to do.
static int begin_elsewhere(Aside *a, const RunInfo *info, int64_t step, Error *err) {
    StepFolder *folders;
    int n;
    TRY(run_list(&folders, &n, a->run, info, err));
    int bad = clear_steps(a, folders, n, step, err);
    run_free_list(folders, n);
    return bad ? bad : run_prune(a->run, info, err);
}

int run_begin(char **notes, int64_t *best, const Dist *dist, const char *run, const char *resumed,
              const RunOrigin *origin, Error *err) {
    struct {
        RunInfo info;
        int64_t step, best;
    } all;
    Aside a = {.run = run};
    int stale = 0;
    memset(&all, 0, sizeof all);
    all.best = *best;
    *notes = string_copy("");
    int bad = dist->rank == 0 ? begin(&a, &all.info, &all.step, &all.best, resumed, origin, err) : 0;
    bad = dist_agree(dist, bad, err);
    if (!bad) {
        dist_broadcast(dist, &all, sizeof all, 0);
        *best = all.best;
        int first = dist->rank != 0 && dist->local_rank == 0; // of another host
        bad = first ? begin_elsewhere(&a, &all.info, all.step, err) : 0;
        if (!bad && dist->local_rank == 0) bad = stop_clear(&stale, run, err);
        if (dist->rank == 0 && a.notes) string_append(notes, "set aside in %s: %s\n", a.folder, a.notes);
        if (dist->rank == 0 && stale) string_append(notes, "%s/stop: was there from before, removed\n", run);
        bad = dist_agree(dist, bad, err);
    }
    if (bad) {
        free(*notes);
        *notes = NULL;
    }
    end_aside(&a);
    return bad;
}
