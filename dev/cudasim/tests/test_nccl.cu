// NCCL over MPI, run by mpirun with 1 to 4 ranks: results of every collective, in place and not, groups; then a
// backward pass with reduce-scatters on a second stream, whose event log the script reads. Arguments name what to run
// instead:
//   mismatch    ranks call different collectives       same_device   two ranks on one GPU
//   watchdog    a collective hangs or fails (SIM_NCCL_FAULT): the host finds out by polling, aborts, goes on
#include "device.h"
#include "test/check.h"
#include <cuda_bf16.h>
#include <mpi.h>
#include <nccl.h>
#include <nvtx3/nvToolsExt.h>
#include <unistd.h>

static int rank, ranks;
static ncclComm_t comm;
static cudaStream_t compute, communication;

#define NCCL_OK(x)                                                                                                     \
    do {                                                                                                               \
        ncclResult_t result_ = (x);                                                                                    \
        CHECK(result_ == ncclSuccess, "%s", ncclGetErrorString(result_));                                              \
    } while (0)

static void start(int device) {
    MPI_Init(nullptr, nullptr);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    CUDA_OK(cudaSetDevice(device < 0 ? rank : device));
    CUDA_OK(cudaStreamCreateWithFlags(&compute, cudaStreamNonBlocking));
    CUDA_OK(cudaStreamCreateWithFlags(&communication, cudaStreamNonBlocking));
}
static ncclResult_t connect() {
    ncclUniqueId id;
    if (rank == 0) NCCL_OK(ncclGetUniqueId(&id));
    MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD);
    return ncclCommInitRank(&comm, ranks, id, rank);
}
static float input(int r, size_t i) { return (float)(r * 100 + (int)(i % 50)); }
static std::vector<float> inputs(size_t n) {
    std::vector<float> v(n);
    for (size_t i = 0; i < n; i++) v[i] = input(rank, i);
    return v;
}
static float sum_of_inputs(size_t i) {
    float sum = 0;
    for (int r = 0; r < ranks; r++) sum += input(r, i);
    return sum;
}

static void test_collectives() {
    const size_t n = 1000;
    int count, device;
    check_begin("communicator");
    NCCL_OK(ncclCommCount(comm, &count));
    NCCL_OK(ncclCommCuDevice(comm, &device));
    CHECK(count == ranks && device == rank, "%d ranks, device %d", count, device);

    check_begin("all-reduce: sum, maximum, in place, bf16");
    Device<float> x(inputs(n)), y(n);
    CUDA_OK(cudaDeviceSynchronize());
    NCCL_OK(ncclAllReduce(x.p, y.p, n, ncclFloat32, ncclSum, comm, communication));
    NCCL_OK(ncclAllReduce(x.p, x.p, n, ncclFloat32, ncclMax, comm, communication));
    Device<__nv_bfloat16> h(std::vector<__nv_bfloat16>(3, __float2bfloat16((float)rank + 1)));
    CUDA_OK(cudaDeviceSynchronize());
    NCCL_OK(ncclAllReduce(h.p, h.p, 3, ncclBfloat16, ncclSum, comm, communication));
    CUDA_OK(cudaStreamSynchronize(communication));
    auto sum = y.host(), most = x.host();
    for (size_t i = 0; i < n; i++)
        CHECK(sum[i] == sum_of_inputs(i) && most[i] == input(ranks - 1, i), "%zu: %g %g", i, sum[i], most[i]);
    CHECK(__bfloat162float(h.host()[2]) == (float)(ranks * (ranks + 1) / 2), "%g", __bfloat162float(h.host()[2]));

    check_begin("reduce-scatter in place, all-gather in place, of one buffer");
    Device<float> all(inputs(n * ranks));
    CUDA_OK(cudaDeviceSynchronize());
    NCCL_OK(ncclReduceScatter(all.p, all.p + rank * n, n, ncclFloat32, ncclSum, comm, communication));
    NCCL_OK(ncclAllGather(all.p + rank * n, all.p, n, ncclFloat32, comm, communication));
    CUDA_OK(cudaStreamSynchronize(communication));
    auto gathered = all.host();
    for (size_t i = 0; i < n * ranks; i++) CHECK(gathered[i] == sum_of_inputs(i), "%zu: %g", i, gathered[i]);

    check_begin("a group: broadcast and all-gather of bytes, queued at its end");
    Device<float> from_last(inputs(n));
    Device<unsigned char> bytes(std::vector<unsigned char>(5, (unsigned char)(rank + 1))), many(5 * ranks);
    CUDA_OK(cudaDeviceSynchronize());
    NCCL_OK(ncclGroupStart());
    NCCL_OK(ncclBroadcast(from_last.p, from_last.p, n, ncclFloat32, ranks - 1, comm, communication));
    NCCL_OK(ncclAllGather(bytes.p, many.p, 5, ncclUint8, comm, communication));
    NCCL_OK(ncclGroupEnd());
    CUDA_OK(cudaStreamSynchronize(communication));
    auto last = from_last.host();
    auto each = many.host();
    for (size_t i = 0; i < n; i++) CHECK(last[i] == input(ranks - 1, i), "%zu: %g", i, last[i]);
    for (int i = 0; i < 5 * ranks; i++) CHECK(each[i] == i / 5 + 1, "%d: %d", i, each[i]);

    check_begin("collectives on two streams, in one order on all ranks; host messages while they are queued");
    Device<float> a(inputs(n)), b(inputs(n));
    CUDA_OK(cudaDeviceSynchronize());
    NCCL_OK(ncclAllReduce(a.p, a.p, n, ncclFloat32, ncclSum, comm, compute));
    NCCL_OK(ncclAllReduce(b.p, b.p, n, ncclFloat32, ncclMin, comm, communication));
    if (rank == 0) CUDA_OK(cudaStreamSynchronize(communication)); // the others wait for it here:
    int one = 1, total = 0;
    MPI_Allreduce(&one, &total, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    MPI_Barrier(MPI_COMM_WORLD);
    CUDA_OK(cudaDeviceSynchronize());
    CHECK(total == ranks, "%d", total);
    CHECK(a.host()[7] == sum_of_inputs(7) && b.host()[7] == input(0, 7), "%g %g", a.host()[7], b.host()[7]);
    ncclResult_t error;
    NCCL_OK(ncclCommGetAsyncError(comm, &error));
    CHECK(error == ncclSuccess, "%d", error);
}

// Calls and the first query say that they are under way; the sum is right all the same.
static void test_without_blocking() {
    const size_t n = 64;
    check_begin("a communicator that does not block");
    ncclUniqueId id;
    ncclComm_t own;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    if (rank == 0) NCCL_OK(ncclGetUniqueId(&id));
    MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD);
    ncclResult_t state = ncclCommInitRankConfig(&own, ranks, id, rank, &config);
    CHECK(state == ncclInProgress, "%d", state);
    int queries = 0;
    while (state == ncclInProgress && queries++ < 10) NCCL_OK(ncclCommGetAsyncError(own, &state));
    CHECK(state == ncclSuccess && queries == 2, "%d after %d queries", state, queries);
    Device<float> x(inputs(n));
    CUDA_OK(cudaDeviceSynchronize());
    NCCL_OK(ncclAllReduce(x.p, x.p, n, ncclFloat32, ncclSum, own, communication));
    NCCL_OK(ncclCommFinalize(own));
    CUDA_OK(cudaStreamSynchronize(communication));
    CHECK(x.host()[9] == sum_of_inputs(9), "%g", x.host()[9]);
    NCCL_OK(ncclCommDestroy(own));
}

// ---- a training step in small: backward layer by layer, each layer's gradients reduced meanwhile ----
__global__ void backward_kernel(float *gradient, float value, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) gradient[i] = value;
}
__global__ void update_kernel(float *weight, const float *gradient, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) weight[i] -= gradient[i];
}
static void test_overlapped_step(bool serial) {
    const int layers = 4, n = 256;
    check_begin("a step: backward on one stream, reduce-scatters on another, update after them");
    std::vector<Device<float> *> gradients;
    for (int l = 0; l < layers; l++) gradients.push_back(new Device<float>((size_t)n * ranks));
    Device<float> weight(std::vector<float>(n, 0.f));
    cudaEvent_t ready, reduced;
    CUDA_OK(cudaEventCreateWithFlags(&ready, cudaEventDisableTiming));
    CUDA_OK(cudaEventCreateWithFlags(&reduced, cudaEventDisableTiming));
    CUDA_OK(cudaDeviceSynchronize());
    nvtxRangePushA("step");
    for (int l = layers - 1; l >= 0; l--) {
        char name[32];
        snprintf(name, sizeof name, "layer %d", l);
        nvtxRangePushA(name);
        float *g = gradients[l]->p;
        backward_kernel<<<ranks, n, 0, compute>>>(g, (float)(l + rank), n * ranks);
        CUDA_OK(cudaEventRecord(ready, compute));
        CUDA_OK(cudaStreamWaitEvent(communication, ready, 0));
        NCCL_OK(ncclReduceScatter(g, g + (size_t)rank * n, n, ncclFloat32, ncclSum, comm, communication));
        if (serial) { // the mistake that the event log shows: the next layer waits for this one's sum
            CUDA_OK(cudaEventRecord(reduced, communication));
            CUDA_OK(cudaStreamWaitEvent(compute, reduced, 0));
        }
        nvtxRangePop();
    }
    CUDA_OK(cudaEventRecord(reduced, communication));
    CUDA_OK(cudaStreamWaitEvent(compute, reduced, 0));
    for (int l = 0; l < layers; l++)
        update_kernel<<<1, n, 0, compute>>>(weight.p, gradients[l]->p + (size_t)rank * n, n);
    nvtxRangePop();
    CUDA_OK(cudaStreamSynchronize(compute));
    float want = 0;
    for (int l = 0; l < layers; l++)
        for (int r = 0; r < ranks; r++) want -= (float)(l + r);
    for (float w : weight.host()) CHECK(w == want, "%g, expected %g", w, want);
    for (auto *g : gradients) delete g;
}

static int watchdog() {
    Device<float> x(inputs(100));
    cudaEvent_t done;
    CUDA_OK(cudaEventCreateWithFlags(&done, cudaEventDisableTiming));
    CUDA_OK(cudaDeviceSynchronize());
    for (int i = 0; i < 3; i++) ncclAllReduce(x.p, x.p, 100, ncclFloat32, ncclSum, comm, communication);
    CUDA_OK(cudaEventRecord(done, communication));
    ncclResult_t error = ncclSuccess;
    int polls = 0;
    while (cudaEventQuery(done) == cudaErrorNotReady && error == ncclSuccess && ++polls < 200) {
        ncclCommGetAsyncError(comm, &error);
        usleep(5000);
    }
    bool in_time = cudaEventQuery(done) == cudaSuccess;
    printf("rank %d: %s\n", rank, in_time ? "done" : error != ncclSuccess ? ncclGetErrorString(error) : "timed out");
    ncclCommAbort(comm);
    CUDA_OK(cudaStreamSynchronize(communication)); // ends, because of the abort
    fflush(stdout);
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Finalize();
    return 0;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    start(!strcmp(what, "same_device") ? 0 : -1);
    ncclResult_t connected = connect();
    if (!strcmp(what, "same_device")) {
        printf("rank %d: %s\n", rank, ncclGetErrorString(connected));
        MPI_Finalize();
        return connected == ncclSuccess;
    }
    if (connected != ncclSuccess) return 1;
    if (!strcmp(what, "watchdog")) return watchdog();
    if (!strcmp(what, "mismatch")) {
        Device<float> x(100);
        ncclAllReduce(x.p, x.p, rank == 0 ? 100 : 50, ncclFloat32, ncclSum, comm, communication);
        CUDA_OK(cudaStreamSynchronize(communication));
        return 0;
    }
    if (!*what) test_collectives(), test_without_blocking();
    test_overlapped_step(!strcmp(what, "serial"));
    check_begin("the end");
    NCCL_OK(ncclCommDestroy(comm));
    check_end_case();
    int failed = check_failed, all_failed = 0;
    MPI_Allreduce(&failed, &all_failed, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    MPI_Finalize();
    if (rank == 0) check_failed = all_failed, check_done();
    return all_failed != 0;
}
