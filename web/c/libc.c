/* What the engine and native/run need of C's library. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"

int errno;

/* With bulk memory, these three are an instruction each. */
void *memcpy(void *restrict to, const void *restrict from, size_t length) {
    return __builtin_memcpy(to, from, length);
}

void *memmove(void *to, const void *from, size_t length) {
    return __builtin_memmove(to, from, length);
}

void *memset(void *to, int byte, size_t length) { return __builtin_memset(to, byte, length); }

int memcmp(const void *a, const void *b, size_t length) {
    const unsigned char *x = a, *y = b;
    for (size_t i = 0; i < length; i++)
        if (x[i] != y[i]) return x[i] - y[i];
    return 0;
}

void *memchr(const void *bytes, int byte, size_t length) {
    const unsigned char *at = bytes;
    for (size_t i = 0; i < length; i++)
        if (at[i] == (unsigned char)byte) return (void *)(uintptr_t)(at + i);
    return NULL;
}

size_t strlen(const char *string) {
    const char *end = string;
    while (*end) end++;
    return (size_t)(end - string);
}

int strncmp(const char *a, const char *b, size_t most) {
    for (size_t i = 0; i < most; i++) {
        if (a[i] != b[i]) return (unsigned char)a[i] - (unsigned char)b[i];
        if (a[i] == 0) break;
    }
    return 0;
}

int strcmp(const char *a, const char *b) { return strncmp(a, b, SIZE_MAX); }

char *strchr(const char *string, int byte) { return memchr(string, byte, strlen(string) + 1); }

size_t strspn(const char *string, const char *accepted) {
    size_t length = 0;
    while (string[length] && strchr(accepted, string[length]) != NULL) length++;
    return length;
}

static void swap(unsigned char *a, unsigned char *b, size_t size) {
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = a[i];
        a[i] = b[i];
        b[i] = byte;
    }
}

/* Heapsort, which no input makes slow. */
void qsort(void *items, size_t count, size_t size, int (*compare)(const void *, const void *)) {
    unsigned char *at = items;
    size_t start = count / 2, end = count;
    while (end > 1) {
        if (start > 0)
            start--;
        else
            swap(at, at + --end * size, size);
        for (size_t root = start, child; (child = 2 * root + 1) < end; root = child) {
            unsigned char *larger = at + child * size;
            if (child + 1 < end && compare(larger, larger + size) < 0) {
                larger += size;
                child++;
            }
            if (compare(at + root * size, larger) >= 0) break;
            swap(at + root * size, larger, size);
        }
    }
}

/* Takes the whole string or none of it, which is all that native/run asks for. */
double strtod(const char *string, char **end) {
    size_t length = strspn(string, "+-.0123456789eE");
    double number = host_number(string, length);
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    uint64_t exponent = bits >> 52 & 0x7ff;
    int is_none = exponent == 0x7ff && bits << 12;
    if (exponent == 0x7ff && !is_none) {
        errno = ERANGE;
        number = 1e308; /* infinite, which the compiler takes for impossible */
    }
    *end = (char *)(uintptr_t)string + (is_none ? 0 : length);
    return is_none ? 0 : number;
}

unsigned long long strtoull(const char *string, char **end, int base) {
    const unsigned long long most = UINT64_MAX, ten = (unsigned long long)base;
    unsigned long long number = 0;
    for (; *string >= '0' && *string <= '9'; string++) {
        unsigned long long digit = (unsigned long long)(*string - '0');
        if (number > (most - digit) / ten) errno = ERANGE;
        number = number * ten + digit;
    }
    *end = (char *)(uintptr_t)string;
    return number;
}
