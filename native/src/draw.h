/* Drawing a token from log-probabilities. */
#ifndef RL_DRAW_H
#define RL_DRAW_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of scratch that a draw from so many tokens needs. */
size_t rl_draw_scratch(int32_t vocabulary);

#endif
