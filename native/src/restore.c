/* Reads a stream from a file that rillet_save or Python's Session.save wrote. */
#include <string.h>

#include "json.h"
#include "saved.h"
#include "tensors.h"

static const int64_t latest = (int64_t)1 << 62;

typedef struct {
    rl_list items;
    rillet_saved *saved;
    const char *problem;
} reader;

static int fail(reader *r, const char *problem) {
    if (r->problem == NULL) r->problem = problem;
    return 0;
}

/* Finds every tensor that a stream of this model has; what is found stays where it is. */
static int find_items(reader *r, const rl_file *file, const rillet_model *model) {
    rl_tensor any;
    r->saved->repeatable = rl_file_find(file, "before.position", &any) == 0;
    int has_logits = rl_file_find(file, "logits", &any) == 0;
    rl_list_items(&r->items, model, r->saved->repeatable, has_logits);
    for (int n = 0; n < r->items.count; n++) {
        rl_item *i = r->items.items + n;
        rl_description d;
        rl_tensor found, *t = &found;
        rl_describe(&r->items, i, &d);
        if (rl_file_find(file, d.name, t) != 0) return fail(r, "a tensor of the stream is missing");
        int fits = t->dims == d.dims && strcmp(rl_type_name(t->dtype), d.file_type) == 0;
        for (int axis = 0; fits && axis < d.dims; axis++) fits = t->shape[axis] == d.shape[axis];
        if (!fits && strcmp(d.name, "state.memory_slots") == 0)
            return fail(r, "it was saved from a bundle with a memory of another size");
        if (!fits) return fail(r, "a tensor of the stream is of another model");
        if ((uintptr_t)t->data % d.size) return fail(r, "a tensor is not aligned");
        i->found = t->data;
        if (i->what == RL_SEEN) r->saved->seen = t->data;
        if (i->what == RL_LOGITS) r->saved->logits = (const float *)(const void *)t->data;
    }
    return 1;
}

/* Checks the checksum, with which Python begins its header. */
static int check_sum(reader *r, const char *text, size_t length) {
    static const char start[] = "{\"checksum\": \"";
    enum { START = sizeof start - 1, BEGIN = START + RL_DIGITS + 3 };
    char checksum[RL_DIGITS + 1];
    rl_sha256 sum;
    if (length < BEGIN || memcmp(text, start, START) != 0) return fail(r, "it has no checksum");
    rl_sha256_begin(&sum);
    rl_sha256_add(&sum, "{", 1);
    rl_sha256_add(&sum, text + BEGIN, length - BEGIN);
    for (int n = 0; n < r->items.count; n++) {
        const rl_item *i = r->items.items + n;
        rl_description d;
        rl_sink s;
        rl_describe(&r->items, i, &d);
        rl_sink_begin(&s, NULL, NULL, &sum);
        rl_sink_description(&s, &r->items, i);
        rl_sink_flush(&s);
        rl_sha256_add(&sum, i->found, d.bytes);
    }
    rl_sha256_end(&sum, checksum);
#ifndef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION /* so that tests reach what is behind it */
    if (memcmp(text + START, checksum, RL_DIGITS) != 0)
        return fail(r, "its checksum does not match its content");
#endif
    return 1;
}

static int is_text(rl_json value, const char *text) {
    size_t length = strlen(text);
    return rl_json_begins(value, '"') && (size_t)(value.end - value.at) == length + 2 &&
           memcmp(value.at + 1, text, length) == 0;
}

static int check_identity(reader *r, rl_json header) {
    const rillet_saved *s = r->saved;
    if (!is_text(rl_json_member(header, "weights_sha256"), s->weights_sha256) ||
        !is_text(rl_json_member(header, "tokenizer_sha256"), s->tokenizer_sha256) ||
        !is_text(rl_json_member(header, "precision"), s->precision))
        return fail(r, "it was saved from another model");
    return 1;
}

static int read_flag(reader *r, rl_json value, int absent, int32_t *flag) {
    *flag = value.at == NULL ? absent : rl_json_is(value, "true");
    if (*flag < 0 || (value.at != NULL && !*flag && !rl_json_is(value, "false")))
        return fail(r, "its header is malformed");
    return 1;
}

static int read_pending(reader *r, rl_json value) {
    rillet_decoder *d = &r->saved->decoder;
    rl_json rest = rl_json_inside(value);
    size_t digits = (size_t)(rest.end - rest.at);
    if (!rl_json_begins(value, '"') || digits % 2 || digits > 6)
        return fail(r, "its header is malformed");
    d->waiting = (int32_t)digits / 2;
    memset(d->pending, 0, sizeof d->pending);
    for (size_t i = 0; i < digits; i++) {
        const char *digit = memchr(rl_hex, rest.at[i], 16);
        if (digit == NULL) return fail(r, "its header is malformed");
        d->pending[i / 2] = (unsigned char)(d->pending[i / 2] << 4 | (digit - rl_hex));
    }
    return rillet_decoder_valid(d) || fail(r, "it waits for bytes that begin no character");
}

/* Reads the last tokens, of which only so many are kept. */
static int read_recent(reader *r, rl_json value, int32_t vocabulary) {
    rl_json rest = rl_json_inside(value), name, one;
    rillet_saved *s = r->saved;
    int64_t token;
    s->recent_count = 0;
    if (!rl_json_begins(value, '[')) return fail(r, "its header is malformed");
    while (rl_json_next(&rest, &name, &one)) {
        if (!rl_json_whole(one, &token) || token < 0 || token >= vocabulary)
            return fail(r, "it has read tokens that do not exist");
        if (s->recent_count == RILLET_RECENT)
            memmove(s->recent, s->recent + 1, (size_t)--s->recent_count * sizeof *s->recent);
        s->recent[s->recent_count++] = (int32_t)token;
    }
    return s->recent_count <= s->position || fail(r, "its position is out of range");
}

static int read_learn(reader *r, rl_json value) {
    static const char *const modes[] = {"read", "all", "none"};
    for (int i = 0; i < 3; i++)
        if (is_text(value, modes[i])) {
            r->saved->learn = modes[i];
            return 1;
        }
    return fail(r, "its header is malformed");
}

static int read_header(reader *r, rl_json header, int32_t vocabulary) {
    rillet_saved *s = r->saved;
    rl_json generation = rl_json_member(header, "generation");
    rl_json version = rl_json_member(header, "format_version");
    if (!is_text(rl_json_member(header, "format"), "rillet-session"))
        return fail(r, "it is not a saved stream");
    if (!rl_json_begins(version, '"') || version.end - version.at < 3 ||
        memcmp(version.at, "\"1.", 3) != 0)
        return fail(r, "it is of another format version");
    if (!check_identity(r, header)) return 0;
    if (!rl_json_whole(rl_json_member(header, "position"), &s->position) || s->position < 0 ||
        s->position >= latest)
        return fail(r, "its position is out of range");
    if (!rl_json_is(generation, "null") && !rl_json_begins(generation, '{'))
        return fail(r, "its header is malformed");
    int has_generation = rl_json_begins(generation, '{');
    s->generation = has_generation ? (const char *)generation.at : NULL;
    s->generation_bytes = has_generation ? (size_t)(generation.end - generation.at) : 0;
    return read_learn(r, rl_json_member(header, "learn")) &&
           read_flag(r, rl_json_member(header, "memory"), -1, &s->memory) &&
           read_flag(r, rl_json_member(header, "taught"), 0, &s->taught) &&
           read_pending(r, rl_json_member(header, "pending")) &&
           read_recent(r, rl_json_member(header, "recent"), vocabulary);
}

/* Opens the file and checks all of it. */
static int read_file(reader *r, const rillet_model *model, const void *bytes, size_t length,
                     void *scratch, size_t room) {
    rl_file file;
    rl_json header;
    if (rl_file_open(&file, bytes, length) != 0) return fail(r, file.problem);
    if (rl_json_open(&header, file.header, file.header_length) != 0)
        return fail(r, "the header is malformed");
    rl_json text = rl_json_member(rl_json_member(header, "__metadata__"), "rillet");
    if (!rl_json_begins(text, '"')) return fail(r, "it is not a saved stream");
    if (!find_items(r, &file, model)) return 0;
    size_t size = rl_json_text(text, NULL);
    char *start = scratch;
    if (start == NULL) /* unescaped in place: the escaped text is overwritten */
        start = (char *)(uintptr_t)text.at;
    else if (size > room)
        return fail(r, "its header is too long for this device");
    size = rl_json_text(text, start);
    if (rl_json_open(&header, start, size) != 0) return fail(r, "its header is malformed");
    if (!check_sum(r, start, size)) return 0;
    return read_header(r, header, rillet_vocabulary(model));
}

static rillet_status restore(const rillet_model *model, rillet_state *state, rillet_saved *saved,
                             const void *file, size_t length, void *scratch, size_t room,
                             char *message) {
    reader r;
    r.saved = saved;
    r.problem = NULL;
    saved->seen = NULL;
    saved->logits = NULL;
    rillet_state_reset(model, state);
    if (!read_file(&r, model, file, length, scratch, room)) goto failed;
    for (int before = 0; before <= 1; before++)
        for (int n = 0; n < r.items.count; n++) {
            const rl_item *i = r.items.items + n;
            if (i->what != (before ? RL_BEFORE : RL_NOW)) continue;
            if (rillet_state_set(model, state, before, i->index, i->found) == RILLET_OK) continue;
            fail(&r, "its state holds a token or slot that does not exist");
            goto failed;
        }
    return RILLET_OK;
failed:
    rillet_state_reset(model, state);
    if (message != NULL) memcpy(message, r.problem, strlen(r.problem) + 1);
    return RILLET_DAMAGED;
}

rillet_status rillet_restore(const rillet_model *model, rillet_state *state, rillet_saved *saved,
                             void *file, size_t length, char *message) {
    return restore(model, state, saved, file, length, NULL, 0, message);
}

rillet_status rillet_restore_constant(const rillet_model *model, rillet_state *state,
                                      rillet_saved *saved, const void *file, size_t length,
                                      void *scratch, size_t room, char *message) {
    char none; /* without scratch, restore would use the file's own bytes */
    if (scratch == NULL) room = 0;
    return restore(model, state, saved, file, length, scratch == NULL ? &none : scratch, room,
                   message);
}
