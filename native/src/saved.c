/* The tensors of a saved stream in order, and the text that describes them. */
#include <string.h>

#include "saved.h"

void rl_describe(const rl_list *l, const rl_item *i, rl_description *d) {
    static const char *const prefixes[] = {"before.", "logits", "seen", "state."};
    static const char *const types[] = {"float32", "int32", "int64"};
    static const char *const file_types[] = {"F32", "I32", "I64"};
    const rillet_tensor *t = rillet_state_tensor(l->model, i->index);
    int is_state = i->what == RL_NOW || i->what == RL_BEFORE;
    int type = is_state ? t->type : RILLET_FLOAT32;
    size_t length = strlen(prefixes[i->what]);
    memcpy(d->name, prefixes[i->what], length + 1);
    if (is_state) memcpy(d->name + length, t->name, strlen(t->name) + 1);
    d->type = i->what == RL_SEEN ? "uint8" : types[type];
    d->file_type = i->what == RL_SEEN ? "U8" : file_types[type];
    d->size = i->what == RL_SEEN ? 1 : type == RILLET_INT64 ? 8 : 4;
    d->dims = is_state ? t->dims + 1 : 1;
    d->shape[0] = is_state ? 1 : rillet_vocabulary(l->model);
    for (int axis = 1; axis < d->dims; axis++) d->shape[axis] = t->shape[axis - 1];
    d->count = is_state ? t->shape[0] * t->shape[1] : d->shape[0];
    d->bytes = (size_t)d->count * d->size;
}

static void add(rl_list *l, int what, size_t index) {
    rl_item added = {(uint8_t)what, (uint8_t)index, NULL};
    const char *name = rillet_state_tensor(l->model, index)->name;
    int at = l->count++;
    for (; at > 0 && l->items[at - 1].what == what; at--) {
        const rillet_tensor *other = rillet_state_tensor(l->model, l->items[at - 1].index);
        if (strcmp(other->name, name) < 0) break;
        l->items[at] = l->items[at - 1];
    }
    l->items[at] = added;
}

static void add_state(rl_list *l, int what) {
    const rillet_tensor *t;
    for (size_t index = 0; (t = rillet_state_tensor(l->model, index)) != NULL; index++)
        if (what == RL_NOW || strncmp(t->name, "memory_", 7) != 0) add(l, what, index);
}

void rl_list_items(rl_list *l, const rillet_model *model, int has_before, int has_logits) {
    l->model = model;
    l->count = 0;
    if (has_before) add_state(l, RL_BEFORE);
    if (has_logits) add(l, RL_LOGITS, 0);
    add(l, RL_SEEN, 0);
    add_state(l, RL_NOW);
}

void rl_sink_begin(rl_sink *s, rillet_put *put, void *context, rl_sha256 *sum) {
    s->put = put;
    s->context = context;
    s->sum = sum;
    s->at = s->waiting = 0;
    s->escapes = s->refused = 0;
}

void rl_sink_flush(rl_sink *s) {
    if (s->sum != NULL) rl_sha256_add(s->sum, s->part, s->waiting);
    if (s->put != NULL && !s->refused && s->waiting > 0)
        s->refused = s->put(s->context, s->part, s->waiting) != 0;
    s->waiting = 0;
}

void rl_sink_byte(rl_sink *s, char byte) {
    if (s->waiting == RL_PART) rl_sink_flush(s);
    s->part[s->waiting++] = byte;
    s->at++;
}

void rl_sink_put(rl_sink *s, const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (s->escapes && (text[i] == '"' || text[i] == '\\')) rl_sink_byte(s, '\\');
        rl_sink_byte(s, text[i]);
    }
}

void rl_sink_text(rl_sink *s, const char *text) { rl_sink_put(s, text, strlen(text)); }

void rl_sink_number(rl_sink *s, int64_t number) {
    char digits[24];
    int at = sizeof digits;
    do digits[--at] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    rl_sink_put(s, digits + at, sizeof digits - (size_t)at);
}

const char rl_hex[] = "0123456789abcdef";

void rl_sink_description(rl_sink *s, const rl_list *l, const rl_item *i) {
    rl_description d;
    rl_describe(l, i, &d);
    rl_sink_text(s, d.name);
    rl_sink_text(s, " ");
    rl_sink_text(s, d.type);
    rl_sink_text(s, " (");
    for (int axis = 0; axis < d.dims; axis++) {
        if (axis > 0) rl_sink_text(s, " ");
        rl_sink_number(s, d.shape[axis]);
        if (axis + 1 < d.dims || d.dims == 1) rl_sink_text(s, ",");
    }
    rl_sink_text(s, ")");
}
