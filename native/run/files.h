/* Files: read whole, and replaced atomically. */
#ifndef RUN_FILES_H
#define RUN_FILES_H

#include <stddef.h>

/* A file in memory: aligned, and followed by a zero. */
typedef struct {
    char *data;
    size_t length;
} content;

/* Reads a file, a device or a pipe; `-` is standard input. */
content read_file(const char *path, const char *advice);

/* Reads a file that a program wrote: a regular one. */
content read_regular_file(const char *path, const char *advice);

/* Replaces a regular file, or makes one: a crash leaves the old content or the new. A device or a
 * pipe is written through; anything else is refused. */
void write_atomic(const char *path, const void *data, size_t length);

#endif
