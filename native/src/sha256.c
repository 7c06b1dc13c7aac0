#include "sha256.h"

#include <string.h>

static const uint32_t constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t turn(uint32_t x, int by) { return x >> by | x << (32 - by); }

static void schedule(const unsigned char *block, uint32_t w[64]) {
    for (int i = 0; i < 16; i++, block += 4)
        w[i] = (uint32_t)block[0] << 24 | (uint32_t)block[1] << 16 | (uint32_t)block[2] << 8 |
               block[3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t b = turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + a + w[i - 7] + b;
    }
}

static void add_block(rl_sha256 *s, const unsigned char *block) {
    uint32_t w[64], v[8];
    schedule(block, w);
    memcpy(v, s->sum, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t e = turn(v[4], 6) ^ turn(v[4], 11) ^ turn(v[4], 25);
        uint32_t chosen = (v[4] & v[5]) ^ (~v[4] & v[6]);
        uint32_t first = v[7] + e + chosen + constants[i] + w[i];
        uint32_t a = turn(v[0], 2) ^ turn(v[0], 13) ^ turn(v[0], 22);
        uint32_t second = a + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += first;
        v[0] = first + second;
    }
    for (int i = 0; i < 8; i++) s->sum[i] += v[i];
}

void rl_sha256_begin(rl_sha256 *s) {
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(s->sum, start, sizeof start);
    s->length = 0;
}

void rl_sha256_add(rl_sha256 *s, const void *bytes, size_t length) {
    const unsigned char *from = bytes;
    while (length > 0) {
        size_t at = s->length % 64, part = 64 - at < length ? 64 - at : length;
        if (at == 0 && length >= 64) {
            add_block(s, from);
            part = 64;
        } else {
            memcpy(s->block + at, from, part);
            if (at + part == 64) add_block(s, s->block);
        }
        s->length += part;
        from += part;
        length -= part;
    }
}

void rl_sha256_end(rl_sha256 *s, char *digits) {
    static const unsigned char one = 0x80, zero = 0;
    static const char hex[] = "0123456789abcdef";
    uint64_t bits = s->length * 8;
    unsigned char length[8];
    for (int i = 7; i >= 0; i--, bits >>= 8) length[i] = (unsigned char)bits;
    rl_sha256_add(s, &one, 1);
    while (s->length % 64 != 56) rl_sha256_add(s, &zero, 1);
    rl_sha256_add(s, length, 8);
    for (int i = 0; i < 64; i++) digits[i] = hex[s->sum[i / 8] >> (28 - i % 8 * 4) & 15];
    digits[64] = 0;
}
