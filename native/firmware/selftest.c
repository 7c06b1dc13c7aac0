/* Prints what tests compare and what README.md reports: greedy tokens, drawn text, instructions a
 * token, stack, and how a saved stream goes on after a reset. */
#include <string.h>

#include "board.h"
#include "device.h"
#include "weights.h"

enum { GREEDY = 100, DRAWN = 100, MEASURED = 300, RESUMED = 50 };

static void put_text(const char *text) {
    while (*text) board_put(*text++);
}

static void put_number(uint32_t number) {
    char digits[12];
    int at = sizeof digits - 1;
    digits[at] = 0;
    do digits[--at] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    put_text(digits + at);
}

static void put_line(const char *name, uint32_t number) {
    put_text(name);
    put_number(number);
    board_put('\n');
}

static void begin(uint64_t seed) {
    if (device_begin(seed) != 0) board_end(1);
    device_read(MODEL_PROMPT, strlen(MODEL_PROMPT));
}

static void put_tokens(const char *name, int count) {
    put_text(name);
    for (int i = 0; i < count; i++) {
        board_put(' ');
        put_number((uint32_t)device_next_greedy());
    }
    board_put('\n');
}

static void put_drawn(void) {
    put_text("drawn ");
    for (int i = 0; i < DRAWN; i++) device_next();
    put_text("\nend of text\n");
}

static uint32_t ticks[MEASURED];

static void sort(uint32_t *values, int count) {
    for (int i = 1; i < count; i++) {
        uint32_t value = values[i];
        int at = i;
        for (; at > 0 && values[at - 1] > value; at--) values[at] = values[at - 1];
        values[at] = value;
    }
}

static void measure(int32_t (*next)(void)) {
    for (int i = 0; i < MEASURED; i++) {
        uint32_t before = board_ticks();
        next();
        ticks[i] = board_ticks() - before;
    }
    sort(ticks, MEASURED);
}

/* The least, typical and most instructions of a token. */
static void put_measured(const char *name) {
    static const char *const which[] = {" least ", " typical ", " most "};
    for (int i = 0; i < 3; i++) {
        put_text(name);
        put_line(which[i],
                 (uint32_t)((float)ticks[i * (MEASURED - 1) / 2] * board_instructions_a_tick()));
    }
}

int main(void) {
    board_begin();
    if (device_load() == 0) {
        put_tokens("resumed", RESUMED);
        put_line("stack ", (uint32_t)board_stack_used());
        board_end(0);
        return 0;
    }
    begin(0);
    put_tokens("greedy", GREEDY);
    begin(7);
    put_drawn();
    begin(0);
    measure(device_next_greedy);
    put_measured("greedy");
    put_text("measured text ");
    measure(device_next);
    board_put('\n');
    put_measured("drawn");
    begin(3);
    put_text("saved text ");
    for (int i = 0; i < DRAWN; i++) device_next();
    board_put('\n');
    if (device_save() != 0) board_end(1);
    board_reset();
    return 0;
}
