// stop.h: requests to stop. SIGINT, SIGTERM, SIGUSR1, SIGHUP (a closed terminal; ignored under nohup) or a file
// OUT/stop mean: finish the step, save, exit with code 0.
#ifndef LLMC_STOP_H
#define LLMC_STOP_H

#include "llmc/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

// Installs the handlers. A second SIGINT or SIGTERM ends the process at once.
void stop_install(void);
// The signal that was caught; 0: none.
int stop_signal(void);
// Why this process should stop: "SIGUSR1", "OUT/stop", ...; NULL: it should not. A folder of that name does not count.
const char *stop_requested(const char *out_dir);
// Removes OUT/stop: at the start (it was meant for an earlier run) and once obeyed. *found: it was there. An error if
// it cannot be removed: it would stop every run after its first step.
int stop_clear(int *found, const char *out_dir, Error *err);

#ifdef __cplusplus
}
#endif
#endif
