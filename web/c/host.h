/* What the page does for the module: src/engine.js. */
#ifndef WEB_HOST_H
#define WEB_HOST_H

#include <stddef.h>
#include <stdint.h>

#define HOST(name) __attribute__((import_module("host"), import_name(#name)))
#define EXPORT(name) __attribute__((export_name(#name), visibility("default")))

/* Throws an error; what the call has begun is then undone by `recover`. */
_Noreturn HOST(fail) void host_fail(const char *text, size_t length);

/* Shows a note. */
HOST(note) void host_note(const char *text, size_t length);

/* 32 bits that nobody can foresee. */
HOST(random) uint32_t host_random(void);

/* A number in decimal notation; NaN if the text is none. */
HOST(number) double host_number(const char *text, size_t length);

/* Writes a finite number as Python's repr does; returns its bytes, at most 32. */
HOST(repr) size_t host_repr(double number, char *text);

#endif
