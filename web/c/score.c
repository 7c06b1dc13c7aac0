/* Scores, as runtime/streams/score.py. */
#include "score.h"

#include <string.h>

#include "../../native/run/fail.h"

enum { ROWS = 128 };

const float *score_tokens(stream *s, const int32_t *tokens, size_t count) {
    rillet_state *states[ROWS];
    float learns[ROWS], *logits[ROWS];
    size_t vocabulary = (size_t)rillet_vocabulary(s->bundle->model),
           bytes = vocabulary * sizeof(float);
    float *table = own_block(count * bytes), *logprobs = own_block(count * sizeof *logprobs);
    float *next = logprobs;
    for (size_t i = 0; i < count; i++) {
        states[i] = s->state;
        learns[i] = s->learn_read;
        logits[i] = table + i * vocabulary;
    }
    if (s->has_logits) *next++ = s->logits[tokens[0]];
    if (rillet_read(s->bundle->model, count, states, tokens, learns, logits, s->scratch) !=
        RILLET_OK)
        fail(FAILED, "a step computed values that are not finite; begin a new stream, or restore a "
                     "saved one");
    for (size_t i = 0; i + 1 < count; i++) *next++ = logits[i][tokens[i + 1]];
    memcpy(s->logits, logits[count - 1], bytes);
    s->has_logits = 1;
    return logprobs;
}
