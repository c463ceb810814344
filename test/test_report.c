// test_report.c: the parts of c3 report on texts and numbers that nobody vouches for; a report of a folder full of
// them.
#include "test/check.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "llmc/chart.h"
#include "llmc/base/file.h"
#include "llmc/html.h"
#include "llmc/report.h"

static char folder[] = "build/test_report_XXXXXX";
static Error err;

// ---- texts ---------------------------------------------------------------------------------------------------------

static void test_text(void) {
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"plain", "plain"},
        {"</p><script>alert('x')</script>", "&lt;/p&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"},
        {"\" onload=\"x", "&quot; onload=&quot;x"},
        {"a&amp;b & c", "a&amp;amp;b &amp; c"},
        {"\x1b[2J\x7f", "\\x1b[2J\\x7f"},
        {"a\xe2\x80\xae"
         "b\xe2\x81\xa6",
         "a\\u202eb\\u2066"},
        {"\xe2\x80\xa8\xc2\x85\xd8\x9c", "\\u2028\\u0085\\u061c"},
        {"line\n\ttab", "line\n\ttab"},
        {"天 é 🙂", "天 é 🙂"},
        {"\xff\xc3(\xe5\xa4", "\xef\xbf\xbd\xef\xbf\xbd(\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xed\xa0\x80\xf5", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"", ""},
    };
    check_begin("texts as text: marks, quotes, controls, directions, broken UTF-8");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *got = NULL;
        size_t n = 0;
        FILE *out = open_memstream(&got, &n);
        html_string(out, cases[i].in);
        fclose(out);
        CHECK(!strcmp(got, cases[i].out), "case %zu: \"%s\", expected \"%s\"", i, got, cases[i].out);
        free(got);
    }
}

static void test_marked(void) {
    check_begin("errors marked: in the original, in the reconstruction, line ends, escapes inside");
    const char *reference = "a<b\ncd", *output = "axb&c";
    const char *ops = "=s=d=di"; // a=a <->x b=b \n gone, then c is wrong on purpose: only the ops count
    char *got = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&got, &n);
    html_reference(out, reference, strlen(reference), ops, strlen(ops));
    fputc('|', out);
    html_output(out, output, strlen(output), ops, strlen(ops));
    fputc('|', out);
    html_output(out, "x\n", 2, "ii", 2);
    fputc('|', out);
    html_reference(out, "ab", 2, "==========", 10); // more operations than text
    fclose(out);
    const char *wanted = "a<del>&lt;</del>b<del>\xe2\x86\xb5\n</del>c<del>d</del>|a<ins>x</ins>b&amp;<ins>c</ins>|"
                         "<ins>x\xe2\x86\xb5\n</ins>|ab";
    CHECK(!strcmp(got, wanted), "\"%s\"", got);
    free(got);
}

// ---- charts --------------------------------------------------------------------------------------------------------

static char *draw(const Chart *c) {
    char *got = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&got, &n);
    chart_draw(out, c);
    fclose(out);
    return got;
}

static int occurrences(const char *text, const char *what) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)) != NULL; at += strlen(what)) n++;
    return n;
}

// Every coordinate of every path lies in the picture.
static int inside(const char *html) {
    for (const char *d = html; (d = strstr(d, " d=\"")) != NULL;) {
        for (d += 4; *d != '"';) {
            char *end;
            double v = strtod(d + 1, &end); // behind the command or the space
            if (end == d + 1) {             // Z
                d++;
                continue;
            }
            if (!(v >= 0 && v <= 1000)) return 0;
            d = end;
        }
    }
    return 1;
}

static void test_numbers(void) {
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0, "0"},
                 {1, "1"},
                 {12.345, "12.3"},
                 {-0.25, "-0.25"},
                 {0.00621, "0.00621"},
                 {1e-5, "1e-5"},
                 {1.25e-7, "1.25e-7"},
                 {999.6, "1000"},
                 {9999.4, "9999"},
                 {15523, "15.5k"},
                 {1.33e6, "1.33M"},
                 {4.63e9, "4.63G"},
                 {NAN, "-"},
                 {INFINITY, "-"},
                 {-3e-4, "-0.0003"},
                 {2.5e15, "2.5e15"}};
    check_begin("numbers in a few characters");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[32];
        chart_number(text, cases[i].value);
        CHECK(!strcmp(text, cases[i].text), "%g: \"%s\", expected \"%s\"", cases[i].value, text, cases[i].text);
    }
}

static void test_charts(void) {
    enum { MANY = 100000 };
    double *x = malloc(MANY * sizeof *x), *y = malloc(MANY * sizeof *y);
    Chart c = {.title = "a <b>", .x_name = "step", .value = "1", .scale = CHART_AUTO, .n_series = 1};
    c.series[0] = (ChartSeries){.name = "s", .x = x, .y = y, .n = MANY};
    for (int i = 0; i < MANY; i++) {
        x[i] = i + 1;
        y[i] = i % 1000 == 7 ? NAN : 10.0 / (i + 1);
    }
    check_begin("many points become few; a logarithmic axis; numbers that are none are left out");
    char *got = draw(&c);
    CHECK(strlen(got) < 20000 && strstr(got, "class=\"band s0\"") && strstr(got, "0.0001"), "%zu bytes", strlen(got));
    CHECK(!strstr(got, "nan") && !strstr(got, "inf") && strstr(got, "a &lt;b&gt;") && inside(got), "%.600s", got);
    CHECK(strstr(got, "from 9.85 to ") || strstr(got, "s: from "), "%.900s", got);
    free(got);

    check_begin("the mean of a stretch is drawn, the band holds its ends");
    for (int i = 0; i < MANY; i++) y[i] = i % 2 ? 3 : 1;
    got = draw(&c); // 0 to 3: 2 lies a third from the top
    CHECK(strstr(got, "class=\"line s0\" d=\"M0.0 333.3L"), "%.700s", strstr(got, "class=\"line"));
    CHECK(strstr(got, "smallest 1, largest 3"), "%.500s", got);
    free(got);

    check_begin("few, one, equal, no points; shares; a mark");
    static const double values[][3] = {{1, 2, 3}, {5, 5, 5}, {0, 0, 0}, {-1, 0, 1}, {NAN, 2, NAN}, {1e300, 1, 1e-300}};
    for (int k = 0; k < 6; k++) {
        for (int n = 1; n <= 3; n++) {
            Chart few = {
                .title = "t", .x_name = "x", .scale = CHART_AUTO, .n_series = 1, .mark = 1.5, .mark_name = "m"};
            few.series[0] = (ChartSeries){.name = "s", .x = x, .y = values[k], .n = n, .dots = 1};
            got = draw(&few);
            int any = k != 4 || n > 1;
            CHECK(any ? inside(got) && occurrences(got, "<svg") == 1 : strstr(got, "no numbers") != NULL,
                  "values %d, n %d: %s", k, n, got);
            CHECK(!strstr(got, "nan") && !strstr(got, "inf"), "values %d, n %d: %s", k, n, got);
            free(got);
        }
    }
    Chart shares = {.title = "t", .x_name = "x", .scale = CHART_TO_ONE, .n_series = 1};
    double share[] = {0.972, 1, 0.99};
    shares.series[0] = (ChartSeries){.name = "s", .x = x, .y = share, .n = 3};
    got = draw(&shares);
    CHECK(strstr(got, ">100 %<") && strstr(got, ">97 %<") && inside(got), "%s", got);
    free(got);
    shares.n_series = 0;
    got = draw(&shares);
    CHECK(strstr(got, "no numbers") != NULL, "%s", got);
    free(got);
    free(x);
    free(y);
}

// ---- whole reports -------------------------------------------------------------------------------------------------

static void put(const char *name, const char *text) {
    char *path = string_format("%s/%s", folder, name), *slash = strrchr(path, '/');
    *slash = 0;
    if (file_make_dirs(path, &err) != 0) printf("%s\n", err.text), exit(2);
    *slash = '/';
    FILE *f = fopen(path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f) != 0) perror(path), exit(2);
    free(path);
}

// The report of folder/run as text; NULL when it was refused.
static char *report(const char *run) {
    char *path = string_format("%s/%s", folder, run), *out = string_format("%s/out.html", folder), *text = NULL;
    size_t n;
    unlink(out);
    int bad = report_write(path, out, &err) != 0 || file_read(&text, &n, out, &err) != 0;
    if (bad && file_exists(out)) printf("a refused report was written\n"), exit(2);
    free(path);
    free(out);
    return bad ? NULL : text;
}

static void expect(const char *html, const char *what, int there) {
    CHECK(html && !strstr(html, what) == !there, "%s: \"%s\"", there ? "missing" : "should not be there", what);
}

static void test_hostile(void) {
    check_begin("a run whose every text and number is hostile");
    static const char evil[] = "</title></style><script>alert(1)</script><img src=x onerror=alert(1)>";
    char *page =
        string_format("{\"id\":\"%s\",\"text\":\"%s\\u202e\",\"reconstruction\":\"<b>\\u0007\",\"tokens\":1e308,"
                      "\"latents\":-1,\"char_precision\":\"x\"}\n[]\n{\"text\":7}\n{broken\n",
                      evil, evil);
    char *eval =
        string_format("{\"char_precision\":1e999,\"pages\":\"x\",\"latents\":4,\"by_position\":[1,null,{}],"
                      "\"buckets\":[1,null,{\"pages\":1e300,\"from\":-1e300,\"to\":\"%s\"},{\"pages\":2,\"from\":"
                      "600,\"to\":700,\"char_precision\":7}],\"published\":[3,{\"name\":\"%s\",\"latents\":4,"
                      "\"buckets\":[{\"from\":600,\"to\":700,\"precision\":0.5}]},{\"latents\":4}],"
                      "\"control_no_latents\":{\"char_precision\":{},\"what\":\"%s\"},\"decoder_alone\":5}",
                      evil, evil, evil);
    put("evil/log.jsonl",
        "{\"step\":1,\"loss\":null,\"lr\":\"<b>\",\"ms\":5}\nnot json\n{\"step\":\"2\"}\n\n"
        "{\"step\":2,\"loss\":1e308,\"grad_norm\":-1e308,\"ms\":1e308}\n{\"step\":3,\"loss\":1e-308}");
    put("evil/eval<i>/pages.jsonl", page);
    put("evil/eval<i>/eval.json", eval);
    put("evil/evaluation.txt", "a file, not a folder");
    put("evil/eval_broken/eval.json", "[1");
    put("evil/step_00000003/config.json", "{}");
    put("evil/step_00000003/COMPLETE", "");
    put("evil/step_00000003/trainer/settings.json",
        "{\"<script>\":\"</dl>\",\"steps\":1e300,\"lr\":\"x\",\"schedule\":[]}");
    char *html = report("evil");
    CHECK(html != NULL, "%s", err.text);
    expect(html, "<script", 0);
    expect(html, "<img", 0);
    expect(html, "<b>\\x07", 0);
    expect(html, "&lt;script&gt;alert(1)", 1);
    expect(html, "\\u202e", 1);
    expect(html, "\xe2\x80\xae", 0);
    expect(html, "-&lt;script&gt;", 1);
    expect(html, "log.jsonl: 1 line is", 1);
    expect(html, "nan", 0);
    expect(html, "68 wrong characters, precision 2.86 %", 1);
    CHECK(html && occurrences(html, "</html>") == 1 && occurrences(html, "<main>") == 1, "the frame is broken");
    free(html);
    free(page);
    free(eval);
}

static void test_missing(void) {
    check_begin("what is missing is said; a folder with nothing of a run is refused");
    put("log/log.jsonl", "{\"step\":1,\"loss\":2,\"lr\":1e-3,\"ms\":10,\"tokens\":5}\n");
    char *html = report("log");
    expect(html, "no complete step_* folder", 1);
    expect(html, "There is no evaluation", 1);
    expect(html, "Learning rate", 1);
    expect(html, "Reconstructions</h2>", 0);
    free(html);
    put("eval/eval_x/pages.jsonl",
        "{\"id\":\"p\",\"text\":\"abc\",\"reconstruction\":\"abd\",\"tokens\":3,\"latents\":1,"
        "\"char_precision\":0.6666}\n");
    html = report("eval");
    expect(html, "There is no log.jsonl", 1);
    expect(html, "ab<del>c</del>", 1);
    expect(html, "ab<ins>d</ins>", 1);
    expect(html, "Training</h2>", 0);
    free(html);
    put("nothing/readme.txt", "");
    CHECK(!report("nothing") && strstr(err.text, "nothing: expected log.jsonl"), "%s", err.text);
    CHECK(!report("none") && strstr(err.text, "no such folder"), "%s", err.text);
    char *path = string_format("%s/log", folder);
    CHECK(report_write(path, "build/none/x.html", &err) != 0 && strstr(err.text, "build/none/x.html"), "%s", err.text);
    free(path);
}

static void test_published(void) {
    check_begin("published figures stand beside buckets and latents like theirs, nowhere else");
    static const char form[] =
        "{\"latents\":%d,\"pages\":2,\"source\":\"a<b.jsonl\",\"perturb\":\"shuffle\",\"buckets\":[{\"from\":600,"
        "\"to\":%d,"
        "\"pages\":2,\"char_precision\":0.9,\"compression\":20.3}],\"published\":[{\"name\":\"The paper\","
        "\"latents\":32,\"buckets\":[{\"from\":600,\"to\":700,\"precision\":0.997}]}]}";
    static const int cases[][3] = {{32, 700, 1}, {64, 700, 0}, {32, 650, 0}};
    for (int i = 0; i < 3; i++) {
        char *eval = string_format(form, cases[i][0], cases[i][1]);
        put("published/eval/eval.json", eval);
        char *html = report("published");
        expect(html, "90.00 %", 1);
        expect(html, "20.3\xc3\x97", 1);
        expect(html, "The paper", cases[i][2]);
        expect(html, "99.70 %", cases[i][2]);
        expect(html, "a&lt;b.jsonl, texts perturbed: shuffle", 1);
        free(html);
        free(eval);
    }
}

static void test_worst(void) {
    check_begin("the first two pages, then the four worst of the others, the worst one first");
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    static const int order[] = {90, 10, 100, 70, 20, 60, 30, 100, 50, 40};
    for (int i = 0; i < 10; i++)
        fprintf(f, "{\"id\":\"page-%d\",\"text\":\"a\",\"reconstruction\":\"a\",\"char_precision\":%g}\n", order[i],
                order[i] / 100.0);
    fclose(f);
    put("worst/eval/pages.jsonl", text);
    free(text);
    char *html = report("worst");
    static const char *const wanted[] = {"page-90", "page-10", "page-20", "page-30", "page-40", "page-50"};
    const char *at = html;
    for (int i = 0; i < 6 && at; i++) {
        at = strstr(at, wanted[i]);
        CHECK(at != NULL, "%s is not in its place", wanted[i]);
    }
    expect(html, "page-60", 0);
    expect(html, "page-100", 0);
    expect(html, "the first 2 of 10 pages, then 4 that", 1);
    free(html);
}

int main(void) {
    if (!mkdtemp(folder)) return perror(folder), 2;
    test_text();
    test_marked();
    test_numbers();
    test_charts();
    test_hostile();
    test_missing();
    test_published();
    test_worst();
    file_remove_tree(folder, &err);
    return check_done();
}
