/* Teaching a stream's memory a text, as runtime/streams/memory.py does. */
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "interrupt.h"
#include "stream.h"

static int is_learnt(const char *name) {
    return strncmp(name, "memory_", 7) == 0 || strcmp(name, "adapted") == 0;
}

static int is_lookup(const char *name) {
    return strcmp(name, "context_slots") == 0 || strcmp(name, "context_shares") == 0 ||
           strcmp(name, "context_logits") == 0;
}

static int is_kept(const char *name) { return is_learnt(name) || strcmp(name, "position") == 0; }

static int is_small(const char *name) { return !is_kept(name); }

/* Copies the chosen tensors of `from`, as they are now or were before its last step, into `to`. */
static void copy(const rillet_model *model, rillet_state *to, const rillet_state *from, int before,
                 int (*chosen)(const char *)) {
    const rillet_tensor *t;
    for (size_t i = 0; (t = rillet_state_tensor(model, i)) != NULL; i++) {
        if (!chosen(t->name)) continue;
        void *values = own_block(t->bytes);
        rillet_state_get(model, from, before, i, values);
        if (rillet_state_set(model, to, 0, i, values) != RILLET_OK)
            fail(FAILED, "the stream's %s holds what does not exist; begin a new stream", t->name);
        free(values);
    }
}

/* The prediction with another memory: the last token is read again, and not stored. */
static void predict_again(stream *s) {
    const rillet_model *model = s->bundle->model;
    rillet_state *again = own_block(rillet_state_size(model));
    float nothing = 0;
    rillet_state_reset(model, again);
    copy(model, again, s->state, 0, is_kept);
    copy(model, again, s->state, 1, is_small);
    find_slots(model, again);
    rillet_read(model, 1, &again, &s->recent[s->recent_count - 1], &nothing, &s->logits,
                s->scratch);
    copy(model, s->state, again, 0, is_lookup);
    free(again);
}

void stream_learn_begin(stream *reader, const stream *s) {
    const rillet_model *model = s->bundle->model;
    const rillet_tensor *t;
    int can_learn = 0;
    for (size_t i = 0; (t = rillet_state_tensor(model, i)) != NULL; i++)
        can_learn |= is_learnt(t->name);
    if (!can_learn || !s->memory)
        fail(USAGE, "the stream cannot learn: it has no memory, for the %s",
             can_learn ? "session has --no-memory" : "model was exported without one");
    stream_begin(reader, s->bundle, "read", 1, 0);
    copy(model, reader->state, s->state, 0, is_kept);
}

void stream_learn_end(stream *s, const stream *reader) {
    const rillet_model *model = s->bundle->model;
    copy(model, s->state, reader->state, 0, is_kept);
    find_slots(model, s->state);
    if (s->repeatable) predict_again(s);
}

void stream_learn(stream *s, const char *bytes, size_t length) {
    stream reader;
    stream_learn_begin(&reader, s);
    stream_read(&reader, bytes, length, 1);
    if (!is_interrupted()) stream_learn_end(s, &reader);
}
