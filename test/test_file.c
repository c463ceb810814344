// test_file.c: where the bytes of an output go (links, pipes, devices, descriptors), what a killed writer leaves,
// inputs that are no files, a mapping whose file is cut, closed standard streams.
#include "llmc/base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h> // makedev
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static char folder[] = "/tmp/c3file.XXXXXX";
static Error err;

// A name inside the folder; good until the eighth call after.
static const char *in(const char *name) {
    static char names[8][512];
    static int next;
    char *out = names[next++ % 8];
    snprintf(out, sizeof names[0], "%s/%s", folder, name);
    return out;
}

static int put(const char *path, const char *text) {
    FileWriter w;
    if (file_create(&w, path, &err) != 0) return -1;
    if (file_write(&w, text, strlen(text), &err) == 0) return file_commit(&w, &err);
    file_discard(&w);
    return -1;
}

static int holds(const char *path, const char *text) {
    char *data;
    size_t n;
    if (file_read(&data, &n, path, NULL) != 0) return 0;
    int same = strcmp(data, text) == 0;
    free(data);
    return same;
}

static mode_t mode_of(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0 ? st.st_mode : 0;
}

// Entries of the folder, hidden ones included.
static int count_entries(void) {
    DIR *dir = opendir(folder);
    int n = -2;
    while (dir && readdir(dir)) n++;
    if (dir) closedir(dir);
    return n;
}

static int exit_code(pid_t child) {
    int status;
    if (waitpid(child, &status, 0) != child) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

// ---- where the bytes go --------------------------------------------------------------------------------------------

static void test_files(void) {
    check_begin("a new file has the mode that open would give it, an old one keeps its own");
    umask(027);
    CHECK(put(in("a"), "one") == 0 && holds(in("a"), "one"), "%s", err.text);
    CHECK(mode_of(in("a")) == (S_IFREG | 0640), "mode %o", mode_of(in("a")));
    CHECK(chmod(in("a"), 0604) == 0 && put(in("a"), "two") == 0 && holds(in("a"), "two"), "%s", err.text);
    CHECK(mode_of(in("a")) == (S_IFREG | 0604), "mode %o", mode_of(in("a")));
    umask(022);
    if (chown(in("a"), 12345, 23456) == 0) { // root: and its owner
        struct stat st = {0};
        CHECK(put(in("a"), "two") == 0 && stat(in("a"), &st) == 0, "%s", err.text);
        CHECK(st.st_uid == 12345 && st.st_gid == 23456 && (st.st_mode & 0777) == 0604, "owner %d", (int)st.st_uid);
    }

    check_begin("until it is whole the old one stays, and given up, nothing is left");
    FileWriter w;
    CHECK(file_create(&w, in("a"), &err) == 0 && file_write(&w, "three", 5, &err) == 0, "%s", err.text);
    CHECK(fflush(w.stream) == 0 && holds(in("a"), "two") && count_entries() == 2, "%d entries", count_entries());
    const char *name = strrchr(w.temporary, '/') + 1;
    CHECK(name[0] == '.' && strncmp(w.temporary, folder, strlen(folder)) == 0, "%s is seen by *", w.temporary);
    file_discard(&w);
    file_discard(&w);
    CHECK(holds(in("a"), "two") && count_entries() == 1, "%d entries", count_entries());

    check_begin("the longest name there is, a folder's name, a missing folder");
    char longest[300] = {0};
    memset(longest, 'n', 255);
    CHECK(put(in(longest), "long") == 0 && holds(in(longest), "long") && unlink(in(longest)) == 0, "%s", err.text);
    CHECK(put(folder, "x") != 0 && strstr(err.text, folder), "%s", err.text);
    CHECK(put("/nonexistent/x", "x") != 0 && strstr(err.text, "/nonexistent/x"), "%s", err.text);
    CHECK(file_check_writable("/nonexistent/x", &err) != 0 && file_check_writable(folder, &err) != 0, "writable");
    CHECK(file_check_writable(in("a"), &err) == 0 && holds(in("a"), "two") && count_entries() == 1, "%s", err.text);
}

static void test_links(void) {
    check_begin("links are written through, also one to nothing and a chain");
    CHECK(mkdir(in("sub"), 0777) == 0 && put(in("sub/t"), "old") == 0, "%s", err.text);
    CHECK(symlink("sub/t", in("link")) == 0 && symlink(in("link"), in("chain")) == 0, "symlink");
    CHECK(put(in("chain"), "new") == 0 && holds(in("sub/t"), "new"), "%s", err.text);
    CHECK(S_ISLNK(mode_of(in("link"))) && S_ISLNK(mode_of(in("chain"))) && S_ISREG(mode_of(in("sub/t"))), "replaced");
    CHECK(unlink(in("sub/t")) == 0 && put(in("link"), "made") == 0 && holds(in("sub/t"), "made"), "%s", err.text);
    CHECK(S_ISLNK(mode_of(in("link"))), "the link is gone");

    check_begin("a ring of links is an error and no loop");
    CHECK(symlink("ring", in("ring")) == 0 && put(in("ring"), "x") != 0 && strstr(err.text, "ring"), "%s", err.text);

    check_begin("links planted under names that could be guessed lead nowhere");
    CHECK(put(in("victim"), "mine") == 0, "%s", err.text);
    CHECK(symlink(in("victim"), in("log.tmp")) == 0 && symlink(in("victim"), in("log.tokens.tmp")) == 0, "symlink");
    FILE *spool = file_spool(in("log"), &err);
    CHECK(spool && fputs("spool", spool) >= 0 && fflush(spool) == 0, "%s", err.text);
    CHECK(put(in("log"), "text") == 0 && holds(in("log"), "text") && holds(in("victim"), "mine"), "overwritten");
    CHECK(S_ISLNK(mode_of(in("log.tmp"))), "what is not ours was removed");
    int n = count_entries();
    if (spool) fclose(spool);
    CHECK(n == count_entries(), "a spool has a name");
}

static void test_in_place(void) {
    char got[16] = {0};
    check_begin("a FIFO: its reader gets the bytes, and it stays one");
    CHECK(mkfifo(in("fifo"), 0666) == 0, "mkfifo");
    CHECK(file_check_writable(in("fifo"), &err) == 0, "%s", err.text); // does not wait for a reader
    int fd = open(in("fifo"), O_RDONLY | O_NONBLOCK);                  // a reader, so that opening does not wait
    CHECK(put(in("fifo"), "through") == 0, "%s", err.text);
    CHECK(read(fd, got, sizeof got - 1) == 7 && strcmp(got, "through") == 0, "got '%s'", got);
    CHECK(S_ISFIFO(mode_of(in("fifo"))), "mode %o", mode_of(in("fifo")));
    close(fd);

    // One of our own, not the system's: were this broken, root would replace it.
    check_begin("a device stays one, and what it refuses is an error");
    if (mknod(in("device"), S_IFCHR | 0666, makedev(1, 7)) == 0 && access(in("device"), W_OK) == 0) {
        CHECK(symlink("device", in("full")) == 0, "symlink");
        CHECK(file_check_writable(in("full"), &err) == 0 && put(in("full"), "x") != 0 && strstr(err.text, "full"), "%s",
              err.text);
        CHECK(S_ISLNK(mode_of(in("full"))) && S_ISCHR(mode_of(in("device"))), "replaced");
    }

    check_begin("a descriptor of one's own is written where it stands, in any spelling");
    fd = open(in("out"), O_RDWR | O_CREAT, 0666);
    char name[64], link[64];
    CHECK(write(fd, "first ", 6) == 6, "write");
    snprintf(name, sizeof name, "/dev/fd/%d", fd);
    snprintf(link, sizeof link, "/proc/%d/fd/%d", (int)getpid(), fd);
    CHECK(file_check_writable(name, &err) == 0 && put(name, "second ") == 0 && put(link, "third") == 0, "%s", err.text);
    CHECK(symlink(name, in("to_fd")) == 0 && put(in("to_fd"), "!") == 0, "%s", err.text);
    CHECK(holds(in("out"), "first second third!"), "something else is there");
    close(fd);
    CHECK(put(name, "x") != 0 && file_check_writable(name, &err) != 0, "a closed descriptor was written");

    check_begin("- and links to descriptor 1 are stdout, behind what was printed before");
    CHECK(symlink("/proc/self/fd/1", in("to_stdout")) == 0, "symlink"); // as /dev/stdout is
    fflush(stdout);
    int keep = dup(STDOUT_FILENO), out = open(in("stdout"), O_RDWR | O_CREAT | O_APPEND, 0666);
    dup2(out, STDOUT_FILENO);
    printf("head ");
    int bad = put("-", "one ") != 0 || put(in("to_stdout"), "two") != 0 || !file_is_stdout("-") ||
              !file_is_stdout("/dev/stdout") || file_is_stdout(in("stdout")) || file_is_stdout("/dev/stderr");
    dup2(keep, STDOUT_FILENO);
    close(keep);
    close(out);
    CHECK(!bad && holds(in("stdout"), "head one two"), "%s", err.text);
}

// ---- writers that are killed, or are two ---------------------------------------------------------------------------

// A process that writes half of a file, says so, and waits to be killed.
static pid_t half_writer(const char *path) {
    int ends[2];
    char word;
    if (pipe(ends) != 0) exit(2);
    pid_t child = fork();
    if (child == 0) {
        FileWriter w;
        if (file_create(&w, path, &err) != 0 || file_write(&w, "half", 4, &err) != 0 || fflush(w.stream) != 0) _exit(2);
        if (write(ends[1], "!", 1) != 1) _exit(2);
        for (;;) pause();
    }
    close(ends[1]);
    CHECK(read(ends[0], &word, 1) == 1, "the child could not write");
    close(ends[0]);
    return child;
}

static void test_killed(void) {
    check_begin("what a killed writer leaves is cleared away by the next, what a living one writes is not");
    int n = count_entries();
    pid_t child = half_writer(in("k")), other = half_writer(in("kk"));
    CHECK(count_entries() == n + 2 && put(in("k"), "whole") == 0 && count_entries() == n + 3, "%d and %d entries", n,
          count_entries());
    kill(child, SIGKILL);
    CHECK(exit_code(child) == 1000 + SIGKILL && count_entries() == n + 3, "nothing is left to be cleared");
    CHECK(put(in("k"), "again") == 0 && holds(in("k"), "again") && count_entries() == n + 2, "%d and %d entries", n,
          count_entries());
    kill(other, SIGKILL);
    CHECK(exit_code(other) == 1000 + SIGKILL && put(in("k"), "k") == 0 && count_entries() == n + 2, "another's");
    CHECK(put(in("kk"), "kk") == 0 && count_entries() == n + 2, "%d and %d entries", n, count_entries());

    check_begin("4 writers of one name, 50 turns each: always whole, nothing left");
    enum { SIZE = 5000 };
    n = count_entries();
    pid_t writers[4];
    for (int i = 0; i < 4; i++) {
        if ((writers[i] = fork()) != 0) continue;
        char text[SIZE + 1];
        memset(text, 'a' + i, SIZE);
        text[SIZE] = 0;
        for (int turn = 0; turn < 50; turn++) {
            if (put(in("shared"), text) != 0) _exit(1);
        }
        _exit(0);
    }
    for (int turn = 0; turn < 200; turn++) {
        char *text = NULL;
        size_t size = 0;
        if (file_read(&text, &size, in("shared"), NULL) == 0)
            CHECK(size == SIZE && strspn(text, (char[]){text[0], 0}) == SIZE, "mixed, %zu bytes", size);
        free(text);
    }
    for (int i = 0; i < 4; i++) CHECK(exit_code(writers[i]) == 0, "writer %d failed", i);
    CHECK(count_entries() == n + 1, "%d entries more", count_entries() - n);
}

// ---- reading -------------------------------------------------------------------------------------------------------

static void test_inputs(void) {
    FileMap map;
    char *data;
    size_t n;
    check_begin("a FIFO, a device, a folder where a file is expected: refused, not waited for");
    const char *const names[] = {in("fifo"), "/dev/zero", folder};
    for (int i = 0; i < 3; i++) {
        CHECK(file_map(&map, names[i], &err) != 0 && strstr(err.text, names[i]), "%s", err.text);
        CHECK(file_read(&data, &n, names[i], &err) != 0 && strstr(err.text, "regular"), "%s", err.text);
    }
    CHECK(file_map(&map, "/nonexistent", &err) != 0 && strstr(err.text, "/nonexistent"), "%s", err.text);
}

static volatile unsigned sink;

static void read_all(const FileMap *map) {
    unsigned sum = 0;
    for (size_t i = 0; i < map->size; i += 512) sum += map->data[i];
    sink = sum;
}

// Maps two files, cuts one and reads both; what it says goes to `said`.
static int cut_and_read(const char *cut, int unmapped, char *said, size_t room) {
    int ends[2];
    if (pipe(ends) != 0) exit(2);
    pid_t child = fork();
    if (child == 0) {
        FileMap maps[2];
        dup2(ends[1], STDERR_FILENO);
        if (file_map(&maps[0], in("m0"), &err) || file_map(&maps[1], in("m1"), &err) || truncate(cut, 4096)) _exit(3);
        if (unmapped) { // no longer ours
            const uint8_t *at = maps[1].data;
            file_unmap(&maps[0]);
            file_unmap(&maps[1]);
            int fd = open(cut, O_RDONLY);
            if (mmap((void *)(uintptr_t)at, 1 << 16, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) _exit(3);
            sink = at[1 << 15];
        }
        read_all(&maps[0]);
        read_all(&maps[1]);
        _exit(0);
    }
    close(ends[1]);
    size_t at = 0;
    for (ssize_t n; (n = read(ends[0], said + at, room - 1 - at)) > 0;) at += (size_t)n;
    said[at] = 0;
    close(ends[0]);
    return exit_code(child);
}

static void test_cut(void) {
    char zeros[1 << 16] = {0}, said[4096];
    FileWriter w;
    for (int i = 0; i < 2; i++) {
        if (file_create(&w, i ? in("m1") : in("m0"), &err) || file_write(&w, zeros, sizeof zeros, &err) ||
            file_commit(&w, &err))
            exit(2);
    }
    check_begin("a mapped file that somebody cuts ends the program with its name");
    int code = cut_and_read(in("m1"), 0, said, sizeof said);
    CHECK(code == 1 && strstr(said, in("m1")) && strstr(said, "cut") && !strstr(said, "m0"), "exit %d: %s", code, said);
    CHECK(said[0] && said[strlen(said) - 1] == '\n' &&
              strncmp(said, program_invocation_short_name, strlen(program_invocation_short_name)) == 0,
          "%s", said);

    check_begin("a bus error elsewhere stays what it was");
    if (truncate(in("m1"), 1 << 16) != 0) exit(2);
    code = cut_and_read(in("m1"), 1, said, sizeof said);
    CHECK(code == 1000 + SIGBUS && !said[0], "exit %d: %s", code, said);

    check_begin("bytes that lie in a cut file are not blamed on the one they are written to");
    if (truncate(in("m1"), 1 << 16) != 0) exit(2);
    int ends[2];
    if (pipe(ends) != 0) exit(2);
    pid_t child = fork();
    if (child == 0) {
        FileMap map;
        dup2(ends[1], STDERR_FILENO);
        if (file_map(&map, in("m1"), &err) || file_create(&w, in("copy"), &err) || truncate(in("m1"), 0)) _exit(3);
        setvbuf(w.stream, NULL, _IONBF, 0);
        _exit(file_write(&w, map.data, map.size, &err) ? 4 : 0);
    }
    close(ends[1]);
    ssize_t n = read(ends[0], said, sizeof said - 1);
    said[n > 0 ? n : 0] = 0;
    close(ends[0]);
    code = exit_code(child);
    CHECK(code == 1 && strstr(said, in("m1")), "exit %d: %s", code, said);
}

// ---- the standard streams ------------------------------------------------------------------------------------------

static void test_standard(void) {
    check_begin("closed standard streams: no file gets their numbers, and using them still fails");
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        for (int fd = 0; fd < 3; fd++) close(fd);
        file_hold_standard();
        char c;
        int fd = open(in("a"), O_RDONLY);
        if (fd < 3) _exit(1);
        if (read(0, &c, 1) >= 0 || write(1, "x", 1) >= 0 || write(2, "x", 1) >= 0) _exit(2);
        printf("lost");
        _exit(file_check_stdout(&err) != 0 && strstr(err.text, "standard output") ? 0 : 3);
    }
    int code = exit_code(child);
    CHECK(code == 0, "exit %d", code);

    check_begin("what was printed and did not arrive is an error, early or late");
    for (int late = 0; late < 2; late++) {
        fflush(stdout);
        child = fork();
        if (child == 0) {
            if (!freopen("/dev/full", "w", stdout)) _exit(4);
            printf("lost");
            if (!late) fflush(stdout);
            _exit(file_check_stdout(&err) != 0 ? 0 : 1);
        }
        code = exit_code(child);
        CHECK(code == 0, "late %d: exit %d", late, code);
    }
    CHECK(file_check_stdout(&err) == 0, "%s", err.text);
}

int main(void) {
    if (!mkdtemp(folder)) return 2;
    alarm(120); // what waits for a pipe ends here
    test_files();
    test_links();
    test_in_place();
    test_killed();
    test_inputs();
    test_cut();
    test_standard();
    file_remove_tree(folder, NULL);
    return check_done();
}
