#include "slots.h"

#include <string.h>

#include "board.h"
#include "weights.h"

enum { MAGIC = 0x31746c72 }; /* "rlt1" */

static uint32_t check_of(const slot_header *header) {
    const unsigned char *bytes = (const unsigned char *)header;
    uint32_t sum = 0xffffffff; /* CRC-32 */
    for (size_t i = 0; i < offsetof(slot_header, check); i++) {
        sum ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) sum = sum >> 1 ^ (sum & 1 ? 0xedb88320 : 0);
    }
    return ~sum;
}

const slot_header *slots_header(int slot) { return board_slot(slot); }

const void *slots_file(int slot) { return (const char *)board_slot(slot) + SLOT_PAGE; }

static int is_whole(int slot) {
    const slot_header *header = slots_header(slot);
    return header->magic == MAGIC && header->check == check_of(header) &&
           header->length <= SLOT_BYTES - SLOT_PAGE;
}

int slots_find(int attempt) {
    int first = is_whole(0), second = is_whole(1);
    if (!first && !second) return -1;
    if (first != second) return attempt == 0 ? second : -1;
    /* Numbers go round: the newer one is less than half the way ahead. */
    int newer = (int32_t)(slots_header(1)->sequence - slots_header(0)->sequence) > 0;
    return attempt == 0 ? newer : 1 - newer;
}

/* A page fills up, and is written once it is full. */
typedef struct {
    int slot;
    size_t offset, filled;
    unsigned char page[SLOT_PAGE];
} writer;

static int write_page(writer *w) {
    memset(w->page + w->filled, 0xff, SLOT_PAGE - w->filled);
    if (w->offset + SLOT_PAGE > SLOT_BYTES) return -1;
    if (board_slot_write(w->slot, w->offset, w->page) != 0) return -1;
    w->offset += SLOT_PAGE;
    w->filled = 0;
    return 0;
}

static int put(void *context, const void *bytes, size_t length) {
    writer *w = context;
    for (const unsigned char *from = bytes; length > 0; length--) {
        w->page[w->filled++] = *from++;
        if (w->filled == SLOT_PAGE && write_page(w) != 0) return -1;
    }
    return 0;
}

int slots_save(int current, const rillet_model *model, const rillet_state *state,
               const rillet_saved *saved, const rillet_random *random) {
    int newest = slots_find(0), kept = current >= 0 ? current : newest;
    writer w = {kept == 0, SLOT_PAGE, 0, {0}};
    slot_header header;
    memset(&header, 0, sizeof header);
    header.magic = MAGIC;
    header.sequence = newest < 0 ? 1 : slots_header(newest)->sequence + 1;
    header.length = (uint32_t)rillet_save_size(model, saved);
    header.random = *random;
    header.check = check_of(&header);
    if (board_slot_erase(w.slot) != 0) return -1;
    if (rillet_save_parts(model, state, saved, put, &w) != RILLET_OK) return -1;
    if (w.filled > 0 && write_page(&w) != 0) return -1;
    w.offset = 0;
    if (put(&w, &header, sizeof header) != 0 || write_page(&w) != 0) return -1;
    return w.slot;
}
