/* A libFuzzer target: arbitrary tensors put into streams of a valid model, between steps.
 *
 *     clang -fsanitize=fuzzer,address,undefined fuzz_state.c LIBRARY -lm
 *     RILLET_WEIGHTS=weights.safetensors ./a.out
 *
 * The input is read as a program: a byte says what is done, those after it with what. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blocks.h"

enum { ROWS = 20, STREAMS = 2, MOST = 200 };

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static rillet_model *model;
static rillet_state *streams[STREAMS];
static int undoable[STREAMS]; /* whether a step can be undone */
static void *scratch;
static float *logits;
static size_t tensors;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    size_t bytes, length = 0;
    char message[RILLET_MESSAGE];
    const char *path = getenv("RILLET_WEIGHTS");
    unsigned char *weights = path == NULL ? NULL : read_file(path, &length);
    if (rillet_model_size(weights, length, &bytes, message) != RILLET_OK) {
        fprintf(stderr, "RILLET_WEIGHTS: %s\n", message);
        exit(2);
    }
    model = block(bytes);
    rillet_model_load(model, bytes, weights, length, message);
    free(weights);
    while (rillet_state_tensor(model, tensors) != NULL) tensors++;
    for (int s = 0; s < STREAMS; s++) streams[s] = block(rillet_state_size(model));
    scratch = block(rillet_scratch_size(model, ROWS));
    logits = malloc((size_t)rillet_vocabulary(model) * 4);
    return 0;
}

typedef struct {
    const uint8_t *at, *end;
} program;

static unsigned take(program *p) { return p->at < p->end ? *p->at++ : 0; }

/* Fills a tensor: with a few bytes again and again, or with its own values and a few changed. */
static void set(program *p, int stream, unsigned how) {
    const rillet_tensor *tensor = rillet_state_tensor(model, take(p) % tensors);
    size_t index = 0, size = tensor->type == RILLET_INT64 ? 8 : 4;
    while (rillet_state_tensor(model, index) != tensor) index++;
    unsigned char *values = malloc(tensor->bytes ? tensor->bytes : 1), pattern[8];
    int before = how & 1;
    if (how & 2) {
        rillet_state_get(model, streams[stream], before, index, values);
        size_t place = (take(p) | (size_t)take(p) << 8) * size;
        for (size_t i = 0; i < size && tensor->bytes; i++)
            values[(place + i) % tensor->bytes] = (unsigned char)take(p);
    } else {
        for (size_t i = 0; i < size; i++) pattern[i] = (unsigned char)take(p);
        for (size_t i = 0; i < tensor->bytes; i++) values[i] = pattern[i % size];
    }
    rillet_state_set(model, streams[stream], before, index, values);
    free(values);
}

static void read_rows(program *p, int stream, int rows, int both) {
    rillet_state *states[ROWS];
    int32_t tokens[ROWS];
    float learn[ROWS], *out[ROWS];
    for (int r = 0; r < rows; r++) {
        unsigned byte = take(p);
        states[r] = streams[both ? r % STREAMS : stream];
        tokens[r] = (int32_t)(byte % (unsigned)rillet_vocabulary(model));
        learn[r] = byte & 128 ? 0.5f : byte & 64 ? 0 : 1;
        out[r] = byte & 32 ? NULL : logits;
    }
    rillet_read(model, (size_t)rows, states, tokens, learn, out, scratch);
    for (int s = 0; s < STREAMS; s++)
        if (both || s == stream) undoable[s] = rows > both;
}

static void back(int stream) {
    if (!undoable[stream]) return;
    rillet_state_back(model, streams[stream]);
    undoable[stream] = 0;
}

static void fork_stream(int from) {
    memcpy(streams[!from], streams[from], rillet_state_size(model));
    undoable[!from] = undoable[from];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    program p = {data, data + size};
    for (int s = 0; s < STREAMS; s++) rillet_state_reset(model, streams[s]), undoable[s] = 0;
    for (int i = 0; i < MOST && p.at < p.end; i++) {
        unsigned byte = take(&p);
        int stream = byte >> 7;
        switch (byte & 7) {
        case 0: back(stream); break;
        case 1: fork_stream(stream); break;
        case 2: read_rows(&p, stream, 1 + (byte >> 3) % ROWS, 0); break;
        case 3: read_rows(&p, stream, STREAMS + (byte >> 3) % (ROWS - STREAMS), 1); break;
        case 4: read_rows(&p, stream, 1, 0); break;
        default: set(&p, stream, byte >> 3 & 3); break;
        }
    }
    return 0;
}
