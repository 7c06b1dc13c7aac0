/* UTF-8, one character at a time. */
#ifndef RL_UTF8_H
#define RL_UTF8_H

#include <stdint.h>

/* Where text has ended within a character that may still become whole. */
enum { RL_UTF8_CUT = -1 };

/* Reads a character at `at`, which is before `end`. Returns its bytes; 0 if they are no character;
 * RL_UTF8_CUT if the text ends before that is known. */
static inline int rl_utf8_take(const unsigned char *at, const unsigned char *end, uint32_t *c) {
    unsigned char first = *at;
    *c = first;
    if (first < 0x80) return 1;
    if (first < 0xc2 || first > 0xf4) return 0;
    int length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    /* The second byte is bounded further: no long forms, no halves of pairs, nothing too large. */
    unsigned char low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    unsigned char high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    *c = first & (0x7fu >> length);
    for (int i = 1; i < length; i++, low = 0x80, high = 0xbf) {
        if (at + i == end) return RL_UTF8_CUT;
        if (at[i] < low || at[i] > high) return 0;
        *c = *c << 6 | (at[i] & 0x3fu);
    }
    return length;
}

/* Writes a character; returns its bytes, at most four. */
static inline int rl_utf8_put(uint32_t c, unsigned char *out) {
    int length = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    if (length == 1) {
        out[0] = (unsigned char)c;
        return 1;
    }
    for (int i = length - 1; i > 0; i--, c >>= 6) out[i] = (unsigned char)(0x80 | (c & 0x3f));
    out[0] = (unsigned char)(0xf00u >> length | c);
    return length;
}

#endif
