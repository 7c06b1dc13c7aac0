/* A libFuzzer target: any bytes as a file of weights. What loads is stepped, in every way there is.
 *
 *     clang -fsanitize=fuzzer,address,undefined fuzz_weights.c LIBRARY -lm
 */
#include <stdlib.h>
#include <string.h>

#include "blocks.h"

enum { ROWS = 6, STEPS = 20, LARGEST = 1 << 22 };

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);

/* Copies every tensor to another stream; what a stream holds must go in. */
static void copy_state(const rillet_model *model, const rillet_state *from, rillet_state *to) {
    const rillet_tensor *tensor;
    for (size_t i = 0; (tensor = rillet_state_tensor(model, i)) != NULL; i++)
        for (int before = 0; before < 2; before++) {
            void *values = malloc(tensor->bytes ? tensor->bytes : 1);
            rillet_state_get(model, from, before, i, values);
            if (rillet_state_set(model, to, before, i, values) != RILLET_OK) abort();
            free(values);
        }
}

static void run(const rillet_model *model) {
    size_t bytes = rillet_state_size(model), scratch_bytes = rillet_scratch_size(model, ROWS);
    int32_t vocabulary = rillet_vocabulary(model), tokens[ROWS];
    if (bytes > LARGEST || scratch_bytes > LARGEST) return;
    rillet_state *first = block(bytes), *second = block(bytes);
    rillet_state *one[ROWS] = {first, first, first, first, first, first};
    rillet_state *two[ROWS] = {first, second, first, second, second, first};
    void *scratch = block(scratch_bytes);
    float *logits = malloc((size_t)vocabulary * 4), *out[ROWS] = {logits, NULL, logits, logits};
    float learn[ROWS] = {1, 0, 0.5f, 1, 0, 1};
    rillet_state_reset(model, first);
    rillet_state_reset(model, second);
    for (int i = 0; i < STEPS; i++) {
        for (int r = 0; r < ROWS; r++) tokens[r] = (int32_t)((i * 7 + r * 3) % vocabulary);
        rillet_read(model, 1, &first, tokens, learn + i % ROWS, &logits, scratch);
        if (i % 5 == 1) rillet_state_back(model, first);
        if (i % 5 == 2) rillet_read(model, ROWS, one, tokens, NULL, out, scratch);
        if (i % 5 == 3) rillet_read(model, ROWS, two, tokens, learn, out, scratch);
    }
    copy_state(model, first, second);
    rillet_read(model, ROWS, two, tokens, NULL, out, scratch);
    free(first), free(second), free(scratch), free(logits);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t bytes;
    char message[RILLET_MESSAGE] = "";
    if (rillet_model_size(data, size, &bytes, message) != RILLET_OK) {
        if (memchr(message, 0, sizeof message) == NULL || !*message) abort();
        return 0;
    }
    if (bytes > LARGEST) return 0;
    rillet_model *model = block(bytes);
    if (rillet_model_load(model, bytes, data, size, message) == RILLET_OK) run(model);
    free(model);
    return 0;
}

/* Mutates the header alone, and corrects its length, so that the data stay in place. */
static size_t mutate_header(uint8_t *data, size_t size, size_t most, size_t header) {
    size_t rest = size - 8 - header, room = most - 8 - rest;
    uint8_t *text = malloc(room ? room : 1);
    memcpy(text, data + 8, header);
    size_t length = LLVMFuzzerMutate(text, header, room);
    memmove(data + 8 + length, data + 8 + header, rest);
    memcpy(data + 8, text, length);
    for (int i = 0; i < 8; i++) data[i] = (uint8_t)((uint64_t)length >> 8 * i);
    free(text);
    return 8 + length + rest;
}

/* Puts an extreme number in place of one that is a weight. */
static void mutate_value(uint8_t *data, size_t count, unsigned seed) {
    static const uint32_t bits[] = {0,          0x80000000, 1,          0xffffffff, 0x3f800000,
                                    0x7f7fffff, 0xff7fffff, 0x00800000, 0x7f800000, 0x7fc00000};
    size_t at = seed / 16 % count;
    memcpy(data + at * 4, bits + seed / 7 % (sizeof bits / sizeof *bits), 4);
}

/* Puts another digit in place of one: a plausible size or offset. */
static void mutate_digit(uint8_t *text, size_t length, unsigned seed) {
    for (size_t at = seed / 16 % length, i = 0; i < length; i++, at = (at + 1) % length)
        if (text[at] >= '0' && text[at] <= '9') {
            text[at] = (uint8_t)('0' + seed / 7 % 10);
            return;
        }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed) {
    uint64_t header = 0;
    for (size_t i = 8; i-- > 0 && size >= 8;) header = header << 8 | data[i];
    if (size < 16 || header == 0 || header > size - 8 || most < size)
        return LLVMFuzzerMutate(data, size, most);
    size_t values = (size - 8 - (size_t)header) / 4;
    switch (seed % 4) {
    case 0: return LLVMFuzzerMutate(data, size, most);
    case 1: return mutate_header(data, size, most, (size_t)header);
    case 2: mutate_digit(data + 8, (size_t)header, seed); return size;
    default:
        if (values) mutate_value(data + 8 + header, values, seed);
        return size;
    }
}
