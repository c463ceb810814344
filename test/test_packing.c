// test_packing.c: the plan's limits against what step_pack makes of real pages: as many device batches as planned, none
// larger than planned.
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/base/file.h" // file_remove_tree
#include "llmc/train/plan.h"
#include "llmc/train/step.h"
#include "test/check.h"

static PlanChoice choose(const PlanShape *s) {
    PlanChoice c = {0};
    Error err = {""};
    CHECK(plan_choose(&c, s, &err) == 0, "%s", err.text);
    return c;
}

// Device batches of a step that step_pack makes of pages of these lengths in turn, with the choice's limits.
static int packed(const PlanShape *s, const PlanChoice *c, const int *lengths, int n_lengths) {
    char path[] = "/tmp/test_plan_XXXXXX", *shard;
    int32_t ids[4096] = {0}, prompt[32] = {0};
    uint8_t fingerprint[32] = {0};
    Template t = {.prefix = prompt, .suffix = prompt, .n_prefix = 21, .n_suffix = 11};
    ShardWriter *w;
    Dataset d;
    Loader *loader;
    StepPack pack;
    Backend *b;
    Dist one = {.ranks = 1, .local_ranks = 1, .cores = 1};
    Error err = {""};
    int n = -1, pages = s->b * s->g;
    if (!mkdtemp(path) || !(shard = string_format("%s/x.bin", path))) return -1;
    int bad = shard_writer_open(&w, shard, (uint32_t)s->config->dec.V, fingerprint, &err);
    for (int i = 0; !bad && i < pages; i++)
        bad = shard_writer_add(w, ids, (size_t)lengths[i % n_lengths], NULL, 0, &err);
    bad = bad || shard_writer_commit(w, &err) || dataset_open(&d, shard, NULL, &err) ||
          backend_cpu_create(&b, DTYPE_F32, 1, &one, &err);
    LoaderConfig loading = {.b = s->b, .g = s->g, .ranks = 1};
    StepConfig config = {.model = s->config,
                         .prompt = &t,
                         .most = c3_batch_rows(&c->limits),
                         .longest = s->longest,
                         .fuse = c->fuse,
                         .b = s->b,
                         .g = s->g,
                         .ranks = 1};
    if (!bad && !(bad = loader_open(&loader, &d, &loading, (LoaderState){.seed = 1, .dataset = d.identity}, 1, &err))) {
        if (!(bad = step_create(&pack, &config, b, &err))) {
            step_pack(&pack, &config, loader_next(loader));
            n = pack.n;
            for (int i = 0; i < n; i++) {
                CHECK(pack.micro[i].dec.rows <= c->limits.dec_rows && pack.micro[i].enc.rows <= c->limits.enc_rows &&
                          pack.micro[i].dec.outputs <= c->limits.dec_outputs &&
                          pack.micro[i].dec.pages <= c->limits.pages,
                      "batch %d is larger than the limits", i);
            }
            step_free(&pack);
        }
        loader_close(loader);
        dataset_close(&d);
        b->destroy(b);
    }
    CHECK(!bad, "%s", err.text);
    file_remove_tree(path, NULL);
    free(shard);
    return n;
}

int main(void) {
    check_begin("pages of one length: exactly as many device batches as planned");
    C3Config tiny;
    C3Params params;
    Error err;
    if (config_preset(&tiny, "tiny", 0, &err) || params_build(&params, &tiny, 1, &err)) return 2;
    PlanShape s = {.config = &tiny,
                   .params = &params,
                   .b = 3,
                   .g = 14,
                   .ranks = 1,
                   .dtype = DTYPE_F32,
                   .is_gpu = 1,
                   .recompute = RECOMPUTE_NONE,
                   .longest = {1, 109, 140, 101},
                   .enc = 109,
                   .dec = 140,
                   .outputs = 101,
                   .latents = 8};
    const int uniform[] = {100}, mixed[] = {100, 10, 20, 15, 40, 20, 10, 25};
    s.fuse = 1;
    size_t one = choose(&s).bytes.total; // of a micro-batch
    for (int i = 0; i < 40; i++) {
        s.fuse = i % 5; // 0: choose
        s.memory = one / 2 + one / 4 * (size_t)i / 5;
        PlanChoice c;
        if (plan_choose(&c, &s, &err) != 0) continue;
        int n = packed(&s, &c, uniform, 1);
        CHECK(n == (int)c.batches, "fuse %d, %zu bytes: %d batches, planned %.0f", s.fuse, s.memory, n, c.batches);
    }
    check_begin("pages of mixed lengths: about as many");
    s.enc = 30 + 9;
    s.dec = 30 + 40;
    s.outputs = 30 + 1;
    for (int i = 0; i < 20; i++) {
        s.fuse = i % 5;
        s.memory = one / 2 + one / 4 * (size_t)i / 5;
        PlanChoice c;
        if (plan_choose(&c, &s, &err) != 0) continue;
        int n = packed(&s, &c, mixed, 8);
        CHECK(n >= 0.6 * c.batches - 1 && n <= 1.6 * c.batches + 1, "fuse %d, %zu bytes: %d batches, planned %.0f",
              s.fuse, s.memory, n, c.batches);
    }
    params_free(&params);
    return check_done();
}
