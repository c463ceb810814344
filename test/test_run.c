// test_run.c: the folder of a run: which checkpoint is the newest, what stops a run, what is set aside and what is
// removed; and that nothing else is.
#include "test/check.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/base/file.h"
#include "llmc/base/json.h"
#include "llmc/train/run_writer.h"

static char folder[] = "build/test_run_XXXXXX";
static const char ours[] = "00000000000000aa", others[] = "00000000000000bb";

static void put(const char *path, const char *text) {
    FILE *f = fopen(path, "wb");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0, "cannot write %s", path);
}

static void put_in(const char *run, const char *name, const char *text) {
    char *path = string_format("%s/%s", run, name);
    put(path, text);
    free(path);
}

static int exists(const char *run, const char *name) {
    struct stat st;
    char *path = string_format("%s/%s", run, name);
    int yes = lstat(path, &st) == 0;
    free(path);
    return yes;
}

static int has_text(const char *run, const char *name, const char *text) {
    char *path = string_format("%s/%s", run, name), *data = NULL;
    size_t size;
    int yes = file_read(&data, &size, path, NULL) == 0 && strcmp(data, text) == 0;
    free(data);
    free(path);
    return yes;
}

// A step folder as it lies on the disk; id NULL: without MADE_BY.
static void make_step(const char *run, const char *name, const char *id, int complete) {
    char *path = string_format("%s/%s", run, name), *made_by = string_format("{\"run\":\"%s\"}", id ? id : "");
    Error err = {""};
    CHECK(file_make_dirs(path, &err) == 0, "%s", err.text);
    put_in(path, "weights", name);
    if (id) put_in(path, "MADE_BY", made_by);
    if (complete) put_in(path, "COMPLETE", "{}");
    free(made_by);
    free(path);
}

static void put_info(const char *run, const char *last, int remove_below) {
    char *text = string_format("{\"run\":\"%s\",\"last\":\"%s\",\"remove_below\":%d}", ours, last, remove_below);
    put_in(run, "run.json", text);
    free(text);
}

static char *make_run(const char *name) {
    char *run = string_format("%s/%s", folder, name);
    Error err = {""};
    CHECK(file_make_dirs(run, &err) == 0, "%s", err.text);
    return run;
}

static void expect_newest(const char *run, const char *name) {
    char *newest;
    Error err = {""};
    CHECK(checkpoint_newest(&newest, run, &err) == 0, "%s", err.text);
    const char *found = newest ? strrchr(newest, '/') + 1 : "none";
    CHECK(strcmp(found, name) == 0, "expected %s, found %s", name, found);
    free(newest);
}

static void expect_stop(const char *run, const char *word) {
    char *found;
    Error err = {""};
    int bad = run_resumable(&found, run, &err);
    CHECK(bad && strstr(err.text, word) && strstr(err.text, "hint") && strstr(err.text, "-resume no"),
          "expected \"%s\": %s", word,
          bad     ? err.text
          : found ? found
                  : "starts anew");
    free(found);
}

static void expect_resume(const char *run, const char *name) {
    char *found;
    Error err = {""};
    CHECK(run_resumable(&found, run, &err) == 0, "%s", err.text);
    CHECK(found && strcmp(strrchr(found, '/') + 1, name) == 0, "expected %s, found %s", name, found ? found : "none");
    free(found);
}

static char *begin(const char *run, const char *resumed) {
    Dist dist = dist_alone();
    char *from = resumed ? string_format("%s/%s", run, resumed) : NULL, *notes;
    Error err = {""};
    CHECK(run_begin(&notes, &(int64_t){-1}, &dist, run, from, NULL, &err) == 0, "%s", err.text);
    free(from);
    return notes;
}

// ---- cases ---------------------------------------------------------------------------------------------------------

static void test_newest(void) {
    check_begin("newest: without run.json the highest complete step; links count, leftovers and strangers do not");
    char *run = make_run("newest");
    expect_newest(run, "none");
    make_step(run, "step_00000005", NULL, 1);
    make_step(run, "step_00000007", NULL, 0);
    make_step(run, "step_00000009.tmp", NULL, 1);
    make_step(run, "step_by_step", NULL, 1);
    expect_newest(run, "step_00000005");
    char *link = string_format("%s/step_00000008", run);
    make_step(folder, "elsewhere", NULL, 1);
    CHECK(symlink("../elsewhere", link) == 0, "symlink");
    expect_newest(run, "step_00000008");

    check_begin("newest: what run.json calls the last; where it is not there the highest of this run's, then of all");
    make_step(run, "step_00000004", ours, 1);
    make_step(run, "step_00000003", ours, 1);
    put_info(run, "step_00000005", 0);
    expect_newest(run, "step_00000005");
    put_info(run, "step_00000010", 0);
    expect_newest(run, "step_00000004");
    put_info(run, "", 0);
    expect_newest(run, "step_00000004");
    put_in(run, "run.json", "{\"run\":\"../../etc\",\"last\":\"\",\"remove_below\":0}");
    char *none;
    Error err = {""};
    CHECK(checkpoint_newest(&none, run, &err) != 0 && strstr(err.text, "run.json"), "a strange run.json: %s", err.text);
    free(link);
    free(run);

    check_begin("a run that cannot be listed is an error, not a run without checkpoints");
    char *file = string_format("%s/file", folder);
    put(file, "");
    CHECK(checkpoint_newest(&none, file, &err) != 0 && strstr(err.text, "cannot list"), "%s", err.text);
    CHECK(run_resumable(&none, file, &err) != 0 && strstr(err.text, "cannot list"), "%s", err.text);
    free(file);
}

static void test_stops(void) {
    check_begin("what looks like a newer checkpoint and cannot be used stops the run; older ones do not");
    char *run = make_run("stops"), *link = string_format("%s/step_00000020", run),
         *broken = string_format("%s/step_00000010", run);
    make_step(run, "step_00000010", NULL, 0);
    expect_stop(run, "COMPLETE is not there");
    make_step(run, "step_00000012", NULL, 1);
    expect_resume(run, "step_00000012");
    CHECK(symlink("nowhere", link) == 0, "symlink");
    expect_stop(run, "leads nowhere");
    CHECK(unlink(link) == 0, "unlink");
    put_info(run, "step_00000012", 0);
    expect_resume(run, "step_00000012");
    make_step(run, "step_00000020", others, 1);
    expect_stop(run, "another run made it");
    free(broken);
    free(link);
    free(run);
}

static void test_anew(void) {
    check_begin("starting anew: what was there is set aside and named, to the byte; nothing else moves");
    char *run = make_run("anew");
    make_step(run, "step_00000004", ours, 1);
    make_step(run, "step_00000008", NULL, 1);
    make_step(run, "step_00000009.tmp", others, 0);
    make_step(run, "step_00000012.tmp", ours, 0); // our own leftover
    make_step(run, "step_by_step", NULL, 0);
    put_info(run, "step_00000004", 0);
    put_in(run, "log.jsonl", "{\"step\":1}\n");
    put_in(run, "notes.txt", "mine");
    put_in(run, "stop", "");
    char *notes = begin(run, NULL);
    CHECK(notes && strstr(notes, "old_1") && strstr(notes, "log.jsonl") && strstr(notes, "step_00000008") &&
              strstr(notes, "stop: was there"),
          "said: %s", notes);
    free(notes);
    expect_newest(run, "none");
    CHECK(has_text(run, "old_1/log.jsonl", "{\"step\":1}\n") && !exists(run, "log.jsonl"), "the log");
    CHECK(has_text(run, "old_1/step_00000004/weights", "step_00000004") && exists(run, "old_1/step_00000008/COMPLETE"),
          "the checkpoints");
    CHECK(exists(run, "old_1/step_00000009.tmp/weights") && !exists(run, "step_00000012.tmp"), "leftovers");
    CHECK(has_text(run, "notes.txt", "mine") && exists(run, "step_by_step/weights") && !exists(run, "stop"), "others");
    RunInfo info;
    Error err = {""};
    CHECK(run_read(&info, run, &err) == 0 && info.id[0] && strcmp(info.id, ours) != 0, "another run: %s", info.id);
    notes = begin(run, NULL); // nothing there any more
    CHECK(notes && !notes[0] && !exists(run, "old_2"), "said: %s", notes);
    free(notes);
    put_in(run, "log.jsonl", "{\"step\":2}\n"); // a run that died before its first checkpoint
    notes = begin(run, NULL);
    CHECK(has_text(run, "old_2/log.jsonl", "{\"step\":2}\n"), "the second: %s", notes);
    free(notes);
    free(run);
}

static void test_earlier(void) {
    check_begin("going on from an earlier step: later ones are set aside, with the log that tells of them");
    char *run = make_run("earlier");
    static const char *const names[] = {"step_00000003", "step_00000005", "step_00000010"};
    for (int i = 0; i < 3; i++) make_step(run, names[i], ours, 1);
    make_step(run, "step_00000007", NULL, 0);
    put_info(run, "step_00000010", 3);
    put_in(run, "log.jsonl", "{\"step\":10}\n");
    expect_newest(run, "step_00000010");
    char *notes = begin(run, "../earlier/step_00000005"); // by another name
    CHECK(strstr(notes, "step_00000010") && strstr(notes, "step_00000007"), "said: %s", notes);
    free(notes);
    expect_newest(run, "step_00000005");
    expect_resume(run, "step_00000005");
    CHECK(exists(run, "old_1/step_00000010/weights") && exists(run, "old_1/step_00000007/weights"), "the later ones");
    CHECK(has_text(run, "old_1/log.jsonl", "{\"step\":10}\n") && exists(run, "log.jsonl"), "the log");
    CHECK(exists(run, "step_00000003"), "an earlier one is gone");

    check_begin("killed before the later ones were moved: they are not taken");
    make_step(run, "step_00000010", ours, 1);
    expect_newest(run, "step_00000005");
    expect_resume(run, "step_00000005");
    free(begin(run, "step_00000005"));
    CHECK(exists(run, "old_2/step_00000010/weights") && !exists(run, "step_00000010"), "moved the second time");

    check_begin("going on from a checkpoint of another folder: this one begins anew");
    make_step(folder, "step_00000002", others, 1);
    free(begin(run, "../step_00000002"));
    CHECK(exists(run, "old_3/step_00000005") && exists(run, "old_3/step_00000003") && exists(run, "old_3/log.jsonl"),
          "set aside");
    expect_newest(run, "none");
    free(run);
}

static void test_removal(void) {
    check_begin("only what this run made and marked is removed");
    char *run = make_run("removal");
    Error err = {""};
    RunInfo info;
    make_step(run, "step_00000001", ours, 1);
    make_step(run, "step_00000002", others, 1);
    make_step(run, "step_00000003", NULL, 0);
    make_step(run, "step_00000004.tmp", NULL, 0);
    make_step(run, "step_00000005.tmp", ours, 0);
    make_step(run, "step_00000006.old", ours, 0);
    make_step(run, "step_00000008", ours, 1);
    make_step(folder, "kept", ours, 1);
    char *link = string_format("%s/step_00000007", run);
    CHECK(symlink("../kept", link) == 0, "symlink");
    put_info(run, "step_00000008", 8);
    CHECK(run_read(&info, run, &err) == 0 && run_prune(run, &info, &err) == 0, "%s", err.text);
    CHECK(!exists(run, "step_00000001") && !exists(run, "step_00000005.tmp") && !exists(run, "step_00000006.old"),
          "something is left");
    CHECK(exists(run, "step_00000002/weights") && exists(run, "step_00000003/weights") &&
              exists(run, "step_00000004.tmp/weights") && exists(run, "step_00000007/weights") &&
              exists(run, "step_00000008/weights"),
          "something else is gone");

    check_begin("killed between name and removal: the next start removes it, if the last one has its name");
    make_step(run, "step_00000001", ours, 1);
    free(begin(run, "step_00000008"));
    CHECK(!exists(run, "step_00000001"), "step 1 is left");
    make_step(run, "step_00000001", ours, 1);
    put_info(run, "step_00000010", 10); // named, but died before it was there
    free(begin(run, "step_00000008"));
    CHECK(exists(run, "step_00000008") && exists(run, "step_00000001"), "the only one was removed");

    check_begin("what somebody reads is left, and can be set aside by nobody, until he lets go");
    char *held, *eight = string_format("%s/step_00000008", run);
    int hold;
    put_info(run, "step_00000008", 9);
    CHECK(checkpoint_hold(&held, &hold, run, &err) == 0 && hold > 0 && strcmp(held, eight) == 0, "%s", err.text);
    CHECK(run_read(&info, run, &err) == 0 && run_prune(run, &info, &err) == 0, "%s", err.text);
    CHECK(exists(run, "step_00000008/weights"), "removed under a reader");
    Dist dist = dist_alone();
    char *notes;
    CHECK(run_begin(&notes, &(int64_t){-1}, &dist, run, NULL, NULL, &err) != 0 && strstr(err.text, "is being read"),
          "%s", err.text);
    checkpoint_release(&hold);
    CHECK(run_read(&info, run, &err) == 0, "%s", err.text);
    CHECK(run_prune(run, &info, &err) == 0 && !exists(run, "step_00000008"), "left after the reader: %s", err.text);
    free(held);
    free(eight);
    free(link);
    free(run);
}

static int leads_to(const char *run, const char *step) {
    char *path = string_format("%s/best", run), *target = run_best_target(path);
    int yes = target && strcmp(target, step) == 0;
    free(target);
    free(path);
    return yes;
}

// Begins at a step of a run whose state says that `best` was its best; what is left of it.
static int64_t begin_with_best(const char *run, const char *resumed, int64_t best) {
    Dist dist = dist_alone();
    char *from = resumed ? string_format("%s/%s", run, resumed) : NULL, *notes;
    Error err = {""};
    CHECK(run_begin(&notes, &best, &dist, run, from, NULL, &err) == 0, "%s", err.text);
    free(notes);
    free(from);
    return best;
}

static void test_best(void) {
    check_begin("the best checkpoint of a run that goes on: kept, that of the state, or forgotten when it is gone");
    char *run = make_run("best"), *link = string_format("%s/best", run);
    static const char info[] =
        "{\"run\":\"00000000000000aa\",\"last\":\"step_00000008\",\"remove_below\":8,\"best\":\"%s\"}";
    Error err = {""};
    char *text = string_format(info, "step_00000004");
    make_step(run, "step_00000002", ours, 1);
    make_step(run, "step_00000004", ours, 1);
    make_step(run, "step_00000008", ours, 1);
    put_in(run, "run.json", text);
    put_in(run, "best.tmp", "mine");
    CHECK(begin_with_best(run, "step_00000008", -1) == 4 && exists(run, "step_00000004") &&
              leads_to(run, "step_00000004") && !exists(run, "step_00000002"),
          "kept as run.json says");
    CHECK(exists(run, "best.tmp"), "a file of the user's is gone");
    free(text);
    text = string_format(info, "step_00000009"); // killed while it was being saved
    put_in(run, "run.json", text);
    CHECK(begin_with_best(run, "step_00000008", 4) == 4 && exists(run, "step_00000004") &&
              leads_to(run, "step_00000004"),
          "the state's");
    CHECK(begin_with_best(run, "step_00000008", 3) == 0 && !exists(run, "best"), "one that is gone");
    make_step(run, "step_00000004", others, 1);
    CHECK(begin_with_best(run, "step_00000008", 4) == 0, "another run's");
    make_step(run, "step_00000008", ours, 1);
    CHECK(begin_with_best(run, "step_00000008", 8) == 8 && leads_to(run, "step_00000008"), "the newest");
    CHECK(begin_with_best(run, NULL, -1) == 0 && !exists(run, "best") && exists(run, "old_1/best"),
          "a new run has none");

    check_begin("RUN/best of somebody else stops -keep_best and is not touched");
    CHECK(run_check_best(run, &err) == 0, "%s", err.text);
    put_in(run, "best", "mine");
    CHECK(run_check_best(run, &err) != 0 && strstr(err.text, "best: expected nothing") && strstr(err.text, "hint"),
          "%s", err.text);
    free(begin(run, NULL));
    CHECK(has_text(run, "best", "mine"), "it is gone");
    CHECK(unlink(link) == 0 && symlink("elsewhere", link) == 0 && run_check_best(run, &err) != 0, "a link elsewhere");
    free(text);
    free(link);
    free(run);
}

static void expect_origin(const char *run, const char *started, const char *command, const char *build) {
    char *path = string_format("%s/run.json", run), host[64];
    cJSON *json = NULL;
    Error err = {""};
    CHECK(json_read(&json, path, 1 << 16, &err) == 0, "%s", err.text);
    const char *const keys[] = {"host", "command", "build", "started", "last"};
    const char *found[5] = {"", "", "", "", ""};
    for (int i = 0; i < 5; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, keys[i]);
        CHECK(cJSON_IsString(item), "%s is not there", keys[i]);
        if (item) found[i] = item->valuestring;
    }
    run_host(host);
    CHECK(strcmp(found[0], host) == 0 && strcmp(found[1], command) == 0 && strcmp(found[2], build) == 0, "%s, %s, %s",
          found[0], found[1], found[2]);
    CHECK(started ? strcmp(found[3], started) == 0 : strlen(found[3]) == 20 && found[3][19] == 'Z', "%s", found[3]);
    cJSON_Delete(json);
    free(path);
}

static void start(const char *run, const char *resumed, int argc, char **argv, const char *build) {
    Dist dist = dist_alone();
    RunOrigin origin = {.argc = argc, .argv = argv, .build = build};
    char *notes, *from = resumed ? string_format("%s/%s", run, resumed) : NULL;
    Error err = {""};
    CHECK(run_begin(&notes, &(int64_t){-1}, &dist, run, from, &origin, &err) == 0, "%s", err.text);
    free(notes);
    free(from);
}

static void test_origin(void) {
    check_begin("run.json: host, command, build of the last start; when the run began, also after it was resumed");
    char *run = make_run("origin"), *first[] = {"./train_c3", "-data", "d/*.bin", "-o", "it's"};
    Error err = {""};
    RunInfo info;
    start(run, NULL, 5, first, "v1");
    expect_origin(run, NULL, "./train_c3 -data 'd/*.bin' -o 'it'\\''s'", "v1");
    CHECK(run_read(&info, run, &err) == 0 && run_will_save(&info, run, 5, 1, -1, &err) == 0, "%s", err.text);
    expect_origin(run, NULL, "./train_c3 -data 'd/*.bin' -o 'it'\\''s'", "v1");
    char *text = string_format("{\"run\":\"%s\",\"last\":\"step_00000005\",\"remove_below\":0,\"command\":\"x\","
                               "\"started\":\"2026-01-02T03:04:05Z\"}",
                               info.id);
    put_in(run, "run.json", text);
    make_step(run, "step_00000005", info.id, 1);
    start(run, "step_00000005", 1, first, "v2");
    expect_origin(run, "2026-01-02T03:04:05Z", "./train_c3", "v2");

    check_begin("run.json stays small and valid whatever the command line was");
    char *huge = alloc_zeroed(200001, 1, "word"), *broken[] = {"./train_c3", huge};
    memset(huge, 0xff, 200000);
    start(run, NULL, 2, broken, "v3");
    CHECK(run_read(&info, run, &err) == 0 && info.id[0], "%s", err.text);
    free(huge);
    free(text);
    free(run);
}

static void test_claim(void) {
    check_begin("one writer: the second is refused with the holder's name; a killed one leaves nothing");
    char *run = string_format("%s/claimed", folder);
    Error err = {""};
    RunClaim claim;
    int ready[2];
    char byte;
    CHECK(pipe(ready) == 0, "pipe");
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        if (run_claim(&claim, run, &err) != 0 || write(ready[1], "x", 1) != 1) _exit(1);
        pause();
        _exit(0);
    }
    CHECK(read(ready[0], &byte, 1) == 1, "the child cannot claim");
    char *process = string_format("process %d", (int)child);
    CHECK(run_claim(&claim, run, &err) != 0 && strstr(err.text, process) && strstr(err.text, run), "%s", err.text);
    run_unclaim(&claim);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    CHECK(run_claim(&claim, run, &err) == 0, "after kill -9: %s", err.text);
    run_unclaim(&claim);
    CHECK(!exists(run, "lock") && exists(folder, "claimed"), "the folder was there before");
    CHECK(rmdir(run) == 0 && run_claim(&claim, run, &err) == 0, "%s", err.text);
    run_unclaim(&claim);
    CHECK(!exists(folder, "claimed"), "an empty folder is left");
    free(process);
    free(run);
}

int main(void) {
    if (!mkdtemp(folder)) return perror(folder), 2;
    test_newest();
    test_stops();
    test_anew();
    test_earlier();
    test_removal();
    test_best();
    test_origin();
    test_claim();
    file_remove_tree(folder, NULL);
    return check_done();
}
