/* Four products of int8 numbers at a time, added to sums of 32 bits, as each instruction set does
 * it. All are exact: weights and rows lie between -127 and 127.
 *
 *     rl_ints    a vector of sums, one for each output
 *     rl_quad    four numbers of a row, spread over a vector
 *     RL_CHAINS  sums that are kept of each output, where adding takes several cycles
 *     RL_SHIFTS  whether rows are shifted by 128, which the weights' offsets undo */
#if defined(RL_VNNI)

typedef __m512i rl_ints, rl_quad;
#define RL_INTS 16
#define RL_CHAINS 2
#define RL_SHIFTS 1

RL_INLINE rl_quad rl_spread(const int8_t *row) {
    int32_t four;
    memcpy(&four, row, 4);
    return _mm512_xor_si512(_mm512_set1_epi32(four), _mm512_set1_epi8((char)-128));
}
RL_INLINE rl_ints rl_gather(rl_ints sum, const int8_t *weights, rl_quad x) {
    return _mm512_dpbusd_epi32(sum, x, _mm512_loadu_si512(weights));
}
RL_INLINE rl_ints rl_ints_plus(rl_ints a, rl_ints b) { return _mm512_add_epi32(a, b); }
RL_INLINE rl_ints rl_ints_load(const int32_t *from) { return _mm512_loadu_si512(from); }
RL_INLINE void rl_ints_store(int32_t *to, rl_ints sum) { _mm512_storeu_si512(to, sum); }

#elif defined(__AVX2__)

/* |x| times the weight with the sign of x: two products fit 16 bits. */
typedef __m256i rl_ints, rl_quad;
#define RL_INTS 8

RL_INLINE rl_quad rl_spread(const int8_t *row) {
    int32_t four;
    memcpy(&four, row, 4);
    return _mm256_set1_epi32(four);
}
RL_INLINE rl_ints rl_gather(rl_ints sum, const int8_t *weights, rl_quad x) {
    __m256i w = _mm256_sign_epi8(_mm256_loadu_si256((const __m256i *)weights), x);
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), w);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
RL_INLINE rl_ints rl_ints_load(const int32_t *from) {
    return _mm256_loadu_si256((const __m256i *)from);
}
RL_INLINE void rl_ints_store(int32_t *to, rl_ints sum) { _mm256_storeu_si256((__m256i *)to, sum); }

#elif defined(RL_SSE4) || defined(__SSSE3__)

typedef __m128i rl_ints, rl_quad;
#define RL_INTS 4

RL_INLINE rl_quad rl_spread(const int8_t *row) {
    int32_t four;
    memcpy(&four, row, 4);
    return _mm_set1_epi32(four);
}
RL_INLINE rl_ints rl_gather(rl_ints sum, const int8_t *weights, rl_quad x) {
    __m128i w = _mm_sign_epi8(_mm_loadu_si128((const __m128i *)weights), x);
    __m128i pairs = _mm_maddubs_epi16(_mm_abs_epi8(x), w);
    return _mm_add_epi32(sum, _mm_madd_epi16(pairs, _mm_set1_epi16(1)));
}
RL_INLINE rl_ints rl_ints_load(const int32_t *from) {
    return _mm_loadu_si128((const __m128i *)from);
}
RL_INLINE void rl_ints_store(int32_t *to, rl_ints sum) { _mm_storeu_si128((__m128i *)to, sum); }

#elif defined(__SSE2__)

/* Numbers of even and of odd places, in 16 bits. */
typedef __m128i rl_ints;
typedef struct {
    __m128i even, odd;
} rl_quad;
#define RL_INTS 4

RL_INLINE rl_quad rl_spread(const int8_t *row) {
    int32_t four;
    memcpy(&four, row, 4);
    __m128i all = _mm_set1_epi32(four);
    rl_quad x = {_mm_srai_epi16(_mm_slli_epi16(all, 8), 8), _mm_srai_epi16(all, 8)};
    return x;
}
RL_INLINE rl_ints rl_gather(rl_ints sum, const int8_t *weights, rl_quad x) {
    __m128i w = _mm_loadu_si128((const __m128i *)weights);
    __m128i even = _mm_madd_epi16(_mm_srai_epi16(_mm_slli_epi16(w, 8), 8), x.even);
    __m128i odd = _mm_madd_epi16(_mm_srai_epi16(w, 8), x.odd);
    return _mm_add_epi32(sum, _mm_add_epi32(even, odd));
}
RL_INLINE rl_ints rl_ints_load(const int32_t *from) {
    return _mm_loadu_si128((const __m128i *)from);
}
RL_INLINE void rl_ints_store(int32_t *to, rl_ints sum) { _mm_storeu_si128((__m128i *)to, sum); }

#elif defined(__aarch64__)

typedef int32x4_t rl_ints;
typedef int8x16_t rl_quad;
#define RL_INTS 4

RL_INLINE rl_quad rl_spread(const int8_t *row) {
    int32_t four;
    memcpy(&four, row, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
}
RL_INLINE rl_ints rl_gather(rl_ints sum, const int8_t *weights, rl_quad x) {
    int8x16_t w = vld1q_s8(weights);
#if defined(RL_DOTPROD) || defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(sum, w, x);
#else
    int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x)), high = vmull_high_s8(w, x);
    return vpadalq_s16(sum, vpaddq_s16(low, high)); /* two products fit 16 bits */
#endif
}
RL_INLINE rl_ints rl_ints_load(const int32_t *from) { return vld1q_s32(from); }
RL_INLINE void rl_ints_store(int32_t *to, rl_ints sum) { vst1q_s32(to, sum); }

#elif defined(__wasm_simd128__)

typedef v128_t rl_ints;
typedef struct {
    v128_t even, odd;
} rl_quad;
#define RL_INTS 4

RL_INLINE rl_quad rl_spread(const int8_t *row) {
    v128_t all = wasm_v128_load32_splat(row);
    rl_quad x = {wasm_i16x8_shr(wasm_i16x8_shl(all, 8), 8), wasm_i16x8_shr(all, 8)};
    return x;
}
RL_INLINE rl_ints rl_gather(rl_ints sum, const int8_t *weights, rl_quad x) {
    v128_t w = wasm_v128_load(weights);
    v128_t even = wasm_i32x4_dot_i16x8(wasm_i16x8_shr(wasm_i16x8_shl(w, 8), 8), x.even);
    v128_t odd = wasm_i32x4_dot_i16x8(wasm_i16x8_shr(w, 8), x.odd);
    return wasm_i32x4_add(sum, wasm_i32x4_add(even, odd));
}
RL_INLINE rl_ints rl_ints_load(const int32_t *from) { return wasm_v128_load(from); }
RL_INLINE void rl_ints_store(int32_t *to, rl_ints sum) { wasm_v128_store(to, sum); }

#else

/* Processors with few registers: four outputs at a time, and one row. `step` is the bytes between
 * two fours of inputs; the row has whole sixteens of them. */
#define RL_NARROW 4

#if defined(__ARM_FEATURE_MVE)

RL_INLINE void rl_narrow(const int8_t *w, long step, int quads, const int8_t *x, int32_t *to) {
    const uint32x4_t at = vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)step);
    int32_t sum[RL_NARROW] = {0};
    for (; quads > 0; quads -= 4, w += 4 * step, x += 16) {
        const uint32_t *four = (const uint32_t *)(const void *)w;
        mve_pred16_t left = vctp32q((uint32_t)quads);
        int8x16_t row = vld1q_s8(x);
        RL_UNROLL for (int o = 0; o < RL_NARROW; o++) {
            uint32x4_t weights = vldrwq_gather_offset_z_u32(four + o, at, left);
            sum[o] = vmladavaq_s8(sum[o], vreinterpretq_s8_u32(weights), row);
        }
    }
    memcpy(to, sum, sizeof sum);
}

#elif defined(__ARM_FEATURE_DSP)

/* Numbers of even and of odd places, in 16 bits. */
RL_INLINE int32_t rl_even(int32_t four) {
    int32_t two;
    __asm__("sxtb16 %0, %1" : "=r"(two) : "r"(four));
    return two;
}
RL_INLINE int32_t rl_odd(int32_t four) {
    int32_t two;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(two) : "r"(four));
    return two;
}

RL_INLINE void rl_narrow(const int8_t *w, long step, int quads, const int8_t *x, int32_t *to) {
    int32_t sum[RL_NARROW] = {0};
    for (; quads > 0; quads--, w += step, x += 4) {
        int32_t row, four[RL_NARROW];
        memcpy(&row, x, sizeof row);
        memcpy(four, w, sizeof four);
        int32_t even = rl_even(row), odd = rl_odd(row);
        RL_UNROLL for (int o = 0; o < RL_NARROW; o++) {
            sum[o] = __smlad(rl_even(four[o]), even, sum[o]);
            sum[o] = __smlad(rl_odd(four[o]), odd, sum[o]);
        }
    }
    memcpy(to, sum, sizeof sum);
}

#else

RL_INLINE void rl_narrow(const int8_t *w, long step, int quads, const int8_t *x, int32_t *to) {
    int32_t sum[RL_NARROW] = {0};
    for (; quads > 0; quads--, w += step, x += 4) {
        int32_t a = x[0], b = x[1], c = x[2], d = x[3];
        RL_UNROLL for (int o = 0; o < RL_NARROW; o++) sum[o] +=
            w[4 * o] * a + w[4 * o + 1] * b + w[4 * o + 2] * c + w[4 * o + 3] * d;
    }
    memcpy(to, sum, sizeof sum);
}

#endif
#endif
