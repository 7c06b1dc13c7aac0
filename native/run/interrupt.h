/* What ends a program's reading and writing. */
#ifndef RUN_INTERRUPT_H
#define RUN_INTERRUPT_H

/* The program's: whether it was asked to stop. Asked now and then while a text is read, which then
 * ends between two tokens, or is waited for, which then ends, or a reader is waited for. */
int is_interrupted(void);

#endif
