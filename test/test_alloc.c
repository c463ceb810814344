// test_alloc.c: memory that ends the run when there is none, and strings that grow.
#include "llmc/base/alloc.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

// What a child that asks for n x size bytes prints; its exit code.
static int ask(char line[1024], size_t n, size_t size, int rank) {
    int ends[2];
    if (pipe(ends) != 0) return -1;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        if (rank >= 0) alloc_set_rank(rank);
        char *p = alloc(n, size, "the test's array");
        _exit(p ? 0 : 3);
    }
    close(ends[1]);
    size_t at = 0;
    for (ssize_t got; at < 1023 && (got = read(ends[0], line + at, 1023 - at)) > 0;) at += (size_t)got;
    line[at] = 0;
    close(ends[0]);
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_end(void) {
    check_begin("no memory: exit code 1 and a line with the rank, the bytes and what they are for");
    const struct { size_t n, size; } asked[] = {{SIZE_MAX / 2, 1}, {SIZE_MAX / 4, 8}, {3, SIZE_MAX / 2}};
    for (int i = 0; i < 3; i++) {
        char line[1024], wanted[128];
        int code = ask(line, asked[i].n, asked[i].size, i - 1);
        snprintf(wanted, sizeof wanted, "out of memory: %zu x %zu bytes for the test's array\n", asked[i].n,
                 asked[i].size);
        CHECK(code == 1 && strstr(line, wanted), "exit code %d: %s", code, line);
        CHECK(!!strstr(line, ": rank ") == (i > 0) && (i < 2 || strstr(line, ": rank 1: ")), "%s", line);
    }
}

static void test_arrays(void) {
    check_begin("arrays: none of no elements is NULL, a growing one keeps its contents");
    void *none[] = {alloc(0, 8, "nothing"), alloc_zeroed(0, 8, "nothing"), alloc_resize(NULL, 0, 4, "nothing")};
    for (int i = 0; i < 3; i++) {
        CHECK(none[i], "NULL");
        free(none[i]);
    }
    int *a = NULL;
    size_t room = 0;
    for (int i = 0; i < 1000; i++) {
        a = alloc_grow(a, (size_t)i, &room, sizeof *a, "numbers");
        a[i] = i;
    }
    int right = room >= 1000 && room < 4000;
    for (int i = 0; i < 1000; i++) right &= a[i] == i;
    CHECK(right, "room %zu", room);
    free(a);
}

static void test_strings(void) {
    check_begin("strings: printed, copied, longer than any buffer");
    char *text = NULL, *copy;
    string_append(&text, "%s", "");
    CHECK(text && !*text, "an empty one");
    for (int i = 0; i < 1000; i++) string_append(&text, "%03d,", i);
    copy = string_copy(text);
    CHECK(strlen(copy) == 4000 && !strncmp(copy + 3992, "998,999,", 8) && copy != text, "%s", copy + 3992);
    CHECK(!string_copy(NULL), "a copy of nothing");
    free(text);
    free(copy);
    text = string_format("%d of %s", 3, "four");
    CHECK(!strcmp(text, "3 of four"), "%s", text);
    free(text);
}

int main(void) {
    test_end();
    test_arrays();
    test_strings();
    return check_done();
}
