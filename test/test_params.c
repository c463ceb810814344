// test_params.c: the tensor table: every tensor once, nothing overlaps, buckets cover it, and what a checkpoint or the
// optimizer relies on: joined matrices, alignment, offsets inside a bucket that do not know the number of ranks.
#include <stdlib.h>

#include "llmc/model/params.h"
#include "test/check.h"

static C3Config preset(const char *name) {
    C3Config c;
    Error err;
    if (config_preset(&c, name, 0, &err) != 0) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    return c;
}

static const Param *find(const C3Params *p, ParamOwner owner, const char *name) {
    static const Param none;
    const Param *found = params_find(&p->table, owner, name);
    CHECK(found != NULL, "%s (owner %d)", name, owner);
    return found ? found : &none;
}

// Parameters counted from the shapes alone.
static size_t stack_parameters(const Qwen2Config *c) {
    size_t D = (size_t)c->D, q = (size_t)(c->NH * c->HS), kv = (size_t)(c->KV * c->HS), F = (size_t)c->F;
    size_t layer = D + q * D + 2 * kv * D + q + 2 * kv + D * q + D + 3 * F * D;
    return (size_t)c->V * D + (size_t)c->L * layer + D;
}

// Elements behind a tensor that are kept free for whole tiles of the head's product.
static size_t head_padding(const C3Params *p, const C3Config *c, const Param *q) {
    if (q->offset != p->dec.head) return 0;
    int rows = params_head_rows(c->dec.V), unit = c->dec.V >= 16384 ? 128 : 8;
    CHECK(rows % unit == 0 && rows >= c->dec.V && rows - c->dec.V < unit, "%d rows for %d", rows, c->dec.V);
    return (size_t)(rows - c->dec.V) * (size_t)c->dec.D;
}

static void check_layout(const C3Params *p, const C3Config *c, int ranks) {
    const ParamTable *t = &p->table;
    size_t end = 0, parameters = 0;
    int param = 0;
    for (int k = 0; k < t->n_buckets; k++) {
        const Bucket *b = &t->buckets[k];
        CHECK(b->offset == end, "bucket %d starts at %zu, the one before ends at %zu", k, b->offset, end);
        CHECK(b->count > 0 && b->count % ((size_t)ranks * 256) == 0, "bucket %d: %zu elements", k, b->count);
        CHECK(b->first == param && b->last > b->first, "bucket %d: params %d..%d", k, b->first, b->last);
        size_t at = b->offset;
        for (; param < b->last; param++) {
            const Param *q = &t->params[param];
            CHECK(q->bucket == k, "%s: bucket %d", q->name, q->bucket);
            CHECK(q->offset >= at && q->offset < at + 64, "%s: at %zu, free from %zu", q->name, q->offset, at);
            CHECK(q->count == (size_t)q->rows * (size_t)q->cols && (q->dims == 2 || q->cols == 1), "%s: shape",
                  q->name);
            at = q->offset + q->count + head_padding(p, c, q);
            parameters += q->count;
            for (int other = 0; other < param; other++) {
                const Param *o = &t->params[other];
                CHECK(o->owner != q->owner || strcmp(o->name, q->name) != 0, "%s: twice", q->name);
            }
        }
        end = b->offset + b->count;
        CHECK(at <= end && end - at < (size_t)ranks * 256, "bucket %d: %zu elements of padding", k, end - at);
    }
    CHECK(param == t->n && end == t->total, "%d of %d params, %zu of %zu elements", param, t->n, end, t->total);
    CHECK(parameters == t->parameters, "%zu against %zu parameters", parameters, t->parameters);
}

static void test_layout(void) {
    check_begin("layout of every preset for 1, 2, 3 and 8 ranks");
    const char *const names[] = {"demo", "tiny", "small", "medium", "paper"};
    const int ranks[] = {1, 2, 3, 8};
    for (int n = 0; n < 5; n++) {
        C3Config c = preset(names[n]);
        for (int r = 0; r < 4; r++) {
            C3Params p;
            Error err = {""};
            CHECK(params_build(&p, &c, ranks[r], &err) == 0, "%s", err.text);
            check_layout(&p, &c, ranks[r]);
            size_t cascade = (size_t)c.latents * (size_t)c.enc.D + (size_t)c.dec.D * (size_t)c.enc.D + (size_t)c.dec.D;
            CHECK(p.table.parameters == stack_parameters(&c.enc) + stack_parameters(&c.dec) + cascade, "%s: %zu",
                  names[n], p.table.parameters);
            params_free(&p);
        }
    }
    check_begin("the paper's model has 4.63 billion parameters");
    C3Config c = preset("paper");
    C3Params p;
    CHECK(params_build(&p, &c, 8, NULL) == 0, "paper");
    CHECK(p.table.parameters / 10000000 == 463, "%zu", p.table.parameters);
    CHECK(p.table.n_buckets == 28 + 36 + 4, "%d buckets", p.table.n_buckets);
    params_free(&p);
}

static void check_stack(const C3Params *p, const StackParams *s, const Qwen2Config *c, ParamOwner owner) {
    CHECK(find(p, owner, "model.embed_tokens.weight")->offset == s->embed, "embedding");
    CHECK(find(p, owner, "model.norm.weight")->offset == s->norm, "final norm");
    CHECK(find(p, owner, "model.norm.weight")->bucket == s->final_bucket, "bucket of the final norm");
    for (int l = 0; l < c->L; l++) {
        size_t base = s->layer0 + (size_t)l * s->layer_stride, D = (size_t)c->D;
        size_t q = (size_t)(c->NH * c->HS), kv = (size_t)(c->KV * c->HS);
        const struct {
            const char *name;
            size_t at, count;
        } places[] = {
            {"input_layernorm.weight", s->ln1, D},
            {"self_attn.q_proj.weight", s->qkv, q * D},
            {"self_attn.k_proj.weight", s->qkv + q * D, kv * D},
            {"self_attn.v_proj.weight", s->qkv + (q + kv) * D, kv * D},
            {"self_attn.q_proj.bias", s->qkv_bias, q},
            {"self_attn.k_proj.bias", s->qkv_bias + q, kv},
            {"self_attn.v_proj.bias", s->qkv_bias + q + kv, kv},
            {"self_attn.o_proj.weight", s->o, D * q},
            {"post_attention_layernorm.weight", s->ln2, D},
            {"mlp.gate_proj.weight", s->gate_up, (size_t)c->F * D},
            {"mlp.up_proj.weight", s->gate_up + (size_t)c->F * D, (size_t)c->F * D},
            {"mlp.down_proj.weight", s->down, (size_t)c->F * D},
        };
        for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
            char name[64];
            snprintf(name, sizeof name, "model.layers.%d.%s", l, places[i].name);
            const Param *found = find(p, owner, name);
            CHECK(found->offset == base + places[i].at, "%s at %zu, expected %zu", name, found->offset,
                  base + places[i].at);
            CHECK(found->count == places[i].count, "%s: %zu elements", name, found->count);
            CHECK(found->bucket == s->layer_bucket + l, "%s: bucket %d", name, found->bucket);
        }
        CHECK(p->table.buckets[s->layer_bucket + l].offset == base, "layer %d", l);
        const size_t starts[] = {s->ln1, s->qkv, s->qkv_bias, s->o, s->ln2, s->gate_up, s->down};
        for (int i = 0; i < 7; i++) CHECK((base + starts[i]) % 64 == 0, "tensor %d of layer %d is not aligned", i, l);
    }
}

static void test_places(void) {
    check_begin("StackParams points at the tensors; q|k|v and gate|up are joined");
    C3Config c = preset("tiny");
    c.dec.D = 25; // sizes that are no multiple of 64
    c.dec.HS = 30;
    c.dec.F = 333;
    C3Params p;
    CHECK(params_build(&p, &c, 3, NULL) == 0, "tiny");
    check_layout(&p, &c, 3);
    check_stack(&p, &p.enc, &c.enc, OWNER_ENCODER);
    check_stack(&p, &p.dec, &c.dec, OWNER_DECODER);
    CHECK(p.enc.head == p.enc.embed && p.dec.head == p.dec.embed, "tied heads");
    const Param *Q = find(&p, OWNER_CASCADE, "model.Q.weight"),
                *w = find(&p, OWNER_CASCADE, "model.mm_projector.weight"),
                *bias = find(&p, OWNER_CASCADE, "model.mm_projector.bias");
    CHECK(Q->offset == p.Q && Q->rows == c.latents && Q->cols == c.enc.D, "Q");
    CHECK(w->offset == p.projector && w->rows == c.dec.D && w->cols == c.enc.D, "projector");
    CHECK(bias->offset == p.projector_bias && bias->rows == c.dec.D && bias->dims == 1, "projector bias");
    CHECK(Q->bucket == p.enc.final_bucket && w->bucket == p.enc.final_bucket, "the encoder's tail holds the cascade");
    params_free(&p);

    check_begin("untied: the decoder's head is a tensor of its own, the encoder's never is");
    c.enc.tied = c.dec.tied = 0;
    CHECK(params_build(&p, &c, 2, NULL) == 0, "untied");
    check_layout(&p, &c, 2);
    const Param *head = find(&p, OWNER_DECODER, "lm_head.weight");
    CHECK(head->offset == p.dec.head && head->bucket == p.dec.final_bucket && head->decay, "head");
    CHECK(params_find(&p.table, OWNER_ENCODER, "lm_head.weight") == NULL && p.enc.head == p.enc.embed, "encoder");
    params_free(&p);
}

static int ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static void test_treatment(void) {
    check_begin("groups, decay and initialisation");
    C3Config c = preset("tiny");
    c.dec.tied = 0;
    C3Params p;
    CHECK(params_build(&p, &c, 1, NULL) == 0, "tiny");
    for (int i = 0; i < p.table.n; i++) {
        const Param *q = &p.table.params[i];
        int latent = strstr(q->name, "model.Q") || strstr(q->name, "mm_projector");
        ParamGroup group = latent ? GROUP_LATENT : q->owner == OWNER_ENCODER ? GROUP_ENCODER : GROUP_DECODER;
        CHECK(q->group == group && (q->owner == OWNER_CASCADE) == !!latent, "%s: group %d", q->name, q->group);
        int norm = ends_with(q->name, "norm.weight"), bias = ends_with(q->name, "bias");
        int matrix = !norm && !bias && !strstr(q->name, "embed") && !strstr(q->name, "model.Q");
        CHECK(q->decay == matrix, "%s: decay %d", q->name, q->decay);
        CHECK(q->init == (norm ? INIT_ONE : bias ? INIT_ZERO : INIT_NORMAL), "%s: init %d", q->name, q->init);
        CHECK(q->dims == (norm || bias ? 1 : 2), "%s: %d dimensions", q->name, q->dims);
    }
    params_free(&p);
}

static void test_ranks(void) {
    check_begin("places inside a bucket do not depend on the number of ranks");
    C3Config c = preset("small");
    C3Params one, many;
    CHECK(params_build(&one, &c, 1, NULL) == 0 && params_build(&many, &c, 7, NULL) == 0, "small");
    CHECK(one.table.n == many.table.n && one.table.n_buckets == many.table.n_buckets, "same tensors");
    for (int i = 0; i < one.table.n; i++) {
        const Param *a = &one.table.params[i], *b = &many.table.params[i];
        size_t at_a = a->offset - one.table.buckets[a->bucket].offset;
        size_t at_b = b->offset - many.table.buckets[b->bucket].offset;
        CHECK(at_a == at_b && a->bucket == b->bucket && strcmp(a->name, b->name) == 0, "%s: %zu, %zu", a->name, at_a,
              at_b);
    }
    params_free(&one);
    params_free(&many);

    check_begin("impossible models are refused");
    Error err = {""};
    CHECK(params_build(&one, &c, 0, &err) != 0 && strstr(err.text, "ranks"), "%s", err.text);
    C3Config bad = c;
    bad.latents = 0;
    CHECK(params_build(&one, &bad, 1, &err) != 0 && strstr(err.text, "latents"), "%s", err.text);
    bad = c;
    bad.dec.F = -5;
    CHECK(params_build(&one, &bad, 1, &err) != 0 && strstr(err.text, "intermediate_size"), "%s", err.text);
}

int main(void) {
    test_layout();
    test_places();
    test_treatment();
    test_ranks();
    return check_done();
}
