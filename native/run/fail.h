/* Errors: what was wrong, the value seen, and what to do. */
#ifndef RUN_FAIL_H
#define RUN_FAIL_H

#include <stdio.h>

/* What messages call the program. */
#ifndef RUN_NAME
#define RUN_NAME "rillet-run"
#endif

enum { FAILED = 1, USAGE = 2 };

/* Prints "Error: ..." on stderr and exits with a status. */
_Noreturn void fail(int status, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;

/* Prints a note on stderr. */
void note(const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 1, 2)))
#endif
    ;

/* Writes bytes. A terminal gets no control characters to obey, and U+FFFD for what is no UTF-8; a
 * file or a pipe gets the bytes. Returns how many were written: fewer if that failed, or if the
 * reader is not ready and the program is asked to stop. */
size_t show(FILE *stream, const char *bytes, size_t length);

/* Memory from malloc or realloc; fails if there is none. */
void *own(void *memory);

/* Memory for the library, aligned and zero. */
void *own_block(size_t bytes);

#endif
