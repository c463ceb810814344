// Shadows the toolkit's cuda_runtime.h when .cu files are compiled for the CPU (see ../README.md): the host side
// (types, enums, prototypes) is NVIDIA's, taken from the next folder of the include path; the device side follows here.
#ifndef CUDASIM_CUDA_RUNTIME_H
#define CUDASIM_CUDA_RUNTIME_H

#include_next <cuda_runtime.h>

#include <algorithm>
#include <math.h>
#include <cuda_bf16.h>

// cuda_to_cpp.sed has rewritten every declaration of shared memory that it understands. What is left is an error.
#undef __shared__
#define __shared__ static_assert(false, "one __shared__ variable a line, as T name[N]; alignment after __shared__")
#undef __forceinline__
#define __forceinline__ inline __attribute__((always_inline))
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __grid_constant__
#define __grid_constant__

#include "sim.h"
#include "warp.h"
#include "atomics.h"
#include "arithmetic.h"
#include "ptx.cuh"

#endif
