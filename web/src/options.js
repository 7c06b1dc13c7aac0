// How text is sampled: options as callers give them, and as the engine reads them.

/**
 * @typedef {object} SamplingOptions
 * @property {number} [maxNewTokens] Tokens to generate. The bundle's default, or 200.
 * @property {number} [temperature] Divides the logits; 0 takes the likeliest token.
 * @property {number} [topK] Keeps the likeliest tokens; 0 keeps all.
 * @property {number} [topP] Keeps the likeliest tokens that reach this probability.
 * @property {number} [minP] Keeps tokens at least this fraction as likely as the likeliest.
 * @property {number | bigint} [seed] The same seed gives the same text, here and in Python.
 * @property {string | string[]} [stop] Texts to end before.
 * @property {AbortSignal} [signal] Ends the stream with the signal's reason.
 */

const NAMES = /** @type {const} */ ({
  maxNewTokens: "max_new_tokens",
  temperature: "temperature",
  topK: "top_k",
  topP: "top_p",
  minP: "min_p",
  seed: "seed",
});

/** Refuses names that mean nothing, which are often misspelt. */
export function checkNames(/** @type {object} */ given, /** @type {readonly string[]} */ known) {
  if (given === null || typeof given !== "object") {
    throw new Error(`the options are ${given}; give an object, such as {temperature: 0.8}`);
  }
  for (const name of Object.keys(given)) {
    if (!known.includes(name)) {
      throw new Error(`there is no option ${name}; there are ${known.join(", ")}`);
    }
  }
}

function stopStrings(/** @type {unknown} */ stop) {
  const strings = Array.isArray(stop) ? stop : [stop];
  for (const one of strings) {
    if (typeof one !== "string" || one === "") {
      throw new Error(`stop has the entry ${JSON.stringify(one)}; each must be a non-empty text`);
    }
  }
  return strings;
}

/**
 * The options as JSON, for the engine, which checks the numbers.
 *
 * @param {SamplingOptions} options
 */
export function samplingJson(options) {
  checkNames(options, [...Object.keys(NAMES), "stop", "signal"]);
  const parts = [];
  for (const [name, key] of Object.entries(NAMES)) {
    const value = /** @type {Record<string, unknown>} */ (options)[name];
    if (value === undefined) continue;
    if (typeof value !== "bigint" && !Number.isFinite(value)) {
      throw new Error(`${name} is ${JSON.stringify(value) ?? value}; it must be a finite number`);
    }
    parts.push(`"${key}":${value}`);
  }
  if (options.stop !== undefined) parts.push(`"stop":${JSON.stringify(stopStrings(options.stop))}`);
  return `{${parts.join(",")}}`;
}
