/* Files between the page and the module. */
#ifndef WEB_FILES_H
#define WEB_FILES_H

#include "../../native/run/files.h"

/* Brings a file; its block has room for a zero at its end. */
void files_bring(const char *path, char *data, size_t length);

/* Forgets what was brought and not read. */
void files_forget(void);

/* What was written last. */
content files_written(void);

#endif
