/* One stream: all that changes when a token is read. */
#ifndef RUN_STREAM_H
#define RUN_STREAM_H

#include "bundle.h"
#include "generation.h"

typedef struct {
    const bundle *bundle;
    rillet_state *state;
    float *logits; /* of the next token, once something was read */
    int has_logits, repeatable;
    const char *learn; /* what the memory stores: "read", "all" or "none" */
    int memory, taught;
    float learn_read, learn_written;
    int64_t position;
    unsigned char *seen;
    int32_t recent[RILLET_RECENT];
    int recent_count;
    rillet_decoder decoder;
    void *scratch;
    char *piece; /* room for the text of one token */
} stream;

void stream_begin(stream *s, const bundle *b, const char *learn, int memory, int taught);

/* Reads a text; `learn` is 1 to store it, 0 not to. */
void stream_read(stream *s, const char *bytes, size_t length, float learn);

/* The same of tokens, all of which exist. */
void stream_read_tokens(stream *s, const int32_t *tokens, size_t count, float learn);

/* Reads a text into the memory alone: the stream continues where it is, and knows the text, unless
 * it is interrupted. */
void stream_learn(stream *s, const char *bytes, size_t length);

/* The same in parts: begins a reader, which then reads the text; hands over what it has learnt. */
void stream_learn_begin(stream *reader, const stream *s);
void stream_learn_end(stream *s, const stream *reader);

/* Draws a token and reads it; adds to `shown` the text that can be shown now. */
void stream_next(stream *s, generation *g, text *shown);

/* Saves the stream and its generation, which may be NULL, as Python does. */
void stream_save(const stream *s, const generation *g, const char *path);

/* Restores what stream_save or Python saved; returns whether there is a generation. */
int stream_load(stream *s, const bundle *b, generation *g, const char *path);

#endif
