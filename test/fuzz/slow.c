// slow.c: linked with every fuzzer, so that an input may take so many seconds of processor time and no more: --limit=N,
// 10 by default. libFuzzer's own clock goes on while a busy machine does other things, and what it then calls slow is
// not; its handler also allocates memory, and stands still for ever if it interrupted an allocation.
// The input is kept as `slow` under libFuzzer's -artifact_prefix.
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

enum { EXIT_SLOW = 70 }; // as libFuzzer's

static const uint8_t *input;
static size_t input_size;
static char kept[4096] = "slow";
static int limit = 10;

static void too_slow(int number) { // only what a signal handler may call
    static const char said[] = "slow input: it takes more processor time than --limit allows\n";
    (void)number;
    int fd = open(kept, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, input, input_size) != (ssize_t)input_size || close(fd) != 0) _exit(1);
    if (write(STDERR_FILENO, said, sizeof said - 1) < 0) _exit(1);
    _exit(EXIT_SLOW);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) {
    for (int i = 1; i < *argc; i++) {
        const char *value = strchr((*argv)[i], '=');
        if (!value) continue;
        if (strncmp((*argv)[i], "--limit=", 8) == 0) limit = atoi(value + 1);
        if (strncmp((*argv)[i], "-artifact_prefix=", 17) == 0) snprintf(kept, sizeof kept, "%sslow", value + 1);
    }
    signal(SIGPROF, too_slow);
    return 0;
}

// The linker (--wrap) puts this between libFuzzer and the target.
int __real_LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int __wrap_LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int __wrap_LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input = data;
    input_size = size;
    if (setitimer(ITIMER_PROF, &(struct itimerval){.it_value.tv_sec = limit}, NULL) != 0) abort();
    int result = __real_LLVMFuzzerTestOneInput(data, size);
    setitimer(ITIMER_PROF, &(struct itimerval){0}, NULL);
    return result;
}
