/* Text that is read: checked, and characters without a token named. */
#ifndef RUN_PROMPT_H
#define RUN_PROMPT_H

#include "../include/rillet.h"

/* Notes characters without a token, which are left out; refuses bytes that are not UTF-8, unless
 * the tokenizer reads any. */
void check_text(const rillet_tokenizer *tokenizer, const char *text, size_t length);

#endif
