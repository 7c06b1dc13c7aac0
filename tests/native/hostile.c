/* Reads a valid file of weights, then CASES damaged copies of it, and steps whatever still loads.
 *
 *     hostile FILE CASES
 *
 * It prints how many copies loaded. A sanitizer turns any fault into a failure. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blocks.h"

enum { STEPS = 40, LARGEST = 1 << 26 };

/* Copies every tensor out of a state and into another, then steps both: they must agree. */
static int travels(const rillet_model *model, rillet_state *state, void *scratch) {
    int32_t vocabulary = rillet_vocabulary(model), token = 0;
    rillet_state *copy = block(rillet_state_size(model));
    float *first = malloc((size_t)vocabulary * 4), *second = malloc((size_t)vocabulary * 4);
    rillet_state_reset(model, copy);
    const rillet_tensor *tensor;
    for (size_t i = 0; (tensor = rillet_state_tensor(model, i)) != NULL; i++) {
        void *values = malloc(tensor->bytes ? tensor->bytes : 1);
        rillet_state_get(model, state, 0, i, values);
        rillet_state_set(model, copy, 0, i, values);
        rillet_state_get(model, state, 1, i, values);
        rillet_state_set(model, copy, 1, i, values);
        free(values);
    }
    rillet_read(model, 1, &state, &token, NULL, &first, scratch);
    rillet_read(model, 1, &copy, &token, NULL, &second, scratch);
    int same = memcmp(first, second, (size_t)vocabulary * 4) == 0;
    free(first), free(second), free(copy);
    return same;
}

/* Draws and reads tokens with every option; returns whether all of them exist. */
static int generates(const rillet_model *model, rillet_state *state, float *logits) {
    void *scratch = block(rillet_scratch_size(model, 1));
    int32_t tokens[STEPS] = {0}, vocabulary = rillet_vocabulary(model);
    rillet_sampling sampling = {0.9, 0.8, 0.01, vocabulary / 2};
    rillet_random random;
    size_t written;
    rillet_random_seed(&random, draw());
    rillet_generate(model, 1, STEPS, &state, &logits, &sampling, NULL, &random, NULL, -1, tokens,
                    NULL, &written, scratch);
    free(scratch);
    for (int i = 0; i < STEPS; i++)
        if (tokens[i] < 0 || tokens[i] >= vocabulary) return 0;
    return written <= STEPS;
}

static int step(const rillet_model *model, int *same) {
    size_t bytes = rillet_state_size(model);
    int32_t vocabulary = rillet_vocabulary(model);
    if (bytes > LARGEST || rillet_scratch_size(model, STEPS) > LARGEST) return 0;
    rillet_state *state = block(bytes), *states[STEPS];
    void *scratch = block(rillet_scratch_size(model, STEPS));
    float *logits = malloc((size_t)vocabulary * 4), *outputs[STEPS] = {logits};
    int32_t tokens[STEPS];
    rillet_state_reset(model, state);
    for (int i = 0; i < STEPS; i++) {
        states[i] = state;
        tokens[i] = (int32_t)(draw() % (uint64_t)vocabulary);
        rillet_read(model, 1, &state, tokens + i, NULL, &logits, scratch);
    }
    rillet_read(model, STEPS, states, tokens, NULL, outputs, scratch);
    rillet_state_back(model, state);
    *same = travels(model, state, scratch) && generates(model, state, logits);
    free(state), free(scratch), free(logits);
    return 1;
}

/* Loads and steps a file; returns whether it loads. */
static int run(const unsigned char *file, size_t length, int *same) {
    size_t bytes;
    char message[RILLET_MESSAGE];
    if (rillet_model_size(file, length, &bytes, message) != RILLET_OK) return 0;
    if (bytes > LARGEST) return 0;
    rillet_model *model = block(bytes);
    int loads = rillet_model_load(model, bytes, file, length, message) == RILLET_OK;
    if (loads) step(model, same);
    free(model);
    return loads;
}

/* Damages a copy in one of a few ways; returns its length. */
static size_t damage(unsigned char *file, size_t length, size_t header) {
    size_t reach = draw() % 4 ? header : length; /* mostly the header, where the sizes are */
    switch (draw() % 5) {
    case 0: return draw() % (length + 1);
    case 1: file[draw() % 8] ^= (unsigned char)(1u << draw() % 8); break;
    case 2: file[draw() % reach] = (unsigned char)("0123456789[]{},:\"\\"[draw() % 19]); break;
    case 3:
        for (int i = 0; i < 4; i++) file[draw() % reach] = (unsigned char)draw();
        break;
    default: /* another digit in place of a digit: a plausible size or offset */
        for (size_t at = 8 + draw() % header, i = 0; i < header; i++, at = at % header + 8)
            if (file[at] >= '0' && file[at] <= '9') {
                file[at] = (unsigned char)('0' + draw() % 10);
                break;
            }
    }
    return length;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    size_t length, header = 0;
    unsigned char *file = read_file(argv[1], &length);
    memcpy(&header, file, 8);
    int same = 0, loaded = 0, ignored;
    if (!run(file, length, &same) || !same) return 1;
    for (int i = 0; i < atoi(argv[2]); i++) {
        unsigned char *copy = malloc(length); /* of its own, so that a read beyond it is seen */
        memcpy(copy, file, length);
        size_t kept = damage(copy, length, header);
        unsigned char *exact = malloc(kept ? kept : 1);
        memcpy(exact, copy, kept);
        free(copy);
        loaded += run(exact, kept, &ignored);
        free(exact);
    }
    printf("%d\n", loaded);
    free(file);
    return 0;
}
