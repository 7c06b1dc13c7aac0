/* Cuts the power at every write of a saved stream, and prints what is found afterwards.
 *
 *     firmware_cut FILE [once]
 *
 * A stream is saved once, goes on, and is saved again; the second save is cut at each erasure and
 * each page, before it, in its middle and after it. What is loaded then must be the first stream
 * or, after the last page, the second, and go on as that one does. FILE gets the first saved
 * stream; with `once`, that is all. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "board.h"
#include "device.h"
#include "slots.h"
#include "weights.h"

enum { READ = 40, AHEAD = 12 };

static _Alignas(8) unsigned char slots[2][SLOT_BYTES], kept[2][SLOT_BYTES];
static jmp_buf cut;
static long writes, cut_at = -1; /* in thirds of a write */

/* One write: nothing, half or all of it is done when the power goes. */
static void change(unsigned char *to, const unsigned char *from, size_t length) {
    long part = cut_at < 0 ? 3 : cut_at - 3 * writes++;
    size_t done = part >= 2 ? length : part == 1 ? length / 2 : 0;
    if (from != NULL)
        memcpy(to, from, done);
    else
        memset(to, 0xff, done);
    if (part >= 0 && part < 3) longjmp(cut, 1);
}

const void *board_slot(int slot) { return slots[slot]; }
int board_slot_erase(int slot) {
    change(slots[slot], NULL, SLOT_BYTES);
    return 0;
}
int board_slot_write(int slot, size_t offset, const void *page) {
    change(slots[slot] + offset, page, SLOT_PAGE);
    return 0;
}
void board_begin(void) {}
void board_put(char byte) { (void)byte; }
uint32_t board_ticks(void) { return 0; }
float board_instructions_a_tick(void) { return 0; }
size_t board_stack_used(void) { return 0; }
void board_reset(void) {}
void board_end(int status) { exit(status); }

static void go_on(int32_t *tokens) {
    for (int i = 0; i < AHEAD; i++) tokens[i] = device_next();
}

static void expect(int holds, const char *what) {
    if (holds) return;
    printf("%s (cut at %ld)\n", what, cut_at);
    exit(1);
}

/* A stream that begins although one is saved: until it is saved whole, the old one is there. */
static void cut_a_new_stream(const int32_t *old) {
    static int32_t found[AHEAD];
    for (volatile int done = 0, cuts = 0; !done; cuts++) {
        memcpy(slots, kept, sizeof slots);
        expect(device_begin(6) == 0, "the weights are not of this library");
        writes = 0;
        cut_at = cuts;
        if (setjmp(cut) == 0) done = device_save() == 0;
        cut_at = -1;
        expect(device_load() == 0, "a new stream's save loses the old one");
        if (done) return;
        go_on(found);
        if (memcmp(old, found, sizeof found) != 0) return; /* the header is written */
    }
}

int main(int count, char **words) {
    static int32_t first[AHEAD], second[AHEAD], found[AHEAD];
    expect(device_load() != 0, "an empty flash holds a stream");
    expect(device_begin(5) == 0, "the weights are not of this library");
    device_read(MODEL_PROMPT, strlen(MODEL_PROMPT));
    for (int i = 0; i < READ; i++) device_next();
    expect(device_save() == 0, "the first save fails");
    memcpy(kept, slots, sizeof slots);
    FILE *file = fopen(count > 1 ? words[1] : "", "wb");
    expect(file != NULL, "there is no file to write");
    int saved = slots_find(0);
    fwrite(slots_file(saved), 1, slots_header(saved)->length, file);
    fclose(file);
    if (count > 2) return 0;
    go_on(first);
    expect(device_load() == 0, "the first save is not found");
    go_on(found);
    expect(memcmp(first, found, sizeof first) == 0, "a loaded stream goes on differently");
    /* The second save is that of the stream after `first`. */
    expect(device_save() == 0, "the second save fails");
    go_on(second);
    long cuts = 0, newer = 0;
    for (volatile int done = 0; !done; cuts++) {
        memcpy(slots, kept, sizeof slots);
        expect(device_load() == 0, "the first save is lost");
        go_on(found);
        writes = 0;
        cut_at = cuts;
        if (setjmp(cut) == 0) done = device_save() == 0;
        cut_at = -1;
        expect(device_load() == 0, "after a cut, nothing is left");
        go_on(found);
        int is_second = memcmp(second, found, sizeof second) == 0;
        expect(is_second || memcmp(first, found, sizeof first) == 0, "a cut mixes streams");
        expect(is_second || !newer, "a cut after the last write loses the new stream");
        newer += is_second;
        expect(device_save() == 0 && device_load() == 0, "a save after a cut fails");
    }
    cut_a_new_stream(first);
    memcpy(slots, kept, sizeof slots);
    expect(device_load() == 0 && device_save() == 0, "a saved stream is not saved again");
    /* What is damaged later is not loaded, and the other one is. */
    slots[0][SLOT_PAGE + SLOT_BYTES / 4] ^= 1;
    expect(device_load() == 0, "one damaged slot hides the other");
    slots[1][SLOT_PAGE + SLOT_BYTES / 4] ^= 1;
    expect(device_load() != 0, "a damaged stream is loaded");
    expect(device_save() != 0 && device_next() < 0, "a stream that failed to load goes on");
    printf("%ld cuts, %ld after which the new stream is there\n", cuts, newer);
    return 0;
}
