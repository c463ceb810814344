// test_checkpoint.c: a checkpoint holds what was saved, whoever reads it: another element type, another number of
// ranks, another ZeRO mode; and nothing half-written, damaged, foreign or of another shape is ever taken for one: full
// disk, kill -9 while saving, flipped bits, missing files.
//
//   test_checkpoint                          all of it
//   test_checkpoint save|load RUN fp32|bf16 ZERO STEP   one side, for the runs with several ranks that the test starts
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "llmc/train/trainer_files.h"
#include "test/known_model.h"

static char folder[] = "build/test_checkpoint_XXXXXX";

static TrainState state_at(int64_t step) {
    TrainState s = {.step = step,
                    .tokens_seen = 12345678901.0 + (double)step,
                    .loader = {.seed = 0xfedcba9876543210u, .epoch = 3, .position = 1ull << 60, .dataset = 0xdeadbeef}};
    s.settings = strdup("{\"lr\":1e-05,\"seed\":9223372036854775807}");
    s.losses = malloc((size_t)(step + 1) * sizeof(float));
    for (int64_t i = 0; i < step; i++) s.losses[i] = 10.0f / (float)(i + 1);
    for (int i = 0; i < 32; i++) s.tokenizer[i] = (uint8_t)(i * 9 + step);
    return s;
}

static int save(Rig *r, const char *run, int64_t step, int keep, Error *err) {
    TrainState s = state_at(step);
    CheckpointJob job = job_of(r);
    rig_fill(r, step);
    int bad = checkpoint_save(&job, &s, run, keep, err);
    train_state_free(&s);
    return bad;
}

static int load(Rig *r, const char *path, Error *err) {
    CheckpointJob job = job_of(r);
    rig_spoil(r);
    return checkpoint_load(&job, path, err);
}

// The newest checkpoint of a run, loaded and compared; returns its step, 0 when there is none.
static int64_t check_newest(Rig *r, const char *run) {
    char *newest;
    Error err = {""};
    CHECK(checkpoint_newest(&newest, run, &err) == 0, "%s", err.text);
    if (!newest) return 0;
    TrainState s;
    CHECK(checkpoint_read_state(&s, newest, &err) == 0, "%s", err.text);
    CHECK(load(r, newest, &err) == 0, "%s", err.text);
    size_t bad = differences(r, s.step);
    CHECK(bad == 0, "%s: %zu values differ", newest, bad);
    int64_t step = s.step;
    train_state_free(&s);
    free(newest);
    return step;
}

// ---- round trips ---------------------------------------------------------------------------------------------------

static void test_round_trips(void) {
    check_begin("saved in one element type, loaded in another: weights, m, v, master, bit for bit");
    char *run = in_run(folder, "round");
    Error err = {""};
    for (int from = 0; from < 2; from++) {
        for (int to = 0; to < 2; to++) {
            for (int zero = 0; zero < 2; zero++) {
                Rig r;
                rig_open(&r, small_config(), from ? DTYPE_BF16 : DTYPE_F32, zero);
                CHECK(save(&r, run, 7, 1, &err) == 0, "%s", err.text);
                rig_close(&r);
                rig_open(&r, small_config(), to ? DTYPE_BF16 : DTYPE_F32, 1 - zero);
                CHECK(check_newest(&r, run) == 7, "step");
                rig_close(&r);
            }
        }
    }
    check_begin("the trainer's state comes back: 64-bit numbers, settings, losses");
    char *path = in_run(run, "step_00000007");
    TrainState s, t = state_at(7);
    CHECK(checkpoint_read_state(&s, path, &err) == 0, "%s", err.text);
    CHECK(s.step == 7 && s.tokens_seen == t.tokens_seen && strcmp(s.settings, t.settings) == 0, "%s", s.settings);
    CHECK(s.loader.seed == t.loader.seed && s.loader.epoch == 3 && s.loader.position == t.loader.position &&
              s.loader.dataset == t.loader.dataset,
          "loader state");
    CHECK(memcmp(s.losses, t.losses, 7 * sizeof(float)) == 0 && memcmp(s.tokenizer, t.tokenizer, 32) == 0, "losses");
    train_state_free(&s);
    train_state_free(&t);

    free(path);

    check_begin("the size told beforehand is the size on the disk");
    Rig r;
    rig_open(&r, small_config(), DTYPE_BF16, 1);
    CHECK(save(&r, run, 7, 1, &err) == 0, "%s", err.text);
    static const char *const files[] = {"model.safetensors", "llm1/model.safetensors",
                                        "trainer/optimizer_00000.safetensors"};
    double bytes = 0, told = (double)checkpoint_bytes(&r.params, DTYPE_BF16);
    for (int i = 0; i < 3; i++) {
        char *name = string_format("%s/step_00000007/%s", run, files[i]);
        struct stat st = {0};
        CHECK(stat(name, &st) == 0, "%s", name);
        bytes += (double)st.st_size;
        free(name);
    }
    CHECK(told >= bytes && told < bytes * 1.2 + 65536, "%.0f bytes told, %.0f found", told, bytes);
    rig_close(&r);
    free(run);
}

static int has_word(const char *path, const char *word) {
    char *text = NULL;
    size_t size;
    int yes = file_read(&text, &size, path, NULL) == 0 && strstr(text, word) != NULL;
    free(text);
    return yes;
}

// Saves a step of a run whose lowest loss was at step `best`.
static void save_with_best(Rig *r, const char *run, int64_t step, int64_t best) {
    Error err = {""};
    TrainState s = state_at(step);
    CheckpointJob job = job_of(r);
    job.best = best;
    rig_fill(r, step);
    CHECK(checkpoint_save(&job, &s, run, 1, &err) == 0, "%s", err.text);
    train_state_free(&s);
}

static void test_best(void) {
    check_begin("the best checkpoint stays beside the newest, RUN/best leads to it; until there is a better one");
    char *run = in_run(folder, "best"), *link = in_run(run, "best"), *found = NULL, *two = in_run(run, "step_00000002");
    Error err = {""};
    Rig r;
    rig_open(&r, small_config(), DTYPE_F32, 0);
    save_with_best(&r, run, 1, 0);
    CHECK(!exists(run, "best"), "the best is that of before step 1, and has no checkpoint");
    save_with_best(&r, run, 2, 2);
    for (int64_t step = 3; step <= 5; step++) save_with_best(&r, run, step, 2);
    CHECK(exists(run, "step_00000002") && exists(run, "step_00000005") && !exists(run, "step_00000001") &&
              !exists(run, "step_00000003") && !exists(run, "step_00000004"),
          "other steps are there");
    CHECK(checkpoint_folder(&found, link, &err) == 0 && strcmp(found, two) == 0, "%s %s", found, err.text);
    CHECK(check_newest(&r, run) == 5, "the newest");
    free(found);
    save_with_best(&r, run, 6, 6);
    CHECK(exists(run, "step_00000006") && !exists(run, "step_00000002") && !exists(run, "step_00000005"), "6 is both");
    save_with_best(&r, run, 7, -1);
    CHECK(exists(run, "step_00000006") && exists(run, "step_00000007"), "without -keep_best it stays");
    CHECK(save(&r, run, 8, 1, &err) == 0 && !exists(run, "step_00000007") && !exists(run, "best"), "%s", err.text);

    check_begin("the state of sets, best validation and plain text comes back; a plain run's file is as it was");
    char *plain = in_run(run, "step_00000008/trainer/state.json"), *path = in_run(run, "step_00000009"), *format3;
    CHECK(has_word(plain, "\"format\":\t2,") && !has_word(plain, "sets") && !has_word(plain, "best") &&
              !has_word(plain, "perplexity"),
          "more keys than before");
    TrainState s = state_at(9), t;
    CheckpointJob job = job_of(&r);
    s.n_sets = 2;
    strcpy(s.set_names[0], "en");
    strcpy(s.set_names[1], "zh");
    s.loader.taken[0] = 1ull << 60;
    s.loader.taken[1] = 7;
    s.set_tokens[1] = 12345678901;
    s.best = (BestValidation){.is_known = 1, .loss = 0.1 + 0.2, .step = 3, .since = 5};
    s.plain_start = 18.4 / 7;
    CHECK(checkpoint_save(&job, &s, run, 0, &err) == 0, "%s", err.text);
    format3 = in_run(run, "step_00000009/trainer/state.json");
    CHECK(has_word(format3, "\"format\":\t3,"), "an older program would read it");
    CHECK(checkpoint_read_state(&t, path, &err) == 0, "%s", err.text);
    CHECK(t.format == 3 && t.n_sets == 2 && !strcmp(t.set_names[0], "en") && !strcmp(t.set_names[1], "zh") &&
              memcmp(t.loader.taken, s.loader.taken, sizeof s.loader.taken) == 0 && t.set_tokens[0] == 0 &&
              t.set_tokens[1] == 12345678901,
          "sets");
    CHECK(t.best.is_known && t.best.loss == 0.1 + 0.2 && t.best.step == 3 && t.best.since == 5 &&
              t.plain_start == 18.4 / 7,
          "%.17g, %.17g", t.best.loss, t.plain_start);
    train_state_free(&s);
    train_state_free(&t);
    rig_close(&r);
    char *all[] = {run, link, two, plain, path, format3};
    for (int i = 0; i < 6; i++) free(all[i]);
}

static void test_keep(void) {
    check_begin("keep: older complete ones and leftovers of this run go, newer ones and strangers stay");
    char *run = in_run(folder, "keep");
    Error err = {""};
    Rig r;
    rig_open(&r, small_config(), DTYPE_F32, 0);
    for (int64_t step = 1; step <= 4; step++) CHECK(save(&r, run, step, 0, &err) == 0, "%s", err.text);
    for (int64_t step = 1; step <= 4; step++) {
        char *name = string_format("step_%08lld", (long long)step);
        CHECK(exists(run, name), "keep 0 removed %s", name);
        free(name);
    }
    char *marker = in_run(run, "step_00000004/COMPLETE"), *leftover = in_run(run, "step_00000003.tmp/trainer"),
         *stranger = in_run(run, "step_by_step/guide"), *broken = in_run(run, "step_00000002/COMPLETE"),
         *own = in_run(run, "step_00000002.tmp"), *mark = in_run(own, "MADE_BY"),
         *made_by = in_run(run, "step_00000001/MADE_BY");
    CHECK(file_make_dirs(leftover, &err) == 0 && file_make_dirs(stranger, &err) == 0, "%s", err.text);
    CHECK(file_make_dirs(own, &err) == 0 && file_copy(made_by, mark, &err) == 0, "%s", err.text);
    CHECK(unlink(marker) == 0 && unlink(broken) == 0, "unlink");
    CHECK(check_newest(&r, run) == 3, "the newest complete one is step 3");
    CHECK(save(&r, run, 5, 2, &err) == 0, "%s", err.text);
    CHECK(exists(run, "step_00000005") && exists(run, "step_00000003"), "the newest two are gone");
    CHECK(!exists(run, "step_00000001") && !exists(run, "step_00000002") && !exists(run, "step_00000002.tmp"),
          "old ones stay");
    CHECK(exists(run, "step_00000003.tmp/trainer") && exists(run, "step_by_step/guide"), "strangers");
    CHECK(save(&r, run, 4, 1, &err) == 0 && exists(run, "step_00000005"), "a newer one was removed: %s", err.text);
    CHECK(!exists(run, "step_00000003"), "step 3 stays");

    check_begin("a foreign folder of the step's name is set aside, not replaced");
    char *foreign = in_run(run, "step_00000006/data"), *under = in_run(run, "step_00000006.tmp/data");
    CHECK(file_make_dirs(foreign, &err) == 0 && file_make_dirs(under, &err) == 0, "%s", err.text);
    CHECK(save(&r, run, 6, 0, &err) == 0 && check_newest(&r, run) == 6, "%s", err.text);
    CHECK(exists(run, "old_1/step_00000006.tmp/data") && exists(run, "old_2/step_00000006/data"), "it is gone");
    CHECK(!exists(run, "step_00000006/data"), "mixed with it");
    free(foreign);
    free(under);

    check_begin("the same step again replaces it");
    TrainState s = state_at(5);
    CheckpointJob job = job_of(&r);
    rig_fill(&r, 77);
    CHECK(checkpoint_save(&job, &s, run, 1, &err) == 0, "%s", err.text);
    char *five = in_run(run, "step_00000005");
    CHECK(load(&r, five, &err) == 0 && differences(&r, 77) == 0, "old contents: %s", err.text);
    CHECK(!exists(run, "step_00000005.tmp") && !exists(run, "step_00000005.old"), "leftovers");
    train_state_free(&s);
    free(five);

    check_begin("no run, no checkpoint; a folder that is not complete is refused with a hint");
    char *none = run;
    CHECK(checkpoint_newest(&none, "build/no such run", &err) == 0 && !none, "found one");
    char *five_marker = in_run(run, "step_00000005/COMPLETE"), *path = in_run(run, "step_00000005");
    unlink(five_marker);
    CHECK(checkpoint_read_state(&s, path, &err) != 0 && strstr(err.text, "COMPLETE"), "%s", err.text);
    CHECK(load(&r, path, &err) != 0 && strstr(err.text, "COMPLETE"), "%s", err.text);
    rig_close(&r);
    free(five_marker);
    free(path);
    free(own);
    free(mark);
    free(made_by);
    free(broken);
    free(stranger);
    free(leftover);
    free(marker);
    free(run);
}

// ---- damage --------------------------------------------------------------------------------------------------------

static void test_damage(void) {
    check_begin("every file of a checkpoint: missing, empty, short, foreign, one bit flipped: refused by name");
    char *run = in_run(folder, "damage"), *path = in_run(run, "step_00000002");
    Error err = {""};
    Rig r;
    rig_open(&r, small_config(), DTYPE_BF16, 0);
    CHECK(save(&r, run, 2, 1, &err) == 0, "%s", err.text);
    static const char *const files[] = {
        "model.safetensors",  "llm1/model.safetensors", "trainer/optimizer_00000.safetensors",
        "trainer/state.json", "trainer/settings.json",  "trainer/history.safetensors",
        "COMPLETE",
    };
    for (int f = 0; f < 7; f++) {
        char *name = in_run(path, files[f]), *data = NULL;
        size_t size = 0;
        CHECK(file_read(&data, &size, name, &err) == 0, "%s", err.text);
        for (int way = 0; way < 6; way++) {
            if (way == 0) unlink(name);
            if (way == 1) put(name, "", 0);
            if (way == 2) put(name, data, size - 2);
            if (way == 3) put(name, "{\"files\": 3}", 12);
            if (way >= 4) {
                size_t at = way == 4 ? size / 2 : size - 2;
                data[at] = (char)(data[at] ^ 4);
                put(name, data, size);
                data[at] = (char)(data[at] ^ 4);
            }
            int bad = load(&r, path, &err);
            // a flipped bit in COMPLETE may hit a name or a number, and then it is that file that does not fit
            const char *expected = f == 6 ? run : files[f];
            CHECK(bad != 0 && strstr(err.text, expected), "%s, way %d: %s", files[f], way,
                  bad ? err.text : "was accepted");
            if (way == 2 && f < 6) CHECK(strstr(err.text, "bytes, found"), "a short file: %s", err.text);
            put(name, data, size);
        }
        free(data);
        free(name);
    }
    CHECK(load(&r, path, &err) == 0 && differences(&r, 2) == 0, "restored: %s", err.text);

    check_begin("another model's checkpoint: the tensor, its expected and its found shape are named");
    C3Config other = small_config();
    other.dec.F = 64;
    Rig o;
    rig_open(&o, other, DTYPE_BF16, 0);
    CHECK(load(&o, path, &err) != 0 && strstr(err.text, "gate_proj") && strstr(err.text, "(64, 50)") &&
              strstr(err.text, "(61, 50)"),
          "%s", err.text);
    rig_close(&o);
    other = small_config();
    other.latents = 6;
    rig_open(&o, other, DTYPE_BF16, 0);
    CHECK(load(&o, path, &err) != 0 && strstr(err.text, "model.Q.weight") && strstr(err.text, "(6, 30)"), "%s",
          err.text);
    rig_close(&o);
    other = small_config();
    other.enc.D = 28; // columns alone
    rig_open(&o, other, DTYPE_BF16, 0);
    CHECK(load(&o, path, &err) != 0 && strstr(err.text, "embed_tokens") && strstr(err.text, "(262, 28)") &&
              strstr(err.text, "(262, 30)"),
          "%s", err.text);
    rig_close(&o);
    other = small_config();
    other.dec.L = 3;
    rig_open(&o, other, DTYPE_BF16, 0);
    CHECK(load(&o, path, &err) != 0 && strstr(err.text, "model.layers.2") && strstr(err.text, "missing"), "%s",
          err.text);
    rig_close(&o);
    rig_close(&r);
    free(path);
    free(run);
}

// Optimizer files that are whole as files but not as state: written by hand, read without COMPLETE.
static void expect_pieces_refused(Rig *r, const char *where, const SafeEntry *entries, int n, const char *word) {
    char *path = string_format("%s/trainer/optimizer_00000.safetensors", where);
    SafeWriter *w = NULL;
    Error err = {""};
    CHECK(safetensors_writer_open(&w, path, entries, n, NULL, 0, &err) == 0, "%s", err.text);
    static const float zeros[4096];
    for (int i = 0; i < n; i++) {
        size_t left = (size_t)entries[i].shape[0] * dtype_size(entries[i].dtype);
        for (size_t piece; left > 0; left -= piece) {
            piece = left < sizeof zeros ? left : sizeof zeros;
            CHECK(safetensors_writer_data(w, zeros, piece, &err) == 0, "%s", err.text);
        }
    }
    CHECK(safetensors_writer_commit(w, &err) == 0, "%s", err.text);
    int bad = trainer_read_optimizer(&r->optimizer, 1, where, &err);
    CHECK((bad != 0) == (word != NULL), "%s: %s", word ? word : "a whole state", bad ? err.text : "was accepted");
    CHECK(!bad || !word || strstr(err.text, word), "expected \"%s\": %s", word, err.text);
    free(path);
}

static void test_pieces(void) {
    check_begin("optimizer state with a hole, an overlap, a stranger, a wrong type or name is refused");
    char *where = in_run(folder, "pieces"), *trainer = in_run(where, "trainer");
    Error err = {""};
    CHECK(file_make_dirs(trainer, &err) == 0, "%s", err.text);
    Rig r;
    rig_open(&r, small_config(), DTYPE_F32, 0);
    enum { ROOM = 64 };
    static SafeEntry whole[ROOM];
    static char names[ROOM][32];
    int n = 0;
    for (int k = 0; k < 2; k++) {
        for (int b = 0; b < r.params.table.n_buckets; b++, n++) {
            snprintf(names[n], sizeof names[n], "%s.%d.0", k ? "v" : "m", b);
            whole[n] = (SafeEntry){.name = names[n], .dtype = DTYPE_F32, .dims = 1, .shape = {(int64_t)used(&r, b)}};
        }
    }
    expect_pieces_refused(&r, where, whole, n, NULL);
    const struct {
        const char *name;
        int64_t add;
        DType dtype;
        const char *word;
    } bad[] = {
        {"v.1.0", -1, DTYPE_F32, "bucket 1"},
        {"v.1.1", -1, DTYPE_F32, "bucket 1"},
        {"v.1.0", 1, DTYPE_F32, "bucket 1"},
        {"v.99.0", 0, DTYPE_F32, "bucket 99"},
        {"w.1.0", 0, DTYPE_F32, "w.1.0"},
        {"v.1", 0, DTYPE_F32, "v.1"},
        {"v.1.0x", 0, DTYPE_F32, "v.1.0x"},
        {"v.-1.0", 0, DTYPE_F32, "v.-1.0"},
        {"v.1.0", 0, DTYPE_BF16, "v.1.0"},
        {"v.1.99999999999999999999", 0, DTYPE_F32, "v.1.9"},
        {"m.1.0", 0, DTYPE_F32, "twice"},
        {"master.1.0", 0, DTYPE_F32, "bucket 1"},
        {"v.4294967297.0", 0, DTYPE_F32, "v.4294967297.0"},
    };
    int at = r.params.table.n_buckets + 1; // "v.1.0"
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        SafeEntry changed[ROOM];
        memcpy(changed, whole, sizeof changed);
        int twice = strcmp(bad[i].name, "m.1.0") == 0;
        if (twice) { // a second, empty-handed copy of a piece that is there: an element before its end again
            changed[n] = (SafeEntry){.name = "m.1.5", .dtype = DTYPE_F32, .dims = 1, .shape = {3}};
        } else {
            changed[at].name = bad[i].name;
            changed[at].shape[0] += bad[i].add;
            changed[at].dtype = bad[i].dtype;
        }
        expect_pieces_refused(&r, where, changed, n + twice, twice ? "bucket" : bad[i].word);
    }
    SafeEntry halves[ROOM]; // the same state in two pieces, in any order, is whole
    memcpy(halves, whole, sizeof halves);
    halves[at].name = "v.1.10";
    halves[at].shape[0] -= 10;
    halves[n] = (SafeEntry){.name = "v.1.0", .dtype = DTYPE_F32, .dims = 1, .shape = {10}};
    expect_pieces_refused(&r, where, halves, n + 1, NULL);
    halves[at].name = "v.1.5"; // as many elements, but five twice and five not at all
    expect_pieces_refused(&r, where, halves, n + 1, "bucket 1");
    rig_close(&r);
    free(trainer);
    free(where);
}

// ---- disk and death ------------------------------------------------------------------------------------------------

static void test_full_disk(void) {
    check_begin(
        "a disk that fills up: an error that names the file, the old checkpoint untouched, nothing left behind");
    char *run = in_run(folder, "full");
    Error err = {""};
    Rig r;
    rig_open(&r, small_config(), DTYPE_F32, 0);
    CHECK(save(&r, run, 1, 1, &err) == 0, "%s", err.text);
    struct rlimit old, small;
    CHECK(getrlimit(RLIMIT_FSIZE, &old) == 0, "getrlimit");
    signal(SIGXFSZ, SIG_IGN);
    const rlim_t limits[] = {0, 100, 5000, 100000, 300000};
    for (int i = 0; i < 5; i++) {
        small = (struct rlimit){.rlim_cur = limits[i], .rlim_max = old.rlim_max};
        fflush(stdout);
        CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0, "setrlimit");
        int bad = save(&r, run, 2, 1, &err);
        setrlimit(RLIMIT_FSIZE, &old);
        CHECK(bad != 0 && strstr(err.text, run), "%llu bytes: %s", (unsigned long long)limits[i],
              bad ? err.text : "saved");
        CHECK(!exists(run, "step_00000002") && !exists(run, "step_00000002.tmp"), "something was left behind");
        CHECK(check_newest(&r, run) == 1, "the old checkpoint is gone");
    }
    CHECK(save(&r, run, 2, 1, &err) == 0, "with room again: %s", err.text);

    check_begin("too little room is noticed before anything is written; a run that cannot be made is named");
    C3Params huge = r.params;
    huge.table.parameters = (size_t)1 << 56;
    CheckpointJob job = job_of(&r);
    job.params = &huge;
    TrainState s = state_at(3);
    CHECK(checkpoint_save(&job, &s, run, 1, &err) != 0 && strstr(err.text, "hint"), "%s", err.text);
    CHECK(!exists(run, "step_00000003.tmp") && check_newest(&r, run) == 2, "the old checkpoint");
    char *file = in_run(folder, "a_file"), *below = in_run(file, "run");
    put(file, "x", 1);
    CHECK(save(&r, below, 1, 1, &err) != 0 && strstr(err.text, file), "%s", err.text);
    train_state_free(&s);
    rig_close(&r);
    free(below);
    free(file);
    free(run);
}

// Processor time of a process, so that what else a machine does changes nothing.
static double seconds(pid_t process) {
    clockid_t clock;
    struct timespec t = {0};
    if (clock_getcpuclockid(process, &clock) != 0 || clock_gettime(clock, &t) != 0) return INFINITY; // it has ended
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// What a save takes here.
static double save_seconds(const char *run) {
    Error err = {""};
    Rig r;
    double start = seconds(0);
    rig_open(&r, small_config(), DTYPE_BF16, 0);
    CHECK(save(&r, run, 1, 2, &err) == 0 && save(&r, run, 2, 2, &err) == 0, "%s", err.text);
    rig_close(&r);
    return (seconds(0) - start) / 2;
}

static void test_kill(void) {
    check_begin("kill -9 at 40 random moments of saving: the newest complete checkpoint is whole");
    char *run = in_run(folder, "killed");
    Error err = {""};
    srand(3);
    int64_t last = 2, leftovers = 0;
    double whole = save_seconds(run);
    for (int round = 0; round < 40; round++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            Rig r;
            rig_open(&r, small_config(), DTYPE_BF16, 0);
            for (int64_t step = last + 1;; step++) {
                if (save(&r, run, step, 2, &err) != 0) _exit(3);
            }
        }
        const double moment = whole * 4 * rand() / RAND_MAX;
        int status = 0;
        pid_t ended;
        while ((ended = waitpid(child, &status, WNOHANG)) == 0 && seconds(child) < moment) usleep(200);
        CHECK(ended || kill(child, SIGKILL) == 0, "kill");
        if (!ended) waitpid(child, &status, 0);
        CHECK(WIFSIGNALED(status), "the child ended by itself: %d", WEXITSTATUS(status));
        Rig r;
        rig_open(&r, small_config(), DTYPE_BF16, 0);
        int64_t step = check_newest(&r, run);
        rig_close(&r);
        CHECK(step >= last, "step %lld after step %lld", (long long)step, (long long)last);
        last = step;
        char *half = string_format("step_%08lld.tmp", (long long)step + 1);
        leftovers += exists(run, half);
        free(half);
    }
    printf("  %lld checkpoints, %lld kills hit a half-written one\n", (long long)last, (long long)leftovers);
    CHECK(last > 2 && leftovers > 0, "the kills did not hit what they should");
    free(run);
}

// A reader of the run while it saves and removes: whatever it is given is whole, and stays so while it reads.
static void test_readers(void) {
    check_begin("readers beside a run that saves and removes: always the newest, whole to the end");
    char *run = in_run(folder, "readers");
    Error err = {""};
    Rig r;
    rig_open(&r, small_config(), DTYPE_BF16, 0);
    CHECK(save(&r, run, 1, 1, &err) == 0, "%s", err.text);
    rig_close(&r);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        rig_open(&r, small_config(), DTYPE_BF16, 0);
        for (int64_t step = 2;; step++) {
            if (save(&r, run, step, 1, &err) != 0) printf("  %s\n", err.text), fflush(stdout), _exit(3);
        }
    }
    int64_t moved = 0;
    char *before = NULL;
    int status = 0, running = 1;
    for (int i = 0; moved < 6 && running && !check_case_bad; i++) {
        char *found;
        int hold, files = 0, bad = checkpoint_hold(&found, &hold, run, &err);
        if (!bad) bad = checkpoint_verify(&files, found, &err);
        CHECK(!bad, "round %d: %s", i, err.text);
        moved += before && found && strcmp(before, found) != 0;
        free(before);
        before = found;
        checkpoint_release(&hold);
        running = waitpid(child, &status, WNOHANG) == 0;
    }
    CHECK(running, "the run ended by itself: %d", status);
    if (running) kill(child, SIGKILL), waitpid(child, NULL, 0);
    free(before);
    free(run);
}

// ---- several ranks -------------------------------------------------------------------------------------------------

// Every rank a host of its own, with a disk of its own.
static int save_apart(Rig *r, const char *where, int64_t step, Error *err) {
    char host[16], *run = string_format("%s/disk%d", where, dist.rank);
    snprintf(host, sizeof host, "node%d", dist.rank);
    if (unshare(CLONE_NEWUTS) != 0 || sethostname(host, strlen(host)) != 0) printf("  no right to name a host\n");
    dist.local_rank = 0;
    dist.local_ranks = 1;
    int bad = 0;
    for (int64_t s = 1; s <= step && !bad; s++) bad = save(r, run, s, 1, err);
    char *part = string_format("step_%08lld/trainer/optimizer_%05d.safetensors", (long long)step, dist.rank);
    if (!bad && (!exists(run, part) || exists(run, "step_00000001") || exists(run, "step_00000001.tmp")))
        bad = error_set(err, "%s: the part is not there, or the one before is", run);
    free(part);
    free(run);
    return bad;
}

// One side: saves, or loads and compares. What the program does under mpirun.
static int one_side(char **argv) {
    Error err = {""};
    Rig r;
    rig_open(&r, small_config(), strcmp(argv[3], "fp32") ? DTYPE_BF16 : DTYPE_F32, atoi(argv[4]));
    int64_t step = atoll(argv[5]);
    int bad;
    if (strcmp(argv[1], "save") == 0) {
        bad = save(&r, argv[2], step, 1, &err);
    } else if (strcmp(argv[1], "apart") == 0) {
        bad = save_apart(&r, argv[2], step, &err);
    } else if (strcmp(argv[1], "fail") == 0) { // one rank alone cannot write: all must say so, with its line
        if (dist.rank == dist.ranks - 1) {
            signal(SIGXFSZ, SIG_IGN);
            setrlimit(RLIMIT_FSIZE, &(struct rlimit){.rlim_cur = 1000, .rlim_max = RLIM_INFINITY});
        }
        int failed = save(&r, argv[2], step, 1, &err);
        char name[64];
        snprintf(name, sizeof name, "optimizer_%05d", dist.ranks - 1);
        bad = failed && strstr(err.text, name) && !exists(argv[2], "step_00000003") &&
                      !exists(argv[2], "step_00000003.tmp")
                  ? 0
                  : error_prefix(&err, "expected a failure of the last rank");
    } else {
        char *newest = NULL;
        bad = checkpoint_newest(&newest, argv[2], &err);
        if (!bad) bad = newest ? load(&r, newest, &err) : error_set(&err, "no checkpoint");
        size_t different = bad ? 0 : differences(&r, step);
        if (different) bad = error_set(&err, "%zu values differ", different);
        free(newest);
    }
    if (bad) printf("  rank %d: %s\n", dist.rank, err.text);
    rig_close(&r);
    return bad ? 1 : 0;
}

static int run_ranks(const char *self, int ranks, const char *side, const char *run, const char *dtype, int zero,
                     int step) {
    char *command =
        string_format("%s%d %s %s %s %s %d %d",
                      "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ASAN_OPTIONS=detect_leaks=0 "
                      "mpirun --oversubscribe --bind-to none -np ",
                      ranks, self, side, run, dtype, zero, step);
    fflush(stdout);
    int status = system(command);
    free(command);
    return status;
}

static void test_apart(const char *self) {
    check_begin(
        "hosts with disks of their own: each keeps its part, nothing else; what is missing is named, from where");
    char *where = in_run(folder, "apart"), *first = in_run(where, "disk0/step_00000003"),
         *second = in_run(where, "disk1/step_00000003"), *command;
    CHECK(run_ranks(self, 2, "apart", where, "bf16", 1, 3) == 0, "save");
    Error err = {""};
    Rig r;
    rig_open(&r, small_config(), DTYPE_BF16, 1);
    int named = geteuid() == 0; // may give a host its name
    CHECK(load(&r, first, &err) != 0 && strstr(err.text, "optimizer_00001") &&
              (!named || (strstr(err.text, "rsync -a node1:/") && strstr(err.text, "disk0/step_00000003/"))),
          "%s", err.text);
    CHECK(load(&r, second, &err) != 0 && (!named || strstr(err.text, "rsync -a node0:/")), "%s", err.text);
    command = string_format("cp -r %s/trainer %s/", second, first);
    CHECK(system(command) == 0, "cp");
    CHECK(load(&r, first, &err) == 0 && differences(&r, 3) == 0, "brought together: %s", err.text);
    rig_close(&r);
    free(command);
    free(second);
    free(first);
    free(where);
}

static void test_ranks(const char *self) {
    char *run = in_run(folder, "ranks");
    if (system("mpirun --version >/dev/null 2>&1") != 0) {
        printf("  no mpirun: several ranks are not tested\n");
        free(run);
        return;
    }
    check_begin("three ranks save; three, two and one load: ZeRO 0 and 1, fp32 and bf16");
    CHECK(run_ranks(self, 3, "save", run, "bf16", 1, 1) == 0, "save");
    CHECK(run_ranks(self, 3, "load", run, "bf16", 1, 1) == 0, "3 to 3");
    CHECK(run_ranks(self, 2, "load", run, "fp32", 1, 1) == 0, "3 to 2");
    CHECK(run_ranks(self, 1, "load", run, "bf16", 0, 1) == 0, "3 to 1");
    CHECK(run_ranks(self, 2, "save", run, "fp32", 0, 2) == 0, "save");
    CHECK(run_ranks(self, 3, "load", run, "bf16", 1, 2) == 0, "2 to 3");
    check_begin("one rank cannot write: all say so and nothing changes");
    CHECK(run_ranks(self, 2, "fail", run, "fp32", 1, 3) == 0, "fail");
    CHECK(run_ranks(self, 1, "load", run, "fp32", 0, 2) == 0, "the old one");
    test_apart(self);
    free(run);
}

int main(int argc, char **argv) {
    Error err;
    if (dist_init(&dist, &argc, &argv, &err) != 0) return printf("%s\n", err.text), 2;
    if (argc == 6) {
        int code = one_side(argv);
        dist_finalize(&dist);
        return code;
    }
    if (!mkdtemp(folder)) return perror(folder), 2;
    test_round_trips();
    test_best();
    test_keep();
    test_damage();
    test_pieces();
    test_full_disk();
    test_kill();
    test_readers();
    test_ranks(argv[0]);
    if (file_remove_tree(folder, &err) != 0) printf("%s\n", err.text);
    return check_done();
}
