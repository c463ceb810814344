// fuzz_safetensors.c: libFuzzer target of the safetensors reader. Each input is opened as it is, and as the header of a
// file whose length field and data size fit it, since no fuzzer keeps those right while it changes the JSON.
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h> // memfd_create
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/base/file.h"
#include "llmc/weights/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void open_and_read(const uint8_t *data, size_t size) {
    int fd = memfd_create("safetensors", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    char *path = string_format("/proc/self/fd/%d", fd);
    SafeTensors *s;
    Error err;
    if (safetensors_open(&s, path, &err) == 0) {
        volatile uint8_t sum = 0;
        size_t bytes = 0;
        for (int i = 0; i < safetensors_count(s); i++) {
            const SafeTensor *t = safetensors_at(s, i);
            for (size_t k = 0; k < t->bytes; k++) sum = (uint8_t)(sum + ((const uint8_t *)t->data)[k]);
            bytes += t->bytes;
            if (safetensors_find(s, t->name) != t) abort();
            size_t n = t->supported ? t->bytes / dtype_size(t->dtype) : 0;
            float *wide = n ? malloc(n * sizeof *wide) : NULL;
            if (wide) safetensors_convert(wide, DTYPE_F32, t->data, t->dtype, n);
            free(wide);
        }
        if (bytes > size) abort(); // tensors never overlap
        safetensors_close(s);
    } else if (!strstr(err.text, path)) {
        abort(); // every refusal names the file
    }
    free(path);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    open_and_read(data, size);
    // the last byte of the input: how many bytes of data follow the header
    if (size == 0) return 0;
    size_t header = size - 1, tail = data[header];
    uint8_t *file = calloc(1, 8 + header + tail);
    if (!file) return 0;
    for (int i = 0; i < 8; i++) file[i] = (uint8_t)((uint64_t)header >> 8 * i);
    memcpy(file + 8, data, header);
    open_and_read(file, 8 + header + tail);
    free(file);
    return 0;
}
