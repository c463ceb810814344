// NCCL over MPI: one process a GPU. Collectives are queued on streams like other work; they run as non-blocking MPI
// operations, so that a host that polls an event stays in charge while other ranks are late, or hang.
//
// Each collective first compares what the ranks are about to do: a mismatch, which would hang or corrupt memory with
// NCCL, is named. Sums are added in rank order.
#include "runtime.h"
#include "fault.h"
#include <mpi.h>
#include <nccl.h>
#include <random>
#include <signal.h>
#include <unistd.h>

struct ncclComm {
    MPI_Comm mpi; // MPI_COMM_NULL when there is one rank: MPI need not even be initialised then
    int rank, ranks, device;
    int issued;
    bool aborted;
    ncclResult_t async_error;
    int in_progress; // times that a call or query still says so: a communicator that does not block
};

namespace {

enum Kind { ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, BROADCAST };
const char *const kind_names[] = {"ncclAllReduce", "ncclReduceScatter", "ncclAllGather", "ncclBroadcast"};

struct Request { // what must agree between ranks
    int32_t kind, number, type, op, root, pad;
    uint64_t count;
};
struct Collective {
    ncclComm *comm;
    Request request;
    const void *in;
    void *out;
    int phase = 0;
    bool hangs = false;
    std::vector<Request> requests; // of all ranks
    std::vector<char> send, recv;
    MPI_Request pending;

    bool poll();

  private:
    void compare();
    void start_transfer();
    void finish();
};

size_t element_size(ncclDataType_t type) {
    switch (type) {
    case ncclInt8:
    case ncclUint8:
        return 1;
    case ncclFloat16:
    case ncclBfloat16:
        return 2;
    case ncclInt64:
    case ncclUint64:
    case ncclFloat64:
        return 8;
    default:
        return 4;
    }
}
template <class T, class Wide>
void combine(T *to, const T *from, size_t n, int op, Wide (*widen)(T), T (*narrow)(Wide)) {
    for (size_t i = 0; i < n; i++) {
        Wide a = widen(to[i]), b = widen(from[i]);
        to[i] = narrow(op == ncclMax    ? std::max(a, b)
                       : op == ncclMin  ? std::min(a, b)
                       : op == ncclProd ? a * b
                                        : a + b);
    }
}
template <class T> T same(T x) { return x; }
float bf16_to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__nv_bfloat16 float_to_bf16(float x) { return __float2bfloat16(x); }
void combine(void *to, const void *from, size_t n, int type, int op) {
    switch (type) {
    case ncclFloat32:
        return combine<float, float>((float *)to, (const float *)from, n, op, same, same);
    case ncclFloat64:
        return combine<double, double>((double *)to, (const double *)from, n, op, same, same);
    case ncclInt32:
        return combine<int, int>((int *)to, (const int *)from, n, op, same, same);
    case ncclBfloat16: // rounded at every rank, as NCCL does
        return combine<__nv_bfloat16, float>((__nv_bfloat16 *)to, (const __nv_bfloat16 *)from, n, op, bf16_to_float,
                                             float_to_bf16);
    default:
        sim::fail("nccl: sums of data type %d are not emulated", type);
    }
}

int mpi_count(size_t bytes) {
    if (bytes > 0x7fffffff) sim::fail("nccl: %zu bytes for a rank are too many here", bytes);
    return (int)bytes;
}
void mpi(int result, const char *call) {
    if (result != MPI_SUCCESS) sim::fail("nccl: %s failed with %d", call, result);
}

void Collective::compare() {
    for (int r = 0; r < comm->ranks; r++) {
        const Request &other = requests[r];
        if (!memcmp(&other, &request, sizeof request)) continue;
        sim::fail(
            "nccl: rank %d calls %s number %d of %llu elements (type %d, op %d, root %d), rank %d %s number %d of "
            "%llu (type %d, op %d, root %d)",
            comm->rank, kind_names[request.kind], request.number, (unsigned long long)request.count, request.type,
            request.op, request.root, r, kind_names[other.kind], other.number, (unsigned long long)other.count,
            other.type, other.op, other.root);
    }
}
void Collective::start_transfer() {
    size_t part = request.count * element_size((ncclDataType_t)request.type); // of one rank
    int bytes = mpi_count(part), ranks = comm->ranks;
    auto input = (const char *)in;
    switch (request.kind) {
    case REDUCE_SCATTER:
        send.assign(input, input + part * ranks);
        recv.resize(part * ranks);
        mpi(MPI_Ialltoall(send.data(), bytes, MPI_BYTE, recv.data(), bytes, MPI_BYTE, comm->mpi, &pending),
            "MPI_Ialltoall");
        break;
    case BROADCAST:
        recv.resize(part);
        if (comm->rank == request.root) recv.assign(input, input + part);
        mpi(MPI_Ibcast(recv.data(), bytes, MPI_BYTE, request.root, comm->mpi, &pending), "MPI_Ibcast");
        break;
    default:
        send.assign(input, input + part);
        recv.resize(part * ranks);
        mpi(MPI_Iallgather(send.data(), bytes, MPI_BYTE, recv.data(), bytes, MPI_BYTE, comm->mpi, &pending),
            "MPI_Iallgather");
    }
}
void Collective::finish() {
    size_t part = recv.size() / (request.kind == BROADCAST ? 1 : comm->ranks);
    if (request.kind == REDUCE_SCATTER || request.kind == ALL_REDUCE) {
        for (int r = 1; r < comm->ranks; r++)
            combine(recv.data(), recv.data() + r * part, request.count, request.type, request.op);
        recv.resize(part);
    }
    memcpy(out, recv.data(), recv.size());
}
// Starts it, or goes on with it; true when it has ended.
bool Collective::poll() {
    if (comm->aborted) {
        if (phase) new Collective(std::move(*this)); // MPI may still write to its buffers
        return true;
    }
    if (hangs) return false;
    if (comm->ranks == 1) {
        size_t part = request.count * element_size((ncclDataType_t)request.type);
        memmove(out, in, part);
        return true;
    }
    int done = 0;
    if (phase == 0) {
        requests.resize(comm->ranks);
        mpi(MPI_Iallgather(&request, sizeof request, MPI_BYTE, requests.data(), sizeof request, MPI_BYTE, comm->mpi,
                           &pending),
            "MPI_Iallgather");
        phase = 1;
    }
    mpi(MPI_Test(&pending, &done, MPI_STATUS_IGNORE), "MPI_Test");
    if (!done) return false;
    if (phase == 1) {
        compare();
        start_transfer();
        phase = 2;
        mpi(MPI_Test(&pending, &done, MPI_STATUS_IGNORE), "MPI_Test");
        if (!done) return false;
    }
    finish();
    return true;
}

// SIM_NCCL_FAULT=hang|error|stop|kill:RANK:N. N: the Nth collective, 0: connecting.
bool planted_fault(ncclComm *comm, int number) {
    char what[8];
    int rank, n;
    if (sim::settings.nccl_fault.empty()) return false;
    if (sscanf(sim::settings.nccl_fault.c_str(), "%7[a-z]:%d:%d", what, &rank, &n) != 3 ||
        (strcmp(what, "hang") && strcmp(what, "error") && strcmp(what, "stop") && strcmp(what, "kill")))
        sim::fail("SIM_NCCL_FAULT=%s: hang, error, stop or kill:RANK:N is expected", sim::settings.nccl_fault.c_str());
    if (rank != comm->rank || n != number) return false;
    if (!strcmp(what, "error")) comm->async_error = ncclRemoteError;
    if (!strcmp(what, "stop")) raise(SIGSTOP);
    if (!strcmp(what, "kill")) raise(SIGKILL);
    return true;
}

// ---- groups: calls between start and end are queued at the end ----
thread_local int group_depth;
thread_local std::vector<std::pair<sim::Stream *, std::shared_ptr<Collective>>> group;

void queue(sim::Stream *s, std::shared_ptr<Collective> c) {
    size_t bytes = c->request.count * element_size((ncclDataType_t)c->request.type);
    sim::OpRef op = sim::new_op(s, "collective", kind_names[c->request.kind], bytes);
    op->poll = [c] { return c->poll(); };
    sim::issue(op);
}
ncclResult_t add(Kind kind, const void *in, size_t in_count, void *out, size_t out_count, size_t count,
                 ncclDataType_t type, int reduce, int root, ncclComm *comm, cudaStream_t stream) {
    CUDASIM_API;
    if (!comm || root < 0 || root >= comm->ranks) return ncclInvalidArgument;
    if (reduce == ncclAvg || reduce >= ncclNumOps)
        sim::fail("%s: operation %d is not emulated", kind_names[kind], reduce);
    if (comm->device != sim::current_device()) return ncclInvalidUsage;
    sim::Stream *s = sim::stream_of(stream);
    if (!s) return ncclInvalidArgument;
    if (!count) return ncclSuccess;
    size_t size = element_size(type);
    if (in) sim::check_device_range(in, in_count * size, kind_names[kind]);
    sim::check_device_range(out, out_count * size, kind_names[kind]);
    auto c = std::make_shared<Collective>();
    c->comm = comm;
    c->request = {kind, ++comm->issued, (int)type, reduce, root, 0, count};
    c->in = in, c->out = out;
    c->hangs = planted_fault(comm, comm->issued);
    if (group_depth) group.push_back({s, c});
    else queue(s, c);
    return comm->in_progress ? ncclInProgress : ncclSuccess;
}
// In place means these very addresses; any other overlap is an error.
void check_overlap(const void *in, size_t in_bytes, const void *out, size_t out_bytes, const void *in_place,
                   Kind kind) {
    auto i = (const char *)in, o = (const char *)out;
    if (i < o + out_bytes && o < i + in_bytes && in != in_place)
        sim::fail("%s: input and output overlap and are not the in-place pair", kind_names[kind]);
}

} // namespace

// ---- host MPI: while a rank waits there, others may wait for collectives it has queued and not run ----
// A GPU would run them meanwhile. MPI's profiling interface lets us do so first; PMPI_ names are the real functions.
#define CUDASIM_MPI(name, parameters, arguments)                                                                       \
    int name parameters {                                                                                              \
        {                                                                                                              \
            CUDASIM_API;                                                                                               \
            sim::finish_collectives();                                                                                 \
        }                                                                                                              \
        return P##name arguments;                                                                                      \
    }
extern "C" {
CUDASIM_MPI(MPI_Barrier, (MPI_Comm comm), (comm))
CUDASIM_MPI(MPI_Bcast, (void *buffer, int n, MPI_Datatype t, int root, MPI_Comm comm), (buffer, n, t, root, comm))
CUDASIM_MPI(MPI_Allreduce, (const void *in, void *out, int n, MPI_Datatype t, MPI_Op op, MPI_Comm comm),
            (in, out, n, t, op, comm))
CUDASIM_MPI(MPI_Allgather, (const void *in, int n, MPI_Datatype t, void *out, int m, MPI_Datatype u, MPI_Comm comm),
            (in, n, t, out, m, u, comm))
CUDASIM_MPI(MPI_Sendrecv,
            (const void *out, int n, MPI_Datatype t, int to, int tag, void *in, int m, MPI_Datatype u, int from,
             int from_tag, MPI_Comm comm, MPI_Status *status),
            (out, n, t, to, tag, in, m, u, from, from_tag, comm, status))
CUDASIM_MPI(MPI_Send, (const void *buffer, int n, MPI_Datatype t, int to, int tag, MPI_Comm comm),
            (buffer, n, t, to, tag, comm))
CUDASIM_MPI(MPI_Recv, (void *buffer, int n, MPI_Datatype t, int from, int tag, MPI_Comm comm, MPI_Status *status),
            (buffer, n, t, from, tag, comm, status))
CUDASIM_MPI(MPI_Wait, (MPI_Request * request, MPI_Status *status), (request, status))
CUDASIM_MPI(MPI_Testall, (int n, MPI_Request requests[], int *done, MPI_Status statuses[]),
            (n, requests, done, statuses))
CUDASIM_MPI(MPI_Finalize, (void), ())
// The program calls MPI from one thread at a time, but does not know of the calls made here.
int MPI_Init_thread(int *argc, char ***argv, int, int *provided) {
    return PMPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, provided);
}

// ---- communicators ----
const char *ncclGetErrorString(ncclResult_t r) {
    switch (r) {
    case ncclSuccess:
        return "no error";
    case ncclInvalidArgument:
        return "invalid argument";
    case ncclInvalidUsage:
        return "invalid usage";
    case ncclRemoteError:
        return "remote process exited or there was a network error";
    case ncclInProgress:
        return "NCCL operation in progress";
    default:
        return "unknown NCCL error";
    }
}
const char *ncclGetLastError(ncclComm_t) { return ""; }
ncclResult_t ncclGetVersion(int *version) {
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}
ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    std::random_device random;
    for (char &c : id->internal) c = (char)random();
    return ncclSuccess;
}
ncclResult_t ncclCommInitRank(ncclComm_t *out, int ranks, ncclUniqueId id, int rank) {
    CUDASIM_API;
    int initialized, size = 1, world_rank = 0;
    MPI_Initialized(&initialized);
    if (initialized) {
        MPI_Comm_size(MPI_COMM_WORLD, &size);
        MPI_Comm_rank(MPI_COMM_WORLD, &world_rank);
    }
    if (rank < 0 || rank >= ranks) return ncclInvalidArgument;
    if (ranks != 1 && ranks != size) sim::fail("ncclCommInitRank: only all %d ranks or one are emulated", size);
    ncclComm comm = {MPI_COMM_NULL, rank, ranks, sim::current_device(), 0, false, ncclSuccess, 0};
    if (ranks > 1) {
        mpi(MPI_Comm_split(MPI_COMM_WORLD, 0, rank, &comm.mpi), "MPI_Comm_split");
        struct Member {
            ncclUniqueId id;
            char host[256];
            int device;
        } self = {id, "", comm.device};
        gethostname(self.host, sizeof self.host - 1);
        std::vector<Member> all(ranks);
        mpi(PMPI_Allgather(&self, sizeof self, MPI_BYTE, all.data(), sizeof self, MPI_BYTE, comm.mpi), "MPI_Allgather");
        bool bad = false;
        for (int r = 0; r < ranks; r++) {
            bad |= memcmp(&all[r].id, &id, sizeof id) != 0; // ranks of different communicators
            for (int q = 0; q < r; q++)                     // two ranks on one GPU
                bad |= !strcmp(all[r].host, all[q].host) && all[r].device == all[q].device;
        }
        if (bad) {
            MPI_Comm_free(&comm.mpi);
            return ncclInvalidUsage;
        }
    }
    *out = new ncclComm(comm);
    return ncclSuccess;
}
// Without blocking, the call and the first query after it say that it is under way.
ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int ranks, ncclUniqueId id, int rank, ncclConfig_t *config) {
    ncclResult_t result = ncclCommInitRank(out, ranks, id, rank);
    if (result != ncclSuccess || config->blocking) return result;
    (*out)->in_progress = 2;
    planted_fault(*out, 0);
    return ncclInProgress;
}
ncclResult_t ncclCommCount(const ncclComm_t comm, int *ranks) { return *ranks = comm->ranks, ncclSuccess; }
ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank) { return *rank = comm->rank, ncclSuccess; }
ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int *device) { return *device = comm->device, ncclSuccess; }
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *result) {
    if (comm->in_progress) comm->in_progress--;
    bool under_way = comm->async_error == ncclSuccess && comm->in_progress;
    return *result = under_way ? ncclInProgress : comm->async_error, ncclSuccess;
}
ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    CUDASIM_API;
    if (comm->async_error != ncclSuccess) return comm->async_error;
    sim::finish_collectives();
    return ncclSuccess;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    CUDASIM_API;
    sim::finish_collectives();
    int finalized;
    MPI_Finalized(&finalized);
    if (comm->mpi != MPI_COMM_NULL && !finalized) MPI_Comm_free(&comm->mpi);
    delete comm;
    return ncclSuccess;
}
// What is queued ends at once, undone. The communicator stays allocated: queued operations refer to it, and MPI cannot
// cancel a collective.
ncclResult_t ncclCommAbort(ncclComm_t comm) {
    CUDASIM_API;
    comm->aborted = true;
    return ncclSuccess;
}

// ---- collectives ----
ncclResult_t ncclGroupStart() {
    group_depth++;
    return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
    CUDASIM_API;
    if (group_depth == 0) return ncclInvalidUsage;
    if (--group_depth) return ncclSuccess;
    for (auto &[stream, c] : std::exchange(group, {})) queue(stream, c);
    return ncclSuccess;
}
ncclResult_t ncclAllReduce(const void *in, void *out, size_t n, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
                           cudaStream_t stream) {
    check_overlap(in, n * element_size(type), out, n * element_size(type), out, ALL_REDUCE);
    return add(ALL_REDUCE, in, n, out, n, n, type, op, 0, comm, stream);
}
ncclResult_t ncclReduceScatter(const void *in, void *out, size_t n, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream) {
    size_t part = n * element_size(type);
    check_overlap(in, part * comm->ranks, out, part, (char *)out - comm->rank * part, REDUCE_SCATTER);
    return add(REDUCE_SCATTER, in, n * comm->ranks, out, n, n, type, op, 0, comm, stream);
}
ncclResult_t ncclAllGather(const void *in, void *out, size_t n, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
    size_t part = n * element_size(type);
    check_overlap(in, part, out, part * comm->ranks, (char *)out + comm->rank * part, ALL_GATHER);
    return add(ALL_GATHER, in, n, out, n * comm->ranks, n, type, 0, 0, comm, stream);
}
ncclResult_t ncclBroadcast(const void *in, void *out, size_t n, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
    bool sends = comm->rank == root; // the others' input is not used
    if (sends) check_overlap(in, n * element_size(type), out, n * element_size(type), out, BROADCAST);
    return add(BROADCAST, sends ? in : nullptr, n, out, n, n, type, 0, root, comm, stream);
}
}
