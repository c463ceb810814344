// checkpoint.c: whole checkpoints, see checkpoint.h. A checkpoint is built in RUN/step_N.tmp; MADE_BY is its first
// file, COMPLETE, with size and CRC-32 of every file that holds numbers, its last; then run.json names it and the
// folder gets its name. Only after that are older ones removed.
#include "llmc/train/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/base/file.h"
#include "llmc/train/run_writer.h"
#include "llmc/train/trainer_files.h"
#include "llmc/weights/weights.h"

enum { MAX_COMPLETE_BYTES = 1 << 24, MAX_MADE_BY_BYTES = 1 << 16, RANK0_FILES = 5, PIECE_BYTES = 1 << 24 };

void train_state_free(TrainState *s) {
    free(s->settings);
    free(s->losses);
    *s = (TrainState){0};
}

void train_state_sets(TrainState *s, const Dataset *d) {
    s->n_sets = d->n_sets;
    for (int i = 0; i < d->n_sets; i++) memcpy(s->set_names[i], d->sets[i].name, DATA_NAME);
}

void train_state_advance(TrainState *s, double loss, double tokens, const SetCount *of_set, LoaderState after) {
    s->losses = alloc_grow(s->losses, (size_t)s->step, &s->room, sizeof *s->losses, "loss history");
    s->losses[s->step++] = (float)loss;
    s->loader = after;
    s->tokens_seen += tokens;
    for (int i = 0; i < s->n_sets; i++) s->set_tokens[i] += of_set[i].tokens;
}

uint64_t checkpoint_bytes(const C3Params *p, DType dtype) {
    uint64_t element = dtype_size(dtype) + 2 * sizeof(float) + (dtype == DTYPE_F32 ? 0 : sizeof(float));
    uint64_t headers =
        (uint64_t)p->table.n * 192 + (uint64_t)p->table.n_buckets * (uint64_t)p->table.ranks * 3 * 96 + 8192;
    return (uint64_t)p->table.parameters * element + headers;
}

static int has_marker(const char *folder) {
    char *path = string_format("%s/COMPLETE", folder);
    int found = file_exists(path);
    free(path);
    return found;
}

// ---- COMPLETE ------------------------------------------------------------------------------------------------------

static int write_marker(const FileSum *sums, int n, const char *folder, Error *err) {
    cJSON *json = cJSON_CreateObject(), *files = cJSON_AddArrayToObject(json, "files");
    for (int i = 0; i < n; i++) {
        cJSON *file = cJSON_CreateObject();
        cJSON_AddItemToArray(files, file);
        cJSON_AddStringToObject(file, "name", sums[i].name);
        cJSON_AddNumberToObject(file, "bytes", (double)sums[i].bytes);
        cJSON_AddNumberToObject(file, "crc32", sums[i].crc);
        if (sums[i].host[0]) cJSON_AddStringToObject(file, "host", sums[i].host);
    }
    return run_write_json(json, folder, "COMPLETE", err);
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

// A part that another host wrote, on a disk of its own.
static int missing_part(const char *path, const char *host, const char *folder, Error *err) {
    char *real = realpath(folder, NULL);
    const char *full = real ? real : folder;
    error_set(
        err,
        "%s: is missing: host %s wrote this part of the checkpoint on a disk of its own (hint: bring all parts into "
        "one folder that all ranks see: rsync -a %s:%s/ %s/)",
        path, host, host, full, full);
    free(real);
    return -1;
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
    const cJSON *host = json_find(entry, "host");
    FileMap map;
    int bad = 0;
    if (cJSON_IsString(host) && !file_exists(path)) bad = missing_part(path, host->valuestring, folder, err);
    if (!bad) bad = file_map(&map, path, err);
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
    int bad = json_read(&json, path, MAX_COMPLETE_BYTES, err);
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
    int bad = file_make_dirs(trainer, err);
    free(trainer);
    return bad;
}

// What all ranks know of the checkpoint being saved.
typedef struct Saving {
    const CheckpointJob *job;
    const TrainState *state;
    const char *run;
    char *temporary, *final; // step_N.tmp, step_N
    RunInfo info;
    uint64_t token; // of this attempt, in MADE_BY
    char host[64];  // of rank 0
    int leads;      // the first rank of a host; its disk may be its own
} Saving;

static int write_made_by(const Saving *s, Error *err) {
    char token[24], host[64];
    cJSON *json = cJSON_CreateObject();
    run_host(host);
    snprintf(token, sizeof token, "%llu", (unsigned long long)s->token);
    cJSON_AddStringToObject(json, "program", "train_c3");
    cJSON_AddStringToObject(json, "run", s->info.id);
    cJSON_AddStringToObject(json, "token", token);
    cJSON_AddStringToObject(json, "host", host);
    cJSON_AddStringToObject(json, "rank0_host", s->host);
    return run_write_json(json, s->temporary, "MADE_BY", err);
}

// Is the folder under construction here the one rank 0 made?
static int is_shared(const Saving *s) {
    char *path = string_format("%s/MADE_BY", s->temporary), token[24];
    cJSON *json = NULL;
    snprintf(token, sizeof token, "%llu", (unsigned long long)s->token);
    int same = 0;
    if (file_exists(path) && json_read(&json, path, MAX_MADE_BY_BYTES, NULL) == 0) {
        const cJSON *found = json_find(json, "token");
        same = cJSON_IsString(found) && strcmp(found->valuestring, token) == 0;
    }
    cJSON_Delete(json);
    free(path);
    return same;
}

// The folder under construction, marked before anything else is in it.
static int make_temporary(const Saving *s, Error *err) {
    TRY(file_make_dirs(s->run, err));
    TRY(run_clear(s->run, s->temporary, &s->info, err));
    if (mkdir(s->temporary, 0777) != 0)
        return error_set(err, "%s: cannot make the folder: %s", s->temporary, strerror(errno));
    if (write_made_by(s, err) == 0 && make_folders(s->temporary, err) == 0) return 0;
    (void)file_remove_tree(s->temporary, NULL);
    return -1;
}

// Rank 0, before anybody writes.
static int prepare(Saving *s, Error *err) {
    TRY(file_make_dirs(s->run, err));
    TRY(run_identity(&s->info, s->run, err));
    if (getrandom(&s->token, sizeof s->token, 0) != sizeof s->token)
        return error_set(err, "%s: cannot get random bytes: %s", s->run, strerror(errno));
    run_host(s->host);
    TRY(check_disk(s->job, s->run, err));
    return make_temporary(s, err);
}

// Then the other hosts, where the disk is not shared.
static int prepare_all(Saving *s, Error *err) {
    const Dist *d = s->job->dist;
    TRY(dist_agree(d, d->rank == 0 ? prepare(s, err) : 0, err));
    dist_broadcast(d, &s->info, sizeof s->info, 0);
    dist_broadcast(d, &s->token, sizeof s->token, 0);
    dist_broadcast(d, s->host, sizeof s->host, 0);
    s->leads = d->rank == 0 || (d->local_rank == 0 && !is_shared(s));
    return dist_agree(d, d->rank != 0 && s->leads ? make_temporary(s, err) : 0, err);
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

// Moves what has the final name out of the way, where it cannot be exchanged.
static int make_way(const Saving *s, Error *err) {
    if (!has_marker(s->final)) return run_clear(s->run, s->final, &s->info, err);
    char *old = string_format("%s.old", s->final);
    int bad = run_clear(s->run, old, &s->info, err);
    if (!bad && rename(s->final, old) != 0) bad = error_set(err, "%s: cannot rename: %s", s->final, strerror(errno));
    free(old);
    return bad;
}

// Gives a finished folder its name. What this run had saved under that name is gone afterwards, and never before.
static int give_name(const Saving *s, Error *err) {
    const char *temporary = s->temporary, *final = s->final;
    if (has_marker(final) && renameat2(AT_FDCWD, temporary, AT_FDCWD, final, RENAME_EXCHANGE) == 0)
        return run_clear(s->run, temporary, &s->info, err) ? -1 : file_sync_dir(s->run, err);
    TRY(make_way(s, err));
    if (rename(temporary, final) != 0 && (s->job->dist->rank == 0 || errno != ENOENT)) // ENOENT: shared after all
        return error_set(err, "%s: cannot rename: %s", temporary, strerror(errno));
    return file_sync_dir(s->run, err);
}

// Rank 0, when every rank's files are durable. all (ranks): the optimizer files.
static int complete(Saving *s, const FileSum *mine, const FileSum *all, int keep, Error *err) {
    int ranks = s->job->dist->ranks;
    FileSum *sums = alloc(RANK0_FILES + (size_t)ranks, sizeof *sums, "sums of files");
    memcpy(sums, mine, RANK0_FILES * sizeof *sums);
    memcpy(sums + RANK0_FILES, all, (size_t)ranks * sizeof *sums);
    for (int r = 0; r < ranks; r++) { // kept for files on other disks only
        char *host = sums[RANK0_FILES + r].host;
        if (strcmp(host, s->host) == 0) host[0] = 0;
    }
    int bad = write_marker(sums, RANK0_FILES + ranks, s->temporary, err);
    free(sums);
    if (!bad) bad = file_sync_dir(s->temporary, err);
    if (!bad) bad = run_will_save(&s->info, s->run, s->state->step, keep, s->job->best, err);
    return bad ? bad : give_name(s, err);
}

// The folder has its name where rank 0 is: the parts on other disks follow, then each disk is rid of older ones.
static int end_save(Saving *s, Error *err) {
    const Dist *d = s->job->dist;
    dist_broadcast(d, &s->info, sizeof s->info, 0);
    if (dist_agree(d, d->rank != 0 && s->leads ? give_name(s, err) : 0, err) != 0)
        return error_prefix(err, "%s is saved, but for a part of it on another host", s->final);
    if (dist_agree(d, d->rank == 0 ? run_link_best(s->run, &s->info, err) : 0, err) != 0)
        return error_prefix(err, "%s is saved, but its link is not made", s->final);
    if (dist_agree(d, s->leads ? run_prune(s->run, &s->info, err) : 0, err) != 0)
        return error_prefix(err, "%s is saved, but an older one could not be removed", s->final);
    return 0;
}

static int save_as(Saving *s, FileSum *all, int keep, Error *err) {
    const Dist *d = s->job->dist;
    FileSum sums[RANK0_FILES + 1];
    memset(sums, 0, sizeof sums);
    TRY(prepare_all(s, err));
    int bad = write_files(s->job, s->state, s->temporary, sums, err);
    bad = dist_agree(d, bad, err);
    if (!bad) {
        run_host(sums[RANK0_FILES].host);
        dist_all_gather(d, all, &sums[RANK0_FILES], sizeof *all);
        bad = dist_agree(d, d->rank == 0 ? complete(s, sums, all, keep, err) : 0, err);
    }
    if (bad) {
        if (s->leads) (void)file_remove_tree(s->temporary, NULL);
        dist_barrier(d);
        return -1;
    }
    return end_save(s, err);
}

int checkpoint_save(const CheckpointJob *job, const TrainState *state, const char *run, int keep, Error *err) {
    Error own;
    if (!err) err = &own;
    job->backend->synchronize(job->backend); // parameters may still be on their way from other ranks
    Saving s = {.job = job,
                .state = state,
                .run = run,
                .final = string_format("%s/step_%08lld", run, (long long)state->step),
                .temporary = string_format("%s/step_%08lld.tmp", run, (long long)state->step)};
    FileSum *all = calloc((size_t)job->dist->ranks, sizeof *all);
    int bad = s.final && s.temporary && all ? 0 : error_set(err, "%s: out of memory", run);
    bad = dist_agree(job->dist, bad, err);
    if (!bad) bad = save_as(&s, all, keep, err);
    free(all);
    free(s.temporary);
    free(s.final);
    return bad;
}

// ---- loading -------------------------------------------------------------------------------------------------------

// The part of a checkpoint that a host with a disk of its own keeps; *host: where rank 0 was.
static int is_part(char host[64], const char *folder) {
    char *path = string_format("%s/MADE_BY", folder);
    cJSON *json = NULL;
    int part = 0;
    if (file_exists(path) && json_read(&json, path, MAX_MADE_BY_BYTES, NULL) == 0) {
        const cJSON *mine = json_find(json, "host"), *first = json_find(json, "rank0_host");
        part = cJSON_IsString(mine) && cJSON_IsString(first) && strcmp(mine->valuestring, first->valuestring) != 0;
        if (part) snprintf(host, 64, "%s", first->valuestring);
    }
    cJSON_Delete(json);
    free(path);
    return part;
}

static int check_complete(const char *folder, Error *err) {
    char host[64];
    if (has_marker(folder)) return 0;
    if (!is_part(host, folder))
        return error_set(
            err,
            "%s: not a complete checkpoint of a run: COMPLETE is not there (hint: -m takes a model's weights alone)",
            folder);
    char *real = realpath(folder, NULL);
    error_set(
        err,
        "%s: holds only the part that this host wrote, COMPLETE and the model are on host %s (hint: bring all parts "
        "into one folder that all ranks see: rsync -a %s:%s/ %s/)",
        folder, host, host, real ? real : folder, folder);
    free(real);
    return -1;
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
