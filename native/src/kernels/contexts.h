/* The memory of contexts: tables of what followed the last tokens, found by hash. A slot is one
 * whole number, ((check * V + first) * V + second) * 40 + pattern; see docs/memory.md. */

typedef struct {
    int64_t place, stored, check, first, second, pattern;
} rl_lookup;

RL_INLINE rl_lookup *rl_lookups_of(const rillet_model *m, rillet_state *s, int ring) {
    return (rl_lookup *)rl_in(s, m->state_lookups) + (long)ring * m->contexts;
}

RL_INLINE int64_t rl_slot(const rillet_model *m, const void *table, int64_t place) {
    return m->wide_slots ? ((const int64_t *)table)[place] : ((const int32_t *)table)[place];
}

/* What a lookup's slot holds once `token` has followed its context. */
RL_INLINE int64_t rl_followed(const rillet_model *m, const rl_lookup *found, int64_t token) {
    const int32_t *transitions = rl_at(m, m->transitions);
    int is_first = found->first == token, is_second = found->second == token;
    int64_t pattern = transitions[found->pattern + (is_first    ? 2 * RL_PATTERNS
                                                    : is_second ? RL_PATTERNS
                                                                : 0)];
    int64_t second = is_first ? found->second : found->first;
    return ((found->check * m->vocabulary + token) * m->vocabulary + second) * RL_PATTERNS +
           pattern;
}

/* Stores what followed the last contexts. Where nothing is learnt, the slots are stored as they
 * were found: a step that was undone may have left its own. */
RL_INLINE void rl_store_contexts(const rillet_model *m, const rl_row *row) {
    const rl_lookup *found = rl_lookups_of(m, row->state, row->before);
    void *table = rl_in(row->state, m->state_table);
    for (int c = 0; c < m->contexts; c++) {
        int64_t slot = row->learn > 0 ? rl_followed(m, found + c, row->token) : found[c].stored;
        if (m->wide_slots)
            ((int64_t *)table)[found[c].place] = slot;
        else
            ((int32_t *)table)[found[c].place] = (int32_t)slot;
    }
}

/* Hashes of the contexts at the end of the last tokens, each plus one, oldest first. */
RL_INLINE void rl_hashes(const rillet_model *m, const int32_t *recent, int64_t *hash) {
    const int64_t *outside = rl_at(m, m->outside), *last = rl_at(m, m->last);
    const int64_t *word = rl_at(m, m->word);
    int64_t inside[RL_LONGEST], broken = 0;
    for (int age = 0; age < RL_LONGEST; age++) { /* newest first */
        int64_t token = recent[RL_LONGEST - 1 - age];
        inside[age] = broken + outside[2 * token + 1] == 0 ? token : 0;
        broken += outside[2 * token];
    }
    for (int c = 0; c < m->contexts; c++, last += RL_LONGEST, word += RL_LONGEST) {
        int64_t sum = 0;
        for (int age = 0; age < RL_LONGEST; age++)
            sum += recent[RL_LONGEST - 1 - age] * last[age] + inside[age] * word[age];
        hash[c] = sum % RL_PRIME;
    }
}

/* Stores, then looks up the contexts that end with this token. */
static void rl_visit(const rillet_model *m, const rl_row *row) {
    int32_t *recent = (int32_t *)rl_in(row->state, m->recent.at) + row->cursor;
    rl_lookup *now = rl_lookups_of(m, row->state, row->now);
    const void *table = rl_in(row->state, m->state_table);
    int64_t hash[64];
    rl_store_contexts(m, row);
    recent[RL_LONGEST - 1] = row->token + 1;
    rl_hashes(m, recent, hash);
    for (int c = 0; c < m->contexts; c++) {
        int64_t place = hash[c] % m->slots + (int64_t)c * m->slots;
        int64_t check = hash[c] / m->slots % RL_CHECKS;
        int64_t stored = rl_slot(m, table, place), rest = stored / RL_PATTERNS;
        rl_lookup found = {place, stored, check, 0, 0, 0};
        if (rest / m->vocabulary / m->vocabulary == check) {
            found.first = rest / m->vocabulary % m->vocabulary;
            found.second = rest % m->vocabulary;
            found.pattern = stored % RL_PATTERNS;
        }
        now[c] = found;
    }
}

RL_INLINE float *rl_adapted_of(const rillet_model *m, rillet_state *s, int ring) {
    return (float *)rl_in(s, m->state_adapted) + ring * rl_adapted_size(m);
}

RL_INLINE float *rl_shares_of(const rillet_model *m, rillet_state *s, int ring) {
    return (float *)rl_in(s, m->state_shares) + ring * rl_shares_size(m);
}

RL_INLINE float *rl_logits_of(const rillet_model *m, rillet_state *s, int ring) {
    return (float *)rl_in(s, m->state_logits) + ring * m->gate_at;
}

RL_INLINE float rl_within(float x, float most) { return x < -most ? -most : x > most ? most : x; }

/* y = x scale, of padded rows. */
RL_INLINE void rl_scale(float *restrict y, const float *restrict x, float scale, int padded) {
    y = RL_BLOCK(y), x = RL_BLOCK(x);
    RL_SIMD for (int i = 0; i < padded; i++) y[i] = x[i] * scale;
}

/* What the log temperature follows: how much likelier the token was than expected. */
RL_INLINE float rl_surprise(const rillet_model *m, const float *logits, int token,
                            float temperature, float *restrict tempered, float *restrict powers) {
    int padded = m->gate_at;
    rl_scale(tempered, logits, rl_exp(temperature), padded);
    memcpy(powers, tempered, (size_t)padded * 4);
    float scale = rl_softmax(powers, padded);
    float chance = tempered[token];
    tempered = RL_BLOCK(tempered), powers = RL_BLOCK(powers);
    RL_SIMD for (int i = 0; i < padded; i++) powers[i] *= tempered[i];
    return chance - rl_sum(powers, padded) * scale;
}

/* Moves the online weights by the gradient of the log-probability of the token that came.
 * `tempered` and `powers` are scratch. */
static void rl_adapt(const rillet_model *m, const rl_row *row, float *tempered, float *powers) {
    const rl_lookup *found = rl_lookups_of(m, row->state, row->before);
    const float *shares = rl_shares_of(m, row->state, row->before);
    const float *logits = rl_logits_of(m, row->state, row->before);
    const float *before = rl_adapted_of(m, row->state, row->before);
    float *now = rl_adapted_of(m, row->state, row->now), temperature = before[m->contexts];
    memcpy(now, before, (size_t)rl_adapted_size(m) * 4);
    if (row->learn < 1.0f) return;
    float rarity = 1.0f / rl_exp(logits[row->token]);
    for (int c = 0; c < m->contexts; c++) {
        float came = found[c].first == row->token ? shares[2 * c] : 0.0f;
        came += found[c].second == row->token ? shares[2 * c + 1] : 0.0f;
        float uphill = came * rarity - (shares[2 * c] + shares[2 * c + 1]);
        now[c] = rl_within(before[c] + uphill * m->bias_rate, m->most_bias);
    }
    float uphill = rl_surprise(m, logits, row->token, temperature, tempered, powers);
    now[m->contexts] = rl_within(temperature + uphill * m->temperature_rate, m->most_temperature);
}

/* Keeps the prediction for the online weights, and sharpens it. */
static void rl_temper(const rillet_model *m, const rl_row *row, float *joint, float *powers,
                      float *out) {
    float *kept = rl_logits_of(m, row->state, row->now);
    float temperature = rl_adapted_of(m, row->state, row->now)[m->contexts];
    for (int i = m->vocabulary; i < m->gate_at; i++) joint[i] = RL_NEVER;
    memcpy(kept, joint, (size_t)m->gate_at * 4);
    if (out == NULL) return;
    rl_scale(joint, kept, rl_exp(temperature), m->gate_at);
    rl_log_softmax(m, joint, powers, out);
}

/* (s + sum e^z q) / (1 + sum e^z), with scores z of what was found. `joint` becomes scratch.
 * Returns whether the scores are finite. */
static int rl_mix(const rillet_model *m, const rl_row *row, float *restrict joint,
                  float *restrict powers, float *out) {
    const rl_lookup *found = rl_lookups_of(m, row->state, row->now);
    const float *scores = rl_floats(m, m->scores), *shares = rl_floats(m, m->shares);
    const float *bias = m->adapts ? rl_adapted_of(m, row->state, row->now) : NULL;
    float weight[64], total = 1.0f, all = 0.0f;
    for (int c = 0; c < m->contexts; c++) {
        float score = scores[c * RL_PATTERNS + found[c].pattern] + joint[m->gate_at + c];
        if (bias != NULL) score += bias[c];
        all += score;
        weight[c] = score > -87.0f ? rl_exp(score > 30.0f ? 30.0f : score) : 0.0f;
        total += weight[c];
    }
    float each = 1.0f / total, scale = rl_softmax(joint, m->gate_at) * each;
    rl_scale(powers, joint, scale, m->gate_at);
    for (int c = 0; c < m->contexts; c++) {
        float share = shares[c * RL_PATTERNS + found[c].pattern];
        float both[2] = {share * (weight[c] * each), (1.0f - share) * (weight[c] * each)};
        powers[found[c].first] += both[0];
        powers[found[c].second] += both[1];
        if (m->adapts) memcpy(rl_shares_of(m, row->state, row->now) + 2 * c, both, sizeof both);
    }
    rl_logs(powers, 1.0f, m->gate_at);
    if (m->adapts)
        rl_temper(m, row, powers, joint, out);
    else if (out != NULL)
        memcpy(out, powers, (size_t)m->vocabulary * 4);
    return rl_finite(all);
}
