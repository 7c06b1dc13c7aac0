#include "fail.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../include/rillet.h"
#include "../src/utf8.h"

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

static void show_character(FILE *stream, const unsigned char *at, int size, uint32_t c) {
    int is_control = (c < 0x20 && c != '\t' && c != '\n') || (c >= 0x7f && c <= 0x9f);
    if (size <= 0)
        fputs("\xef\xbf\xbd", stream);
    else if (is_control)
        fprintf(stream, "\\x%02x", (unsigned)c);
    else
        fwrite(at, 1, (size_t)size, stream);
}

int show(FILE *stream, const char *bytes, size_t length) {
    const unsigned char *at = (const unsigned char *)bytes, *end = at + length;
    if (isatty(fileno(stream)) == 1) {
        while (at < end) {
            uint32_t c;
            int size = rl_utf8_take(at, end, &c);
            show_character(stream, at, size, c);
            at += size > 0 ? size : 1;
        }
    } else {
        fwrite(bytes, 1, length, stream);
    }
    return fflush(stream) == 0 && !ferror(stream) ? 0 : -1;
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
