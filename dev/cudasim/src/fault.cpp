// Messages of failure, and signals turned into such messages: a stack that overflows, host code that touches device
// memory, a pointer to nowhere.
#include "fault.h"
#include "block.h"
#include "runtime.h"
#include <cstdarg>
#include <cstdlib>
#include <execinfo.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

namespace sim {

const char *message_prefix() {
    static char prefix[48];
    if (rank_of_process()) snprintf(prefix, sizeof prefix, "cuda-sim, rank %s: ", rank_of_process());
    else snprintf(prefix, sizeof prefix, "cuda-sim: ");
    return prefix;
}
void end_process() {
    fflush(stdout);
    fflush(stderr);
    _exit(86);
}
static void print_where() {
    if (in_kernel())
        fprintf(stderr, "\n  in kernel %s, block (%u,%u,%u), thread (%u,%u,%u)", the_block->launch->name, blockIdx.x,
                blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
    fprintf(stderr, "\n");
}
void fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs(message_prefix(), stderr);
    vfprintf(stderr, format, args);
    va_end(args);
    print_where();
    end_process();
}

// ---- signals; the address sanitizer has a report of its own ----
#ifdef __SANITIZE_ADDRESS__
void catch_faults_of_this_thread() {}
#else
static bool on_stack_guard(const char *p) {
    if (!the_block) return false;
    ptrdiff_t offset = p - the_block->stacks;
    return offset >= 0 && offset < (ptrdiff_t)((STACK_SIZE + STACK_GUARD) * MAX_THREADS) &&
           offset % (STACK_SIZE + STACK_GUARD) < STACK_GUARD;
}
static void on_signal(int signal, siginfo_t *info, void *) {
    const char *p = (const char *)info->si_addr;
    fputs(message_prefix(), stderr);
    if (signal == SIGILL) fprintf(stderr, "a trap: undefined behaviour, as a misaligned access");
    else if (in_kernel() && on_stack_guard(p))
        fprintf(stderr, "stack overflow (%zu kB for a thread)", STACK_SIZE >> 10);
    else if (in_kernel()) fprintf(stderr, "access to %p, which is no memory, or misaligned", (const void *)p);
    else if (in_device_arena(p)) fprintf(stderr, "host code touches device memory at %p", (const void *)p);
    else fprintf(stderr, "segmentation fault of host code at %p", (const void *)p);
    print_where();
    void *frames[16];
    if (!in_kernel()) backtrace_symbols_fd(frames, backtrace(frames, 16), 2);
    end_process();
}
void catch_faults_of_this_thread() {
    static __thread bool done;
    if (done) return;
    done = true;
    stack_t stack = {}; // of its own: the fiber's may be the one that overflowed
    stack.ss_size = 64 << 10;
    stack.ss_sp = mmap(nullptr, stack.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sigaltstack(&stack, nullptr);
    struct sigaction action = {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int signal : {SIGSEGV, SIGBUS, SIGILL}) sigaction(signal, &action, nullptr);
}
#endif

} // namespace sim
