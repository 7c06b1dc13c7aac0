// The engine behind the page: rillet in WebAssembly, on this device. The server's page has another.
import { load } from "./rillet/index.js";
import { look, weigh } from "./memory.js";
import { Reader, suggest } from "./suggest.js";
import { drawWaves } from "./waves.js";

export const about = "Text from a small model, on this device alone. Nothing you type leaves it.";
export const looksInside = true;

/** The models that can be opened. */
export async function models() {
  const listed = await (await fetch("models.json")).json();
  return listed.map(({ label, folder }) => ({ label, id: folder }));
}

/** Opens a model. */
export async function open(folder, onProgress) {
  const url = new URL(folder, document.baseURI);
  // What has no token is left out.
  return new Local(await load(url, { onProgress, onNote: () => {} }));
}

class Local {
  #model;

  constructor(model) {
    this.#model = model;
  }

  /** Where the page begins. */
  async start() {
    return this.session();
  }

  session(options) {
    return new Start(this.#model, this.#model.session(options));
  }

  /** How large the model is, and how fast here. */
  async describe() {
    await this.#model.generate("", { maxNewTokens: 400 }); // until the compiler has done its best
    const begin = performance.now();
    await this.#model.generate("", { maxNewTokens: 400 });
    const each = `${Math.round((1000 * (performance.now() - begin)) / 400)} µs a token here`;
    const { parameters } = this.#model.manifest.training ?? {};
    return parameters ? `${parameters.toLocaleString("en")} parameters, ${each}` : each;
  }
}

/** A stream to write from. */
class Start {
  #model;
  #session;
  #reader;

  constructor(model, session, hasLearnt = false) {
    this.#model = model;
    this.#session = session;
    this.hasLearnt = hasLearnt;
  }

  async feed(text, signal) {
    await this.#session.feed(text, { signal });
  }

  /** Nats a token of a text; undefined where nothing can be measured. */
  async loss(text, signal) {
    try {
      return (await this.#session.score(text, { signal })).natsPerToken;
    } catch (error) {
      if (signal.aborted) throw error;
      return undefined;
    }
  }

  /** A twin that has learnt a text. */
  async taught(text, signal) {
    const twin = this.#session.fork();
    await twin.learn(text, { signal });
    return new Start(this.#model, twin, true);
  }

  /** Where a stream is that has read a text. */
  async at(text, signal) {
    this.#reader ??= new Reader(this.#session);
    return new Place(this.#model, await this.#reader.at(text, signal));
  }

  close() {
    this.#reader?.close();
    this.#session.close();
  }
}

class Place {
  #model;
  #session;

  constructor(model, session) {
    this.#model = model;
    this.#session = session;
  }

  /** Texts that may follow. */
  async suggest() {
    return suggest(this.#model, this.#session);
  }

  /** Writes; a look at the memory before each token tells what it gave. */
  async *write(options) {
    const pieces = this.#session.stream(options);
    for (let tokens = 1; ; tokens++) {
      const before = this.#session.logits && look(this.#session);
      const { value: text, done } = await pieces.next();
      if (done) return;
      const [token, ...more] = before ? this.#model.encode(text) : [];
      const isOne = token !== undefined && !more.length;
      yield { text, tokens, seen: isOne ? weigh(this.#model, before, token) : undefined };
    }
  }

  draw(canvas) {
    drawWaves(canvas, this.#session);
  }

  close() {
    this.#session.close();
  }
}

/** Keeps the page for when there is no network: first, so that it keeps what is loaded next. */
export async function prepare(footer) {
  try {
    await keep(footer);
  } catch {
    // Without HTTPS, browsers keep nothing.
  }
}

async function keep(footer) {
  const manifest = Object.assign(document.createElement("link"), { rel: "manifest", href: "app.webmanifest" });
  document.head.append(manifest);
  if (!navigator.serviceWorker) return;
  await navigator.serviceWorker.register("sw.js");
  await navigator.serviceWorker.ready;
  if (!navigator.serviceWorker.controller) {
    // It takes the page over soon, but not after a reload that goes past it.
    const taken = new Promise((resolve) => (navigator.serviceWorker.oncontrollerchange = resolve));
    await Promise.race([taken, new Promise((resolve) => setTimeout(resolve, 2000))]);
  }
  footer.textContent = "Kept on this device: the page also works offline.";
}
