/* What packing a model needs: checked tensors, places in the model, and weights in panels. */
#ifndef RL_PACKER_H
#define RL_PACKER_H

#include "model.h"
#include "tensors.h"

/* The same code runs twice: without a block, to ask how large the model is, and with one. */
typedef struct {
    const rl_file *file;
    rillet_model *m; /* sizes and places */
    char *block;     /* where values go; NULL while the size is asked */
    size_t at, tail; /* bytes so far, and those of the tail */
    size_t tail_begin; /* set where there is a block */
    rillet_status status;
    char *message;
} rl_packer;

/* Notes the first failure: `what`, about the tensor `name` if that is not NULL. */
void rl_fail(rl_packer *p, rillet_status status, const char *name, const char *what);

/* Fails since the model needs more memory than can be addressed, or than is sensible. */
void rl_too_large(rl_packer *p);

/* Whether the file holds a tensor. */
int rl_has(const rl_packer *p, const char *name);

/* Finds a float32 tensor of `dims` axes with sizes a and b, 0 for any. Fails if there is none. */
rl_tensor rl_need(rl_packer *p, const char *name, int dims, int64_t a, int64_t b);

/* Finds the float32 or int8 weights of a product, [rows, columns]; int8 ones with their scales, the
 * tensor "NAME_scale". */
rl_tensor rl_need_weight(rl_packer *p, const char *name, int64_t rows, int64_t columns);

/* Finds a tensor of whole numbers. */
rl_tensor rl_need_whole(rl_packer *p, const char *name, int dims, int64_t a, int64_t b);

/* Reserves zeros in the model and returns their place. */
size_t rl_reserve(rl_packer *p, int64_t count, int64_t size);

/* The same in the tail. */
size_t rl_reserve_late(rl_packer *p, int64_t count, int64_t size);

/* Where floats at a place go; NULL while the size is asked. */
float *rl_target(const rl_packer *p, size_t place);

/* Reserves `rows` padded rows of `width` and copies a tensor there. */
size_t rl_copy(rl_packer *p, const rl_tensor *t, int64_t rows, int64_t width);

/* Reserves a product with `outputs` outputs, padded, in the precision of the weights `like`. */
rl_linear rl_reserve_linear(rl_packer *p, int64_t in, int64_t outputs, const rl_tensor *like);

/* Sets one float32 weight, or the bias of one output. */
void rl_put(const rl_packer *p, const rl_linear *linear, int64_t in, int64_t out, float value);
void rl_put_bias(const rl_packer *p, const rl_linear *linear, int64_t out, float value);

/* Puts rows of a [outputs, inputs] tensor, and their bias if that is not NULL, at output `to`. What
 * a product in int8 is given in float32 is rounded. */
void rl_put_rows(const rl_packer *p, const rl_linear *linear, int64_t to, const rl_tensor *weight,
                 int64_t first, int64_t rows, const rl_tensor *bias, float scale);

/* The same with the inputs regrouped from [input][filter] to [filter][padded input]. */
void rl_put_regrouped(const rl_packer *p, const rl_linear *linear, int64_t to,
                      const rl_tensor *weight, int64_t first, int64_t rows, const rl_tensor *bias,
                      int64_t filters);

/* The parts, in files of their own. */
void rl_pack_memory(rl_packer *p);
void rl_pack_reservoir(rl_packer *p);

#endif
