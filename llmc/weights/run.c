// run.c: see run.h.
#include "llmc/weights/run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/base/file.h"
#include "llmc/base/json.h"

enum { MAX_BYTES = 1 << 16 }; // of run.json, MADE_BY

// ---- run.json ------------------------------------------------------------------------------------------------------

static int read_name(char *out, size_t room, const cJSON *json, const char *key, const char *path, Error *err) {
    const char *text = NULL;
    TRY(json_text(&text, json, key, path, err));
    if (strlen(text) >= room || strchr(text, '/'))
        return error_set(err, "%s: \"%s\": expected a name of at most %zu bytes, found \"%s\"", path, key, room - 1,
                         text);
    strcpy(out, text);
    return 0;
}

static int parse(RunInfo *info, const cJSON *json, const char *path, Error *err) {
    TRY(read_name(info->id, sizeof info->id, json, "run", path, err));
    TRY(read_name(info->last, sizeof info->last, json, "last", path, err));
    if (json_find(json, "best")) TRY(read_name(info->best, sizeof info->best, json, "best", path, err));
    return json_int(&info->remove_below, json, "remove_below", 0, (int64_t)1 << 50, path, err);
}

int run_read(RunInfo *info, const char *run, Error *err) {
    *info = (RunInfo){0};
    char *path = string_format("%s/run.json", run);
    cJSON *json = NULL;
    int bad = file_exists(path) ? json_read(&json, path, MAX_BYTES, err) : 0;
    if (json) bad = parse(info, json, path, err);
    cJSON_Delete(json);
    free(path);
    return bad;
}

// ---- the folder's contents -----------------------------------------------------------------------------------------

static int has_file(const char *folder, const char *name) {
    char *path = string_format("%s/%s", folder, name);
    int found = file_exists(path);
    free(path);
    return found;
}

static int is_made_by(const char *folder, const char *id) {
    char *path = string_format("%s/MADE_BY", folder);
    cJSON *json = NULL;
    const char *run = NULL;
    int own = id[0] && file_exists(path) && json_read(&json, path, MAX_BYTES, NULL) == 0 &&
              json_text(&run, json, "run", path, NULL) == 0 && strcmp(run, id) == 0;
    cJSON_Delete(json);
    free(path);
    return own;
}

// "step_" and digits give the number and what follows them ("", ".tmp", ...); -1 for other names.
static int64_t parse_step(const char *name, const char **rest) {
    if (strncmp(name, "step_", 5) != 0) return -1;
    size_t digits = strspn(name + 5, "0123456789");
    if (digits == 0 || digits > 15) return -1;
    *rest = name + 5 + digits;
    return strtoll(name + 5, NULL, 10);
}

static int newest_first(const void *x, const void *y) {
    const StepFolder *a = x, *b = y;
    return a->step > b->step ? -1 : a->step < b->step;
}

void run_free_list(StepFolder *folders, int n) {
    for (int i = 0; i < n; i++) free(folders[i].path);
    free(folders);
}

static void add_folder(StepFolder **all, int *n, const char *run, const char *name, const char *id) {
    const char *rest = "";
    struct stat st;
    StepFolder f = {.step = parse_step(name, &rest), .plain = *rest == 0};
    if (f.step < 0 || (!f.plain && strcmp(rest, ".tmp") != 0 && strcmp(rest, ".old") != 0)) return;
    f.path = string_format("%s/%s", run, name);
    f.is_link = lstat(f.path, &st) == 0 && S_ISLNK(st.st_mode);
    f.complete = f.plain && has_file(f.path, "COMPLETE");
    f.own = !f.is_link && is_made_by(f.path, id);
    *all = alloc_resize(*all, (size_t)*n + 1, sizeof f, "checkpoints of a run");
    (*all)[(*n)++] = f;
}

int run_list(StepFolder **out, int *n, const char *run, const RunInfo *info, Error *err) {
    *out = NULL;
    *n = 0;
    DIR *dir = opendir(run);
    if (!dir && errno == ENOENT) return 0;
    if (!dir) return error_set(err, "%s: cannot list: %s", run, strerror(errno));
    for (struct dirent *e; (e = readdir(dir));) add_folder(out, n, run, e->d_name, info->id);
    closedir(dir);
    if (*n > 0) qsort(*out, (size_t)*n, sizeof **out, newest_first);
    return 0;
}

const char *run_step_name(const StepFolder *f) { return strrchr(f->path, '/') + 1; }

const StepFolder *run_newest(const StepFolder *folders, int n, const RunInfo *info) {
    const StepFolder *own = NULL, *any = NULL;
    for (int i = 0; i < n; i++) {
        const StepFolder *f = &folders[i];
        if (!f->complete) continue;
        if (strcmp(run_step_name(f), info->last) == 0) return f;
        if (!own && f->own) own = f;
        if (!any) any = f;
    }
    return own ? own : any;
}

char *run_best_target(const char *best) {
    char name[32], *slash = strrchr(best, '/');
    const char *rest = "";
    ssize_t n = strcmp(slash ? slash + 1 : best, "best") ? -1 : readlink(best, name, sizeof name - 1);
    if (n < 0 || n == sizeof name - 1) return NULL;
    name[n] = 0;
    return parse_step(name, &rest) >= 0 && !*rest ? string_copy(name) : NULL;
}

// ---- for readers ---------------------------------------------------------------------------------------------------

// *saved: the run has saved a checkpoint, so there must be one.
static int find_newest(char **out, int *saved, const char *run, Error *err) {
    RunInfo info;
    StepFolder *folders;
    int n;
    TRY(run_read(&info, run, err));
    TRY(run_list(&folders, &n, run, &info, err));
    const StepFolder *newest = run_newest(folders, n, &info);
    *out = newest ? string_copy(newest->path) : NULL;
    *saved = info.last[0] != 0;
    run_free_list(folders, n);
    return 0;
}

// Tries again: while the folder is listed, a run may rename a new checkpoint into a place the listing has passed, and
// remove the old one before the listing reaches it.
int checkpoint_newest(char **out, const char *run, Error *err) {
    int saved = 1;
    *out = NULL;
    for (int tries = 0; tries < 20 && saved && !*out; tries++) {
        if (tries) usleep(1000);
        TRY(find_newest(out, &saved, run, err));
    }
    return 0;
}

int checkpoint_folder(char **out, const char *folder, Error *err) {
    *out = NULL;
    if (!file_exists(folder))
        return error_set(err, "%s: no such folder (hint: -m takes a C3 checkpoint or a run's folder)", folder);
    if (has_file(folder, "config.json")) {
        char *step = run_best_target(folder); // the link may lead elsewhere while the files are read
        *out =
            step ? string_format("%.*s%s", (int)(strlen(folder) - strlen("best")), folder, step) : string_copy(folder);
        free(step);
        return 0;
    }
    TRY(checkpoint_newest(out, folder, err));
    if (*out) return 0;
    return error_set(
        err, "%s: expected config.json of a C3 checkpoint or a complete step_* folder of a run, found neither", folder);
}

// 1: the folder was removed since it was chosen, or is being removed. On a file system without locks nothing is held.
static int hold_marker(int *hold, const char *folder) {
    char *path = string_format("%s/COMPLETE", folder);
    struct stat mine, named;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), gone;
    if (fd < 0) gone = !has_file(folder, "config.json");
    else if (flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK) gone = 1;
    else gone = fstat(fd, &mine) != 0 || stat(path, &named) != 0 || mine.st_ino != named.st_ino; // replaced meanwhile?
    if (gone && fd >= 0) close(fd);
    else if (fd > 0) *hold = fd;
    free(path);
    return gone;
}

int checkpoint_hold(char **out, int *hold, const char *folder, Error *err) {
    *hold = 0;
    for (int tries = 0; tries < 1000; tries++) {
        TRY(checkpoint_folder(out, folder, err));
        if (!hold_marker(hold, *out)) return 0;
        free(*out);
        *out = NULL;
        usleep(1000);
    }
    return error_set(err, "%s: every checkpoint chosen was removed before it could be opened (hint: try again)",
                     folder);
}

void checkpoint_release(int *hold) {
    if (*hold > 0) close(*hold);
    *hold = 0;
}
