#include "sampling.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"

void sampling_begin(sampling *s) {
    memset(s, 0, sizeof *s);
    s->temperature = 0.8;
    s->top_p = 1;
    s->max_new_tokens = 200;
}

/* Numbers, from their texts. */

/* By its text, since the compiler may take for granted that no number is infinite. */
static int to_real(const char *string, double *number) {
    char *end;
    size_t length = strspn(string, "+-.0123456789eE");
    errno = 0;
    *number = strtod(string, &end);
    int is_too_large = errno == ERANGE && fabs(*number) > 1;
    return length > 0 && string[length] == 0 && *end == 0 && !is_too_large;
}

static int to_whole(const char *string, uint64_t most, uint64_t *number) {
    char *end;
    if (*string < '0' || *string > '9') return 0;
    errno = 0;
    *number = strtoull(string, &end, 10);
    return *end == 0 && errno == 0 && *number <= most;
}

static double real(const char *name, const char *string, int (*fits)(double), const char *must) {
    double number;
    if (!to_real(string, &number))
        fail(USAGE, "%s is %s; it must be a finite number", name, string);
    if (!fits(number)) fail(USAGE, "%s is %s; it must %s", name, string, must);
    return number;
}

static int is_temperature(double x) { return x >= 0; }
static int is_probability(double x) { return x > 0 && x <= 1; }
static int is_fraction(double x) { return x >= 0 && x <= 1; }

static int64_t whole(const char *name, const char *string) {
    uint64_t number;
    if (!to_whole(string, INT64_MAX, &number))
        fail(USAGE, "%s is %s; it must be a whole number, 0 or above", name, string);
    return (int64_t)number;
}

static void set_seed(sampling *s, const char *string) {
    if (!to_whole(string, UINT64_MAX, &s->seed))
        fail(USAGE, "seed is %s; it must be a whole number from 0 to 2^64 - 1", string);
    s->has_seed = 1;
}

/* Sets a number by its name; returns 0 for another name. */
static int set_number(sampling *s, const char *name, const char *string) {
    if (strcmp(name, "temperature") == 0)
        s->temperature = real(name, string, is_temperature, "be 0 (greedy) or above, such as 0.8");
    else if (strcmp(name, "top_p") == 0)
        s->top_p = real(name, string, is_probability, "lie above 0 and be at most 1");
    else if (strcmp(name, "min_p") == 0)
        s->min_p = real(name, string, is_fraction, "lie between 0 and 1");
    else if (strcmp(name, "top_k") == 0)
        s->top_k = whole(name, string);
    else if (strcmp(name, "max_new_tokens") == 0)
        s->max_new_tokens = whole(name, string);
    else if (strcmp(name, "top_logprobs") == 0)
        s->top_logprobs = whole(name, string);
    else if (strcmp(name, "seed") == 0)
        set_seed(s, string);
    else
        return 0;
    return 1;
}

/* From JSON. */

static const struct {
    const char *name, *neutral;
    double number;
} lacking[] = {
    {"typical_p", NULL, 1},
    {"repetition_penalty", NULL, 1},
    {"frequency_penalty", NULL, 0},
    {"presence_penalty", NULL, 0},
    {"logit_bias", "[]", 0},
    {"bad_words", "[]", 0},
    {"choices", "[]", 0},
    {"regex", "null", 0},
    {"grammar", "null", 0},
    {"json_schema", "null", 0},
    {"epsilon_cutoff", NULL, 0},
    {"eta_cutoff", NULL, 0},
    {"penalty_window", NULL, 0},
    {"no_repeat_ngram_size", NULL, 0},
    {"min_new_tokens", NULL, 0},
    {"max_time", "null", 0},
    {"stop_token_ids", "[]", 0},
    {"include_stop", "false", 0},
    {"logits_processor", "null", 0},
};

static void check_lacking(rl_json object, const char *where) {
    char string[64];
    for (size_t i = 0; i < sizeof lacking / sizeof *lacking; i++) {
        rl_json value = rl_json_member(object, lacking[i].name);
        double number;
        if (value.at == NULL || rl_json_is(value, "null") || rl_json_is(value, "{}")) continue;
        snprintf(string, sizeof string, "%.*s", (int)(value.end - value.at),
                 (const char *)value.at);
        int is_neutral = lacking[i].neutral != NULL
                             ? rl_json_is(value, lacking[i].neutral)
                             : to_real(string, &number) && number == lacking[i].number;
        if (!is_neutral)
            fail(FAILED, "%s samples with %s, which " RUN_NAME " lacks; use `rillet generate`",
                 where, lacking[i].name);
    }
}

static const char *own_string(rl_json string, const char *where) {
    text t = {NULL, 0, 0};
    text_clear(&t);
    text_put_string(&t, string);
    if (t.length == 0 || strlen(t.data) != t.length)
        fail(FAILED, "%s has a stop string that is empty or holds a zero; use `rillet generate`",
             where);
    return t.data; /* kept to the end of the program */
}

static void read_stops(sampling *s, rl_json value, const char *where) {
    rl_json rest = rl_json_inside(value), name, one;
    s->stops = 0;
    if (rl_json_begins(value, '"')) {
        s->stop[s->stops++] = own_string(value, where);
        return;
    }
    while (rl_json_begins(value, '[') && rl_json_next(&rest, &name, &one)) {
        if (!rl_json_begins(one, '"')) fail(FAILED, "%s has a stop string that is no text", where);
        if (s->stops == MOST_STOPS)
            fail(FAILED, "%s has more than %d stop strings; use `rillet generate`", where,
                 MOST_STOPS);
        s->stop[s->stops++] = own_string(one, where);
    }
}

void sampling_read(sampling *s, rl_json object, const char *where) {
    static const char *const numbers[] = {"temperature",    "top_k",        "top_p", "min_p",
                                          "max_new_tokens", "top_logprobs", "seed"};
    char string[400]; /* longer than any number that is no integer */
    check_lacking(object, where);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        rl_json value = rl_json_member(object, numbers[i]);
        if (value.at == NULL || rl_json_is(value, "null")) continue;
        snprintf(string, sizeof string, "%.*s", (int)(value.end - value.at),
                 (const char *)value.at);
        set_number(s, numbers[i], string);
    }
    rl_json stop = rl_json_member(object, "stop");
    if (stop.at != NULL && !rl_json_is(stop, "null")) read_stops(s, stop, where);
}

/* From the command line, and to where it is used. */

void sampling_change(sampling *s, const sampling_changes *c) {
    const char *const names[] = {"temperature", "top_k",          "top_p",
                                 "min_p",       "max_new_tokens", "seed"};
    const char *const values[] = {c->temperature, c->top_k,          c->top_p,
                                  c->min_p,       c->max_new_tokens, c->seed};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (values[i] != NULL) set_number(s, names[i], values[i]);
    if (c->stops == 0) return;
    s->stops = c->stops;
    memcpy(s->stop, c->stop, sizeof s->stop);
}

int sampling_changes_more(const sampling_changes *c) {
    return c->temperature || c->top_k || c->top_p || c->min_p || c->seed || c->stops;
}

static void put_real(text *t, const char *name, double number) {
    text_put(t, name);
    text_put_real(t, number);
}

static void put_whole(text *t, const char *name, uint64_t number) {
    char digits[24];
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)number);
    text_put(t, name);
    text_put(t, digits);
}

void sampling_write(const sampling *s, text *t) {
    text_put(t, "{\"bad_words\": [], \"choices\": [], \"frequency_penalty\": 0.0, "
                "\"grammar\": null, \"logit_bias\": []");
    put_whole(t, ", \"max_new_tokens\": ", (uint64_t)s->max_new_tokens);
    put_real(t, ", \"min_p\": ", s->min_p);
    text_put(t, ", \"presence_penalty\": 0.0, \"regex\": null, \"repetition_penalty\": 1.0");
    put_whole(t, ", \"seed\": ", s->seed);
    text_put(t, ", \"stop\": [");
    for (size_t i = 0; i < s->stops; i++) {
        if (i > 0) text_put(t, ", ");
        text_put_json(t, s->stop[i], strlen(s->stop[i]));
    }
    put_real(t, "], \"temperature\": ", s->temperature);
    put_whole(t, ", \"top_k\": ", (uint64_t)s->top_k);
    put_whole(t, ", \"top_logprobs\": ", (uint64_t)s->top_logprobs);
    put_real(t, ", \"top_p\": ", s->top_p);
    text_put(t, ", \"typical_p\": 1.0}");
}

rillet_sampling sampling_of(const sampling *s) {
    int32_t top_k = s->top_k > INT32_MAX ? INT32_MAX : (int32_t)s->top_k;
    rillet_sampling result = {s->temperature, s->top_p, s->min_p, top_k};
    return result;
}
