/* The file beside another that is to replace it, named and locked as Python's writers do. */
#ifndef RUN_TEMPORARY_H
#define RUN_TEMPORARY_H

#include <limits.h>

#include "fail.h"

/* The folder of a path. */
void folder_of(const char *path, char folder[PATH_MAX]);

/* Creates one, empty and locked, after removing those that killed writers left. Sets its name;
 * returns its handle, or -1 with errno set. */
int temporary_new(const char *target, char name[PATH_MAX]);

#endif
