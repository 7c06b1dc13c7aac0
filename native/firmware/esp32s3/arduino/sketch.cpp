/* The Arduino framework: text on the serial port. Streams are not saved: write the functions for
 * slots as esp32s3/main/board.c does, or for the flash of your chip. */
#include <Arduino.h>

extern "C" {
#include "board.h"
#include "device.h"
#include "weights.h"

void board_begin(void) { Serial.begin(115200); }
void board_put(char byte) { Serial.write(static_cast<uint8_t>(byte)); }
const void *board_slot(int) {
    static const uint64_t empty[64] = {0};
    return empty;
}
int board_slot_erase(int) { return -1; }
int board_slot_write(int, size_t, const void *) { return -1; }
uint32_t board_ticks(void) { return 0; }
float board_instructions_a_tick(void) { return 0; }
size_t board_stack_used(void) { return 0; }
void board_reset(void) { ESP.restart(); }
void board_end(int) {
    for (;;) delay(1000);
}
}

void setup() {
    board_begin();
    if (device_begin(esp_random()) != 0) board_end(1);
    device_read("\n", 1);
}

void loop() {
    if (device_next() < 0) board_end(1);
}
