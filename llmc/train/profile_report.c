// profile_report.c: what a profile says: milliseconds a step by kind, beside the plan's, and by range; the trace. See
// profile.h.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "llmc/base/alloc.h"
#include "llmc/train/profile.h"

// ---- the tree ------------------------------------------------------------------------------------------------------

// All spans of one name in one place of the tree, whatever their number.
typedef struct Node {
    const char *name;
    int parent; // -1: none
    int calls;
    double total, self; // seconds
} Node;

typedef struct Sums {
    Node *nodes; // parents before what lies in them
    int n;
    size_t room;
    double kinds[KINDS]; // seconds
} Sums;

// Which kind the time of a span, less that of what lies in it, counts as.
static int kind_of(const Profile *p, const Span *s, int holds_others) {
    int kind = s->kind;
    if (kind == KIND_BETWEEN) return holds_others ? KIND_BETWEEN : KIND_HOST;
    for (int i = s->parent; i >= 0; i = p->spans[i].parent) {
        const char *name = p->spans[i].name;
        if (!strcmp(name, "recompute")) return PART_RECOMPUTE;
        if (kind != KIND_PRODUCT) continue;
        if (!strncmp(name, "encoder", 7)) kind = PART_STACK0;
        else if (!strncmp(name, "decoder", 7)) kind = PART_STACK1;
        else if (!strncmp(name, "head", 4)) kind = PART_HEAD;
    }
    return kind;
}

static int find_node(Sums *t, int parent, const char *name) {
    for (int i = 0; i < t->n; i++) {
        if (t->nodes[i].parent == parent && !strcmp(t->nodes[i].name, name)) return i;
    }
    t->nodes = alloc_grow(t->nodes, (size_t)t->n, &t->room, sizeof *t->nodes, "profile");
    t->nodes[t->n] = (Node){.name = name, .parent = parent};
    return t->n++;
}

static Sums sum_up(const Profile *p) {
    Sums t = {0};
    size_t n = (size_t)p->n_spans;
    int *node = alloc(n, sizeof *node, "profile"), *holds_others = alloc_zeroed(n, sizeof *holds_others, "profile");
    double *self = alloc(n, sizeof *self, "profile"), begin, end, free_at = 0;
    for (int i = 0; i < p->n_spans; i++) {
        const Span *s = &p->spans[i];
        profile_times(&begin, &end, &free_at, p, s);
        self[i] = end - begin;
        node[i] = find_node(&t, s->parent < 0 ? -1 : node[s->parent], s->name);
        t.nodes[node[i]].calls++;
        t.nodes[node[i]].total += self[i];
        if (s->parent < 0) continue;
        self[s->parent] -= end - begin;
        holds_others[s->parent] = 1;
    }
    for (int i = 0; i < p->n_spans; i++) {
        const Span *s = &p->spans[i];
        t.nodes[node[i]].self += self[i];
        if (!s->collective) t.kinds[kind_of(p, s, holds_others[i])] += self[i];
    }
    free(node);
    free(holds_others);
    free(self);
    return t;
}

// ---- tables --------------------------------------------------------------------------------------------------------

static const char *kind_name(int kind) {
    static const char *const others[] = {"products elsewhere", "embedding, rows, copies", "host: loading, packing",
                                         "between operations"};
    return kind < PART_PARTS ? roofline_part_name(kind) : others[kind - PART_PARTS];
}

static void print_kinds(FILE *out, const Sums *t, double steps, double total, const RooflineTimes *plan) {
    int order[KINDS]; // the longest first
    for (int i = 0; i < KINDS; i++) {
        int k = i;
        for (; k > 0 && t->kinds[order[k - 1]] < t->kinds[i]; k--) order[k] = order[k - 1];
        order[k] = i;
    }
    fprintf(out, "  %-38s %9s %8s%s\n", "by kind", "ms", "share", plan ? "   plan, ms" : "");
    for (int i = 0; i < KINDS; i++) {
        int kind = order[i];
        double predicted = plan && kind < PART_PARTS ? plan->parts[kind].seconds : 0, seconds = t->kinds[kind] / steps;
        if (seconds <= 0 && predicted <= 0) continue;
        fprintf(out, "  %-38s", kind_name(kind));
        if (kind == PART_GRADIENTS) fprintf(out, " %18s", "in the products");
        else if (kind == PART_KERNELS) fprintf(out, " %18s", "in the others");
        else fprintf(out, " %9.2f %6.1f %%", 1e3 * seconds, 100 * seconds / total);
        if (predicted > 0) fprintf(out, " %10.2f", 1e3 * predicted);
        fprintf(out, "\n");
    }
    if (plan) fprintf(out, "  %-38s %9.2f %6.1f %% %10.2f\n", "all", 1e3 * total, 100.0, 1e3 * plan->total);
}

// The nodes in `parent`, the longest first, each with what lies in it. *left_out: rows that are too short to show.
static void print_tree(FILE *out, const Sums *t, int parent, int depth, double steps, double total, int *left_out) {
    enum { WIDTH = 38 };
    static const double SHORT = 0.001; // of the step
    int n = 0, *order = alloc((size_t)t->n, sizeof *order, "profile");
    for (int i = 0; i < t->n; i++) {
        if (t->nodes[i].parent != parent) continue;
        int k = n++;
        for (; k > 0 && t->nodes[order[k - 1]].total < t->nodes[i].total; k--) order[k] = order[k - 1];
        order[k] = i;
    }
    for (int i = 0; i < n; i++) {
        const Node *node = &t->nodes[order[i]];
        double seconds = node->total / steps;
        if (seconds < SHORT * total) {
            ++*left_out;
            continue;
        }
        fprintf(out, "  %*s%-*s %9.2f %6.1f %% %9.2f %9.6g\n", 2 * depth, "", WIDTH - 2 * depth, node->name,
                1e3 * seconds, 100 * seconds / total, 1e3 * node->self / steps, node->calls / steps);
        print_tree(out, t, order[i], depth + 1, steps, total, left_out);
    }
    free(order);
}

void profile_print(FILE *out, const Profile *p, const Plan *plan) {
    RooflineTimes predicted;
    Sums t = sum_up(p);
    double steps = p->measured, total = t.nodes[0].total / steps; // the step's span is the first
    int left_out = 0;
    int is_predicted = plan->shape.gpu && roofline_models(plan->shape.gpu, plan->shape.dtype);
    if (is_predicted) plan_times(&predicted, plan, 1);
    print_kinds(out, &t, steps, total, is_predicted ? &predicted : NULL);
    fprintf(out, "  %-38s %9s %8s %9s %9s\n", "by range", "ms", "share", "self", "calls");
    print_tree(out, &t, -1, 0, steps, total, &left_out);
    if (left_out) fprintf(out, "  (%d more below 0.1 %%)\n", left_out);
    free(t.nodes);
}

// ---- the trace -----------------------------------------------------------------------------------------------------

// Chrome's trace event format: complete events ("X"), microseconds. Whole nanoseconds, so that what lies inside
// another by its stamps does so in the file.
static void print_span(FILE *out, const Span *s, int rank, double begin, double end) {
    long long from = llround(1e9 * begin), took = llround(1e9 * end) - from;
    char number[16] = "";
    if (s->number >= 0) snprintf(number, sizeof number, " %d", s->number);
    fprintf(out, ",\n{\"ph\":\"X\",\"name\":\"%s%s\",\"pid\":%d,\"tid\":%d,\"ts\":%lld.%03lld,\"dur\":%lld.%03lld",
            s->name, number, rank, s->collective, from / 1000, from % 1000, took / 1000, took % 1000);
    if (s->rows) fprintf(out, ",\"args\":{\"rows\":%d,\"in\":%d,\"out\":%d}", s->rows, s->in, s->out);
    fprintf(out, "}");
}

static void print_name(FILE *out, const char *of, int rank, int track, const char *name) {
    fprintf(out, "{\"ph\":\"M\",\"name\":\"%s\",\"pid\":%d,\"tid\":%d,\"args\":{\"name\":\"%s\"}}", of, rank, track,
            name);
}

void profile_trace(char **text, size_t *size, const Profile *p, int rank, double start) {
    char name[32];
    double begin, end, free_at = 0, offset = p->clock - start;
    int beside = 0;
    FILE *out = open_memstream(text, size);
    if (!out) return;
    snprintf(name, sizeof name, "rank %d", rank);
    print_name(out, "process_name", rank, 0, name);
    for (int i = 0; i < p->n_spans; i++) {
        profile_times(&begin, &end, &free_at, p, &p->spans[i]);
        print_span(out, &p->spans[i], rank, offset + begin, offset + end);
        beside |= p->spans[i].collective;
    }
    for (int track = 0; track <= beside; track++) {
        fprintf(out, ",\n");
        print_name(out, "thread_name", rank, track, track ? "collectives" : "compute");
    }
    int bad = fclose(out);
    if (!bad) return;
    free(*text);
    *text = NULL;
    *size = 0;
}
