/* The memories: what followed earlier in similar places, mixed into the prediction. */

RL_INLINE float *rl_key_of(const rillet_model *m, rillet_state *s, int ring) {
    return (float *)rl_in(s, m->state_key) + ring * m->key_padded;
}

/* Unit length, in place; zero stays zero. */
RL_INLINE void rl_unit(float *key, int padded) {
    float squares = rl_sum_squares(key, padded, 0.0f);
    float scale = 1.0f / __builtin_sqrtf(squares < 1e-12f ? 1e-12f : squares);
    key = RL_BLOCK(key);
    RL_SIMD for (int i = 0; i < padded; i++) key[i] *= scale;
}

/* The key of the last tokens; their codes begin at row `first` of the window. */
RL_INLINE void rl_suffix_key(const rillet_model *m, rillet_state *s, int first, float *key) {
    const float *codes = (const float *)rl_in(s, m->suffix_window.at) + (long)first * m->code;
    const float *weights = rl_floats(m, m->suffix_weights);
    for (int age = 0; age < m->suffix; age++)
        for (int i = 0; i < m->code; i++)
            key[age * m->code + i] = codes[age * m->code + i] * weights[age];
    for (int i = m->key; i < m->key_padded; i++) key[i] = 0;
    rl_unit(key, m->key_padded);
}

/* Computes the key of the state that is in a place of the rings now. */
static void rl_key(const rillet_model *m, rillet_state *s, int ring) {
    float *key = rl_key_of(m, s, ring);
    if (m->memory == RL_SUFFIX_KERNEL) {
        rl_suffix_key(m, s, s->cursor, key);
        return;
    }
    rl_product(m, &m->key_projection, 1, rl_reservoir_of(m, s, ring), 0, key, 0, 0);
    rl_unit(key, m->key_padded);
}

/* Stores the key before the token, and what the token's own key is. */
RL_INLINE void rl_store(const rillet_model *m, const rl_row *row) {
    rillet_state *s = row->state;
    int64_t slot = row->position % m->capacity;
    const float *key = rl_key_of(m, s, row->before);
    float *to = (float *)rl_in(s, m->state_keys) + slot / 16 * 16 * m->key + slot % 16;
    for (int i = 0; i < m->key; i++) to[i * 16] = key[i] * row->learn;
    ((int32_t *)rl_in(s, m->state_tokens))[slot] = row->token;
}

/* Squared distances of a key to 64 stored ones, in four blocks that each lie transposed. */
RL_INLINE void rl_distances(const float *restrict keys, const float *restrict q, int width,
                            float *restrict distance) {
    rl_vector sum[4 * RL_VECTORS];
    RL_UNROLL for (int v = 0; v < 4 * RL_VECTORS; v++) sum[v] = (rl_vector){0};
    for (int i = 0; i < width; i++) {
        RL_UNROLL for (int v = 0; v < 4 * RL_VECTORS; v++) {
            long block = v / RL_VECTORS, lane = v % RL_VECTORS * RL_LANES;
            rl_vector c = RL_LOAD(keys + (block * width + i) * 16 + lane) - q[i];
            sum[v] += c * c;
        }
    }
    RL_UNROLL for (int v = 0; v < 4 * RL_VECTORS; v++) RL_STORE(distance + v * RL_LANES) = sum[v];
}

/* Lists the entries that have a weight: those nearer than 0.998. Returns how many there are. */
RL_INLINE int rl_near(const rillet_model *m, const float *restrict keys, const float *restrict q,
                      float *restrict distance, int32_t *restrict entry) {
    int count = 0;
    for (int at = 0; at < m->capacity; at += RL_SCAN, keys += RL_SCAN * (long)m->key) {
        float near[RL_SCAN];
        rl_distances(keys, q, m->key, near);
        for (int part = 0; part < RL_SCAN; part += 16)
            for (uint32_t bits = rl_below(near + part, 0.998f); bits; bits &= bits - 1) {
                int lane = part + __builtin_ctz(bits);
                distance[count] = near[lane];
                entry[count++] = at + lane;
            }
    }
    return count;
}

/* max(0, exp(-beta / 2 |k - k_j|^2) - least), summed by token, [padded vocabulary]. */
static void rl_recall(const rillet_model *m, const rl_row *row, float *restrict found,
                      float *restrict weight, int32_t *restrict entry) {
    const int32_t *tokens = rl_in(row->state, m->state_tokens);
    float fall = m->fall, least = m->least;
    memset(found, 0, (size_t)m->gate_at * 4);
    int count = rl_near(m, RL_BLOCK(rl_in(row->state, m->state_keys)),
                        rl_key_of(m, row->state, row->now), weight, entry);
    int padded = RL_PADDED(count);
    for (int i = count; i < padded; i++) weight[i] = 1.0f;
    weight = RL_BLOCK(weight);
    RL_SIMD for (int i = 0; i < padded; i++) weight[i] = rl_exp(fall * weight[i]) - least;
    for (int i = 0; i < count; i++) found[tokens[entry[i]]] += weight[i] > 0 ? weight[i] : 0;
}

/* Log-probabilities of what is not normalised yet: log(max(p scale, 1e-20)). They are computed in
 * place, since `out` may lie anywhere. */
RL_INLINE void rl_logs(float *restrict out, float *restrict p, float scale, int padded, int count) {
    float *aligned = RL_BLOCK(p);
    RL_SIMD for (int i = 0; i < padded; i++) {
        float v = aligned[i] * scale;
        aligned[i] = rl_log(v < 1e-20f ? 1e-20f : v);
    }
    memcpy(out, p, (size_t)count * 4);
}

/* The network's distribution and what the kernel found, as ((d (z + c) + c) s + m) / (d (z + c) + c
 * + z) with doubt d. `joint` becomes scratch. */
static void rl_combine(const rillet_model *m, float *restrict joint, const float *restrict found,
                       float *restrict out) {
    int padded = m->gate_at, gate = RL_PADDED(m->gate);
    const float *weight = rl_floats(m, m->found_weights), *doubts = rl_floats(m, m->doubt_weights);
    float *hidden = joint + padded;
    float z = rl_sum(found, padded), reached = z + m->reach;
    float all = z / reached, best = rl_most(found, padded) / reached;
    for (int i = 0; i < gate; i++) {
        float h = hidden[i] + all * weight[i] + best * weight[gate + i];
        hidden[i] = h / (1.0f + rl_exp(-h)) * doubts[i];
    }
    float doubt = rl_sum(hidden, gate) + m->doubt_bias;
    doubt = doubt < -30.0f ? -30.0f : doubt > 30.0f ? 30.0f : doubt;
    float network = rl_exp(doubt) * reached + m->reach;
    float share = network * rl_softmax(joint, padded);
    for (int i = 0; i < padded; i++) joint[i] = joint[i] * share + found[i];
    rl_logs(out, joint, 1.0f / (network + z), padded, m->vocabulary);
}

/* Without a memory. `powers` is scratch. */
static void rl_log_softmax(const rillet_model *m, float *restrict joint, float *restrict powers,
                           float *restrict out) {
    int padded = m->gate_at;
    float top = rl_most(joint, padded);
    joint = RL_BLOCK(joint), powers = RL_BLOCK(powers);
    RL_SIMD for (int i = 0; i < padded; i++) powers[i] = rl_exp(joint[i] - top);
    float shift = top + rl_log(rl_sum(powers, padded));
    RL_SIMD for (int i = 0; i < padded; i++) joint[i] -= shift;
    memcpy(out, joint, (size_t)m->vocabulary * 4);
}
