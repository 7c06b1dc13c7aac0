/* The instruction set that the compiler was asked for: SSE2, NEON, or none. */
#define RL_NAME plain
#include "kernels/all.h"
