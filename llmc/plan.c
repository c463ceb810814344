// plan.c: see plan.h.
#include "plan.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint.h" // checkpoint_bytes

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

int plan_bytes(PlanBytes *bytes, const Plan *p, Error *err) {
    C3Memory m;
    if (c3_memory(&m, p->config, p->params, &p->limits, p->dtype, 0) != 0) return error_set(err, "out of memory");
    m.gradients += optimizer_shard_bytes(p->params, p->zero);
    *bytes = (PlanBytes){.parameters = m.parameters, .gradients = m.gradients, .activations = m.activations,
                         .inputs = m.inputs, .optimizer = optimizer_bytes(p->params, p->dtype, p->zero)};
    bytes->total = m.parameters + m.gradients + m.activations + m.inputs + bytes->optimizer;
    bytes->checkpoint = checkpoint_bytes(p->params, p->dtype);
    return 0;
}

int plan_make(Plan *p, PlanBytes *bytes, const TrainOptions *o, const Corpus *corpus, const C3Config *config,
              const C3Params *params, const Dist *dist, int64_t steps, Error *err) {
    *p = (Plan){
        .o = o,
        .corpus = corpus,
        .config = config,
        .params = params,
        .dtype = options_dtype(o),
        .ranks = dist->ranks,
        .local_ranks = dist->local_ranks,
        .zero = options_optimizer(o, steps, dist->ranks).zero,
        .pages_a_step = o->b * o->g * dist->ranks,
        .text_tokens = (double)corpus->train.tokens / (double)corpus->train.pages,
        .before_text = template_overhead(&corpus->words, config->latents),
        .steps = steps,
    };
    BatchRows page = corpus_longest(corpus);
    int b = (int)o->b, fuse = p->fuse = 1;
    p->limits = (C3Limits){.pages = fuse * b, .enc_rows = fuse * b * page.enc, .dec_rows = fuse * b * page.dec,
                           .dec_kept = fuse * b * page.kept, .loss_rows = b * (int)o->g * page.kept,
                           .zero = p->zero, .recompute = options_recompute(o)};
    return plan_bytes(bytes, p, err);
}

static void print_stack(FILE *out, const char *name, const Qwen2Config *c, const ParamTable *t, ParamOwner owner) {
    char count[32];
    double n = 0;
    for (int i = 0; i < t->n; i++) n += t->params[i].owner == owner ? (double)t->params[i].count : 0;
    fprintf(out, "  %-12s %14s   %d layers, width %d, heads %d/%d x %d, mlp %d, vocabulary %d\n", name,
            format_count(count, n), c->L, c->D, c->NH, c->KV, c->HS, c->F, c->V);
}

static void print_row(FILE *out, const char *name, double bytes, const char *note) {
    char text[32];
    fprintf(out, "  %-12s %14s   %s\n", name, format_bytes(text, bytes), note);
}

void plan_print(FILE *out, const Plan *p, const PlanBytes *bytes) {
    const ParamTable *t = &p->params->table;
    char count[32], total[32];
    double cascade = 0;
    for (int i = 0; i < t->n; i++) cascade += t->params[i].owner == OWNER_CASCADE ? (double)t->params[i].count : 0;
    const Dataset *d = &p->corpus->train;
    fprintf(out, "data\n  %-14s %s of %s text tokens in %d file(s); %llu longer than -maxlen %lld left out\n", "pages",
            format_count(count, (double)d->pages), format_count(total, (double)d->tokens), d->n_shards,
            (unsigned long long)d->skipped, (long long)p->o->maxlen);
    fprintf(out, "  %-14s %lld of %lld pages each (-b %lld x -g %lld x %d ranks): %.3g epochs\n", "steps",
            (long long)p->steps, (long long)p->pages_a_step, (long long)p->o->b, (long long)p->o->g, p->ranks,
            (double)p->steps * (double)p->pages_a_step / (double)d->pages);
    fprintf(out, "parameters\n");
    print_stack(out, "encoder", &p->config->enc, t, OWNER_ENCODER);
    print_stack(out, "decoder", &p->config->dec, t, OWNER_DECODER);
    fprintf(out, "  %-12s %14s   %d latents, projector %d -> %d\n", "cascade", format_count(count, cascade),
            p->config->latents, p->config->enc.D, p->config->dec.D);
    fprintf(out, "  %-12s %14s\n", "total", format_count(count, (double)t->parameters));

    const char *element = p->dtype == DTYPE_F32 ? "fp32" : "bf16";
    fprintf(out, "memory of a rank\n");
    print_row(out, "parameters", (double)bytes->parameters, element);
    print_row(out, "gradients", (double)bytes->gradients, "fp32");
    print_row(out, "optimizer", (double)bytes->optimizer,
              p->zero ? "AdamW moments and master weights, divided over the ranks (ZeRO-1)"
                      : "AdamW moments and master weights");
    print_row(out, "activations", (double)bytes->activations, "for the longest micro-batch the data can give");
    print_row(out, "inputs", (double)bytes->inputs, "");
    print_row(out, "total", (double)bytes->total, "");
    fprintf(out, "disk\n");
    print_row(out, "checkpoint", (double)bytes->checkpoint, "all ranks; twice that while the old one is still kept");

    C3Flops f = c3_page_flops(p->config, (int)lround(p->text_tokens), p->before_text, 1);
    double pages = (double)p->pages_a_step, step = pages * (f.encoder + f.decoder + f.head);
    fprintf(out, "work of a step: %s pages of %.0f text tokens\n", format_count(count, pages), p->text_tokens);
    fprintf(out, "  %-12s %12.3g FLOP   encoder %.0f %%, decoder %.0f %%, head and loss %.0f %%\n", "forward+back",
            step, 100 * pages * f.encoder / step, 100 * pages * f.decoder / step, 100 * pages * f.head / step);
    if (p->peak_flops > 0) {
        double seconds = step / (p->peak_flops * p->ranks);
        fprintf(out, "  %-12s %12.3g s      at the measured peak, %.0f GFLOP/s a rank; %lld steps: %.3g h\n",
                "at least", seconds, p->peak_flops / 1e9, (long long)p->steps, seconds * (double)p->steps / 3600);
    }
}

int plan_check_memory(const Plan *p, const PlanBytes *bytes, Error *err) {
    double have = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGE_SIZE);
    double need = (double)bytes->total * p->local_ranks;
    if (need <= have) return 0;
    char a[32], b[32], c[32], d[32];
    return error_set(err,
                     "memory: %d ranks on this host need %s, it has %s (hint: -b 1 or a smaller -maxlen or -recompute "
                     "layer cut the activations, %s a rank; -zero 1 divides the optimizer state, %s)",
                     p->local_ranks, format_bytes(a, need), format_bytes(b, have),
                     format_bytes(c, (double)bytes->activations), format_bytes(d, (double)bytes->optimizer));
}
