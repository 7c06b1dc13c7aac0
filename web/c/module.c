/* What src/ calls. Pointers are numbers there; after each call it copies what it wants and calls
 * `tidy`. */
#include <stdlib.h>
#include <string.h>

#include "../../native/run/bundle.h"
#include "../../native/run/fail.h"
#include "../../native/run/prompt.h"
#include "files.h"
#include "host.h"
#include "score.h"
#include "session.h"

static region passing, lasting; /* of one call; of the model */
static bundle opened;
static text shown; /* by the last step */

/* Ends a call: what it took goes, and so does what it could not finish. */
EXPORT(tidy) void tidy(void) {
    session_recover();
    heap_enter(&passing);
    heap_empty(&passing);
    files_forget();
}

/* Room for what a call is given. */
EXPORT(take) void *take(size_t bytes) { return own_block(bytes); }

/* Room for a file that the next call reads. */
EXPORT(bring) void *bring(const char *path, size_t length, int lasts) {
    if (lasts) heap_enter(&lasting);
    char *data = own(malloc(length + 1));
    heap_enter(&passing);
    files_bring(path, data, length);
    return data;
}

EXPORT(open_model) void open_model(const char *path) {
    heap_enter(&lasting);
    char *name = own(malloc(strlen(path) + 1));
    memcpy(name, path, strlen(path) + 1);
    open_bundle(&opened, name);
    heap_enter(&passing);
}

EXPORT(vocabulary) int32_t vocabulary(void) { return rillet_vocabulary(opened.model); }

/* The bytes of a token. */
EXPORT(token_text) const char *token_text(int32_t token) {
    size_t length;
    return rillet_token(opened.tokenizer, token, &length);
}

EXPORT(token_length) size_t token_length(int32_t token) {
    size_t length;
    rillet_token(opened.tokenizer, token, &length);
    return length;
}

static size_t encoded;

EXPORT(encode) int32_t *encode(const char *bytes, size_t length) {
    check_text(opened.tokenizer, bytes, length);
    int32_t *tokens = own_block((length + 1) * sizeof *tokens);
    void *scratch = own_block(rillet_encode_scratch(opened.tokenizer, bytes, length));
    encoded = rillet_encode(opened.tokenizer, bytes, length, tokens, scratch);
    return tokens;
}

EXPORT(encoded_count) size_t encoded_count(void) { return encoded; }

/* Sessions. */

EXPORT(open_session) session *open_session(int learn, int memory, int taught) {
    static const char *const modes[] = {"read", "all", "none"};
    session *s = session_new();
    session_enter(s);
    stream_begin(&s->stream, &opened, modes[learn], memory, taught);
    session_leave(s);
    return s;
}

EXPORT(fork) session *fork_session(const session *s) { return session_twin(s); }

EXPORT(close) void close_session(session *s) { session_end(s); }

EXPORT(feed) void feed(session *s, const int32_t *tokens, size_t count) {
    stream_read_tokens(&s->stream, tokens, count, s->stream.learn_read);
    if (count > 0 && s->generation != NULL) s->generation->owed = -1; /* it read something else */
}

/* Learning: a reader of the session's memory is fed, and then hands it over. */
EXPORT(learn_begin) session *learn_begin(const session *s) {
    session *reader = session_new();
    session_enter(reader);
    stream_learn_begin(&reader->stream, &s->stream);
    session_leave(reader);
    return reader;
}

EXPORT(learn_end) void learn_end(session *s, const session *reader) {
    stream_learn_end(&s->stream, &reader->stream);
}

EXPORT(begin) void begin(session *s, const char *options, size_t length) {
    session_begin(s, options, length);
}

/* Goes on up to the old limit, or for so many tokens more. */
EXPORT(extend) void extend(session *s, double tokens) {
    generation_extend(s->generation, tokens < 0 ? -1 : (int64_t)tokens);
    s->generation->is_delivered = 1;
}

/* Draws a token; returns how many bytes of text can be shown now. */
EXPORT(step) size_t step(session *s) {
    generation *g = s->generation;
    heap_enter(&lasting);
    text_clear(&shown);
    text_add(&shown, g->waiting.data, g->waiting.length);
    if (g->finish_reason == NULL) stream_next(&s->stream, g, &shown);
    if (g->waiting.length > 0) g->waiting.length = 0;
    heap_enter(&passing);
    return shown.length;
}

EXPORT(is_over) int is_over(const session *s) { return s->generation->finish_reason != NULL; }

EXPORT(shown_text) const char *shown_text(void) { return shown.data; }

EXPORT(save) const char *save(const session *s) {
    stream_save(&s->stream, s->generation, "");
    return files_written().data;
}

EXPORT(saved_length) size_t saved_length(void) { return files_written().length; }

EXPORT(restore) session *restore(const char *path) {
    generation g;
    session *s = session_new();
    session_enter(s);
    if (stream_load(&s->stream, &opened, &g, path)) {
        s->generation = own_block(sizeof g);
        *s->generation = g;
    }
    session_leave(s);
    return s;
}

EXPORT(score) const float *score(session *s, const int32_t *tokens, size_t count) {
    return score_tokens(&s->stream, tokens, count);
}

/* Characters of a text that the model has never seen, and their bytes. */
EXPORT(unknown) double *unknown(const char *bytes, size_t length) {
    static double counts[2];
    size_t size;
    counts[0] = counts[1] = 0;
    for (size_t at = 0; (at = rillet_unknown(opened.tokenizer, bytes, length, at, &size)) < length;
         at += size) {
        counts[0]++;
        counts[1] += (double)size;
    }
    return counts;
}

/* What a session is like. */
typedef struct {
    double position, count;
    const char *learn, *finish_reason, *stop_string;
    int32_t memory, taught, can_resume;
    const float *logits; /* NULL before the first */
} look;

EXPORT(look_at) const look *look_at(const session *s) {
    static look l;
    const generation *g = s->generation;
    memset(&l, 0, sizeof l);
    l.position = (double)s->stream.position;
    l.learn = s->stream.learn;
    l.memory = s->stream.memory;
    l.taught = s->stream.taught;
    if (s->stream.has_logits) l.logits = s->stream.logits;
    if (g == NULL) return &l;
    l.can_resume = 1;
    l.count = (double)g->count;
    l.finish_reason = g->finish_reason;
    l.stop_string = g->stop_string;
    return &l;
}

/* Tensors of the state. */

EXPORT(tensor) const rillet_tensor *tensor(size_t index) {
    return rillet_state_tensor(opened.model, index);
}

EXPORT(tensor_values) void *tensor_values(const session *s, size_t index) {
    void *values = own_block((size_t)rillet_state_tensor(opened.model, index)->bytes);
    rillet_state_get(opened.model, s->stream.state, 0, index, values);
    return values;
}
