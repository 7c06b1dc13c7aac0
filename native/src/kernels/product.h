/* Products of rows with packed weights. Each output is one chain of sums over the inputs, in order,
 * for one row and for many: chunks of any length agree to the bit. */

enum { RL_AHEAD = 4 }; /* inputs whose weights are fetched before they are needed */

/* `rows` rows and `panels` panels, both constants: a plain array of that size would be of variable
 * length to GCC, which keeps it in memory at half the speed. */
RL_INLINE void rl_tile(const int rows, const int panels, const int fuse, const float *restrict w,
                       long step, const float *restrict x, long ldx, float *restrict y, long ldy,
                       int in, const float *restrict bias, int add) {
    const int width = panels * RL_VECTORS;
    rl_vector sum[32];
    RL_UNROLL for (int r = 0; r < rows; r++) {
        RL_UNROLL for (int v = 0; v < width; v++) {
            sum[r * width + v] = RL_LOAD(bias + v * RL_LANES);
            if (add) sum[r * width + v] += RL_LOAD(y + r * ldy + v * RL_LANES);
        }
    }
    for (int i = 0; i < in; i++) {
        rl_vector weight[32];
        if (rows == 1)
            RL_UNROLL for (int line = 0; line < panels; line++)
                __builtin_prefetch(w + (i + RL_AHEAD) * step + line * RL_PANEL);
        RL_UNROLL for (int v = 0; v < width; v++) weight[v] = RL_LOAD(w + i * step + v * RL_LANES);
        RL_UNROLL for (int r = 0; r < rows; r++) {
            float value = x[r * ldx + i];
            RL_UNROLL for (int v = 0; v < width; v++) {
                rl_vector *to = sum + r * width + v;
                if (fuse)
                    *to = RL_FUSE(weight[v], value, *to);
                else
                    *to += weight[v] * value;
            }
        }
    }
    RL_UNROLL for (int r = 0; r < rows; r++) {
        RL_UNROLL for (int v = 0; v < width; v++) RL_STORE(y + r * ldy + v * RL_LANES) =
            sum[r * width + v];
    }
}

/* One row with all panels of a group: registers hold every sum. */
RL_INLINE void rl_single(int group, const float *w, const float *x, float *y, int in,
                         const float *bias, int add) {
    long step = (long)group * RL_PANEL;
#define RL_ONE(panels, p)                                                                          \
    rl_tile(1, panels, 1, w + (p) * RL_PANEL, step, x, 0, y + (p) * RL_PANEL, 0, in,               \
            bias + (p) * RL_PANEL, add)
#if RL_LANES == 4
    int p = 0;
#if defined(__aarch64__)
    for (; p + 4 <= group; p += 4) RL_ONE(4, p);
#endif
    for (; p + 2 <= group; p += 2) RL_ONE(2, p);
    if (p < group) RL_ONE(1, p);
#else
    switch (group) {
    case 7: RL_ONE(7, 0); break;
    case 6: RL_ONE(6, 0); break;
    case 5: RL_ONE(5, 0); break;
    case 4: RL_ONE(4, 0); break;
    case 3: RL_ONE(3, 0); break;
    case 2: RL_ONE(2, 0); break;
    default: RL_ONE(1, 0); break;
    }
#endif
#undef RL_ONE
}

/* What a model in int8 keeps in float32 is small, and the same for every instruction set. */
static void rl_unfused(const rl_linear *linear, const float *w, const float *bias, int rows,
                       const float *x, long ldx, float *y, long ldy, int add) {
    for (int left = linear->panels, group; left > 0; left -= group) {
        group = rl_group(left);
        for (int p = 0; p < group; p++, bias += RL_PANEL, y += RL_PANEL)
            for (int r = 0; r < rows; r++)
                rl_tile(1, 1, 0, w + p * RL_PANEL, (long)group * RL_PANEL, x + r * ldx, 0,
                        y + r * ldy, 0, linear->in, bias, add);
        w += (long)group * RL_PANEL * linear->in;
    }
}

/* y = W x + b for each row, or added to y. Rows of y are padded. */
static void rl_product(const rillet_model *m, const rl_linear *linear, int rows, const float *x,
                       long ldx, float *y, long ldy, int add) {
    const float *w = rl_floats(m, linear->weights), *bias = rl_floats(m, linear->bias);
    int in = linear->in;
    if (m->widest_rounded) {
        rl_unfused(linear, w, bias, rows, x, ldx, y, ldy, add);
        return;
    }
    for (int left = linear->panels, group; left > 0; left -= group) {
        group = rl_group(left);
        int done = rows / RL_TILE * RL_TILE;
        if (rows == 1) done = 0;
        for (int p = 0; p < group && done; p++) /* these weights stay in the first cache */
            for (int r = 0; r < done; r += RL_TILE)
                rl_tile(RL_TILE, 1, 1, w + p * RL_PANEL, (long)group * RL_PANEL, x + r * ldx, ldx,
                        y + r * ldy + p * RL_PANEL, ldy, in, bias + p * RL_PANEL, add);
        for (int r = done; r < rows; r++)
            rl_single(group, w, x + r * ldx, y + r * ldy, in, bias, add);
        w += (long)group * RL_PANEL * in;
        bias += group * RL_PANEL;
        y += group * RL_PANEL;
    }
}
