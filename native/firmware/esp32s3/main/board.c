/* An ESP32-S3 with ESP-IDF: the serial port, and saved streams in a partition of the flash. */
#include <stdio.h>

#include "board.h"
#include "esp_partition.h"
#include "esp_system.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "slots.h"
#include "weights.h"

static const esp_partition_t *partition;
static const void *mapped;

void board_begin(void) {
    esp_partition_mmap_handle_t handle;
    partition =
        esp_partition_find_first(ESP_PARTITION_TYPE_DATA, ESP_PARTITION_SUBTYPE_ANY, "streams");
    if (partition == NULL || partition->size < 2 * SLOT_BYTES ||
        esp_partition_mmap(partition, 0, 2 * SLOT_BYTES, ESP_PARTITION_MMAP_DATA, &mapped,
                           &handle) != ESP_OK)
        board_end(2);
}

void board_put(char byte) {
    putchar(byte);
    fflush(stdout);
}

const void *board_slot(int slot) { return (const char *)mapped + (size_t)slot * SLOT_BYTES; }

int board_slot_erase(int slot) {
    return esp_partition_erase_range(partition, (size_t)slot * SLOT_BYTES, SLOT_BYTES) != ESP_OK;
}

int board_slot_write(int slot, size_t offset, const void *page) {
    size_t at = (size_t)slot * SLOT_BYTES + offset;
    return esp_partition_write(partition, at, page, SLOT_PAGE) != ESP_OK;
}

uint32_t board_ticks(void) { return 0; }
float board_instructions_a_tick(void) { return 0; }
size_t board_stack_used(void) { return 0; }
void board_reset(void) { esp_restart(); }

void board_end(int status) {
    if (status) printf("\nstopped: %d\n", status);
    for (;;) vTaskDelay(portMAX_DELAY);
}

int firmware_main(void);
void app_main(void) { firmware_main(); }
