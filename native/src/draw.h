/* Drawing a token from log-probabilities. */
#ifndef RL_DRAW_H
#define RL_DRAW_H

#include <stddef.h>
#include <stdint.h>

#include "../include/rillet.h"

/* Whether all settings are within their range. */
int rl_can_draw(const rillet_sampling *how);

/* Bytes of scratch that a draw from so many tokens needs. */
size_t rl_draw_scratch(int32_t vocabulary);

#endif
