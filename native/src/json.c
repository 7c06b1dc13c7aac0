#include "json.h"

#include <string.h>

#include "utf8.h"

enum { DEEPEST = 64 };

typedef const unsigned char *place;

static place skip_space(place at, place end) {
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r')) at++;
    return at;
}

static int is_digit(unsigned char c) { return c >= '0' && c <= '9'; }

static int hex(unsigned char c) {
    if (is_digit(c)) return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Checking: each function returns the end of what it checks, or NULL. */

static place check_escape(place at, place end) {
    if (at == end) return NULL;
    if (*at != 'u') return strchr("\"\\/bfnrt", *at) != NULL && *at ? at + 1 : NULL;
    if (end - at < 5) return NULL;
    for (int i = 1; i <= 4; i++)
        if (hex(at[i]) < 0) return NULL;
    return at + 5;
}

static place check_string(place at, place end) {
    uint32_t c;
    if (at == end || *at++ != '"') return NULL;
    while (at != NULL && at < end && *at != '"') {
        if (*at < 0x20) return NULL;
        if (*at == '\\') {
            at = check_escape(at + 1, end);
        } else {
            int length = rl_utf8_take(at, end, &c);
            at = length > 0 ? at + length : NULL;
        }
    }
    return at == NULL || at == end ? NULL : at + 1;
}

static place check_digits(place at, place end) {
    place start = at;
    while (at < end && is_digit(*at)) at++;
    return at > start ? at : NULL;
}

static place check_number(place at, place end) {
    if (at < end && *at == '-') at++;
    if (at < end && *at == '0')
        at++;
    else
        at = check_digits(at, end);
    if (at != NULL && at < end && *at == '.') at = check_digits(at + 1, end);
    if (at != NULL && at < end && (*at | 0x20) == 'e') {
        at++;
        if (at < end && (*at == '+' || *at == '-')) at++;
        at = check_digits(at, end);
    }
    return at;
}

static place check_word(place at, place end) {
    /* The last three are Python's, which writes them for what JSON lacks. */
    static const char *const words[] = {"null", "true", "false", "NaN", "Infinity", "-Infinity"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t length = strlen(words[i]);
        if ((size_t)(end - at) >= length && memcmp(at, words[i], length) == 0) return at + length;
    }
    return NULL;
}

static place check_value(place at, place end, int depth);

/* A list, or an object. */
static place check_items(place at, place end, int depth) {
    unsigned char close = *at == '{' ? '}' : ']';
    at = skip_space(at + 1, end);
    if (at < end && *at == close) return at + 1;
    for (;;) {
        at = skip_space(at, end);
        if (close == '}') {
            at = check_string(at, end);
            if (at == NULL) return NULL;
            at = skip_space(at, end);
            if (at == end || *at++ != ':') return NULL;
        }
        at = check_value(at, end, depth + 1);
        if (at == NULL) return NULL;
        at = skip_space(at, end);
        if (at == end) return NULL;
        if (*at == close) return at + 1;
        if (*at++ != ',') return NULL;
    }
}

static place check_value(place at, place end, int depth) {
    at = skip_space(at, end);
    if (at == end || depth > DEEPEST) return NULL;
    if (*at == '{' || *at == '[') return check_items(at, end, depth);
    if (*at == '"') return check_string(at, end);
    place word = check_word(at, end);
    return word != NULL ? word : check_number(at, end);
}

int rl_json_open(rl_json *value, const void *text, size_t length) {
    place at = text, end = at + length;
    rl_json none = {NULL, NULL};
    *value = none;
    if (text == NULL) return -1;
    place last = check_value(at, end, 0);
    if (last == NULL || skip_space(last, end) != end) return -1;
    value->at = skip_space(at, end);
    value->end = last;
    return 0;
}

/* Reading what was checked. */

int rl_json_is(rl_json value, const char *text) {
    size_t length = strlen(text);
    return value.at != NULL && (size_t)(value.end - value.at) == length &&
           memcmp(value.at, text, length) == 0;
}

int rl_json_begins(rl_json value, char first) {
    return value.at != NULL && *value.at == (unsigned char)first;
}

rl_json rl_json_inside(rl_json value) {
    rl_json inside = {value.at, value.at};
    if (value.at == NULL || strchr("{[\"", *value.at) == NULL || *value.at == 0) return inside;
    inside.at = value.at + 1;
    inside.end = value.end - 1;
    return inside;
}

static place end_of_string(place at) {
    for (at++; *at != '"'; at++)
        if (*at == '\\') at++;
    return at + 1;
}

/* The end of a value that was checked, so that brackets and quotes are all that matters. */
static place end_of_value(place at, place end) {
    int depth = 0;
    while (at < end) {
        unsigned char c = *at;
        if (depth == 0 && (c == ',' || c == ' ' || c == '\n' || c == '\t' || c == '\r')) break;
        if (c == '"') {
            at = end_of_string(at);
        } else {
            depth += (c == '{' || c == '[') - (c == '}' || c == ']');
            at++;
        }
    }
    return at;
}

int rl_json_next(rl_json *rest, rl_json *name, rl_json *value) {
    place at = skip_space(rest->at, rest->end), end = rest->end;
    if (at >= end) return 0;
    value->at = at;
    value->end = *at == '"' ? end_of_string(at) : end_of_value(at, end);
    at = skip_space(value->end, end);
    if (at < end && *at == ':') {
        *name = *value;
        value->at = skip_space(at + 1, end);
        value->end = end_of_value(value->at, end);
        at = skip_space(value->end, end);
    }
    rest->at = at < end ? at + 1 : end; /* after the comma */
    return 1;
}

static int same(rl_json string, const char *text) {
    rl_json rest = rl_json_inside(string);
    uint32_t c;
    while (rl_json_character(&rest, &c))
        if (*text == 0 || c != (unsigned char)*text++) return 0;
    return *text == 0;
}

rl_json rl_json_member(rl_json object, const char *name) {
    rl_json rest = rl_json_inside(object), key, value, found = {NULL, NULL};
    if (!rl_json_begins(object, '{')) return found;
    while (rl_json_next(&rest, &key, &value))
        if (same(key, name)) found = value;
    return found;
}

int rl_json_whole(rl_json value, int64_t *number) {
    place at = value.at;
    int negative = at != NULL && *at == '-';
    *number = 0;
    if (at == NULL || (at += negative) == value.end) return 0;
    for (; at < value.end; at++) {
        if (!is_digit(*at) || *number > INT64_MAX / 10) return 0;
        uint64_t more = (uint64_t)*number * 10 + (uint64_t)(*at - '0');
        if (more > INT64_MAX) return 0;
        *number = (int64_t)more;
    }
    if (negative) *number = -*number;
    return 1;
}

static uint32_t four_digits(place at) {
    uint32_t number = 0;
    for (int i = 0; i < 4; i++) number = number << 4 | (uint32_t)hex(at[i]);
    return number;
}

static uint32_t escaped(rl_json *rest) {
    static const char codes[] = "bfnrt", means[] = "\b\f\n\r\t";
    unsigned char kind = *rest->at++;
    if (kind != 'u') {
        const char *code = strchr(codes, kind);
        return code == NULL ? kind : (unsigned char)means[code - codes];
    }
    uint32_t first = four_digits(rest->at);
    rest->at += 4;
    if (first < 0xd800 || first > 0xdbff || rest->end - rest->at < 6) return first;
    if (rest->at[0] != '\\' || rest->at[1] != 'u') return first;
    uint32_t second = four_digits(rest->at + 2);
    if (second < 0xdc00 || second > 0xdfff) return first;
    rest->at += 6;
    return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
}

int rl_json_character(rl_json *rest, uint32_t *character) {
    if (rest->at >= rest->end) return 0;
    if (*rest->at == '\\') {
        rest->at++;
        *character = escaped(rest);
    } else {
        rest->at += rl_utf8_take(rest->at, rest->end, character);
    }
    return 1;
}

size_t rl_json_text(rl_json string, void *out) {
    rl_json rest = rl_json_inside(string);
    unsigned char bytes[4], *to = out;
    size_t count = 0;
    uint32_t c;
    while (rl_json_character(&rest, &c)) {
        int length = 1;
        if (c >= 0xdc80 && c <= 0xdcff)
            bytes[0] = (unsigned char)c;
        else
            length = rl_utf8_put(c, bytes);
        if (to != NULL) memcpy(to + count, bytes, (size_t)length);
        count += (size_t)length;
    }
    return count;
}
