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

int agreement_program(const Dist *d, const Option *table, int n, Error *err) {
    if (d->ranks == 1) return 0;
    char value[4096];
    char *record = string_format("the program's file: CRC-32 %08" PRIx32 "\n", file_crc("/proc/self/exe"));
    for (int i = 0; i < n && record; i++) {
        if (!table[i].name || strcmp(table[i].name, "threads") == 0) continue;
        char *longer =
            string_format("%s-%s: \"%s\"\n", record, table[i].name, cli_value(&table[i], value, sizeof value));
        free(record);
        record = longer;
    }
    int bad = dist_agree(d, record ? 0 : error_set(err, "out of memory"), err);
    if (!bad) bad = dist_same(d, record, err);
    free(record);
    return bad;
}

// Some of every tensor, so that it takes no seconds with any model: other weights differ nearly everywhere.
static int sample_weights(uint32_t *crc, Backend *b, const elem_t *weights, const ParamTable *table, Error *err) {
    enum { PIECE = 4096, PIECES = 16 };
    char *host = malloc(PIECE);
    if (!host) return error_set(err, "out of memory");
    *crc = 0;
    for (int i = 0; i < table->n; i++) {
        const char *tensor = elem_at(b, (elem_t *)weights, table->params[i].offset);
        size_t bytes = table->params[i].count * dtype_size(b->dtype), last = bytes > PIECE ? bytes - PIECE : 0;
        size_t size = bytes < PIECE ? bytes : PIECE, pieces = bytes <= PIECE ? 1 : PIECES;
        for (size_t p = 0; p < pieces; p++) {
            b->download(b, host, tensor + (pieces > 1 ? last / (pieces - 1) * p : 0), size);
            *crc = file_crc32(*crc, host, size);
        }
    }
    free(host);
    return 0;
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
    uint32_t crc = 0;
    int bad = sample_weights(&crc, b, weights, table, err);
    char *record = bad ? NULL : run_record(state, corpus, steps, folder, b, crc);
    if (!bad && !record) bad = error_set(err, "out of memory");
    bad = dist_agree(d, bad, err);
    if (!bad) bad = dist_same(d, record, err);
    free(record);
    return bad;
}
