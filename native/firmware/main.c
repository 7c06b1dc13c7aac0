/* Streams text to the serial port, and keeps the stream in flash. Yours to change. */
#include <string.h>

#include "board.h"
#include "device.h"

#ifndef PROMPT
#define PROMPT "\n"
#endif
#ifndef SEED
#define SEED 1
#endif
#ifndef TOKENS
#define TOKENS 200
#endif

int main(void) {
    board_begin();
    if (device_load() != 0) { /* nothing was saved yet */
        if (device_begin(SEED) != 0) board_end(1);
        device_read(PROMPT, strlen(PROMPT));
    }
    for (int i = 0; i < TOKENS; i++)
        if (device_next() < 0) board_end(1);
    board_put('\n');
    board_end(device_save() != 0);
    return 0;
}
