/* snprintf, as far as the engine and native/run use it: %c %s %.*s, and whole numbers. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    char *text;
    size_t room, length;
} writer;

static void put(writer *w, const char *bytes, size_t length) {
    for (size_t i = 0; i < length; i++, w->length++)
        if (w->length + 1 < w->room) w->text[w->length] = bytes[i];
}

static void put_number(writer *w, uint64_t number, unsigned base, int width) {
    char digits[24];
    int at = sizeof digits;
    do {
        digits[--at] = "0123456789abcdef"[number % base];
        number /= base;
        width--;
    } while (number > 0 || width > 0);
    put(w, digits + at, sizeof digits - (size_t)at);
}

/* What stands between % and the letter. */
typedef struct {
    int width, most, is_wide;
} form;

static const char *read_form(const char *at, form *f, va_list *values) {
    f->width = f->is_wide = 0;
    f->most = -1;
    for (; *at >= '0' && *at <= '9'; at++) f->width = f->width * 10 + *at - '0';
    if (at[0] == '.' && at[1] == '*') {
        f->most = va_arg(*values, int);
        at += 2;
    }
    for (; *at == 'l' || *at == 'z'; at++) f->is_wide += *at == 'l'; /* a size_t has 32 bits */
    return at;
}

static void put_string(writer *w, const char *string, int most) {
    size_t length = 0;
    while ((most < 0 || length < (size_t)most) && string[length]) length++;
    put(w, string, length);
}

static void put_value(writer *w, char letter, const form *f, va_list *values) {
    char character;
    int64_t number;
    switch (letter) {
    case 's': put_string(w, va_arg(*values, const char *), f->most); break;
    case 'c':
        character = (char)va_arg(*values, int);
        put(w, &character, 1);
        break;
    case 'd':
        number = f->is_wide > 1 ? va_arg(*values, long long) : va_arg(*values, int);
        if (number < 0) put(w, "-", 1);
        put_number(w, number < 0 ? -(uint64_t)number : (uint64_t)number, 10, f->width);
        break;
    case 'u':
    case 'x':
        number = f->is_wide > 1 ? va_arg(*values, long long) : (int64_t)va_arg(*values, unsigned);
        put_number(w, (uint64_t)number, letter == 'x' ? 16 : 10, f->width);
        break;
    default: put(w, &letter, 1);
    }
}

int vsnprintf(char *text, size_t room, const char *format, va_list values) {
    writer w = {text, room, 0};
    va_list rest;
    va_copy(rest, values);
    for (const char *at = format; *at; at++) {
        form f;
        if (*at != '%') {
            put(&w, at, 1);
            continue;
        }
        at = read_form(at + 1, &f, &rest);
        put_value(&w, *at, &f, &rest);
    }
    va_end(rest);
    if (room > 0) text[w.length < room ? w.length : room - 1] = 0;
    return (int)w.length;
}

int snprintf(char *text, size_t room, const char *format, ...) {
    va_list values;
    va_start(values, format);
    int length = vsnprintf(text, room, format, values);
    va_end(values);
    return length;
}
