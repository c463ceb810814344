// backend.c: which backend a run gets. The CUDA one is linked in where nvcc was found; its functions are weak symbols,
// so the same objects serve both builds.
#include "llmc/backend.h"

#include <stdlib.h>
#include <string.h>

#include "llmc/base/dist.h"

static int use_cuda(const char *device, Dist *dist, const char **notes, Error *err) {
    if (strcmp(device, "cpu") == 0) return 0;
    int wanted = strcmp(device, "cuda") == 0;
    if (!backend_cuda_create) {
        if (wanted)
            return error_set(err,
                             "-device cuda: this program was built without CUDA (hint: install the CUDA toolkit, so "
                             "that nvcc is on the PATH, and run make again; or -device cpu)");
        return 0;
    }
    // One rank without a GPU keeps all from it: some on GPUs and some on cores would wait for each other for ever.
    int without = backend_cuda_devices() == 0;
    if (dist && dist->ranks > 1) dist_max_int(dist, &without, 1);
    if (!without) return 1;
    if (wanted)
        return error_set(err, "-device cuda: %s (hint: nvidia-smi shows what the driver sees; or -device cpu)",
                         dist && dist->ranks > 1 ? "a rank finds no GPU on its host" : "no GPU is found on this host");
    *notes = "no GPU found: computing on the CPU";
    return 0;
}

int backend_create(Backend **out, const char *device, DType dtype, int threads, Dist *dist, const char **notes,
                   Error *err) {
    const char *line = NULL;
    *out = NULL;
    int cuda = use_cuda(device, dist, &line, err);
    if (notes) *notes = line;
    if (cuda < 0) return -1;
    if (cuda) {
        TRY(backend_cuda_create(out, dtype, dist, err));
        (*out)->threads = threads > 0 ? threads : dist ? dist->cores : 1;
        return 0;
    }
    TRY(backend_cpu_create(out, dtype, threads, dist, err));
    (*out)->peak_flops = backend_cpu_measure_peak(*out);
    return 0;
}
