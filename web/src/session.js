// One stream of text: what it has read, its memory, and what it writes.
import { samplingJson, checkNames } from "./options.js";

/** @typedef {import("./engine.js").Engine} Engine */
/** @typedef {import("./options.js").SamplingOptions} SamplingOptions */

/**
 * How well a stream predicts a text, as in Python.
 *
 * @typedef {object} Score
 * @property {number} tokens Tokens predicted; not the first of a new stream.
 * @property {number} characters Characters of the text.
 * @property {number} bytes Bytes of the text.
 * @property {number} nats Sum of the tokens' negative log-probabilities.
 * @property {number} natsPerToken What training reports as the loss.
 * @property {number} perplexity
 * @property {number} unknownCharacters Characters without a token, which are left out.
 * @property {number} unknownBytes
 * @property {Float32Array} logprobs The log-probability of each token.
 */

/**
 * @typedef {object} ReadOptions
 * @property {AbortSignal} [signal] Ends the reading with the signal's reason; the session stays where
 *     it was.
 */

const SLICE = 8; // milliseconds between two pauses
const TOKENS = 16; // that are read between two looks at the clock

const encoder = new TextEncoder();

/** @typedef {{ engine: Engine, pointer: number }} Held */

/** @type {FinalizationRegistry<Held>} */
const forgotten = new FinalizationRegistry(({ engine, pointer }) => engine.call("close", pointer));

/** Characters of a text in UTF-8. */
const characters = (/** @type {Uint8Array} */ bytes) =>
  bytes.filter((byte) => (byte & 0xc0) !== 0x80).length;

/**
 * Lets the page draw, and signals arrive. Not by setTimeout, which browsers make wait.
 *
 * @returns {Promise<void>}
 */
function pause() {
  if (typeof setImmediate === "function") return new Promise((resolve) => setImmediate(resolve));
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(0);
  });
}

export class Session {
  #engine;
  /** @type {Held} */
  #held;
  #turn = 0;
  #isReading = false;

  /**
   * Made by `model.session()`, `model.restore()` and `session.fork()`.
   *
   * @param {Engine} engine
   * @param {number} pointer
   */
  constructor(engine, pointer) {
    this.#engine = engine;
    this.#held = { engine, pointer };
    forgotten.register(this, this.#held, this);
  }

  #open() {
    const { pointer } = this.#held;
    if (!pointer) throw new Error("the session is closed; open another with model.session()");
    return pointer;
  }

  /** For what changes the stream. */
  #alone() {
    if (this.#isReading) throw new Error("the session is reading; await that, or fork it before");
    return this.#open();
  }

  #look() {
    const at = this.#engine.call("look_at", this.#open());
    const view = this.#engine.view();
    const pointer = (/** @type {number} */ place) => view.getUint32(at + place, true);
    const text = (/** @type {number} */ place) =>
      pointer(place) ? this.#engine.text(pointer(place)) : undefined;
    return {
      position: view.getFloat64(at, true),
      learn: text(16),
      finishReason: text(20),
      stopString: text(24),
      memory: pointer(28) !== 0,
      canResume: pointer(36) !== 0,
      logits: pointer(40),
    };
  }

  /** Tokens read and written. */
  get position() {
    return this.#look().position;
  }

  /** What the memory stores: "read", "all" or "none". */
  get learnMode() {
    return this.#look().learn;
  }

  /** Whether the stream has a memory. */
  get memory() {
    return this.#look().memory;
  }

  /** What ended the last generation: "length", "stop", or undefined before its end. */
  get finishReason() {
    return this.#look().finishReason;
  }

  /** The stop string that ended it. */
  get stopString() {
    return this.#look().stopString;
  }

  /** Whether there is a generation to resume. */
  get canResume() {
    return this.#look().canResume;
  }

  /** Log-probabilities of the next token; undefined before anything was read. */
  get logits() {
    const { logits } = this.#look();
    if (!logits) return undefined;
    const count = this.#engine.call("vocabulary");
    return new Float32Array(this.#engine.copy(logits, 4 * count).buffer);
  }

  /**
   * Reads a text; returns how many tokens it is.
   *
   * @param {string} text
   * @param {ReadOptions} [options]
   */
  async feed(text, options) {
    this.#alone();
    const tokens = this.#engine.encode(String(text));
    await this.#read(tokens, options);
    return tokens.length;
  }

  /**
   * Reads tokens.
   *
   * @param {ArrayLike<number>} tokens
   * @param {ReadOptions} [options]
   */
  async feedTokens(tokens, options) {
    this.#alone();
    const most = this.#engine.call("vocabulary") - 1;
    const array = Int32Array.from(tokens);
    for (let i = 0; i < array.length; i++) {
      if (array[i] !== tokens[i] || array[i] < 0 || array[i] > most) {
        throw new Error(`tokens must lie between 0 and ${most}; got ${tokens[i]}`);
      }
    }
    await this.#read(array, options);
  }

  async #read(/** @type {Int32Array} */ tokens, /** @type {ReadOptions | undefined} */ options) {
    if (tokens.length <= TOKENS) return this.#slices("feed", this.#open(), tokens, options);
    await this.#apart("fork", async (twin) => {
      await this.#slices("feed", twin, tokens, options);
      const { pointer } = this.#held;
      this.#open();
      this.#held.pointer = twin;
      return pointer;
    });
  }

  /**
   * Does what takes a while with another stream, and returns when that is over; this one is as it was
   * until then.
   *
   * @param {string} call Makes that stream.
   * @param {(other: number) => Promise<number>} action Returns the stream that is not needed any more.
   */
  async #apart(call, action) {
    let other = this.#engine.call(call, this.#alone()) >>> 0;
    this.#isReading = true;
    try {
      other = await action(other);
    } finally {
      this.#isReading = false;
      this.#engine.call("close", other);
    }
  }

  /**
   * Has a stream read tokens, and pauses now and then.
   *
   * @param {string} call "feed" or "score".
   * @param {number} stream
   * @param {Int32Array} tokens
   * @param {ReadOptions} [options]
   * @param {(at: number, count: number) => void} [onSlice] Told what the call returned.
   */
  async #slices(call, stream, tokens, options = {}, onSlice) {
    checkNames(options, ["signal"]);
    options.signal?.throwIfAborted();
    let until = performance.now() + SLICE;
    for (let from = 0; from < tokens.length; from += TOKENS) {
      if (performance.now() > until) {
        await pause();
        options.signal?.throwIfAborted();
        until = performance.now() + SLICE;
      }
      const slice = tokens.slice(from, from + TOKENS);
      this.#engine.run((calls) => {
        const at = calls[call](stream, ...this.#engine.giveTokens(slice)) >>> 0;
        onSlice?.(at, slice.length);
      });
    }
  }

  /**
   * Reads a text into the memory alone: the stream continues where it is, and knows the text.
   *
   * @param {string} text
   * @param {ReadOptions} [options]
   */
  async learn(text, options) {
    this.#alone();
    if (!this.memory) {
      throw new Error("the session cannot learn: it was opened with {memory: false}");
    }
    const tokens = this.#engine.encode(String(text));
    await this.#apart("learn_begin", async (reader) => {
      await this.#slices("feed", reader, tokens, options);
      this.#engine.call("learn_end", this.#open(), reader);
      return reader;
    });
  }

  /**
   * Writes text, piece by piece. A piece is never part of a character or of a stop string.
   *
   * @param {SamplingOptions} [options]
   * @returns {AsyncGenerator<string, void, void>}
   */
  stream(options = {}) {
    const session = this.#alone();
    const json = samplingJson(options);
    this.#engine.run((calls) => calls.begin(session, ...this.#engine.giveText(json)));
    return this.#pieces(options.signal);
  }

  /**
   * Continues the last generation, here or in a file that was restored: its options, its random
   * numbers, and the text that it held back.
   *
   * @param {{ maxNewTokens?: number, signal?: AbortSignal }} [options]
   * @returns {AsyncGenerator<string, void, void>}
   */
  resume(options = {}) {
    const session = this.#alone();
    checkNames(options, ["maxNewTokens", "signal"]);
    samplingJson(options);
    if (!this.canResume) {
      throw new Error("the session has no generation to resume; begin one with stream()");
    }
    const tokens = options.maxNewTokens ?? -1;
    if (tokens !== -1 && !(Number.isSafeInteger(tokens) && tokens >= 0)) {
      throw new Error(`maxNewTokens is ${tokens}; it must be a whole number, 0 or above`);
    }
    this.#engine.call("extend", session, tokens);
    return this.#pieces(options.signal);
  }

  /** @returns {AsyncGenerator<string, void, void>} */
  async *#pieces(/** @type {AbortSignal | undefined} */ signal, turn = ++this.#turn) {
    let until = performance.now() + SLICE;
    for (let isOver = false; !isOver; ) {
      signal?.throwIfAborted();
      if (turn !== this.#turn) {
        throw new Error("the session began another stream; fork it to have two");
      }
      const session = this.#alone();
      const piece = this.#engine.step(session);
      isOver = this.#engine.call("is_over", session) !== 0;
      if (piece) yield piece;
      if (performance.now() < until) continue;
      await pause();
      until = performance.now() + SLICE;
    }
  }

  /**
   * Writes text, and returns it whole.
   *
   * @param {SamplingOptions} [options]
   */
  async generate(options) {
    let text = "";
    for await (const piece of this.stream(options)) text += piece;
    return text;
  }

  /**
   * Measures how well the stream would predict a text; it stays where it is.
   *
   * @param {string} text
   * @param {ReadOptions} [options]
   * @returns {Promise<Score>}
   */
  async score(text, options) {
    const session = this.#open();
    const engine = this.#engine;
    const bytes = encoder.encode(text);
    const tokens = engine.encode(text);
    const unpredicted = this.#look().logits ? 0 : 1;
    const logprobs = new Float32Array(Math.max(0, tokens.length - unpredicted));
    if (!logprobs.length) {
      throw new Error(
        "the text is too short to score: the first token of a stream has nothing before it; give " +
          "a text of at least two tokens"
      );
    }
    const first = /** @type {Uint8Array} */ (
      unpredicted ? engine.token(tokens[0]) : new Uint8Array()
    );
    const [unknownCharacters, unknownBytes] = engine.run((calls) =>
      new Float64Array(engine.copy(calls.unknown(engine.give(bytes), bytes.length), 16).buffer)
    );
    let done = 0;
    const twin = engine.call("fork", session) >>> 0;
    try {
      await this.#slices("score", twin, tokens, options, (at, count) => {
        if (!done) count -= unpredicted;
        logprobs.set(new Float32Array(engine.copy(at, 4 * count).buffer), done);
        done += count;
      });
    } finally {
      engine.call("close", twin);
    }
    const nats = logprobs.reduce((sum, logprob) => sum - logprob, 0);
    return {
      tokens: done,
      characters: characters(bytes) - characters(first),
      bytes: bytes.length - first.length,
      nats,
      natsPerToken: nats / done,
      perplexity: Math.exp(Math.min(nats / done, 700)),
      unknownCharacters,
      unknownBytes,
      logprobs,
    };
  }

  /**
   * A tensor of the stream's state: docs/bundle.md says what each holds.
   *
   * @param {string} name
   * @returns {{ shape: number[], values: Float32Array | Int32Array | BigInt64Array } | undefined}
   */
  state(name) {
    const session = this.#open();
    return this.#engine.run((calls) => {
      for (let index = 0, at; (at = calls.tensor(index) >>> 0); index++) {
        if (this.#engine.text(at) !== name) continue;
        const view = this.#engine.view();
        const Type = [Float32Array, Int32Array, BigInt64Array][view.getInt32(at + 24, true)];
        const shape = [32, 40]
          .slice(0, view.getInt32(at + 28, true))
          .map((place) => Number(view.getBigInt64(at + place, true)));
        const length = Number(view.getBigUint64(at + 48, true));
        const values = this.#engine.copy(calls.tensor_values(session, index) >>> 0, length);
        return { shape, values: new Type(values.buffer) };
      }
    });
  }

  /** A twin that continues from here on its own. */
  fork() {
    return new Session(this.#engine, this.#engine.call("fork", this.#open()) >>> 0);
  }

  /** The stream as a file: what Python's `Session.save` writes, and its `Model.restore` reads. */
  save() {
    const session = this.#open();
    return this.#engine.run((calls) => {
      const at = calls.save(session) >>> 0;
      return this.#engine.copy(at, calls.saved_length());
    });
  }

  /** Gives the session's memory back. Sessions that nobody holds any more are closed too. */
  close() {
    const { engine, pointer } = this.#held;
    if (!pointer) return;
    forgotten.unregister(this);
    engine.call("close", pointer);
    this.#held.pointer = 0;
  }
}
