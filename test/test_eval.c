// test_eval.c: sums, buckets and files of an evaluation, on cases worked out by hand; marked texts.
#include <cjson/cJSON.h>
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "../llmc/eval.h"
#include "../llmc/file.h"
#include "../llmc/render.h"
#include "check.h"

// Page of `tokens` tokens; `errors` of its 100 characters are wrong, all in the slice `where`.
static EvalPage page_of(int tokens, int errors, int where) {
    EvalPage p = {.context.n = (size_t)tokens, .ended = 1, .same_tokens = tokens / 2, .output_tokens = tokens};
    p.id = strdup("a \"page\", one");
    p.reference = strdup("text");
    p.output = strdup("te\"xt\n");
    p.n_reference = 4;
    p.n_output = 6;
    p.forced_rows = tokens + 1;
    p.forced_correct = tokens;
    p.m = (PageMetrics){.char_precision = 1 - errors / 100.0,
                        .edit_distance = (size_t)errors,
                        .reference_chars = 100,
                        .output_chars = 100,
                        .exact = errors == 0,
                        .word_precision = 0.5,
                        .word_recall = 0.25,
                        .word_f1 = 1.0 / 3,
                        .bleu4 = 0.125,
                        .rouge_l = 0.75};
    for (int k = 0; k < METRICS_SLICES; k++) p.m.slice_chars[k] = 5;
    p.m.slice_errors[where] = (size_t)errors;
    p.control_precision[CONTROL_SWAPPED] = 0.2;
    p.control_precision[CONTROL_NO_LATENTS] = 0.1;
    p.control_correct[CONTROL_SWAPPED] = 1;
    return p;
}

static EvalSet set_of(const EvalPage *pages, int n) {
    EvalSet s = {.pages = malloc((size_t)n * sizeof *pages), .n = n, .empty = 1, .too_long = 2};
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
    CHECK(sum.pages == 4 && sum.cut == 1, "%d %d", sum.pages, sum.cut);
    CHECK(near(sum.char_precision, (1 + 0.96 + 0.98 + 0.9) / 4), "%.15g", sum.char_precision);
    CHECK(near(sum.char_precision_micro, 1 - 16.0 / 600), "%.15g", sum.char_precision_micro);
    CHECK(near(sum.exact_match, 0.25), "%.15g", sum.exact_match);
    CHECK(near(sum.token_accuracy, 100.0 / 104), "%.15g", sum.token_accuracy);
    CHECK(near(sum.token_match, 0.5), "%.15g", sum.token_match);
    CHECK(near(sum.tokens_per_latent, 25.0 / 5), "%.15g", sum.tokens_per_latent);
    CHECK(near(sum.word_precision, 0.5) && near(sum.word_recall, 0.25) && near(sum.word_f1, 1.0 / 3), "words");
    CHECK(near(sum.bleu4, 0.125) && near(sum.rouge_l, 0.75), "bleu, rouge");
    CHECK(near(sum.by_position[19], 1 - 6.0 / 20) && near(sum.by_position[0], 1), "%.15g", sum.by_position[19]);
    CHECK(near(sum.by_position[3], 0.5), "%.15g", sum.by_position[3]);
    CHECK(near(sum.control_precision[CONTROL_SWAPPED], 0.2), "%.15g", sum.control_precision[CONTROL_SWAPPED]);
    CHECK(near(sum.control_accuracy[CONTROL_SWAPPED], 4.0 / 104), "%.15g", sum.control_accuracy[CONTROL_SWAPPED]);
    s.pages[0].m.slice_errors[7] = 1000; // insertions
    eval_summarise(&sum, &s, 5, NULL, 0);
    CHECK(sum.by_position[7] == 0, "below zero: %g", sum.by_position[7]);
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
    CHECK(near(sum.token_match, 0.5), "%g", sum.token_match);
    CHECK(near(sum.tokens_per_latent, 5), "%g", sum.tokens_per_latent);
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
    CHECK(sum.buckets[0].pages == 2 && near(sum.buckets[0].char_precision, 0.95), "%d %g", sum.buckets[0].pages,
          sum.buckets[0].char_precision);
    CHECK(near(sum.buckets[0].compression, 14.5 / 2), "%g", sum.buckets[0].compression);
    CHECK(sum.buckets[1].pages == 1 && near(sum.buckets[1].char_precision, 0.8), "second");
    CHECK(sum.buckets[2].pages == 0, "third");
    eval_free(&s);

    check_begin("buckets from the data: round borders, every page inside, at most 8");
    for (int round = 0; round < 60; round++) {
        int low = 1 + round * round * 3, high = low + round * round * round;
        EvalPage two[] = {page_of(low, 0, 0), page_of(high, 0, 0)};
        s = set_of(two, 2);
        eval_summarise(&sum, &s, 1, NULL, 0);
        int inside = 0;
        for (int b = 0; b < sum.n_buckets; b++) inside += sum.buckets[b].pages;
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

static void test_files(void) {
    check_begin("the files of an evaluation");
    char folder[] = "/tmp/test_eval_XXXXXX";
    CHECK(mkdtemp(folder) != NULL, "mkdtemp");
    char *out = string_format("%s/new/folder", folder);
    EvalPage pages[] = {page_of(10, 0, 0), page_of(30, 4, 19)};
    EvalSet s = set_of(pages, 2);
    EvalSummary sum;
    Error err = {""};
    EvalFiles f = {.out = out, .model = "m", .source = "p", .dtype = "fp32", .no_latents_text = "the the"};
    eval_summarise(&sum, &s, 5, NULL, 0);
    CHECK(eval_write(&f, &s, &sum, NULL, &err) == 0, "%s", err.text);
    cJSON *root = read_json(out, "eval.json");
    CHECK(near(number(root, "char_precision"), 0.98), "char_precision %g", number(root, "char_precision"));
    CHECK(number(root, "pages") == 2 && number(root, "latents") == 5, "pages, latents");
    CHECK(near(number(root, "tokens_per_latent"), 4), "tokens_per_latent");
    CHECK(number(root, "left_out_too_long") == 2 && number(root, "left_out_empty") == 1, "left out");
    CHECK(cJSON_GetArraySize(cJSON_GetObjectItem(root, "by_position")) == 20, "by_position");
    const cJSON *swapped = cJSON_GetObjectItem(root, "control_swapped_latents");
    CHECK(near(number(swapped, "char_precision"), 0.2), "swapped");
    const cJSON *bucket = cJSON_GetArrayItem(cJSON_GetObjectItem(root, "buckets"), 0);
    CHECK(!isnan(number(bucket, "from")) && !isnan(number(bucket, "to")) && number(bucket, "pages") == 1, "bucket");
    cJSON_Delete(root);
    root = read_json(out, "fox.json");
    CHECK(cJSON_GetArraySize(root) == 2, "fox.json");
    cJSON_Delete(root);
    char *line = eval_page_json(&s.pages[0], 5);
    root = cJSON_Parse(line);
    CHECK(root && number(root, "tokens") == 10 && !strchr(line, '\n'), "page line: %s", line);
    cJSON_Delete(root);
    free(line);
    char *data, *path = string_format("%s/eval.csv", out);
    size_t size, lines = 0;
    CHECK(file_read(&data, &size, path, &err) == 0, "%s", err.text);
    for (size_t i = 0; i < size; i++) lines += data[i] == '\n';
    CHECK(lines == 3 && strstr(data, "\"a \"\"page\"\", one\",10,10,1,1.000000,0,"), "%s", data);
    free(data);
    free(path);
    eval_free(&s);

    check_begin("controls that mean nothing are left out: one page, or none were run");
    s = set_of((EvalPage[]){page_of(10, 0, 0)}, 1);
    eval_summarise(&sum, &s, 5, NULL, 0);
    CHECK(eval_write(&f, &s, &sum, NULL, &err) == 0, "%s", err.text);
    root = read_json(out, "eval.json");
    CHECK(!cJSON_GetObjectItem(root, "control_swapped_latents") && cJSON_GetObjectItem(root, "control_zero_latents"),
          "one page");
    cJSON_Delete(root);
    f.no_latents_text = NULL;
    CHECK(eval_write(&f, &s, &sum, NULL, &err) == 0, "%s", err.text);
    root = read_json(out, "eval.json");
    CHECK(root && !cJSON_GetObjectItem(root, "control_zero_latents"), "none were run");
    cJSON_Delete(root);
    eval_free(&s);
    file_remove_tree(folder, &err);
    free(out);
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
    test_render();
    return check_done();
}
