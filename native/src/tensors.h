/* A checked reader of safetensors files: finds tensors in place, and allocates nothing. */
#ifndef RL_TENSORS_H
#define RL_TENSORS_H

#include <stddef.h>
#include <stdint.h>

enum {
    RL_DIMS = 3,
    RL_MOST = 127, /* of an int8 weight, on both sides of zero */
};

typedef enum { RL_F32, RL_I64, RL_I32, RL_I8, RL_U8 } rl_dtype;

typedef struct {
    const unsigned char *header; /* the JSON text */
    size_t header_length;
    const unsigned char *data;
    size_t data_length;
    const char *problem; /* what was wrong with the file, or NULL */
} rl_file;

typedef struct {
    rl_dtype dtype;
    int dims;
    int64_t shape[RL_DIMS];
    int64_t count;
    const unsigned char *data;   /* perhaps not aligned: see rl_float and rl_whole */
    const unsigned char *end;    /* of its bytes in the file */
    const unsigned char *scales; /* of int8 weights, a float for each row; rl_need_weight sets it */
} rl_tensor;

/* Opens a file and checks all of it: the header's syntax, and sizes, ranges and values of every
 * tensor. Returns 0, or -1 with `problem` set. */
int rl_file_open(rl_file *file, const void *bytes, size_t length);

/* Finds a tensor by name. Returns 0, or -1 if there is none. */
int rl_file_find(const rl_file *file, const char *name, rl_tensor *tensor);

/* A type's name in the file. */
const char *rl_type_name(rl_dtype dtype);

float rl_float(const rl_tensor *tensor, int64_t index);
int8_t rl_byte(const rl_tensor *tensor, int64_t index);
int64_t rl_whole(const rl_tensor *tensor, int64_t index);

#endif
