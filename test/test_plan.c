// test_plan.c: the plan of a run: the paper's memory, what is chosen for how much of it, and what is said when there is
// too little.
#include "test/plan_rig.h"

// ---- the paper's run -----------------------------------------------------------------------------------------------

static void test_paper_memory(void) {
    check_begin("paper's run, a rank of 8: bf16 weights 9.3 GB, fp32 gradients 18.5, optimizer 6.9");
    PlanShape s = paper_shape(gpu_find("h100")->memory);
    s.fuse = 1;
    s.recompute = RECOMPUTE_NONE;
    PlanChoice c = choose(&s);
    CHECK(fabs((double)c.bytes.parameters / 1e9 - 9.3) < 0.05, "%zu", c.bytes.parameters);
    CHECK(fabs((double)c.bytes.gradients / 1e9 - 18.5) < 0.05, "%zu", c.bytes.gradients);
    CHECK(fabs((double)c.bytes.optimizer / 1e9 - 6.9) < 0.1, "%zu", c.bytes.optimizer);
    check_begin("paper's run, -b 2 -g 16 without recompute or fusing: more than 10 GB to spare of an H100");
    double spare = (double)c.bytes.memory - (double)c.bytes.reserve - (double)c.bytes.total;
    printf("  total %.1f GB, spare beyond the reserve %.1f GB\n", (double)c.bytes.total / 1e9, spare / 1e9);
    CHECK(c.limits.recompute == RECOMPUTE_NONE && c.batches == 16 && spare > 10e9, "spare %.1f GB", spare / 1e9);
    check_begin("activations of two pages: 2.05 MB a row of the encoder, 3.30 of the decoder, within 10 %");
    double rows = 2 * (2.05e6 * (TOKENS + 33) + 3.30e6 * (TOKENS + 64)); // the design's arithmetic
    double logits = 1902.0 * 151936 * 2;
    CHECK(fabs((double)c.bytes.activations - logits - rows) < 0.1 * rows, "%zu against %.0f", c.bytes.activations,
          rows + logits);
}

// ---- choices -------------------------------------------------------------------------------------------------------

static void check_choice(const PlanShape *s, const PlanChoice *c) {
    const C3Limits *l = &c->limits;
    CHECK(s->memory == 0 || c->bytes.total + s->reserve <= s->memory, "%zu of %zu", c->bytes.total, s->memory);
    CHECK(l->enc_rows >= s->longest.enc && l->dec_rows >= s->longest.dec && l->dec_outputs >= s->longest.outputs,
          "no room for the longest page: %d %d %d", l->enc_rows, l->dec_rows, l->dec_outputs);
    if (c->fuse) CHECK(c->fuse <= s->g && l->pages == c->fuse * s->b, "fuse %d, pages %d", c->fuse, l->pages);
    else CHECK(s->is_gpu && !s->fuse && l->pages >= 1 && l->pages <= s->b * s->g, "%d pages at a time", l->pages);
    CHECK(l->dec_rows <= (int64_t)l->pages * s->longest.dec, "%d rows for %d pages", l->dec_rows, l->pages);
    CHECK(l->loss_rows == s->b * s->g * s->longest.outputs && l->zero == s->zero, "loss rows %d, zero %d", l->loss_rows,
          l->zero);
}

static void test_budgets(void) {
    static const struct {
        double memory;
        Recompute mode;
        double batches;
    } expected[] = {{0, RECOMPUTE_NONE, 1},       {300e9, RECOMPUTE_NONE, 1}, {130e9, RECOMPUTE_NONE, 2},
                    {84.9e9, RECOMPUTE_NONE, 4},  {79e9, RECOMPUTE_NONE, 5},  {71e9, RECOMPUTE_CHEAP, 4},
                    {62e9, RECOMPUTE_NONE, 8},    {57e9, RECOMPUTE_CHEAP, 8}, {52e9, RECOMPUTE_CHEAP, 11},
                    {45.5e9, RECOMPUTE_LAYER, 3}, {41e9, RECOMPUTE_LAYER, 8}, {39e9, RECOMPUTE_LAYER, 32}};
    check_begin("what is kept, and how many pages are computed at a time, by memory");
    double before = 0;
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        PlanShape s = paper_shape(expected[i].memory);
        PlanChoice c = choose(&s);
        double seconds = times_of(&s, &c, "h100", 1).total;
        printf("  %6.1f GB: recompute %d, %2.0f device batches, %.1f GB used, %.3f s\n", expected[i].memory / 1e9,
               c.limits.recompute, c.batches, (double)c.bytes.total / 1e9, seconds);
        CHECK(c.limits.recompute == expected[i].mode && c.batches == expected[i].batches,
              "%.1f GB: mode %d, %.0f batches", expected[i].memory / 1e9, c.limits.recompute, c.batches);
        CHECK(seconds >= before - 1e-12, "less memory, faster: %.3f after %.3f", seconds, before);
        check_choice(&s, &c);
        before = seconds;
    }
}

static void test_best(void) {
    check_begin("no mode and no -fuse that fits is predicted to be faster than the choice; the same twice");
    for (int i = 0; i < 24; i++) {
        PlanShape s = paper_shape((40 + 3.5 * i) * 1e9);
        if (i % 2)
            s.longest =
                (BatchRows){.pages = 1, .enc = 3033, .dec = 3064, .outputs = 3001}; // pages of very different lengths
        PlanChoice c = {0}, again = {0};
        Error err = {""};
        if (plan_choose(&c, &s, &err) != 0) {
            CHECK(s.memory < 48e9, "%zu bytes: %s", s.memory, err.text);
            continue;
        }
        check_choice(&s, &c);
        CHECK(plan_choose(&again, &s, &err) == 0 && memcmp(&again.limits, &c.limits, sizeof c.limits) == 0, "differs");
        double best = times_of(&s, &c, "h100", 1).total;
        for (int trial = 0; trial < 3 * 16; trial++) {
            PlanShape given = s;
            given.recompute = trial / 16;
            given.fuse = 1 + trial % 16;
            if (plan_choose(&again, &given, &err) != 0) continue;
            check_choice(&given, &again);
            CHECK((int)again.limits.recompute == given.recompute && again.fuse == given.fuse, "not what was asked for");
            double other = times_of(&given, &again, "h100", 1).total;
            CHECK(other >= best - 1e-12, "%zu bytes: mode %d, fuse %d takes %.4f s, the choice %.4f", s.memory,
                  given.recompute, given.fuse, other, best);
        }
    }
}

static void test_cpu(void) {
    check_begin("on a CPU: micro-batches as they are; recomputed only when memory is short; split when it is shorter");
    PlanShape s = paper_shape(0);
    s.is_gpu = 0;
    s.gpu = NULL;
    s.reserve = 0;
    PlanChoice c = choose(&s);
    CHECK(c.fuse == 1 && c.batches == 16 && c.limits.recompute == RECOMPUTE_NONE && c.bytes.scratch == 0, "fuse %d",
          c.fuse);
    CHECK(c.limits.dec_rows == 2 * s.longest.dec && c.limits.enc_rows == 2 * s.longest.enc, "%d", c.limits.dec_rows);
    int before = RECOMPUTE_NONE, seen[3] = {0}, split = 0;
    for (size_t memory = c.bytes.total; memory > 30000000000u; memory -= 500000000u) {
        Error err = {""};
        s.memory = memory;
        if (plan_choose(&c, &s, &err) != 0) break;
        check_choice(&s, &c);
        CHECK((int)c.limits.recompute >= before, "less memory, less recomputed");
        CHECK(c.batches == 16 || c.limits.recompute == RECOMPUTE_LAYER, "split before recomputing");
        before = (int)c.limits.recompute;
        seen[before] = 1;
        split |= c.batches > 16;
    }
    CHECK(seen[0] && seen[1] && seen[2] && split, "%d %d %d, split %d", seen[0], seen[1], seen[2], split);
    s.memory = 0;
    s.fuse = 4;
    c = choose(&s);
    CHECK(c.fuse == 4 && c.batches == 4 && c.limits.dec_rows == 8 * s.longest.dec, "-fuse 4: %d", c.limits.dec_rows);
    s.fuse = 60000;
    c = choose(&s);
    CHECK(c.fuse == 16 && c.batches == 1, "-fuse beyond -g: %d", c.fuse);
}

static void test_short_pages(void) {
    check_begin(
        "a batch is bounded by rows: with short pages and one long one it takes more micro-batches than long pages");
    PlanShape s = paper_shape(60e9);
    PlanChoice uniform = choose(&s);
    s.longest = (BatchRows){.pages = 1, .enc = 4033, .dec = 4064, .outputs = 4001};
    PlanChoice mixed = choose(&s);
    CHECK(mixed.limits.dec_rows >= 4064 && mixed.limits.dec_rows < 2 * 4064, "%d rows", mixed.limits.dec_rows);
    CHECK(mixed.batches <= 2 * uniform.batches && mixed.batches < 16, "%.0f batches, uniform pages %.0f", mixed.batches,
          uniform.batches);
}

// ---- refusals ------------------------------------------------------------------------------------------------------

static double number_behind(const char *text, const char *words) { // bytes of "WORDS 12.3 GB"; -1: not there
    const char *at = strstr(text, words);
    double n;
    char unit[3];
    if (!at || sscanf(at + strlen(words), " %lf %2s", &n, unit) != 2) return -1;
    return n * (unit[0] == 'G' ? 1e9 : unit[0] == 'M' ? 1e6 : unit[0] == 'K' ? 1e3 : 1);
}

// Hints in the order of what they help: those that are enough first, and of these and of the others what saves most.
static void check_hints(const char *text, int expected) {
    double before = INFINITY;
    int n = 0, was_enough = 1;
    for (const char *at = text; (at = strstr(at, " save")); n++) {
        const char *number = at += strspn(at, " saves"), *end = number + strcspn(number, ",)");
        double saved = number_behind(number, "");
        int enough = strncmp(end - strlen(" (enough"), " (enough", strlen(" (enough")) == 0;
        CHECK(enough <= was_enough && (enough != was_enough || saved <= before), "order: %s", text);
        was_enough = enough;
        before = saved;
    }
    CHECK(n == expected, "%d hints: %s", n, text);
}

static void test_refusal(void) {
    check_begin("too little memory: kinds, what there is, and how much each option saves");
    PlanShape s = paper_shape(46e9), changed = s;
    s.recompute = RECOMPUTE_NONE;
    s.zero = 0;
    PlanChoice c;
    Error err = {""};
    CHECK(plan_choose(&c, &s, &err) == -1, "accepted");
    printf("  %s\n", err.text);
    static const char *const words[] = {"parameters 9.3 GB", "gradients 18.5 GB", "optimizer 55.6 GB",
                                        "there are 46.0 GB", "reserve"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) CHECK(strstr(err.text, words[i]), "no '%s'", words[i]);
    changed.memory = 0;
    changed.fuse = 1;
    changed.b = 1;
    double all[3][3];
    for (changed.zero = 0; changed.zero <= 2; changed.zero++) {
        for (changed.recompute = 0; changed.recompute <= 2; changed.recompute++) {
            PlanChoice one = choose(&changed);
            all[changed.zero][changed.recompute] = (double)one.bytes.total;
        }
    }
    const struct {
        const char *words;
        double saved;
    } hints[] = {{"-recompute cheap saves", all[0][0] - all[0][1]},
                 {"-recompute layer saves", all[0][0] - all[0][2]},
                 {"-zero 1 saves", all[0][0] - all[1][0]},
                 {"-zero 2 saves", all[0][0] - all[2][0]}};
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++) {
        double told = number_behind(err.text, hints[i].words);
        CHECK(fabs(told - hints[i].saved) < 0.06e9, "%s: %.3g told, %.3g true", hints[i].words, told, hints[i].saved);
    }
    CHECK(number_behind(err.text, "-maxlen 540 saves") > 1e9, "-maxlen");
    check_hints(err.text, 5);
    CHECK(strstr(err.text, "-zero 1 saves 48.6 GB (enough)") || !strstr(err.text, "-zero 1 saves 48.6 GB,"), "enough");

    check_begin("the option that is told to be enough is enough, the others are not");
    s.zero = 1;
    CHECK(plan_choose(&c, &s, &err) == (all[1][0] + (double)s.reserve <= (double)s.memory ? 0 : -1), "-zero 1");
    s.zero = 0;
    s.recompute = RECOMPUTE_LAYER;
    CHECK(plan_choose(&c, &s, &err) == -1 && !strstr(err.text, "-recompute") && strstr(err.text, "-zero 1"), "%s",
          err.text);
    s = paper_shape(4e9);
    s.ranks = 1;
    CHECK(plan_choose(&c, &s, &err) == -1 && !strstr(err.text, "-zero") && !strstr(err.text, "enough"), "%s", err.text);
    s.zero = 0;
    s.recompute = RECOMPUTE_LAYER;
    CHECK(plan_choose(&c, &s, &err) == -1 && strstr(err.text, "(hint: 8 ranks save 48.6 GB)"), "%s", err.text);
    s.memory = 85000000000u;
    CHECK(plan_choose(&c, &s, &err) == -1 && strstr(err.text, "(hint: 2 ranks save 27.8 GB (enough))"), "%s", err.text);
    s.is_gpu = 0; // cores share the memory
    CHECK(plan_choose(&c, &s, &err) == -1 && !strstr(err.text, "ranks save"), "%s", err.text);
    s.b = s.g = 65536;
    s.memory = 0;
    CHECK(plan_choose(&c, &s, &err) == -1 && strstr(err.text, "-b 65536 x -g 65536"), "%s", err.text);
}

// ---- names, options, the whole report ------------------------------------------------------------------------------

static void test_gpus(void) {
    static const struct {
        const char *name, *found;
    } names[] = {{"h100", "h100"},
                 {"NVIDIA H100 80GB HBM3", "h100"},
                 {"NVIDIA H800", "h800"},
                 {"NVIDIA H200", "h200"},
                 {"NVIDIA A100-SXM4-80GB", "a100"},
                 {"NVIDIA B200", "b200"},
                 {"NVIDIA GeForce RTX 4090", "4090"},
                 {"cuda NVIDIA H100 80GB HBM3", "h100"},
                 {"NVIDIA H100 PCIe", NULL},
                 {"NVIDIA H100 NVL", NULL},
                 {"NVIDIA GH200 480GB", NULL},
                 {"NVIDIA GB200", NULL},
                 {"NVIDIA A100-SXM4-40GB", NULL},
                 {"NVIDIA GeForce RTX 4090 Laptop GPU", NULL},
                 {"NVIDIA GeForce RTX 3090", NULL},
                 {"", NULL},
                 {NULL, NULL}};
    check_begin("GPUs by short name and by the driver's; variants with another data sheet are unknown");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const Gpu *g = gpu_find(names[i].name);
        CHECK(names[i].found ? g && strcmp(g->name, names[i].found) == 0 : !g, "%s: %s", names[i].name,
              g ? g->name : "unknown");
    }
    RooflineRates r = roofline_rates(gpu_find("h100"), DTYPE_BF16, 123e12),
                  s = roofline_rates(gpu_find("h100"), DTYPE_BF16, 0);
    CHECK(fabs(r.products - 0.7 / 0.8 * 123e12) < 1e9 && s.products > 500e12 && s.products < 989e12,
          "measured %g, else %g", r.products, s.products);
}

static int parsed(TrainOptions *o, const char *line, Error *err) {
    static char words[512];
    char *argv[32] = {words};
    int argc = 1, help;
    OptionTable table = {.n = 0};
    options_table(o, &table);
    snprintf(words, sizeof words, "train_c3 %s", line);
    for (char *w = strtok(words, " "); w; w = strtok(NULL, " ")) argv[w == words ? 0 : argc++] = w;
    TRY(cli_parse(&table, argc, argv, NULL, NULL, &help, err));
    return options_check(o, err);
}

static void test_options(void) {
    check_begin("-fuse, -recompute, -zero: auto by default, numbers checked, ZeRO 2 of one rank is 1");
    TrainOptions o;
    Error err = {""};
    CHECK(parsed(&o, "", &err) == 0 && options_fuse(&o) == 0 && options_recompute(&o) == -1, "%s", err.text);
    CHECK(options_zero(&o, 1) == 0 && options_zero(&o, 8) == 1, "-zero auto");
    options_free(&o);
    CHECK(parsed(&o, "-fuse 3 -zero 2 -recompute layer", &err) == 0 && options_fuse(&o) == 3, "%s", err.text);
    CHECK(options_zero(&o, 1) == 1 && options_zero(&o, 2) == 2 && options_recompute(&o) == RECOMPUTE_LAYER, "-zero 2");
    options_free(&o);
    static const char *const wrong[] = {
        "-fuse 0", "-fuse x3",  "-fuse 3x",      "-fuse -1",         "-fuse 99999999999999999999",
        "-fuse=",  "-gpu h100", "-plan_ranks 4", "-gpu h100x -plan", "-recompute some"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK(parsed(&o, wrong[i], &err) == -1, "%s was accepted", wrong[i]);
        options_free(&o);
    }
}

static char *report_on(const PlanMachine *machine, const char *line, int *bad, Error *err) {
    TrainOptions o;
    char *text = NULL;
    size_t size;
    Dist one = {.ranks = 1, .local_ranks = 1, .cores = 1};
    FILE *out = open_memstream(&text, &size);
    *bad = parsed(&o, line, err) != 0 || plan_run(out, &o, &one, machine, err) != 0;
    fclose(out);
    options_free(&o);
    return text;
}

static char *report_of(const char *line, int *bad, Error *err) { return report_on(NULL, line, bad, err); }

static void test_report(void) {
    check_begin("-plan without GPU, models and data says what it assumes and that it predicts");
    Error err = {""};
    int bad;
    char *text = report_of("-preset paper -plan -gpu h100 -plan_ranks 8 -o nowhere/at/all", &bad, &err);
    static const char *const words[] = {"assumed, no data was read: 950 text tokens",
                                        "-b 2 x -g 16 x 8 ranks",
                                        "4,632,694,272",
                                        "9.3 GB   bf16",
                                        "18.5 GB   fp32",
                                        "predicted, not measured",
                                        "products of the decoder",
                                        "fitted",
                                        "multiprocessors for NCCL",
                                        "reduce-scatter"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) CHECK(strstr(text, words[i]), "no '%s'", words[i]);
    CHECK(!bad && strstr(text, "MFU 5") && strstr(text, " h\n"), "%s\n%s", err.text, text);
    // the largest term first
    const char *decoder = strstr(text, "products of the decoder"), *attention = strstr(text, "\n  attention"),
               *adamw = strstr(text, "AdamW, norm");
    CHECK(decoder && attention && adamw && decoder < attention && attention < adamw, "order");
    free(text);
    text = report_of("-preset paper -plan -gpu b200 -plan_ranks 8", &bad, &err);
    CHECK(!bad && strstr(text, "not modelled   B200") && !strstr(text, "predicted") && strstr(text, "spare"), "%s",
          text);
    free(text);
    text = report_of("-preset paper -plan -gpu h100 -plan_ranks 8 -plan_tokens 475", &bad, &err);
    CHECK(!bad && strstr(text, "475 text tokens each"), "%s", err.text);
    free(text);
    text = report_of("-preset tiny -plan", &bad, &err);
    CHECK(!bad && strstr(text, "n/a") && !strstr(text, "predicted"), "a CPU: %s\n%s", err.text, text);
    free(text);
    text = report_of("-preset tiny -plan -gpu h100 -steps 3", &bad, &err);
    CHECK(!bad && strstr(text, "3 steps in under 1 s\n") && !strstr(text, " 0.00 s"), "a short run: %s", text);
    free(text);
    text = report_of("-preset tiny -plan -gpu measured", &bad, &err);
    CHECK(bad && strstr(err.text, "measured"), "no GPU: %s", err.text);
    free(text);
    text = report_of("-preset tiny -plan -gpu h100 -data nowhere/*.bin", &bad, &err);
    CHECK(bad && strstr(err.text, "nowhere"), "data that was named must be there: %s", err.text);
    free(text);
}

static void test_small_machine(void) {
    check_begin("a plan that does not fit is printed all the same; it is an error where -gpu asked for that machine");
    const PlanMachine small = {.name = "small", .memory = 16000000000u};
    const char *row, *here;
    Error err = {""};
    int bad;
    char *text = report_on(&small, "-preset paper -plan", &bad, &err);
    CHECK(!bad && strstr(text, "all kept") && strstr(text, "work of a step"), "%s\n%s", err.text, text);
    CHECK((row = strstr(text, "\n  short ")) && strstr(row, "GB   of 16.0 GB") && !strstr(text, "spare"), "%s", text);
    CHECK((here = strstr(text, "\nhere this does not fit: memory: a rank needs")) && strstr(here, "-gpu h100"), "%s",
          text);
    free(text);
    text = report_on(&small, "-preset tiny -plan", &bad, &err);
    CHECK(!bad && strstr(text, "spare") && !strstr(text, "does not fit"), "what fits: %s", text);
    free(text);
    text = report_on(&small, "-preset paper -plan -gpu 4090", &bad, &err);
    CHECK(bad && strstr(err.text, "memory: a rank needs") && strstr(err.text, "8 ranks save"), "%s", err.text);
    CHECK(strstr(text, "\n  short ") && strstr(text, "predicted, not measured"), "%s", text);
    free(text);

    check_begin("memory that a GPU has given away already is part of the reserve, not added to it");
    PlanMachine h100 = {.is_gpu = 1, .name = "NVIDIA H100 80GB HBM3", .memory = 84900000000u, .used = 600000000};
    const char *const line = "-preset paper -plan -plan_ranks 8";
    char *sheet = report_of("-preset paper -plan -plan_ranks 8 -gpu h100", &bad, &err);
    text = report_on(&h100, line, &bad, &err);
    CHECK((row = strstr(text, "\n  fused ")) && strstr(sheet, row = strndup(row, strcspn(row + 1, "\n") + 1)), "%s\n%s",
          row, sheet);
    free((char *)row);
    free(text);
    h100.used = 40000000000u; // another program's
    text = report_on(&h100, line, &bad, &err);
    CHECK((row = strstr(text, "\n  fused ")) && !strstr(sheet, row = strndup(row, strcspn(row + 1, "\n") + 1)), "%s",
          text);
    free((char *)row);
    free(text);
    free(sheet);

    check_begin("pages that -maxlen would leave out are not planned with");
    text = report_of("-preset paper -plan -gpu h100 -plan_ranks 8 -plan_tokens 9000", &bad, &err);
    CHECK(bad && strstr(err.text, "-plan_tokens 9000: such a page is a decoder sequence of 9065, -maxlen is 8192"),
          "%s", err.text);
    free(text);
    text = report_of("-preset paper -plan -gpu h100 -plan_ranks 8 -plan_longest 8128", &bad, &err);
    CHECK(bad && strstr(err.text, "-plan_longest 8128") && strstr(err.text, "hint: -maxlen 8193"), "%s", err.text);
    free(text);
    text = report_of("-preset paper -plan -gpu h100 -plan_ranks 8 -plan_longest 8128 -maxlen 8193", &bad, &err);
    CHECK(!bad, "%s", err.text);
    free(text);
}

static void test_disk(void) {
    check_begin("a checkpoint that does not fit on the disk is refused at the start");
    TrainOptions o = {.out = "build/some/run"};
    Plan p = {.o = &o, .choice = {.bytes = {.checkpoint = 1}}};
    Error err = {""};
    CHECK(plan_check_disk(&p, &err) == 0, "%s", err.text);
    p.choice.bytes.checkpoint = (uint64_t)1 << 60;
    CHECK(plan_check_disk(&p, &err) == -1 && strstr(err.text, "build/some/run: a checkpoint takes"), "%s", err.text);
    o.out = "/";
    CHECK(plan_check_disk(&p, &err) == -1, "/");
    o.out = "run";
    CHECK(plan_check_disk(&p, &err) == -1, "run");
}

int main(void) {
    make_paper();
    test_paper_memory();
    test_budgets();
    test_best();
    test_cpu();
    test_short_pages();
    test_refusal();
    test_gpus();
    test_options();
    test_report();
    test_small_machine();
    test_disk();
    params_free(&paper_params);
    return check_done();
}
