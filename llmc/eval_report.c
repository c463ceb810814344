// eval_report.c: the numbers of an evaluation summed up, and the files that hold them. See eval.h.
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "eval.h"
#include "file.h"

static const char *const control_name[N_CONTROLS] = {"swapped_latents", "no_latents", "zero_latents"};

// ---- buckets -------------------------------------------------------------------------------------------------------

// Borders at multiples of a round step (1, 2 or 5 times a power of ten) so that at most 8 buckets hold every page.
static int round_edges(int *edges, const EvalSet *s) {
    int low = INT32_MAX, high = 0, step = 1, n = 0;
    for (int i = 0; i < s->n; i++) {
        int t = (int)s->pages[i].context.n;
        low = t < low ? t : low;
        high = t > high ? t : high;
    }
    for (int i = 0; high / step - low / step >= 8; i++) step = i % 3 == 1 ? step / 2 * 5 : step * 2;
    for (int at = low / step * step; n == 0 || edges[n - 1] <= high; at += step) edges[n++] = at;
    return n;
}

static int bad_edges(const char *text, Error *err) {
    return error_set(err, "-buckets %s: expected ascending token counts like 600,700,800 or 600..1300:100, at most %d",
                     text, EVAL_MAX_BUCKETS + 1);
}

int eval_parse_edges(int *edges, const char *text, Error *err) {
    int from, to, step, n = 0, end = 0;
    if (sscanf(text, "%9d..%9d:%9d%n", &from, &to, &step, &end) == 3 && !text[end]) {
        if (from < 0 || step < 1 || to <= from) return bad_edges(text, err);
        for (int at = from; at <= to; at += step) {
            if (n > EVAL_MAX_BUCKETS) return bad_edges(text, err);
            edges[n++] = at;
        }
        return n < 2 ? bad_edges(text, err) : n;
    }
    for (const char *p = text; n <= EVAL_MAX_BUCKETS; p++) {
        if (sscanf(p, "%9d%n", &edges[n], &end) != 1 || edges[n] < 0 || (n > 0 && edges[n] <= edges[n - 1])) break;
        n++;
        p += end;
        if (!*p && n >= 2) return n;
        if (*p != ',') break;
    }
    return bad_edges(text, err);
}

static void fill_buckets(EvalSummary *out, const EvalSet *s, const int *edges, int n_edges) {
    out->n_buckets = n_edges - 1;
    for (int b = 0; b < out->n_buckets; b++) {
        EvalBucket *k = &out->buckets[b];
        *k = (EvalBucket){.from = edges[b], .to = edges[b + 1]};
        double tokens = 0;
        for (int i = 0; i < s->n; i++) {
            const EvalPage *p = &s->pages[i];
            if ((int)p->context.n < k->from || (int)p->context.n >= k->to) continue;
            k->pages++;
            tokens += (double)p->context.n;
            k->char_precision += p->m.char_precision;
            k->word_precision += p->m.word_precision;
            k->word_recall += p->m.word_recall;
        }
        if (!k->pages) continue;
        k->char_precision /= k->pages;
        k->word_precision /= k->pages;
        k->word_recall /= k->pages;
        k->compression = tokens / k->pages / out->latents;
    }
}

// ---- sums ----------------------------------------------------------------------------------------------------------

static double longer_length(const PageMetrics *m) {
    return (double)(m->reference_chars > m->output_chars ? m->reference_chars : m->output_chars);
}

void eval_summarise(EvalSummary *out, const EvalSet *s, int latents, const int *edges, int n_edges) {
    *out = (EvalSummary){.pages = s->n, .latents = latents};
    double edits = 0, chars = 0, same = 0, tokens = 0, context = 0, rows = 0, correct = 0, n = s->n;
    double errors[METRICS_SLICES] = {0}, slice_chars[METRICS_SLICES] = {0}, control_rows[N_CONTROLS] = {0};
    for (int i = 0; i < s->n; i++) {
        const EvalPage *p = &s->pages[i];
        out->cut += !p->ended;
        out->char_precision += p->m.char_precision / n;
        out->exact_match += p->m.exact / n;
        out->word_precision += p->m.word_precision / n;
        out->word_recall += p->m.word_recall / n;
        out->word_f1 += p->m.word_f1 / n;
        out->bleu4 += p->m.bleu4 / n;
        out->rouge_l += p->m.rouge_l / n;
        edits += (double)p->m.edit_distance;
        chars += longer_length(&p->m);
        same += p->same_tokens;
        tokens += (double)(p->answer.n ? p->answer.n : p->context.n);
        context += (double)p->context.n;
        rows += p->forced_rows;
        correct += p->forced_correct;
        for (int k = 0; k < METRICS_SLICES; k++) {
            errors[k] += (double)p->m.slice_errors[k];
            slice_chars[k] += (double)p->m.slice_chars[k];
        }
        for (int c = 0; c < N_CONTROLS; c++) {
            out->control_precision[c] += p->control_precision[c] / n;
            control_rows[c] += p->control_correct[c];
        }
    }
    out->char_precision_micro = chars > 0 ? 1 - edits / chars : 1;
    out->token_accuracy = rows > 0 ? correct / rows : 0;
    out->token_match = tokens > 0 ? same / tokens : 0;
    out->tokens_per_latent = s->n ? context / n / latents : 0;
    for (int k = 0; k < METRICS_SLICES; k++) {
        double accuracy = slice_chars[k] > 0 ? 1 - errors[k] / slice_chars[k] : 1;
        out->by_position[k] = accuracy > 0 ? accuracy : 0; // insertions may outnumber the characters
    }
    for (int c = 0; c < N_CONTROLS; c++) out->control_accuracy[c] = rows > 0 ? control_rows[c] / rows : 0;
    int own[EVAL_MAX_BUCKETS + 1];
    if (s->n == 0) return;
    fill_buckets(out, s, n_edges ? edges : own, n_edges ? n_edges : round_edges(own, s));
}

// Which controls mean something: a single page cannot be swapped, and its own latents are their mean.
static int control_ran(const EvalFiles *f, const EvalSet *s, int control) {
    return f->no_latents_text && (s->n > 1 || control == CONTROL_ZERO);
}

// ---- eval.json -----------------------------------------------------------------------------------------------------

static void json_buckets(cJSON *root, const EvalSummary *sum) {
    cJSON *list = cJSON_AddArrayToObject(root, "buckets");
    for (int b = 0; b < sum->n_buckets; b++) {
        const EvalBucket *k = &sum->buckets[b];
        cJSON *o = cJSON_CreateObject();
        cJSON_AddNumberToObject(o, "from", k->from);
        cJSON_AddNumberToObject(o, "to", k->to);
        cJSON_AddNumberToObject(o, "pages", k->pages);
        if (k->pages) {
            cJSON_AddNumberToObject(o, "char_precision", k->char_precision);
            cJSON_AddNumberToObject(o, "word_precision", k->word_precision);
            cJSON_AddNumberToObject(o, "word_recall", k->word_recall);
            cJSON_AddNumberToObject(o, "compression", k->compression);
        } else {
            cJSON_AddNullToObject(o, "char_precision");
            cJSON_AddNullToObject(o, "compression");
        }
        cJSON_AddItemToArray(list, o);
    }
}

static void json_controls(cJSON *root, const EvalFiles *f, const EvalSet *s, const EvalSummary *sum) {
    static const char *const keys[N_CONTROLS] = {"control_swapped_latents", "control_no_latents",
                                                 "control_zero_latents"};
    static const char *const what[N_CONTROLS] = {
        "page i decoded from the latents of page i+1",
        "every page decoded from the mean of all pages' latents: one text for all",
        "every page decoded from latents of zeros: one text for all"};
    for (int c = 0; c < N_CONTROLS; c++) {
        if (!control_ran(f, s, c)) continue;
        cJSON *o = cJSON_AddObjectToObject(root, keys[c]);
        cJSON_AddNumberToObject(o, "char_precision", sum->control_precision[c]);
        cJSON_AddNumberToObject(o, "token_accuracy", sum->control_accuracy[c]);
        cJSON_AddStringToObject(o, "what", what[c]);
        if (c == CONTROL_NO_LATENTS) cJSON_AddStringToObject(o, "text", f->no_latents_text);
    }
}

static cJSON *summary_json(const EvalFiles *f, const EvalSet *s, const EvalSummary *sum) {
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "model", f->model);
    cJSON_AddStringToObject(root, "source", f->source);
    cJSON_AddStringToObject(root, "dtype", f->dtype);
    cJSON_AddNumberToObject(root, "latents", sum->latents);
    cJSON_AddNumberToObject(root, "pages", sum->pages);
    const struct {
        const char *key;
        double value;
    } numbers[] = {{"char_precision", sum->char_precision},
                   {"char_precision_micro", sum->char_precision_micro},
                   {"token_accuracy", sum->token_accuracy},
                   {"token_match", sum->token_match},
                   {"exact_match", sum->exact_match},
                   {"word_precision", sum->word_precision},
                   {"word_recall", sum->word_recall},
                   {"word_f1", sum->word_f1},
                   {"bleu4", sum->bleu4},
                   {"rouge_l", sum->rouge_l},
                   {"tokens_per_latent", sum->tokens_per_latent},
                   {"pages_cut_at_max_new", sum->cut},
                   {"pages_not_nfc", s->not_nfc},
                   {"left_out_empty", s->empty},
                   {"left_out_too_long", s->too_long},
                   {"max_new", f->options.max_new},
                   {"no_repeat_ngram", f->options.no_repeat_ngram}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        cJSON_AddNumberToObject(root, numbers[i].key, numbers[i].value);
    json_buckets(root, sum);
    cJSON_AddItemToObject(root, "by_position", cJSON_CreateDoubleArray(sum->by_position, METRICS_SLICES));
    json_controls(root, f, s, sum);
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
    char *text = o ? cJSON_PrintUnformatted(o) : NULL;
    cJSON_Delete(o);
    return text;
}

// ---- eval.txt ------------------------------------------------------------------------------------------------------

// Precision in the paper's tables 1 and 2, per cent, for pages of 600-700 ... 1200-1300 tokens.
static const double *paper_row(int latents, const EvalSummary *sum) {
    static const double n32[] = {99.7, 99.7, 98.8, 98.7, 98.8, 94.0, 93.3};
    static const double n64[] = {99.7, 99.9, 99.7, 99.9, 99.7, 98.6, 98.4};
    static const double n100[] = {99.9, 99.5, 99.7, 99.7, 99.5, 98.5, 97.5};
    for (int b = 0; b < sum->n_buckets; b++) {
        if (sum->buckets[b].to - sum->buckets[b].from != 100 || sum->buckets[b].from % 100) return NULL;
    }
    return latents == 32 ? n32 : latents == 64 ? n64 : latents == 100 ? n100 : NULL;
}

static void print_buckets(FILE *out, const EvalSummary *sum) {
    const double *paper = paper_row(sum->latents, sum);
    int outside = sum->pages;
    fprintf(out, "\ntext tokens     pages  compression  char precision  word precision  word recall%s\n",
            paper ? "  paper" : "");
    for (int b = 0; b < sum->n_buckets; b++) {
        const EvalBucket *k = &sum->buckets[b];
        outside -= k->pages;
        if (!k->pages) continue;
        fprintf(out, "%6d-%-6d %7d %11.1fx %14.2f%% %14.2f%% %11.2f%%", k->from, k->to, k->pages, k->compression,
                100 * k->char_precision, 100 * k->word_precision, 100 * k->word_recall);
        int row = (k->from - 600) / 100;
        if (paper && k->from >= 600 && row < 7) fprintf(out, " %5.1f%%", paper[row]);
        fprintf(out, "\n");
    }
    if (outside) fprintf(out, "%d pages lie outside these buckets\n", outside);
    if (paper)
        fprintf(out, "paper: its tables 1 and 2 on the Fox benchmark, full-size model; it does not say how it defines "
                     "precision\n");
}

static void print_line(FILE *out, const char *name, double share, const char *note) {
    fprintf(out, "%-26s %7.2f%%  %s\n", name, 100 * share, note);
}

static void print_table(FILE *out, const EvalFiles *f, const EvalSet *s, const EvalSummary *sum) {
    fprintf(out, "model %s (%s)\npages %s: %d, %.1f tokens a latent on average (N = %d)\n", f->model, f->dtype,
            f->source, sum->pages, sum->tokens_per_latent, sum->latents);
    if (s->empty) fprintf(out, "left out: %d pages without a token\n", s->empty);
    if (s->too_long) fprintf(out, "left out: %d pages longer than the model takes\n", s->too_long);
    if (s->not_nfc) fprintf(out, "%d pages differ from their NFC form; the NFC form is compared\n", s->not_nfc);
    if (sum->cut) fprintf(out, "%d pages were cut at the limit of new tokens\n", sum->cut);
    fprintf(out, "\n");
    print_line(out, "char precision", sum->char_precision, "1 - edit distance / longer length, mean over pages");
    print_line(out, "char precision, micro", sum->char_precision_micro, "the same over all characters together");
    print_line(out, "token accuracy", sum->token_accuracy, "teacher-forced, the end mark included");
    print_line(out, "token match", sum->token_match, "free-running: equal positions / reference tokens");
    print_line(out, "exact match", sum->exact_match, "share of pages");
    print_line(out, "word precision", sum->word_precision, "sets of words; where Chinese occurs, of characters");
    print_line(out, "word recall", sum->word_recall, "");
    print_line(out, "word F1", sum->word_f1, "");
    print_line(out, "BLEU-4", sum->bleu4, "");
    print_line(out, "ROUGE-L", sum->rouge_l, "F1");
    print_buckets(out, sum);
    fprintf(out, "\naccuracy by position in the page, in twentieths\n");
    for (int k = 0; k < METRICS_SLICES; k++)
        fprintf(out, "%6.1f%s", 100 * sum->by_position[k], k % 10 == 9 ? "\n" : " ");
    if (!f->no_latents_text) return;
    fprintf(out, "\ncontrols: the same pages      char precision  token accuracy\n");
    static const char *const names[N_CONTROLS] = {"from the next page's latents", "from the pages' mean latents",
                                                  "from latents of zeros"};
    for (int c = 0; c < N_CONTROLS; c++) {
        if (control_ran(f, s, c))
            fprintf(out, "%-30s %12.2f%% %14.2f%%\n", names[c], 100 * sum->control_precision[c],
                    100 * sum->control_accuracy[c]);
    }
}

// ---- files ---------------------------------------------------------------------------------------------------------

static int write_text(const char *folder, const char *name, const char *data, size_t size, Error *err) {
    FileWriter w;
    char *path = string_format("%s/%s", folder, name);
    if (!path) return error_set(err, "out of memory");
    int bad = file_create(&w, path, err);
    free(path);
    if (bad) return -1;
    if (file_write(&w, data, size, err) == 0) return file_commit(&w, err);
    file_discard(&w);
    return -1;
}

static int write_json(const char *folder, const char *name, cJSON *root, Error *err) {
    char *text = root ? cJSON_Print(root) : NULL, *lines = text ? string_format("%s\n", text) : NULL;
    int bad = lines ? write_text(folder, name, lines, strlen(lines), err) : error_set(err, "%s: out of memory", name);
    free(lines);
    free(text);
    cJSON_Delete(root);
    return bad;
}

// A text file put together in memory by `print`.
typedef struct Report {
    const EvalFiles *f;
    const EvalSet *s;
    const EvalSummary *sum;
} Report;

static int write_printed(const Report *r, const char *name, void (*print)(FILE *, const Report *), Error *err) {
    char *data = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&data, &size);
    if (!memory) return error_set(err, "%s: out of memory", name);
    print(memory, r);
    int bad =
        fclose(memory) != 0 ? error_set(err, "%s: out of memory", name) : write_text(r->f->out, name, data, size, err);
    free(data);
    return bad;
}

static void print_txt(FILE *out, const Report *r) { print_table(out, r->f, r->s, r->sum); }

static void print_quoted(FILE *out, const char *text) {
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"') fputc('"', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

static void print_csv(FILE *out, const Report *r) {
    fprintf(out, "id,tokens,output_tokens,ended,char_precision,edit_distance,reference_chars,output_chars,exact,"
                 "same_tokens,forced_rows,forced_correct,word_precision,word_recall,word_f1,bleu4,rouge_l");
    for (int c = 0; c < N_CONTROLS; c++) {
        if (control_ran(r->f, r->s, c)) fprintf(out, ",%s_precision,%s_correct", control_name[c], control_name[c]);
    }
    fprintf(out, "\n");
    for (int i = 0; i < r->s->n; i++) {
        const EvalPage *p = &r->s->pages[i];
        const PageMetrics *m = &p->m;
        print_quoted(out, p->id);
        fprintf(out, ",%zu,%d,%d,%.6f,%zu,%zu,%zu,%d,%d,%d,%d,%.6f,%.6f,%.6f,%.6f,%.6f", p->context.n, p->output_tokens,
                p->ended, m->char_precision, m->edit_distance, m->reference_chars, m->output_chars, m->exact,
                p->same_tokens, p->forced_rows, p->forced_correct, m->word_precision, m->word_recall, m->word_f1,
                m->bleu4, m->rouge_l);
        for (int c = 0; c < N_CONTROLS; c++) {
            if (control_ran(r->f, r->s, c)) fprintf(out, ",%.6f,%d", p->control_precision[c], p->control_correct[c]);
        }
        fprintf(out, "\n");
    }
}

static int write_pages(const EvalFiles *f, const EvalSet *s, int latents, Error *err) {
    FileWriter w;
    char *path = string_format("%s/pages.jsonl", f->out);
    if (!path) return error_set(err, "out of memory");
    int bad = file_create(&w, path, err);
    free(path);
    if (bad) return -1;
    for (int i = 0; i < s->n && !bad; i++) {
        char *line = eval_page_json(&s->pages[i], latents);
        bad = !line ? error_set(err, "pages.jsonl: out of memory")
                    : file_write(&w, line, strlen(line), err) != 0 || file_write(&w, "\n", 1, err) != 0;
        free(line);
    }
    if (!bad) return file_commit(&w, err);
    file_discard(&w);
    return -1;
}

static int write_fox(const EvalFiles *f, const EvalSet *s, Error *err) {
    cJSON *list = cJSON_CreateArray();
    for (int i = 0; i < s->n; i++) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "image", s->pages[i].id);
        cJSON_AddStringToObject(o, "question", "Repeat the text: ");
        cJSON_AddStringToObject(o, "label", s->pages[i].reference);
        cJSON_AddStringToObject(o, "answer", s->pages[i].output);
        cJSON_AddItemToArray(list, o);
    }
    return write_json(f->out, "fox.json", list, err);
}

int eval_write(const EvalFiles *f, const EvalSet *s, const EvalSummary *sum, FILE *stream, Error *err) {
    Report r = {.f = f, .s = s, .sum = sum};
    TRY(file_make_dirs(f->out, err));
    TRY(write_pages(f, s, sum->latents, err));
    TRY(write_fox(f, s, err));
    TRY(write_printed(&r, "eval.csv", print_csv, err));
    TRY(write_printed(&r, "eval.txt", print_txt, err));
    TRY(write_json(f->out, "eval.json", summary_json(f, s, sum), err));
    if (stream) print_table(stream, f, s, sum);
    return 0;
}
