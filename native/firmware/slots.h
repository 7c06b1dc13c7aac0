/* Saved streams in flash: two slots, written in turn. A slot counts once its header is written, and
 * that comes last, so a power cut leaves the stream that was saved before. */
#ifndef SLOTS_H
#define SLOTS_H

#include <stddef.h>
#include <stdint.h>

#include "rillet.h"

enum { SLOT_PAGE = 256 }; /* bytes that are written together; a header takes the first page */

/* What a slot's first page holds. The file behind it is what Session.save writes in Python. */
typedef struct {
    uint32_t magic, sequence, length; /* of the file, in bytes */
    uint32_t unused;
    rillet_random random; /* so that a stream goes on as if nothing had happened */
    uint32_t check; /* of what precedes */
} slot_header;

/* Attempt 0: the slot of the newest whole stream. Attempt 1: the other slot, if it is whole. -1 if
 * there is none. */
int slots_find(int attempt);

const slot_header *slots_header(int slot);
const void *slots_file(int slot);

/* Saves into the slot beside `current`, which holds the stream of now; if that is -1, beside the
 * newest. Returns the slot, or -1. */
int slots_save(int current, const rillet_model *model, const rillet_state *state,
               const rillet_saved *saved, const rillet_random *random);

#endif
