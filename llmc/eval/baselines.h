// baselines.h: the figures of the papers, to stand beside a model's own.
//
// Pages of the Fox benchmark, English, by length in text tokens; decoding precision of full-size models. Neither paper
// says how it defines precision, so no column of ours is the same quantity by definition.
#ifndef LLMC_BASELINES_H
#define LLMC_BASELINES_H

enum { BASELINE_BUCKETS = 7, BASELINE_FROM = 600, BASELINE_STEP = 100, N_BASELINES = 5 };

typedef struct Baseline {
    const char *name;                     // "C3, paper, 32 latents"
    const char *label;                    // short, for a table's head
    int latents;                          // latents or vision tokens
    double precision[BASELINE_BUCKETS];   // per cent; bucket b: 600 + 100 b <= text tokens < 700 + 100 b
    double compression[BASELINE_BUCKETS]; // 0: not given
} Baseline;

// arXiv 2511.15244: tables 1 (64 and 100) and 2 (32), where DeepSeek-OCR's figures (64 and 100) stand beside.
extern const Baseline baselines[N_BASELINES];

#endif
