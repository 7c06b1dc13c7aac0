/* Reads a valid tokenizer file, then CASES damaged copies of it, and reads and
 * writes text with whatever still loads.
 *
 *     hostile_text FILE CASES
 *
 * It prints how many copies loaded. A sanitizer turns any fault into a failure.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blocks.h"

enum { TEXT = 300 };

/* A text of letters, spaces and some bytes of any kind. */
static size_t any_text(char *text) {
    size_t length = draw() % (TEXT + 1);
    int kind = (int)(draw() % 3);
    for (size_t i = 0; i < length; i++)
        text[i] = kind == 0   ? (char)draw()
                  : kind == 1 ? "etaoin 'sdl\n1.\xc3\xa9"[draw() % 16]
                              : 'a';
    return length;
}

static void write_text(const rillet_tokenizer *tokenizer, const int32_t *tokens, size_t count) {
    const char *strings[] = {"the", "\n\n", "aa"};
    rillet_decoder decoder = {{0}, 0, (int32_t)(draw() % 2)};
    rillet_stops *stops = block(rillet_stops_size(strings, 3));
    size_t room = rillet_decode_size(tokenizer);
    char *text = malloc(room);
    rillet_stops_begin(stops, strings, 3);
    char *shown = malloc(rillet_stops_room(stops, room));
    for (size_t i = 0; i < count; i++) {
        int32_t stopped;
        size_t length = rillet_decode(tokenizer, &decoder, tokens[i], text);
        rillet_stops_push(stops, text, length, shown, &stopped);
    }
    rillet_stops_flush(stops, shown);
    free(stops), free(text), free(shown);
}

static void read_text(const rillet_tokenizer *tokenizer) {
    char any[TEXT];
    size_t length = any_text(any), bytes;
    char *text = malloc(length ? length : 1); /* of its own, so that a read beyond it is seen */
    memcpy(text, any, length);
    int32_t *tokens = malloc((length + 1) * sizeof *tokens);
    void *scratch = block(rillet_encode_scratch(tokenizer, text, length));
    size_t count = rillet_encode(tokenizer, text, length, tokens, scratch);
    if (count > length) abort();
    for (size_t at = 0; (at = rillet_unknown(tokenizer, text, length, at, &bytes)) < length;)
        at += bytes;
    for (size_t i = 0; i < count; i++)
        if (rillet_token(tokenizer, tokens[i], &bytes) == NULL) abort();
    write_text(tokenizer, tokens, count);
    free(text), free(tokens), free(scratch);
}

static int run(const char *file, size_t length) {
    size_t bytes;
    char message[RILLET_MESSAGE];
    if (rillet_tokenizer_size(file, length, &bytes, message) != RILLET_OK) return 0;
    rillet_tokenizer *tokenizer = block(bytes);
    int loads = rillet_tokenizer_load(tokenizer, bytes, file, length, message) == RILLET_OK;
    for (int i = 0; loads && i < 3; i++) read_text(tokenizer);
    free(tokenizer);
    return loads;
}

/* Damages a copy in one of a few ways; returns its length. */
static size_t damage(char *file, size_t length) {
    size_t at = draw() % length;
    switch (draw() % 5) {
    case 0: return draw() % (length + 1);
    case 1: file[at] = (char)draw(); break;
    case 2: file[at] = "0123456789[]{},:\"\\ untf"[draw() % 23]; break;
    case 3: /* a piece in place of another */
        memmove(file + at, file + draw() % (length - at), draw() % 20 % (length - at));
        break;
    default: /* another digit in place of a digit */
        for (; at < length; at++)
            if (file[at] >= '0' && file[at] <= '9') {
                file[at] = (char)('0' + draw() % 10);
                break;
            }
    }
    return length;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    size_t length;
    char *file = read_file(argv[1], &length);
    if (!run(file, length)) return 1;
    int loaded = 0;
    for (int i = 0; i < atoi(argv[2]); i++) {
        char *copy = malloc(length);
        memcpy(copy, file, length);
        size_t kept = damage(copy, length);
        char *exact = malloc(kept ? kept : 1);
        memcpy(exact, copy, kept);
        free(copy);
        loaded += run(exact, kept);
        free(exact);
    }
    printf("%d\n", loaded);
    free(file);
    return 0;
}
