/* A bundle: a folder that says what is in it, with the hash of each file. */
#ifndef RUN_BUNDLE_H
#define RUN_BUNDLE_H

#include "../include/rillet.h"
#include "../src/json.h"
#include "files.h"
#include "text.h"

typedef struct {
    const char *path;
    content source; /* bundle.json */
    rl_json manifest;
    text weights_sha256, tokenizer_sha256, precision;
    rillet_model *model;
    rillet_tokenizer *tokenizer;
    rl_json defaults; /* generation_config.json: how it is sampled unless told otherwise */
    content taught;   /* start_state.safetensors; without data if there is none */
    int32_t start_token;
} bundle;

/* Opens a bundle and loads its model. */
void open_bundle(bundle *b, const char *path);

/* Begins a stream: with what the bundle was taught, or at zeros. */
void begin_state(const bundle *b, rillet_state *state, int taught);

/* Has the state's lookups find the slots of its memory, which was replaced. */
void find_slots(const rillet_model *model, rillet_state *state);

/* The place of a state tensor, or -1. */
int state_index(const rillet_model *model, const char *name);

#endif
