/* The command line. */
#ifndef RUN_OPTIONS_H
#define RUN_OPTIONS_H

#include "sampling.h"

typedef struct {
    const char *bundle, *prompt, *file; /* the prompt is "" where it was not given */
    const char *learn, *learn_from, *load_state, *save_state;
    sampling_changes sampling;
    int memory, taught, echo, streaming, stats;
} options;

/* Reads the command line; --help and --version end the program. */
void read_options(options *o, int count, char **words);

#endif
