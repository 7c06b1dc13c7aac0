/* The packed model and the layout of a stream's state: blocks of memory without pointers. */
#ifndef RL_MODEL_H
#define RL_MODEL_H

#include "../include/rillet.h"

/* Widths are padded with zeros to whole panels, so that no loop has a remainder. */
#define RL_PANEL 16
#define RL_UP(n, m) (((n) + (m) - 1) / (m) * (m))
#define RL_PADDED(n) RL_UP(n, RL_PANEL)

enum {
    RL_MAGIC = 0x6c6c6972,
    RL_SLACK = 16, /* the most, and the default, of a model's slack */
    RL_SCAN = 64,  /* entries of a kernel memory that are compared together */
    RL_ROWS = 8,   /* rows of the reservoir that are computed together */
    RL_NEVER = -10000, /* a logit whose probability is zero at every temperature */
    RL_ZERO = 128, /* what zero is in the bytes of a rounded key */
    RL_MOST_ROUNDED = 1 << 16, /* inputs whose int8 products fit 32 bits */
    RL_WIDEST = 8192, /* numbers in a key whose rounded products fit 16 bits */
    RL_RING = 3,   /* now, before, and the next: what is kept of small tensors */
    RL_LONGEST = 8,
    RL_COUNTS = 8,
    RL_OTHERS = 5,
    RL_PATTERNS = RL_COUNTS * RL_OTHERS,
    RL_CHECKS = 255,
    RL_LOOKUP = 6,
    RL_TENSORS = 12,
};
#define RL_QUADS(n) (((n) + 3) / 4) /* fours of inputs, which int8 products take together */
#define RL_PRIME INT64_C(2147483629)

/* A place in the model or in the state, in bytes. All of a packed model is of one size on every
 * processor, so that what one packs another can read. */
typedef uint64_t rl_place;

/* y = W x + b. Weights lie in groups of four panels (the last group has up to seven), each
 * [inputs][16 x panels]: one run of memory, which a core prefetches. In int8, groups have up to
 * four panels, each [inputs / 4][16 x panels][4]. */
typedef struct {
    int32_t in, panels;
    rl_place weights, bias;
    rl_place scales;  /* of int8 weights, by output; 0 if the weights are float32 */
    rl_place offsets; /* of int8 weights: -128 times their sum, by output */
} rl_linear;

/* A gated layer: down(silu(g) v) with g, v = up(x), each padded on its own. */
typedef struct {
    rl_linear up, down;
    rl_place norm, norm_bias,
        taps; /* of a block of the first CNN; of the second, taps are absent */
} rl_block;

/* A window of the last steps. `length` counts the step that is being computed; before it, the past
 * length - 1 entries begin at the cursor. */
typedef struct {
    int32_t length, stride; /* entries; floats or whole numbers an entry */
    rl_place at; /* place in the state */
} rl_window;

typedef enum { RL_NO_RESERVOIR, RL_DENSE, RL_SPARSE } rl_reservoir_kind;
typedef enum { RL_NO_MEMORY, RL_KERNEL, RL_SUFFIX_KERNEL, RL_CONTEXTS } rl_memory_kind;

struct rillet_model {
    uint32_t magic, struct_bytes; /* of what precedes the weights */
    int32_t kernels;       /* their number; see rl_kernels_of */
    int32_t slack;         /* steps between two moves of a window to the front of its buffer */
    uint64_t bytes, state_bytes;
    rl_place tail; /* what only some kernels read; a packed model ends before it */

    int32_t vocabulary;
    int32_t reservoir; /* an rl_reservoir_kind */
    int32_t units, units_padded;
    rl_place drive, kept, gain;
    rl_place rounds, round_columns, round_places, round_weights; /* of a sparse matrix */
    rl_linear recurrent;
    float decay, frequency;

    int32_t width, width_padded;
    rl_place embedding;
    rl_linear read; /* no inputs if the CNNs see the embedding alone */

    int32_t heads, head, head_padded, attention; /* no heads without attention */
    int32_t span; /* floats between two rows of the transposed keys */
    rl_place attention_norm, attention_norm_bias, distance_bias;
    rl_linear qkv, output;

    int32_t blocks, kernel, hidden_padded;
    rl_place wave_blocks; /* rl_block [blocks] */
    rl_linear emit;
    int32_t features, features_padded;
    rl_place wave_norm, wave_norm_bias;

    int32_t readout_blocks, filters_per_feature, wave_window; /* no blocks with a single CNN */
    rl_place filters; /* [W][K][F], oldest first */
    rl_place readout; /* rl_block [readout_blocks]: the mixing layer, then the others */
    rl_linear head_layer; /* logits, then what the memory's gate reads of the features */
    int32_t gate_at; /* where that begins */

    int32_t memory; /* an rl_memory_kind */
    int32_t capacity, key, key_padded, gate;
    rl_linear key_projection;
    int32_t suffix, code;
    rl_place suffix_codes, suffix_weights;
    float fall, least, reach, doubt_bias;
    rl_place found_weights, doubt_weights; /* [2][gate], [gate] */

    int32_t contexts, slots, wide_slots;
    rl_place last, word, outside, transitions, scores, shares;
    int32_t adapts; /* whether online weights follow what is read */
    float bias_rate, temperature_rate, most_bias, most_temperature;

    /* The state. */
    rl_place state_reservoir, state_key, state_keys, state_scan, state_tokens;
    rl_place state_lookups, state_table, state_adapted, state_shares, state_logits;
    rl_window attention_values, wave_context, wave_buffer, suffix_window, recent;
    rl_place attention_keys; /* [width][span], transposed */
    int32_t widest_rounded; /* most inputs of a product in int8; 0 if all are in float32 */
    int32_t tensors;
    rillet_tensor tensor[RL_TENSORS];
};

struct rillet_state {
    int64_t clock; /* steps of this block; clock mod 3 is the place in rings */
    int64_t position[RL_RING];
    int32_t cursor; /* first past entry of every window; at least 1 between calls */
    int32_t ahead; /* rows of this stream in the current group */
    int32_t uneven; /* whether a stored key may be neither of unit length nor zero */
};

/* One row of a call, while it is computed. */
typedef struct {
    rillet_state *state;
    int64_t position; /* before the row */
    int32_t cursor, now, before, token;
    float learn;
} rl_row;

/* What is compiled once for each instruction set. */
typedef struct {
    const char *name;
    rillet_status (*read)(const rillet_model *, size_t, rillet_state *const *, const int32_t *,
                          const float *, float *const *, void *);
    size_t (*scratch)(const rillet_model *, size_t);
    void (*key)(const rillet_model *, rillet_state *, int ring);
    void (*index)(const rillet_model *, rillet_state *);
} rl_kernels;

extern const rl_kernels rl_kernels_plain;
#if defined(__x86_64__)
extern const rl_kernels rl_kernels_sse4, rl_kernels_avx2, rl_kernels_avx512, rl_kernels_vnni;
#elif defined(__aarch64__)
extern const rl_kernels rl_kernels_dotprod;
#endif

/* What a build for one model may know of it, so that the compiler leaves out the rest: see
 * rillet_model_flags. */
static inline int rl_memory(const rillet_model *m) {
#ifdef RL_THE_MEMORY
    (void)m;
    return RL_THE_MEMORY;
#else
    return m->memory;
#endif
}
static inline int rl_has_keys(const rillet_model *m) {
    return rl_memory(m) == RL_KERNEL || rl_memory(m) == RL_SUFFIX_KERNEL;
}
static inline int rl_is_dense(const rillet_model *m) {
#ifdef RL_THE_RESERVOIR
    (void)m;
    return RL_THE_RESERVOIR == RL_DENSE;
#else
    return m->reservoir == RL_DENSE;
#endif
}
static inline int rl_is_rounded(const rl_linear *linear) {
#ifdef RL_ALL_ROUNDED
    (void)linear;
    return 1;
#else
    return linear->scales != 0;
#endif
}

/* The kernels that a model computes with. */
const rl_kernels *rl_kernels_of(const rillet_model *m);

/* The number of the fastest that this processor has. */
int32_t rl_best_kernels(void);

static inline const void *rl_at(const rillet_model *m, rl_place place) {
    return (const char *)m + (size_t)place;
}
static inline const float *rl_floats(const rillet_model *m, rl_place place) {
    return (const float *)rl_at(m, place);
}
static inline void *rl_in(rillet_state *s, rl_place place) { return (char *)s + (size_t)place; }
static inline const void *rl_of(const rillet_state *s, rl_place place) {
    return (const char *)s + place;
}
static inline int rl_ring(int64_t clock) { return (int)(clock % RL_RING); }

/* Panels of a group: four, or what is left if that is at most seven. */
static inline int rl_group(int panels) { return panels >= 8 ? 4 : panels; }

/* The same in int8. */
static inline int rl_small_group(int panels) { return panels >= 4 ? 4 : panels; }

/* Padded sizes of the online weights, and of what they need of the last prediction. */
static inline int32_t rl_adapted_size(const rillet_model *m) { return RL_PADDED(m->contexts + 1); }
static inline int32_t rl_shares_size(const rillet_model *m) { return RL_PADDED(2 * m->contexts); }

/* Pairs of numbers in a rounded key. */
static inline int64_t rl_pairs(const rillet_model *m) { return ((int64_t)m->key + 1) / 2; }

/* Copies numbers of a tensor out: `count` from the `first`, as they lie in a row. */
void rl_state_values(const rillet_model *m, const rillet_state *s, int before, size_t index,
                     int64_t first, int64_t count, void *values);

/* Sets the place of everything in the state, and lists its tensors. Returns the state's bytes,
 * which may be more than can be addressed. */
uint64_t rl_layout_state(rillet_model *m);

/* Moves every window to the front of its buffer. */
void rl_compact(const rillet_model *m, rillet_state *s);

#endif
