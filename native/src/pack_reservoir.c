/* The reservoir: its drive by token, and its matrix in the form that is read fastest. */
#include "packer.h"

static int64_t nonzero(const rl_tensor *matrix, int64_t row) {
    int64_t count = 0, width = matrix->shape[1];
    for (int64_t i = 0; i < width; i++) count += rl_float(matrix, row * width + i) != 0;
    return count;
}

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

/* Rows with similarly many weights, four side by side, padded to the longest of the four: for each
 * four, how many columns they have and which rows they are, then columns and weights. */
static void pack_sparse(rl_packer *p, const rl_tensor *matrix, int64_t total, int64_t most) {
    rillet_model *m = p->m;
    int64_t units = m->units, fours = (units + 3) / 4, room = total + 4 * most;
    m->quads = rl_reserve(p, fours * 5, 4);
    m->columns = rl_reserve(p, room, 2);
    m->values = rl_reserve(p, room, 4);
    float *values = rl_target(p, m->values);
    if (values == NULL) return;
    int32_t *quads = (int32_t *)(p->block + m->quads);
    uint16_t *columns = (uint16_t *)(p->block + m->columns);
    int64_t place = 0;
    for (int64_t count = most; count >= 0; count--)
        for (int64_t row = 0; row < units; row++)
            if (nonzero(matrix, row) == count) {
                quads[place / 4 * 5 + 1 + place % 4] = (int32_t)row;
                if (place % 4 == 0) quads[place / 4 * 5] = (int32_t)count;
                place++;
            }
    /* A row that is missing in the last four is computed into the padding. */
    for (; place % 4; place++) quads[place / 4 * 5 + 1 + place % 4] = m->units_padded;
    for (int64_t four = 0; four < fours; four++) {
        const int32_t *quad = quads + four * 5;
        for (int lane = 0; lane < 4; lane++) {
            int64_t at = 0, row = quad[1 + lane];
            for (int64_t i = 0; row < units && i < units; i++) {
                float value = rl_float(matrix, row * units + i);
                if (value == 0) continue;
                columns[at * 4 + lane] = (uint16_t)i;
                values[at++ * 4 + lane] = value;
            }
        }
        columns += quad[0] * 4;
        values += quad[0] * 4;
    }
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
    int64_t total = 0, most = 0;
    for (int64_t row = 0; row < units; row++) {
        int64_t count = nonzero(&matrix, row);
        total += count;
        most = count > most ? count : most;
    }
    m->reservoir = total * 4 > units * units || units > UINT16_MAX ? RL_DENSE : RL_SPARSE;
    if (m->reservoir == RL_SPARSE) {
        pack_sparse(p, &matrix, total, most);
        return;
    }
    m->recurrent = rl_reserve_linear(p, units, units);
    rl_put_rows(p, &m->recurrent, 0, &matrix, 0, units, NULL, 1);
}
