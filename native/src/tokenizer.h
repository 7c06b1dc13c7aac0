/* A tokenizer in memory: one block without pointers. */
#ifndef RL_TOKENIZER_H
#define RL_TOKENIZER_H

#include "../include/rillet.h"

typedef struct {
    int32_t left, right, rank, token;
} rl_merge;

typedef struct {
    uint32_t character;
    int32_t token;
} rl_symbol;

struct rillet_tokenizer {
    uint64_t bytes;
    int32_t vocabulary, merges, symbols;
    int32_t is_byte_level, has_words, reads_any_bytes;
    uint32_t longest;    /* bytes of the longest token */
    uint64_t ends;         /* uint32_t [vocabulary + 1]: where each token's bytes begin */
    uint64_t order;        /* int32_t [vocabulary]: tokens, sorted by their bytes */
    uint64_t byte_tokens;  /* int32_t [256]: the token of each byte, or -1 */
    uint64_t symbol_table; /* rl_symbol [symbols]: tokens that are one character, sorted */
    uint64_t merge_table;  /* rl_merge [merges], sorted by left and right */
    uint64_t text;         /* the tokens' bytes */
};

static inline const void *rl_part(const rillet_tokenizer *t, uint64_t place) {
    return (const char *)t + (size_t)place;
}

/* A token's bytes. */
static inline const unsigned char *rl_token_text(const rillet_tokenizer *t, int32_t token,
                                                 size_t *length) {
    const uint32_t *ends = rl_part(t, t->ends);
    *length = ends[token + 1] - ends[token];
    return (const unsigned char *)rl_part(t, t->text) + ends[token];
}

#endif
