// The environment variables that steer the simulation. A mistyped one ends the process: a test that silently runs in
// another mode than it says proves nothing.
#include "fault.h"
#include "runtime.h"
#include <cstdlib>
#include <unistd.h>

namespace sim {

const char *rank_of_process() {
    for (const char *name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"})
        if (const char *rank = getenv(name)) return rank;
    return nullptr;
}

static long long number(const char *name, long long otherwise, long long least, long long most) {
    const char *text = getenv(name);
    if (!text) return otherwise;
    char *end;
    long long value = strtoll(text, &end, 10);
    const char *units = "KMG";
    const char *unit = *end ? strchr(units, *end) : nullptr;
    if (unit) value <<= 10 * (unit - units + 1), end++;
    if (end == text || *end || value < least || value > most)
        fail("%s=%s: a number from %lld to %lld is expected", name, text, least, most);
    return value;
}
// One of three words, the third with an optional :SEED. Ranks get different sequences of one seed.
static int mode(const char *name, const char *const (&words)[3], uint64_t *seed) {
    const char *text = getenv(name);
    if (rank_of_process()) *seed += 1000 * strtoull(rank_of_process(), nullptr, 10);
    if (!text) return 0;
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(words[i]);
        if (strncmp(text, words[i], n)) continue;
        if (!text[n]) return i;
        char *end;
        uint64_t value = strtoull(text + n + 1, &end, 10);
        if (i < 2 || text[n] != ':' || !text[n + 1] || *end) break;
        *seed += value;
        return i;
    }
    fail("%s=%s: %s, %s or %s[:SEED] is expected", name, text, words[0], words[1], words[2]);
}

static Settings read_environment() {
    Settings s;
    s.order = (Order)mode("SIM_ORDER", {"forward", "reverse", "random"}, &s.order_seed);
    s.async = (Async)mode("SIM_ASYNC", {"eager", "lazy", "random"}, &s.async_seed);
    s.threads = (int)number("SIM_THREADS", 1, 1, 256);
#ifdef __SANITIZE_ADDRESS__
    s.threads = 1; // poisoned shared memory would need care that no test is worth
#endif
    s.devices = (int)number("SIM_DEVICES", 8, 0, 64);
    s.memory = (size_t)number("SIM_MEMORY", (long long)s.memory, 0, 1ll << 40);
    s.arch = (int)number("SIM_ARCH", s.arch, 50, 150);
    s.driver = (int)number("SIM_DRIVER", s.driver, 1000, 99990);
    s.host_guard = number("SIM_HOST_GUARD", 1, 0, 1);
    if (const char *file = getenv("SIM_LOG")) s.log = file;
    if (const char *fault = getenv("SIM_NCCL_FAULT")) s.nccl_fault = fault;
    return s;
}
Settings settings = read_environment();

} // namespace sim
