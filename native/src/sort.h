/* Sorting in place: the standard library's may allocate, and passes no context. */
#ifndef RL_SORT_H
#define RL_SORT_H

#include <stddef.h>

typedef int rl_before(const void *context, const void *a, const void *b);

/* Sorts `count` items of `size` bytes, at most 16; equal items may change places. */
void rl_sort(void *items, size_t count, size_t size, rl_before *before, const void *context);

#endif
