/* native/run's errors, random numbers and real numbers, by the page. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../../native/include/rillet.h"
#include "../../native/run/fail.h"
#include "../../native/run/random.h"
#include "../../native/run/text.h"
#include "host.h"

enum { LINE = 2048 };

void fail(int status, const char *format, ...) {
    char line[LINE];
    va_list values;
    (void)status;
    va_start(values, format);
    vsnprintf(line, sizeof line, format, values);
    va_end(values);
    host_fail(line, strlen(line));
}

void note(const char *format, ...) {
    char line[LINE];
    va_list values;
    va_start(values, format);
    vsnprintf(line, sizeof line, format, values);
    va_end(values);
    host_note(line, strlen(line));
}

void *own(void *memory) {
    if (memory == NULL)
        fail(FAILED, "there is no memory left; close sessions that are done with, or take a "
                     "smaller model");
    return memory;
}

void *own_block(size_t bytes) {
    void *memory = own(malloc(bytes));
    memset(memory, 0, bytes);
    return memory;
}

uint64_t random_number(void) { return host_random(); }

void text_put_real(text *t, double number) {
    char digits[32];
    text_add(t, digits, host_repr(number, digits));
}
