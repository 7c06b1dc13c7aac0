#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../include/rillet.h"
#include "fail.h"
#include "interrupt.h"
#include "temporary.h"

/* Makes room for more, in an aligned block. */
static void grow(content *c, size_t *room) {
    size_t larger = *room ? *room * 2 : 1 << 16;
    char *fresh = own_block(larger);
    if (c->length > 0) memcpy(fresh, c->data, c->length);
    free(c->data);
    c->data = fresh;
    *room = larger;
}

/* Waits until there is more to read, or the end; returns 0 if the program is interrupted. */
static int wait_for(int handle) {
    struct pollfd ready = {handle, POLLIN, 0};
    int found;
    do {
        if (is_interrupted()) return 0;
        found = poll(&ready, 1, 100); /* a while: a signal may come just before it */
    } while (found == 0 || (found < 0 && errno == EINTR));
    return 1;
}

/* Reads to the end. A file has its size; anything else may keep us waiting. */
static content read_all(int handle, const char *path, const size_t *size) {
    content c = {NULL, 0};
    size_t room = (size != NULL ? *size : 0) + 2; /* for the end, and a read that finds it */
    c.data = own_block(room);
    while (size != NULL || wait_for(handle)) {
        if (c.length + 1 >= room) grow(&c, &room);
        ssize_t count = read(handle, c.data + c.length, room - 1 - c.length);
        if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (count < 0) fail(FAILED, "%s: %s", path, strerror(errno));
        if (count == 0) break;
        c.length += (size_t)count;
    }
    c.data[c.length] = 0;
    return c;
}

static content read_path(const char *path, const char *advice, int is_regular) {
    struct stat status;
    /* A pipe opens at once, and its reader then waits in a way that a signal ends. */
    int handle = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (handle < 0 && errno == ENOENT) fail(FAILED, "%s does not exist; %s", path, advice);
    if (handle < 0) fail(FAILED, "%s: %s", path, strerror(errno));
    if (fstat(handle, &status) != 0) fail(FAILED, "%s: %s", path, strerror(errno));
    if (S_ISDIR(status.st_mode)) fail(FAILED, "%s is a folder; %s", path, advice);
    if (is_regular && !S_ISREG(status.st_mode))
        fail(FAILED, "%s is a device or a pipe; %s", path, advice);
    size_t size = (size_t)status.st_size;
    content c = read_all(handle, path, S_ISREG(status.st_mode) ? &size : NULL);
    close(handle);
    return c;
}

content read_file(const char *path, const char *advice) {
    if (strcmp(path, "-") == 0) return read_all(STDIN_FILENO, "standard input", NULL);
    return read_path(path, advice, 0);
}

content read_regular_file(const char *path, const char *advice) {
    return read_path(path, advice, 1);
}

_Noreturn static void fail_to_write(const char *path, int number) {
    const char *advice = number == ENOENT                       ? "create its folder first"
                         : number == ENOSPC || number == EDQUOT ? "free some space, or choose "
                                                                  "another place"
                                                                : "choose a writable place";
    fail(FAILED, "%s cannot be written (%s) and is unchanged; %s", path, strerror(number), advice);
}

/* Returns 0, or an error number. */
static int write_all(int handle, const char *data, size_t length) {
    while (length > 0) {
        ssize_t count = write(handle, data, length);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return errno;
        data += count;
        length -= (size_t)count;
    }
    return 0;
}

static void write_through(const char *path, mode_t mode, const void *data, size_t length) {
    if (!S_ISCHR(mode) && !S_ISFIFO(mode))
        fail(FAILED, "%s is a %s; choose the path of a file", path,
             S_ISDIR(mode) ? "folder" : "special file");
    int handle = open(path, O_WRONLY | O_CLOEXEC);
    int problem = handle < 0 ? errno : write_all(handle, data, length);
    if (problem) fail_to_write(path, problem);
    close(handle);
}

static void sync_folder(const char *target) {
    char folder[PATH_MAX];
    folder_of(target, folder);
    int handle = open(folder, O_RDONLY | O_CLOEXEC);
    if (handle < 0) return;
    fsync(handle); /* fails on some network disks, where nothing more can be done */
    close(handle);
}

/* Writes and moves a new file; returns 0, or an error number. */
static int replace(const char *target, const struct stat *old, const void *data, size_t length) {
    char fresh[PATH_MAX];
    int handle = temporary_new(target, fresh);
    if (handle < 0) return errno;
    if (old != NULL) {
        /* Only root gives files away. */
        if (fchown(handle, old->st_uid, old->st_gid) != 0) errno = 0;
        fchmod(handle, old->st_mode & 07777);
    }
    int problem = write_all(handle, data, length);
    if (!problem && fsync(handle) != 0) problem = errno;
    if (!problem && rename(fresh, target) != 0) problem = errno;
    if (problem) unlink(fresh);
    close(handle);
    if (!problem) sync_folder(target);
    return problem;
}

void write_atomic(const char *path, const void *data, size_t length) {
    struct stat old;
    char *real = realpath(path, NULL);
    const char *target = real != NULL ? real : path;
    int is_there = stat(target, &old) == 0;
    if (is_there && !S_ISREG(old.st_mode)) {
        write_through(target, old.st_mode, data, length);
    } else {
        if (!is_there && lstat(path, &old) == 0)
            fail(FAILED, "%s is a link to nothing; choose the path of a file", path);
        int problem = replace(target, is_there ? &old : NULL, data, length);
        if (problem) fail_to_write(path, problem);
    }
    free(real);
}
