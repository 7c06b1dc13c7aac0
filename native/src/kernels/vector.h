#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Vectors of the width that the instruction set has, as GCC and clang spell them. */
#if defined(__AVX512F__)
#define RL_LANES 16
#define RL_TILE 4 /* rows that share a panel of weights in registers */
#elif defined(__AVX__)
#define RL_LANES 8
#define RL_TILE 4
#else
#define RL_LANES 4
#define RL_TILE 2
#endif
#define RL_VECTORS (RL_PANEL / RL_LANES) /* vectors of a panel */

typedef float rl_vector __attribute__((vector_size(RL_LANES * 4), aligned(4), may_alias));

#define RL_INLINE static inline __attribute__((always_inline))
#define RL_LOAD(pointer) (*(const rl_vector *)(pointer))
#define RL_STORE(pointer) (*(rl_vector *)(pointer))
#ifdef __clang__
#define RL_UNROLL _Pragma("clang loop unroll(full)")
#else
#define RL_UNROLL _Pragma("GCC unroll 32")
#endif
#define RL_SIMD _Pragma("omp simd")
#define RL_BLOCK(pointer) __builtin_assume_aligned(pointer, RILLET_ALIGN)

/* Which of 16 numbers are below a limit: one bit each. */
RL_INLINE uint32_t rl_below(const float *x, float limit) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask(_mm512_loadu_ps(x), _mm512_set1_ps(limit), _CMP_LT_OQ);
#elif defined(__AVX__)
    __m256 most = _mm256_set1_ps(limit);
    __m256 low = _mm256_cmp_ps(_mm256_loadu_ps(x), most, _CMP_LT_OQ);
    __m256 high = _mm256_cmp_ps(_mm256_loadu_ps(x + 8), most, _CMP_LT_OQ);
    return (uint32_t)_mm256_movemask_ps(low) | (uint32_t)_mm256_movemask_ps(high) << 8;
#else
    uint32_t bits = 0;
    for (int l = 0; l < 16; l++) bits |= (uint32_t)(x[l] < limit) << l;
    return bits;
#endif
}
