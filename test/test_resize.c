// test_resize.c: a model's files fitted to other sizes: vocabularies cut, grown and renumbered, queries cut and grown,
// stacks replaced, and what is refused. Every number of the files is known, so every row's origin can be told.
#include <unistd.h>

#include "llmc/weights/extract.h"
#include "llmc/weights/model_files.h"
#include "test/known_model.h"

static char folder[] = "build/test_adapt_XXXXXX";

// ---- folders whose numbers are known -------------------------------------------------------------------------------

// Element e of a tensor, from its name and a letter for the folder.
static float value(char letter, const char *name, size_t e) {
    uint32_t code = (uint32_t)letter;
    for (const char *c = name; *c; c++) code = code * 31 + (uint32_t)*c;
    return number(2, (int)(code & 0xffffff), e, 1);
}

static void write_tensors(const char *where, const ParamTable *table, int encoder, char letter) {
    char *path = in_run(where, "model.safetensors");
    SafeEntry entries[64];
    const Param *params[64];
    SafeWriter *w = NULL;
    Error err = {""};
    int n = 0;
    for (int i = 0; i < table->n; i++) {
        const Param *p = &table->params[i];
        if ((p->owner == OWNER_ENCODER) != encoder) continue;
        params[n] = p;
        entries[n++] = (SafeEntry){.name = p->name, .dtype = DTYPE_F32, .dims = p->dims, .shape = {p->rows, p->cols}};
    }
    must(safetensors_writer_open(&w, path, entries, n, NULL, 0, &err), &err);
    for (int i = 0; i < n; i++) {
        float *values = malloc(params[i]->count * sizeof *values);
        for (size_t e = 0; e < params[i]->count; e++) values[e] = value(letter, params[i]->name, e);
        must(safetensors_writer_data(w, values, params[i]->count * sizeof *values, &err), &err);
        free(values);
    }
    must(safetensors_writer_commit(w, &err), &err);
    free(path);
}

// A plain Qwen2 folder, tied or not as q says, of a vocabulary cut at `base`.
static char *plain(const char *name, const Qwen2Config *q, int base, char letter) {
    char *where = in_run(folder, name);
    C3Config c = small_config();
    C3Params p;
    Error err = {""};
    SpecialTokens s = config_specials(base);
    c.enc = *q;
    must(file_make_dirs(where, &err) || params_build(&p, &c, 1, &err), &err);
    must(config_write_qwen2(q, DTYPE_F32, &s, where, &err), &err);
    write_tensors(where, &p.table, 1, letter);
    params_free(&p);
    return where;
}

// A C3 folder; its root has the letter r, its encoder e.
static char *whole(const char *name, const C3Config *c) {
    char *where = in_run(folder, name), *llm1 = in_run(where, "llm1");
    C3Params p;
    Error err = {""};
    must(file_make_dirs(llm1, &err) || params_build(&p, c, 1, &err) || config_write_c3(c, where, &err), &err);
    write_tensors(where, &p.table, 0, 'r');
    write_tensors(llm1, &p.table, 1, 'e');
    params_free(&p);
    free(llm1);
    return where;
}

// ---- a model from them ---------------------------------------------------------------------------------------------

typedef struct Filled {
    ModelFiles source;
    Backend *b;
    C3 m;
} Filled;

static ModelChoice options(const char *m, const char *enc, const char *dec) {
    return (ModelChoice){.model = m, .enc = enc, .dec = dec, .tokenizer = "Makefile"};
}

static int fill(Filled *f, const ModelChoice *o, uint64_t seed, Error *err) {
    C3Limits l = {.pages = 1, .enc_rows = 8, .dec_rows = 8, .dec_outputs = 8, .recompute = KEEP_NOTHING};
    *f = (Filled){0};
    TRY(model_files_open(&f->source, o, err));
    TRY(backend_cpu_create(&f->b, DTYPE_F32, 1, &dist, err));
    TRY(c3_create(&f->m, &f->source.config, f->b, &l, err));
    return model_files_load(&f->source, &f->m, seed, err);
}

static void drop(Filled *f) {
    if (f->m.b) c3_free(&f->m);
    if (f->b) f->b->destroy(f->b);
    model_files_close(&f->source);
}

static const float *tensor(const Filled *f, ParamOwner owner, const char *name) { // the CPU's memory is the host's
    const Param *p = params_find(&f->m.params.table, owner, name);
    CHECK(p != NULL, "no parameter %s", name);
    return p ? (const float *)f->m.weights + p->offset : NULL;
}

// Elements [at, at + n) of a tensor that differ from elements `from` on of the folder `letter`'s.
static size_t different(const Filled *f, ParamOwner owner, const char *name, size_t at, char letter, size_t from,
                        size_t n) {
    const float *x = tensor(f, owner, name);
    size_t bad = 0;
    for (size_t e = 0; x && e < n; e++) bad += x[at + e] != value(letter, name, from + e);
    return bad;
}

// Every tensor of a stack but those over the vocabulary is the folder's.
static void expect_stack(const Filled *f, ParamOwner owner, char letter) {
    const ParamTable *t = &f->m.params.table;
    int n = 0;
    for (int i = 0; i < t->n; i++) {
        const Param *p = &t->params[i];
        if (p->owner != owner || strstr(p->name, "embed_tokens") || strstr(p->name, "lm_head")) continue;
        CHECK(different(f, owner, p->name, 0, letter, 0, p->count) == 0, "%s differs", p->name);
        n++;
    }
    CHECK(n > 12, "%d tensors", n);
}

// Row `row` holds what row `from` of the file does (from < 0: is new: finite, like no row, near the mean of all).
static void expect_row(const Filled *f, ParamOwner owner, const char *name, int D, int row, char letter, int from) {
    const size_t d = (size_t)D;
    if (from >= 0) {
        CHECK(different(f, owner, name, (size_t)row * d, letter, (size_t)from * d, d) == 0, "%s: row %d is not row %d",
              name, row, from);
        return;
    }
    const float *x = tensor(f, owner, name) + (size_t)row * d;
    double square = 0;
    for (size_t k = 0; k < d; k++) square += (double)x[k] * x[k] / D;
    // the files' elements are uniform in (-1, 1): spread 0.577, mean about 0; a tenth of it is noise
    CHECK(square > 0.02 * 0.02 && square < 0.15 * 0.15, "%s: new row %d has root mean square %.4f", name, row,
          sqrt(square));
}

static void expect_said(const Filled *f, const char *const *words, int n) {
    for (int i = 0; i < n; i++)
        CHECK(f->source.notes && strstr(f->source.notes, words[i]), "expected \"%s\" in:\n%s", words[i],
              f->source.notes ? f->source.notes : "(nothing)");
}

static const char embed[] = "model.embed_tokens.weight", head[] = "lm_head.weight", queries[] = "model.Q.weight";

// ---- cases ---------------------------------------------------------------------------------------------------------

static void test_same(void) {
    check_begin("a checkpoint of the same sizes is taken as it is, and nothing is said");
    C3Config c = small_config();
    char *where = whole("same", &c);
    Filled f;
    Error err = {""};
    ModelChoice o = options(where, NULL, NULL);
    CHECK(fill(&f, &o, 1, &err) == 0, "%s", err.text);
    CHECK(f.source.notes == NULL, "%s", f.source.notes);
    expect_stack(&f, OWNER_ENCODER, 'e');
    expect_stack(&f, OWNER_DECODER, 'r');
    CHECK(different(&f, OWNER_ENCODER, embed, 0, 'e', 0, (size_t)c.enc.V * 30) == 0, "encoder's embedding");
    CHECK(different(&f, OWNER_DECODER, embed, 0, 'r', 0, (size_t)c.dec.V * 50) == 0, "decoder's embedding");
    CHECK(different(&f, OWNER_DECODER, head, 0, 'r', 0, (size_t)c.dec.V * 50) == 0, "head");
    CHECK(different(&f, OWNER_CASCADE, queries, 0, 'r', 0, (size_t)c.latents * 30) == 0, "queries");
    CHECK(different(&f, OWNER_CASCADE, "model.mm_projector.weight", 0, 'r', 0, 1500) == 0, "projector");
    drop(&f);
    free(where);
}

static void test_queries(void) {
    check_begin("-n: fewer queries are the first ones; more are the old ones and noisy copies, the same each time");
    C3Config c = small_config(); // 5 latents of width 30
    char *where = whole("queries", &c);
    Filled f, again;
    Error err = {""};
    ModelChoice o = options(where, NULL, NULL);
    o.latents = 3;
    CHECK(fill(&f, &o, 1, &err) == 0, "%s", err.text);
    CHECK(f.m.config.latents == 3 && different(&f, OWNER_CASCADE, queries, 0, 'r', 0, 90) == 0, "first three");
    expect_said(&f, (const char *const[]){"the first 3 of the 5", where}, 2);
    drop(&f);
    o.latents = 12;
    CHECK(fill(&f, &o, 1, &err) == 0 && fill(&again, &o, 2, &err) == 0, "%s", err.text);
    expect_said(&f, (const char *const[]){"12, of which 5 are in", where}, 2);
    CHECK(different(&f, OWNER_CASCADE, queries, 0, 'r', 0, 150) == 0, "the old five");
    const float *x = tensor(&f, OWNER_CASCADE, queries), *y = tensor(&again, OWNER_CASCADE, queries);
    double noise = 0, other = 0;
    for (int i = 150; i < 360; i++) {
        noise += fabs((double)x[i] - (double)value('r', queries, (size_t)(i % 150))) / 210;
        other += fabs((double)x[i] - (double)y[i]) / 210;
    }
    CHECK(noise > 0.02 && noise < 0.08, "mean distance %.4f of a copy: expected a tenth of the spread", noise);
    CHECK(other > 0.02, "another seed makes no difference");
    expect_stack(&f, OWNER_DECODER, 'r');
    drop(&again);
    CHECK(fill(&again, &o, 1, &err) == 0, "%s", err.text);
    CHECK(memcmp(x, tensor(&again, OWNER_CASCADE, queries), 360 * sizeof *x) == 0, "not the same twice");
    drop(&f);
    drop(&again);
    free(where);
}

// Rows of a vocabulary cut at `base` against files cut at `old`: base tokens, specials, what is new.
static void expect_vocabulary(const Filled *f, ParamOwner owner, const char *name, int D, char letter, int base,
                              int old) {
    for (int row = 0; row < base; row += 37) expect_row(f, owner, name, D, row, letter, row < old ? row : -1);
    for (int k = 0; k < 6; k++) expect_row(f, owner, name, D, base + k, letter, old + k);
    expect_row(f, owner, name, D, base - 1, letter, base <= old ? base - 1 : -1);
}

static void test_vocabulary(void) {
    check_begin("-vocab: tokens of both vocabularies keep their rows, specials move, what is missing is new");
    C3Config c;
    CHECK(config_preset(&c, "demo", 400, NULL) == 0, "preset");
    c.enc.D = 30, c.enc.NH = 2, c.enc.KV = 1, c.enc.HS = 16, c.enc.F = 44;
    c.dec.D = 50, c.dec.NH = 3, c.dec.KV = 1, c.dec.HS = 18, c.dec.F = 61;
    c.dec.tied = 0;
    char *where = whole("vocabulary", &c);
    const int bases[] = {300, 500};
    for (int i = 0; i < 2; i++) {
        Filled f;
        Error err = {""};
        ModelChoice o = options(where, NULL, NULL);
        o.vocab = bases[i];
        CHECK(fill(&f, &o, 1, &err) == 0, "%s", err.text);
        CHECK(f.m.config.base_vocab == bases[i] && f.m.config.specials.img == bases[i] + 3 &&
                  f.m.config.dec.V == bases[i] + 6 && f.m.config.enc.V == bases[i] + 6,
              "%d rows", f.m.config.dec.V);
        expect_vocabulary(&f, OWNER_ENCODER, embed, 30, 'e', bases[i], 400);
        expect_vocabulary(&f, OWNER_DECODER, embed, 50, 'r', bases[i], 400);
        expect_vocabulary(&f, OWNER_DECODER, head, 50, 'r', bases[i], 400);
        expect_said(&f, (const char *const[]){"encoder", "decoder", "head", "400 base tokens in the files"}, 4);
        expect_said(&f, (const char *const[]){i ? "100 of 506 rows are new" : "100 of the 406 rows"}, 1);
        drop(&f);
    }
    free(where);
}

static void test_plain(void) {
    check_begin("two plain folders: a decoder's rows beyond the vocabulary are cut, missing rows are added, both said");
    C3Config c = small_config();
    Qwen2Config enc = c.enc, dec = c.dec;
    enc.V = 259; // <img> and what follows are not there
    dec.V = 290;
    dec.tied = 1;
    char *e = plain("short", &enc, 256, 'p'), *d = plain("long", &dec, 256, 'q'), *l;
    Filled f;
    Error err = {""};
    ModelChoice o = options(NULL, e, d);
    CHECK(fill(&f, &o, 1, &err) == 0, "%s", err.text);
    CHECK(f.m.config.enc.V == 262 && f.m.config.dec.V == 262 && f.m.config.latents == 32, "%d and %d rows",
          f.m.config.enc.V, f.m.config.dec.V);
    expect_stack(&f, OWNER_ENCODER, 'p');
    CHECK(different(&f, OWNER_ENCODER, embed, 0, 'p', 0, 259 * 30) == 0, "kept rows");
    for (int row = 259; row < 262; row++) expect_row(&f, OWNER_ENCODER, embed, 30, row, 'p', -1);
    CHECK(different(&f, OWNER_DECODER, embed, 0, 'q', 0, 262 * 50) == 0, "kept rows");
    expect_said(&f, (const char *const[]){"3 of 262 rows are new", "28 of the 290 rows in", d}, 3);
    drop(&f);
    enc.V = 270; // more than needed: an encoder keeps them
    l = plain("encoder", &enc, 256, 'p');
    o.enc = l;
    CHECK(fill(&f, &o, 1, &err) == 0 && f.m.config.enc.V == 270, "%s", err.text);
    drop(&f);
    free(l);

    check_begin("folders of two vocabularies are refused with a hint that helps");
    enc.V = 306;
    l = plain("other", &enc, 300, 'p');
    o.enc = l;
    CHECK(fill(&f, &o, 1, &err) != 0 && strstr(err.text, "300 base tokens") && strstr(err.text, "-vocab"), "%s",
          err.text);
    drop(&f);
    o.vocab = 256;
    CHECK(fill(&f, &o, 1, &err) == 0, "%s", err.text);
    expect_vocabulary(&f, OWNER_ENCODER, embed, 30, 'p', 256, 300);
    drop(&f);
    free(l);
    free(e);
    free(d);
}

static void test_whole_vocabulary(void) {
    check_begin("Qwen2.5's own numbers of rows: an encoder keeps 151936, a decoder 151860; too few are made up");
    C3Config c = small_config();
    Qwen2Config q = c.enc;
    q.D = 2, q.HS = 2, q.NH = q.KV = 1, q.F = 3, q.L = 2, q.V = 151936;
    char *e = plain("qwen", &q, QWEN_BASE_RANKS, 'p'), *s;
    q.V = 151665; // of a fine-tune that cut what its tokenizer does not name
    s = plain("qwen_cut", &q, QWEN_BASE_RANKS, 's');
    Filled f;
    Error err = {""};
    ModelChoice o = options(NULL, e, s);
    CHECK(fill(&f, &o, 1, &err) == 0, "%s", err.text);
    CHECK(f.m.config.enc.V == 151936 && f.m.config.dec.V == 151860 && f.m.config.specials.img == 151857, "%d, %d rows",
          f.m.config.enc.V, f.m.config.dec.V);
    CHECK(different(&f, OWNER_ENCODER, embed, 0, 'p', 0, 151936 * 2) == 0, "encoder");
    CHECK(different(&f, OWNER_DECODER, embed, 0, 's', 0, 151665 * 2) == 0, "decoder");
    expect_said(&f, (const char *const[]){"195 of 151860 rows are new"}, 1);
    drop(&f);
    o = options(NULL, s, e);
    CHECK(fill(&f, &o, 1, &err) == 0, "%s", err.text);
    CHECK(f.m.config.enc.V == 151860 && f.m.config.dec.V == 151860, "%d, %d rows", f.m.config.enc.V, f.m.config.dec.V);
    CHECK(different(&f, OWNER_DECODER, embed, 0, 'p', 0, 151860 * 2) == 0, "decoder");
    expect_said(&f, (const char *const[]){"76 of the 151936 rows", "195 of 151860 rows are new"}, 2);
    drop(&f);
    o.vocab = 1000; // a small model out of a large one
    CHECK(fill(&f, &o, 1, &err) == 0 && f.m.config.dec.V == 1006, "%s", err.text);
    CHECK(different(&f, OWNER_DECODER, embed, 0, 'p', 0, 1000 * 2) == 0, "base tokens");
    expect_row(&f, OWNER_DECODER, embed, 2, 1002, 'p', 151645);
    expect_row(&f, OWNER_DECODER, embed, 2, 1003, 'p', 151857);
    drop(&f);
    free(e);
    free(s);
}

static void test_swap(void) {
    check_begin("a stack of another size takes a place: its own weights, a new projector, new queries for an encoder");
    C3Config c = small_config();
    char *where = whole("swap", &c);
    Qwen2Config q = {.V = 262,
                     .D = 40,
                     .L = 3,
                     .NH = 4,
                     .KV = 2,
                     .HS = 10,
                     .F = 20,
                     .max_positions = 512,
                     .rope_theta = 1e4f,
                     .rms_eps = 1e-6f,
                     .tied = 1};
    char *other = plain("swapped", &q, 256, 'p');
    const char *const projector = "model.mm_projector.weight";
    Filled f;
    Error err = {""};
    ModelChoice o = options(where, other, NULL);
    CHECK(fill(&f, &o, 1, &err) == 0, "%s", err.text);
    CHECK(f.m.config.enc.D == 40 && f.m.config.enc.L == 3 && f.m.config.latents == 5, "%d wide", f.m.config.enc.D);
    expect_stack(&f, OWNER_ENCODER, 'p');
    expect_stack(&f, OWNER_DECODER, 'r');
    expect_said(&f, (const char *const[]){"queries and projector are new"}, 1);
    double square = 0;
    for (int i = 0; i < 5 * 40; i++) square += pow(tensor(&f, OWNER_CASCADE, queries)[i], 2) / 200;
    CHECK(fabs(sqrt(square) - 0.02) < 0.005, "queries: root mean square %.4f, expected 0.02", sqrt(square));
    drop(&f);
    o = options(where, NULL, other);
    CHECK(fill(&f, &o, 1, &err) == 0, "%s", err.text);
    CHECK(f.m.config.dec.D == 40 && f.m.config.dec.tied, "%d wide", f.m.config.dec.D);
    expect_stack(&f, OWNER_ENCODER, 'e');
    expect_stack(&f, OWNER_DECODER, 'p');
    CHECK(different(&f, OWNER_CASCADE, queries, 0, 'r', 0, 150) == 0, "queries belong to the encoder");
    square = 0;
    for (int i = 0; i < 40 * 30; i++) square += pow(tensor(&f, OWNER_CASCADE, projector)[i], 2) / 1200;
    CHECK(fabs(sqrt(square) - 0.02) < 0.003, "projector: root mean square %.4f, expected 0.02", sqrt(square));
    expect_said(&f, (const char *const[]){"the projector is new"}, 1);
    drop(&f);
    free(other);
    free(where);
}

// ---- other spellings -----------------------------------------------------------------------------------------------

// Writes the tensors of FOLDER/model.safetensors again: names without `cut` in front, and a head: the embedding (1), or
// the embedding with its last number changed (2).
static void spell(const char *where, const char *cut, int own_head) {
    char *path = in_run(where, "model.safetensors");
    SafeTensors *s = NULL;
    SafeEntry entries[64];
    const SafeTensor *tensors[64];
    SafeWriter *w = NULL;
    Error err = {""};
    must(safetensors_open(&s, path, &err), &err);
    int n = safetensors_count(s);
    for (int i = 0; i <= n; i++) {
        const SafeTensor *t = i < n ? safetensors_at(s, i) : safetensors_find(s, embed);
        const char *name = i == n ? head : strncmp(t->name, cut, strlen(cut)) ? t->name : t->name + strlen(cut);
        tensors[i] = t;
        entries[i] = (SafeEntry){name, t->dtype, t->dims, {t->shape[0], t->dims > 1 ? t->shape[1] : 0}};
    }
    n += own_head > 0;
    must(safetensors_writer_open(&w, path, entries, n, NULL, 0, &err), &err);
    for (int i = 0; i < n; i++) {
        char *data = malloc(tensors[i]->bytes);
        memcpy(data, tensors[i]->data, tensors[i]->bytes);
        if (own_head == 2 && i == n - 1) data[tensors[i]->bytes - 1] ^= 1;
        must(safetensors_writer_data(w, data, tensors[i]->bytes, &err), &err);
        free(data);
    }
    must(safetensors_writer_commit(w, &err), &err);
    safetensors_close(s);
    free(path);
}

static void refuse(const char *what, const ModelChoice *o, const char *const *words, int n);

static void test_spellings(void) {
    check_begin("base models, whose names lack \"model.\", are read as transformers reads them");
    C3Config c = small_config();
    Qwen2Config enc = c.enc, dec = c.dec;
    enc.tied = dec.tied = 1;
    char *e = plain("base_e", &enc, 256, 'p'), *d = plain("base_d", &dec, 256, 'q');
    ModelChoice o = options(NULL, e, d);
    Filled f;
    Error err = {""};
    spell(e, "model.", 0);
    spell(d, "model.", 0);
    CHECK(fill(&f, &o, 1, &err) == 0, "%s", err.text);
    expect_stack(&f, OWNER_ENCODER, 'p');
    expect_stack(&f, OWNER_DECODER, 'q');
    CHECK(different(&f, OWNER_DECODER, embed, 0, 'q', 0, (size_t)dec.V * 50) == 0, "embedding");
    drop(&f);
    dec.L = 1;
    SpecialTokens specials = config_specials(256);
    CHECK(config_write_qwen2(&dec, DTYPE_F32, &specials, d, &err) == 0, "%s", err.text);
    refuse("a layer too many", &o, (const char *const[]){"\"layers.1.", "num_hidden_layers"}, 2);
    free(d);
    d = plain("base_d", &c.dec, 256, 'q');
    o = options(NULL, e, d);
    spell(d, "mod", 0);
    refuse("names of another kind", &o, (const char *const[]){embed, "is missing among", "such as"}, 3);
    free(d);

    check_begin("a tied model's stored head must be the embedding; an encoder's is never used");
    dec = c.dec;
    dec.tied = 1;
    free(e);
    e = plain("base_e", &enc, 256, 'p');
    d = plain("base_d", &dec, 256, 'q');
    o = options(NULL, e, d);
    spell(d, "", 1);
    spell(e, "", 2);
    CHECK(fill(&f, &o, 1, &err) == 0 && f.m.config.dec.tied, "%s", err.text);
    drop(&f);
    free(d);
    d = plain("base_d", &dec, 256, 'q');
    o = options(NULL, e, d);
    spell(d, "", 2);
    refuse("another head", &o, (const char *const[]){d, head, "tie_word_embeddings", "transformers 5"}, 4);
    spell(d, "model.embed_tokens", 0);
    refuse("only the head", &o, (const char *const[]){embed, head, "save_pretrained"}, 3);
    free(e);
    free(d);
}

// ---- extract -------------------------------------------------------------------------------------------------------

// A tokenizer of the 256 bytes alone.
static void put_bytes_only(const char *path) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    FILE *f = fopen(path, "w");
    for (int b = 0; b < 256 && f; b++) fprintf(f, "%c%c== %d\n", digits[b >> 2], digits[(b & 3) << 4], b);
    if (f) fclose(f);
}

static void test_extract(void) {
    check_begin("a stack as a plain folder is the stack, and makes a model again; an existing folder is left alone");
    C3Config c = small_config();
    char *where = whole("extract", &c), *tok = in_run(where, "mine.tiktoken"), *py = in_run(where, "modeling.py");
    char *found = in_run(where, "qwen.tiktoken"), *notes = NULL;
    put(tok, "IQ== 0\n", 7);
    put_bytes_only(found);
    put(py, "pass\n", 5);
    char *e = in_run(folder, "extracted/e"), *d = in_run(folder, "extracted/d");
    Filled f;
    Error err = {""};
    CHECK(extract_stack(&notes, where, OWNER_ENCODER, e, &err) == 0, "%s", err.text);
    CHECK(notes && strcmp(notes, "tokenizer.json (written), tokenizer_config.json (written)") == 0, "%s", notes);
    free(notes);
    CHECK(extract_stack(&notes, where, OWNER_DECODER, d, &err) == 0, "%s", err.text);
    free(notes);
    CHECK(exists(e, "tokenizer.json") && exists(d, "tokenizer_config.json") && !exists(d, "qwen.tiktoken") &&
              !exists(d, "mine.tiktoken") && !exists(d, "modeling.py") && !exists(d, "llm1"),
          "what travels along");
    ModelChoice o = options(NULL, e, d);
    CHECK(fill(&f, &o, 1, &err) == 0 && f.source.notes == NULL, "%s", err.text);
    expect_stack(&f, OWNER_ENCODER, 'e');
    expect_stack(&f, OWNER_DECODER, 'r');
    CHECK(different(&f, OWNER_DECODER, head, 0, 'r', 0, 262 * 50) == 0 && !f.m.config.dec.tied, "head");
    drop(&f);
    CHECK(extract_stack(&notes, where, OWNER_DECODER, d, &err) != 0 && strstr(err.text, d) &&
              strstr(err.text, "already"),
          "%s", err.text);
    char *weights = in_run(where, "model.safetensors"), *x = in_run(folder, "extracted/x"),
         *temporary = in_run(folder, "extracted/x.tmp");
    CHECK(truncate(weights, 4000) == 0, "truncate");
    CHECK(extract_stack(&notes, where, OWNER_DECODER, x, &err) != 0 && strstr(err.text, weights), "%s", err.text);
    CHECK(!file_exists(x) && !file_exists(temporary), "something was left behind");
    free(temporary);
    free(x);
    free(weights);
    free(d);
    free(e);
    free(py);
    free(found);
    free(tok);
    free(where);
}

// ---- refusals ------------------------------------------------------------------------------------------------------

// Overwrites element e of a tensor in a file.
static void patch(const char *where, const char *name, size_t e, const void *bytes) {
    char *path = in_run(where, "model.safetensors");
    SafeTensors *s = NULL;
    Error err = {""};
    must(safetensors_open(&s, path, &err), &err);
    const SafeTensor *t = safetensors_find(s, name);
    FileMap map;
    must(!t || file_map(&map, path, &err), &err);
    size_t length = 0;
    for (int i = 7; i >= 0; i--) length = length << 8 | map.data[i];
    // data begin behind the header; the first tensor in the file begins there
    const char *first = (const char *)safetensors_at(s, 0)->data;
    for (int i = 0; i < safetensors_count(s); i++) {
        if ((const char *)safetensors_at(s, i)->data < first) first = safetensors_at(s, i)->data;
    }
    long at = (long)(8 + length + (size_t)((const char *)t->data - first) + e * 4);
    FILE *f = fopen(path, "r+b");
    CHECK(f && fseek(f, at, SEEK_SET) == 0 && fwrite(bytes, 4, 1, f) == 1, "%s", path);
    if (f) fclose(f);
    file_unmap(&map);
    safetensors_close(s);
    free(path);
}

static void refuse(const char *what, const ModelChoice *o, const char *const *words, int n) {
    Filled f;
    Error err = {""};
    CHECK(fill(&f, o, 1, &err) != 0, "%s was accepted", what);
    for (int i = 0; i < n; i++)
        CHECK(strstr(err.text, words[i]), "%s: expected \"%s\" in: %s", what, words[i], err.text);
    drop(&f);
}

static void test_refusals(void) {
    check_begin("NaN and infinity are named by tensor and element, in every type");
    C3Config c = small_config();
    char *where = whole("bad", &c), *llm1 = in_run(where, "llm1");
    ModelChoice o = options(where, NULL, NULL);
    const uint32_t nan = 0x7fc00001u, infinite = 0xff800000u;
    const float one = 1;
    const char *const names[] = {"model.layers.1.mlp.up_proj.weight", embed, queries, "model.mm_projector.bias"};
    for (int i = 0; i < 4; i++) {
        char element[32];
        snprintf(element, sizeof element, "element %d is NaN", 7 + i);
        patch(where, names[i], (size_t)(7 + i), i % 2 ? &infinite : &nan);
        refuse("a number", &o, (const char *const[]){names[i], element, "model.safetensors"}, 3);
        patch(where, names[i], (size_t)(7 + i), &one);
    }
    const uint16_t halves[] = {0x7c00, 0xfe01, 0x7bff}, brains[] = {0xff80, 0x7fc0, 0x7f7f};
    const float large[] = {3.4e38f, 1, 2}; // too large for bf16: infinite once it is converted
    uint16_t narrow[3];
    CHECK(safetensors_not_finite(halves, DTYPE_F16, 3) == 0 && safetensors_not_finite(halves + 1, DTYPE_F16, 2) == 0 &&
              safetensors_not_finite(halves + 2, DTYPE_F16, 1) == 1,
          "halves");
    CHECK(safetensors_not_finite(brains, DTYPE_BF16, 3) == 0 &&
              safetensors_not_finite(brains + 1, DTYPE_BF16, 2) == 0 &&
              safetensors_not_finite(brains + 2, DTYPE_BF16, 1) == 1,
          "bf16");
    safetensors_convert(narrow, DTYPE_BF16, large, DTYPE_F32, 3);
    CHECK(safetensors_not_finite(narrow, DTYPE_BF16, 3) == 0, "converted");

    check_begin("layers beyond config.json, shapes, widths and missing parts are refused by name");
    C3Config deeper = c, wider = c;
    deeper.dec.L = 3;
    wider.enc.F = 45;
    char *deep = whole("deep", &deeper), *wide = whole("wide", &wider), *inner = in_run(deep, "llm1"),
         *weights = in_run(where, "model.safetensors");
    Error err = {""};
    CHECK(config_write_c3(&c, deep, &err) == 0 && config_write_c3(&c, wide, &err) == 0, "%s", err.text);
    o.model = deep;
    refuse("a layer too many", &o, (const char *const[]){"model.layers.2.", "num_hidden_layers"}, 2);
    deeper.dec.L = 4;
    CHECK(config_write_c3(&deeper, deep, &err) == 0, "%s", err.text);
    refuse("a layer too few", &o, (const char *const[]){"model.layers.3.", "is missing"}, 2);
    o.model = wide;
    refuse("another width", &o,
           (const char *const[]){"llm1/model.safetensors", "mlp.gate_proj", "(44, 30)", "(45, 30)"}, 4);
    wider = deeper = c;
    wider.latents = 6;
    deeper.dec.V += 3;
    CHECK(config_write_c3(&wider, where, &err) == 0, "%s", err.text);
    o.model = where;
    refuse("other latents than Q has", &o, (const char *const[]){queries, "6 rows", "found 5"}, 3);
    o.latents = 5;
    refuse("the same with -n", &o, (const char *const[]){queries, "6 rows", "found 5"}, 3);
    o.latents = 0;
    CHECK(config_write_c3(&deeper, where, &err) == 0, "%s", err.text);
    refuse("fewer rows than vocab_size", &o, (const char *const[]){embed, "265 rows", "found 262"}, 3);
    o = options(where, llm1, NULL);
    unlink(weights);
    refuse("no weights", &o, (const char *const[]){"model.safetensors"}, 1);

    check_begin("a plain folder of no known vocabulary is refused");
    Qwen2Config q = c.enc;
    char *none = plain("unknown", &q, 256, 'p'), *path = in_run(none, "config.json"), *text = NULL;
    size_t size = 0;
    CHECK(file_read(&text, &size, path, &err) == 0 && strstr(text, "\"eos_token_id\""), "%s", err.text);
    memcpy(strstr(text, "\"eos_token_id\""), "\"eos_token_xx\"", 14);
    put(path, text, size);
    o = options(NULL, none, none);
    refuse("no eos_token_id", &o, (const char *const[]){path, "vocab_size", "K+2"}, 3);
    free(text);
    free(path);
    free(none);
    free(weights);
    free(inner);
    free(wide);
    free(deep);
    free(llm1);
    free(where);
}

int main(void) {
    Error err;
    dist = (Dist){.ranks = 1, .local_ranks = 1, .cores = 1};
    if (!mkdtemp(folder)) return perror(folder), 2;
    test_same();
    test_queries();
    test_vocabulary();
    test_plain();
    test_whole_vocabulary();
    test_swap();
    test_spellings();
    test_extract();
    test_refusals();
    if (file_remove_tree(folder, &err) != 0) printf("%s\n", err.text);
    return check_done();
}
