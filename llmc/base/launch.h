// launch.h: how this process was started: by hand or as one of several, by which process, on which cores.
#ifndef LLMC_LAUNCH_H
#define LLMC_LAUNCH_H

#include "llmc/base/error.h"

// Does the environment ask for MPI? Only a launcher's does: what is started by hand needs no daemon and no permission.
int launch_wants_mpi(void);

// Refuses a process that was started as one of several and has met no other (ranks is 1): each would train by itself
// and write over the others. library: the MPI this program was built with; NULL: none.
int launch_check(int ranks, const char *library, Error *err);

// The process that launched this one, directly or through scripts: mpirun, its daemon on another host, srun's; 0: none.
int launch_parent(void);
// A descriptor that becomes readable when that process has ended; -1: none (no such process, or Linux before 5.3).
int launch_parent_descriptor(int parent);

// Who chose the cores this process is bound to? Open MPI binds ranks to single cores when they are few, which leaves
// all threads of a rank on one core: that may be taken back, what a person or a scheduler asked for may not.
typedef enum LaunchMask {
    MASK_DEFAULT, // nobody but Open MPI's default
    MASK_UNKNOWN, // only the mpirun of version 5 on another host could say
    MASK_ASKED,   // somebody: options or variables of mpirun; or the launcher is none of Open MPI's
} LaunchMask;
LaunchMask launch_mask(int parent);
// Gives this process the cores of its launcher: what taskset or a scheduler left of the host.
void launch_take_mask(int parent);
// Cores that this process may use, at least 1.
int launch_cores(void);

#endif
