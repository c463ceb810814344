// chart.c: see chart.h. The SVG has 1000 x 1000 units whatever its size on the screen; strokes keep their width.
#include "chart.h"

#include <math.h>
#include <string.h>

#include "html.h"

enum { POINTS = 300, MAX_TICKS = 12, SIZE = 1000 };

typedef struct Axis {
    double low, high; // of the axis; logarithms when log is set
    int log;
    double ticks[MAX_TICKS]; // values
    int n_ticks;
} Axis;

// At most POINTS points: mean, smallest, largest of equal stretches of the series.
typedef struct Curve {
    double x[POINTS], y[POINTS], low[POINTS], high[POINTS];
    int n, joined; // joined: points stand for several
} Curve;

const char *chart_number(char buffer[32], double v) {
    double a = fabs(v);
    if (!isfinite(v)) snprintf(buffer, 32, "-");
    else if (a == 0) snprintf(buffer, 32, "0");
    else if (a < 0.0000999 || a >= 999.5e9) {
        int exponent = (int)floor(log10(a) + 1e-9);
        snprintf(buffer, 32, "%.3ge%d", v / pow(10, exponent), exponent);
    } else if (a >= 999.5e6) snprintf(buffer, 32, "%.3gG", v / 1e9);
    else if (a >= 999.5e3) snprintf(buffer, 32, "%.3gM", v / 1e6);
    else if (a >= 9999.5) snprintf(buffer, 32, "%.3gk", v / 1e3);
    else if (a >= 999.5) snprintf(buffer, 32, "%.0f", v);
    else snprintf(buffer, 32, "%.3g", v);
    return buffer;
}

// ---- points --------------------------------------------------------------------------------------------------------

static void reduce(Curve *c, const ChartSeries *s) {
    int usable = 0, seen = 0;
    for (int i = 0; i < s->n; i++) usable += isfinite(s->y[i]) && isfinite(s->x[i]);
    *c = (Curve){.joined = usable > POINTS};
    int stretches = c->joined ? POINTS : usable, last = -1, count = 0;
    for (int i = 0; i < s->n; i++) {
        if (!isfinite(s->y[i]) || !isfinite(s->x[i])) continue;
        int k = (int)((double)seen++ * stretches / usable);
        if (k != last) {
            c->x[k] = c->y[k] = 0;
            c->low[k] = c->high[k] = s->y[i];
            count = 0;
            last = k;
            c->n = k + 1;
        }
        count++;
        c->x[k] += (s->x[i] - c->x[k]) / count; // running means
        c->y[k] += (s->y[i] - c->y[k]) / count;
        c->low[k] = fmin(c->low[k], s->y[i]);
        c->high[k] = fmax(c->high[k], s->y[i]);
    }
}

static void extend(double *low, double *high, double from, double to) {
    *low = fmin(*low, from);
    *high = fmax(*high, to);
}

// ---- axes ----------------------------------------------------------------------------------------------------------

static double place(const Axis *a, double v) {
    double at = a->log ? log10(fmax(v, 1e-300)) : v;
    return fmin(fmax((at - a->low) / (a->high - a->low), 0), 1);
}

// 1, 2 or 5 times a power of ten, so that about `count` of them make up the range.
static double round_step(double range, double count) {
    double step = pow(10, floor(log10(range / count))), times = range / count / step;
    return step * (times > 5 ? 10 : times > 2 ? 5 : times > 1 ? 2 : 1);
}

static void linear_axis(Axis *a, double low, double high, double count, int round_ends) {
    if (!(high > low)) high = low + (low != 0 ? fabs(low) : 1);
    double step = round_step(high - low, count);
    a->low = round_ends ? floor(low / step + 1e-9) * step : low;
    a->high = round_ends ? ceil(high / step - 1e-9) * step : high;
    for (double k = ceil(a->low / step - 1e-9); k * step <= a->high + step * 1e-9 && a->n_ticks < MAX_TICKS; k++)
        a->ticks[a->n_ticks++] = k * step;
}

static void log_axis(Axis *a, double low, double high) {
    a->log = 1;
    a->low = log10(low) - 0.05;
    a->high = log10(high) + 0.05;
    int stride = (int)ceil((a->high - a->low) / 5);
    for (int e = (int)ceil(a->low); e <= a->high && a->n_ticks < MAX_TICKS; e += stride)
        a->ticks[a->n_ticks++] = pow(10, e);
}

static void make_axes(Axis *x, Axis *y, const Chart *c, const Curve *curves) {
    double low = INFINITY, high = -INFINITY, first = INFINITY, last = -INFINITY;
    for (int s = 0; s < c->n_series; s++) {
        for (int i = 0; i < curves[s].n; i++) {
            extend(&low, &high, curves[s].low[i], curves[s].high[i]);
            extend(&first, &last, curves[s].x[i], curves[s].x[i]);
        }
    }
    *x = *y = (Axis){0};
    linear_axis(x, first, last, c->wide ? 8 : 5, 0);
    if (c->scale == CHART_AUTO && low > 0 && high > 30 * low) log_axis(y, low, high);
    else if (c->scale == CHART_TO_ONE) linear_axis(y, fmin(low, 0.99), 1, 4, 1);
    else linear_axis(y, fmin(low, 0), high, 4, 1);
}

static const char *tick_text(char buffer[32], double v, ChartScale scale) {
    if (scale != CHART_TO_ONE) return chart_number(buffer, v);
    snprintf(buffer, 32, "%.4g %%", 100 * v);
    return buffer;
}

// ---- drawing -------------------------------------------------------------------------------------------------------

static void draw_point(FILE *out, char command, const Axis *x, const Axis *y, double px, double py) {
    fprintf(out, "%c%.1f %.1f", command, SIZE * place(x, px), SIZE * (1 - place(y, py)));
}

static void draw_curve(FILE *out, const Curve *c, const Axis *x, const Axis *y, int series, int dots) {
    if (c->joined) {
        fprintf(out, "<path class=\"band s%d\" d=\"", series);
        for (int i = 0; i < c->n; i++) draw_point(out, i ? 'L' : 'M', x, y, c->x[i], c->high[i]);
        for (int i = c->n - 1; i >= 0; i--) draw_point(out, 'L', x, y, c->x[i], c->low[i]);
        fprintf(out, "Z\"/>");
    }
    fprintf(out, "<path class=\"line s%d\" d=\"", series);
    for (int i = 0; i < c->n; i++) draw_point(out, i ? 'L' : 'M', x, y, c->x[i], c->y[i]);
    fprintf(out, "\"/>");
    if (!dots && c->n > 1) return;
    fprintf(out, "<path class=\"dots s%d\" d=\"", series); // lines without length, with round ends
    for (int i = 0; i < c->n; i++) {
        draw_point(out, 'M', x, y, c->x[i], c->y[i]);
        fprintf(out, "h0");
    }
    fprintf(out, "\"/>");
}

static void draw_grid(FILE *out, const Chart *c, const Axis *x, const Axis *y) {
    fprintf(out, "<path class=\"grid\" d=\"");
    for (int i = 0; i < y->n_ticks; i++) fprintf(out, "M0 %.1fH%d", SIZE * (1 - place(y, y->ticks[i])), SIZE);
    fprintf(out, "\"/>");
    if (c->mark_name && c->mark > x->low && c->mark < x->high)
        fprintf(out, "<path class=\"mark\" d=\"M%.1f 0V%d\"/>", SIZE * place(x, c->mark), SIZE);
}

// Numbers beside the axes: text of the page, placed in per cent of the plot.
static void draw_labels(FILE *out, const Chart *c, const Axis *x, const Axis *y) {
    char text[32];
    fprintf(out, "<div class=\"ticks\" aria-hidden=\"true\">");
    for (int i = 0; i < y->n_ticks; i++)
        fprintf(out, "<span class=\"y\" style=\"top:%.2f%%\">%s</span>", 100 * (1 - place(y, y->ticks[i])),
                tick_text(text, y->ticks[i], c->scale));
    for (int i = 0; i < x->n_ticks; i++)
        fprintf(out, "<span class=\"x\" style=\"left:%.2f%%\">%s</span>", 100 * place(x, x->ticks[i]),
                chart_number(text, x->ticks[i]));
    if (c->mark_name && c->mark > x->low && c->mark < x->high) {
        double at = 100 * place(x, c->mark);
        if (at < 60) fprintf(out, "<span class=\"mark\" style=\"left:%.2f%%;right:0\">", at);
        else fprintf(out, "<span class=\"mark before\" style=\"left:0;right:%.2f%%\">", 100 - at);
        html_string(out, c->mark_name);
        fprintf(out, "</span>");
    }
    fprintf(out, "</div>");
}

// What a person who does not see the picture is told.
static void describe(FILE *out, const Chart *c, const Curve *curves) {
    char from[32], to[32], low[32], high[32];
    html_string(out, c->title);
    for (int s = 0; s < c->n_series; s++) {
        const Curve *k = &curves[s];
        double least = INFINITY, most = -INFINITY;
        if (!k->n) continue;
        for (int i = 0; i < k->n; i++) extend(&least, &most, k->low[i], k->high[i]);
        fprintf(out, "; ");
        html_string(out, c->series[s].name);
        fprintf(out, ": from %s to %s, smallest %s, largest %s", tick_text(from, k->y[0], c->scale),
                tick_text(to, k->y[k->n - 1], c->scale), tick_text(low, least, c->scale),
                tick_text(high, most, c->scale));
    }
}

static void draw_caption(FILE *out, const Chart *c, int points) {
    fprintf(out, "<figcaption><span class=\"title\">");
    html_string(out, c->title);
    fprintf(out, "</span>");
    if (c->value) {
        fprintf(out, "<span class=\"value\">");
        html_string(out, c->value);
        fprintf(out, "</span>");
    }
    if (c->note) {
        fprintf(out, "<span class=\"note\">");
        html_string(out, c->note);
        fprintf(out, "</span>");
    }
    if (c->n_series > 1 && points) {
        fprintf(out, "<span class=\"legend\">");
        for (int s = 0; s < c->n_series; s++) {
            fprintf(out, "<span class=\"s%d\">", s);
            html_string(out, c->series[s].name);
            fprintf(out, "</span>");
        }
        fprintf(out, "</span>");
    }
    fprintf(out, "</figcaption>\n");
}

void chart_draw(FILE *out, const Chart *c) {
    Curve curves[CHART_SERIES];
    Axis x, y;
    int points = 0;
    for (int s = 0; s < c->n_series; s++) {
        reduce(&curves[s], &c->series[s]);
        points += curves[s].n;
    }
    fprintf(out, "<figure class=\"chart%s\">", c->wide ? " wide" : "");
    draw_caption(out, c, points);
    if (!points) {
        fprintf(out, "<p class=\"missing\">no numbers</p></figure>\n");
        return;
    }
    make_axes(&x, &y, c, curves);
    fprintf(out,
            "<div class=\"plot\"><svg viewBox=\"0 0 %d %d\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"",
            SIZE, SIZE);
    describe(out, c, curves);
    fprintf(out, "\">");
    draw_grid(out, c, &x, &y);
    for (int s = c->n_series - 1; s >= 0; s--) {
        if (curves[s].n) draw_curve(out, &curves[s], &x, &y, s, c->series[s].dots);
    }
    fprintf(out, "</svg>");
    draw_labels(out, c, &x, &y);
    fprintf(out, "</div><p class=\"axis\" aria-hidden=\"true\">");
    html_string(out, c->x_name);
    fprintf(out, "</p></figure>\n");
}
