// Threads of a block as fibers: switching, choosing who runs next, barriers, collectives, the report of a deadlock.
//
// A thread runs until it has to wait or ends; one that never waits costs no switch: the next takes over its stack.
// Whoever waits chooses the next thread himself and switches to it directly; the scheduler is met at a block's end
// only.
#include "block.h"
#include "fault.h"
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif
#ifndef __x86_64__
#error "the switch between fibers is written for x86-64"
#endif

// Saves the callee-saved registers on the stack that is left, and restores them from the one that is entered.
asm(R"(
.text
.globl cudasim_switch
.type cudasim_switch,@function
.p2align 4
cudasim_switch:
    pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
    ret
.size cudasim_switch,.-cudasim_switch
)");
extern "C" void cudasim_switch(void **save_sp, void *to_sp);

namespace sim {

__thread Block *the_block;
#ifdef __SANITIZE_ADDRESS__
static __thread const void *host_stack; // ASan is told of each change of stack
static __thread size_t host_stack_size;
#endif

unsigned lane_id() { return the_block->current & 31; }

// ---- who is next ----
static int nth_bit(uint32_t m, uint64_t n) {
    while (n--) m &= m - 1;
    return __builtin_ctz(m);
}
// The set bit of m that follows `from` in the block's order, around the end; from = -1 or 32 starts at an end.
static inline int next_bit(Block *b, uint32_t m, int from) {
    if (b->order == FORWARD) {
        uint32_t above = from < 31 ? m & (~0u << (from + 1)) : 0;
        return __builtin_ctz(above ? above : m);
    }
    if (b->order == REVERSE) {
        uint32_t below = from < 32 ? m & ((1u << from) - 1) : m;
        return 31 - __builtin_clz(below ? below : m);
    }
    return nth_bit(m, next_random(b->random) % __builtin_popcount(m));
}
// The next thread to run, or -1. It stays within the warp as long as that has ready lanes. In random order it also
// leaves the warp now and then, but seldom: when warps take turns they keep in step, and a missing barrier does no
// harm.
static inline int choose(Block *b) {
    if (!b->ready_warps) return -1;
    int now = b->current >> 5, w = now;
    bool leave = b->order == RANDOM && next_random(b->random) % 256 == 0;
    if (leave || !b->warp[now].ready) w = next_bit(b, b->ready_warps, now);
    int from = w == now ? b->current & 31 : b->order == REVERSE ? 32 : -1;
    return w * 32 + next_bit(b, b->warp[w].ready, from);
}
static inline void set_ready(Block *b, int w, uint32_t lanes) {
    b->warp[w].ready |= lanes;
    if (b->warp[w].ready) b->ready_warps |= 1u << w;
}
static inline void set_waiting(Block *b, int t) {
    Warp &w = b->warp[t >> 5];
    w.ready &= ~(1u << (t & 31));
    if (!w.ready) b->ready_warps &= ~(1u << (t >> 5));
}

// ---- switching ----
static void fiber_main();
static char *stack_bottom(Block *b, int i) { return b->stacks + i * (STACK_SIZE + STACK_GUARD) + STACK_GUARD; }

static void *new_stack(Block *b, int i) {
    // Tops are staggered: equal offsets in stacks a power of two apart would share few sets of the caches.
    char *top = stack_bottom(b, i) + STACK_SIZE - 64 - (size_t)(i & 31) * 1088;
    void **sp = (void **)((uintptr_t)top & ~(uintptr_t)63);
    *--sp = nullptr; // no return from fiber_main; also its alignment, as after a call
    *--sp = (void *)fiber_main;
    return sp - 6; // six registers, of any value
}
static inline void mark_running(Block *b, int t) {
    b->current = t;
    threadIdx = b->thread[t].index;
}
static inline __attribute__((always_inline)) void enter(Block *b, int t, void **save_sp) {
    Thread &next = b->thread[t];
    mark_running(b, t);
    if (__builtin_expect(!next.started, 0)) {
        next.started = true;
        next.stack = b->free_stacks.back();
        b->free_stacks.pop_back();
        next.sp = new_stack(b, next.stack);
    }
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(nullptr, stack_bottom(b, next.stack), STACK_SIZE);
#endif
    cudasim_switch(save_sp, next.sp);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}
static void to_scheduler(Block *b, void **save_sp) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(nullptr, host_stack, host_stack_size);
#endif
    cudasim_switch(save_sp, b->scheduler_sp);
}
static void wait_in(Block *b, const char *operation) {
    Thread &self = b->thread[b->current];
    self.waits_in = operation;
    set_waiting(b, b->current);
    int next = choose(b);
    if (next < 0) to_scheduler(b, &self.sp);
    else enter(b, next, &self.sp);
}

// ---- barriers ----
static void release_barrier(Block *b) {
    b->arrived = 0;
    b->epoch++;
    b->result = b->accumulated;
    for (int w = 0; w < b->warps; w++) set_ready(b, w, b->warp[w].live);
}
int block_barrier(BarrierKind kind, int predicate) {
    Block *b = the_block;
    if (b->arrived == 0) {
        b->barrier = kind;
        b->accumulated = kind == BARRIER_AND;
    } else if (b->barrier != kind) {
        fail("threads of a block meet at different kinds of __syncthreads");
    }
    if (kind == BARRIER_AND) b->accumulated &= predicate != 0;
    else if (kind == BARRIER_OR) b->accumulated |= predicate != 0;
    else b->accumulated += predicate != 0;
    if (++b->arrived == b->live) {
        release_barrier(b);
        if (b->order == RANDOM) { // the last to arrive need not be the first to go on
            Thread &self = b->thread[b->current];
            int next = choose(b);
            if (next != b->current) enter(b, next, &self.sp);
        }
    } else {
        wait_in(b, "__syncthreads");
    }
    return b->result;
}

// Lanes that have arrived with this one do not all name the same mask and operation: is this one's group complete?
static bool group_complete(Block *b, Warp &w, uint32_t mask, const char *name) {
    int self = b->current;
    if (!(mask >> (self & 31) & 1)) fail("%s: the calling lane %d is not in its mask %08x", name, self & 31, mask);
    if ((w.arrived & mask) != mask) return false;
    for (uint32_t m = mask & ~(1u << (self & 31)); m; m &= m - 1) {
        Thread &other = b->thread[(self & ~31) + __builtin_ctz(m)];
        if (other.mask != mask) return false;
        if (strcmp(other.waits_in, name))
            fail("lanes of a warp meet in different operations: %s and %s", other.waits_in, name);
    }
    return true;
}
void collective(uint32_t mask, const char *name, void *arg, Leader leader) {
    Block *b = the_block;
    int t = b->current, lane = t & 31;
    Warp &w = b->warp[t >> 5];
    w.arg[lane] = arg;
    if (!w.arrived) {
        w.mask = mask;
        w.operation = name;
    } else if (w.mask != mask || w.operation != name) {
        w.operation = nullptr;
    }
    w.arrived |= 1u << lane;
    bool simple = w.operation && (mask >> lane & 1); // one group only: the usual case, and the fast one
    if (!(simple ? (w.arrived & mask) == mask : group_complete(b, w, mask, name))) {
        if (mask & ~w.live)
            fail("%s: mask %08x names lanes that have ended or never existed (there are %08x)", name, mask, w.live);
        b->thread[t].mask = mask;
        wait_in(b, name);
        return;
    }
    if (leader) leader(w.arg, mask);
    w.arrived &= ~mask;
    set_ready(b, t >> 5, mask);
}
void warp_barrier(uint32_t mask) {
    collective(mask, "__syncwarp", nullptr, [](void *const *, uint32_t lanes) {
        Warp &w = the_block->warp[the_block->current >> 5];
        if (lanes == w.live) w.epoch++;
    });
}
void thread_fence() {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (race) race->fence();
}

// ---- a thread's life ----
static void end_thread(Block *b) {
    Thread &self = b->thread[b->current];
    if (!self.copies.empty()) fail("the thread ends with a cp.async it has not waited for");
    b->warp[b->current >> 5].live &= ~(1u << (b->current & 31));
    set_waiting(b, b->current);
    self.waits_in = "ended";
    if (--b->live && b->arrived == b->live) release_barrier(b); // the others wait for those that have not ended
}
static void fiber_main() {
    Block *b = the_block;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
    int stack = b->thread[b->current].stack;
    for (;;) {
        b->launch->kernel.run(b->launch->kernel.params.get());
        end_thread(b);
        int next = choose(b);
        if (next >= 0 && !b->thread[next].started) { // it takes over this stack
            b->thread[next].started = true;
            b->thread[next].stack = stack;
            mark_running(b, next);
            continue;
        }
        b->free_stacks.push_back(stack);
        void *never_used;
        if (next < 0) to_scheduler(b, &never_used);
        else enter(b, next, &never_used);
    }
}

static void report_deadlock(Block *b) {
    fprintf(stderr, "%sdeadlock in kernel %s, block (%u,%u,%u): %d of %d threads wait for ever\n", message_prefix(),
            b->launch->name, blockIdx.x, blockIdx.y, blockIdx.z, b->live, b->threads);
    for (int begin = 0, t = 1; t <= b->threads; t++) {
        const Thread &first = b->thread[begin], &last = b->thread[t - 1];
        bool collective = b->warp[begin >> 5].arrived >> (begin & 31) & 1;
        if (t < b->threads && b->thread[t].waits_in == first.waits_in &&
            (!collective || b->thread[t].mask == first.mask) && (!collective || t % 32))
            continue;
        fprintf(stderr, "  threads (%u,%u,%u) to (%u,%u,%u): %s", first.index.x, first.index.y, first.index.z,
                last.index.x, last.index.y, last.index.z, first.waits_in);
        if (collective)
            fprintf(stderr, ", waiting for lanes %08x of mask %08x", first.mask & ~b->warp[begin >> 5].arrived,
                    first.mask);
        else if (!strcmp(first.waits_in, "__syncthreads"))
            fprintf(stderr, ", where %d of %d have arrived", b->arrived, b->live);
        fprintf(stderr, "\n");
        begin = t;
    }
    end_process();
}

void Block::run_threads() {
#ifdef __SANITIZE_ADDRESS__
    if (!host_stack) {
        pthread_attr_t attributes;
        void *bottom;
        pthread_getattr_np(pthread_self(), &attributes);
        pthread_attr_getstack(&attributes, &bottom, &host_stack_size);
        pthread_attr_destroy(&attributes);
        host_stack = bottom;
    }
#endif
    ready_warps = 0;
    for (int w = 0; w < warps; w++) set_ready(this, w, warp[w].live);
    current = order == REVERSE ? 0 : threads - 1; // so that the thread after it is the first, or the last
    int first = order == RANDOM ? choose(this) : order == REVERSE ? threads - 1 : 0;
    enter(this, first, &scheduler_sp);
    if (live) report_deadlock(this);
    current = -1;
}

} // namespace sim
