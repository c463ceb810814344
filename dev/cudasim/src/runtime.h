// Host side: settings, operations queued on streams, memory, the event log. Between the files of the runtime.
#ifndef CUDASIM_RUNTIME_H
#define CUDASIM_RUNTIME_H

#include "block.h"
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace sim {

// ---- settings.cpp: read from the environment before main ----
enum Async { EAGER, LAZY, SHUFFLED };
struct Settings {
    Order order = FORWARD; // SIM_ORDER=forward|reverse|random[:SEED]
    uint64_t order_seed = 1;
    Async async = EAGER; // SIM_ASYNC=eager|lazy|random[:SEED]
    uint64_t async_seed = 1;
    int threads = 1;                 // SIM_THREADS: OS threads that share the blocks of a launch
    int devices = 8;                 // SIM_DEVICES
    size_t memory = (size_t)4 << 30; // SIM_MEMORY: bytes of each device, with K, M or G
    int arch = 80;                   // SIM_ARCH: compute capability times ten
    int driver = CUDART_VERSION;     // SIM_DRIVER: what cudaDriverGetVersion says
    bool host_guard = true;          // SIM_HOST_GUARD=0: let host code touch device memory
    std::string log;                 // SIM_LOG: file of the event log
    std::string nccl_fault;          // SIM_NCCL_FAULT=hang|error|stop|kill:RANK:N, of collective N (from 1)
};
extern Settings settings;
const char *rank_of_process(); // NULL when there is one process only

// ---- device.cpp ----
extern std::recursive_mutex api_mutex; // the API may be called from several host threads
#define CUDASIM_API std::lock_guard<std::recursive_mutex> api_lock(sim::api_mutex)
cudaError_t error(cudaError_t e); // remembers it for cudaGetLastError
int current_device();
size_t device_shared_max(); // shared memory a block can ask for

// ---- stream.cpp ----
struct Stream;
struct Op {
    uint64_t id;
    const char *kind; // kernel, copy, set, record, wait, matmul, collective
    std::string name;
    size_t bytes; // that a copy or collective moves
    Stream *stream;
    std::vector<std::shared_ptr<Op>> after; // apart from the one before it on its stream
    std::function<void()> run;
    std::function<bool()> poll; // instead of run, for collectives: starts, goes on; true when it has ended
    bool started = false, done = false;
    unsigned polls = 0; // questions of the host about it
    double delay = 0;   // seconds that events behind it say it took longer than it did
    std::chrono::steady_clock::time_point end;
};
using OpRef = std::shared_ptr<Op>;

Stream *stream_of(cudaStream_t s); // the handle checked: NULL with an error set if it belongs to another device
OpRef new_op(Stream *s, const char *kind, const std::string &name, size_t bytes = 0);
void issue(OpRef op);
OpRef last_of(Stream *s); // NULL when nothing was ever issued
void wait_for(const OpRef &op);
// The host waits inside `call`: logged, then everything in ops happens.
void host_wait(const char *call, const std::vector<OpRef> &ops);
void finish_collectives(); // other ranks may wait for them while this rank's host waits for those

// ---- memory.cpp ----
void check_device_range(const void *p, size_t n, const char *what); // fails if not inside one allocation of this device
bool find_device(const void *p, const char **begin, size_t *size);
bool is_pinned(const void *p);
bool in_device_arena(const void *p);
void check_memory_guards(const char *who);
struct DeviceAccess { // device memory is closed to the host except while one of these lives
    DeviceAccess();
    ~DeviceAccess();
};

// ---- log.cpp ----
void log_issue(const Op &op, const OpRef &before); // before: on its stream, or NULL
void log_run(const Op &op);
void log_done(const Op &op);
void log_wait(const char *what, const char *call, const std::vector<OpRef> &ops);

} // namespace sim
#endif
