// launch.h: how this process was started: by hand or as one of several, by which process, on which cores.
#ifndef LLMC_LAUNCH_H
#define LLMC_LAUNCH_H

#include "llmc/base/error.h"

// Whether the environment asks for MPI. Only a launcher's does: a process started by hand needs no MPI daemon.
int launch_wants_mpi(void);

// An error if the process was started as one of several but is alone (ranks is 1): each would train by itself and
// overwrite the others' files. library: the MPI library of this build; NULL: none.
int launch_check(int ranks, const char *library, Error *err);

// The process that launched this one, directly or through scripts: mpirun, its daemon on another host, or srun's; 0:
// none.
int launch_parent(void);
// A descriptor that becomes readable when that process ends; -1: none (no such process, or Linux before 5.3).
int launch_parent_descriptor(int parent);

// Who bound this process to its cores? Open MPI by default binds ranks to single cores if there are few of them, which
// leaves all threads of a rank on one core. That may be undone; what a person or a scheduler asked for may not.
typedef enum LaunchMask {
    MASK_DEFAULT, // only Open MPI's default
    MASK_UNKNOWN, // only an mpirun of version 5 on another host could tell
    MASK_ASKED,   // options or variables of mpirun, or a launcher that is not Open MPI's
} LaunchMask;
LaunchMask launch_mask(int parent);
// Gives this process the cores of its launcher: those that taskset or a scheduler left of the host.
void launch_take_mask(int parent);
// The number of cores this process may use, at least 1.
int launch_cores(void);

#endif
