/* What a board's start code needs of emulated.c. */
#ifndef EMULATED_H
#define EMULATED_H

#include <stdint.h>

/* The linker script's. */
extern uint32_t stack_begin[], stack_end[];

#define STACK_PAINT 0x5a5a5a5a /* start code fills the stack with it, to see how much is used */

/* Prepares the memory, and runs main(). */
void run_main(void);

/* Ends: something is wrong that only the processor noticed. */
void fault(void);

#endif
