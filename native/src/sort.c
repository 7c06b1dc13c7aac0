#include "sort.h"

#include <string.h>

static void swap(char *a, char *b, size_t size) {
    char kept[16];
    memcpy(kept, a, size);
    memcpy(a, b, size);
    memcpy(b, kept, size);
}

/* Moves an item down a heap whose top comes last. */
static void sink(char *items, size_t at, size_t count, size_t size, rl_before *before,
                 const void *context) {
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= count) return;
        if (child + 1 < count && before(context, items + child * size, items + (child + 1) * size))
            child++;
        if (!before(context, items + at * size, items + child * size)) return;
        swap(items + at * size, items + child * size, size);
        at = child;
    }
}

void rl_sort(void *items, size_t count, size_t size, rl_before *before, const void *context) {
    for (size_t at = count / 2; at-- > 0;) sink(items, at, count, size, before, context);
    for (size_t end = count; end-- > 1;) {
        swap(items, (char *)items + end * size, size);
        sink(items, 0, end, size, before, context);
    }
}
