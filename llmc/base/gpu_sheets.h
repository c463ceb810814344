// gpu_sheets.h: GPUs by their data sheets.
#ifndef LLMC_GPU_SHEETS_H
#define LLMC_GPU_SHEETS_H

#ifdef __cplusplus
extern "C" {
#endif

// One GPU: FLOP/s without sparsity; bytes and bytes/s in powers of ten.
typedef struct Gpu {
    const char *name;  // as -gpu takes it: "h100"
    const char *title; // "H100 SXM, 80 GB"
    double bf16, fp32; // tensor cores with fp32 sums; plain fp32
    double bandwidth;  // of its memory
    double memory;
    double link;         // to the other GPUs of its host, one direction
    int sms;             // streaming multiprocessors
    double attention[2]; // share of bf16 that attention reaches with mma.sync, forward and backward; 0: not known
} Gpu;

// Finds a GPU by short name, or by the name the driver gives ("NVIDIA H100 80GB HBM3"). NULL: unknown, which includes
// variants of a known name with another data sheet (PCIe, NVL, laptop).
const Gpu *gpu_find(const char *name);

#ifdef __cplusplus
}
#endif
#endif
