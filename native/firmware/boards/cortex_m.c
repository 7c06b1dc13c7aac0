/* Cortex-M on Arm's MPS boards, which qemu emulates: start, serial port, tick counter. */
#include "../board.h"
#include "emulated.h"

void start(void);

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))
#define UART_DATA REGISTER(BOARD_UART)
#define UART_STATE REGISTER(BOARD_UART + 4)
#define UART_CONTROL REGISTER(BOARD_UART + 8)
#define UART_DIVIDER REGISTER(BOARD_UART + 16)
#define SYSTICK_CONTROL REGISTER(0xe000e010)
#define SYSTICK_RELOAD REGISTER(0xe000e014)
#define SYSTICK_VALUE REGISTER(0xe000e018)
#define COPROCESSORS REGISTER(0xe000ed88)
#define RESET_CONTROL REGISTER(0xe000ed0c)
#define VECTORS REGISTER(0xe000ed08)

__attribute__((section(".vectors"), used)) static void *const vectors[] = {
    stack_end, (void *)start, (void *)fault, (void *)fault, (void *)fault, (void *)fault,
};

__attribute__((used)) static void prepare(void) {
    COPROCESSORS |= 0xfu << 20; /* floating point */
    __asm__ volatile("dsb\n\tisb");
    VECTORS = (uint32_t)(uintptr_t)vectors;
    run_main();
}

/* Paints the stack before it is used. */
__attribute__((naked)) void start(void) {
    __asm__ volatile("ldr r0, =stack_begin\n\t"
                     "ldr r1, =stack_end\n\t"
                     "mov sp, r1\n\t"
                     "ldr r2, =0x5a5a5a5a\n"
                     "1:\tstr r2, [r0], #4\n\t"
                     "cmp r0, r1\n\t"
                     "blo 1b\n\t"
                     "b prepare\n");
}

void board_begin(void) {
    UART_DIVIDER = 16;
    UART_CONTROL = 1;
    SYSTICK_RELOAD = 0xffffff;
    SYSTICK_VALUE = 0;
    SYSTICK_CONTROL = 5;
}

void board_put(char byte) {
    while (UART_STATE & 1) continue;
    UART_DATA = (unsigned char)byte;
}

/* Counts down in 24 bits; shifted, so that differences wrap in 32. */
uint32_t board_ticks(void) { return (0xffffff - SYSTICK_VALUE) << 8; }

/* With qemu's -icount shift=0, an instruction takes a nanosecond. */
float board_instructions_a_tick(void) { return 1e9f / BOARD_HZ / 256; }

void board_reset(void) {
    RESET_CONTROL = 0x05fa0004;
    for (;;) continue;
}

/* Asks the emulator to end. A chip without a debugger would stop here with a fault: wait there
 * instead. */
void board_end(int status) {
    register uint32_t operation __asm__("r0") = 0x20; /* SYS_EXIT_EXTENDED */
    uint32_t arguments[2] = {0x20026, (uint32_t)status};
    register uint32_t *block __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xab" : : "r"(operation), "r"(block) : "memory");
    for (;;) continue;
}
