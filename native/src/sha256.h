/* SHA-256, as FIPS 180-4 defines it. */
#ifndef RL_SHA256_H
#define RL_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t sum[8];
    uint64_t length;
    unsigned char block[64];
} rl_sha256;

void rl_sha256_begin(rl_sha256 *s);
void rl_sha256_add(rl_sha256 *s, const void *bytes, size_t length);

/* Ends it, and writes 64 hexadecimal digits and a zero. */
void rl_sha256_end(rl_sha256 *s, char *digits);

#endif
