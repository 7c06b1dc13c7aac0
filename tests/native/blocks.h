/* What the test programs share: aligned memory, whole files, and random numbers that repeat. */
#ifndef RL_TEST_BLOCKS_H
#define RL_TEST_BLOCKS_H

#include <stdio.h>
#include <stdlib.h>

#include "../../native/include/rillet.h"

static inline void *block(size_t bytes) {
    size_t whole = (bytes + RILLET_ALIGN - 1) / RILLET_ALIGN * RILLET_ALIGN;
    void *memory = aligned_alloc(RILLET_ALIGN, whole ? whole : RILLET_ALIGN);
    if (memory == NULL) exit(3);
    return memory;
}

static inline void *read_file(const char *path, size_t *length) {
    FILE *input = fopen(path, "rb");
    if (input == NULL || fseek(input, 0, SEEK_END) != 0) {
        perror(path);
        exit(2);
    }
    *length = (size_t)ftell(input);
    rewind(input);
    void *file = malloc(*length ? *length : 1);
    if (file == NULL || fread(file, 1, *length, input) != *length) {
        perror(path);
        exit(2);
    }
    fclose(input);
    return file;
}

/* Marsaglia's xorshift. */
static inline uint64_t draw(void) {
    static uint64_t seed = 88172645463325252u;
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

#endif
