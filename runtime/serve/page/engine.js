// The engine behind the page: its server, over HTTP. A text is one request to /v1/completions; what
// was taught is a stream of /v1/streams, which the page's address names, so that a reload finds it.

export const about =
  "Text from a small model on a server. What you type goes to that server, and nowhere else.";

/** Whether the memory and the waves can be looked at. */
export const looksInside = false;

const PAUSE = 150; // milliseconds without a keystroke before suggestions are asked for
const MOST = 24; // tokens of a suggestion
const BUSY_TRIES = 50;
const WORD = /^[\p{L}\p{N}'’-]+/u;
const JSON_TYPE = { "Content-Type": "application/json" };

let key = "";

/** Takes the key that the server wants. It is sent, and kept nowhere. */
export function useKey(given) {
  key = given.trim();
}

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function send(method, path, body, options = {}) {
  const headers = { ...JSON_TYPE, ...(key && { Authorization: `Bearer ${key}` }) };
  const request = { method, headers, body: body && JSON.stringify(body), ...options };
  for (let tries = 1; ; tries++) {
    const response = await fetch(path, request);
    if (response.ok) return response;
    const { error } = await response.json().catch(() => ({}));
    if (error?.code === "busy" && tries < BUSY_TRIES) {
      await wait(100); // another request uses the stream
      continue;
    }
    const message = error?.message ?? `the server answers ${response.status}`;
    throw Object.assign(new Error(message), {
      status: response.status,
      wantsKey: response.status === 401,
    });
  }
}

async function ask(method, path, body, options) {
  return (await send(method, path, body, options)).json();
}

async function create(how) {
  return (await ask("POST", "v1/streams", how)).id;
}

/** Deletes a stream, once the server has left it. */
async function drop(id) {
  await send("DELETE", `v1/streams/${id}`, undefined, { keepalive: true }).catch(() => {});
}

/** The stream that the page's address names. */
async function kept() {
  const id = new URLSearchParams(location.hash.slice(1)).get("stream");
  if (!/^[0-9a-f]{32}$/.test(id ?? "")) return undefined;
  // Listed rather than asked for: that it is gone is no error.
  const { data } = await ask("GET", "v1/streams");
  return data.find((stream) => stream.id === id);
}

function name(id) {
  history.replaceState(null, "", id ? `#stream=${id}` : location.pathname + location.search);
}

/** The models that can be opened. */
export async function models() {
  const { data } = await ask("GET", "v1/models");
  const stream = await kept();
  return data.map(({ id }) => ({ label: id, id, isChosen: id === stream?.model }));
}

/** Opens a model. */
export async function open(id) {
  return new Remote(id, await ask("GET", `props?model=${encodeURIComponent(id)}`));
}

class Remote {
  #id;
  #props;

  constructor(id, props) {
    this.#id = id;
    this.#props = props;
  }

  /** Where the page begins: with what was taught before a reload, or with nothing. */
  async start() {
    const stream = await kept();
    if (stream?.model !== this.#id) return this.session();
    return new Start({ model: this.#id }, stream.id, true);
  }

  session({ memory = true } = {}) {
    return new Start({ model: this.#id, memory });
  }

  async describe() {
    const { parameters, provider } = this.#props;
    return parameters ? `${parameters.toLocaleString("en")} parameters, ${provider}` : provider;
  }
}

/** A stream to write from: of the server's once it has read something, until then none. */
class Start {
  #how;
  #stream;

  constructor(how, id, hasLearnt = false) {
    this.#how = how;
    this.#stream = id && Promise.resolve(id);
    this.hasLearnt = hasLearnt;
  }

  #open() {
    this.#stream ??= create(this.#how);
    return this.#stream;
  }

  async feed(text, signal) {
    await ask("POST", `v1/streams/${await this.#open()}/feed`, { text }, { signal });
  }

  /** Nats a token of a text; undefined where nothing can be measured. */
  async loss(text, signal) {
    try {
      const path = `v1/streams/${await this.#open()}/score`;
      return (await ask("POST", path, { text }, { signal })).nats_per_token;
    } catch (error) {
      if (error.status === 400) return undefined;
      throw error;
    }
  }

  /** A twin that has learnt a text. */
  async taught(text, signal) {
    const { id } = this.#stream
      ? await ask("POST", `v1/streams/${await this.#stream}/fork`)
      : { id: await create(this.#how) };
    try {
      await ask("POST", `v1/streams/${id}/learn`, { text }, { signal });
    } catch (error) {
      drop(id);
      throw error;
    }
    name(id);
    return new Start(this.#how, id, true);
  }

  /** Where a stream is that has read a text. */
  async at(text) {
    return new Place(text, (fields, signal) => this.#complete(fields, signal));
  }

  async #complete(fields, signal) {
    const id = await this.#stream;
    const path = id ? `v1/streams/${id}/completions` : "v1/completions";
    const from = id ? { advance: false } : { model: this.#how.model };
    return send("POST", path, { ...from, ...fields }, { signal });
  }

  async close() {
    const id = await this.#stream?.catch(() => undefined);
    if (id && location.hash === `#stream=${id}`) name();
    if (id) drop(id);
  }
}

class Place {
  #text;
  #complete;

  constructor(text, complete) {
    this.#text = text;
    this.#complete = complete;
  }

  /** The likeliest text after this one and another. */
  async #likeliest(start, signal, fields) {
    const how = { prompt: this.#text + start, temperature: 0, max_tokens: MOST };
    const response = await this.#complete({ ...how, ...fields }, signal);
    return (await response.json()).choices[0];
  }

  /** Texts that may follow: the likeliest beginnings, each continued to the end of its word. */
  async suggest(signal) {
    await wait(PAUSE);
    signal.throwIfAborted();
    const { text, logprobs } = await this.#likeliest("", signal, { logprobs: 3 });
    const likely = Object.entries(logprobs.top_logprobs[0] ?? {}).sort((a, b) => b[1] - a[1]);
    const suggestions = [];
    for (const [start] of likely) {
      if (!start || start.includes("\ufffd")) continue; // part of a character
      const isWritten = start === logprobs.tokens[0];
      const more = isWritten ? text.slice(start.length) : (await this.#likeliest(start, signal)).text;
      suggestions.push(start + (WORD.exec(more)?.[0] ?? ""));
    }
    return suggestions;
  }

  /** Writes. */
  async *write({ temperature, maxNewTokens, seed, signal }) {
    const how = { prompt: this.#text, max_tokens: maxNewTokens, temperature, seed };
    const stream = { stream: true, stream_options: { include_usage: true } };
    const response = await this.#complete({ ...how, ...stream }, signal);
    for await (const { choices, usage, error } of events(response)) {
      if (error) throw new Error(error.message);
      yield { text: choices.map(({ text }) => text).join(""), tokens: usage?.completion_tokens };
    }
  }

  close() {}
}

/** The events of an answer, as they come. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let waiting = ""; ; ) {
    const { done, value } = await reader.read();
    if (done) return;
    const whole = (waiting + value).split("\n\n");
    waiting = whole.pop();
    for (const event of whole) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

/** Says in the footer what else there is. */
export async function prepare(footer) {
  const link = Object.assign(document.createElement("a"), { href: "openapi.json", textContent: "openapi.json" });
  footer.append("The same over HTTP: ", link, ".");
}
