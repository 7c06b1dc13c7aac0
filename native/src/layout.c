/* Where everything lies in a stream's state, and what its tensors are. */
#include <string.h>

#include "model.h"

typedef struct {
    rillet_model *m;
    uint64_t at; /* more than a size where addresses have 32 bits */
} layout;

static size_t room(layout *l, int64_t count, size_t size) {
    size_t place = (size_t)l->at;
    l->at += RL_UP((uint64_t)count * size, (uint64_t)RILLET_ALIGN);
    return place;
}

/* Rows of a window's buffer: its past, and a row for each step until it is moved to the front. */
static rl_window window(layout *l, int32_t length, int32_t stride) {
    rl_window w = {length, stride, room(l, ((int64_t)length + l->m->slack) * stride, 4)};
    return w;
}

static void tensor(layout *l, const char *name, rillet_type type, int dims, int64_t a, int64_t b) {
    rillet_tensor *t = &l->m->tensor[l->m->tensors++];
    memcpy(t->name, name, strlen(name) + 1);
    t->type = type;
    t->dims = dims;
    t->shape[0] = dims > 0 ? a : 1;
    t->shape[1] = dims > 1 ? b : 1;
    t->bytes = (uint64_t)(t->shape[0] * t->shape[1]) * (type == RILLET_INT64 ? 8 : 4);
}

static void layout_memory(layout *l) {
    rillet_model *m = l->m;
    int64_t entries = RL_UP((int64_t)m->capacity, RL_SCAN);
    if (m->memory == RL_CONTEXTS) {
        int64_t slots = (int64_t)m->contexts * m->slots;
        m->recent = window(l, RL_LONGEST, 1);
        m->state_lookups = room(l, (int64_t)RL_RING * m->contexts * RL_LOOKUP, 8);
        m->state_table = room(l, slots, m->wide_slots ? 8 : 4);
        tensor(l, "context_tokens", RILLET_INT64, 1, RL_LONGEST - 1, 0);
        tensor(l, "context_slots", RILLET_INT64, 2, m->contexts, RL_LOOKUP);
        if (m->adapts) {
            m->state_adapted = room(l, (int64_t)RL_RING * rl_adapted_size(m), 4);
            m->state_shares = room(l, (int64_t)RL_RING * rl_shares_size(m), 4);
            m->state_logits = room(l, (int64_t)RL_RING * m->gate_at, 4);
            tensor(l, "adapted", RILLET_FLOAT32, 1, (int64_t)m->contexts + 1, 0);
            tensor(l, "context_shares", RILLET_FLOAT32, 2, m->contexts, 2);
            tensor(l, "context_logits", RILLET_FLOAT32, 1, m->vocabulary, 0);
        }
        tensor(l, "memory_slots", m->wide_slots ? RILLET_INT64 : RILLET_INT32, 1, slots, 0);
    } else if (m->memory != RL_NO_MEMORY) {
        if (m->memory == RL_SUFFIX_KERNEL) {
            m->suffix_window = window(l, m->suffix + 1, m->code);
            tensor(l, "suffix", RILLET_FLOAT32, 2, m->suffix, m->code);
        }
        m->state_key = room(l, (int64_t)RL_RING * m->key_padded, 4);
        m->state_keys = room(l, entries * m->key_padded, 4);
        m->state_scan = room(l, entries * 2 * rl_pairs(m), 1);
        m->state_tokens = room(l, entries, 4);
        tensor(l, "memory_keys", RILLET_FLOAT32, 2, m->capacity, m->key);
        tensor(l, "memory_tokens", RILLET_INT64, 1, m->capacity, 0);
    }
}

uint64_t rl_layout_state(rillet_model *m) {
    if (m->heads) m->span = (int32_t)RL_PADDED((int64_t)m->attention) + m->slack + RL_PANEL;
    layout l = {m, RL_UP(sizeof(rillet_state), (size_t)RILLET_ALIGN)};
    m->tensors = 0;
    if (m->reservoir != RL_NO_RESERVOIR) {
        m->state_reservoir = room(&l, (int64_t)RL_RING * m->units_padded, 4);
        tensor(&l, "reservoir", RILLET_FLOAT32, 1, m->units, 0);
    }
    if (m->heads) {
        m->attention_keys = room(&l, (int64_t)m->width * m->span, 4);
        m->attention_values = window(&l, m->attention, m->heads * m->head_padded);
        tensor(&l, "attention_window", RILLET_FLOAT32, 2, m->attention - 1, 2 * (int64_t)m->width);
    }
    m->wave_context = window(&l, m->kernel, m->blocks * m->width_padded);
    tensor(&l, "wave_context", RILLET_FLOAT32, 2, m->kernel - 1, (int64_t)m->blocks * m->width);
    if (m->readout_blocks) {
        m->wave_buffer = window(&l, m->wave_window + 1, m->features_padded);
        tensor(&l, "wave_buffer", RILLET_FLOAT32, 2, m->wave_window, m->features);
    }
    layout_memory(&l);
    tensor(&l, "position", RILLET_INT64, 0, 0, 0);
    m->state_bytes = l.at;
    return l.at;
}

typedef uint32_t word __attribute__((may_alias));

/* To the front; four words at a time where a C library may move byte by byte. */
static void move_words(void *target, const void *source, size_t count) {
#if UINTPTR_MAX > UINT32_MAX
    memmove(target, source, count * 4);
#else
    word *to = target;
    const word *from = source;
    for (; count >= 4; count -= 4, to += 4, from += 4) {
        word a = from[0], b = from[1], c = from[2], d = from[3];
        to[0] = a, to[1] = b, to[2] = c, to[3] = d;
    }
    while (count-- > 0) *to++ = *from++;
#endif
}

/* Keeps the entry before the past ones too: it is what the last step read. */
static void move(rillet_state *s, const rl_window *w, int32_t cursor) {
    if (w->length == 0) return;
    size_t entry = (size_t)w->stride;
    float *rows = rl_in(s, w->at);
    move_words(rows, rows + (size_t)(cursor - 1) * entry, (size_t)w->length * entry);
}

void rl_compact(const rillet_model *m, rillet_state *s) {
    int32_t cursor = s->cursor;
    if (cursor == 1) return;
    move(s, &m->attention_values, cursor);
    move(s, &m->wave_context, cursor);
    move(s, &m->wave_buffer, cursor);
    move(s, &m->suffix_window, cursor);
    move(s, &m->recent, cursor);
    float *keys = rl_in(s, m->attention_keys);
    for (int32_t i = 0; m->heads && i < m->width; i++, keys += m->span)
        move_words(keys, keys + cursor - 1, (size_t)m->attention);
    s->cursor = 1;
}
