/* Scores, as runtime/streams/score.py. */
#include "score.h"

#include <stdlib.h>
#include <string.h>

#include "../../native/run/fail.h"

enum { ROWS = 256 };

static double characters(const char *text, size_t length) {
    double count = 0;
    for (size_t i = 0; i < length; i++) count += (text[i] & 0xc0) != 0x80;
    return count;
}

static void measure(score *result, const rillet_tokenizer *t, const char *text, size_t length) {
    size_t size;
    result->characters = characters(text, length);
    result->bytes = (double)length;
    for (size_t at = 0; (at = rillet_unknown(t, text, length, at, &size)) < length; at += size) {
        result->unknown_characters++;
        result->unknown_bytes += (double)size;
    }
}

/* The first token of a new stream, which nothing predicts, is not counted. */
static void discount(score *result, const rillet_tokenizer *t, int32_t token) {
    size_t length;
    const char *text = rillet_token(t, token, &length);
    result->characters -= characters(text, length);
    result->bytes -= (double)length;
}

static void add(score *result, const float *logits, int32_t token) {
    result->logprobs[(size_t)result->tokens++] = logits[token];
    result->nats -= (double)logits[token];
}

static void score_rows(score *result, stream *s, const int32_t *tokens, size_t count,
                       float *table) {
    rillet_state *states[ROWS];
    float learns[ROWS], *logits[ROWS];
    size_t vocabulary = (size_t)rillet_vocabulary(s->bundle->model);
    for (size_t i = 0; i < count; i++) {
        states[i] = s->state;
        learns[i] = s->learn_read;
        logits[i] = table + i * vocabulary;
    }
    if (s->has_logits)
        add(result, s->logits, tokens[0]);
    else
        discount(result, s->bundle->tokenizer, tokens[0]);
    if (rillet_read(s->bundle->model, count, states, tokens, learns, logits, s->scratch) !=
        RILLET_OK)
        fail(FAILED, "a step computed values that are not finite; begin a new stream, or restore a "
                     "saved one");
    for (size_t i = 0; i + 1 < count; i++) add(result, logits[i], tokens[i + 1]);
    memcpy(s->logits, logits[count - 1], vocabulary * sizeof *s->logits);
    s->has_logits = 1;
}

void score_text(score *result, stream *s, const char *text, size_t length) {
    const rillet_tokenizer *t = s->bundle->tokenizer;
    size_t vocabulary = (size_t)rillet_vocabulary(s->bundle->model);
    int32_t *tokens = own_block((length + 1) * sizeof *tokens);
    void *scratch = own_block(rillet_encode_scratch(t, text, length));
    size_t count = rillet_encode(t, text, length, tokens, scratch);
    float *table = own_block(ROWS * vocabulary * sizeof *table);
    memset(result, 0, sizeof *result);
    result->logprobs = own_block((count + 1) * sizeof *result->logprobs);
    measure(result, t, text, length);
    for (size_t at = 0; at < count; at += ROWS)
        score_rows(result, s, tokens + at, count - at < ROWS ? count - at : ROWS, table);
    if (result->tokens == 0)
        fail(USAGE, "the text is too short to score: the first token of a stream has nothing "
                    "before it; give a text of at least two tokens");
}
