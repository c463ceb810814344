// kernels.c: one variant of the CPU kernels. Compiled several times by variants.mk: element type (ELEM_BF16) x
// instruction set (the compiler's flags, DOT for bf16 dot products), each under its own name (KERNELS, KERNELS_ISA).
#include "llmc/cpu/cpu.h"
#include "llmc/cpu/kernels/vector.h"

#include "llmc/cpu/kernels/layers.inc"
#include "llmc/cpu/kernels/gemm.inc"
#include "llmc/cpu/kernels/attention.inc"

const CpuKernels KERNELS = {
    .isa = KERNELS_ISA,
    .tile_rows = TM,
    .tile_cols = TN,
    .cast_from_f32 = cast_from_f32,
    .cast_to_f32 = cast_to_f32,
    .add_row_f32 = add_row_f32,
    .add_row = add_row,
    .rmsnorm_forward = rmsnorm_forward,
    .rmsnorm_backward = rmsnorm_backward,
    .rope = rope,
    .swiglu_forward = swiglu_forward,
    .swiglu_backward = swiglu_backward,
    .cross_entropy = cross_entropy,
    .argmax = argmax,
    .adamw = adamw,
    .sum_squares = sum_squares,
    .column_sums = column_sums,
    .gemm_scratch = gemm_scratch,
    .gemm = gemm,
    .peak = gemm_peak,
    .attention_forward_scratch = attention_forward_scratch,
    .attention_forward = attention_forward,
    .attention_backward_scratch = attention_backward_scratch,
    .attention_backward = attention_backward,
};
