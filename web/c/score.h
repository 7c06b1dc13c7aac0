/* How well a stream predicts a text. */
#ifndef WEB_SCORE_H
#define WEB_SCORE_H

#include "../../native/run/stream.h"

/* As runtime/streams/score.py counts. */
typedef struct {
    double tokens, characters, bytes, nats, unknown_characters, unknown_bytes;
    float *logprobs; /* of each token */
} score;

/* Reads a text with a stream, which advances. */
void score_text(score *result, stream *s, const char *text, size_t length);

#endif
