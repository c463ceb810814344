// report.h: a run as one page of HTML: curves, settings, evaluations, reconstructions with their errors marked. One
// file, no network, no script; reads on a phone, in the dark and aloud.
#ifndef LLMC_REPORT_H
#define LLMC_REPORT_H

#include <stdio.h>

#include "llmc/base/error.h"
#include "report_data.h"

// Reads RUN and writes the page, whole or not at all.
int report_write(const char *run, const char *output, Error *err);

// ---- its parts ----
extern const char report_style[]; // the style sheet
void report_evaluations(FILE *out, const ReportData *d);
void report_reconstructions(FILE *out, const ReportData *d);
// An evaluation's folder as people say it: "eval_en" is "en", "eval" itself stays.
const char *report_eval_name(const ReportEval *e);
// A member that is a number of sane size (at most 1e15), or NAN.
double report_number(const cJSON *o, const char *key);

#endif
