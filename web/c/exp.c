/* e^x in double precision, to the last digit but for a few per thousand. */
#include <math.h>
#include <stdint.h>
#include <string.h>

/* e^r - 1 for |r| up to ln(2) / 2, of which `low` is what r lacks. */
static double series(double r, double low) {
    static const double terms[] = {
        1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320,
        1.0 / 5040,       1.0 / 720,       1.0 / 120,      1.0 / 24,      1.0 / 6,      1.0 / 2,
    };
    double sum = 0;
    for (unsigned i = 0; i < sizeof terms / sizeof *terms; i++) sum = sum * r + terms[i];
    return r + (low + r * r * sum);
}

double exp(double x) {
    if (x < -745.2) return 0;
    if (x > 709.7) return 1.7976931348623157e308;
    double n = x * 1.4426950408889634;
    int64_t whole = (int64_t)(n < 0 ? n - 0.5 : n + 0.5);
    double high = x - (double)whole * 6.93147180369123816490e-01; /* exact: its last bits are 0 */
    double part = (double)whole * 1.90821492927058770002e-10;
    double r = high - part, power = 1 + series(r, (high - r) - part);
    int64_t halves[2] = {whole / 2, whole - whole / 2}; /* each a normal number */
    for (int i = 0; i < 2; i++) {
        uint64_t bits = (uint64_t)(halves[i] + 1023) << 52;
        double factor;
        memcpy(&factor, &bits, sizeof factor);
        power *= factor;
    }
    return power;
}
