/* The public functions that are no part of a stream: loading, and the choice of kernels. */
#include <stdio.h>
#include <string.h>
#if defined(__aarch64__) && defined(__linux__) && !defined(RL_PLAIN_ONLY)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "draw.h"
#include "model.h"
#include "pack.h"

static rillet_status refuse(rillet_status status, const char *what, char *message) {
    if (message != NULL) snprintf(message, RILLET_MESSAGE, "%s", what);
    return status;
}

static rillet_status open_file(rl_file *file, const void *weights, size_t length, char *message) {
    if (rl_file_open(file, weights, length) == 0) return RILLET_OK;
    return refuse(RILLET_DAMAGED, file->problem, message);
}

static int always(void) { return 1; }

#if defined(RL_PLAIN_ONLY)
#elif defined(__x86_64__)
static int has_sse4(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("sse4.2");
}

static int has_avx2(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static int has_avx512(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

static int has_vnni(void) { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
#elif defined(__aarch64__)
static int has_dotprod(void) {
#if defined(__linux__)
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
    return 1; /* of Apple's processors, all have it */
#endif
}
#endif

/* From the fastest to the one that works everywhere. */
static const struct {
    const rl_kernels *kernels;
    int (*works)(void);
} choices[] = {
#if defined(RL_PLAIN_ONLY)
#elif defined(__x86_64__)
    {&rl_kernels_vnni, has_vnni}, {&rl_kernels_avx512, has_avx512},
    {&rl_kernels_avx2, has_avx2}, {&rl_kernels_sse4, has_sse4},
#elif defined(__aarch64__)
    {&rl_kernels_dotprod, has_dotprod},
#endif
    {&rl_kernels_plain, always},
};

/* The kernels of that name, or the fastest; NULL if this processor has none. */
static const rl_kernels *find_kernels(const char *name) {
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++)
        if ((name == NULL || strcmp(name, choices[i].kernels->name) == 0) && choices[i].works())
            return choices[i].kernels;
    return NULL;
}

rillet_status rillet_model_size(const void *weights, size_t length, size_t *bytes, char *message) {
    rl_file file;
    rillet_model sizes;
    rillet_status status = open_file(&file, weights, length, message);
    if (status == RILLET_OK) status = rl_pack(&file, &sizes, NULL, message);
    *bytes = status == RILLET_OK ? sizes.bytes : 0;
    return status;
}

rillet_status rillet_model_load(rillet_model *model, size_t bytes, const void *weights,
                                size_t length, char *message) {
    rl_file file;
    size_t needed;
    rillet_status status = rillet_model_size(weights, length, &needed, message);
    if (status != RILLET_OK) return status;
    if (bytes < needed || (uintptr_t)model % RILLET_ALIGN)
        return refuse(RILLET_TOO_SMALL, "the block is too small, or not aligned", message);
    status = open_file(&file, weights, length, message);
    if (status == RILLET_OK) status = rl_pack(&file, model, (char *)model, message);
    model->kernels = find_kernels(NULL);
    if (status == RILLET_OK && rillet_scratch_size(model, RILLET_GROUP) == SIZE_MAX)
        return refuse(RILLET_UNSUPPORTED, "the model is too large for this machine", message);
    return status;
}

const char *rillet_model_kernels(const rillet_model *model) { return model->kernels->name; }

rillet_status rillet_model_choose(rillet_model *model, const char *kernels) {
    const rl_kernels *found = find_kernels(kernels);
    if (found == NULL) return RILLET_UNSUPPORTED;
    model->kernels = found;
    return RILLET_OK;
}

int32_t rillet_vocabulary(const rillet_model *model) { return model->vocabulary; }

size_t rillet_state_size(const rillet_model *model) { return model->state_bytes; }

size_t rillet_scratch_size(const rillet_model *model, size_t rows) {
    size_t reading = model->kernels->scratch(model, rows);
    size_t drawing = rl_draw_scratch(model->vocabulary);
    return reading > drawing ? reading : drawing;
}

rillet_status rillet_read(const rillet_model *model, size_t rows, rillet_state *const *states,
                          const int32_t *tokens, const float *learn, float *const *logits,
                          void *scratch) {
    return model->kernels->read(model, rows, states, tokens, learn, logits, scratch);
}
