/* Files that the page brings, and those that it is handed: native/run/files.h in memory. */
#include "files.h"

#include <string.h>
#include <sys/stat.h>

#include "../../native/run/fail.h"
#include "../../native/run/files.h"

enum { MOST = 8 };

static struct {
    const char *path;
    content file;
} brought[MOST];

static content written;

static int find(const char *path) {
    for (int i = 0; i < MOST; i++)
        if (brought[i].path != NULL && strcmp(brought[i].path, path) == 0) return i;
    return -1;
}

void files_bring(const char *path, char *data, size_t length) {
    for (int i = 0; i < MOST; i++) {
        if (brought[i].path != NULL) continue;
        brought[i].path = path;
        brought[i].file.data = data;
        brought[i].file.length = length;
        data[length] = 0;
        return;
    }
}

void files_forget(void) { memset(brought, 0, sizeof brought); }

content files_written(void) { return written; }

/* Every path that is no file is the folder. */
int stat(const char *path, struct stat *status) {
    status->st_mode = find(path) < 0 ? 2 : 1;
    return 0;
}

int lstat(const char *path, struct stat *status) {
    status->st_mode = 1;
    return find(path) < 0 ? -1 : 0;
}

content read_regular_file(const char *path, const char *advice) {
    int at = find(path);
    if (at < 0) fail(FAILED, "%s does not exist; %s", path, advice);
    content file = brought[at].file; /* the reader's, from now on */
    brought[at].path = NULL;
    return file;
}

void write_atomic(const char *path, const void *data, size_t length) {
    (void)path;
    written.data = own_block(length);
    written.length = length;
    memcpy(written.data, data, length);
}
