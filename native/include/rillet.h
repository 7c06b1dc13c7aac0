/* rillet: a streaming text generator with constant memory, as one C library.
 *
 * A model is packed once from `weights.safetensors`, and is then only read: threads share it. A
 * stream is one block of memory without pointers: copying the block forks the stream. The caller
 * owns all memory; nothing is allocated, locked or logged here. Everything is 64-byte aligned.
 *
 *     size_t bytes;
 *     char message[RILLET_MESSAGE];
 *     if (rillet_model_size(weights, length, &bytes, message)) puts(message);
 *     rillet_model *model = aligned_alloc(RILLET_ALIGN, bytes);
 *     rillet_model_load(model, bytes, weights, length, message);
 *     rillet_state *state = aligned_alloc(RILLET_ALIGN, rillet_state_size(model));
 *     void *scratch = aligned_alloc(RILLET_ALIGN, rillet_scratch_size(model, 1));
 *     rillet_state_reset(model, state);
 *     rillet_read(model, 1, &state, &token, NULL, &log_probabilities, scratch);
 */
#ifndef RILLET_H
#define RILLET_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define RILLET_API __declspec(dllexport)
#elif defined(__GNUC__)
#define RILLET_API __attribute__((visibility("default")))
#else
#define RILLET_API
#endif

#define RILLET_ALIGN 64    /* bytes that every block is aligned to; sizes are multiples of it */
#define RILLET_MESSAGE 160 /* bytes of a message, its final zero included */
#define RILLET_GROUP 32    /* rows that one pass over the weights serves at most */

typedef enum {
    RILLET_OK = 0,
    RILLET_DAMAGED = 1,     /* the weights are not a whole, valid file */
    RILLET_UNSUPPORTED = 2, /* the weights are valid, and this library cannot run them */
    RILLET_TOO_SMALL = 3,   /* a block is smaller than was asked for, or not aligned */
    RILLET_TOKEN = 4,       /* a token does not exist; no stream has changed */
    RILLET_NOT_FINITE = 5,  /* a log-probability is not finite; the streams have advanced */
    RILLET_VALUE = 6,       /* a state tensor holds a token or slot that does not exist */
} rillet_status;

typedef struct rillet_model rillet_model;
typedef struct rillet_state rillet_state;

typedef enum { RILLET_FLOAT32 = 0, RILLET_INT32 = 1, RILLET_INT64 = 2 } rillet_type;

/* One tensor of a stream's state, as saved streams and the other engines know it. */
typedef struct {
    const char *name;
    rillet_type type;
    int32_t dims; /* number of axes, without the batch */
    int64_t shape[2];
    size_t bytes;
} rillet_tensor;

/* Bytes that the packed model needs. On failure, `message` says what is wrong, if it is not NULL. */
RILLET_API rillet_status rillet_model_size(const void *weights, size_t length, size_t *bytes,
                                           char *message);

/* Packs the weights into `model`; the weights are not needed afterwards. */
RILLET_API rillet_status rillet_model_load(rillet_model *model, size_t bytes, const void *weights,
                                           size_t length, char *message);

/* The instruction set that was chosen, such as "avx2". */
RILLET_API const char *rillet_model_kernels(const rillet_model *model);

/* Computes with another instruction set than the fastest: "plain", "sse4", "avx2", "avx512", "vnni"
 * or "dotprod". RILLET_UNSUPPORTED if this processor lacks it. Call it before the model is shared. */
RILLET_API rillet_status rillet_model_choose(rillet_model *model, const char *kernels);

RILLET_API int32_t rillet_vocabulary(const rillet_model *model);
RILLET_API size_t rillet_state_size(const rillet_model *model);
RILLET_API size_t rillet_scratch_size(const rillet_model *model, size_t rows);

/* The start of a stream: zeros. */
RILLET_API void rillet_state_reset(const rillet_model *model, rillet_state *state);

/* Reads rows in order. One row is a step, rows of different streams a batch, successive rows of one
 * stream a prefill: all give the same bits.
 *
 * states   for each row, its stream
 * tokens   for each row, the token read
 * learn    for each row, 1 to store it in the memory and 0 not to; NULL for 1
 * logits   for each row, where its log-probabilities go, [vocabulary]; a NULL computes none
 * scratch  as large as rillet_scratch_size(model, rows)
 */
RILLET_API rillet_status rillet_read(const rillet_model *model, size_t rows,
                                     rillet_state *const *states, const int32_t *tokens,
                                     const float *learn, float *const *logits, void *scratch);

/* Steps that the block has taken, for rillet_state_back. */
RILLET_API int64_t rillet_state_clock(const rillet_state *state);

/* Returns to the state before the last row that was read; once, and not further back. The memory
 * keeps what that row stored until the next row takes its place. */
RILLET_API void rillet_state_back(const rillet_model *model, rillet_state *state);

/* The state's tensors, in order; NULL where there is none left. */
RILLET_API const rillet_tensor *rillet_state_tensor(const rillet_model *model, size_t index);

/* Copies a tensor out, in order of time where the contract says so. `before` is 0 for the state
 * now, 1 for what the last row read; the memory's tensors are those of now. */
RILLET_API void rillet_state_get(const rillet_model *model, const rillet_state *state, int before,
                                 size_t index, void *values);

/* Replaces a tensor; RILLET_VALUE leaves it as it was. With `before`, replaces only what the state
 * now does not hold as well: the oldest entry of a window. */
RILLET_API rillet_status rillet_state_set(const rillet_model *model, rillet_state *state,
                                          int before, size_t index, const void *values);

#ifdef __cplusplus
}
#endif

#endif
