/* The core: rows of (stream, token), layer by layer, so that a product sees many rows at once. */

typedef struct {
    float *reservoir, *x, *y, *qkv, *both, *act, *taps, *wave, *features, *keys, *joint, *found, *z,
        *weight, *scale;
    int32_t *entry;
    int8_t *rounded;
} rl_scratch;

typedef struct {
    char *at;
    uint64_t used; /* more than a size where addresses have 32 bits */
} rl_arena;

RL_INLINE float *rl_take(rl_arena *arena, uint64_t count) {
    float *taken = (float *)(arena->at == NULL ? NULL : arena->at + (size_t)arena->used);
    arena->used += RL_UP(count * 4, (uint64_t)RILLET_ALIGN);
    return taken;
}

/* Divides the scratch of a group of rows; returns its size. */
static uint64_t rl_divide(const rillet_model *m, uint64_t rows, void *block, rl_scratch *s) {
    rl_arena arena = {block, 0};
    uint64_t wide = (uint64_t)m->width_padded, features = (uint64_t)m->features_padded;
    uint64_t hidden = (uint64_t)m->hidden_padded;
    s->reservoir = rl_take(&arena, rows * (uint64_t)m->units_padded);
    s->x = rl_take(&arena, rows * wide);
    s->y = rl_take(&arena, rows * wide);
    s->qkv = rl_take(&arena, m->heads ? rows * 3 * wide : 0);
    s->both = rl_take(&arena, rows * 2 * hidden);
    s->act = rl_take(&arena, rows * hidden);
    s->taps = rl_take(&arena, rows * (uint64_t)m->filters_per_feature * features);
    s->wave = rl_take(&arena, rows * features);
    s->features = rl_take(&arena, rows * features);
    s->keys = rl_take(&arena, rows * (uint64_t)m->key_padded);
    s->joint = rl_take(&arena, rows * (uint64_t)m->head_layer.panels * RL_PANEL);
    s->found = rl_take(&arena, (size_t)m->gate_at);
    size_t most = (size_t)(m->units_padded > m->attention ? m->units_padded : m->attention);
    s->z = rl_take(&arena, most + RL_PANEL);
    size_t entries = (size_t)RL_UP(m->capacity, RL_SCAN);
    size_t either = entries > (size_t)m->gate_at ? entries : (size_t)m->gate_at;
    s->weight = rl_take(&arena, either);
    s->entry = (int32_t *)rl_take(&arena, entries);
    s->scale = rl_take(&arena, m->widest_rounded ? rows : 0);
    s->rounded = (int8_t *)rl_take(&arena, rows * (size_t)RL_PADDED(m->widest_rounded) / 4);
    return arena.used;
}

static size_t rl_scratch_size(const rillet_model *m, size_t rows) {
    rl_scratch s;
    uint64_t bytes = rl_divide(m, rows < RILLET_GROUP ? rows : RILLET_GROUP, NULL, &s);
    return bytes < SIZE_MAX / 4 ? (size_t)bytes : SIZE_MAX;
}

/* Makes room in the windows, and gives each row of a group its place in them. Returns the rows that
 * the group takes. */
static int rl_begin(const rillet_model *m, size_t rows, rillet_state *const *states,
                    const int32_t *tokens, const float *learn, rl_row *row) {
    int count = 0;
    for (size_t r = 0; r < rows && count < RILLET_GROUP; r++, count++) {
        if (states[r]->ahead == m->slack) break; /* its windows have room for no more */
        states[r]->ahead++;
    }
    for (int r = 0; r < count; r++) {
        rillet_state *s = states[r];
        if (s->ahead && s->cursor + s->ahead > m->slack + 1) rl_compact(m, s);
        s->ahead = 0; /* the first row of a stream makes room for all */
        row[r].state = s;
        row[r].cursor = s->cursor++;
        row[r].before = rl_ring(s->clock++);
        row[r].now = rl_ring(s->clock);
        row[r].token = tokens[r];
        row[r].learn = learn == NULL ? 1.0f : learn[r];
        row[r].position = s->position[row[r].before];
        s->position[row[r].now] = row[r].position + 1;
    }
    return count;
}

/* A product in the precision of its weights. */
RL_INLINE void rl_apply(const rillet_model *m, const rl_linear *linear, int rows, const float *x,
                        long ldx, float *y, long ldy, int add, rl_scratch *s) {
    if (rl_is_rounded(linear))
        rl_rounded_product(m, linear, rows, x, ldx, y, ldy, add, s->rounded, s->scale);
    else
        rl_product(m, linear, rows, x, ldx, y, ldy, add);
}

static void rl_run_reservoir(const rillet_model *m, int rows, const rl_row *row, rl_scratch *s) {
    int padded = m->units_padded;
    for (int r = 0; r < rows; r++) {
        rl_reservoir(m, row + r, s->z);
        const float *now = rl_reservoir_of(m, row[r].state, row[r].now);
        memcpy(s->reservoir + (long)r * padded, now, (size_t)padded * 4);
    }
}

/* x = embedding + what is read of the reservoir. */
static void rl_run_read(const rillet_model *m, int rows, const rl_row *row, rl_scratch *s) {
    int padded = m->width_padded;
    const float *table = rl_floats(m, m->embedding);
    for (int r = 0; r < rows; r++)
        memcpy(s->x + (long)r * padded, table + (size_t)row[r].token * (size_t)padded,
               (size_t)padded * 4);
    if (m->read.in) rl_apply(m, &m->read, rows, s->reservoir, m->units_padded, s->x, padded, 1, s);
}

static void rl_run_attention(const rillet_model *m, int rows, const rl_row *row, rl_scratch *s) {
    int padded = m->width_padded;
    for (int r = 0; r < rows; r++)
        rl_norm(s->y + (long)r * padded, s->x + (long)r * padded, rl_floats(m, m->attention_norm),
                rl_floats(m, m->attention_norm_bias), m->width, padded);
    rl_apply(m, &m->qkv, rows, s->y, padded, s->qkv, 3 * padded, 0, s);
    for (int r = 0; r < rows; r++)
        rl_attend(m, row + r, s->qkv + (long)r * 3 * padded, s->y + (long)r * padded, s->z);
    rl_apply(m, &m->output, rows, s->y, padded, s->x, padded, 1, s);
}

/* x += down(silu(g) v) of the inputs. */
static void rl_run_gated(const rillet_model *m, const rl_block *block, int rows, const float *in,
                         long ldin, float *x, long ldx, rl_scratch *s) {
    int hidden = m->hidden_padded;
    rl_apply(m, &block->up, rows, in, ldin, s->both, 2 * hidden, 0, s);
    for (int r = 0; r < rows; r++)
        rl_gate(s->act + (long)r * hidden, s->both + (long)r * 2 * hidden, hidden);
    rl_apply(m, &block->down, rows, s->act, hidden, x, ldx, 1, s);
}

static void rl_run_waves(const rillet_model *m, int rows, const rl_row *row, rl_scratch *s) {
    int padded = m->width_padded, features = m->features_padded;
    const rl_block *block = rl_at(m, m->wave_blocks);
    for (int b = 0; b < m->blocks; b++, block++) {
        for (int r = 0; r < rows; r++)
            rl_wave_taps(m, block, b, row + r, s->x + (long)r * padded, s->y + (long)r * padded);
        rl_run_gated(m, block, rows, s->y, padded, s->x, padded, s);
    }
    rl_apply(m, &m->emit, rows, s->x, padded, s->features, features, 0, s);
    for (int r = 0; r < rows; r++)
        rl_norm(s->wave + (long)r * features, s->features + (long)r * features,
                rl_floats(m, m->wave_norm), rl_floats(m, m->wave_norm_bias), m->features, features);
}

/* The second CNN; without one, the features are the wave. */
static void rl_run_readout(const rillet_model *m, int rows, const rl_row *row, rl_scratch *s) {
    int features = m->features_padded, taps = m->filters_per_feature * features;
    if (!m->readout_blocks) {
        memcpy(s->features, s->wave, (size_t)rows * (size_t)features * 4);
        return;
    }
    for (int r = 0; r < rows; r++) {
        float *window = (float *)rl_in(row[r].state, m->wave_buffer.at) +
                        (long)(row[r].cursor + m->wave_window) * features;
        memcpy(window, s->wave + (long)r * features, (size_t)features * 4);
        rl_filters(m, row + r, s->taps + (long)r * taps);
    }
    const rl_block *block = rl_at(m, m->readout);
    rl_run_gated(m, block, rows, s->taps, taps, s->wave, features, s);
    for (int b = 0; b < m->readout_blocks; b++, block++) {
        if (b > 0) rl_run_gated(m, block, rows, s->features, features, s->wave, features, s);
        for (int r = 0; r < rows; r++)
            rl_norm(s->features + (long)r * features, s->wave + (long)r * features,
                    rl_floats(m, block->norm), rl_floats(m, block->norm_bias), m->features,
                    features);
    }
}

/* Keys of all rows; a reservoir's in one product. */
static void rl_run_keys(const rillet_model *m, int rows, const rl_row *row, rl_scratch *s) {
    int padded = m->key_padded;
    if (rl_memory(m) == RL_SUFFIX_KERNEL) {
        for (int r = 0; r < rows; r++) {
            float *window = (float *)rl_in(row[r].state, m->suffix_window.at) +
                            (long)(row[r].cursor + m->suffix) * m->code;
            const float *codes = rl_floats(m, m->suffix_codes);
            memcpy(window, codes + (size_t)row[r].token * (size_t)RL_PADDED(m->code),
                   (size_t)m->code * 4);
        }
        return;
    }
    rl_product(m, &m->key_projection, rows, s->reservoir, m->units_padded, s->keys, padded, 0);
    for (int r = 0; r < rows; r++) rl_unit(s->keys + (long)r * padded, padded);
}

/* Stores and reads a row's memory, and writes its log-probabilities. Rows of a stream follow one
 * another, so each finds what those before it have stored. Returns whether what was recalled is
 * finite. */
static int rl_finish(const rillet_model *m, const rl_row *row, const float *key, float *joint,
                     float *out, rl_scratch *s) {
    if (rl_memory(m) == RL_CONTEXTS) {
        rl_visit(m, row);
        if (m->adapts) rl_adapt(m, row, s->found, s->weight);
        return out == NULL && !m->adapts ? 1 : rl_mix(m, row, joint, s->found, out);
    }
    if (rl_memory(m) == RL_NO_MEMORY) {
        if (out != NULL) rl_log_softmax(m, joint, s->found, out);
        return 1;
    }
    rl_store(m, row);
    float *now = rl_key_of(m, row->state, row->now);
    if (rl_memory(m) == RL_SUFFIX_KERNEL)
        rl_suffix_key(m, row->state, row->cursor + 1, now);
    else
        memcpy(now, key, (size_t)m->key_padded * 4);
    if (out == NULL) return 1;
    rl_recall(m, row, s->found, s->weight, s->entry);
    return rl_combine(m, joint, s->found, out);
}

/* Whether a row's prediction is finite, from what it is made of: the logarithm hides it. */
static int rl_is_finite(const rillet_model *m, const float *joint) {
    return rl_finite(rl_sum(joint, m->head_layer.panels * RL_PANEL) * 1e-30f);
}

static float *rl_room(float *const *logits, int row) { return logits == NULL ? NULL : logits[row]; }

/* Reads a group; returns the number of rows whose prediction is not finite. There is room for each
 * row's prediction in `logits`, or NULL; without `logits`, none is wanted. */
static int rl_run(const rillet_model *m, int rows, const rl_row *row, float *const *logits,
                  rl_scratch *s) {
    int wide = m->head_layer.panels * RL_PANEL, failures = 0, first = 0;
    if (m->reservoir != RL_NO_RESERVOIR) rl_run_reservoir(m, rows, row, s);
    rl_run_read(m, rows, row, s);
    if (m->heads) rl_run_attention(m, rows, row, s);
    rl_run_waves(m, rows, row, s);
    rl_run_readout(m, rows, row, s);
    /* A prefill often wants the last prediction alone; online weights want all. */
    while (!m->adapts && first < rows && rl_room(logits, first) == NULL) first++;
    if (first < rows)
        rl_apply(m, &m->head_layer, rows - first, s->features + (long)first * m->features_padded,
                 m->features_padded, s->joint + (long)first * wide, wide, 0, s);
    if (rl_has_keys(m)) rl_run_keys(m, rows, row, s);
    for (int r = 0; r < rows; r++) {
        float *joint = s->joint + (long)r * wide, *out = rl_room(logits, r);
        int finite = r < first || rl_is_finite(m, joint);
        finite &= rl_finish(m, row + r, s->keys + (long)r * m->key_padded, joint, out, s);
        if (finite || out == NULL) continue;
        failures++;
        for (int i = 0; i < m->vocabulary; i++) out[i] = __builtin_nanf("");
    }
    return failures;
}

static rillet_status rl_read(const rillet_model *m, size_t rows, rillet_state *const *states,
                             const int32_t *tokens, const float *learn, float *const *logits,
                             void *scratch) {
    rl_row row[RILLET_GROUP];
    rl_scratch s;
    int failures = 0;
    for (size_t r = 0; r < rows; r++)
        if (tokens[r] < 0 || tokens[r] >= m->vocabulary) return RILLET_TOKEN;
    rl_divide(m, rows < RILLET_GROUP ? rows : RILLET_GROUP, scratch, &s);
    for (size_t done = 0; done < rows;) {
        int count = rl_begin(m, rows - done, states + done, tokens + done,
                             learn == NULL ? NULL : learn + done, row);
        failures += rl_run(m, count, row, logits == NULL ? NULL : logits + done, &s);
        done += (size_t)count;
    }
    return failures ? RILLET_NOT_FINITE : RILLET_OK;
}
