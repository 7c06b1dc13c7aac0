/* RISC-V on qemu's board `virt`: start, serial port, instruction counter. The slots lie in memory
 * that survives a reset; on a chip they are two sectors of its flash. */
#include <string.h>

#include "../board.h"
#include "../weights.h"
#include "../slots.h"

/* The linker script's. */
extern uint32_t data_begin[], data_end[], data_image[], bss_begin[], bss_end[], stack_end[];
extern uint32_t stack_begin[];
extern unsigned char slots_begin[];

int main(void);

#define UART (*(volatile unsigned char *)(uintptr_t)0x10000000)
#define UART_STATUS (*(volatile unsigned char *)(uintptr_t)0x10000005)
#define FINISHER (*(volatile uint32_t *)(uintptr_t)0x100000)

enum { PAINT = 0x5a5a5a5a };

__attribute__((used)) static void prepare(void) {
    for (uint32_t *to = data_begin, *from = data_image; to < data_end;) *to++ = *from++;
    for (uint32_t *to = bss_begin; to < bss_end;) *to++ = 0;
    main();
    for (;;) continue;
}

__attribute__((used)) static void fault(void) { board_end(3); }

/* Turns floating point on, and paints the stack before it is used. */
__attribute__((naked, section(".vectors"), used)) void start(void) {
    __asm__ volatile(".option arch, +zicsr\n\t"
                     "li t0, 0x6000\n\t"
                     "csrs mstatus, t0\n\t"
                     "la t0, fault\n\t"
                     "csrw mtvec, t0\n\t"
                     "la t0, stack_begin\n\t"
                     "la sp, stack_end\n\t"
                     "li t1, 0x5a5a5a5a\n"
                     "1:\tsw t1, 0(t0)\n\t"
                     "addi t0, t0, 4\n\t"
                     "bltu t0, sp, 1b\n\t"
                     "j prepare\n");
}

void board_begin(void) {}

void board_put(char byte) {
    while (!(UART_STATUS & 0x20)) continue;
    UART = (unsigned char)byte;
}

const void *board_slot(int slot) { return slots_begin + (size_t)slot * SLOT_BYTES; }

int board_slot_erase(int slot) {
    memset(slots_begin + (size_t)slot * SLOT_BYTES, 0xff, SLOT_BYTES);
    return 0;
}

int board_slot_write(int slot, size_t offset, const void *page) {
    memcpy(slots_begin + (size_t)slot * SLOT_BYTES + offset, page, SLOT_PAGE);
    return 0;
}

/* With qemu's -icount shift=0, instructions are counted one by one. */
uint32_t board_ticks(void) {
    uint32_t count;
    __asm__ volatile(".option arch, +zicsr\n\tcsrr %0, minstret" : "=r"(count));
    return count;
}

float board_instructions_a_tick(void) { return 1; }

size_t board_stack_used(void) {
    const uint32_t *at = stack_begin;
    while (at < stack_end && *at == PAINT) at++;
    return (size_t)(stack_end - at) * 4;
}

void board_reset(void) {
    FINISHER = 0x7777;
    for (;;) continue;
}

void board_end(int status) {
    FINISHER = status == 0 ? 0x5555 : 0x3333 | (uint32_t)status << 16;
    for (;;) continue;
}
