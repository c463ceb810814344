// What translated kernels and their launches call: the execution model as seen from device code.
#ifndef CUDASIM_SIM_H
#define CUDASIM_SIM_H

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

// Of the CUDA thread that is running. One OS thread runs one block at a time, and its threads never migrate, so that
// addresses of these may be kept across a switch.
extern __thread uint3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

namespace sim {

// Prints the message and which kernel, block and thread it is about, and ends the process with code 86.
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

// ---- meeting points ----
// A collective of a warp: each lane posts a pointer to its operands and waits; the last lane to arrive is the leader
// and computes for all. arg[lane] is valid for the lanes in mask.
using Leader = void (*)(void *const *arg, uint32_t mask);
void collective(uint32_t mask, const char *name, void *arg, Leader leader);
enum BarrierKind { BARRIER, BARRIER_AND, BARRIER_OR, BARRIER_COUNT };
int block_barrier(BarrierKind kind, int predicate);
void warp_barrier(uint32_t mask);
void thread_fence();
unsigned lane_id();

// ---- shared memory: NaN when a block starts, guard zones around each variable ----
void *dynamic_shared();
struct SharedTag {}; // its address names a variable
void *static_shared(const SharedTag &tag, size_t size, size_t align, const char *name);
// Aligned as the declaration demands and deliberately no better: code that hopes for more is found.
template <class T, size_t Align> T &shared_variable(const SharedTag &tag, const char *name) {
    return *(T *)static_shared(tag, sizeof(T), Align > alignof(T) ? Align : alignof(T), name);
}
bool is_shared(const void *p, size_t n); // inside one variable of the running block?

// ---- cp.async: the copy happens when the thread waits for it; until then the destination holds NaN ----
void cp_async(void *dst, const void *src, unsigned n, unsigned valid);
void cp_async_commit();
void cp_async_wait(unsigned groups_left);

// ---- atomics: a read-modify-write is old = begin(), then end(new) ----
void atomic_begin(void *p, void *old, size_t n);
void atomic_end(void *p, const void *value, size_t n);

// ---- launch ----
struct Kernel {
    const void *function;
    void (*run)(const void *params);    // one thread's run through the kernel
    std::shared_ptr<const void> params; // converted once, at the launch: the GPU's parameter space
    size_t params_size;
};
void launch(dim3 grid, dim3 block, size_t shared, cudaStream_t stream, Kernel kernel);
void check_argument(const void *function, int index, const void *pointer); // must be device or pinned memory, or NULL

template <class... A> struct Call {
    dim3 grid, block;
    size_t shared;
    cudaStream_t stream;
    std::tuple<A...> args;
};
struct cfg {
    dim3 grid, block;
    size_t shared;
    cudaStream_t stream;
    cfg(dim3 g, dim3 b, size_t bytes = 0, cudaStream_t s = nullptr) : grid(g), block(b), shared(bytes), stream(s) {}
    template <class... A> Call<std::decay_t<A>...> operator()(A &&...a) const {
        return {grid, block, shared, stream, std::tuple<std::decay_t<A>...>(std::forward<A>(a)...)};
    }
};

template <class T> void check_if_pointer(const void *function, int index, const T &value) {
    if constexpr (std::is_pointer_v<T>) check_argument(function, index, (const void *)value);
}

// `k ->*sim::cfg(g, b)(x, y)` parses as k ->* (sim::cfg(g, b)(x, y)): this operator is the launch.
template <class... P, class... A> void operator->*(void (*k)(P...), Call<A...> &&c) {
    static_assert(sizeof...(P) == sizeof...(A), "kernel called with the wrong number of arguments");
    using Params = std::pair<void (*)(P...), std::tuple<P...>>;
    auto params = std::make_shared<Params>(k, std::move(c.args));
    std::apply(
        [&](const P &...p) {
            int i = 0;
            (check_if_pointer((const void *)k, ++i, p), ...);
        },
        params->second);
    auto run = [](const void *p) { std::apply(((const Params *)p)->first, ((const Params *)p)->second); };
    launch(c.grid, c.block, c.shared, c.stream, {(const void *)k, run, std::move(params), sizeof(Params)});
}

} // namespace sim

// The toolkit offers this overload to nvcc alone.
template <class... P> cudaError_t cudaFuncSetAttribute(void (*k)(P...), cudaFuncAttribute attribute, int value) {
    return cudaFuncSetAttribute((const void *)k, attribute, value);
}

#endif
