// test_eval.c: sums, buckets and files of an evaluation, on cases worked out by hand; marked texts.
#include <cjson/cJSON.h>
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "llmc/base/alloc.h"

#include "../llmc/eval/eval.h"
#include "../llmc/base/file.h"
#include "../llmc/eval/baselines.h"
#include "../llmc/text/render.h"
#include "check.h"

// Page of `tokens` tokens; `errors` of its 100 characters are wrong, all in the slice `where`.
static EvalPage page_of(int tokens, int errors, int where) {
    EvalPage p = {
        .context.n = (size_t)tokens, .windows = 1, .ended = 1, .same_tokens = tokens / 2, .output_tokens = tokens};
    p.id = strdup("a \"page\", one");
    p.reference = strdup("text");
    p.output = strdup("te\"xt\n");
    p.n_reference = 4;
    p.n_output = 6;
    p.forced_rows = tokens + 1;
    p.forced[EVAL_OWN] = (EvalForced){.loss = 0.5 * (tokens + 1), .correct = tokens};
    p.forced[EVAL_ALONE] = (EvalForced){.loss = 3.0 * (tokens + 1), .correct = 2};
    p.m = (PageMetrics){.char_precision = 1 - errors / 100.0,
                        .edit_distance = (size_t)errors,
                        .reference_chars = 100,
                        .output_chars = 100,
                        .exact = errors == 0};
    for (int k = 0; k < METRICS_SLICES; k++) p.m.slice_chars[k] = 5;
    p.m.slice_errors[where] = (size_t)errors;
    p.forced[EVAL_SWAPPED] = (EvalForced){.loss = 2.0 * (tokens + 1), .correct = 1, .char_precision = 0.2};
    p.forced[EVAL_MEAN].char_precision = 0.1;
    return p;
}

static EvalSet set_of(const EvalPage *pages, int n) {
    EvalSet s = {.pages = malloc((size_t)n * sizeof *pages), .n = n, .without_text = 1, .too_long = {2, 900, 4, 940}};
    memcpy(s.pages, pages, (size_t)n * sizeof *pages);
    return s;
}

static int near(double a, double b) { return fabs(a - b) < 1e-12; }

static void test_sums(void) {
    check_begin("means, micro precision, accuracies");
    EvalPage pages[] = {page_of(10, 0, 0), page_of(30, 4, 19), page_of(20, 2, 19), page_of(40, 10, 3)};
    pages[3].m.output_chars = 300; // the longer length counts
    pages[1].ended = 0;
    EvalSet s = set_of(pages, 4);
    EvalSummary sum;
    eval_summarise(&sum, &s, 5, NULL, 0);
    CHECK(sum.all.pages == 4 && sum.all.cut == 1, "%d %d", sum.all.pages, sum.all.cut);
    CHECK(near(sum.all.char_precision, (1 + 0.96 + 0.98 + 0.9) / 4), "%.15g", sum.all.char_precision);
    CHECK(near(sum.all.char_precision_micro, 1 - 16.0 / 600), "%.15g", sum.all.char_precision_micro);
    CHECK(near(sum.all.exact_match, 0.25), "%.15g", sum.all.exact_match);
    CHECK(near(sum.all.token_accuracy, 100.0 / 104), "%.15g", sum.all.token_accuracy);
    CHECK(near(sum.all.token_match, 0.5), "%.15g", sum.all.token_match);
    CHECK(near(sum.all.compression, 25.0 / 5), "%.15g", sum.all.compression);
    CHECK(near(sum.all.by_position[19], 1 - 6.0 / 20) && near(sum.all.by_position[0], 1), "%.15g",
          sum.all.by_position[19]);
    CHECK(near(sum.all.by_position[3], 0.5), "%.15g", sum.all.by_position[3]);
    CHECK(near(sum.conditions[EVAL_SWAPPED].char_precision, 0.2), "%.15g", sum.conditions[EVAL_SWAPPED].char_precision);
    CHECK(near(sum.conditions[EVAL_SWAPPED].accuracy, 4.0 / 104), "%.15g", sum.conditions[EVAL_SWAPPED].accuracy);
    s.pages[0].m.slice_errors[7] = 1000; // insertions
    eval_summarise(&sum, &s, 5, NULL, 0);
    CHECK(sum.all.by_position[7] == 0, "below zero: %g", sum.all.by_position[7]);
    eval_free(&s);
}

static void test_answer_tokens(void) {
    check_begin("an answer of its own counts in token_match, the context in compression");
    EvalPage p = page_of(40, 0, 0);
    p.answer = (Tokens){.n = 10};
    p.same_tokens = 5;
    EvalSet s = set_of(&p, 1);
    EvalSummary sum;
    eval_summarise(&sum, &s, 8, NULL, 0);
    CHECK(near(sum.all.token_match, 0.5), "%g", sum.all.token_match);
    CHECK(near(sum.all.compression, 5), "%g", sum.all.compression);
    eval_free(&s);
}

static void test_buckets(void) {
    check_begin("buckets: borders, empty ones, pages outside");
    EvalPage pages[] = {page_of(9, 50, 0), page_of(10, 0, 0), page_of(19, 10, 0), page_of(20, 20, 0),
                        page_of(40, 30, 0)};
    EvalSet s = set_of(pages, 5);
    EvalSummary sum;
    int edges[] = {10, 20, 30, 40};
    eval_summarise(&sum, &s, 2, edges, 4);
    CHECK(sum.n_buckets == 3, "%d", sum.n_buckets);
    CHECK(sum.buckets[0].m.pages == 2 && near(sum.buckets[0].m.char_precision, 0.95), "%d %g", sum.buckets[0].m.pages,
          sum.buckets[0].m.char_precision);
    CHECK(near(sum.buckets[0].m.compression, 14.5 / 2), "%g", sum.buckets[0].m.compression);
    CHECK(sum.buckets[1].m.pages == 1 && near(sum.buckets[1].m.char_precision, 0.8), "second");
    CHECK(sum.buckets[2].m.pages == 0, "third");
    eval_free(&s);

    check_begin("buckets from the data: round borders, every page inside, at most 8");
    for (int round = 0; round < 60; round++) {
        int low = 1 + round * round * 3, high = low + round * round * round;
        EvalPage two[] = {page_of(low, 0, 0), page_of(high, 0, 0)};
        s = set_of(two, 2);
        eval_summarise(&sum, &s, 1, NULL, 0);
        int inside = 0;
        for (int b = 0; b < sum.n_buckets; b++) inside += sum.buckets[b].m.pages;
        int width = sum.buckets[0].to - sum.buckets[0].from, digit = width;
        while (digit % 10 == 0) digit /= 10;
        CHECK(inside == 2 && sum.n_buckets >= 1 && sum.n_buckets <= 8, "%d..%d: %d inside %d", low, high, inside,
              sum.n_buckets);
        CHECK(digit == 1 || digit == 2 || digit == 5, "%d..%d: width %d", low, high, width);
        eval_free(&s);
    }
    EvalPage fox[] = {page_of(601, 0, 0), page_of(1299, 0, 0)};
    s = set_of(fox, 2);
    eval_summarise(&sum, &s, 32, NULL, 0);
    CHECK(sum.n_buckets == 7 && sum.buckets[0].from == 600 && sum.buckets[6].to == 1300, "the paper's buckets: %d",
          sum.n_buckets);
    eval_free(&s);
}

static void test_edges(void) {
    check_begin("bucket borders as an option");
    int e[EVAL_MAX_BUCKETS + 1];
    Error err;
    CHECK(eval_parse_edges(e, "600..1300:100", &err) == 8 && e[0] == 600 && e[7] == 1300, "range");
    CHECK(eval_parse_edges(e, "1,5,1000", &err) == 3 && e[1] == 5 && e[2] == 1000, "list");
    static const char *const bad[] = {"",     "5",      "5,",     "5,4",    "5,5",       "a,b",   "1,2x",
                                      "-1,2", "9..1:2", "1..9:0", "1..2:9", "0..1000:1", "1,2,,3"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(eval_parse_edges(e, bad[i], &err) == -1 && strstr(err.text, "-buckets"), "\"%s\" is taken", bad[i]);
    char many[8 * 200] = "1";
    for (int i = 2; i < 200; i++) sprintf(many + strlen(many), ",%d", i);
    CHECK(eval_parse_edges(e, many, &err) == -1, "200 borders are taken");
}

static double number(const cJSON *root, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, key);
    return cJSON_IsNumber(item) ? item->valuedouble : NAN;
}

static cJSON *read_json(const char *folder, const char *name) {
    Error err;
    char *path = string_format("%s/%s", folder, name), *data;
    size_t size;
    cJSON *root = NULL;
    if (file_read(&data, &size, path, &err) == 0) {
        root = cJSON_ParseWithLength(data, size);
        free(data);
    }
    free(path);
    return root;
}

static char *read_text(const char *folder, const char *name) {
    Error err;
    char *path = string_format("%s/%s", folder, name), *data = NULL;
    size_t size;
    if (file_read(&data, &size, path, &err) != 0) CHECK(0, "%s", err.text);
    free(path);
    return data ? data : strdup("");
}

static void test_files(void) {
    check_begin("the files of an evaluation");
    char folder[] = "/tmp/test_eval_XXXXXX";
    CHECK(mkdtemp(folder) != NULL, "mkdtemp");
    char *out = string_format("%s/new/folder", folder);
    EvalPage pages[] = {page_of(10, 0, 0), page_of(30, 4, 19)};
    EvalSet s = set_of(pages, 2);
    EvalSummary sum;
    Error err = {""};
    EvalFiles f = {
        .out = out, .model = "m", .source = "p", .dtype = "fp32", .vocab = 100, .no_latents_text = "the the"};
    eval_summarise(&sum, &s, 5, NULL, 0);
    CHECK(eval_write(&f, &s, &sum, &err) == 0, "%s", err.text);
    cJSON *root = read_json(out, "eval.json");
    CHECK(near(number(root, "char_precision"), 0.98), "char_precision %g", number(root, "char_precision"));
    CHECK(number(root, "pages") == 2 && number(root, "latents") == 5, "pages, latents");
    CHECK(near(number(root, "tokens_per_latent"), 4), "tokens_per_latent");
    CHECK(number(root, "left_out_too_long") == 2 && number(root, "left_out_empty") == 1, "left out");
    CHECK(number(root, "left_out_too_long_tokens") == 900 && number(root, "left_out_of_tokens") == 940, "their tokens");
    CHECK(cJSON_GetArraySize(cJSON_GetObjectItem(root, "by_position")) == 20, "by_position");
    const cJSON *swapped = cJSON_GetObjectItem(root, "control_swapped_latents");
    CHECK(near(number(swapped, "char_precision"), 0.2) && near(number(swapped, "perplexity"), exp(2)), "swapped");
    const cJSON *alone = cJSON_GetObjectItem(root, "decoder_alone");
    CHECK(near(number(alone, "loss"), 3) && number(alone, "uniform_perplexity") == 100, "decoder alone");
    CHECK(near(number(root, "loss"), 0.5) && near(number(root, "perplexity"), exp(0.5)), "loss");
    const cJSON *worst = cJSON_GetObjectItem(root, "worst"), *meaning = cJSON_GetObjectItem(root, "definitions");
    CHECK(cJSON_GetArraySize(worst) == 1 && number(cJSON_GetArrayItem(worst, 0), "page") == 1, "worst");
    for (const cJSON *m = meaning ? meaning->child : NULL; m; m = m->next)
        CHECK(cJSON_GetObjectItem(root, m->string), "%s is defined, but not there", m->string);
    CHECK(cJSON_GetArraySize(meaning) == 14, "definitions");
    const cJSON *bucket = cJSON_GetArrayItem(cJSON_GetObjectItem(root, "buckets"), 0);
    CHECK(!isnan(number(bucket, "from")) && !isnan(number(bucket, "to")) && number(bucket, "pages") == 1, "bucket");
    cJSON_Delete(root);
    char *lines = read_text(out, "pages.jsonl"), *second = strchr(lines, '\n');
    CHECK(second && strchr(second + 1, '\n') && !strchr(strchr(second + 1, '\n') + 1, '\n'), "two lines: %s", lines);
    root = second ? cJSON_Parse(second) : NULL;
    static const struct {
        const char *key;
        double value;
    } numbers[] = {{"tokens", 30},       {"latents", 5},         {"char_precision", 0.96},
                   {"edit_distance", 4}, {"output_tokens", 30},  {"same_tokens", 15},
                   {"forced_rows", 31},  {"forced_correct", 30}, {"loss", 0.5}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        CHECK(near(number(root, numbers[i].key), numbers[i].value), "%s: %g", numbers[i].key,
              number(root, numbers[i].key));
    CHECK(cJSON_IsFalse(cJSON_GetObjectItem(root, "exact")) && cJSON_IsTrue(cJSON_GetObjectItem(root, "ended")), "%s",
          lines);
    swapped = cJSON_GetObjectItem(root, "control_swapped_latents");
    CHECK(near(number(swapped, "char_precision"), 0.2) && number(swapped, "correct") == 1 &&
              near(number(swapped, "loss"), 2),
          "a page's control: %s", lines);
    alone = cJSON_GetObjectItem(root, "decoder_alone");
    CHECK(number(alone, "correct") == 2 && near(number(alone, "loss"), 3), "a page's decoder alone: %s", lines);
    cJSON_Delete(root);
    free(lines);
    char *line = eval_page_json(&s, 0, 5, NULL);
    root = cJSON_Parse(line);
    CHECK(root && number(root, "tokens") == 10 && !strchr(line, '\n') && !cJSON_GetObjectItem(root, "loss") &&
              !cJSON_GetObjectItem(root, "decoder_alone"),
          "a line without what eval_forced finds: %s", line);
    cJSON_Delete(root);
    free(line);
    s.pages[0].written = strdup("\uf9a0");
    line = eval_page_json(&s, 0, 5, NULL);
    CHECK(strstr(line, "\"reconstruction\":\"\uf9a0\""), "not what the model wrote: %s", line);
    free(line);
    eval_free(&s);

    check_begin("controls that mean nothing are left out: one page, or none were run");
    s = set_of((EvalPage[]){page_of(10, 0, 0)}, 1);
    eval_summarise(&sum, &s, 5, NULL, 0);
    CHECK(eval_write(&f, &s, &sum, &err) == 0, "%s", err.text);
    root = read_json(out, "eval.json");
    CHECK(!cJSON_GetObjectItem(root, "control_swapped_latents") && cJSON_GetObjectItem(root, "control_zero_latents"),
          "one page");
    cJSON_Delete(root);
    root = read_json(out, "pages.jsonl");
    CHECK(!cJSON_GetObjectItem(root, "control_swapped_latents") && cJSON_GetObjectItem(root, "control_zero_latents"),
          "and its line");
    cJSON_Delete(root);
    f.no_latents_text = NULL;
    CHECK(eval_write(&f, &s, &sum, &err) == 0, "%s", err.text);
    root = read_json(out, "eval.json");
    CHECK(root && !cJSON_GetObjectItem(root, "control_zero_latents"), "none were run");
    cJSON_Delete(root);
    eval_free(&s);
    file_remove_tree(folder, &err);
    free(out);
}

// What eval_print prints.
static char *table_of(const EvalFiles *f, const EvalSet *s, const EvalSummary *sum) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    eval_print(out, f, s, sum);
    fclose(out);
    return text;
}

static void test_losses(void) {
    check_begin("loss, perplexity, errors at the end");
    EvalPage pages[] = {page_of(10, 0, 0), page_of(30, 6, 15), page_of(20, 2, 14)};
    pages[2].forced[EVAL_OWN].loss = 0;
    EvalSet s = set_of(pages, 3);
    EvalSummary sum;
    eval_summarise(&sum, &s, 5, NULL, 0);
    CHECK(near(sum.all.loss, 0.5 * 42 / 63), "%.15g", sum.all.loss);
    CHECK(near(sum.conditions[EVAL_ALONE].loss, 3) && near(sum.conditions[EVAL_ALONE].accuracy, 6.0 / 63),
          "%.15g %.15g", sum.conditions[EVAL_ALONE].loss, sum.conditions[EVAL_ALONE].accuracy);
    CHECK(near(sum.conditions[EVAL_SWAPPED].loss, 2) && near(sum.conditions[EVAL_ZERO].loss, 0), "%.15g",
          sum.conditions[EVAL_SWAPPED].loss);
    CHECK(near(sum.all.late_errors, 0.75), "slices 15 to 19: %.15g", sum.all.late_errors);
    eval_free(&s);
}

static void test_worst(void) {
    check_begin("the worst pages: in order, equal ones as in the file, whole ones never, at most ten");
    static const int errors[] = {5, 0, 9, 9, 1, 0, 30, 2};
    EvalPage pages[30];
    EvalSummary sum;
    for (int i = 0; i < 8; i++) pages[i] = page_of(10, errors[i], 0);
    EvalSet s = set_of(pages, 8);
    eval_summarise(&sum, &s, 5, NULL, 0);
    static const int order[] = {6, 2, 3, 0, 7, 4};
    CHECK(sum.n_worst == 6 && memcmp(sum.worst, order, sizeof order) == 0, "%d: %d %d %d %d %d %d", sum.n_worst,
          sum.worst[0], sum.worst[1], sum.worst[2], sum.worst[3], sum.worst[4], sum.worst[5]);
    eval_free(&s);
    for (int i = 0; i < 30; i++) pages[i] = page_of(10, 1 + i * 7 % 30, 0); // every number from 1 to 30 once
    s = set_of(pages, 30);
    eval_summarise(&sum, &s, 5, NULL, 0);
    CHECK(sum.n_worst == EVAL_WORST, "%d", sum.n_worst);
    for (int k = 0; k < sum.n_worst; k++)
        CHECK(s.pages[sum.worst[k]].m.edit_distance == (size_t)(30 - k), "place %d: page %d", k, sum.worst[k]);
    eval_free(&s);
}

// A page of n characters of one kind, `lost` of them wrong.
static EvalPage page_of_kind(TextKind kind, size_t n, size_t lost, size_t added) {
    EvalPage p = page_of(10, lost ? 1 : 0, 0);
    p.m.kinds[kind] = (KindErrors){n, lost, added};
    return p;
}

static void test_kinds(void) {
    check_begin("errors by kind: sums, Wilson's interval, narrower knowledge where errors come together");
    EvalPage even[] = {page_of_kind(KIND_DIGITS, 100, 5, 1), page_of_kind(KIND_DIGITS, 100, 5, 2),
                       page_of_kind(KIND_HAN, 0, 0, 4)};
    EvalSet s = set_of(even, 3);
    EvalKind k[N_KINDS];
    eval_by_kind(k, &s);
    CHECK(k[KIND_DIGITS].pages == 2 && k[KIND_DIGITS].chars == 200 && k[KIND_DIGITS].lost == 10 &&
              k[KIND_DIGITS].added == 3,
          "%d pages, %g characters, %g lost, %g added", k[KIND_DIGITS].pages, k[KIND_DIGITS].chars, k[KIND_DIGITS].lost,
          k[KIND_DIGITS].added);
    CHECK(fabs(k[KIND_DIGITS].low - 0.027382645) < 1e-8 && fabs(k[KIND_DIGITS].high - 0.089578149) < 1e-8,
          "10 of 200: %.9f to %.9f", k[KIND_DIGITS].low, k[KIND_DIGITS].high);
    CHECK(k[KIND_HAN].pages == 0 && k[KIND_HAN].added == 4 && k[KIND_HAN].low == 0 && k[KIND_HAN].high == 1,
          "none: %g to %g", k[KIND_HAN].low, k[KIND_HAN].high);
    CHECK(k[KIND_DIGITS].few && k[KIND_HAN].few, "few pages are marked");
    s.pages[0].m.kinds[KIND_DIGITS].lost = 10; // all in one page: as much as 19 characters say
    s.pages[1].m.kinds[KIND_DIGITS].lost = 0;
    eval_by_kind(k, &s);
    CHECK(fabs(k[KIND_DIGITS].low - 0.008565007) < 1e-8 && fabs(k[KIND_DIGITS].high - 0.242796297) < 1e-8,
          "10 of 200 in one page: %.9f to %.9f", k[KIND_DIGITS].low, k[KIND_DIGITS].high);
    eval_free(&s);
    EvalPage many[10];
    for (int i = 0; i < 10; i++) many[i] = page_of_kind(KIND_SPACE, 10, 0, 0);
    s = set_of(many, 10);
    eval_by_kind(k, &s);
    CHECK(!k[KIND_SPACE].few && k[KIND_SPACE].low == 0 && fabs(k[KIND_SPACE].high - 0.036994) < 1e-5,
          "0 of 100: %.9f to %.9f", k[KIND_SPACE].low, k[KIND_SPACE].high);
    s.pages[9].m.kinds[KIND_SPACE].chars = 9;
    eval_by_kind(k, &s);
    CHECK(k[KIND_SPACE].few, "99 characters");
    eval_free(&s);
}

// A page of `tokens` tokens that were written with this mean and least ln p.
static EvalPage page_written(int tokens, int errors, double mean, double least) {
    EvalPage p = page_of(tokens, errors, 0);
    p.log_prob = mean * (tokens + 1);
    p.least_log_prob = least;
    return p;
}

static void test_confidence(void) {
    check_begin("confidence: pairs of exact and wrong pages, ties, rank correlation");
    EvalPage pages[] = {page_written(1, 0, -0.1, -9), page_written(2, 2, -0.2, -1), page_written(3, 0, -0.3, -9),
                        page_written(4, 4, -0.4, -9)};
    EvalSet s = set_of(pages, 4);
    EvalConfidence c;
    eval_confidence(&c, &s);
    CHECK(c.exact == 2 && c.wrong == 2 && eval_few_pairs(&c), "%d %d", c.exact, c.wrong);
    CHECK(near(c.auroc, 0.75), "3 of 4 pairs: %g", c.auroc);
    CHECK(near(c.least_auroc, 0.25), "2 pairs equal, 2 the wrong way: %g", c.least_auroc);
    CHECK(near(c.rank_correlation, 1.5 / sqrt(5 * 4.5) * 2), "%.15g", c.rank_correlation); // ranks 4 3 2 1; 3.5 2 3.5 1
    CHECK(c.n_bins == 2 && c.bins[0].pages == 2 && near(c.bins[0].from, -0.4) && near(c.bins[0].to, -0.3), "%d bins",
          c.n_bins);
    CHECK(c.bins[0].exact == 1 && c.bins[1].exact == 1 && near(c.bins[0].char_precision, 0.98), "%d %d %g",
          c.bins[0].exact, c.bins[1].exact, c.bins[0].char_precision);
    CHECK(near(c.bins[0].expected, (exp(-0.4 * 5) + exp(-0.3 * 4)) / 2), "%.15g", c.bins[0].expected);
    s.pages[3].ended = 0;
    s.pages[3].log_prob = -0.4 * 4;
    eval_confidence(&c, &s);
    CHECK(near(c.bins[0].expected, exp(-0.3 * 4) / 2) && near(c.bins[0].from, -0.4), "a page that was cut: %.15g",
          c.bins[0].expected);

    check_begin("confidence: one kind of page alone, logits that are no numbers");
    s.n = 1;
    eval_confidence(&c, &s);
    CHECK(isnan(c.auroc) && isnan(c.least_auroc) && isnan(c.rank_correlation) && c.n_bins == 1, "%g %g %d bins",
          c.auroc, c.rank_correlation, c.n_bins);
    s.n = 4;
    s.pages[1].log_prob = -INFINITY; // of NaN logits
    eval_confidence(&c, &s);
    CHECK(near(c.auroc, 1) && isinf(c.bins[0].from), "%g, from %g", c.auroc, c.bins[0].from);
    eval_free(&s);

    check_begin("confidence: bins of ten pages at least, ten at most, every page in one");
    static const int cases[][2] = {{2, 2}, {19, 2}, {39, 3}, {100, 10}, {257, 10}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        EvalPage many[257];
        int n = cases[k][0], sum = 0, exact = 0;
        for (int i = 0; i < n; i++) many[i] = page_written(9, i * 7 % n >= n / 2 ? 0 : 1, -1.0 / (1 + i * 7 % n), -1);
        s = set_of(many, n);
        eval_confidence(&c, &s);
        for (int b = 0; b < c.n_bins; b++) {
            sum += c.bins[b].pages;
            exact += c.bins[b].exact;
            CHECK(n < 20 || c.bins[b].pages >= EVAL_FEW_PAGES, "%d pages: bin %d has %d", n, b, c.bins[b].pages);
            CHECK(b == 0 || c.bins[b].from >= c.bins[b - 1].to, "%d pages: bins %d and %d overlap", n, b - 1, b);
        }
        CHECK(c.n_bins == cases[k][1] && sum == n && exact == n - n / 2 && near(c.auroc, 1),
              "%d pages: %d in %d bins, %g", n, sum, c.n_bins, c.auroc);
        if (n == 100) // 5 bins of wrong pages, then 5 of exact ones
            CHECK(c.bins[4].exact == 0 && fabs(c.bins[4].high - 0.277533) < 1e-5 &&
                      fabs(c.bins[5].low - 0.722467) < 1e-5 && c.bins[5].high == 1 && !eval_few_pairs(&c),
                  "%g, %g to %g", c.bins[4].high, c.bins[5].low, c.bins[5].high);
        eval_free(&s);
    }
}

static void test_fidelity_files(char *folder) {
    check_begin("both in the files and in the table");
    EvalPage pages[] = {page_written(9, 0, -0.01, -0.05), page_written(9, 3, -0.2, -1.5)};
    pages[0].m.kinds[KIND_DIGITS] = (KindErrors){30, 0, 0};
    pages[1].m.kinds[KIND_DIGITS] = (KindErrors){10, 2, 0};
    pages[1].m.kinds[KIND_HAN] = (KindErrors){0, 0, 1};
    EvalSet s = set_of(pages, 2);
    EvalSummary sum;
    Error err = {""};
    char *out = string_format("%s/fidelity", folder);
    EvalFiles f = {.out = out, .model = "m", .source = "p", .dtype = "fp32", .vocab = 100};
    eval_summarise(&sum, &s, 5, NULL, 0);
    CHECK(eval_write(&f, &s, &sum, &err) == 0, "%s", err.text);
    cJSON *root = read_json(out, "eval.json");
    const cJSON *kinds = cJSON_GetObjectItem(root, "by_kind"), *digits = cJSON_GetArrayItem(kinds, 0);
    const cJSON *han = cJSON_GetArrayItem(kinds, 1), *c = cJSON_GetObjectItem(root, "confidence");
    CHECK(cJSON_GetArraySize(kinds) == 2 && number(digits, "characters") == 40 && number(digits, "lost") == 2 &&
              near(number(digits, "rate"), 0.05) && cJSON_IsTrue(cJSON_GetObjectItem(digits, "few")),
          "digits");
    CHECK(number(han, "added") == 1 && cJSON_IsNull(cJSON_GetObjectItem(han, "rate")), "Han");
    CHECK(near(number(c, "auroc"), 1) && number(c, "exact") == 1 && cJSON_IsTrue(cJSON_GetObjectItem(c, "few")) &&
              cJSON_GetArraySize(cJSON_GetObjectItem(c, "bins")) == 2,
          "confidence");
    cJSON_Delete(root);
    char *lines = read_text(out, "pages.jsonl"), *second = strchr(lines, '\n');
    root = second ? cJSON_Parse(second) : NULL;
    CHECK(near(number(root, "mean_log_prob"), -0.2) && near(number(root, "least_log_prob"), -1.5), "%s", lines);
    CHECK(strstr(lines, "\"by_kind\":{\"digits\":[10,2,0],\"han\":[0,0,1]}"), "%s", lines);
    cJSON_Delete(root);
    free(lines);
    char *table = table_of(&f, &s, &sum);
    CHECK(strstr(table, "digits               *      2         40    5.00%") &&
              strstr(table, "Han characters       *") &&
              strstr(table, "100.0 % of all pairs (1 exact, 1 with errors: few)") &&
              strstr(table, "    -0.01 to     -0.01      1  100.00%"),
          "%s", table);
    free(table);
    s.n = 1;
    eval_summarise(&sum, &s, 5, NULL, 0);
    table = table_of(&f, &s, &sum);
    CHECK(strstr(table, "all pages are exact: nothing to tell apart"), "%s", table);
    free(table);
    s.n = 2;
    eval_free(&s);
    free(out);
}

static void test_published(void) {
    check_begin("the published figures are those of tables 1 and 2 of arXiv 2511.15244");
    static const struct {
        int latents;
        const char *precision, *compression;
    } paper[N_BASELINES] = {
        {32, " 99.7 99.7 98.8 98.7 98.8 94.0 93.3", " 21.0 23.6 26.4 30.2 31.0 35.4 39.4"},
        {64, " 99.7 99.9 99.7 99.9 99.7 98.6 98.4", " 0.0 0.0 0.0 0.0 0.0 0.0 0.0"},
        {100, " 99.9 99.5 99.7 99.7 99.5 98.5 97.5", " 0.0 0.0 0.0 0.0 0.0 0.0 0.0"},
        {64, " 96.5 93.8 83.8 85.9 79.3 76.4 59.1", " 0.0 0.0 0.0 0.0 0.0 0.0 0.0"},
        {100, " 98.5 97.3 96.8 96.8 91.5 89.8 87.1", " 0.0 0.0 0.0 0.0 0.0 0.0 0.0"},
    };
    for (int i = 0; i < N_BASELINES; i++) {
        char precision[80] = "", compression[80] = "";
        for (int b = 0, p = 0, c = 0; b < BASELINE_BUCKETS; b++) {
            p += snprintf(precision + p, sizeof precision - (size_t)p, " %.1f", baselines[i].precision[b]);
            c += snprintf(compression + c, sizeof compression - (size_t)c, " %.1f", baselines[i].compression[b]);
        }
        CHECK(baselines[i].latents == paper[i].latents && !strcmp(precision, paper[i].precision) &&
                  !strcmp(compression, paper[i].compression),
              "%s:%s,%s", baselines[i].name, precision, compression);
    }
}

static void test_paper(char *folder) {
    check_begin("the paper's buckets when most pages lie in them, its figures beside ours");
    EvalPage pages[] = {page_of(650, 3, 0), page_of(1250, 20, 19), page_of(40, 0, 0), page_of(1300, 0, 0),
                        page_of(700, 0, 0)};
    EvalSet s = set_of(pages, 5);
    EvalSummary sum;
    Error err = {""};
    eval_summarise(&sum, &s, 32, NULL, 0);
    CHECK(sum.n_buckets == 7 && sum.buckets[0].from == 600 && sum.buckets[6].to == 1300, "%d", sum.n_buckets);
    CHECK(near(sum.buckets[0].m.compression, 650.0 / 32) && near(sum.buckets[6].m.by_position[19], 0),
          "a bucket's own");
    EvalFiles f = {.out = folder, .model = "m", .source = "p", .dtype = "fp32", .vocab = 100};
    CHECK(eval_write(&f, &s, &sum, &err) == 0, "%s", err.text);
    char *table = table_of(&f, &s, &sum);
    // tables 1 and 2 of arXiv 2511.15244
    CHECK(strstr(table, "   600-700         1        20.3x          97.00%        0.00%"
                        " |   99.7%   99.7%   99.9%   96.5%   98.5%\n"),
          "%s", table);
    CHECK(strstr(table, "  1200-1300        1        39.1x          80.00%        0.00%"
                        " |   93.3%   98.4%   97.5%   59.1%   87.1%\n"),
          "%s", table);
    CHECK(strstr(table, "   800-900         0            -               -            -"
                        " |   98.8%   99.7%   99.7%   83.8%   96.8%\n"),
          "%s", table);
    CHECK(strstr(table, "this model's vocabulary of 100, the paper's"), "%s", table);
    CHECK(strstr(table, "2 pages lie outside these buckets\n") && strstr(table, "does not define precision"), "%s",
          table);
    cJSON *root = read_json(folder, "eval.json");
    const cJSON *paper = cJSON_GetArrayItem(cJSON_GetObjectItem(root, "published"), 0);
    const cJSON *last = cJSON_GetArrayItem(cJSON_GetObjectItem(paper, "buckets"), 6);
    CHECK(number(last, "from") == 1200 && near(number(last, "precision"), 0.933) &&
              near(number(last, "compression"), 39.4),
          "published");
    const cJSON *empty = cJSON_GetArrayItem(cJSON_GetObjectItem(root, "buckets"), 2);
    CHECK(number(empty, "pages") == 0 && cJSON_IsNull(cJSON_GetObjectItem(empty, "char_precision")), "an empty bucket");
    cJSON_Delete(root);
    free(table);
    s.n = 2;
    s.pages[1].context.n = 40;
    eval_summarise(&sum, &s, 32, NULL, 0);
    CHECK(sum.n_buckets != 7 || sum.buckets[0].from != 600, "half is not most");
    s.pages[1].context.n = 1250;
    s.n = 5;
    const int edges[] = {0, 600, 700};
    eval_summarise(&sum, &s, 32, edges, 3);
    CHECK(eval_published_bucket(&sum.buckets[0]) == -1 && eval_published_bucket(&sum.buckets[1]) == 0, "places");
    CHECK(eval_published_bucket(&(EvalBucket){.from = 650, .to = 750}) == -1 &&
              eval_published_bucket(&(EvalBucket){.from = 1300, .to = 1400}) == -1,
          "no such places");
    table = table_of(&f, &s, &sum);
    CHECK(strstr(table, "   600-700         1        20.3x          97.00%        0.00% |   99.7%") &&
              strstr(table, "     0-600         1         1.2x         100.00%      100.00%\n"),
          "%s", table);
    free(table);
    eval_free(&s);
}

static void test_all_or_none(char *folder) {
    check_begin("when one file cannot be written the folder stays as it was");
    EvalSet s = set_of((EvalPage[]){page_of(10, 0, 0), page_of(30, 4, 19)}, 2);
    EvalSummary sum;
    Error err = {""};
    char *out = string_format("%s/whole", folder), *json = string_format("%s/eval.json", out),
         *aside = string_format("%s/aside", folder);
    EvalFiles f = {.out = out, .model = "first", .source = "p", .dtype = "fp32", .vocab = 100};
    eval_summarise(&sum, &s, 5, NULL, 0);
    CHECK(eval_write(&f, &s, &sum, &err) == 0, "%s", err.text);
    char *before = read_text(out, "pages.jsonl");
    CHECK(rename(json, aside) == 0 && file_make_dirs(json, &err) == 0, "%s", err.text);
    s.pages[0].m.char_precision = 0.5;
    CHECK(eval_try_folder(out, &err) == -1 && strstr(err.text, "eval.json"), "%s", err.text);
    CHECK(eval_write(&f, &s, &sum, &err) == -1 && strstr(err.text, "eval.json"), "%s", err.text);
    char *after = read_text(out, "pages.jsonl");
    CHECK(strcmp(before, after) == 0, "%s", after);
    CHECK(rmdir(json) == 0 && rename(aside, json) == 0, "the folder in its place");
    int files = 0, temporary = 0;
    DIR *d = opendir(out);
    for (struct dirent *e; d && (e = readdir(d));) {
        files += e->d_name[0] != '.';
        temporary += strstr(e->d_name, ".tmp") != NULL;
    }
    if (d) closedir(d);
    CHECK(files == 2 && temporary == 0, "%d files, %d temporary", files, temporary);
    CHECK(eval_try_folder(out, &err) == 0, "%s", err.text);
    free(before);
    free(after);
    free(out);
    free(json);
    free(aside);
    eval_free(&s);
}

static void check_marked(const char *text, const char *ops, RenderSide side, int colour, const char *expected) {
    char *data = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&data, &size);
    render_marked(out, text, strlen(text), ops, strlen(ops), side, colour);
    fclose(out);
    CHECK(strcmp(data, expected) == 0, "found %s", data);
    free(data);
}

static void test_render(void) {
    check_begin("wrong characters are marked");
    // reference "abcde", output "axcefg": b -> x, d lost, f g too many
    check_marked("abcde", "=s=d=ii", RENDER_REFERENCE, 0, "a[b]c[d]e\n");
    check_marked("axcefg", "=s=d=ii", RENDER_OUTPUT, 0, "a[x]ce[fg]\n");
    check_marked("axcefg", "=s=d=ii", RENDER_OUTPUT, 1, "a\033[7;31mx\033[0mce\033[7;31mfg\033[0m\n");
    check_marked("天地玄黄", "=ss=", RENDER_OUTPUT, 0, "天[地玄]黄\n");
    check_marked("a\nb\n", "=s==", RENDER_OUTPUT, 0, "a[\\n]\nb\n");
    check_marked("", "", RENDER_OUTPUT, 0, "\n");
    check_begin("a text cannot write to the terminal");
    check_marked("a\033[2Jb\r\t\xe2\x80\xae\xc2\x9b", "==========", RENDER_OUTPUT, 0,
                 "a\\x1b[2Jb\\x0d\t\\u202e\\u009b\n");
    check_marked("\xc2\x9b", "s", RENDER_OUTPUT, 0, "[\\u009b]\n");
}

int main(void) {
    test_sums();
    test_answer_tokens();
    test_buckets();
    test_edges();
    test_files();
    test_losses();
    test_worst();
    test_kinds();
    test_confidence();
    char folder[] = "/tmp/test_eval_XXXXXX";
    CHECK(mkdtemp(folder) != NULL, "mkdtemp");
    test_fidelity_files(folder);
    test_published();
    test_paper(folder);
    test_all_or_none(folder);
    file_remove_tree(folder, NULL);
    test_render();
    return check_done();
}
