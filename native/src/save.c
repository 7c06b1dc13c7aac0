/* Writes a stream to a file, as Session.save in Python does. */
#include <string.h>

#include "saved.h"

static void put_pair(rl_sink *s, const char *name, const char *value) {
    rl_sink_text(s, ", \"");
    rl_sink_text(s, name);
    rl_sink_text(s, "\": \"");
    rl_sink_text(s, value);
    rl_sink_text(s, "\"");
}

static void put_flag(rl_sink *s, const char *name, int value) {
    rl_sink_text(s, name);
    rl_sink_text(s, value ? "true" : "false");
}

static void put_pending(rl_sink *s, const rillet_decoder *d) {
    char digits[2 * sizeof d->pending + 1] = "";
    for (int i = 0; i < d->waiting; i++) {
        digits[2 * i] = rl_hex[d->pending[i] >> 4];
        digits[2 * i + 1] = rl_hex[d->pending[i] & 15];
    }
    put_pair(s, "pending", digits);
}

/* The header as Python's json.dumps writes it with sorted keys, after the checksum. */
static void put_header(rl_sink *s, const rillet_saved *saved) {
    rl_sink_text(s,
                 "\"format\": \"rillet-session\", \"format_version\": \"1.1\", \"generation\": ");
    if (saved->generation == NULL)
        rl_sink_text(s, "null");
    else
        rl_sink_put(s, saved->generation, saved->generation_bytes);
    put_pair(s, "learn", saved->learn);
    put_flag(s, ", \"memory\": ", saved->memory);
    put_pending(s, &saved->decoder);
    rl_sink_text(s, ", \"position\": ");
    rl_sink_number(s, saved->position);
    put_pair(s, "precision", saved->precision);
    rl_sink_text(s, ", \"recent\": [");
    for (int i = 0; i < saved->recent_count; i++) {
        if (i > 0) rl_sink_text(s, ", ");
        rl_sink_number(s, saved->recent[i]);
    }
    put_flag(s, "], \"taught\": ", saved->taught);
    put_pair(s, "tokenizer_sha256", saved->tokenizer_sha256);
    put_pair(s, "weights_sha256", saved->weights_sha256);
    rl_sink_text(s, "}");
}

/* Puts the numbers of a tensor. */
static void put_values(rl_sink *s, const rl_list *l, const rl_item *i, const rillet_state *state,
                       const rillet_saved *saved) {
    rl_description d;
    rl_describe(l, i, &d);
    if (i->what == RL_SEEN || i->what == RL_LOGITS) {
        const void *from = i->what == RL_SEEN ? (const void *)saved->seen : saved->logits;
        rl_sink_put(s, from, d.bytes);
        return;
    }
    rl_sink_flush(s); /* its buffer takes them */
    for (int64_t at = 0, count; at < d.count; at += count) {
        count = RL_PART / (int64_t)d.size;
        if (count > d.count - at) count = d.count - at;
        rl_state_values(l->model, state, i->what == RL_BEFORE, i->index, at, count, s->part);
        s->at += s->waiting = (size_t)count * d.size;
        rl_sink_flush(s);
    }
}

static void put_entry(rl_sink *s, const rl_list *l, const rl_item *i, size_t offset) {
    rl_description d;
    rl_describe(l, i, &d);
    rl_sink_text(s, ",\"");
    rl_sink_text(s, d.name);
    rl_sink_text(s, "\":{\"dtype\":\"");
    rl_sink_text(s, d.file_type);
    rl_sink_text(s, "\",\"shape\":[");
    for (int axis = 0; axis < d.dims; axis++) {
        if (axis > 0) rl_sink_text(s, ",");
        rl_sink_number(s, d.shape[axis]);
    }
    rl_sink_text(s, "],\"data_offsets\":[");
    rl_sink_number(s, (int64_t)offset);
    rl_sink_text(s, ",");
    rl_sink_number(s, (int64_t)(offset + d.bytes));
    rl_sink_text(s, "]}");
}

/* The order of the tensors in the file, which is that of Python's safetensors: the widest numbers
 * first, so that each is aligned. Returns the bytes of all. */
static size_t order_of(const rl_list *l, int *order) {
    static const char *const types[] = {"I64", "F32", "I32", "U8"};
    size_t bytes = 0;
    rl_description d;
    for (size_t type = 0; type < sizeof types / sizeof *types; type++)
        for (int i = 0; i < l->count; i++) {
            rl_describe(l, l->items + i, &d);
            if (strcmp(d.file_type, types[type]) != 0) continue;
            bytes += d.bytes;
            *order++ = i;
        }
    return bytes;
}

/* Puts the header's text. */
static void put_head(rl_sink *s, const rl_list *l, const rillet_saved *saved, const char *checksum,
                     const int *order) {
    rl_description d;
    rl_sink_text(s, "{\"__metadata__\":{\"rillet\":\"");
    s->escapes = 1;
    rl_sink_text(s, "{\"checksum\": \"");
    rl_sink_text(s, checksum);
    rl_sink_text(s, "\", ");
    put_header(s, saved);
    s->escapes = 0;
    rl_sink_text(s, "\"}");
    for (size_t i = 0, offset = 0; i < (size_t)l->count; i++) {
        const rl_item *tensor = l->items + order[i];
        put_entry(s, l, tensor, offset);
        rl_describe(l, tensor, &d);
        offset += d.bytes;
    }
    rl_sink_text(s, "}");
    while (s->at % 8) rl_sink_text(s, " ");
}

static const char no_checksum[RL_DIGITS + 1] =
    "0000000000000000000000000000000000000000000000000000000000000000";

/* Bytes of the header's text. */
static size_t head_length(rl_sink *s, const rl_list *l, const rillet_saved *saved,
                          const int *order) {
    rl_sink_begin(s, NULL, NULL, NULL);
    put_head(s, l, saved, no_checksum, order);
    return s->at;
}

size_t rillet_save_size(const rillet_model *model, const rillet_saved *saved) {
    rl_list l;
    rl_sink s;
    int order[RL_ITEMS];
    rl_list_items(&l, model, saved->repeatable, saved->logits != NULL);
    size_t bytes = order_of(&l, order);
    return 8 + head_length(&s, &l, saved, order) + bytes;
}

static void find_checksum(rl_sink *s, const rl_list *l, const rillet_state *state,
                          const rillet_saved *saved, char *checksum) {
    rl_sha256 sum;
    rl_sha256_begin(&sum);
    rl_sink_begin(s, NULL, NULL, &sum);
    rl_sink_text(s, "{");
    put_header(s, saved);
    for (int i = 0; i < l->count; i++) {
        rl_sink_description(s, l, l->items + i);
        put_values(s, l, l->items + i, state, saved);
    }
    rl_sink_flush(s);
    rl_sha256_end(&sum, checksum);
}

rillet_status rillet_save_parts(const rillet_model *model, const rillet_state *state,
                                const rillet_saved *saved, rillet_put *take, void *context) {
    rl_list l;
    rl_sink s;
    int order[RL_ITEMS];
    char checksum[RL_DIGITS + 1];
    rl_list_items(&l, model, saved->repeatable, saved->logits != NULL);
    order_of(&l, order);
    find_checksum(&s, &l, state, saved, checksum);
    uint64_t length = head_length(&s, &l, saved, order);
    rl_sink_begin(&s, take, context, NULL);
    for (int i = 0; i < 8; i++) rl_sink_byte(&s, (char)(unsigned char)(length >> 8 * i));
    put_head(&s, &l, saved, checksum, order);
    for (int i = 0; i < l.count && !s.refused; i++)
        put_values(&s, &l, l.items + order[i], state, saved);
    rl_sink_flush(&s);
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
