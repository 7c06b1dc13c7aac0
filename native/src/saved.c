/* A stream in a file: what Session.save in Python writes and Model.restore reads. */
#include <stdio.h>
#include <string.h>

#include "json.h"
#include "model.h"
#include "sha256.h"
#include "tensors.h"

enum { ITEMS = 2 * RL_TENSORS + 2, NAME = 64, DIGITS = 64 };

static const int64_t latest = (int64_t)1 << 62;

/* One tensor of the file. Its axes are those of the state's tensor and, first, the batch. */
typedef struct {
    char name[NAME];
    enum { NOW, BEFORE, SEEN, LOGITS } what;
    size_t index, size, bytes; /* of the state's tensor; of a number; of all */
    const char *type, *file_type;
    int dims;
    int64_t shape[3];
    rl_tensor found;
} item;

typedef struct {
    const rillet_model *model;
    item items[ITEMS]; /* sorted by name */
    int count;
} list;

static void set_type(item *i, rillet_type type) {
    static const char *const types[] = {"float32", "int32", "int64"};
    static const char *const file_types[] = {"F32", "I32", "I64"};
    i->type = types[type];
    i->file_type = file_types[type];
    i->size = type == RILLET_INT64 ? 8 : 4;
}

static void add(list *l, const char *name, const item *i) {
    int at = l->count++;
    for (; at > 0 && strcmp(l->items[at - 1].name, name) > 0; at--) l->items[at] = l->items[at - 1];
    l->items[at] = *i;
    snprintf(l->items[at].name, NAME, "%s", name);
}

static void add_state(list *l, const char *prefix, int what) {
    const rillet_tensor *t;
    for (size_t index = 0; (t = rillet_state_tensor(l->model, index)) != NULL; index++) {
        char name[NAME];
        item i;
        if (what == BEFORE && strncmp(t->name, "memory_", 7) == 0) continue;
        memset(&i, 0, sizeof i);
        set_type(&i, t->type);
        i.what = what;
        i.index = index;
        i.bytes = t->bytes;
        i.dims = t->dims + 1;
        i.shape[0] = 1;
        for (int axis = 0; axis < t->dims; axis++) i.shape[axis + 1] = t->shape[axis];
        snprintf(name, sizeof name, "%s.%s", prefix, t->name);
        add(l, name, &i);
    }
}

static void add_row(list *l, const char *name, int what) {
    item i;
    memset(&i, 0, sizeof i);
    set_type(&i, RILLET_FLOAT32);
    if (what == SEEN) {
        i.type = "uint8";
        i.file_type = "U8";
        i.size = 1;
    }
    i.what = what;
    i.dims = 1;
    i.shape[0] = rillet_vocabulary(l->model);
    i.bytes = (size_t)i.shape[0] * i.size;
    add(l, name, &i);
}

static void list_items(list *l, const rillet_model *model, int has_before, int has_logits) {
    l->model = model;
    l->count = 0;
    add_state(l, "state", NOW);
    if (has_before) add_state(l, "before", BEFORE);
    if (has_logits) add_row(l, "logits", LOGITS);
    add_row(l, "seen", SEEN);
}

/* Writing text: to a file, escaped once more, or to a checksum. */

typedef struct {
    char *out; /* NULL counts */
    size_t at;
    rl_sha256 *sum;
    int escapes;
} sink;

static void put(sink *s, const char *text, size_t length) {
    if (s->sum != NULL) rl_sha256_add(s->sum, text, length);
    for (size_t i = 0; i < length; i++) {
        if (s->escapes && (text[i] == '"' || text[i] == '\\')) {
            if (s->out != NULL) s->out[s->at] = '\\';
            s->at++;
        }
        if (s->out != NULL) s->out[s->at] = text[i];
        s->at++;
    }
}

static void put_text(sink *s, const char *text) { put(s, text, strlen(text)); }

static void put_number(sink *s, int64_t number) {
    char digits[24];
    snprintf(digits, sizeof digits, "%lld", (long long)number);
    put_text(s, digits);
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

static void put_pending(sink *s, const rillet_decoder *d) {
    char digits[12] = "";
    for (int i = 0; i < d->waiting; i++) snprintf(digits + 2 * i, 3, "%02x", d->pending[i]);
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

/* Adds a tensor to a checksum: its name, type, shape as Python writes a tuple, and numbers. */
static void sum_tensor(rl_sha256 *sum, const item *i, const void *values) {
    sink s = {NULL, 0, sum, 0};
    put_text(&s, i->name);
    put_text(&s, " ");
    put_text(&s, i->type);
    put_text(&s, " (");
    for (int axis = 0; axis < i->dims; axis++) {
        if (axis > 0) put_text(&s, " ");
        put_number(&s, i->shape[axis]);
        if (axis + 1 < i->dims || i->dims == 1) put_text(&s, ",");
    }
    put_text(&s, ")");
    rl_sha256_add(sum, values, i->bytes);
}

static void put_entry(sink *s, const item *i, size_t offset) {
    put_text(s, ",\"");
    put_text(s, i->name);
    put_text(s, "\":{\"dtype\":\"");
    put_text(s, i->file_type);
    put_text(s, "\",\"shape\":[");
    for (int axis = 0; axis < i->dims; axis++) {
        if (axis > 0) put_text(s, ",");
        put_number(s, i->shape[axis]);
    }
    put_text(s, "],\"data_offsets\":[");
    put_number(s, (int64_t)offset);
    put_text(s, ",");
    put_number(s, (int64_t)(offset + i->bytes));
    put_text(s, "]}");
}

/* The order of the tensors in the file, which is that of Python's safetensors: the widest numbers
 * first, so that each is aligned. */
static void order_of(const list *l, int *order) {
    static const char *const types[] = {"I64", "F32", "I32", "U8"};
    for (size_t type = 0; type < sizeof types / sizeof *types; type++)
        for (int i = 0; i < l->count; i++)
            if (strcmp(l->items[i].file_type, types[type]) == 0) *order++ = i;
}

/* The offsets of all tensors; returns the end. */
static size_t offsets_of(const list *l, size_t *offsets) {
    size_t at = 0;
    int order[ITEMS];
    order_of(l, order);
    for (int i = 0; i < l->count; i++) {
        offsets[order[i]] = at;
        at += l->items[order[i]].bytes;
    }
    return at;
}

/* Writes all before the tensors; returns its bytes. */
static size_t write_head(const list *l, const rillet_saved *saved, const char *checksum,
                         const size_t *offsets, char *out) {
    int order[ITEMS];
    sink s = {out, 8, NULL, 0};
    order_of(l, order);
    put_text(&s, "{\"__metadata__\":{\"rillet\":\"");
    s.escapes = 1;
    put_text(&s, "{\"checksum\": \"");
    put_text(&s, checksum);
    put_text(&s, "\", ");
    put_header(&s, saved);
    s.escapes = 0;
    put_text(&s, "\"}");
    for (int i = 0; i < l->count; i++) put_entry(&s, l->items + order[i], offsets[order[i]]);
    put_text(&s, "}");
    while (s.at % 8) put_text(&s, " ");
    uint64_t length = s.at - 8;
    for (int i = 0; out != NULL && i < 8; i++) out[i] = (char)(unsigned char)(length >> 8 * i);
    return s.at;
}

static void write_tensor(const item *i, const rillet_model *model, const rillet_state *state,
                         const rillet_saved *saved, void *to) {
    if (i->what == SEEN)
        memcpy(to, saved->seen, i->bytes);
    else if (i->what == LOGITS)
        memcpy(to, saved->logits, i->bytes);
    else
        rillet_state_get(model, state, i->what == BEFORE, i->index, to);
}

static const char no_checksum[DIGITS + 1] =
    "0000000000000000000000000000000000000000000000000000000000000000";

size_t rillet_save_size(const rillet_model *model, const rillet_saved *saved) {
    list l;
    size_t offsets[ITEMS];
    list_items(&l, model, saved->repeatable, saved->logits != NULL);
    size_t bytes = offsets_of(&l, offsets);
    return bytes + write_head(&l, saved, no_checksum, offsets, NULL);
}

void rillet_save(const rillet_model *model, const rillet_state *state, const rillet_saved *saved,
                 void *file) {
    list l;
    rl_sha256 sum;
    size_t offsets[ITEMS];
    char checksum[DIGITS + 1];
    sink text = {NULL, 0, &sum, 0};
    list_items(&l, model, saved->repeatable, saved->logits != NULL);
    offsets_of(&l, offsets);
    char *data = (char *)file + write_head(&l, saved, no_checksum, offsets, NULL);
    rl_sha256_begin(&sum);
    put_text(&text, "{");
    put_header(&text, saved);
    for (int i = 0; i < l.count; i++) {
        write_tensor(l.items + i, model, state, saved, data + offsets[i]);
        sum_tensor(&sum, l.items + i, data + offsets[i]);
    }
    rl_sha256_end(&sum, checksum);
    write_head(&l, saved, checksum, offsets, file);
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
        rl_tensor *t = &i->found;
        if (rl_file_find(file, i->name, t) != 0)
            return fail(r, "a tensor of the stream is missing");
        int fits = t->dims == i->dims && strcmp(rl_type_name(t->dtype), i->file_type) == 0;
        for (int axis = 0; fits && axis < i->dims; axis++) fits = t->shape[axis] == i->shape[axis];
        if (!fits && strcmp(i->name, "state.memory_slots") == 0)
            return fail(r, "it was saved from a bundle with a memory of another size");
        if (!fits) return fail(r, "a tensor of the stream is of another model");
        if ((uintptr_t)t->data % i->size) return fail(r, "a tensor is not aligned");
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
    for (int n = 0; n < r->items.count; n++)
        sum_tensor(&sum, r->items.items + n, r->items.items[n].found.data);
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
    static const char hex[] = "0123456789abcdef";
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
static int read_file(reader *r, const rillet_model *model, void *bytes, size_t length) {
    rl_file file;
    rl_json header;
    if (rl_file_open(&file, bytes, length) != 0) return fail(r, file.problem);
    if (rl_json_open(&header, file.header, file.header_length) != 0)
        return fail(r, "the header is malformed");
    rl_json text = rl_json_member(rl_json_member(header, "__metadata__"), "rillet");
    if (!rl_json_begins(text, '"')) return fail(r, "it is not a saved stream");
    if (!find_items(r, &file, model)) return 0;
    /* The text is a JSON string: it becomes itself where it lies, and is no longer there. */
    char *start = (char *)bytes + (text.at - (const unsigned char *)bytes);
    size_t size = rl_json_text(text, start);
    if (rl_json_open(&header, start, size) != 0) return fail(r, "the header is malformed");
    if (!check_sum(r, start, size)) return 0;
    return read_header(r, header, rillet_vocabulary(model));
}

rillet_status rillet_restore(const rillet_model *model, rillet_state *state, rillet_saved *saved,
                             void *file, size_t length, char *message) {
    reader r;
    r.saved = saved;
    r.problem = NULL;
    saved->seen = NULL;
    saved->logits = NULL;
    rillet_state_reset(model, state);
    if (!read_file(&r, model, file, length)) goto failed;
    for (int before = 0; before <= 1; before++)
        for (int n = 0; n < r.items.count; n++) {
            const item *i = r.items.items + n;
            if (i->what != (before ? BEFORE : NOW)) continue;
            if (rillet_state_set(model, state, before, i->index, i->found.data) == RILLET_OK)
                continue;
            fail(&r, "its state holds a token or slot that does not exist");
            goto failed;
        }
    return RILLET_OK;
failed:
    rillet_state_reset(model, state);
    if (message != NULL) snprintf(message, RILLET_MESSAGE, "%s", r.problem);
    return RILLET_DAMAGED;
}
