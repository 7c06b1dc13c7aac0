/* Tokens to text as it streams: bytes wait until they complete a character. */
#include <string.h>

#include "tokenizer.h"
#include "utf8.h"

static const char replacement[] = "\xef\xbf\xbd";

/* Writes bytes that are no character. */
static size_t put_broken(const rillet_decoder *d, const unsigned char *bytes, size_t count,
                         char *text) {
    if (!d->exact) {
        memcpy(text, replacement, 3);
        return 3;
    }
    memcpy(text, bytes, count);
    return count;
}

static size_t put_byte(rillet_decoder *d, unsigned char byte, char *text) {
    uint32_t c;
    size_t written = 0, before = (size_t)d->waiting;
    d->pending[before] = byte;
    int length = rl_utf8_take(d->pending, d->pending + before + 1, &c);
    if (length == 0 && before > 0) { /* what waits stays incomplete */
        written = put_broken(d, d->pending, before, text);
        d->pending[before = 0] = byte;
        length = rl_utf8_take(d->pending, d->pending + 1, &c);
    }
    d->waiting = length == RL_UTF8_CUT ? (int32_t)before + 1 : 0;
    if (length > 0) {
        memcpy(text + written, d->pending, (size_t)length);
        written += (size_t)length;
    } else if (length == 0) {
        written += put_broken(d, d->pending, 1, text + written);
    }
    return written;
}

size_t rillet_decode_size(const rillet_tokenizer *t) {
    return ((size_t)t->longest + sizeof((rillet_decoder *)0)->pending) * 3;
}

size_t rillet_decode(const rillet_tokenizer *t, rillet_decoder *decoder, int32_t token,
                     char *text) {
    size_t length, written = 0;
    if (token < 0 || token >= t->vocabulary) return 0;
    const unsigned char *bytes = rl_token_text(t, token, &length);
    for (size_t i = 0; i < length; i++) written += put_byte(decoder, bytes[i], text + written);
    return written;
}

int rillet_decoder_valid(const rillet_decoder *d) {
    uint32_t c;
    if (d->waiting == 0) return 1;
    return d->waiting > 0 && d->waiting < 4 &&
           rl_utf8_take(d->pending, d->pending + d->waiting, &c) == RL_UTF8_CUT;
}
