/* Loading: the weights are packed once. */
#include <stdio.h>

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

static rillet_status find_sizes(rillet_model *sizes, rl_file *file, const void *weights,
                                size_t length, char *message) {
    rillet_status status = open_file(file, weights, length, message);
    return status == RILLET_OK ? rl_pack(file, sizes, NULL, 0, message) : status;
}

rillet_status rillet_model_size(const void *weights, size_t length, size_t *bytes, char *message) {
    rl_file file;
    rillet_model sizes;
    rillet_status status = find_sizes(&sizes, &file, weights, length, message);
    *bytes = status == RILLET_OK ? (size_t)sizes.bytes : 0;
    return status;
}

rillet_status rillet_model_load(rillet_model *model, size_t bytes, const void *weights,
                                size_t length, char *message) {
    rl_file file;
    rillet_model sizes;
    rillet_status status = find_sizes(&sizes, &file, weights, length, message);
    if (status != RILLET_OK) return status;
    if (bytes < sizes.bytes || (uintptr_t)model % RILLET_ALIGN)
        return refuse(RILLET_TOO_SMALL, "the block is too small, or not aligned", message);
    status = rl_pack(&file, model, (char *)model, (size_t)sizes.tail, message);
    model->kernels = rl_best_kernels();
    if (status == RILLET_OK && rillet_scratch_size(model, RILLET_GROUP) == SIZE_MAX)
        return refuse(RILLET_UNSUPPORTED, "the model is too large for this machine", message);
    return status;
}

size_t rillet_model_portable(const rillet_model *model) { return (size_t)model->tail; }

/* Whether all products that rl_apply does are in int8. */
static int are_all_rounded(const rillet_model *m) {
    const rl_block *waves = rl_at(m, m->wave_blocks), *readout = rl_at(m, m->readout);
    int all = m->emit.scales && m->head_layer.scales && (!m->read.in || m->read.scales);
    all = all && (!m->heads || (m->qkv.scales && m->output.scales));
    for (int32_t i = 0; i < m->blocks; i++) all = all && waves[i].up.scales && waves[i].down.scales;
    for (int32_t i = 0; i < m->readout_blocks; i++)
        all = all && readout[i].up.scales && readout[i].down.scales;
    return all;
}

void rillet_model_flags(const rillet_model *m, char *text) {
    snprintf(text, RILLET_MESSAGE, "-DRL_THE_MEMORY=%d -DRL_THE_RESERVOIR=%d%s", (int)m->memory,
             (int)m->reservoir, are_all_rounded(m) ? " -DRL_ALL_ROUNDED" : "");
}

rillet_status rillet_model_shrink(rillet_model *m, int64_t memory, int32_t slack) {
    int64_t slots = m->contexts ? memory / m->contexts : memory;
    if (slack < 1 || slack > RL_SLACK || memory < 0 || slots > INT32_MAX) return RILLET_VALUE;
    if (memory > 0 && (slots < 1 || m->memory == RL_NO_MEMORY)) return RILLET_VALUE;
    int32_t *size = m->memory == RL_CONTEXTS ? &m->slots : &m->capacity;
    if (memory > 0 && slots > *size) return RILLET_VALUE;
    if (memory > 0) *size = (int32_t)slots;
    m->slack = slack;
    rl_layout_state(m);
    return RILLET_OK;
}
