#include "packer.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* A quarter of what can be addressed, or half a terabyte. */
static const int64_t most_bytes = SIZE_MAX >> 2 < (uint64_t)1 << 39 ? (int64_t)(SIZE_MAX >> 2)
                                                                    : (int64_t)1 << 39;

void rl_fail(rl_packer *p, rillet_status status, const char *name, const char *what) {
    if (p->status != RILLET_OK) return;
    p->status = status;
    if (p->message == NULL) return;
    if (name == NULL)
        snprintf(p->message, RILLET_MESSAGE, "%s", what);
    else
        snprintf(p->message, RILLET_MESSAGE, "%s: %s", name, what);
}

void rl_too_large(rl_packer *p) {
    rl_fail(p, RILLET_UNSUPPORTED, NULL, "the model is too large for this machine");
}

int rl_has(const rl_packer *p, const char *name) {
    rl_tensor tensor;
    return rl_file_find(p->file, name, &tensor) == 0;
}

static rl_tensor need(rl_packer *p, const char *name, rl_dtype dtype, int dims, int64_t a,
                      int64_t b) {
    rl_tensor t;
    memset(&t, 0, sizeof t);
    if (p->status != RILLET_OK) return t;
    if (rl_file_find(p->file, name, &t) != 0)
        rl_fail(p, RILLET_DAMAGED, name, "this tensor is missing");
    else if (t.dtype != dtype)
        rl_fail(p, RILLET_DAMAGED, name, "this tensor has another type than it should");
    else if (t.dims != dims || t.count == 0 || (a && t.shape[0] != a) || (b && t.shape[1] != b))
        rl_fail(p, RILLET_DAMAGED, name, "this tensor's shape does not fit the others");
    if (p->status != RILLET_OK) memset(&t, 0, sizeof t);
    return t;
}

rl_tensor rl_need(rl_packer *p, const char *name, int dims, int64_t a, int64_t b) {
    return need(p, name, RL_F32, dims, a, b);
}

rl_tensor rl_need_weight(rl_packer *p, const char *name, int64_t rows, int64_t columns) {
    char scale_name[128];
    rl_tensor t;
    if (p->status != RILLET_OK || rl_file_find(p->file, name, &t) != 0 || t.dtype != RL_I8)
        return need(p, name, RL_F32, 2, rows, columns);
    t = need(p, name, RL_I8, 2, rows, columns);
    snprintf(scale_name, sizeof scale_name, "%s_scale", name);
    rl_tensor scales = need(p, scale_name, RL_F32, 1, t.shape[0], 0);
    for (int64_t i = 0; i < scales.count; i++)
        if (!(rl_float(&scales, i) > 0))
            rl_fail(p, RILLET_DAMAGED, scale_name, "a scale is not above zero");
    t.scales = scales.data;
    return t;
}

rl_tensor rl_need_whole(rl_packer *p, const char *name, int dims, int64_t a, int64_t b) {
    return need(p, name, RL_I64, dims, a, b);
}

static size_t reserve(rl_packer *p, size_t *at, size_t begin, int64_t count, int64_t size) {
    size_t place = begin + *at;
    if (p->status != RILLET_OK) return 0;
    if (count < 0 || count > most_bytes / size ||
        count * size > most_bytes - (int64_t)place - RILLET_ALIGN) {
        rl_too_large(p);
        return 0;
    }
    size_t bytes = RL_UP((size_t)(count * size), (size_t)RILLET_ALIGN);
    if (p->block != NULL) memset(p->block + place, 0, bytes);
    *at += bytes;
    return place;
}

size_t rl_reserve(rl_packer *p, int64_t count, int64_t size) {
    return reserve(p, &p->at, 0, count, size);
}

size_t rl_reserve_late(rl_packer *p, int64_t count, int64_t size) {
    return reserve(p, &p->tail, p->tail_begin, count, size);
}

float *rl_target(const rl_packer *p, size_t place) {
    return p->block == NULL || p->status != RILLET_OK ? NULL : (float *)(p->block + place);
}

size_t rl_copy(rl_packer *p, const rl_tensor *t, int64_t rows, int64_t width) {
    int64_t padded = RL_PADDED(width);
    size_t place = rl_reserve(p, rows * padded, 4);
    float *to = rl_target(p, place);
    for (int64_t row = 0; to != NULL && row < rows; row++)
        for (int64_t i = 0; i < width; i++) to[row * padded + i] = rl_float(t, row * width + i);
    return place;
}

rl_linear rl_reserve_linear(rl_packer *p, int64_t in, int64_t outputs, const rl_tensor *like) {
    rl_linear linear = {0, 0, 0, 0, 0, 0};
    int64_t padded = RL_PADDED(outputs);
    if (p->status != RILLET_OK) return linear;
    int rounded = like->dtype == RL_I8;
    if (in > (rounded ? RL_MOST_ROUNDED : INT32_MAX) || padded > INT32_MAX) rl_too_large(p);
    linear.in = (int32_t)in;
    linear.panels = (int32_t)(padded / RL_PANEL);
    linear.weights =
        rounded ? rl_reserve(p, RL_QUADS(in) * padded, 4) : rl_reserve(p, in * padded, 4);
    linear.bias = rl_reserve(p, padded, 4);
    if (!rounded) return linear;
    linear.scales = rl_reserve(p, padded, 4);
    linear.offsets = rl_reserve_late(p, padded, 4);
    if (p->m->widest_rounded < linear.in) p->m->widest_rounded = linear.in;
    return linear;
}

void rl_put(const rl_packer *p, const rl_linear *linear, int64_t in, int64_t out, float value) {
    float *to = rl_target(p, linear->weights);
    if (to == NULL) return;
    int64_t full = linear->panels >= 8 ? (linear->panels - 4) / 4 : 0; /* groups of four */
    int64_t group = out / RL_PANEL / 4 < full ? out / RL_PANEL / 4 : full;
    int64_t width = RL_PANEL * (group < full ? 4 : linear->panels - 4 * full);
    int64_t first = group * 4 * RL_PANEL;
    to[first * linear->in + in * width + out - first] = value;
}

static void put_byte(const rl_packer *p, const rl_linear *linear, int64_t in, int64_t out,
                     int8_t value) {
    int64_t group = out / RL_PANEL / 4, first = group * 4 * RL_PANEL;
    int64_t width = RL_PANEL * (int64_t)rl_small_group(linear->panels - 4 * (int)group);
    int64_t place = first * RL_QUADS((int64_t)linear->in) + in / 4 * width + out - first;
    ((int8_t *)(p->block + linear->weights))[place * 4 + in % 4] = value;
    ((int32_t *)(p->block + linear->offsets))[out] -= 128 * value;
}

void rl_put_bias(const rl_packer *p, const rl_linear *linear, int64_t out, float value) {
    float *to = rl_target(p, linear->bias);
    if (to != NULL) to[out] = value;
}

/* The scale that rounds a row of float weights to int8. */
static float row_scale(const rl_tensor *weight, int64_t from, int64_t count) {
    float most = 0;
    for (int64_t i = 0; i < count; i++) {
        float size = fabsf(rl_float(weight, from + i));
        most = size > most ? size : most;
    }
    return most / RL_MOST < FLT_MIN ? FLT_MIN : most / RL_MOST;
}

static float scale_of(const rl_tensor *weight, int64_t row) {
    float value;
    memcpy(&value, weight->scales + row * 4, 4);
    return value;
}

/* Puts one row. Its inputs are regrouped from [input][filter] to [filter][padded input]. */
static void put_row(const rl_packer *p, const rl_linear *linear, int64_t to,
                    const rl_tensor *weight, int64_t row, int64_t count, int64_t filters,
                    float scale) {
    int64_t from = row * weight->shape[1], each = RL_PADDED(count / filters);
    int holds_bytes = weight->dtype == RL_I8;
    float own = holds_bytes      ? scale_of(weight, row)
                : linear->scales ? row_scale(weight, from, count)
                                 : 1;
    for (int64_t i = 0; i < count; i++) {
        int64_t in = i % filters * each + i / filters;
        float value = holds_bytes ? rl_byte(weight, from + i) : rl_float(weight, from + i);
        if (!linear->scales)
            rl_put(p, linear, in, to, value * (holds_bytes ? own * scale : scale));
        else
            put_byte(p, linear, in, to, (int8_t)(holds_bytes ? value : rintf(value / own)));
    }
    if (linear->scales) rl_target(p, linear->scales)[to] = own * scale;
}

void rl_put_regrouped(const rl_packer *p, const rl_linear *linear, int64_t to,
                      const rl_tensor *weight, int64_t first, int64_t rows, const rl_tensor *bias,
                      int64_t filters) {
    if (rl_target(p, linear->weights) == NULL) return;
    for (int64_t row = 0; row < rows; row++) {
        put_row(p, linear, to + row, weight, first + row, weight->shape[1], filters, 1);
        rl_put_bias(p, linear, to + row, rl_float(bias, first + row));
    }
}

void rl_put_rows(const rl_packer *p, const rl_linear *linear, int64_t to, const rl_tensor *weight,
                 int64_t first, int64_t rows, const rl_tensor *bias, float scale) {
    if (rl_target(p, linear->weights) == NULL) return;
    for (int64_t row = 0; row < rows; row++) {
        put_row(p, linear, to + row, weight, first + row, linear->in, 1, scale);
        if (bias != NULL) rl_put_bias(p, linear, to + row, rl_float(bias, first + row) * scale);
    }
}
