// Atomic operations of device code; all return the old value.
#ifndef CUDASIM_ATOMICS_H
#define CUDASIM_ATOMICS_H

#include "sim.h"

namespace sim {
template <class T, class F> T read_modify_write(T *p, F f) {
    T old;
    atomic_begin(p, &old, sizeof(T));
    T value = f(old);
    atomic_end(p, &value, sizeof(T));
    return old;
}
template <class T> using Same = typename std::common_type<T>::type; // takes part in no deduction
} // namespace sim

template <class T> T atomicAdd(T *p, sim::Same<T> v) {
    return sim::read_modify_write(p, [=](T old) { return T(old + v); });
}
template <class T> T atomicMax(T *p, sim::Same<T> v) {
    return sim::read_modify_write(p, [=](T old) { return old < v ? v : old; });
}
template <class T> T atomicMin(T *p, sim::Same<T> v) {
    return sim::read_modify_write(p, [=](T old) { return v < old ? v : old; });
}
template <class T> T atomicOr(T *p, sim::Same<T> v) {
    return sim::read_modify_write(p, [=](T old) { return T(old | v); });
}
template <class T> T atomicExch(T *p, sim::Same<T> v) {
    return sim::read_modify_write(p, [=](T) { return v; });
}
template <class T> T atomicCAS(T *p, sim::Same<T> expected, sim::Same<T> v) {
    return sim::read_modify_write(p, [=](T old) { return old == expected ? v : old; });
}
// Counts up to limit, then starts from 0: the last block to arrive sees limit.
inline unsigned atomicInc(unsigned *p, unsigned limit) {
    return sim::read_modify_write(p, [=](unsigned old) { return old >= limit ? 0u : old + 1; });
}

#endif
