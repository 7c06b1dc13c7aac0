/* A session of the page: a stream, and what it last generated. */
#ifndef WEB_SESSION_H
#define WEB_SESSION_H

#include "../../native/run/stream.h"
#include "heap.h"

typedef struct {
    region memory; /* of all that is the session's */
    stream stream;
    generation *generation; /* NULL before the first */
    region *drawing;        /* of the generation */
} session;

/* An empty one. */
session *session_new(void);

/* Makes what follows part of a session that is begun: an error undoes it. */
void session_enter(session *s);

/* Ends that; the session lasts. */
void session_leave(session *s);

void session_end(session *s);

/* Copies a stream, with its memory in the current region. */
void stream_copy(stream *to, const stream *from);

/* A twin. */
session *session_twin(const session *s);

/* Begins a generation with the bundle's defaults, and what a JSON object says. */
void session_begin(session *s, const char *options, size_t length);

/* After each call of the page: undoes what was not finished. */
void session_recover(void);

#endif
