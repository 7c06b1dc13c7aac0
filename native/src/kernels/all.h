/* All kernels, included once for each instruction set; RL_NAME is what it is called. */
#include <string.h>

#include "../model.h"

#include "vector.h"

#include "elementary.h"

#include "product.h"

#include "quads.h"

#include "rounded.h"

#include "network.h"

#include "memory.h"

#include "contexts.h"

#include "step.h"

#define RL_JOIN_(a, b) a##b
#define RL_JOIN(a, b) RL_JOIN_(a, b)
#define RL_TEXT_(name) #name
#define RL_TEXT(name) RL_TEXT_(name)

const rl_kernels RL_JOIN(rl_kernels_, RL_NAME) = {RL_TEXT(RL_NAME), rl_read, rl_scratch_size,
                                                  rl_key, rl_index_all};
