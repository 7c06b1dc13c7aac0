#include "generation.h"

#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "random.h"

static void begin_stops(generation *g) {
    g->stops = own_block(rillet_stops_size(g->params.stop, g->params.stops));
    rillet_stops_begin(g->stops, g->params.stop, g->params.stops);
}

void generation_begin(generation *g, const sampling *params) {
    memset(g, 0, sizeof *g);
    g->params = *params;
    if (!params->has_seed) g->params.seed = random_number() & UINT32_MAX;
    g->params.has_seed = 1;
    rillet_random_seed(&g->random, g->params.seed);
    begin_stops(g);
    g->limit = params->max_new_tokens;
    g->finish_reason = g->limit == 0 ? "length" : NULL;
    g->is_delivered = 1;
    g->owed = -1;
}

int32_t generation_draw(generation *g, const rillet_model *model, const float *logits,
                        void *scratch) {
    rillet_sampling options = sampling_of(&g->params);
    if (g->owed >= 0) {
        int32_t token = g->owed;
        g->owed = -1;
        return token;
    }
    double uniform = options.temperature == 0 ? 0 : rillet_random_next(&g->random);
    return rillet_draw(model, &options, logits, uniform, scratch);
}

static void flush(generation *g, text *shown) {
    size_t held;
    rillet_stops_held(g->stops, &held);
    shown->length += rillet_stops_flush(g->stops, text_room(shown, held));
    text_put(shown, "");
}

/* Adds a piece, and what it completes; returns whether that is a stop string. */
static int push(generation *g, const char *piece, size_t length, text *shown) {
    int32_t stopped;
    char *to = text_room(shown, rillet_stops_room(g->stops, length));
    shown->length += rillet_stops_push(g->stops, piece, length, to, &stopped);
    text_put(shown, "");
    if (stopped < 0) return 0;
    g->stop_string = g->params.stop[stopped];
    g->finish_reason = "stop";
    return 1;
}

void generation_accept(generation *g, const char *piece, size_t length, text *shown) {
    g->count++;
    if (push(g, piece, length, shown) || g->count < g->limit) return;
    g->finish_reason = "length";
    flush(g, shown);
}

static int is_stopped(const generation *g) {
    return g->finish_reason != NULL && strcmp(g->finish_reason, "stop") == 0;
}

void generation_extend(generation *g, int64_t tokens) {
    /* Its reader has not seen that it ended. */
    if (tokens < 0 && !g->is_delivered && is_stopped(g)) return;
    g->stop_string = NULL;
    if (tokens >= 0) g->limit = tokens > INT64_MAX - g->count ? INT64_MAX : g->count + tokens;
    g->finish_reason = g->count >= g->limit ? "length" : NULL;
}

void generation_continue(generation *g, const generation *earlier) {
    size_t length;
    text before = {NULL, 0, 0};
    const char *held = rillet_stops_held(earlier->stops, &length);
    if (g->params.seed == earlier->params.seed) g->random = earlier->random;
    text_add(&before, earlier->waiting.data, earlier->waiting.length);
    text_add(&before, held, length);
    push(g, before.data, before.length, &g->waiting);
    free(before.data);
}

/* Whole numbers of 128 bits, as decimal texts. */

static void put_wide(text *t, const uint64_t words[2]) {
    uint32_t parts[4] = {(uint32_t)(words[1] >> 32), (uint32_t)words[1], (uint32_t)(words[0] >> 32),
                         (uint32_t)words[0]};
    char digits[48];
    size_t at = sizeof digits - 1;
    digits[at] = 0;
    do {
        uint64_t rest = 0;
        for (int i = 0; i < 4; i++) {
            rest = rest << 32 | parts[i];
            parts[i] = (uint32_t)(rest / 10);
            rest %= 10;
        }
        digits[--at] = (char)('0' + rest);
    } while (parts[0] | parts[1] | parts[2] | parts[3]);
    text_put(t, "\"");
    text_put(t, digits + at);
    text_put(t, "\"");
}

/* Returns 0 if the value is no such number. */
static int read_wide(rl_json value, uint64_t words[2]) {
    rl_json rest = rl_json_inside(value);
    uint32_t parts[4] = {0, 0, 0, 0};
    if (!rl_json_begins(value, '"') || rest.at == rest.end) return 0;
    for (; rest.at < rest.end; rest.at++) {
        if (*rest.at < '0' || *rest.at > '9') return 0;
        uint64_t carry = (uint64_t)(*rest.at - '0');
        for (int i = 3; i >= 0; i--) {
            carry += (uint64_t)parts[i] * 10;
            parts[i] = (uint32_t)carry;
            carry >>= 32;
        }
        if (carry > 0) return 0;
    }
    words[0] = (uint64_t)parts[2] << 32 | parts[3];
    words[1] = (uint64_t)parts[0] << 32 | parts[1];
    return 1;
}

/* Saving. */

static void put_optional(text *t, const char *name, const char *value) {
    text_put(t, name);
    if (value == NULL)
        text_put(t, "null");
    else
        text_put_json(t, value, strlen(value));
}

static void put_count(text *t, const char *name, int64_t count) {
    char digits[24];
    snprintf(digits, sizeof digits, "%lld", (long long)count);
    text_put(t, name);
    text_put(t, digits);
}

void generation_write(const generation *g, text *t) {
    size_t length;
    const char *held = rillet_stops_held(g->stops, &length);
    text_put(t, "{");
    if (g->waiting.length > 0) {
        text_put(t, "\"backlog\": ");
        text_put_json(t, g->waiting.data, g->waiting.length);
        text_put(t, ", ");
    }
    put_count(t, "\"count\": ", g->count);
    if (g->owed >= 0) {
        put_count(t, ", \"drawn\": [", g->owed);
        text_put(t, ", 0.0, []]");
    }
    put_optional(t, ", \"finish_reason\": ", g->finish_reason);
    text_put(t, ", \"held\": ");
    text_put_json(t, held, length);
    put_count(t, ", \"limit\": ", g->limit);
    text_put(t, ", \"params\": ");
    sampling_write(&g->params, t);
    text_put(t, ", \"sampler\": {\"processors\": [], \"random\": {\"inc\": ");
    put_wide(t, g->random.increment);
    text_put(t, ", \"state\": ");
    put_wide(t, g->random.state);
    put_optional(t, "}}, \"stop_string\": ", g->stop_string);
    text_put(t, "}");
}

/* Restoring. */

_Noreturn static void refuse(const char *path, const char *what) {
    fail(FAILED, "%s does not hold a whole stream of this model (%s); it was not written by rillet",
         path, what);
}

static const char *read_optional(rl_json value) {
    text t = {NULL, 0, 0};
    if (!rl_json_begins(value, '"')) return NULL;
    text_clear(&t);
    text_put_string(&t, value);
    return t.data; /* kept to the end of the program */
}

static int32_t read_token(rl_json value, const char *path, int32_t vocabulary) {
    rl_json rest = rl_json_inside(value), name, first;
    int64_t token = -1;
    if (rl_json_begins(value, '[') && rl_json_next(&rest, &name, &first) &&
        rl_json_whole(first, &token) && token >= 0 && token < vocabulary)
        return (int32_t)token;
    refuse(path, "the token that was drawn does not exist");
}

/* What is to be shown before anything else: a token's text, or that of an earlier generation. */
static void read_waiting(generation *g, rl_json value, const char *path, int32_t vocabulary) {
    rl_json outbox = rl_json_member(value, "outbox"), backlog = rl_json_member(value, "backlog");
    rl_json rest = rl_json_inside(outbox), name, one = {NULL, NULL};
    text_clear(&g->waiting);
    if (rl_json_begins(outbox, '[')) {
        read_token(outbox, path, vocabulary);
        g->is_delivered = 0; /* even if it has no text */
        rl_json_next(&rest, &name, &one);
        if (rl_json_next(&rest, &name, &one) && rl_json_begins(one, '"'))
            text_put_string(&g->waiting, one);
    }
    if (rl_json_begins(backlog, '"')) text_put_string(&g->waiting, backlog);
    if (g->waiting.length > 0) g->is_delivered = 0;
}

static void read_held(generation *g, rl_json value, const char *path) {
    text held = {NULL, 0, 0}, shown = {NULL, 0, 0};
    text_clear(&held);
    if (rl_json_begins(value, '"')) text_put_string(&held, value);
    if (push(g, held.data, held.length, &shown) || shown.length > 0)
        refuse(path, "the text that was held back begins no stop string");
    free(held.data);
    free(shown.data);
}

void generation_read(generation *g, rl_json value, const char *path, int32_t vocabulary) {
    sampling params;
    rl_json sampler = rl_json_member(value, "sampler");
    rl_json numbers = rl_json_member(sampler, "random"), drawn = rl_json_member(value, "drawn");
    sampling_begin(&params);
    sampling_read(&params, rl_json_member(value, "params"), path);
    generation_begin(g, &params);
    if (!read_wide(rl_json_member(numbers, "state"), g->random.state) ||
        !read_wide(rl_json_member(numbers, "inc"), g->random.increment))
        refuse(path, "it has no random numbers");
    read_held(g, rl_json_member(value, "held"), path);
    if (!rl_json_whole(rl_json_member(value, "limit"), &g->limit) ||
        !rl_json_whole(rl_json_member(value, "count"), &g->count) || g->limit < 0 || g->count < 0)
        refuse(path, "it does not say how many tokens it has");
    read_waiting(g, value, path, vocabulary);
    g->finish_reason = read_optional(rl_json_member(value, "finish_reason"));
    g->stop_string = read_optional(rl_json_member(value, "stop_string"));
    if (rl_json_begins(drawn, '[')) g->owed = read_token(drawn, path, vocabulary);
}
