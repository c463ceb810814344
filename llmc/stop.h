// stop.h: being asked to stop. SIGINT, SIGTERM, SIGUSR1 or a file OUT/stop mean: finish the step, save, exit 0.
#ifndef LLMC_STOP_H
#define LLMC_STOP_H

#ifdef __cplusplus
extern "C" {
#endif

// Installs the handlers. A second SIGINT or SIGTERM ends the process at once.
void stop_install(void);
// The signal that was caught; 0: none.
int stop_signal(void);
// Why this process should stop: "SIGUSR1", "OUT/stop", ...; NULL: go on. The file is removed by stop_acknowledge.
const char *stop_requested(const char *out_dir);
void stop_acknowledge(const char *out_dir);

#ifdef __cplusplus
}
#endif
#endif
