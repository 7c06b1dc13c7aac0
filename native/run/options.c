#include "options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"

#ifndef RILLET_VERSION
#define RILLET_VERSION "unknown"
#endif

static const char help[] =
    "Usage: rillet-run [OPTIONS] BUNDLE [PROMPT]\n"
    "\n"
    "  Stream text from BUNDLE, continuing PROMPT (- is standard input), as `rillet\n"
    "  generate` does.\n"
    "\n"
    "Options:\n"
    "  -f, --file TEXT           Read the prompt from this file; - is standard input.\n"
    "  --max-new-tokens N        Tokens to generate. Default: the bundle's, or 200;\n"
    "                            with --load-state the rest.\n"
    "  --temperature T           Divide the logits by T; 0 takes the likeliest token.\n"
    "  --top-k K                 Keep the K likeliest tokens; 0 keeps all.\n"
    "  --top-p P                 Keep the smallest set of likeliest tokens that reaches\n"
    "                            this probability.\n"
    "  --min-p P                 Keep tokens at least this fraction as likely as the\n"
    "                            likeliest.\n"
    "  --stop TEXT               End before this text. Repeatable.\n"
    "  --seed S                  The same seed gives the same text.\n"
    "  --learn [read|all|none]   What the stream's memory stores: what it reads, all,\n"
    "                            or nothing. Default: read.\n"
    "  --memory / --no-memory    Give the stream a memory. Default: memory.\n"
    "  --taught / --untaught     Begin with what BUNDLE was taught, if anything, or at\n"
    "                            zeros. Default: taught.\n"
    "  --learn-from TEXT         Teach the memory this file first.\n"
    "  --load-state FILE         Continue a saved stream; without PROMPT, in\n"
    "                            mid-sentence.\n"
    "  --save-state FILE         Save the stream at the end, or on Ctrl-C.\n"
    "  --echo / --no-echo        Write the prompt before the text. Default: echo.\n"
    "  --stream / --no-stream    Write the text as it comes, or all at once.\n"
    "                            Default: stream.\n"
    "  --stats                   Report the speed and the seed, on stderr.\n"
    "  --version                 Show the version and exit.\n"
    "  -h, --help                Show this message and exit.\n";

/* The command line while it is read. */
typedef struct {
    char **words;
    int count, at;
} line;

/* Whether a word is this option; `value` is then what follows it. */
static int is_option(line *l, const char *name, const char **value) {
    const char *word = l->words[l->at];
    size_t length = strlen(name);
    if (strncmp(word, name, length) != 0) return 0;
    if (word[length] == '=' && name[1] == '-') {
        *value = word + length + 1;
        return 1;
    }
    if (word[length] != 0) return 0;
    if (l->at + 1 >= l->count) fail(USAGE, "%s needs a value; see rillet-run --help", name);
    *value = l->words[++l->at];
    return 1;
}

static int is_flag(const line *l, const char *yes, const char *no, int *flag) {
    const char *word = l->words[l->at];
    if (strcmp(word, yes) != 0 && (no == NULL || strcmp(word, no) != 0)) return 0;
    *flag = strcmp(word, yes) == 0;
    return 1;
}

static int take_flag(const line *l, options *o) {
    return is_flag(l, "--memory", "--no-memory", &o->memory) ||
           is_flag(l, "--taught", "--untaught", &o->taught) ||
           is_flag(l, "--echo", "--no-echo", &o->echo) ||
           is_flag(l, "--stream", "--no-stream", &o->streaming) ||
           is_flag(l, "--stats", NULL, &o->stats);
}

static void add_stop(sampling_changes *s, const char *stop) {
    if (*stop == 0) fail(USAGE, "stop has the entry ''; each must be a non-empty text");
    if (s->stops == MOST_STOPS) fail(USAGE, "there are more than %d of --stop", MOST_STOPS);
    s->stop[s->stops++] = stop;
}

static int take_value(line *l, options *o) {
    sampling_changes *s = &o->sampling;
    const struct {
        const char *name, **value;
    } values[] = {
        {"--max-new-tokens", &s->max_new_tokens},
        {"--temperature", &s->temperature},
        {"--top-k", &s->top_k},
        {"--top-p", &s->top_p},
        {"--min-p", &s->min_p},
        {"--seed", &s->seed},
        {"--file", &o->file},
        {"-f", &o->file},
        {"--learn", &o->learn},
        {"--learn-from", &o->learn_from},
        {"--load-state", &o->load_state},
        {"--save-state", &o->save_state},
    };
    const char *stop;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        if (is_option(l, values[i].name, values[i].value)) return 1;
    if (!is_option(l, "--stop", &stop)) return 0;
    add_stop(s, stop);
    return 1;
}

static void take_argument(options *o, const char *word, int *arguments) {
    if (*arguments == 2)
        fail(USAGE, "there is '%s' after the prompt; put the prompt in quotes", word);
    if ((*arguments)++ == 0)
        o->bundle = word;
    else
        o->prompt = word;
}

static void check_file(const char *name, const char *path) {
    if (path != NULL && *path == 0) fail(USAGE, "%s is empty; give a file", name);
}

static void check_options(const options *o) {
    if (o->bundle == NULL || *o->bundle == 0)
        fail(USAGE, "there is no BUNDLE; see rillet-run --help");
    check_file("--file", o->file);
    check_file("--learn-from", o->learn_from);
    check_file("--load-state", o->load_state);
    check_file("--save-state", o->save_state);
    if (o->file != NULL && *o->prompt)
        fail(USAGE, "there are a prompt and --file; give one of them");
    if (strcmp(o->learn, "read") && strcmp(o->learn, "all") && strcmp(o->learn, "none"))
        fail(USAGE, "learn is '%s'; it must be one of read, all, none", o->learn);
}

static void tell_and_exit(const char *text) {
    if (show(stdout, text, strlen(text)) < strlen(text))
        fail(FAILED, "standard output: %s", strerror(errno));
    exit(0);
}

void read_options(options *o, int count, char **words) {
    line l = {words, count, 1};
    int arguments = 0, only_arguments = 0;
    memset(o, 0, sizeof *o);
    o->prompt = "";
    o->learn = "read";
    o->memory = o->taught = o->echo = o->streaming = 1;
    for (; l.at < count; l.at++) {
        const char *word = words[l.at];
        if (only_arguments || *word != '-' || word[1] == 0) {
            take_argument(o, word, &arguments);
        } else if (strcmp(word, "--") == 0) {
            only_arguments = 1;
        } else if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0) {
            tell_and_exit(help);
        } else if (strcmp(word, "--version") == 0) {
            tell_and_exit("rillet-run, version " RILLET_VERSION "\n");
        } else if (!take_flag(&l, o) && !take_value(&l, o)) {
            fail(USAGE, "rillet-run has no option %s; see rillet-run --help", word);
        }
    }
    check_options(o);
}
