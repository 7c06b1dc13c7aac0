// Fetches the files of a bundle. What they hold is checked by the engine.

const MOST_JSON = 16 * 1024 * 1024;
const MOST = 512 * 1024 * 1024;
const NEEDED = [
  "weights.safetensors",
  "tokenizer.json",
  "generation_config.json",
  "start_state.safetensors",
];

/** @typedef {(file: string, signal?: AbortSignal) => Promise<Response>} Reader */
/** @typedef {{ loaded: number, total: number | undefined }} Progress */

/** Reads files by HTTP. */
export function httpReader(/** @type {URL} */ folder) {
  return async (/** @type {string} */ file, /** @type {AbortSignal | undefined} */ signal) => {
    const url = new URL(file, folder);
    try {
      return await fetch(url, { signal });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Error(`${url} cannot be fetched (${message(error)}); is the server reachable?`);
    }
  };
}

function message(/** @type {unknown} */ error) {
  return error instanceof Error ? error.message : String(error);
}

/** Counts bytes over all files. */
class Meter {
  #loaded = 0;
  #total = 0;
  #isKnown = true;
  #report;

  constructor(/** @type {((progress: Progress) => void) | undefined} */ report) {
    this.#report = report;
  }

  expect(/** @type {Response} */ response) {
    const length = Number(response.headers.get("content-length") ?? NaN);
    this.#isKnown &&= length >= 0 && !response.headers.has("content-encoding");
    this.#total += length;
  }

  add(/** @type {number} */ bytes) {
    this.#loaded += bytes;
    this.#report?.({ loaded: this.#loaded, total: this.#isKnown ? this.#total : undefined });
  }
}

/** Reads a body to its end, or to the size that is too much. */
async function readBody(
  /** @type {Response} */ response,
  /** @type {string} */ name,
  /** @type {Meter} */ meter
) {
  const most = name.endsWith(".json") ? MOST_JSON : MOST;
  const parts = [];
  let length = 0;
  for await (const part of chunks(response, name)) {
    length += part.length;
    if (length > most) {
      throw new Error(
        `${name} has more than ${most.toLocaleString("en")} bytes; it was not written by rillet`
      );
    }
    parts.push(part);
    meter.add(part.length);
  }
  const whole = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

// Not `for await (… of response.body)`, which Safari lacks.
async function* chunks(/** @type {Response} */ response, /** @type {string} */ name) {
  const reader = response.body?.getReader();
  try {
    for (;;) {
      const { done, value } = (await reader?.read()) ?? { done: true, value: undefined };
      if (done) return;
      yield value;
    }
  } catch (error) {
    if (error instanceof Error && error.name === "AbortError") throw error;
    throw new Error(`${name} broke off (${message(error)}); load the model again`);
  } finally {
    reader?.cancel().catch(() => {});
  }
}

/** The names of the files to fetch besides bundle.json: none if that is damaged. */
function filesOf(/** @type {Uint8Array} */ manifest) {
  try {
    const files = JSON.parse(new TextDecoder().decode(manifest)).files ?? {};
    return NEEDED.filter((name) => name === "generation_config.json" || name in files);
  } catch {
    return []; // the engine says what is wrong
  }
}

/**
 * Fetches all that the engine reads.
 *
 * @param {string} folder What messages call the folder.
 * @param {Reader} read
 * @param {AbortSignal} [signal]
 * @param {(progress: Progress) => void} [report]
 * @returns {Promise<Map<string, Uint8Array>>}
 */
export async function fetchBundle(folder, read, signal, report) {
  const meter = new Meter(report);
  const open = async (/** @type {string} */ name) => {
    const response = await read(name, signal);
    if (!response.ok) {
      throw new Error(
        `${folder}/${name}: the server answers ${response.status}; ` +
          "give the address of the folder that `rillet export` wrote"
      );
    }
    meter.expect(response);
    return response;
  };
  const manifest = await readBody(await open("bundle.json"), "bundle.json", meter);
  const names = filesOf(manifest);
  const responses = await Promise.all(names.map(open));
  const contents = await Promise.all(names.map((name, i) => readBody(responses[i], name, meter)));
  return new Map([
    ["bundle.json", manifest],
    ...names.map((name, i) => /** @type {[string, Uint8Array]} */ ([name, contents[i]])),
  ]);
}
