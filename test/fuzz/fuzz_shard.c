// fuzz_shard.c: libFuzzer target of the shard reader. Each input is opened twice: as it is, and with its checksums made
// right, since no fuzzer finds a CRC-32 by chance and the checks behind them matter most.
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h> // memfd_create
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/data/shard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void open_and_read(const uint8_t *data, size_t size) {
    int fd = memfd_create("shard", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    char *path = string_format("/proc/self/fd/%d", fd);
    Shard s;
    Error err;
    if (shard_open(&s, path, &err) == 0) {
        for (uint64_t p = 0; p < s.pages; p++) {
            ShardPage page = shard_page(&s, p);
            for (uint32_t i = 0; i < page.context_length; i++)
                if (page.context[i] >= s.vocab) abort();
            for (uint32_t i = 0; i < page.answer_length; i++)
                if (page.answer[i] >= s.vocab) abort();
            for (uint32_t i = 0; i < page.prompt_length; i++)
                if (page.prompt[i] >= s.vocab) abort();
        }
        shard_close(&s);
    } else if (!strstr(err.text, path)) {
        abort(); // every refusal names the file
    }
    free(path);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    open_and_read(data, size);
    if (size < 1024) return 0;
    uint8_t *copy = malloc(size);
    if (!copy) return 0;
    memcpy(copy, data, size);
    uint64_t tokens_at;
    memcpy(&tokens_at, copy + 80, sizeof tokens_at);
    if (tokens_at >= 1024 && tokens_at <= size) {
        uint32_t index = file_crc32(0, copy + 1024, tokens_at - 1024);
        uint32_t tokens = file_crc32(0, copy + tokens_at, size - tokens_at);
        memcpy(copy + 88, &index, sizeof index);
        memcpy(copy + 92, &tokens, sizeof tokens);
    }
    uint32_t header = file_crc32(0, copy, 1020);
    memcpy(copy + 1020, &header, sizeof header);
    open_and_read(copy, size);
    free(copy);
    return 0;
}
