// NVTX ranges, as far as the event log shows them: an operation carries the ranges that were open when it was issued.
#ifndef CUDASIM_NVTX_H
#define CUDASIM_NVTX_H

#ifdef __cplusplus
extern "C" {
#endif
int nvtxRangePushA(const char *name); // both return the depth of the range
int nvtxRangePop(void);
#ifdef __cplusplus
}
#endif

#endif
