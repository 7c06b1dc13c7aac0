/* The words that byte pairs are merged within: GPT-2's pattern, which is
 *
 *     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 */
#ifndef RL_WORDS_H
#define RL_WORDS_H

#include <stddef.h>
#include <stdint.h>

/* Text, of which bytes that are no UTF-8 are passed over. */
typedef struct {
    const unsigned char *at, *end;
} rl_text;

/* Takes the next character; returns its bytes, which end at `at`, or 0 at the end. */
int rl_text_take(rl_text *text, uint32_t *character);

/* Takes the next word, and returns it, while there is text. */
rl_text rl_text_word(rl_text *text);

#endif
