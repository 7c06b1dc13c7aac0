// A model that is loaded: sessions begin here.
import { fetchBundle, httpReader } from "./bundle.js";
import { Engine, hasSimd } from "./engine.js";
import { checkNames, samplingJson } from "./options.js";
import { Session } from "./session.js";

/** @typedef {import("./options.js").SamplingOptions} SamplingOptions */

/**
 * @typedef {object} SessionOptions
 * @property {"read" | "all" | "none"} [learn] What the memory stores. "read" by default.
 * @property {boolean} [memory] Whether there is one. True by default.
 * @property {boolean} [taught] Begin with what the bundle was taught, if anything. True by default.
 */

/**
 * @typedef {object} LoadOptions
 * @property {AbortSignal} [signal] Gives up loading.
 * @property {(progress: import("./bundle.js").Progress) => void} [onProgress]
 * @property {(note: string) => void} [onNote] Told of characters that the model has never seen,
 *     which are left out. `console.warn` by default.
 * @property {boolean} [simd] Whether to compute with SIMD. What the browser can, by default.
 */

const MODES = ["read", "all", "none"];

export class Model {
  /** @type {Engine | undefined} */
  #engine;

  /** Made by `load`. */
  constructor(/** @type {Engine} */ engine, /** @type {Record<string, any>} */ manifest) {
    this.#engine = engine;
    /** The contents of bundle.json. */
    this.manifest = manifest;
  }

  get #open() {
    if (!this.#engine) throw new Error("the model is closed; load it again");
    return this.#engine;
  }

  /** Bytes of memory that the model and its sessions have. */
  get memoryBytes() {
    return this.#open.size;
  }

  /** Number of tokens in the vocabulary. */
  get vocabulary() {
    return this.#open.call("vocabulary");
  }

  /** The bytes of a token, perhaps a part of a character. */
  token(/** @type {number} */ token) {
    const bytes = this.#open.token(token);
    if (!bytes) throw new Error(`there is no token ${token}; the last is ${this.vocabulary - 1}`);
    return bytes;
  }

  /** The tokens of a text. */
  encode(/** @type {string} */ text) {
    return this.#open.encode(String(text));
  }

  /**
   * Begins a stream.
   *
   * @param {SessionOptions} [options]
   */
  session(options = {}) {
    checkNames(options, ["learn", "memory", "taught"]);
    const { learn = "read", memory = true, taught = true } = options;
    const mode = MODES.indexOf(learn);
    if (mode < 0) throw new Error(`learn is ${learn}; it must be one of ${MODES.join(", ")}`);
    const engine = this.#open;
    return new Session(
      engine,
      engine.call("open_session", mode, Number(memory), Number(taught)) >>> 0
    );
  }

  /**
   * Continues a prompt as a stream of its own, piece by piece.
   *
   * @param {string} prompt
   * @param {SamplingOptions} [options]
   * @returns {AsyncGenerator<string, void, void>}
   */
  async *stream(prompt, options = {}) {
    const session = this.session();
    try {
      samplingJson(options); // before a long prompt is read
      await session.feed(prompt, { signal: options.signal });
      yield* session.stream(options);
    } finally {
      session.close();
    }
  }

  /**
   * Continues a prompt, and returns the text whole.
   *
   * @param {string} prompt
   * @param {SamplingOptions} [options]
   */
  async generate(prompt, options) {
    let text = "";
    for await (const piece of this.stream(prompt, options)) text += piece;
    return text;
  }

  /**
   * Measures how well a new stream predicts a text.
   *
   * @param {string} text
   * @param {import("./session.js").ReadOptions} [options]
   */
  async score(text, options) {
    const session = this.session();
    try {
      return await session.score(text, options);
    } finally {
      session.close();
    }
  }

  /**
   * A session from what `session.save()` returned, here or in Python.
   *
   * @param {Uint8Array} file
   */
  restore(file) {
    const engine = this.#open;
    const pointer = engine.run((calls) =>
      calls.restore(engine.bring("the saved stream", file, false))
    );
    return new Session(engine, pointer >>> 0);
  }

  /** Lets go of the model. Sessions that are open keep its memory until they are closed. */
  close() {
    this.#engine = undefined;
  }
}

/** @type {Map<string, Promise<WebAssembly.Module>>} */
const modules = new Map();

async function compile(/** @type {Response} */ response) {
  if (!response.ok) throw new Error(`the server answers ${response.status}`);
  const type = response.headers.get("content-type") ?? "";
  // Streaming insists on the type; some servers do not know it.
  if (type.startsWith("application/wasm")) return WebAssembly.compileStreaming(response);
  return WebAssembly.compile(await response.arrayBuffer());
}

function loadModule(
  /** @type {(url: URL) => Promise<Response>} */ read,
  /** @type {boolean} */ simd
) {
  const name = simd ? "rillet-simd.wasm" : "rillet.wasm";
  const url = new URL(/* @vite-ignore */ `./${name}`, import.meta.url);
  const known = modules.get(name);
  if (known) return known;
  const module = read(url)
    .then(compile)
    .catch((error) => {
      modules.delete(name);
      throw new Error(
        `${url} cannot be loaded (${error.message}); serve it beside the module, ` +
          "and let the page's security policy allow 'wasm-unsafe-eval'"
      );
    });
  modules.set(name, module);
  return module;
}

/**
 * Loads a bundle with readers of its files and of the module's.
 *
 * @param {URL} folder
 * @param {LoadOptions} options
 * @param {(folder: URL) => import("./bundle.js").Reader} readerOf
 * @param {(url: URL) => Promise<Response>} readModule
 */
export async function loadWith(folder, options, readerOf, readModule) {
  checkNames(options, ["signal", "onProgress", "onNote", "simd"]);
  const { signal, onProgress, onNote = console.warn, simd = hasSimd() } = options;
  signal?.throwIfAborted();
  const name = folder.href.replace(/\/+$/, "");
  const files = fetchBundle(name, readerOf(folder), signal, onProgress);
  const [module, contents] = await Promise.all([loadModule(readModule, simd), files]);
  const engine = new Engine(module, onNote);
  engine.run((calls) => {
    for (const [file, content] of contents) engine.bring(`${name}/${file}`, content, true);
    calls.open_model(engine.giveText(name)[0]);
  });
  const manifest = JSON.parse(new TextDecoder().decode(contents.get("bundle.json")));
  return new Model(engine, manifest);
}

/** A folder's address, so that its files' are inside it. */
export function folderUrl(/** @type {string | URL} */ url, /** @type {string | URL} */ base) {
  const folder = new URL(url, base);
  if (!folder.pathname.endsWith("/")) folder.pathname += "/";
  return folder;
}

/** Reads by HTTP. */
export { httpReader };
