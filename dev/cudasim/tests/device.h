// Device arrays for the simulation's own tests.
#ifndef CUDASIM_TESTS_DEVICE_H
#define CUDASIM_TESTS_DEVICE_H

#include <cuda_runtime.h>
#include <cstdio>
#include <cstdlib>
#include <vector>

inline void cuda_ok(cudaError_t e, const char *what, const char *file, int line) {
    if (e == cudaSuccess) return;
    printf("%s:%d: %s: %s\n", file, line, what, cudaGetErrorString(e));
    exit(1);
}
#define CUDA_OK(x) cuda_ok(x, #x, __FILE__, __LINE__)

template <class T> struct Device { // n elements of device memory
    T *p = nullptr;
    size_t n;
    explicit Device(size_t count) : n(count) { CUDA_OK(cudaMalloc((void **)&p, n * sizeof(T))); }
    explicit Device(const std::vector<T> &host) : Device(host.size()) {
        CUDA_OK(cudaMemcpy(p, host.data(), n * sizeof(T), cudaMemcpyHostToDevice));
    }
    Device(const Device &) = delete;
    ~Device() { cudaFree(p); }
    std::vector<T> host() const {
        std::vector<T> h(n);
        CUDA_OK(cudaMemcpy(h.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost));
        return h;
    }
};

#endif
