/* Loads a tokenizer.json into one block: characters, bytes, or byte pairs. */
#include "tokenizer.h"

#include <stdio.h>
#include <string.h>

#include "json.h"
#include "sort.h"
#include "utf8.h"

enum { MOST_TOKENS = 1 << 24 };

typedef struct {
    rillet_tokenizer *t; /* sizes and places */
    char *block;         /* where the parts go; NULL while the size is asked */
    rl_json vocabulary, merges;
    const char *problem;
    rillet_status status;
} loader;

static void fail(loader *l, rillet_status status, const char *problem) {
    if (l->status != RILLET_OK) return;
    l->status = status;
    l->problem = problem;
}

static void *part(const loader *l, size_t place) { return l->block + place; }

/* What the file must say. */

static int is_absent(rl_json value) { return value.at == NULL || rl_json_is(value, "null"); }

/* Whether a part says nothing: it is absent, false, or empty. */
static int is_empty(rl_json value) {
    rl_json rest = rl_json_inside(value), name, item;
    if (is_absent(value) || rl_json_is(value, "false") || rl_json_is(value, "\"\"")) return 1;
    return rl_json_begins(value, '[') && !rl_json_next(&rest, &name, &item);
}

static void require_empty(loader *l, rl_json object, const char *const *names,
                          const char *const *problems) {
    for (int i = 0; names[i] != NULL; i++)
        if (!is_empty(rl_json_member(object, names[i]))) fail(l, RILLET_UNSUPPORTED, problems[i]);
}

static void check_model(loader *l, rl_json model) {
    static const char *const names[] = {"dropout",
                                        "unk_token",
                                        "continuing_subword_prefix",
                                        "end_of_word_suffix",
                                        "byte_fallback",
                                        "ignore_merges",
                                        NULL};
    static const char *const problems[] = {"the tokenizer has dropout",
                                           "the tokenizer has a token for unknown characters",
                                           "the tokenizer marks pieces inside words",
                                           "the tokenizer marks ends of words",
                                           "the tokenizer falls back to bytes",
                                           "the tokenizer ignores merges"};
    rl_json kind = rl_json_member(model, "type");
    if (!rl_json_begins(model, '{')) fail(l, RILLET_DAMAGED, "the tokenizer has no model");
    if (!is_absent(kind) && !rl_json_is(kind, "\"BPE\""))
        fail(l, RILLET_UNSUPPORTED, "the tokenizer's model is not of type BPE");
    require_empty(l, model, names, problems);
    l->vocabulary = rl_json_member(model, "vocab");
    l->merges = rl_json_member(model, "merges");
    if (!rl_json_begins(l->vocabulary, '{'))
        fail(l, RILLET_DAMAGED, "the tokenizer has no vocabulary");
    if (!is_absent(l->merges) && !rl_json_begins(l->merges, '['))
        fail(l, RILLET_DAMAGED, "the tokenizer's merges are no list");
}

static void check_parts(loader *l, rl_json file) {
    static const char *const names[] = {"normalizer", "post_processor", "truncation",
                                        "padding",    "added_tokens",   NULL};
    static const char *const problems[] = {
        "the tokenizer has a normalizer", "the tokenizer has a post-processor",
        "the tokenizer truncates", "the tokenizer pads", "the tokenizer has added tokens"};
    rl_json before = rl_json_member(file, "pre_tokenizer"), after = rl_json_member(file, "decoder");
    int is_byte_level = rl_json_is(rl_json_member(before, "type"), "\"ByteLevel\"");
    const char *decoder = is_byte_level ? "\"ByteLevel\"" : "\"Fuse\"";
    require_empty(l, file, names, problems);
    if (!is_byte_level && !is_absent(before))
        fail(l, RILLET_UNSUPPORTED, "the tokenizer's pre-tokenizer is not ByteLevel");
    if (!rl_json_is(rl_json_member(after, "type"), decoder))
        fail(l, RILLET_UNSUPPORTED,
             is_byte_level ? "the tokenizer's decoder is not ByteLevel, and its pre-tokenizer is"
                           : "the tokenizer's decoder is not Fuse");
    if (is_byte_level && !rl_json_is(rl_json_member(before, "add_prefix_space"), "false"))
        fail(l, RILLET_UNSUPPORTED, "the tokenizer puts a space before the text");
    if (!is_byte_level && !is_empty(l->merges))
        fail(l, RILLET_UNSUPPORTED, "the tokenizer merges characters that are no bytes");
    l->t->is_byte_level = is_byte_level;
    l->t->has_words = is_byte_level && !rl_json_is(rl_json_member(before, "use_regex"), "false");
}

/* Tokens. */

/* The byte that a character stands for in GPT-2's table, or -1: bytes that can be printed stand for
 * themselves, and the others are numbered from 256. */
static int byte_of(uint32_t c) {
    if ((c > 32 && c < 127) || (c > 160 && c < 256 && c != 173)) return (int)c;
    if (c < 256 || c > 323) return -1;
    int spare = (int)c - 256;
    return spare < 33 ? spare : spare < 67 ? 127 + spare - 33 : 173;
}

/* Writes the bytes of a token, or of a part of one, and returns how many; NULL counts. */
static uint32_t token_bytes(loader *l, rl_json rest, unsigned char *out) {
    unsigned char bytes[4];
    uint32_t c, count = 0;
    while (rl_json_character(&rest, &c)) {
        int length = 1, byte = l->t->is_byte_level ? byte_of(c) : 0;
        if (byte < 0)
            fail(l, RILLET_UNSUPPORTED, "a token has a character that stands for no byte");
        if (c >= 0xd800 && c <= 0xdfff)
            fail(l, RILLET_DAMAGED, "a token has half a surrogate pair");
        bytes[0] = (unsigned char)byte;
        if (!l->t->is_byte_level) length = rl_utf8_put(c, bytes);
        if (out != NULL) memcpy(out + count, bytes, (size_t)length);
        count += (uint32_t)length;
    }
    return count;
}

/* Counts tokens, their bytes, and merges. */
static void count(loader *l, size_t *text) {
    rl_json rest = rl_json_inside(l->vocabulary), name, value;
    *text = 0;
    while (l->status == RILLET_OK && rl_json_next(&rest, &name, &value)) {
        uint32_t length = token_bytes(l, rl_json_inside(name), NULL);
        *text += length;
        if (length > l->t->longest) l->t->longest = length;
        if (++l->t->vocabulary > MOST_TOKENS || *text > (size_t)INT32_MAX)
            fail(l, RILLET_UNSUPPORTED, "the tokenizer is too large");
    }
    if (l->t->vocabulary == 0) fail(l, RILLET_DAMAGED, "the tokenizer has no tokens");
    rest = rl_json_inside(l->merges);
    while (l->status == RILLET_OK && rl_json_next(&rest, &name, &value))
        if (++l->t->merges > MOST_TOKENS) fail(l, RILLET_UNSUPPORTED, "the tokenizer is too large");
}

static size_t reserve(rillet_tokenizer *t, size_t bytes) {
    size_t place = t->bytes;
    t->bytes += (bytes + RILLET_ALIGN - 1) / RILLET_ALIGN * RILLET_ALIGN;
    return place;
}

static void lay_out(rillet_tokenizer *t, size_t text) {
    size_t vocabulary = (size_t)t->vocabulary;
    t->bytes = 0;
    reserve(t, sizeof *t);
    t->ends = reserve(t, (vocabulary + 1) * sizeof(uint32_t));
    t->order = reserve(t, vocabulary * sizeof(int32_t));
    t->byte_tokens = reserve(t, 256 * sizeof(int32_t));
    t->symbol_table = reserve(t, t->is_byte_level ? 0 : vocabulary * sizeof(rl_symbol));
    t->merge_table = reserve(t, (size_t)t->merges * sizeof(rl_merge));
    t->text = reserve(t, text);
}

static int32_t number_of(loader *l, rl_json value) {
    int64_t number;
    if (rl_json_whole(value, &number) && number >= 0 && number < l->t->vocabulary)
        return (int32_t)number;
    fail(l, RILLET_DAMAGED, "the tokenizer does not number its tokens without gaps");
    return 0;
}

/* Sets where each token's bytes begin, and their bytes. */
static void load_tokens(loader *l) {
    uint32_t *ends = part(l, l->t->ends), at = 0;
    rl_json rest = rl_json_inside(l->vocabulary), name, value;
    memset(ends, 0xff, ((size_t)l->t->vocabulary + 1) * sizeof *ends);
    while (rl_json_next(&rest, &name, &value)) {
        int32_t token = number_of(l, value);
        if (ends[token] != UINT32_MAX)
            fail(l, RILLET_DAMAGED, "the tokenizer does not number its tokens without gaps");
        ends[token] = token_bytes(l, rl_json_inside(name), NULL);
    }
    if (l->status != RILLET_OK) return;
    for (int32_t token = 0; token <= l->t->vocabulary; token++) {
        uint32_t length = ends[token];
        ends[token] = at;
        at += length;
    }
    rest = rl_json_inside(l->vocabulary);
    while (rl_json_next(&rest, &name, &value))
        token_bytes(l, rl_json_inside(name),
                    (unsigned char *)part(l, l->t->text) + ends[number_of(l, value)]);
}

/* Looking tokens up by their bytes. */

static int compare(const unsigned char *a, size_t a_length, const unsigned char *b,
                   size_t b_length) {
    size_t common = a_length < b_length ? a_length : b_length;
    int difference = common ? memcmp(a, b, common) : 0;
    return difference ? difference : (a_length > b_length) - (a_length < b_length);
}

static int token_before(const void *context, const void *a, const void *b) {
    size_t a_length, b_length;
    const unsigned char *a_text = rl_token_text(context, *(const int32_t *)a, &a_length);
    const unsigned char *b_text = rl_token_text(context, *(const int32_t *)b, &b_length);
    return compare(a_text, a_length, b_text, b_length) < 0;
}

static void sort_tokens(loader *l) {
    int32_t *order = part(l, l->t->order);
    for (int32_t i = 0; i < l->t->vocabulary; i++) order[i] = i;
    rl_sort(order, (size_t)l->t->vocabulary, sizeof *order, token_before, l->block);
    for (int32_t i = 1; i < l->t->vocabulary; i++)
        if (!token_before(l->block, order + i - 1, order + i))
            fail(l, RILLET_DAMAGED, "the tokenizer lists a token twice");
}

/* The token with these bytes, or -1. */
static int32_t find(const loader *l, const unsigned char *text, size_t length) {
    const rillet_tokenizer *t = (const rillet_tokenizer *)(const void *)l->block;
    const int32_t *order = rl_part(t, t->order);
    int32_t low = 0, high = t->vocabulary;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        size_t other_length;
        const unsigned char *other = rl_token_text(t, order[middle], &other_length);
        int difference = compare(text, length, other, other_length);
        if (difference == 0) return order[middle];
        if (difference < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return -1;
}

static int symbol_before(const void *context, const void *a, const void *b) {
    (void)context;
    return ((const rl_symbol *)a)->character < ((const rl_symbol *)b)->character;
}

/* Tables of the tokens that are one byte or one character. */
static void load_symbols(loader *l) {
    rillet_tokenizer *t = (rillet_tokenizer *)(void *)l->block;
    int32_t *bytes = part(l, t->byte_tokens), singles = 0;
    rl_symbol *symbols = part(l, t->symbol_table);
    memset(bytes, 0xff, 256 * sizeof *bytes);
    for (int32_t token = 0; token < t->vocabulary; token++) {
        size_t length;
        uint32_t c;
        const unsigned char *text = rl_token_text(t, token, &length);
        if (length == 1) bytes[text[0]] = token;
        singles += length == 1;
        if (t->is_byte_level || length == 0 || length > 4) continue;
        if (rl_utf8_take(text, text + length, &c) != (int)length) continue;
        symbols[t->symbols].character = c;
        symbols[t->symbols++].token = token;
    }
    rl_sort(symbols, (size_t)t->symbols, sizeof *symbols, symbol_before, NULL);
    /* As Tokenizer.reads_any_bytes in Python. */
    t->reads_any_bytes = t->is_byte_level && !t->merges && singles == 256 && t->vocabulary == 256;
}

/* Merges. */

/* The two sides of a merge: a list of two strings, or one string with a space between them. */
static int sides_of(rl_json value, rl_json *left, rl_json *right) {
    rl_json rest = rl_json_inside(value), name, more;
    if (rl_json_begins(value, '[')) {
        if (!rl_json_next(&rest, &name, left) || !rl_json_next(&rest, &name, right)) return 0;
        if (!rl_json_begins(*left, '"') || !rl_json_begins(*right, '"')) return 0;
        *left = rl_json_inside(*left);
        *right = rl_json_inside(*right);
        return !rl_json_next(&rest, &name, &more);
    }
    if (!rl_json_begins(value, '"')) return 0;
    const unsigned char *space = memchr(rest.at, ' ', (size_t)(rest.end - rest.at));
    if (space == NULL) return 0;
    left->at = rest.at;
    left->end = space;
    right->at = space + 1;
    right->end = rest.end;
    return memchr(right->at, ' ', (size_t)(right->end - right->at)) == NULL;
}

static void load_merge(loader *l, rl_json value, rl_merge *merge, unsigned char *pair) {
    rl_json left, right;
    const char *problem = "the tokenizer has a merge of tokens that do not exist";
    if (!sides_of(value, &left, &right)) {
        fail(l, RILLET_DAMAGED, "the tokenizer has a merge that is not of two tokens");
        return;
    }
    uint32_t first = token_bytes(l, left, NULL), second = token_bytes(l, right, NULL);
    if (first > l->t->longest || second > l->t->longest - first) {
        fail(l, RILLET_DAMAGED, problem);
        return;
    }
    token_bytes(l, left, pair);
    token_bytes(l, right, pair + first);
    merge->left = find(l, pair, first);
    merge->right = find(l, pair + first, second);
    merge->token = find(l, pair, first + second);
    if (merge->left < 0 || merge->right < 0 || merge->token < 0) fail(l, RILLET_DAMAGED, problem);
}

static int merge_before(const void *context, const void *a, const void *b) {
    const rl_merge *x = a, *y = b;
    (void)context;
    if (x->left != y->left) return x->left < y->left;
    if (x->right != y->right) return x->right < y->right;
    return x->rank < y->rank;
}

static void load_merges(loader *l) {
    rl_merge *merges = part(l, l->t->merge_table);
    rl_json rest = rl_json_inside(l->merges), name, value;
    /* The tokens' bytes end with room for one more: see rillet_tokenizer_size. */
    const uint32_t *ends = part(l, l->t->ends);
    unsigned char *pair = (unsigned char *)part(l, l->t->text) + ends[l->t->vocabulary];
    for (int32_t rank = 0; l->status == RILLET_OK && rl_json_next(&rest, &name, &value); rank++) {
        merges[rank].rank = rank;
        load_merge(l, value, &merges[rank], pair);
    }
    if (l->status != RILLET_OK) return;
    rl_sort(merges, (size_t)l->t->merges, sizeof *merges, merge_before, NULL);
}

/* The public functions. */

static rillet_status finish(const loader *l, char *message) {
    if (l->status != RILLET_OK && message != NULL)
        snprintf(message, RILLET_MESSAGE, "%s", l->problem);
    return l->status;
}

/* Checks the file, and sets sizes and places. */
static void open_file(loader *l, rillet_tokenizer *t, const void *json, size_t length) {
    rl_json file;
    size_t text = 0;
    memset(l, 0, sizeof *l);
    memset(t, 0, sizeof *t);
    l->t = t;
    if (rl_json_open(&file, json, length) != 0 || !rl_json_begins(file, '{')) {
        fail(l, RILLET_DAMAGED, "the tokenizer is no JSON object");
        return;
    }
    check_model(l, rl_json_member(file, "model"));
    if (l->status == RILLET_OK) check_parts(l, file);
    if (l->status == RILLET_OK) count(l, &text);
    if (l->status == RILLET_OK) lay_out(t, text + t->longest);
}

rillet_status rillet_tokenizer_size(const void *json, size_t length, size_t *bytes, char *message) {
    rillet_tokenizer sizes;
    loader l;
    open_file(&l, &sizes, json, length);
    *bytes = l.status == RILLET_OK ? sizes.bytes : 0;
    return finish(&l, message);
}

rillet_status rillet_tokenizer_load(rillet_tokenizer *tokenizer, size_t bytes, const void *json,
                                    size_t length, char *message) {
    rillet_tokenizer sizes;
    loader l;
    open_file(&l, &sizes, json, length);
    if (l.status == RILLET_OK && (bytes < sizes.bytes || (uintptr_t)tokenizer % RILLET_ALIGN))
        fail(&l, RILLET_TOO_SMALL, "the block is too small, or not aligned");
    if (l.status != RILLET_OK) return finish(&l, message);
    *tokenizer = sizes;
    l.t = tokenizer;
    l.block = (char *)tokenizer;
    load_tokens(&l);
    if (l.status == RILLET_OK) sort_tokens(&l);
    if (l.status == RILLET_OK) load_symbols(&l);
    if (l.status == RILLET_OK) load_merges(&l);
    return finish(&l, message);
}
