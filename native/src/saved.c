/* A stream in a file: what Session.save in Python writes and Model.restore reads. */
#include <string.h>

#include "json.h"
#include "model.h"
#include "sha256.h"
#include "tensors.h"

enum { ITEMS = 2 * RL_TENSORS + 2, NAME = 40, DIGITS = 64, PART = 512 };

static const int64_t latest = (int64_t)1 << 62;

/* One tensor of the file. Its axes are those of the state's tensor and, first, the batch. */
typedef struct {
    uint8_t what, index; /* of the state's tensor */
    const unsigned char *found; /* its numbers in a file that is read */
} item;

enum { BEFORE, LOGITS, SEEN, NOW }; /* what it is; names sort in this order */

typedef struct {
    const rillet_model *model;
    item items[ITEMS]; /* sorted by name */
    int count;
} list;

/* A tensor as files and checksums describe it. */
typedef struct {
    char name[NAME];
    const char *type, *file_type;
    int dims;
    int64_t shape[3], count;
    size_t size, bytes; /* of a number, of all */
} description;

static void describe(const list *l, const item *i, description *d) {
    static const char *const prefixes[] = {"before.", "logits", "seen", "state."};
    static const char *const types[] = {"float32", "int32", "int64"};
    static const char *const file_types[] = {"F32", "I32", "I64"};
    const rillet_tensor *t = rillet_state_tensor(l->model, i->index);
    int is_state = i->what == NOW || i->what == BEFORE, type = is_state ? t->type : RILLET_FLOAT32;
    size_t length = strlen(prefixes[i->what]);
    memcpy(d->name, prefixes[i->what], length + 1);
    if (is_state) memcpy(d->name + length, t->name, strlen(t->name) + 1);
    d->type = i->what == SEEN ? "uint8" : types[type];
    d->file_type = i->what == SEEN ? "U8" : file_types[type];
    d->size = i->what == SEEN ? 1 : type == RILLET_INT64 ? 8 : 4;
    d->dims = is_state ? t->dims + 1 : 1;
    d->shape[0] = is_state ? 1 : rillet_vocabulary(l->model);
    for (int axis = 1; axis < d->dims; axis++) d->shape[axis] = t->shape[axis - 1];
    d->count = is_state ? t->shape[0] * t->shape[1] : d->shape[0];
    d->bytes = (size_t)d->count * d->size;
}

static void add(list *l, int what, size_t index) {
    item added = {(uint8_t)what, (uint8_t)index, NULL};
    const char *name = rillet_state_tensor(l->model, index)->name;
    int at = l->count++;
    for (; at > 0 && l->items[at - 1].what == what; at--) {
        const rillet_tensor *other = rillet_state_tensor(l->model, l->items[at - 1].index);
        if (strcmp(other->name, name) < 0) break;
        l->items[at] = l->items[at - 1];
    }
    l->items[at] = added;
}

static void add_state(list *l, int what) {
    const rillet_tensor *t;
    for (size_t index = 0; (t = rillet_state_tensor(l->model, index)) != NULL; index++)
        if (what == NOW || strncmp(t->name, "memory_", 7) != 0) add(l, what, index);
}

static void list_items(list *l, const rillet_model *model, int has_before, int has_logits) {
    l->model = model;
    l->count = 0;
    if (has_before) add_state(l, BEFORE);
    if (has_logits) add(l, LOGITS, 0);
    add(l, SEEN, 0);
    add_state(l, NOW);
}

/* Writing: to a file in parts, escaped once more, or to a checksum. */

typedef struct {
    rillet_put *put; /* NULL counts */
    void *context;
    rl_sha256 *sum;
    size_t at;
    int escapes, refused;
    size_t waiting;
    char part[PART];
} sink;

static void sink_begin(sink *s, rillet_put *put, void *context, rl_sha256 *sum) {
    s->put = put;
    s->context = context;
    s->sum = sum;
    s->at = s->waiting = 0;
    s->escapes = s->refused = 0;
}

/* Hands on what waits. */
static void flush(sink *s) {
    if (s->sum != NULL) rl_sha256_add(s->sum, s->part, s->waiting);
    if (s->put != NULL && !s->refused && s->waiting > 0)
        s->refused = s->put(s->context, s->part, s->waiting) != 0;
    s->waiting = 0;
}

static void put_byte(sink *s, char byte) {
    if (s->waiting == PART) flush(s);
    s->part[s->waiting++] = byte;
    s->at++;
}

static void put(sink *s, const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (s->escapes && (text[i] == '"' || text[i] == '\\')) put_byte(s, '\\');
        put_byte(s, text[i]);
    }
}

static void put_text(sink *s, const char *text) { put(s, text, strlen(text)); }

/* Numbers of the file are not below zero. */
static void put_number(sink *s, int64_t number) {
    char digits[24];
    int at = sizeof digits;
    do digits[--at] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    put(s, digits + at, sizeof digits - (size_t)at);
}

static void put_pair(sink *s, const char *name, const char *value) {
    put_text(s, ", \"");
    put_text(s, name);
    put_text(s, "\": \"");
    put_text(s, value);
    put_text(s, "\"");
}

static void put_flag(sink *s, const char *name, int value) {
    put_text(s, name);
    put_text(s, value ? "true" : "false");
}

static const char hex[] = "0123456789abcdef";

static void put_pending(sink *s, const rillet_decoder *d) {
    char digits[2 * sizeof d->pending + 1] = "";
    for (int i = 0; i < d->waiting; i++) {
        digits[2 * i] = hex[d->pending[i] >> 4];
        digits[2 * i + 1] = hex[d->pending[i] & 15];
    }
    put_pair(s, "pending", digits);
}

/* The header as Python's json.dumps writes it with sorted keys, after the checksum. */
static void put_header(sink *s, const rillet_saved *saved) {
    put_text(s, "\"format\": \"rillet-session\", \"format_version\": \"1.1\", \"generation\": ");
    if (saved->generation == NULL)
        put_text(s, "null");
    else
        put(s, saved->generation, saved->generation_bytes);
    put_pair(s, "learn", saved->learn);
    put_flag(s, ", \"memory\": ", saved->memory);
    put_pending(s, &saved->decoder);
    put_text(s, ", \"position\": ");
    put_number(s, saved->position);
    put_pair(s, "precision", saved->precision);
    put_text(s, ", \"recent\": [");
    for (int i = 0; i < saved->recent_count; i++) {
        if (i > 0) put_text(s, ", ");
        put_number(s, saved->recent[i]);
    }
    put_flag(s, "], \"taught\": ", saved->taught);
    put_pair(s, "tokenizer_sha256", saved->tokenizer_sha256);
    put_pair(s, "weights_sha256", saved->weights_sha256);
    put_text(s, "}");
}

/* Puts the numbers of a tensor. */
static void put_values(sink *s, const list *l, const item *i, const rillet_state *state,
                       const rillet_saved *saved) {
    description d;
    describe(l, i, &d);
    if (i->what == SEEN || i->what == LOGITS) {
        const void *from = i->what == SEEN ? (const void *)saved->seen : saved->logits;
        put(s, from, d.bytes);
        return;
    }
    flush(s); /* its buffer takes them */
    for (int64_t at = 0, count; at < d.count; at += count) {
        count = PART / (int64_t)d.size;
        if (count > d.count - at) count = d.count - at;
        rl_state_values(l->model, state, i->what == BEFORE, i->index, at, count, s->part);
        s->at += s->waiting = (size_t)count * d.size;
        flush(s);
    }
}

/* What a checksum says of a tensor before its numbers: name, type, shape as Python writes a tuple.
 */
static void put_description(sink *s, const list *l, const item *i) {
    description d;
    describe(l, i, &d);
    put_text(s, d.name);
    put_text(s, " ");
    put_text(s, d.type);
    put_text(s, " (");
    for (int axis = 0; axis < d.dims; axis++) {
        if (axis > 0) put_text(s, " ");
        put_number(s, d.shape[axis]);
        if (axis + 1 < d.dims || d.dims == 1) put_text(s, ",");
    }
    put_text(s, ")");
}

static void put_entry(sink *s, const list *l, const item *i, size_t offset) {
    description d;
    describe(l, i, &d);
    put_text(s, ",\"");
    put_text(s, d.name);
    put_text(s, "\":{\"dtype\":\"");
    put_text(s, d.file_type);
    put_text(s, "\",\"shape\":[");
    for (int axis = 0; axis < d.dims; axis++) {
        if (axis > 0) put_text(s, ",");
        put_number(s, d.shape[axis]);
    }
    put_text(s, "],\"data_offsets\":[");
    put_number(s, (int64_t)offset);
    put_text(s, ",");
    put_number(s, (int64_t)(offset + d.bytes));
    put_text(s, "]}");
}

/* The order of the tensors in the file, which is that of Python's safetensors: the widest numbers
 * first, so that each is aligned. Returns the bytes of all. */
static size_t order_of(const list *l, int *order) {
    static const char *const types[] = {"I64", "F32", "I32", "U8"};
    size_t bytes = 0;
    description d;
    for (size_t type = 0; type < sizeof types / sizeof *types; type++)
        for (int i = 0; i < l->count; i++) {
            describe(l, l->items + i, &d);
            if (strcmp(d.file_type, types[type]) != 0) continue;
            bytes += d.bytes;
            *order++ = i;
        }
    return bytes;
}

/* Puts the header's text. */
static void put_head(sink *s, const list *l, const rillet_saved *saved, const char *checksum,
                     const int *order) {
    description d;
    put_text(s, "{\"__metadata__\":{\"rillet\":\"");
    s->escapes = 1;
    put_text(s, "{\"checksum\": \"");
    put_text(s, checksum);
    put_text(s, "\", ");
    put_header(s, saved);
    s->escapes = 0;
    put_text(s, "\"}");
    for (size_t i = 0, offset = 0; i < (size_t)l->count; i++) {
        const item *tensor = l->items + order[i];
        put_entry(s, l, tensor, offset);
        describe(l, tensor, &d);
        offset += d.bytes;
    }
    put_text(s, "}");
    while (s->at % 8) put_text(s, " ");
}

static const char no_checksum[DIGITS + 1] =
    "0000000000000000000000000000000000000000000000000000000000000000";

/* Bytes of the header's text. */
static size_t head_length(sink *s, const list *l, const rillet_saved *saved, const int *order) {
    sink_begin(s, NULL, NULL, NULL);
    put_head(s, l, saved, no_checksum, order);
    return s->at;
}

size_t rillet_save_size(const rillet_model *model, const rillet_saved *saved) {
    list l;
    sink s;
    int order[ITEMS];
    list_items(&l, model, saved->repeatable, saved->logits != NULL);
    size_t bytes = order_of(&l, order);
    return 8 + head_length(&s, &l, saved, order) + bytes;
}

static void find_checksum(sink *s, const list *l, const rillet_state *state,
                          const rillet_saved *saved, char *checksum) {
    rl_sha256 sum;
    rl_sha256_begin(&sum);
    sink_begin(s, NULL, NULL, &sum);
    put_text(s, "{");
    put_header(s, saved);
    for (int i = 0; i < l->count; i++) {
        put_description(s, l, l->items + i);
        put_values(s, l, l->items + i, state, saved);
    }
    flush(s);
    rl_sha256_end(&sum, checksum);
}

rillet_status rillet_save_parts(const rillet_model *model, const rillet_state *state,
                                const rillet_saved *saved, rillet_put *take, void *context) {
    list l;
    sink s;
    int order[ITEMS];
    char checksum[DIGITS + 1];
    list_items(&l, model, saved->repeatable, saved->logits != NULL);
    order_of(&l, order);
    find_checksum(&s, &l, state, saved, checksum);
    uint64_t length = head_length(&s, &l, saved, order);
    sink_begin(&s, take, context, NULL);
    for (int i = 0; i < 8; i++) put_byte(&s, (char)(unsigned char)(length >> 8 * i));
    put_head(&s, &l, saved, checksum, order);
    for (int i = 0; i < l.count && !s.refused; i++)
        put_values(&s, &l, l.items + order[i], state, saved);
    flush(&s);
    return s.refused ? RILLET_TOO_SMALL : RILLET_OK;
}

static int append(void *context, const void *bytes, size_t length) {
    char **at = context;
    memcpy(*at, bytes, length);
    *at += length;
    return 0;
}

void rillet_save(const rillet_model *model, const rillet_state *state, const rillet_saved *saved,
                 void *file) {
    char *at = file;
    rillet_save_parts(model, state, saved, append, &at);
}

/* Reading. */

typedef struct {
    list items;
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
    list_items(&r->items, model, r->saved->repeatable, has_logits);
    for (int n = 0; n < r->items.count; n++) {
        item *i = r->items.items + n;
        description d;
        rl_tensor found, *t = &found;
        describe(&r->items, i, &d);
        if (rl_file_find(file, d.name, t) != 0) return fail(r, "a tensor of the stream is missing");
        int fits = t->dims == d.dims && strcmp(rl_type_name(t->dtype), d.file_type) == 0;
        for (int axis = 0; fits && axis < d.dims; axis++) fits = t->shape[axis] == d.shape[axis];
        if (!fits && strcmp(d.name, "state.memory_slots") == 0)
            return fail(r, "it was saved from a bundle with a memory of another size");
        if (!fits) return fail(r, "a tensor of the stream is of another model");
        if ((uintptr_t)t->data % d.size) return fail(r, "a tensor is not aligned");
        i->found = t->data;
        if (i->what == SEEN) r->saved->seen = t->data;
        if (i->what == LOGITS) r->saved->logits = (const float *)(const void *)t->data;
    }
    return 1;
}

/* Checks the checksum, with which Python begins its header. */
static int check_sum(reader *r, const char *text, size_t length) {
    static const char start[] = "{\"checksum\": \"";
    enum { START = sizeof start - 1, BEGIN = START + DIGITS + 3 };
    char checksum[DIGITS + 1];
    rl_sha256 sum;
    if (length < BEGIN || memcmp(text, start, START) != 0) return fail(r, "it has no checksum");
    rl_sha256_begin(&sum);
    rl_sha256_add(&sum, "{", 1);
    rl_sha256_add(&sum, text + BEGIN, length - BEGIN);
    for (int n = 0; n < r->items.count; n++) {
        const item *i = r->items.items + n;
        description d;
        sink s;
        describe(&r->items, i, &d);
        sink_begin(&s, NULL, NULL, &sum);
        put_description(&s, &r->items, i);
        flush(&s);
        rl_sha256_add(&sum, i->found, d.bytes);
    }
    rl_sha256_end(&sum, checksum);
#ifndef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION /* so that tests reach what is behind it */
    if (memcmp(text + START, checksum, DIGITS) != 0)
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
        const char *digit = memchr(hex, rest.at[i], 16);
        if (digit == NULL) return fail(r, "its header is malformed");
        d->pending[i / 2] = (unsigned char)(d->pending[i / 2] << 4 | (digit - hex));
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
            const item *i = r.items.items + n;
            if (i->what != (before ? BEFORE : NOW)) continue;
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
