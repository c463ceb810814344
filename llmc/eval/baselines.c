// baselines.c: see baselines.h.
#include "llmc/eval/baselines.h"

const Baseline baselines[N_BASELINES] = {
    {"C3, paper, 32 latents",
     "C3 32",
     32,
     {99.7, 99.7, 98.8, 98.7, 98.8, 94.0, 93.3},
     {21.0, 23.6, 26.4, 30.2, 31.0, 35.4, 39.4}},
    {"C3, paper, 64 latents", "C3 64", 64, {99.7, 99.9, 99.7, 99.9, 99.7, 98.6, 98.4}, {0}},
    {"C3, paper, 100 latents", "C3 100", 100, {99.9, 99.5, 99.7, 99.7, 99.5, 98.5, 97.5}, {0}},
    {"DeepSeek-OCR, 64 vision tokens", "DS 64", 64, {96.5, 93.8, 83.8, 85.9, 79.3, 76.4, 59.1}, {0}},
    {"DeepSeek-OCR, 100 vision tokens", "DS 100", 100, {98.5, 97.3, 96.8, 96.8, 91.5, 89.8, 87.1}, {0}},
};
