// fuzz_config.c: libFuzzer target of the config reader: the input is the config.json of a plain Qwen2 folder and of a
// C3 folder whose encoder is known. What is accepted must survive being written and read again.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/model/config.h"
#include "llmc/base/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[64], *config, *copy;

static void remove_folder(void) {
    Error err;
    (void)file_remove_tree(folder, &err);
    free(config);
    free(copy);
}

static void set_up(void) {
    snprintf(folder, sizeof folder, "%s/fuzz_config_XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : ".");
    if (!mkdtemp(folder)) abort();
    config = string_format("%s/config.json", folder);
    copy = string_format("%s/copy", folder);
    C3Config c;
    Error err;
    if (!config || !copy || config_preset(&c, "tiny", 0, &err) != 0 || config_write_c3(&c, folder, &err) != 0 ||
        file_make_dirs(copy, &err) != 0)
        abort();
    atexit(remove_folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!config) set_up();
    FILE *f = fopen(config, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) abort();
    Error err;
    Qwen2Config q;
    C3Config c, again;
    if (config_read_qwen2(&q, folder, &err) == 0) {
        if (q.V < 1 || q.D < 1 || q.L < 1 || q.NH < 1 || q.KV < 1 || q.NH % q.KV || q.HS < 2 || q.F < 1) abort();
    } else if (!strstr(err.text, config)) {
        abort(); // every refusal names the file
    }
    if (config_read_c3(&c, folder, &err) == 0) {
        if (config_write_c3(&c, copy, &err) != 0 || config_read_c3(&again, copy, &err) != 0) abort();
        if (c.dec.D != again.dec.D || c.dec.rope_theta != again.dec.rope_theta || c.dec.rms_eps != again.dec.rms_eps ||
            c.base_vocab != again.base_vocab || c.latents != again.latents || c.dtype != again.dtype)
            abort();
    }
    return 0;
}
