/* Drawing a token from log-probabilities, step for step as runtime/sampling/sampler.py: in double
 * precision, sums in the same order, ties to the lower token. */
#include <math.h>
#include <string.h>

#include "draw.h"
#include "model.h"
#include "sort.h"

enum { UNDERFLOW = -1000 }; /* where the exponential is zero, and far from overflow */

/* The scratch of a draw: weights, and tokens in two orders. */
typedef struct {
    double *weight, *other;
    int32_t *order, *sorted;
} rl_draft;

size_t rl_draw_scratch(int32_t vocabulary) {
    return RL_UP((size_t)vocabulary * 24, (size_t)RILLET_ALIGN);
}

static rl_draft divide(int32_t vocabulary, void *scratch) {
    double *weight = scratch;
    int32_t *order = (int32_t *)(weight + 2 * (size_t)vocabulary);
    rl_draft draft = {weight, weight + vocabulary, order, order + vocabulary};
    return draft;
}

/* By the bits: the compiler takes for granted that no number is infinite. */
static int all_finite(const float *logits, int32_t count) {
    uint32_t bits, worst = 0;
    for (int32_t i = 0; i < count; i++) {
        memcpy(&bits, logits + i, 4);
        bits &= UINT32_C(0x7f800000);
        if (bits > worst) worst = bits;
    }
    return worst != UINT32_C(0x7f800000);
}

static int32_t likeliest(const float *logits, int32_t count) {
    int32_t best = 0;
    for (int32_t i = 1; i < count; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

/* The k-th largest of some numbers, which it moves about: Hoare's selection. */
static double kth_largest(double *values, int32_t count, int32_t k) {
    int32_t low = 0, high = count - 1, wanted = k - 1;
    while (low < high) {
        double pivot = values[low + (high - low) / 2];
        int32_t i = low, j = high;
        while (i <= j) {
            while (values[i] > pivot) i++;
            while (values[j] < pivot) j--;
            if (i > j) break;
            double swapped = values[i];
            values[i++] = values[j];
            values[j--] = swapped;
        }
        if (wanted > j && wanted < i) break;
        if (wanted <= j)
            high = j;
        else
            low = i;
    }
    return values[wanted];
}

/* Whether a token comes before another: the larger weight, of equal ones the lower token. */
static int is_before(const void *weight, const void *a, const void *b) {
    int32_t first = *(const int32_t *)a, second = *(const int32_t *)b;
    double one = ((const double *)weight)[first], other = ((const double *)weight)[second];
    return one > other || (one == other && first < second);
}

/* Added to a sum of 1 and more, a weight below 2^-54 changes no bit. */
enum { OCTAVES = 54, MANTISSA = 52 };
static const double negligible = 1.0 / (INT64_C(1) << OCTAVES);

/* The upper bits of a weight's distance from 1, which order weights as they are. */
static int32_t group_of(double weight, int shift) {
    uint64_t bits;
    memcpy(&bits, &weight, sizeof bits);
    return (int32_t)((UINT64_C(0x3ff0000000000000) - bits) >> shift);
}

/* Sorts the first tokens of `order` from the largest weight to the smallest, equal ones as they
 * were, by groups that mostly hold one or two. There is room for two groups a token. */
static const int32_t *sort(rl_draft *d, int32_t count, int32_t vocabulary) {
    int32_t groups = 2 * vocabulary, *end = (int32_t *)d->other, at = 0;
    int shift = 0;
    while ((uint64_t)OCTAVES << MANTISSA >> shift >= (uint64_t)groups) shift++;
    memset(end, 0, (size_t)groups * sizeof *end);
    for (int32_t i = 0; i < count; i++) end[group_of(d->weight[d->order[i]], shift)]++;
    for (int32_t g = 0; g < groups; g++) {
        int32_t size = end[g];
        end[g] = at;
        at += size;
    }
    for (int32_t i = 0; i < count; i++) {
        int32_t token = d->order[i];
        d->sorted[end[group_of(d->weight[token], shift)]++] = token;
    }
    for (int32_t g = 0, from = 0; g < groups; from = end[g++])
        if (end[g] - from > 1)
            rl_sort(d->sorted + from, (size_t)(end[g] - from), sizeof(int32_t), is_before,
                    d->weight);
    return d->sorted;
}

/* Leaves only the likeliest tokens that reach a share of the sum. */
static void keep_nucleus(rl_draft *d, int32_t count, double share) {
    int32_t kept = 0;
    for (int32_t i = 0; i < count; i++)
        if (d->weight[i] < negligible)
            d->weight[i] = 0;
        else
            d->order[kept++] = i;
    const int32_t *order = sort(d, kept, count);
    double total = 0, before = 0;
    for (int32_t i = 0; i < kept; i++) total += d->weight[order[i]];
    for (int32_t i = 0; i < kept; i++) {
        double weight = d->weight[order[i]], end = before + weight;
        if (end - weight >= share * total) d->weight[order[i]] = 0;
        before = end;
    }
}

/* Log-probabilities to weights: relative to the likeliest, divided by the temperature. */
static void weigh(const rillet_sampling *how, const float *logits, int32_t count, rl_draft *d) {
    double peak = logits[likeliest(logits, count)];
    for (int32_t i = 0; i < count; i++) {
        double scaled = (logits[i] - peak) / how->temperature;
        d->weight[i] = scaled > UNDERFLOW ? scaled : UNDERFLOW;
    }
    if (how->top_k > 0 && how->top_k < count) {
        memcpy(d->other, d->weight, (size_t)count * sizeof(double));
        double least = kth_largest(d->other, count, how->top_k);
        for (int32_t i = 0; i < count; i++)
            if (d->weight[i] < least) d->weight[i] = UNDERFLOW;
    }
    for (int32_t i = 0; i < count; i++)
        d->weight[i] = d->weight[i] > UNDERFLOW ? exp(d->weight[i]) : 0;
    if (how->top_p > 0 && how->top_p < 1) keep_nucleus(d, count, how->top_p);
    /* The largest weight is 1. */
    for (int32_t i = 0; how->min_p > 0 && i < count; i++)
        if (d->weight[i] < how->min_p) d->weight[i] = 0;
}

/* The token whose share of the sum contains the uniform number. */
static int32_t invert(const double *weight, int32_t count, double uniform) {
    double total = 0, end = 0;
    int32_t last = 0;
    for (int32_t i = 0; i < count; i++) total += weight[i];
    for (int32_t i = 0; i < count; i++) {
        end += weight[i];
        if (end > uniform * total) return i;
        if (weight[i] > 0) last = i;
    }
    return last; /* rounding has led past the end */
}

/* Whether a number is from 0 to another, which its bits tell: comparisons of doubles are compiled
 * for what is not NaN. */
static int is_within(double value, uint64_t most) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits << 1 == 0 || bits <= most;
}

int rl_can_draw(const rillet_sampling *how) {
    const uint64_t one = UINT64_C(0x3ff0000000000000), largest = UINT64_C(0x7fefffffffffffff);
    return is_within(how->temperature, largest) && is_within(how->top_p, one) &&
           is_within(how->min_p, one) && how->top_k >= 0;
}

int32_t rillet_draw(const rillet_model *model, const rillet_sampling *sampling, const float *logits,
                    double uniform, void *scratch) {
    int32_t count = model->vocabulary;
    if (!rl_can_draw(sampling) || !all_finite(logits, count)) return -1;
    if (sampling->temperature == 0) return likeliest(logits, count);
    rl_draft draft = divide(count, scratch);
    weigh(sampling, logits, count, &draft);
    return invert(draft.weight, count, uniform);
}
