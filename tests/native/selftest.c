/* Runs a model with this compiler's library, and prints what any other must print too.
 *
 *     selftest FILE STEPS [SECONDS]
 *
 * Its first line names the kernels. The second has the greedy tokens of STEPS steps, and the third
 * the sum of all log-probabilities on the way. Steps, a prefill and a batch must give the same
 * bits, and so must a copied state and one whose tensors went out and in again. With SECONDS, a
 * fourth line has microseconds a token, of a step and in a prefill: the least of many bursts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "blocks.h"

enum { CHUNK = 50, STREAMS = 5, BURST = 64 };

typedef struct {
    const rillet_model *model;
    int32_t vocabulary;
    void *scratch;
} program;

static void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static void expect(int holds, const char *what) {
    if (!holds) fail(what);
}

static rillet_model *load(const char *path) {
    size_t length, bytes;
    char message[RILLET_MESSAGE];
    unsigned char *weights = read_file(path, &length);
    if (rillet_model_size(weights, length, &bytes, message) != RILLET_OK) fail(message);
    rillet_model *model = block(bytes);
    if (rillet_model_load(model, bytes, weights, length, message) != RILLET_OK) fail(message);
    free(weights);
    return model;
}

static rillet_state *start(const program *p) {
    rillet_state *state = block(rillet_state_size(p->model));
    rillet_state_reset(p->model, state);
    return state;
}

static void step(const program *p, rillet_state *state, int32_t token, float *logits) {
    expect(rillet_read(p->model, 1, &state, &token, NULL, &logits, p->scratch) == RILLET_OK,
           "a step fails");
}

static int32_t best(const float *logits, int32_t count) {
    int32_t token = 0;
    for (int32_t i = 1; i < count; i++)
        if (logits[i] > logits[token]) token = i;
    return token;
}

/* Steps greedily; tokens[0] is read first. `all` gets every prediction. */
static double greedy(const program *p, rillet_state *state, int32_t *tokens, int steps,
                     float *all) {
    double sum = 0;
    for (int i = 0; i < steps; i++) {
        float *logits = all + (size_t)i * (size_t)p->vocabulary;
        step(p, state, tokens[i], logits);
        tokens[i + 1] = best(logits, p->vocabulary);
        for (int32_t j = 0; j < p->vocabulary; j++) sum += (double)logits[j];
    }
    return sum;
}

/* The same tokens in chunks: a prefill. */
static void check_prefill(const program *p, const int32_t *tokens, int steps, const float *all) {
    rillet_state *state = start(p), *states[CHUNK];
    float *out = malloc(CHUNK * (size_t)p->vocabulary * 4), *logits[CHUNK];
    for (int i = 0; i < CHUNK; i++) {
        states[i] = state;
        logits[i] = out + (size_t)i * (size_t)p->vocabulary;
    }
    for (int at = 0; at < steps; at += CHUNK) {
        size_t rows = (size_t)(steps - at < CHUNK ? steps - at : CHUNK);
        rillet_read(p->model, rows, states, tokens + at, NULL, logits, p->scratch);
        expect(memcmp(out, all + (size_t)at * (size_t)p->vocabulary,
                      rows * (size_t)p->vocabulary * 4) == 0,
               "a prefill differs from steps");
    }
    free(out), free(state);
}

/* Streams that are each some tokens behind the one before, in one call a step. */
static void check_batch(const program *p, const int32_t *tokens, int steps, const float *all) {
    size_t size = (size_t)p->vocabulary * 4;
    rillet_state *states[STREAMS];
    float *logits[STREAMS];
    int32_t batch[STREAMS];
    for (int s = 0; s < STREAMS; s++) {
        states[s] = start(p);
        logits[s] = malloc(size);
    }
    for (int i = 0; i < steps; i++) {
        int count = 0;
        for (int s = 0; s < STREAMS && s * 7 <= i; s++) batch[count++] = tokens[i - s * 7];
        rillet_read(p->model, (size_t)count, states, batch, NULL, logits, p->scratch);
        for (int s = 0; s < count; s++)
            expect(memcmp(logits[s], all + (size_t)(i - s * 7) * (size_t)p->vocabulary, size) == 0,
                   "a batch differs from steps");
    }
    for (int s = 0; s < STREAMS; s++) free(states[s]), free(logits[s]);
}

static void copy_tensors(const program *p, const rillet_state *from, rillet_state *to, int before) {
    const rillet_tensor *tensor;
    for (size_t i = 0; (tensor = rillet_state_tensor(p->model, i)) != NULL; i++) {
        void *values = malloc(tensor->bytes ? tensor->bytes : 1);
        rillet_state_get(p->model, from, before, i, values);
        expect(rillet_state_set(p->model, to, before, i, values) == RILLET_OK,
               "a tensor that came out does not go in");
        free(values);
    }
}

/* A stream goes on alike as a copy, as tensors, and after a step that was undone. */
static void check_states(const program *p, rillet_state *state, int32_t token) {
    size_t size = (size_t)p->vocabulary * 4;
    float *expected = malloc(size), *logits = malloc(size);
    rillet_state *copy = start(p), *tensors = start(p);
    memcpy(copy, state, rillet_state_size(p->model));
    copy_tensors(p, state, tensors, 0);
    copy_tensors(p, state, tensors, 1);
    step(p, state, token, expected);
    step(p, copy, (token + 1) % p->vocabulary, logits);
    rillet_state_back(p->model, copy);
    step(p, copy, token, logits);
    expect(memcmp(logits, expected, size) == 0, "an undone step leaves traces");
    step(p, tensors, token, logits);
    expect(memcmp(logits, expected, size) == 0, "a state of tensors goes on differently");
    free(expected), free(logits), free(copy), free(tensors);
}

/* Microseconds a token: the least of bursts, in calls of so many rows. */
static double burst(const program *p, const int32_t *tokens, int rows, double seconds) {
    rillet_state *state = start(p), *states[BURST];
    float *out = malloc((size_t)p->vocabulary * 4), *logits[BURST];
    for (int i = 0; i < BURST; i++) states[i] = state, logits[i] = out;
    double least = 1e30;
    for (clock_t begin = clock(); (double)(clock() - begin) < seconds * CLOCKS_PER_SEC;) {
        clock_t from = clock();
        for (int at = 0; at < BURST; at += rows)
            rillet_read(p->model, (size_t)rows, states, tokens + at, NULL, logits, p->scratch);
        double took = (double)(clock() - from) / CLOCKS_PER_SEC;
        if (took < least) least = took;
    }
    free(out), free(state);
    return least / BURST * 1e6;
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    int steps = atoi(argv[2]);
    rillet_model *model = load(argv[1]);
    program p = {model, rillet_vocabulary(model), block(rillet_scratch_size(model, BURST))};
    int32_t *tokens = calloc((size_t)steps + 1, 4);
    float *all = malloc((size_t)steps * (size_t)p.vocabulary * 4);
    rillet_state *state = start(&p);
    double sum = greedy(&p, state, tokens, steps, all);
    check_prefill(&p, tokens, steps, all);
    check_batch(&p, tokens, steps, all);
    check_states(&p, state, tokens[steps]);
    puts(rillet_model_kernels(model));
    for (int i = 0; i <= steps; i++) printf(i < steps ? "%d " : "%d\n", (int)tokens[i]);
    printf("%.3f\n", sum);
    if (argc > 3) {
        double step_us = burst(&p, tokens, 1, atof(argv[3]));
        printf("%.2f %.2f\n", step_us, burst(&p, tokens, BURST, atof(argv[3])));
    }
    free(state), free(all), free(tokens), free(p.scratch), free(model);
    return 0;
}
