// Files that are damaged, or made to harm: each ends in an error that says what to do.
import assert from "node:assert/strict";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { load } from "rillet";
import { NANO, copyBundle, plant, serve } from "./bundles.js";

const WEIGHTS = "weights.safetensors";

/** Loads it, from the disk and from a server; both must refuse. */
async function refuses(folder, expected) {
  await assert.rejects(load(folder), expected);
  const { address, close } = await serve({ "/": folder });
  await assert.rejects(load(address), expected);
  await close();
}

test("a planted file is taken, if it fits", async (t) => {
  const folder = await copyBundle(t);
  await plant(folder, WEIGHTS, await readFile(join(NANO, WEIGHTS)));
  await load(folder);
});

for (const name of [WEIGHTS, "tokenizer.json", "generation_config.json"]) {
  test(`${name} cut short`, async (t) => {
    const folder = await copyBundle(t);
    const content = await readFile(join(folder, name));
    await writeFile(join(folder, name), content.subarray(0, content.length - 1));
    await refuses(folder, /damaged or was changed: its SHA-256 is not the one in bundle.json; copy/);
  });

  test(`${name} missing`, async (t) => {
    const folder = await copyBundle(t);
    await rm(join(folder, name));
    await refuses(folder, /(cannot be read|the server answers 404).*give the/s);
  });
}

test("a manifest that was changed", async (t) => {
  const folder = await copyBundle(t);
  const path = join(folder, "bundle.json");
  await writeFile(path, (await readFile(path, "utf8")).replace('"sine_decay": 0.1', '"sine_decay": 0.2'));
  await refuses(folder, /bundle.json is damaged or was changed: its checksum/);
});

for (const [what, content, expected] of [
  ["no JSON", "<!doctype html>", /cannot be read as JSON; copy it again/],
  ["a list", "[]", /is not a JSON object; it was not written by rillet/],
  ["another format", '{"format": "else"}', /is not the manifest of a rillet bundle/],
  ["nested without end", "[".repeat(100_000), /cannot be read as JSON/],
  ["empty", "", /cannot be read as JSON/],
  [
    "of the future",
    '{"format": "rillet-bundle", "format_version": "2.0"}',
    /has format version "2.0", and this rillet.js reads 1.1; build a newer one/,
  ],
  ["too large", " ".repeat(17 * 1024 * 1024), /bundle.json has more than 16,777,216 bytes/],
]) {
  test(`a manifest that is ${what}`, async (t) => {
    const folder = await copyBundle(t);
    await writeFile(join(folder, "bundle.json"), content);
    await refuses(folder, expected);
  });
}

/** Weights whose header was changed. */
async function withHeader(change) {
  const content = await readFile(join(NANO, WEIGHTS));
  const length = Number(content.readBigUInt64LE(0));
  const header = Buffer.from(change(content.toString("utf8", 8, 8 + length)));
  const start = Buffer.alloc(8);
  start.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([start, header, content.subarray(8 + length)]);
}

for (const [what, change] of [
  ["sizes beyond all memory", (header) => header.replace(/"shape":\[65,/, '"shape":[6500000000,')],
  ["places outside the file", (header) => header.replace(/"data_offsets":\[0,/, '"data_offsets":[9999999999,')],
  ["no header", () => "]"],
]) {
  test(`weights with ${what}`, async (t) => {
    const folder = await copyBundle(t);
    const content = await withHeader(change);
    assert.notDeepEqual(content, await readFile(join(NANO, WEIGHTS)));
    await plant(folder, WEIGHTS, content);
    await refuses(folder, /cannot run .*weights.safetensors \(.+\); use `rillet generate`, or export/);
  });
}

test("a memory that no machine has", async (t) => {
  const folder = await copyBundle(t);
  const content = await readFile(join(NANO, WEIGHTS));
  const length = Number(content.readBigUInt64LE(0));
  const header = JSON.parse(content.toString("utf8", 8, 8 + length));
  const [from] = header["memory.capacity"].data_offsets;
  content.writeBigInt64LE(6n * 2n ** 30n, 8 + length + from);
  await plant(folder, WEIGHTS, content);
  await refuses(folder, /memory.capacity: the memory is empty or too large\); use `rillet/);
});

test("weights whose header is longer than the file", async (t) => {
  const folder = await copyBundle(t);
  const content = await readFile(join(NANO, WEIGHTS));
  content.writeBigUInt64LE(2n ** 63n, 0);
  await plant(folder, WEIGHTS, content);
  await refuses(folder, /shorter than its header/);
});

test("a tokenizer of another kind", async (t) => {
  const folder = await copyBundle(t);
  await plant(folder, "tokenizer.json", '{"model": {"type": "WordPiece", "vocab": {}}}');
  await refuses(folder, /rillet.js cannot read .*tokenizer.json \(.+\); use `rillet generate`/);
});

test("options that the module lacks", async (t) => {
  const folder = await copyBundle(t);
  await plant(folder, "generation_config.json", '{"bos_token_id": 0, "typical_p": 0.5}');
  const model = await load(folder);
  assert.throws(() => model.session().stream(), /typical_p, which rillet.js lacks; use `rillet/);
});

test("no folder, no server", async () => {
  await assert.rejects(load("/nowhere"), /bundle.json cannot be read .*give the folder/s);
  await assert.rejects(load("http://127.0.0.1:9/"), /cannot be fetched .*is the server reachable/s);
});

test("saved streams, damaged at every place", async () => {
  const model = await load(NANO);
  const session = model.session();
  await session.feed("ROMEO:");
  const file = session.save();
  const expected = /the saved stream cannot be restored \(.+\); give a file that session.save/;
  for (let i = 0; i < 60; i++) {
    const at = Math.floor((i / 60) ** 3 * file.length);
    const damaged = file.slice();
    damaged[at] ^= 1 << (i % 8);
    assert.throws(() => model.restore(damaged), expected, `byte ${at}`);
    assert.throws(() => model.restore(file.subarray(0, at)), expected, `${at} bytes`);
  }
  assert.equal(model.restore(file).position, 6);
});
