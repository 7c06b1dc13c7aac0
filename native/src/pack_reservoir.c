/* The reservoir: its drive by token, and its matrix in the form that is read fastest. */
#include <string.h>

#include "packer.h"

/* W_in c for each token. */
static size_t drive(rl_packer *p, int64_t units) {
    const rillet_model *m = p->m;
    rl_tensor codes = rl_need(p, "embedder.codes", 2, m->vocabulary, 0);
    rl_tensor input = rl_need(p, "reservoir.input_weights", 2, units, codes.shape[1]);
    size_t place = rl_reserve(p, (int64_t)m->vocabulary * m->units_padded, 4);
    float *to = rl_target(p, place);
    for (int64_t token = 0; to != NULL && token < m->vocabulary; token++)
        for (int64_t unit = 0; unit < units; unit++) {
            double sum = 0;
            for (int64_t i = 0, width = codes.shape[1]; i < width; i++)
                sum += (double)rl_float(&codes, token * width + i) *
                       (double)rl_float(&input, unit * width + i);
            to[token * m->units_padded + unit] = (float)sum;
        }
    return place;
}

/* One round of a group of eight rows: up to one weight of each row, from eight neighbouring
 * columns. Returns the first of those columns, or -1 once no weights are left. `next` is where each
 * row's remaining weights begin. */
static int64_t take_round(const rl_tensor *matrix, int64_t padded, int64_t row, int64_t *next,
                          uint8_t *place, float *weight) {
    int64_t units = matrix->shape[0], first = units;
    for (int lane = 0; lane < RL_ROWS && row + lane < units; lane++) {
        const int64_t at = (row + lane) * units;
        while (next[lane] < units && rl_float(matrix, at + next[lane]) == 0) next[lane]++;
        if (next[lane] < first) first = next[lane];
    }
    if (first == units) return -1;
    if (first > padded - RL_ROWS) first = padded - RL_ROWS; /* eight can be read from there */
    for (int lane = 0; lane < RL_ROWS; lane++) {
        int taken = row + lane < units && next[lane] < units && next[lane] < first + RL_ROWS;
        place[lane] = taken ? (uint8_t)(next[lane] - first) : 0;
        weight[lane] = taken ? rl_float(matrix, (row + lane) * units + next[lane]++) : 0;
    }
    return first;
}

/* All rounds of all groups: how many each group has, and for each its column, places, weights. */
static int64_t all_rounds(rl_packer *p, const rl_tensor *matrix) {
    const rillet_model *m = p->m;
    int64_t units = matrix->shape[0], total = 0;
    int writes = m->round_weights != 0 && rl_target(p, m->round_weights) != NULL;
    for (int64_t row = 0; row < units; row += RL_ROWS) {
        int64_t next[RL_ROWS] = {0}, column, before = total;
        uint8_t place[RL_ROWS];
        float weight[RL_ROWS];
        while ((column = take_round(matrix, m->units_padded, row, next, place, weight)) >= 0) {
            if (writes) {
                ((int32_t *)(p->block + m->round_columns))[total] = (int32_t)column;
                memcpy(p->block + m->round_places + total * RL_ROWS, place, sizeof place);
                memcpy(p->block + m->round_weights + total * (int64_t)sizeof weight, weight,
                       sizeof weight);
            }
            total++;
        }
        if (writes) ((int32_t *)(p->block + m->rounds))[row / RL_ROWS] = (int32_t)(total - before);
    }
    return total;
}

static void pack_sparse(rl_packer *p, const rl_tensor *matrix) {
    rillet_model *m = p->m;
    int64_t total = all_rounds(p, matrix);
    m->rounds = rl_reserve(p, m->units_padded / RL_ROWS, 4);
    m->round_columns = rl_reserve(p, total, 4);
    m->round_places = rl_reserve(p, total, RL_ROWS);
    m->round_weights = rl_reserve(p, total, RL_ROWS * 4);
    all_rounds(p, matrix);
}

void rl_pack_reservoir(rl_packer *p) {
    rillet_model *m = p->m;
    if (!rl_has(p, "reservoir.recurrent")) return;
    rl_tensor matrix = rl_need(p, "reservoir.recurrent", 2, 0, 0);
    int64_t units = matrix.shape[0];
    rl_tensor leak = rl_need(p, "reservoir.leak", 1, units, 0);
    rl_tensor sine = rl_need(p, "reservoir.sine", 1, 3, 0);
    if (p->status == RILLET_OK && matrix.shape[1] != units)
        rl_fail(p, RILLET_DAMAGED, "reservoir.recurrent", "this tensor is not square");
    if (p->status != RILLET_OK) return;
    m->units = (int32_t)units;
    m->units_padded = (int32_t)RL_PADDED(units);
    m->decay = rl_float(&sine, 1);
    m->frequency = rl_float(&sine, 2);
    m->drive = drive(p, units);
    m->kept = rl_reserve(p, m->units_padded, 4);
    m->gain = rl_reserve(p, m->units_padded, 4);
    float *kept = rl_target(p, m->kept), *gain = rl_target(p, m->gain);
    for (int64_t i = 0; kept != NULL && i < units; i++) {
        kept[i] = 1 - rl_float(&leak, i);
        gain[i] = rl_float(&leak, i) * rl_float(&sine, 0);
    }
    int64_t total = 0;
    for (int64_t i = 0; i < units * units; i++) total += rl_float(&matrix, i) != 0;
    m->reservoir = total * 4 > units * units ? RL_DENSE : RL_SPARSE;
    if (m->reservoir == RL_SPARSE) {
        pack_sparse(p, &matrix);
        return;
    }
    m->recurrent = rl_reserve_linear(p, units, units, &matrix);
    rl_put_rows(p, &m->recurrent, 0, &matrix, 0, units, NULL, 1);
}
