/* A computer with a C library, to try the folder before there is a board. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../board.h"
#include "../weights.h"
#include "../slots.h"

int main(void);

static _Alignas(8) unsigned char slots[2][SLOT_BYTES];

void board_begin(void) {}

void board_put(char byte) { putchar(byte); }

const void *board_slot(int slot) { return slots[slot]; }

int board_slot_erase(int slot) {
    memset(slots[slot], 0xff, SLOT_BYTES);
    return 0;
}

int board_slot_write(int slot, size_t offset, const void *page) {
    memcpy(slots[slot] + offset, page, SLOT_PAGE);
    return 0;
}

uint32_t board_ticks(void) { return 0; }

float board_instructions_a_tick(void) { return 0; }

size_t board_stack_used(void) { return 0; }

void board_reset(void) { main(); } /* what must be zero, device_load makes so */

void board_end(int status) { exit(status); }
