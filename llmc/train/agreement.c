// agreement.c: see agreement.h.
#include "llmc/train/agreement.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/file.h"

static uint32_t file_crc(const char *path) {
    FileMap map;
    if (file_map(&map, path, NULL) != 0) return 0;
    uint32_t crc = file_crc32(0, map.data, map.size);
    file_unmap(&map);
    return crc;
}

int agreement_program(const Dist *d, const OptionTable *options, Error *err) {
    if (d->ranks == 1) return 0;
    char value[4096];
    char *record = string_format("the program's file: CRC-32 %08" PRIx32 "\n", file_crc("/proc/self/exe"));
    for (int i = 0; i < options->n; i++) {
        const Option *o = &options->rows[i];
        if (o->name && strcmp(o->name, "threads") != 0)
            string_append(&record, "-%s: \"%s\"\n", o->name, cli_value(o, value, sizeof value));
    }
    int bad = dist_same(d, record, err);
    free(record);
    return bad;
}

// CRC-32 of some of every tensor, which takes no time with any model: different weights differ nearly everywhere.
static uint32_t sample_weights(Backend *b, const elem_t *weights, const ParamTable *table) {
    enum { PIECE = 4096, PIECES = 16 };
    char host[PIECE];
    uint32_t crc = 0;
    for (int i = 0; i < table->n; i++) {
        const char *tensor = elem_at(b, (elem_t *)weights, table->params[i].offset);
        size_t bytes = table->params[i].count * dtype_size(b->dtype), last = bytes > PIECE ? bytes - PIECE : 0;
        size_t size = bytes < PIECE ? bytes : PIECE, pieces = bytes <= PIECE ? 1 : PIECES;
        for (size_t p = 0; p < pieces; p++) {
            b->download(b, host, tensor + (pieces > 1 ? last / (pieces - 1) * p : 0), size);
            crc = file_crc32(crc, host, size);
        }
    }
    return crc;
}

static char *run_record(const TrainState *state, const Corpus *corpus, int64_t steps, const char *folder,
                        const Backend *b, uint32_t weights) {
    char *marker = folder ? string_format("%s/COMPLETE", folder) : NULL;
    const LoaderState *at = &state->loader;
    const uint8_t *tokenizer = tokenizer_fingerprint(corpus->tokenizer);
    char *record = string_format(
        "step of the run: %" PRId64 "\ncheckpoint: CRC-32 %08" PRIx32 " of COMPLETE\n"
        "training pages: %" PRIu64 " pages, identity %08" PRIx32 "\n"
        "validation pages: %" PRIu64 " pages, identity %08" PRIx32 "\n"
        "tokenizer: %02x%02x%02x%02x\norder of pages: seed %" PRIu64 ", epoch %" PRIu64 ", page %" PRIu64 "\n"
        "last step: %" PRId64 "\ndevice: %s\nelement type: %s\nweights: sampled CRC-32 %08" PRIx32 "\n",
        state->step, marker ? file_crc(marker) : 0, corpus->train.pages, corpus->train.identity,
        corpus->has_val ? corpus->val.pages : 0, corpus->has_val ? corpus->val.identity : 0, tokenizer[0], tokenizer[1],
        tokenizer[2], tokenizer[3], at->seed, at->epoch, at->position, steps, b->is_gpu ? "GPU" : "CPU",
        b->dtype == DTYPE_F32 ? "fp32" : "bf16", weights);
    free(marker);
    return record;
}

int agreement_run(const Dist *d, const TrainState *state, const Corpus *corpus, int64_t steps, const char *folder,
                  Backend *b, const elem_t *weights, const ParamTable *table, Error *err) {
    if (d->ranks == 1) return 0;
    char *record = run_record(state, corpus, steps, folder, b, sample_weights(b, weights, table));
    int bad = dist_same(d, record, err);
    free(record);
    return bad;
}
