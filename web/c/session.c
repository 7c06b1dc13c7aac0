#include "session.h"

#include <stdlib.h>
#include <string.h>

#include "../../native/run/fail.h"
#include "../../native/run/interrupt.h"

static region kept;   /* of sessions themselves */
static region *begun; /* what an error undoes */

void session_recover(void) {
    if (begun != NULL) heap_empty(begun);
    begun = NULL;
}

/* A page reads in small pieces, and stops between them. */
int is_interrupted(void) { return 0; }

static void begin(region *r) {
    begun = r;
    heap_enter(r);
}

session *session_new(void) { return own_block(sizeof(session)); }

void session_enter(session *s) { begin(&s->memory); }

void session_leave(session *s) {
    begun = NULL;
    heap_move(s, &kept);
}

void session_end(session *s) {
    if (s->drawing != NULL) heap_empty(s->drawing);
    heap_empty(&s->memory);
    free(s);
}

static void *copy(const void *bytes, size_t length) {
    return memcpy(own_block(length), bytes, length);
}

static const char *copy_string(const char *string) {
    return string == NULL ? NULL : copy(string, strlen(string) + 1);
}

void stream_copy(stream *to, const stream *from) {
    const bundle *b = from->bundle;
    size_t vocabulary = (size_t)rillet_vocabulary(b->model);
    *to = *from;
    to->state = copy(from->state, rillet_state_size(b->model));
    to->logits = copy(from->logits, vocabulary * sizeof *from->logits);
    to->seen = copy(from->seen, vocabulary);
    to->learn = copy_string(from->learn);
    to->scratch = own_block(rillet_scratch_size(b->model, 512));
    to->piece = own_block(rillet_decode_size(b->tokenizer));
}

static void generation_copy(generation *to, const generation *from) {
    size_t stops = from->params.stops;
    *to = *from;
    for (size_t i = 0; i < stops; i++) to->params.stop[i] = copy_string(from->params.stop[i]);
    to->stops = copy(from->stops, rillet_stops_size(from->params.stop, stops));
    to->finish_reason = copy_string(from->finish_reason);
    to->stop_string = copy_string(from->stop_string);
    to->waiting.data = NULL;
    to->waiting.length = to->waiting.room = 0;
    text_add(&to->waiting, from->waiting.data, from->waiting.length);
}

/* Makes a generation that was begun in `fresh` the session's. */
static void adopt(session *s, generation *g, region *fresh) {
    begun = NULL;
    heap_move(fresh, &s->memory);
    if (s->drawing != NULL) {
        heap_empty(s->drawing);
        free(s->drawing);
    }
    s->generation = g;
    s->drawing = fresh;
}

session *session_twin(const session *s) {
    session *twin = session_new();
    session_enter(twin);
    stream_copy(&twin->stream, &s->stream);
    if (s->generation != NULL) {
        twin->generation = own_block(sizeof *s->generation);
        generation_copy(twin->generation, s->generation);
    }
    session_leave(twin);
    return twin;
}

void session_begin(session *s, const char *options, size_t length) {
    sampling params;
    rl_json given;
    region *fresh = own_block(sizeof *fresh);
    begin(fresh);
    if (rl_json_open(&given, options, length) != 0)
        fail(USAGE, "an option is no finite number and no text; see docs/browser.md");
    sampling_begin(&params);
    sampling_read(&params, s->stream.bundle->defaults, "generation_config.json");
    sampling_read(&params, given, "the caller");
    generation *g = own_block(sizeof *g);
    generation_begin(g, &params);
    adopt(s, g, fresh);
}
