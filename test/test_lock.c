// test_lock.c: one writer a place: the second is turned away by name, a killed holder leaves nothing behind.
#include "llmc/base/lock.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static char folder[] = "/tmp/c3lock.XXXXXX", path[64];

// A process that takes the lock, says whether it got it, and keeps it until it is killed.
static pid_t holder(int *got) {
    int ends[2];
    if (pipe(ends) != 0) exit(2);
    pid_t child = fork();
    if (child == 0) {
        Lock lock;
        char word = lock_take(&lock, path, "place", NULL, NULL) == 0;
        if (write(ends[1], &word, 1) != 1) _exit(2);
        for (;;) pause();
    }
    char word = 0;
    *got = read(ends[0], &word, 1) == 1 && word;
    close(ends[0]);
    close(ends[1]);
    return child;
}

int main(void) {
    Error err;
    Lock lock, other;
    int got = 0;
    if (!mkdtemp(folder)) return 2;
    snprintf(path, sizeof path, "%s/lock", folder);

    check_begin("the second of two is refused and told who the first is");
    CHECK(lock_take(&lock, path, "place", NULL, &err) == 0, "%s", err.text);
    CHECK(lock_take(&other, path, "place", NULL, &err) != 0, "taken twice");
    char mine[64];
    snprintf(mine, sizeof mine, "process %ld, since 20", (long)getpid());
    CHECK(strstr(err.text, mine) && strstr(err.text, "host ") && strstr(err.text, "place"), "%s", err.text);

    check_begin("released: the file is gone and the next one has it");
    lock_release(&lock);
    lock_release(&lock);
    CHECK(access(path, F_OK) != 0, "the file is still there");
    CHECK(lock_take(&lock, path, "place", NULL, &err) == 0, "%s", err.text);
    lock_release(&lock);

    check_begin("killed: the file is there, the lock is not");
    pid_t child = holder(&got);
    CHECK(got, "the child did not get it");
    CHECK(lock_take(&lock, path, "place", NULL, &err) != 0, "taken beside the child");
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    CHECK(access(path, F_OK) == 0, "a killed process cannot have removed it");
    CHECK(lock_take(&lock, path, "place", NULL, &err) == 0, "%s", err.text);
    lock_release(&lock);

    check_begin("a link in place of the lock is not followed, a missing folder is an error");
    char target[80];
    snprintf(target, sizeof target, "%s/victim", folder);
    CHECK(symlink(target, path) == 0, "symlink");
    CHECK(lock_take(&lock, path, "place", NULL, &err) != 0 && access(target, F_OK) != 0, "followed");
    unlink(path);
    CHECK(lock_take(&lock, "/nonexistent/lock", "place", NULL, &err) != 0 && strstr(err.text, "/nonexistent/lock"),
          "%s", err.text);

    check_begin("one of many at any moment: 8 processes, 200 turns each, a counter that is not atomic");
    char count_path[80];
    snprintf(count_path, sizeof count_path, "%s/count", folder);
    FILE *f = fopen(count_path, "w");
    fputs("0", f);
    fclose(f);
    for (int p = 0; p < 8; p++) {
        if (fork() != 0) continue;
        for (int turn = 0; turn < 200;) {
            if (lock_take(&lock, path, "place", NULL, NULL) != 0) continue;
            int n = -1;
            f = fopen(count_path, "r+");
            if (fscanf(f, "%d", &n) != 1) _exit(1);
            rewind(f);
            fprintf(f, "%d", n + 1);
            fclose(f);
            lock_release(&lock);
            turn++;
        }
        _exit(0);
    }
    int status = 0, bad = 0, n = 0;
    while (wait(&status) > 0) bad += status != 0;
    f = fopen(count_path, "r");
    CHECK(fscanf(f, "%d", &n) == 1 && n == 1600 && !bad, "counted %d, %d processes failed", n, bad);
    fclose(f);
    unlink(count_path);
    rmdir(folder);
    return check_done();
}
