/* Memory in regions. What is taken belongs to the region that is current then, and goes when its
 * region goes: code that was written for a program that ends needs no clearing up. */
#ifndef WEB_HEAP_H
#define WEB_HEAP_H

#include <stddef.h>

typedef struct block block;

/* Begins as zeros. */
typedef struct {
    block *first;
} region;

/* Makes a region current; returns the one before. */
region *heap_enter(region *r);

/* Gives all of a region's memory back. */
void heap_empty(region *r);

/* Moves a block to a region, so that it outlives its own. */
void heap_move(void *memory, region *r);

#endif
