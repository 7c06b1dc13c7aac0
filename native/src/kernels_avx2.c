#if defined(__x86_64__) && !defined(RL_PLAIN_ONLY)
#include <string.h>
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,bmi,bmi2"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,bmi,bmi2")
#endif
#ifndef __AVX__
#define __AVX__ 1
#endif
#ifndef __AVX2__
#define __AVX2__ 1
#endif
#define RL_FUSES
#define RL_NAME avx2
#include "kernels/all.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
