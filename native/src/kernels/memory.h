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
    if (!rl_has_keys(m)) return;
    float *key = rl_key_of(m, s, ring);
    if (rl_memory(m) == RL_SUFFIX_KERNEL) {
        rl_suffix_key(m, s, s->cursor, key);
        return;
    }
    rl_product(m, &m->key_projection, 1, rl_reservoir_of(m, s, ring), 0, key, 0, 0);
    rl_unit(key, m->key_padded);
}

/* Rounds a stored key to bytes for the first pass. Those of 16 entries lie side by side, pair of
 * numbers by pair. Anything but a unit or a zero key makes the stream's first pass unsound. */
static void rl_index(const rillet_model *m, rillet_state *s, int64_t slot) {
    const float *key = (const float *)rl_in(s, m->state_keys) + slot * m->key_padded;
    uint8_t *to = (uint8_t *)rl_in(s, m->state_scan) + slot / 16 * rl_pairs(m) * 32 + slot % 16 * 2;
    float squares = 0;
    for (int i = 0; i < m->key; i++) {
        float x = key[i] * 127.0f;
        x = x < -127.0f ? -127.0f : x > 127.0f ? 127.0f : x;
        to[i / 2 * 32 + i % 2] = (uint8_t)(rl_bits(x + 12582912.0f) + RL_ZERO);
        squares += key[i] * key[i];
    }
    if (!(squares < 1e-6f || (squares > 0.9999f && squares < 1.0001f))) s->uneven = 1;
}

static void rl_index_all(const rillet_model *m, rillet_state *s) {
    if (!rl_has_keys(m)) return;
    s->uneven = 0;
    for (int64_t slot = 0; slot < m->capacity; slot++) rl_index(m, s, slot);
}

/* Stores the key before the token. */
RL_INLINE void rl_store(const rillet_model *m, const rl_row *row) {
    rillet_state *s = row->state;
    int64_t slot = row->position % m->capacity;
    const float *key = RL_BLOCK(rl_key_of(m, s, row->before));
    float *to = RL_BLOCK((float *)rl_in(s, m->state_keys) + slot * m->key_padded);
    for (int i = 0; i < m->key_padded; i++) to[i] = key[i] * row->learn;
    rl_index(m, s, slot);
    ((int32_t *)rl_in(s, m->state_tokens))[slot] = row->token;
}

/* A query rounded to bytes, and the least product that an entry with a weight can have.
 *
 * With q = b + e and k = c + f, where b and c are rounded, q.k differs from b.c by at most
 * |b| |f| + |e| |k|. An entry has a weight if |q - k|^2 < 0.998, that is if q.k > 0.501. */
typedef struct {
    int8_t value[RL_WIDEST + 2];
    int16_t cut, zero; /* zero: what a zero key's bytes give, which wraps */
} rl_query;

RL_INLINE void rl_round_query(const rillet_model *m, const float *q, rl_query *query) {
    float error = 0, length = 0;
    int32_t sum = 0;
    for (int i = 0; i < m->key; i++) {
        int32_t value = (int32_t)(rl_bits(q[i] * 63.0f + 12582912.0f) - 0x4b400000u);
        value = value < -63 ? -63 : value > 63 ? 63 : value; /* of a NaN, it is anything */
        float rounded = (float)value * (1.0f / 63.0f), rest = q[i] - rounded;
        query->value[i] = (int8_t)value;
        sum += value;
        error += rest * rest;
        length += rounded * rounded;
    }
    query->value[m->key] = 0;
    float key_error = 0.5f / 127.0f * __builtin_sqrtf((float)m->key);
    float least = 0.5009f - __builtin_sqrtf(error) - __builtin_sqrtf(length) * key_error;
    query->cut = rl_finite(least) ? (int16_t)(least * (63.0f * 127.0f) - 1.0f) : INT16_MAX;
    query->zero = (int16_t)(uint16_t)((uint32_t)sum * RL_ZERO);
}

/* Marks which of 64 entries, two bits for each, may have a weight. */
RL_INLINE void rl_scan(const uint8_t *restrict bytes, const rl_query *query, int pairs,
                       uint32_t *restrict marks) {
#if defined(__AVX2__)
    __m256i sum[4];
    RL_UNROLL for (int b = 0; b < 4; b++) sum[b] = _mm256_set1_epi16((short)-query->zero);
    for (int p = 0; p < pairs; p++) {
        int16_t pair;
        memcpy(&pair, query->value + 2 * p, 2);
        __m256i q = _mm256_set1_epi16(pair);
        RL_UNROLL for (int b = 0; b < 4; b++) {
            const uint8_t *at = bytes + ((long)b * pairs + p) * 32;
            __m256i k = _mm256_load_si256((const __m256i *)at);
            sum[b] = _mm256_add_epi16(sum[b], _mm256_maddubs_epi16(k, q));
        }
    }
    __m256i cut = _mm256_set1_epi16(query->cut);
    RL_UNROLL for (int b = 0; b < 4; b++) {
        __m256i above = _mm256_cmpgt_epi16(sum[b], cut);
        marks[b] = (uint32_t)_mm256_movemask_epi8(above) & 0x55555555u;
    }
#else
    for (int b = 0; b < 4; b++) {
        int16_t sum[16] = {0};
        for (int p = 0; p < pairs; p++, bytes += 32)
            for (int l = 0; l < 16; l++)
                sum[l] = (int16_t)(sum[l] + (bytes[2 * l] - RL_ZERO) * query->value[2 * p] +
                                   (bytes[2 * l + 1] - RL_ZERO) * query->value[2 * p + 1]);
        marks[b] = 0;
        for (int l = 0; l < 16; l++) marks[b] |= (uint32_t)(sum[l] > query->cut) << (2 * l);
    }
#endif
}

/* Lists the entries that may have a weight: all that the first pass does not rule out. */
RL_INLINE int rl_candidates(const rillet_model *m, const rillet_state *s, const float *q,
                            int32_t *restrict entry) {
    int count = 0, pairs = (int)rl_pairs(m);
    if (s->uneven || m->key > RL_WIDEST) {
        for (; count < m->capacity; count++) entry[count] = count;
        return count;
    }
    rl_query query;
    rl_round_query(m, q, &query);
    const uint8_t *bytes = rl_of(s, m->state_scan);
    for (int at = 0; at < m->capacity; at += RL_SCAN, bytes += (long)RL_SCAN * 2 * pairs) {
        uint32_t marks[4];
        rl_scan(bytes, &query, pairs, marks);
        for (int b = 0; b < 4; b++)
            for (uint32_t bits = marks[b]; bits; bits &= bits - 1)
                entry[count++] = at + b * 16 + __builtin_ctz(bits) / 2;
    }
    return count;
}

/* max(0, exp(-beta / 2 |k - k_j|^2) - least), summed by token, [padded vocabulary]. */
static void rl_recall(const rillet_model *m, const rl_row *row, float *restrict found,
                      float *restrict weight, int32_t *restrict entry) {
    rillet_state *s = row->state;
    const int32_t *tokens = rl_in(s, m->state_tokens);
    const float *keys = rl_in(s, m->state_keys), *q = rl_key_of(m, s, row->now);
    float fall = m->fall, least = m->least;
    memset(found, 0, (size_t)m->gate_at * 4);
    int count = rl_candidates(m, s, q, entry), padded = RL_PADDED(count);
    for (int i = 0; i < count; i++)
        weight[i] = rl_distance(keys + (long)entry[i] * m->key_padded, q, m->key_padded);
    for (int i = count; i < padded; i++) weight[i] = 1.0f;
    weight = RL_BLOCK(weight);
    RL_SIMD for (int i = 0; i < padded; i++) weight[i] = rl_exp(fall * weight[i]) - least;
    for (int i = 0; i < count; i++) found[tokens[entry[i]]] += weight[i] > 0 ? weight[i] : 0;
}

/* Logarithms of what is not normalised yet, in place: log(max(p scale, 1e-20)). */
RL_INLINE void rl_logs(float *p, float scale, int padded) {
    p = RL_BLOCK(p);
    RL_SIMD for (int i = 0; i < padded; i++) {
        float v = p[i] * scale;
        p[i] = rl_log(v < 1e-20f ? 1e-20f : v);
    }
}

/* The network's distribution and what the kernel found, as ((d (z + c) + c) s + m) / (d (z + c) + c
 * + z) with doubt d. `joint` becomes scratch. Returns whether what was found is finite. */
static int rl_combine(const rillet_model *m, float *restrict joint, const float *restrict found,
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
    rl_logs(joint, 1.0f / (network + z), padded);
    memcpy(out, joint, (size_t)m->vocabulary * 4);
    return rl_finite(z);
}

/* `powers` is scratch. */
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
