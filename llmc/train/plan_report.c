// plan_report.c: what a plan says: data, memory, disk, work, and, where the GPU is known, predicted times, the largest
// first. See plan.h.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/base/clean.h"
#include "llmc/base/file.h"
#include "llmc/base/format.h"
#include "llmc/train/plan.h"

// ---- disk ----------------------------------------------------------------------------------------------------------

int plan_check_disk(const Plan *p, Error *err) {
    uint64_t space;
    char a[32], b[32];
    if (file_free_bytes(&space, p->o->out, NULL) != 0 || p->choice.bytes.checkpoint <= space) return 0;
    return error_set(err, "%s: a checkpoint takes %s, the disk has %s left (hint: -o on another disk)", p->o->out,
                     format_bytes(a, (double)p->choice.bytes.checkpoint), format_bytes(b, (double)space));
}

// ---- tables --------------------------------------------------------------------------------------------------------

static void print_stack(FILE *out, const char *name, const Qwen2Config *c, const ParamTable *t, ParamOwner owner) {
    char count[32];
    fprintf(out, "  %-12s %14s   %d layers, width %d, heads %d/%d x %d, mlp %d, vocabulary %d\n", name,
            format_count(count, params_owned(t, owner)), c->L, c->D, c->NH, c->KV, c->HS, c->F, c->V);
}

static void print_row(FILE *out, const char *name, double bytes, const char *note) {
    char text[32];
    fprintf(out, "  %-12s %14s%s%s\n", name, format_bytes(text, bytes), note[0] ? "   " : "", note);
}

static void print_pages(FILE *out, const char *name, const Dataset *d, int64_t maxlen) {
    char count[32], total[32], left_out[160];
    fprintf(out, "  %-14s %s of %s text tokens in %d file(s)", name, format_count(count, (double)d->pages),
            format_count(total, (double)d->tokens), d->n_shards);
    if (d->too_long.pages)
        fprintf(out, "; %s longer than -maxlen %lld left out", left_out_text(left_out, &d->too_long),
                (long long)maxlen);
    fprintf(out, "\n");
    if (left_out_much(&d->too_long))
        fprintf(out, "  %-14s warning: much of the text is not used: raise -maxlen, or cut the pages\n", "");
    if (d->unnamed) fprintf(out, "  %-14s %d more file(s) of the same data are not named\n", "", d->unnamed);
    if (d->trusted)
        fprintf(out, "  %-14s checksums of %d file(s) not computed, an earlier check is remembered (c3 info -check)\n",
                "", d->trusted);
}

// What each of several sets is of the data, and of the pages that are drawn.
static void print_sets(FILE *out, const Plan *p) {
    const Dataset *d = p->train;
    double weights = 0, all = (double)p->steps * (double)p->pages_a_step;
    char pages[32], tokens[32];
    for (int i = 0; i < d->n_sets; i++) weights += d->sets[i].weight;
    for (int i = 0; i < d->n_sets && d->n_sets > 1; i++) {
        const PageSet *s = &d->sets[i];
        double share = weights > 0 ? s->weight / weights : (double)s->pages / (double)d->pages;
        fprintf(out, "  %-14s %s of %s text tokens: %.1f %% of the pages that are trained on, %.3g epochs of it\n",
                s->name, format_count(pages, (double)s->pages), format_count(tokens, (double)s->tokens), 100 * share,
                all * share / (double)s->pages);
    }
}

static void print_data(FILE *out, const Plan *p) {
    const TrainOptions *o = p->o;
    fprintf(out, "data\n");
    if (!p->train) {
        fprintf(out,
                "  %-14s assumed, no data was read: %.0f text tokens each, the longest %d (-plan_tokens, "
                "-plan_longest)\n",
                "pages", p->text_tokens, p->shape.longest.outputs - 1);
    } else {
        print_pages(out, "pages", p->train, o->maxlen);
        print_sets(out, p);
        for (int i = 0; i < p->n_val; i++) {
            char name[DATA_NAME + 16];
            snprintf(name, sizeof name, "validation%s%s", p->val[i].sets[0].name[0] ? " " : "", p->val[i].sets[0].name);
            print_pages(out, name, &p->val[i], o->maxlen);
        }
    }
    if (p->shape.config->window)
        fprintf(out, "  %-14s of %d tokens, %d latents each: the average page has %.3g, the longest up to %d\n",
                "windows", p->shape.config->window, p->shape.config->latents, p->shape.windows,
                p->shape.longest.windows);
    fprintf(out, "  %-14s %lld of %lld pages each (-b %lld x -g %lld x %d ranks)", "steps", (long long)p->steps,
            (long long)p->pages_a_step, (long long)o->b, (long long)o->g, p->shape.ranks);
    if (!p->train) fprintf(out, "\n");
    else fprintf(out, ": %.3g epochs\n", (double)p->steps * (double)p->pages_a_step / (double)p->train->pages);
}

static void print_parameters(FILE *out, const Plan *p) {
    const ParamTable *t = &p->shape.params->table;
    char count[32];
    fprintf(out, "parameters\n");
    print_stack(out, "encoder", &p->shape.config->enc, t, OWNER_ENCODER);
    print_stack(out, "decoder", &p->shape.config->dec, t, OWNER_DECODER);
    fprintf(out, "  %-12s %14s   %d latents, projector %d -> %d\n", "cascade",
            format_count(count, params_owned(t, OWNER_CASCADE)), p->shape.config->latents, p->shape.config->enc.D,
            p->shape.config->dec.D);
    fprintf(out, "  %-12s %14s\n", "total", format_count(count, (double)t->parameters));
}

static void print_memory(FILE *out, const Plan *p) {
    static const char *const modes[] = {"all kept", "norms and SwiGLU computed again (-recompute cheap)",
                                        "layers computed again (-recompute layer)"};
    const PlanBytes *b = &p->choice.bytes;
    const C3Limits *l = &p->choice.limits;
    char note[160], text[2][32];
    fprintf(out, "memory of a rank%s%s\n", p->machine ? ", " : "", p->machine ? p->machine : "");
    print_row(out, "parameters", (double)b->parameters, p->shape.dtype == DTYPE_F32 ? "fp32" : "bf16");
    print_row(out, "gradients", (double)b->gradients,
              p->shape.zero == 2 ? "fp32, divided over the ranks (ZeRO-2)" : "fp32");
    print_row(out, "optimizer", (double)b->optimizer,
              p->shape.zero ? "AdamW moments and master weights, divided over the ranks (ZeRO-1)"
                            : "AdamW moments and master weights");
    snprintf(note, sizeof note, "%s and %s rows at a time, %s", format_count(text[0], l->enc_rows),
             format_count(text[1], l->dec_rows), modes[l->recompute]);
    print_row(out, "activations", (double)b->activations, note);
    print_row(out, "inputs", (double)b->inputs, "");
    if (b->scratch) print_row(out, "scratch", (double)b->scratch, "of the products and row sums");
    print_row(out, "total", (double)b->total, "");
    if (b->memory) {
        snprintf(note, sizeof note, "of %s", format_bytes(text[0], (double)b->memory));
        size_t at = strlen(note);
        if (b->reserve)
            snprintf(note + at, sizeof note - at, "; %s of it left alone for the driver, NCCL and fragmentation",
                     format_bytes(text[0], (double)b->reserve));
        double spare = (double)b->memory - (double)b->total;
        print_row(out, spare < 0 ? "short" : "spare", fabs(spare), note);
    }
    double pages = (double)(p->o->b * p->o->g) / p->choice.batches;
    fprintf(out, "  %-12s %14.3g   pages at a time on average (-fuse %s): %.0f device batches a step\n", "fused", pages,
            p->o->fuse, p->choice.batches);
    int copies = p->o->keep_best ? 3 : 2; // the new one, the old one, the best
    snprintf(note, sizeof note, "all ranks; %s that while the old one is still kept",
             copies == 3 ? "three times" : "twice");
    uint64_t space;
    if (!p->o->gpu && file_free_bytes(&space, p->o->out, NULL) == 0) { // nothing is known of another machine
        size_t at = strlen(note);
        snprintf(note + at, sizeof note - at, "; free for %s: %s%s", clean(p->o->out),
                 format_bytes(text[0], (double)space),
                 b->checkpoint <= space / (uint64_t)copies ? ""
                 : copies == 3                             ? ", too little for three"
                                                           : ", too little for two");
    }
    fprintf(out, "disk\n");
    print_row(out, "checkpoint", (double)b->checkpoint, note);
}

// ---- work and times ------------------------------------------------------------------------------------------------

// Returns the FLOPs of a step, all ranks.
static double print_work(FILE *out, const Plan *p) {
    char count[32];
    C3Config average = *p->shape.config;
    average.latents = (int)lround(p->shape.latents);
    C3Flops f = c3_page_flops(&average, (int)lround(p->text_tokens), p->words, 1);
    double pages = (double)p->pages_a_step, step = pages * (f.encoder + f.decoder + f.head);
    fprintf(out, "work of a step: %s pages of %.0f text tokens\n", format_count(count, pages), p->text_tokens);
    fprintf(out, "  %-12s %12.3g FLOP   encoder %.0f %%, decoder %.0f %%, head and loss %.0f %%\n", "forward+back",
            step, 100 * pages * f.encoder / step, 100 * pages * f.decoder / step, 100 * pages * f.head / step);
    return step;
}

// "1.63 s", "0.0178 s"
static const char *step_time(char buffer[32], double seconds) {
    snprintf(buffer, 32, seconds < 0.1 ? "%.3g s" : "%.2f s", seconds);
    return buffer;
}

// "18.1 h"; in minutes what takes less than one, in days what takes more than anyone waits for.
static const char *run_time(char buffer[32], double seconds) {
    if (seconds < 3600 || seconds >= 1000 * 3600) return format_time(buffer, seconds);
    snprintf(buffer, 32, "%.1f h", seconds / 3600);
    return buffer;
}

static void print_parts(FILE *out, const RooflineTimes *t) {
    int order[PART_PARTS]; // the longest first
    for (int i = 0; i < PART_PARTS; i++) {
        int k = i;
        for (; k > 0 && t->parts[order[k - 1]].seconds < t->parts[i].seconds; k--) order[k] = order[k - 1];
        order[k] = i;
    }
    fprintf(out, "  %-26s %9s %7s %12s %12s\n", "a rank", "ms", "share", "TFLOP", "GB");
    for (int i = 0; i < PART_PARTS; i++) {
        const RooflinePart *part = &t->parts[order[i]];
        char flops[32] = "", bytes[32] = "";
        if (part->seconds <= 0) continue;
        if (part->flops > 0) snprintf(flops, sizeof flops, "%.4g", part->flops / 1e12);
        if (part->bytes > 0) snprintf(bytes, sizeof bytes, "%.4g", part->bytes / 1e9);
        fprintf(out, "  %-26s %9.1f %5.1f %% %12s %12s\n", roofline_part_name(order[i]), 1e3 * part->seconds,
                100 * part->seconds / t->total, flops, bytes);
    }
    fprintf(out, "  (the products also read %.0f GB of weights, inside their time)\n", t->weights / 1e9);
}

double plan_times(RooflineTimes *t, const Plan *p, double faster) {
    RooflineRates rates = roofline_rates(p->shape.gpu, p->shape.dtype, p->peak_flops);
    RooflineLoad load = plan_load(&p->shape, &p->choice);
    rates.products *= faster;
    roofline_step(t, &load, &rates);
    return t->total;
}

static void print_times(FILE *out, const Plan *p, double flops) {
    RooflineTimes t, other;
    const Gpu *gpu = p->shape.gpu;
    const int ranks = p->shape.ranks;
    const double steps = (double)p->steps, low = plan_times(&other, p, 1.1), high = plan_times(&other, p, 0.9);
    const double ideal = flops / ((p->shape.dtype == DTYPE_F32 ? gpu->fp32 : gpu->bf16) * ranks);
    char text[2][32];
    if (!roofline_models(gpu, p->shape.dtype)) {
        fprintf(out, "  %-12s %14s   %s: how fast attention's instruction, mma.sync, is there is not public\n", "time",
                "not modelled", gpu->title);
        return;
    }
    plan_times(&t, p, 1);
    fprintf(out, "time of a step on %d x %s, predicted, not measured\n", ranks, gpu->title);
    print_parts(out, &t);
    if (ranks > 1)
        fprintf(out,
                "  collectives: reduce-scatter %.0f ms overlaps the last backward pass of %.0f ms, all-gather %.0f ms "
                "the next forward pass of %.0f ms\n",
                1e3 * t.reduce, 1e3 * t.backward, 1e3 * t.gather, 1e3 * t.forward);
    fprintf(out, "  predicted  %s a step (%s at the data sheet's peak: MFU %.1f %%), %.0f text tokens/s, ",
            step_time(text[0], t.total), step_time(text[1], ideal), 100 * ideal / t.total,
            (double)p->pages_a_step * p->text_tokens / t.total);
    fprintf(out, "%lld steps in %s\n", (long long)p->steps, run_time(text[0], t.total * steps));
    fprintf(out, low < 0.1 ? "  range      %.3g to %.3g s, " : "  range      %.2f to %.2f s, ", low, high);
    if (low * steps >= 3600) fprintf(out, "%.1f to %.1f h", low * steps / 3600, high * steps / 3600);
    else fprintf(out, "%s to %s", format_time(text[0], low * steps), format_time(text[1], high * steps));
    fprintf(out, " with products 10 %% faster or slower\n%s", roofline_assumptions());
    if (strcmp(p->o->freeze, "none") != 0)
        fprintf(out, "  left out what -freeze %s spares: the products of that stack's weight gradients\n",
                p->o->freeze);
    if (p->peak_flops > 0)
        fprintf(out, "  measured   products of this machine, %.0f TFLOP/s, in place of the fitted rate\n",
                p->peak_flops / 1e12);
}

void plan_print(FILE *out, const Plan *p) {
    print_data(out, p);
    print_parameters(out, p);
    print_memory(out, p);
    double step = print_work(out, p);
    if (p->shape.gpu && p->shape.is_gpu) {
        print_times(out, p, step);
    } else if (p->peak_flops > 0) {
        double seconds = step / (p->peak_flops * p->shape.ranks), steps = (double)p->steps;
        char text[32];
        fprintf(out, "  %-12s %12.3g s      at the measured peak, %.0f GFLOP/s a rank; %lld steps: %s\n", "at least",
                seconds, p->peak_flops / 1e9, (long long)p->steps, run_time(text, seconds * steps));
    } else {
        fprintf(out, "  %-12s %14s   -gpu predicts it for a GPU that it knows\n", "time", "n/a");
    }
}

// ---- -plan ---------------------------------------------------------------------------------------------------------

static int run(FILE *out, const TrainOptions *o, const Corpus *corpus, const ModelFiles *files, const Dist *dist,
               const PlanMachine *machine, Error *err) {
    C3Params params;
    Plan plan;
    int ranks = plan_ranks(o, dist);
    TRY(params_build(&params, &files->config, ranks, err));
    int64_t steps = options_steps(o, corpus ? corpus->train.pages : 0, ranks);
    int bad = plan_make(&plan, o, corpus, &files->config, &params, dist, machine, steps, err);
    if (!bad && dist->rank == 0) {
        fprintf(out, "settings\n  %-14s %s\n", "model", clean(files->text));
        plan_print(out, &plan);
        if (plan.refusal.text[0] && !o->gpu)
            fprintf(out, "here this does not fit: %s; -gpu h100 -plan_ranks 8 plans for GPUs\n", plan.refusal.text);
    }
    if (!bad && plan.refusal.text[0] && o->gpu) bad = error_set(err, "%s", plan.refusal.text);
    params_free(&params);
    return bad;
}

// Whether there are pages and a tokenizer to read; -data or -tok given on the command line must be there.
static int open_data(Corpus *corpus, ModelFiles *files, const TrainOptions *o, int *found, Error *err) {
    TrainOptions fresh;
    OptionTable table = {.n = 0};
    options_table(&fresh, &table);
    ModelChoice choice = options_model(o);
    *found = model_files_open(files, &choice, err) == 0 && corpus_open(corpus, files, o, err) == 0;
    if (*found) return 0;
    corpus_close(corpus);
    model_files_close(files);
    if (o->data.n != 1 || strcmp(o->data.values[0], fresh.data.values[0]) != 0 || o->tokenizer) return -1;
    return model_files_shapes(files, &choice, 1, err);
}

int plan_run(FILE *out, const TrainOptions *o, const Dist *dist, const PlanMachine *machine, Error *err) {
    ModelFiles files;
    Corpus corpus = {0};
    int found;
    TRY(open_data(&corpus, &files, o, &found, err));
    int bad = run(out, o, found ? &corpus : NULL, &files, dist, machine, err);
    if (found) corpus_close(&corpus);
    model_files_close(&files);
    return bad;
}
