// Time of a greedy token: rillet's module beside onnxruntime-web with the bundle's decode.onnx.

/** One stream of decode.onnx, on one thread, as examples/javascript drives it. */
class GraphStream {
  static async open(ort, graph, table) {
    ort.env.wasm.numThreads = 1;
    const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
    const stream = new GraphStream();
    const kinds = { int32: Int32Array, int64: BigInt64Array, float32: Float32Array };
    stream.ort = ort;
    stream.session = session;
    stream.state = Object.fromEntries(
      table.map(({ name, shape, dtype }) => {
        const sizes = shape.map((size) => (size === "batch" ? 1 : size));
        const values = new kinds[dtype](sizes.reduce((product, size) => product * size, 1));
        return [name, new ort.Tensor(dtype, values, sizes)];
      })
    );
    return stream;
  }

  async step(token, learn) {
    const feeds = {
      input_ids: new this.ort.Tensor("int64", BigInt64Array.of(BigInt(token)), [1, 1]),
      learn: new this.ort.Tensor("float32", Float32Array.of(learn), [1]),
    };
    for (const name in this.state) feeds[`past.${name}`] = this.state[name];
    for (const name in feeds) if (!this.session.inputNames.includes(name)) delete feeds[name];
    const outputs = await this.session.run(feeds);
    for (const name in this.state) this.state[name] = outputs[`present.${name}`];
    return outputs.logits.data;
  }
}

function likeliest(logits) {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
  return best;
}

async function timeGraph(stream, prompt, count) {
  let logits;
  for (const token of prompt) logits = await stream.step(token, 1);
  const tokens = [];
  const start = performance.now();
  for (let i = 0; i < count; i++) {
    tokens.push(likeliest(logits));
    logits = await stream.step(tokens[i], 0);
  }
  return { time: (performance.now() - start) / count, tokens };
}

async function timeModule(model, prompt, count) {
  const session = model.session();
  await session.feedTokens(prompt);
  const start = performance.now();
  const text = await session.generate({ temperature: 0, maxNewTokens: count });
  const time = (performance.now() - start) / count;
  session.close();
  return { time, text };
}

/**
 * Takes turns, so that other work on the machine hits both; reports the median of each in
 * microseconds, the median of the ratios, and whether both wrote the same text.
 */
export async function compare(ort, load, folder, graph, { rounds = 7, tokens = 100 } = {}) {
  const model = await load(folder);
  const { golden, state } = model.manifest;
  const prompt = golden.prompt.slice(0, 32);
  const rows = [];
  let isSame = true;
  await timeModule(model, prompt, 4000); // until the compiler has done its best
  for (let round = 0; round < rounds; round++) {
    const other = await timeGraph(await GraphStream.open(ort, graph, state), prompt, tokens);
    const own = await timeModule(model, prompt, 20 * tokens);
    const text = other.tokens.map((token) => String.fromCharCode(...model.token(token))).join("");
    isSame &&= own.text.startsWith(text);
    rows.push({ own: own.time * 1000, other: other.time * 1000, ratio: other.time / own.time });
  }
  const median = (key) => rows.map((row) => row[key]).sort((a, b) => a - b)[rows.length >> 1];
  return { own: median("own"), other: median("other"), ratio: median("ratio"), isSame };
}
