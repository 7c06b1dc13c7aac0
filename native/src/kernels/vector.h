#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#elif defined(__wasm_simd128__)
#include <wasm_simd128.h>
#elif defined(__ARM_FEATURE_MVE)
#include <arm_mve.h>
#elif defined(__ARM_FEATURE_DSP)
#include <arm_acle.h>
#endif

/* Vectors of the width that the instruction set has, as GCC and clang spell them. */
#if defined(__AVX512F__)
#define RL_LANES 16
#define RL_TILE 4 /* rows that share a panel of weights in registers */
#elif defined(__AVX__)
#define RL_LANES 8
#define RL_TILE 4
#elif defined(__aarch64__)
#define RL_LANES 4
#define RL_TILE 4 /* there are 32 registers */
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

/* w x + s, rounded once where the processor can. Everything else rounds after each operation, so
 * that all instruction sets find the same: clang would fuse, and GCC is told not to. */
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif
#if defined(__AVX512F__)
#define RL_FUSE(w, x, s) ((rl_vector)_mm512_fmadd_ps((__m512)(w), _mm512_set1_ps(x), (__m512)(s)))
#elif defined(__AVX2__) && (defined(__FMA__) || defined(RL_FUSES))
#define RL_FUSE(w, x, s) ((rl_vector)_mm256_fmadd_ps((__m256)(w), _mm256_set1_ps(x), (__m256)(s)))
#elif defined(__aarch64__)
#define RL_FUSE(w, x, s) ((rl_vector)vfmaq_n_f32((float32x4_t)(s), (float32x4_t)(w), x))
#else
#define RL_FUSE(w, x, s) ((s) + (w) * (x))
#endif

#define RL_SIMD _Pragma("omp simd")
#define RL_BLOCK(pointer) __builtin_assume_aligned(pointer, RILLET_ALIGN)
