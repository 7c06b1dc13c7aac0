#include "heap.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { UNIT = 64, PAGE = 65536 };

/* What precedes a block's memory; as long as the alignment. */
struct block {
    size_t bytes; /* with this header; a multiple of UNIT */
    block *next, *previous; /* of the region; of the free list, in order of address */
    region *owner;
} __attribute__((aligned(UNIT)));

extern char __heap_base;

static block *unused; /* the free list */
static char *top;     /* where memory ends that was ever given */
static region root, *current = &root;

region *heap_enter(region *r) {
    region *before = current;
    current = r;
    return before;
}

static void link(block *b, region *owner) {
    b->owner = owner;
    b->previous = NULL;
    b->next = owner->first;
    if (b->next != NULL) b->next->previous = b;
    owner->first = b;
}

static void unlink(block *b) {
    if (b->next != NULL) b->next->previous = b->previous;
    if (b->previous != NULL)
        b->previous->next = b->next;
    else
        b->owner->first = b->next;
}

/* The first free block that is large enough, cut to size. */
static block *reuse(size_t bytes) {
    for (block **at = &unused; *at != NULL; at = &(*at)->next) {
        block *found = *at;
        if (found->bytes < bytes) continue;
        if (found->bytes == bytes) {
            *at = found->next;
            return found;
        }
        found->bytes -= bytes;
        block *rest = (block *)(void *)((char *)found + found->bytes);
        rest->bytes = bytes;
        return rest;
    }
    return NULL;
}

static block *extend(size_t bytes) {
    if (top == NULL) top = (char *)(((uintptr_t)&__heap_base + UNIT - 1) / UNIT * UNIT);
    /* Where memory is 4 GiB, its end is 0, and the difference still right; `top` never gets there.
     */
    size_t left = __builtin_wasm_memory_size(0) * PAGE - (size_t)top;
    if (left <= bytes) {
        size_t pages = (bytes - left) / PAGE + 1;
        if (__builtin_wasm_memory_grow(0, pages) == SIZE_MAX) return NULL;
    }
    block *b = (block *)(void *)top;
    b->bytes = bytes;
    top += bytes;
    return b;
}

void *malloc(size_t bytes) {
    if (bytes > (size_t)INT32_MAX) return NULL;
    bytes = (bytes + 2 * UNIT - 1) / UNIT * UNIT;
    block *b = reuse(bytes);
    if (b == NULL) b = extend(bytes);
    if (b == NULL) return NULL;
    link(b, current);
    return b + 1;
}

void *aligned_alloc(size_t alignment, size_t bytes) {
    (void)alignment; /* at most UNIT */
    return malloc(bytes);
}

static int touch(const block *a, const block *b) {
    return (const char *)a + a->bytes == (const char *)b;
}

void free(void *memory) {
    if (memory == NULL) return;
    block *b = (block *)memory - 1, *before = NULL;
    unlink(b);
    block *after = unused;
    while (after != NULL && after < b) {
        before = after;
        after = after->next;
    }
    b->next = after;
    if (after != NULL && touch(b, after)) {
        b->bytes += after->bytes;
        b->next = after->next;
    }
    if (before == NULL) {
        unused = b;
    } else if (touch(before, b)) {
        before->bytes += b->bytes;
        before->next = b->next;
    } else {
        before->next = b;
    }
}

void *realloc(void *memory, size_t bytes) {
    if (memory == NULL) return malloc(bytes);
    block *b = (block *)memory - 1;
    size_t room = b->bytes - sizeof *b;
    if (bytes <= room) return memory;
    region *before = heap_enter(b->owner);
    void *fresh = malloc(bytes);
    heap_enter(before);
    if (fresh == NULL) return NULL;
    memcpy(fresh, memory, room);
    free(memory);
    return fresh;
}

void heap_empty(region *r) {
    while (r->first != NULL) free(r->first + 1);
}

void heap_move(void *memory, region *r) {
    block *b = (block *)memory - 1;
    unlink(b);
    link(b, r);
}
