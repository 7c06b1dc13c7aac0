/* What a saved stream consists of, and how its text is put together; for save.c and restore.c. */
#ifndef RL_SAVED_H
#define RL_SAVED_H

#include "model.h"
#include "sha256.h"

enum { RL_ITEMS = 2 * RL_TENSORS + 2, RL_NAME = 40, RL_DIGITS = 64, RL_PART = 512 };

/* One tensor of the file. Its axes are those of the state's tensor and, first, the batch. */
typedef struct {
    uint8_t what, index; /* of the state's tensor */
    const unsigned char *found; /* its numbers in a file that is read */
} rl_item;

enum { RL_BEFORE, RL_LOGITS, RL_SEEN, RL_NOW }; /* what it is; names sort in this order */

typedef struct {
    const rillet_model *model;
    rl_item items[RL_ITEMS]; /* sorted by name */
    int count;
} rl_list;

/* A tensor as files and checksums describe it. */
typedef struct {
    char name[RL_NAME];
    const char *type, *file_type;
    int dims;
    int64_t shape[3], count;
    size_t size, bytes; /* of a number, of all */
} rl_description;

void rl_describe(const rl_list *l, const rl_item *i, rl_description *d);

/* Lists what a stream of this model holds. */
void rl_list_items(rl_list *l, const rillet_model *model, int has_before, int has_logits);

/* Where text goes: to a file in parts, escaped once more, or to a checksum. */
typedef struct {
    rillet_put *put; /* NULL counts */
    void *context;
    rl_sha256 *sum;
    size_t at;
    int escapes, refused;
    size_t waiting;
    char part[RL_PART];
} rl_sink;

void rl_sink_begin(rl_sink *s, rillet_put *put, void *context, rl_sha256 *sum);

/* Hands on what waits. */
void rl_sink_flush(rl_sink *s);

void rl_sink_byte(rl_sink *s, char byte);
void rl_sink_put(rl_sink *s, const char *text, size_t length);
void rl_sink_text(rl_sink *s, const char *text);

/* Numbers of the file are not below zero. */
void rl_sink_number(rl_sink *s, int64_t number);

/* What a checksum says of a tensor before its numbers: name, type, shape as Python writes a tuple.
 */
void rl_sink_description(rl_sink *s, const rl_list *l, const rl_item *i);

extern const char rl_hex[];

#endif
