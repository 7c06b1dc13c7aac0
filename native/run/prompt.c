#include "prompt.h"

#include <stdlib.h>
#include <string.h>

#include "../src/utf8.h"
#include "fail.h"
#include "text.h"

enum { NAMED = 8 };

/* The different characters that were found, as one text. */
static int is_new(const text *found, const char *character, size_t size) {
    for (size_t at = 0; at + size <= found->length; at++)
        if (memcmp(found->data + at, character, size) == 0) return 0;
    return 1;
}

/* Adds a character in quotes, as Python's repr writes it. */
static void put_quoted(text *t, const char *character, size_t size, uint32_t c) {
    static const char plain[] = "\t\n\r\\", codes[] = "tnr\\";
    const char *special = c > 0 && c < 0x80 ? strchr(plain, (int)c) : NULL;
    const char *quote = c == '\'' ? "\"" : "'";
    char escape[8] = "";
    if (special != NULL)
        snprintf(escape, sizeof escape, "\\%c", codes[special - plain]);
    else if (c < ' ' || (c >= 0x7f && c <= 0xa0) || c == 0xad)
        snprintf(escape, sizeof escape, "\\x%02x", (unsigned)c);
    if (t->length > 0) text_put(t, ", ");
    text_put(t, quote);
    text_add(t, *escape ? escape : character, *escape ? strlen(escape) : size);
    text_put(t, quote);
}

void check_text(const rillet_tokenizer *tokenizer, const char *bytes, size_t length) {
    text found = {NULL, 0, 0}, names = {NULL, 0, 0};
    size_t size, more = 0, count = 0;
    uint32_t c;
    text_clear(&found);
    text_clear(&names);
    for (size_t at = 0; (at = rillet_unknown(tokenizer, bytes, length, at, &size)) < length;
         at += size) {
        const unsigned char *here = (const unsigned char *)bytes + at;
        if (rl_utf8_take(here, (const unsigned char *)bytes + length, &c) <= 0)
            fail(
                USAGE,
                "the text has the byte 0x%02x, which is not UTF-8, and this model reads only text; "
                "convert the text, or train a model that reads any bytes, with --tokenizer byte",
                *here);
        if (!is_new(&found, bytes + at, size)) continue;
        text_add(&found, bytes + at, size);
        if (count++ < NAMED)
            put_quoted(&names, bytes + at, size, c);
        else
            more++;
    }
    char rest[40] = "";
    if (more > 0) snprintf(rest, sizeof rest, " and %zu more", more);
    if (count > 0)
        note("the text has characters that this model has never seen, and they were left out: %s%s",
             names.data, rest);
    free(found.data);
    free(names.data);
}
