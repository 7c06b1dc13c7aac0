/* RISC-V on qemu's board `virt`: start, serial port, instruction counter. */
#include "../board.h"
#include "emulated.h"

#define UART (*(volatile unsigned char *)(uintptr_t)0x10000000)
#define UART_STATUS (*(volatile unsigned char *)(uintptr_t)0x10000005)
#define FINISHER (*(volatile uint32_t *)(uintptr_t)0x100000)

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
                     "j run_main\n");
}

void board_begin(void) {}

void board_put(char byte) {
    while (!(UART_STATUS & 0x20)) continue;
    UART = (unsigned char)byte;
}

/* With qemu's -icount shift=0, instructions are counted one by one. */
uint32_t board_ticks(void) {
    uint32_t count;
    __asm__ volatile(".option arch, +zicsr\n\tcsrr %0, minstret" : "=r"(count));
    return count;
}

float board_instructions_a_tick(void) { return 1; }

void board_reset(void) {
    FINISHER = 0x7777;
    for (;;) continue;
}

void board_end(int status) {
    FINISHER = status == 0 ? 0x5555 : 0x3333 | (uint32_t)status << 16;
    for (;;) continue;
}
