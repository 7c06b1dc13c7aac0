/* The public functions that are no part of a stream, and the choice of kernels. */
#include <string.h>
#if defined(__aarch64__) && defined(__linux__) && !defined(RL_PLAIN_ONLY)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "draw.h"
#include "model.h"

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

/* From the one that works everywhere, which is number 0 on every processor, to the fastest. */
static const struct {
    const rl_kernels *kernels;
    int (*works)(void);
} choices[] = {
    {&rl_kernels_plain, always},
#if defined(RL_PLAIN_ONLY)
#elif defined(__x86_64__)
    {&rl_kernels_sse4, has_sse4},     {&rl_kernels_avx2, has_avx2},
    {&rl_kernels_avx512, has_avx512}, {&rl_kernels_vnni, has_vnni},
#elif defined(__aarch64__)
    {&rl_kernels_dotprod, has_dotprod},
#endif
};

/* The number of the kernels of that name, or of the fastest; -1 if this processor has none. */
static int32_t find_kernels(const char *name) {
    int32_t i = sizeof choices / sizeof *choices;
    while (--i >= 0)
        if ((name == NULL || strcmp(name, choices[i].kernels->name) == 0) && choices[i].works())
            break;
    return i;
}

int32_t rl_best_kernels(void) { return find_kernels(NULL); }

const rl_kernels *rl_kernels_of(const rillet_model *model) {
    return choices[model->kernels].kernels;
}

const char *rillet_model_kernels(const rillet_model *model) { return rl_kernels_of(model)->name; }

rillet_status rillet_model_choose(rillet_model *model, const char *kernels) {
    int32_t found = find_kernels(kernels);
    if (found < 0) return RILLET_UNSUPPORTED;
    model->kernels = found;
    return RILLET_OK;
}

const rillet_model *rillet_model_packed(const void *block, size_t bytes) {
    const rillet_model *m = block;
    if (bytes < sizeof *m || (uintptr_t)block % RILLET_ALIGN) return NULL;
    if (m->magic != RL_MAGIC || m->struct_bytes != sizeof *m) return NULL;
    return m->tail <= bytes && m->kernels == 0 && m->state_bytes <= SIZE_MAX / 4 ? m : NULL;
}

int32_t rillet_vocabulary(const rillet_model *model) { return model->vocabulary; }

size_t rillet_state_size(const rillet_model *model) { return (size_t)model->state_bytes; }

size_t rillet_scratch_size(const rillet_model *model, size_t rows) {
    size_t reading = rl_kernels_of(model)->scratch(model, rows);
    size_t drawing = rl_draw_scratch(model->vocabulary);
    return reading > drawing ? reading : drawing;
}

rillet_status rillet_read(const rillet_model *model, size_t rows, rillet_state *const *states,
                          const int32_t *tokens, const float *learn, float *const *logits,
                          void *scratch) {
    return rl_kernels_of(model)->read(model, rows, states, tokens, learn, logits, scratch);
}
