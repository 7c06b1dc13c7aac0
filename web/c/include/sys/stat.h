/* Of files that the page has brought: see files.c. */
#ifndef WEB_STAT_H
#define WEB_STAT_H
struct stat {
    int st_mode;
};
#define S_ISREG(mode) ((mode) == 1)
#define S_ISDIR(mode) ((mode) == 2)
int stat(const char *path, struct stat *status);
int lstat(const char *path, struct stat *status);
#endif
