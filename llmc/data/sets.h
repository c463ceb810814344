// sets.h: sets of pages with names, as -data and -val name them: [NAME=]GLOB[:WEIGHT], several times.
//
// A value that finds files as it stands is a GLOB, whatever characters are in it. One set may go without a name; of
// several such values the last one counts.
#ifndef LLMC_SETS_H
#define LLMC_SETS_H

#include "llmc/base/cli.h"
#include "llmc/data/loader.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct SetSpec {
    char name[DATA_NAME]; // "": none
    char *globs;          // names and patterns, as dataset_open takes them; owned
    double weight;        // share of the pages, in proportion to the other sets' weights; 0: none was given
} SetSpec;

typedef struct SetSpecs {
    SetSpec list[DATA_MAX_SETS]; // (n) sorted by name
    int n;
} SetSpecs;

// option: "data", for errors. weighted: a value may end in :WEIGHT. Files need not be there.
int sets_parse(SetSpecs *out, const char *option, const OptionList *values, int weighted, Error *err);
void sets_free(SetSpecs *s);
// The sets as one numbered list of pages, one set after the other; limit: of dataset_open.
int sets_open(Dataset *d, const SetSpecs *s, const PageLimit *limit, Error *err);

#ifdef __cplusplus
}
#endif
#endif
