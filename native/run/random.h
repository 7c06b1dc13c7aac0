/* Numbers that nobody can foresee. */
#ifndef RUN_RANDOM_H
#define RUN_RANDOM_H

#include <stdint.h>

uint64_t random_number(void);

#endif
