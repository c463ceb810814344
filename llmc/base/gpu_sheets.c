// gpu_sheets.c: see gpu_sheets.h.
#include "llmc/base/gpu_sheets.h"

#include <ctype.h>
#include <string.h>

// NVIDIA's data sheets: H100 and H200 (SXM), A100 (SXM), HGX B200, GeForce RTX 4090 (Ada whitepaper). H800 is an H100
// with 400 GB/s of NVLink. NVLink's figures are for both directions, half of them stand here; the 4090 has PCIe 4.0
// x16. Memory is what the driver reports, not the name's round number (an "80 GB" GPU has 79.1 GiB).
//
// The shares of attention are FlashAttention-2's, written in mma.sync like our kernels, at head dimension 128 on long
// pages. H100: 346 TFLOP/s forward, 35 % of the peak, backward 322 (FlashAttention-3, arXiv 2407.08608, section 1 and
// figures 5 and 6); the instruction itself reaches 63 % (arXiv 2402.13499). A100: 73 % forward, on causal pages
// 0.94 of it as on the H100, and 63 % backward (FlashAttention-2, arXiv 2307.08691, section 4.1). The 4090 has the
// same instructions and is assumed to reach the same shares. Of mma.sync on a B200 no figure is public.
static const Gpu gpus[] = {
    {"h100", "H100 SXM, 80 GB", 989.4e12, 66.9e12, 3.35e12, 84.9e9, 450e9, 132, {0.35, 0.325}},
    {"h800", "H800 SXM, 80 GB", 989.4e12, 66.9e12, 3.35e12, 84.9e9, 200e9, 132, {0.35, 0.325}},
    {"h200", "H200 SXM, 141 GB", 989.4e12, 66.9e12, 4.8e12, 150.1e9, 450e9, 132, {0.35, 0.325}},
    {"a100", "A100 SXM, 80 GB", 312e12, 19.5e12, 2.039e12, 84.9e9, 300e9, 108, {0.68, 0.63}},
    {"b200", "B200, 180 GB", 2250e12, 75e12, 7.7e12, 191.5e9, 900e9, 148, {0, 0}},
    {"4090", "GeForce RTX 4090, 24 GB", 165.2e12, 82.6e12, 1.008e12, 25.3e9, 32e9, 128, {0.68, 0.63}},
};

static int contains(const char *text, const char *word) { // ignoring case
    size_t n = strlen(word);
    for (; *text; text++) {
        size_t i = 0;
        while (i < n && text[i] && tolower((unsigned char)text[i]) == tolower((unsigned char)word[i])) i++;
        if (i == n) return 1;
    }
    return 0;
}

const Gpu *gpu_find(const char *name) {
    static const char *const others[] = {"PCI", "NVL", "Laptop", "4090 D", "GB200", "GH200", "40GB", "MIG"};
    for (size_t i = 0; name && i < sizeof others / sizeof *others; i++) {
        if (contains(name, others[i])) return NULL;
    }
    for (size_t i = 0; name && i < sizeof gpus / sizeof *gpus; i++) {
        if (contains(name, gpus[i].name)) return &gpus[i];
    }
    return NULL;
}
