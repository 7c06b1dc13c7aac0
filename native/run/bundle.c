#include "bundle.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../src/sha256.h"
#include "../src/tensors.h"
#include "fail.h"

static const char again[] = "copy the bundle again, or export it again";

static void join(const bundle *b, const char *name, char path[PATH_MAX]) {
    size_t length = strlen(b->path);
    const char *slash = length > 0 && b->path[length - 1] == '/' ? "" : "/";
    int size = snprintf(path, PATH_MAX, "%s%s%s", b->path, slash, name);
    if (size < 0 || size >= PATH_MAX) fail(FAILED, "%s is too long for a path", b->path);
}

/* A file of the folder itself, not a link to another. */
static content read_regular(const bundle *b, const char *name) {
    char path[PATH_MAX];
    struct stat status;
    join(b, name, path);
    if (lstat(path, &status) != 0) fail(FAILED, "%s is missing; %s", path, again);
    if (!S_ISREG(status.st_mode))
        fail(FAILED, "%s is not a regular file; the bundle was not written by rillet", path);
    return read_regular_file(path, again);
}

static rl_json parse(const bundle *b, const char *name, content c) {
    rl_json value;
    if (rl_json_open(&value, c.data, c.length) != 0)
        fail(FAILED, "%s/%s cannot be read as JSON; copy it again", b->path, name);
    if (!rl_json_begins(value, '{'))
        fail(FAILED, "%s/%s is not a JSON object; it was not written by rillet", b->path, name);
    return value;
}

static int is_text(rl_json value, const char *expected) {
    text found = {NULL, 0, 0};
    if (!rl_json_begins(value, '"')) return 0;
    text_clear(&found);
    text_put_string(&found, value);
    int same = strcmp(found.data, expected) == 0;
    free(found.data);
    return same;
}

static void hash_of(const void *data, size_t length, char digits[65]) {
    rl_sha256 sum;
    rl_sha256_begin(&sum);
    rl_sha256_add(&sum, data, length);
    rl_sha256_end(&sum, digits);
}

static void read_manifest(bundle *b) {
    char path[PATH_MAX], digits[65];
    struct stat status;
    text content_text = {NULL, 0, 0};
    if (stat(b->path, &status) != 0 || !S_ISDIR(status.st_mode))
        fail(FAILED, "%s is not a folder; give the folder that `rillet export` wrote", b->path);
    join(b, "bundle.json", path);
    if (lstat(path, &status) != 0 || !S_ISREG(status.st_mode))
        fail(
            FAILED,
            "%s is not a bundle: it has no bundle.json; give the folder that `rillet export` wrote",
            b->path);
    b->source = read_regular(b, "bundle.json");
    b->manifest = parse(b, "bundle.json", b->source);
    rl_json version = rl_json_member(b->manifest, "format_version");
    if (!is_text(rl_json_member(b->manifest, "format"), "rillet-bundle") ||
        !rl_json_begins(version, '"'))
        fail(FAILED, "%s is not the manifest of a rillet bundle", path);
    if (version.end - version.at < 4 || memcmp(version.at, "\"1.", 3) != 0)
        fail(FAILED,
             "%s has format version %.*s, and this " RUN_NAME
             " reads 1.1; build a newer one, or export the model again",
             b->path, (int)(version.end - version.at), (const char *)version.at);
    text_put_sorted(&content_text, b->manifest, ",", ":", "checksum");
    hash_of(content_text.data, content_text.length, digits);
    free(content_text.data);
    if (!is_text(rl_json_member(b->manifest, "checksum"), digits))
        fail(FAILED, "%s is damaged or was changed: its checksum does not match its content; %s",
             path, again);
}

static rl_json expected_hash(const bundle *b, const char *name) {
    return rl_json_member(rl_json_member(b->manifest, "files"), name);
}

/* Reads a file that the manifest lists, if its hash is the one there. */
static content read_listed(const bundle *b, const char *name) {
    char digits[65];
    content c = read_regular(b, name);
    hash_of(c.data, c.length, digits);
    if (!is_text(expected_hash(b, name), digits))
        fail(FAILED,
             "%s/%s is damaged or was changed: its SHA-256 is not the one in bundle.json; %s",
             b->path, name, again);
    return c;
}

static void load_model(bundle *b) {
    size_t bytes;
    char message[RILLET_MESSAGE];
    int is_fp32 = strcmp(b->precision.data, "fp32") == 0;
    if (expected_hash(b, "weights.safetensors").at == NULL) {
        if (is_fp32)
            fail(FAILED,
                 "%s lacks the weights for the native engine; export the model again to add them",
                 b->path);
        fail(FAILED,
             "%s lacks the weights for the native engine; it is in %s, which only its graphs hold",
             b->path, b->precision.data);
    }
    content weights = read_listed(b, "weights.safetensors");
    rillet_status status = rillet_model_size(weights.data, weights.length, &bytes, message);
    if (status == RILLET_OK) {
        b->model = own_block(bytes);
        status = rillet_model_load(b->model, bytes, weights.data, weights.length, message);
    }
    if (status != RILLET_OK)
        fail(FAILED,
             "the native engine cannot run %s/weights.safetensors (%s); use `rillet generate`, or "
             "export the model again",
             b->path, message);
    free(weights.data);
}

static void load_tokenizer(bundle *b) {
    size_t bytes;
    char message[RILLET_MESSAGE];
    content file = read_listed(b, "tokenizer.json");
    rillet_status status = rillet_tokenizer_size(file.data, file.length, &bytes, message);
    if (status == RILLET_OK) {
        b->tokenizer = own_block(bytes);
        status = rillet_tokenizer_load(b->tokenizer, bytes, file.data, file.length, message);
    }
    if (status != RILLET_OK)
        fail(FAILED, RUN_NAME " cannot read %s/tokenizer.json (%s); use `rillet generate`", b->path,
             message);
    free(file.data);
}

/* Whether a state tensor is the one that the manifest lists. */
static int is_listed(const rillet_tensor *t, rl_json row) {
    static const char *const types[] = {"float32", "int32", "int64"};
    rl_json shape = rl_json_inside(rl_json_member(row, "shape")), name, size;
    int64_t number;
    if (!is_text(rl_json_member(row, "name"), t->name) ||
        !is_text(rl_json_member(row, "dtype"), types[t->type]))
        return 0;
    if (!rl_json_next(&shape, &name, &size)) return 0; /* the batch */
    for (int axis = 0; axis < t->dims; axis++)
        if (!rl_json_next(&shape, &name, &size) || !rl_json_whole(size, &number) ||
            number != t->shape[axis])
            return 0;
    return !rl_json_next(&shape, &name, &size);
}

/* Refuses weights or a tokenizer of another model. */
static void check_together(const bundle *b) {
    rl_json rest = rl_json_inside(rl_json_member(b->manifest, "state")), name, row;
    size_t count = 0;
    int fits = 1;
    const rillet_tensor *t;
    for (; fits && rl_json_next(&rest, &name, &row); count++) {
        t = rillet_state_tensor(b->model, count);
        fits = t != NULL && is_listed(t, row);
    }
    if (!fits || rillet_state_tensor(b->model, count) != NULL)
        fail(FAILED,
             "%s: the weights for the native engine are of another model than the graphs; export "
             "the model again",
             b->path);
    int32_t tokens = rillet_tokenizer_vocabulary(b->tokenizer), known = rillet_vocabulary(b->model);
    if (tokens != known)
        fail(FAILED, "%s: the tokenizer has %d tokens and the model %d; export the bundle again",
             b->path, (int)tokens, (int)known);
}

static void load_defaults(bundle *b) {
    static const char name[] = "generation_config.json";
    int64_t start = 0;
    int is_listed_file = expected_hash(b, name).at != NULL;
    content c = is_listed_file ? read_listed(b, name) : read_regular(b, name);
    b->defaults = parse(b, name, c); /* points into the file, which stays */
    rl_json token = rl_json_member(b->defaults, "bos_token_id");
    if (token.at != NULL && !rl_json_whole(token, &start)) start = -1;
    if (start < 0 || start >= rillet_vocabulary(b->model))
        fail(FAILED, "%s: bos_token_id is %.*s, which is no token", b->path,
             (int)(token.end - token.at), (const char *)token.at);
    b->start_token = (int32_t)start;
}

static void set_text(const bundle *b, text *t, const char *name) {
    rl_json value = rl_json_member(b->manifest, name);
    if (!rl_json_begins(value, '"'))
        fail(FAILED, "%s/bundle.json has no %s; export the model again", b->path, name);
    text_clear(t);
    text_put_string(t, value);
}

void open_bundle(bundle *b, const char *path) {
    memset(b, 0, sizeof *b);
    b->path = path;
    read_manifest(b);
    set_text(b, &b->weights_sha256, "weights_sha256");
    set_text(b, &b->tokenizer_sha256, "tokenizer_sha256");
    set_text(b, &b->precision, "precision");
    load_model(b);
    load_tokenizer(b);
    check_together(b);
    load_defaults(b);
    if (expected_hash(b, "start_state.safetensors").at != NULL)
        b->taught = read_listed(b, "start_state.safetensors");
}

int state_index(const rillet_model *model, const char *name) {
    const rillet_tensor *t;
    for (size_t i = 0; (t = rillet_state_tensor(model, i)) != NULL; i++)
        if (strcmp(t->name, name) == 0) return (int)i;
    return -1;
}

void find_slots(const rillet_model *model, rillet_state *state) {
    enum { FIELDS = 6, SLOT = 1 }; /* see context_slots.py */
    int lookups = state_index(model, "context_slots"), table = state_index(model, "memory_slots");
    if (lookups < 0 || table < 0) return;
    const rillet_tensor *t = rillet_state_tensor(model, (size_t)lookups);
    const rillet_tensor *slots = rillet_state_tensor(model, (size_t)table);
    int64_t *found = own_block(t->bytes), *wide = own_block(slots->bytes);
    const int32_t *narrow = (const int32_t *)wide;
    rillet_state_get(model, state, 0, (size_t)lookups, found);
    rillet_state_get(model, state, 0, (size_t)table, wide);
    for (int64_t *at = found; at < found + t->shape[0] * FIELDS; at += FIELDS)
        at[SLOT] = slots->type == RILLET_INT32 ? narrow[*at] : wide[*at];
    rillet_state_set(model, state, 0, (size_t)lookups, found);
    free(found);
    free(wide);
}

void begin_state(const bundle *b, rillet_state *state, int taught) {
    rl_file file;
    rl_tensor table;
    rillet_state_reset(b->model, state);
    if (!taught || b->taught.data == NULL) return;
    int index = state_index(b->model, "memory_slots");
    const rillet_tensor *t = index < 0 ? NULL : rillet_state_tensor(b->model, (size_t)index);
    int fits = t != NULL && rl_file_open(&file, b->taught.data, b->taught.length) == 0 &&
               rl_file_find(&file, "memory_slots", &table) == 0 && table.dims == 2 &&
               table.shape[0] == 1 && table.shape[1] == t->shape[0] &&
               table.dtype == (t->type == RILLET_INT32 ? RL_I32 : RL_I64);
    if (fits) {
        void *slots = own_block(t->bytes);
        memcpy(slots, table.data, t->bytes);
        fits = rillet_state_set(b->model, state, 0, (size_t)index, slots) == RILLET_OK;
        if (fits) find_slots(b->model, state);
        free(slots);
    }
    if (!fits)
        fail(FAILED, "%s/start_state.safetensors is not what this bundle's streams begin with; %s",
             b->path, again);
}
