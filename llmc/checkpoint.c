// checkpoint.c: whole checkpoints, see checkpoint.h. A checkpoint is built in RUN/step_N.tmp; COMPLETE, with size and
// CRC-32 of every file that holds numbers, is its last file; then the folder gets its name. Only after that are older
// ones removed, their COMPLETE first.
#include "checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "json.h"
#include "trainer_files.h"
#include "weights.h"

enum { MAX_COMPLETE_BYTES = 1 << 24, RANK0_FILES = 5, PIECE_BYTES = 1 << 24 };

void train_state_free(TrainState *s) {
    free(s->settings);
    free(s->losses);
    *s = (TrainState){0};
}

uint64_t checkpoint_bytes(const C3Params *p, DType dtype) {
    uint64_t element = dtype_size(dtype) + 2 * sizeof(float) + (dtype == DTYPE_F32 ? 0 : sizeof(float));
    uint64_t headers =
        (uint64_t)p->table.n * 192 + (uint64_t)p->table.n_buckets * (uint64_t)p->table.ranks * 3 * 96 + 8192;
    return (uint64_t)p->table.parameters * element + headers;
}

// ---- names ---------------------------------------------------------------------------------------------------------

static int has_marker(const char *folder) {
    char *path = string_format("%s/COMPLETE", folder);
    int found = path && file_exists(path);
    free(path);
    return found;
}

// "step_" and digits give the number and what follows them ("", ".tmp", ...); -1 for other names.
static int64_t parse_step(const char *name, const char **rest) {
    if (strncmp(name, "step_", 5) != 0) return -1;
    size_t digits = strspn(name + 5, "0123456789");
    if (digits == 0 || digits > 15) return -1;
    *rest = name + 5 + digits;
    return strtoll(name + 5, NULL, 10);
}

typedef struct StepFolder {
    int64_t step;
    int complete;
    char *path;
} StepFolder;

static int newest_first(const void *x, const void *y) {
    const StepFolder *a = x, *b = y;
    return a->step > b->step ? -1 : a->step < b->step;
}

static void free_folders(StepFolder *folders, int n) {
    for (int i = 0; i < n; i++) free(folders[i].path);
    free(folders);
}

static int is_folder(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

// Everything in a run that looks like a checkpoint, newest first. Leftovers (.tmp, .old) count as incomplete.
static int list_folders(StepFolder **out, int *n, const char *run, Error *err) {
    *out = NULL;
    *n = 0;
    DIR *dir = opendir(run);
    if (!dir) return error_set(err, "%s: cannot list: %s", run, strerror(errno));
    int bad = 0;
    for (struct dirent *e; !bad && (e = readdir(dir));) {
        const char *rest = "";
        int64_t step = parse_step(e->d_name, &rest);
        if (step < 0 || (*rest && strcmp(rest, ".tmp") != 0 && strcmp(rest, ".old") != 0)) continue;
        char *path = string_format("%s/%s", run, e->d_name);
        if (path && !is_folder(path)) {
            free(path);
            continue;
        }
        StepFolder *more = realloc(*out, (size_t)(*n + 1) * sizeof *more);
        if (more) *out = more;
        bad = !more || !path;
        if (bad) free(path);
        else (*out)[(*n)++] = (StepFolder){.step = step, .complete = !*rest && has_marker(path), .path = path};
    }
    closedir(dir);
    if (bad) {
        free_folders(*out, *n);
        *out = NULL;
        return error_set(err, "%s: out of memory", run);
    }
    if (*n > 0) qsort(*out, (size_t)*n, sizeof **out, newest_first);
    return 0;
}

char *checkpoint_newest(const char *run) {
    StepFolder *folders;
    int n;
    char *found = NULL;
    if (list_folders(&folders, &n, run, NULL) != 0) return NULL;
    for (int i = 0; i < n && !found; i++) {
        if (folders[i].complete) found = strdup(folders[i].path);
    }
    free_folders(folders, n);
    return found;
}

int checkpoint_folder(char **out, const char *folder, Error *err) {
    char *config = string_format("%s/config.json", folder);
    if (!config) return error_set(err, "out of memory");
    int is_model = file_exists(config), is_there = file_exists(folder);
    free(config);
    if (!is_there)
        return error_set(err, "%s: no such folder (hint: -m takes a C3 checkpoint or a run's folder)", folder);
    *out = is_model ? strdup(folder) : checkpoint_newest(folder);
    if (!*out)
        return error_set(err,
                         "%s: expected config.json of a C3 checkpoint or a complete step_* folder of a run, found "
                         "neither",
                         folder);
    return 0;
}

// ---- COMPLETE ------------------------------------------------------------------------------------------------------

static int write_marker(const FileSum *sums, int n, const char *folder, Error *err) {
    char *path = string_format("%s/COMPLETE", folder);
    cJSON *json = cJSON_CreateObject(), *files = cJSON_AddArrayToObject(json, "files");
    int ok = path && files;
    for (int i = 0; i < n && ok; i++) {
        cJSON *file = cJSON_CreateObject();
        ok = cJSON_AddItemToArray(files, file) && cJSON_AddStringToObject(file, "name", sums[i].name) &&
             cJSON_AddNumberToObject(file, "bytes", (double)sums[i].bytes) &&
             cJSON_AddNumberToObject(file, "crc32", sums[i].crc);
    }
    int bad = ok ? json_write(json, path, err) : error_set(err, "%s: out of memory", folder);
    cJSON_Delete(json);
    free(path);
    return bad;
}

static uint32_t crc_of(const FileMap *map) {
    uint32_t crc = 0;
    file_map_in_order(map);
    for (size_t at = 0; at < map->size; at += PIECE_BYTES) {
        size_t n = map->size - at < PIECE_BYTES ? map->size - at : PIECE_BYTES;
        crc = file_crc32(crc, map->data + at, n);
        file_map_done(map->data + at, n);
    }
    return crc;
}

// The file of one entry: its size always, its bytes when asked for.
static int check_entry(const cJSON *entry, int bytes_too, const char *folder, const char *marker, Error *err) {
    const char *name = NULL;
    int64_t bytes = 0, crc = 0;
    TRY(json_text(&name, entry, "name", marker, err));
    TRY(json_int(&bytes, entry, "bytes", 0, (int64_t)1 << 53, marker, err));
    TRY(json_int(&crc, entry, "crc32", 0, UINT32_MAX, marker, err));
    if (name[0] == '/' || strstr(name, "..")) return error_set(err, "%s: \"name\": found \"%s\"", marker, name);
    char *path = string_format("%s/%s", folder, name);
    FileMap map;
    int bad = path ? file_map(&map, path, err) : error_set(err, "%s: out of memory", folder);
    if (!bad) {
        uint32_t found = bytes_too ? crc_of(&map) : (uint32_t)crc;
        if (map.size != (uint64_t)bytes)
            bad = error_set(err, "%s: expected %lld bytes, found %zu", path, (long long)bytes, map.size);
        else if (found != (uint32_t)crc)
            bad = error_set(err, "%s: damaged: expected CRC-32 %08x, found %08x (hint: -resume an older checkpoint)",
                            path, (uint32_t)crc, found);
        file_unmap(&map);
    }
    free(path);
    return bad;
}

// All sizes; checksums of every ranks-th file from this rank's on, so that the ranks share the work. *n: files.
static int check_marker(int *n, const char *folder, int rank, int ranks, Error *err) {
    char *path = string_format("%s/COMPLETE", folder);
    cJSON *json = NULL;
    int bad = path ? json_read(&json, path, MAX_COMPLETE_BYTES, err) : error_set(err, "%s: out of memory", folder);
    const cJSON *files = bad ? NULL : json_find(json, "files"), *entry;
    if (!bad && !cJSON_IsArray(files)) bad = error_set(err, "%s: key \"files\": expected a list", path);
    *n = 0;
    cJSON_ArrayForEach(entry, files) {
        if (!bad) bad = check_entry(entry, (*n)++ % ranks == rank, folder, path, err);
    }
    cJSON_Delete(json);
    free(path);
    return bad;
}

// ---- saving --------------------------------------------------------------------------------------------------------

static int check_disk(const CheckpointJob *job, const char *run, Error *err) {
    uint64_t have = 0, need = checkpoint_bytes(job->params, job->backend->dtype);
    TRY(file_free_bytes(&have, run, err));
    if (have >= need) return 0;
    return error_set(err,
                     "%s: %.3f GB of disk are free, a checkpoint takes %.3f (hint: another -o, or remove old runs)",
                     run, (double)have * 1e-9, (double)need * 1e-9);
}

static int make_folders(const char *folder, Error *err) {
    char *trainer = string_format("%s/trainer", folder);
    int bad = trainer ? file_make_dirs(trainer, err) : error_set(err, "%s: out of memory", folder);
    free(trainer);
    return bad;
}

// Rank 0, before anybody writes.
static int prepare(const CheckpointJob *job, const char *run, const char *temporary, Error *err) {
    TRY(file_make_dirs(run, err));
    TRY(file_remove_tree(temporary, err));
    TRY(check_disk(job, run, err));
    return make_folders(temporary, err);
}

// This rank's files. sums (RANK0_FILES + 1): rank 0's own, then the optimizer's.
static int write_files(const CheckpointJob *job, const TrainState *state, const char *folder, FileSum *sums,
                       Error *err) {
    const Dist *d = job->dist;
    Backend *b = job->backend;
    if (d->rank == 0) {
        TRY(weights_save(b, job->optimizer->weights, job->params, job->config, folder, sums, err));
        TRY(travel_write(job->travel, folder, err));
        TRY(trainer_write_state(state, d->ranks, b->dtype, folder, sums + 2, err));
    }
    return trainer_write_optimizer(job->optimizer, d->rank, d->ranks, folder, &sums[RANK0_FILES], err);
}

// Gives a finished folder its name. What had that name before is gone afterwards, and never before.
static int give_name(const char *temporary, const char *final, const char *run, Error *err) {
    if (file_exists(final) && !has_marker(final)) TRY(file_remove_tree(final, err));
    if (!file_exists(final)) {
        if (rename(temporary, final) != 0) return error_set(err, "%s: cannot rename: %s", temporary, strerror(errno));
    } else if (renameat2(AT_FDCWD, temporary, AT_FDCWD, final, RENAME_EXCHANGE) != 0) {
        // a file system without exchange: two steps, with the old one kept beside
        char *old = string_format("%s.old", final);
        int bad = old ? file_remove_tree(old, err) : error_set(err, "%s: out of memory", final);
        if (!bad && (rename(final, old) != 0 || rename(temporary, final) != 0))
            bad = error_set(err, "%s: cannot rename: %s", temporary, strerror(errno));
        free(old);
        if (bad) return -1;
    }
    return file_sync_dir(run, err);
}

// Rank 0, when every rank's files are durable. all (ranks): the optimizer files.
static int finish(const FileSum *mine, const FileSum *all, int ranks, const char *temporary, const char *final,
                  const char *run, Error *err) {
    FileSum *sums = calloc((size_t)(RANK0_FILES + ranks), sizeof *sums);
    if (!sums) return error_set(err, "%s: out of memory", temporary);
    memcpy(sums, mine, RANK0_FILES * sizeof *sums);
    memcpy(sums + RANK0_FILES, all, (size_t)ranks * sizeof *sums);
    int bad = write_marker(sums, RANK0_FILES + ranks, temporary, err);
    free(sums);
    if (!bad) bad = file_sync_dir(temporary, err);
    return bad ? bad : give_name(temporary, final, run, err);
}

// The marker goes first: a folder that is half removed must not look whole.
static int remove_checkpoint(const char *folder, Error *err) {
    char *marker = string_format("%s/COMPLETE", folder);
    if (!marker) return error_set(err, "%s: out of memory", folder);
    int bad =
        unlink(marker) != 0 && errno != ENOENT ? error_set(err, "%s: cannot remove: %s", marker, strerror(errno)) : 0;
    if (!bad) bad = file_sync_dir(folder, err);
    free(marker);
    return bad ? bad : file_remove_tree(folder, err);
}

// Removes what the checkpoint of `step`, just saved, makes superfluous.
static int prune(const char *run, int64_t step, const char *final, int keep, Error *err) {
    StepFolder *folders;
    int n, bad = 0, kept = 1;
    TRY(list_folders(&folders, &n, run, err));
    for (int i = 0; i < n && !bad; i++) {
        const StepFolder *f = &folders[i];
        if (f->step > step || strcmp(f->path, final) == 0) continue;
        if (f->complete && (keep <= 0 || kept++ < keep)) continue;
        bad = remove_checkpoint(f->path, err);
    }
    free_folders(folders, n);
    return bad ? error_prefix(err, "%s is saved, but an older one could not be removed", final) : 0;
}

static int save_as(const CheckpointJob *job, const TrainState *state, const char *run, const char *temporary,
                   const char *final, FileSum *all, int keep, Error *err) {
    const Dist *d = job->dist;
    FileSum sums[RANK0_FILES + 1];
    memset(sums, 0, sizeof sums);
    TRY(dist_agree(d, d->rank == 0 ? prepare(job, run, temporary, err) : 0, err));
    int bad = d->rank == 0 ? 0 : make_folders(temporary, err); // where the disk is not shared
    if (!bad) bad = write_files(job, state, temporary, sums, err);
    bad = dist_agree(d, bad, err);
    if (!bad) {
        dist_all_gather(d, all, &sums[RANK0_FILES], sizeof *all);
        bad = dist_agree(d, d->rank == 0 ? finish(sums, all, d->ranks, temporary, final, run, err) : 0, err);
    }
    if (bad) {
        if (d->rank == 0) (void)file_remove_tree(temporary, NULL);
        dist_barrier(d);
        return -1;
    }
    return dist_agree(d, d->rank == 0 ? prune(run, state->step, final, keep, err) : 0, err);
}

int checkpoint_save(const CheckpointJob *job, const TrainState *state, const char *run, int keep, Error *err) {
    Error own;
    if (!err) err = &own;
    job->backend->synchronize(job->backend); // parameters may still be on their way from other ranks
    char *final = string_format("%s/step_%08lld", run, (long long)state->step);
    char *temporary = string_format("%s/step_%08lld.tmp", run, (long long)state->step);
    FileSum *all = calloc((size_t)job->dist->ranks, sizeof *all);
    int bad = final && temporary && all ? 0 : error_set(err, "%s: out of memory", run);
    bad = dist_agree(job->dist, bad, err);
    if (!bad) bad = save_as(job, state, run, temporary, final, all, keep, err);
    free(all);
    free(temporary);
    free(final);
    return bad;
}

// ---- loading -------------------------------------------------------------------------------------------------------

static int check_complete(const char *folder, Error *err) {
    if (has_marker(folder)) return 0;
    return error_set(
        err, "%s: not a complete checkpoint of a run: COMPLETE is not there (hint: -m takes a model's weights alone)",
        folder);
}

int checkpoint_verify(int *files, const char *folder, Error *err) {
    TRY(check_complete(folder, err));
    return check_marker(files, folder, 0, 1, err);
}

int checkpoint_read_state(TrainState *state, const char *folder, Error *err) {
    int ranks = 0;
    *state = (TrainState){0};
    TRY(check_complete(folder, err));
    return trainer_read_state(state, &ranks, folder, err);
}

int checkpoint_load(const CheckpointJob *job, const char *folder, Error *err) {
    const Dist *d = job->dist;
    Optimizer *o = job->optimizer;
    TRY(check_complete(folder, err));
    TrainState state;
    int ranks = 0, files = 0;
    TRY(check_marker(&files, folder, d->rank, d->ranks, err));
    TRY(trainer_read_state(&state, &ranks, folder, err));
    train_state_free(&state);
    TRY(checkpoint_load_weights(job->backend, o->weights, job->params, job->config, folder, err));
    return trainer_read_optimizer(o, ranks, folder, err);
}
