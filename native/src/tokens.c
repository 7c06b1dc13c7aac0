/* What a loaded tokenizer says of its tokens. */
#include "tokenizer.h"

int32_t rillet_tokenizer_vocabulary(const rillet_tokenizer *t) { return t->vocabulary; }

int rillet_tokenizer_reads_any_bytes(const rillet_tokenizer *t) { return t->reads_any_bytes; }

const char *rillet_token(const rillet_tokenizer *t, int32_t token, size_t *length) {
    *length = 0;
    if (token < 0 || token >= t->vocabulary) return NULL;
    return (const char *)rl_token_text(t, token, length);
}
