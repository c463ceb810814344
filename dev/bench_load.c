// bench_load.c: how fast a model is read and written, and what memory that takes.
//
//   make build/dev/bench_load
//   build/dev/bench_load DIR [-save OUT] [-dtype fp32]
//
// Prints the speed of the disk itself (plain reads of 16 MB, from a cold file cache), of loading from a cold and from a
// warm cache, and of saving, with the largest resident memory of the process after each. Files are dropped from the
// cache by posix_fadvise, which needs no rights and leaves other files alone.
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "llmc/backend.h"
#include "llmc/base/alloc.h"
#include "llmc/train/checkpoint.h"
#include "llmc/base/cli.h"
#include "llmc/base/file.h"
#include "llmc/weights/model_files.h"

enum { BLOCK = 1 << 24, ROUNDS = 3 };

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double peak_gb(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_maxrss * 1024e-9;
}

// Time of the process on the cores: where others work as well, it says what the clock on the wall does not.
static double cpu_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void line(const char *what, double bytes, double time) {
    static double cpu;
    printf("%-22s %7.2f GB in %6.2f s: %5.2f GB/s (%.2f s of CPU), peak memory %5.2f GB\n", what, bytes * 1e-9, time,
           bytes * 1e-9 / time, cpu_seconds() - cpu, peak_gb());
    fflush(stdout);
    cpu = cpu_seconds();
}

// Reads one file, or only drops it from the cache; its size.
static double pass_over(const char *path, char *buffer) {
    double bytes = 0;
    int fd = open(path, O_RDONLY);
    if (fd < 0) return 0;
    for (ssize_t n; buffer && (n = read(fd, buffer, BLOCK)) > 0;) bytes += (double)n;
    if (!buffer) {
        fdatasync(fd); // what is still to be written cannot be dropped
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    }
    close(fd);
    return bytes;
}

static double over_folder(const char *folder, char *buffer) {
    double bytes = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (!strstr(e->d_name, ".safetensors")) continue;
        char *path = string_format("%s/%s", folder, e->d_name);
        if (path) bytes += pass_over(path, buffer);
        free(path);
    }
    if (dir) closedir(dir);
    return bytes;
}

static double over_model(const char *folder, char *buffer) {
    char *llm1 = string_format("%s/llm1", folder);
    double bytes = over_folder(folder, buffer) + (llm1 ? over_folder(llm1, buffer) : 0);
    free(llm1);
    return bytes;
}

static int bench(const char *folder, const char *out, const char *dtype, Error *err) {
    ModelFiles s;
    ModelChoice o = {.model = folder};
    C3Limits limits = {.pages = 1, .enc_rows = 64, .dec_rows = 256, .dec_outputs = 64, .recompute = KEEP_NOTHING};
    Dist dist = {.ranks = 1, .local_ranks = 1};
    Backend *b;
    C3 m;
    char *buffer = malloc(BLOCK);
    if (!buffer) return error_set(err, "out of memory");
    TRY(model_files_open(&s, &o, err));
    TRY(backend_cpu_create(&b, strcmp(dtype, "fp32") ? DTYPE_BF16 : DTYPE_F32, 0, &dist, err));
    double start = seconds(), bytes = 0;
    TRY(c3_create(&m, &s.config, b, &limits, err));
    line("memory made", (double)m.params.table.total * (double)dtype_size(b->dtype), seconds() - start);
    for (int i = 0; i < 2 * ROUNDS + 1; i++) { // in turn, as others may use the disk, too
        if (i < 2 * ROUNDS) over_model(folder, NULL);
        start = seconds();
        if (i < 2 * ROUNDS && i % 2 == 0) {
            bytes = over_model(folder, buffer);
            line("the disk", bytes, seconds() - start);
            continue;
        }
        TRY(model_files_load(&s, &m, 1, err));
        line(i < 2 * ROUNDS ? "loading, cold cache" : "loading, warm cache", bytes, seconds() - start);
    }
    free(buffer);
    if (out) {
        FileSum sums[2];
        TRY(file_make_dirs(out, err));
        start = seconds();
        TRY(weights_save(b, m.weights, &m.params, &s.config, out, sums, err));
        line("saving", bytes, seconds() - start);
    }
    c3_free(&m);
    b->destroy(b);
    model_files_close(&s);
    return 0;
}

int main(int argc, char **argv) {
    const char *out = NULL, *dtype = "bf16", **words = alloc((size_t)argc, sizeof *words, "arguments");
    int n_words = 0, help = 0;
    OptionTable table = {.n = 0};
    const Option rows[] = {
        {.help = "Speed and memory of reading and writing a model"},
        {OPTION_TEXT("save", &out, NULL, "DIR", "write the model there, too")},
        {OPTION_CHOICE("dtype", &dtype, "bf16", "bf16|fp32", "type in memory")},
        {0},
    };
    Error err = {"expected one folder of a C3 model"};
    cli_add(&table, rows);
    int bad = cli_parse(&table, argc, argv, words, &n_words, &help, &err);
    if (help) cli_help(stdout, &table);
    else if (!bad) bad = n_words != 1 || bench(words[0], out, dtype, &err);
    if (bad) fprintf(stderr, "bench_load: %s\n", err.text);
    free(words);
    return bad ? 1 : 0;
}
