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

const SLICE = 8; // milliseconds between two pauses of a stream

/** @type {FinalizationRegistry<{ engine: Engine, pointer: number }>} */
const forgotten = new FinalizationRegistry(({ engine, pointer }) => engine.call("close", pointer));

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
  #pointer;
  #turn = 0;

  /**
   * Made by `model.session()`, `model.restore()` and `session.fork()`.
   *
   * @param {Engine} engine
   * @param {number} pointer
   */
  constructor(engine, pointer) {
    this.#engine = engine;
    this.#pointer = pointer;
    forgotten.register(this, { engine, pointer }, this);
  }

  #open() {
    if (!this.#pointer) throw new Error("the session is closed; open another with model.session()");
    return this.#pointer;
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
   */
  feed(text) {
    const session = this.#open();
    return this.#engine.run((calls) => {
      const tokens = calls.encode(...this.#engine.giveText(String(text)));
      const count = calls.encoded_count();
      calls.feed(session, tokens, count);
      return count;
    });
  }

  /**
   * Reads tokens.
   *
   * @param {ArrayLike<number>} tokens
   */
  feedTokens(tokens) {
    const session = this.#open();
    const most = this.#engine.call("vocabulary") - 1;
    const array = Int32Array.from(tokens);
    for (let i = 0; i < array.length; i++) {
      if (array[i] !== tokens[i] || array[i] < 0 || array[i] > most) {
        throw new Error(`tokens must lie between 0 and ${most}; got ${tokens[i]}`);
      }
    }
    this.#engine.run((calls) =>
      calls.feed(session, this.#engine.give(new Uint8Array(array.buffer)), array.length)
    );
  }

  /**
   * Reads a text into the memory alone: the stream continues where it is, and knows the text.
   *
   * @param {string} text
   */
  learn(text) {
    const session = this.#open();
    if (!this.memory) {
      throw new Error("the session cannot learn: it was opened with {memory: false}");
    }
    this.#engine.run((calls) => calls.learn(session, ...this.#engine.giveText(String(text))));
  }

  /**
   * Writes text, piece by piece. A piece is never part of a character or of a stop string.
   *
   * @param {SamplingOptions} [options]
   * @returns {AsyncGenerator<string, void, void>}
   */
  stream(options = {}) {
    const session = this.#open();
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
    const session = this.#open();
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
      const piece = this.#engine.step(this.#open());
      isOver = this.#engine.call("is_over", this.#pointer) !== 0;
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
   * @returns {Score}
   */
  score(text) {
    const session = this.#open();
    return this.#engine.run((calls) => {
      const at = calls.measure(session, ...this.#engine.giveText(String(text))) >>> 0;
      const view = this.#engine.view();
      const [tokens, characters, bytes, nats, unknownCharacters, unknownBytes] = [0, 8, 16, 24, 32, 40].map(
        (place) => view.getFloat64(at + place, true)
      );
      const logprobs = this.#engine.copy(view.getUint32(at + 48, true), 4 * tokens);
      return {
        tokens,
        characters,
        bytes,
        nats,
        natsPerToken: nats / tokens,
        perplexity: Math.exp(Math.min(nats / tokens, 700)),
        unknownCharacters,
        unknownBytes,
        logprobs: new Float32Array(logprobs.buffer),
      };
    });
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
    if (!this.#pointer) return;
    forgotten.unregister(this);
    this.#engine.call("close", this.#pointer);
    this.#pointer = 0;
  }
}
