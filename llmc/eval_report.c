// eval_report.c: the files of an evaluation. See eval.h, which says what is in them.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clean.h"
#include "eval.h"
#include "file.h"
#include "json.h"
#include "published.h"

const char *const eval_control_name[N_CONTROLS] = {"swapped_latents", "no_latents", "zero_latents"};

int eval_control_ran(const EvalFiles *f, const EvalSet *s, int control) {
    return f->no_latents_text && (s->n > 1 || control == CONTROL_ZERO);
}

// The means by name: keys of eval.json and columns of buckets.csv.
enum { N_MEANS = 12 };
typedef struct NamedMean {
    const char *key, *what;
    double value;
} NamedMean;

static void name_means(NamedMean out[N_MEANS], const EvalMeans *m) {
    const NamedMean list[N_MEANS] = {
        {"char_precision",
         "1 - Levenshtein distance / length of the longer text, in Unicode characters of the NFC form; mean over pages",
         m->char_precision},
        {"char_precision_micro", "1 - all distances / all longer lengths", m->char_precision_micro},
        {"exact_match", "share of pages that came back without an error", m->exact_match},
        {"word_precision",
         "words of the reconstruction that the original has, as sets / words of the reconstruction; words by white "
         "space, where Chinese occurs single characters (pages_by_character); mean over pages",
         m->word_precision},
        {"word_recall",
         "the same words / words of the original; what the Fox benchmark's own tool prints as precision, for it calls "
         "its function with the two texts swapped (and cuts Chinese into words with jieba)",
         m->word_recall},
        {"word_f1", "harmonic mean of a page's word precision and recall; mean over pages", m->word_f1},
        {"bleu4",
         "BLEU of 1- to 4-grams of these words with method-1 smoothing, as nltk's sentence_bleu; mean over pages",
         m->bleu4},
        {"rouge_l", "F1 of the longest common subsequence of these words, as rouge-score; mean over pages", m->rouge_l},
        {"token_match", "free-running: positions with the same token in both texts / tokens of the originals",
         m->token_match},
        {"token_accuracy",
         "teacher-forced: rows whose largest logit is the true token, the end mark included, the text before it the "
         "true one",
         m->token_accuracy},
        {"loss", "teacher-forced: mean of -ln p over the same rows, nats a token", m->loss},
        {"perplexity", "exp(loss)", exp(m->loss)},
    };
    memcpy(out, list, sizeof list);
}

// ---- eval.json -----------------------------------------------------------------------------------------------------

static void json_means(cJSON *root, const EvalMeans *m) {
    NamedMean list[N_MEANS];
    name_means(list, m);
    for (int i = 0; i < N_MEANS; i++) cJSON_AddNumberToObject(root, list[i].key, list[i].value);
}

static void json_positions(cJSON *root, const EvalMeans *m) {
    cJSON_AddItemToObject(root, "by_position", cJSON_CreateDoubleArray(m->by_position, METRICS_SLICES));
}

static void json_buckets(cJSON *root, const EvalSummary *sum) {
    cJSON *list = cJSON_AddArrayToObject(root, "buckets");
    for (int b = 0; b < sum->n_buckets; b++) {
        const EvalBucket *k = &sum->buckets[b];
        cJSON *o = cJSON_CreateObject();
        cJSON_AddNumberToObject(o, "from", k->from);
        cJSON_AddNumberToObject(o, "to", k->to);
        cJSON_AddNumberToObject(o, "pages", k->m.pages);
        if (k->m.pages) {
            cJSON_AddNumberToObject(o, "compression", k->m.compression);
            json_means(o, &k->m);
            json_positions(o, &k->m);
        } else {
            cJSON_AddNullToObject(o, "compression");
            cJSON_AddNullToObject(o, "char_precision");
        }
        cJSON_AddItemToArray(list, o);
    }
}

static void json_published(cJSON *root) {
    cJSON *list = cJSON_AddArrayToObject(root, "published");
    for (int i = 0; i < N_PUBLISHED; i++) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "name", published[i].name);
        cJSON_AddNumberToObject(o, "latents", published[i].latents);
        cJSON *buckets = cJSON_AddArrayToObject(o, "buckets");
        for (int b = 0; b < PUBLISHED_BUCKETS; b++) {
            cJSON *k = cJSON_CreateObject();
            cJSON_AddNumberToObject(k, "from", PUBLISHED_FROM + b * PUBLISHED_STEP);
            cJSON_AddNumberToObject(k, "to", PUBLISHED_FROM + (b + 1) * PUBLISHED_STEP);
            cJSON_AddNumberToObject(k, "precision", published[i].precision[b] / 100);
            if (published[i].compression[b] > 0) cJSON_AddNumberToObject(k, "compression", published[i].compression[b]);
            else cJSON_AddNullToObject(k, "compression");
            cJSON_AddItemToArray(buckets, k);
        }
        cJSON_AddItemToArray(list, o);
    }
}

static cJSON *json_forced(cJSON *root, const char *key, double loss, double accuracy, const char *what) {
    cJSON *o = cJSON_AddObjectToObject(root, key);
    cJSON_AddNumberToObject(o, "token_accuracy", accuracy);
    cJSON_AddNumberToObject(o, "loss", loss);
    cJSON_AddNumberToObject(o, "perplexity", exp(loss));
    cJSON_AddStringToObject(o, "what", what);
    return o;
}

static void json_controls(cJSON *root, const EvalFiles *f, const EvalSet *s, const EvalSummary *sum) {
    static const char *const what[N_CONTROLS] = {
        "page i decoded from the latents of page i+1",
        "every page decoded from the mean of all pages' latents: one text for all",
        "every page decoded from latents of zeros: one text for all"};
    cJSON *alone = json_forced(
        root, "decoder_alone", sum->alone_loss, sum->alone_accuracy,
        "teacher-forced without latents: the decoder's sequence with their positions left out, <img></img> empty; each "
        "token of the text, and the end mark, predicted from the tokens before it");
    cJSON_AddNumberToObject(alone, "uniform_perplexity", f->vocab);
    for (int c = 0; c < N_CONTROLS; c++) {
        if (!eval_control_ran(f, s, c)) continue;
        char key[64];
        snprintf(key, sizeof key, "control_%s", eval_control_name[c]);
        cJSON *o = json_forced(root, key, sum->control_loss[c], sum->control_accuracy[c], what[c]);
        cJSON_AddNumberToObject(o, "char_precision", sum->control_precision[c]);
        if (c == CONTROL_NO_LATENTS) cJSON_AddStringToObject(o, "text", f->no_latents_text);
    }
}

static void json_worst(cJSON *root, const EvalSet *s, const EvalSummary *sum) {
    cJSON *list = cJSON_AddArrayToObject(root, "worst");
    for (int i = 0; i < sum->n_worst; i++) {
        const EvalPage *p = &s->pages[sum->worst[i]];
        cJSON *o = cJSON_CreateObject();
        cJSON_AddNumberToObject(o, "page", sum->worst[i]);
        cJSON_AddStringToObject(o, "id", p->id);
        cJSON_AddNumberToObject(o, "tokens", (double)p->context.n);
        cJSON_AddNumberToObject(o, "char_precision", p->m.char_precision);
        cJSON_AddNumberToObject(o, "edit_distance", (double)p->m.edit_distance);
        cJSON_AddItemToArray(list, o);
    }
}

static void json_definitions(cJSON *root) {
    static const char *const more[][2] = {
        {"tokens_per_latent", "text tokens / latents, mean over pages"},
        {"by_position",
         "accuracy in each twentieth of a page: 1 - errors / characters there, over all pages; an error stands where "
         "the alignment of the edit distance has it in the original, a missing or superfluous character is one error"},
        {"buckets", "pages by length in text tokens of the model's own vocabulary, from <= tokens < to"},
        {"late_errors", "share of all errors that stand in the last quarter of their page; 0.25 if spread evenly"},
        {"published",
         "figures of arXiv 2511.15244 on the Fox benchmark, English; it does not define its precision, so none of "
         "these metrics is the same quantity by definition"}};
    const EvalMeans none = {0};
    NamedMean list[N_MEANS];
    name_means(list, &none);
    cJSON *o = cJSON_AddObjectToObject(root, "definitions");
    for (int i = 0; i < N_MEANS; i++) cJSON_AddStringToObject(o, list[i].key, list[i].what);
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) cJSON_AddStringToObject(o, more[i][0], more[i][1]);
}

static cJSON *summary_json(const EvalFiles *f, const EvalSet *s, const EvalSummary *sum) {
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "model", f->model);
    cJSON_AddStringToObject(root, "source", f->source);
    cJSON_AddStringToObject(root, "dtype", f->dtype);
    cJSON_AddStringToObject(root, "perturb", perturb_name(f->options.perturb));
    cJSON_AddNumberToObject(root, "seed", (double)f->options.seed);
    cJSON_AddNumberToObject(root, "latents", sum->latents);
    cJSON_AddNumberToObject(root, "pages", sum->all.pages);
    json_means(root, &sum->all);
    const struct {
        const char *key;
        double value;
    } numbers[] = {{"tokens_per_latent", sum->all.compression},
                   {"late_errors", sum->all.late_errors},
                   {"pages_by_character", sum->all.by_character},
                   {"pages_cut_at_max_new", sum->all.cut},
                   {"pages_not_nfc", s->not_nfc},
                   {"left_out_empty", s->empty},
                   {"left_out_too_long", s->too_long},
                   {"max_new", f->options.max_new},
                   {"no_repeat_ngram", f->options.no_repeat_ngram}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        cJSON_AddNumberToObject(root, numbers[i].key, numbers[i].value);
    json_positions(root, &sum->all);
    json_buckets(root, sum);
    json_controls(root, f, s, sum);
    json_worst(root, s, sum);
    json_published(root);
    json_definitions(root);
    return root;
}

char *eval_page_json(const EvalPage *p, int latents) {
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "id", p->id);
    cJSON_AddStringToObject(o, "text", p->reference);
    cJSON_AddStringToObject(o, "reconstruction", p->output);
    cJSON_AddNumberToObject(o, "tokens", (double)p->context.n);
    cJSON_AddNumberToObject(o, "latents", latents);
    cJSON_AddNumberToObject(o, "char_precision", p->m.char_precision);
    char *text = json_line(o);
    cJSON_Delete(o);
    return text;
}

// ---- tables for spreadsheets ---------------------------------------------------------------------------------------

static void print_quoted(FILE *out, const char *text) {
    fputc('"', out);
    for (size_t left = strlen(text), used; left > 0; text += used, left -= used) {
        char piece[CLEAN_BYTES];
        uint32_t c;
        size_t n = clean_char(piece, &c, text, left, 0, &used);
        if (c == '"') fputc('"', out);
        fwrite(piece, 1, n, out);
    }
    fputc('"', out);
}

static void print_csv(FILE *out, const EvalFiles *f, const EvalSet *s) {
    fprintf(out, "id,tokens,output_tokens,ended,char_precision,edit_distance,reference_chars,output_chars,exact,"
                 "same_tokens,forced_rows,forced_correct,word_precision,word_recall,word_f1,bleu4,rouge_l,by_character,"
                 "loss,decoder_alone_loss,decoder_alone_correct");
    for (int c = 0; c < N_CONTROLS; c++) {
        const char *name = eval_control_name[c];
        if (eval_control_ran(f, s, c)) fprintf(out, ",%s_precision,%s_correct,%s_loss", name, name, name);
    }
    fprintf(out, "\n");
    for (int i = 0; i < s->n; i++) {
        const EvalPage *p = &s->pages[i];
        const PageMetrics *m = &p->m;
        const double rows = p->forced_rows;
        print_quoted(out, p->id);
        fprintf(out, ",%zu,%d,%d,%.6f,%zu,%zu,%zu,%d,%d,%d,%d,%.6f,%.6f,%.6f,%.6f,%.6f,%d,%.6f,%.6f,%d", p->context.n,
                p->output_tokens, p->ended, m->char_precision, m->edit_distance, m->reference_chars, m->output_chars,
                m->exact, p->same_tokens, p->forced_rows, p->forced.correct, m->word_precision, m->word_recall,
                m->word_f1, m->bleu4, m->rouge_l, m->by_character, p->forced.loss / rows, p->alone.loss / rows,
                p->alone.correct);
        for (int c = 0; c < N_CONTROLS; c++) {
            if (eval_control_ran(f, s, c))
                fprintf(out, ",%.6f,%d,%.6f", p->control_precision[c], p->control[c].correct,
                        p->control[c].loss / rows);
        }
        fprintf(out, "\n");
    }
}

static void print_bucket_row(FILE *out, const EvalBucket *k) {
    NamedMean list[N_MEANS];
    name_means(list, &k->m);
    int row = eval_published_bucket(k);
    fprintf(out, "%d,%d,%d", k->from, k->to, k->m.pages);
    if (k->m.pages) fprintf(out, ",%.4f", k->m.compression);
    else fprintf(out, ",");
    for (int i = 0; i < N_MEANS; i++) {
        if (k->m.pages) fprintf(out, ",%.6f", list[i].value);
        else fprintf(out, ",");
    }
    for (int i = 0; i < METRICS_SLICES; i++) {
        if (k->m.pages) fprintf(out, ",%.6f", k->m.by_position[i]);
        else fprintf(out, ",");
    }
    for (int i = 0; i < N_PUBLISHED; i++) {
        if (row >= 0) fprintf(out, ",%.3f", published[i].precision[row] / 100);
        else fprintf(out, ",");
    }
    fprintf(out, "\n");
}

static void print_buckets_csv(FILE *out, const EvalSummary *sum) {
    NamedMean list[N_MEANS];
    name_means(list, &sum->all);
    fprintf(out, "from,to,pages,compression");
    for (int i = 0; i < N_MEANS; i++) fprintf(out, ",%s", list[i].key);
    for (int i = 0; i < METRICS_SLICES; i++) fprintf(out, ",position_%02d", i + 1);
    for (int i = 0; i < N_PUBLISHED; i++) {
        fputc(',', out);
        print_quoted(out, published[i].name);
    }
    fprintf(out, "\n");
    for (int b = 0; b < sum->n_buckets; b++) print_bucket_row(out, &sum->buckets[b]);
}

// ---- the files, all or none ----------------------------------------------------------------------------------------

// What the files are made of.
typedef struct Report {
    const EvalFiles *f;
    const EvalSet *s;
    const EvalSummary *sum;
} Report;

static int print_eval_txt(FILE *out, const Report *r) {
    eval_print(out, r->f, r->s, r->sum);
    return 0;
}

static int print_worst_txt(FILE *out, const Report *r) { return eval_print_worst(out, r->s, r->sum); }

static int print_eval_csv(FILE *out, const Report *r) {
    print_csv(out, r->f, r->s);
    return 0;
}

static int print_bucket_table(FILE *out, const Report *r) {
    print_buckets_csv(out, r->sum);
    return 0;
}

static int print_pages_jsonl(FILE *out, const Report *r) {
    for (int i = 0; i < r->s->n; i++) {
        char *line = eval_page_json(&r->s->pages[i], r->sum->latents);
        if (!line) return -1;
        fprintf(out, "%s\n", line);
        free(line);
    }
    return 0;
}

static int print_json(FILE *out, cJSON *root) {
    char *text = root ? cJSON_Print(root) : NULL;
    if (text) fprintf(out, "%s\n", text);
    free(text);
    cJSON_Delete(root);
    return text ? 0 : -1;
}

static int print_eval_json(FILE *out, const Report *r) { return print_json(out, summary_json(r->f, r->s, r->sum)); }

static int print_fox_json(FILE *out, const Report *r) {
    cJSON *list = cJSON_CreateArray();
    for (int i = 0; i < r->s->n; i++) {
        const EvalPage *p = &r->s->pages[i];
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "image", p->id);
        cJSON_AddStringToObject(o, "question", "Repeat the text: ");
        cJSON_AddStringToObject(o, "label", p->reference);
        cJSON_AddStringToObject(o, "answer", p->output);
        cJSON_AddItemToArray(list, o);
    }
    return print_json(out, list);
}

// eval.json is the last to get its name: when it is there, the others are.
static const struct {
    const char *name;
    int (*print)(FILE *, const Report *); // -1: out of memory
} files[] = {{"pages.jsonl", print_pages_jsonl},  {"fox.json", print_fox_json},   {"eval.csv", print_eval_csv},
             {"buckets.csv", print_bucket_table}, {"worst.txt", print_worst_txt}, {"eval.txt", print_eval_txt},
             {"eval.json", print_eval_json}};
enum { N_FILES = sizeof files / sizeof *files };

static int create(FileWriter *w, const char *folder, const char *name, Error *err) {
    char *path = string_format("%s/%s", folder, name);
    if (!path) return error_set(err, "out of memory");
    int bad = file_create(w, path, err);
    free(path);
    return bad;
}

// One file's bytes under its temporary name.
static int fill(FileWriter *w, const Report *r, int i, Error *err) {
    char *data = NULL;
    size_t size = 0;
    TRY(create(w, r->f->out, files[i].name, err));
    FILE *memory = open_memstream(&data, &size);
    int bad = !memory || files[i].print(memory, r) != 0;
    if (memory && fclose(memory) != 0) bad = 1;
    bad = bad ? error_set(err, "%s: out of memory", files[i].name) : file_write(w, data, size, err);
    free(data);
    if (!bad && fflush(w->stream) != 0) bad = error_set(err, "%s: cannot write: disk full?", w->path);
    return bad;
}

int eval_write(const EvalFiles *f, const EvalSet *s, const EvalSummary *sum, FILE *stream, Error *err) {
    const Report r = {f, s, sum};
    FileWriter w[N_FILES] = {0};
    int bad = file_make_dirs(f->out, err);
    for (int i = 0; i < N_FILES && !bad; i++) bad = fill(&w[i], &r, i, err);
    for (int i = 0; i < N_FILES && !bad; i++) bad = file_commit(&w[i], err);
    for (int i = 0; i < N_FILES; i++) file_discard(&w[i]);
    if (!bad && stream) eval_print(stream, f, s, sum);
    return bad;
}

int eval_try_folder(const char *out, Error *err) {
    TRY(file_make_dirs(out, err));
    char *path = string_format("%s/eval.json", out);
    int bad = path ? file_check_writable(path, err) : error_set(err, "out of memory");
    free(path);
    return bad;
}
