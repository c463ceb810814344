// Streams and events: queues of operations, and when they really run.
//
//   eager   each at its issue
//   lazy    none before the host waits for it, or something waited for depends on it: the last legal moment
//   random  some at issue, some between others', some late
// An operation depends on the one before it on its stream and on those in `after`, all issued earlier: no cycles.
// Collectives run one after the other, in the order of issue on every rank: two ranks could otherwise each wait in a
// different one.
#include "runtime.h"
#include "fault.h"
#include <map>
#include <sched.h>

namespace sim {

struct Stream {
    std::deque<OpRef> queue;
    OpRef last; // issued; may have ended
    int device;
    bool blocking;   // takes part in the null stream's order
    double late = 0; // delays of all that has ended
};
struct Event {
    OpRef record;
    bool timing;
};

// Never destroyed: other destructors at the end of the program may still use the API.
static auto &streams = *new std::vector<Stream *>;
static auto &null_streams = *new std::map<int, Stream *>; // one a device
static auto &collectives = *new std::deque<OpRef>;        // issued, not ended
static uint64_t next_id;

static uint64_t dice() { return next_random(settings.async_seed) >> 8; }

static Stream *new_stream(bool blocking) {
    Stream *s = new Stream{{}, nullptr, current_device(), blocking};
    streams.push_back(s);
    return s;
}
static Stream *null_stream() {
    Stream *&s = null_streams[current_device()];
    if (!s) s = new_stream(true);
    return s;
}
Stream *stream_of(cudaStream_t handle) {
    if (!handle || handle == cudaStreamLegacy) return null_stream();
    if (handle == cudaStreamPerThread) fail("per-thread default streams are not emulated");
    Stream *s = (Stream *)handle;
    if (std::find(streams.begin(), streams.end(), s) == streams.end()) fail("a stream that does not exist is used");
    if (s->device == current_device()) return s;
    error(cudaErrorInvalidResourceHandle);
    return nullptr;
}

// ---- issue ----
OpRef new_op(Stream *s, const char *kind, const std::string &name, size_t bytes) {
    auto op = std::make_shared<Op>();
    op->id = next_id++;
    op->kind = kind;
    op->name = name;
    op->bytes = bytes;
    op->stream = s;
    // The legacy default stream: after all work of blocking streams; and their work after its.
    auto wait_for_last = [&](Stream *o) {
        if (o != s && o->last) op->after.push_back(o->last);
    };
    if (s == null_stream()) {
        for (Stream *o : streams)
            if (o->blocking && o->device == s->device) wait_for_last(o);
    } else if (s->blocking) {
        wait_for_last(null_stream());
    }
    op->run = [] {};
    return op;
}
OpRef last_of(Stream *s) { return s->last; }

// ---- running ----
static const OpRef *blocker(const Op &op) { // something that has to end before op starts; NULL: nothing
    for (auto &other : op.after)
        if (!other->done) return &other;
    if (op.poll && collectives.front().get() != &op) return &collectives.front();
    return nullptr;
}
// Runs the oldest operation of a stream; true when it has ended.
static bool run_oldest(Stream *s) {
    OpRef op = s->queue.front();
    if (!op->started) {
        op->started = true;
        log_run(*op);
    }
    DeviceAccess open;
    if (op->poll) {
        if (!op->poll()) return false;
    } else {
        op->run();
    }
    op->done = true;
    s->late += op->delay;
    op->end = std::chrono::steady_clock::now() + std::chrono::microseconds((long long)(1e6 * s->late));
    if (op->poll) {
        log_done(*op);
        collectives.pop_front();
    }
    op->run = nullptr, op->poll = nullptr; // what they hold on to
    op->after.clear();
    s->queue.pop_front();
    return true;
}
static bool runnable(Stream *s) { return !s->queue.empty() && !blocker(*s->queue.front()); }
static Stream *random_runnable() { // or NULL
    size_t n = streams.size(), first = dice() % n;
    for (size_t i = 0; i < n; i++)
        if (runnable(streams[(first + i) % n])) return streams[(first + i) % n];
    return nullptr;
}
// One step towards the end of op; false when nothing moved, because other ranks are waited for.
static bool step_towards(const OpRef &op) {
    if (settings.async == SHUFFLED && dice() % 3 == 0)
        if (Stream *s = random_runnable()) run_oldest(s); // others get ahead meanwhile
    if (op->done) return true;
    const OpRef *needed = &op;
    while (const OpRef *b = blocker(*(*needed)->stream->queue.front())) needed = b;
    return run_oldest((*needed)->stream);
}
void wait_for(const OpRef &op) {
    while (!op->done)
        if (!step_towards(op)) sched_yield();
}
void host_wait(const char *call, const std::vector<OpRef> &ops) {
    log_wait("wait", call, ops);
    for (auto &op : ops) wait_for(op);
}
constexpr unsigned LAZY_POLLS = 16;
static bool host_poll(const char *call, const OpRef &op) {
    log_wait("poll", call, {op});
    if (op->done) return true;
    // The device goes on by itself, also in lazy mode, where it gives in to questions about an event late: other
    // streams, asked about meanwhile, get ahead and read what has not come yet.
    bool event = !strcmp(call, "cudaEventQuery");
    if (settings.async == LAZY && event && ++op->polls % LAZY_POLLS) return false;
    step_towards(op);
    return false;
}
// Waits for op, but not for ever when a collective was told to hang: the host has to stay able to find that out.
static void wait_unless_hung(const OpRef &op) {
    static bool hung;
    auto last_move = std::chrono::steady_clock::now();
    while (!op->done) {
        if (step_towards(op)) {
            last_move = std::chrono::steady_clock::now();
            continue;
        }
        hung |= !settings.nccl_fault.empty() && std::chrono::steady_clock::now() - last_move > std::chrono::seconds(1);
        if (hung) return;
        sched_yield();
    }
}
void finish_collectives() {
    for (Stream *s : std::vector<Stream *>(streams)) {
        OpRef last;
        for (auto &op : s->queue)
            if (op->poll) last = op;
        if (last) wait_unless_hung(last);
    }
}

// A stream holds so many operations; the call that would queue one more waits inside, whatever becomes of the oldest,
// and keeps the runtime's lock, so that no other thread gets an answer either.
constexpr size_t STREAM_CAPACITY = 1000;
static void wait_for_room(Stream *s) {
    if (s->queue.size() < STREAM_CAPACITY) return;
    log_wait("wait", "a full stream", {s->queue.front()});
    while (s->queue.size() >= STREAM_CAPACITY)
        if (!step_towards(s->queue.front())) sched_yield();
}

void issue(OpRef op) {
    Stream *s = op->stream;
    wait_for_room(s);
    log_issue(*op, s->last);
    s->queue.push_back(op);
    s->last = op;
    if (op->poll) collectives.push_back(op);
    if (settings.async == EAGER) {
        wait_unless_hung(op);
    } else if (settings.async == SHUFFLED) {
        for (int n = (int)(dice() % 4); n > 1; n--)
            if (Stream *any = random_runnable()) run_oldest(any);
    }
}

static std::vector<OpRef> last_of_all() {
    std::vector<OpRef> ops;
    for (Stream *s : streams)
        if (s->device == current_device() && s->last) ops.push_back(s->last);
    return ops;
}

} // namespace sim

using namespace sim;
extern "C" {

// ---- streams ----
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags) {
    CUDASIM_API;
    *s = (cudaStream_t)new_stream(!(flags & cudaStreamNonBlocking));
    return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t *s) { return cudaStreamCreateWithFlags(s, cudaStreamDefault); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int) {
    return cudaStreamCreateWithFlags(s, flags);
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0, *greatest = -5;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
    CUDASIM_API;
    Stream *s = stream_of(handle);
    if (!s) return cudaErrorInvalidResourceHandle;
    if (s->last) wait_for(s->last); // the GPU would let its work run on: nothing can tell the difference
    streams.erase(std::find(streams.begin(), streams.end(), s));
    delete s;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
    CUDASIM_API;
    Stream *s = stream_of(handle);
    if (!s) return cudaErrorInvalidResourceHandle;
    host_wait("cudaStreamSynchronize", s->last ? std::vector<OpRef>{s->last} : std::vector<OpRef>{});
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t handle) {
    CUDASIM_API;
    Stream *s = stream_of(handle);
    if (!s) return cudaErrorInvalidResourceHandle;
    return !s->last || host_poll("cudaStreamQuery", s->last) ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaDeviceSynchronize() {
    CUDASIM_API;
    host_wait("cudaDeviceSynchronize", last_of_all());
    return cudaSuccess;
}

// ---- events ----
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags) {
    CUDASIM_API;
    *e = (cudaEvent_t) new Event{nullptr, !(flags & cudaEventDisableTiming)};
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *e) { return cudaEventCreateWithFlags(e, cudaEventDefault); }
cudaError_t cudaEventDestroy(cudaEvent_t e) {
    CUDASIM_API;
    delete (Event *)e;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t handle) {
    CUDASIM_API;
    Stream *s = stream_of(handle);
    if (!s) return cudaErrorInvalidResourceHandle;
    OpRef op = new_op(s, "record", "event");
    ((Event *)e)->record = op;
    issue(op);
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t e, unsigned) {
    CUDASIM_API;
    Stream *s = stream_of(handle);
    if (!s) return cudaErrorInvalidResourceHandle;
    OpRef record = ((Event *)e)->record;
    if (!record) return cudaSuccess; // never recorded: CUDA takes it as done
    OpRef op = new_op(s, "wait", "event");
    op->after.push_back(record);
    issue(op);
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    CUDASIM_API;
    if (OpRef record = ((Event *)e)->record) host_wait("cudaEventSynchronize", {record});
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t e) {
    CUDASIM_API;
    OpRef record = ((Event *)e)->record;
    return !record || host_poll("cudaEventQuery", record) ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end) {
    CUDASIM_API;
    Event *b = (Event *)begin, *e = (Event *)end;
    if (!b->timing || !e->timing || !b->record || !e->record) return error(cudaErrorInvalidResourceHandle);
    if (!b->record->done || !e->record->done) return cudaErrorNotReady;
    *ms = std::chrono::duration<float, std::milli>(e->record->end - b->record->end).count();
    return cudaSuccess;
}
}
