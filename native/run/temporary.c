#include "temporary.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "random.h"

enum { DIGITS = 16 };

static const char *base_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

void folder_of(const char *path, char folder[PATH_MAX]) {
    int length = (int)(base_of(path) - path);
    if (length > 1) length--; /* the slash, but for the root's */
    snprintf(folder, PATH_MAX, "%.*s", length > 0 ? length : 1, length > 0 ? path : ".");
}

/* Whether a name is that of a temporary for this file. */
static int is_temporary(const char *name, const char *base) {
    size_t length = strlen(base);
    if (name[0] != '.' || strncmp(name + 1, base, length) != 0) return 0;
    name += 1 + length;
    return name[0] == '.' && strspn(name + 1, "0123456789abcdef") == DIGITS &&
           strcmp(name + 1 + DIGITS, ".tmp") == 0;
}

/* Removes a file, unless its writer is running and so holds its lock. */
static void remove_if_stale(const char *path) {
    struct stat status;
    int handle = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (handle < 0) return;
    if (fstat(handle, &status) == 0 && S_ISREG(status.st_mode) &&
        flock(handle, LOCK_EX | LOCK_NB) == 0)
        unlink(path);
    close(handle);
}

static void remove_stale(const char *target) {
    char folder[PATH_MAX], path[2 * PATH_MAX];
    folder_of(target, folder);
    DIR *opened = opendir(folder);
    if (opened == NULL) return;
    for (struct dirent *entry; (entry = readdir(opened)) != NULL;) {
        if (!is_temporary(entry->d_name, base_of(target))) continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        remove_if_stale(path);
    }
    closedir(opened);
}

/* Returns 0 if another writer removed it before it was locked. */
static int is_there(int handle, const char *path) {
    struct stat own, found;
    return fstat(handle, &own) == 0 && lstat(path, &found) == 0 && own.st_ino == found.st_ino &&
           own.st_dev == found.st_dev;
}

int temporary_new(const char *target, char name[PATH_MAX]) {
    const char *base = base_of(target);
    remove_stale(target);
    for (;;) {
        int length = snprintf(name, PATH_MAX, "%.*s.%s.%0*llx.tmp", (int)(base - target), target,
                              base, DIGITS, (unsigned long long)random_number());
        if (length < 0 || length >= PATH_MAX) {
            errno = ENAMETOOLONG;
            return -1;
        }
        int handle = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (handle < 0) return -1;
        flock(handle, LOCK_EX); /* on a disk without locks, nobody removes anything */
        if (is_there(handle, name)) return handle;
        close(handle);
    }
}
