/* Generating: drawing tokens and reading them, many in one call. */
#include "draw.h"
#include "model.h"

/* A token of each row, from what it predicts; -1 if a row predicts nothing. */
static int draw_step(const rillet_model *model, size_t rows, const rillet_sampling *sampling,
                     float *const *logits, const double *uniforms, rillet_random *random,
                     int32_t *tokens, float *log_probabilities, void *scratch) {
    for (size_t row = 0; row < rows; row++) {
        double uniform = 0;
        if (sampling->temperature > 0)
            uniform = uniforms != NULL ? uniforms[row] : rillet_random_next(random + row);
        int32_t token = rillet_draw(model, sampling, logits[row], uniform, scratch);
        if (token < 0) return -1;
        tokens[row] = token;
        if (log_probabilities != NULL) log_probabilities[row] = logits[row][token];
    }
    return 0;
}

static int has_ended(size_t rows, const int32_t *tokens, int32_t end_token) {
    for (size_t row = 0; row < rows; row++)
        if (tokens[row] == end_token) return 1;
    return 0;
}

rillet_status rillet_generate(const rillet_model *model, size_t rows, size_t count,
                              rillet_state *const *states, float *const *logits,
                              const rillet_sampling *sampling, const double *uniforms,
                              rillet_random *random, const float *learn, int32_t end_token,
                              int32_t *tokens, float *log_probabilities, size_t *written,
                              void *scratch) {
    *written = 0;
    if (!rl_can_draw(sampling)) return RILLET_VALUE;
    for (; *written < count; ++*written) {
        size_t at = *written * rows;
        int32_t *drawn = tokens + at;
        if (draw_step(model, rows, sampling, logits, uniforms == NULL ? NULL : uniforms + at,
                      random, drawn, log_probabilities == NULL ? NULL : log_probabilities + at,
                      scratch) != 0)
            return RILLET_NOT_FINITE;
        rillet_status status = rillet_read(model, rows, states, drawn, learn, logits, scratch);
        if (status != RILLET_OK) return status;
        if (has_ended(rows, drawn, end_token)) {
            ++*written;
            break;
        }
    }
    return RILLET_OK;
}
