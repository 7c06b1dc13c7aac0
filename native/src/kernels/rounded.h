/* Products of rows with int8 weights. A row is rounded to int8 with a scale of its own, and sums
 * are exact: one row and many, and all instruction sets, give the same bits. */

#ifndef RL_NARROW
#define RL_INT_VECTORS (RL_PANEL / RL_INTS) /* vectors of a panel */
#endif
#ifndef RL_CHAINS
#define RL_CHAINS 1
#endif
#ifndef RL_SHIFTS
#define RL_SHIFTS 0
#endif

/* Rounds a padded row to -127...127; returns its scale, which is finite if the row is. */
RL_INLINE float rl_round_row(const float *restrict x, int padded, int8_t *restrict to) {
    int32_t top = 0; /* sizes compare as their bits do, and those of a NaN are the largest */
    x = RL_BLOCK(x);
    _Pragma("omp simd reduction(max : top)") for (int i = 0; i < padded; i++) {
        int32_t size = (int32_t)(rl_bits(x[i]) & 0x7fffffffu);
        top = size > top ? size : top;
    }
    float most = rl_from_bits((uint32_t)top), up = 127.0f / (most < 1e-30f ? 1e-30f : most);
    RL_SIMD for (int i = 0; i < padded; i++) to[i] = (int8_t)rl_bits(x[i] * up + 12582912.0f);
    return most * (1.0f / 127.0f);
}

/* A product's places, and what a part of it reads and writes. */
typedef struct {
    const int8_t *weights;
    const float *scale, *bias;
    const int32_t *offset;
    long step; /* bytes between two fours of inputs */
    int quads, add;
} rl_part;

/* y = sum scale + bias of 16 outputs, or added to y. */
RL_INLINE void rl_widen(const int32_t *restrict sum, const rl_part *part, int panel, float scale,
                        float *restrict y) {
    const float *of = RL_BLOCK(part->scale + panel * RL_PANEL);
    const float *bias = RL_BLOCK(part->bias + panel * RL_PANEL);
    y = RL_BLOCK(y);
    if (part->add)
        RL_SIMD for (int i = 0; i < RL_PANEL; i++) y[i] +=
            (float)sum[i] * (of[i] * scale) + bias[i];
    else
        RL_SIMD for (int i = 0; i < RL_PANEL; i++) y[i] = (float)sum[i] * (of[i] * scale) + bias[i];
}

#ifdef RL_NARROW

/* One row with all panels of a group. */
static void rl_small_single(int group, const rl_part *part, const int8_t *x, const float *scale,
                            float *y) {
    int32_t sum[RL_PANEL];
    for (int p = 0; p < group; p++) {
        for (int o = 0; o < RL_PANEL; o += RL_NARROW)
            rl_narrow(part->weights + (p * RL_PANEL + o) * 4, part->step, part->quads, x, sum + o);
        rl_widen(sum, part, p, *scale, y + p * RL_PANEL);
    }
}

#else

/* `rows` rows and `panels` panels, both constants. */
RL_INLINE void rl_small_tile(const int rows, const int panels, const rl_part *part, int panel,
                             const int8_t *restrict x, long ldx, const float *restrict scale,
                             float *restrict y, long ldy) {
    const int width = panels * RL_INT_VECTORS, count = rows * width;
    const int chains = count * RL_CHAINS > 8 ? 1 : RL_CHAINS;
    const int8_t *w = part->weights + panel * RL_PANEL * 4;
    rl_ints sum[2][32];
    const int32_t zero[RL_INTS] = {0};
    RL_UNROLL for (int r = 0; r < rows; r++) RL_UNROLL for (int v = 0; v < width; v++) {
        const int32_t *offset = part->offset + panel * RL_PANEL + v * RL_INTS;
        sum[0][r * width + v] = rl_ints_load(RL_SHIFTS ? offset : zero);
        if (chains > 1) sum[1][r * width + v] = rl_ints_load(zero);
    }
    int i = 0;
    for (; i + chains <= part->quads; i += chains, w += chains * part->step)
        RL_UNROLL for (int r = 0; r < rows; r++) RL_UNROLL for (int c = 0; c < chains; c++) {
            rl_quad quad = rl_spread(x + r * ldx + (i + c) * 4);
            RL_UNROLL for (int v = 0; v < width; v++) sum[c][r * width + v] =
                rl_gather(sum[c][r * width + v], w + c * part->step + v * RL_INTS * 4, quad);
        }
    if (chains > 1 && i < part->quads) RL_UNROLL for (int r = 0; r < rows; r++) {
            rl_quad quad = rl_spread(x + r * ldx + i * 4);
            RL_UNROLL for (int v = 0; v < width; v++) sum[0][r * width + v] =
                rl_gather(sum[0][r * width + v], w + v * RL_INTS * 4, quad);
        }
    RL_UNROLL for (int r = 0; r < rows; r++) {
        int32_t total[4 * RL_PANEL];
        RL_UNROLL for (int v = 0; v < width; v++) {
            rl_ints all = sum[0][r * width + v];
#if RL_CHAINS > 1
            if (chains > 1) all = rl_ints_plus(all, sum[1][r * width + v]);
#endif
            rl_ints_store(total + v * RL_INTS, all);
        }
        RL_UNROLL for (int p = 0; p < panels; p++)
            rl_widen(total + p * RL_PANEL, part, panel + p, scale[r], y + r * ldy + p * RL_PANEL);
    }
}

/* One row with all panels of a group. */
RL_INLINE void rl_small_single(int group, const rl_part *part, const int8_t *x, const float *scale,
                               float *y) {
#if RL_INTS == 4
    int p = 0;
    for (; p + 2 <= group; p += 2) rl_small_tile(1, 2, part, p, x, 0, scale, y + p * RL_PANEL, 0);
    if (p < group) rl_small_tile(1, 1, part, p, x, 0, scale, y + p * RL_PANEL, 0);
#else
    switch (group) {
    case 4: rl_small_tile(1, 4, part, 0, x, 0, scale, y, 0); break;
    case 3: rl_small_tile(1, 3, part, 0, x, 0, scale, y, 0); break;
    case 2: rl_small_tile(1, 2, part, 0, x, 0, scale, y, 0); break;
    default: rl_small_tile(1, 1, part, 0, x, 0, scale, y, 0); break;
    }
#endif
}

#endif

/* y = W x + b for each row, or added to y, with rows and weights in int8. `rounded` and `scale` are
 * scratch: a row of the widest product, and a number, for each row. Not inlined: each layer would
 * hold a copy. */
__attribute__((noinline)) static void
rl_rounded_product(const rillet_model *m, const rl_linear *linear, int rows, const float *x,
                   long ldx, float *y, long ldy, int add, int8_t *rounded, float *scale) {
    long ldr = RL_PADDED(linear->in);
    rl_part part = {rl_at(m, linear->weights),
                    rl_floats(m, linear->scales),
                    rl_floats(m, linear->bias),
                    rl_at(m, linear->offsets),
                    0,
                    RL_QUADS(linear->in),
                    add};
    for (int r = 0; r < rows; r++)
        scale[r] = rl_round_row(x + r * ldx, (int)ldr, rounded + r * ldr);
    for (int left = linear->panels, group; left > 0; left -= group) {
        group = rl_small_group(left);
        part.step = (long)group * RL_PANEL * 4;
        int done = 0;
#ifndef RL_NARROW
        if (rows > 1) done = rows / RL_TILE * RL_TILE;
        for (int p = 0; p < group && done; p++) /* these weights stay in the first cache */
            for (int r = 0; r < done; r += RL_TILE)
                rl_small_tile(RL_TILE, 1, &part, p, rounded + r * ldr, ldr, scale + r,
                              y + r * ldy + p * RL_PANEL, ldy);
#endif
        for (int r = done; r < rows; r++)
            rl_small_single(group, &part, rounded + r * ldr, scale + r, y + r * ldy);
        part.weights += part.step * part.quads;
        part.scale += group * RL_PANEL;
        part.bias += group * RL_PANEL;
        part.offset += group * RL_PANEL;
        y += group * RL_PANEL;
    }
}
