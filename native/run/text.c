#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/utf8.h"
#include "fail.h"

char *text_room(text *t, size_t length) {
    if (t->length + length + 1 > t->room) {
        t->room = 2 * (t->length + length + 1);
        t->data = own(realloc(t->data, t->room));
    }
    return t->data + t->length;
}

void text_add(text *t, const void *bytes, size_t length) {
    text_room(t, length);
    if (length > 0) memcpy(t->data + t->length, bytes, length);
    t->length += length;
    t->data[t->length] = 0;
}

void text_put(text *t, const char *string) { text_add(t, string, strlen(string)); }

void text_clear(text *t) {
    t->length = 0;
    text_add(t, "", 0);
}

/* Adds a character between quotes. */
static void put_character(text *t, uint32_t c) {
    static const char plain[] = "\"\\\b\f\n\r\t", codes[] = "\"\\bfnrt";
    const char *special = c > 0 && c < 0x80 ? strchr(plain, (int)c) : NULL;
    char escape[16];
    if (special != NULL)
        snprintf(escape, sizeof escape, "\\%c", codes[special - plain]);
    else if (c >= ' ' && c <= '~')
        snprintf(escape, sizeof escape, "%c", (int)c);
    else if (c < 0x10000)
        snprintf(escape, sizeof escape, "\\u%04x", (unsigned)c);
    else
        snprintf(escape, sizeof escape, "\\u%04x\\u%04x",
                 (unsigned)(0xd800 + ((c - 0x10000) >> 10)), (unsigned)(0xdc00 + (c & 0x3ff)));
    text_put(t, escape);
}

void text_put_json(text *t, const char *bytes, size_t length) {
    const unsigned char *at = (const unsigned char *)bytes, *end = at + length;
    uint32_t c;
    text_put(t, "\"");
    while (at < end) {
        int size = rl_utf8_take(at, end, &c);
        put_character(t, size > 0 ? c : 0xdc00u + *at);
        at += size > 0 ? size : 1;
    }
    text_put(t, "\"");
}

void text_put_string(text *t, rl_json string) {
    size_t length = rl_json_text(string, NULL);
    char *bytes = own(malloc(length + 1));
    rl_json_text(string, bytes);
    text_add(t, bytes, length);
    free(bytes);
}

/* An object's members. */
typedef struct {
    text name;
    rl_json value;
} member;

static int by_name(const void *a, const void *b) {
    const text *x = &((const member *)a)->name, *y = &((const member *)b)->name;
    size_t common = x->length < y->length ? x->length : y->length;
    int difference = memcmp(x->data, y->data, common);
    return difference ? difference : (x->length > y->length) - (x->length < y->length);
}

static void put_object(text *t, rl_json value, const char *comma, const char *colon,
                       const char *skipped) {
    rl_json rest = rl_json_inside(value), name, inner;
    size_t count = 0, room = 16;
    member *members = own(malloc(room * sizeof *members));
    while (rl_json_next(&rest, &name, &inner)) {
        if (count == room) members = own(realloc(members, (room *= 2) * sizeof *members));
        member one = {{NULL, 0, 0}, inner};
        text_clear(&one.name);
        text_put_string(&one.name, name);
        members[count++] = one;
    }
    qsort(members, count, sizeof *members, by_name);
    const char *between = "";
    text_put(t, "{");
    for (size_t i = 0; i < count; i++) {
        member *one = members + i;
        if (skipped == NULL || strcmp(one->name.data, skipped) != 0) {
            text_put(t, between);
            text_put_json(t, one->name.data, one->name.length);
            text_put(t, colon);
            text_put_sorted(t, one->value, comma, colon, NULL);
            between = comma;
        }
        free(one->name.data);
    }
    text_put(t, "}");
    free(members);
}

void text_put_sorted(text *t, rl_json value, const char *comma, const char *colon,
                     const char *skipped) {
    rl_json rest = rl_json_inside(value), name, inner;
    if (rl_json_begins(value, '{')) {
        put_object(t, value, comma, colon, skipped);
    } else if (rl_json_begins(value, '[')) {
        const char *between = "";
        text_put(t, "[");
        while (rl_json_next(&rest, &name, &inner)) {
            text_put(t, between);
            text_put_sorted(t, inner, comma, colon, NULL);
            between = comma;
        }
        text_put(t, "]");
    } else if (rl_json_begins(value, '"')) {
        text string = {NULL, 0, 0};
        text_clear(&string);
        text_put_string(&string, value);
        text_put_json(t, string.data, string.length);
        free(string.data);
    } else {
        text_add(t, value.at, (size_t)(value.end - value.at)); /* as Python wrote it */
    }
}
