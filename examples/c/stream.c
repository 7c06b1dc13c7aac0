/* Stream text from a bundle's two files, as an application would that embeds the library.
 *
 *     make build/librillet.a
 *     cc -std=c11 -Inative/include examples/c/stream.c build/librillet.a -lm -o stream
 *     ./stream models/shakespeare-nano "ROMEO:" 200
 */
#include <rillet.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The library allocates nothing: it says how much it needs, and gets it here. */
static void *block(size_t bytes) {
    size_t whole = (bytes + RILLET_ALIGN - 1) / RILLET_ALIGN * RILLET_ALIGN;
    void *memory = aligned_alloc(RILLET_ALIGN, whole ? whole : RILLET_ALIGN);
    if (memory == NULL) {
        fputs("there is no memory left\n", stderr);
        exit(1);
    }
    return memory;
}

static void *read_file(const char *folder, const char *name, size_t *length) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        perror(path);
        exit(1);
    }
    long end = ftell(file);
    if (end < 0 || end == LONG_MAX) { /* a folder */
        fprintf(stderr, "%s is not a file\n", path);
        exit(1);
    }
    *length = (size_t)end;
    rewind(file);
    void *data = block(*length);
    if (fread(data, 1, *length, file) != *length) {
        perror(path);
        exit(1);
    }
    fclose(file);
    return data;
}

static void check(rillet_status status, const char *message) {
    if (status == RILLET_OK) return;
    fprintf(stderr, "%s\n", message);
    exit(1);
}

static rillet_model *load_model(const char *folder) {
    char message[RILLET_MESSAGE];
    size_t length, bytes;
    void *file = read_file(folder, "weights.safetensors", &length);
    check(rillet_model_size(file, length, &bytes, message), message);
    rillet_model *model = block(bytes);
    check(rillet_model_load(model, bytes, file, length, message), message);
    free(file);
    return model;
}

static rillet_tokenizer *load_tokenizer(const char *folder) {
    char message[RILLET_MESSAGE];
    size_t length, bytes;
    void *file = read_file(folder, "tokenizer.json", &length);
    check(rillet_tokenizer_size(file, length, &bytes, message), message);
    rillet_tokenizer *tokenizer = block(bytes);
    check(rillet_tokenizer_load(tokenizer, bytes, file, length, message), message);
    free(file);
    return tokenizer;
}

/* Encodes a prompt and reads it, one token a call; `logits` then predict what comes next. */
static void read_prompt(const rillet_model *model, const rillet_tokenizer *tokenizer,
                        rillet_state *state, const char *prompt, float *logits, void *scratch) {
    size_t length = strlen(prompt);
    int32_t *tokens = block((length + 1) * sizeof *tokens);
    void *work = block(rillet_encode_scratch(tokenizer, prompt, length));
    size_t count = rillet_encode(tokenizer, prompt, length, tokens, work);
    if (count == 0) tokens[count++] = 0; /* a stream begins with some token */
    for (size_t i = 0; i < count; i++)
        check(rillet_read(model, 1, &state, &tokens[i], NULL, &logits, scratch),
              "a log-probability is not finite");
    free(tokens);
    free(work);
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fputs("usage: stream BUNDLE PROMPT TOKENS\n", stderr);
        return 2;
    }
    rillet_model *model = load_model(argv[1]);
    rillet_tokenizer *tokenizer = load_tokenizer(argv[1]);
    if (rillet_vocabulary(model) != rillet_tokenizer_vocabulary(tokenizer)) {
        fputs("the tokenizer is of another model\n", stderr);
        return 1;
    }
    rillet_state *state = block(rillet_state_size(model));
    void *scratch = block(rillet_scratch_size(model, 1));
    float *logits = block((size_t)rillet_vocabulary(model) * sizeof *logits);
    char *text = block(rillet_decode_size(tokenizer));
    rillet_state_reset(model, state);
    read_prompt(model, tokenizer, state, argv[2], logits, scratch);

    rillet_sampling sampling = {.temperature = 0.8, .top_p = 1};
    rillet_random random;
    rillet_decoder decoder = {.exact = rillet_tokenizer_reads_any_bytes(tokenizer)};
    float forget = 0; /* what is written is not stored in the memory */
    rillet_random_seed(&random, 1);
    for (int i = 0; i < atoi(argv[3]); i++) {
        int32_t token =
            rillet_draw(model, &sampling, logits, rillet_random_next(&random), scratch);
        check(rillet_read(model, 1, &state, &token, &forget, &logits, scratch),
              "a log-probability is not finite");
        fwrite(text, 1, rillet_decode(tokenizer, &decoder, token, text), stdout);
        fflush(stdout);
    }
    putchar('\n');
    free(model), free(tokenizer), free(state), free(scratch), free(logits), free(text);
    return 0;
}
