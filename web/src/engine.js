// The WebAssembly module: one instance for each model, and the calls into it.

/**
 * What the module exports: web/c/module.c. Pointers are numbers.
 *
 * @typedef {Record<string, (...values: number[]) => number>} Calls
 */

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

// A module that holds one instruction of SIMD.
const SIMD = Uint8Array.of(
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15,
  253, 98, 11
);

export function hasSimd() {
  return WebAssembly.validate(SIMD);
}

/** A number as Python's repr writes it, from the same shortest digits. */
function repr(/** @type {number} */ number) {
  const [, sign, digits, exponent] = /** @type {RegExpExecArray} */ (
    /^(-?)([\d.]+)e([+-]\d+)$/.exec(number.toExponential())
  );
  const power = Number(exponent);
  if (power < -4 || power >= 16) {
    const padded = String(Math.abs(power)).padStart(2, "0");
    return `${sign}${digits}e${power < 0 ? "-" : "+"}${padded}`;
  }
  const plain = String(number);
  return /[.]/.test(plain) ? plain : `${BigInt(number)}.0`;
}

export class Engine {
  /** @type {Calls} */
  #calls;
  /** @type {WebAssembly.Memory} */
  #memory;
  /** @type {WebAssembly.Global} */
  #stack;
  /** @type {number} */
  #stackTop;
  #bytes = new Uint8Array();

  /**
   * @param {WebAssembly.Module} module
   * @param {(text: string) => void} warn Called with notes.
   */
  constructor(module, warn) {
    const host = {
      fail: (/** @type {number} */ at, /** @type {number} */ length) => {
        throw new Error(this.text(at, length));
      },
      note: (/** @type {number} */ at, /** @type {number} */ length) => warn(this.text(at, length)),
      random: () => crypto.getRandomValues(new Uint32Array(1))[0],
      number: (/** @type {number} */ at, /** @type {number} */ length) => {
        const text = this.text(at, length);
        return text ? Number(text) : NaN;
      },
      repr: (/** @type {number} */ number, /** @type {number} */ at) =>
        encoder.encodeInto(repr(number), this.bytes.subarray(at)).written,
    };
    const exports = /** @type {any} */ (new WebAssembly.Instance(module, { host }).exports);
    this.#calls = exports;
    this.#memory = exports.memory;
    this.#stack = exports.__stack_pointer;
    this.#stackTop = this.#stack.value;
    exports.tidy();
  }

  /** All of the module's memory. */
  get bytes() {
    if (this.#bytes.buffer !== this.#memory.buffer) {
      this.#bytes = new Uint8Array(this.#memory.buffer);
    }
    return this.#bytes;
  }

  /**
   * Runs calls into the module, and gives back all that they took for themselves.
   *
   * @template T
   * @param {(calls: Calls) => T} action Copies what it wants to keep.
   * @returns {T}
   */
  run(action) {
    try {
      return action(this.#calls);
    } catch (error) {
      this.#stack.value = this.#stackTop;
      if (error instanceof WebAssembly.RuntimeError) {
        throw new Error(`the engine broke off (${error.message}); load the model again`);
      }
      throw error;
    } finally {
      this.#calls.tidy();
    }
  }

  /**
   * One call that takes nothing for itself.
   *
   * @param {string} name
   * @param {number[]} values
   */
  call(name, ...values) {
    return this.run((calls) => calls[name](...values));
  }

  /** Draws a token of a session; returns the text that can be shown now. */
  step(/** @type {number} */ session) {
    return this.run((calls) => {
      const length = calls.step(session);
      return length ? this.text(calls.shown_text(), length) : "";
    });
  }

  /** A text in the module's memory; without a length, one that ends with a zero. */
  text(/** @type {number} */ at, length = this.bytes.indexOf(0, at) - at) {
    return decoder.decode(this.bytes.subarray(at, at + length));
  }

  /** Hands over bytes; returns where they lie. */
  give(/** @type {Uint8Array} */ bytes) {
    const at = this.#calls.take(bytes.length + 1) >>> 0;
    this.bytes.set(bytes, at);
    return at;
  }

  /**
   * Hands over a text; returns where it lies, and its length in bytes.
   *
   * @returns {[number, number]}
   */
  giveText(/** @type {string} */ text) {
    const bytes = encoder.encode(text);
    return [this.give(bytes), bytes.length];
  }

  /** The tokens of a text; tells of characters that have none. */
  encode(/** @type {string} */ text) {
    return this.run((calls) => {
      const at = calls.encode(...this.giveText(text)) >>> 0;
      return new Int32Array(this.copy(at, 4 * calls.encoded_count()).buffer);
    });
  }

  /** The bytes of a token, if there is one. */
  token(/** @type {number} */ token) {
    const at = this.call("token_text", token) >>> 0;
    return at ? this.copy(at, this.call("token_length", token)) : undefined;
  }

  /** Hands over tokens, all of their buffer; returns where they lie, and how many there are. */
  giveTokens(/** @type {Int32Array} */ tokens) {
    const at = this.give(new Uint8Array(tokens.buffer));
    return /** @type {[number, number]} */ ([at, tokens.length]);
  }

  /**
   * Brings a file.
   *
   * @param {string} path
   * @param {Uint8Array} content
   * @param {boolean} lasts Whether the model keeps it.
   * @returns {number} Where its path lies.
   */
  bring(path, content, lasts) {
    const [name] = this.giveText(path);
    const at = this.#calls.bring(name, content.length, Number(lasts)) >>> 0;
    this.bytes.set(content, at);
    return name;
  }

  /** A copy of memory. */
  copy(/** @type {number} */ at, /** @type {number} */ length) {
    return this.bytes.slice(at, at + length);
  }

  /** Bytes that the module has, used or not. */
  get size() {
    return this.#memory.buffer.byteLength;
  }

  /** A view of the module's memory, good until the next call. */
  view() {
    return new DataView(this.#memory.buffer);
  }
}

