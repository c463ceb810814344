// A grid's blocks, one after the other or on several OS threads, and the shared memory of each.
#include "block.h"
#include "fault.h"
#include "runtime.h"
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <sys/mman.h>
#include <thread>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

__thread uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace sim {

const RaceHooks *race;

// ---- shared memory: variables one after the other, a guard zone before, between and after them ----
constexpr unsigned char GUARD_BYTE = 0xA5;

static void set_guard(unsigned char *begin, size_t size) {
#ifdef __SANITIZE_ADDRESS__
    __asan_poison_memory_region(begin, size);
#else
    memset(begin, GUARD_BYTE, size);
#endif
}
static bool guard_intact(const unsigned char *begin, size_t size) {
#ifdef __SANITIZE_ADDRESS__
    (void)begin, (void)size;
    return true; // ASan watched it
#else
    for (size_t i = 0; i < size; i++)
        if (begin[i] != GUARD_BYTE) return false;
    return true;
#endif
}

void Block::add_shared(const void *tag, size_t size, size_t align, const char *name) {
    uintptr_t begin = ((uintptr_t)arena_top + 2 * align - 1) & ~(2 * align - 1);
    // Aligned to `align`, not to twice that. The dynamic part starts the arena, which is aligned to a page.
    unsigned char *p = tag ? (unsigned char *)begin + align : arena_top;
    if (p + size + SHARED_GUARD > arena + SHARED_ARENA) fail("too much static shared memory");
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(p, size);
#endif
    memset(p, 0xff, size); // NaN in every floating-point type
    set_guard(arena_top, p - arena_top);
    arena_top = p + size;
    set_guard(arena_top, SHARED_GUARD);
    arena_top += SHARED_GUARD;
    shared.push_back({tag, p, size, name});
}
const SharedVariable *Block::find_shared(const void *p, size_t n) const {
    auto c = (const unsigned char *)p;
    for (auto &v : shared)
        if (c >= v.begin && c + n <= v.begin + v.size) return &v;
    return nullptr;
}
bool is_shared(const void *p, size_t n) { return the_block->find_shared(p, n) != nullptr; }
void *dynamic_shared() { return the_block->shared[0].begin; }
void *static_shared(const SharedTag &tag, size_t size, size_t align, const char *name) {
    Block *b = the_block;
    for (auto &v : b->shared)
        if (v.tag == &tag) return v.begin;
    size_t used = size;
    for (auto &v : b->shared) used += v.size;
    if (used - b->shared[0].size > 48 << 10) fail("more than 48 kB of static shared memory");
    if (used > device_shared_max()) fail("%zu bytes of shared memory, the GPU has %zu", used, device_shared_max());
    b->add_shared(&tag, size, align, name);
    return b->shared.back().begin;
}
static void check_shared_guards(Block *b) {
    if (!guard_intact(b->arena - SHARED_GUARD, SHARED_GUARD)) {
        b->current = 0;
        fail("something wrote before shared memory");
    }
    for (size_t i = 0; i < b->shared.size(); i++) {
        const unsigned char *end = b->shared[i].begin + b->shared[i].size;
        const unsigned char *next = i + 1 < b->shared.size() ? b->shared[i + 1].begin : b->arena_top;
        if (guard_intact(end, next - end)) continue;
        b->current = 0;
        fail("something wrote past the end of %s (%zu bytes of shared memory)", b->shared[i].name, b->shared[i].size);
    }
}

// ---- one block ----
static void *map(size_t size) {
    void *p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) fail("no address space for the stacks of a block");
    return p;
}
static Block *new_block() {
    Block *b = new Block();
    b->stacks = (char *)map((STACK_SIZE + STACK_GUARD) * MAX_THREADS);
    for (int i = 0; i < MAX_THREADS; i++) {
        mprotect(b->stacks + i * (STACK_SIZE + STACK_GUARD), STACK_GUARD, PROT_NONE);
        b->free_stacks.push_back(MAX_THREADS - 1 - i);
    }
    b->arena = (unsigned char *)map(SHARED_ARENA + 4096) + 4096;
    set_guard(b->arena - SHARED_GUARD, SHARED_GUARD);
    b->arena_top = b->arena;
    b->current = -1;
    return b;
}
static unsigned next_serial() {
    static std::atomic<unsigned> serial;
    return ++serial;
}
static void run_block(Block *b, const Launch &launch, uint64_t number) {
    const dim3 &grid = launch.grid, &block = launch.block;
    blockIdx = {(unsigned)(number % grid.x), (unsigned)(number / grid.x % grid.y),
                (unsigned)(number / grid.x / grid.y)};
    blockDim = {block.x, block.y, block.z};
    gridDim = {grid.x, grid.y, grid.z};
    b->launch = &launch;
    b->threads = b->live = block.x * block.y * block.z;
    b->warps = (b->threads + 31) / 32;
    b->order = settings.order;
    b->random = (settings.order_seed + 1) * 0x9E3779B97F4A7C15ull ^ (number + 1) * 0xD1B54A32D192ED03ull;
    b->arrived = 0;
    b->epoch++;
    b->serial = next_serial();
    for (int t = 0; t < b->threads; t++) {
        Thread &thread = b->thread[t];
        thread.index = {t % block.x, t / block.x % block.y, t / block.x / block.y};
        thread.started = false;
        thread.waits_in = "not started";
        thread.groups = 0;
    }
    for (int w = 0; w < b->warps; w++) {
        int lanes = b->threads - w * 32;
        b->warp[w].live = lanes >= 32 ? ~0u : (1u << lanes) - 1;
        b->warp[w].ready = b->warp[w].arrived = b->warp[w].epoch = 0;
    }
#ifdef __SANITIZE_ADDRESS__
    set_guard(b->arena, b->arena_top - b->arena); // the last block's variables are gone
#endif
    b->arena_top = b->arena;
    b->shared.clear();
    b->add_shared(nullptr, launch.shared, 16, "dynamic shared memory");
    b->run_threads();
    check_shared_guards(b);
}

// ---- the grid ----
// OS threads that run the blocks of one launch; they live on, each with its own Block and stacks.
class Workers {
    std::mutex mutex;
    std::condition_variable start, done;
    std::function<void()> job;
    int generation = 0, wanted = 0, busy = 0, count = 0;

    void loop(int id) {
        std::unique_lock<std::mutex> lock(mutex);
        for (int seen = 0;;) {
            start.wait(lock, [&] { return generation != seen && id < wanted; });
            seen = generation;
            lock.unlock();
            job();
            lock.lock();
            if (--busy == 0) done.notify_all();
        }
    }

  public:
    void run(int threads, std::function<void()> f) { // on this thread and threads - 1 others
        std::unique_lock<std::mutex> lock(mutex);
        job = std::move(f);
        wanted = busy = threads - 1;
        generation++;
        for (; count < wanted; count++) std::thread([this, id = count] { loop(id); }).detach();
        start.notify_all();
        lock.unlock();
        job();
        lock.lock();
        done.wait(lock, [&] { return busy == 0; });
    }
};

void run_launch(const Launch &launch) {
    static Workers &workers = *new Workers; // never destroyed: its threads never end
    uint64_t blocks = (uint64_t)launch.grid.x * launch.grid.y * launch.grid.z;
    std::vector<uint32_t> order;
    if (settings.order == RANDOM) {
        uint64_t random = settings.order_seed * 77 + 1;
        for (uint64_t i = 0; i < blocks; i++) order.push_back((uint32_t)i);
        for (uint64_t i = blocks; i > 1; i--) std::swap(order[i - 1], order[next_random(random) % i]);
    }
    if (race) race->launch();
    std::atomic<uint64_t> next{0};
    auto work = [&] {
        if (!the_block) the_block = new_block();
        catch_faults_of_this_thread();
        for (uint64_t i; (i = next++) < blocks;) {
            uint64_t number = settings.order == REVERSE ? blocks - 1 - i : i;
            run_block(the_block, launch, settings.order == RANDOM ? order[i] : number);
        }
    };
    int threads = (int)std::min<uint64_t>(settings.threads, blocks);
    if (threads > 1 && !race) workers.run(threads, work);
    else work();
}

// ---- atomics: one lock for all, as a kernel that needs many should not exist here ----
static std::atomic_flag atomic_lock = ATOMIC_FLAG_INIT;
void atomic_begin(void *p, void *old, size_t n) {
    if ((uintptr_t)p % n) fail("atomic operation on a misaligned address");
    if (race) race->atomic(p, (unsigned)n);
    while (atomic_lock.test_and_set(std::memory_order_acquire)) std::this_thread::yield();
    memcpy(old, p, n);
}
void atomic_end(void *p, const void *value, size_t n) {
    memcpy(p, value, n);
    atomic_lock.clear(std::memory_order_release);
}

} // namespace sim
