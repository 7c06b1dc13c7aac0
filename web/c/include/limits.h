#include_next <limits.h>
#ifndef PATH_MAX
#define PATH_MAX 1024
#endif
