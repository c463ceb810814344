// Barriers, shuffles, votes and reductions of device code.
#ifndef CUDASIM_WARP_H
#define CUDASIM_WARP_H

#include "sim.h"

inline void __syncthreads() { sim::block_barrier(sim::BARRIER, 0); }
inline int __syncthreads_and(int p) { return sim::block_barrier(sim::BARRIER_AND, p); }
inline int __syncthreads_or(int p) { return sim::block_barrier(sim::BARRIER_OR, p); }
inline int __syncthreads_count(int p) { return sim::block_barrier(sim::BARRIER_COUNT, p); }
inline void __syncwarp(unsigned mask = ~0u) { sim::warp_barrier(mask); }
inline void __threadfence() { sim::thread_fence(); }
inline void __threadfence_block() {}
[[noreturn]] inline void __trap() { sim::fail("__trap()"); }

namespace sim {

struct Shuffle {
    uint64_t value, result;
    int source; // lane
};
inline void shuffle_leader(void *const *arg, uint32_t mask) {
    for (uint32_t m = mask; m; m &= m - 1) {
        Shuffle *s = (Shuffle *)arg[__builtin_ctz(m)];
        if (!(mask >> s->source & 1)) fail("shuffle reads lane %d, which is not in mask %08x", s->source, mask);
        s->result = ((Shuffle *)arg[s->source])->value;
    }
}
template <class T> T shuffle(uint32_t mask, const char *name, T value, int source) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>, "shuffles move up to 8 plain bytes");
    Shuffle s{0, 0, source};
    memcpy(&s.value, &value, sizeof value);
    collective(mask, name, &s, shuffle_leader);
    memcpy(&value, &s.result, sizeof value);
    return value;
}

template <class T, class Op> T reduce(uint32_t mask, const char *name, T value, Op) {
    collective(mask, name, &value, [](void *const *arg, uint32_t lanes) {
        T sum = *(T *)arg[__builtin_ctz(lanes)];
        for (uint32_t m = lanes & (lanes - 1); m; m &= m - 1) sum = Op()(sum, *(T *)arg[__builtin_ctz(m)]);
        for (uint32_t m = lanes; m; m &= m - 1) *(T *)arg[__builtin_ctz(m)] = sum;
    });
    return value;
}
struct Plus {
    template <class T> T operator()(T a, T b) const { return a + b; }
};
struct Min {
    template <class T> T operator()(T a, T b) const { return std::min(a, b); }
};
struct Max {
    template <class T> T operator()(T a, T b) const { return std::max(a, b); }
};
struct And {
    template <class T> T operator()(T a, T b) const { return a & b; }
};
struct Or {
    template <class T> T operator()(T a, T b) const { return a | b; }
};

} // namespace sim

// A source outside the lane's segment of `width` lanes means the lane's own value.
template <class T> T __shfl_sync(unsigned mask, T v, int source, int width = 32) {
    int lane = sim::lane_id();
    return sim::shuffle(mask, "__shfl_sync", v, (lane & ~(width - 1)) | (source & (width - 1)));
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int lane_mask, int width = 32) {
    int lane = sim::lane_id(), source = lane ^ lane_mask;
    bool later = (source & ~(width - 1)) > (lane & ~(width - 1));
    return sim::shuffle(mask, "__shfl_xor_sync", v, later ? lane : source);
}
template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32) {
    int lane = sim::lane_id(), d = (int)delta;
    return sim::shuffle(mask, "__shfl_down_sync", v, (lane & (width - 1)) + d < width ? lane + d : lane);
}
template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32) {
    int lane = sim::lane_id(), d = (int)delta;
    return sim::shuffle(mask, "__shfl_up_sync", v, (lane & (width - 1)) >= d ? lane - d : lane);
}
template <class T> T __reduce_add_sync(unsigned m, T v) { return sim::reduce(m, "__reduce_add_sync", v, sim::Plus()); }
template <class T> T __reduce_min_sync(unsigned m, T v) { return sim::reduce(m, "__reduce_min_sync", v, sim::Min()); }
template <class T> T __reduce_max_sync(unsigned m, T v) { return sim::reduce(m, "__reduce_max_sync", v, sim::Max()); }
inline unsigned __ballot_sync(unsigned m, int p) {
    return sim::reduce(m, "__ballot_sync", p ? 1u << sim::lane_id() : 0u, sim::Or());
}
inline int __any_sync(unsigned m, int p) { return sim::reduce(m, "__any_sync", (int)(p != 0), sim::Or()); }
inline int __all_sync(unsigned m, int p) { return sim::reduce(m, "__all_sync", (int)(p != 0), sim::And()); }

#endif
