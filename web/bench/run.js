// node web/bench/run.js [BUNDLE]: in node and in Chromium, one after the other, and the sizes.
import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import os from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync } from "node:zlib";

import { serve } from "../test/bundles.js";
import { launch, obstacle } from "../test/chromium.js";

const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const bundle = process.argv[2] ?? at("../../models/shakespeare-nano");

function report(where, { own, other, ratio, isSame }) {
  const times = `rillet ${own.toFixed(0)} µs, onnxruntime-web ${other.toFixed(0)} µs`;
  console.log(`${where}: ${times}, ${ratio.toFixed(1)} times; same text: ${isSame}`);
}

/** What a page fetches, compressed file by file. */
function sizes(wasm) {
  const names = readdirSync(at("../dist")).filter((name) => /\.js$/.test(name) && name !== "node.js");
  const files = [...names, wasm].map((name) => readFileSync(join(at("../dist"), name)));
  const total = (compress) => files.reduce((sum, file) => sum + compress(file).length, 0);
  const gzip = total((file) => execFileSync("gzip", ["-9"], { input: file, maxBuffer: 1e8 }));
  const brotli = total(brotliCompressSync);
  console.log(`${wasm} and the scripts: gzip -9 ${gzip} bytes, brotli ${brotli} bytes`);
}

async function inChromium() {
  const missing = await obstacle();
  if (missing) return console.log(`Chromium: ${missing}`);
  const server = await serve({
    "/ort/": at("../node_modules/onnxruntime-web/dist"),
    "/dist/": at("../dist"),
    "/bundle/": bundle,
    "/": at("."),
  });
  const browser = await launch();
  const page = await browser.newPage();
  await page.goto(`${server.address}page.html`);
  await page.waitForFunction(() => window.measure);
  report(`Chromium ${browser.version()}`, await page.evaluate(() => window.measure()));
  await browser.close();
  await server.close();
}

console.log(`${os.cpus()[0].model}, load ${os.loadavg()[0].toFixed(1)} on ${os.cpus().length} cores`);
sizes("rillet-simd.wasm");
sizes("rillet.wasm");
const output = execFileSync("node", [at("node.js"), bundle], { encoding: "utf8" });
report(`node ${process.version}`, JSON.parse(output));
await inChromium();
