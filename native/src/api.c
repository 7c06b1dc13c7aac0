/* The public functions that are no part of a stream: loading, and the choice of kernels. */
#include <stdio.h>
#include <string.h>

#include "draw.h"
#include "model.h"
#include "pack.h"

static rillet_status refuse(rillet_status status, const char *what, char *message) {
    if (message != NULL) snprintf(message, RILLET_MESSAGE, "%s", what);
    return status;
}

static rillet_status open_file(rl_file *file, const void *weights, size_t length, char *message) {
    if (rl_file_open(file, weights, length) == 0) return RILLET_OK;
    return refuse(RILLET_DAMAGED, file->problem, message);
}

static const rl_kernels *best_kernels(void) {
#if defined(__x86_64__) && !defined(RL_PLAIN_ONLY)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return &rl_kernels_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &rl_kernels_avx2;
#endif
    return &rl_kernels_plain;
}

rillet_status rillet_model_size(const void *weights, size_t length, size_t *bytes, char *message) {
    rl_file file;
    rillet_model sizes;
    rillet_status status = open_file(&file, weights, length, message);
    if (status == RILLET_OK) status = rl_pack(&file, &sizes, NULL, message);
    *bytes = status == RILLET_OK ? sizes.bytes : 0;
    return status;
}

rillet_status rillet_model_load(rillet_model *model, size_t bytes, const void *weights,
                                size_t length, char *message) {
    rl_file file;
    size_t needed;
    rillet_status status = rillet_model_size(weights, length, &needed, message);
    if (status != RILLET_OK) return status;
    if (bytes < needed || (uintptr_t)model % RILLET_ALIGN)
        return refuse(RILLET_TOO_SMALL, "the block is too small, or not aligned", message);
    status = open_file(&file, weights, length, message);
    if (status == RILLET_OK) status = rl_pack(&file, model, (char *)model, message);
    model->kernels = best_kernels();
    if (status == RILLET_OK && rillet_scratch_size(model, RILLET_GROUP) == SIZE_MAX)
        return refuse(RILLET_UNSUPPORTED, "the model is too large for this machine", message);
    return status;
}

const char *rillet_model_kernels(const rillet_model *model) { return model->kernels->name; }

int32_t rillet_vocabulary(const rillet_model *model) { return model->vocabulary; }

size_t rillet_state_size(const rillet_model *model) { return model->state_bytes; }

size_t rillet_scratch_size(const rillet_model *model, size_t rows) {
    size_t reading = model->kernels->scratch(model, rows);
    size_t drawing = rl_draw_scratch(model->vocabulary);
    return reading > drawing ? reading : drawing;
}

rillet_status rillet_read(const rillet_model *model, size_t rows, rillet_state *const *states,
                          const int32_t *tokens, const float *learn, float *const *logits,
                          void *scratch) {
    return model->kernels->read(model, rows, states, tokens, learn, logits, scratch);
}
