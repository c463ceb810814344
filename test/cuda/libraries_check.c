// libraries_check.c: where cuBLASLt and NCCL are looked for (llmc/cuda/libraries.c, included whole), with libraries of
// the test's own. argv[1]: an empty folder; argv[2]: a shared library to copy.
#include "llmc/cuda/libraries.c"

#include <errno.h>
#include <sys/stat.h>

#include "llmc/base/file.h"
#include "test/check.h"

static const char *folder, *library;

static char *put(const char *place, const char *name) {
    Error err;
    char *where = string_format("%s/%s", folder, place), *path = string_format("%s/%s", where, name);
    if (file_make_dirs(where, &err) != 0 || file_copy(library, path, &err) != 0) {
        printf("  %s\n", err.text);
        exit(1);
    }
    free(where);
    return path;
}

static void expect(const char *name, const char *path) {
    void *opened = NULL;
    Error err = {""};
    int bad = load(&opened, name, &err);
    CHECK(!bad && !strcmp(path_of(opened), path), "%s: %s %s", name, err.text, bad ? "" : path_of(opened));
    if (opened) dlclose(opened);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    folder = argv[1];
    library = argv[2];
    char *toolkit = string_format("%s/toolkit", folder), *venv = string_format("%s/venv", folder);
    setenv("CUDA_HOME", toolkit, 1);
    setenv("VIRTUAL_ENV", venv, 1);
    check_begin("in a toolkit's folder, and in Python's packages");
    char *a = put("toolkit/lib64", "libone.so.3");
    char *b = put("venv/lib/python3.12/site-packages/nvidia/cu13/lib", "libtwo.so.3");
    expect("libone.so.3", a);
    expect("libtwo.so.3", b);

    check_begin("beside the python3 on the PATH, whose links are followed");
    char *bin = string_format("%s/env/bin", folder), *link = string_format("%s/links", folder), *at;
    char *c = put("env/lib/python3.11/site-packages/nvidia/nccl/lib", "libthree.so.2"),
         *python = put("env/bin", "python3");
    char *from = string_format("%s/python3", link);
    Error err;
    CHECK(!chmod(python, 0755) && !file_make_dirs(link, &err) && !symlink(python, from), "%s", strerror(errno));
    setenv("PATH", at = string_format("/nonexistent:%s", link), 1);
    char *whole = string_format("%s/../lib/python3.11/site-packages/nvidia/nccl/lib/libthree.so.2", bin);
    expect("libthree.so.2", whole);

    check_begin("another major version is named, and not taken");
    void *opened = NULL;
    char *old = put("toolkit/lib64", "libfour.so.2");
    CHECK(load(&opened, "libfour.so.3", &err) == -1 && !opened && strstr(err.text, old) && strstr(err.text, "major"),
          "%s", err.text);

    check_begin("one that is nowhere: the error says where it was looked for");
    CHECK(load(&opened, "libfive.so.1", &err) == -1 && strstr(err.text, toolkit) && strstr(err.text, venv) &&
              strstr(err.text, "libfive.so.1") && strstr(err.text, "/usr/local/cuda"),
          "%s", err.text);
    char *all[] = {toolkit, venv, a, b, c, bin, link, at, python, from, whole, old};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    return check_done();
}
