#if defined(__aarch64__) && !defined(RL_PLAIN_ONLY)
#include <string.h>
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#define RL_DOTPROD
#define RL_NAME dotprod
#include "kernels/all.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
