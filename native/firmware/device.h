/* One stream of text on a device, in static memory: no heap, no files. device_begin or device_load
 * come first; until one has, the others return -1 or do nothing. */
#ifndef DEVICE_H
#define DEVICE_H

#include <stddef.h>
#include <stdint.h>

/* Begins a new stream; the seed chooses its text. Returns 0, or -1 if weights.c is of
 * another version than the library. */
int device_begin(uint64_t seed);

/* Reads a text, which the memory keeps. */
void device_read(const char *text, size_t length);

/* Draws the next token, reads it, and writes the text that it completes with board_put. Returns the
 * token, or -1 if the stream is damaged. */
int32_t device_next(void);

/* The same with the likeliest token, and nothing written. */
int32_t device_next_greedy(void);

/* Draws with another temperature than the bundle's: 0 is greedy. */
void device_set_temperature(double temperature);

/* Saves the stream in the slot that holds the older one. Returns 0, or -1 if the flash failed: the
 * other slot is as it was. */
int device_save(void);

/* Continues the newest stream that was saved whole. Returns 0, or -1 if there is none: begin one
 * then. */
int device_load(void);

#endif
