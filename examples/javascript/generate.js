// Streams text from a bundle's decode.onnx with onnxruntime-node alone, without rillet.
//
//     npm install --ignore-scripts          (the scripts would download CUDA libraries)
//     node generate.js ../../models/shakespeare-nano "ROMEO:" 200
//     node generate.js ../../models/shakespeare-nano --golden
//
// The last form reads the prompt of the golden record in bundle.json, and fails unless the greedy
// tokens are those that PyTorch chose. docs/bundle.md describes the contract.
"use strict";

const fs = require("fs");
const path = require("path");
const ort = require("onnxruntime-node");
const { Tokenizer } = require("./tokenizer.js");

/** What the bundle was taught: the bytes of the tensors that a stream begins with, by name. */
function taught(bundle) {
  const file = path.join(bundle, "start_state.safetensors");
  if (!fs.existsSync(file)) return {};
  const data = fs.readFileSync(file);
  const start = 8 + Number(data.readBigUInt64LE(0));
  const { __metadata__, ...tensors } = JSON.parse(data.toString("utf8", 8, start));
  for (const name in tensors) {
    const [from, to] = tensors[name].data_offsets;
    tensors[name] = Uint8Array.from(data.subarray(start + from, start + to)).buffer;
  }
  return tensors;
}

/**
 * One stream. Its state is a handful of tensors of fixed size, initially zeros, or what the bundle
 * was taught.
 */
class Stream {
  constructor(session, table, begin) {
    this.session = session;
    this.state = {};
    for (const row of table) {
      const shape = row.shape.map((size) => (size === "batch" ? 1 : size));
      const count = shape.reduce((product, size) => product * size, 1);
      const kinds = { int32: Int32Array, int64: BigInt64Array, float32: Float32Array };
      const values = new kinds[row.dtype](begin[row.name] ?? count);
      this.state[row.name] = new ort.Tensor(row.dtype, values, shape);
    }
  }

  static async open(bundle) {
    const manifest = JSON.parse(fs.readFileSync(path.join(bundle, "bundle.json"), "utf8"));
    if (!manifest.graphs.decode) throw new Error(`${bundle} has no graphs; export one with them`);
    const graph = path.join(bundle, manifest.graphs.decode.file);
    const session = await ort.InferenceSession.create(graph, { intraOpNumThreads: 1 });
    return [new Stream(session, manifest.state, taught(bundle)), manifest];
  }

  /** Reads a token, and stores it in the memory if `learn`; returns the next log-probabilities. */
  async step(token, learn) {
    const feeds = {
      input_ids: new ort.Tensor("int64", BigInt64Array.of(BigInt(token)), [1, 1]),
      learn: new ort.Tensor("float32", Float32Array.of(learn ? 1 : 0), [1]),
    };
    for (const name in this.state) feeds["past." + name] = this.state[name];
    // Remove inputs that the graph lacks.
    for (const name in feeds) if (!this.session.inputNames.includes(name)) delete feeds[name];
    const outputs = await this.session.run(feeds);
    for (const name in this.state) this.state[name] = outputs["present." + name];
    return outputs.logits.data;
  }
}

function greedy(logits) {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
  return best;
}

/** Draws from softmax(logits / temperature). */
function sample(logits, temperature) {
  const highest = logits[greedy(logits)];
  const weights = Array.from(logits, (logit) => Math.exp((logit - highest) / temperature));
  let left = Math.random() * weights.reduce((sum, weight) => sum + weight, 0);
  for (let i = 0; i < weights.length; i++) if ((left -= weights[i]) < 0) return i;
  return greedy(logits);
}

/**
 * Reads PyTorch's prompt, then the tokens that PyTorch chose, each of which must be the likeliest
 * here too. If two are closer than the tolerance, either counts; int8 has rounded weights.
 */
async function golden(bundle) {
  const [stream, manifest] = await Stream.open(bundle);
  const tolerance = manifest.precision === "fp32" ? 1e-3 : 1.0;
  let logits;
  for (const token of manifest.golden.prompt) logits = await stream.step(token, true);
  const expected = manifest.golden.greedy;
  for (let i = 0; i < expected.length; i++) {
    if (!(logits[greedy(logits)] - logits[expected[i]] <= tolerance)) {
      throw new Error(`token ${i + 1} of ${expected.length} is not the one that PyTorch chose`);
    }
    logits = await stream.step(expected[i], false); // generated tokens are not learnt
  }
  console.log(`${expected.length} greedy tokens match PyTorch's`);
}

/** Writes `count` tokens after the prompt; temperature 0 takes the likeliest each time. */
async function write(bundle, prompt, count, temperature) {
  const [stream] = await Stream.open(bundle);
  const tokenizer = new Tokenizer(path.join(bundle, "tokenizer.json"));
  const { tokens, unknown } = tokenizer.encode(prompt);
  if (unknown.length) {
    console.error(`left out, since the model has never seen them: ${unknown.join(" ")}`);
  }
  let logits;
  for (const token of tokens.length ? tokens : [startToken(bundle)]) {
    logits = await stream.step(token, true);
  }
  process.stdout.write(prompt);
  const decode = tokenizer.decoder();
  for (let i = 0; i < count; i++) {
    const token = temperature > 0 ? sample(logits, temperature) : greedy(logits);
    process.stdout.write(decode(token));
    logits = await stream.step(token, false);
  }
  process.stdout.write("\n");
}

/** What a stream reads first when the prompt has no token. */
function startToken(bundle) {
  const file = path.join(bundle, "generation_config.json");
  return JSON.parse(fs.readFileSync(file, "utf8")).bos_token_id;
}

async function main([bundle, prompt, count = "200", temperature = "0.8"]) {
  if (!bundle || prompt === undefined) {
    throw new Error("usage: node generate.js BUNDLE (PROMPT [COUNT [TEMPERATURE]] | --golden)");
  }
  if (prompt === "--golden") await golden(bundle);
  else await write(bundle, prompt, Number(count), Number(temperature));
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
