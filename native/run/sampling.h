/* How to sample: the options, from the bundle, the command line or a saved stream. */
#ifndef RUN_SAMPLING_H
#define RUN_SAMPLING_H

#include "../include/rillet.h"
#include "../src/json.h"
#include "text.h"

enum { MOST_STOPS = 64 };

typedef struct {
    double temperature, top_p, min_p;
    int64_t top_k, max_new_tokens, top_logprobs;
    int has_seed;
    uint64_t seed;
    size_t stops;
    const char *stop[MOST_STOPS];
} sampling;

/* What was given, each NULL where it was not; the command line's own texts. */
typedef struct {
    const char *temperature, *top_k, *top_p, *min_p, *max_new_tokens, *seed;
    size_t stops;
    const char *stop[MOST_STOPS];
} sampling_changes;

/* The options' own defaults. */
void sampling_begin(sampling *s);

/* Sets what a JSON object names; `where` is what the object is of, for messages. Refuses options
 * that rillet-run lacks, unless they change nothing. */
void sampling_read(sampling *s, rl_json object, const char *where);

/* Sets what the command line gave. */
void sampling_change(sampling *s, const sampling_changes *changes);

/* Whether anything other than the number of tokens was given. */
int sampling_changes_more(const sampling_changes *changes);

/* Adds the options as Python saves them. */
void sampling_write(const sampling *s, text *t);

/* As the library takes them. */
rillet_sampling sampling_of(const sampling *s);

#endif
