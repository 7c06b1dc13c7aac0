/* Drawing a token from log-probabilities, step for step as runtime/sampling/sampler.py: in double
 * precision, sums in the same order, ties to the lower token. */
#include <math.h>
#include <string.h>

#include "draw.h"
#include "model.h"

enum { UNDERFLOW = -1000 }; /* where the exponential is zero, and far from overflow */

/* The scratch of a draw: weights, and tokens in two orders. */
typedef struct {
    double *weight, *other;
    int32_t *order, *merged;
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

/* Merges two sorted runs of tokens; of equal weights, the earlier run's comes first. */
static void merge(const double *weight, const int32_t *run, int64_t middle, int64_t end,
                  int32_t *out) {
    int64_t i = 0, j = middle;
    while (i < middle && j < end)
        if (weight[run[j]] > weight[run[i]])
            *out++ = run[j++];
        else
            *out++ = run[i++];
    while (i < middle) *out++ = run[i++];
    while (j < end) *out++ = run[j++];
}

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Sorts tokens from the largest weight to the smallest, equal ones as they were; returns where the
 * result lies. */
static const int32_t *sort(const double *weight, int32_t *order, int32_t *spare, int64_t count) {
    for (int64_t size = 1; size < count; size *= 2) {
        for (int64_t at = 0; at < count; at += 2 * size)
            merge(weight, order + at, smaller(size, count - at), smaller(2 * size, count - at),
                  spare + at);
        int32_t *swapped = order;
        order = spare;
        spare = swapped;
    }
    return order;
}

/* Leaves only the likeliest tokens that reach a share of the sum. */
static void keep_nucleus(rl_draft *d, int32_t count, double share) {
    int32_t kept = 0;
    for (int32_t i = 0; i < count; i++)
        if (d->weight[i] > 0) d->order[kept++] = i;
    const int32_t *order = sort(d->weight, d->order, d->merged, kept);
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
    if (how->top_p < 1) keep_nucleus(d, count, how->top_p);
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

int32_t rillet_draw(const rillet_model *model, const rillet_sampling *sampling, const float *logits,
                    double uniform, void *scratch) {
    int32_t count = model->vocabulary;
    if (!all_finite(logits, count)) return -1;
    if (sampling->temperature <= 0) return likeliest(logits, count);
    rl_draft draft = divide(count, scratch);
    weigh(sampling, logits, count, &draft);
    return invert(draft.weight, count, uniform);
}
