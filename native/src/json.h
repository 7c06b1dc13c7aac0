/* A checked reader of JSON: finds values in place, and allocates nothing. */
#ifndef RL_JSON_H
#define RL_JSON_H

#include <stddef.h>
#include <stdint.h>

/* A value's text, without white space around it; `at` is NULL where there is none. */
typedef struct {
    const unsigned char *at, *end;
} rl_json;

/* Checks a whole text. Returns 0, or -1 if it is not one JSON value in UTF-8. The functions below
 * trust what this has checked. */
int rl_json_open(rl_json *value, const void *text, size_t length);

/* Whether a value's text is this, such as `null` or `"BPE"`; a value that is absent is none. */
int rl_json_is(rl_json value, const char *text);

/* Whether a value is there, and begins with this character: `{`, `[`, `"`. */
int rl_json_begins(rl_json value, char first);

/* An object's member; of several with one name, the last. */
rl_json rl_json_member(rl_json object, const char *name);

/* Walks over a list or an object: begin with `rest` as what rl_json_inside returns, which is empty
 * for anything else. Returns 0 at the end. */
rl_json rl_json_inside(rl_json value);
int rl_json_next(rl_json *rest, rl_json *name, rl_json *value);

/* A whole number; returns 0 if the value is none, or lies outside of ±INT64_MAX. */
int rl_json_whole(rl_json value, int64_t *number);

/* Walks over the characters of a string: begin with rl_json_inside. Halves of surrogate pairs that
 * stand alone come as they are. Returns 0 at the end. */
int rl_json_character(rl_json *rest, uint32_t *character);

/* A string as UTF-8, in at most as many bytes as its JSON takes; returns how many. A NULL only
 * counts. Half a pair from U+DC80 becomes the byte that it escapes, as in Python. */
size_t rl_json_text(rl_json string, void *out);

#endif
