// report_data.h: what a run's folder holds, gathered for c3 report: the log, the newest checkpoint's settings and
// shapes, the evaluations. Whatever is missing or damaged is left out and named; nothing of it is believed.
#ifndef LLMC_REPORT_DATA_H
#define LLMC_REPORT_DATA_H

#include "llmc/model/config.h"
#include "llmc/base/error.h"
#include "llmc/base/json.h"

// Pages of an evaluation that are shown: the first of the file, then those that came back worst.
enum { REPORT_FIRST = 2, REPORT_WORST = 4, REPORT_PAGES = REPORT_FIRST + REPORT_WORST, REPORT_NOTES = 16 };

typedef struct ReportCurve {
    double *x, *y; // (n)
    int n, room;
} ReportCurve;

typedef enum ReportCurveName {
    CURVE_LOSS,
    CURVE_LR,
    CURVE_GRAD_NORM,
    CURVE_SPEED,  // tokens a second
    CURVE_MEMORY, // MB
    CURVE_MFU,
    CURVE_VAL_LOSS,
    CURVE_VAL_ACCURACY,
    N_CURVES
} ReportCurveName;

typedef struct ReportPage {
    cJSON *json; // a line of pages.jsonl, its texts checked
    long number; // in the file, from 1
    double precision;
} ReportPage;

typedef struct ReportEval {
    char *name;                     // of its folder
    cJSON *summary;                 // eval.json
    ReportPage pages[REPORT_PAGES]; // the first, then the worst, the worst one first
    int n_first, n_worst;
    long total; // lines of pages.jsonl
} ReportEval;

typedef struct ReportData {
    char *run, *name; // as given; its last part
    int has_log;
    ReportCurve curves[N_CURVES];
    double last_step, seconds, tokens, pages; // of the log
    char *step;                               // newest complete checkpoint; NULL: none
    int has_config;
    C3Config config;
    cJSON *settings, *state; // NULL: not there
    ReportEval *evals;       // sorted by name
    int n_evals;
    char *notes[REPORT_NOTES]; // what is missing or was left out, as sentences
    int n_notes;
} ReportData;

// An error only when the folder holds nothing of a run at all, or memory ran out.
int report_read(ReportData *d, const char *run, Error *err);
void report_data_free(ReportData *d);

#endif
