// nan_report.h: which pages and which tensors went bad, when a loss or a gradient is not finite.
#ifndef LLMC_NAN_REPORT_H
#define LLMC_NAN_REPORT_H

#include "llmc/model/cascade.h"
#include "llmc/base/dist.h"
#include "llmc/data/loader.h"
#include "llmc/train/optimizer.h"

#ifdef __cplusplus
extern "C" {
#endif

// Called by all ranks after a step that changed nothing; micro: its n micro-batches. Writes one line: step, pages whose
// loss is not finite, tensors of weights and of gradients that hold NaN or Inf (the first few of each). Returns -1.
// Slow: the run ends with it.
int nan_report(C3 *m, const Optimizer *o, const Dataset *data, const MicroBatch *micro, int n, const Dist *dist,
               int64_t step, double loss, double grad_norm, Error *err);

#ifdef __cplusplus
}
#endif
#endif
