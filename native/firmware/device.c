#include "device.h"

#include <string.h>

#include "board.h"
#include "weights.h"
#include "rillet.h"
#include "slots.h"

#define BLOCK __attribute__((aligned(RILLET_ALIGN)))

static BLOCK unsigned char state_block[MODEL_STATE];
static BLOCK unsigned char scratch[MODEL_SCRATCH];
static BLOCK float logits[MODEL_VOCABULARY];
static unsigned char seen[MODEL_VOCABULARY];
static char piece[MODEL_PIECE];
static rillet_saved stream; /* all of a stream that is not in its state */
static rillet_random numbers;
static rillet_sampling sampling = {MODEL_TEMPERATURE, MODEL_TOP_P, MODEL_MIN_P, MODEL_TOP_K};
static int current = -1; /* the slot that this stream came from or went to */

static const rillet_model *model(void) {
    return rillet_model_packed(model_weights, sizeof model_weights);
}

static const rillet_tokenizer *tokenizer(void) {
    return (const rillet_tokenizer *)(const void *)model_tokenizer;
}

static rillet_state *state(void) { return (rillet_state *)(void *)state_block; }

static void set_identity(void) {
    memset(&stream, 0, sizeof stream);
    stream.weights_sha256 = MODEL_WEIGHTS_SHA256;
    stream.tokenizer_sha256 = MODEL_TOKENIZER_SHA256;
    stream.precision = MODEL_PRECISION;
    stream.learn = "read";
    stream.memory = 1;
    stream.decoder.exact = rillet_tokenizer_reads_any_bytes(tokenizer());
    stream.seen = seen;
}

int device_begin(uint64_t seed) {
    if (model() == NULL) return -1;
    set_identity();
    memset(seen, 0, sizeof seen);
    rillet_random_seed(&numbers, seed);
    rillet_state_reset(model(), state());
    current = -1;
    return 0;
}

static void remember(int32_t token) {
    seen[token] = 1;
    stream.position++;
    if (stream.recent_count == RILLET_RECENT)
        memmove(stream.recent, stream.recent + 1,
                (size_t)--stream.recent_count * sizeof *stream.recent);
    stream.recent[stream.recent_count++] = token;
}

static int step(int32_t token, float learn) {
    rillet_state *states = state();
    float *predicted = logits;
    if (rillet_read(model(), 1, &states, &token, &learn, &predicted, scratch) != RILLET_OK)
        return -1;
    stream.logits = logits;
    remember(token);
    return 0;
}

/* Where a text can be cut so that its tokens stay the same: before a space, or at least between
 * characters. */
static size_t cut(const char *text, size_t length, size_t most) {
    if (length <= most) return length;
    size_t at = most;
    while (at > 1 && text[at] != ' ') at--;
    if (at > 1) return at;
    at = most;
    while (at > 1 && ((unsigned char)text[at] & 0xc0) == 0x80) at--;
    return at;
}

static int has_begun(void) { return stream.weights_sha256 != NULL; }

void device_read(const char *text, size_t length) {
    enum { MOST = 64 };
    if (!has_begun()) return;
    int32_t tokens[MOST];
    while (length > 0) {
        size_t part = cut(text, length, MOST);
        size_t count = rillet_encode(tokenizer(), text, part, tokens, scratch);
        for (size_t i = 0; i < count; i++) step(tokens[i], 1);
        if (count > 0) stream.decoder.waiting = 0; /* half a character is never completed now */
        text += part;
        length -= part;
    }
}

static int32_t next(const rillet_sampling *how) {
    if (!has_begun()) return -1;
    if (stream.logits == NULL && step(MODEL_START, 1) != 0) return -1;
    double uniform = how->temperature > 0 ? rillet_random_next(&numbers) : 0;
    int32_t token = rillet_draw(model(), how, logits, uniform, scratch);
    return token >= 0 && step(token, 0) == 0 ? token : -1;
}

int32_t device_next(void) {
    int32_t token = next(&sampling);
    size_t length = token < 0 ? 0 : rillet_decode(tokenizer(), &stream.decoder, token, piece);
    for (size_t i = 0; i < length; i++) board_put(piece[i]);
    return token;
}

int32_t device_next_greedy(void) {
    static const rillet_sampling greedy = {0, 1, 0, 0};
    return next(&greedy);
}

void device_set_temperature(double temperature) { sampling.temperature = temperature; }

int device_save(void) {
    if (!has_begun()) return -1;
    int slot = slots_save(current, model(), state(), &stream, &numbers);
    if (slot < 0) return -1;
    current = slot;
    return 0;
}

/* Restores what lies in a slot. */
static int load(int slot) {
    const slot_header *header = slots_header(slot);
    int32_t exact = stream.decoder.exact;
    if (rillet_restore_constant(model(), state(), &stream, slots_file(slot), header->length,
                                scratch, sizeof scratch, NULL) != RILLET_OK)
        return -1;
    numbers = header->random;
    memcpy(seen, stream.seen, sizeof seen);
    if (stream.logits != NULL) stream.logits = memcpy(logits, stream.logits, sizeof logits);
    stream.seen = seen;
    stream.repeatable = 0; /* what the last step read is not kept */
    stream.decoder.exact = exact;
    stream.generation = NULL; /* how Python drew is not how this device draws */
    stream.generation_bytes = 0;
    current = slot;
    return 0;
}

int device_load(void) {
    for (int attempt = 0; attempt < 2 && device_begin(0) == 0; attempt++) {
        int slot = slots_find(attempt);
        if (slot >= 0 && load(slot) == 0) return 0;
    }
    stream.weights_sha256 = NULL; /* none has begun */
    return -1;
}
