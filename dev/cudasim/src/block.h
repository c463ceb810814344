// A running block: its threads as fibers, its warps, its shared memory. For fiber.cpp, block.cpp, ptx.cpp, race.cpp.
#ifndef CUDASIM_BLOCK_H
#define CUDASIM_BLOCK_H

#include <cuda_runtime.h>
#include <vector>

namespace sim {

constexpr int MAX_THREADS = 1024, MAX_WARPS = MAX_THREADS / 32;
constexpr size_t STACK_SIZE = 256 << 10, STACK_GUARD = 64 << 10; // a frame may jump over a small guard
constexpr size_t SHARED_MAX = 227 << 10;                 // of the largest GPU: launch() knows the one that is simulated
constexpr size_t SHARED_ARENA = SHARED_MAX + (64 << 10); // room for guard zones
constexpr size_t SHARED_GUARD = 256;

struct Launch {
    dim3 grid, block;
    size_t shared; // dynamic, bytes
    Kernel kernel;
    const char *name;
};

struct AsyncCopy { // cp.async under way
    void *dst;
    const void *src;
    unsigned n, valid; // bytes to write, of them from src
    unsigned group;
};

struct alignas(64) Thread {
    void *sp;    // saved stack pointer while it waits
    uint3 index; // threadIdx
    int stack;   // which of the block's stacks
    bool started;
    uint32_t mask; // of the collective it waits in
    const char *waits_in;
    unsigned groups; // of cp.async, committed
    std::vector<AsyncCopy> copies;
};

struct alignas(64) Warp {
    uint32_t live, ready; // lanes that have not ended; of those, the ones that can run
    uint32_t arrived;     // lanes waiting in a collective
    uint32_t mask;        // what all arrived lanes agree on; operation is NULL when they do not
    const char *operation;
    unsigned epoch; // full __syncwarps so far
    void *arg[32];
};

struct SharedVariable {
    const void *tag; // NULL: the dynamic one
    unsigned char *begin;
    size_t size;
    const char *name;
};

enum Order { FORWARD, REVERSE, RANDOM };

struct Block {
    Thread thread[MAX_THREADS];
    Warp warp[MAX_WARPS];
    uint32_t ready_warps;
    int threads, warps, live, current; // current: thread that runs; -1 outside kernels
    Order order;
    uint64_t random;

    int arrived; // at the block's barrier
    BarrierKind barrier;
    int accumulated, result;
    unsigned epoch;  // barriers passed, ever: also a new number for each block
    unsigned serial; // blocks run, ever

    const Launch *launch;
    void *scheduler_sp;
    char *stacks;
    std::vector<int> free_stacks;
    unsigned char *arena, *arena_top; // shared memory: begin, end of what is in use
    std::vector<SharedVariable> shared;

    // fiber.cpp
    void run_threads(); // to the end of all, or a report of the deadlock
    // block.cpp
    void add_shared(const void *tag, size_t size, size_t align, const char *name);
    const SharedVariable *find_shared(const void *p, size_t n) const; // NULL if not inside one variable
};

extern __thread Block *the_block; // of this OS thread; NULL if it never ran one

inline bool in_kernel() { return the_block && the_block->current >= 0; }
inline unsigned block_number() { return blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z); }
inline uint64_t next_random(uint64_t &s) { return s ^= s << 13, s ^= s >> 7, s ^= s << 17; }

void run_launch(const Launch &launch);

// Calls of the race check; NULL in other builds.
struct RaceHooks {
    void (*read)(const void *p, unsigned n);
    void (*write)(void *p, unsigned n);
    void (*atomic)(void *p, unsigned n);
    void (*fence)();
    void (*flight)(void *p, unsigned n, bool begins); // a cp.async writes p some time from now on / has written it
    void (*launch)();
};
extern const RaceHooks *race;

} // namespace sim
#endif
