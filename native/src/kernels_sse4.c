#if defined(__x86_64__) && !defined(RL_PLAIN_ONLY)
#include <string.h>
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("sse4.2"))), apply_to = function)
#else
#pragma GCC target("sse4.2")
#endif
#define RL_SSE4
#define RL_NAME sse4
#include "kernels/all.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
