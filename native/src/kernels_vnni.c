#if defined(__x86_64__) && !defined(RL_PLAIN_ONLY)
#include <string.h>
#ifdef __clang__
#pragma clang attribute push(                                                                      \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,bmi,bmi2"))),    \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,bmi,bmi2")
#endif
#ifndef __AVX__
#define __AVX__ 1
#endif
#ifndef __AVX2__
#define __AVX2__ 1
#endif
#ifndef __AVX512F__
#define __AVX512F__ 1
#endif
#define RL_VNNI
#define RL_NAME vnni
#include "kernels/all.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
