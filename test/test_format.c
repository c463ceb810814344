// test_format.c: numbers as a person reads them.
#include "test/check.h"

#include <math.h>

#include "llmc/base/format.h"

int main(void) {
    char text[32];
    check_begin("times in two units at most; what is short is not nothing");
    static const struct {
        double seconds;
        const char *text;
    } times[] = {{0, "0 s"},
                 {0.0178, "under 1 s"},
                 {0.49, "under 1 s"},
                 {0.5, "1 s"},
                 {12.4, "12 s"},
                 {59.6, "1 min 0 s"},
                 {250, "4 min 10 s"},
                 {3599.4, "59 min 59 s"},
                 {11520, "3 h 12 min"},
                 {65304, "18 h 8 min"},
                 {86400 * 3 + 7300, "3 d 2 h"},
                 {1e300, "unknown"},
                 {-3, "unknown"},
                 {NAN, "unknown"}};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        CHECK(strcmp(format_time(text, times[i].seconds), times[i].text) == 0, "%g: %s", times[i].seconds, text);

    check_begin("bytes with three digits, counts in groups of three");
    static const struct {
        double n;
        const char *bytes, *count;
    } sizes[] = {{0, "0 B", "0"},
                 {999, "999 B", "999"},
                 {1000, "1.0 KB", "1,000"},
                 {99949, "99.9 KB", "99,949"},
                 {123456, "123 KB", "123,456"},
                 {4632694272, "4.6 GB", "4,632,694,272"},
                 {5e15, "5000 TB", "5,000,000,000,000,000"}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        CHECK(strcmp(format_bytes(text, sizes[i].n), sizes[i].bytes) == 0, "%g: %s", sizes[i].n, text);
        CHECK(strcmp(format_count(text, sizes[i].n), sizes[i].count) == 0, "%g: %s", sizes[i].n, text);
    }
    return check_done();
}
