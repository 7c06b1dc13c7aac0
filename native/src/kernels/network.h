/* The parts of the network that are no products: reservoir, attention, convolutions, gates. */

RL_INLINE float *rl_reservoir_of(const rillet_model *m, rillet_state *s, int ring) {
    return (float *)rl_in(s, m->state_reservoir) + ring * m->units_padded;
}

/* z = W r + drive, eight rows of the matrix at a time: each round takes one weight of each row. */
RL_INLINE void rl_sparse(const rillet_model *m, const float *restrict r,
                         const float *restrict drive, float *restrict z) {
    const int32_t *rounds = rl_at(m, m->rounds), *column = rl_at(m, m->round_columns);
    const uint8_t *place = rl_at(m, m->round_places);
    const float *weight = rl_floats(m, m->round_weights);
    for (int row = 0; row < m->units_padded; row += RL_ROWS) {
        int count = rounds[row / RL_ROWS];
#if defined(__AVX2__)
        __m256 sum = _mm256_loadu_ps(drive + row), other = _mm256_setzero_ps();
        for (int t = 0; t < count; t++, place += RL_ROWS, weight += RL_ROWS) {
            __m256i at = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)place));
            __m256 from = _mm256_permutevar8x32_ps(_mm256_loadu_ps(r + *column++), at);
            __m256 next = _mm256_add_ps(other, _mm256_mul_ps(from, _mm256_loadu_ps(weight)));
            other = sum; /* two chains in turn */
            sum = next;
        }
        _mm256_storeu_ps(z + row, _mm256_add_ps(sum, other));
#else
        float sum[2][RL_ROWS] = {{0}};
        memcpy(sum[1], drive + row, sizeof *sum);
        for (int t = 0; t < count; t++, place += RL_ROWS, weight += RL_ROWS, column++)
            for (int lane = 0; lane < RL_ROWS; lane++)
                sum[t % 2][lane] += weight[lane] * r[*column + place[lane]];
        for (int lane = 0; lane < RL_ROWS; lane++) z[row + lane] = sum[0][lane] + sum[1][lane];
#endif
    }
}

static void rl_reservoir(const rillet_model *m, const rl_row *row, float *z) {
    const float *before = RL_BLOCK(rl_reservoir_of(m, row->state, row->before));
    float *restrict now = RL_BLOCK(rl_reservoir_of(m, row->state, row->now));
    const float *drive = rl_floats(m, m->drive) + (size_t)row->token * (size_t)m->units_padded;
    const float *kept = RL_BLOCK(rl_floats(m, m->kept)), *gain = RL_BLOCK(rl_floats(m, m->gain));
    int padded = m->units_padded;
    float decay = -m->decay, frequency = m->frequency;
    if (rl_is_dense(m)) {
        memcpy(z, drive, (size_t)padded * 4);
        rl_product(m, &m->recurrent, 1, before, padded, z, padded, 1);
    } else {
        rl_sparse(m, before, drive, z);
    }
    z = RL_BLOCK(z);
    RL_SIMD for (int i = 0; i < padded; i++) {
        float size = z[i] < 0 ? -z[i] : z[i];
        now[i] = before[i] * kept[i] + rl_exp(size * decay) * rl_sin(z[i] * frequency) * gain[i];
    }
}

/* Scores of one head over the window, [padded window]; what lies behind the window has none. */
RL_INLINE void rl_scores(const rillet_model *m, const float *q, const float *keys,
                         const float *bias, float *w) {
    int padded = RL_PADDED(m->attention);
    for (int j = 0; j < padded; j += RL_PANEL) {
        rl_vector sum[RL_VECTORS], other[RL_VECTORS] = {{0}};
        const float *at = keys + j;
        RL_UNROLL for (int v = 0; v < RL_VECTORS; v++) sum[v] = RL_LOAD(bias + j + v * RL_LANES);
        int i = 0;
        for (; i + 1 < m->head; i += 2, at += 2 * (long)m->span)
            RL_UNROLL for (int v = 0; v < RL_VECTORS; v++) {
                sum[v] += RL_LOAD(at + v * RL_LANES) * q[i];
                other[v] += RL_LOAD(at + m->span + v * RL_LANES) * q[i + 1];
            }
        if (i < m->head)
            RL_UNROLL for (int v = 0; v < RL_VECTORS; v++) sum[v] +=
                RL_LOAD(at + v * RL_LANES) * q[i];
        RL_UNROLL for (int v = 0; v < RL_VECTORS; v++) RL_STORE(w + j + v * RL_LANES) =
            sum[v] + other[v];
    }
}

/* The window's values of 16 features, weighted. */
RL_INLINE void rl_blend(const float *w, int window, const float *values, long stride, float scale,
                        float *to) {
    rl_vector sum[RL_VECTORS] = {{0}}, other[RL_VECTORS] = {{0}};
    int j = 0;
    for (; j + 1 < window; j += 2, values += 2 * stride)
        RL_UNROLL for (int v = 0; v < RL_VECTORS; v++) {
            sum[v] += RL_LOAD(values + v * RL_LANES) * w[j];
            other[v] += RL_LOAD(values + stride + v * RL_LANES) * w[j + 1];
        }
    if (j < window)
        RL_UNROLL for (int v = 0; v < RL_VECTORS; v++) sum[v] +=
            RL_LOAD(values + v * RL_LANES) * w[j];
    RL_UNROLL for (int v = 0; v < RL_VECTORS; v++) RL_STORE(to + v * RL_LANES) =
        (sum[v] + other[v]) * scale;
}

/* Softmax in place; returns one over the sum. */
RL_INLINE float rl_softmax(float *restrict w, int padded) {
    float top = rl_most(w, padded);
    w = RL_BLOCK(w);
    RL_SIMD for (int i = 0; i < padded; i++) w[i] = rl_exp(w[i] - top);
    return 1.0f / rl_sum(w, padded);
}

/* Stores the row's keys and values, and mixes the window's values by head, [width]. */
static void rl_attend(const rillet_model *m, const rl_row *row, const float *restrict qkv,
                      float *restrict out, float *restrict w) {
    int d = m->width, e = m->head, last = row->cursor + m->attention - 1;
    long stride = m->attention_values.stride;
    float *keys = (float *)rl_in(row->state, m->attention_keys);
    float *values = (float *)rl_in(row->state, m->attention_values.at) + row->cursor * stride;
    const float *k = qkv + m->width_padded, *v = qkv + 2 * m->width_padded;
    for (int i = 0; i < d; i++) keys[(long)i * m->span + last] = k[i];
    for (int h = 0; h < m->heads; h++)
        memcpy(values + (m->attention - 1) * stride + h * m->head_padded, v + h * e, (size_t)e * 4);
    int padded = RL_PADDED(m->attention);
    for (int h = 0; h < m->heads; h++) {
        rl_scores(m, qkv + h * e, keys + (long)h * e * m->span + row->cursor,
                  rl_floats(m, m->distance_bias) + (long)h * padded, w);
        float scale = rl_softmax(w, padded);
        for (int i = 0; i < e; i += RL_PANEL) {
            float blend[RL_PANEL];
            rl_blend(w, m->attention, values + h * m->head_padded + i, stride, scale, blend);
            int count = e - i < RL_PANEL ? e - i : RL_PANEL;
            memcpy(out + h * e + i, blend, (size_t)count * 4);
        }
    }
}

/* silu(g) v, of halves that are padded each on its own. */
RL_INLINE void rl_gate(float *restrict to, const float *restrict both, int padded) {
    const float *g = RL_BLOCK(both), *v = RL_BLOCK(both + padded);
    to = RL_BLOCK(to);
    RL_SIMD for (int i = 0; i < padded; i++) to[i] = g[i] / (1.0f + rl_exp(-g[i])) * v[i];
}

/* Norm and short convolution of one block of the first CNN. */
static void rl_wave_taps(const rillet_model *m, const rl_block *block, int index, const rl_row *row,
                         const float *restrict x, float *restrict y) {
    long stride = m->wave_context.stride;
    int padded = m->width_padded;
    float *window = (float *)rl_in(row->state, m->wave_context.at) + row->cursor * stride +
                    (long)index * padded;
    rl_norm(window + (m->kernel - 1) * stride, x, rl_floats(m, block->norm),
            rl_floats(m, block->norm_bias), m->width, padded);
    const float *taps = RL_BLOCK(rl_floats(m, block->taps));
    y = RL_BLOCK(y);
    if (m->kernel == 4) {
        const float *a = RL_BLOCK(window), *b = RL_BLOCK(window + stride);
        const float *c = RL_BLOCK(window + 2 * stride), *d = RL_BLOCK(window + 3 * stride);
        RL_SIMD for (int i = 0; i < padded; i++) y[i] = taps[i] * a[i] + taps[padded + i] * b[i] +
                                                        taps[2 * padded + i] * c[i] +
                                                        taps[3 * padded + i] * d[i];
        return;
    }
    for (int i = 0; i < padded; i++) y[i] = 0;
    for (int j = 0; j < m->kernel; j++, window += stride, taps += padded) {
        const float *past = RL_BLOCK(window), *tap = RL_BLOCK(taps);
        RL_SIMD for (int i = 0; i < padded; i++) y[i] += tap[i] * past[i];
    }
}

/* The filters over the wave window, [filters][features]. */
static void rl_filters(const rillet_model *m, const rl_row *row, float *restrict y) {
    int padded = m->features_padded, count = m->filters_per_feature;
    const float *window =
        (const float *)rl_in(row->state, m->wave_buffer.at) + (long)(row->cursor + 1) * padded;
    for (int q = 0; q < count; q++)
        for (int f = 0; f < padded; f += RL_PANEL) {
            const float *tap = rl_floats(m, m->filters) + q * padded + f, *x = window + f;
            rl_vector sum[RL_VECTORS] = {{0}};
            for (int w = 0; w < m->wave_window; w++, tap += count * padded, x += padded)
                RL_UNROLL for (int v = 0; v < RL_VECTORS; v++) sum[v] +=
                    RL_LOAD(tap + v * RL_LANES) * RL_LOAD(x + v * RL_LANES);
            RL_UNROLL for (int v = 0; v < RL_VECTORS; v++)
                RL_STORE(y + q * padded + f + v * RL_LANES) = sum[v];
        }
}
