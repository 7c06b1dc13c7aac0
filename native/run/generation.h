/* One generation: what it draws with, its limit, and the text that it holds back. */
#ifndef RUN_GENERATION_H
#define RUN_GENERATION_H

#include "sampling.h"

typedef struct {
    sampling params; /* with the seed in use */
    rillet_random random;
    rillet_stops *stops;
    int64_t limit, count;
    const char *finish_reason; /* NULL before the end */
    const char *stop_string;   /* what ended it; NULL for anything else */
    text waiting;              /* text of before that has not been shown */
    int is_delivered;          /* 0 if there is some, or a token that was not shown */
    int32_t owed;              /* a token that was drawn and not read, or -1 */
} generation;

/* Begins one; without a seed, one is drawn. */
void generation_begin(generation *g, const sampling *params);

/* The next token, for the given log-probabilities. */
int32_t generation_draw(generation *g, const rillet_model *model, const float *logits,
                        void *scratch);

/* Makes a drawn token part of the text; adds to `shown` what can be shown now. */
void generation_accept(generation *g, const char *piece, size_t length, text *shown);

/* Goes on up to the old limit, or for so many tokens more if `tokens` is not negative. */
void generation_extend(generation *g, int64_t tokens);

/* Continues the text of another with other options, and its random numbers if the seed is one. */
void generation_continue(generation *g, const generation *earlier);

/* As Python saves it, and back. */
void generation_write(const generation *g, text *t);
void generation_read(generation *g, rl_json value, const char *path, int32_t vocabulary);

#endif
