/* Reads a valid file of weights and a stream that was saved from it, then CASES
 * damaged copies of the stream, and steps whatever is still restored.
 *
 *     hostile_saved WEIGHTS SAVED CASES IDENTITY...
 *
 * IDENTITY is what the model's bundle says: weights_sha256, tokenizer_sha256,
 * precision. It prints how many copies were restored. A sanitizer turns any
 * fault into a failure. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blocks.h"

enum { STEPS = 20 };

/* Restores a copy and reads on; what is saved again is restored again. Returns
 * whether it was. */
static int run(const rillet_model *model, char *const *identity, const char *file, size_t length,
               int again) {
    rillet_saved saved = {
        .weights_sha256 = identity[0], .tokenizer_sha256 = identity[1], .precision = identity[2]};
    char message[RILLET_MESSAGE];
    rillet_state *state = block(rillet_state_size(model));
    char *copy = malloc(length ? length : 1); /* exact, so that a read beyond it is seen */
    memcpy(copy, file, length);
    int restored = rillet_restore(model, state, &saved, copy, length, message) == RILLET_OK;
    if (restored && again) {
        size_t bytes = rillet_save_size(model, &saved);
        char *fresh = block(bytes);
        rillet_save(model, state, &saved, fresh);
        if (bytes != length || memcmp(fresh, file, length) != 0) abort();
        free(fresh);
    }
    void *scratch = block(rillet_scratch_size(model, 1));
    float *logits = malloc((size_t)rillet_vocabulary(model) * sizeof *logits);
    for (int i = 0; restored && i < STEPS; i++) {
        int32_t token = (int32_t)(draw() % (uint64_t)rillet_vocabulary(model));
        rillet_read(model, 1, &state, &token, NULL, &logits, scratch);
    }
    free(copy), free(state), free(scratch), free(logits);
    return restored;
}

/* Damages a copy in one of a few ways; returns its length. */
static size_t damage(char *file, size_t length, size_t header) {
    size_t reach = draw() % 4 ? header : length; /* mostly the header */
    switch (draw() % 4) {
    case 0: return draw() % (length + 1);
    case 1: file[draw() % reach] ^= (char)(1u << draw() % 8); break;
    case 2: file[draw() % reach] = "0123456789[]{},:\"\\"[draw() % 19]; break;
    default:
        for (int i = 0; i < 4; i++) file[draw() % reach] = (char)draw();
    }
    return length;
}

int main(int argc, char **argv) {
    if (argc != 7) return 2;
    size_t length, size, bytes, header = 0;
    char message[RILLET_MESSAGE];
    char *weights = read_file(argv[1], &length), *file = read_file(argv[2], &size);
    if (rillet_model_size(weights, length, &bytes, message) != RILLET_OK) return 2;
    rillet_model *model = block(bytes);
    if (rillet_model_load(model, bytes, weights, length, message) != RILLET_OK) return 2;
    memcpy(&header, file, 8);
    if (!run(model, argv + 4, file, size, 1)) return 1;
    int restored = 0;
    for (int i = 0; i < atoi(argv[3]); i++) {
        char *copy = malloc(size);
        memcpy(copy, file, size);
        size_t kept = damage(copy, size, header);
        restored += run(model, argv + 4, copy, kept, 0);
        free(copy);
    }
    printf("%d\n", restored);
    free(weights), free(file), free(model);
    return 0;
}
