/* From the checkpoint's tensors to the packed model. */
#include "pack.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "packer.h"

enum { FORMAT_MAJOR = 1, NAME = 64, MOST_BLOCKS = 1024 };

static void check_format(rl_packer *p) {
    rl_tensor format = rl_need_whole(p, "format", 1, 2, 0);
    if (p->status == RILLET_OK && rl_whole(&format, 0) != FORMAT_MAJOR)
        rl_fail(p, RILLET_UNSUPPORTED, "format", "these weights are of a newer format");
}

/* Blocks "PREFIX.0.SUFFIX", "PREFIX.1.SUFFIX", ... that the file holds. */
static int32_t count_blocks(rl_packer *p, const char *prefix, const char *suffix) {
    char name[NAME];
    int32_t count = 0;
    for (; count < MOST_BLOCKS; count++) {
        snprintf(name, sizeof name, "%s.%d.%s", prefix, (int)count, suffix);
        if (!rl_has(p, name)) break;
    }
    return count;
}

/* The vector "PREFIX.PART". */
static rl_tensor need_vector(rl_packer *p, const char *prefix, const char *part, int64_t size) {
    char name[2 * NAME];
    snprintf(name, sizeof name, "%s.%s", prefix, part);
    return rl_need(p, name, 1, size, 0);
}

/* The weights "PREFIX.PART" of a product. */
static rl_tensor need_weight(rl_packer *p, const char *prefix, const char *part, int64_t rows,
                             int64_t columns) {
    char name[2 * NAME];
    snprintf(name, sizeof name, "%s.%s", prefix, part);
    return rl_need_weight(p, name, rows, columns);
}

static void pack_norm(rl_packer *p, const char *prefix, int64_t width, rl_place *weight,
                      rl_place *bias) {
    rl_tensor w = need_vector(p, prefix, "weight", width);
    rl_tensor b = need_vector(p, prefix, "bias", width);
    *weight = rl_copy(p, &w, 1, width);
    *bias = rl_copy(p, &b, 1, width);
}

/* The token's embedding, with the bias of the reservoir's readout folded in. */
static void pack_embedding(rl_packer *p) {
    rillet_model *m = p->m;
    rl_tensor table = rl_need(p, "embedder.embedding.weight", 2, 0, 0);
    if (p->status != RILLET_OK) return;
    if (table.shape[0] > 1 << 24 || table.shape[1] > 1 << 20) rl_too_large(p);
    m->vocabulary = (int32_t)table.shape[0];
    m->width = (int32_t)table.shape[1];
    m->width_padded = (int32_t)RL_PADDED((int64_t)m->width);
    m->embedding = rl_copy(p, &table, m->vocabulary, m->width);
}

/* How the reservoir enters the network: attention, or its readout alone. */
static void pack_read(rl_packer *p) {
    rillet_model *m = p->m;
    int attends = rl_has(p, "reservoir.distance_bias");
    const char *weight_name = attends ? "reservoir.read.weight" : "read.weight";
    const char *bias_name = attends ? "reservoir.read.bias" : "read.bias";
    if (m->reservoir == RL_NO_RESERVOIR) return;
    rl_tensor weight = rl_need_weight(p, weight_name, m->width, m->units);
    rl_tensor bias = rl_need(p, bias_name, 1, m->width, 0);
    m->read = rl_reserve_linear(p, m->units, m->width, &weight);
    rl_put_rows(p, &m->read, 0, &weight, 0, m->width, NULL, 1);
    float *table = rl_target(p, m->embedding);
    for (int64_t row = 0; table != NULL && row < m->vocabulary; row++)
        for (int64_t i = 0; i < m->width; i++)
            table[row * m->width_padded + i] += rl_float(&bias, i);
}

static void pack_attention(rl_packer *p) {
    rillet_model *m = p->m;
    if (!rl_has(p, "reservoir.distance_bias")) return;
    rl_tensor distance = rl_need(p, "reservoir.distance_bias", 2, 0, 0);
    if (p->status != RILLET_OK) return;
    int64_t heads = distance.shape[0], window = distance.shape[1], width = m->width;
    if (m->reservoir == RL_NO_RESERVOIR || width % heads || window > 1 << 20)
        rl_fail(p, RILLET_DAMAGED, "reservoir.distance_bias", "the heads do not fit the model");
    rl_tensor query = rl_need_weight(p, "reservoir.query.weight", width, width);
    rl_tensor both = rl_need_weight(p, "reservoir.key_value.weight", 2 * width, width);
    rl_tensor output = rl_need_weight(p, "reservoir.output.weight", width, width);
    if (p->status != RILLET_OK) return;
    m->heads = (int32_t)heads;
    m->head = (int32_t)(width / heads);
    m->head_padded = (int32_t)RL_PADDED(width / heads);
    m->attention = (int32_t)window;
    pack_norm(p, "reservoir.norm", width, &m->attention_norm, &m->attention_norm_bias);
    /* Oldest first, as the window lies; what lies behind it has no weight. */
    int64_t padded = RL_PADDED(window);
    m->distance_bias = rl_reserve(p, heads * padded, 4);
    float *bias = rl_target(p, m->distance_bias);
    for (int64_t h = 0; bias != NULL && h < heads; h++)
        for (int64_t j = 0; j < padded; j++)
            bias[h * padded + j] =
                j < window ? rl_float(&distance, h * window + window - 1 - j) : -1e30f;
    m->qkv = rl_reserve_linear(p, width, 3 * (int64_t)m->width_padded, &both);
    float scale = 1 / sqrtf((float)m->head);
    rl_put_rows(p, &m->qkv, 0, &query, 0, width, NULL, scale);
    rl_put_rows(p, &m->qkv, m->width_padded, &both, 0, width, NULL, 1);
    rl_put_rows(p, &m->qkv, 2 * (int64_t)m->width_padded, &both, width, width, NULL, 1);
    m->output = rl_reserve_linear(p, width, width, &output);
    rl_put_rows(p, &m->output, 0, &output, 0, width, NULL, 1);
}

/* A gated layer. With `filters` above 1, its inputs are regrouped from [feature][filter] to
 * [filter][padded feature]. */
static void pack_gated(rl_packer *p, const char *prefix, int64_t inputs, int64_t outputs,
                       int64_t filters, rl_block *block) {
    rillet_model *m = p->m;
    rl_tensor down = need_weight(p, prefix, "down.weight", outputs, 0);
    int64_t hidden = down.shape[1], padded = RL_PADDED(hidden);
    rl_tensor down_bias = need_vector(p, prefix, "down.bias", outputs);
    rl_tensor up = need_weight(p, prefix, "up.weight", 2 * hidden, inputs);
    rl_tensor up_bias = need_vector(p, prefix, "up.bias", 2 * hidden);
    if (p->status != RILLET_OK) return;
    if (m->hidden_padded && m->hidden_padded != padded)
        rl_fail(p, RILLET_DAMAGED, prefix, "this layer's shape does not fit the others");
    m->hidden_padded = (int32_t)padded;
    int64_t spread = filters > 1 ? filters * RL_PADDED(inputs / filters) : inputs;
    block->up = rl_reserve_linear(p, spread, 2 * padded, &up);
    for (int64_t half = 0; half < 2; half++)
        rl_put_regrouped(p, &block->up, half * padded, &up, half * hidden, hidden, &up_bias,
                         filters);
    block->down = rl_reserve_linear(p, hidden, outputs, &down);
    rl_put_rows(p, &block->down, 0, &down, 0, outputs, &down_bias, 1);
}

static void pack_waves(rl_packer *p) {
    rillet_model *m = p->m;
    char name[NAME];
    m->blocks = count_blocks(p, "wave_cnn.blocks", "taps");
    rl_tensor first = rl_need(p, "wave_cnn.blocks.0.taps", 2, 0, m->width);
    if (p->status == RILLET_OK && first.shape[0] > 1 << 20) rl_too_large(p);
    m->kernel = (int32_t)first.shape[0];
    m->wave_blocks = rl_reserve(p, m->blocks, sizeof(rl_block));
    for (int32_t i = 0; i < m->blocks && p->status == RILLET_OK; i++) {
        rl_block block;
        memset(&block, 0, sizeof block);
        snprintf(name, sizeof name, "wave_cnn.blocks.%d.taps", (int)i);
        rl_tensor taps = rl_need(p, name, 2, m->kernel, m->width);
        block.taps = rl_copy(p, &taps, m->kernel, m->width);
        snprintf(name, sizeof name, "wave_cnn.blocks.%d.norm", (int)i);
        pack_norm(p, name, m->width, &block.norm, &block.norm_bias);
        snprintf(name, sizeof name, "wave_cnn.blocks.%d.gated", (int)i);
        pack_gated(p, name, m->width, m->width, 1, &block);
        if (rl_target(p, m->wave_blocks) != NULL)
            ((rl_block *)(p->block + m->wave_blocks))[i] = block;
    }
    rl_tensor emit = rl_need_weight(p, "wave_cnn.emit.weight", 0, m->width);
    rl_tensor emit_bias = rl_need(p, "wave_cnn.emit.bias", 1, emit.shape[0], 0);
    m->features = (int32_t)emit.shape[0];
    m->features_padded = (int32_t)RL_PADDED((int64_t)m->features);
    m->emit = rl_reserve_linear(p, m->width, m->features, &emit);
    rl_put_rows(p, &m->emit, 0, &emit, 0, m->features, &emit_bias, 1);
    pack_norm(p, "wave_cnn.norm", m->features, &m->wave_norm, &m->wave_norm_bias);
}

static void pack_filters(rl_packer *p) {
    rillet_model *m = p->m;
    rl_tensor filters = rl_need(p, "readout_cnn.filters", 3, m->features, 0);
    if (p->status != RILLET_OK) return;
    int64_t count = filters.shape[1], window = filters.shape[2];
    if (count > 1 << 12 || window > 1 << 20) rl_too_large(p);
    m->filters_per_feature = (int32_t)count;
    m->wave_window = (int32_t)window;
    m->filters = rl_reserve(p, window * count * m->features_padded, 4);
    float *to = rl_target(p, m->filters);
    for (int64_t f = 0; to != NULL && f < m->features; f++)
        for (int64_t k = 0; k < count; k++)
            for (int64_t w = 0; w < window; w++)
                to[(w * count + k) * m->features_padded + f] =
                    rl_float(&filters, (f * count + k) * window + w);
}

static void pack_readout(rl_packer *p) {
    rillet_model *m = p->m;
    char name[NAME];
    if (!rl_has(p, "readout_cnn.filters")) return;
    pack_filters(p);
    if (p->status != RILLET_OK) return;
    m->readout_blocks = count_blocks(p, "readout_cnn.norms", "weight");
    if (m->readout_blocks == 0)
        rl_fail(p, RILLET_DAMAGED, "readout_cnn.norms.0.weight", "this tensor is missing");
    m->readout = rl_reserve(p, m->readout_blocks, sizeof(rl_block));
    for (int32_t i = 0; i < m->readout_blocks && p->status == RILLET_OK; i++) {
        rl_block block;
        memset(&block, 0, sizeof block);
        snprintf(name, sizeof name, "readout_cnn.norms.%d", (int)i);
        pack_norm(p, name, m->features, &block.norm, &block.norm_bias);
        int64_t filters = i == 0 ? m->filters_per_feature : 1;
        snprintf(name, sizeof name, "readout_cnn.blocks.%d", (int)i - 1);
        pack_gated(p, i == 0 ? "readout_cnn.mix" : name, m->features * filters, m->features,
                   filters, &block);
        if (rl_target(p, m->readout) != NULL) ((rl_block *)(p->block + m->readout))[i] = block;
    }
}

rillet_status rl_pack(const rl_file *file, rillet_model *m, char *block, size_t tail,
                      char *message) {
    rl_packer packer = {file, m, block, 0, 0, tail, RILLET_OK, message}, *p = &packer;
    memset(m, 0, sizeof *m);
    p->at = RL_UP(sizeof *m, (size_t)RILLET_ALIGN);
    check_format(p);
    pack_embedding(p);
    if (p->status == RILLET_OK) rl_pack_reservoir(p);
    pack_read(p);
    pack_attention(p);
    if (p->status == RILLET_OK) pack_waves(p);
    if (p->status == RILLET_OK) pack_readout(p);
    if (p->status == RILLET_OK) rl_pack_memory(p);
    if (p->status == RILLET_OK) {
        m->magic = RL_MAGIC;
        m->struct_bytes = sizeof *m;
        m->slack = RL_SLACK;
        m->tail = p->at;
        m->bytes = p->at + p->tail;
        if (rl_layout_state(m) > SIZE_MAX / 4) rl_too_large(p);
    }
    return p->status;
}
