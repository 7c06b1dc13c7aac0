#ifndef WEB_STDIO_H
#define WEB_STDIO_H
#include <stdarg.h>
#include <stddef.h>
typedef struct web_file FILE; /* only named */
int snprintf(char *text, size_t room, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int vsnprintf(char *text, size_t room, const char *format, va_list values);
#endif
