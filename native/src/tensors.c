#include "tensors.h"

#include <string.h>

/* Types that a file may hold. Others are refused: rillet writes none. */
static const struct {
    const char *name;
    rl_dtype dtype;
    int64_t size;
} types[] = {
    {"F32", RL_F32, 4}, {"I64", RL_I64, 8}, {"I32", RL_I32, 4}, {"I8", RL_I8, 1}, {"U8", RL_U8, 1}};

typedef struct {
    const unsigned char *at, *end;
} cursor;

typedef struct {
    const unsigned char *text; /* between the quotes */
    size_t length;
} string;

static void skip_space(cursor *c) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' || *c->at == '\t' || *c->at == '\r'))
        c->at++;
}

static int take(cursor *c, unsigned char wanted) {
    skip_space(c);
    if (c->at >= c->end || *c->at != wanted) return 0;
    c->at++;
    return 1;
}

static int take_string(cursor *c, string *s) {
    if (!take(c, '"')) return 0;
    s->text = c->at;
    while (c->at < c->end && *c->at != '"') {
        if (*c->at == '\\' && ++c->at == c->end) return 0;
        c->at++;
    }
    if (c->at == c->end) return 0;
    s->length = (size_t)(c->at - s->text);
    c->at++;
    return 1;
}

static int take_number(cursor *c, int64_t *value) {
    skip_space(c);
    const unsigned char *start = c->at;
    int64_t number = 0;
    for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++) {
        if (number > (INT64_MAX - 9) / 10) return 0;
        number = number * 10 + (*c->at - '0');
    }
    *value = number;
    return c->at > start;
}

/* A list of up to `most` numbers; returns how many there are, or -1. */
static int take_numbers(cursor *c, int64_t *values, int most) {
    if (!take(c, '[')) return -1;
    if (take(c, ']')) return 0;
    for (int count = 0; count < most;) {
        if (!take_number(c, values + count++)) return -1;
        if (take(c, ']')) return count;
        if (!take(c, ',')) return -1;
    }
    return -1;
}

static int same(string s, const char *text) {
    return s.length == strlen(text) && memcmp(s.text, text, s.length) == 0;
}

/* The free-text entries; their content is for people. */
static int skip_metadata(cursor *c) {
    string s;
    if (!take(c, '{')) return 0;
    if (take(c, '}')) return 1;
    do {
        if (!take_string(c, &s) || !take(c, ':') || !take_string(c, &s)) return 0;
    } while (take(c, ','));
    return take(c, '}');
}

static int dtype_of(string name, rl_tensor *tensor, int64_t *size) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (same(name, types[i].name)) {
            tensor->dtype = types[i].dtype;
            *size = types[i].size;
            return 1;
        }
    return 0;
}

/* Checks the place of a tensor, and sets its count and data. */
static const char *place(const rl_file *file, rl_tensor *tensor, int64_t size,
                         const int64_t *offsets) {
    tensor->scales = NULL;
    tensor->count = 1;
    for (int i = 0; i < tensor->dims; i++) {
        if (tensor->shape[i] > INT32_MAX) return "a tensor is too large";
        tensor->count *= tensor->shape[i];
        if (tensor->count > (int64_t)1 << 40) return "a tensor is too large";
    }
    if (offsets[0] > offsets[1] || (uint64_t)offsets[1] > file->data_length)
        return "a tensor lies outside the file";
    if (offsets[1] - offsets[0] != tensor->count * size)
        return "a tensor's bytes do not fit its shape";
    tensor->data = file->data + offsets[0];
    tensor->end = file->data + offsets[1];
    return NULL;
}

/* One tensor's entry, after its name. */
static const char *take_tensor(const rl_file *file, cursor *c, rl_tensor *tensor) {
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };
    const char *syntax = "a tensor's entry is malformed";
    int seen = 0;
    int64_t size = 0, offsets[2] = {0, 0};
    string key, value;
    if (!take(c, '{')) return syntax;
    do {
        if (!take_string(c, &key) || !take(c, ':')) return syntax;
        if (same(key, "dtype")) {
            if (!take_string(c, &value)) return syntax;
            if (!dtype_of(value, tensor, &size)) return "a tensor has an unknown type";
            seen |= DTYPE;
        } else if (same(key, "shape")) {
            tensor->dims = take_numbers(c, tensor->shape, RL_DIMS);
            if (tensor->dims < 0) return syntax;
            seen |= SHAPE;
        } else if (same(key, "data_offsets")) {
            if (take_numbers(c, offsets, 2) != 2) return syntax;
            seen |= OFFSETS;
        } else {
            return syntax;
        }
    } while (take(c, ','));
    if (!take(c, '}') || seen != (DTYPE | SHAPE | OFFSETS)) return syntax;
    return place(file, tensor, size, offsets);
}

const char *rl_type_name(rl_dtype dtype) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].dtype == dtype) return types[i].name;
    return "";
}

float rl_float(const rl_tensor *tensor, int64_t index) {
    float value;
    memcpy(&value, tensor->data + index * 4, 4);
    return value;
}

int8_t rl_byte(const rl_tensor *tensor, int64_t index) {
    int8_t value;
    memcpy(&value, tensor->data + index, 1);
    return value;
}

int64_t rl_whole(const rl_tensor *tensor, int64_t index) {
    int64_t value;
    memcpy(&value, tensor->data + index * 8, 8);
    return value;
}

static const char *check_values(const rl_tensor *tensor) {
    for (int64_t i = 0; tensor->dtype == RL_I8 && i < tensor->count; i++)
        if (rl_byte(tensor, i) < -RL_MOST) return "a weight in int8 is -128";
    for (int64_t i = 0; tensor->dtype == RL_F32 && i < tensor->count; i++) {
        uint32_t bits;
        memcpy(&bits, tensor->data + i * 4, 4);
        if ((bits & 0x7f800000u) == 0x7f800000u) return "a number is not finite";
    }
    return NULL;
}

/* Walks over all entries. Stops at `name`, if it is not NULL, and sets `found`; checks the values
 * of all tensors otherwise. */
static const char *walk(const rl_file *file, const char *name, rl_tensor *found) {
    cursor c = {file->header, file->header + file->header_length};
    const char *syntax = "the header is malformed";
    const unsigned char *end = file->data;
    if (!take(&c, '{')) return syntax;
    do {
        string key;
        rl_tensor tensor;
        if (!take_string(&c, &key) || !take(&c, ':')) return syntax;
        if (same(key, "__metadata__")) {
            if (!skip_metadata(&c)) return syntax;
            continue;
        }
        const char *problem = take_tensor(file, &c, &tensor);
        if (problem != NULL) return problem;
        if (name == NULL && (problem = check_values(&tensor)) != NULL) return problem;
        if (tensor.end > end) end = tensor.end;
        if (name != NULL && same(key, name)) {
            *found = tensor;
            return NULL;
        }
    } while (take(&c, ','));
    if (!take(&c, '}')) return syntax;
    skip_space(&c);
    if (c.at != c.end) return syntax;
    if (name != NULL) return "";
    return end == file->data + file->data_length ? NULL : "bytes follow its tensors";
}

int rl_file_open(rl_file *file, const void *bytes, size_t length) {
    const unsigned char *start = bytes;
    uint64_t header = 0;
    memset(file, 0, sizeof *file);
    file->problem = "the file is shorter than its header";
    if (start == NULL || length < 8) return -1;
    for (int i = 7; i >= 0; i--) header = header << 8 | start[i];
    if (header > length - 8) return -1;
    file->header = start + 8;
    file->header_length = (size_t)header;
    file->data = start + 8 + header;
    file->data_length = length - 8 - (size_t)header;
    file->problem = walk(file, NULL, NULL);
    return file->problem == NULL ? 0 : -1;
}

int rl_file_find(const rl_file *file, const char *name, rl_tensor *tensor) {
    return walk(file, name, tensor) == NULL ? 0 : -1;
}
