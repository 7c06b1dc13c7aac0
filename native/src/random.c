/* NumPy's random numbers: PCG64 (PCG XSL RR 128/64), and SeedSequence that fills it. */
#include "../include/rillet.h"

/* 128 bits as two words, the low one first. */
typedef struct {
    uint64_t low, high;
} wide;

static wide add(wide a, wide b) {
    wide sum = {a.low + b.low, a.high + b.high};
    sum.high += sum.low < a.low;
    return sum;
}

/* The 128 bits of a product of two words, from products of their halves. */
static wide product(uint64_t a, uint64_t b) {
    uint64_t low = (a & 0xffffffff) * (b & 0xffffffff);
    uint64_t left = (a >> 32) * (b & 0xffffffff), right = (a & 0xffffffff) * (b >> 32);
    uint64_t middle = (low >> 32) + (left & 0xffffffff) + (right & 0xffffffff);
    wide result = {(middle << 32) | (low & 0xffffffff),
                   (a >> 32) * (b >> 32) + (left >> 32) + (right >> 32) + (middle >> 32)};
    return result;
}

static wide multiply(wide a, wide b) {
    wide result = product(a.low, b.low);
    result.high += a.low * b.high + a.high * b.low;
    return result;
}

static void step(rillet_random *random) {
    const wide multiplier = {UINT64_C(0x4385df649fccf645), UINT64_C(0x2360ed051fc65da4)};
    wide state = {random->state[0], random->state[1]};
    wide increment = {random->increment[0], random->increment[1]};
    state = add(multiply(state, multiplier), increment);
    random->state[0] = state.low;
    random->state[1] = state.high;
}

double rillet_random_next(rillet_random *random) {
    step(random);
    uint64_t folded = random->state[1] ^ random->state[0];
    unsigned turn = (unsigned)(random->state[1] >> 58);
    uint64_t bits = (folded >> turn) | (folded << (-turn & 63));
    return (double)(bits >> 11) * (1.0 / 9007199254740992.0);
}

/* SeedSequence: four words of entropy, hashed and mixed with one another. */
enum { POOL = 4 };

static uint32_t hash(uint32_t value, uint32_t *constant, uint32_t factor) {
    value ^= *constant;
    *constant *= factor;
    value *= *constant;
    return value ^ value >> 16;
}

static uint32_t mix(uint32_t x, uint32_t y) {
    uint32_t result = UINT32_C(0xca01f9dd) * x - UINT32_C(0x4973f715) * y;
    return result ^ result >> 16;
}

static void fill_pool(uint32_t pool[POOL], uint64_t seed) {
    const uint32_t factor = UINT32_C(0x931e8875);
    uint32_t constant = UINT32_C(0x43b0d7e5);
    uint32_t entropy[POOL] = {(uint32_t)seed, (uint32_t)(seed >> 32), 0, 0};
    for (int i = 0; i < POOL; i++) pool[i] = hash(entropy[i], &constant, factor);
    for (int from = 0; from < POOL; from++)
        for (int to = 0; to < POOL; to++)
            if (from != to) pool[to] = mix(pool[to], hash(pool[from], &constant, factor));
}

void rillet_random_seed(rillet_random *random, uint64_t seed) {
    uint32_t pool[POOL], words[2 * POOL], constant = UINT32_C(0x8b51f9dd);
    uint64_t values[POOL];
    fill_pool(pool, seed);
    for (int i = 0; i < 2 * POOL; i++)
        words[i] = hash(pool[i % POOL], &constant, UINT32_C(0x58f38ded));
    for (int i = 0; i < POOL; i++) values[i] = words[2 * i] | (uint64_t)words[2 * i + 1] << 32;
    wide start = {values[1], values[0]};
    random->increment[0] = values[3] << 1 | 1;
    random->increment[1] = values[2] << 1 | values[3] >> 63;
    random->state[0] = random->state[1] = 0;
    step(random);
    wide state = add((wide){random->state[0], random->state[1]}, start);
    random->state[0] = state.low;
    random->state[1] = state.high;
    step(random);
}
