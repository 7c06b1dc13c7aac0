/* rillet-run: stream text from a bundle, without Python. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bundle.h"
#include "fail.h"
#include "generation.h"
#include "interrupt.h"
#include "options.h"
#include "prompt.h"
#include "stream.h"

static volatile sig_atomic_t asked; /* the signal that asked to stop, or 0 */

static void stop(int number) { asked = number; }

static void stop_at(int number) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = stop;
    action.sa_flags = (int)SA_RESETHAND; /* a second one ends at once; a call that waits returns */
    sigaction(number, &action, NULL);
}

int is_interrupted(void) { return asked != 0; }

static content text_of(const bundle *b, const char *path) {
    content c = read_file(path, "give a text file, or - for standard input");
    if (!asked) check_text(b->tokenizer, c.data, c.length); /* else it may end anywhere */
    return c;
}

static content read_prompt(const options *o, const bundle *b) {
    const char *path = strcmp(o->prompt, "-") == 0 ? "-" : o->file;
    if (path != NULL) return text_of(b, path);
    content c = {(char *)(uintptr_t)o->prompt, strlen(o->prompt)}; /* only read */
    check_text(b->tokenizer, c.data, c.length);
    return c;
}

/* Begins a generation, or continues that of a saved stream. */
static void begin(generation *g, const options *o, const bundle *b, const generation *saved,
                  int has_prompt) {
    sampling params;
    const sampling_changes *changes = &o->sampling;
    sampling_begin(&params);
    sampling_read(&params, b->defaults, "generation_config.json");
    if (saved != NULL) params = saved->params;
    if (saved == NULL || has_prompt) {
        sampling_change(&params, changes);
        generation_begin(g, &params);
        return;
    }
    int is_longer = changes->max_new_tokens != NULL;
    if (!sampling_changes_more(changes)) {
        *g = *saved;
        sampling_change(&params, changes); /* checked, and only the number of tokens */
        generation_extend(g, is_longer ? params.max_new_tokens : -1);
        return;
    }
    params.max_new_tokens = saved->limit > saved->count ? saved->limit - saved->count : 0;
    int64_t left = params.max_new_tokens;
    sampling_change(&params, changes);
    int64_t wanted = params.max_new_tokens;
    params.max_new_tokens = left;
    generation_begin(g, &params);
    generation_extend(g, is_longer ? wanted : -1);
    generation_continue(g, saved);
}

/* Writes what can be shown, and drops it; returns whether there is a reader. */
static int write_shown(text *shown, int now) {
    if (!now) return 1;
    size_t written = show(stdout, shown->data, shown->length);
    shown->length -= written;
    memmove(shown->data, shown->data + written, shown->length + 1);
    return shown->length == 0;
}

/* Generates to the end, or to a signal, or as long as there is a reader; returns whether there is.
 * What he has not got waits for the next. */
static int generate(stream *s, generation *g, int streaming) {
    text shown = g->waiting;
    int has_reader = 1;
    memset(&g->waiting, 0, sizeof g->waiting);
    g->is_delivered = 1;
    text_add(&shown, "", 0);
    for (;;) {
        has_reader = write_shown(&shown, streaming);
        if (!has_reader || asked || g->finish_reason != NULL) break;
        stream_next(s, g, &shown);
    }
    has_reader = has_reader && write_shown(&shown, 1);
    g->is_delivered = shown.length == 0;
    g->waiting = shown;
    return has_reader && show(stdout, "\n", 1) == 1;
}

static void report(const generation *g, int64_t before, struct timespec began) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double seconds =
        (double)(now.tv_sec - began.tv_sec) + 1e-9 * (double)(now.tv_nsec - began.tv_nsec);
    int64_t tokens = g->count - before;
    fprintf(stderr, "%lld tokens, %.0f a second, seed %llu; ended by %s\n", (long long)tokens,
            seconds > 0 ? (double)tokens / seconds : 0, (unsigned long long)g->params.seed,
            g->finish_reason != NULL ? g->finish_reason : "cancelled");
}

static int run(const options *o, stream *s, generation *g, const bundle *b) {
    generation saved;
    struct timespec began;
    int has_saved = o->load_state != NULL && stream_load(s, b, &saved, o->load_state);
    if (o->load_state == NULL) stream_begin(s, b, o->learn, o->memory, o->taught);
    if (o->learn_from != NULL) {
        content lesson = text_of(b, o->learn_from);
        stream_learn(s, lesson.data, lesson.length);
    }
    content prompt = read_prompt(o, b);
    begin(g, o, b, has_saved ? &saved : NULL, prompt.length > 0);
    int64_t position = s->position;
    stream_read(s, prompt.data, prompt.length, s->learn_read);
    if (asked) { /* before a text has begun */
        const generation *old = has_saved && s->position == position ? &saved : NULL;
        if (o->save_state != NULL) stream_save(s, old, o->save_state);
        return FAILED;
    }
    clock_gettime(CLOCK_MONOTONIC, &began);
    int64_t before = g->count;
    int has_reader = !o->echo || show(stdout, prompt.data, prompt.length) == prompt.length;
    if (has_reader) has_reader = generate(s, g, o->streaming);
    int problem = errno;
    if (o->stats) report(g, before, began);
    if (o->save_state != NULL) stream_save(s, g, o->save_state);
    if (!has_reader && problem != EPIPE && !asked)
        fail(FAILED, "standard output: %s", strerror(problem));
    return has_reader ? 0 : FAILED;
}

int main(int count, char **words) {
    options o;
    bundle b;
    stream s;
    generation g;
    read_options(&o, count, words);
    signal(SIGPIPE, SIG_IGN); /* the stream is saved even if nobody reads its text */
#ifdef SIGXFSZ
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error like a full disk */
#endif
    stop_at(SIGINT);
    stop_at(SIGTERM);
    open_bundle(&b, o.bundle);
    int status = run(&o, &s, &g, &b);
    if (asked) {
        fputs("\nStopped.\n", stderr);
        return 128 + asked;
    }
    return status;
}
