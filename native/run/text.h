/* Text that grows, and JSON as Python writes it. */
#ifndef RUN_TEXT_H
#define RUN_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "../src/json.h"

/* Begins as zeros. `data` ends with a zero. */
typedef struct {
    char *data;
    size_t length, room;
} text;

/* Makes room for so many bytes more, and returns where they go. */
char *text_room(text *t, size_t length);

void text_add(text *t, const void *bytes, size_t length);
void text_put(text *t, const char *string);
void text_clear(text *t);

/* Adds what json.dumps(string) writes in Python, which is ASCII. Bytes that are not UTF-8 become
 * escaped ones, as Python's surrogateescape has them. */
void text_put_json(text *t, const char *bytes, size_t length);

/* Adds a finite number as Python's repr writes it: the shortest that is read back as the same. */
void text_put_real(text *t, double number);

/* Adds a JSON value as json.dumps writes it with sorted keys and these separators, without the
 * member `skipped` of the object itself. */
void text_put_sorted(text *t, rl_json value, const char *comma, const char *colon,
                     const char *skipped);

/* A JSON string as text. */
void text_put_string(text *t, rl_json string);

#endif
