#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

void text_put_real(text *t, double number) {
    char digits[40], shown[64];
    int precision = 1, exponent;
    do {
        snprintf(digits, sizeof digits, "%.*e", precision - 1, number);
    } while (strtod(digits, NULL) != number && ++precision <= 17);
    exponent = atoi(strchr(digits, 'e') + 1);
    if (exponent < -4 || exponent >= 16) { /* as 1e-05, or 1.5e+16 */
        snprintf(shown, sizeof shown, "%s", digits);
    } else {
        int decimals = precision - 1 - exponent;
        snprintf(shown, sizeof shown, "%.*f", decimals > 1 ? decimals : 1, number);
    }
    text_put(t, shown);
}
