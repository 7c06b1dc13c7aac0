/* How well a stream predicts tokens. */
#ifndef WEB_SCORE_H
#define WEB_SCORE_H

#include "../../native/run/stream.h"

/* Reads 1 to 128 tokens with a stream, which advances; returns how likely each was: not the first
 * of a new stream, which nothing predicts. */
const float *score_tokens(stream *s, const int32_t *tokens, size_t count);

#endif
