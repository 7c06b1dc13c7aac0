#ifndef RL_PACK_H
#define RL_PACK_H

#include "model.h"
#include "tensors.h"

/* Packs a file into `block`, whose first part is the model; asks for sizes alone if `block` is
 * NULL, which fills `m`. `tail` is where those sizes let the tail begin. */
rillet_status rl_pack(const rl_file *file, rillet_model *m, char *block, size_t tail,
                      char *message);

#endif
