/* What a board does for the model. boards/ has some; write these few functions for another. */
#ifndef BOARD_H
#define BOARD_H

#include <stddef.h>
#include <stdint.h>

/* Clocks and the serial port. */
void board_begin(void);

/* Writes one byte to the serial port. */
void board_put(char byte);

/* Two slots for saved streams, SLOT_BYTES each, aligned to 8 bytes: where one lies in memory, all
 * of it made 0xff, and a page of SLOT_PAGE bytes written, once after each erasure. The last two
 * return 0, or anything else if it failed. */
const void *board_slot(int slot);
int board_slot_erase(int slot);
int board_slot_write(int slot, size_t offset, const void *page);

/* For the self-test: a counter, how many instructions one of its steps takes, and how much of the
 * stack was ever used. All may be 0. */
uint32_t board_ticks(void);
float board_instructions_a_tick(void);
size_t board_stack_used(void);

/* Starts again, and ends: where nothing can end, it waits forever. */
void board_reset(void);
void board_end(int status);

#endif
