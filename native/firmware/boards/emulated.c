/* What the emulated boards share: memory before main(), painted stack, and slots that lie in memory
 * which survives a reset; on a chip they are two sectors of its flash. */
#include "emulated.h"

#include <string.h>

#include "../board.h"
#include "../slots.h"
#include "../weights.h"

/* The linker script's. */
extern uint32_t data_begin[], data_end[], data_image[], bss_begin[], bss_end[];
extern unsigned char slots_begin[];

int main(void);

void run_main(void) {
    for (uint32_t *to = data_begin, *from = data_image; to < data_end;) *to++ = *from++;
    for (uint32_t *to = bss_begin; to < bss_end;) *to++ = 0;
    main();
    for (;;) continue;
}

void fault(void) { board_end(3); }

const void *board_slot(int slot) { return slots_begin + (size_t)slot * SLOT_BYTES; }

int board_slot_erase(int slot) {
    memset(slots_begin + (size_t)slot * SLOT_BYTES, 0xff, SLOT_BYTES);
    return 0;
}

int board_slot_write(int slot, size_t offset, const void *page) {
    memcpy(slots_begin + (size_t)slot * SLOT_BYTES + offset, page, SLOT_PAGE);
    return 0;
}

size_t board_stack_used(void) {
    const uint32_t *at = stack_begin;
    while (at < stack_end && *at == STACK_PAINT) at++;
    return (size_t)(stack_end - at) * 4;
}
