// test_log.c: what a run says: lines and bar on stdout, log.jsonl as one consistent history.
#include "test/check.h"

#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/base/file.h"
#include "llmc/base/json.h"
#include "llmc/train/log.h"

static char folder[] = "build/test_log_XXXXXX";
static char *path, *said_path;

// ---- catching stdout -----------------------------------------------------------------------------------------------

static int kept_stdout = -1;

static void catch_stdout(int fd) {
    fflush(stdout);
    kept_stdout = dup(STDOUT_FILENO);
    dup2(fd, STDOUT_FILENO);
    close(fd);
}

static void release_stdout(void) {
    fflush(stdout);
    dup2(kept_stdout, STDOUT_FILENO);
    close(kept_stdout);
}

static void catch_in_file(void) { catch_stdout(open(said_path, O_WRONLY | O_CREAT | O_TRUNC, 0600)); }

static char *read_text(const char *name) {
    char *text;
    size_t size;
    Error err = {""};
    if (file_read(&text, &size, name, &err)) printf("%s\n", err.text), exit(2);
    return text;
}

static LogStep step_of(int64_t step) {
    return (LogStep){.step = step,
                     .loss = 3.5 / (double)step,
                     .lr = 1e-5,
                     .grad_norm = 0.25,
                     .pages = 256,
                     .tokens = 1000,
                     .seconds = 0.5,
                     .flops_encoder = 4e8,
                     .flops_decoder = 14e8,
                     .flops_head = 2e8,
                     .sheet_flops = 16e9,
                     .peak_flops = 8e9,
                     .is_gpu = 1,
                     .memory_bytes = 123.4e6};
}

static Log *open_log(int64_t step, int64_t steps) {
    Log *log;
    Error err = {""};
    if (log_open(&log, folder, step, steps, &err)) printf("%s\n", err.text), exit(2);
    return log;
}

// Line i of log.jsonl as JSON; NULL when there is none or it is broken.
static cJSON *line_of_log(int i) {
    char *text = read_text(path), *at = text;
    for (; i > 0 && at; i--) {
        at = strchr(at, '\n');
        at = at ? at + 1 : NULL;
    }
    cJSON *object = NULL;
    char *end = at ? strchr(at, '\n') : NULL;
    if (end) json_parse(&object, at, (size_t)(end - at), "line", NULL);
    free(text);
    return object;
}

static double number(const cJSON *o, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsNumber(item) ? item->valuedouble : -12345;
}

// "time" in UTC, ISO 8601, and not long ago.
static int is_now(const cJSON *o) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(o, "time");
    struct tm utc = {0};
    const char *rest = cJSON_IsString(item) ? strptime(item->valuestring, "%Y-%m-%dT%H:%M:%S", &utc) : NULL;
    int milliseconds = 0, end = 0;
    if (!rest || sscanf(rest, ".%3dZ%n", &milliseconds, &end) != 1 || end != 5 || rest[end]) return 0;
    return llabs((long long)(time(NULL) - timegm(&utc))) < 3600;
}

static void append_text(const char *text) {
    FILE *f = fopen(path, "ab");
    fputs(text, f);
    fclose(f);
}

static int lines_of_log(void) {
    char *text = read_text(path);
    int n = 0;
    for (char *c = text; *c; c++) n += *c == '\n';
    free(text);
    return n;
}

// ---- cases ---------------------------------------------------------------------------------------------------------

static void test_lines(void) {
    check_begin("log.jsonl holds every key of a step, and of a validation");
    catch_in_file();
    Log *log = open_log(0, 40000);
    LogStep s = step_of(12);
    s.loss = 3.14159274101257324; // an fp32 number
    log_step(log, &s);
    log_validation(log, &(LogValidation){.step = 12, .all = {.loss = 2.5, .token_accuracy = 0.75}});
    log_validation(log, &(LogValidation){.step = 13, .all = {NULL, 10.04, 0.04, 0.25, 0.9}, .cut = 23});
    log_note(log, "saved step %d", 12);
    log_close(log);
    release_stdout();
    CHECK(lines_of_log() == 3, "%d lines", lines_of_log());
    cJSON *o = line_of_log(0);
    static const struct {
        const char *key;
        double value;
    } expected[] = {{"step", 12},         {"lr", 1e-5},        {"grad_norm", 0.25},     {"pages", 256},
                    {"tokens", 1000},     {"ms", 500},         {"mfu", 0.25},           {"tokens_per_second", 2000},
                    {"memory_mb", 123.4}, {"peak_share", 0.5}, {"tflop_encoder", 4e-4}, {"tflop_decoder", 14e-4},
                    {"tflop_head", 2e-4}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        CHECK(fabs(number(o, expected[i].key) - expected[i].value) < 1e-9, "%s is %g", expected[i].key,
              number(o, expected[i].key));
    CHECK((float)number(o, "loss") == 3.14159274101257324f, "the loss lost digits: %.17g", number(o, "loss"));
    CHECK(cJSON_GetArraySize(o) == 15, "%d keys", cJSON_GetArraySize(o));
    CHECK(is_now(o), "time of a step");
    cJSON_Delete(o);
    o = line_of_log(1);
    CHECK(is_now(o), "time of a validation");
    CHECK(number(o, "step") == 12 && number(o, "val_loss") == 2.5 && number(o, "val_token_accuracy") == 0.75,
          "validation");
    CHECK(cJSON_GetArraySize(o) == 4, "of whole pages: %d keys", cJSON_GetArraySize(o));
    cJSON_Delete(o);
    o = line_of_log(2);
    CHECK(number(o, "val_loss") == 10.04 && number(o, "val_cut") == 23 && number(o, "val_cut_loss") == 0.25 &&
              number(o, "val_cut_token_accuracy") == 0.9,
          "validation while training pages are cut");
    cJSON_Delete(o);
    char *text = read_text(path);
    CHECK(strstr(text, "\"lr\":1.000000e-05,"), "lr: %s", text);
    free(text);

    check_begin("stdout has a plain line a step with everything on it");
    text = read_text(said_path);
    static const char *const words[] = {"step    12/40000 ",
                                        "loss 3.1416",
                                        "lr 1.00e-05",
                                        "norm 0.250",
                                        "500 ms",
                                        "2000 tok/s",
                                        "MFU 25.0 %, 50.0 % of peak",
                                        "123 MB",
                                        "40000 | 5 h 33 min left | loss"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        CHECK(strstr(text, words[i]), "no '%s': %s", words[i], text);
    CHECK(strstr(text, "saved step 12\n"), "note");
    CHECK(strstr(text, "validation at step 12: loss 2.5000, 75.00 % of the tokens right\n"), "validation: %s", text);
    CHECK(strstr(text, "loss 10.0400, 4.00 % of the tokens right; cut to 23 tokens, as training pages still are: loss "
                       "0.2500, 90.00 %\n"),
          "of cut pages: %s", text);
    CHECK(!strchr(text, '\r') && !strchr(text, '\x1b'), "control characters outside a terminal");
    free(text);
}

static void test_sets(void) {
    check_begin("sets with names and plain text: keys of their own in log.jsonl, a line each for people");
    catch_in_file();
    Log *log = open_log(0, 40);
    LogStep s = step_of(12);
    LogSet trained[] = {{"en", 3, 400}, {"zh-2", 1, 99}};
    s.sets = trained;
    s.n_sets = 2;
    log_step(log, &s);
    LogPages sets[] = {{"en", 2, 0.5, 1, 0.75}, {"zh-2", 4, 0.25, 3, 0.5}};
    log_validation(
        log, &(LogValidation){.step = 12, .all = {NULL, 3, 0.375, 2, 0.625}, .sets = sets, .n_sets = 2, .cut = 9});
    log_validation(log, &(LogValidation){.step = 12, .no_pages = 1, .perplexity = 18.4, .ratio = 2.5, .bound = 2.5});
    log_validation(log, &(LogValidation){.step = 12, .no_pages = 1, .perplexity = 18.4, .ratio = 2.6, .bound = 2.5});
    log_close(log);
    release_stdout();
    cJSON *o[] = {line_of_log(0), line_of_log(1), line_of_log(2), line_of_log(3)};
    CHECK(number(o[0], "data_pages_en") == 3 && number(o[0], "data_tokens_en") == 400 &&
              number(o[0], "data_pages_zh-2") == 1 && number(o[0], "data_tokens_zh-2") == 99,
          "a step");
    CHECK(number(o[1], "val_loss") == 3 && number(o[1], "val_loss_en") == 2 && number(o[1], "val_loss_zh-2") == 4 &&
              number(o[1], "val_token_accuracy_en") == 0.5 && number(o[1], "val_cut") == 9 &&
              number(o[1], "val_cut_loss_zh-2") == 3 && number(o[1], "val_cut_token_accuracy_zh-2") == 0.5 &&
              cJSON_GetArraySize(o[1]) == 15,
          "a validation, %d keys", cJSON_GetArraySize(o[1]));
    CHECK(number(o[2], "val_lm_perplexity") == 18.4 && number(o[2], "val_lm_ratio") == 2.5 &&
              number(o[2], "val_lm_alarm") == 0 && cJSON_GetArraySize(o[2]) == 5,
          "plain text");
    CHECK(number(o[3], "val_lm_alarm") == 1, "at the bound there is no alarm, above it there is");
    for (int i = 0; i < 4; i++) cJSON_Delete(o[i]);
    char *text = read_text(said_path), *warning = strstr(text, "warning: the decoder forgets");
    CHECK(strstr(text, "validation at step 12: loss 3.0000, 37.50 % of the tokens right; cut to 9 tokens") &&
              strstr(text, "loss 2.0000, 62.50 % (mean of the sets)\n") &&
              strstr(text, "  zh-2           loss 4.0000, 25.00 % of the tokens right; cut to 9"),
          "%s", text);
    CHECK(strstr(text, "perplexity of the decoder alone 18.4, 2.500 times that at the start") && warning &&
              !strstr(warning + 1, "warning: "),
          "%s", text);
    free(text);
}

static void test_fewer_latents(void) {
    check_begin("validation from fewer latents: keys of their own, a line each");
    catch_in_file();
    Log *log = open_log(0, 40);
    log_validation(log, &(LogValidation){.step = 12,
                                         .all = {NULL, 1, 0.5, 0, 0},
                                         .fewer = {{NULL, 3, 0.25, 0, 0}, {NULL, 2, 0.375, 0, 0}},
                                         .latents = {8, 16},
                                         .n_fewer = 2});
    log_close(log);
    release_stdout();
    cJSON *o = line_of_log(0);
    CHECK(number(o, "val_loss") == 1 && number(o, "val_n8_loss") == 3 && number(o, "val_n8_token_accuracy") == 0.25 &&
              number(o, "val_n16_loss") == 2 && cJSON_GetArraySize(o) == 8,
          "%d keys", cJSON_GetArraySize(o));
    cJSON_Delete(o);
    char *text = read_text(said_path);
    CHECK(strstr(text, "loss 1.0000, 50.00 % of the tokens right\n      8 latents  loss 3.0000, 25.00 %") &&
              strstr(text, "\n     16 latents  loss 2.0000, 37.50 % of the tokens right\n"),
          "%s", text);
    free(text);
}

static void test_not_finite(void) {
    check_begin("NaN, Inf and unknown numbers are null, and the line stays JSON");
    catch_in_file();
    Log *log = open_log(0, 10);
    LogStep s = step_of(1);
    s.loss = NAN;
    s.grad_norm = INFINITY;
    s.lr = -INFINITY;
    s.peak_flops = s.sheet_flops = 0;
    log_step(log, &s);
    s = step_of(2);
    s.seconds = 0;
    s.loss = 1.7e308;
    s.tokens = 1e300;
    log_step(log, &s);
    log_validation(log, &(LogValidation){.step = 2, .all = {.loss = NAN, .token_accuracy = NAN}});
    log_close(log);
    release_stdout();
    for (int i = 0; i < 3; i++) {
        cJSON *o = line_of_log(i);
        CHECK(o, "line %d is no JSON", i);
        static const char *const keys[3][4] = {
            {"loss", "grad_norm", "mfu", "peak_share"}, {"mfu", "tokens_per_second"}, {"val_loss"}};
        for (int k = 0; k < 4 && keys[i][k]; k++)
            CHECK(cJSON_IsNull(cJSON_GetObjectItem(o, keys[i][k])), "line %d: %s is not null", i, keys[i][k]);
        cJSON_Delete(o);
    }
    char *text = read_text(said_path);
    CHECK(!strstr(text, "of peak"), "a share of an unknown peak: %s", text);
    CHECK(strstr(text, "| MFU n/a |"), "an unknown GPU: %s", text);
    free(text);
}

static void test_resume(void) {
    check_begin("a resumed log is one history: later and broken lines go, earlier ones stay to the byte");
    catch_in_file();
    Log *log = open_log(0, 10);
    for (int64_t i = 1; i <= 6; i++) {
        LogStep s = step_of(i);
        log_step(log, &s);
        if (i % 2 == 0) log_validation(log, &(LogValidation){.step = i, .all = {.loss = 1, .token_accuracy = 0.5}});
        append_text("{\"note\":\"belongs to the step before\"}\n"); // by another program
    }
    log_close(log);
    char *before = read_text(path);
    append_text("{\"step\":7,\"lo\n{\"step\":3,\"late\":true}\nrubbish\n{\"step\":4,\"loss\":2");
    log = open_log(4, 10);
    char *after = read_text(path);
    LogStep s = step_of(5);
    log_step(log, &s);
    log_close(log);
    release_stdout();
    char *fifth = strstr(before, "{\"step\":5");
    size_t n = fifth ? (size_t)(fifth - before) : 0;
    CHECK(n > 0 && strncmp(before, after, n) == 0, "earlier lines changed");
    CHECK(strcmp(after + n, "{\"step\":3,\"late\":true}\n") == 0, "left behind step 4: %s", after + n);
    int lines = lines_of_log();
    cJSON *o = line_of_log(lines - 1);
    CHECK(lines == 12 && number(o, "step") == 5, "%d lines, the last of step %g", lines, number(o, "step"));
    cJSON_Delete(o);
    free(before);
    free(after);

    check_begin("one line a step, whatever two writers left: the first is kept");
    FILE *mixed = fopen(path, "wb");
    fputs("{\"step\":1,\"loss\":5}\n{\"step\":1,\"loss\":6}\n{\"step\":1,\"val_loss\":7}\n{\"step\":2,\"loss\":4}\n"
          "{\"step\":1,\"loss\":8}\n{\"step\":2,\"loss\":9}\n{\"step\":3,\"loss\":3}\n",
          mixed);
    fclose(mixed);
    catch_in_file();
    log = open_log(2, 10);
    log_close(log);
    release_stdout();
    char *once = read_text(path);
    CHECK(strcmp(once, "{\"step\":1,\"loss\":5}\n{\"step\":1,\"val_loss\":7}\n{\"step\":2,\"loss\":4}\n") == 0, "%s",
          once);
    free(once);

    check_begin("a new run in the same folder begins a new log");
    catch_in_file();
    log = open_log(0, 10);
    log_close(log);
    release_stdout();
    CHECK(lines_of_log() == 0, "%d lines", lines_of_log());

    check_begin("without a log to resume, or without its folder");
    unlink(path);
    log = open_log(4, 10);
    log_close(log);
    CHECK(lines_of_log() == 0, "%d lines", lines_of_log());
    Error err = {""};
    CHECK(unlink(path) == 0 && mkfifo(path, 0600) == 0, "mkfifo");
    CHECK(log_open(&log, folder, 4, 10, &err) == -1 && strstr(err.text, "not a regular file"), "a pipe: %s", err.text);
    unlink(path);
    CHECK(log_open(&log, "/nonexistent/folder", 0, 1, &err) == -1 && !log && strstr(err.text, "log.jsonl"), "%s",
          err.text);

    check_begin("ranks without a log may call everything");
    log_step(NULL, &s);
    log_validation(NULL, &(LogValidation){.step = 1});
    log_note(NULL, "nothing");
    log_close(NULL);
}

static void test_full_disk(void) {
    check_begin("a disk that fills up costs lines, not the run; no half line is left");
    catch_in_file();
    int kept_stderr = dup(STDERR_FILENO), null = open("/dev/null", O_WRONLY);
    dup2(null, STDERR_FILENO);
    close(null);
    Log *log = open_log(0, 100);
    LogStep s = step_of(1);
    log_step(log, &s);
    log_step(log, &s);
    char *text = read_text(path);
    size_t two = strlen(text);
    struct rlimit old, limit;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    limit = old;
    limit.rlim_cur = two + 20; // the next write gets 20 bytes through
    setrlimit(RLIMIT_FSIZE, &limit);
    log_step(log, &s);
    char *full = read_text(path);
    setrlimit(RLIMIT_FSIZE, &old);
    log_step(log, &s);
    log_close(log);
    dup2(kept_stderr, STDERR_FILENO);
    close(kept_stderr);
    release_stdout();
    CHECK(strcmp(full, text) == 0, "left after a failed write: %s", full + two);
    CHECK(lines_of_log() == 3, "%d lines", lines_of_log());
    for (int i = 0; i < 3; i++) {
        cJSON *o = line_of_log(i);
        CHECK(o, "line %d is no JSON", i);
        cJSON_Delete(o);
    }
    free(text);
    free(full);
}

static void test_terminal(void) {
    check_begin("on a terminal a bar moves in one line that fits; notes, and the steps they belong to, stay");
    enum { COLUMNS = 60 };
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0, "no pseudo-terminal");
    struct winsize window = {.ws_row = 24, .ws_col = COLUMNS};
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    ioctl(slave, TIOCSWINSZ, &window);
    int held = dup(slave); // keeps what was written readable
    catch_stdout(slave);
    Log *log = open_log(0, 4);
    for (int64_t i = 1; i <= 2; i++) {
        LogStep s = step_of(i);
        log_step(log, &s);
    }
    log_note(log, "a note");
    log_note(log, "another");
    LogStep s = step_of(3);
    log_step(log, &s);
    log_close(log);
    release_stdout();
    char text[4096] = "", *end = NULL;
    size_t n = 0;
    CHECK(write(held, "END", 3) == 3, "write");
    struct pollfd wait = {.fd = master, .events = POLLIN};
    while (!end && n < sizeof text - 1 && poll(&wait, 1, 5000) == 1) { // what was written arrives in pieces, later
        ssize_t got = read(master, text + n, sizeof text - 1 - n);
        if (got <= 0) break;
        n += (size_t)got;
        text[n] = 0;
        end = strstr(text, "END");
    }
    CHECK(end, "nothing arrived at the terminal");
    if (end) *end = 0;
    n = strlen(text);
    close(held);
    close(master);
    CHECK(strstr(text, "[=====               ] 1/4 | 2 s left | loss 3.5000"), "first bar: %s", text);
    const char *second = strstr(text, "\r\x1b[K[==========          ] 2/4 | ");
    const char *step = strstr(text, "\r\x1b[Kstep 2/4 | "), *note = strstr(text, "MB\r\na note\r\nanother\r\n");
    CHECK(second && step && note && second < step && step < note, "a bar, its step, the notes: %s", text);
    CHECK(!strstr(text, "step 1/4"), "every step stays: %s", text);
    CHECK(strstr(text, "\r\x1b[Kstep 3/4 | "), "the last step: %s", text);
    CHECK(n > 2 && strcmp(text + n - 2, "\r\n") == 0, "the line is not ended");
    int bars = 0;
    for (char *at = text; (at = strchr(at, '[')); at++) {
        if (at[1] != '=') continue;
        CHECK(strcspn(at, "\r\n") <= COLUMNS - 1, "a bar of %zu columns", strcspn(at, "\r\n"));
        bars++;
    }
    CHECK(bars == 3, "%d bars", bars);
}

int main(void) {
    if (!mkdtemp(folder)) return perror(folder), 2;
    path = string_format("%s/log.jsonl", folder);
    said_path = string_format("%s/stdout", folder);
    test_lines();
    test_sets();
    test_fewer_latents();
    test_not_finite();
    test_resume();
    test_full_disk();
    test_terminal();
    file_remove_tree(folder, NULL);
    free(path);
    free(said_path);
    return check_done();
}
