#include "stream.h"

#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "files.h"
#include "interrupt.h"

enum { ROWS = 512 }; /* rows of one call */

static void set_learning(stream *s) {
    int adapts = state_index(s->bundle->model, "adapted") >= 0;
    s->learn_read = s->memory && strcmp(s->learn, "none") != 0;
    s->learn_written = 0;
    /* What is written is stored at most: online weights that followed it would trust it more and
     * more. */
    if (s->memory && strcmp(s->learn, "all") == 0) s->learn_written = adapts ? 0.5f : 1.0f;
}

void stream_begin(stream *s, const bundle *b, const char *learn, int memory, int taught) {
    size_t vocabulary = (size_t)rillet_vocabulary(b->model);
    memset(s, 0, sizeof *s);
    s->bundle = b;
    s->learn = learn;
    s->memory = memory;
    s->taught = taught && memory && b->taught.data != NULL;
    s->state = own_block(rillet_state_size(b->model));
    s->scratch = own_block(rillet_scratch_size(b->model, ROWS));
    s->logits = own_block(vocabulary * sizeof *s->logits);
    s->seen = own_block(vocabulary);
    s->piece = own(malloc(rillet_decode_size(b->tokenizer)));
    s->decoder.exact = rillet_tokenizer_reads_any_bytes(b->tokenizer);
    set_learning(s);
    begin_state(b, s->state, s->taught);
}

static void remember(stream *s, const int32_t *tokens, size_t count) {
    for (size_t i = 0; i < count; i++) s->seen[tokens[i]] = 1;
    s->position += (int64_t)count;
    if (count > RILLET_RECENT) {
        tokens += count - RILLET_RECENT;
        count = RILLET_RECENT;
    }
    size_t kept = (size_t)s->recent_count;
    size_t dropped = kept + count > RILLET_RECENT ? kept + count - RILLET_RECENT : 0;
    kept -= dropped;
    memmove(s->recent, s->recent + dropped, kept * sizeof *tokens);
    memcpy(s->recent + kept, tokens, count * sizeof *tokens);
    s->recent_count = (int)(kept + count);
}

/* Reads at most ROWS tokens; the prediction after the last of them is kept. */
static void read_rows(stream *s, const int32_t *tokens, size_t count, float learn) {
    rillet_state *states[ROWS];
    float learns[ROWS], *logits[ROWS] = {NULL};
    for (size_t i = 0; i < ROWS; i++) {
        states[i] = s->state;
        learns[i] = learn;
    }
    logits[count - 1] = s->logits;
    if (rillet_read(s->bundle->model, count, states, tokens, learns, logits, s->scratch) !=
        RILLET_OK)
        fail(FAILED, "a step computed values that are not finite; begin a new stream, or restore a "
                     "saved one");
    s->has_logits = s->repeatable = 1;
    remember(s, tokens, count);
}

void stream_read_tokens(stream *s, const int32_t *tokens, size_t count, float learn) {
    for (size_t at = 0; at < count && !is_interrupted(); at += ROWS) {
        read_rows(s, tokens + at, count - at < ROWS ? count - at : ROWS, learn);
        s->decoder.waiting = 0; /* half a character is never completed now */
    }
}

void stream_read(stream *s, const char *bytes, size_t length, float learn) {
    const rillet_tokenizer *t = s->bundle->tokenizer;
    int32_t *tokens = own(malloc((length + 1) * sizeof *tokens));
    void *scratch = own_block(rillet_encode_scratch(t, bytes, length));
    stream_read_tokens(s, tokens, rillet_encode(t, bytes, length, tokens, scratch), learn);
    free(tokens);
    free(scratch);
}

void stream_next(stream *s, generation *g, text *shown) {
    const bundle *b = s->bundle;
    if (!s->has_logits) read_rows(s, &b->start_token, 1, s->learn_read);
    int32_t token = generation_draw(g, b->model, s->logits, s->scratch);
    if (token < 0)
        fail(FAILED, "the model returned logits that are not finite numbers; the "
                     "stream's state is damaged: begin a new one");
    read_rows(s, &token, 1, s->learn_written);
    size_t length = rillet_decode(b->tokenizer, &s->decoder, token, s->piece);
    generation_accept(g, s->piece, length, shown);
}

/* Files. */

static void set_identity(rillet_saved *saved, const bundle *b) {
    memset(saved, 0, sizeof *saved);
    saved->weights_sha256 = b->weights_sha256.data;
    saved->tokenizer_sha256 = b->tokenizer_sha256.data;
    saved->precision = b->precision.data;
}

void stream_save(const stream *s, const generation *g, const char *path) {
    rillet_saved saved;
    text how = {NULL, 0, 0};
    const rillet_model *model = s->bundle->model;
    set_identity(&saved, s->bundle);
    saved.learn = s->learn;
    saved.memory = s->memory;
    saved.taught = s->taught;
    saved.repeatable = s->repeatable;
    saved.position = s->position;
    saved.recent_count = s->recent_count;
    memcpy(saved.recent, s->recent, sizeof saved.recent);
    saved.decoder = s->decoder;
    saved.seen = s->seen;
    saved.logits = s->has_logits ? s->logits : NULL;
    if (g != NULL) {
        generation_write(g, &how);
        saved.generation = how.data;
        saved.generation_bytes = how.length;
    }
    size_t bytes = rillet_save_size(model, &saved);
    void *file = own_block(bytes);
    rillet_save(model, s->state, &saved, file);
    write_atomic(path, file, bytes);
    free(file);
    free(how.data);
}

int stream_load(stream *s, const bundle *b, generation *g, const char *path) {
    rillet_saved saved;
    rl_json how;
    char message[RILLET_MESSAGE];
    content file = read_regular_file(path, "give a file that session.save() or --save-state wrote");
    stream_begin(s, b, "read", 1, 0);
    set_identity(&saved, b);
    if (rillet_restore(b->model, s->state, &saved, file.data, file.length, message) != RILLET_OK)
        fail(FAILED, "%s cannot be restored (%s); give a file that session.save() wrote for %s",
             path, message, b->path);
    s->learn = saved.learn;
    s->memory = saved.memory;
    s->taught = saved.taught;
    s->repeatable = saved.repeatable && saved.recent_count > 0;
    s->position = saved.position;
    s->recent_count = saved.recent_count;
    memcpy(s->recent, saved.recent, sizeof s->recent);
    saved.decoder.exact = s->decoder.exact;
    s->decoder = saved.decoder;
    size_t vocabulary = (size_t)rillet_vocabulary(b->model);
    for (size_t i = 0; i < vocabulary; i++) s->seen[i] = saved.seen[i] != 0;
    s->has_logits = saved.logits != NULL;
    if (s->has_logits) memcpy(s->logits, saved.logits, vocabulary * sizeof *s->logits);
    set_learning(s);
    int has_generation = saved.generation != NULL;
    if (has_generation && rl_json_open(&how, saved.generation, saved.generation_bytes) == 0)
        generation_read(g, how, path, rillet_vocabulary(b->model));
    free(file.data);
    return has_generation;
}
