#include "words.h"

#include "unicode_classes.h"
#include "utf8.h"

enum { OTHER, LETTER, NUMBER, SPACE, NONE };

static int class_of(uint32_t c) {
    if (c < 0x80) { /* most text */
        if ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') return LETTER;
        if (c >= '0' && c <= '9') return NUMBER;
        return c == ' ' || (c >= '\t' && c <= '\r') ? SPACE : OTHER;
    }
    size_t low = 0, high = sizeof class_runs / sizeof *class_runs;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (class_runs[middle] >> 2 <= c)
            low = middle;
        else
            high = middle;
    }
    return class_runs[low] & 3;
}

int rl_text_take(rl_text *text, uint32_t *character) {
    while (text->at < text->end) {
        int length = rl_utf8_take(text->at, text->end, character);
        if (length > 0) {
            text->at += length;
            return length;
        }
        text->at++;
    }
    return 0;
}

/* The next character's class, without taking it; NONE at the end. */
static int next_class(rl_text text) {
    uint32_t c;
    return rl_text_take(&text, &c) ? class_of(c) : NONE;
}

static void take_run(rl_text *text, int kind) {
    uint32_t c;
    while (next_class(*text) == kind) rl_text_take(text, &c);
}

/* Takes what follows an apostrophe in 's, 't, 're, 've, 'm, 'll and 'd. Returns whether it did. */
static int take_contraction(rl_text *text) {
    rl_text ahead = *text;
    uint32_t first, second = 0;
    if (!rl_text_take(&ahead, &first)) return 0;
    if (first == 's' || first == 't' || first == 'm' || first == 'd') {
        *text = ahead;
        return 1;
    }
    if ((first != 'r' && first != 'v' && first != 'l') || !rl_text_take(&ahead, &second)) return 0;
    if (second != (first == 'l' ? 'l' : 'e')) return 0;
    *text = ahead;
    return 1;
}

/* Takes white space, but leaves the last of it if something follows. */
static void take_space(rl_text *text) {
    rl_text before = *text;
    uint32_t c;
    while (next_class(*text) == SPACE) {
        before = *text;
        rl_text_take(text, &c);
    }
    if (next_class(*text) != NONE) *text = before;
}

rl_text rl_text_word(rl_text *text) {
    rl_text word = *text;
    uint32_t c;
    if (rl_text_take(text, &c)) {
        int kind = class_of(c), next = next_class(*text);
        if (c == ' ' && next != SPACE && next != NONE) {
            take_run(text, next);
        } else if (kind == SPACE) {
            if (next == SPACE) take_space(text);
        } else if (c != '\'' || !take_contraction(text)) {
            take_run(text, kind);
        }
    }
    word.end = text->at;
    return word;
}
