// format.c: see format.h.
#include "llmc/base/format.h"

#include <math.h>
#include <stdio.h>

const char *format_bytes(char buffer[32], double bytes) {
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB"};
    int u = 0;
    while (bytes >= 999.5 && u < 4) {
        bytes /= 1000;
        u++;
    }
    snprintf(buffer, 32, u == 0 || bytes >= 99.95 ? "%.0f %s" : "%.1f %s", bytes, units[u]);
    return buffer;
}

const char *format_count(char buffer[32], double count) {
    char digits[32];
    int n = snprintf(digits, sizeof digits, "%.0f", count), at = 0;
    for (int i = 0; i < n && at < 30; i++) {
        if (i > 0 && (n - i) % 3 == 0) buffer[at++] = ',';
        buffer[at++] = digits[i];
    }
    buffer[at] = 0;
    return buffer;
}

const char *format_time(char buffer[32], double seconds) {
    int known = seconds >= 0 && seconds < 1e15;
    long long t = known ? llround(seconds) : 0;
    if (!known) snprintf(buffer, 32, "unknown");
    else if (t >= 86400) snprintf(buffer, 32, "%lld d %lld h", t / 86400, t / 3600 % 24);
    else if (t >= 3600) snprintf(buffer, 32, "%lld h %lld min", t / 3600, t / 60 % 60);
    else if (t >= 60) snprintf(buffer, 32, "%lld min %lld s", t / 60, t % 60);
    else if (t == 0 && seconds > 0) snprintf(buffer, 32, "under 1 s");
    else snprintf(buffer, 32, "%lld s", t);
    return buffer;
}
