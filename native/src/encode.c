/* Text to tokens. */
#include <string.h>

#include "tokenizer.h"
#include "utf8.h"
#include "words.h"

/* A symbol of a word that is being merged; those that were merged into their left neighbour have
 * the token -1. */
typedef struct {
    int32_t token, previous, next;
} rl_piece;

/* A merge that was possible when it was noted. */
typedef struct {
    int32_t rank, at, token;
} rl_chance;

/* A word of n bytes has at most n pieces; each merge takes one away and notes two chances. */
enum { BYTES_PER_BYTE = sizeof(rl_piece) + 3 * sizeof(rl_chance) };

typedef struct {
    const rillet_tokenizer *t;
    rl_piece *pieces;
    rl_chance *chances; /* a heap, the next merge first */
    int32_t count, waiting;
} rl_word;

static int32_t symbol_token(const rillet_tokenizer *t, uint32_t c) {
    const rl_symbol *symbols = rl_part(t, t->symbol_table);
    int32_t low = 0, high = t->symbols;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (symbols[middle].character < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < t->symbols && symbols[low].character == c ? symbols[low].token : -1;
}

/* The merge of two tokens, or NULL; of several, the last, as in Hugging Face's library. */
static const rl_merge *merge_of(const rillet_tokenizer *t, int32_t left, int32_t right) {
    const rl_merge *merges = rl_part(t, t->merge_table), *found = NULL;
    int32_t low = 0, high = t->merges;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        const rl_merge *m = merges + middle;
        if (m->left < left || (m->left == left && m->right <= right)) {
            if (m->left == left && m->right == right) found = m;
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return found;
}

/* The heap of chances: by rank, then by place. */

static int is_sooner(rl_chance a, rl_chance b) {
    return a.rank != b.rank ? a.rank < b.rank : a.at < b.at;
}

static void push(rl_word *w, rl_chance chance) {
    int32_t at = w->waiting++;
    while (at > 0 && is_sooner(chance, w->chances[(at - 1) / 2])) {
        w->chances[at] = w->chances[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    w->chances[at] = chance;
}

static rl_chance pop(rl_word *w) {
    rl_chance top = w->chances[0], last = w->chances[--w->waiting];
    int32_t at = 0;
    for (;;) {
        int32_t child = 2 * at + 1;
        if (child >= w->waiting) break;
        if (child + 1 < w->waiting && is_sooner(w->chances[child + 1], w->chances[child])) child++;
        if (!is_sooner(w->chances[child], last)) break;
        w->chances[at] = w->chances[child];
        at = child;
    }
    w->chances[at] = last;
    return top;
}

/* Notes that a piece may be merged with the next. */
static void note(rl_word *w, int32_t at) {
    if (at < 0 || w->pieces[at].next < 0) return;
    const rl_merge *m = merge_of(w->t, w->pieces[at].token, w->pieces[w->pieces[at].next].token);
    if (m == NULL) return;
    rl_chance chance = {m->rank, at, m->token};
    push(w, chance);
}

static void merge(rl_word *w, rl_chance chance) {
    rl_piece *piece = w->pieces + chance.at;
    if (piece->token < 0 || piece->next < 0) return;
    rl_piece *right = w->pieces + piece->next;
    const rl_merge *m = merge_of(w->t, piece->token, right->token);
    if (m == NULL || m->token != chance.token) return; /* what it was noted of has gone */
    piece->token = m->token;
    piece->next = right->next;
    right->token = -1;
    if (piece->next >= 0) w->pieces[piece->next].previous = chance.at;
    note(w, piece->previous);
    note(w, chance.at);
}

/* Splits a word into the tokens of its bytes; bytes without one are left out. */
static void split(rl_word *w, rl_text word) {
    const int32_t *bytes = rl_part(w->t, w->t->byte_tokens);
    uint32_t c;
    w->count = w->waiting = 0;
    for (int length; (length = rl_text_take(&word, &c)) > 0;)
        for (int i = length; i > 0; i--) {
            int32_t token = bytes[word.at[-i]];
            if (token < 0) continue;
            rl_piece piece = {token, w->count - 1, w->count + 1};
            w->pieces[w->count++] = piece;
        }
    if (w->count > 0) w->pieces[w->count - 1].next = -1;
}

static size_t encode_word(rl_word *w, rl_text word, int32_t *tokens) {
    size_t count = 0;
    split(w, word);
    for (int32_t at = 0; w->t->merges && at + 1 < w->count; at++) note(w, at);
    while (w->waiting > 0) merge(w, pop(w));
    for (int32_t at = w->count > 0 ? 0 : -1; at >= 0; at = w->pieces[at].next)
        tokens[count++] = w->pieces[at].token;
    return count;
}

static rl_text next_word(const rillet_tokenizer *t, rl_text *text) {
    if (t->has_words) return rl_text_word(text);
    rl_text all = *text;
    text->at = text->end;
    return all;
}

static size_t encode_pairs(const rillet_tokenizer *t, rl_text text, int32_t *tokens,
                           void *scratch) {
    rl_text rest = text;
    size_t longest = 0, count = 0;
    while (rest.at < rest.end) {
        rl_text word = next_word(t, &rest);
        if ((size_t)(word.end - word.at) > longest) longest = (size_t)(word.end - word.at);
    }
    rl_word w = {t, scratch, NULL, 0, 0};
    w.chances = (rl_chance *)(void *)((char *)scratch + longest * sizeof(rl_piece));
    while (text.at < text.end) count += encode_word(&w, next_word(t, &text), tokens + count);
    return count;
}

/* Whether tokens are characters or bytes; a build for one model may know that they are. */
static int is_plain(const rillet_tokenizer *t) {
#ifdef RL_PLAIN_TOKENS
    (void)t;
    return 1;
#else
    return !t->is_byte_level || t->reads_any_bytes;
#endif
}

size_t rillet_encode_scratch(const rillet_tokenizer *t, const char *text, size_t length) {
    rl_text rest = {(const unsigned char *)text, (const unsigned char *)text + length};
    size_t longest = 1;
    while (!is_plain(t) && rest.at < rest.end) {
        rl_text word = next_word(t, &rest);
        if ((size_t)(word.end - word.at) > longest) longest = (size_t)(word.end - word.at);
    }
    return (longest * BYTES_PER_BYTE + RILLET_ALIGN - 1) / RILLET_ALIGN * RILLET_ALIGN;
}

size_t rillet_encode(const rillet_tokenizer *t, const char *text, size_t length, int32_t *tokens,
                     void *scratch) {
    rl_text rest = {(const unsigned char *)text, (const unsigned char *)text + length};
    const int32_t *bytes = rl_part(t, t->byte_tokens);
    size_t count = 0;
    uint32_t c;
    if (!is_plain(t)) return encode_pairs(t, rest, tokens, scratch);
    if (t->reads_any_bytes) {
        for (; rest.at < rest.end; rest.at++) tokens[count++] = bytes[*rest.at];
        return count;
    }
    while (rl_text_take(&rest, &c)) {
        int32_t token = symbol_token(t, c);
        if (token >= 0) tokens[count++] = token;
    }
    return count;
}

size_t rillet_unknown(const rillet_tokenizer *t, const char *text, size_t length, size_t from,
                      size_t *bytes) {
    const unsigned char *start = (const unsigned char *)text, *at = start + from;
    uint32_t c;
    *bytes = 0;
    if (t->reads_any_bytes) return length;
    while (at < start + length) {
        int size = rl_utf8_take(at, start + length, &c);
        if (size <= 0 || (!t->is_byte_level && symbol_token(t, c) < 0)) {
            *bytes = size > 0 ? (size_t)size : 1;
            return (size_t)(at - start);
        }
        at += size;
    }
    return length;
}
