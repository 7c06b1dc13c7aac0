// The module in node, on the bundles that are shipped: node --expose-gc --test web/test
import assert from "node:assert/strict";
import { join } from "node:path";
import { before, describe, test } from "node:test";

import { load } from "rillet";
import { BUNDLES, MODELS, NANO, goldenText, serve } from "./bundles.js";

let model;
before(async () => {
  model = await load(NANO);
});

const greedy = { temperature: 0, maxNewTokens: 40 };

function decode(one, tokens) {
  return new TextDecoder().decode(Uint8Array.from(tokens.flatMap((token) => [...one.token(token)])));
}

describe("the tokens that PyTorch chose", () => {
  for (const name of BUNDLES) {
    for (const simd of [true, false]) {
      test(`${name}, ${simd ? "with" : "without"} SIMD`, async () => {
        const one = await load(join(MODELS, name), { simd });
        const text = await goldenText(one);
        if (one.manifest.precision === "fp32") {
          assert.equal(text, decode(one, one.manifest.golden.greedy));
        }
      });
    }
  }
});

test("a bundle from a server, with its progress", async () => {
  const { address, close } = await serve({ "/": NANO });
  const seen = [];
  const one = await load(address, { onProgress: (progress) => seen.push(progress) });
  await close();
  assert.equal(await one.generate("ROMEO:", greedy), await model.generate("ROMEO:", greedy));
  const { loaded, total } = seen.at(-1);
  assert.equal(loaded, total);
  assert.ok(seen.length >= 4 && total > 700_000);
});

test("pieces are what generate returns", async () => {
  const pieces = [];
  for await (const piece of model.stream("ROMEO:", { seed: 7, maxNewTokens: 60 })) {
    assert.notEqual(piece, "");
    pieces.push(piece);
  }
  assert.equal(pieces.join(""), await model.generate("ROMEO:", { seed: 7, maxNewTokens: 60 }));
});

test("seeds of 64 bits, and none", async () => {
  const seed = 2n ** 64n - 1n;
  const options = { seed, maxNewTokens: 60 };
  assert.equal(await model.generate("A", options), await model.generate("A", options));
  const texts = new Set();
  for (let i = 0; i < 3; i++) texts.add(await model.generate("A", { maxNewTokens: 60 }));
  assert.equal(texts.size, 3);
});

test("a fork goes its own way", async () => {
  const session = model.session();
  await session.feed("JULIET:\nO ");
  const twin = session.fork();
  assert.equal(await session.generate(greedy), await twin.generate(greedy));
  await twin.feed("never ");
  assert.equal(twin.position, session.position + 6);
  assert.notDeepEqual(twin.logits, session.logits);
});

test("a fork continues the generation", async () => {
  const session = model.session();
  const options = { seed: 5, maxNewTokens: 80, stop: ["zebra", "\n\n\n\n"] };
  const pieces = session.stream(options);
  for (let i = 0; i < 20; i++) await pieces.next();
  const twin = session.fork();
  const rest = [];
  for await (const piece of session.resume()) rest.push(piece);
  session.close();
  let other = "";
  for await (const piece of twin.resume()) other += piece;
  assert.equal(other, rest.join(""));
});

test("what is learnt is predicted better, and the stream stays where it is", async () => {
  const text = "Our cat is called Mirabelle. Mirabelle sleeps on the warm stove.\n".repeat(2);
  const session = model.session();
  await session.feed("Dear diary, ");
  const { position } = session;
  const before = (await session.score(text)).natsPerToken;
  await session.learn(text);
  assert.equal(session.position, position);
  assert.ok((await session.score(text)).natsPerToken < before - 0.3);
  const without = model.session({ memory: false });
  await assert.rejects(without.learn(text), /opened with \{memory: false\}/);
});

test("stop strings", async () => {
  const session = model.session();
  await session.feed("ROMEO:\n");
  const all = await session.fork().generate({ temperature: 0, maxNewTokens: 300 });
  const stop = all.slice(50, 54);
  const text = await session.generate({ temperature: 0, maxNewTokens: 300, stop });
  assert.equal(text, all.slice(0, all.indexOf(stop)));
  assert.equal(session.finishReason, "stop");
  assert.equal(session.stopString, stop);
});

test("an abort ends the stream, which can be resumed", async () => {
  const session = model.session();
  const control = new AbortController();
  const options = { seed: 3, maxNewTokens: 200, signal: control.signal };
  const whole = await session.fork().generate({ seed: 3, maxNewTokens: 200 });
  let text = "";
  await assert.rejects(
    async () => {
      for await (const piece of session.stream(options)) {
        text += piece;
        if (text.length === 50) control.abort(new Error("enough"));
      }
    },
    { message: "enough" }
  );
  assert.equal(session.finishReason, undefined);
  for await (const piece of session.resume()) text += piece;
  assert.equal(text, whole);
  let more = "";
  for await (const piece of session.resume({ maxNewTokens: 7 })) more += piece;
  assert.equal(more.length, 7);
  await assert.rejects(load(NANO, { signal: AbortSignal.abort(new Error("never mind")) }), {
    message: "never mind",
  });
});

test("the page is served while a stream runs", async () => {
  let beats = 0;
  const timer = setInterval(() => beats++, 5);
  await model.generate("A", { maxNewTokens: 5_000 });
  clearInterval(timer);
  assert.ok(beats >= 3, `${beats} beats`);
});

/** Takes several slices of work. */
const LONG = "But soft, what light through yonder window breaks?\n".repeat(120);

describe("a reading that is aborted", () => {
  for (const [name, read] of [
    ["feed", (session, options) => session.feed(LONG, options)],
    ["feedTokens", (session, options) => session.feedTokens(model.encode(LONG), options)],
    ["learn", (session, options) => session.learn(LONG, options)],
    ["score", (session, options) => session.score(LONG, options)],
  ]) {
    test(name, async () => {
      const session = model.session();
      await session.feed("ROMEO:\n");
      const before = session.save();
      const control = new AbortController();
      const reading = read(session, { signal: control.signal });
      control.abort(new Error("enough")); // the first slices are read by now
      await assert.rejects(reading, { message: "enough" });
      assert.deepEqual(session.save(), before);
      const signal = AbortSignal.abort(new Error("never mind"));
      await assert.rejects(read(session, { signal }), { message: "never mind" });
      assert.deepEqual(session.save(), before);
      // Nothing stays behind: it can be read again, whole.
      const twin = session.fork();
      await read(session, { signal: new AbortController().signal });
      await read(twin);
      assert.deepEqual(twin.save(), session.save());
      assert.deepEqual(await session.generate(greedy), await twin.generate(greedy));
    });
  }

  test("and is timed by a signal", async () => {
    const session = model.session();
    const reading = session.feed(LONG.repeat(40), { signal: AbortSignal.timeout(30) });
    await assert.rejects(reading, { name: "TimeoutError" });
    assert.equal(session.position, 0);
  });

  test("of a prompt", async () => {
    const control = new AbortController();
    const text = model.generate(LONG, { signal: control.signal });
    control.abort(new Error("enough"));
    await assert.rejects(text, { message: "enough" });
  });
});

test("a long text is read in slices as it is at once", async () => {
  const [sliced, whole] = [model.session(), model.session()];
  await sliced.feed(LONG);
  for (const part of LONG.match(/[^]{1,100}/g)) await whole.feed(part);
  assert.deepEqual(sliced.save(), whole.save());
});

test("a session that reads is as it was, and does nothing else", async () => {
  const session = model.session();
  await session.feed("ROMEO:\n");
  const before = session.save();
  const reading = session.feed(LONG);
  assert.deepEqual(session.save(), before);
  const score = session.score("To be"); // of before
  const busy = /session is reading; await that, or fork it before/;
  await assert.rejects(session.feed("A"), busy);
  await assert.rejects(session.learn("A"), busy);
  assert.throws(() => session.stream(greedy), busy);
  assert.equal((await score).tokens, 5);
  assert.equal(await reading, LONG.length);
  assert.equal(session.position, 7 + LONG.length);
  const other = session.feed(LONG);
  session.close();
  await assert.rejects(other, /session is closed/);
});

test("saved, and restored", async () => {
  const session = model.session({ learn: "all" });
  await session.feed("ROMEO:\n");
  const pieces = session.stream({ seed: 11, maxNewTokens: 90, topP: 0.9, stop: "qqq" });
  for (let i = 0; i < 30; i++) await pieces.next();
  const file = session.save();
  const other = model.restore(file);
  assert.deepEqual(other.save(), file);
  assert.equal(other.learnMode, "all");
  let text = "";
  for await (const piece of other.resume()) text += piece;
  let expected = "";
  for await (const piece of pieces) expected += piece;
  assert.equal(text, expected);
});

test("one stream of a session at a time", async () => {
  const session = model.session();
  const first = session.stream(greedy);
  await first.next();
  session.stream(greedy);
  await assert.rejects(first.next(), /began another stream; fork it/);
});

test("scores", async () => {
  const score = await model.score("To be, or not to be");
  assert.equal(score.tokens, 18); // nothing predicts the first
  assert.equal(score.characters, 18);
  const sum = score.logprobs.reduce((total, one) => total - one, 0);
  assert.ok(Math.abs(sum - score.nats) < 1e-4);
  await assert.rejects(model.score("A"), /too short to score/);
});

test("characters without a token are named, and left out", async () => {
  const notes = [];
  const one = await load(NANO, { onNote: (note) => notes.push(note) });
  assert.equal(await one.session().feed("a水b"), 2);
  assert.match(notes[0], /never seen, and they were left out: '水'/);
  assert.equal((await one.score("ab水c")).unknownCharacters, 1);
});

test("the state can be looked at", async () => {
  const session = model.session();
  await session.feed("To be, or not to be");
  const { shape, values } = session.state("context_shares");
  assert.deepEqual(shape, [6, 2]);
  const total = values.reduce((sum, value) => sum + value, 0);
  assert.ok(total > 0 && total < 1);
  assert.ok(session.state("context_tokens").values instanceof BigInt64Array);
  assert.equal(session.state("nonsense"), undefined);
});

describe("memory", () => {
  test("does not grow with sessions that are closed", async () => {
    const session = model.session();
    await session.feed("ROMEO:\n");
    const cycle = async () => {
      const twin = session.fork();
      await twin.generate({ maxNewTokens: 5, stop: "zz" });
      const other = model.restore(twin.save());
      await other.learn("Mirabelle");
      other.close();
      await twin.feed(LONG.slice(0, 300));
      await assert.rejects(twin.learn(LONG, { signal: AbortSignal.timeout(0) }));
      assert.throws(() => model.restore(new Uint8Array(9)));
      assert.throws(() => twin.stream({ temperature: -1 }));
      twin.close();
    };
    for (let i = 0; i < 10; i++) await cycle();
    const { memoryBytes } = model;
    for (let i = 0; i < 200; i++) await cycle();
    assert.equal(model.memoryBytes, memoryBytes);
  });

  test("of sessions that nobody holds comes back", { skip: !globalThis.gc }, async () => {
    for (let round = 0; round < 30; round++) {
      for (let i = 0; i < 20; i++) model.session();
      globalThis.gc();
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    assert.ok(model.memoryBytes < 200 * 300_000, `${model.memoryBytes} bytes`);
  });

  test("that is asked for without end", async () => {
    const one = await load(NANO);
    const sessions = [];
    const take = () => {
      for (;;) sessions.push(one.session());
    };
    assert.throws(take, /there is no memory left; close sessions/);
    assert.ok(sessions.length > 1000);
    await sessions[0].feed("ROMEO:"); // what there is still works
    sessions[0].close();
    sessions[1].fork();
  });
});

test("what is closed says so", async () => {
  const one = await load(NANO);
  const session = one.session();
  session.close();
  session.close();
  await assert.rejects(session.feed("A"), /session is closed; open another/);
  one.close();
  assert.throws(() => one.session(), /model is closed; load it again/);
});

describe("options that cannot be", () => {
  const cases = [
    [{ temprature: 1 }, /no option temprature; there are maxNewTokens, temperature/],
    [{ temperature: -1 }, /temperature is -1; it must be 0 \(greedy\) or above/],
    [{ temperature: NaN }, /temperature is .*; it must be a finite number/],
    [{ temperature: "1" }, /temperature is "1"; it must be a finite number/],
    [{ topP: 0 }, /top_p is 0; it must lie above 0/],
    [{ topK: 1.5 }, /top_k is 1.5; it must be a whole number/],
    [{ seed: 2n ** 64n }, /seed is 18446744073709551616; it must be/],
    [{ stop: "" }, /stop has the entry ""/],
    [{ maxNewTokens: -1 }, /max_new_tokens is -1/],
    ["ROMEO", /options are ROMEO; give an object/],
  ];
  for (const [options, expected] of cases) {
    test(String(expected), () => {
      const session = model.session();
      assert.throws(() => session.stream(options), expected);
    });
  }

  test("of a session", async () => {
    assert.throws(() => model.session({ learn: "some" }), /learn is some; it must be one of/);
    assert.throws(() => model.session().resume(), /no generation to resume/);
    await assert.rejects(model.session().feedTokens([65]), /between 0 and 64; got 65/);
    assert.throws(() => model.token(65), /no token 65; the last is 64/);
  });
});
