// chart.h: line charts as HTML: curves in an inline SVG that stretches with the page, labels as text of the page's own
// size, so that a chart is as readable on a phone as on a desk. No script; colours come from the style sheet
// (report_style.c), light and dark.
#ifndef LLMC_CHART_H
#define LLMC_CHART_H

#include <stdio.h>

enum { CHART_SERIES = 4 };

typedef struct ChartSeries {
    const char *name;
    const double *x, *y; // (n) x ascending; y that is not finite is left out
    int n;
    int dots; // few points, each of its own: shown as dots
} ChartSeries;

typedef enum ChartScale {
    CHART_FROM_ZERO, // 0 to the largest
    CHART_AUTO,      // logarithmic when all is positive and spans more than a factor of 30, else as CHART_FROM_ZERO
    CHART_TO_ONE,    // shares: a round number below the smallest to 1, in per cent
} ChartScale;

typedef struct Chart {
    const char *title, *note; // note: a few words under the title, or NULL
    const char *x_name;
    const char *value; // the number in the corner, already as text
    ChartScale scale;
    ChartSeries series[CHART_SERIES];
    int n_series;
    double mark; // x of a vertical line, when mark_name is not NULL
    const char *mark_name;
    int wide; // the large form
} Chart;

// More points than pixels become their mean, with a band from the smallest to the largest. Draws nothing but a word
// when there is no point.
void chart_draw(FILE *out, const Chart *c);

// A number in at most about 6 characters, into a buffer that is returned: "0.0123", "1.2e-5", "12.3k", "4.56M".
const char *chart_number(char buffer[32], double value);

#endif
