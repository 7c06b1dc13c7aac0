/* What one core does at most: loops that only read, only multiply and add, or only count. */
#include <stdint.h>

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

enum { LANES = BYTES / 4, CHAINS = 12, READS = 8 };
typedef float vector __attribute__((vector_size(BYTES), aligned(4), may_alias));

static float fold(const vector *chain, int count) {
    float sum = 0;
    for (int i = 0; i < count; i++)
        for (int lane = 0; lane < LANES; lane++) sum += chain[i][lane];
    return sum;
}

/* Reads floats again and again; `count` is a multiple of 128. */
float read_floats(const float *values, int64_t count, int64_t times) {
    vector sum[READS] = {{0}};
    for (int64_t t = 0; t < times; t++)
        for (int64_t at = 0; at < count; at += READS * LANES)
#pragma GCC unroll 8
            for (int i = 0; i < READS; i++) sum[i] += *(const vector *)(values + at + i * LANES);
    return fold(sum, READS);
}

/* Multiplies and adds in registers; returns how often, through `done`. */
float fuse(int64_t times, float factor, float term, int64_t *done) {
    vector chain[CHAINS];
    for (int i = 0; i < CHAINS; i++) chain[i] = (vector){0} + (float)i;
    for (int64_t t = 0; t < times; t++)
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) chain[i] = chain[i] * factor + term;
    *done = times * CHAINS * LANES;
    return fold(chain, CHAINS);
}

/* The same with bytes and sums of 32 bits; does nothing where the processor has no instruction. */
int32_t dot_bytes(int64_t times, int32_t left, int32_t right, int64_t *done) {
    int32_t result = 0;
    *done = 0;
#if defined(__AVX512VNNI__)
    __m512i chain[CHAINS], x = _mm512_set1_epi32(left), y = _mm512_set1_epi32(right);
    for (int i = 0; i < CHAINS; i++) chain[i] = _mm512_set1_epi32(i);
    for (int64_t t = 0; t < times; t++)
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) chain[i] = _mm512_dpbusd_epi32(chain[i], x, y);
    for (int i = 0; i < CHAINS; i++) result += _mm512_reduce_add_epi32(chain[i]);
    *done = times * CHAINS * BYTES;
#elif defined(__AVX2__)
    __m256i chain[CHAINS], x = _mm256_set1_epi32(left), y = _mm256_set1_epi32(right);
    __m256i ones = _mm256_set1_epi16(1);
    for (int i = 0; i < CHAINS; i++) chain[i] = _mm256_set1_epi32(i);
    for (int64_t t = 0; t < times; t++)
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) {
            __asm__("" : "+x"(x)); /* or the product would be taken out of the loop */
            __m256i pairs = _mm256_maddubs_epi16(x, y);
            chain[i] = _mm256_add_epi32(chain[i], _mm256_madd_epi16(pairs, ones));
        }
    for (int i = 0; i < CHAINS; i++) result += _mm256_extract_epi32(chain[i], 0);
    *done = times * CHAINS * BYTES;
#elif defined(__ARM_FEATURE_DOTPROD)
    int32x4_t chain[CHAINS];
    int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(left)), y = vreinterpretq_s8_s32(vdupq_n_s32(right));
    for (int i = 0; i < CHAINS; i++) chain[i] = vdupq_n_s32(i);
    for (int64_t t = 0; t < times; t++)
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) chain[i] = vdotq_s32(chain[i], x, y);
    for (int i = 0; i < CHAINS; i++) result += vaddvq_s32(chain[i]);
    *done = times * CHAINS * BYTES;
#else
    (void)times, (void)left, (void)right;
#endif
    return result;
}
