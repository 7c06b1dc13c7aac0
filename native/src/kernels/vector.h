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
#define RL_SIMD _Pragma("omp simd")
#define RL_BLOCK(pointer) __builtin_assume_aligned(pointer, RILLET_ALIGN)
