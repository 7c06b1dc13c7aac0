/* The memories, and the head that shares a product with their gates. */
#include <math.h>

#include "packer.h"

/* e^x as every C library finds it: they differ in the last digits, which are cut off. */
static float rounded_exp(float x) { return (float)exp((double)x); }

/* The last product: logits, then what a memory's gate reads of the features. Unused logits are so
 * low that their probability is zero. */
static void pack_head(rl_packer *p, const char *gate_weight, const char *gate_bias, int64_t gate) {
    rillet_model *m = p->m;
    int dual = m->readout_blocks > 0;
    const char *weight_name = dual ? "readout_cnn.head.weight" : "wave_cnn.head.weight";
    const char *bias_name = dual ? "readout_cnn.head.bias" : "wave_cnn.head.bias";
    rl_tensor weight = rl_need_weight(p, weight_name, m->vocabulary, m->features);
    rl_tensor bias = rl_need(p, bias_name, 1, m->vocabulary, 0);
    m->gate_at = (int32_t)RL_PADDED((int64_t)m->vocabulary);
    m->head_layer = rl_reserve_linear(p, m->features, m->gate_at + RL_PADDED(gate), &weight);
    rl_put_rows(p, &m->head_layer, 0, &weight, 0, m->vocabulary, &bias, 1);
    for (int64_t i = m->vocabulary; i < m->gate_at; i++) rl_put_bias(p, &m->head_layer, i, -1e30f);
    if (gate == 0) return;
    rl_tensor hidden = rl_need(p, gate_weight, 2, gate, 0);
    rl_tensor offset = rl_need(p, gate_bias, 1, gate, 0);
    if (p->status == RILLET_OK && hidden.shape[1] < m->features)
        rl_fail(p, RILLET_DAMAGED, gate_weight, "this tensor's shape does not fit the others");
    rl_put_rows(p, &m->head_layer, m->gate_at, &hidden, 0, gate, &offset, 1);
}

static int32_t capacity(rl_packer *p, int64_t most) {
    rl_tensor t = rl_need_whole(p, "memory.capacity", 1, 1, 0);
    if (p->status != RILLET_OK) return 0;
    int64_t value = rl_whole(&t, 0);
    if (value < 1 || value > most)
        rl_fail(p, RILLET_UNSUPPORTED, "memory.capacity", "the memory is empty or too large");
    return (int32_t)value;
}

/* The kernel: its keys, and the gate that mixes what it finds. */
static void pack_kernel(rl_packer *p) {
    rillet_model *m = p->m;
    rl_tensor hidden = rl_need(p, "memory.gate.hidden.weight", 2, 0, (int64_t)m->features + 2);
    int64_t gate = hidden.shape[0];
    rl_tensor output = rl_need(p, "memory.gate.output.weight", 2, 1, gate);
    rl_tensor doubt = rl_need(p, "memory.gate.output.bias", 1, 1, 0);
    rl_tensor log_beta = rl_need(p, "memory.gate.log_beta", 1, 1, 0);
    rl_tensor log_c = rl_need(p, "memory.gate.log_c", 1, 1, 0);
    m->capacity = capacity(p, 1 << 28);
    if (p->status != RILLET_OK) return;
    m->gate = (int32_t)gate;
    float beta = rounded_exp(rl_float(&log_beta, 0));
    m->fall = -beta / 2;
    m->least = rounded_exp(-0.499f * beta);
    m->reach = rounded_exp(rl_float(&log_c, 0));
    m->doubt_bias = -rl_float(&doubt, 0);
    m->found_weights = rl_reserve(p, 2 * RL_PADDED(gate), 4);
    m->doubt_weights = rl_reserve(p, RL_PADDED(gate), 4);
    float *found = rl_target(p, m->found_weights), *weights = rl_target(p, m->doubt_weights);
    for (int64_t i = 0; found != NULL && i < gate; i++) {
        for (int64_t part = 0; part < 2; part++)
            found[part * RL_PADDED(gate) + i] =
                rl_float(&hidden, i * (m->features + 2) + m->features + part);
        weights[i] = -rl_float(&output, i);
    }
    pack_head(p, "memory.gate.hidden.weight", "memory.gate.hidden.bias", gate);
}

static void pack_reservoir_key(rl_packer *p) {
    rillet_model *m = p->m;
    if (m->reservoir == RL_NO_RESERVOIR) {
        rl_fail(p, RILLET_DAMAGED, "memory.key.projection", "there is no reservoir to read");
        return;
    }
    rl_tensor projection = rl_need(p, "memory.key.projection", 2, m->units, 0);
    m->memory = RL_KERNEL;
    m->key = (int32_t)projection.shape[1];
    m->key_projection = rl_reserve_linear(p, m->units, m->key, &projection);
    for (int64_t unit = 0; p->block != NULL && unit < m->units; unit++)
        for (int64_t i = 0; i < m->key; i++)
            rl_put(p, &m->key_projection, unit, i, rl_float(&projection, unit * m->key + i));
}

static void pack_suffix_key(rl_packer *p) {
    rillet_model *m = p->m;
    rl_tensor codes = rl_need(p, "memory.key.codes", 2, m->vocabulary, 0);
    rl_tensor weights = rl_need(p, "memory.key.weights", 1, 0, 0);
    if (p->status == RILLET_OK && weights.shape[0] * codes.shape[1] > 1 << 20)
        rl_fail(p, RILLET_UNSUPPORTED, "memory.key.codes", "keys are too wide");
    if (p->status != RILLET_OK) return;
    m->memory = RL_SUFFIX_KERNEL;
    m->suffix = (int32_t)weights.shape[0];
    m->code = (int32_t)codes.shape[1];
    m->key = m->suffix * m->code;
    m->suffix_codes = rl_copy(p, &codes, m->vocabulary, m->code);
    m->suffix_weights = rl_copy(p, &weights, 1, m->suffix);
}

/* The pattern after a token: a new one, the second, the first. */
static void put_transitions(int32_t *to) {
    for (int pattern = 0; pattern < RL_PATTERNS; pattern++) {
        int count = pattern / RL_OTHERS, other = pattern % RL_OTHERS;
        int mine[3] = {0, other, count}, theirs[3] = {count, count, other};
        for (int c = 0; c < 3; c++) {
            int grown = mine[c] + 1 < RL_COUNTS ? mine[c] + 1 : RL_COUNTS - 1;
            to[c * RL_PATTERNS + pattern] = grown * RL_OTHERS + (theirs[c] + 1) / 2;
        }
    }
}

static size_t copy_whole(rl_packer *p, const rl_tensor *t) {
    size_t place = rl_reserve(p, t->count, 8);
    for (int64_t i = 0; p->block != NULL && p->status == RILLET_OK && i < t->count; i++)
        ((int64_t *)(p->block + place))[i] = rl_whole(t, i);
    return place;
}

static void check_multipliers(rl_packer *p, const rl_tensor *t, const char *name, int64_t most) {
    for (int64_t i = 0; i < t->count; i++)
        if (rl_whole(t, i) < 0 || rl_whole(t, i) > most)
            rl_fail(p, RILLET_DAMAGED, name, "a value is out of range");
}

static void pack_adaptation(rl_packer *p) {
    rillet_model *m = p->m;
    if (!rl_has(p, "memory.adaptation")) return;
    rl_tensor t = rl_need(p, "memory.adaptation", 1, 4, 0);
    if (p->status != RILLET_OK) return;
    m->adapts = 1;
    m->bias_rate = rl_float(&t, 0);
    m->temperature_rate = rl_float(&t, 1);
    m->most_bias = rl_float(&t, 2);
    m->most_temperature = rl_float(&t, 3);
    if (!(m->most_bias >= 0 && m->most_bias <= 30 && m->most_temperature >= 0 &&
          m->most_temperature <= 4))
        rl_fail(p, RILLET_UNSUPPORTED, "memory.adaptation", "a bound is out of range");
}

static void pack_contexts(rl_packer *p) {
    rillet_model *m = p->m;
    rl_tensor last = rl_need_whole(p, "memory.last", 2, 0, RL_LONGEST);
    rl_tensor word = rl_need_whole(p, "memory.word", 2, last.shape[0], RL_LONGEST);
    rl_tensor outside = rl_need_whole(p, "memory.outside", 2, (int64_t)m->vocabulary + 1, 2);
    int64_t contexts = last.shape[0];
    rl_tensor score = rl_need(p, "memory.score", 2, contexts, RL_PATTERNS);
    rl_tensor share = rl_need(p, "memory.share", 2, contexts, RL_PATTERNS);
    m->slots = capacity(p, 1 << 30);
    check_multipliers(p, &last, "memory.last", 1 << 28);
    check_multipliers(p, &word, "memory.word", 1 << 28);
    check_multipliers(p, &outside, "memory.outside", 1);
    if (contexts > 64)
        rl_fail(p, RILLET_UNSUPPORTED, "memory.last", "there are more than 64 contexts");
    if (p->status != RILLET_OK) return;
    m->memory = RL_CONTEXTS;
    m->contexts = (int32_t)contexts;
    int64_t largest = (int64_t)m->vocabulary * m->vocabulary * RL_CHECKS * RL_PATTERNS;
    m->wide_slots = largest >= (int64_t)1 << 31;
    m->last = copy_whole(p, &last);
    m->word = copy_whole(p, &word);
    m->outside = copy_whole(p, &outside);
    m->transitions = rl_reserve(p, 3 * RL_PATTERNS, 4);
    m->scores = rl_reserve(p, contexts * RL_PATTERNS, 4);
    m->shares = rl_reserve(p, contexts * RL_PATTERNS, 4);
    float *scores = rl_target(p, m->scores), *shares = rl_target(p, m->shares);
    if (scores != NULL) put_transitions((int32_t *)(p->block + m->transitions));
    for (int64_t i = 0; scores != NULL && i < contexts * RL_PATTERNS; i++) {
        int64_t pattern = i % RL_PATTERNS;
        scores[i] = pattern < RL_OTHERS ? -1e4f : rl_float(&score, i);
        shares[i] = pattern % RL_OTHERS == 0 ? 1 : 1 / (1 + rounded_exp(-rl_float(&share, i)));
    }
    pack_head(p, "memory.gate.weight", "memory.gate.bias", contexts);
    pack_adaptation(p);
}

void rl_pack_memory(rl_packer *p) {
    if (rl_has(p, "memory.last")) {
        pack_contexts(p);
    } else if (rl_has(p, "memory.gate.log_beta")) {
        if (rl_has(p, "memory.key.projection"))
            pack_reservoir_key(p);
        else
            pack_suffix_key(p);
        p->m->key_padded = (int32_t)RL_PADDED((int64_t)p->m->key);
        if (p->status == RILLET_OK) pack_kernel(p);
    } else {
        pack_head(p, NULL, NULL, 0);
    }
}
