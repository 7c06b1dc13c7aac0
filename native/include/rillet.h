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

/* Bytes that every block is aligned to. The sizes of models, states and scratch are multiples of
 * it. Those of files and texts are not: round them up for aligned_alloc. */
#define RILLET_ALIGN 64
#define RILLET_MESSAGE 160 /* bytes of a message, its final zero included */
#ifndef RILLET_RECENT
#define RILLET_RECENT 256 /* tokens that a saved stream remembers */
#endif
#ifndef RILLET_GROUP
#define RILLET_GROUP 32 /* rows that one pass over the weights serves at most */
#endif

typedef enum {
    RILLET_OK = 0,
    RILLET_DAMAGED = 1,     /* the weights are not a whole, valid file */
    RILLET_UNSUPPORTED = 2, /* the weights are valid, and this library cannot run them */
    RILLET_TOO_SMALL = 3,   /* a block is smaller than was asked for, or not aligned */
    RILLET_TOKEN = 4,       /* a token does not exist; no stream has changed */
    RILLET_NOT_FINITE = 5,  /* a log-probability is not finite; the streams have advanced */
    RILLET_VALUE = 6, /* a state tensor holds what does not exist, or a setting is out of range */
} rillet_status;

typedef struct rillet_model rillet_model;
typedef struct rillet_state rillet_state;

typedef enum { RILLET_FLOAT32 = 0, RILLET_INT32 = 1, RILLET_INT64 = 2 } rillet_type;

/* One tensor of a stream's state, as saved streams and the other engines know it. */
typedef struct {
    char name[24];
    int32_t type; /* a rillet_type */
    int32_t dims; /* number of axes, without the batch */
    int64_t shape[2];
    uint64_t bytes;
} rillet_tensor;

/* Bytes that the packed model needs. On failure, `message` says what is wrong, if it is not NULL.
 */
RILLET_API rillet_status rillet_model_size(const void *weights, size_t length, size_t *bytes,
                                           char *message);

/* Packs the weights into `model`; the weights are not needed afterwards. */
RILLET_API rillet_status rillet_model_load(rillet_model *model, size_t bytes, const void *weights,
                                           size_t length, char *message);

/* The instruction set that was chosen, such as "avx2". */
RILLET_API const char *rillet_model_kernels(const rillet_model *model);

/* Computes with another instruction set than the fastest: "plain", "sse4", "avx2", "avx512", "vnni"
 * or "dotprod". RILLET_UNSUPPORTED if this processor lacks it. Call it before the model is shared.
 */
RILLET_API rillet_status rillet_model_choose(rillet_model *model, const char *kernels);

/* Makes streams smaller, before the first one begins. `memory` is what the memory holds: slots of
 * all contexts together, or past steps; 0 keeps it. Windows are moved to the front of their buffers
 * every `slack` steps, 1 to 16: fewer take less memory, and more time. RILLET_VALUE if this model
 * cannot have them. */
RILLET_API rillet_status rillet_model_shrink(rillet_model *model, int64_t memory, int32_t slack);

/* How many bytes of a model are its portable part, if "plain" is chosen: all that another processor
 * needs, of any word size. */
RILLET_API size_t rillet_model_portable(const rillet_model *model);

/* Writes what the library can be compiled with so that it runs models of this kind alone, and is
 * smaller, of at most RILLET_MESSAGE bytes. */
RILLET_API void rillet_model_flags(const rillet_model *model, char *text);

/* The model in the portable part of another. The block may be constant: flash memory. NULL if the
 * library that packed it packs otherwise, or the block is not aligned. */
RILLET_API const rillet_model *rillet_model_packed(const void *block, size_t bytes);

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
 * logits   for each row, where its log-probabilities go, [vocabulary]; a NULL computes none, and
 *          NULL for all computes none at all
 * scratch  as large as rillet_scratch_size(model, rows)
 */
RILLET_API rillet_status rillet_read(const rillet_model *model, size_t rows,
                                     rillet_state *const *states, const int32_t *tokens,
                                     const float *learn, float *const *logits, void *scratch);

/* How a token is drawn from log-probabilities: divided by the temperature; of those, the likeliest
 * `top_k`; of those, the likeliest that reach `top_p` of the probability; of those, the ones at
 * least `min_p` as likely as the likeliest. {1} keeps them as they are, and zeros choose greedily.
 * All are finite, and none is negative. */
typedef struct {
    double temperature; /* 0 takes the likeliest token */
    double top_p; /* up to 1; 1 and 0 keep all */
    double min_p; /* up to 1; 0 keeps all */
    int32_t top_k; /* 0 keeps all */
} rillet_sampling;

/* NumPy's PCG64. Words of 128 bits, the low one first. */
typedef struct {
    uint64_t state[2], increment[2];
} rillet_random;

/* What numpy.random.default_rng(seed) starts with. */
RILLET_API void rillet_random_seed(rillet_random *random, uint64_t seed);

/* The next number in [0, 1): NumPy's Generator.random(). */
RILLET_API double rillet_random_next(rillet_random *random);

/* Draws a token from log-probabilities, [vocabulary], by a uniform number in [0, 1); greedy choice
 * ignores it. Returns -1 if a log-probability is not finite, or how to draw is out of range.
 *
 * scratch  as large as rillet_scratch_size(model, 1)
 */
RILLET_API int32_t rillet_draw(const rillet_model *model, const rillet_sampling *sampling,
                               const float *logits, double uniform, void *scratch);

/* Draws tokens and reads them: `count` times a token for each row.
 *
 * states             for each row, its stream; all different
 * logits             for each row, its log-probabilities before the call, and after it
 * uniforms           numbers in [0, 1), [count][rows]; NULL takes them from `random`
 * random             for each row, its random numbers; ignored if `uniforms` are given
 * learn              for each row, 1 to store its tokens in the memory and 0 not to; NULL for 1
 * end_token          ends the call after the step in which a row draws it; -1 for none
 * tokens             where they go, [count][rows]
 * log_probabilities  where each token's goes, [count][rows]; may be NULL
 * written            how often a token was drawn for each row and read
 * scratch            as large as rillet_scratch_size(model, rows)
 *
 * If a prediction is not finite, the call ends with RILLET_NOT_FINITE, and the streams have
 * advanced too far: work on copies to go back. RILLET_VALUE if how to draw is out of range; no
 * stream has changed.
 */
RILLET_API rillet_status rillet_generate(const rillet_model *model, size_t rows, size_t count,
                                         rillet_state *const *states, float *const *logits,
                                         const rillet_sampling *sampling, const double *uniforms,
                                         rillet_random *random, const float *learn,
                                         int32_t end_token, int32_t *tokens,
                                         float *log_probabilities, size_t *written, void *scratch);

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

/* Text. A tokenizer is loaded once from `tokenizer.json`, and is then only read. */

typedef struct rillet_tokenizer rillet_tokenizer;

/* Bytes that the tokenizer needs. Tokenizers of characters, of bytes and of byte pairs are read;
 * RILLET_UNSUPPORTED and `message` name what another one has. */
RILLET_API rillet_status rillet_tokenizer_size(const void *json, size_t length, size_t *bytes,
                                               char *message);

/* Loads it; `json` is not needed afterwards. */
RILLET_API rillet_status rillet_tokenizer_load(rillet_tokenizer *tokenizer, size_t bytes,
                                               const void *json, size_t length, char *message);

RILLET_API int32_t rillet_tokenizer_vocabulary(const rillet_tokenizer *tokenizer);

/* Whether it reads bytes that are not UTF-8: whether it has a token for each byte, and no other. */
RILLET_API int rillet_tokenizer_reads_any_bytes(const rillet_tokenizer *tokenizer);

/* A token's bytes, perhaps a part of a character; NULL if it does not exist. */
RILLET_API const char *rillet_token(const rillet_tokenizer *tokenizer, int32_t token,
                                    size_t *length);

/* Bytes of scratch that encoding this text takes. */
RILLET_API size_t rillet_encode_scratch(const rillet_tokenizer *tokenizer, const char *text,
                                        size_t length);

/* Encodes a text of less than 2 GB to at most `length` tokens; returns how many. What has no token
 * is left out: see rillet_unknown. */
RILLET_API size_t rillet_encode(const rillet_tokenizer *tokenizer, const char *text, size_t length,
                                int32_t *tokens, void *scratch);

/* Where the first character without a token lies, at `from` or after; `length` if there is none.
 * `bytes` is its size, and 1 for a byte that is not UTF-8. */
RILLET_API size_t rillet_unknown(const rillet_tokenizer *tokenizer, const char *text, size_t length,
                                 size_t from, size_t *bytes);

/* Decodes one stream, token by token: bytes wait until they complete a character. It begins as
 * zeros. */
typedef struct {
    unsigned char pending[4]; /* the bytes that wait */
    int32_t waiting; /* how many they are */
    int32_t exact; /* keep bytes that are not UTF-8, instead of writing U+FFFD */
} rillet_decoder;

/* Bytes of text that one token completes at most. */
RILLET_API size_t rillet_decode_size(const rillet_tokenizer *tokenizer);

/* Writes the text that a token completes; returns its bytes. */
RILLET_API size_t rillet_decode(const rillet_tokenizer *tokenizer, rillet_decoder *decoder,
                                int32_t token, char *text);

/* Finds texts that end a generation, wherever tokens end. What may still become one is held back,
 * and nothing else is. A block without pointers, as large as rillet_stops_size says. */
typedef struct rillet_stops rillet_stops;

/* Strings end with a zero. */
RILLET_API size_t rillet_stops_size(const char *const *strings, size_t count);
RILLET_API void rillet_stops_begin(rillet_stops *stops, const char *const *strings, size_t count);

/* Bytes that pushing a piece of `length` bytes shows at most. */
RILLET_API size_t rillet_stops_room(const rillet_stops *stops, size_t length);

/* Adds a piece of text, and writes what can be shown now; returns its bytes. `stopped` is the
 * number of the string that is complete, or -1: the text before it is shown, the rest dropped. The
 * string that completes first counts; of several that end together, the longest. */
RILLET_API size_t rillet_stops_push(rillet_stops *stops, const char *text, size_t length,
                                    char *shown, int32_t *stopped);

/* What is held back. */
RILLET_API const char *rillet_stops_held(const rillet_stops *stops, size_t *length);

/* Writes what is held back, at the end of the text; returns its bytes. */
RILLET_API size_t rillet_stops_flush(rillet_stops *stops, char *shown);

/* Whether the bytes that wait begin a character, as they do in any decoder that was used. */
RILLET_API int rillet_decoder_valid(const rillet_decoder *decoder);

/* What a saved stream holds besides its state. rillet_save reads all of it; rillet_restore checks
 * the first three, and sets the rest. */
typedef struct {
    /* What tells the model from others, as its bundle.json says. */
    const char *weights_sha256, *tokenizer_sha256, *precision;
    const char *learn; /* what the memory stores: "read", "all" or "none" */
    int32_t memory, taught; /* whether it has a memory; whether that began with the bundle's */
    int32_t repeatable; /* whether the state keeps what the last step read */
    int32_t recent_count;
    int32_t recent[RILLET_RECENT]; /* the last tokens, the oldest first */
    int64_t position; /* tokens read and written */
    rillet_decoder decoder; /* bytes that wait for the rest of their character */
    const unsigned char *seen; /* for each token, whether it was read or written */
    const float *logits; /* log-probabilities of the next token; NULL before the first */
    const char *generation; /* how it was last sampled, as JSON; NULL if it was not */
    size_t generation_bytes;
} rillet_saved;

/* Writes a stream as a file, which Python's Model.restore reads too. `file` is aligned, and as
 * large as rillet_save_size says. */
RILLET_API size_t rillet_save_size(const rillet_model *model, const rillet_saved *saved);
RILLET_API void rillet_save(const rillet_model *model, const rillet_state *state,
                            const rillet_saved *saved, void *file);

/* The same in parts, for a device that has no room for the whole file. `put` gets them in order,
 * and returns 0 to go on; RILLET_TOO_SMALL if it did not. */
typedef int rillet_put(void *context, const void *bytes, size_t length);
RILLET_API rillet_status rillet_save_parts(const rillet_model *model, const rillet_state *state,
                                           const rillet_saved *saved, rillet_put *put,
                                           void *context);

/* Reads a file that rillet_save or Python's Session.save wrote. `file` is aligned; it is changed,
 * and `saved` points into it. On failure the state is that of a new stream. */
RILLET_API rillet_status rillet_restore(const rillet_model *model, rillet_state *state,
                                        rillet_saved *saved, void *file, size_t length,
                                        char *message);

/* The same of a file that cannot be changed, such as one in flash memory: its header's text goes to
 * `scratch`, of `room` bytes, and `saved` points into both. */
RILLET_API rillet_status rillet_restore_constant(const rillet_model *model, rillet_state *state,
                                                 rillet_saved *saved, const void *file,
                                                 size_t length, void *scratch, size_t room,
                                                 char *message);

#ifdef __cplusplus
}
#endif

#endif
