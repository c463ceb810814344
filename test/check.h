// check.h: the few words every C test uses. A test program is a list of CHECK lines inside named cases and ends with
// check_done(), which prints "N passed, N failed" and gives main's exit code.
#ifndef TEST_CHECK_H
#define TEST_CHECK_H

#include <stdio.h>
#include <string.h>

static int check_passed, check_failed, check_case_bad;
static const char *check_case;

static inline void check_end_case(void) {
    if (!check_case) return;
    if (check_case_bad) check_failed++;
    else check_passed++;
    printf("%s %s\n", check_case_bad ? "FAIL" : "ok  ", check_case);
    fflush(stdout);
    check_case = NULL;
}

// Opens a case; the one before it is closed and counted.
static inline void check_begin(const char *name) {
    check_end_case();
    check_case = name;
    check_case_bad = 0;
}

static inline int check_done(void) {
    check_end_case();
    printf("%d passed, %d failed\n", check_passed, check_failed);
    return check_failed ? 1 : 0;
}

// Inside a case: a false condition prints the formatted explanation (the first eight of a case) and fails the case.
#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            if (check_case_bad++ < 8) {                                                                                \
                printf("  %s:%d: %s: ", __FILE__, __LINE__, #condition);                                               \
                printf(__VA_ARGS__);                                                                                   \
                printf("\n");                                                                                          \
            }                                                                                                          \
        }                                                                                                              \
    } while (0)

#endif
