#include "random.h"

#include <stdio.h>

#include "fail.h"

uint64_t random_number(void) {
    uint64_t number;
    FILE *source = fopen("/dev/urandom", "rb");
    if (source == NULL || fread(&number, sizeof number, 1, source) != 1)
        fail(FAILED, "/dev/urandom gives no random numbers; give --seed");
    fclose(source);
    return number;
}
