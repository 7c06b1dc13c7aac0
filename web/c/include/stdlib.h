#ifndef WEB_STDLIB_H
#define WEB_STDLIB_H
#include <stddef.h>
void *malloc(size_t bytes);
void *aligned_alloc(size_t alignment, size_t bytes);
void *realloc(void *memory, size_t bytes);
void free(void *memory);
void qsort(void *items, size_t count, size_t size, int (*compare)(const void *, const void *));
double strtod(const char *string, char **end);
unsigned long long strtoull(const char *string, char **end, int base);
#endif
