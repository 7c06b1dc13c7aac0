/* Calls that are wrong, or ask for nothing, and what they return.
 *
 *     misuse WEIGHTS
 *
 * It prints the first line that fails. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blocks.h"

#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            printf("line %d: %s\n", __LINE__, #what);                                              \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static rillet_model *load(const char *path) {
    size_t length, bytes;
    char message[RILLET_MESSAGE];
    char *weights = read_file(path, &length);
    CHECK(rillet_model_size(weights, length, &bytes, message) == RILLET_OK);
    rillet_model *model = block(bytes);
    CHECK(rillet_model_load(model, bytes, weights, length, message) == RILLET_OK);
    free(weights);
    return model;
}

/* Reading without room for predictions stores and steps all the same. */
static void reads_without_predictions(const rillet_model *model, void *scratch) {
    size_t bytes = rillet_state_size(model), room = (size_t)rillet_vocabulary(model) * 4;
    rillet_state *one = block(bytes), *other = block(bytes), *states[] = {one, one, one};
    float *first = malloc(room), *second = malloc(room), *none[] = {NULL, NULL, NULL};
    int32_t tokens[] = {1, 2, 3};
    rillet_state_reset(model, one);
    rillet_state_reset(model, other);
    CHECK(rillet_read(model, 3, states, tokens, NULL, NULL, scratch) == RILLET_OK);
    states[0] = states[1] = states[2] = other;
    CHECK(rillet_read(model, 3, states, tokens, NULL, none, scratch) == RILLET_OK);
    CHECK(rillet_read(model, 1, &one, tokens, NULL, &first, scratch) == RILLET_OK);
    CHECK(rillet_read(model, 1, &other, tokens, NULL, &second, scratch) == RILLET_OK);
    CHECK(memcmp(first, second, room) == 0);
    free(one), free(other), free(first), free(second);
}

static void draws_only_what_it_can(const rillet_model *model, void *scratch) {
    const rillet_sampling wrong[] = {
        {-1, 1, 0, 0},  {NAN, 1, 0, 0},  {HUGE_VAL, 1, 0, 0}, {1, -0.1, 0, 0}, {1, 1.1, 0, 0},
        {1, NAN, 0, 0}, {1, 1, -0.1, 0}, {1, 1, 1.1, 0},      {1, 1, NAN, 0},  {1, 1, 0, -1},
    };
    const rillet_sampling all = {.temperature = 1}, same = {1, 1, 0, 0}, greedy = {0};
    rillet_state *state = block(rillet_state_size(model));
    float *logits = malloc((size_t)rillet_vocabulary(model) * 4);
    int32_t token = 1, drawn;
    size_t written;
    rillet_state_reset(model, state);
    CHECK(rillet_read(model, 1, &state, &token, NULL, &logits, scratch) == RILLET_OK);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        double uniform = 0.5;
        CHECK(rillet_draw(model, wrong + i, logits, uniform, scratch) == -1);
        CHECK(rillet_generate(model, 1, 1, &state, &logits, wrong + i, &uniform, NULL, NULL, -1,
                              &drawn, NULL, &written, scratch) == RILLET_VALUE);
        CHECK(written == 0 && rillet_state_clock(state) == 1);
    }
    int differ = 0;
    for (double uniform = 0; uniform < 1; uniform += 0.01) {
        drawn = rillet_draw(model, &all, logits, uniform, scratch);
        CHECK(drawn >= 0 && drawn == rillet_draw(model, &same, logits, uniform, scratch));
        differ |= drawn != rillet_draw(model, &greedy, logits, uniform, scratch);
    }
    CHECK(differ);
    free(state), free(logits);
}

/* A file that cannot be changed is not, and one that does not lie well is refused. */
static void restores_only_what_it_may(const rillet_model *model) {
    rillet_saved saved = {
        .weights_sha256 = "a", .tokenizer_sha256 = "b", .precision = "fp32", .learn = "read"};
    char message[RILLET_MESSAGE];
    rillet_state *state = block(rillet_state_size(model));
    saved.seen = block((size_t)rillet_vocabulary(model));
    unsigned char *seen = (unsigned char *)(uintptr_t)saved.seen;
    rillet_state_reset(model, state);
    size_t bytes = rillet_save_size(model, &saved);
    char *file = block(bytes), *before = malloc(bytes), *shifted = block(bytes + 1);
    rillet_save(model, state, &saved, file);
    memcpy(before, file, bytes);
    memcpy(shifted + 1, file, bytes);
    CHECK(rillet_restore_constant(model, state, &saved, file, bytes, NULL, 0, message) ==
          RILLET_DAMAGED);
    CHECK(strstr(message, "too long for this device") != NULL);
    CHECK(rillet_restore_constant(model, state, &saved, file, bytes, NULL, bytes, message) ==
          RILLET_DAMAGED);
    CHECK(memcmp(file, before, bytes) == 0);
    CHECK(rillet_restore(model, state, &saved, shifted + 1, bytes, message) == RILLET_DAMAGED);
    CHECK(strstr(message, "not aligned") != NULL);
    CHECK(rillet_restore(model, state, &saved, file, bytes, message) == RILLET_OK);
    free(state), free(seen), free(file), free(before), free(shifted);
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    rillet_model *model = load(argv[1]);
    void *scratch = block(rillet_scratch_size(model, 3));
    reads_without_predictions(model, scratch);
    draws_only_what_it_can(model, scratch);
    restores_only_what_it_may(model);
    free(model), free(scratch);
    return 0;
}
