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

/* Stores what followed the last contexts. Where nothing is learnt, the slots are stored as they were
 * found: a step that was undone may have left its own. */
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

/* (s + sum e^z q) / (1 + sum e^z), with scores z of what was found. `joint` becomes scratch. */
static void rl_mix(const rillet_model *m, const rl_row *row, float *restrict joint,
                   float *restrict out) {
    const rl_lookup *found = rl_lookups_of(m, row->state, row->now);
    const float *scores = rl_floats(m, m->scores), *shares = rl_floats(m, m->shares);
    const float *gate = joint + m->gate_at;
    int padded = m->gate_at;
    float total = 1.0f, scale = rl_softmax(joint, padded);
    for (int i = 0; i < padded; i++) joint[i] *= scale;
    for (int c = 0; c < m->contexts; c++) {
        long at = (long)c * RL_PATTERNS + found[c].pattern;
        float score = scores[at] + gate[c];
        float weight = score > -87.0f ? rl_exp(score > 30.0f ? 30.0f : score) : 0.0f;
        joint[found[c].first] += weight * shares[at];
        joint[found[c].second] += weight * (1.0f - shares[at]);
        total += weight;
    }
    rl_logs(out, joint, 1.0f / total, padded, m->vocabulary);
}
