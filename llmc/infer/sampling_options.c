// sampling_options.c: see sampling_options.h.
#include "llmc/infer/sampling_options.h"

#include <stdlib.h>
#include <string.h>

int sampling_options(SamplingOptions *o, Option *table, int n) {
    *o = (SamplingOptions){.top_p = 1, .seed = 1};
    const Option rows[] = {
        {.help = "Drawing"},
        {"temperature", OPTION_REAL, &o->temperature, "T", 0, 100, NULL, "0 = greedy: always the likeliest token", 0},
        {"top_p", OPTION_REAL, &o->top_p, "P", 0, 1, NULL, "of the likeliest tokens that together reach P, 1 = all", 0},
        {"seed", OPTION_INT, &o->seed, "N", 0, 9e15, NULL, "the same seed draws the same text", 0},
        {"stop", OPTION_TEXT, &o->stop, "IDS", 0, 0, NULL, "tokens that end a page as well, as 151643,13", 0},
    };
    memcpy(table + n, rows, sizeof rows);
    return n + (int)(sizeof rows / sizeof *rows);
}

int sampling_parse(Sampling *out, SamplingOptions *o, Error *err) {
    int n = 0;
    for (const char *at = o->stop; at && *at;) {
        char *end;
        long id = *at >= '0' && *at <= '9' ? strtol(at, &end, 10) : -1;
        if (id < 0 || id > INT32_MAX || (*end && *end != ',') || (*end == ',' && !end[1]))
            return error_set(err, "-stop %s: expected token ids with commas between them, as 151643,13", o->stop);
        if (n == SAMPLING_MAX_STOP) return error_set(err, "-stop: expected at most %d tokens", SAMPLING_MAX_STOP);
        o->stop_ids[n++] = (int32_t)id;
        at = *end ? end + 1 : end;
    }
    *out = (Sampling){
        .temperature = o->temperature, .top_p = o->top_p, .seed = (uint64_t)o->seed, .stop = o->stop_ids, .n_stop = n};
    return 0;
}
