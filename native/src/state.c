/* The state of a stream, in and out as the tensors that every engine knows. */
#include <string.h>

#include "model.h"

static int is_tensor(const rillet_tensor *t, const char *name) {
    return strcmp(t->name, name) == 0;
}

/* Rows of a window's past, from the oldest; one earlier for what the last step read. */
static rl_place first_row(const rillet_state *s, const rl_window *w, int before) {
    return w->at + (rl_place)(s->cursor - before) * (rl_place)w->stride * 4;
}

static int ring(const rillet_state *s, int before) { return rl_ring(s->clock - before + RL_RING); }

/* One value of a window that is stored in parts of `width` floats, each padded. */
static float *value_in(rillet_state *s, const rl_window *w, int before, int64_t row, int64_t i,
                       int64_t width, int64_t padded) {
    float *rows = rl_in(s, first_row(s, w, before));
    return rows + row * w->stride + i / width * padded + i % width;
}

/* Numbers of a tensor that are copied out or in; either `out` or `in` is NULL. */
typedef struct {
    int64_t first, count;
    void *out;
    const void *in;
} span;

static void copy_window(rillet_state *s, const rl_window *w, int before, int64_t columns,
                        int64_t width, int64_t padded, const span *part) {
    int64_t row = part->first / columns, column = part->first % columns;
    float *out = part->out;
    const float *in = part->in;
    for (int64_t i = 0; i < part->count; i++) {
        float *value = value_in(s, w, before, row, column, width, padded);
        if (in != NULL)
            *value = in[i];
        else
            out[i] = *value;
        if (++column == columns) column = 0, row++;
    }
}

/* Keys are stored transposed, values by head. */
static void copy_attention(const rillet_model *m, rillet_state *s, int before, const span *part) {
    int64_t d = m->width, row = part->first / (2 * d), column = part->first % (2 * d);
    float *keys = (float *)rl_in(s, m->attention_keys) + s->cursor - before;
    float *out = part->out;
    const float *in = part->in;
    for (int64_t i = 0; i < part->count; i++) {
        float *value = column < d ? keys + column * m->span + row
                                  : value_in(s, &m->attention_values, before, row, column - d,
                                             m->head, m->head_padded);
        if (in != NULL)
            *value = in[i];
        else
            out[i] = *value;
        if (++column == 2 * d) column = 0, row++;
    }
}

static void copy_keys(const rillet_model *m, rillet_state *s, const span *part) {
    int64_t entry = part->first / m->key, column = part->first % m->key;
    float *out = part->out;
    const float *in = part->in;
    for (int64_t i = 0; i < part->count; i++) {
        float *value = (float *)rl_in(s, m->state_keys) + entry * m->key_padded + column;
        if (in != NULL)
            *value = in[i];
        else
            out[i] = *value;
        if (++column == m->key) column = 0, entry++;
    }
}

/* The values of a tensor that is kept in a ring; NULL for another. */
static float *ring_values(const rillet_model *m, rillet_state *s, int before,
                          const rillet_tensor *t) {
    int at = ring(s, before);
    if (is_tensor(t, "reservoir"))
        return (float *)rl_in(s, m->state_reservoir) + at * m->units_padded;
    if (is_tensor(t, "adapted"))
        return (float *)rl_in(s, m->state_adapted) + at * rl_adapted_size(m);
    if (is_tensor(t, "context_shares"))
        return (float *)rl_in(s, m->state_shares) + at * rl_shares_size(m);
    if (is_tensor(t, "context_logits")) return (float *)rl_in(s, m->state_logits) + at * m->gate_at;
    return NULL;
}

static void copy_float(const rillet_model *m, rillet_state *s, int before, const rillet_tensor *t,
                       const span *part) {
    float *values = ring_values(m, s, before, t);
    size_t bytes = (size_t)part->count * 4;
    if (values != NULL) {
        if (part->in != NULL)
            memcpy(values + part->first, part->in, bytes);
        else
            memcpy(part->out, values + part->first, bytes);
    } else if (is_tensor(t, "attention_window")) {
        copy_attention(m, s, before, part);
    } else if (is_tensor(t, "wave_context")) {
        copy_window(s, &m->wave_context, before, t->shape[1], m->width, m->width_padded, part);
    } else if (is_tensor(t, "wave_buffer")) {
        copy_window(s, &m->wave_buffer, before, t->shape[1], m->features, m->features_padded, part);
    } else if (is_tensor(t, "suffix")) {
        copy_window(s, &m->suffix_window, before, t->shape[1], m->code, m->code, part);
    } else if (is_tensor(t, "memory_keys")) {
        copy_keys(m, s, part);
    }
}

static void get_whole(const rillet_model *m, const rillet_state *s, int before,
                      const rillet_tensor *t, const span *part) {
    int64_t *out = part->out;
    size_t size = t->type == RILLET_INT64 ? 8 : 4;
    size_t skipped = (size_t)part->first * size, bytes = (size_t)part->count * size;
    if (is_tensor(t, "position")) {
        *out = s->position[ring(s, before)];
    } else if (is_tensor(t, "memory_slots")) {
        memcpy(out, rl_of(s, m->state_table + skipped), bytes);
    } else if (is_tensor(t, "memory_tokens")) {
        const int32_t *tokens = rl_of(s, m->state_tokens);
        for (int64_t i = 0; i < part->count; i++) out[i] = tokens[part->first + i];
    } else if (is_tensor(t, "context_tokens")) {
        const int32_t *recent = rl_of(s, first_row(s, &m->recent, before));
        for (int64_t i = 0; i < part->count; i++) out[i] = recent[part->first + i];
    } else if (is_tensor(t, "context_slots")) {
        rl_place place = m->state_lookups + (rl_place)ring(s, before) * t->bytes;
        memcpy(out, rl_of(s, place + skipped), bytes);
    }
}

static int in_range(const int64_t *values, int64_t count, int64_t step, int64_t limit) {
    for (int64_t i = 0; i < count; i++)
        if (values[i * step] < 0 || values[i * step] >= limit) return 0;
    return 1;
}

/* Places, packed slots, checks, tokens and patterns of lookups. */
static int valid_lookups(const rillet_model *m, const int64_t *values) {
    int64_t packed = (int64_t)RL_CHECKS * m->vocabulary * m->vocabulary * RL_PATTERNS;
    int64_t limits[RL_LOOKUP] = {(int64_t)m->contexts * m->slots,
                                 packed,
                                 RL_CHECKS,
                                 m->vocabulary,
                                 m->vocabulary,
                                 RL_PATTERNS};
    for (int i = 0; i < RL_LOOKUP; i++)
        if (!in_range(values + i, m->contexts, RL_LOOKUP, limits[i])) return 0;
    return 1;
}

static int valid_table(const rillet_model *m, const void *values, int64_t count) {
    int64_t packed = (int64_t)RL_CHECKS * m->vocabulary * m->vocabulary * RL_PATTERNS;
    if (m->wide_slots) return in_range(values, count, 1, packed);
    const int32_t *slots = values;
    for (int64_t i = 0; i < count; i++)
        if (slots[i] < 0 || slots[i] >= packed) return 0;
    return 1;
}

static rillet_status set_whole(const rillet_model *m, rillet_state *s, int before,
                               const rillet_tensor *t, const void *values) {
    const int64_t *in = values;
    int64_t count = t->shape[0];
    if (is_tensor(t, "position")) {
        if (*in < 0) return RILLET_VALUE;
        s->position[ring(s, before)] = *in;
    } else if (is_tensor(t, "memory_slots")) {
        if (!valid_table(m, values, count)) return RILLET_VALUE;
        memcpy(rl_in(s, m->state_table), values, (size_t)t->bytes);
    } else if (is_tensor(t, "memory_tokens")) {
        if (!in_range(in, count, 1, m->vocabulary)) return RILLET_VALUE;
        int32_t *tokens = rl_in(s, m->state_tokens);
        for (int64_t i = 0; i < count; i++) tokens[i] = (int32_t)in[i];
    } else if (is_tensor(t, "context_tokens")) {
        if (!in_range(in, count, 1, (int64_t)m->vocabulary + 1)) return RILLET_VALUE;
        int32_t *recent = rl_in(s, first_row(s, &m->recent, before));
        for (int64_t i = 0; i < (before ? 1 : count); i++) recent[i] = (int32_t)in[i];
    } else if (is_tensor(t, "context_slots")) {
        if (!valid_lookups(m, in)) return RILLET_VALUE;
        rl_place place = m->state_lookups + (rl_place)ring(s, before) * t->bytes;
        memcpy(rl_in(s, place), values, (size_t)t->bytes);
    }
    return RILLET_OK;
}

void rillet_state_reset(const rillet_model *m, rillet_state *s) {
    memset(s, 0, m->state_bytes);
    s->cursor = 1;
    int64_t entries = RL_UP((int64_t)m->capacity, RL_SCAN);
    float *logits = rl_in(s, m->state_logits);
    for (int32_t i = 0; m->adapts && i < RL_RING * m->gate_at; i++)
        logits[i] = i % m->gate_at < m->vocabulary ? 0 : RL_NEVER;
    if (rl_has_keys(m))
        memset(rl_in(s, m->state_scan), RL_ZERO, (size_t)(entries * 2 * rl_pairs(m)));
}

int64_t rillet_state_clock(const rillet_state *s) { return s->clock; }

void rillet_state_back(const rillet_model *m, rillet_state *s) {
    (void)m;
    s->clock--;
    s->cursor--;
}

const rillet_tensor *rillet_state_tensor(const rillet_model *m, size_t index) {
    return index < (size_t)m->tensors ? &m->tensor[index] : NULL;
}

void rl_state_values(const rillet_model *m, const rillet_state *s, int before, size_t index,
                     int64_t first, int64_t count, void *values) {
    const rillet_tensor *t = rillet_state_tensor(m, index);
    span part = {first, count, values, NULL};
    /* Reads alone: nothing is written where `in` is NULL. */
    if (t->type == RILLET_FLOAT32)
        copy_float(m, (rillet_state *)(uintptr_t)s, before, t, &part);
    else
        get_whole(m, s, before, t, &part);
}

void rillet_state_get(const rillet_model *m, const rillet_state *s, int before, size_t index,
                      void *values) {
    const rillet_tensor *t = rillet_state_tensor(m, index);
    if (t != NULL) rl_state_values(m, s, before, index, 0, t->shape[0] * t->shape[1], values);
}

rillet_status rillet_state_set(const rillet_model *m, rillet_state *s, int before, size_t index,
                               const void *values) {
    const rillet_tensor *t = rillet_state_tensor(m, index);
    if (t == NULL) return RILLET_VALUE;
    if (t->type != RILLET_FLOAT32) return set_whole(m, s, before, t, values);
    /* Of a window before, only the oldest entry: the others are those of now. */
    int is_window = ring_values(m, s, before, t) == NULL && !is_tensor(t, "memory_keys");
    int64_t rows = before && is_window && t->shape[0] > 0 ? 1 : t->shape[0];
    span part = {0, rows * t->shape[1], NULL, values};
    copy_float(m, s, before, t, &part);
    int is_key_source = is_tensor(t, "reservoir") || is_tensor(t, "suffix");
    if (is_key_source && !before) /* those without keys ignore it */
        rl_kernels_of(m)->key(m, s, ring(s, 0));
    if (is_tensor(t, "memory_keys")) rl_kernels_of(m)->index(m, s);
    return RILLET_OK;
}
