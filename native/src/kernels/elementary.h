/* Elementary functions without branches, so that loops over them become vector code. */

/* Bits are unsigned: those of a NaN may be anything, and sums of them wrap. */
RL_INLINE float rl_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

RL_INLINE uint32_t rl_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

/* e^x, clamped to normal numbers (Cephes). */
RL_INLINE float rl_exp(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float shifted = x * 1.44269504088896341f + 12582912.0f;
    float n = shifted - 12582912.0f;
    float r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return rl_from_bits(rl_bits(p) + (rl_bits(shifted) << 23));
}

/* sin x for |x| up to some thousands (minimax polynomial on half a period, as in SLEEF). */
RL_INLINE float rl_sin(float x) {
    float shifted = x * 0.318309886183790672f + 12582912.0f;
    float n = shifted - 12582912.0f;
    float r = x - n * 3.140625f;
    r = r - n * 9.67502593994140625e-4f;
    r = r - n * 1.509957990978376432e-7f;
    float s = r * r;
    float p = 2.6083159809786593541503e-06f;
    p = p * s - 0.0001981069071916663322258f;
    p = p * s + 0.00833307858556509017944336f;
    p = p * s - 0.166666597127914428710938f;
    p = p * s * r + r;
    return rl_from_bits(rl_bits(p) ^ (rl_bits(shifted) << 31));
}

/* ln x for normal x above 0 (Cephes). */
RL_INLINE float rl_log(float x) {
    uint32_t bits = rl_bits(x);
    int32_t exponent = (int32_t)(bits - 0x3f3504f3u) >> 23; /* mantissa in [sqrt 1/2, sqrt 2) */
    float m = rl_from_bits(bits - ((uint32_t)exponent << 23)) - 1.0f;
    float e = (float)exponent, z = m * m;
    float p = 7.0376836292e-2f;
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    p = p * m * z;
    p = p + e * -2.12194440e-4f - 0.5f * z;
    return m + p + e * 0.693359375f;
}

RL_INLINE int rl_finite(float x) { return (rl_bits(x) & 0x7f800000u) != 0x7f800000u; }

/* The sum of a panel's lanes, in a fixed order. */
RL_INLINE float rl_fold(const rl_vector *lanes) {
    typedef float quarter __attribute__((vector_size(16), aligned(4), may_alias));
    float all[RL_PANEL];
    RL_UNROLL for (int v = 0; v < RL_VECTORS; v++) RL_STORE(all + v * RL_LANES) = lanes[v];
    const quarter *part = (const quarter *)all;
    quarter sum = (part[0] + part[2]) + (part[1] + part[3]);
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

/* The sum of a padded row, in an order that does not depend on where it lies. */
RL_INLINE float rl_sum(const float *row, int padded) {
    rl_vector lane[RL_VECTORS] = {{0}};
    for (int i = 0; i < padded; i += RL_PANEL)
        RL_UNROLL for (int v = 0; v < RL_VECTORS; v++) lane[v] += RL_LOAD(row + i + v * RL_LANES);
    return rl_fold(lane);
}

RL_INLINE float rl_sum_squares(const float *row, int padded, float center) {
    rl_vector lane[RL_VECTORS] = {{0}};
    for (int i = 0; i < padded; i += RL_PANEL) RL_UNROLL for (int v = 0; v < RL_VECTORS; v++) {
            rl_vector c = RL_LOAD(row + i + v * RL_LANES) - center;
            lane[v] += c * c;
        }
    return rl_fold(lane);
}

/* |a - b|^2 of padded rows. */
RL_INLINE float rl_distance(const float *a, const float *b, int padded) {
    rl_vector lane[RL_VECTORS] = {{0}};
    for (int i = 0; i < padded; i += RL_PANEL) RL_UNROLL for (int v = 0; v < RL_VECTORS; v++) {
            rl_vector c = RL_LOAD(a + i + v * RL_LANES) - RL_LOAD(b + i + v * RL_LANES);
            lane[v] += c * c;
        }
    return rl_fold(lane);
}

RL_INLINE float rl_larger(float a, float b) { return a > b ? a : b; }

RL_INLINE float rl_most(const float *row, int padded) {
    float lane[RL_PANEL];
    for (int l = 0; l < RL_PANEL; l++) lane[l] = row[l];
    for (int i = RL_PANEL; i < padded; i += RL_PANEL)
        for (int l = 0; l < RL_PANEL; l++) lane[l] = rl_larger(row[i + l], lane[l]);
    RL_UNROLL for (int l = 0; l < 8; l++) lane[l] = rl_larger(lane[l], lane[l + 8]);
    RL_UNROLL for (int l = 0; l < 4; l++) lane[l] = rl_larger(lane[l], lane[l + 4]);
    return rl_larger(rl_larger(lane[0], lane[2]), rl_larger(lane[1], lane[3]));
}

/* Layer norm of a row of `width` numbers whose padding is zeros, and stays zeros. */
RL_INLINE void rl_norm(float *restrict y, const float *restrict x, const float *restrict weight,
                       const float *restrict bias, int width, int padded) {
    float mean = rl_sum(x, padded) / (float)width;
    float squares = rl_sum_squares(x, padded, mean) - (float)(padded - width) * mean * mean;
    float scale = 1.0f / __builtin_sqrtf(squares / (float)width + 1e-5f);
    y = RL_BLOCK(y), x = RL_BLOCK(x), weight = RL_BLOCK(weight), bias = RL_BLOCK(bias);
    RL_SIMD for (int i = 0; i < padded; i++) y[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}
