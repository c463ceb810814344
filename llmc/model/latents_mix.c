// latents_mix.c: see latents_mix.h.
#include "llmc/model/latents_mix.h"

#include <stdlib.h>
#include <string.h>

#include "llmc/base/random.h"

#define DRAW 0x6c6174656e7473u // keeps these draws apart from others that are made of the same number

// One entry, up to *at, "," or the end. weight 0: none was given.
static int parse_entry(int *latents, double *weight, const char **at, int weighted) {
    char *end = NULL;
    long n = **at >= '0' && **at <= '9' ? strtol(*at, &end, 10) : 0;
    if (n < 1 || n > MIX_MAX_LATENTS) return -1;
    *latents = (int)n;
    *weight = 0;
    if (*end == ':' && weighted) {
        const char *from = end + 1;
        *weight = *from >= '0' && *from <= '9' ? strtod(from, &end) : 0;
        if (!(*weight > 0) || *weight > 1e9) return -1;
    }
    if (*end && (*end != ',' || !end[1])) return -1;
    *at = *end ? end + 1 : end;
    return 0;
}

static void insert(LatentsMix *m, int latents, double weight) {
    int i = m->n++;
    for (; i > 0 && m->latents[i - 1] > latents; i--) {
        m->latents[i] = m->latents[i - 1];
        m->share[i] = m->share[i - 1];
    }
    m->latents[i] = latents;
    m->share[i] = weight;
}

int latents_mix_parse(LatentsMix *m, const char *option, const char *text, int weighted, Error *err) {
    double weight, sum = 0;
    int latents, with = 0;
    *m = (LatentsMix){.n = 0};
    for (const char *at = text; at && *at;) {
        if (parse_entry(&latents, &weight, &at, weighted) != 0)
            return error_set(err, "-%s %s: expected numbers of latents from 1 to %d%s, as 8,16,32%s", option, text,
                             MIX_MAX_LATENTS, weighted ? ", perhaps with weights above 0" : "",
                             weighted ? " or 8:1,16:1,32:2" : "");
        for (int i = 0; i < m->n; i++) {
            if (m->latents[i] == latents) return error_set(err, "-%s %s: %d is there twice", option, text, latents);
        }
        if (m->n == MIX_MAX)
            return error_set(err, "-%s %s: expected at most %d numbers of latents", option, text, MIX_MAX);
        with += weight > 0;
        sum += weight;
        insert(m, latents, weight);
    }
    if (with && with != m->n)
        return error_set(err, "-%s %s: expected a weight for every number of latents, or for none", option, text);
    for (int i = 0; i < m->n; i++) m->share[i] = with ? m->share[i] / sum : 1.0 / m->n;
    return 0;
}

int latents_mix_most(const LatentsMix *m) { return m->n ? m->latents[m->n - 1] : 0; }

int latents_mix_draw(const LatentsMix *m, uint64_t draw) {
    double u = (double)(random_mix(draw ^ DRAW) >> 11) * 0x1p-53;
    int i = 0;
    for (; i < m->n - 1 && u >= m->share[i]; i++) u -= m->share[i];
    return m->n ? m->latents[i] : 0;
}

double latents_mix_mean(const LatentsMix *m, int N) {
    double mean = 0;
    for (int i = 0; i < m->n; i++) mean += m->share[i] * m->latents[i];
    return m->n ? mean : N;
}
