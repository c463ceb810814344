// make_random_checkpoint.c: a C3 checkpoint of any shape with random weights, for measuring without downloads.
//
//   make build/dev/make_random_checkpoint
//   build/dev/make_random_checkpoint -preset paper -o DIR         1.5B + 3B, bf16: 9.3 GB
//   build/dev/make_random_checkpoint -preset paper -layers 4 -o DIR
//   build/dev/make_random_checkpoint -enc V,D,L,NH,KV,HS,F -dec V,D,L,NH,KV,HS,F -o DIR
//
// The numbers are those the trainer would start from with this -seed (see c3_init_weights). They are drawn and written
// piece by piece: the model is never in memory. -shard_mb cuts the files as the hub does, with an index beside them.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/model/cascade.h"
#include "llmc/base/cli.h"
#include "llmc/base/file.h"
#include "llmc/base/json.h"
#include "llmc/base/random.h"
#include "llmc/weights/safetensors.h"

enum { BLOCK = 1 << 16, BLOCKS = 64 }; // elements drawn at a time by one thread; blocks of a piece

typedef struct Options {
    const char *preset, *enc, *dec, *dtype, *out;
    int64_t vocab, latents, layers, seed, shard_mb;
    int untied;
} Options;

static int parse_shape(Qwen2Config *c, const char *text, Error *err) {
    int end = 0;
    if (!text) return 0;
    if (sscanf(text, "%d,%d,%d,%d,%d,%d,%d%n", &c->V, &c->D, &c->L, &c->NH, &c->KV, &c->HS, &c->F, &end) != 7 ||
        text[end])
        return error_set(err, "shape \"%s\": expected V,D,L,NH,KV,HS,F", text);
    return config_check_qwen2(c, text, err);
}

static int configure(C3Config *c, const Options *o, Error *err) {
    TRY(config_preset(c, o->preset, (int)o->vocab, err));
    TRY(parse_shape(&c->enc, o->enc, err));
    TRY(parse_shape(&c->dec, o->dec, err));
    if (o->layers) c->enc.L = c->dec.L = (int)o->layers;
    if (o->latents) c->latents = (int)o->latents;
    if (o->untied) c->dec.tied = 0;
    c->dtype = strcmp(o->dtype, "fp32") == 0 ? DTYPE_F32 : DTYPE_BF16;
    return 0;
}

// ---- one file ------------------------------------------------------------------------------------------------------

static int write_tensor(SafeWriter *w, const Param *p, uint64_t stream, DType dtype, float *wide, void *narrow,
                        Error *err) {
    const size_t piece = (size_t)BLOCK * BLOCKS;
    for (size_t at = 0; at < p->count; at += piece) {
        const size_t n = p->count - at < piece ? p->count - at : piece;
#pragma omp parallel for schedule(static)
        for (size_t k = 0; k < n; k += BLOCK) {
            size_t some = n - k < BLOCK ? n - k : BLOCK;
            c3_initial_values(wide + k, p, stream, at + k, some, 1);
            if (dtype == DTYPE_BF16) safetensors_convert((uint16_t *)narrow + k, DTYPE_BF16, wide + k, DTYPE_F32, some);
        }
        TRY(safetensors_writer_data(w, dtype == DTYPE_BF16 ? narrow : wide, n * dtype_size(dtype), err));
    }
    return 0;
}

// params (n): indices into the table of the file's tensors.
static int write_file(const char *path, const C3Params *p, const int *params, int n, DType dtype, uint64_t seed,
                      Error *err) {
    static const char *const metadata[][2] = {{"format", "pt"}};
    const size_t piece = (size_t)BLOCK * BLOCKS;
    SafeEntry *entries = calloc((size_t)n, sizeof *entries);
    float *wide = malloc(piece * sizeof *wide);
    void *narrow = malloc(piece * 2);
    SafeWriter *w = NULL;
    int bad = entries && wide && narrow ? 0 : error_set(err, "%s: out of memory", path);
    for (int i = 0; i < n && !bad; i++) {
        const Param *q = &p->table.params[params[i]];
        entries[i] = (SafeEntry){.name = q->name, .dtype = dtype, .dims = q->dims, .shape = {q->rows, q->cols}};
    }
    if (!bad) bad = safetensors_writer_open(&w, path, entries, n, metadata, 1, err);
    for (int i = 0; i < n && !bad; i++)
        bad = write_tensor(w, &p->table.params[params[i]], random_stream(seed, (uint64_t)params[i]), dtype, wide,
                           narrow, err);
    if (bad) safetensors_writer_discard(w);
    else bad = safetensors_writer_commit(w, err);
    free(narrow);
    free(wide);
    free(entries);
    return bad;
}

// ---- a folder: one file, or several and an index -------------------------------------------------------------------

// shard_of (n): the file of each tensor; returns how many files.
static int deal(int *shard_of, const C3Params *p, const int *params, int n, DType dtype, uint64_t most) {
    int shard = 0;
    uint64_t bytes = 0;
    for (int i = 0; i < n; i++) {
        uint64_t more = p->table.params[params[i]].count * dtype_size(dtype);
        if (most && bytes && bytes + more > most) {
            shard++;
            bytes = 0;
        }
        bytes += more;
        shard_of[i] = shard;
    }
    return shard + 1;
}

static int write_shards(const char *folder, const C3Params *p, const int *params, const int *shard_of, int n, int files,
                        const Options *o, DType dtype, Error *err) {
    cJSON *index = cJSON_CreateObject(), *map = cJSON_AddObjectToObject(index, "weight_map");
    int bad = map ? 0 : error_set(err, "out of memory");
    for (int first = 0, last; first < n && !bad; first = last) {
        char name[64], *path;
        snprintf(name, sizeof name, files == 1 ? "model.safetensors" : "model-%05d-of-%05d.safetensors",
                 shard_of[first] + 1, files);
        for (last = first; last < n && shard_of[last] == shard_of[first]; last++)
            cJSON_AddStringToObject(map, p->table.params[params[last]].name, name);
        path = string_format("%s/%s", folder, name);
        bad = path ? write_file(path, p, params + first, last - first, dtype, (uint64_t)o->seed, err)
                   : error_set(err, "out of memory");
        free(path);
    }
    char *path = string_format("%s/model.safetensors.index.json", folder);
    if (!bad && files > 1) bad = path ? json_write(index, path, err) : error_set(err, "out of memory");
    free(path);
    cJSON_Delete(index);
    return bad;
}

static int write_folder(const char *folder, const C3Params *p, int encoder, const Options *o, DType dtype, Error *err) {
    int *params = malloc((size_t)p->table.n * sizeof *params), *shard_of = malloc((size_t)p->table.n * sizeof *params);
    int n = 0, bad = params && shard_of ? 0 : error_set(err, "out of memory");
    for (int i = 0; i < p->table.n && !bad; i++) {
        if ((p->table.params[i].owner == OWNER_ENCODER) == encoder) params[n++] = i;
    }
    if (!bad) {
        int files = deal(shard_of, p, params, n, dtype, (uint64_t)o->shard_mb * 1000000);
        bad = write_shards(folder, p, params, shard_of, n, files, o, dtype, err);
    }
    free(params);
    free(shard_of);
    return bad;
}

static int make_checkpoint(const Options *o, Error *err) {
    C3Config c;
    C3Params p;
    TRY(configure(&c, o, err));
    TRY(params_build(&p, &c, 1, err));
    char *llm1 = string_format("%s/llm1", o->out);
    int bad = !llm1 || file_make_dirs(llm1, err) || config_write_c3(&c, o->out, err) ||
              write_folder(o->out, &p, 0, o, c.dtype, err) || write_folder(llm1, &p, 1, o, c.dtype, err);
    if (!bad) printf("%s: %zu parameters, %s\n", o->out, p.table.parameters, o->dtype);
    free(llm1);
    params_free(&p);
    return bad ? -1 : 0;
}

int main(int argc, char **argv) {
    Options o;
    OptionTable table = {.n = 0};
    const Option rows[] = {
        {.help = "A C3 checkpoint with random weights"},
        {OPTION_TEXT("o", &o.out, NULL, "DIR", "folder to write"), .required = 1},
        {OPTION_CHOICE("preset", &o.preset, "paper", "demo|tiny|small|medium|paper", "shape to start from")},
        {OPTION_TEXT("enc", &o.enc, NULL, "V,D,L,NH,KV,HS,F", "the encoder's shape instead")},
        {OPTION_TEXT("dec", &o.dec, NULL, "V,D,L,NH,KV,HS,F", "the decoder's shape instead")},
        {OPTION_INT64("layers", &o.layers, "layers of each stack, 0 = the shape's"), .max = 1024, .argument = "L"},
        {OPTION_INT64("vocab", &o.vocab, "base tokens, 0 = the preset's"), .max = 151643, .argument = "K"},
        {OPTION_INT64("n", &o.latents, "latents a page, 0 = the preset's"), .max = 65536},
        {OPTION_FLAG("untied", &o.untied, "the decoder has a head of its own")},
        {OPTION_CHOICE("dtype", &o.dtype, "bf16", "bf16|fp32", "type of the files")},
        {OPTION_INT64("seed", &o.seed, "of the numbers"), .initial = 1},
        {OPTION_INT64("shard_mb", &o.shard_mb, "megabytes a file, 0 = one file"), .max = 1e6},
        {0},
    };
    Error err;
    cli_add(&table, rows);
    int help = 0, bad = cli_parse(&table, argc, argv, NULL, NULL, &help, &err);
    if (help) {
        cli_help(stdout, &table);
        return 0;
    }
    if (!bad) bad = make_checkpoint(&o, &err);
    if (bad) fprintf(stderr, "make_random_checkpoint: %s\n", err.text);
    return bad ? 1 : 0;
}
