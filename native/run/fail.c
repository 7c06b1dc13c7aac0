#include "fail.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../include/rillet.h"
#include "../src/utf8.h"
#include "interrupt.h"

static void tell(const char *before, const char *format, va_list values) {
    char line[4096];
    vsnprintf(line, sizeof line, format, values);
    fflush(stdout);
    fputs(before, stderr);
    show(stderr, line, strlen(line));
    fputs("\n", stderr);
}

void fail(int status, const char *format, ...) {
    va_list values;
    va_start(values, format);
    tell("Error: ", format, values);
    va_end(values);
    exit(status);
}

void note(const char *format, ...) {
    va_list values;
    va_start(values, format);
    tell("Note: ", format, values);
    va_end(values);
}

/* Waits for the reader of a pipe or a terminal; returns 0 if there is none and the program is asked
 * to stop. */
static int wait_for_reader(int handle) {
    struct pollfd ready = {handle, POLLOUT, 0};
    for (;;) {
        int stops = is_interrupted(); /* it may come just before a poll, which then takes a while */
        if (poll(&ready, 1, stops ? 0 : 100) > 0) return 1;
        if (stops) return 0;
    }
}

/* Returns how many bytes were written. */
static size_t put(int handle, const void *bytes, size_t length) {
    enum { READY = 512 }; /* what a reader that is ready takes at once: POSIX's least PIPE_BUF */
    size_t done = 0;
    while (done < length && wait_for_reader(handle)) {
        size_t left = length - done;
        ssize_t count = write(handle, (const char *)bytes + done, left < READY ? left : READY);
        if (count < 0 && errno != EINTR && errno != EAGAIN) break;
        if (count > 0) done += (size_t)count;
    }
    return done;
}

/* Returns whether it was written. */
static int put_character(int handle, const unsigned char *at, int size, uint32_t c) {
    char escape[8];
    int is_control = (c < 0x20 && c != '\t' && c != '\n') || (c >= 0x7f && c <= 0x9f);
    const void *bytes = size <= 0 ? "\xef\xbf\xbd" : is_control ? escape : (const void *)at;
    size_t length = size <= 0 ? 3 : (size_t)size;
    if (size > 0 && is_control)
        length = (size_t)snprintf(escape, sizeof escape, "\\x%02x", (unsigned)c);
    return put(handle, bytes, length) == length;
}

size_t show(FILE *stream, const char *bytes, size_t length) {
    const unsigned char *start = (const unsigned char *)bytes, *at = start, *end = at + length;
    int handle = fileno(stream);
    if (fflush(stream) != 0) return 0;
    if (isatty(handle) != 1) return put(handle, bytes, length);
    while (at < end) {
        uint32_t c;
        int size = rl_utf8_take(at, end, &c);
        if (!put_character(handle, at, size, c)) break;
        at += size > 0 ? size : 1;
    }
    return (size_t)(at - start);
}

void *own(void *memory) {
    if (memory == NULL) fail(FAILED, "there is no memory left");
    return memory;
}

void *own_block(size_t bytes) {
    size_t whole = (bytes + RILLET_ALIGN - 1) / RILLET_ALIGN * RILLET_ALIGN;
    whole = whole > 0 ? whole : RILLET_ALIGN;
    void *memory = own(aligned_alloc(RILLET_ALIGN, whole));
    memset(memory, 0, whole);
    return memory;
}
