/* Stop strings, wherever tokens end: Knuth, Morris and Pratt's search for each. */
#include <string.h>

#include "../include/rillet.h"

struct rillet_stops {
    int32_t count, held;  /* strings; bytes held back */
    size_t longest, text; /* the longest string; where what is held back lies */
};

typedef struct {
    size_t length, matched;
    size_t at, borders; /* places of its bytes, and of a number for each: its longest border */
} rl_stop;

static size_t round_up(size_t bytes) {
    return (bytes + RILLET_ALIGN - 1) / RILLET_ALIGN * RILLET_ALIGN;
}

static rl_stop *stop_at(rillet_stops *s, int32_t index) {
    return (rl_stop *)(void *)((char *)s + round_up(sizeof *s)) + index;
}

static char *held(rillet_stops *s) { return (char *)s + s->text; }

size_t rillet_stops_size(const char *const *strings, size_t count) {
    size_t bytes = round_up(sizeof(rillet_stops)) + round_up(count * sizeof(rl_stop)), longest = 0;
    for (size_t i = 0; i < count; i++) {
        size_t length = strlen(strings[i]);
        bytes += round_up(length) + round_up(length * sizeof(size_t));
        if (length > longest) longest = length;
    }
    return bytes + round_up(longest);
}

static void set_borders(const char *string, size_t length, size_t *borders) {
    size_t border = 0;
    if (length > 0) borders[0] = 0;
    for (size_t at = 1; at < length; at++) {
        while (border && string[at] != string[border]) border = borders[border - 1];
        if (string[at] == string[border]) border++;
        borders[at] = border;
    }
}

void rillet_stops_begin(rillet_stops *s, const char *const *strings, size_t count) {
    size_t at = round_up(sizeof *s) + round_up(count * sizeof(rl_stop));
    s->count = (int32_t)count;
    s->held = 0;
    s->longest = 0;
    for (int32_t i = 0; i < s->count; i++) {
        rl_stop *stop = stop_at(s, i);
        stop->length = strlen(strings[i]);
        stop->matched = 0;
        stop->at = at;
        stop->borders = at += round_up(stop->length);
        at += round_up(stop->length * sizeof(size_t));
        memcpy((char *)s + stop->at, strings[i], stop->length);
        set_borders(strings[i], stop->length, (size_t *)(void *)((char *)s + stop->borders));
        if (stop->length > s->longest) s->longest = stop->length;
    }
    s->text = at;
}

size_t rillet_stops_room(const rillet_stops *s, size_t length) { return s->longest + length; }

/* Reads a byte; returns the longest string that it completes, or -1. */
static int32_t advance(rillet_stops *s, char byte) {
    int32_t complete = -1;
    for (int32_t i = 0; i < s->count; i++) {
        rl_stop *stop = stop_at(s, i);
        const char *string = (char *)s + stop->at;
        const size_t *borders = (size_t *)(void *)((char *)s + stop->borders);
        if (stop->length == 0) continue;
        while (stop->matched && string[stop->matched] != byte)
            stop->matched = borders[stop->matched - 1];
        if (string[stop->matched] == byte) stop->matched++;
        if (stop->matched < stop->length) continue;
        if (complete < 0 || stop->length > stop_at(s, complete)->length) complete = i;
        stop->matched = borders[stop->length - 1];
    }
    return complete;
}

static void start_over(rillet_stops *s) {
    s->held = 0;
    for (int32_t i = 0; i < s->count; i++) stop_at(s, i)->matched = 0;
}

size_t rillet_stops_push(rillet_stops *s, const char *text, size_t length, char *shown,
                         int32_t *stopped) {
    size_t pending = (size_t)s->held, keep = 0;
    *stopped = -1;
    memcpy(shown, held(s), pending);
    for (size_t i = 0; i < length; i++) {
        shown[pending++] = text[i];
        *stopped = advance(s, text[i]);
        if (*stopped < 0) continue;
        size_t found = stop_at(s, *stopped)->length;
        start_over(s);
        return pending - found;
    }
    for (int32_t i = 0; i < s->count; i++)
        if (stop_at(s, i)->matched > keep) keep = stop_at(s, i)->matched;
    s->held = (int32_t)keep;
    memcpy(held(s), shown + pending - keep, keep);
    return pending - keep;
}

const char *rillet_stops_held(const rillet_stops *s, size_t *length) {
    *length = (size_t)s->held;
    return (const char *)s + s->text;
}

size_t rillet_stops_flush(rillet_stops *s, char *shown) {
    size_t length = (size_t)s->held;
    memcpy(shown, held(s), length);
    start_over(s);
    return length;
}
