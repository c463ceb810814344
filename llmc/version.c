// version.c: see version.h.
#include "llmc/version.h"

#include "llmc/backend.h"
#include "llmc/base/dist.h"

// The Makefile writes them into an object of its own (build/facts.c); NULL in programs that are linked without it.
extern const char build_commit[] __attribute__((weak));
extern const char build_cuda[] __attribute__((weak));

#ifdef __clang__
static const char compiler[] = "clang " __clang_version__;
#else
static const char compiler[] = "gcc " __VERSION__;
#endif

const char *version_commit(void) { return build_commit ? build_commit : "of an unknown build"; }

void version_print(FILE *out, const char *program) {
    const char *bf16 = backend_cpu_kernels(DTYPE_BF16), *fp32 = backend_cpu_kernels(DTYPE_F32);
    fprintf(out, "%s %s\n", program, version_commit());
    fprintf(out, "  %-12s %s\n", "compiler", compiler);
    fprintf(out, "  %-12s %s\n", "MPI", dist_library());
    fprintf(out, "  %-12s %s\n", "CUDA", build_cuda ? build_cuda : "unknown");
    if (bf16 && fp32) fprintf(out, "  %-12s %s for bf16, %s for fp32 on this processor\n", "CPU kernels", bf16, fp32);
    else fprintf(out, "  %-12s none for this processor\n", "CPU kernels");
}
