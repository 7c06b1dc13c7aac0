/* The state of a stream, in and out as the tensors that every engine knows. */
#include <string.h>

#include "model.h"

static int is_tensor(const rillet_tensor *t, const char *name) {
    return strcmp(t->name, name) == 0;
}

/* Rows of a window's past, from the oldest; one earlier for what the last step read. */
static size_t first_row(const rillet_state *s, const rl_window *w, int before) {
    return w->at + ((size_t)(s->cursor - before)) * (size_t)w->stride * 4;
}

static int ring(const rillet_state *s, int before) { return rl_ring(s->clock - before + RL_RING); }

/* One value of a window that is stored in parts of `width` floats, each padded. */
static float *value_in(rillet_state *s, const rl_window *w, int before, int64_t row, int64_t i,
                       int64_t width, int64_t padded) {
    float *rows = rl_in(s, first_row(s, w, before));
    return rows + row * w->stride + i / width * padded + i % width;
}

static void copy_window(rillet_state *s, const rl_window *w, int before, int64_t rows,
                        int64_t count, int64_t width, int64_t padded, float *out, const float *in) {
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < count; i++) {
            float *value = value_in(s, w, before, row, i, width, padded);
            if (in != NULL)
                *value = in[row * count + i];
            else
                out[row * count + i] = *value;
        }
}

/* Keys are stored transposed, values by head. */
static void copy_attention(const rillet_model *m, rillet_state *s, int before, int64_t rows,
                           float *out, const float *in) {
    int64_t d = m->width;
    float *keys = (float *)rl_in(s, m->attention_keys) + s->cursor - before;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < d; i++) {
            float *key = keys + i * m->span + row;
            float *value =
                value_in(s, &m->attention_values, before, row, i, m->head, m->head_padded);
            if (in != NULL) {
                *key = in[row * 2 * d + i];
                *value = in[row * 2 * d + d + i];
            } else {
                out[row * 2 * d + i] = *key;
                out[row * 2 * d + d + i] = *value;
            }
        }
}

static void copy_keys(const rillet_model *m, rillet_state *s, float *out, const float *in) {
    float *keys = rl_in(s, m->state_keys);
    for (int64_t entry = 0; entry < m->capacity; entry++, keys += m->key_padded)
        if (in != NULL)
            memcpy(keys, in + entry * m->key, (size_t)m->key * 4);
        else
            memcpy(out + entry * m->key, keys, (size_t)m->key * 4);
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

/* Either `out` or `in` is NULL. A window has `rows` past entries; with `before`, only the oldest is
 * replaced, since the others are those of now. */
static void copy_float(const rillet_model *m, rillet_state *s, int before, const rillet_tensor *t,
                       float *out, const float *in) {
    int64_t rows = before && in != NULL ? (t->shape[0] > 0) : t->shape[0];
    float *values = ring_values(m, s, before, t);
    if (values != NULL) {
        if (in != NULL)
            memcpy(values, in, t->bytes);
        else
            memcpy(out, values, t->bytes);
    } else if (is_tensor(t, "attention_window")) {
        copy_attention(m, s, before, rows, out, in);
    } else if (is_tensor(t, "wave_context")) {
        copy_window(s, &m->wave_context, before, rows, t->shape[1], m->width, m->width_padded, out,
                    in);
    } else if (is_tensor(t, "wave_buffer")) {
        copy_window(s, &m->wave_buffer, before, rows, t->shape[1], m->features, m->features_padded,
                    out, in);
    } else if (is_tensor(t, "suffix")) {
        copy_window(s, &m->suffix_window, before, rows, t->shape[1], m->code, m->code, out, in);
    } else if (is_tensor(t, "memory_keys")) {
        copy_keys(m, s, out, in);
    }
}

static void get_whole(const rillet_model *m, const rillet_state *s, int before,
                      const rillet_tensor *t, void *values) {
    int64_t *out = values;
    if (is_tensor(t, "position")) {
        *out = s->position[ring(s, before)];
    } else if (is_tensor(t, "memory_slots")) {
        memcpy(values, rl_of(s, m->state_table), t->bytes);
    } else if (is_tensor(t, "memory_tokens")) {
        const int32_t *tokens = rl_of(s, m->state_tokens);
        for (int64_t i = 0; i < t->shape[0]; i++) out[i] = tokens[i];
    } else if (is_tensor(t, "context_tokens")) {
        const int32_t *recent = rl_of(s, first_row(s, &m->recent, before));
        for (int64_t i = 0; i < t->shape[0]; i++) out[i] = recent[i];
    } else if (is_tensor(t, "context_slots")) {
        size_t place = m->state_lookups + (size_t)ring(s, before) * t->bytes;
        memcpy(values, rl_of(s, place), t->bytes);
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
        memcpy(rl_in(s, m->state_table), values, t->bytes);
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
        size_t place = m->state_lookups + (size_t)ring(s, before) * t->bytes;
        memcpy(rl_in(s, place), values, t->bytes);
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
    if (m->key) memset(rl_in(s, m->state_scan), RL_ZERO, (size_t)(entries * 2 * rl_pairs(m)));
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

void rillet_state_get(const rillet_model *m, const rillet_state *s, int before, size_t index,
                      void *values) {
    const rillet_tensor *t = rillet_state_tensor(m, index);
    if (t == NULL) return;
    /* Reads alone: nothing is written where `in` is NULL. */
    if (t->type == RILLET_FLOAT32)
        copy_float(m, (rillet_state *)(uintptr_t)s, before, t, values, NULL);
    else
        get_whole(m, s, before, t, values);
}

rillet_status rillet_state_set(const rillet_model *m, rillet_state *s, int before, size_t index,
                               const void *values) {
    const rillet_tensor *t = rillet_state_tensor(m, index);
    if (t == NULL) return RILLET_VALUE;
    if (t->type != RILLET_FLOAT32) return set_whole(m, s, before, t, values);
    copy_float(m, s, before, t, NULL, values);
    int is_key_source = is_tensor(t, "reservoir") || is_tensor(t, "suffix");
    if (is_key_source && !before && (m->memory == RL_KERNEL || m->memory == RL_SUFFIX_KERNEL))
        m->kernels->key(m, s, ring(s, 0));
    if (is_tensor(t, "memory_keys")) m->kernels->index(m, s);
    return RILLET_OK;
}
