#ifndef WEB_MATH_H
#define WEB_MATH_H
double exp(double x);
#define fabs __builtin_fabs
#define sqrtf __builtin_sqrtf
#define fabsf __builtin_fabsf
#define rintf __builtin_rintf
#endif
