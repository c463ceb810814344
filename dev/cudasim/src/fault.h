// How the simulation ends a process that did something wrong.
#ifndef CUDASIM_FAULT_H
#define CUDASIM_FAULT_H

#include <cstdio>

namespace sim {

const char *message_prefix();       // "cuda-sim: ", with the rank when there are several
[[noreturn]] void end_process();    // code 86
void catch_faults_of_this_thread(); // segmentation faults and the like are reported with kernel, block and thread

} // namespace sim
#endif
