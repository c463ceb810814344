// test_tasks.c: which task is made of which page, and what -mix refuses.
#include "test/check.h"

#include <math.h>

#include "llmc/base/random.h"
#include "llmc/train/tasks.h"

enum { N = 100000 };
static Error err;
static uint32_t ids[1000];
static int32_t words[3] = {7, 8, 9};

static ShardPage plain(uint32_t n) {
    return (ShardPage){.context = ids, .context_length = n, .answer = ids, .answer_length = n};
}

// The text of -mix, with a prompt of three tokens.
static TaskMix mix(const char *text) {
    TaskMix m;
    CHECK(tasks_open(&m, text, NULL, &err) == 0, "%s", err.text);
    m.prompt = (Tokens){.ids = words, .n = 3};
    return m;
}

static void test_draws(void) {
    check_begin("tasks are drawn by their weights; what is continued is the rest behind 40 to 70 % of the page");
    TaskMix m = mix("continue:1,repeat:3");
    int continued = 0;
    uint32_t least = 1000, most = 0;
    double sum = 0;
    for (uint64_t i = 0; i < N; i++) {
        ShardPage p = plain(1000);
        tasks_draw(&m, &p, random_mix(i));
        if (tasks_of(&m, &p) == C3_REPEAT) {
            CHECK(p.context_length == 1000 && p.answer == p.context && p.answer_length == 1000 && !p.prompt,
                  "a change");
            continue;
        }
        continued++;
        CHECK(p.context == ids && p.answer == ids + p.context_length && p.context_length + p.answer_length == 1000 &&
                  p.prompt_length == 3 && p.prompt[2] == 9,
              "%u + %u", p.context_length, p.answer_length);
        least = p.context_length < least ? p.context_length : least;
        most = p.context_length > most ? p.context_length : most;
        sum += p.context_length;
    }
    CHECK(fabs(continued / (double)N - 0.25) < 0.01, "%d of %d are continued", continued, N);
    CHECK(least >= 400 && least < 402 && most < 700 && most > 697, "%u to %u tokens", least, most);
    CHECK(fabs(sum / continued - 550) < 3, "%.1f tokens on average", sum / continued);

    check_begin("the smallest pages, and pages with a prompt or an answer of their own");
    m = mix("continue:1");
    for (uint32_t n = 1; n < 300; n++) {
        for (uint64_t i = 0; i < 20; i++) {
            ShardPage p = plain(n);
            tasks_draw(&m, &p, random_mix(i));
            CHECK(tasks_of(&m, &p) == (n > 1 ? C3_CONTINUE : C3_REPEAT), "%u tokens", n);
            CHECK(p.context_length > 0 && p.answer_length > 0 && p.context_length <= n, "%u tokens", n);
            CHECK(p.prompt_length + p.answer_length <= tasks_longest(&m, n) || n == 1, "%u tokens: %u", n,
                  p.answer_length);
        }
    }
    const ShardPage asked = {.context = ids,
                             .context_length = 9,
                             .answer = ids,
                             .answer_length = 9,
                             .prompt = ids + 40,
                             .prompt_length = 3},
                    own = {.context = ids, .context_length = 9, .answer = ids + 20, .answer_length = 9};
    ShardPage p = asked;
    tasks_draw(&m, &p, 5);
    CHECK(memcmp(&p, &asked, sizeof p) == 0 && tasks_of(&m, &p) == C3_INSTRUCT, "a prompt of its own");
    p = own;
    tasks_draw(&m, &p, 5);
    CHECK(memcmp(&p, &own, sizeof p) == 0 && tasks_of(&m, &p) == C3_REPEAT, "an answer of its own");
    m = mix("repeat:2");
    p = plain(50);
    tasks_draw(&m, &p, UINT64_MAX);
    CHECK(tasks_of(&m, &p) == C3_REPEAT && tasks_longest(&m, 50) == 0, "repeat alone");
}

static void test_refusals(void) {
    check_begin("a -mix that is not one is refused, and the word is named");
    static const char *const bad[][2] = {{"", "found \"\""},
                                         {"repeat", "repeat:0.5"},
                                         {"repeat:", "repeat:0.5"},
                                         {"repeat:1,", "found \"\""},
                                         {"repeat:0", "above 0"},
                                         {"repeat:-1", "above 0"},
                                         {"repeat:nan", "above 0"},
                                         {"repeat:1x", "repeat:0.5"},
                                         {"repeat:1;continue:1", "repeat:0.5"},
                                         {"repeat:1,repeat:2", "twice"},
                                         {"instruct:1", "found \"instruct\""},
                                         {"repea:1", "found \"repea\""},
                                         {"continued:1", "found \"continued\""}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        TaskMix m;
        CHECK(tasks_open(&m, bad[i][0], NULL, &err) == -1 && strstr(err.text, bad[i][1]) && strstr(err.text, "-mix"),
              "%s: %s", bad[i][0], err.text);
    }
}

int main(void) {
    for (uint32_t i = 0; i < 1000; i++) ids[i] = i;
    test_draws();
    test_refusals();
    return check_done();
}
