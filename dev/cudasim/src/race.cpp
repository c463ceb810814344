// The race check, linked into one build only. Kernels are compiled with -fsanitize=thread but without its runtime: the
// compiler then calls the functions at the end of this file at every load and store, and barriers alone decide,
// whatever the order in which threads ran. Two accesses to the same bytes, of two threads, one of them a write,
// conflict when
//   in one block      there is no __syncthreads between, nor, in one warp, a full __syncwarp
//   in two blocks     they belong to one launch, and no __threadfence + atomic (release), atomic (acquire) orders them
// Also found: access outside of device memory and of variables in shared memory, misaligned access, touching the
// destination of a cp.async under way. Atomics do not conflict with each other.
#include "runtime.h"
#include "fault.h"
#include <cstdlib>
#include <map>
#include <unistd.h>
#include <unordered_map>

namespace sim {

struct Access {
    uint32_t block; // its serial number; 0: none
    uint32_t epoch;
    uint16_t thread, warp_epoch, fences;
};
struct Cell {                            // two bytes of memory
    Access writer, reader, other_reader; // the last write; the last read; the last read of another thread than that
    bool atomic;                         // the last write was
    bool in_flight;                      // a cp.async will write here
};
constexpr int PAGE = 512, PAGES_KEPT = 4096;

struct Released { // an atomic after a fence: what its thread saw before the fence
    uint32_t block, fence_epoch;
    uint16_t thread, fences;
};
struct Acquired {
    Released from;
    uint16_t thread; // that did the atomic: the others of the block are ordered after the next barrier
    uint32_t epoch;
};

static std::unordered_map<uintptr_t, std::vector<Cell>> pages;
static std::unordered_map<const void *, std::vector<Released>> released; // by address of the atomic; of this launch
static std::vector<Acquired> acquired;                                   // by the running block
static uint32_t launch_begin = 1, current_serial; // first block of the launch; block that the two below belong to
static uint16_t fences[MAX_THREADS];
static uint32_t fence_epochs[MAX_THREADS];
static uint64_t accesses, reports;

// ---- what is ordered ----
static bool released_before(const Access &a, const Access &now) {
    for (const Acquired &q : acquired) {
        if (q.from.block != a.block || (q.thread != now.thread && q.epoch == now.epoch)) continue;
        if (a.thread == q.from.thread ? a.fences < q.from.fences : a.epoch < q.from.fence_epoch) return true;
    }
    return false;
}
static bool ordered(const Access &a, const Access &now, bool shared) { // a came earlier
    if (a.block < launch_begin) return true;
    if (a.block != now.block) return shared || released_before(a, now);
    if (a.thread == now.thread || a.epoch != now.epoch) return true;
    return a.thread / 32 == now.thread / 32 && a.warp_epoch != now.warp_epoch;
}
static Access this_access() {
    Block *b = the_block;
    if (b->serial != current_serial) {
        current_serial = b->serial;
        memset(fences, 0, sizeof fences);
        acquired.clear();
    }
    return {b->serial, b->epoch, (uint16_t)b->current, (uint16_t)b->warp[b->current / 32].epoch, fences[b->current]};
}

// ---- reports ----
static void report(const char *what, const void *p, unsigned n, const Access *other) {
    if (reports++ >= 8) return;
    fprintf(stderr, "%sracecheck: %s, %u bytes", message_prefix(), what, n);
    const char *begin;
    size_t size;
    if (const SharedVariable *v = the_block->find_shared(p, 1))
        fprintf(stderr, " at offset %td of %s", (const unsigned char *)p - v->begin, v->name);
    else if (find_device(p, &begin, &size))
        fprintf(stderr, " at offset %td of a device allocation of %zu", (const char *)p - begin, size);
    else fprintf(stderr, " at %p", p);
    fprintf(stderr, ": kernel %s, block %u, thread %d", the_block->launch->name, block_number(), the_block->current);
    if (other && other->block == the_block->serial) fprintf(stderr, ", against thread %d", other->thread);
    else if (other) fprintf(stderr, ", against thread %d of another block", other->thread);
    fprintf(stderr, "\n");
}

// ---- one access ----
enum What { READ, WRITE, ATOMIC };

static bool inside(const void *p, const void *begin, size_t size) {
    return p >= begin && (const char *)p < (const char *)begin + size;
}
extern "C" char __executable_start, _end;
// Memory where nothing can go wrong: the thread's own variables, its index, constants of the program, parameters.
static bool is_private(const void *p, unsigned n, bool write) {
    Block *b = the_block;
    if (inside(p, b, sizeof *b) || inside(p, b->stacks, (STACK_SIZE + STACK_GUARD) * MAX_THREADS)) return true;
    for (const uint3 *index : {&threadIdx, &blockIdx, &blockDim, &gridDim})
        if (inside(p, index, sizeof *index)) return true;
    if (inside(p, &__executable_start, &_end - &__executable_start)) return true;
    const Kernel &k = b->launch->kernel;
    return !write && inside(p, k.params.get(), k.params_size) && n <= k.params_size;
}
static Cell *cell_of(uintptr_t granule) {
    static uintptr_t last = ~(uintptr_t)0;
    static std::vector<Cell> *page;
    if (granule / PAGE != last || pages.empty()) {
        last = granule / PAGE;
        page = &pages[last];
        if (page->empty()) page->resize(PAGE);
    }
    return &(*page)[granule % PAGE];
}
// Updates a cell; returns what is wrong, or NULL.
static const char *access_cell(Cell &c, const Access &now, What what, bool shared, Access *other) {
    *other = c.writer;
    if (c.in_flight) return "access to the destination of a cp.async under way";
    bool both_atomic = what == ATOMIC && c.atomic;
    if (c.writer.block && !both_atomic && !ordered(c.writer, now, shared)) {
        if (what != READ) c.writer = now, c.atomic = what == ATOMIC;
        return what == READ ? "read after write" : "write after write";
    }
    if (what == READ) {
        if (c.reader.block != now.block || c.reader.thread != now.thread) {
            // Of several other readers one of another block is kept: no barrier will order it.
            bool keep = c.other_reader.block >= launch_begin && c.other_reader.block != now.block &&
                        c.reader.block == now.block;
            if (!keep) c.other_reader = c.reader;
        }
        c.reader = now;
        return nullptr;
    }
    for (Access *r : {&c.reader, &c.other_reader})
        if (r->block && !ordered(*r, now, shared)) {
            *other = *r;
            *r = {};
            return "write after read";
        }
    c.writer = now;
    c.atomic = what == ATOMIC;
    return nullptr;
}
static void check(const void *p, unsigned n, What what) {
    if (!in_kernel() || is_private(p, n, what != READ)) return;
    accesses++;
    Block *b = the_block;
    bool shared = inside(p, b->arena - SHARED_GUARD, SHARED_ARENA);
    const char *begin;
    size_t size;
    if (shared ? !b->find_shared(p, n)
               : !is_pinned(p) && !(find_device(p, &begin, &size) && (const char *)p + n <= begin + size))
        return report(what == READ ? "read outside of all variables" : "write outside of all variables", p, n, nullptr);
    Access now = this_access(), other;
    for (uintptr_t granule = (uintptr_t)p / 2; granule <= ((uintptr_t)p + n - 1) / 2; granule++)
        if (const char *wrong = access_cell(*cell_of(granule), now, what, shared, &other))
            return report(wrong, p, n, &other);
}
static void check_aligned(const void *p, unsigned n, What what) {
    // The compiler also calls this for 16 bytes of which it knows an alignment of 8 only.
    if ((uintptr_t)p % std::min(n, 8u) && in_kernel() && !is_private(p, n, what != READ))
        report("misaligned access", p, n, nullptr);
    check(p, n, what);
}

// ---- hooks of the simulation ----
static void on_atomic(void *p, unsigned n) {
    check(p, n, ATOMIC);
    Access now = this_access();
    std::vector<Released> &here = released[p];
    for (const Released &r : here)
        if (r.block != now.block) acquired.push_back({r, now.thread, now.epoch});
    if (fences[now.thread]) here.push_back({now.block, fence_epochs[now.thread], now.thread, fences[now.thread]});
}
static void on_fence() {
    Access now = this_access();
    fences[now.thread]++;
    fence_epochs[now.thread] = now.epoch;
}
static void on_flight(void *p, unsigned n, bool begins) {
    auto mark = [&](bool value) {
        for (unsigned i = 0; i < n; i += 2) cell_of(((uintptr_t)p + i) / 2)->in_flight = value;
    };
    if (!begins) mark(false);
    check(p, n, WRITE);
    if (begins) mark(true);
}
static void on_launch() {
    launch_begin = the_block ? the_block->serial + 1 : 1;
    released.clear();
    if (pages.size() > PAGES_KEPT) pages.clear(); // what earlier launches did is ordered before this one
}
static const RaceHooks hooks = {[](const void *p, unsigned n) { check(p, n, READ); },
                                [](void *p, unsigned n) { check(p, n, WRITE); },
                                on_atomic,
                                on_fence,
                                on_flight,
                                on_launch};

struct Checker {
    Checker() { race = &hooks; }
    ~Checker() {
        fflush(stdout);
        fprintf(stderr, "%sracecheck: %llu accesses, %llu reports\n", message_prefix(), (unsigned long long)accesses,
                (unsigned long long)reports);
        if (reports) _exit(87);
    }
} checker;

} // namespace sim

// ---- what the compiler calls ----
using sim::READ;
using sim::WRITE;
extern "C" {
void __tsan_init(void) {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit(void) {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
void __tsan_read_range(void *p, unsigned long n) { sim::check(p, (unsigned)n, READ); }
void __tsan_write_range(void *p, unsigned long n) { sim::check(p, (unsigned)n, WRITE); }
#define CUDASIM_ACCESS(n)                                                                                              \
    void __tsan_read##n(void *p) { sim::check_aligned(p, n, READ); }                                                   \
    void __tsan_write##n(void *p) { sim::check_aligned(p, n, WRITE); }                                                 \
    void __tsan_volatile_read##n(void *p) { sim::check_aligned(p, n, READ); }                                          \
    void __tsan_volatile_write##n(void *p) { sim::check_aligned(p, n, WRITE); }                                        \
    void __tsan_unaligned_read##n(void *p) { sim::check(p, n, READ); }                                                 \
    void __tsan_unaligned_write##n(void *p) { sim::check(p, n, WRITE); }
CUDASIM_ACCESS(1)
CUDASIM_ACCESS(2)
CUDASIM_ACCESS(4)
CUDASIM_ACCESS(8)
CUDASIM_ACCESS(16)
// Host code in .cu files: reference counts and guards of static variables.
uint8_t __tsan_atomic8_load(const volatile uint8_t *p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
int __tsan_atomic32_load(const volatile int *p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
int64_t __tsan_atomic64_load(const volatile int64_t *p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
int __tsan_atomic32_fetch_add(volatile int *p, int v, int) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
}
