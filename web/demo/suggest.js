// Suggestions at each keystroke: the likeliest beginnings, each continued to the end of its word.

const MOST = 24;

/** A session that has read the text; it keeps what it has read of the last one. */
export class Reader {
  #last = Promise.resolve();

  constructor(start) {
    this.start = start;
    this.base = start.fork();
    this.read = "";
  }

  /** A fork that has read all of it. Texts are read one after the other. */
  at(text, signal) {
    const read = () => this.#fork(text, signal);
    return (this.#last = this.#last.then(read, read));
  }

  async #fork(text, signal) {
    signal?.throwIfAborted();
    if (!text.startsWith(this.read)) {
      this.base.close();
      this.base = this.start.fork();
      this.read = "";
    }
    const far = Math.max(this.read.length, text.length - 48);
    if (far > this.read.length) await this.base.feed(text.slice(this.read.length, far), { signal });
    this.read = text.slice(0, far);
    const session = this.base.fork();
    if (far < text.length) await session.feed(text.slice(far));
    return session;
  }

  close() {
    this.base.close();
  }
}

/** Texts that may follow, the likeliest first. */
export async function suggest(model, session, count = 3) {
  if (!session.logits) return [];
  const order = Array.from(session.logits, (logit, token) => [logit, token]);
  const starts = order.sort((a, b) => b[0] - a[0]).slice(0, count);
  return Promise.all(starts.map(async ([, token]) => {
    const twin = session.fork();
    const bytes = [...model.token(token)];
    let next = token;
    while (bytes.length < MOST) {
      await twin.feedTokens([next]);
      const { logits } = twin;
      next = logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));
      const more = model.token(next);
      if (!/[\p{L}\p{N}'’-]/u.test(new TextDecoder().decode(more))) break;
      bytes.push(...more);
    }
    twin.close();
    return new TextDecoder().decode(Uint8Array.from(bytes));
  }));
}
